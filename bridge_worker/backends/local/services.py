"""The `ModelServices` of the models on this machine: exact counts, real limits, embeddings.

Owns what `chat.Local` knows, in the port's shapes. Refuses to guess: facts that are known only after loading load the model.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from bridge_worker.backends.local.chat import PROVIDER, Local
from bridge_worker.core.ports import Cost, Embeddings, EmbedRequest, Expense, Ranking, RerankRequest
from bridge_worker.core.receipt import Change, EngineVersion
from bridge_worker.errors import BridgeError
from bridge_worker.schema.chat_result import Usage
from bridge_worker.schema.models import ModelInfo, ModelLimits, ModelModalities, ModelPrices, ModelSummary, ModelSupport
from bridge_worker.schema.tokens import TokenCount

_PARAMETERS = """
    temperature top_p max_tokens max_completion_tokens stop seed response_format frequency_penalty presence_penalty logit_bias
    logprobs top_logprobs
""".split()
_WITH_TOOLS = ["tools", "tool_choice", "parallel_tool_calls"]


class LocalServices:
    """`ModelServices`. The first call about a model loads it. Each call has a separate loop, because the caller's must not
    block."""

    runs_here = True

    def __init__(self, local: Local) -> None:
        self._local = local

    def names(self, *, every: bool) -> list[ModelSummary]:
        return [
            ModelSummary(model=name, provider=PROVIDER, mode=_mode(embeds), key_present=None)
            for name, embeds in self._local.names().items()
        ]

    def describe(self, model: str) -> ModelInfo:
        limits = asyncio.run(self._local.limits(model))
        able = {"tools": limits.tools, "tool_choice": limits.tools, "parallel_tool_calls": limits.tools, "json_schema": True}
        others = {name: False for name in ModelSupport.model_fields if name not in able and name != "reasoning"}
        return ModelInfo(
            model=model,
            provider=PROVIDER,
            mode=_mode(limits.embed),
            key_present=None,
            deployments=[model],
            limits=ModelLimits(context_tokens=limits.context_tokens, output_tokens=limits.context_tokens),
            prices=ModelPrices(input_usd=0.0, output_usd=0.0, cached_input_usd=0.0, cache_write_usd=0.0, query_usd=0.0),
            modalities=ModelModalities(input=["text"], output=["text"]),
            supports=ModelSupport(**able, reasoning=None, **others),
            parameters=_PARAMETERS + (_WITH_TOOLS if limits.tools else []),
            unsupported_parameters="rejected",
            deprecation_date=None,
        )

    def count(self, model: str, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None) -> TokenCount:
        tokens = asyncio.run(self._local.count_tokens(model, messages, tools))
        return TokenCount(input_tokens=tokens, tokenizer=model, exact=True)

    def cost_usd(self, model: str, expense: Expense) -> float | None:
        return 0.0

    def alternatives(self, model: str) -> list[str]:
        return [model]

    async def embed(self, request: EmbedRequest) -> Embeddings:
        made = await self._local.embed(request.model, request.input, request.options)
        usage = Usage(input_tokens=made.input_tokens, total_tokens=made.input_tokens)
        request.receipt.engine = EngineVersion(name="llama.cpp", version=made.version)
        request.receipt.added = []
        request.receipt.dropped = [Change(param=name, change="dropped") for name in request.options if name != "dimensions"]
        return Embeddings(made.vectors, usage, Cost(0.0, "provider"), request.model, PROVIDER)

    async def rerank(self, request: RerankRequest) -> Ranking:
        wrong = "models on this machine rank no documents through the bridge; choose another"
        raise BridgeError("rejected_by_provider", wrong, model=request.model, provider=PROVIDER)


def _mode(embeds: bool) -> str:
    return "embedding" if embeds else "chat"
