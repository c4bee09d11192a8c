"""The ports between the methods and the backends: `Model` for a chat, `Services` for what else a backend does.

Owns the vocabulary that ``backends/`` and the core share. Refuses to know any provider's or LiteLLM's shape, and JSON-RPC:
``backends/`` has turned a response into `Delta` and `Facts` before anything here sees it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from bridge_worker.core.deltas import Delta, End
from bridge_worker.core.receipt import Receipt
from bridge_worker.schema.chat_request import Deadlines
from bridge_worker.schema.chat_result import CostSource, Usage
from bridge_worker.schema.services import ModelInfo, ModelSummary, TokenCount

# A provider's state in a message: what no other provider can read.
STATE = ("thinking_blocks", "reasoning_content", "reasoning_items", "provider_specific_fields")


@dataclass(slots=True)
class ChatRequest:
    """Request to a model. ``options`` holds the given OpenAI parameters, unchanged."""

    model: str
    messages: list[dict[str, Any]]
    options: dict[str, Any]
    stream: bool
    deadlines: Deadlines
    received: float  # time.monotonic()
    receipt: Receipt  # the model notes here what it does
    upstream_open: bool = False  # true while the backend holds a connection; after a cancel it is the proof, or its absence
    provider: str | None = None  # that is being called, for an error


@dataclass(slots=True)
class Facts:
    """The last thing that a `Model` yields: the facts about the whole response, and what the backend adds to them."""

    end: End
    provider: str | None = None
    cost_usd: float | None = None
    cost_source: CostSource | None = None
    price_map_date: str | None = None
    rate_limits: dict[str, int | None] | None = None


class Model(Protocol):
    """A backend's side of a chat."""

    def chat(self, request: ChatRequest) -> AsyncGenerator[list[Delta] | Facts, None]:
        """The deltas of each read of the response, as it arrives, then `Facts`.

        Closing the generator, or cancelling the task that waits for it, closes the upstream connection before it returns.
        Raises BridgeError only. A stream that the provider cut short ends in ``stream_interrupted``.
        """


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

    ``at_home``: the models run here, and no provider is called.
    """

    at_home: bool

    def names(self, *, every: bool) -> list[ModelSummary]:
        """Lists the configured models; with ``every`` also the models with a configured API key."""

    def describe(self, model: str) -> ModelInfo: ...

    def count(self, model: str, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None) -> TokenCount: ...

    def cost_usd(self, model: str, expense: Expense) -> float | None:
        """The most that it can cost; None when no price is known."""

    def alternatives(self, model: str) -> list[str]:
        """Names that can serve ``model``: itself and its fallbacks."""

    async def embed(self, request: EmbedRequest) -> Embeddings: ...

    async def rerank(self, request: RerankRequest) -> Ranking: ...


class Backends(Protocol):
    """Finds what serves a model, by its name. Raises BridgeError when that could not be loaded."""

    async def chat_model(self, name: str) -> Model: ...

    async def services(self, name: str) -> Services: ...

    async def list_models(self, *, every: bool) -> list[ModelSummary]:
        """The configured models, in no order; with ``every`` also each model of a provider with a configured API key."""


Params = dict[str, Any]  # of a request, as the client wrote them


class Notify(Protocol):
    """Sends notifications of one request, and waits while the reader of them is slow."""

    async def __call__(self, method: str, params: dict[str, Any]) -> None: ...

    async def lines(self, lines: list[bytes]) -> None:
        """The same for notifications that are encoded already, each a whole line."""


@dataclass(slots=True)
class RequestContext:
    """A request as a method sees it, besides its params. ``log`` gathers the fields of its one log line; never content."""

    id: str | int
    received: float  # time.monotonic()
    notify: Notify
    log: dict[str, object]
    engine: str | None = None  # what carried it out
