"""Decoder of Cohere's chat, version 2: a plain message, or events of its parts.

Owns the tables of event types, content parts and finish words. A tool plan is the model's reasoning before tool calls, and goes
there; citations become annotations. Refuses to know version 1 of the API.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bridge_worker.backends.wire import provider_errors
from bridge_worker.backends.wire.decoder import EventStreamDecoder
from bridge_worker.backends.wire.gathered import Draft, Gathered, tool_call
from bridge_worker.backends.wire.json_values import Json, count_of, first, name_of, object_of, objects_of, parse, text_of
from bridge_worker.core.deltas import Delta, End, TokenUsage
from bridge_worker.errors import BridgeError

# In upper case, as version 2 sends them.
FINISH = {
    "COMPLETE": "stop",
    "STOP_SEQUENCE": "stop",
    "MAX_TOKENS": "length",
    "TOOL_CALL": "tool_calls",
    "ERROR_TOXIC": "content_filter",
    "CONTENT_FILTER": "content_filter",
}
FINISH_ERRORS = {
    "ERROR": "provider_unavailable",
    "ERROR_LIMIT": "context_length_exceeded",
    "TIMEOUT": "timeout",
    "USER_CANCEL": "provider_unavailable",
}
BODY_MEMBERS = frozenset(("id", "finish_reason", "message", "usage", "logprobs", "meta", "response_type", "generation_id", "type"))
_MESSAGE_MEMBERS = frozenset(("role", "content", "tool_plan", "tool_calls", "citations"))


class Cohere(EventStreamDecoder):
    """Decodes one response."""

    __slots__ = ("_facts", "_gathered", "_usage")

    def __init__(self) -> None:
        super().__init__()
        self._facts = End()
        self._usage: Json = {}
        self._gathered = Gathered()

    def on_event(self, name: str, data: bytes, out: list[Delta]) -> None:
        if data.strip() == b"[DONE]":
            self.done = True
            return
        event = parse(data)
        if not isinstance(event, dict):
            raise ValueError("the event is not an object")
        kind = text_of(event.get("type")) or name
        if kind not in EVENTS:
            if provider_errors.error_in(event) is not None:
                raise provider_errors.from_value(event)
            self._gathered.keep(f"event.{kind[:80]}", "events", {kind[:80]: event})
            return
        read = EVENTS[kind]
        if read is not None:
            delta = Draft()
            try:
                read(self, event, delta)
            finally:
                delta.emit(out)

    def is_error(self, value: Any) -> bool:
        return not isinstance(object_of(value).get("message"), dict) and super().is_error(value)

    def on_body(self, value: Any, body: bytes | bytearray, out: list[Delta]) -> None:
        delta = Draft()
        self._facts.id = name_of(value.get("id"))
        self._message(value["message"], delta)
        delta.logprobs += _logprobs(value.get("logprobs"))
        delta.emit(out)
        for name in value.keys() - BODY_MEMBERS:
            self._gathered.put(f"response.{name}", name, value[name])
        self._end_message({"delta": value}, delta)
        self.finished = True

    def on_end(self, out: list[Delta]) -> None:
        if message := self._gathered.message():
            out.append(Delta(message=message))

    def facts(self) -> End:
        self._facts.usage = usage_of(self._usage)
        self._facts.kept = list(self._gathered.kept)
        return self._facts

    # -- events --------------------------------------------------------------------------------------------------------------

    def _begin_message(self, event: Json, delta: Draft) -> None:
        self._facts.id = name_of(event.get("id"))
        self._message(object_of(object_of(event.get("delta")).get("message")), delta)

    def _any_part(self, event: Json, delta: Draft) -> None:
        """The delta of an event is a message with the part that it adds to; a tool call's number is the event's."""
        message = object_of(object_of(event.get("delta")).get("message"))
        self._message(message, delta, index=event.get("index"))
        delta.logprobs += _logprobs(first(event.get("logprobs"), object_of(event.get("delta")).get("logprobs")))

    def _end_message(self, event: Json, delta: Draft) -> None:
        end = object_of(event.get("delta"))
        self._usage = object_of(first(end.get("usage"), object_of(end.get("meta")) or None))
        word = text_of(end.get("finish_reason"))
        facts = self._facts
        facts.id = facts.id or name_of(event.get("id"))
        facts.raw_finish_reason = word
        facts.finish_reason = FINISH.get((word or "").upper())
        kind = FINISH_ERRORS.get((word or "").upper())
        if error := end.get("error"):
            failed = provider_errors.from_value({"error": error})
            failed.kind = kind if kind == "context_length_exceeded" else failed.kind
            raise failed
        if kind:
            deadline: dict[str, object] = {"deadline": "provider"} if kind == "timeout" else {}
            raise BridgeError(kind, f"the provider broke the response off: finish_reason {word}", extra=deadline)
        if word:
            self.finished = self.done = True

    def _error(self, event: Json, delta: Draft) -> None:
        raise provider_errors.from_value(event)

    # -- the message ---------------------------------------------------------------------------------------------------------

    def _message(self, message: Json, delta: Draft, index: Any = None) -> None:
        content = message.get("content")
        for part in content if isinstance(content, list) else [content]:
            if isinstance(part, str):
                delta.content.append(part)
            elif isinstance(part, dict):
                self._part(part, delta)
        if plan := text_of(message.get("tool_plan")):
            delta.reasoning.append(plan)
        calls = message.get("tool_calls")
        for position, call in enumerate(calls if isinstance(calls, list) else [calls]):
            part = tool_call(call, self._gathered)
            if part is not None:
                part.index = index if isinstance(index, int) else position
                delta.tool_calls.append(part)
        citations = message.get("citations")
        if notes := list(objects_of(citations if isinstance(citations, list) else [citations])):
            delta.annotations += map(_annotation, notes)
        for name in message.keys() - _MESSAGE_MEMBERS:
            self._gathered.keep(f"message.{name}", name, message[name])

    def _part(self, part: Json, delta: Draft) -> None:
        """A streamed part after its first has no type, but the member of its kind."""
        if text := text_of(part.get("text")):
            delta.content.append(text)
        if thinking := text_of(part.get("thinking")):
            delta.reasoning.append(thinking)
        if not part.keys() <= {"type", "text", "thinking"}:
            self._gathered.keep(f"message.content.{str(part.get('type'))[:80]}", "content_parts", [part])


def _annotation(citation: Json) -> Json:
    """A citation in OpenAI's form, with the first of its sources."""
    source = first(*objects_of(citation.get("sources"))) or {}
    document = object_of(source.get("document"))
    cited = {
        "start_index": citation.get("start"),
        "end_index": citation.get("end"),
        "title": text_of(document.get("title")) or text_of(source.get("id")),
        "url": text_of(document.get("url")),
    }
    return {"type": "url_citation", "url_citation": {name: value for name, value in cited.items() if value is not None}}


def _logprobs(value: Any) -> list[Any]:
    """Cohere reports a text and the log probabilities of its tokens; a list in a plain response, an object in an event."""
    entries = objects_of(value if isinstance(value, list) else [value])
    return [
        {"token": text_of(entry.get("text")) or "", "logprob": number}
        for entry in entries
        if isinstance(numbers := entry.get("logprobs"), list)
        for number in numbers
    ]


def usage_of(usage: Json) -> TokenUsage | None:
    """Tokens as counted; the billed ones leave out the prompt's fixed part."""
    tokens, billed = object_of(usage.get("tokens")), object_of(usage.get("billed_units"))
    given = count_of(first(tokens.get("input_tokens"), billed.get("input_tokens")))
    taken = count_of(first(tokens.get("output_tokens"), billed.get("output_tokens")))
    if not (given or taken):
        return None
    total = given + taken if given is not None and taken is not None else None
    cached = count_of(usage.get("cached_tokens"))
    return TokenUsage(input_tokens=given, output_tokens=taken, total_tokens=total, cached_input_tokens=cached)


_Reader = Callable[[Cohere, Json, Draft], None]
# Types of events; None: nothing that others do not have.
EVENTS: dict[str, _Reader | None] = {
    "message-start": Cohere._begin_message,
    "content-start": Cohere._any_part,
    "content-delta": Cohere._any_part,
    "content-end": None,
    "tool-plan-delta": Cohere._any_part,
    "tool-call-start": Cohere._any_part,
    "tool-call-delta": Cohere._any_part,
    "tool-call-end": None,
    "citation-start": Cohere._any_part,
    "citation-end": None,
    "message-end": Cohere._end_message,
    "debug": None,
    "error": Cohere._error,
}
