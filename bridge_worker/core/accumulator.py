"""Accumulates a model's deltas into the wire deltas of a stream and the final result.

Owns the assembly of a response. The deltas and the result are written from the same lists, so that the joined deltas equal the
result. Everything here is plain objects, because one of each is made for every delta. Refuses to wait, and to know how a delta or a
result is sent.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from bridge_worker.core.deltas import Delta, End, TokenUsage, ToolCallDelta
from bridge_worker.core.ports import STATE, ChatRequest, Facts
from bridge_worker.core.receipt import Change
from bridge_worker.core.returnable import leave_out_refused
from bridge_worker.core.tool_arguments import check_arguments, check_name
from bridge_worker.errors import BridgeError

# Base64 of all images and audio of a response. Media beyond it is left out and named in the receipt: the default limit of a line
# is 64 MiB, and the same image comes back in the next request.
MAX_MEDIA_CHARACTERS = 32 * 1024 * 1024

MAX_TOOL_CALLS = 1_000  # of one response: each piece of a call is compared with all of them

# One delta for the caller: the text of a delta that has content only, else its members in OpenAI's shape.
WireDelta = str | dict[str, Any]


@dataclass(slots=True)
class _ToolCall:
    """``position`` and ``id`` go to the client; ``index`` and ``provider_id`` come from the provider."""

    position: int
    index: int | None
    provider_id: str | None
    id: str
    name: str = ""
    arguments: list[str] = field(default_factory=list)
    provider_specific_fields: dict[str, Any] | None = None


class ChatAccumulator:
    """Accumulates the deltas of one chat."""

    def __init__(self, request: ChatRequest) -> None:
        self._request = request
        self._started = request.received
        self.first_token: float | None = None
        self.facts = Facts(End())
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._tool_calls: list[_ToolCall] = []
        self._thinking_blocks: list[dict[str, Any]] = []
        self._refusal: list[str] = []
        self._annotations: list[dict[str, Any]] = []
        self._images: list[dict[str, Any]] = []
        self._message: dict[str, Any] = {}
        self._logprobs: list[Any] = []

    def start(self) -> None:
        self._started = time.monotonic()

    def add(self, deltas: list[Delta]) -> list[WireDelta]:
        """The deltas that the caller gets for these: at most one each."""
        wire: list[WireDelta] = []
        for delta in deltas:
            if shown := self._add(delta):
                wire.append(shown)
        if wire and self.first_token is None:
            self.first_token = time.monotonic()
        return wire

    def _add(self, delta: Delta) -> WireDelta:
        content = delta.content
        if content:
            self._content.append(content)
            if not (delta.reasoning or delta.tool_calls or delta.refusal or delta.logprobs or delta.message or _is_rich(delta)):
                return content
        wire: dict[str, Any] = {"content": content} if content else {}
        if delta.reasoning:
            self._reasoning.append(delta.reasoning)
            wire["reasoning_content"] = delta.reasoning
        if pieces := [shown for piece in delta.tool_calls or () if (shown := self._add_piece(piece))]:
            wire["tool_calls"] = pieces
        if delta.refusal:
            self._refusal.append(delta.refusal)
            wire["refusal"] = delta.refusal
        for block in delta.thinking_blocks or ():
            _add_thinking(self._thinking_blocks, block)
        self._annotations += delta.annotations or ()
        self._images += delta.images or ()
        if delta.message:
            _add_members(self._message, delta.message)
        self._logprobs += delta.logprobs or ()
        return wire

    def finish(self) -> dict[str, Any]:
        """Checks the whole, and returns what the caller's deltas still lack of it."""
        missing = [call for call in self._tool_calls if not "".join(call.arguments).strip()]
        for call in missing:  # a call without arguments is sent as "" by some providers; the contract is valid JSON
            call.arguments.append("{}")
        for call in self._tool_calls:
            check_name(call.name)
            if not self._request.keeps_arguments:
                check_arguments(call.name, "".join(call.arguments), was_cut=self.facts.end.finish_reason == "length")
        return {"tool_calls": [{"index": call.position, "function": {"arguments": "{}"}} for call in missing]} if missing else {}

    def result(self) -> dict[str, Any]:
        """The result as it is sent. `schema.chat_result.ChatResult` has its members."""
        facts, request = self.facts, self._request
        end, receipt, now = facts.end, request.receipt, time.monotonic()
        content = "".join(self._content) or None
        reasoning = "".join(self._reasoning) or None
        message = self._message_to_append(content, reasoning)
        receipt.served_model = end.model
        receipt.kept = end.kept
        result = {
            "content": content,
            "tool_calls": [_plain_tool_call(call) for call in self._tool_calls],
            "reasoning": reasoning,
            "refusal": "".join(self._refusal) or None,
            "annotations": self._annotations or None,
            "finish_reason": self._finish_reason(),
            "raw_finish_reason": end.raw_finish_reason or end.finish_reason,
            "message": message,
            "usage": None if end.usage is None else usage_to_wire(end.usage),
            "cost_usd": facts.cost_usd,
            "cost_source": facts.cost_source,
            "price_map_date": facts.price_map_date,
            "rate_limits": facts.rate_limits,
            "model": end.model,
            "requested_model": request.model,
            "provider": facts.provider,
            "id": end.id,
            "logprobs": {"content": self._logprobs} if self._logprobs else None,
            "timing": {
                "queued_ms": self._since_arrival(self._started),
                "first_token_ms": self._since_arrival(self.first_token) if request.stream and self.first_token else None,
                "total_ms": self._since_arrival(now),
            },
            "receipt": receipt.wire(),
        }
        return result if request.cache is None else result | {"cache": _cache(end.usage, facts.saved_usd)}

    @property
    def provider(self) -> str | None:
        return self.facts.provider or self._request.provider

    def partial(self) -> dict[str, object]:
        return {"content": "".join(self._content) or None, "tool_calls": [_tool_call(call) for call in self._tool_calls]}

    def fault(self, kind: str, message: str, **extra: object) -> BridgeError:
        extra["partial"] = self.partial()
        return BridgeError(kind, message, provider=self.provider, model=self.facts.end.model or self._request.model, extra=extra)

    def _add_piece(self, piece: ToolCallDelta) -> dict[str, Any] | None:
        """Returns the wire delta for ``piece``: None until its call has a name, because id and name go with the first piece."""
        call = self._call_of(piece)
        call.arguments.append(piece.arguments)
        if piece.provider_specific_fields:
            call.provider_specific_fields = (call.provider_specific_fields or {}) | piece.provider_specific_fields
        if call.name:
            return {"index": call.position, "function": {"arguments": piece.arguments}}
        if not piece.name:
            return None
        call.name = piece.name
        function = {"name": call.name, "arguments": "".join(call.arguments)}
        return {"index": call.position, "id": call.id, "type": "function", "function": function}

    def _call_of(self, piece: ToolCallDelta) -> _ToolCall:
        """The call that a piece belongs to: by its id, else by its index, else the last. A name without an id begins a new one."""
        if piece.id:
            same_id = [call for call in self._tool_calls if call.provider_id == piece.id]
            same = [call for call in same_id if call.index == piece.index] or ([] if piece.name else same_id)
        elif piece.name:
            same = [call for call in self._tool_calls if call.index == piece.index and not call.name]
        else:
            same = [call for call in self._tool_calls if call.index == piece.index] or self._tool_calls
        if same:
            return same[-1]
        if len(self._tool_calls) >= MAX_TOOL_CALLS:
            raise BridgeError("bad_upstream_response", f"the model made more than {MAX_TOOL_CALLS:,} tool calls in one response")
        taken = {call.id for call in self._tool_calls}
        id = piece.id if piece.id and piece.id not in taken else f"call_{uuid.uuid4().hex[:24]}"
        call = _ToolCall(len(self._tool_calls), piece.index, piece.id, id)
        self._tool_calls.append(call)
        return call

    def _finish_reason(self) -> Any:
        """Derives the finish reason from the content; the provider's word is used where both can be true."""
        reason = self.facts.end.finish_reason
        if self._tool_calls and reason == "stop":
            return "tool_calls"
        if self._refusal and not self._tool_calls:
            return "content_filter"
        return "stop" if reason == "tool_calls" and not self._tool_calls else reason

    def _message_to_append(self, content: str | None, reasoning: str | None) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": content}
        if self._tool_calls:
            message["tool_calls"] = [_tool_call(call) for call in self._tool_calls]
        if reasoning:
            message["reasoning_content"] = reasoning
        if self._thinking_blocks:
            message["thinking_blocks"] = self._thinking_blocks
        if self._refusal:
            message["refusal"] = "".join(self._refusal)
        if self._annotations:
            message["annotations"] = self._annotations
        message |= self._message
        self._add_media(message)
        for place in leave_out_refused(message):
            self._left_out(place)
        calls = message.get("tool_calls", ())
        has_state = not message.keys().isdisjoint(STATE) or any("provider_specific_fields" in call for call in calls)
        if has_state and self.facts.provider:  # of an unknown origin it would be kept from every provider
            message["origin"] = {"provider": self.facts.provider, "model": self.facts.end.model}
        return message

    def _add_media(self, message: dict[str, Any]) -> None:
        room = MAX_MEDIA_CHARACTERS
        for position, image in enumerate(self._images):
            room -= len(image["image_url"]["url"])
            if room >= 0:
                message.setdefault("images", []).append(image)
            else:
                self._left_out(f"message.images[{position}]")
        if "audio" in message and len(message["audio"].get("data") or "") > room:
            message["audio"] = message["audio"] | {"data": None}
            self._left_out("message.audio.data")

    def _left_out(self, what: str) -> None:
        receipt = self._request.receipt
        receipt.dropped = [*(receipt.dropped or ()), Change(param=what, change="dropped")]

    def _since_arrival(self, when: float) -> float:
        return round((when - self._request.received) * 1000, 3)


def _is_rich(delta: Delta) -> bool:
    return bool(delta.thinking_blocks or delta.annotations or delta.images)


def _add_thinking(blocks: list[dict[str, Any]], block: dict[str, Any]) -> None:
    """Streamed, a block comes in pieces and its signature in the last; it must go back to the provider as one."""
    last = blocks[-1] if blocks else {}
    if block.get("type") == last.get("type") == "thinking" and not last.get("signature"):
        last["thinking"] += block.get("thinking") or ""
        last["signature"] = block.get("signature")
    else:
        blocks.append(dict(block))


def _add_members(whole: dict[str, Any], piece: dict[str, Any]) -> None:
    """Streamed members of a message: lists and objects grow, sound and its transcript are joined."""
    for name, value in piece.items():
        known = whole.get(name)
        if name == "audio" and known:
            joined = {part: (known.get(part) or "") + value[part] for part in ("data", "transcript") if value.get(part)}
            whole[name] = known | {part: known_value for part, known_value in value.items() if known_value is not None} | joined
        elif isinstance(known, dict) and isinstance(value, dict):
            whole[name] = known | value
        elif isinstance(known, list) and isinstance(value, list):
            whole[name] = known + value
        else:
            whole[name] = value


def usage_to_wire(usage: TokenUsage) -> dict[str, int | None]:
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "cached_input_tokens": usage.cached_input_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
    }


def _cache(usage: TokenUsage | None, saved_usd: float | None) -> dict[str, Any]:
    read, written = (usage.cached_input_tokens, usage.cache_write_tokens) if usage else (None, None)
    return {"read_tokens": read, "written_tokens": written, "saved_usd": saved_usd}


def _plain_tool_call(call: _ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": "".join(call.arguments)}}


def _tool_call(call: _ToolCall) -> dict[str, Any]:
    state = {"provider_specific_fields": call.provider_specific_fields} if call.provider_specific_fields else {}
    return {**_plain_tool_call(call), **state}
