"""Composition root: puts backends, budgets, telemetry and methods together for one config.

Owns what is loaded and in which order: the methods first (jsonrpcserver, pydantic: 0.1 s), because a client waits for
``offline/echo``, then LiteLLM (2 s). Refuses to know the server: it gets a request and returns a response.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from bridge_worker.config.source import Config
from bridge_worker.core.credentials import CredentialsInUse
from bridge_worker.engines.engine import HandBack
from bridge_worker.errors import BridgeError
from bridge_worker.runtime.dispatch import RunsInTasks
from bridge_worker.runtime.event_loop import close_in_time
from bridge_worker.runtime.loader import Loader, Part
from bridge_worker.runtime.reload import NO_ENGINES
from bridge_worker.version import __version__

if TYPE_CHECKING:
    from bridge_worker.backends.litellm.chat import LiteLLM
    from bridge_worker.backends.local.chat import Local
    from bridge_worker.backends.registry import Backend, Registry
    from bridge_worker.budgets.spending import Spending
    from bridge_worker.budgets.store import Store
    from bridge_worker.cassettes.journal import Recording
    from bridge_worker.config.settings import Settings
    from bridge_worker.core.credentials import CredentialSource
    from bridge_worker.core.ports import Notify
    from bridge_worker.methods.chat import Chat
    from bridge_worker.methods.dispatcher import Dispatcher
    from bridge_worker.protocol.session import Response, Start
    from bridge_worker.runtime.shared_state import SharedState
    from bridge_worker.security.redaction import Redactor
    from bridge_worker.system.redis_connection import RedisLink
    from bridge_worker.telemetry.otlp import Telemetry

_LOOK_SECONDS = 0.05
_QUIET_LOOKS = 4  # in a row without a request in flight
_MOST_PATIENCE_SECONDS = 2.0
_log = logging.getLogger(__name__)


class App(RunsInTasks):
    """Serves requests from `start` on, which loads in a thread. A part that failed to load is an error for the requests that need
    it.

    ``embedded``: in a host's process. Only `chat` is used then, LiteLLM is loaded on first use, and the host may set it otherwise
    at any time. ``early``: in an engine without LiteLLM, which hands back what it can't serve. ``shared``: what the server process
    has for all engines, when this is one; budget accounts are in a Redis that the config names. ``credentials`` are the client's.
    """

    def __init__(
        self,
        config: Config,
        redactor: Redactor,
        *,
        preload_local: bool = False,
        preload_rest: bool = True,
        embedded: bool = False,
        early: bool = False,
        shared: SharedState | None = None,
        credentials: CredentialSource | None = None,
    ) -> None:
        self._config = config
        self._redactor = redactor
        self._early = early
        self._shared = shared
        source_of_keys = shared.credentials if shared else credentials
        self._credentials = CredentialsInUse(source_of_keys, redactor) if source_of_keys else None
        self._preload_local = preload_local
        self._preloads_rest = preload_rest
        self._embedded = embedded
        self._dispatcher = Part("the bridge's methods", self._make_dispatcher)
        self._litellm = Part("LiteLLM", self._load_litellm, on_demand=embedded)
        self._served: LiteLLM | None = None  # None until it is loaded
        self._local: Local | None = None
        self._telemetry: Telemetry | None = None
        self._journal: Recording | None = None
        self._redis: RedisLink | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._litellm_version: str | None = None
        self._started = time.monotonic()
        self._warm_ms = 0.0
        self._has_rehearsed = False
        self._in_flight = 0

    def start(self, output: object = None) -> None:
        """Call it once, in the loop that serves. ``output`` is not needed: requests wait for the client themselves."""
        self._started = time.monotonic()
        self._loop = asyncio.get_running_loop()
        later: list[Callable[[], object]] = [self._start_local, self._litellm.load]
        if self._preloads_rest:
            later += [self._wait_for_quiet, self._preload_rest]
        Loader([self._dispatcher.load, *(() if self._early or self._only_replays else later)]).start()

    # The dispatch port.

    def state(self) -> Mapping[str, object]:
        """``engine`` on the wire."""
        if self._only_replays:
            return {"name": "cassette", "version": __version__, "ready": True}
        return {"name": "litellm", "version": self._litellm_version, "ready": self._served is not None}

    def degraded(self) -> list[dict[str, str]] | None:
        """``status.degraded``: what of the bridge does not fit the installed LiteLLM; None until all is rehearsed that this process
        rehearses ahead."""
        if self._only_replays:
            return []
        from bridge_worker.backends.litellm import setup

        return setup.degraded() if self._has_rehearsed or not self._preloads_rest else None

    async def dispatch(self, start: Start, received: float, notify: Notify) -> Response:
        self._in_flight += 1
        try:
            return await (await self._dispatcher.get()).dispatch(start, received, notify)
        finally:
            self._in_flight -= 1

    async def ready(self) -> Mapping[str, object]:
        if self._early:
            return {}
        await (self._dispatcher if self._only_replays else self._litellm).get()
        return {"engine": self.state(), "warmMs": self._warm_ms}

    @property
    def _only_replays(self) -> bool:
        """A cassette serves every request: LiteLLM is not imported, and no connection is opened."""
        settings = self.settings()
        return settings.replay is not None and settings.replay_miss == "error"

    # What else a process needs of it.

    def unserved(self) -> list[str]:
        """What LiteLLM does not take of the config; empty until it is loaded."""
        return list(map(str, self._served.rejected)) if self._served else []

    def redis_state(self) -> Mapping[str, object]:
        from bridge_worker.system.redis_connection import no_redis

        return self._redis.state() if self._redis else no_redis()

    def settings(self) -> Settings:
        return self._config.settings

    def chat(self) -> Chat:
        """The method ``chat`` alone, made in the calling thread."""
        from bridge_worker.backends.local.chat import Local
        from bridge_worker.budgets.spending import Spending
        from bridge_worker.methods.chat import Chat

        self._local = Local(self.settings().local)
        return Chat(self._registry(self._local), self.settings, Spending())

    async def aclose(self) -> None:
        parts = [part for part in (self._served, self._telemetry) if part is not None]
        closing: list[Awaitable[None]] = [close_in_time(part.aclose) for part in parts]
        if self._journal is not None:
            closing.append(asyncio.to_thread(self._journal.close))
        await asyncio.gather(*closing, return_exceptions=True)

    # Parts, each made in the loading thread.

    def _make_dispatcher(self) -> Dispatcher:
        from bridge_worker.backends.local.chat import Local
        from bridge_worker.methods.dispatcher import Dispatcher
        from bridge_worker.methods.status import GetStatus
        from bridge_worker.methods.table import method_table
        from bridge_worker.runtime.served_backends import serve_by
        from bridge_worker.telemetry.otlp import from_environment
        from bridge_worker.telemetry.request_counters import RequestCounters

        self._telemetry = from_environment(os.environ)
        counters, spending = RequestCounters(), self._make_spending()
        self._local = Local(self.settings().local)
        status = GetStatus(counters, self.state, self.redis_state, self.degraded)
        served = serve_by(self._registry(self._local), self.settings, self._redactor, self._shared and self._shared.fault_counters)
        self._journal = served.journal
        methods = method_table(served.backends, self.settings, spending, self._redactor, status, _refuse_reload, *served[1:])
        return Dispatcher(methods, self._redactor, counters, self._telemetry)

    def _make_spending(self) -> Spending:
        from bridge_worker.budgets.spending import Spending
        from bridge_worker.config.redis_settings import find_redis

        self._redis = None if self._only_replays else find_redis(self._config.gateway)
        if self._redis is not None:
            self._run_in_loop(self._redis.watch)
        budgets, tasks = self._shared[:2] if self._shared else (None, None)
        return Spending(lambda: self.settings().budgets, _redis_store(self._redis) or budgets, tasks)

    def _registry(self, local: Local) -> Registry:
        from bridge_worker.backends.registry import Registry

        return Registry(local, self._backend, lambda: self._config.configured, only_offline=self._early)

    async def _backend(self) -> Backend:
        if self._early:
            raise HandBack
        return await self._litellm.get()

    def _start_local(self) -> None:
        if self._preload_local and self._local is not None:
            self._run_in_loop(self._local.preload)

    def _load_litellm(self) -> Backend:
        from bridge_worker.backends.litellm import setup
        from bridge_worker.system.versions import litellm_version

        # Before LiteLLM's import: a hanging import blocks imports in every thread, and pydantic's first validation, on the loop,
        # imports what this loads.
        self._litellm_version = litellm_version()
        setup.prepare(self.settings().image_policy)
        from bridge_worker.backends.litellm.warm_up import warm_up

        config = self._config
        if not self._embedded and config.needs_completion:
            warm_up()  # before the config's callbacks are on, which would hear of it
        backend = self._make_backend()
        self._warm_ms = round((time.monotonic() - self._started) * 1000, 1)
        return backend

    def _make_backend(self) -> Backend:
        """Raises LiteLLM's error for a Router that it can't make."""
        from bridge_worker.backends.litellm import router_copies, setup, usage_limits
        from bridge_worker.backends.litellm.chat import LiteLLM
        from bridge_worker.backends.litellm.rehearsal import rehearse
        from bridge_worker.backends.litellm.router_redis import share
        from bridge_worker.backends.litellm.services import LiteLLMServices
        from bridge_worker.backends.registry import Backend

        config = self._config
        litellm = LiteLLM(
            config.gateway,
            self._local,
            self._loop,
            local_services=config.settings.local_services,
            engine=config.settings.engine,
            remembers=not self._embedded,
            credentials=self._credentials,
        )
        setup.set_switches(self.settings().image_policy)  # the gateway's settings may have set them otherwise
        for diagnostic in litellm.rejected:
            _log.error("a part of the config is not served: %s", diagnostic)
        if self._loop is not None:
            share(litellm.router, self._redis, self._loop)
        if self._shared is not None:
            usage_limits.count_in(self._shared.usage)
            if self._redis is None or not self._redis.installed:
                router_copies.share(litellm.router, litellm.lane, self._shared.copies, self._shared.texts)
        rehearse(litellm, is_wrapped=self._embedded or config.needs_completion)
        self._served = litellm
        return Backend(litellm, LiteLLMServices(litellm))

    def _wait_for_quiet(self) -> None:
        """The first chats have the processor, not what is loaded ahead."""
        quiet, end = 0, time.monotonic() + _MOST_PATIENCE_SECONDS
        while quiet < _QUIET_LOOKS and time.monotonic() < end:
            time.sleep(_LOOK_SECONDS)
            quiet = 0 if self._in_flight else quiet + 1

    def _preload_rest(self) -> None:
        """Loads parts that only some providers need; the first chat does not wait for them."""
        try:
            if self._served is not None:
                from bridge_worker.backends.litellm.rehearsal import rehearse_rest

                rehearse_rest(self._served)
        except Exception:  # the first request that needs it gets the error
            _log.warning("what other chats need could not be loaded ahead", exc_info=True)
        finally:
            self._has_rehearsed = True

    def _run_in_loop(self, work: Callable[[], Coroutine[Any, Any, object]]) -> None:
        if self._loop is not None:
            asyncio.run_coroutine_threadsafe(work(), self._loop)


def _redis_store(redis: RedisLink | None) -> Store | None:
    if redis is None or not redis.installed:
        return None
    from bridge_worker.budgets.redis_store import RedisStore

    return RedisStore(redis)


async def _refuse_reload() -> dict[str, Any]:
    raise BridgeError("invalid_request", NO_ENGINES)
