"""Connects LiteLLM's Router to Redis, through which workers share cooldowns, rpm and tpm usage, and the cache.

Owns the Router's Redis client, which is given to it only once Redis is there: made with the Router, it would hold up the start for
15 s when Redis is not, and each request for a second. While Redis is lost the Router works with what it has in memory. Refuses to
know what is kept there.
"""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import Future
from typing import Any

import litellm
from litellm.caching.caching import InMemoryCache
from litellm.caching.redis_cache import RedisCache
from litellm.router_strategy.base_routing_strategy import BaseRoutingStrategy

from bridge_worker.backends.litellm import usage_limits
from bridge_worker.backends.litellm.router import attach_redis, store
from bridge_worker.system.redis_connection import SECONDS, RedisLink

_SYNC_SECONDS = 0.1  # LiteLLM's own figure for the usage strategy: how old another worker's usage may be


class InMemoryUntilThen(InMemoryCache):  # type: ignore[misc]  # LiteLLM's types are not read
    """Stores the responses of a cache in Redis until Redis is connected for the first time."""


def share(router: Any, link: RedisLink | None, loop: asyncio.AbstractEventLoop) -> None:
    """Call it in the thread that made the Router; ``loop`` is the one that it works in."""
    usage_limits.share(link)
    for strategy in _strategies():
        _end_stray_task(strategy)
        if link is None:
            strategy.redis_increment_operation_queue = deque(maxlen=0)  # PRIVATE: else it grows with each request, unread
        else:
            loop.call_soon_threadsafe(strategy.setup_sync_task, _SYNC_SECONDS)  # PRIVATE
    if link is None or not link.installed:
        return

    async def attach() -> None:
        if store(router).redis_cache is None:
            attach_redis(router, await asyncio.to_thread(_cache, link))
        if (response_cache := litellm.cache) is not None and isinstance(response_cache.cache, InMemoryUntilThen):
            backend = await asyncio.to_thread(_cache, link)
            backend.namespace = response_cache.namespace
            response_cache.cache = backend

    link.on_return(attach)
    asyncio.run_coroutine_threadsafe(_attach_now(link, attach), loop).result()


async def _attach_now(link: RedisLink, attach: Any) -> None:
    if await link.ready():
        await attach()


def _cache(link: RedisLink) -> RedisCache:
    """Blocks for two short questions to Redis."""
    bounds = {"socket_timeout": SECONDS, "socket_connect_timeout": SECONDS}
    cache = RedisCache(**{**link.settings, **bounds})
    breaker = _Breaker(link)
    if hasattr(cache, "_circuit_breaker"):  # PRIVATE, until 1.108: it opens after five failures only, and closes after a minute
        cache._circuit_breaker = breaker
    else:  # PRIVATE, since 1.109
        cache._health = _Health(breaker)
    return cache


class _Breaker:
    """Open exactly while the link is lost, so that no request waits for Redis then. It has the members that LiteLLM calls."""

    generation = 0

    def __init__(self, link: RedisLink) -> None:
        self._link = link

    def is_open(self) -> bool:
        return not self._link.connected

    def record_failure(self, is_timeout: bool = False) -> None:
        self._link.doubt_soon()

    def record_success(self) -> None:
        pass

    def admit(self) -> _Breaker | None:
        """An admission to one call, which reports to it how the call ended; None refuses the call."""
        return None if self.is_open() else self

    def failed(self, is_timeout: bool = False) -> None:
        self.record_failure(is_timeout)

    def succeeded(self) -> None:
        self.record_success()


class _Health:
    """Replaces LiteLLM's health object, which shares one breaker among all users of a Redis."""

    def __init__(self, breaker: _Breaker) -> None:
        self.breaker = breaker

    def failed(self, settles: _Breaker, error: BaseException) -> None:
        settles.failed()


def _strategies() -> list[Any]:
    return [callback for callback in litellm.callbacks if isinstance(callback, BaseRoutingStrategy)]


def _end_stray_task(strategy: Any) -> None:
    """Ends the task that `router.make` started: without Redis it has no work, and with Redis a new one starts."""
    if isinstance(task := strategy._sync_task, Future):  # PRIVATE
        task.cancel()
