"""The wire types: what may be said to the bridge and what it says, as pydantic models. The JSON Schema is made from these.

Owns every name and shape of the wire contract. Refuses to know how a request is carried out. Strict: a string is not a number, an
unknown member is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema

from bridge_worker.errors import KINDS


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, defer_build=True)


class _Open(BaseModel):
    """What clients of other protocols add members to."""

    model_config = ConfigDict(extra="allow", strict=True, defer_build=True)


# --- chat: what is asked -----------------------------------------------------------------------------------------------------

SafeUrl = Annotated[str, Field(pattern=r"^(data:|https://)")]  # neither a file nor the plain-text network


class CacheControl(_Model):
    type: Literal["ephemeral"]
    ttl: str | None = None


class TextPart(_Model):
    type: Literal["text"]
    text: str
    cache_control: CacheControl | None = None


class ImageUrl(_Model):
    url: SafeUrl
    detail: str | None = None
    format: str | None = None


class ImagePart(_Model):
    type: Literal["image_url"]
    image_url: ImageUrl | SafeUrl
    cache_control: CacheControl | None = None


class InputAudio(_Model):
    data: str
    format: str


class AudioPart(_Model):
    type: Literal["input_audio"]
    input_audio: InputAudio
    cache_control: CacheControl | None = None


class FileData(_Model):
    file_data: SafeUrl | None = None
    file_id: Annotated[str, Field(pattern=r"^(https://|[A-Za-z0-9_-]+$)")] | None = None
    filename: str | None = None
    format: str | None = None


class FilePart(_Model):
    type: Literal["file"]
    file: FileData
    cache_control: CacheControl | None = None


class RefusalPart(_Model):
    type: Literal["refusal"]
    refusal: str


class ThinkingBlock(_Model):
    """Anthropic's; the signature must come back unchanged."""

    type: Literal["thinking"]
    thinking: str
    signature: str | None = None
    cache_control: CacheControl | None = None


class RedactedThinkingBlock(_Model):
    type: Literal["redacted_thinking"]
    data: str
    cache_control: CacheControl | None = None


AnyThinkingBlock = Annotated[ThinkingBlock | RedactedThinkingBlock, Field(discriminator="type")]
ContentPart = Annotated[
    TextPart | ImagePart | AudioPart | FilePart | RefusalPart | ThinkingBlock | RedactedThinkingBlock, Field(discriminator="type")
]
Content = str | list[ContentPart]


class FunctionCall(_Model):
    name: str
    arguments: str  # JSON text, as the model wrote it


class ToolCall(_Model):
    id: str
    type: Literal["function"]
    function: FunctionCall


class ToolCallInMessage(ToolCall):
    provider_specific_fields: dict[str, Any] | None = None  # opaque state, such as Gemini's thought signatures
    index: int | None = None


class SystemMessage(_Model):
    role: Literal["system", "developer"]
    content: Content
    name: str | None = None
    cache_control: CacheControl | None = None


class UserMessage(_Model):
    role: Literal["user"]
    content: Content
    name: str | None = None
    cache_control: CacheControl | None = None


class Origin(_Model):
    """Who said a message that holds a provider's own state. Another provider is sent the message without that state."""

    provider: str | None
    model: str | None


class Audio(_Model):
    """Base64 in ``data``. Sent back, OpenAI gets the id alone."""

    id: str | None = None
    data: str | None = None
    transcript: str | None = None
    expires_at: int | None = None
    format: str | None = None


class AssistantMessage(_Model):
    role: Literal["assistant"]
    content: Content | None = None
    tool_calls: list[ToolCallInMessage] | None = None
    name: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    thinking_blocks: list[AnyThinkingBlock] | None = None
    reasoning_items: list[dict[str, Any]] | None = None  # OpenAI's, encrypted
    images: list[ImagePart] | None = None
    audio: Audio | None = None
    annotations: list[dict[str, Any]] | None = None
    provider_specific_fields: dict[str, Any] | None = None
    origin: Origin | None = None
    cache_control: CacheControl | None = None


class ToolMessage(_Model):
    role: Literal["tool"]
    tool_call_id: str
    content: Content
    name: str | None = None
    cache_control: CacheControl | None = None


ChatMessage = Annotated[SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")]


class FunctionTool(_Model):
    name: Annotated[str, Field(min_length=1)]
    description: str | None = None
    parameters: dict[str, Any] | None = None  # JSON Schema
    strict: bool | None = None


class Tool(_Model):
    type: Literal["function"]
    function: FunctionTool
    cache_control: CacheControl | None = None


class FunctionName(_Model):
    name: str


class NamedToolChoice(_Model):
    type: Literal["function"]
    function: FunctionName


class NamedSchema(_Model):
    name: str
    description: str | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    strict: bool | None = None


class ResponseFormat(_Model):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None


class Thinking(_Model):
    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: Annotated[int, Field(ge=0)] | None = None
    display: str | None = None


class Deadlines(_Model):
    """Milliseconds: the first two from the arrival of the request, the last between two events of a stream. Null is the default."""

    total_ms: Annotated[int, Field(gt=0)] | None = None
    first_token_ms: Annotated[int, Field(gt=0)] | None = None
    idle_ms: Annotated[int, Field(gt=0)] | None = None


class ChatParams(_Model):
    """OpenAI's names and meanings, as far as LiteLLM can carry them to a provider; the last two are the bridge's own."""

    model: Annotated[str, Field(min_length=1)]
    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedToolChoice | None = None
    parallel_tool_calls: bool | None = None
    stream: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: Annotated[int, Field(gt=0)] | None = None
    max_completion_tokens: Annotated[int, Field(gt=0)] | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: str | None = None
    thinking: Thinking | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0)] | None = None
    user: str | None = None
    metadata: dict[str, str] | None = None
    deadlines: Deadlines | None = None
    provider_params: dict[str, Any] | None = None


# --- chat: what is answered --------------------------------------------------------------------------------------------------


class Usage(_Model):
    """Tokens; null where the provider did not say. Input tokens include cached ones."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    cached_input_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None


class Timing(_Model):
    """Milliseconds since the request arrived; ``queued_ms`` until it was given to the model. No first token in a plain chat."""

    queued_ms: float
    first_token_ms: float | None
    total_ms: float


class RateLimits(_Model):
    """What the provider's headers say is left, and the milliseconds until the first of its windows is full again."""

    requests_remaining: int | None = None
    tokens_remaining: int | None = None
    reset_ms: int | None = None


class Attempt(_Model):
    """One call to a provider: ``outcome`` is "ok" or an error's kind. ``deployment`` is its id in the gateway's config."""

    outcome: str
    status: int | None
    ms: float
    model: str | None
    provider: str | None
    deployment: str | None


class Change(_Model):
    """A part of the request that did not reach the provider as it was asked; ``sent`` is what a rewritten value became."""

    param: str
    change: Literal["dropped", "rewritten"]
    sent: str | int | float | bool | None = None


class EngineVersion(_Model):
    name: str
    version: str | None


class Receipt(_Model):
    """What became of a chat on its way. ``dropped`` is null where the request could not be seen on its way out."""

    requested_model: str
    served_model: str | None = None
    deployment: str | None = None
    attempts: list[Attempt] = Field(default_factory=list)
    fallback: bool = False
    dropped: list[Change] | None = None
    engine: EngineVersion | None = None


class ChatResult(_Model):
    content: str | None
    tool_calls: list[ToolCall]
    reasoning: str | None
    refusal: str | None
    annotations: list[dict[str, Any]] | None
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter"] | None
    raw_finish_reason: str | None
    message: dict[str, Any]  # append it verbatim to messages for the next turn
    usage: Usage | None
    cost_usd: float | None
    cost_source: Literal["provider", "deployment", "price_map"] | None
    price_map_date: str | None
    rate_limits: RateLimits | None
    model: str | None
    requested_model: str
    provider: str | None
    id: str | None
    logprobs: dict[str, Any] | None
    timing: Timing
    receipt: Receipt


class FunctionDelta(_Model):
    name: str | None = None
    arguments: str | None = None


class ToolCallDelta(_Model):
    """A piece of the tool call at ``index`` of the result's ``tool_calls``; id and name come with its first piece."""

    index: int
    id: str | None = None
    type: Literal["function"] | None = None
    function: FunctionDelta


class Delta(_Model):
    content: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCallDelta] | None = None


class ChatDelta(_Model):
    requestId: str | int
    seq: int
    delta: Delta


# --- lifecycle ---------------------------------------------------------------------------------------------------------------


class InitializeParams(_Open):
    """As MCP spells it. ``processId``: the worker exits when that process is gone."""

    protocolVersion: str
    processId: Annotated[int, Field(gt=0, lt=2**31)] | None = None


class Limits(_Model):
    maxMessageBytes: int
    maxInFlight: int


class EngineState(_Model):
    """``version`` is null until it is known, ``ready`` false until the engine is imported and warm."""

    name: str
    version: str | None
    ready: bool


class ServerInfo(_Model):
    name: str
    version: str


class InitializeResult(_Model):
    protocolVersion: str
    serverInfo: ServerInfo
    capabilities: dict[str, Any]
    limits: Limits
    engine: EngineState


class ShutdownParams(_Open):
    mode: Literal["drain", "cancel"] = "drain"


class CancelledParams(_Open):
    requestId: str | int
    reason: str | None = None


class ReadyParams(_Model):
    engine: EngineState
    warmMs: float


class Empty(_Open):
    pass


# --- the other methods -------------------------------------------------------------------------------------------------------


class TotalDeadline(_Model):
    """Milliseconds from the arrival of the request. Null is the default, 600,000."""

    total_ms: Annotated[int, Field(gt=0)] | None = None


ModelName = Annotated[str, Field(min_length=1)]


class ModelsListParams(_Model):
    """``all``: not only what is configured, but each model whose provider's key is there. ``cursor``: a result's ``nextCursor``."""

    all: bool | None = None
    cursor: str | None = None


class ModelSummary(_Model):
    """``key_present`` is null where none is needed, or where it can come from what can't be seen, such as a cloud role."""

    model: str
    provider: str | None
    mode: str | None  # chat, embedding, rerank, ...
    key_present: bool | None


class ModelsListResult(_Model):
    models: list[ModelSummary]
    nextCursor: str | None  # null on the last page


class ModelsGetParams(_Model):
    model: ModelName


class ModelLimits(_Model):
    """Tokens; ``context_tokens`` is the longest input."""

    context_tokens: int | None
    output_tokens: int | None


class ModelPrices(_Model):
    """US dollars a token, and a query where a model is paid by these."""

    input_usd: float | None
    output_usd: float | None
    cached_input_usd: float | None
    cache_write_usd: float | None
    query_usd: float | None


class ModelModalities(_Model):
    input: list[str] | None
    output: list[str] | None


class ModelSupport(_Model):
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


class TokensCountParams(_Model):
    model: ModelName
    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    tools: list[Tool] | None = None


class TokenCount(_Model):
    """``exact``: what the provider will count; else an estimate with the tokenizer that is named."""

    input_tokens: int
    tokenizer: str
    exact: bool


class CapabilityGap(_Model):
    """``member`` of the params asks for what the model can't do."""

    member: str
    reason: str


class ChatCheck(_Model):
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


class EmbedParams(_Model):
    model: ModelName
    input: Annotated[str, Field(min_length=1)] | Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(gt=0)] | None = None
    user: str | None = None
    deadlines: TotalDeadline | None = None
    provider_params: dict[str, Any] | None = None


class EmbedResult(_Model):
    """One embedding for each input, in order; with ``base64`` the little-endian 32-bit floats of each."""

    embeddings: list[list[float] | str]
    usage: Usage | None
    cost_usd: float | None
    model: str | None
    requested_model: str
    provider: str | None


class RerankParams(_Model):
    model: ModelName
    query: Annotated[str, Field(min_length=1)]
    documents: Annotated[list[str], Field(min_length=1)]
    top_n: Annotated[int, Field(gt=0)] | None = None
    return_documents: bool | None = None
    deadlines: TotalDeadline | None = None
    provider_params: dict[str, Any] | None = None


class RankedDocument(_Model):
    """``index`` into the documents that were asked about; ``document`` is null unless it was asked for."""

    index: int
    score: float
    document: str | None


class RerankResult(_Model):
    """The most relevant first."""

    results: list[RankedDocument]
    usage: Usage | None
    cost_usd: float | None
    model: str | None
    requested_model: str
    provider: str | None


class NoParams(_Model):
    pass


class RequestCounts(_Model):
    """Since the start; ``outcomes`` has "ok" and kinds of errors."""

    in_flight: int  # this one included
    total: int
    outcomes: dict[str, int]


class Status(_Model):
    version: str
    uptime_ms: float
    requests: RequestCounts
    memory_bytes: int | None  # resident
    engine: EngineState


# --- MCP ---------------------------------------------------------------------------------------------------------------------


class McpParams(_Open):
    """``_meta`` as MCP's revision 2026-07-28 has it in every request; earlier ones have only ``progressToken`` there."""

    meta: Annotated[dict[str, Any] | None, Field(alias="_meta")] = None


class ToolsListParams(McpParams):
    cursor: str | None = None


class ToolsCallParams(McpParams):
    name: str
    arguments: dict[str, Any] | None = None


class McpResult(_Open):
    """``resultType`` and ``_meta`` are there for a client of revision 2026-07-28."""

    resultType: Literal["complete"] | None = None
    meta: Annotated[dict[str, Any] | None, Field(alias="_meta")] = None


class DiscoverResult(McpResult):
    supportedVersions: list[str]
    capabilities: dict[str, Any]
    ttlMs: int
    cacheScope: Literal["public", "private"]


class McpTool(_Model):
    name: str
    title: str
    description: str
    inputSchema: dict[str, Any]
    outputSchema: dict[str, Any]
    annotations: dict[str, bool]


class ToolsListResult(McpResult):
    tools: list[McpTool]
    ttlMs: int | None = None
    cacheScope: Literal["public", "private"] | None = None


class TextContent(_Model):
    type: Literal["text"]
    text: str


class ToolsCallResult(McpResult):
    """``isError``: the tool failed, ``content`` says why, and ``_meta`` has the whole error as ``omni-bridge/error``."""

    content: list[TextContent]
    structuredContent: dict[str, Any] | None = None
    isError: bool


class ProgressParams(_Model):
    """``message`` is a piece of the answer's text, ``progress`` the number of pieces so far."""

    progressToken: str | int
    progress: int
    message: str


# --- errors ------------------------------------------------------------------------------------------------------------------


class Partial(_Model):
    """What had come when it broke off."""

    content: str | None
    tool_calls: list[dict[str, Any]]


class ErrorData(_Model):
    kind: Literal[tuple(KINDS)]  # type: ignore[valid-type]  # the table is the source; mypy can't read it
    retryable: bool
    retry_after_ms: int | None
    provider: str | None
    model: str | None
    status: int | None
    partial: Partial | None = None
    upstream_closed: bool | None = None
    deadline: str | None = None
    receipt: Receipt | None = None
    supported: list[str] | None = None
    requested: str | None = None


class Error(_Model):
    code: int
    message: str
    data: ErrorData


# --- the set -----------------------------------------------------------------------------------------------------------------


class Method(NamedTuple):
    params: type[BaseModel]
    result: type[BaseModel]


METHODS: Mapping[str, Method] = {
    "initialize": Method(InitializeParams, InitializeResult),
    "ping": Method(Empty, Empty),
    "shutdown": Method(ShutdownParams, Empty),
    "chat": Method(ChatParams, ChatResult),
    "chat/check": Method(ChatParams, ChatCheck),
    "models/list": Method(ModelsListParams, ModelsListResult),
    "models/get": Method(ModelsGetParams, ModelInfo),
    "tokens/count": Method(TokensCountParams, TokenCount),
    "embed": Method(EmbedParams, EmbedResult),
    "rerank": Method(RerankParams, RerankResult),
    "status": Method(NoParams, Status),
    "server/discover": Method(McpParams, DiscoverResult),
    "tools/list": Method(ToolsListParams, ToolsListResult),
    "tools/call": Method(ToolsCallParams, ToolsCallResult),
}
NOTIFICATIONS_IN: Mapping[str, type[BaseModel]] = {
    "notifications/initialized": Empty,
    "notifications/cancelled": CancelledParams,
}
NOTIFICATIONS_OUT: Mapping[str, type[BaseModel]] = {
    "notifications/ready": ReadyParams,
    "notifications/chat/delta": ChatDelta,
    "notifications/progress": ProgressParams,
}


def json_schema() -> dict[str, object]:
    """JSON Schema 2020-12 of the whole wire: ``methods``, ``notifications`` and ``error``, each pointing into ``$defs``."""
    types = [type for method in METHODS.values() for type in method]
    types += [*NOTIFICATIONS_IN.values(), *NOTIFICATIONS_OUT.values(), Error]
    _, definitions = models_json_schema([(type, "validation") for type in dict.fromkeys(types)], title="omni-bridge/1")

    def ref(type: type[BaseModel]) -> dict[str, str]:
        return {"$ref": f"#/$defs/{type.__name__}"}

    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:omni-bridge:1",
        **definitions,
        "methods": {name: {"params": ref(method.params), "result": ref(method.result)} for name, method in METHODS.items()},
        "notifications": {
            "toBridge": {name: ref(type) for name, type in NOTIFICATIONS_IN.items()},
            "fromBridge": {name: ref(type) for name, type in NOTIFICATIONS_OUT.items()},
        },
        "error": ref(Error),
    }
