"""The Redis that workers share, if the config names one: the connection, and whether it is there now.

Owns one client, the task that watches it, and the lines on the log when Redis is lost and when it is back. A request never waits
longer for Redis than `SECONDS`, and not at all while it is known to be lost. Refuses to know what is kept there.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from redis.asyncio import Redis


SECONDS = 0.5  # limit of a response and of a connection: only a nearby Redis is useful
_SLICES = 10
_EVERY_SECONDS = 1.0  # between two looks
_CLIENT = ("host", "port", "password", "db", "username", "client_name")  # and those of TLS: LiteLLM's cache takes more
_ALONE = "this worker goes on alone: its cooldowns, usage, cache and budgets are its own until Redis is there"

T = TypeVar("T")
_log = logging.getLogger(__name__)


def no_redis() -> Mapping[str, object]:
    """`RedisLink.state` where none is configured."""
    return {"state": "none", "since_ms": None}


def is_client_option(name: str) -> bool:
    """Whether ``name`` is an option of the redis package's client."""
    return name in ("url", *_CLIENT) or name.startswith("ssl")


async def with_timeout(work: Awaitable[T]) -> T:
    """Raises TimeoutError when `SECONDS` have passed, not counting those in which this process had no time to look."""
    task = asyncio.ensure_future(work)
    try:
        for _ in range(_SLICES):
            if (await asyncio.wait({task}, timeout=SECONDS / _SLICES))[0]:
                return task.result()
        raise TimeoutError(f"no response in {SECONDS} s")
    finally:
        task.cancel()


class RedisLink:
    """``settings`` are those of `client_settings`. Make it anywhere, then `watch` in the loop that uses ``client``."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = settings
        self.installed = importlib.util.find_spec("redis") is not None
        self.connected = False
        self.client: Redis | None = _client(settings) if self.installed else None
        self._since: float | None = None  # time.monotonic() of the first look, or of the last change
        self._looked = asyncio.Event()
        self._doubt = asyncio.Event()
        self._doubts: list[asyncio.Future[None]] = []
        self._returns: list[Callable[[], Awaitable[None]]] = []

    def state(self) -> Mapping[str, object]:
        since = None if self._since is None else round((time.monotonic() - self._since) * 1000, 3)
        if not self.installed:
            return {"state": "not_installed", "since_ms": since}
        settled = "connected" if self.connected else "lost"
        return {"state": settled if self._looked.is_set() else "connecting", "since_ms": since}

    def on_return(self, work: Callable[[], Awaitable[None]]) -> None:
        """``work`` is awaited each time that Redis is there again, the first time included, before it counts as connected."""
        self._returns.append(work)

    async def doubt(self) -> None:
        """Something went wrong with Redis: returns after a look that began after this."""
        looked = asyncio.get_running_loop().create_future()
        self._doubts.append(looked)
        self._doubt.set()
        await looked

    def doubt_soon(self) -> None:
        """Starts `doubt` in the background."""
        self._doubt.set()

    async def ready(self) -> bool:
        """Whether Redis is there; waits for the first look only, which is short."""
        if not self._looked.is_set():
            await self._looked.wait()
        return self.connected

    async def watch(self) -> None:
        """Until it is cancelled."""
        if self.client is None:
            _log.warning("the config names a Redis, but the package redis is not installed (omni-bridge[redis]); %s", _ALONE)
            self._since = time.monotonic()
            self._looked.set()
            return
        while True:
            self._doubt.clear()
            doubts, self._doubts = self._doubts, []
            await self._look()
            self._looked.set()
            for doubt in doubts:
                if not doubt.done():
                    doubt.set_result(None)
            try:
                async with asyncio.timeout(_EVERY_SECONDS):
                    await self._doubt.wait()
            except TimeoutError:
                continue

    async def aclose(self) -> None:
        if self.client is not None:
            await self.client.aclose()

    async def _look(self) -> None:
        fault = await self._ping()
        if fault is None and not self.connected:
            fault = await self._come_back()
        if self.connected is (fault is None) and self._since is not None:
            return
        first, self._since = self._since is None, time.monotonic()
        self.connected = fault is None
        if fault is not None:
            _log.warning("Redis can't be reached (%s: %s); %s", type(fault).__name__, fault, _ALONE)
        elif not first:
            _log.warning("Redis is back: cooldowns, usage, cache and budgets are shared again")

    async def _ping(self) -> Exception | None:
        assert self.client is not None  # noqa: S101  # for mypy
        try:
            await with_timeout(cast("Awaitable[bool]", self.client.ping()))  # its types are those of both clients
        except Exception as error:
            return error
        return None

    async def _come_back(self) -> Exception | None:
        try:
            for work in self._returns:
                await work()
        except Exception as error:
            return error
        return None


def _client(settings: Mapping[str, Any]) -> Redis:
    """No retries: a script that was sent may have run."""
    from redis.asyncio import Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    bounds = {"socket_timeout": None, "socket_connect_timeout": None, "retry": Retry(NoBackoff(), 0)}  # see with_timeout
    named = {name: value for name, value in settings.items() if name != "url" and is_client_option(name)} | bounds
    return Redis.from_url(settings["url"], **named) if "url" in settings else Redis(**named)
