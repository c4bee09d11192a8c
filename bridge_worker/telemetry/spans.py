"""What a span says of a call, by OpenTelemetry's semantic conventions for generative AI.

Owns the names of attributes, and which facts of a response they take. Nothing that was said is among them. Refuses to know
OpenTelemetry itself (`telemetry`), so that it costs nothing to whoever wants no spans.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from bridge_worker.protocol.session import Response, Start

Attribute = str | bool | int | float | list[str]

# The two that there are names for; a ranking has none yet.
_OPERATIONS = {"chat": "chat", "embed": "embeddings", "rerank": "rerank"}
# LiteLLM's names for providers, where the conventions have others.
PROVIDERS = {
    "azure": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "azure_text": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "bedrock_converse": "aws.bedrock",
    "cohere_chat": "cohere",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "sagemaker_chat": "aws.bedrock",
    "vertex_ai": "gcp.vertex_ai",
    "vertex_ai_beta": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
    "xai": "x_ai",
}
_LONGEST_ID = 64
_LONGEST_NAME = 200
_UNKNOWN_PROVIDER = "omni-bridge"  # a call that reached none: as far as its caller can see, the bridge was asked
_ASKED: Mapping[str, tuple[str, type]] = {
    "max_completion_tokens": ("gen_ai.request.max_tokens", int),
    "max_tokens": ("gen_ai.request.max_tokens", int),
    "temperature": ("gen_ai.request.temperature", float),
    "top_p": ("gen_ai.request.top_p", float),
    "frequency_penalty": ("gen_ai.request.frequency_penalty", float),
    "presence_penalty": ("gen_ai.request.presence_penalty", float),
    "seed": ("gen_ai.request.seed", int),
    "stream": ("gen_ai.request.stream", bool),
}
_USED = {
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "cached_input_tokens": "gen_ai.usage.cache_read.input_tokens",
    "cache_write_tokens": "gen_ai.usage.cache_creation.input_tokens",
    "reasoning_tokens": "gen_ai.usage.reasoning.output_tokens",
}


@dataclass(slots=True)
class Described:
    """``failed``: the span's status is "error"; a cancel by the caller is none. ``parent`` is a W3C trace context."""

    name: str
    failed: bool
    parent: Mapping[str, str]
    attributes: dict[str, Attribute] = field(default_factory=dict)


def described(start: Start, response: Response) -> Described | None:
    """The span of a call that a model was asked for; None for any other."""
    method, params = start.method, cast(Any, start.params)
    result, error = cast(Any, response.get("result")), cast(Any, response.get("error"))
    if method == "tools/call" and params.get("name") == "chat":
        method, params, result, error = "chat", params.get("arguments"), *_of_tool(result, error)
    operation = _OPERATIONS.get(method)
    if operation is None:
        return None
    kind = _in(error, "data", "kind")
    # What was not validated may be anything, and so may a name that is longer than any model's.
    valid = kind != "invalid_request" and isinstance(params, dict) and len(params["model"]) <= _LONGEST_NAME
    asked: Mapping[str, Any] = params if valid else {}
    about = _in(error, "data") if error else result
    attributes: dict[str, Attribute | None] = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": _provider(about),
        "gen_ai.request.model": asked.get("model"),
        **{name: as_type(asked[member]) for member, (name, as_type) in _ASKED.items() if asked.get(member) is not None},
        **_answered(about),
        "error.type": kind,
        "jsonrpc.request.id": str(start.id) if len(str(start.id)) <= _LONGEST_ID else None,
    }
    name = f"{operation} {asked['model']}" if asked else operation
    said = {name: value for name, value in attributes.items() if value is not None}
    return Described(name, kind not in (None, "cancelled"), _parent(start.params), said)


def _of_tool(result: Any, error: Any) -> tuple[Any, Any]:
    """MCP tells of a failed tool in its result."""
    return _in(result, "structuredContent"), error or _in(result, "_meta", "omni-bridge/error")


def _provider(about: Any) -> str:
    attempts = _in(about, "receipt", "attempts") or [{}]
    provider = _in(about, "provider") or attempts[-1].get("provider")
    return PROVIDERS.get(provider, provider) if provider else _UNKNOWN_PROVIDER


def _answered(about: Any) -> dict[str, Attribute | None]:
    receipt, finish = _in(about, "receipt"), _in(about, "finish_reason")
    attempts, first = _in(receipt, "attempts"), _in(about, "timing", "first_token_ms")
    return {
        "gen_ai.response.model": _in(receipt, "served_model"),
        "gen_ai.response.id": _in(about, "id"),
        "gen_ai.response.finish_reasons": [finish] if finish else None,
        "gen_ai.response.time_to_first_chunk": first / 1000 if first is not None else None,
        **{name: _in(about, "usage", member) for member, name in _USED.items()},
        "http.response.status_code": _in(about, "status"),
        "omni_bridge.cost_usd": _in(about, "cost_usd"),
        "omni_bridge.attempts": len(attempts) if attempts is not None else None,
        "omni_bridge.fallback": _in(receipt, "fallback"),
    }


def _parent(params: Mapping[str, Any]) -> dict[str, str]:
    held = {name: _in(params, "_meta", name) for name in ("traceparent", "tracestate")}
    return {name: value for name, value in held.items() if isinstance(value, str)}


def _in(value: Any, *path: str) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value
