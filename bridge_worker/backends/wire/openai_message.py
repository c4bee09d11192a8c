"""The message of an OpenAI-style choice, whole or as the delta of a stream: its members and the kinds of its content parts.

Owns two tables, `MEMBERS` and `PARTS`. A member in neither is kept in the message to append and named.
Refuses to know events and choices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bridge_worker.backends.wire.gathered import (
    Draft,
    Gathered,
    audio_of,
    images_of,
    joined_details,
    thinking_blocks_of,
    tool_call,
)
from bridge_worker.backends.wire.json_values import Json, first, object_of, objects_of, text_of
from bridge_worker.backends.wire.think_tags import ThinkSplitter
from bridge_worker.core.deltas import Delta, ToolCallDelta

_MESSAGE_IGNORED = frozenset(("role", "content", "reasoning_content", "reasoning", "thinking"))


class MessageReader:
    """Reads messages and deltas, and gathers what only the end of the response completes."""

    __slots__ = ("_cites", "_details", "gathered", "think")

    def __init__(self) -> None:
        self.gathered = Gathered()
        self.think = ThinkSplitter()
        self._details: list[Json] = []  # OpenRouter's reasoning_details
        self._cites: list[Json] | None = None  # Perplexity's citations as annotations; [] once others arrived

    def end(self, out: list[Delta]) -> None:
        last = Draft()
        self.split("", last, closing=True)
        if self._details:
            self.gathered.put("message.reasoning_details", "reasoning_details", joined_details(self._details))
        last.annotations += self._cites or ()
        last.message = self.gathered.message()
        last.emit(out)

    def cite(self, urls: Any) -> None:
        """Perplexity's list of URLs, in each event again. Annotations that the message has itself count more."""
        if self._cites != [] and isinstance(urls, list):
            cites = [{"type": "url_citation", "url_citation": {"url": url}} for url in urls if isinstance(url, str)]
            self._cites = cites or None

    def read(self, message: Json, delta: Draft) -> None:
        for name in ("reasoning_content", "reasoning", "thinking"):  # several may hold the same text
            if (value := message.get(name)) and (reasoning := self._reasoning(value)):
                delta.reasoning.append(reasoning)
                break
        if delta.reasoning and not self.think.decided:
            self.split("", delta, closing=True)
        content = message.get("content")
        if isinstance(content, str):
            self.split(content, delta)
        elif content is not None:
            self._parts(content, delta)
        for name in message:
            if name not in _MESSAGE_IGNORED and (value := message[name]) is not None:
                read = MEMBERS.get(name)
                if read is None:
                    self.gathered.keep(f"message.{name}", name, value)
                else:
                    read(self, value, delta)

    def _reasoning(self, value: Any) -> str:
        """A text; some gateways wrap it into an object or a list."""
        if isinstance(value, str):
            return value
        if isinstance(value, dict):
            return text_of(first(value.get("content"), value.get("text"))) or ""
        return "".join(self._reasoning(member) for member in value) if isinstance(value, list) else ""

    def split(self, text: str, delta: Draft, *, closing: bool = False) -> None:
        reasoning, content = self.think.close() if closing else self.think.feed(text)
        if reasoning:
            delta.reasoning.append(reasoning)
        if content:
            delta.content.append(content)

    def _parts(self, content: Any, delta: Draft) -> None:
        """Content as parts, by their kind; Mistral's reasoning models and some gateways send text so."""
        for part in content if isinstance(content, list) else [content]:
            if isinstance(part, str):
                self.split(part, delta)
            elif isinstance(part, dict):
                kind = str(part.get("type", "text" if "text" in part else None))
                read = PARTS.get(kind)
                if read is None:
                    self.gathered.keep(f"message.content.{kind[:40]}", "content_parts", [part])
                else:
                    read(self, part, delta)

    def _add_text(self, part: Json, delta: Draft) -> None:
        text = part.get("text")
        if isinstance(text, dict):  # {"text": {"value": ...}}
            text = text.get("value")
        self.split(text_of(text) or "", delta)
        if isinstance(notes := part.get("annotations"), list):
            self._add_annotations(notes, delta)

    def _add_thinking(self, part: Json, delta: Draft) -> None:
        """Mistral: {"thinking": [{"type": "text", "text": ...}]}."""
        text = "".join(self._reasoning(part.get(name)) for name in ("thinking", "reasoning", "reasoning_text", "text"))
        delta.reasoning.append(text)
        self.split("", delta, closing=True)
        if signature := text_of(part.get("signature")):
            self.gathered.keep("message.content.thinking", "content_parts", [{"type": "thinking", "signature": signature}])

    def _add_reference(self, part: Json, delta: Draft) -> None:
        self._add_annotations([part], delta)

    def _add_image_part(self, part: Json, delta: Draft) -> None:
        self._add_images([part], delta)

    def _add_refusal_part(self, part: Json, delta: Draft) -> None:
        self._add_refusal(part.get("refusal"), delta)

    def _add_refusal(self, value: Any, delta: Draft) -> None:
        if isinstance(value, str) and value:
            delta.refusal.append(value)
        elif not isinstance(value, str):
            self.gathered.keep("message.refusal", "refusal", value)

    def _add_tool_calls(self, value: Any, delta: Draft) -> None:
        calls = [tool_call(call, self.gathered) for call in (value if isinstance(value, list) else [value])]
        delta.tool_calls += (call for call in calls if call is not None)

    def _add_function_call(self, value: Any, delta: Draft) -> None:
        """The form before tool calls; there is one call a message."""
        if isinstance(value, dict) and (value.get("name") or value.get("arguments")) and not delta.tool_calls:
            call = tool_call({"index": 0, "function": value}, self.gathered) or ToolCallDelta()
            delta.tool_calls.append(call)

    def _add_annotations(self, value: Any, delta: Draft) -> None:
        if notes := list(objects_of(value)):
            delta.annotations += notes
            self._cites = []

    def _add_images(self, value: Any, delta: Draft) -> None:
        fit, unfit = images_of(value)
        delta.images += fit
        self.gathered.keep("message.images", "images", unfit)

    def _add_audio(self, value: Any, delta: Draft) -> None:
        audio, rest = audio_of(value)
        if audio:
            delta.message["audio"] = audio
        self.gathered.keep("message.audio", "audio", rest)

    def _add_details(self, value: Any, delta: Draft) -> None:
        details = list(objects_of(value))
        self._details += details
        if not delta.reasoning:  # the same text is usually in `reasoning` too
            texts = (first(detail.get("text"), detail.get("summary")) for detail in details)
            delta.reasoning += (text for text in texts if isinstance(text, str))

    def _add_thinking_blocks(self, value: Any, delta: Draft) -> None:
        fit, unfit = thinking_blocks_of(value)
        delta.thinking_blocks += fit
        self.gathered.keep("message.thinking_blocks", "thinking_blocks", unfit)

    def _add_reasoning_items(self, value: Any, delta: Draft) -> None:
        if items := list(objects_of(value)):
            delta.message["reasoning_items"] = items

    def _add_fields(self, value: Any, delta: Draft) -> None:
        """A LiteLLM proxy's. What it repeats of the message's own members is there already."""
        for name, member in object_of(value).items():
            if name == "refusal":
                delta.refusal += () if delta.refusal or not isinstance(member, str) else (member,)
            elif name not in MEMBERS and name not in _MESSAGE_IGNORED:
                self.gathered.keep(f"message.provider_specific_fields.{name}", name, member)


_Reader = Callable[[MessageReader, Any, Draft], None]
# A message's members besides role, content and the reasoning's texts.
MEMBERS: dict[str, _Reader] = {
    "refusal": MessageReader._add_refusal,
    "tool_calls": MessageReader._add_tool_calls,
    "function_call": MessageReader._add_function_call,
    "annotations": MessageReader._add_annotations,
    "images": MessageReader._add_images,
    "audio": MessageReader._add_audio,
    "reasoning_details": MessageReader._add_details,
    "thinking_blocks": MessageReader._add_thinking_blocks,
    "reasoning_items": MessageReader._add_reasoning_items,
    "provider_specific_fields": MessageReader._add_fields,
}
# The kinds of content parts.
PARTS: dict[str, _Reader] = {
    "text": MessageReader._add_text,
    "output_text": MessageReader._add_text,
    "thinking": MessageReader._add_thinking,
    "reasoning": MessageReader._add_thinking,
    "reasoning_text": MessageReader._add_thinking,
    "reference": MessageReader._add_reference,  # Mistral: which documents a text cites
    "image_url": MessageReader._add_image_part,
    "refusal": MessageReader._add_refusal_part,
}
