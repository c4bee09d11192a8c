"""The methods beside chat.

Owns these types. Refuses to know which model serves them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from bridge_worker.schema.base import Closed, Id, ListOf, Milliseconds, ModelName, Name, PositiveCount
from bridge_worker.schema.budgets import Budget
from bridge_worker.schema.chat_request import MAX_MESSAGES, MAX_TOOLS, ChatMessage, Tool
from bridge_worker.schema.chat_result import CostSource, Receipt, Usage
from bridge_worker.schema.lifecycle import EngineState

MAX_TEXTS = 10_000  # of one `embed` or `rerank`


class TotalDeadline(Closed):
    """Milliseconds from the arrival of the request. Null is the default, 600,000."""

    total_ms: Milliseconds | None = None


class ModelsListParams(Closed):
    """``all``: also each known model with a configured key of its provider. ``cursor``: a result's ``nextCursor``."""

    all: bool | None = None
    cursor: Id | None = None


class ModelSummary(Closed):
    """``key_present`` is null where none is needed, or where it can come from what can't be seen, such as a cloud role."""

    model: str
    provider: str | None
    mode: str | None  # chat, embedding, rerank, ...
    key_present: bool | None


class ModelsListResult(Closed):
    models: list[ModelSummary]
    nextCursor: str | None  # null on the last page


class ModelsGetParams(Closed):
    model: ModelName


class ModelLimits(Closed):
    """Tokens; ``context_tokens`` is the longest input."""

    context_tokens: int | None
    output_tokens: int | None


class ModelPrices(Closed):
    """US dollars a token, and a query where a model is paid by these."""

    input_usd: float | None
    output_usd: float | None
    cached_input_usd: float | None
    cache_write_usd: float | None
    query_usd: float | None


class ModelModalities(Closed):
    input: list[str] | None
    output: list[str] | None


class ModelSupport(Closed):
    """Null where it is not known."""

    tools: bool | None
    parallel_tool_calls: bool | None
    tool_choice: bool | None
    json_schema: bool | None
    reasoning: bool | None
    vision: bool | None
    audio_input: bool | None
    audio_output: bool | None
    pdf_input: bool | None
    prompt_caching: bool | None


class ModelInfo(ModelSummary):
    """Of a name with several deployments: what holds for each of them, and the highest prices. Null where it is not known."""

    deployments: list[str]  # the names behind this one
    limits: ModelLimits
    prices: ModelPrices
    modalities: ModelModalities
    supports: ModelSupport
    parameters: list[str] | None  # of `chat`, those that have an effect
    unsupported_parameters: Literal["rejected", "dropped"]  # what becomes of the others
    deprecation_date: str | None


class TokensCountParams(Closed):
    model: ModelName
    messages: Annotated[ListOf[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    tools: Annotated[ListOf[Tool], Field(max_length=MAX_TOOLS)] | None = None


class TokenCount(Closed):
    """``exact``: what the provider will count; else an estimate with the tokenizer that is named."""

    input_tokens: int
    tokenizer: str
    exact: bool


class CapabilityGap(Closed):
    """``member`` of the params asks for what the model can't do."""

    member: str
    reason: str


class ChatCheck(Closed):
    """``ok`` is false where the chat would surely fail. Null where it is not known."""

    ok: bool
    requested_model: str
    deployments: list[str]
    provider: str | None
    key_present: bool | None
    gaps: list[CapabilityGap]
    dropped: list[str]  # params that would have no effect
    input_tokens: int
    tokenizer: str
    exact: bool
    max_output_tokens: int | None
    max_cost_usd: float | None


class EmbedParams(Closed):
    model: ModelName
    input: (
        Annotated[str, Field(min_length=1)]
        | Annotated[ListOf[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=MAX_TEXTS)]
    )
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: PositiveCount | None = None
    user: Id | None = None
    metadata: dict[Name, str] | None = None
    deadlines: TotalDeadline | None = None
    provider_params: dict[str, Any] | None = None


class EmbedResult(Closed):
    """One embedding for each input, in order; with ``base64`` the little-endian 32-bit floats of each."""

    embeddings: list[list[float] | str]
    usage: Usage | None
    cost_usd: float | None
    cost_source: CostSource | None
    price_map_date: str | None
    model: str | None
    requested_model: str
    provider: str | None
    receipt: Receipt


class RerankParams(Closed):
    model: ModelName
    query: Annotated[str, Field(min_length=1)]
    documents: Annotated[ListOf[str], Field(min_length=1, max_length=MAX_TEXTS)]
    top_n: PositiveCount | None = None
    return_documents: bool | None = None
    metadata: dict[Name, str] | None = None
    deadlines: TotalDeadline | None = None
    provider_params: dict[str, Any] | None = None


class RankedDocument(Closed):
    """``index`` into the documents that were asked about; ``document`` is null unless it was asked for."""

    index: int
    score: float
    document: str | None


class RerankResult(Closed):
    """The most relevant first."""

    results: list[RankedDocument]
    usage: Usage | None
    cost_usd: float | None
    cost_source: CostSource | None
    price_map_date: str | None
    model: str | None
    requested_model: str
    provider: str | None
    receipt: Receipt


class BudgetsGetParams(Closed):
    """``path``: as in ``metadata.budget`` of a chat; left out, what a chat without one counts against."""

    path: Id | None = None


class BudgetsGetResult(Closed):
    """Each limit that a request of the path counts against."""

    budgets: list[Budget]


class NoParams(Closed):
    pass


class RequestCounts(Closed):
    """Since the start; ``outcomes`` has "ok" and kinds of errors, ``engines`` what carried out those that have a receipt."""

    in_flight: int  # this one included
    total: int
    outcomes: dict[str, int]
    engines: dict[str, int]


class ConfigReloaded(Closed):
    """Names of models, and of settings as the config has them. ``restart_needed`` are those that stay as they were until then."""

    models: list[str]
    added: list[str]
    removed: list[str]
    changed: list[str]
    settings: list[str]
    restart_needed: list[str]
    warnings: list[str]


class RedisState(Closed):
    """``lost``: configured and out of reach. ``not_installed``: configured, without the package redis."""

    state: Literal["none", "connecting", "connected", "lost", "not_installed"]
    since_ms: float | None  # how long it has been so


class EngineProcess(Closed):
    """``state`` "draining": it ends when it has no request. ``requests`` it has answered, ``rss_mib`` as it last reported it."""

    pid: int | None
    state: Literal["starting", "ready", "draining", "ending", "lost"]
    in_flight: int
    requests: int
    rss_mib: float | None


class Degraded(Closed):
    """``part`` of the bridge does not fit the installed LiteLLM, for ``reason``; ``effect`` says what that means for chats."""

    part: str
    reason: str
    effect: str


class Status(Closed):
    version: str
    uptime_ms: float
    requests: RequestCounts
    memory_bytes: int | None  # resident, of the worker and its engine processes together
    engine: EngineState
    redis: RedisState
    degraded: list[Degraded] | None  # null until it is known
    engines: list[EngineProcess] = Field(default_factory=list)  # empty in a worker of one process
