"""LiteLLM's objects become the bridge's `Delta`: a whole answer, a piece of a stream, and what only a whole stream tells.

Owns LiteLLM's shapes, which differ by provider where they should not, and the price of an answer. Refuses to call anything, and to
add up: that is what `completion` does.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, Literal, NamedTuple

import litellm

from bridge_worker.core.ports import Delta, ToolCallPiece
from bridge_worker.errors import BridgeError
from bridge_worker.providers import price_map
from bridge_worker.schema.chat_result import RateLimits, Usage

_FINISH_REASONS = {"stop", "length", "tool_calls", "content_filter"}
_OTHER_FINISH_REASONS = {"function_call": "tool_calls", "max_tokens": "length", "refusal": "content_filter"}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_TELL_COST = {"openrouter", "vercel_ai_gateway", "litellm_proxy"}  # elsewhere it is LiteLLM's own figure
# Headers of a LiteLLM proxy that is the provider, whatever the config calls it. Those of a stream come before its cost is known.
_PROXY, _PROXY_COST = "llm_provider-x-litellm-version", "llm_provider-x-litellm-response-cost"
_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_SIGNED_ID = "__thought__"  # LiteLLM hides Gemini's signature of a call in its id as well


class Target(NamedTuple):
    """What was called, by LiteLLM's names; the answer itself does not always tell."""

    model: str | None
    provider: str | None
    deployment: str | None


def whole(response: Any, target: Target) -> Delta:
    if not getattr(response, "choices", None):
        wrong = "the provider answered without any choice; try again"
        raise BridgeError("bad_upstream_response", wrong, provider=target.provider)
    choice = response.choices[0]
    delta = _delta(choice, choice.message)
    delta.raw_finish_reason = _native(choice) or choice.finish_reason
    usage = getattr(response, "usage", None)
    delta.usage = _usage(usage)
    proxy_cost = _headers(response).get(_PROXY_COST)
    return _with_facts(delta, response, target, response.model, told=proxy_cost or getattr(usage, "cost", None))


def piece(chunk: Any, facts: Delta) -> Delta:
    """``facts`` gathers what the end of the stream is judged by."""
    choice = chunk.choices[0] if chunk.choices else None
    delta = _delta(choice, choice.delta) if choice else Delta()
    delta.id = chunk.id
    if choice and delta.finish_reason:
        facts.finish_reason = delta.finish_reason
        facts.raw_finish_reason = _native(choice) or choice.finish_reason
    if reported := _members(chunk).get("usage"):
        facts.usage = _usage(reported) or facts.usage
        facts.cost_usd = getattr(reported, "cost", None)
    facts.model = chunk._hidden_params.get("provider_response_model") or facts.model or chunk.model
    return delta


def stream_end(stream: Any, facts: Delta, target: Target, *, streamed: bool) -> Delta:
    if facts.finish_reason is None:  # see mends: LiteLLM makes none up any more
        if streamed:
            wrong = "the provider's stream ended without a finish reason; the answer may be cut short"
            raise BridgeError("stream_interrupted", wrong, provider=target.provider)
        raise BridgeError("bad_upstream_response", "the provider's stream held no answer; try again", provider=target.provider)
    # PRIVATE: LiteLLM does not tell the model of an answer that is empty in the chunks that it lets through.
    return _with_facts(facts, stream, target, stream._provider_response_model or facts.model, told=facts.cost_usd)


def _delta(choice: Any, said: Any) -> Delta:
    """``said`` is a message or a delta of LiteLLM's, which have the same members."""
    told = _members(said).get
    delta = Delta(
        content=told("content"),
        reasoning=told("reasoning_content"),
        tool_calls=[_tool_call_piece(call) for call in told("tool_calls") or ()],
        thinking_blocks=list(told("thinking_blocks") or ()),
        refusal=told("refusal"),
        annotations=_plain(told("annotations")),
        images=_images(told("images")),
        logprobs=_logprobs(choice),
        finish_reason=_finish_reason(choice.finish_reason),
    )
    if audio := told("audio"):
        delta.message["audio"] = {name: value for name, value in _plain(audio).items() if value is not None}
    if items := told("reasoning_items"):
        delta.message["reasoning_items"] = _plain(items)
    if fields := told("provider_specific_fields"):
        _add_fields(delta, fields)
    return delta


def _members(said: Any) -> dict[str, Any]:
    """What is there. To ask such an object for what is not costs as much as all the rest of a delta."""
    return {**vars(said), **(said.model_extra or {})}


def _add_fields(delta: Delta, fields: Mapping[str, Any]) -> None:
    """What LiteLLM has no place for. Gemini's signature of a text must come back; the rest is in other places too."""
    delta.refusal = delta.refusal or fields.get("refusal")
    delta.reasoning = delta.reasoning or fields.get("thinking")  # Cohere's, streamed
    if signatures := fields.get("thought_signatures"):
        delta.message["provider_specific_fields"] = {"thought_signatures": list(signatures)}
    if not delta.annotations:
        citations = fields.get("citations") or fields.get("citation")
        listed = citations if isinstance(citations, list) else [citations] if citations else []
        flat = [one for entry in listed for one in (entry if isinstance(entry, list) else [entry])]
        delta.annotations = [dict(_plain(one)) for one in flat if isinstance(_plain(one), dict)] or None


def _plain(value: Any) -> Any:
    """As JSON has it, of pydantic models in lists too."""
    if isinstance(value, list):
        return [_plain(member) for member in value]
    return value.model_dump(exclude_none=True) if hasattr(value, "model_dump") else value


def _images(images: Any) -> list[dict[str, Any]] | None:
    if not images:
        return None
    urls = [image.get("image_url") if isinstance(image, dict) else None for image in _plain(list(images))]
    return [{"type": "image_url", "image_url": {"url": url["url"] if isinstance(url, dict) else url}} for url in urls if url]


def _tool_call_piece(call: Any) -> ToolCallPiece:
    function = call.function
    fields = getattr(call, "provider_specific_fields", None) or getattr(function, "provider_specific_fields", None)
    id, _, signature = (call.id or "").partition(_SIGNED_ID)
    if signature:
        fields = {"thought_signature": signature} | (fields or {})
    return ToolCallPiece(
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
    return [token if isinstance(token, dict) else token.model_dump() for token in content or ()]


def _native(choice: Any) -> str | None:
    fields = getattr(choice, "provider_specific_fields", None) or {}
    reason = fields.get("native_finish_reason")
    return str(reason) if reason else None


def _finish_reason(reason: str | None) -> str | None:
    return reason if reason is None or reason in _FINISH_REASONS else _OTHER_FINISH_REASONS.get(reason, "stop")


def _usage(usage: Any) -> Usage | None:
    """None where the provider said nothing: LiteLLM then has zeros."""
    if usage is None or not (usage.prompt_tokens or usage.completion_tokens):
        return None
    input_details = getattr(usage, "prompt_tokens_details", None)
    output_details = getattr(usage, "completion_tokens_details", None)
    return Usage(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        total_tokens=usage.total_tokens,
        cached_input_tokens=getattr(input_details, "cached_tokens", None),
        cache_write_tokens=getattr(input_details, "cache_write_tokens", None)
        or getattr(input_details, "cache_creation_tokens", None),
        reasoning_tokens=getattr(output_details, "reasoning_tokens", None),
    )


def _headers(response: Any) -> Mapping[str, Any]:
    return (getattr(response, "_hidden_params", None) or {}).get("additional_headers") or {}


def _with_facts(delta: Delta, response: Any, target: Target, model: str | None, told: float | str | None) -> Delta:
    hidden = getattr(response, "_hidden_params", None) or {}
    delta.id = getattr(response, "id", None)
    delta.provider = target.provider
    delta.model = (hidden.get("provider_response_model") or model or "").removeprefix(f"{delta.provider}/") or None
    headers = _headers(response)
    delta.rate_limits = _rate_limits(headers)
    _price(delta, target, told if target.provider in _TELL_COST or _PROXY in headers else None)
    if hidden.get("cache_hit"):
        delta.cost_usd, delta.cost_source, delta.price_map_date = 0.0, "cache", None
    return delta


# --- what it cost ---------------------------------------------------------------------------------------------------------------


def _price(delta: Delta, target: Target, told: float | str | None) -> None:
    """The provider's own figure, else from the deployment's prices in the config, else from LiteLLM's price map; else nothing."""
    with suppress(TypeError, ValueError):
        delta.cost_usd, delta.cost_source = float(told), "provider"  # type: ignore[arg-type]  # None: nothing was told
        return
    delta.cost_usd = None
    if delta.usage is None:
        return
    names: tuple[tuple[Literal["deployment", "price_map"], Any], ...] = (
        ("deployment", target.deployment),
        ("price_map", (target.model or "").removeprefix("responses/")),
        ("price_map", delta.model),
    )
    counted = _countable(delta.usage)
    for source, name in names:
        if source == "deployment" and not has_prices(name):
            continue
        with suppress(Exception):  # ModelNotMappedError, and whatever a price formula of a provider raises
            cost = float(sum(litellm.cost_per_token(model=name, custom_llm_provider=delta.provider, usage_object=counted)))
            if source == "price_map" and not cost and is_unpriced(target.model, delta.provider):
                continue
            delta.cost_usd, delta.cost_source = cost, source
            delta.price_map_date = price_map.DATE if source == "price_map" else None
            return


def has_prices(deployment: str | None) -> bool:
    """Whether the config has prices for this deployment, by its id."""
    prices = litellm.model_cost.get(deployment, {})
    return any(prices.get(f"input_cost_per_{unit}") is not None for unit in ("token", "query"))


def is_unpriced(model: str | None, provider: str | None) -> bool:
    """The Router enters each model of the config into the price map, be its price unknown: its cost is then 0 to LiteLLM."""
    row = litellm.model_cost.get(f"{provider}/{model}")
    return row is not None and not any("cost" in name for name in row)


def _countable(usage: Usage) -> Any:
    return litellm.Usage(
        prompt_tokens=usage.input_tokens,
        completion_tokens=usage.output_tokens,
        total_tokens=usage.total_tokens,
        prompt_tokens_details={"cached_tokens": usage.cached_input_tokens or 0},
        completion_tokens_details={"reasoning_tokens": usage.reasoning_tokens or 0},
        cache_creation_input_tokens=usage.cache_write_tokens or 0,
    )


# --- what is left of a limit ----------------------------------------------------------------------------------------------------


def _rate_limits(headers: Mapping[str, Any]) -> RateLimits | None:
    """From OpenAI's names, which many have, or Anthropic's. LiteLLM writes its own prefix before most headers."""
    told = {
        name.lower().removeprefix("llm_provider-"): str(value) for name, value in headers.items() if "ratelimit" in name.lower()
    }
    if not told:
        return None
    requests = told.get("x-ratelimit-remaining-requests") or told.get("anthropic-ratelimit-requests-remaining")
    tokens = told.get("x-ratelimit-remaining-tokens") or told.get("anthropic-ratelimit-tokens-remaining")
    resets = [_milliseconds(value) for name, value in told.items() if "-reset" in name]
    known = [reset for reset in resets if reset is not None]
    limits = RateLimits(requests_remaining=_number(requests), tokens_remaining=_number(tokens), reset_ms=min(known, default=None))
    return limits if limits != RateLimits() else None


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() else None


def _milliseconds(text: str) -> int | None:
    """OpenAI: "6m0s", "20ms"; Anthropic: a date; others: seconds, or the seconds of the epoch."""
    parts = _DURATION.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return round(sum(float(number) * _UNIT_MS[unit] for number, unit in parts))
    with suppress(ValueError):
        seconds = float(text)
        return max(0, round((seconds - time.time() if seconds > 1e9 else seconds) * 1000))
    with suppress(ValueError):
        return max(0, round((datetime.fromisoformat(text).timestamp() - time.time()) * 1000))
    return None
