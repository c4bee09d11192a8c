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
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn

from bridge_worker import urls
from bridge_worker.config import Config, ConfigError, load_config
from bridge_worker.engine import Engine
from bridge_worker.framing import DEFAULT_MAX_MESSAGE_BYTES
from bridge_worker.lifeline import watch_parent, watch_process, watch_reader
from bridge_worker.logs import LineWriter, set_up
from bridge_worker.redact import Redactor
from bridge_worker.server import GRACE_SECONDS, Server
from bridge_worker.session import DEFAULT_MAX_IN_FLIGHT
from bridge_worker.stdio import Stdio, claim_descriptors

EXIT_USAGE = 2
EXIT_INTERNAL = 70
_EXIT_LOG_SECONDS = 0.2  # what a slow reader of stderr gets at the end
_CLOSE_SECONDS = 2.0  # what LiteLLM's callbacks get at the end
_EXECUTOR_THREADS = 32  # LiteLLM prepares each call in one; asyncio's own default is 6 on two cores, and one may hang in DNS
_FILES = 65_536
# Each is a flag and, as OMNI_BRIDGE_..., an environment variable.
_VARIABLES = ("config", "max-message-bytes", "max-in-flight", "grace-seconds", "log-level", "log-format")

_log = logging.getLogger(__name__)


def serve(arguments: Sequence[str], isolated: bool) -> NoReturn:
    """Never returns: the process is ended here, without the second that LiteLLM's exit handlers take."""
    options = parser().parse_args([*_from_environment(), *arguments])
    if not options.stdio:
        fail("say --stdio to serve, or omni-bridge --help for the commands")
    try:
        config = load_config(options.config)
    except ConfigError as error:
        fail(str(error))
    code, writer = _serve(options, config, isolated)
    writer.flush(_EXIT_LOG_SECONDS)
    os._exit(code)


def _serve(options: argparse.Namespace, config: Config, isolated: bool) -> tuple[int, LineWriter]:
    os.umask(0o077)
    redactor = Redactor(os.environ)
    for secret in config.secrets:
        redactor.add(secret)
    descriptors = claim_descriptors()
    writer = set_up(options.log_level, options.log_format, redactor.redact)
    _raise_file_limit()
    urls.use(config.image_policy)
    if not isolated:
        _log.warning("the working directory or PYTHONPATH has a say in what code runs here; start bin/omni-bridge, or python -I")
    if config.writable:
        _log.warning("the config can be changed by %s, who can thereby read every key: chmod go-w it", config.writable)
    if config.ignored:
        _log.warning("the config's %s have no effect here yet", ", ".join(config.ignored))
    try:
        # Not asyncio.run(), nor closing the runner: they wait for executor threads, one of which may hang for good.
        return asyncio.Runner().run(_run(options, Engine(config, redactor, preload_local=options.local), *descriptors)), writer
    except Exception:
        _log.critical("the bridge failed", exc_info=True)
        return EXIT_INTERNAL, writer


async def _run(options: argparse.Namespace, engine: Engine, source: int, sink: int) -> int:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(_EXECUTOR_THREADS, thread_name_prefix="executor"))
    pipe = Stdio(source, sink)

    def nobody_is_left() -> None:
        loop.call_soon_threadsafe(pipe.break_off)

    server = Server(
        pipe,
        engine,
        max_message_bytes=options.max_message_bytes,
        max_in_flight=options.max_in_flight,
        grace_seconds=options.grace_seconds,
        watch_process=lambda pid: watch_process(pid, nobody_is_left),
    )
    watch_reader(sink, nobody_is_left)
    watch_parent(nobody_is_left)
    for name in ("SIGTERM", "SIGINT", "SIGHUP"):
        with contextlib.suppress(AttributeError, NotImplementedError):  # Windows has neither the last nor this call
            loop.add_signal_handler(getattr(signal, name), server.stop)
    engine.start()
    code = await server.run()
    with contextlib.suppress(Exception):
        await asyncio.wait_for(engine.aclose(), _CLOSE_SECONDS)
    return code


def parser() -> argparse.ArgumentParser:
    flags = _Parser(
        prog="omni-bridge",
        usage="omni-bridge --stdio [flags]",
        description="Serves one agent: line-delimited JSON-RPC 2.0 on stdin and stdout.",
        add_help=False,  # --help is a person's, and tells of these too
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    flags.add_argument("--stdio", action="store_true", help="serve until stdin ends")
    flags.add_argument(
        "--local", action="store_true", help="load the models of this machine ahead; bin/omni-bridge installs llama.cpp"
    )
    option = flags.add_argument
    option("--config", metavar="FILE", help="a LiteLLM gateway's config.yaml; only its models exist then")
    option("--max-message-bytes", type=_positive, default=DEFAULT_MAX_MESSAGE_BYTES, help="longest line that is read")
    option("--max-in-flight", type=_positive, default=DEFAULT_MAX_IN_FLIGHT, help="most requests at once; one more is overloaded")
    option("--grace-seconds", type=_seconds, default=GRACE_SECONDS, help="what SIGTERM leaves to requests in flight")
    option("--log-level", choices=["debug", "info", "warning", "error"], default="warning", help="info is a line a request")
    option("--log-format", choices=["json", "text"], default="json", help="of the log on stderr")
    return flags


def _from_environment() -> Iterator[str]:
    """The variables as flags, so that they are read and refused in the same way. Flags that come later win."""
    for name in _VARIABLES:
        if value := os.environ.get("OMNI_BRIDGE_" + name.upper().replace("-", "_")):
            yield f"--{name}={value}"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        fail(f"{message}; see omni-bridge --help")


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _seconds(text: str) -> float:
    if not 0 <= (number := float(text)) < float("inf"):
        raise argparse.ArgumentTypeError("must be a number of seconds")
    return number


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
