"""LiteLLM's facts about models, without a call of a provider: names, limits, prices, abilities, configured keys, token counts.

Owns the reading of LiteLLM's price map (`litellm.model_cost`) and of the Router's deployments. Refuses every function of LiteLLM
that may use the network or prompt the user (`get_model_info` calls a running Ollama), and does not guess: an unknown fact is None.
It blocks, so its callers use a thread.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import litellm

from bridge_worker.backends.litellm import client_keys, embed_rerank, exceptions, router, tokens
from bridge_worker.backends.litellm.chat import LiteLLM
from bridge_worker.config import unusable
from bridge_worker.core.ports import Embeddings, EmbedRequest, Expense, Ranking, RerankRequest
from bridge_worker.errors import BridgeError
from bridge_worker.providers import key_variables
from bridge_worker.providers.facts import KEY_MAY_BE_ELSEWHERE, UNUSABLE_PROVIDERS
from bridge_worker.providers.price_map import MODES
from bridge_worker.schema.chat_request import ChatParams
from bridge_worker.schema.models import ModelInfo, ModelLimits, ModelModalities, ModelPrices, ModelSummary, ModelSupport
from bridge_worker.schema.tokens import TokenCount

Facts = Mapping[str, Any]
T = TypeVar("T")

_SUPPORTS = {
    "tools": "supports_function_calling",
    "parallel_tool_calls": "supports_parallel_function_calling",
    "tool_choice": "supports_tool_choice",
    "json_schema": "supports_response_schema",
    "reasoning": "supports_reasoning",
    "vision": "supports_vision",
    "audio_input": "supports_audio_input",
    "audio_output": "supports_audio_output",
    "pdf_input": "supports_pdf_input",
    "prompt_caching": "supports_prompt_caching",
}
_INPUTS = {
    "image": "supports_vision",
    "audio": "supports_audio_input",
    "video": "supports_video_input",
    "pdf": "supports_pdf_input",
}
# Not OpenAI's: they are the bridge's own, or LiteLLM keeps them to itself.
_OWN = {"model", "messages", "stream", "deadlines", "provider_params", "metadata"}


@dataclass(frozen=True, slots=True)
class _Deployment:
    """``name`` is LiteLLM's whole name, ``bare`` without the provider; ``facts`` the price map's and, over it, the config's."""

    name: str
    bare: str
    provider: str
    facts: Facts
    key_present: bool | None
    drops: bool


class LiteLLMServices:
    """`ModelServices`, for the names that ``served`` serves."""

    runs_here = False

    def __init__(self, served: LiteLLM) -> None:
        self._route = served.route
        self._names = served.names
        self._engine = served.engine
        self._router = served.router
        self._credentials = served.credentials
        self.alternatives = served.alternatives

    def names(self, *, every: bool) -> list[ModelSummary]:
        if self._router is None:
            return list(_with_key()) if every else []
        names = {*router.names(self._router), *(self._names.aliases() if self._names else ())}
        summaries = [self._summary(name) for name in names]
        if every:
            patterns = [name for name in names if "*" in name]
            meant = {name for _, name in _known() if any(fnmatchcase(name, pattern) for pattern in patterns)} - names
            found = map(self._summary, meant)
            summaries += [summary for summary in found if summary.mode in MODES and summary.key_present is not False]
        return summaries

    def describe(self, model: str) -> ModelInfo:
        deployments = self._deployments(model)
        each = [deployment.facts for deployment in deployments]
        return ModelInfo(
            model=model,
            **_in_short(deployments),
            deployments=list(dict.fromkeys(deployment.name for deployment in deployments)),
            limits=ModelLimits(
                context_tokens=_of_all(each, "max_input_tokens", min), output_tokens=_of_all(each, "max_output_tokens", min)
            ),
            prices=ModelPrices(
                input_usd=_of_all(each, "input_cost_per_token", max),
                output_usd=_of_all(each, "output_cost_per_token", max),
                cached_input_usd=_of_all(each, "cache_read_input_token_cost", max),
                cache_write_usd=_of_all(each, "cache_creation_input_token_cost", max),
                query_usd=_of_all(each, "input_cost_per_query", max),
            ),
            modalities=ModelModalities(input=_shared(map(_inputs, each)), output=_shared(map(_outputs, each))),
            supports=ModelSupport(**{name: _all(_supports(facts, key) for facts in each) for name, key in _SUPPORTS.items()}),
            parameters=_shared(map(_parameters, deployments)),
            unsupported_parameters="dropped" if all(deployment.drops for deployment in deployments) else "rejected",
            deprecation_date=min((str(date) for facts in each if (date := facts.get("deprecation_date"))), default=None),
        )

    def count(self, model: str, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None) -> TokenCount:
        deployment = self._deployments(model)[0]
        name = str(deployment.facts.get("base_model") or deployment.bare)
        return tokens.count(name.rpartition("/")[2], deployment.provider, messages, tools)

    def cost_usd(self, model: str, expense: Expense) -> float | None:
        costs = [_cost(deployment.facts, expense) for deployment in self._deployments(model)]
        known = [cost for cost in costs if cost is not None]
        return max(known) if len(known) == len(costs) else None

    async def embed(self, request: EmbedRequest) -> Embeddings:
        request.receipt.engine = self._engine
        return await self._with_keys(request, embed_rerank.embed(self._router, request, self._route(request.model)))

    async def rerank(self, request: RerankRequest) -> Ranking:
        request.receipt.engine = self._engine
        return await self._with_keys(request, embed_rerank.rerank(self._router, request, self._route(request.model)))

    async def _with_keys(self, request: EmbedRequest | RerankRequest, made: Awaitable[T]) -> T:
        return await client_keys.with_keys(client_keys.ClientKeys(self._credentials, request.ends), made)

    def _summary(self, model: str) -> ModelSummary:
        """A wildcard or a model that LiteLLM does not know must not fail the list."""
        with suppress(BridgeError):
            if "*" not in model:
                return ModelSummary(model=model, **_in_short(self._deployments(model)))
        return ModelSummary(model=model, provider=None, mode=None, key_present=None)

    def _deployments(self, model: str) -> list[_Deployment]:
        """At least one. Raises BridgeError ``model_not_found``."""
        routed = self._route(model, chat=True)
        if routed is None:
            return [_deployment(model, {}, {})]
        rows = routed.rows
        return [_deployment(row["litellm_params"]["model"], row["litellm_params"], row.get("model_info") or {}) for row in rows]


def _in_short(deployments: Sequence[_Deployment]) -> dict[str, Any]:
    return {
        "provider": _same(deployment.provider for deployment in deployments),
        "mode": _same(deployment.facts.get("mode") for deployment in deployments),
        "key_present": _all(deployment.key_present for deployment in deployments),
    }


def _deployment(name: str, params: Facts, configured: Facts) -> _Deployment:
    try:
        bare, provider, _, _ = litellm.get_llm_provider(
            name, custom_llm_provider=params.get("custom_llm_provider"), api_base=params.get("api_base")
        )
    except Exception as error:
        raise exceptions.from_litellm(error, model=name, streamed=False) from error
    base = configured.get("base_model")
    of_config = {key: value for source in (configured, params) for key, value in source.items() if value is not None}
    return _Deployment(
        name=name if name.startswith(f"{provider}/") else f"{provider}/{name}",
        bare=bare,
        provider=provider,
        facts={**_mapped(str(base or name), provider), **of_config},
        key_present=_key_present(params, configured, provider),
        drops=bool(params.get("drop_params", litellm.drop_params)),
    )


def _key_present(params: Facts, configured: Facts, provider: str) -> bool | None:
    if unusable.MARK in configured:
        return False
    return True if any(params.get(key) for key in client_keys.KEYS) else _key_in_environment(provider)


def _mapped(name: str, provider: str) -> Facts:
    """The price map's row. Its keys have the provider or not; one of another provider's with the same name is not meant."""
    bare = name.removeprefix(f"{provider}/")
    for key in (name, f"{provider}/{bare}", bare, name.partition("/")[2]):  # the last: "ai21/jamba" is served as ai21_chat
        row: Facts = litellm.model_cost.get(key) or {}
        owner = str(row.get("litellm_provider", ""))
        if row and (owner.startswith(provider) or provider.startswith(owner)):
            return {"mapped": True, **row}
    return {}


def _with_key() -> Iterator[ModelSummary]:
    present = {provider: _key_in_environment(provider) for provider in litellm.models_by_provider}
    for provider, name in _known():
        mode = _mapped(name, provider).get("mode")
        if present[provider] and mode in MODES:
            yield ModelSummary(model=name, provider=provider, mode=mode, key_present=True)


def _known() -> Iterator[tuple[str, str]]:
    """(provider, name with the provider)"""
    for provider, names in litellm.models_by_provider.items():
        if provider not in UNUSABLE_PROVIDERS:
            yield from ((provider, name if name.startswith(f"{provider}/") else f"{provider}/{name}") for name in names)


def _key_in_environment(provider: str) -> bool | None:
    """Whether a key is set; None if unknown. LiteLLM reports nothing missing for a provider without a check: only a variable is
    proof."""
    if key_variables.variable(provider):
        return True
    provider = key_variables.owner(provider)
    if provider in KEY_MAY_BE_ELSEWHERE or not litellm.validate_environment(f"{provider}/model")["missing_keys"]:
        return None
    return False


def _parameters(deployment: _Deployment) -> list[str] | None:
    supported = litellm.get_supported_openai_params(deployment.bare, custom_llm_provider=deployment.provider)
    if supported is None:
        return None
    return [name for name in ChatParams.model_fields if name in supported and name not in _OWN]


def _supports(facts: Facts, key: str) -> bool | None:
    """The map leaves out what a model does not have."""
    return bool(facts.get(key)) if facts.get("mapped") or key in facts else None


def _inputs(facts: Facts) -> list[str] | None:
    if listed := facts.get("supported_modalities"):
        return list(listed)
    return ["text", *(name for name, key in _INPUTS.items() if facts.get(key))] if facts.get("mapped") else None


def _outputs(facts: Facts) -> list[str] | None:
    if listed := facts.get("supported_output_modalities"):
        return list(listed)
    if not facts.get("mapped") or facts.get("mode") not in ("chat", "completion", "responses"):
        return None
    return ["text", "audio"] if facts.get("supports_audio_output") else ["text"]


def _cost(facts: Facts, expense: Expense) -> float | None:
    price_in, price_out = (_price(facts, f"{direction}_cost_per_token", expense.input_tokens) for direction in ("input", "output"))
    if price_in is None or price_out is None:
        return None
    if expense.output_tokens is None and price_out:
        return None
    if expense.writes_cache:
        writing = ("cache_creation_input_token_cost", "cache_creation_input_token_cost_above_1hr")
        price_in = max(price_in, *(_price(facts, name, expense.input_tokens) or 0.0 for name in writing))
    price_out = max(price_out, facts.get("output_cost_per_reasoning_token") or 0.0)
    return expense.input_tokens * price_in + (expense.output_tokens or 0) * price_out


def _price(facts: Facts, name: str, input_tokens: int) -> float | None:
    """Some prices rise when the input is longer than so many thousand tokens."""
    prices = [facts.get(name)]
    for key, value in facts.items():
        above = re.fullmatch(rf"{name}_above_(\d+)k_tokens", key)
        if above and input_tokens > int(above[1]) * 1000:
            prices.append(value)
    known = [float(price) for price in prices if price is not None]
    return max(known) if known else None


def _of_all(each: Sequence[Facts], name: str, choose: Callable[[Iterable[Any]], Any]) -> Any:
    values = [facts.get(name) for facts in each]
    return None if None in values else choose(values)


def _all(values: Iterable[bool | None]) -> bool | None:
    found = list(values)
    return False if False in found else None if None in found else True


def _same(values: Iterable[T]) -> T | None:
    found = list(values)
    return found[0] if all(value == found[0] for value in found) else None


def _shared(lists: Iterable[list[str] | None]) -> list[str] | None:
    """The members that all have in common; None if one of them is unknown."""
    found = list(lists)
    known = [names for names in found if names is not None]
    if len(known) < len(found):
        return None
    return [name for name in known[0] if all(name in names for names in known)]
