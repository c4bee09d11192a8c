"""``local/NAME`` as a deployment of LiteLLM's Router: the last fallback when every provider is down.

Owns the translation between LiteLLM's custom provider and `local.Local`. Refuses the requests for ``local/NAME`` itself: they go to
`local.Local` directly and do not wait for LiteLLM.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

import litellm
from litellm import CustomLLM
from litellm.utils import custom_llm_setup  # PRIVATE: makes a provider's name known; LiteLLM calls it in its own completion() only

from bridge_worker.backends.local.chat import PROVIDER, Local
from bridge_worker.config.local_models import PREFIX
from bridge_worker.core.accumulator import usage_to_wire
from bridge_worker.core.chat_runner import run_chat
from bridge_worker.core.deltas import Delta, End, ToolCallDelta
from bridge_worker.core.ports import ChatRequest, Facts
from bridge_worker.core.receipt import Receipt
from bridge_worker.errors import BridgeError
from bridge_worker.schema.chat_request import Deadlines

_CHUNK: dict[str, Any] = {"text": "", "tool_use": None, "is_finished": False, "finish_reason": "", "usage": None, "index": 0}
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
            error.model = None  # the requested name is the deployment's
            raise _for_router(error, model) from error
        return _response(rest["model_response"], result, model)

    async def astreaming(
        self, *_: Any, model: str, messages: list[Any], optional_params: dict[str, Any], **__: Any
    ) -> AsyncIterator[Any]:
        request = _request(model, messages, optional_params, stream=True)
        try:
            async with aclosing(self._local.chat(request)) as steps:
                async for step in steps:
                    for chunk in [_last_chunk(step.end)] if isinstance(step, Facts) else _chunks(step):
                        yield chunk
        except BridgeError as error:
            raise _for_router(error, model) from error


def _request(model: str, messages: list[Any], options: dict[str, Any], *, stream: bool) -> ChatRequest:
    """A request without deadlines; the request that LiteLLM serves has them."""
    given = {name: value for name, value in options.items() if name not in ("stream", "stream_options", "max_retries")}
    return ChatRequest(PREFIX + model, messages, given, stream, Deadlines(), time.monotonic(), Receipt(requested_model=model))


def _for_router(error: BridgeError, model: str) -> Exception:
    """The exception by which the Router decides whether to try another deployment. `exceptions` finds ``error`` as its cause."""
    kinds = {
        "context_length_exceeded": litellm.ContextWindowExceededError,
        "model_not_found": litellm.NotFoundError,
        "rejected_by_provider": litellm.BadRequestError,
    }
    raised: Exception = kinds.get(error.kind, litellm.ServiceUnavailableError)(error.message, model=model, llm_provider=PROVIDER)
    return raised


def _response(response: Any, result: Mapping[str, Any], model: str) -> Any:
    message: dict[str, Any] = {"role": "assistant", "content": result["content"], "reasoning_content": result["reasoning"]}
    if result["tool_calls"]:
        message["tool_calls"] = result["tool_calls"]
    response.id, response.model = result["id"], model
    response.choices = [litellm.Choices(finish_reason=result["finish_reason"], message=litellm.Message(**message))]
    response.usage = litellm.Usage(**_usage(result["usage"] or {}))
    return response


def _chunks(deltas: list[Delta]) -> list[dict[str, Any]]:
    """LiteLLM's `GenericStreamingChunk`s. One has one tool call at most."""
    chunks = []
    for delta in deltas:
        chunk = {**_CHUNK, "text": delta.content or ""}
        if delta.reasoning:
            chunk["provider_specific_fields"] = {"reasoning_content": delta.reasoning}
        if delta.tool_calls:
            chunks += [{**chunk, "tool_use": _tool_use(piece)} for piece in delta.tool_calls]
        elif delta.content or delta.reasoning:
            chunks.append(chunk)
    return chunks


def _last_chunk(end: End) -> dict[str, Any]:
    usage = usage_to_wire(end.usage) if end.usage else {}
    return {**_CHUNK, "is_finished": True, "finish_reason": end.finish_reason or "", "usage": _usage(usage)}


def _tool_use(piece: ToolCallDelta) -> dict[str, Any]:
    function = {"name": piece.name, "arguments": piece.arguments}
    return {"id": piece.id, "type": "function", "function": function, "index": piece.index or 0}


def _usage(usage: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.get("input_tokens") or 0,
        "completion_tokens": usage.get("output_tokens") or 0,
        "total_tokens": usage.get("total_tokens") or 0,
    }
