"""Lets the Routers of all engines have one state: cooldowns, failures, usage, latencies, pins and the response cache in memory.

Owns LiteLLM's stores in an engine, which are replaced by some that pass each write on. The Router reads them synchronously
before each attempt, so a read stays in memory; a write arrives in the other engines some 50 ms later. With a Redis in the config
`router_redis` does all this. Not shared: values that JSON does not have (clients, semaphores), and the requests in flight of the
strategy least-busy, which would stay counted when their engine is lost. Refuses to know how a write travels (`engines.copies`).

PRIVATE: the Router's ``_usage``, and the ``_handle`` of both native stores.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import litellm
from litellm.caching.caching import InMemoryCache

from bridge_worker.backends.litellm import router
from bridge_worker.backends.litellm.lane import Lane
from bridge_worker.engines.copies import Copies, Write
from bridge_worker.engines.kept_texts import KeptTexts

_CACHE, _PINS, _COOLDOWN, _FAILS, _USAGE = "cache", "pins", "cooldown", "fails", "usage"
_USAGE_SECONDS = 60  # the keys name their minute
_OF_ONE_ENGINE = ("_request_count:", "least_busy_")

OnCooldown = Callable[[str, float], None]  # a deployment's id, and for how many seconds


def share(made: Any, lane: Lane | None, copies: Copies, texts: KeptTexts) -> None:
    """``made`` is a Router or None. Call it in the thread that made it; returns when it has what the others know."""
    backend = getattr(litellm.cache, "cache", None)
    if type(backend) is InMemoryCache:
        litellm.cache.cache = Responses(texts)
    if made is None:
        return
    takers: dict[str, Callable[[Write, float], None]] = {}
    for space, cache in ((_CACHE, router.store(made)), (_PINS, router.pins(made))):
        if cache is not None:
            cache.in_memory_cache = memory = Memory(space, copies)
            takers[space] = memory.take
    if (cooldowns := router.cooldowns(made)) is not None:
        cooldowns._handle = handle = Cooldowns(cooldowns._handle, copies, lane.close_for if lane else _do_nothing)
        takers |= {_COOLDOWN: handle.take, _FAILS: handle.take_fails}
    if (usage := getattr(made, "_usage", None)) is not None:
        usage._handle = counts = Usage(usage._handle, copies)
        takers[_USAGE] = counts.take

    def take(write: Write) -> None:
        seconds = write.expires - time.monotonic()
        if write.space in takers and seconds > 0:
            takers[write.space](write, seconds)

    copies.join(take)


class Memory(InMemoryCache):  # type: ignore[misc]  # LiteLLM's types are not read
    """The Router's cache in memory."""

    def __init__(self, space: str, copies: Copies) -> None:
        super().__init__()
        self._space = space
        self._copies = copies

    def set_cache(self, key: Any, value: Any, **kwargs: Any) -> None:
        super().set_cache(key, value, **kwargs)
        if _is_shared(key):
            self._copies.put(self._space, key, value, kwargs.get("ttl") or self.default_ttl)

    def increment_cache(self, key: Any, value: float, **kwargs: Any) -> float:
        with self._increment_lock:
            total: float = (self.get_cache(key=key) or 0) + value
            super().set_cache(key, total, **kwargs)
        if _is_shared(key):
            self._copies.add(self._space, key, value, kwargs.get("ttl") or self.default_ttl)
        return total

    def take(self, write: Write, seconds: float) -> None:
        if write.adds:
            with self._increment_lock:
                super().set_cache(write.key, (self.get_cache(key=write.key) or 0) + write.value, ttl=seconds)
        else:
            super().set_cache(write.key, json.loads(write.value), ttl=seconds)


class Cooldowns:
    """LiteLLM's native store of cooldowns and allowed failures."""

    def __init__(self, handle: Any, copies: Copies, on_cooldown: OnCooldown) -> None:
        self._handle = handle
        self._copies = copies
        self._on_cooldown = on_cooldown

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handle, name)

    def put(self, model_id: str, cooldown: Mapping[str, object], ttl: float) -> None:
        self._handle.put(model_id, cooldown, ttl)
        self._copies.put(_COOLDOWN, model_id, cooldown, ttl, now=True)

    def async_put(self, model_id: str, cooldown: Mapping[str, object], ttl: float) -> Awaitable[None]:
        self._copies.put(_COOLDOWN, model_id, cooldown, ttl, now=True)
        written: Awaitable[None] = self._handle.async_put(model_id, cooldown, ttl)
        return written

    def increment_allowed_fails(self, model_id: str, suffix: str | None, ttl: float) -> int:
        self._copies.add(_FAILS, json.dumps([model_id, suffix]), 1, ttl)
        return int(self._handle.increment_allowed_fails(model_id, suffix, ttl))

    def async_increment_allowed_fails(self, model_id: str, suffix: str | None, ttl: float) -> Awaitable[int]:
        self._copies.add(_FAILS, json.dumps([model_id, suffix]), 1, ttl)
        count: Awaitable[int] = self._handle.async_increment_allowed_fails(model_id, suffix, ttl)
        return count

    def take(self, write: Write, seconds: float) -> None:
        self._handle.put(write.key, json.loads(write.value), seconds)
        self._on_cooldown(write.key, seconds)

    def take_fails(self, write: Write, seconds: float) -> None:
        model_id, suffix = json.loads(write.key)
        for _ in range(int(write.value)):
            self._handle.increment_allowed_fails(model_id, suffix, seconds)


class Usage:
    """LiteLLM's native store of requests and tokens a minute."""

    def __init__(self, handle: Any, copies: Copies) -> None:
        self._handle = handle
        self._copies = copies
        self._counter: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handle, name)

    def increment_sync(self, counter: Any, value: float, ttl: int) -> float:
        self._share(counter.deployment_id, counter.model, counter.minute, counter.kind, value)
        return float(self._handle.increment_sync(counter, value, ttl))

    def increment(self, counter: Any, value: float, ttl: int) -> Awaitable[float]:
        self._share(counter.deployment_id, counter.model, counter.minute, counter.kind, value)
        count: Awaitable[float] = self._handle.increment(counter, value, ttl)
        return count

    def increment_deployment_sync(self, id: str, model: str | None, minute: str, tokens: float, requests: int) -> None:
        self._handle.increment_deployment_sync(id, model, minute, tokens, requests)
        self._share(id, model, minute, "tpm", tokens)
        self._share(id, model, minute, "rpm", requests)

    def take(self, write: Write, seconds: float) -> None:
        from litellm.redis.stores.router_usage import UsageCounter

        self._handle.increment_sync(UsageCounter(*json.loads(write.key)), write.value, max(1, round(seconds)))

    def _share(self, id: str, model: str | None, minute: str, kind: str, value: float) -> None:
        if value:
            self._copies.add(_USAGE, json.dumps([id, model, minute, kind]), value, _USAGE_SECONDS)


class Responses(InMemoryCache):  # type: ignore[misc]  # as above
    """The responses of a cache of the type ``local``, in the server process: the bridge's chats read and write them asynchronously.
    A text that is too long, or a value that is no JSON, stays in this engine, as do those that are written synchronously."""

    def __init__(self, texts: KeptTexts) -> None:
        super().__init__()
        self._texts = texts

    async def async_get_cache(self, key: Any, **kwargs: Any) -> Any:
        text = await self._texts.get(str(key))
        return self.get_cache(key) if text is None else json.loads(text)

    async def async_set_cache(self, key: Any, value: Any, **kwargs: Any) -> None:
        try:
            text = json.dumps(value)
        except (TypeError, ValueError):
            self.set_cache(key, value, **kwargs)
            return
        if len(text) <= self.max_size_per_item * 1024:
            await self._texts.set(str(key), text, kwargs.get("ttl") or self.default_ttl, self.max_size_in_memory)

    async def async_batch_get_cache(self, keys: list[Any], **kwargs: Any) -> list[Any]:
        return [await self.async_get_cache(key) for key in keys]

    async def async_set_cache_pipeline(self, cache_list: Any, ttl: float | None = None, **kwargs: Any) -> None:
        for key, value in cache_list:
            await self.async_set_cache(key, value, ttl=ttl)


def _do_nothing(deployment: str, seconds: float) -> None:
    pass


def _is_shared(key: object) -> bool:
    return isinstance(key, str) and not any(part in key for part in _OF_ONE_ENGINE)
