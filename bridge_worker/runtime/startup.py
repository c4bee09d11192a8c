"""Serving on stdin and stdout: flags, wiring, exit codes.

Owns the order in which a process starts and ends. Refuses to know anything that a test might want to try without a process.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NoReturn

from bridge_worker.config.settings import FLAGS, SETTINGS, Settings, flag
from bridge_worker.config.source import Config, ConfigError, Source
from bridge_worker.runtime.app import Engine
from bridge_worker.runtime.server import Server
from bridge_worker.runtime.stdio import Stdio, claim_descriptors
from bridge_worker.security import url_policy
from bridge_worker.security.redaction import Redactor
from bridge_worker.system.process_watch import watch_parent, watch_process, watch_reader
from bridge_worker.telemetry.log import LineWriter, set_up

if TYPE_CHECKING:
    from bridge_worker.trace.recorder import Recorder

EXIT_USAGE = 2
EXIT_INTERNAL = 70
_EXIT_LOG_SECONDS = 0.2  # what a slow reader of stderr gets at the end
_CLOSE_SECONDS = 2.0  # what LiteLLM's callbacks get at the end
_EXECUTOR_THREADS = 32  # LiteLLM prepares each call in one; asyncio's own default is 6 on two cores, and one may hang in DNS
_FILES = 65_536

_log = logging.getLogger(__name__)


def serve(arguments: Sequence[str], isolated: bool) -> NoReturn:
    """Never returns: the process is ended here, without the second that LiteLLM's exit handlers take."""
    options = parser().parse_args(arguments)
    source = _source(options)
    if options.check_config:
        _end(lambda: _check(source))
    if not options.stdio and not options.print_config:
        fail("say --stdio to serve, or omni-bridge --help for the commands")
    try:
        config = source.load()
    except ConfigError as error:
        fail(str(error))
    if options.print_config:
        _end(lambda: _print(config))
    code, writer = _serve(config, source, isolated, preload_local=options.local)
    writer.flush(_EXIT_LOG_SECONDS)
    os._exit(code)


def _source(options: argparse.Namespace) -> Source:
    given = {name: getattr(options, name) for name in FLAGS if getattr(options, name) is not None}
    return Source(options.config or os.environ.get("OMNI_BRIDGE_CONFIG"), given)


def _serve(config: Config, source: Source, isolated: bool, *, preload_local: bool) -> tuple[int, LineWriter]:
    os.umask(0o077)
    os.environ.update(config.environment)
    redactor = Redactor(os.environ)
    for secret in config.secrets:
        redactor.add(secret)
    descriptors = claim_descriptors()
    writer = set_up(config.settings.log_level, config.settings.log_format, redactor.redact)
    recorder = _recorder(config.settings, redactor)
    _raise_file_limit()
    url_policy.use(config.settings.image_policy)
    if not isolated:
        _log.warning("the working directory or PYTHONPATH has a say in what code runs here; start bin/omni-bridge, or python -I")
    for warning in config.warnings:
        _log.warning("the config: %s", warning)
    try:
        engine = Engine(config, redactor, source=source, preload_local=preload_local)
        # Not asyncio.run(), nor closing the runner: they wait for executor threads, one of which may hang for good.
        return asyncio.Runner().run(_run(config.settings, engine, recorder, *descriptors)), writer
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


async def _run(settings: Settings, engine: Engine, recorder: Recorder | None, source: int, sink: int) -> int:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(_EXECUTOR_THREADS, thread_name_prefix="executor"))
    pipe = Stdio(source, sink)

    def nobody_is_left() -> None:
        loop.call_soon_threadsafe(pipe.break_off)

    server = Server(
        recorder.traced(pipe) if recorder else pipe,
        engine,
        max_message_bytes=settings.max_message_bytes,
        max_in_flight=settings.max_in_flight,
        grace_seconds=settings.grace_seconds,
        watch_process=lambda pid: watch_process(pid, nobody_is_left),
    )
    watch_reader(sink, nobody_is_left)
    watch_parent(nobody_is_left)
    hang_up = engine.reload_soon if engine.reloadable else server.stop
    for name, handler in {"SIGTERM": server.stop, "SIGINT": server.stop, "SIGHUP": hang_up}.items():
        with contextlib.suppress(AttributeError, NotImplementedError):  # Windows has neither the last nor this call
            loop.add_signal_handler(getattr(signal, name), handler)
    engine.start()
    code = await server.run()
    with contextlib.suppress(Exception):
        await asyncio.wait_for(engine.aclose(), _CLOSE_SECONDS)
    if recorder:
        recorder.close()
    return code


def parser() -> argparse.ArgumentParser:
    flags = _Parser(
        prog="omni-bridge",
        usage="omni-bridge --stdio [flags]",
        description="Serves one agent: line-delimited JSON-RPC 2.0 on stdin and stdout.",
        add_help=False,  # --help is a person's, and tells of these too
        allow_abbrev=False,
    )
    flags.add_argument("--stdio", action="store_true", help="serve until stdin ends")
    flags.add_argument(
        "--local", action="store_true", help="load the models of this machine ahead; bin/omni-bridge installs llama.cpp"
    )
    flags.add_argument("--check-config", action="store_true", help="tell every mistake in the config, a line each, and exit")
    flags.add_argument("--print-config", action="store_true", help="print what is in force, and where each part is from, and exit")
    flags.add_argument("--config", metavar="FILE", help="a LiteLLM gateway's config.yaml; only its models exist then")
    for name in FLAGS:  # their values are checked with those of variables and the file
        about = SETTINGS[name].metadata
        flags.add_argument(flag(name), metavar=about["metavar"] or "|".join(about["choices"]), help=about["help"])
    return flags


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        fail(f"{message}; see omni-bridge --help")


def _check(source: Source) -> int:
    from bridge_worker.runtime.check_config import check_config  # LiteLLM

    return check_config(source)


def _print(config: Config) -> int:
    from bridge_worker.config.render import printed  # for a person, who waits longer than an agent

    os.write(1, printed(config).encode())
    return 0


def _end(work: Callable[[], int]) -> NoReturn:
    """Of what prints something and exits; whoever reads it may stop early, as head does."""
    code = EXIT_INTERNAL
    with contextlib.suppress(BrokenPipeError):
        code = work()
    os._exit(code)


def fail(message: str) -> NoReturn:
    with contextlib.suppress(OSError):  # nobody has to listen
        os.write(2, f"omni-bridge: {' '.join(message.split())}\n".encode("utf-8", "backslashreplace"))
    os._exit(EXIT_USAGE)


def _raise_file_limit() -> None:
    """A thousand chats are a thousand sockets; the usual soft limit is 1,024 descriptors."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
