"""Decoder of Anthropic's Messages, from Anthropic itself, Vertex AI and Bedrock's invoke, where frames wrap the events.

Owns the tables of event types, content blocks, deltas and finish words, and where LiteLLM looks for each kind of state when the
message comes back. Tools that the provider runs are not the caller's tool calls: they are kept in the message. Refuses to know who
hosts the model: the framing is recognised by its first byte.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bridge_worker.backends.wire import provider_errors
from bridge_worker.backends.wire.aws_decoder import AwsDecoder
from bridge_worker.backends.wire.gathered import Draft, Gathered, arguments_of
from bridge_worker.backends.wire.json_values import Json, count_of, first, name_of, object_of, objects_of, parse, text_of
from bridge_worker.core.deltas import Delta, End, TokenUsage, ToolCallDelta

# None: no finish reason of the bridge's fits, and the provider's word is reported.
FINISH: dict[str, str | None] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
    "model_context_window_exceeded": "length",
    "pause_turn": None,  # a tool that the provider runs goes on in the next request
    "compaction": None,  # the context was summarised; the next request goes on
}
# LiteLLM's tool for a response_format that the model does not have: its arguments are the text.
RESPONSE_FORMAT_TOOL = "json_tool_call"
# Members of a body, of message_start's message and of message_delta that are read, or report how the response was made.
ENVELOPE_IGNORED = frozenset(
    """id type role model content stop_reason usage delta message error request_id amazon-bedrock-invocationMetrics
    amazon-bedrock-guardrailAction""".split()
)
_BLOCK_MEMBERS = {"text": {"type", "text", "citations"}, "tool_use": {"type", "id", "name", "input"}}
_DONE = b"[DONE]"


@dataclass(slots=True)
class _Block:
    """A content block while it arrives. ``parts`` are pieces of its one long member, ``signature`` of its signature."""

    kind: str
    members: Json
    call: int = 0  # the number of a tool call
    parts: list[str] = field(default_factory=list)
    signature: list[str] = field(default_factory=list)


class Anthropic(AwsDecoder):
    """Decodes one response."""

    __slots__ = ("_blocks", "_calls", "_facts", "_gathered", "_intervened", "_usage")

    def __init__(self) -> None:
        super().__init__()
        self._facts = End()
        self._gathered = Gathered()
        self._blocks: dict[Any, _Block] = {}
        self._calls = 0
        self._usage: Json = {}
        self._intervened = False

    def on_event(self, name: str, data: bytes, out: list[Delta]) -> None:
        event = _unwrapped(data) if name == "chunk" else None if data.strip() == _DONE else parse(data)
        if type(event) is dict and event.get("type") == "content_block_delta":
            delta = event.get("delta")
            if type(delta) is dict and delta.get("type") == "text_delta" and type(text := delta.get("text")) is str:
                if text:
                    out.append(Delta(text))
                return
        self._any_event(name, event, out)

    def on_body(self, value: Any, body: bytes | bytearray, out: list[Delta]) -> None:
        content = value["content"]
        if not isinstance(content, list | str) and not (content is None and value.get("stop_reason")):
            raise ValueError("the content is neither blocks nor a text")
        delta = Draft()
        self._begin({"message": value}, delta)
        self._finish(value, delta)
        delta.emit(out)
        self.finished = True

    def on_end(self, out: list[Delta]) -> None:
        delta = Draft()
        for index in list(self._blocks) if self.finished else ():  # without a content_block_stop
            self._end_block({"index": index}, delta)
        delta.message = self._gathered.message()
        delta.emit(out)

    def facts(self) -> End:
        facts = self._facts
        facts.usage = usage_of(self._usage)
        facts.kept = list(self._gathered.kept)
        if self._intervened:  # Bedrock's guardrail replaced the text
            facts.finish_reason = "content_filter"
        return facts

    # -- events --------------------------------------------------------------------------------------------------------------

    def _any_event(self, name: str, event: Any, out: list[Delta]) -> None:
        if event is None:
            self.done = True
            return
        if name == "error":
            raise provider_errors.from_value(event)
        if not isinstance(event, dict):
            raise ValueError("the event is not an object")
        kind = text_of(event.get("type")) or name
        if kind not in EVENTS:
            if provider_errors.error_in(event) is not None:
                raise provider_errors.from_value(event)
            self._gathered.keep(f"event.{kind[:80]}", "events", {kind[:80]: event})
            return
        if (read := EVENTS[kind]) is not None:
            delta = Draft()
            read(self, event, delta)
            delta.emit(out)

    def _begin(self, event: Json, delta: Draft) -> None:
        message = object_of(event.get("message"))
        self._facts.id = name_of(message.get("id"))
        self._facts.model = text_of(message.get("model"))
        self._count(message.get("usage"))
        self._keep_members(message)
        content = message.get("content")
        if isinstance(content, str):
            delta.content.append(content)
        for position, block in enumerate(content if isinstance(content, list) else ()):
            self._begin_block({"index": position, "content_block": block}, delta)
            self._end_block({"index": position}, delta)

    def _begin_block(self, event: Json, delta: Draft) -> None:
        members = event.get("content_block")
        if not isinstance(members, dict):
            raise ValueError("the content block is not an object")
        index = _index(event)
        if index in self._blocks:  # the last one was not stopped
            self._end_block({"index": index}, delta)
        block = self._blocks[index] = _Block(text_of(members.get("type")) or "unknown", members)
        if begin := BLOCKS.get(block.kind, _Kind()).begin:
            begin(self, block, delta)

    def _any_delta(self, event: Json, delta: Draft) -> None:
        piece = object_of(event.get("delta"))
        index = _index(event)
        kind = text_of(piece.get("type")) or "unknown"
        if index not in self._blocks and kind in _OPENERS:  # some gateways send no content_block_start
            self._blocks[index] = _Block(_OPENERS[kind], {"type": _OPENERS[kind]})
        block = self._blocks.get(index)
        read = DELTAS.get(kind)
        if read is None or block is None:
            self._gathered.keep(f"delta.{kind[:80]}", "deltas", [piece])
        else:
            read(self, block, piece, delta)

    def _end_block(self, event: Json, delta: Draft) -> None:
        block = self._blocks.pop(_index(event), None)
        if block is not None:
            (BLOCKS.get(block.kind, _Kind()).end or Anthropic._keep_block)(self, block, delta)

    def _end_message(self, event: Json, delta: Draft) -> None:
        self._count(event.get("usage"))
        self._keep_members(event)
        members = object_of(event.get("delta"))
        self._keep_members(members)
        self._finish(members, delta)

    def _stop(self, event: Json, delta: Draft) -> None:
        self._intervened |= event.get("amazon-bedrock-guardrailAction") == "INTERVENED"
        self.finished = self.done = True

    def _error(self, event: Json, delta: Draft) -> None:
        raise provider_errors.from_value(event)

    def _finish(self, members: Json, delta: Draft) -> None:
        self._intervened |= members.get("amazon-bedrock-guardrailAction") == "INTERVENED"
        if explanation := text_of(object_of(members.get("stop_details")).get("explanation")):
            delta.refusal.append(explanation)
        if word := text_of(members.get("stop_reason")):
            self._facts.raw_finish_reason = word
            self._facts.finish_reason = FINISH.get(word)
            self.finished = True

    def _count(self, usage: Any) -> None:
        """Counts are cumulative. Some gateways send zeros or null in one event and the numbers in another."""
        for name, value in object_of(usage).items():
            if value or name not in self._usage:
                self._usage[name] = value

    def _keep_members(self, message: Json) -> None:
        for name in message.keys() - ENVELOPE_IGNORED:
            self._gathered.put(f"response.{name}", name, message[name])

    # -- content blocks --------------------------------------------------------------------------------------------------------

    def _begin_text(self, block: _Block, delta: Draft) -> None:
        if text := text_of(block.members.get("text")):
            delta.content.append(text)
        delta.annotations += objects_of(block.members.get("citations"))

    def _end_text(self, block: _Block, delta: Draft) -> None:
        self._keep_unknown(block)

    def _begin_thinking(self, block: _Block, delta: Draft) -> None:
        if text := text_of(block.members.get("thinking")):
            delta.reasoning.append(text)
            block.parts.append(text)
        if signature := text_of(block.members.get("signature")):
            block.signature.append(signature)

    def _end_thinking(self, block: _Block, delta: Draft) -> None:
        signature = "".join(block.signature)
        thinking: Json = {"type": "thinking", "thinking": "".join(block.parts)}
        if signature:
            thinking["signature"] = signature
        if signature or thinking["thinking"]:
            delta.thinking_blocks.append(thinking)

    def _end_redacted(self, block: _Block, delta: Draft) -> None:
        if data := text_of(block.members.get("data")):
            delta.thinking_blocks.append({"type": "redacted_thinking", "data": data})

    def _begin_tool(self, block: _Block, delta: Draft) -> None:
        name = text_of(block.members.get("name"))
        if name == RESPONSE_FORMAT_TOOL:
            block.call = -1
            return
        block.call, self._calls = self._calls, self._calls + 1
        state = {name: value for name, value in block.members.items() if name not in _BLOCK_MEMBERS["tool_use"] and value}
        for member in state:
            self._gathered.kept[f"message.content.tool_use.{member[:80]}"] = None
        delta.tool_calls.append(ToolCallDelta(block.call, name_of(block.members.get("id")), name, "", state or None))

    def _end_tool(self, block: _Block, delta: Draft) -> None:
        """A whole block has its input, a streamed one pieces of it; a call without arguments has neither."""
        if not block.parts:
            self._add_arguments(block, _input(block), delta)

    def _add_arguments(self, block: _Block, arguments: str, delta: Draft) -> None:
        if block.call < 0:
            delta.content.append(arguments)
        else:
            delta.tool_calls.append(ToolCallDelta(block.call, None, None, arguments))

    def _end_server_tool(self, block: _Block, delta: Draft) -> None:
        """Keeps the call in the shape from which LiteLLM makes a server_tool_use again."""
        function = {"name": text_of(block.members.get("name")) or "", "arguments": _input(block)}
        call = {"id": name_of(block.members.get("id")), "type": "function", "function": function}
        self._gathered.keep("message.content.server_tool_use", "server_tool_calls", [call])

    def _end_web_result(self, block: _Block, delta: Draft) -> None:
        self._gathered.keep(f"message.content.{block.kind}", "web_search_results", [block.members])

    def _end_result(self, block: _Block, delta: Draft) -> None:
        self._gathered.keep(f"message.content.{block.kind}", "tool_results", [block.members])

    def _end_compaction(self, block: _Block, delta: Draft) -> None:
        if block.parts:
            block.members = {**block.members, "content": "".join(block.parts)}
        self._gathered.keep("message.content.compaction", "compaction_blocks", [block.members])

    def _keep_block(self, block: _Block, delta: Draft) -> None:
        if block.parts:
            block.members = {**block.members, "parts": "".join(block.parts)}
        self._gathered.keep(f"message.content.{block.kind[:80]}", "content_blocks", [block.members])

    def _keep_unknown(self, block: _Block) -> None:
        for name in block.members.keys() - _BLOCK_MEMBERS[block.kind]:
            self._gathered.keep(f"message.content.{block.kind}.{name[:80]}", name, block.members[name])

    # -- deltas --------------------------------------------------------------------------------------------------------------

    def _text_delta(self, block: _Block, piece: Json, delta: Draft) -> None:
        if text := text_of(piece.get("text")):
            delta.content.append(text)

    def _thinking_delta(self, block: _Block, piece: Json, delta: Draft) -> None:
        if text := text_of(piece.get("thinking")):
            delta.reasoning.append(text)
            block.parts.append(text)

    def _signature_delta(self, block: _Block, piece: Json, delta: Draft) -> None:
        if signature := text_of(piece.get("signature")):
            block.signature.append(signature)

    def _input_delta(self, block: _Block, piece: Json, delta: Draft) -> None:
        if not (text := text_of(piece.get("partial_json"))):
            return
        block.parts.append(text)
        if block.kind == "tool_use":
            self._add_arguments(block, text, delta)

    def _citations_delta(self, block: _Block, piece: Json, delta: Draft) -> None:
        delta.annotations += objects_of([piece.get("citation")])

    def _compaction_delta(self, block: _Block, piece: Json, delta: Draft) -> None:
        if text := text_of(piece.get("content")):
            block.parts.append(text)


def _unwrapped(data: bytes) -> Any:
    """The event in a frame of Bedrock's invoke; its payload is an object with the event's bytes in base64."""
    frame = parse(data)
    wrapped = frame.get("bytes")
    return frame if wrapped is None else parse(base64.b64decode(wrapped, validate=True))


def _index(event: Json) -> Any:
    """The number of the event's block; a missing one is that of the only open block."""
    index = event.get("index")
    return index if isinstance(index, int | str) else None


def _input(block: _Block) -> str:
    """The arguments as JSON. A streamed block begins with an empty input."""
    if block.parts:
        return "".join(block.parts)
    return arguments_of(block.members.get("input")) or "{}"


def usage_of(usage: Json) -> TokenUsage | None:
    """Anthropic's ``input_tokens`` does not include cached tokens, and a compaction's tokens are only in ``iterations``."""
    iterations = list(objects_of(usage.get("iterations")))
    if any(iteration.get("type") == "compaction" for iteration in iterations):
        names = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
        usage = {**usage, **{name: sum(count_of(one.get(name)) or 0 for one in iterations) for name in names}}
    given, taken = count_of(usage.get("input_tokens")), count_of(usage.get("output_tokens"))
    read, written = count_of(usage.get("cache_read_input_tokens")), count_of(usage.get("cache_creation_input_tokens"))
    if given is not None:
        given += (read or 0) + (written or 0)
    if not (given or taken):
        return None
    details = object_of(usage.get("output_tokens_details"))
    thought = count_of(first(details.get("thinking_tokens"), details.get("reasoning_tokens")))
    total = given + taken if given is not None and taken is not None else None
    return TokenUsage(given, taken, total, read, written, thought)


_Read = Callable[[Anthropic, Json, Draft], None]
_OfBlock = Callable[[Anthropic, _Block, Draft], None]


@dataclass(slots=True, frozen=True)
class _Kind:
    """``begin`` reads a block's start, ``end`` the block once it is whole."""

    begin: _OfBlock | None = None
    end: _OfBlock | None = None


# Types of events; None: nothing that others do not have.
EVENTS: dict[str, _Read | None] = {
    "message_start": Anthropic._begin,
    "content_block_start": Anthropic._begin_block,
    "content_block_delta": Anthropic._any_delta,
    "content_block_stop": Anthropic._end_block,
    "message_delta": Anthropic._end_message,
    "message_stop": Anthropic._stop,
    "ping": None,
    "initial-response": None,  # AWS's first frame
    "error": Anthropic._error,
}
# Types of content blocks. Any other is kept whole.
BLOCKS: dict[str, _Kind] = {
    "text": _Kind(Anthropic._begin_text, Anthropic._end_text),
    "thinking": _Kind(Anthropic._begin_thinking, Anthropic._end_thinking),
    "redacted_thinking": _Kind(None, Anthropic._end_redacted),
    "tool_use": _Kind(Anthropic._begin_tool, Anthropic._end_tool),
    "server_tool_use": _Kind(None, Anthropic._end_server_tool),
    "web_search_tool_result": _Kind(None, Anthropic._end_web_result),
    "web_fetch_tool_result": _Kind(None, Anthropic._end_web_result),
    "code_execution_tool_result": _Kind(None, Anthropic._end_result),
    "bash_code_execution_tool_result": _Kind(None, Anthropic._end_result),
    "text_editor_code_execution_tool_result": _Kind(None, Anthropic._end_result),
    "tool_search_tool_result": _Kind(None, Anthropic._end_result),
    "advisor_tool_result": _Kind(None, Anthropic._end_result),
    "compaction": _Kind(None, Anthropic._end_compaction),
    "mcp_tool_use": _Kind(None, Anthropic._keep_block),
    "mcp_tool_result": _Kind(None, Anthropic._keep_block),
    "container_upload": _Kind(None, Anthropic._keep_block),
}
# Types of deltas of a block.
DELTAS: dict[str, Callable[[Anthropic, _Block, Json, Draft], None]] = {
    "text_delta": Anthropic._text_delta,
    "thinking_delta": Anthropic._thinking_delta,
    "signature_delta": Anthropic._signature_delta,
    "input_json_delta": Anthropic._input_delta,
    "citations_delta": Anthropic._citations_delta,
    "compaction_delta": Anthropic._compaction_delta,
}
_OPENERS = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "thinking"}
