"""The port beside `completion.Model`: what can be said of models without asking them, and what they do other than chat.

Owns the shapes that go through it. Refuses to know any provider's or LiteLLM's, and JSON-RPC. Two implement it:
`models.catalog.Catalog` and `models.offline_services.OfflineServices`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from bridge_worker.protocol.answered import CostSource, Receipt, Usage
from bridge_worker.protocol.services import ModelInfo, ModelSummary, TokenCount


@dataclass(slots=True)
class Expense:
    """A chat, as far as its price depends on it. ``output_tokens`` is the most there can be, None where there is no limit."""

    input_tokens: int
    output_tokens: int | None
    writes_cache: bool


class Cost(NamedTuple):
    usd: float
    source: CostSource
    price_map_date: str | None = None


@dataclass(slots=True)
class EmbedRequest:
    """``options`` holds OpenAI's parameters that were given, and the provider's own that the operator allows."""

    model: str
    input: list[str]
    receipt: Receipt  # the model notes here what it does
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Embeddings:
    vectors: list[list[float]]  # in the order of the input
    usage: Usage | None
    cost: Cost | None
    model: str | None
    provider: str | None


@dataclass(slots=True)
class RerankRequest:
    model: str
    query: str
    documents: list[str]
    receipt: Receipt
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Ranking:
    scores: list[tuple[int, float]]  # (index of the document, score)
    usage: Usage | None
    cost: Cost | None
    model: str | None
    provider: str | None


class Services(Protocol):
    """All raise BridgeError only. Those that do not wait may take long and block: call them in a thread. They ask no network.

    ``at_home``: the models run here, and no provider is asked.
    """

    at_home: bool

    def names(self, *, every: bool) -> list[ModelSummary]:
        """What is configured; with ``every`` also each model whose provider's key is there."""

    def describe(self, model: str) -> ModelInfo: ...

    def count(self, model: str, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None) -> TokenCount: ...

    def cost_usd(self, model: str, expense: Expense) -> float | None:
        """The most that it can cost; None when no price is known."""

    def alternatives(self, model: str) -> list[str]:
        """The names that may be asked for ``model``: itself, and its fallbacks."""

    async def embed(self, request: EmbedRequest) -> Embeddings: ...

    async def rerank(self, request: RerankRequest) -> Ranking: ...
