"""The result of a chat, its deltas, and the receipt, which results of embed and rerank also have.

Owns these types. Refuses to know how they are computed.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from bridge_worker.schema.base import Closed
from bridge_worker.schema.chat_request import ToolCall
from bridge_worker.schema.fit import FitFacts


class Usage(Closed):
    """Tokens; null if the provider did not report them. Input tokens include cached ones."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    cached_input_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None


class Timing(Closed):
    """Milliseconds since the request arrived; ``queued_ms`` until it was passed to the backend. A plain chat has no first token."""

    queued_ms: float
    first_token_ms: float | None
    total_ms: float


class RateLimits(Closed):
    """The remaining quota by the provider's headers, and the milliseconds until the first of its windows is reset."""

    requests_remaining: int | None = None
    tokens_remaining: int | None = None
    reset_ms: int | None = None


class Attempt(Closed):
    """One call to a provider: ``outcome`` is "ok" or an error's kind. ``deployment`` is its id in the gateway's config."""

    outcome: str
    status: int | None
    ms: float
    model: str | None
    provider: str | None
    deployment: str | None


class Change(Closed):
    """A parameter of the request that the provider did not get unchanged; ``sent`` is the new value of a rewritten one."""

    param: str
    change: Literal["dropped", "rewritten"]
    sent: str | int | float | bool | None = None


class Addition(Closed):
    """A member of the provider's request that the caller did not give; ``sent`` is its value, null for an object or a list."""

    param: str
    sent: str | int | float | bool | None = None


class EngineVersion(Closed):
    """``name`` is the backend and its mode; ``reason`` is why this mode served the request if another one was possible."""

    name: str
    version: str | None
    reason: str | None = None


class Receipt(Closed):
    """The record of a request: its attempts, and how the provider's request and response differ from what the caller sees.

    ``dropped`` and ``added`` are null where the provider's request could not be seen. ``kept`` names, by dotted path, the members
    of the provider's response that the result has no member for; they are in ``message``.
    """

    requested_model: str
    served_model: str | None = None
    deployment: str | None = None
    attempts: list[Attempt] = Field(default_factory=list)
    fallback: bool = False
    dropped: list[Change] | None = None
    added: list[Addition] | None = None
    kept: list[str] = Field(default_factory=list)
    engine: EngineVersion | None = None


class CacheUse(Closed):
    """Input tokens that were read from the provider's cache and written to it, and what that saved; null where not known."""

    read_tokens: int | None
    written_tokens: int | None
    saved_usd: float | None


class CacheFacts(Closed):
    """``missed`` is the reason why nothing was read from the cache; null where something was."""

    missed: str | None


class ChatReceipt(Receipt):
    """``fit`` and ``cache`` are there when the request has them."""

    cache: CacheFacts | None = None
    fit: FitFacts | None = None


CostSource = Literal["provider", "deployment", "price_map", "cache"]


class Problem(Closed):
    """A place at which the response does not fit the request: ``path`` in the arguments or the content, "" for the whole."""

    kind: Literal["schema", "unknown_tool", "not_json", "truncated", "unchecked"]
    path: str
    reason: str


class Repair(Closed):
    """A change that ``repair`` has made to what the model wrote."""

    path: str
    change: str


class CheckedToolCall(ToolCall):
    """``problems`` and ``repaired`` are there where there are any."""

    problems: list[Problem] | None = None
    repaired: list[Repair] | None = None


class ChatResult(Closed):
    content: str | None
    tool_calls: list[CheckedToolCall]
    reasoning: str | None
    refusal: str | None
    annotations: list[dict[str, Any]] | None
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter"] | None
    raw_finish_reason: str | None
    message: dict[str, Any]  # append it unchanged to messages for the next turn
    usage: Usage | None
    cost_usd: float | None
    cost_source: CostSource | None
    price_map_date: str | None
    rate_limits: RateLimits | None
    model: str | None
    requested_model: str
    provider: str | None
    id: str | None
    logprobs: dict[str, Any] | None
    timing: Timing
    receipt: ChatReceipt
    cache: CacheUse | None = None  # with the request's `cache`
    problems: list[Problem] | None = None  # of the content, with a response_format
    repaired: list[Repair] | None = None  # of the content


class FunctionDelta(Closed):
    name: str | None = None
    arguments: str | None = None


class ToolCallDelta(Closed):
    """A piece of the tool call at ``index`` of the result's ``tool_calls``; its first piece has the id and the name."""

    index: int
    id: str | None = None
    type: Literal["function"] | None = None
    function: FunctionDelta


class Delta(Closed):
    content: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCallDelta] | None = None


class ChatDelta(Closed):
    requestId: str | int
    seq: int
    delta: Delta
