"""The bridge's price of a response is LiteLLM's, for text by multiplications and for sound and images by LiteLLM itself."""

from __future__ import annotations

from typing import Any

import litellm
import pytest

from bridge_worker.backends.litellm import pricing
from bridge_worker.backends.wire import gemini_facts, openai_usage
from bridge_worker.core.deltas import TokenUsage
from tests.support.data import Json

OPENAI_AUDIO: Json = {
    "prompt_tokens": 1_100,
    "completion_tokens": 700,
    "total_tokens": 1_800,
    "prompt_tokens_details": {"audio_tokens": 1_000, "cached_tokens": 0},
    "completion_tokens_details": {"audio_tokens": 600, "reasoning_tokens": 0},
}
GEMINI_IMAGE: Json = {
    "promptTokenCount": 300,
    "candidatesTokenCount": 1_320,
    "totalTokenCount": 1_620,
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 42}, {"modality": "IMAGE", "tokenCount": 258}],
    "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 1_290}],
}
GEMINI_AUDIO: Json = {
    "promptTokenCount": 1_050,
    "candidatesTokenCount": 20,
    "totalTokenCount": 1_070,
    "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 1_000}, {"modality": "TEXT", "tokenCount": 50}],
}


def row(name: str) -> Any:
    return litellm.model_cost[name]


def price(model: str, provider: str, usage: TokenUsage | None) -> float | None:
    found = pricing.price(usage, provider=provider, deployment=None, models=(model,))
    return found and found.usd


def test_audio_of_openai_has_its_own_price() -> None:
    prices = row("gpt-audio")
    expected = 100 * prices["input_cost_per_token"] + 1_000 * prices["input_cost_per_audio_token"]
    expected += 100 * prices["output_cost_per_token"] + 600 * prices["output_cost_per_audio_token"]
    assert price("gpt-audio", "openai", openai_usage.usage_of(OPENAI_AUDIO)) == pytest.approx(expected)


def test_an_image_of_gemini_has_its_own_price() -> None:
    model = next(
        name.partition("/")[2] for name, one in litellm.model_cost.items() if name.startswith("gemini/") and image_price(one)
    )
    prices = row(f"gemini/{model}")
    expected = 300 * prices["input_cost_per_token"] + 30 * prices["output_cost_per_token"] + 1_290 * image_price(prices)
    assert price(model, "gemini", gemini_facts.usage_of(GEMINI_IMAGE)) == pytest.approx(expected)


def image_price(prices: Json) -> float:
    """Of a token of output, where it is another one than a text's and an input's image has none of its own."""
    own, text = prices.get("output_cost_per_image_token"), prices.get("output_cost_per_token")
    return float(own) if own and own != text and not prices.get("input_cost_per_image_token") else 0.0


def test_audio_for_gemini_has_its_own_price() -> None:
    prices = row("gemini/gemini-2.5-flash")
    expected = 50 * prices["input_cost_per_token"] + 1_000 * prices["input_cost_per_audio_token"]
    expected += 20 * prices["output_cost_per_token"]
    assert price("gemini-2.5-flash", "gemini", gemini_facts.usage_of(GEMINI_AUDIO)) == pytest.approx(expected)


@pytest.mark.parametrize("model", ["gpt-audio", "gpt-4o-mini"])
def test_text_costs_the_same_with_and_without_the_parts_counted(model: str) -> None:
    counted = TokenUsage(700, 90, 790, 200, None, None, audio_input_tokens=0, audio_output_tokens=0)
    assert price(model, "openai", counted) == price(model, "openai", TokenUsage(700, 90, 790, 200)) != 0
