"""The params of a chat: OpenAI's names and meanings.

Owns these types. Refuses to know what serves them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from bridge_worker.schema.base import Closed, Count, Id, IdempotencyKey, ListOf, Milliseconds, ModelName, Name, PositiveCount, Seed
from bridge_worker.schema.tasks import Task

# More than any provider accepts. The limits bound the bridge's work before the provider can reject the request.
MAX_MESSAGES = 10_000
MAX_TOOLS = 1_000
MAX_STOPS = 1_000
MAX_ENSURED_ATTEMPTS = 10

SafeUrl = Annotated[str, Field(pattern=r"^(data:|https://)")]  # no file:// and no http://


class CacheControl(Closed):
    type: Literal["ephemeral"]
    ttl: Name | None = None


class TextPart(Closed):
    type: Literal["text"]
    text: str
    cache_control: CacheControl | None = None


class ImageUrl(Closed):
    url: SafeUrl
    detail: Name | None = None
    format: Name | None = None


class ImagePart(Closed):
    type: Literal["image_url"]
    image_url: ImageUrl | SafeUrl
    cache_control: CacheControl | None = None


class InputAudio(Closed):
    data: Annotated[str, Field(pattern=r"^[A-Za-z0-9+/=_-]*$")]  # base64, never a URL
    format: Name


class AudioPart(Closed):
    type: Literal["input_audio"]
    input_audio: InputAudio
    cache_control: CacheControl | None = None


class FileData(Closed):
    file_data: SafeUrl | None = None
    file_id: Annotated[str, Field(pattern=r"^(https://|[A-Za-z0-9_-]+$)", max_length=8192)] | None = None
    filename: Name | None = None
    format: Name | None = None


class FilePart(Closed):
    type: Literal["file"]
    file: FileData
    cache_control: CacheControl | None = None


class RefusalPart(Closed):
    type: Literal["refusal"]
    refusal: str


class ThinkingBlock(Closed):
    """A block of Anthropic's; the signature must be sent back unchanged."""

    type: Literal["thinking"]
    thinking: str
    signature: str | None = None
    cache_control: CacheControl | None = None


class RedactedThinkingBlock(Closed):
    type: Literal["redacted_thinking"]
    data: str
    cache_control: CacheControl | None = None


AnyThinkingBlock = Annotated[ThinkingBlock | RedactedThinkingBlock, Field(discriminator="type")]
ContentPart = Annotated[
    TextPart | ImagePart | AudioPart | FilePart | RefusalPart | ThinkingBlock | RedactedThinkingBlock, Field(discriminator="type")
]
Content = str | ListOf[ContentPart]


class FunctionCall(Closed):
    name: Name
    arguments: str  # JSON text, as the model wrote it


class ToolCall(Closed):
    id: Id
    type: Literal["function"]
    function: FunctionCall


class ToolCallInMessage(ToolCall):
    provider_specific_fields: dict[str, Any] | None = None  # opaque state, such as Gemini's thought signatures
    index: Count | None = None


class SystemMessage(Closed):
    role: Literal["system", "developer"]
    content: Content
    name: Name | None = None
    cache_control: CacheControl | None = None


class UserMessage(Closed):
    role: Literal["user"]
    content: Content
    name: Name | None = None
    cache_control: CacheControl | None = None


class Origin(Closed):
    """The source of a message with provider state. The bridge removes that state when another provider gets the message."""

    provider: Name | None
    model: ModelName | None


class Audio(Closed):
    """``data`` is base64. When the message is sent back, OpenAI gets only the id."""

    id: Id | None = None
    data: str | None = None
    transcript: str | None = None
    expires_at: Count | None = None
    format: Name | None = None


class AssistantMessage(Closed):
    role: Literal["assistant"]
    content: Content | None = None
    tool_calls: ListOf[ToolCallInMessage] | None = None
    name: Name | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    thinking_blocks: ListOf[AnyThinkingBlock] | None = None
    reasoning_items: ListOf[dict[str, Any]] | None = None  # OpenAI's, encrypted
    images: ListOf[ImagePart] | None = None
    audio: Audio | None = None
    annotations: list[dict[str, Any]] | None = None
    provider_specific_fields: dict[str, Any] | None = None
    origin: Origin | None = None
    cache_control: CacheControl | None = None


class ToolMessage(Closed):
    role: Literal["tool"]
    tool_call_id: Id
    content: Content
    name: Name | None = None
    cache_control: CacheControl | None = None


ChatMessage = Annotated[SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")]


class FunctionTool(Closed):
    name: Annotated[str, Field(min_length=1, max_length=256)]
    description: str | None = None
    parameters: dict[str, Any] | None = None  # JSON Schema
    strict: bool | None = None


class Tool(Closed):
    type: Literal["function"]
    function: FunctionTool
    cache_control: CacheControl | None = None


class FunctionName(Closed):
    name: Name


class NamedToolChoice(Closed):
    type: Literal["function"]
    function: FunctionName


class NamedSchema(Closed):
    name: Name
    description: str | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    strict: bool | None = None


class ResponseFormat(Closed):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None


class Thinking(Closed):
    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: Count | None = None
    display: Name | None = None


class Deadlines(Closed):
    """Milliseconds: the first two from the arrival of the request, the last between two events of a stream. Null: the default."""

    total_ms: Milliseconds | None = None
    first_token_ms: Milliseconds | None = None
    idle_ms: Milliseconds | None = None


class Ensure(Closed):
    """The model is called until its response fits, ``attempts`` times at most."""

    attempts: Annotated[int, Field(ge=1, le=MAX_ENSURED_ATTEMPTS)]


FitStrategy = Literal["oldest_tool_results", "oldest_turns"]


class Fit(Closed):
    """``strategy`` is what is shortened or dropped first. The default limit is the model's own."""

    strategy: FitStrategy = "oldest_tool_results"
    max_input_tokens: PositiveCount | None = None


# Members of ChatParams that no model gets.
OF_THE_BRIDGE = frozenset({"deadlines", "provider_params", "repair", "ensure", "task", "fit", "cache", "idempotency_key"})


class ChatParams(Closed):
    """OpenAI's parameters, as far as LiteLLM can pass them to a provider; those from ``deadlines`` on are the bridge's own."""

    model: ModelName
    messages: Annotated[ListOf[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    tools: Annotated[ListOf[Tool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedToolChoice | None = None
    parallel_tool_calls: bool | None = None
    stream: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: PositiveCount | None = None
    max_completion_tokens: PositiveCount | None = None
    stop: Id | Annotated[ListOf[Id], Field(max_length=MAX_STOPS)] | None = None
    seed: Seed | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: Name | None = None
    thinking: Thinking | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[Name, float] | None = None
    logprobs: bool | None = None
    top_logprobs: Count | None = None
    user: Id | None = None
    metadata: dict[Name, str] | None = None
    deadlines: Deadlines | None = None
    provider_params: dict[str, Any] | None = None
    repair: Literal["json"] | None = None
    ensure: Ensure | None = None
    task: Task | None = None
    fit: FitStrategy | Fit | None = None
    cache: Literal["auto"] | None = None
    idempotency_key: IdempotencyKey | None = None
