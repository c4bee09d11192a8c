"""The parts of a model's response while it arrives: `Delta` for content, `End` for the facts about the whole.

Owns the vocabulary between decoders and the accumulator. Plain slotted objects and the standard library only, because one is made
for every chunk of every stream. Refuses to know a provider's format or the bridge's own wire.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class ToolCallDelta:
    """A part of a tool call, as a provider sends it. Providers leave out ids, repeat them, and number from anywhere."""

    index: int | None = None
    id: str | None = None
    name: str | None = None
    arguments: str = ""
    provider_specific_fields: dict[str, Any] | None = None


@dataclass(slots=True)
class Delta:
    """A step of a response, normalised. Text and tool calls add up; ``message`` members are merged into the message to append."""

    content: str | None = None
    reasoning: str | None = None
    tool_calls: list[ToolCallDelta] | None = None
    thinking_blocks: list[dict[str, Any]] | None = None
    refusal: str | None = None
    annotations: list[dict[str, Any]] | None = None
    images: list[dict[str, Any]] | None = None
    message: dict[str, Any] | None = None
    logprobs: list[Any] | None = None


@dataclass(slots=True)
class TokenUsage:
    """Tokens of one response; None where the provider does not report the number. Input tokens include cached ones.

    ``audio_*`` and ``image_*`` are parts of the input and the output that may have another price than text.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    cached_input_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    audio_input_tokens: int | None = None
    audio_output_tokens: int | None = None
    image_input_tokens: int | None = None
    image_output_tokens: int | None = None

    @property
    def is_text(self) -> bool:
        return not (self.audio_input_tokens or self.audio_output_tokens or self.image_input_tokens or self.image_output_tokens)


@dataclass(slots=True)
class End:
    """The facts about a whole response, known when it has ended.

    ``finish_reason`` is one of the bridge's own ("stop", "length", "tool_calls", "content_filter"), or None for a word of the
    provider's that none of them fits; ``raw_finish_reason`` is always the provider's word. ``kept`` names, by dotted path, the
    members of the response that the bridge has no word for; they are in the message to append. ``cost_usd`` is what the provider
    itself charged, if it reports that.
    """

    finish_reason: str | None = None
    raw_finish_reason: str | None = None
    usage: TokenUsage | None = None
    id: str | None = None
    model: str | None = None
    cost_usd: float | None = None
    kept: list[str] = field(default_factory=list)
