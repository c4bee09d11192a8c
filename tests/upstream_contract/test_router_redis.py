"""What models/sharing.py relies on in LiteLLM beyond its interface. When one fails, mend that file."""

from __future__ import annotations

import inspect

import litellm
import pytest
from litellm.caching.caching import Cache, InMemoryCache
from litellm.caching.redis_cache import RedisCache, RedisCircuitBreaker, _run_under_circuit_breaker
from litellm.router_strategy.base_routing_strategy import BaseRoutingStrategy
from litellm.router_strategy.lowest_tpm_rpm_v2 import LowestTPMLoggingHandler_v2
from litellm.router_utils.cooldown_cache import CooldownCache

from bridge_worker.backends.litellm import router_redis


def test_every_call_to_redis_asks_the_breaker_first() -> None:
    assert "breaker.is_open()" in inspect.getsource(inspect.getmodule(_run_under_circuit_breaker))  # type: ignore[arg-type]
    source = inspect.getsource(RedisCache)
    assert "self._circuit_breaker = RedisCircuitBreaker(" in source
    for name in ("async_get_cache", "async_set_cache", "async_batch_get_cache", "async_increment", "async_increment_pipeline"):
        assert f"@_redis_circuit_breaker_guard\n    async def {name}(" in source, name


def test_our_breaker_has_all_that_theirs_is_asked() -> None:
    theirs = {name for name in vars(RedisCircuitBreaker) if not name.startswith("_")}
    assert theirs - {"CLOSED", "OPEN", "HALF_OPEN", "generation"} == {"is_open", "record_failure", "record_success"}
    for name in ("is_open", "record_failure", "record_success"):
        assert inspect.signature(getattr(router_redis._Breaker, name)) is not None
        assert getattr(router_redis._Breaker, name) is not getattr(RedisCircuitBreaker, name)


def test_a_redis_that_comes_later_is_taken_by_all_that_the_router_shares() -> None:
    assert "self.cache.attach_redis_cache(cache)" in inspect.getsource(litellm.Router.update_redis_cache)
    assert "self._cooldown_store.attach_redis_cache(self.cache.redis_cache)" in inspect.getsource(CooldownCache)


def test_the_usage_strategy_still_puts_its_task_into_a_loop_that_nobody_runs() -> None:
    source = inspect.getsource(BaseRoutingStrategy.setup_sync_task)
    for words in ("asyncio.get_running_loop()", "asyncio.new_event_loop()", "self._sync_task = loop.create_task("):
        assert words in source
    assert "default_sync_interval=0.1" in inspect.getsource(LowestTPMLoggingHandler_v2.__init__)


def test_the_usage_of_a_router_without_redis_would_still_pile_up() -> None:
    assert "self.redis_increment_operation_queue.append(" in inspect.getsource(BaseRoutingStrategy)
    push = inspect.getsource(BaseRoutingStrategy._push_in_memory_increments_to_redis)
    assert push.index("if not self.dual_cache.redis_cache:") < push.index("self.redis_increment_operation_queue = [")


@pytest.mark.parametrize("type", ["redis", "local"])
def test_a_cache_takes_the_place_where_it_keeps_answers(type: str) -> None:
    before = {name: list(getattr(litellm, name)) for name in ("input_callback", "success_callback", "_async_success_callback")}
    try:
        mine = router_redis.InMemoryUntilThen()
        assert Cache(type=type, _backend=mine).cache is mine
        assert isinstance(mine, InMemoryCache)
    finally:
        for name, callbacks in before.items():
            getattr(litellm, name)[:] = callbacks
