"""LiteLLM's Router: how it is made, which names it serves, and by which parts of a request it chooses.

Owns every use of a Router's members but its calls. LiteLLM 1.109 replaced these members by `registry`, `health`, `apply` and
`retire`, and will remove the old ones; each function here uses the successor where the Router has it. Refuses to know the
outcome of a call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any

import litellm

from bridge_worker.backends.litellm.patches import table


def make(settings: Mapping[str, Any], loop: asyncio.AbstractEventLoop | None) -> Any:
    """A Router for use in ``loop``; None for the current one.

    It takes 2 ms a deployment, so make it in a thread. It starts tasks that write budgets and usage to Redis, and these must run in
    the loop that uses the Router: without a loop, a Router with budgets fails, and one with usage limits never writes.
    """
    table.install_for_router()
    if loop is None:
        return litellm.Router(**settings)

    def start(_: object, work: Coroutine[Any, Any, Any], **__: object) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop)

    async def made() -> Any:
        here = asyncio.get_running_loop()
        here.set_task_factory(start)  # type: ignore[arg-type]  # a future of a thread will do
        try:
            return litellm.Router(**settings)
        finally:
            here.set_task_factory(None)

    return asyncio.run(made())


def _has_successors(router: Any) -> bool:
    return hasattr(router, "registry")


def forget(router: Any) -> None:
    """LiteLLM drops its references to the Router."""
    (router.retire if _has_successors(router) else router.discard)()


def names(router: Any) -> list[str]:
    """The names of its groups and aliases, wildcards among them."""
    found: list[str] = router.registry().names() if _has_successors(router) else router.get_model_names()
    return found


def has_wildcards(router: Any) -> bool:
    """Whether a name that no group has may be served. PRIVATE: the pattern router, which knows wildcards."""
    patterns = router.registry().patterns() if _has_successors(router) else router.pattern_router
    return bool(patterns.patterns)


def deployment(router: Any, id: str) -> Mapping[str, Any] | None:
    """The row with this id."""
    found = router.registry().deployment_dict(id) if _has_successors(router) else router.get_model_info(id=id)
    return found or None


def deployments(router: Any, model: str | None = None) -> list[Mapping[str, Any]]:
    """The rows that serve ``model``, as a group, an alias or a name under a wildcard; without it every row."""
    found = router.registry().deployments(model) if _has_successors(router) else router.get_model_list(model_name=model)
    return list(found or ())


def configured_deployments(router: Any) -> list[Mapping[str, Any]]:
    """The rows of the config that the Router took."""
    return list(router.registry().all() if _has_successors(router) else router.model_list)


def store(router: Any) -> Any:
    """LiteLLM's DualCache, in which the Router counts usage, failures and cooldowns."""
    return router.health().store if _has_successors(router) else router.cache


def cooldowns(router: Any) -> Any:
    """The native store of cooldowns; None where `store` has them."""
    return getattr(router.health().cooldowns, "cooldown_store", None) if _has_successors(router) else None


def pins(router: Any) -> Any:
    """LiteLLM's DualCache of the deployments that have a prompt in their cache; None where there is none."""
    return router.registry().plugins("prompt_caching_pins") if _has_successors(router) else None


def attach_redis(router: Any, cache: Any) -> None:
    """The Router shares its state through ``cache`` from now on, unless it does so already."""
    if store(router).redis_cache is not None:
        return
    if not _has_successors(router):
        router.update_redis_cache(cache)
        return
    from litellm.router_api import ChangeSet

    router.apply(ChangeSet(redis_cache=cache))


def metadata(given: Mapping[str, str]) -> dict[str, Any]:
    """A copy, for the Router writes into it. Its ``tags`` is a list there; with commas it is what the gateway's header has."""
    tags = [tag for part in given.get("tags", "").split(",") if (tag := part.strip())]
    return {**given, "tags": tags} if tags else dict(given)


def with_fallbacks(router: Any, model: str) -> list[str]:
    """``model``, and what the Router may call instead of it, and instead of that."""
    kinds = ("fallbacks", "context_window_fallbacks", "content_policy_fallbacks")
    rows = [row for kind in kinds for row in getattr(router, kind, None) or ()]
    names = [model]
    for name in names:  # the loop appends to it
        meant = [other for row in rows for key, others in row.items() if key in (name, "*") for other in others]
        names += [other for other in dict.fromkeys(meant) if isinstance(other, str) and other not in names]
    return names
