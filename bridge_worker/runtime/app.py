"""What is loaded behind the first answers, in what order, and who waits for it.

Owns the one thread of late imports: first the methods (jsonrpcserver, pydantic: 0.1 s), then LiteLLM (2 s) and its warm-up. They
are late because an agent waits for ``initialize``, and a pipe user for ``offline/echo``. Refuses to know what is asked of them.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from bridge_worker.config.diff import changes, merged
from bridge_worker.config.source import Config, ConfigError, Source
from bridge_worker.errors import BridgeError
from bridge_worker.runtime.reload import refused, set_environment
from bridge_worker.security import url_policy

if TYPE_CHECKING:
    from bridge_worker.backends.litellm.chat import LiteLLM
    from bridge_worker.backends.local.chat import Local
    from bridge_worker.budgets.limits import Store
    from bridge_worker.core.ports import Model, Services
    from bridge_worker.methods.dispatcher import Methods
    from bridge_worker.security.redaction import Redactor
    from bridge_worker.system.redis_connection import RedisLink
    from bridge_worker.telemetry.otlp import Telemetry

LOAD_SECONDS = 60.0  # it takes 2-5 s; a disk that needs longer than this has another problem

T = TypeVar("T")
_log = logging.getLogger(__name__)


class Engine:
    """Loads in its own thread from `start` on. What failed to load is an error for every request that needs it, and no other."""

    def __init__(self, config: Config, redactor: Redactor, *, source: Source | None = None, preload_local: bool = False) -> None:
        self._config = config
        self._source = source
        self._reloading = asyncio.Lock()
        self._reloads: set[asyncio.Task[dict[str, Any]]] = set()
        self._preload_local = preload_local
        self._redactor = redactor
        self._methods: _Part[Methods] = _Part("the bridge's methods")
        self._local: Local | None = None
        self._model: _Part[LiteLLM] = _Part("LiteLLM")
        self._ordinary: LiteLLM | None = None  # the model, or what is behind it
        self._services: Services | None = None
        self._telemetry: Telemetry | None = None
        self._version: str | None = None
        self._redis: RedisLink | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._started = 0.0
        self.warm_ms = 0.0

    def start(self) -> None:
        """Call it once, in the loop that will wait."""
        self._started = time.monotonic()
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._load, args=(self._loop,), name="engine", daemon=True).start()

    def state(self) -> Mapping[str, object]:
        """``engine`` on the wire."""
        return {"name": "litellm", "version": self._version, "ready": self._model.value is not None}

    async def methods(self) -> Methods:
        return await self._methods.get(self._started)

    async def find(self, name: str) -> Model:
        """The model that serves ``name``. Raises BridgeError ``internal`` when LiteLLM can't be loaded."""
        return await self._model.get(self._started)

    async def services(self) -> Services:
        """What LiteLLM does beside chat. Raises as `find` does."""
        await self._model.get(self._started)
        assert self._services is not None  # noqa: S101  # for mypy: it is made with the model
        return self._services

    async def ready(self) -> None:
        """Returns when LiteLLM is warm; raises as `find` does."""
        await self._model.get(self._started)

    @property
    def reloadable(self) -> bool:
        """Whether there is a file to read anew."""
        return self._source is not None and bool(self._source.path)

    async def reload(self) -> dict[str, Any]:
        """Reads the config anew and serves it from the next request on; those in flight end on the old one. The result is that of
        `config/reload`. Raises BridgeError ``invalid_request`` with all mistakes, and then the old config goes on.

        A cancel ends the waiting, not the reload: half of one would be neither the old config nor the new.
        """
        if not self.reloadable:
            raise BridgeError("invalid_request", "there is no config to reload: the worker was started without --config")
        return await asyncio.shield(self.reload_soon())

    def reload_soon(self) -> asyncio.Task[dict[str, Any]]:
        """`reload`, also for a signal, which nobody answers: the log says how it went."""
        task = asyncio.get_running_loop().create_task(self._reload())
        self._reloads.add(task)
        task.add_done_callback(self._reloaded)
        return task

    def _reloaded(self, task: asyncio.Task[dict[str, Any]]) -> None:
        self._reloads.discard(task)
        if not task.cancelled():
            task.exception()  # told to whoever asked, if anybody did, and logged

    async def _reload(self) -> dict[str, Any]:
        assert self._source is not None  # noqa: S101  # for mypy: reloadable
        async with self._reloading:
            methods = await self.methods()
            with suppress(BridgeError):  # what failed to load may do so with a better config
                await self._model.get(self._started)
            config, model, served = await asyncio.to_thread(self._load_anew, self._source, asyncio.get_running_loop())
            result = changes(self._config, config)
            settings = merged(self._config.settings, config.settings)
            url_policy.use(settings.image_policy)
            model.put_in_force()
            old, self._ordinary, self._model.value = self._ordinary, model, served
            self._services = self._services_of(model)
            methods.put_in_force(settings, configured=config.configured)
            self._config = replace(config, settings=settings)
            if old is not None:
                old.retire()
        _log.info("the config was reloaded", extra={"fields": {name: result[name] for name in ("added", "removed", "changed")}})
        for warning in config.warnings:
            _log.warning("the config: %s", warning)
        return result

    def _load_anew(self, source: Source, loop: asyncio.AbstractEventLoop) -> tuple[Config, LiteLLM, LiteLLM]:
        """In a thread. With a mistake, everything is as it was."""
        from bridge_worker.backends.litellm.chat import LiteLLM
        from bridge_worker.backends.litellm.rehearsal import rehearse
        from bridge_worker.backends.litellm.router_redis import share

        old = self._config.environment
        try:
            config = source.load()
            for secret in config.secrets:
                self._redactor.add(secret)
            set_environment(source, old, config.environment)
            try:
                model = LiteLLM(config.gateway, self._local, self._loop, engine=self._config.settings.engine)
                if model.complaints:
                    model.take_back()
                    raise ConfigError(*model.complaints)
                share(model.router, self._redis, loop)
            except BaseException:
                set_environment(source, config.environment, old)
                raise
            rehearse(model)
            return config, model, model
        except Exception as error:
            lines = str(error).strip().splitlines() or [""]
            unknown = (f"{source.path}: LiteLLM does not take it: {type(error).__name__}: {lines[0]:.300}",)
            wrong = refused(source, error.mistakes if isinstance(error, ConfigError) else unknown, self._redactor)
            _log.error("the config was not reloaded", extra={"fields": {"mistakes": wrong.extra["mistakes"]}})
            raise wrong from error

    async def aclose(self) -> None:
        parts = [part for part in (self._model.value, self._telemetry) if part is not None]
        await asyncio.gather(*(part.aclose() for part in parts), return_exceptions=True)

    def _load(self, loop: asyncio.AbstractEventLoop) -> None:
        # A collection while modules are being made finds nothing and costs a fifth of the import.
        gc.disable()
        try:
            self._methods.load(loop, lambda: self._load_methods(loop))
            if self._preload_local and self._local is not None:
                asyncio.run_coroutine_threadsafe(self._local.preload(), loop)
            self._model.load(loop, lambda: self._load_model(loop))
            self._load_rest()
        finally:
            gc.freeze()  # what was imported stays; no collection needs to look at it again
            # An error is a circle with its traceback, and long-lived by the time its chat ends: 50 objects a chat that fails, which
            # only a whole collection finds. (20, 20) would do that after 20 million allocations, some 100 MiB late; with what was
            # imported out of the way one takes 10 ms.
            gc.set_threshold(50_000, 5, 2)
            gc.enable()

    def _load_methods(self, loop: asyncio.AbstractEventLoop) -> Methods:
        from bridge_worker.backends.local.chat import Local
        from bridge_worker.methods.dispatcher import Methods
        from bridge_worker.telemetry.otlp import from_environment

        self._telemetry = from_environment(os.environ)
        from bridge_worker.budgets.spending import Spending
        from bridge_worker.config.redis_settings import find_redis
        from bridge_worker.system.redis_connection import no_redis

        self._redis = find_redis(self._config.gateway)
        if self._redis is not None:
            asyncio.run_coroutine_threadsafe(self._redis.watch(), loop)
        self._local = Local(self._config.settings.local)
        return Methods(
            self.find,
            self._config.settings,
            self._redactor,
            find_services=self.services,
            engine_state=self.state,
            local=self._local,
            configured=self._config.configured,
            reload=self.reload,
            telemetry=self._telemetry,
            spending=Spending(self._config.settings.budgets, _budget_store(self._redis)),
            redis_state=self._redis.state if self._redis else no_redis,
        )

    def _load_rest(self) -> None:
        """What only some providers need. The first chat does not wait for it."""
        if self._model.value is None:
            return
        from bridge_worker.backends.litellm.rehearsal import rehearse_rest
        from bridge_worker.backends.litellm.warm_up import warm_up_openai

        try:
            warm_up_openai()
            rehearse_rest()
        except Exception:  # whoever needs it hears of it then
            _log.warning("the openai package could not be loaded ahead", exc_info=True)

    def _load_model(self, loop: asyncio.AbstractEventLoop) -> LiteLLM:
        from bridge_worker.backends.litellm import name_a_temporary_folder

        name_a_temporary_folder()
        from bridge_worker.backends.litellm.chat import LiteLLM, litellm_version
        from bridge_worker.backends.litellm.rehearsal import rehearse
        from bridge_worker.backends.litellm.router_redis import share
        from bridge_worker.backends.litellm.warm_up import warm_up

        self._version = litellm_version()
        model = LiteLLM(self._config.gateway, self._local, loop, engine=self._config.settings.engine)
        share(model.router, self._redis, loop)
        for complaint in model.complaints:
            _log.error("a part of the config is not served: %s", complaint)
        self._services = self._services_of(model)
        self._ordinary = model
        warm_up()
        rehearse(model)
        self.warm_ms = round((time.monotonic() - self._started) * 1000, 1)
        return model

    def _services_of(self, model: LiteLLM) -> Services:
        from bridge_worker.backends.litellm.services import LiteLLMServices

        return LiteLLMServices(model)


def _budget_store(redis: RedisLink | None) -> Store | None:
    """None: in memory."""
    if redis is None or not redis.installed:
        return None
    from bridge_worker.budgets.redis_store import RedisStore

    return RedisStore(redis)


class _Part(Generic[T]):
    """Something that is loaded in a thread and waited for in a loop."""

    def __init__(self, name: str) -> None:
        self.value: T | None = None
        self._name = name
        self._error: str | None = None
        self._settled = asyncio.Event()

    def load(self, loop: asyncio.AbstractEventLoop, load: Callable[[], T]) -> None:
        try:
            self.value = load()
        except BaseException as error:  # SystemExit too: whoever waits must hear of it
            _log.critical("%s failed to load", self._name, exc_info=error)
            lines = str(error).strip().splitlines() or [""]
            self._error = f"{self._name} could not be loaded ({type(error).__name__}: {lines[0]:.300})"
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._settled.set)

    async def get(self, started: float) -> T:
        if self.value is None and self._error is None:
            try:
                async with asyncio.timeout(started + LOAD_SECONDS - time.monotonic()):
                    await self._settled.wait()
            except TimeoutError:
                raise BridgeError(
                    "internal", f"{self._name} is not loaded after {LOAD_SECONDS:.0f} s; restart the worker"
                ) from None
        if self.value is None:
            raise BridgeError("internal", f"{self._error}; mend the installation or the config and restart the worker")
        return self.value
