"""LiteLLM's Router: how it is made, which names it serves, and what of a request it chooses by.

Owns what an operator may write that the Router alone would trip over. Refuses to know what becomes of a call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from concurrent.futures import Future
from typing import Any

import litellm


def make(settings: Mapping[str, Any], loop: asyncio.AbstractEventLoop | None, started: list[Future[Any]] | None = None) -> Any:
    """A Router for use in ``loop``; None for the current one. ``started`` gets what goes on in ``loop`` until it is cancelled.

    It takes 2 ms a deployment, so a thread is the place to make it. What it starts (it writes budgets and usage to Redis now and
    then) must run where it is used all the same: made without a loop, one with budgets fails, one with usage limits never writes.
    """
    if loop is None:
        return litellm.Router(**settings)

    def start(_: object, work: Coroutine[Any, Any, Any], **__: object) -> Any:
        future = asyncio.run_coroutine_threadsafe(work, loop)
        if started is not None:
            started.append(future)
        return future

    async def made() -> Any:
        here = asyncio.get_running_loop()
        here.set_task_factory(start)  # type: ignore[arg-type]  # a future of a thread will do
        try:
            return litellm.Router(**settings)
        finally:
            here.set_task_factory(None)

    return asyncio.run(made())


def store(router: Any) -> Any:
    """The Router's own cache: cooldowns, usage, successes and failures."""
    return router.health().store if hasattr(router, "health") else router.cache


def forget(router: Any) -> None:
    """LiteLLM drops its references to the Router."""
    (router.retire if hasattr(router, "retire") else router.discard)()


def serves(router: Any, model: str) -> bool:
    """The Router would serve a deployment by its id or LiteLLM name too. PRIVATE: pattern_router, which knows wildcards."""
    return model in router.get_model_names() or model in router.model_group_alias or bool(router.pattern_router.route(model))


def metadata(given: Mapping[str, str]) -> dict[str, Any]:
    """A copy, for the Router writes into it. Its ``tags`` is a list there; with commas it is what the gateway's header has."""
    tags = [tag for part in given.get("tags", "").split(",") if (tag := part.strip())]
    return {**given, "tags": tags} if tags else dict(given)
