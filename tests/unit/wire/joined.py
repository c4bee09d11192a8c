"""Runs a decoder over bytes, plain or streamed in any cut, and joins its deltas as the accumulator does."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from bridge_worker.backends.wire.decoder import Decoder
from bridge_worker.core.deltas import Delta, End
from bridge_worker.errors import BridgeError
from bridge_worker.schema.chat_request import AssistantMessage
from tests.support.data import Json


@dataclass
class Joined:
    content: str = ""
    reasoning: str = ""
    refusal: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[Any] = field(default_factory=list)
    images: list[Any] = field(default_factory=list)
    thinking_blocks: list[Any] = field(default_factory=list)
    logprobs: list[Any] = field(default_factory=list)
    message: dict[str, Any] = field(default_factory=dict)
    end: End | None = None
    error: BridgeError | None = None

    @property
    def fields(self) -> dict[str, Any]:
        fields: dict[str, Any] = self.message.get("provider_specific_fields", {})
        return fields

    @property
    def kind(self) -> str | None:
        return self.error.kind if self.error else None

    def comparable(self) -> dict[str, Any]:
        return {**vars(self), "error": self.error and (self.error.kind, self.error.message)}

    def add(self, deltas: Iterable[Delta]) -> None:
        for delta in deltas:
            self.content += delta.content or ""
            self.reasoning += delta.reasoning or ""
            self.refusal += delta.refusal or ""
            for part in delta.tool_calls or ():
                self._add_call(part)
            for mine, theirs in (
                (self.annotations, delta.annotations),
                (self.images, delta.images),
                (self.thinking_blocks, delta.thinking_blocks),
                (self.logprobs, delta.logprobs),
            ):
                mine += theirs or ()
            for name, value in (delta.message or {}).items():
                self._add_member(name, value)

    def _add_call(self, part: Any) -> None:
        same = [call for call in self.calls if part.index is not None and call["index"] == part.index]
        if part.index is None and not part.name and self.calls:
            same = self.calls[-1:]
        if not same:
            same = [{"index": part.index, "id": None, "name": None, "arguments": "", "fields": {}}]
            self.calls += same
        call = same[-1]
        call["id"], call["name"] = call["id"] or part.id, call["name"] or part.name
        call["arguments"] += part.arguments
        call["fields"] |= part.provider_specific_fields or {}

    def _add_member(self, name: str, value: Any) -> None:
        known = self.message.get(name)
        if name == "audio" and known:
            texts = {part: known.get(part, "") + value[part] for part in ("data", "transcript") if part in value}
            self.message[name] = known | value | texts
        elif isinstance(known, dict):
            self.message[name] = known | value
        elif isinstance(known, list):
            self.message[name] = known + value
        else:
            self.message[name] = value

    def check_message(self) -> None:
        """The message to append is accepted by the bridge's own validation, and is JSON."""
        message: dict[str, Any] = {"role": "assistant", "content": self.content or None, **self.message}
        members = {"reasoning_content": self.reasoning, "refusal": self.refusal, "annotations": self.annotations}
        members |= {"images": self.images, "thinking_blocks": self.thinking_blocks}
        message |= {name: value for name, value in members.items() if value}
        AssistantMessage.model_validate(message)
        json.dumps([message, self.logprobs, [call["fields"] for call in self.calls]], allow_nan=False)


def plain(make: type[Any], body: Any) -> Joined:
    decoder: Decoder = make()
    joined = Joined()
    try:
        joined.add(decoder.whole(body if isinstance(body, bytes) else json.dumps(body).encode()))
        joined.end = decoder.end()
    except BridgeError as error:
        joined.error = error
    else:
        joined.check_message()
    return joined


def streamed(make: type[Any], data: bytes, cuts: Sequence[int] = ()) -> Joined:
    decoder: Decoder = make()
    joined = Joined()
    bounds = [0, *sorted(cuts), len(data)]
    try:
        for start, stop in pairwise(bounds):
            joined.add(decoder.feed(data[start:stop]))
            if decoder.failure is not None:
                raise decoder.failure
            if decoder.done:
                break
        joined.add(decoder.flush())
        joined.end = decoder.end()
    except BridgeError as error:
        joined.error = error
    else:
        joined.check_message()
    return joined


def events(*values: Any, done: bool = True) -> bytes:
    """Server-sent events: objects as JSON, texts as they are."""
    lines = [value if isinstance(value, str) else json.dumps(value) for value in values]
    return "".join(f"data: {line}\n\n" for line in [*lines, *(["[DONE]"] if done else [])]).encode()


def check(joined: Joined, expected: Json) -> None:
    for name, value in expected.items():
        if name == "usage":
            usage = joined.end and joined.end.usage
            found: Any = usage and (usage.input_tokens, usage.output_tokens, usage.total_tokens)
        elif name == "text":
            assert joined.error
            assert value in joined.error.message
            continue
        elif name in ("audio", "reasoning_items"):
            found = joined.message.get(name)
        elif hasattr(joined, name):
            found = getattr(joined, name)
        else:
            assert joined.end is not None, joined.error
            found = getattr(joined.end, name)
        assert found == value, name
    if "kind" not in expected:
        assert joined.error is None
