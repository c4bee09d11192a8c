"""``local/NAME`` as a deployment of LiteLLM's Router: the last fallback when every provider is down.

Owns the words between LiteLLM's custom provider and `local.Local`. Refuses the requests for ``local/NAME`` itself: they never come
this way, and do not wait for LiteLLM.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import litellm
from litellm import CustomLLM
from litellm.utils import custom_llm_setup  # PRIVATE: makes a provider's name known; LiteLLM calls it in its own completion() only

from bridge_worker.backends.local.chat import PROVIDER, Local
from bridge_worker.config.local_models import PREFIX
from bridge_worker.core.chat_runner import run_chat
from bridge_worker.core.ports import ChatRequest, Delta
from bridge_worker.errors import BridgeError
from bridge_worker.schema.chat_request import Deadlines
from bridge_worker.schema.chat_result import ChatResult, Receipt, Usage

_FREE = {"input_cost_per_token": 0.0, "output_cost_per_token": 0.0, "litellm_provider": PROVIDER, "mode": "chat"}


def register(local: Local) -> None:
    """Makes LiteLLM, of which there is one a process, know the provider ``local``."""
    others = [each for each in litellm.custom_provider_map if each["provider"] != PROVIDER]
    litellm.custom_provider_map = [*others, {"provider": PROVIDER, "custom_handler": _LocalProvider(local)}]
    custom_llm_setup()
    litellm.register_model({name: dict(_FREE) for name in local.names()})


class _LocalProvider(CustomLLM):  # type: ignore[misc]  # LiteLLM's types are not followed
    def __init__(self, local: Local) -> None:
        super().__init__()
        self._local = local

    async def acompletion(self, *_: Any, model: str, messages: list[Any], optional_params: dict[str, Any], **rest: Any) -> Any:
        async def find(_: str) -> Local:
            return self._local

        try:
            result = await run_chat(_request(model, messages, optional_params, stream=False), find)
        except BridgeError as error:
            if error.kind == "cancelled":
                raise asyncio.CancelledError from error  # LiteLLM is being cancelled, and must notice
            error.model = None  # the name that was asked for is the deployment's
            raise _for_router(error, model) from error
        return _response(rest["model_response"], result, model)

    async def astreaming(
        self, *_: Any, model: str, messages: list[Any], optional_params: dict[str, Any], **__: Any
    ) -> AsyncIterator[Any]:
        request = _request(model, messages, optional_params, stream=True)
        try:
            async with aclosing(self._local.chat(request)) as deltas:
                async for delta in deltas:
                    for chunk in _chunks(delta):
                        yield chunk
        except BridgeError as error:
            raise _for_router(error, model) from error


def _request(model: str, messages: list[Any], options: dict[str, Any], *, stream: bool) -> ChatRequest:
    """Without deadlines: the request that LiteLLM serves has them."""
    given = {name: value for name, value in options.items() if name not in ("stream", "stream_options", "max_retries")}
    return ChatRequest(PREFIX + model, messages, given, stream, Deadlines(), time.monotonic(), Receipt(requested_model=model))


def _for_router(error: BridgeError, model: str) -> Exception:
    """What tells the Router whether to try another deployment. `faults` finds ``error`` itself behind it."""
    kinds = {
        "context_length_exceeded": litellm.ContextWindowExceededError,
        "model_not_found": litellm.NotFoundError,
        "rejected_by_provider": litellm.BadRequestError,
    }
    raised: Exception = kinds.get(error.kind, litellm.ServiceUnavailableError)(error.message, model=model, llm_provider=PROVIDER)
    return raised


def _response(response: Any, result: ChatResult, model: str) -> Any:
    message: dict[str, Any] = {"role": "assistant", "content": result.content, "reasoning_content": result.reasoning}
    if result.tool_calls:
        message["tool_calls"] = [call.model_dump() for call in result.tool_calls]
    response.id, response.model = result.id, model
    response.choices = [litellm.Choices(finish_reason=result.finish_reason, message=litellm.Message(**message))]
    response.usage = litellm.Usage(**_usage(result.usage))
    return response


def _chunks(delta: Delta) -> list[dict[str, Any]]:
    """LiteLLM's `GenericStreamingChunk`s. One has one tool call at most."""
    end = delta.finish_reason is not None
    chunk = {
        "text": delta.content or "",
        "tool_use": None,
        "is_finished": end,
        "finish_reason": delta.finish_reason or "",
        "usage": _usage(delta.usage) if end else None,
        "index": 0,
    }
    if delta.reasoning:
        chunk["provider_specific_fields"] = {"reasoning_content": delta.reasoning}
    calls = [{**chunk, "tool_use": _tool_use(piece)} for piece in delta.tool_calls]
    return calls or ([chunk] if end or delta.content or delta.reasoning else [])


def _tool_use(piece: Any) -> dict[str, Any]:
    function = {"name": piece.name, "arguments": piece.arguments}
    return {"id": piece.id, "type": "function", "function": function, "index": piece.index or 0}


def _usage(usage: Usage | None) -> dict[str, Any]:
    usage = usage or Usage()
    return {
        "prompt_tokens": usage.input_tokens or 0,
        "completion_tokens": usage.output_tokens or 0,
        "total_tokens": usage.total_tokens or 0,
    }
