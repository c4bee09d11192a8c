"""Describes a call as a span, by OpenTelemetry's semantic conventions for generative AI.

Owns the attributes' names and the facts of a response that they contain; message content is never among them. Refuses to import
OpenTelemetry itself (`otlp` does), so that a worker without spans does not load it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from bridge_worker.protocol.session import Response, Start
from bridge_worker.providers.facts import OPENTELEMETRY_NAMES

Attribute = str | bool | int | float | list[str]

# The conventions name the operations of chat and embed; they have no name for a reranking yet.
_OPERATIONS = {"chat": "chat", "embed": "embeddings", "rerank": "rerank"}
_LONGEST_ID = 64
_LONGEST_NAME = 200
_UNKNOWN_PROVIDER = "omni-bridge"  # for a call that reached no provider
_REQUEST_ATTRIBUTES: Mapping[str, tuple[str, type]] = {
    "max_completion_tokens": ("gen_ai.request.max_tokens", int),
    "max_tokens": ("gen_ai.request.max_tokens", int),
    "temperature": ("gen_ai.request.temperature", float),
    "top_p": ("gen_ai.request.top_p", float),
    "frequency_penalty": ("gen_ai.request.frequency_penalty", float),
    "presence_penalty": ("gen_ai.request.presence_penalty", float),
    "seed": ("gen_ai.request.seed", int),
    "stream": ("gen_ai.request.stream", bool),
}
_USAGE_ATTRIBUTES = {
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "cached_input_tokens": "gen_ai.usage.cache_read.input_tokens",
    "cache_write_tokens": "gen_ai.usage.cache_creation.input_tokens",
    "reasoning_tokens": "gen_ai.usage.reasoning.output_tokens",
}


@dataclass(slots=True)
class SpanDescription:
    """``failed``: the span's status is "error"; a cancel by the client is not an error. ``parent`` is a W3C trace context."""

    name: str
    failed: bool
    parent: Mapping[str, str]
    attributes: dict[str, Attribute] = field(default_factory=dict)


def describe_span(start: Start, response: Response) -> SpanDescription | None:
    """The span of a call of a model; None for any other method."""
    method, params = start.method, cast(Any, start.params)
    result, error = cast(Any, response.get("result")), cast(Any, response.get("error"))
    if method == "tools/call" and params.get("name") == "chat":
        method, params, result, error = "chat", params.get("arguments"), *_of_tool(result, error)
    operation = _OPERATIONS.get(method)
    if operation is None:
        return None
    kind = _in(error, "data", "kind")
    # Params that failed validation have unknown types, and a name longer than any model's may be content.
    valid = kind != "invalid_request" and isinstance(params, dict) and len(params["model"]) <= _LONGEST_NAME
    request: Mapping[str, Any] = params if valid else {}
    about = _in(error, "data") if error else result
    attributes: dict[str, Attribute | None] = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": _provider(about),
        "gen_ai.request.model": request.get("model"),
        **{
            name: as_type(request[member])
            for member, (name, as_type) in _REQUEST_ATTRIBUTES.items()
            if request.get(member) is not None
        },
        **_response_attributes(about),
        "error.type": kind,
        "jsonrpc.request.id": str(start.id) if len(str(start.id)) <= _LONGEST_ID else None,
    }
    name = f"{operation} {request['model']}" if request else operation
    known = {name: value for name, value in attributes.items() if value is not None}
    return SpanDescription(name, kind not in (None, "cancelled"), _parent(start.params), known)


def _of_tool(result: Any, error: Any) -> tuple[Any, Any]:
    """The result and the error of an MCP tool call; MCP puts the error of a failed tool into the result."""
    return _in(result, "structuredContent"), error or _in(result, "_meta", "omni-bridge/error")


def _provider(about: Any) -> str:
    attempts = _in(about, "receipt", "attempts") or [{}]
    provider = _in(about, "provider") or attempts[-1].get("provider")
    return OPENTELEMETRY_NAMES.get(provider, provider) if provider else _UNKNOWN_PROVIDER


def _response_attributes(about: Any) -> dict[str, Attribute | None]:
    receipt, finish = _in(about, "receipt"), _in(about, "finish_reason")
    attempts, first = _in(receipt, "attempts"), _in(about, "timing", "first_token_ms")
    return {
        "gen_ai.response.model": _in(receipt, "served_model"),
        "gen_ai.response.id": _in(about, "id"),
        "gen_ai.response.finish_reasons": [finish] if finish else None,
        "gen_ai.response.time_to_first_chunk": first / 1000 if first is not None else None,
        **{name: _in(about, "usage", member) for member, name in _USAGE_ATTRIBUTES.items()},
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
