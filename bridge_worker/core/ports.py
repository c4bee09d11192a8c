"""The ports between the methods and the backends: `ChatModel` for chats, `ModelServices` for a backend's other methods.

Owns the vocabulary that ``backends/`` and the core share. Refuses to know JSON-RPC and the shape of a provider's or LiteLLM's data:
a backend returns `Delta` and `Facts`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from bridge_worker.core.deltas import Delta, End
from bridge_worker.core.receipt import Receipt
from bridge_worker.schema.chat_request import Deadlines
from bridge_worker.schema.chat_result import CostSource, Usage
from bridge_worker.schema.models import ModelInfo, ModelSummary
from bridge_worker.schema.tokens import TokenCount

# Members of a message with a provider's own state, which no other provider can read.
STATE = ("thinking_blocks", "reasoning_content", "reasoning_items", "provider_specific_fields")


@dataclass(slots=True, frozen=True)
class CacheHint:
    """The request is a turn of a conversation: its provider is to cache the prompt. ``tools_length``: characters of the tools."""

    key: str
    tools_length: int


@dataclass(slots=True)
class ChatRequest:
    """Request to a model. ``options`` holds the given OpenAI parameters, unchanged."""

    model: str
    messages: list[dict[str, Any]]
    options: dict[str, Any]
    stream: bool
    deadlines: Deadlines
    received: float  # time.monotonic()
    receipt: Receipt  # the backend records its attempts here
    upstream_open: bool = False  # true while the backend has a connection to the provider; reported after a cancel
    provider: str | None = None  # the provider that is being called, for an error
    cache: CacheHint | None = None
    keeps_arguments: bool = False  # tool calls with arguments that are not JSON are no error: the caller of the runner checks them


@dataclass(slots=True)
class Facts:
    """The last item that a `ChatModel` yields: facts about the whole response, and those that the backend adds."""

    end: End
    provider: str | None = None
    cost_usd: float | None = None
    cost_source: CostSource | None = None
    price_map_date: str | None = None
    rate_limits: dict[str, int | None] | None = None
    saved_usd: float | None = None  # by the provider's prompt cache, where the request has a `CacheHint`


class ChatModel(Protocol):
    """Port: runs chats on a backend."""

    def chat(self, request: ChatRequest) -> AsyncGenerator[list[Delta] | Facts, None]:
        """Yields a list of deltas for each read of the response, then `Facts`.

        Closing the generator, or cancelling the task that waits for it, closes the upstream connection before it returns.
        Raises BridgeError only; its kind is ``stream_interrupted`` when the provider ended a stream early.
        """


@dataclass(slots=True)
class Expense:
    """The numbers of a chat that its price depends on. ``output_tokens`` is the maximum, None without a limit."""

    input_tokens: int
    output_tokens: int | None
    writes_cache: bool


class Cost(NamedTuple):
    usd: float
    source: CostSource
    price_map_date: str | None = None


@dataclass(slots=True)
class EmbedRequest:
    """``options`` holds the given parameters of OpenAI, and the provider's own parameters that the operator allows."""

    model: str
    input: list[str]
    receipt: Receipt  # the backend records its attempts here
    options: dict[str, Any] = field(default_factory=dict)
    ends: float | None = None  # time.monotonic() of its deadline


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
    ends: float | None = None


@dataclass(slots=True)
class Ranking:
    scores: list[tuple[int, float]]  # (index of the document, score)
    usage: Usage | None
    cost: Cost | None
    model: str | None
    provider: str | None

    def best(self, count: int | None) -> list[tuple[int, float]]:
        """The best first; all for None."""
        return sorted(self.scores, key=lambda scored: (-scored[1], scored[0]))[:count]


class ModelServices(Protocol):
    """Port: facts, token counts, embeddings and reranking of a backend. All methods raise BridgeError only.

    The synchronous methods may block for long, so call them in a thread; they use no network. ``runs_here``: the models run on
    this machine, and no provider is called.
    """

    runs_here: bool

    def names(self, *, every: bool) -> list[ModelSummary]:
        """Lists the configured models; with ``every`` also the models with a configured API key."""

    def describe(self, model: str) -> ModelInfo: ...

    def count(self, model: str, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None) -> TokenCount: ...

    def cost_usd(self, model: str, expense: Expense) -> float | None:
        """The most that the chat can cost; None when no price is known."""

    def alternatives(self, model: str) -> list[str]:
        """Names that can serve ``model``: itself and its fallbacks."""

    async def embed(self, request: EmbedRequest) -> Embeddings: ...

    async def rerank(self, request: RerankRequest) -> Ranking: ...


class Backends(Protocol):
    """Port: finds the backend of a model by its name. Raises BridgeError when the backend could not be loaded."""

    async def chat_model(self, name: str) -> ChatModel: ...

    async def services(self, name: str) -> ModelServices: ...

    async def list_models(self, *, every: bool) -> list[ModelSummary]:
        """The configured models, unsorted; with ``every`` also each model of a provider with a configured API key."""


Params = dict[str, Any]  # a request's params, as the client wrote them


class Notify(Protocol):
    """Sends notifications of one request, and waits while the client reads slowly."""

    async def __call__(self, method: str, params: dict[str, Any]) -> None: ...

    async def lines(self, lines: list[bytes]) -> None:
        """Sends notifications that are already encoded, each a whole line."""


@dataclass(slots=True)
class RequestContext:
    """The facts of a request besides its params. ``log`` has the fields of its one log line; never content."""

    id: str | int
    received: float  # time.monotonic()
    notify: Notify
    log: dict[str, object]
    engine: str | None = None  # the chat path that served it
