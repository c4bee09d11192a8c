"""What backends/litellm/router_redis.py relies on in LiteLLM beyond its interface. When one fails, correct that file."""

from __future__ import annotations

import asyncio
import inspect

import litellm
import pytest
from litellm.caching import redis_cache
from litellm.caching.caching import Cache, InMemoryCache
from litellm.caching.redis_cache import RedisCache
from litellm.router_strategy.base_routing_strategy import BaseRoutingStrategy
from litellm.router_strategy.lowest_tpm_rpm_v2 import LowestTPMLoggingHandler_v2

from bridge_worker.backends.litellm import router_redis


def test_every_call_to_redis_goes_through_the_health_that_is_replaced() -> None:
    source = inspect.getsource(RedisCache)
    assert "self._health: Final = (" in source
    assert "admission: Final = health.breaker.admit()" in inspect.getsource(redis_cache._enter_circuit_breaker)
    assert "if admission is None:" in inspect.getsource(redis_cache._enter_circuit_breaker)
    for name in ("async_get_cache", "async_set_cache", "async_batch_get_cache", "async_increment", "async_increment_pipeline"):
        assert f"@_redis_circuit_breaker_guard\n    async def {name}(" in source, name


class Link:
    """The members of a RedisLink that the breaker uses."""

    def __init__(self) -> None:
        self.connected = True
        self.doubts = 0

    def doubt_soon(self) -> None:
        self.doubts += 1


def test_a_call_is_refused_while_the_link_is_lost_and_a_failure_is_reported_to_it() -> None:
    link = Link()
    health = router_redis._Health(router_redis._Breaker(link))  # type: ignore[arg-type]

    async def broken() -> None:
        raise ConnectionError("Redis is gone")

    async def whole() -> str:
        return "read"

    assert asyncio.run(redis_cache._run_under_circuit_breaker(health, "get", whole)) == "read"
    with pytest.raises(ConnectionError):
        asyncio.run(redis_cache._run_under_circuit_breaker(health, "get", broken))
    assert link.doubts == 1
    redis_cache._record_swallowed_redis_failure(health, ConnectionError("Redis is gone"))
    assert link.doubts == 2
    link.connected = False
    with pytest.raises(redis_cache.RedisCircuitBreakerOpenError):
        asyncio.run(redis_cache._run_under_circuit_breaker(health, "get", whole))


def test_the_usage_strategy_still_puts_its_task_into_a_loop_that_never_runs() -> None:
    source = inspect.getsource(BaseRoutingStrategy.setup_sync_task)
    for words in ("asyncio.get_running_loop()", "asyncio.new_event_loop()", "self._sync_task = loop.create_task("):
        assert words in source
    assert "default_sync_interval=0.1" in inspect.getsource(LowestTPMLoggingHandler_v2.__init__)


def test_the_usage_of_a_router_without_redis_would_still_pile_up() -> None:
    assert "self.redis_increment_operation_queue.append(" in inspect.getsource(BaseRoutingStrategy)
    push = inspect.getsource(BaseRoutingStrategy._push_in_memory_increments_to_redis)
    assert push.index("if not self.dual_cache.redis_cache:") < push.index("self.redis_increment_operation_queue = [")


@pytest.mark.parametrize("type", ["redis", "local"])
def test_a_cache_takes_the_storage_that_keeps_its_responses(type: str) -> None:
    before = {name: list(getattr(litellm, name)) for name in ("input_callback", "success_callback", "_async_success_callback")}
    try:
        mine = router_redis.InMemoryUntilThen()
        assert Cache(type=type, _backend=mine).cache is mine
        assert isinstance(mine, InMemoryCache)
    finally:
        for name, callbacks in before.items():
            getattr(litellm, name)[:] = callbacks
