"""The price of a response: the provider's own figure, else the deployment's prices in the config, else LiteLLM's price map, by the
deployment's `base_model` where the config has one. A model without a price anywhere has none: LiteLLM's 0 for it is not taken.

Owns the unit prices, which are looked up once per model and price map. LiteLLM's own calculation takes 160 us a response. A model
with a price that is linear in its token counts, which is checked at the look-up, is priced by five multiplications. Refuses to know
how a response was made.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Literal, NamedTuple

import litellm

from bridge_worker.core.deltas import TokenUsage
from bridge_worker.providers import price_map

_TIER = re.compile(r"_above_(\d+)k_tokens")
_TOLERANCE = 1e-9
_PROBE = 1_000  # tokens; below every threshold from which a tiered price rises
_PER_SECOND = ("input_cost_per_second", "output_cost_per_second")
# Routes that LiteLLM takes as part of a model's name; the price map's rows have none of them.
_ROUTES = ("responses/", "converse/", "converse_like/", "invoke/")


class Price(NamedTuple):
    usd: float
    source: Literal["provider", "deployment", "price_map"]
    price_map_date: str | None = None


Formula = Callable[[TokenUsage], float]
_formulas: dict[tuple[str, str | None, int], Formula | None] = {}


def forget() -> None:
    """Empties the cache; call it after a config has changed LiteLLM's price map."""
    _formulas.clear()


def price(
    usage: TokenUsage | None,
    *,
    provider: str | None,
    deployment: str | None,
    models: tuple[str | None, ...],
    charged: Any = None,
    seconds: float | None = None,
) -> Price | None:
    """None where nothing is known. ``models`` are the names to look up, in order; ``charged`` is the provider's own figure;
    ``seconds`` is how long the response took, for prices per second."""
    with suppress(TypeError, ValueError):
        return Price(float(charged), "provider")
    row = litellm.model_cost.get(deployment) or {} if deployment is not None else {}
    per_second = next((float(row[name]) for name in _PER_SECOND if row.get(name) is not None), None)
    if per_second is not None and seconds is not None:
        return Price(per_second * seconds, "deployment")
    if usage is None:
        return None
    if deployment is not None and _has_cost(row) and (formula := _formula(deployment, provider)):
        return Price(formula(usage), "deployment")
    base = row.get("base_model")
    for name in dict.fromkeys((base, *models)):
        bare = _bare(name)
        # A base model may be another provider's: the model behind an Azure deployment or a gateway of the operator's.
        if bare and (formula := _formula(bare, provider) or (_formula(bare, None) if name == base else None)):
            usd = formula(usage)
            if usd or _is_free(bare, provider):
                return Price(usd, "price_map", price_map.DATE)
    return None


def has_prices(deployment: str | None) -> bool:
    """Whether the config has prices for this deployment, by its id."""
    return _has_cost(litellm.model_cost.get(deployment) or {})


def is_unpriced(model: str | None, provider: str | None, deployment: str | None = None) -> bool:
    """Whether a price of 0 by LiteLLM's figures means that it knows none."""
    base = (litellm.model_cost.get(deployment) or {}).get("base_model")
    return not any(_is_free(name, provider) or _is_listed(name, provider) for name in (base, model) if name)


def _is_free(model: str, provider: str | None) -> bool:
    """Whether the price map has a price of 0 for it. The Router enters each model of a config into the map, without any."""
    return any(_has_cost(row) and not any(_costs(row)) for row in _rows(model, provider))


def _is_listed(model: str, provider: str | None) -> bool:
    return any(any(_costs(row)) for row in _rows(model, provider))


def _rows(model: str, provider: str | None) -> list[Mapping[str, Any]]:
    """The rows of the price map under the names that LiteLLM looks up."""
    names = (model, f"{provider}/{model}", model.partition("/")[2])
    return [row for name in names if (row := litellm.model_cost.get(name))]


def _costs(row: Mapping[str, Any]) -> list[Any]:
    return [value for name, value in row.items() if "cost" in name and value is not None]


def _has_cost(row: Mapping[str, Any]) -> bool:
    return bool(_costs(row))


def _bare(name: str | None) -> str:
    bare = name or ""
    for route in _ROUTES:
        bare = bare.removeprefix(route)
    return bare


def _formula(model: str, provider: str | None) -> Formula | None:
    key = (model, provider, len(litellm.model_cost))
    if key not in _formulas:
        if len(_formulas) > 4096:
            _formulas.clear()
        _formulas[key] = _looked_up(model, provider)
    return _formulas[key]


def _looked_up(model: str, provider: str | None) -> Formula | None:
    """None where the price map has no row."""

    def by_litellm(usage: TokenUsage) -> float:
        counted = model_usage(usage)
        return float(sum(litellm.cost_per_token(model=model, custom_llm_provider=provider, usage_object=counted)))

    try:
        prices = [by_litellm(usage) / _PROBE for usage in _PROBES]
        nothing, mixed = by_litellm(TokenUsage(0, 0, 0)), by_litellm(_MIXED)
    except Exception:  # ModelNotMappedError, and whatever a provider's formula raises
        return None
    linear, tier = _linear(*prices), _first_tier(model, provider)
    if nothing or abs(linear(_MIXED) - mixed) > _TOLERANCE * max(mixed, 1e-12):
        return by_litellm
    return lambda usage: linear(usage) if usage.is_text and (usage.input_tokens or 0) < tier else by_litellm(usage)


_PROBES = (
    TokenUsage(_PROBE, 0, _PROBE),
    TokenUsage(0, _PROBE, _PROBE),
    TokenUsage(_PROBE, 0, _PROBE, cached_input_tokens=_PROBE),
    TokenUsage(_PROBE, 0, _PROBE, cache_write_tokens=_PROBE),
    TokenUsage(0, _PROBE, _PROBE, reasoning_tokens=_PROBE),
)
_MIXED = TokenUsage(700, 90, 790, 200, 100, 30)


def _linear(plain: float, out: float, cached: float, written: float, reasoning: float) -> Formula:
    def formula(usage: TokenUsage) -> float:
        read, write, thought = usage.cached_input_tokens or 0, usage.cache_write_tokens or 0, usage.reasoning_tokens or 0
        fresh = (usage.input_tokens or 0) - read - write
        spoken = (usage.output_tokens or 0) - thought
        return fresh * plain + read * cached + write * written + spoken * out + thought * reasoning

    return formula


def _first_tier(model: str, provider: str | None) -> float:
    """The length of the input, in tokens, from which a price changes."""
    rows = [litellm.model_cost.get(name) or {} for name in (model, f"{provider}/{model}", model.rpartition("/")[2])]
    if any(row.get("tiered_pricing") for row in rows):
        return 0
    # The Router writes into the row of each model that it serves, and None for what the model has not.
    names = (name for row in rows for name, value in row.items() if value is not None)
    return min((int(found[1]) * 1_000 for name in names if (found := _TIER.search(name))), default=math.inf)


def model_usage(usage: TokenUsage | None) -> Any:
    """`litellm.Usage`. It has the tokens of text separately where a part is sound or an image."""
    usage = usage or TokenUsage()
    given = {"cached_tokens": usage.cached_input_tokens or 0}
    taken = {"reasoning_tokens": usage.reasoning_tokens or 0}
    if not usage.is_text:
        given |= _parts(usage.input_tokens, usage.audio_input_tokens, usage.image_input_tokens, usage.cached_input_tokens)
        taken |= _parts(usage.output_tokens, usage.audio_output_tokens, usage.image_output_tokens, usage.reasoning_tokens)
    return litellm.Usage(
        prompt_tokens=usage.input_tokens or 0,
        completion_tokens=usage.output_tokens or 0,
        total_tokens=usage.total_tokens or (usage.input_tokens or 0) + (usage.output_tokens or 0),
        prompt_tokens_details=given,
        completion_tokens_details=taken,
        cache_creation_input_tokens=usage.cache_write_tokens or 0,
    )


def _parts(whole: int | None, audio: int | None, image: int | None, other: int | None) -> dict[str, int]:
    text = (whole or 0) - (audio or 0) - (image or 0) - (other or 0)
    return {"audio_tokens": audio or 0, "image_tokens": image or 0, "text_tokens": max(0, text)}
