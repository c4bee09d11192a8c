"""What the template process loads and what an engine process runs; a program that becomes a template process.

Owns the order in which both start. Refuses to know how they are forked and watched (`engines`).
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import pickle
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NoReturn

from bridge_worker import invariants
from bridge_worker.config.source import Config, Source
from bridge_worker.engines.board import Board
from bridge_worker.engines.engine import Engine, Notifier, receive_setup
from bridge_worker.engines.template import Rows, Template, ignore_terminal
from bridge_worker.runtime.event_loop import close_in_time, closing_seconds, set_executor
from bridge_worker.system.child_processes import end_with_parent
from bridge_worker.system.descriptors import keep_from_children

if TYPE_CHECKING:
    from bridge_worker.backends.litellm.chat import LiteLLM
    from bridge_worker.protocol.session import Response, Start
    from bridge_worker.runtime.app import App
    from bridge_worker.security.redaction import Redactor

PROGRAM = "bridge_worker.runtime.engine_process"  # this module, run as one
_FLUSH_SECONDS = 0.2
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Setup:
    """What an engine receives first. ``redactor`` knows the secrets of the environment and the config. ``source`` has the
    environment before any config, ``environment`` what the config of the start added to it, in the template too. ``preload_rest``:
    the engine loads and rehearses what chats of any format need, else what is needed when it is."""

    config: Config
    source: Source
    environment: Mapping[str, str]
    redactor: Redactor
    preload_local: bool
    preload_rest: bool
    early: bool


def encode_setup(setup: Setup) -> bytes:
    """Only processes of this worker read it."""
    config = replace(setup.config, document=None, notes=())
    return pickle.dumps(replace(setup, config=config, redactor=setup.redactor.without_held()))


def run_template(
    control: socket.socket, server: int, *, has_router: bool = True, is_wrapped: bool = True, has_rest: bool = True
) -> NoReturn:
    """``has_router``: the first chat needs LiteLLM's Router. ``is_wrapped``: it needs LiteLLM's completion and its wrapper.
    ``has_rest``: it also loads what chats of any format need, which its engines share then."""
    logging.disable()  # an engine that has the same to log does so in the log's format
    load = functools.partial(_load, has_router=has_router, is_wrapped=is_wrapped)
    Template(control, load_early, load, load_rest if has_rest else _load_nothing, rehearse_all, run_engine).run(server)


def load_early() -> None:
    from bridge_worker.backends import registry  # noqa: F401
    from bridge_worker.methods import dispatcher, status, table  # noqa: F401
    from bridge_worker.runtime import app, served_backends, shared_state  # noqa: F401
    from bridge_worker.telemetry import otlp  # noqa: F401


def _load(*, has_router: bool, is_wrapped: bool) -> None:
    """All that the first chat needs and that does not depend on a config. A failure is each engine's own, which reports it."""
    try:
        load_litellm(has_router=has_router, is_wrapped=is_wrapped)
    except BaseException as error:  # SystemExit too, which an imported module may raise
        os.write(2, f"the template process could not load LiteLLM: {type(error).__name__}\n".encode())


def load_litellm(*, has_router: bool = True, is_wrapped: bool = True) -> None:
    from bridge_worker.backends.litellm import setup
    from bridge_worker.security.url_policy import UrlPolicy

    setup.prepare(UrlPolicy())
    from bridge_worker.backends.litellm import router_redis  # noqa: F401
    from bridge_worker.backends.litellm.patches.table import install_for_router
    from bridge_worker.backends.litellm.rehearsal import rehearse
    from bridge_worker.backends.litellm.services import LiteLLMServices  # noqa: F401
    from bridge_worker.backends.litellm.warm_up import warm_up, warm_up_pricing
    from bridge_worker.methods.params import validate_chat

    validate_chat({"model": "warm-up", "messages": [{"role": "user", "content": "hi"}]})  # pydantic builds its validators
    warm_up_pricing()
    if is_wrapped:
        warm_up()
    if has_router:
        install_for_router()  # loads the Router, which all engines share then
    rehearse(_litellm(), is_wrapped=is_wrapped)


def _load_nothing() -> Iterator[None]:
    yield


def load_rest() -> Iterator[None]:
    """What chats of other formats need, short of threads, in steps. A failure is each engine's own, which reports it."""
    with suppress(BaseException):
        from bridge_worker.backends.litellm.rehearsal import rehearse_without_threads
        from bridge_worker.backends.litellm.warm_up import warm_up_openai

        warm_up_openai()
        yield
        yield from rehearse_without_threads()


def rehearse_all() -> Rows:
    """What of the bridge does not fit the installed LiteLLM, of all that chats may need. It loads 40 MiB and starts threads."""
    from bridge_worker.backends.litellm import setup

    with suppress(BaseException):  # an engine that fails in the same place reports it
        from bridge_worker.backends.litellm.rehearsal import rehearse_rest

        rehearse_rest(_litellm())
    return setup.degraded()


def _litellm() -> LiteLLM:
    """Without a config."""
    from bridge_worker.backends.litellm.chat import LiteLLM
    from bridge_worker.backends.local.chat import Local
    from bridge_worker.config.settings import DEFAULTS

    return LiteLLM(local=Local(DEFAULTS.local))


def run_engine(end: socket.socket, log: int, board: int) -> NoReturn:
    """Runs in a process that was forked from the template, or spawned, to its end."""
    setup: Setup = pickle.loads(receive_setup(end))  # noqa: S301  # from the server process
    from bridge_worker.runtime.reload import set_environment
    from bridge_worker.telemetry.log import set_up

    set_environment(setup.source, setup.environment, setup.config.environment)
    settings = setup.config.settings
    logging.disable(logging.NOTSET)
    writer = set_up(settings.log_level, settings.log_format, setup.redactor.redact, log)
    keep_from_children(end.fileno(), log)
    progress = Board(board)
    os.close(board)
    code = 0
    try:
        asyncio.Runner().run(_serve(setup, end, progress))
    except Exception:
        _log.critical("an engine process failed", exc_info=True)
        code = 70
    writer.flush(_FLUSH_SECONDS)
    os._exit(code)


async def _serve(setup: Setup, end: socket.socket, board: Board) -> None:
    from bridge_worker.runtime.app import App
    from bridge_worker.runtime.shared_state import remote_state
    from bridge_worker.system.resources import memory_bytes

    set_executor()

    async def call(name: str, arguments: Mapping[str, object]) -> object:
        return await engine.call(name, arguments)

    shared = remote_state(call)
    app = App(
        setup.config,
        setup.redactor,
        preload_local=setup.preload_local,
        preload_rest=setup.preload_rest,
        early=setup.early,
        shared=shared,
    )

    def report() -> Mapping[str, object]:
        degraded = app.degraded() if not setup.early else None
        found = invariants.violations()
        return {"memory_bytes": memory_bytes(), "redis": app.redis_state(), "degraded": degraded, "violations": found}

    engine = Engine(_Noted(app), board, report, shared.copies.receive)
    app.start()
    await engine.run(end)
    await close_in_time(app.aclose, closing_seconds(setup.config.settings))
    await close_in_time(shared.copies.flush)  # after the callbacks, which count failures


class _Noted:
    """`App`, with requests that note on the engine's board how far they are."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def ready(self) -> Mapping[str, object]:
        return {**await self._app.ready(), "unserved": list(self._app.unserved())}

    async def dispatch(self, start: Start, received: float, notify: Notifier) -> Response:
        from bridge_worker.core.progress import on_progress

        on_progress(notify.note_progress)
        return await self._app.dispatch(start, received, notify)


def _main(*descriptors: int, server: int) -> NoReturn:
    """``server`` is the parent process. A template gets one descriptor, an engine that is spawned three."""
    for fd in descriptors:
        os.set_inheritable(fd, False)
    end = socket.socket(fileno=descriptors[0])
    if len(descriptors) == 1:
        run_template(end, server)
    end_with_parent(server)
    ignore_terminal()
    run_engine(end, *descriptors[1:])


if __name__ == "__main__":  # `engines.template_process` spawns it
    _main(*map(int, sys.argv[1:-1]), server=int(sys.argv[-1]))
