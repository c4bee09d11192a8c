"""The fast lane of a gateway config: a plain, healthy group of deployments is served by the requests that the Router has taught.

Owns which configs and groups are plain, the choice at random by weight that the Router would make, and when a group is healthy. The
first failure hands a request over to the Router, which sees that failure as its own first attempt: its cooldowns, retries and
fallbacks are LiteLLM's. Refuses every config with a choice that depends on anything else than weights.

PRIVATE, rehearsed at start: the request member ``_router_weights``, by which the Router's first pick is the failed deployment.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from bridge_worker.backends.litellm import router
from bridge_worker.backends.litellm.chat_call import ChatCall
from bridge_worker.backends.litellm.router_errors import for_router, with_fault
from bridge_worker.backends.litellm.upstream import Target, Upstream
from bridge_worker.backends.reading import AttemptError
from bridge_worker.core.deltas import Delta
from bridge_worker.core.ports import ChatRequest
from bridge_worker.errors import BridgeError

MAX_LEARNED = 4096  # (deployment, options) pairs
_MINUTE = 60.0  # over which the Router weighs failures against successes
_DEFAULT_COOLDOWN_SECONDS = 5.0  # LiteLLM's own

# What a config's router_settings may have for the choice to be at random by weight.
_PLAIN_SETTINGS = frozenset(
    """
    model_list fallbacks context_window_fallbacks content_policy_fallbacks default_fallbacks num_retries cooldown_time allowed_fails
    timeout stream_timeout routing_strategy max_fallbacks router_general_settings ignore_invalid_deployments cache_responses
    retry_after enable_pre_call_checks model_group_alias set_verbose
    """.split()
)
# What a deployment may not have: limits, a place in an order, tags, a budget.
_LIMITS = frozenset(
    """
    rpm tpm rpd tpd max_parallel_requests order tags tag_regex silent_model max_budget budget_duration itpm otpm num_retries
    cooldown_time mock_response mock_timeout allowed_model_region region_name auto_router_config complexity_router_config
    """.split()
)


class _Group:
    """The deployments of one name. ``ill_until``: no chat takes the lane before that time, on `time.monotonic`."""

    __slots__ = ("ids", "ill_until", "successes", "weights")

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.ids: list[str] = [row["model_info"]["id"] for row in rows]
        weights = [float(row["litellm_params"].get("weight") or 0) for row in rows]
        self.weights = weights if any(weights) else None
        self.ill_until = 0.0
        self.successes: deque[tuple[float, str]] = deque(maxlen=10_000)

    def pick(self) -> str:
        if self.weights is None:
            return random.choice(self.ids)  # noqa: S311  # to spread load
        return random.choices(self.ids, self.weights)[0]  # noqa: S311


class Lane:
    """For one Router. ``why_not`` is the reason why a config has no lane, None if it has one."""

    def __init__(self, router: Any, settings: Mapping[str, Any], is_heard: Callable[[], bool]) -> None:
        self._router = router
        self._is_heard = is_heard
        self._cooldown = float(settings.get("cooldown_time") or _DEFAULT_COOLDOWN_SECONDS)
        self.why_not = _why_not(settings)
        rows = {} if self.why_not else _rows(router)
        self._groups = {name: _Group(group) for name, group in rows.items() if _is_plain(name, group)}
        self._learned: dict[Any, tuple[Any, dict[str, Any], Target]] = {}

    def reason_against(self, request: ChatRequest) -> str | None:
        """The reason why this chat can't take the lane, or None."""
        if self.why_not is not None:
            return self.why_not
        group = self._groups.get(request.model)
        if group is None:
            return "the model's deployments have limits, tags, an order or a wildcard"
        if group.ill_until > time.monotonic():
            return "a deployment of this model has failed a moment ago"
        if self._is_heard():
            return "a callback, a cache or a budget listens"
        return None

    async def open(self, call: ChatCall) -> tuple[Upstream, list[Delta]] | None:
        """The response of a deployment with its first deltas, or all of a plain one; None where the Router must serve the chat.

        After a failure ``call.pending`` holds what the Router is to see as its first attempt.
        """
        group = self._groups[call.request.model]
        id = group.pick()
        learned = self._learned.get((id, call.request.stream, call.options_key))
        if learned is None:
            call.preferred = id
            return None
        key, arguments, target = learned
        try:
            ready = await call.prepare(key, {**arguments, "messages": call.request.messages}, target)
        except Exception:  # the Router's call will raise it again, where it counts
            return None
        call.begin(ready.target)
        try:
            upstream = await call.open(ready)
            if call.request.stream:
                deltas = await upstream.read()
                if not deltas:
                    upstream.facts()  # raises for a stream without a response
            else:
                deltas = await upstream.whole()
                call.facts = upstream.facts()
        except AttemptError as failed:
            call.fail_attempt(failed.fault)
            await call.close()
            error = call.keys.for_router(failed.fault, target) or for_router(failed, str(target.model), target.provider)
            call.pending = (id, with_fault(error, failed.fault))
            self._report_successes(group)
            return None
        group.successes.append((time.monotonic(), id))
        return upstream, deltas

    def learner(self, call: ChatCall) -> Callable[[Any, Mapping[str, Any], Target], None]:
        """The callback that the gate calls with each request that it prepares for a deployment."""
        request = call.request

        def learn(key: Any, arguments: Mapping[str, Any], target: Target) -> None:
            group = self._groups.get(request.model)
            if group is None or target.deployment not in group.ids:
                return  # a fallback's deployment
            while len(self._learned) >= MAX_LEARNED:
                del self._learned[next(iter(self._learned))]
            kept = {name: value for name, value in arguments.items() if name not in _OF_THE_CALL and name[:1] != "_"}
            self._learned[target.deployment, request.stream, call.options_key] = (key, kept, target)

        return learn

    def mark_failed(self, deployment: str, fault: BridgeError) -> None:
        """Closes the lane for the deployment's group, as long as the Router may remember the failure."""
        self.close_for(deployment, max(self._cooldown, (fault.retry_after_ms or 0) / 1000) + _MINUTE)

    def close_for(self, deployment: str, seconds: float) -> None:
        """The Router serves the deployment's group for so long."""
        for group in self._groups.values():
            if deployment in group.ids:
                group.ill_until = max(group.ill_until, time.monotonic() + seconds)

    def routing(self, call: ChatCall) -> dict[str, Any]:
        """The member by which the Router picks the failed deployment first, or the one that the lane has not learned yet."""
        id = call.pending[0] if call.pending is not None else call.preferred
        return {} if id is None else {"_router_weights": {call.request.model: {id: 1.0}}}

    def _report_successes(self, group: _Group) -> None:
        """The last minute's successes, against which the Router weighs failures. PRIVATE: the key and the cache."""
        now, counts = time.monotonic(), dict.fromkeys(group.ids, 0)
        while group.successes:
            at, id = group.successes.popleft()
            counts[id] += now - at < _MINUTE
        with suppress(Exception):  # without them a deployment cools down earlier than with LiteLLM alone
            for id, count in counts.items():
                if count:
                    router.store(self._router).increment_cache(key=f"{id}:successes", value=count, local_only=True, ttl=_MINUTE)


_OF_THE_CALL = frozenset("messages metadata litellm_metadata litellm_logging_obj litellm_call_id litellm_trace_id client".split())


def _why_not(settings: Mapping[str, Any]) -> str | None:
    if settings.get("routing_strategy", "simple-shuffle") != "simple-shuffle":
        return "the config has a routing strategy"
    others = {name for name, value in settings.items() if value not in (None, [], {}, False)} - _PLAIN_SETTINGS
    if others:
        return f"the config has router_settings.{min(others)}"
    if settings.get("enable_pre_call_checks"):
        return "the config has router_settings.enable_pre_call_checks"
    return None


def _rows(made: Any) -> dict[str, list[Mapping[str, Any]]]:
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for row in router.deployments(made):
        rows.setdefault(row["model_name"], []).append(row)
    return rows


def _is_plain(name: str, rows: Sequence[Mapping[str, Any]]) -> bool:
    return "*" not in name and not any(
        _given(row["litellm_params"]) & _LIMITS or "*" in row["litellm_params"]["model"] for row in rows
    )


def _given(params: Mapping[str, Any]) -> set[str]:
    return {name for name, value in params.items() if value is not None}
