"""The `ModelServices` of the offline models, so that an agent's tests can use every method without a key or network.

Owns ``offline/embed`` and ``offline/rerank``, and the facts of all offline models: their tokens are words, and they are free.
Refuses to chat: `chat` does.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from bridge_worker.backends.offline import chat
from bridge_worker.core.ports import Cost, Embeddings, EmbedRequest, Expense, Ranking, RerankRequest
from bridge_worker.core.receipt import Receipt
from bridge_worker.errors import BridgeError
from bridge_worker.schema.chat_result import Usage
from bridge_worker.schema.models import ModelInfo, ModelLimits, ModelModalities, ModelPrices, ModelSummary, ModelSupport
from bridge_worker.schema.tokens import TokenCount

EMBED = "offline/embed"
RERANK = "offline/rerank"
MODES = {**dict.fromkeys(chat.NAMES, "chat"), EMBED: "embedding", RERANK: "rerank"}
_DIMENSIONS = 64
_MOST_DIMENSIONS = 4096
_PARAMETERS = ["tools", "tool_choice"]
_FREE = Cost(0.0, "provider")


class OfflineServices:
    """`ModelServices`."""

    runs_here = True

    def names(self, *, every: bool) -> list[ModelSummary]:
        return [ModelSummary(model=model, provider="offline", mode=mode, key_present=None) for model, mode in MODES.items()]

    def describe(self, model: str) -> ModelInfo:
        mode = _mode(model)
        calls_tools = model == "offline/tools"
        others = {name: False for name in ModelSupport.model_fields if name not in ("tools", "tool_choice")}
        return ModelInfo(
            model=model,
            provider="offline",
            mode=mode,
            key_present=None,
            deployments=[model],
            limits=ModelLimits(context_tokens=None, output_tokens=None),
            prices=ModelPrices(input_usd=0.0, output_usd=0.0, cached_input_usd=0.0, cache_write_usd=0.0, query_usd=0.0),
            modalities=ModelModalities(input=["text"], output=["text"]),
            supports=ModelSupport(tools=calls_tools, tool_choice=calls_tools, **others),
            parameters=_PARAMETERS if calls_tools else [],
            unsupported_parameters="dropped",
            deprecation_date=None,
        )

    def count(self, model: str, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None) -> TokenCount:
        _mode(model)
        return TokenCount(input_tokens=chat.input_tokens(messages), tokenizer="words", exact=True)

    def cost_usd(self, model: str, expense: Expense) -> float | None:
        return 0.0

    def alternatives(self, model: str) -> list[str]:
        return [model]

    async def embed(self, request: EmbedRequest) -> Embeddings:
        _sign(request.receipt)
        if request.model != EMBED:
            raise _not_found(request.model, f"does not make embeddings; the offline model for these is {EMBED}")
        dimensions = request.options.get("dimensions", _DIMENSIONS)
        if dimensions > _MOST_DIMENSIONS:
            raise BridgeError("rejected_by_provider", f"{EMBED} has at most {_MOST_DIMENSIONS} dimensions", model=EMBED)
        vectors = [_embedding(text, dimensions) for text in request.input]
        return Embeddings(vectors, _words(*request.input), _FREE, request.model, "offline")

    async def rerank(self, request: RerankRequest) -> Ranking:
        _sign(request.receipt)
        if request.model != RERANK:
            raise _not_found(request.model, f"does not rank documents; the offline model for this is {RERANK}")
        wanted = set(request.query.lower().split())
        scores = [len(wanted & set(text.lower().split())) / max(len(wanted), 1) for text in request.documents]
        return Ranking(list(enumerate(scores)), _words(request.query, *request.documents), _FREE, request.model, "offline")


def _mode(model: str) -> str:
    if model not in MODES:
        raise _not_found(model, f"is not an offline model; known: {', '.join(MODES)}")
    return MODES[model]


def _sign(receipt: Receipt) -> None:
    receipt.engine, receipt.dropped, receipt.added = chat.ENGINE, [], []


def _not_found(model: str, why: str) -> BridgeError:
    return BridgeError("model_not_found", f"{model!r:.100} {why}", model=model)


def _words(*texts: str) -> Usage:
    words = sum(len(text.split()) for text in texts)
    return Usage(input_tokens=words, total_tokens=words)


def _embedding(text: str, dimensions: int) -> list[float]:
    """A vector of length 1. Each word adds to the axis that its hash selects, so texts with common words are close."""
    vector = [0.0] * dimensions
    for word in text.lower().split() or [text]:
        vector[int.from_bytes(hashlib.sha256(word.encode("utf-8", "surrogatepass")).digest()[:8]) % dimensions] += 1.0
    length = math.hypot(*vector)
    return [axis / length for axis in vector]
