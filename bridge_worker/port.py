"""The Model port: what a model is asked, and the deltas it answers with.

Owns the vocabulary that ``models/`` and the core share. Refuses to know any provider's or LiteLLM's shape: ``models/`` has turned
it into `Delta` before anything here sees it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any, Protocol

from bridge_worker.protocol.answered import CostSource, RateLimits, Receipt, Usage
from bridge_worker.protocol.asked import Deadlines

# A provider's state in a message: what no other provider can read.
STATE = ("thinking_blocks", "reasoning_content", "reasoning_items", "provider_specific_fields")


@dataclass(slots=True)
class ChatRequest:
    """What a model is asked. ``options`` holds OpenAI's parameters that were given, as they were given."""

    model: str
    messages: list[dict[str, Any]]
    options: dict[str, Any]
    stream: bool
    deadlines: Deadlines
    received: float  # time.monotonic()
    receipt: Receipt  # the model notes here what it does
    upstream_open: bool = False  # the model says so while it holds a connection; after a cancel it is the proof, or its absence


@dataclass(slots=True)
class ToolCallPiece:
    """A part of a tool call, as a provider sends it. Providers leave out ids, repeat them, and number from anywhere."""

    index: int | None = None
    id: str | None = None
    name: str | None = None
    arguments: str = ""
    provider_specific_fields: dict[str, Any] | None = None


@dataclass(slots=True)
class Delta:
    """A step of an answer, normalised. A plain chat is one delta that has everything.

    Text and pieces add up; ``message`` members are merged into the message to append; of the facts below the last one counts.
    """

    content: str | None = None
    reasoning: str | None = None
    tool_calls: list[ToolCallPiece] = field(default_factory=list)
    thinking_blocks: list[dict[str, Any]] = field(default_factory=list)
    refusal: str | None = None
    annotations: list[dict[str, Any]] | None = None
    images: list[dict[str, Any]] | None = None
    message: dict[str, Any] = field(default_factory=dict)
    logprobs: list[Any] | None = None
    finish_reason: str | None = None
    raw_finish_reason: str | None = None
    usage: Usage | None = None
    cost_usd: float | None = None
    cost_source: CostSource | None = None
    price_map_date: str | None = None
    rate_limits: RateLimits | None = None
    id: str | None = None
    model: str | None = None
    provider: str | None = None


class Model(Protocol):
    """Whatever can answer a chat."""

    def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        """The answer's deltas; with ``request.stream`` as they come, else one.

        Closing the generator, or cancelling the task that waits for it, closes the upstream connection before it returns.
        Raises BridgeError only. A stream that the provider cut short ends in ``stream_interrupted``.
        """
