"""Decoder of OpenAI's Responses API, as OpenAI, Azure, OpenRouter, xAI and vLLM send it.

Owns the tables of event types, item types, content parts and statuses. Text and arguments come in deltas, in "done" events, in the
finished item and in the finished response; servers leave out any of these. Each text is counted by its item and part, and only what
was not emitted before is. Refuses to run tools: items of the provider's own tools are kept in the message, not tool calls.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bridge_worker.backends.wire import provider_errors
from bridge_worker.backends.wire.decoder import EventStreamDecoder
from bridge_worker.backends.wire.gathered import Draft, Gathered, arguments_of
from bridge_worker.backends.wire.json_values import Json, amount_of, count_of, name_of, object_of, objects_of, parse, text_of
from bridge_worker.core.deltas import Delta, End, TokenUsage, ToolCallDelta
from bridge_worker.errors import BridgeError

# `status` of a response, and `incomplete_details.reason`. Anything else leaves finish_reason None.
FINISH = {
    "completed": "stop",  # or tool_calls, by the items
    "max_output_tokens": "length",
    "max_tokens": "length",
    "content_filter": "content_filter",
}
STATUS_ERRORS = {
    "failed": "provider_unavailable",
    "cancelled": "provider_unavailable",
    "in_progress": "bad_upstream_response",  # a plain response that is not finished
    "queued": "bad_upstream_response",
}
_MESSAGE_MEMBERS = frozenset(("id", "type", "role", "status", "content"))

_TYPES = {"text": "message", "refusal": "message", "arguments": "function_call", "summary": "reasoning", "content": "reasoning"}
_Key = tuple[Any, str, Any]  # item, kind of text, part


class OpenAIResponses(EventStreamDecoder):
    """Decodes one response."""

    __slots__ = ("_calls", "_emitted", "_facts", "_gathered", "_ids", "_kinds", "_reasoned", "_reasoning_items", "_usage")

    def __init__(self) -> None:
        super().__init__()
        self._facts = End()
        self._usage: Json = {}
        self._gathered = Gathered()
        self._emitted: dict[_Key, int] = {}  # characters, annotations or logprobs that were emitted
        self._calls: dict[Any, int] = {}  # items that are tool calls and were announced, and their numbers
        self._ids: dict[str, Any] = {}  # item ids and call ids to items
        self._kinds: dict[str, set[Any]] = {}  # items by their types
        self._reasoned: tuple[Any, ...] | None = None  # the last part of reasoning
        self._reasoning_items: dict[Any, Json] = {}

    def on_event(self, name: str, data: bytes, out: list[Delta]) -> None:
        if data.strip() == b"[DONE]":
            self.done = True
            return
        event = parse(data)
        if not isinstance(event, dict):
            raise ValueError("the event is not an object")
        kind = text_of(event.get("type")) or name
        read = EVENTS.get(kind, _UNKNOWN)
        if read is not None:
            delta = Draft()
            try:
                read(self, event, delta)
            finally:
                delta.emit(out)

    def is_error(self, value: Any) -> bool:
        return not object_of(value).get("output") and super().is_error(value)

    def on_body(self, value: Any, body: bytes | bytearray, out: list[Delta]) -> None:
        if not isinstance(value.get("output"), list):
            raise ValueError("no output")
        delta = Draft()
        try:
            self._end_response({"response": value}, delta)
        finally:
            delta.emit(out)

    def on_end(self, out: list[Delta]) -> None:
        message = self._gathered.message() or {}
        if self._reasoning_items:
            message["reasoning_items"] = list(self._reasoning_items.values())
        if message:
            out.append(Delta(message=message))

    def facts(self) -> End:
        self._facts.usage = usage_of(self._usage)
        self._facts.cost_usd = amount_of(self._usage.get("cost"))
        self._facts.kept = list(self._gathered.kept)
        return self._facts

    # -- the response --------------------------------------------------------------------------------------------------------

    def _begin_response(self, event: Json, delta: Draft) -> None:
        response = _response_of(event)
        facts = self._facts
        facts.id = name_of(response.get("id")) or facts.id
        facts.model = text_of(response.get("model")) or facts.model

    def _end_response(self, event: Json, delta: Draft) -> None:
        self._begin_response(event, delta)
        response = _response_of(event)
        self._usage = object_of(response.get("usage"))
        self._finished_items(response.get("output"), delta)
        ending = str(event.get("type", "")).rpartition(".")[2]
        status = text_of(response.get("status")) or (ending if ending != "done" else "") or "completed"
        if error := response.get("error"):
            raise provider_errors.from_value({"error": error})
        if status in STATUS_ERRORS:
            raise BridgeError(STATUS_ERRORS[status], f"the provider's response ended with the status {status}")
        details = object_of(response.get("incomplete_details"))
        word = status if status != "incomplete" else text_of(details.get("reason")) or status
        self._facts.raw_finish_reason = word
        self._facts.finish_reason = "tool_calls" if word == "completed" and self._calls else FINISH.get(word)
        self.finished = self.done = True

    def _error(self, event: Json, delta: Draft) -> None:
        raise provider_errors.from_value(event)

    def _unknown_event(self, event: Json, delta: Draft) -> None:
        kind = text_of(event.get("type"))
        if kind is None:
            if provider_errors.error_in(event) is not None:
                raise provider_errors.from_value(event)
            raise ValueError("the event has no type")
        self._gathered.keep(f"event.{kind[:80]}", "events", {kind[:80]: event})

    # -- items ---------------------------------------------------------------------------------------------------------------

    def _item_of(self, event: Json) -> Any:
        """The item that an event is about: by its position, else by an id, which servers change or leave out."""
        index, item = event.get("output_index"), object_of(event.get("item"))
        names = [id for name in (event.get("item_id"), item.get("id"), item.get("call_id")) if (id := name_of(name))]
        if isinstance(index, int):
            where: Any = index
        else:
            where = next((self._ids[id] for id in names if id in self._ids), names[0] if names else None)
        for id in names:
            self._ids.setdefault(id, where)
        return where

    def _add_item(self, event: Json, delta: Draft) -> None:
        item = object_of(event.get("item"))
        self._know(self._item_of(event), item)
        if item.get("type") == "function_call":
            self._announce(self._item_of(event), item, delta)

    def _end_item(self, event: Json, delta: Draft) -> None:
        self._read_item(self._item_of(event), object_of(event.get("item")), delta)

    def _know(self, where: Any, item: Json) -> None:
        self._kinds.setdefault(str(item.get("type")), set()).add(where)
        for name in ("id", "call_id"):
            if id := name_of(item.get(name)):
                self._ids[id] = where

    def _finished_items(self, items: Any, delta: Draft) -> None:
        """Items of the finished response that did not come by themselves: servers number them differently in the stream."""
        ids, kinds = dict(self._ids), {kind: set(items) for kind, items in self._kinds.items()}
        for position, item in enumerate(objects_of(items)):
            names = (name_of(item.get("call_id")), name_of(item.get("id")))
            known = next((id for id in names if id and id in ids), None)
            kind = str(item.get("type"))
            if known is not None:
                self._read_item(ids[known], item, delta)
            elif kind not in kinds:
                self._read_item(("end", position), item, delta)
            elif position in kinds[kind]:
                self._read_item(position, item, delta)

    def _read_item(self, where: Any, item: Json, delta: Draft) -> None:
        self._know(where, item)
        read = ITEMS.get(str(item.get("type")))
        if read is None:
            kind = str(item.get("type"))[:80]
            if not self._emitted.get((where, "item", kind)):
                self._emitted[where, "item", kind] = 1
                self._gathered.keep(f"output.{kind}", "output_items", [item])
        else:
            read(self, where, item, delta)

    def _announce(self, where: Any, item: Json, delta: Draft) -> None:
        if where in self._calls:
            return
        self._calls[where] = len(self._calls)
        id = name_of(item.get("call_id")) or name_of(item.get("id"))
        self._call(ToolCallDelta(index=self._calls.get(where), id=id, name=text_of(item.get("name"))), delta)

    def _call(self, call: ToolCallDelta, delta: Draft) -> None:
        delta.tool_calls.append(call)

    def _function_call(self, where: Any, item: Json, delta: Draft) -> None:
        self._announce(where, item, delta)
        self._arguments(where, arguments_of(item.get("arguments")), delta, whole=True)

    def _message(self, where: Any, item: Json, delta: Draft) -> None:
        for name in item.keys() - _MESSAGE_MEMBERS:
            self._gathered.put(f"output.message.{name}", name, item[name])
        for position, part in enumerate(objects_of(item.get("content"))):
            self._part(where, position, part, delta)

    def _reasoning(self, where: Any, item: Json, delta: Draft) -> None:
        for kind in ("summary", "content"):
            for position, part in enumerate(objects_of(item.get(kind))):
                self._reason(where, kind, position, text_of(part.get("text")) or "", delta, whole=True)
        self._reasoning_items[where] = item

    def _image(self, where: Any, item: Json, delta: Draft) -> None:
        result = text_of(item.get("result"))
        if result and not self._emitted.get((where, "image", 0)):
            self._emitted[where, "image", 0] = 1
            format = text_of(item.get("output_format")) or "png"
            url = result if result.startswith("https://") else f"data:image/{format};base64,{result}"
            delta.images.append({"type": "image_url", "image_url": {"url": url}})
            rest = {name: value for name, value in item.items() if name != "result"}
            self._gathered.keep("output.image_generation_call", "output_items", [rest])

    # -- parts ---------------------------------------------------------------------------------------------------------------

    def _part(self, where: Any, position: Any, part: Json, delta: Draft) -> None:
        kind = str(part.get("type"))
        if kind in ("output_text", "text"):
            self._text(where, "text", position, text_of(part.get("text")) or "", delta, whole=True)
            for note in self._new(where, "notes", position, list(objects_of(part.get("annotations")))):
                self._annotate(note, delta)
            if logprobs := self._new(where, "logprobs", position, list(objects_of(part.get("logprobs")))):
                delta.logprobs += logprobs
        elif kind == "refusal":
            self._text(where, "refusal", position, text_of(part.get("refusal")) or "", delta, whole=True)
        elif kind in ("reasoning_text", "summary_text"):
            self._reason(where, "content", position, text_of(part.get("text")) or "", delta, whole=True)
        elif not self._emitted.get((where, kind[:80], position)):
            self._emitted[where, kind[:80], position] = 1
            self._gathered.keep(f"output.message.content.{kind[:80]}", "content_parts", [part])

    def _new(self, where: Any, kind: str, position: Any, values: list[Any]) -> list[Any]:
        """The items of a whole list that were not emitted one by one."""
        known = self._emitted.get((where, kind, position), 0)
        self._emitted[where, kind, position] = max(known, len(values))
        return values[known:]

    def _text(self, where: Any, kind: str, position: Any, text: str, delta: Draft, *, whole: bool = False) -> str:
        """Emits ``text``, of a whole text the rest that no delta had."""
        if whole and (where, kind, position) not in self._emitted and (None, kind, position) in self._emitted:
            self._emitted[where, kind, position] = self._emitted.pop((None, kind, position))  # of deltas that named no item
        known = self._emitted.get((where, kind, position), 0)
        if whole:
            text = text[known:]
        elif text:
            self._kinds.setdefault(_TYPES[kind], set()).add(where)
        if text:
            self._emitted[where, kind, position] = known + len(text)
            if kind == "text":
                delta.content.append(text)
            elif kind == "refusal":
                delta.refusal.append(text)
        return text

    def _reason(self, where: Any, kind: str, position: Any, text: str, delta: Draft, *, whole: bool = False) -> None:
        """Parts of reasoning are paragraphs."""
        if text := self._text(where, kind, position, text, delta, whole=whole):
            paragraph = self._reasoned is not None and self._reasoned != (where, kind, position)
            self._reasoned = (where, kind, position)
            delta.reasoning += ("\n\n", text) if paragraph else (text,)

    def _arguments(self, where: Any, text: str, delta: Draft, *, whole: bool) -> None:
        if rest := self._text(where, "arguments", 0, text, delta, whole=whole):
            self._call(ToolCallDelta(index=self._calls.get(where), arguments=rest), delta)

    def _annotate(self, note: Json, delta: Draft) -> None:
        """The annotation in the shape of a chat completion: a URL citation's members are in an object of that name."""
        if note.get("type") == "url_citation" and "url_citation" not in note:
            note = {"type": "url_citation", "url_citation": {name: value for name, value in note.items() if name != "type"}}
        delta.annotations.append(note)

    # -- events of parts -----------------------------------------------------------------------------------------------------

    def _text_event(self, event: Json, delta: Draft) -> None:
        where, position = self._item_of(event), _index(event, "content_index")
        self._text(where, "text", position, text_of(event.get("delta")) or "", delta)
        if logprobs := list(objects_of(event.get("logprobs"))):
            key = (where, "logprobs", position)
            self._emitted[key] = self._emitted.get(key, 0) + len(logprobs)
            delta.logprobs += logprobs

    def _text_done(self, event: Json, delta: Draft) -> None:
        part = {"type": "output_text", "text": event.get("text"), "logprobs": event.get("logprobs")}
        self._part(self._item_of(event), _index(event, "content_index"), part, delta)

    def _part_done(self, event: Json, delta: Draft) -> None:
        self._part(self._item_of(event), _index(event, "content_index"), object_of(event.get("part")), delta)

    def _refusal_event(self, event: Json, delta: Draft) -> None:
        self._text(self._item_of(event), "refusal", _index(event, "content_index"), text_of(event.get("delta")) or "", delta)

    def _refusal_done(self, event: Json, delta: Draft) -> None:
        part = {"type": "refusal", "refusal": event.get("refusal")}
        self._part(self._item_of(event), _index(event, "content_index"), part, delta)

    def _annotation_event(self, event: Json, delta: Draft) -> None:
        key = (self._item_of(event), "notes", _index(event, "content_index"))
        if isinstance(note := event.get("annotation"), dict):
            self._emitted[key] = self._emitted.get(key, 0) + 1
            self._annotate(note, delta)

    def _arguments_event(self, event: Json, delta: Draft) -> None:
        self._arguments(self._item_of(event), arguments_of(event.get("delta")), delta, whole=False)

    def _arguments_done(self, event: Json, delta: Draft) -> None:
        where = self._item_of(event)
        if where not in self._calls:
            self._announce(where, {"call_id": event.get("call_id") or event.get("item_id"), "name": event.get("name")}, delta)
        self._arguments(where, arguments_of(event.get("arguments")), delta, whole=True)

    def _summary_event(self, event: Json, delta: Draft) -> None:
        text = text_of(event.get("delta")) or text_of(object_of(event.get("delta")).get("text")) or ""
        self._reason(self._item_of(event), "summary", _index(event, "summary_index"), text, delta)

    def _summary_done(self, event: Json, delta: Draft) -> None:
        text = text_of(event.get("text")) or text_of(object_of(event.get("part")).get("text")) or ""
        self._reason(self._item_of(event), "summary", _index(event, "summary_index"), text, delta, whole=True)

    def _reasoning_event(self, event: Json, delta: Draft) -> None:
        text = text_of(event.get("delta")) or ""
        self._reason(self._item_of(event), "content", _index(event, "content_index"), text, delta)

    def _reasoning_done(self, event: Json, delta: Draft) -> None:
        text = text_of(event.get("text")) or ""
        self._reason(self._item_of(event), "content", _index(event, "content_index"), text, delta, whole=True)

    def _audio_event(self, event: Json, delta: Draft) -> None:
        if data := text_of(event.get("delta")):
            delta.message = {"audio": {"transcript" if "transcript" in event["type"] else "data": data}}


def _response_of(event: Json) -> Json:
    """The response of an event; some proxies send it in the event's stead, with its type in the event's name only."""
    response = event.get("response")
    return response if isinstance(response, dict) else event


def _index(event: Json, name: str) -> int:
    index = event.get(name)
    return index if isinstance(index, int) else 0


def usage_of(usage: Json) -> TokenUsage | None:
    given, taken = object_of(usage.get("input_tokens_details")), object_of(usage.get("output_tokens_details"))
    tokens = TokenUsage(
        input_tokens=count_of(usage.get("input_tokens")),
        output_tokens=count_of(usage.get("output_tokens")),
        total_tokens=count_of(usage.get("total_tokens")),
        cached_input_tokens=count_of(given.get("cached_tokens")),
        cache_write_tokens=count_of(given.get("cache_write_tokens")),
        reasoning_tokens=count_of(taken.get("reasoning_tokens")),
    )
    return tokens if tokens.input_tokens or tokens.output_tokens or tokens.total_tokens else None


_Reader = Callable[[OpenAIResponses, Json, Draft], None]
_UNKNOWN: _Reader = OpenAIResponses._unknown_event
# Types of events; None: it repeats what others have, or reports progress of a tool that the provider runs.
EVENTS: dict[str, _Reader | None] = {
    "response.created": OpenAIResponses._begin_response,
    "response.queued": OpenAIResponses._begin_response,
    "response.in_progress": OpenAIResponses._begin_response,
    "response.completed": OpenAIResponses._end_response,
    "response.done": OpenAIResponses._end_response,
    "response.incomplete": OpenAIResponses._end_response,
    "response.failed": OpenAIResponses._end_response,
    "response.cancelled": OpenAIResponses._end_response,
    "error": OpenAIResponses._error,
    "response.error": OpenAIResponses._error,
    "response.output_item.added": OpenAIResponses._add_item,
    "response.output_item.done": OpenAIResponses._end_item,
    "response.content_part.added": None,
    "response.content_part.done": OpenAIResponses._part_done,
    "response.output_text.delta": OpenAIResponses._text_event,
    "response.output_text.done": OpenAIResponses._text_done,
    "response.output_text.annotation.added": OpenAIResponses._annotation_event,
    "response.refusal.delta": OpenAIResponses._refusal_event,
    "response.refusal.done": OpenAIResponses._refusal_done,
    "response.function_call_arguments.delta": OpenAIResponses._arguments_event,
    "response.function_call_arguments.done": OpenAIResponses._arguments_done,
    "response.reasoning_summary_part.added": None,
    "response.reasoning_summary_part.done": OpenAIResponses._summary_done,
    "response.reasoning_summary_text.delta": OpenAIResponses._summary_event,
    "response.reasoning_summary_text.done": OpenAIResponses._summary_done,
    "response.reasoning_summary.delta": OpenAIResponses._summary_event,
    "response.reasoning_summary.done": OpenAIResponses._summary_done,
    "response.reasoning_text.delta": OpenAIResponses._reasoning_event,
    "response.reasoning_text.done": OpenAIResponses._reasoning_done,
    "response.reasoning.delta": OpenAIResponses._reasoning_event,
    "response.reasoning.done": OpenAIResponses._reasoning_done,
    "response.audio.delta": OpenAIResponses._audio_event,
    "response.audio.done": None,
    "response.audio.transcript.delta": OpenAIResponses._audio_event,
    "response.audio.transcript.done": None,
    "response.web_search_call.in_progress": None,
    "response.web_search_call.searching": None,
    "response.web_search_call.completed": None,
    "response.file_search_call.in_progress": None,
    "response.file_search_call.searching": None,
    "response.file_search_call.completed": None,
    "response.code_interpreter_call.in_progress": None,
    "response.code_interpreter_call.interpreting": None,
    "response.code_interpreter_call.completed": None,
    "response.code_interpreter_call_code.delta": None,
    "response.code_interpreter_call_code.done": None,
    "response.image_generation_call.in_progress": None,
    "response.image_generation_call.generating": None,
    "response.image_generation_call.partial_image": None,
    "response.image_generation_call.completed": None,
    "response.mcp_call.in_progress": None,
    "response.mcp_call.completed": None,
    "response.mcp_call.failed": None,
    "response.mcp_call_arguments.delta": None,
    "response.mcp_call_arguments.done": None,
    "response.mcp_list_tools.in_progress": None,
    "response.mcp_list_tools.completed": None,
    "response.mcp_list_tools.failed": None,
    "response.custom_tool_call_input.delta": None,
    "response.custom_tool_call_input.done": None,
    "keepalive": None,
    "ping": None,
}
# Types of items that the bridge has words for. Items of the provider's own tools, and unknown ones, are kept whole.
ITEMS: dict[str, Callable[[OpenAIResponses, Any, Json, Draft], None]] = {
    "message": OpenAIResponses._message,
    "function_call": OpenAIResponses._function_call,
    "reasoning": OpenAIResponses._reasoning,
    "image_generation_call": OpenAIResponses._image,
}
