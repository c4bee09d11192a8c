"""Holds a deployment to its ``rpm`` and ``tpm`` where the config makes limits of them: each minute, in all engines of a worker, or
in all workers that share a Redis.

Owns the limits and Redis's one step that checks and counts a request. LiteLLM's own check reads and counts in two steps, so that a
burst passes it, and lets one request less than ``rpm`` through. Windows are the clock's minutes, by Redis's clock where there is
one. A request counts when it is sent, its tokens when its response is there: a burst may exceed ``tpm`` by what is in flight.
Refuses to choose another deployment: the Router does, after the error that is raised here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from bridge_worker.backends.litellm import router
from bridge_worker.backends.litellm.router_errors import for_router
from bridge_worker.backends.reading import AttemptError
from bridge_worker.budgets.usage_counts import UsageCounts, UsageStore
from bridge_worker.errors import BridgeError
from bridge_worker.system.redis_connection import RedisLink, with_timeout

_STRATEGIES = ("usage-based-routing", "usage-based-routing-v2")
_CHECK = "enforce_model_rate_limits"
_PREFIX = "omni-bridge:{usage}:"

# KEYS: the deployment's. ARGV: rpm and tpm, -1 for no limit. Returns 0 and has counted, or the milliseconds to the next minute.
_ADMIT = """
local time = redis.call('TIME')
local minute = math.floor(time[1] / 60)
local book = KEYS[1] .. ':' .. minute
local used = redis.call('HMGET', book, 'requests', 'tokens')
local rpm, tpm = tonumber(ARGV[1]), tonumber(ARGV[2])
if (rpm >= 0 and tonumber(used[1] or '0') >= rpm) or (tpm >= 0 and tonumber(used[2] or '0') >= tpm) then
  return (minute + 1) * 60000 - time[1] * 1000 - math.floor(time[2] / 1000)
end
redis.call('HINCRBY', book, 'requests', 1)
redis.call('EXPIRE', book, 120)
return 0
"""
# ARGV: tokens.
_SPEND = """
local book = KEYS[1] .. ':' .. math.floor(redis.call('TIME')[1] / 60)
redis.call('HINCRBY', book, 'tokens', ARGV[1])
redis.call('EXPIRE', book, 120)
return 0
"""


class Limits(NamedTuple):
    rpm: int | None
    tpm: int | None


_limits: Mapping[str, Limits] = {}  # by deployment
_store: UsageStore = UsageCounts()  # of this worker
_link: RedisLink | None = None
_scripts: tuple[Any, Any] | None = None


def are_enforced(settings: Mapping[str, Any]) -> bool:
    """Whether these router_settings make limits of ``rpm`` and ``tpm``; elsewhere they are weights."""
    return settings.get("routing_strategy") in _STRATEGIES or _CHECK in (settings.get("optional_pre_call_checks") or ())


def with_room(model: Mapping[str, Any]) -> dict[str, Any]:
    """A deployment for LiteLLM. LiteLLM's own check refuses one request too early."""
    params = model["litellm_params"]
    rpm = params.get("rpm")
    return {**model, "litellm_params": {**params, "rpm": rpm + 1}} if isinstance(rpm, int) else dict(model)


def activate(made: Any) -> None:
    """The limits of ``made``, a Router of deployments `with_room`, from now on."""
    global _limits
    limits = {row["model_info"]["id"]: _limits_of(row["litellm_params"]) for row in router.configured_deployments(made)}
    _limits = {id: each for id, each in limits.items() if each != Limits(None, None)}


def count_in(store: UsageStore) -> None:
    """Counts are kept there without a Redis."""
    global _store
    _store = store


def share(link: RedisLink | None) -> None:
    """Counts are kept there while it is connected."""
    global _link, _scripts
    _link = link
    if link is not None and link.client is not None:
        _scripts = link.client.register_script(_ADMIT), link.client.register_script(_SPEND)


async def admit(deployment: str | None, model: str) -> None:
    """Counts a request that is about to be sent. Raises what the Router knows as a rate limit, with the time to the next minute."""
    limits = _limits.get(deployment or "")
    if deployment is None or limits is None:
        return
    wait_ms = await _in_redis(0, deployment, *(-1 if each is None else each for each in limits))
    if wait_ms is None:
        wait_ms = await _store.admit(deployment, *limits)
    if wait_ms:
        fault = BridgeError("rate_limited", f"{model} is at its limit of this minute (rpm or tpm of the config)", wait_ms)
        raise for_router(AttemptError(fault, {"retry-after": str(-(-wait_ms // 1000))}), model, None)


async def spend(deployment: str | None, tokens: int | None) -> None:
    """Counts the tokens of a response."""
    if deployment is None or not tokens or deployment not in _limits:
        return
    if await _in_redis(1, deployment, tokens) is None:
        await _store.spend(deployment, tokens)


async def _in_redis(script: int, deployment: str, *arguments: int) -> int | None:
    """None where there is no Redis now."""
    if _link is None or _scripts is None or not _link.connected:
        return None
    try:
        return int(await with_timeout(_scripts[script](keys=[_PREFIX + deployment], args=list(arguments))))
    except Exception:  # it is looked at, and until it is back the counts of this worker hold
        _link.doubt_soon()
        return None


def _limits_of(params: Mapping[str, Any]) -> Limits:
    rpm, tpm = params.get("rpm"), params.get("tpm")
    return Limits(rpm - 1 if isinstance(rpm, int) else None, tpm if isinstance(tpm, int) else None)
