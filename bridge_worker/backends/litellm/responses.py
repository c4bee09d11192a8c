"""LiteLLM's response objects become the bridge's `Delta` and `Facts`: for LiteLLM's own path, and for what its cache returns.

Owns LiteLLM's shapes, which differ by provider where they should not. Refuses to call anything, and to add up: that is the
accumulator's part.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from typing import Any

from bridge_worker.backends.litellm.pricing import price
from bridge_worker.backends.litellm.rate_limits import rate_limits
from bridge_worker.backends.litellm.upstream import Target
from bridge_worker.backends.wire.decoder import UNREADABLE
from bridge_worker.backends.wire.json_values import count_of
from bridge_worker.core.deltas import Delta, End, TokenUsage, ToolCallDelta
from bridge_worker.core.ports import Facts
from bridge_worker.errors import BridgeError

CLOSE_SECONDS = 1.0  # after this time a cancel reports that the provider's stream is not closed
_FINISH_REASONS = {"stop", "length", "tool_calls", "content_filter"}
_OTHER_FINISH_REASONS = {"function_call": "tool_calls", "max_tokens": "length", "refusal": "content_filter"}
_REPORT_COST = {"openrouter", "vercel_ai_gateway", "litellm_proxy"}  # elsewhere it is LiteLLM's own figure
# Headers of a LiteLLM proxy that is the provider, whatever the config calls it. Those of a stream come before its cost is known.
_PROXY, _PROXY_COST = "llm_provider-x-litellm-version", "llm_provider-x-litellm-response-cost"
_SIGNED_ID = "__thought__"  # LiteLLM hides Gemini's signature of a call in its id as well


def whole(response: Any, target: Target) -> tuple[list[Delta], Facts]:
    """Raises BridgeError ``bad_upstream_response`` for a response that can't be read: LiteLLM passes on what a provider sent."""
    try:
        return _whole(response, target)
    except UNREADABLE as error:
        raise _unreadable(target.provider) from error


def _unreadable(provider: str | None) -> BridgeError:
    return BridgeError("bad_upstream_response", f"{provider or 'the provider'} sent an unusable response", provider=provider)


def _whole(response: Any, target: Target) -> tuple[list[Delta], Facts]:
    if not getattr(response, "choices", None):
        problem = "the provider's response has no choice; try again"
        raise BridgeError("bad_upstream_response", problem, provider=target.provider)
    choice = response.choices[0]
    usage = getattr(response, "usage", None)
    end = End(_finish_reason(choice.finish_reason), _native(choice) or choice.finish_reason, _usage(usage))
    charged = _headers(response).get(_PROXY_COST) or getattr(usage, "cost", None)
    delta = _delta(choice, choice.message)
    if delta == Delta() and end.usage is None:  # what LiteLLM makes of a response that it can't read
        raise BridgeError("bad_upstream_response", "the provider's response has no content; try again", provider=target.provider)
    return [delta], _facts(end, response, target, response.model, charged)


class StreamReader:
    """Reads the chunks of one stream of LiteLLM's."""

    def __init__(self) -> None:
        self._end = End()
        self._cost: Any = None
        self.has_content = False

    def feed(self, chunk: Any) -> list[Delta]:
        """Raises BridgeError ``bad_upstream_response`` for a chunk that can't be read."""
        try:
            return self._feed(chunk)
        except UNREADABLE as error:
            raise _unreadable(None) from error

    def _feed(self, chunk: Any) -> list[Delta]:
        end = self._end
        end.id = chunk.id
        end.model = chunk._hidden_params.get("provider_response_model") or end.model or chunk.model
        if reported := _members(chunk).get("usage"):
            end.usage = _usage(reported) or end.usage
            self._cost = getattr(reported, "cost", None)
        if not chunk.choices:
            return []
        choice = chunk.choices[0]
        if reason := _finish_reason(choice.finish_reason):
            end.finish_reason, end.raw_finish_reason = reason, _native(choice) or choice.finish_reason
        delta = _delta(choice, choice.delta)
        self.has_content = self.has_content or bool(delta.content or delta.reasoning or delta.tool_calls)
        return [delta]

    def facts(self, stream: Any, target: Target) -> Facts:
        """The facts of ``stream``; call it at its end."""
        end = self._end
        if end.finish_reason is None:  # see patches.correctness: LiteLLM makes none up any more
            if self.has_content:
                problem = "the provider's stream ended without a finish reason; the response may be cut short"
                raise BridgeError("stream_interrupted", problem, provider=target.provider)
            raise BridgeError("bad_upstream_response", "the provider's stream has no content; try again", provider=target.provider)
        # PRIVATE: LiteLLM does not report the model of a response that is empty in the chunks that it lets through.
        return _facts(end, stream, target, getattr(stream, "_provider_response_model", None) or end.model, self._cost)


def _delta(choice: Any, part: Any) -> Delta:
    """``part`` is a message or a delta of LiteLLM's, which have the same members."""
    member = _members(part).get
    delta = Delta(
        content=member("content"),
        reasoning=member("reasoning_content"),
        tool_calls=[_tool_call_piece(call) for call in member("tool_calls") or ()] or None,
        thinking_blocks=list(member("thinking_blocks") or ()) or None,
        refusal=member("refusal"),
        annotations=_plain(member("annotations")),
        images=_images(member("images")),
        logprobs=_logprobs(choice),
    )
    message: dict[str, Any] = {}
    if audio := member("audio"):
        message["audio"] = {name: value for name, value in _plain(audio).items() if value is not None}
    if items := member("reasoning_items"):
        message["reasoning_items"] = _plain(items)
    if fields := member("provider_specific_fields"):
        _add_fields(delta, message, fields)
    delta.message = message or None
    return delta


def _members(part: Any) -> dict[str, Any]:
    """The set members. Looking up a missing member of such an object takes as long as the rest of a delta."""
    return {**vars(part), **(part.model_extra or {})}


def _add_fields(delta: Delta, message: dict[str, Any], fields: Mapping[str, Any]) -> None:
    """Adds the fields without a member in LiteLLM. Gemini's signature of a text must be sent back; the others are duplicates."""
    delta.refusal = delta.refusal or fields.get("refusal")
    delta.reasoning = delta.reasoning or fields.get("thinking")  # Cohere's, streamed
    if signatures := fields.get("thought_signatures"):
        message["provider_specific_fields"] = {"thought_signatures": list(signatures)}
    if not delta.annotations:
        citations = fields.get("citations") or fields.get("citation")
        listed = citations if isinstance(citations, list) else [citations] if citations else []
        flat = [one for entry in listed for one in (entry if isinstance(entry, list) else [entry])]
        delta.annotations = [dict(_plain(one)) for one in flat if isinstance(_plain(one), dict)] or None


def _plain(value: Any) -> Any:
    """The value as plain JSON, also for pydantic models in lists."""
    if isinstance(value, list):
        return [_plain(member) for member in value]
    return value.model_dump(exclude_none=True) if hasattr(value, "model_dump") else value


def _images(images: Any) -> list[dict[str, Any]] | None:
    if not images:
        return None
    urls = [image.get("image_url") if isinstance(image, dict) else None for image in _plain(list(images))]
    return [{"type": "image_url", "image_url": {"url": url["url"] if isinstance(url, dict) else url}} for url in urls if url]


def _tool_call_piece(call: Any) -> ToolCallDelta:
    function = call.function
    fields = getattr(call, "provider_specific_fields", None) or getattr(function, "provider_specific_fields", None)
    id, _, signature = (call.id or "").partition(_SIGNED_ID)
    if signature:
        fields = {"thought_signature": signature} | (fields or {})
    return ToolCallDelta(
        index=getattr(call, "index", None),
        id=id or None,
        name=function.name,
        arguments=function.arguments or "",
        provider_specific_fields=dict(fields) if fields else None,
    )


def _logprobs(choice: Any) -> list[Any] | None:
    logprobs = getattr(choice, "logprobs", None)
    if logprobs is None:
        return None
    content = logprobs.get("content") if isinstance(logprobs, dict) else getattr(logprobs, "content", None)
    return [_finite(token if isinstance(token, dict) else token.model_dump()) for token in content or ()]


def _finite(value: Any) -> Any:
    """``value`` with null for each number that JSON has no form for. A model gives -Infinity to a token that it rules out."""
    if isinstance(value, dict):
        return {name: _finite(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_finite(member) for member in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _native(choice: Any) -> str | None:
    fields = getattr(choice, "provider_specific_fields", None) or {}
    reason = fields.get("native_finish_reason")
    return str(reason) if reason else None


def _finish_reason(reason: str | None) -> str | None:
    return reason if reason is None or reason in _FINISH_REASONS else _OTHER_FINISH_REASONS.get(reason, "stop")


def _usage(usage: Any) -> TokenUsage | None:
    """None if the provider reported no usage: LiteLLM then has zeros."""
    count = counts(usage)
    if not (count("prompt_tokens") or count("completion_tokens")):
        return None
    of_input = counts(getattr(usage, "prompt_tokens_details", None))
    of_output = counts(getattr(usage, "completion_tokens_details", None))
    return TokenUsage(
        input_tokens=count("prompt_tokens"),
        output_tokens=count("completion_tokens"),
        total_tokens=count("total_tokens"),
        cached_input_tokens=of_input("cached_tokens"),
        cache_write_tokens=of_input("cache_write_tokens") or of_input("cache_creation_tokens"),
        reasoning_tokens=of_output("reasoning_tokens"),
        audio_input_tokens=of_input("audio_tokens"),
        audio_output_tokens=of_output("audio_tokens"),
        image_input_tokens=of_input("image_tokens"),
        image_output_tokens=of_output("image_tokens"),
    )


def counts(counted: Any) -> Callable[[str], int | None]:
    """LiteLLM passes on what a provider sent, also where it is a text."""
    return lambda name: count_of(getattr(counted, name, None))


def _headers(response: Any) -> Mapping[str, Any]:
    return (getattr(response, "_hidden_params", None) or {}).get("additional_headers") or {}


def _facts(end: End, response: Any, target: Target, model: str | None, charged: Any) -> Facts:
    hidden = getattr(response, "_hidden_params", None) or {}
    headers = _headers(response)
    end.id = getattr(response, "id", None) or end.id
    end.model = str(hidden.get("provider_response_model") or model or "").removeprefix(f"{target.provider}/") or None
    cost = price(
        end.usage,
        provider=target.provider,
        deployment=target.deployment,
        models=(target.model, end.model),
        charged=charged if target.provider in _REPORT_COST or _PROXY in headers else None,
    )
    usd, source, date = cost or (None, None, None)
    limits = rate_limits(headers.items())
    if hidden.get("cache_hit"):
        return Facts(end, target.provider, 0.0, "cache", None, limits)
    return Facts(end, target.provider, usd, source, date, limits)


async def close(stream: Any) -> bool:
    """True when it is closed. Runs in a separate task, because a cancel in the meantime must not interrupt the close."""
    closing = asyncio.ensure_future(stream.aclose())
    done, _ = await asyncio.wait({closing}, timeout=CLOSE_SECONDS)
    return bool(done) and closing.exception() is None
