"""Reads from LiteLLM's module who listens to calls, and which settings and parameters need LiteLLM's own path.

Owns the names of LiteLLM's lists of callbacks, what they hold back, and the names of its settings that work inside LiteLLM's call.
Refuses to choose a mode.
"""

from __future__ import annotations

import asyncio
import atexit
from typing import Any

import litellm
from litellm.integrations.custom_batch_logger import CustomBatchLogger
from litellm.types.utils import all_litellm_params

from bridge_worker.backends.litellm import receipts
from bridge_worker.config.gateway_keys import OF_COMPLETION
from bridge_worker.core.ports import ChatRequest

_CALLBACKS = (
    *("callbacks", "input_callback", "success_callback", "failure_callback", "service_callback"),
    *("_async_input_callback", "_async_success_callback", "_async_failure_callback"),
)
_NOT_PLAIN = frozenset(all_litellm_params) - {"metadata"}  # members of provider_params that LiteLLM does not simply send


def is_heard() -> bool:
    """Whether a callback that is not the Router's, a cache or a budget of LiteLLM's has to hear of each call."""
    if litellm.cache is not None or litellm.max_budget:
        return True
    lists = (getattr(litellm, name) for name in _CALLBACKS)
    return any(not _is_routers(callback) for callbacks in lists for callback in callbacks)


async def flush_callbacks() -> None:
    """Sends what callbacks have gathered for a batch. Some packages (OpenTelemetry, langfuse) send it when Python exits. The worker
    ends without that, because LiteLLM's other exit handlers take a second."""
    if not is_heard():
        return
    callbacks = {id(one): one for name in _CALLBACKS for one in getattr(litellm, name)}.values()
    for logger in callbacks:
        if isinstance(logger, CustomBatchLogger):
            await logger.flush_queue()
    await asyncio.to_thread(atexit._run_exitfuncs)  # PRIVATE to CPython


def needs_wrapper() -> bool:
    """Whether anything in LiteLLM hears of a call, also the Router's own callbacks: then `litellm.client` must wrap it."""
    if litellm.cache is not None or litellm.max_budget or any(getattr(litellm, name, None) for name in OF_COMPLETION):
        return True
    return any(not _is_own(callback) for name in _CALLBACKS for callback in getattr(litellm, name))


def _is_own(callback: Any) -> bool:
    """The bridge's own watch on embeddings."""
    return isinstance(getattr(callback, "__self__", callback), receipts.Watch)


def _is_routers(callback: Any) -> bool:
    """A Router of this or an earlier config, the bridge's own watch on embeddings, or the entry of a cache that is not set."""
    owner = getattr(callback, "__self__", callback)
    module = type(owner).__module__ if not isinstance(owner, str) else ""
    return callback == "cache" or _is_own(callback) or module.startswith("litellm.router")


def reason_for_litellm(request: ChatRequest) -> str | None:
    """The reason why this chat needs LiteLLM's own path although the bridge can read the provider's format, or None."""
    for name in request.options:
        if name in _NOT_PLAIN:
            return f"provider_params.{name} is a parameter of LiteLLM's own"
    for name in OF_COMPLETION:
        if getattr(litellm, name, None):
            return f"litellm_settings.{name} is set"
    return None
