"""The method ``status``: the worker's version, uptime, memory and request counts, and the state of LiteLLM and Redis.

Owns the composition of the result. Refuses to count anything itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from bridge_worker import invariants
from bridge_worker.core.ports import Params, RequestContext
from bridge_worker.methods.params import validate
from bridge_worker.schema.lifecycle import EngineState
from bridge_worker.schema.status import Degraded, NoParams, RedisState, RequestCounts, Status
from bridge_worker.system.resources import memory_bytes
from bridge_worker.telemetry.request_counters import RequestCounters
from bridge_worker.version import __version__

State = Callable[[], Mapping[str, object]]
Rows = Callable[[], Sequence[Mapping[str, object]] | None]


class GetStatus:
    def __init__(self, counters: RequestCounters, engine_state: State, redis_state: State, degraded: Rows) -> None:
        self._counters = counters
        self._engine_state = engine_state
        self._redis_state = redis_state
        self._degraded = degraded

    async def __call__(self, context: RequestContext, params: Params) -> Status:
        validate(params, NoParams)
        rows = self._degraded()
        return Status(
            version=__version__,
            uptime_ms=self._counters.uptime_ms,
            requests=RequestCounts.model_validate(self._counters.requests()),
            memory_bytes=memory_bytes(),
            engine=EngineState.model_validate(self._engine_state()),
            redis=RedisState.model_validate(self._redis_state()),
            degraded=None if rows is None else [Degraded.model_validate(row) for row in rows],
            violations=invariants.violations(),
        )
