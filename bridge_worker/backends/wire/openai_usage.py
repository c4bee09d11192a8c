"""Token counts and cost of an OpenAI-style ``usage`` object.

Owns the names that providers give these numbers. Refuses to calculate a price.
"""

from __future__ import annotations

from bridge_worker.backends.wire.json_values import Json, amount_of, count_of, first, object_of
from bridge_worker.core.deltas import TokenUsage


def usage_of(usage: Json) -> TokenUsage | None:
    """The numbers of ``usage``; None without any, and for zeros, which some servers send before they have counted."""
    given, taken = object_of(usage.get("prompt_tokens_details")), object_of(usage.get("completion_tokens_details"))
    tokens = TokenUsage(
        input_tokens=count_of(usage.get("prompt_tokens")),
        output_tokens=count_of(usage.get("completion_tokens")),
        total_tokens=count_of(usage.get("total_tokens")),
        cached_input_tokens=count_of(
            first(
                given.get("cached_tokens"),
                usage.get("prompt_cache_hit_tokens"),  # DeepSeek
                usage.get("cached_tokens"),  # Moonshot
                usage.get("cache_read_input_tokens"),  # Anthropic, behind a gateway
            )
        ),
        cache_write_tokens=count_of(
            first(
                given.get("cache_write_tokens"),  # OpenRouter
                given.get("cache_creation_tokens"),  # LiteLLM's proxy
                usage.get("cache_creation_input_tokens"),
            )
        ),
        reasoning_tokens=count_of(first(taken.get("reasoning_tokens"), usage.get("reasoning_tokens"))),
        audio_input_tokens=count_of(given.get("audio_tokens")),
        audio_output_tokens=count_of(taken.get("audio_tokens")),
        image_input_tokens=count_of(given.get("image_tokens")),
        image_output_tokens=count_of(taken.get("image_tokens")),
    )
    given_, taken_, thought = tokens.input_tokens, tokens.output_tokens, tokens.reasoning_tokens
    if not (given_ or taken_ or tokens.total_tokens):
        return None
    if given_ is not None and taken_ is not None and thought and tokens.total_tokens == given_ + taken_ + thought:
        tokens.output_tokens = taken_ + thought  # xAI counts reasoning apart
    return tokens


def cost_of(usage: Json) -> float | None:
    """US dollars that the provider reports: OpenRouter a number, Perplexity an object, xAI ten-billionths."""
    cost = usage.get("cost")
    if isinstance(cost, dict):
        cost = cost.get("total_cost")
    if cost is None and (ticks := count_of(usage.get("cost_in_usd_ticks"))) is not None:
        return ticks / 1e10
    return amount_of(cost)
