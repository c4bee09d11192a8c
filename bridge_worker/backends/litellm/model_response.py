"""A response in LiteLLM's classes, made of what the bridge read.

Owns `ModelResponse` and its usage as LiteLLM's callbacks and cache know them. Refuses to know the call.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import litellm
from litellm.litellm_core_utils.llm_response_utils.get_headers import get_response_headers
from litellm.types.utils import Choices, Message

from bridge_worker.backends.litellm.pricing import model_usage
from bridge_worker.backends.litellm.upstream import Target
from bridge_worker.core.deltas import Delta
from bridge_worker.core.ports import Facts


def model_response(deltas: list[Delta], facts: Facts, target: Target, headers: Mapping[str, str]) -> Any:
    """A response as LiteLLM's callbacks and cache know it."""
    end = facts.end
    content = "".join(delta.content for delta in deltas if delta.content)
    reasoning = "".join(delta.reasoning for delta in deltas if delta.reasoning)
    message = Message(
        role="assistant", content=content or None, tool_calls=_tool_calls(deltas), reasoning_content=reasoning or None
    )
    made = litellm.ModelResponse(
        id=end.id,
        model=end.model or target.model,
        choices=[Choices(index=0, message=message, finish_reason=end.finish_reason or "stop")],
    )
    made.usage = model_usage(end.usage)
    made._hidden_params = {
        "custom_llm_provider": target.provider,
        "additional_headers": get_response_headers({name.lower(): value for name, value in headers.items()}),
    }
    return made


def _tool_calls(deltas: list[Delta]) -> list[dict[str, Any]] | None:
    calls: dict[Any, dict[str, Any]] = {}
    for piece in (piece for delta in deltas for piece in delta.tool_calls or ()):
        key = piece.index if piece.index is not None else piece.id or len(calls)
        known = calls.setdefault(key, {"id": piece.id, "type": "function", "function": {"name": piece.name or "", "arguments": ""}})
        known["function"]["arguments"] += piece.arguments
    return list(calls.values()) or None
