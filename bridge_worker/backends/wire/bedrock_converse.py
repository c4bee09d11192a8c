"""Decoder of Bedrock's Converse: a JSON body, or the events of ConverseStream in AWS's frames.

Owns the tables of events, content blocks and finish words. Signed and redacted reasoning becomes thinking blocks, which LiteLLM
sends back as the blocks that they were. Refuses to know which model responds.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bridge_worker.backends.wire import provider_errors
from bridge_worker.backends.wire.anthropic import RESPONSE_FORMAT_TOOL
from bridge_worker.backends.wire.aws_decoder import AwsDecoder
from bridge_worker.backends.wire.gathered import Draft, Gathered, arguments_of, image_of, joined_base64
from bridge_worker.backends.wire.json_values import Json, count_of, first, name_of, object_of, objects_of, parse, text_of
from bridge_worker.core.deltas import Delta, End, TokenUsage, ToolCallDelta
from bridge_worker.errors import BridgeError

FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
    "model_context_window_exceeded": "length",
}
# The model's own output could not be read.
FINISH_ERRORS = {"malformed_tool_use": "bad_upstream_response", "malformed_model_output": "bad_upstream_response"}
# Members of a body, messageStop and metadata that are read, or report how the response was made.
ENVELOPE_IGNORED = frozenset(("output", "stopReason", "usage", "metrics", "performanceConfig", "serviceTier", "p"))
_CALL_MEMBERS = frozenset(("toolUseId", "name", "input", "type"))


@dataclass(slots=True)
class _Block:
    """A content block while it arrives. ``members`` are those of its start."""

    members: Json = field(default_factory=dict)
    kind: str = ""
    call: int | None = None
    parts: list[str] = field(default_factory=list)
    signature: list[str] = field(default_factory=list)
    redacted: list[str] = field(default_factory=list)
    others: list[Any] = field(default_factory=list)


class BedrockConverse(AwsDecoder):
    """Decodes one response."""

    __slots__ = ("_blocks", "_calls", "_facts", "_gathered", "_usage")

    def __init__(self) -> None:
        super().__init__()
        self._facts = End()
        self._gathered = Gathered()
        self._blocks: dict[Any, _Block] = {}
        self._calls = 0
        self._usage: Json = {}

    def on_event(self, name: str, data: bytes, out: list[Delta]) -> None:
        event = parse(data)
        if name == "contentBlockDelta" and type(event) is dict:
            piece = event.get("delta")
            if type(piece) is dict and len(piece) == 1 and type(text := piece.get("text")) is str:
                if text:
                    out.append(Delta(text))
                return
        self._any_event(name, event, out)

    def is_error(self, value: Any) -> bool:
        """A body without output is an error, or can't be read."""
        return not isinstance(object_of(value).get("output"), dict) and super().is_error(value)

    def on_body(self, value: Any, body: bytes | bytearray, out: list[Delta]) -> None:
        content = value["output"]["message"]["content"]
        if not isinstance(content, list):
            raise ValueError("the content is not a list")
        delta = Draft()
        for position, block in enumerate(content):
            self._whole_block(position, block, delta)
        delta.emit(out)
        self._end(value, delta)
        self.finished = True

    def on_end(self, out: list[Delta]) -> None:
        delta = Draft()
        for index in list(self._blocks) if self.finished else ():  # without a contentBlockStop
            self._end_block({"contentBlockIndex": index}, delta)
        delta.message = self._gathered.message()
        delta.emit(out)

    def facts(self) -> End:
        self._facts.usage = usage_of(self._usage)
        self._facts.kept = list(self._gathered.kept)
        return self._facts

    # -- events --------------------------------------------------------------------------------------------------------------

    def _any_event(self, name: str, event: Any, out: list[Delta]) -> None:
        if not isinstance(event, dict):
            raise ValueError("the event is not an object")
        if len(event) == 1 and not name:  # as JSON lines, the name is the only member
            ((name, event),) = event.items()
            event = object_of(event)
        if name.endswith("Exception"):
            raise provider_errors.from_value({"code": name, **event})
        if name not in EVENTS:
            if provider_errors.error_in(event) is not None:
                raise provider_errors.from_value(event)
            self._gathered.keep(f"event.{name[:80]}", "events", {name[:80]: event})
            return
        if (read := EVENTS[name]) is not None:
            delta = Draft()
            try:
                read(self, event, delta)
            finally:
                delta.emit(out)

    def _begin_block(self, event: Json, delta: Draft) -> None:
        start = event.get("start")
        if start is not None and not isinstance(start, dict):
            raise ValueError("the start of a block is not an object")
        block = self._block(event)
        for kind, members in (start or {}).items():
            block.kind, block.members = kind, object_of(members)
            if kind == "toolUse":
                self._begin_tool(block, delta)
            elif kind == "reasoningContent":  # redacted reasoning may be in the start
                self._reasoning(block, members, delta)
            elif not isinstance(members, dict):
                block.others.append(members)

    def _any_delta(self, event: Json, delta: Draft) -> None:
        piece = event.get("delta")
        if not isinstance(piece, dict):
            raise ValueError("the delta is not an object")
        block = self._block(event)
        for kind, value in piece.items():
            if read := DELTAS.get(kind):
                read(self, block, value, delta)
            else:
                block.kind = block.kind or kind
                block.others.append(value)

    def _end_block(self, event: Json, delta: Draft) -> None:
        block = self._blocks.pop(_index(event), None)
        if block is None:
            return
        if block.redacted or block.signature or (block.kind == "reasoningContent" and block.parts):
            self._end_reasoning(block, delta)
        elif block.kind == "toolUse":
            self._end_tool(block, delta)
        elif block.kind == "image":
            self._image({**block.members, "source": {"bytes": joined_base64(block.parts)}} if block.parts else block.members, delta)
        elif block.others or block.members:
            whole = {**block.members, "content": block.others} if block.members and block.others else block.members or block.others
            self._gathered.keep(f"message.content.{block.kind[:80]}", "content_blocks", [{block.kind: whole}])

    def _end(self, event: Json, delta: Draft) -> None:
        for name, value in object_of(event.get("usage")).items():
            self._usage[name] = value
        for name in event.keys() - ENVELOPE_IGNORED:
            self._gathered.put(f"response.{name}", name, event[name])
        word = text_of(event.get("stopReason"))
        if word is None:
            return
        self._facts.raw_finish_reason = word
        self._facts.finish_reason = FINISH.get(word)
        self.finished = True
        if word in FINISH_ERRORS:
            fields = text_of(object_of(event.get("additionalModelResponseFields")).get("message"))
            reason = f"the provider broke the response off: stopReason {word}"
            raise BridgeError(FINISH_ERRORS[word], f"{reason}: {provider_errors.quote(fields)}" if fields else reason)

    def _metadata(self, event: Json, delta: Draft) -> None:
        self._end(event, delta)
        self.done = self.finished  # nothing follows

    # -- content blocks --------------------------------------------------------------------------------------------------------

    def _block(self, event: Json) -> _Block:
        return self._blocks.setdefault(_index(event), _Block())

    def _whole_block(self, position: int, block: Any, delta: Draft) -> None:
        if not isinstance(block, dict):
            raise ValueError("the content block is not an object")
        for kind, value in block.items():
            if read := BLOCKS.get(kind):
                read(self, _Block(object_of(value), kind), value, delta)
            else:
                self._gathered.keep(f"message.content.{kind[:80]}", "content_blocks", [{kind: value}])

    def _text(self, block: _Block, value: Any, delta: Draft) -> None:
        if text := text_of(value):
            delta.content.append(text)

    def _whole_tool(self, block: _Block, value: Any, delta: Draft) -> None:
        self._begin_tool(block, delta)
        self._end_tool(block, delta)

    def _begin_tool(self, block: _Block, delta: Draft) -> None:
        """A tool that the provider runs has a type, and its result comes in the same message."""
        members = block.members
        name = text_of(members.get("name"))
        if members.get("type") == "server_tool_use" or name == RESPONSE_FORMAT_TOOL:
            return
        block.call, self._calls = self._calls, self._calls + 1
        state = {name: value for name, value in members.items() if name not in _CALL_MEMBERS and value}
        for member in state:
            self._gathered.kept[f"message.content.toolUse.{member[:80]}"] = None
        delta.tool_calls.append(ToolCallDelta(block.call, name_of(members.get("toolUseId")), name, "", state or None))

    def _end_tool(self, block: _Block, delta: Draft) -> None:
        arguments = "".join(block.parts) or arguments_of(block.members.get("input")) or "{}"
        if block.call is None and block.members.get("type") == "server_tool_use":
            members = {**block.members, "input": _value(arguments)}
            self._gathered.keep("message.content.toolUse.server_tool_use", "content_blocks", [{"toolUse": members}])
        elif not block.parts:
            self._add_arguments(block, arguments, delta)

    def _add_arguments(self, block: _Block, arguments: str, delta: Draft) -> None:
        if block.call is not None:
            delta.tool_calls.append(ToolCallDelta(block.call, None, None, arguments))
        elif block.members.get("name") == RESPONSE_FORMAT_TOOL:
            delta.content.append(arguments)

    def _tool_delta(self, block: _Block, value: Any, delta: Draft) -> None:
        block.kind = "toolUse"
        piece = object_of(value).get("input")
        text = piece if isinstance(piece, str) else arguments_of(piece)
        if not text:
            return
        if not block.members and block.call is None:  # without a start: the caller reports a call without a name
            block.call, self._calls = self._calls, self._calls + 1
        block.parts.append(text)
        self._add_arguments(block, text, delta)

    def _whole_reasoning(self, block: _Block, value: Any, delta: Draft) -> None:
        members = object_of(value)
        self._reasoning(block, object_of(members.get("reasoningText")), delta)
        self._reasoning(block, members, delta)
        self._end_reasoning(block, delta)

    def _reasoning(self, block: _Block, value: Any, delta: Draft) -> None:
        members = object_of(value)
        block.kind = "reasoningContent"
        if text := text_of(members.get("text")):
            delta.reasoning.append(text)
            block.parts.append(text)
        if signature := text_of(members.get("signature")):
            block.signature.append(signature)
        if redacted := text_of(members.get("redactedContent")):
            block.redacted.append(redacted)

    def _end_reasoning(self, block: _Block, delta: Draft) -> None:
        if block.redacted:
            delta.thinking_blocks.append({"type": "redacted_thinking", "data": _native(joined_base64(block.redacted))})
        if block.parts or block.signature:
            thinking: Json = {"type": "thinking", "thinking": "".join(block.parts)}
            if block.signature:
                thinking["signature"] = "".join(block.signature)
            delta.thinking_blocks.append(thinking)

    def _citations(self, block: _Block, value: Any, delta: Draft) -> None:
        for part in objects_of(object_of(value).get("content")):
            self._text(block, part.get("text"), delta)
        for citation in objects_of(object_of(value).get("citations")):
            self._citation(block, citation, delta)

    def _citation(self, block: _Block, value: Any, delta: Draft) -> None:
        if isinstance(value, dict) and value:
            delta.annotations.append({"type": "citation", **value})

    def _whole_image(self, block: _Block, value: Any, delta: Draft) -> None:
        self._image(object_of(value), delta)

    def _image(self, members: Json, delta: Draft) -> None:
        data = text_of(object_of(members.get("source")).get("bytes"))
        image = data and image_of(f"image/{text_of(members.get('format')) or 'png'}", data)
        if image:
            delta.images.append(image)
        else:  # in S3, or an error
            self._gathered.keep("message.content.image", "content_blocks", [{"image": members}])

    def _image_delta(self, block: _Block, value: Any, delta: Draft) -> None:
        block.kind = "image"
        members = object_of(value)
        if data := text_of(object_of(members.get("source")).get("bytes")):
            block.parts.append(data)
        elif members:
            self._gathered.keep("message.content.image", "content_blocks", [{"image": members}])


def _index(event: Json) -> Any:
    index = event.get("contentBlockIndex")
    return index if isinstance(index, int | str) else None


def _native(redacted: str) -> str:
    """The text of the model itself: Bedrock wraps Claude's text in base64, and LiteLLM wraps it again. Bytes are not changed."""
    try:
        return base64.b64decode(redacted, validate=True).decode("ascii") or redacted
    except ValueError:
        return redacted


def _value(arguments: str) -> Any:
    try:
        return parse(arguments.encode("utf-8", "replace"))
    except ValueError:
        return arguments


def usage_of(usage: Json) -> TokenUsage | None:
    """Bedrock's ``inputTokens`` does not include cached tokens."""
    given, taken = count_of(usage.get("inputTokens")), count_of(usage.get("outputTokens"))
    read = count_of(first(usage.get("cacheReadInputTokens"), usage.get("cacheReadInputTokenCount")))
    written = count_of(first(usage.get("cacheWriteInputTokens"), usage.get("cacheWriteInputTokenCount")))
    if given is not None:
        given += (read or 0) + (written or 0)
    total = given + taken if given is not None and taken is not None else count_of(usage.get("totalTokens"))
    if not (given or taken or total):
        return None
    return TokenUsage(given, taken, total, read, written, None)


_Read = Callable[[BedrockConverse, Json, Draft], None]
_OfBlock = Callable[[BedrockConverse, _Block, Any, Draft], None]
# Events; None: nothing that others do not have. Exceptions are recognised by the end of their name.
EVENTS: dict[str, _Read | None] = {
    "messageStart": None,
    "contentBlockStart": BedrockConverse._begin_block,
    "contentBlockDelta": BedrockConverse._any_delta,
    "contentBlockStop": BedrockConverse._end_block,
    "messageStop": BedrockConverse._end,
    "metadata": BedrockConverse._metadata,
    "initial-response": None,
}
# Whole content blocks, by their member. Any other (video, document, toolResult, searchResult, guardContent, audio) is kept whole.
BLOCKS: dict[str, _OfBlock] = {
    "text": BedrockConverse._text,
    "toolUse": BedrockConverse._whole_tool,
    "reasoningContent": BedrockConverse._whole_reasoning,
    "citationsContent": BedrockConverse._citations,
    "image": BedrockConverse._whole_image,
}
# Deltas of a block, by their member.
DELTAS: dict[str, _OfBlock] = {
    "text": BedrockConverse._text,
    "toolUse": BedrockConverse._tool_delta,
    "reasoningContent": BedrockConverse._reasoning,
    "citation": BedrockConverse._citation,
    "image": BedrockConverse._image_delta,
}
