"""Serving on stdin and stdout: flags, wiring, exit codes.

Owns the order in which a process starts and ends. Refuses to know anything that a test might want to try without a process.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

from bridge_worker.config.settings import DEFAULTS, Settings
from bridge_worker.config.source import Config, ConfigError, Source
from bridge_worker.runtime.app import App
from bridge_worker.runtime.client_credentials import ClientCredentials
from bridge_worker.runtime.event_loop import close_in_time, closing_seconds, set_executor
from bridge_worker.runtime.exit_codes import EXIT_INTERNAL, end_with, fail
from bridge_worker.runtime.flags import config_source, parser
from bridge_worker.runtime.once import Journal, Once
from bridge_worker.runtime.reload import NO_ENGINES
from bridge_worker.runtime.server import Server
from bridge_worker.runtime.stdio import Stdio
from bridge_worker.security.redaction import Redactor
from bridge_worker.system.descriptors import claim_descriptors, write_all
from bridge_worker.system.engine_starts import are_forked, can_be_started
from bridge_worker.system.process_watch import watch_parent, watch_process, watch_reader
from bridge_worker.system.resources import raise_file_limit
from bridge_worker.system.signals import handle_signals, reset_signals
from bridge_worker.telemetry.log import LineWriter, set_up

if TYPE_CHECKING:
    from bridge_worker.engines.template_process import EngineStarter
    from bridge_worker.runtime.pooled_app import PooledApp
    from bridge_worker.trace.recorder import Recorder

_OF_CASSETTES = ("record", "replay", "replay_miss", "replay_timing", "match_ignore")
_KILL_SECONDS = 2.0  # more than the supervisor takes beyond what an engine may, until it kills what is left
_GC_THRESHOLD = 10_000  # of the server process: with Python's 700 a tenth of a chat's cost there are collections that find nothing
_EXIT_LOG_SECONDS = 0.2  # what a slow reader of stderr gets at the end
_UNSEEN = (
    "process %d, the processId of initialize, is not visible from here (another container or PID namespace, or it has ended); "
    "the worker ends with its parent process or its pipes instead"
)
_log = logging.getLogger(__name__)


def serve(arguments: Sequence[str], isolated: bool) -> NoReturn:
    """Never returns: the process is ended here, without the second that LiteLLM's exit handlers take."""
    options = parser().parse_args(arguments)
    source = config_source(options)
    if options.check_config:
        end_with(lambda: _check(source, strict=options.strict))
    if not options.stdio and not options.print_config:
        fail("no mode given: add --stdio to serve an agent, or run omni-bridge --help for the commands")
    try:
        config = source.load(runs_commands=not options.print_config)
    except ConfigError as error:
        fail(str(error))
    if options.print_config:
        end_with(lambda: _print(config))
    try:
        code, writer = _serve(config, source, isolated, preload_local=options.local)
    except (OSError, RuntimeError) as error:  # no descriptor, no thread: before there is a log
        fail(f"the worker can't start: {error}; check ulimit -n and ulimit -u", EXIT_INTERNAL)
    writer.flush(_EXIT_LOG_SECONDS)
    os._exit(code)


def _serve(config: Config, source: Source, isolated: bool, *, preload_local: bool) -> tuple[int, LineWriter]:
    reset_signals()
    os.umask(0o077)
    os.environ.update(config.environment)
    redactor = Redactor(os.environ)
    for secret in config.secrets:
        redactor.add(secret)
    descriptors = claim_descriptors()
    has_engines = config.settings.engines and can_be_started() and config.settings.replay is None  # a replay counts its requests
    starter = _start_engines(config) if has_engines else None  # before the first thread
    writer = set_up(config.settings.log_level, config.settings.log_format, redactor.redact)
    recorder = _recorder(config.settings, redactor)
    _check_cassettes(config.settings)
    journal = _journal(config.settings)
    raise_file_limit()
    if not isolated:
        _log.warning(
            "not isolated: code from the working directory or PYTHONPATH can be imported; "
            "start with bin/omni-bridge or python -I -m bridge_worker"
        )
    if config.settings.engines and not has_engines and config.sources.get("engines", "default") != "default":
        _log.warning("--engines has no effect with --replay and on Windows: one process serves all requests")
    for warning in config.warnings:
        _log.warning("the config: %s", warning)
    try:
        app: App | PooledApp
        credentials = ClientCredentials(redactor)
        if starter is not None:
            gc.freeze()  # a collection looks at what requests have made, not at modules
            gc.set_threshold(_GC_THRESHOLD)
            app = _pooled(config, source, redactor, starter, writer, credentials, preload_local=preload_local)
        else:
            app = App(config, redactor, credentials=credentials, preload_local=preload_local)
        running = _run(config.settings, app, credentials, recorder, journal, *descriptors, has_file=bool(source.path))
        # Not asyncio.run(), nor closing the runner: they wait for executor threads, one of which may hang for good.
        return asyncio.Runner().run(running), writer
    except Exception:
        _log.critical("the bridge failed", exc_info=True)
        return EXIT_INTERNAL, writer


def _recorder(settings: Settings, redactor: Redactor) -> Recorder | None:
    if settings.trace is None:
        return None
    from bridge_worker.trace.recorder import Recorder, TraceError, open_trace  # who wants no trace need not wait for it

    try:
        return Recorder(open_trace(settings.trace), redactor.redact, content=settings.trace_content == "full")
    except TraceError as error:
        fail(str(error))


def _journal(settings: Settings) -> Journal | None:
    if settings.idempotency_journal is None:
        return None
    from bridge_worker.runtime.once_journal import JournalError, SqliteJournal

    try:
        return SqliteJournal(settings.idempotency_journal)
    except JournalError as error:
        fail(str(error))


def _check_cassettes(settings: Settings) -> None:
    """Every error of the files now, and the header of a new one, which engine processes append to later."""
    if not any(getattr(settings, name) != getattr(DEFAULTS, name) for name in _OF_CASSETTES):
        return
    from bridge_worker.cassettes.checks import check_cassettes
    from bridge_worker.cassettes.writer import CassetteError

    try:
        check_cassettes(settings)
    except CassetteError as error:
        fail(str(error))


def _start_engines(config: Config) -> EngineStarter:
    from bridge_worker.engines.template_process import SpawnedEngines, fork_template
    from bridge_worker.runtime.engine_process import PROGRAM, run_template

    if not are_forked():
        return SpawnedEngines(PROGRAM)
    run = functools.partial(
        run_template,
        has_router=config.configured,
        is_wrapped=config.needs_completion,
        has_rest=config.settings.engines > 1,  # a single engine loads what it needs
    )
    return fork_template(run)


def _pooled(
    config: Config,
    source: Source,
    redactor: Redactor,
    starter: EngineStarter,
    writer: LineWriter,
    credentials: ClientCredentials,
    *,
    preload_local: bool,
) -> PooledApp:
    from bridge_worker.runtime.pooled_app import PooledApp

    return PooledApp(config, source, redactor, starter, writer.write_line, credentials, preload_local=preload_local)


async def _run(
    settings: Settings,
    app: App | PooledApp,
    credentials: ClientCredentials,
    recorder: Recorder | None,
    journal: Journal | None,
    source: int,
    sink: int,
    *,
    has_file: bool,
) -> int:
    loop = asyncio.get_running_loop()
    set_executor()
    pipe = Stdio(source, sink)

    def on_reader_gone() -> None:
        loop.call_soon_threadsafe(pipe.break_off)

    server = Server(
        recorder.traced(pipe) if recorder else pipe,
        Once(app, journal),
        keeps_lines=not isinstance(app, App),
        max_message_bytes=settings.max_message_bytes,
        max_in_flight=settings.max_in_flight,
        grace_seconds=settings.grace_seconds,
        on_credentials=credentials.connect,
        watch_process=lambda pid: watch_process(pid, on_reader_gone, lambda: _log.warning(_UNSEEN, pid)),
    )
    watch_reader(sink, on_reader_gone)
    watch_parent(on_reader_gone)
    handle_signals(loop, stop=server.stop, hang_up=_on_hang_up(app, server, has_file=has_file))
    if recorder and not isinstance(app, App):
        app.on_loss = recorder.put_loss
    app.start(pipe)
    code = await server.run()
    await close_in_time(app.aclose, closing_seconds(settings) + _KILL_SECONDS)
    if recorder:
        recorder.close()
    return code


def _on_hang_up(app: App | PooledApp, server: Server, *, has_file: bool) -> Callable[[], object]:
    """A reload where there is a config; else the terminal has closed."""
    if not has_file:
        return server.stop
    if isinstance(app, App):
        return lambda: _log.error("the config was not reloaded: %s", NO_ENGINES)
    return app.reloads.reload_soon


def _check(source: Source, *, strict: bool) -> int:
    from bridge_worker.runtime.check_config import check_config  # LiteLLM

    return check_config(source, strict=strict)


def _print(config: Config) -> int:
    from bridge_worker.config.render import render_config  # for a person, who waits longer than an agent

    write_all(1, render_config(config).encode())
    return 0
