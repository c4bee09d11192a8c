"""Collects the members of a response that the bridge's result does not have, for the message to append.

Owns the joining of such members over the events of a stream, so that a plain and a streamed response leave the same message, and
the list of their names. Refuses to know a format.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from bridge_worker.backends.wire.json_values import Json, name_of, object_of, objects_of, text_of
from bridge_worker.core.deltas import Delta, ToolCallDelta

# Parts of a streamed detail that add up; the others of its members are repeated.
_JOINED = ("text", "summary", "data", "signature", "thinking")
_AUDIO = {"id": str, "data": str, "transcript": str, "expires_at": int, "format": str}
_THINKING = {"thinking": ("thinking", "signature"), "redacted_thinking": ("data",)}


class Draft:
    """A delta under construction. Its texts are lists, because a body may have a million parts."""

    __slots__ = ("annotations", "content", "images", "logprobs", "message", "reasoning", "refusal", "thinking_blocks", "tool_calls")

    def __init__(self) -> None:
        self.content: list[str] = []
        self.reasoning: list[str] = []
        self.refusal: list[str] = []
        self.tool_calls: list[ToolCallDelta] = []
        self.thinking_blocks: list[Json] = []
        self.annotations: list[Json] = []
        self.images: list[Json] = []
        self.logprobs: list[Any] = []
        self.message: Json = {}

    def emit(self, out: list[Delta]) -> None:
        """Appends the delta, unless it is empty."""
        members = (
            "".join(self.content) or None,
            "".join(self.reasoning) or None,
            self.tool_calls or None,
            self.thinking_blocks or None,
            "".join(self.refusal) or None,
            self.annotations or None,
            self.images or None,
            self.message or None,
            self.logprobs or None,
        )
        if any(members):
            out.append(Delta(*members))


class Gathered:
    """Members that have no member in the bridge's result: ``fields`` for ``provider_specific_fields``, ``kept`` their dotted
    paths."""

    __slots__ = ("_texts", "fields", "kept")

    def __init__(self) -> None:
        self.fields: Json = {}
        self._texts: dict[str, list[str]] = {}  # fields that grow
        self.kept: dict[str, None] = {}  # in order

    def keep(self, path: str, name: str, value: Any) -> None:
        """Adds ``value`` to the field ``name``: texts and lists grow, objects are merged, of anything else the last counts."""
        if value is None or value in ("", [], {}):
            return
        self.kept[path] = None
        known = self.fields.get(name)
        if isinstance(known, list) and isinstance(value, list):
            known += value
        elif isinstance(known, dict) and isinstance(value, dict):
            known |= value
        elif isinstance(known, str) and isinstance(value, str):
            self._texts.setdefault(name, [known]).append(value)
        else:
            self._texts.pop(name, None)
            self.fields[name] = list(value) if isinstance(value, list) else value

    def put(self, path: str, name: str, value: Any) -> None:
        """Sets a field that each event of a stream repeats whole."""
        if value is None or value in ("", [], {}):
            return
        self.kept[path] = None
        self._texts.pop(name, None)
        self.fields[name] = value

    def message(self) -> Json:
        self.fields.update({name: "".join(texts) for name, texts in self._texts.items()})
        return {"provider_specific_fields": self.fields} if self.fields else {}


def joined_details(details: list[Json]) -> list[Json]:
    """Joins the streamed parts of a detail: adjacent parts of the same type and index, with their texts concatenated."""
    whole: list[Json] = []
    parts: list[dict[str, list[str]]] = []
    for detail in details:
        if whole and _is_same(whole[-1], detail):
            last, texts = whole[-1], parts[-1]
            for name, value in detail.items():
                if name in _JOINED and isinstance(value, str):
                    texts.setdefault(name, []).append(value)
                elif value is not None:
                    last[name] = value
        else:
            whole.append(dict(detail))
            parts.append({name: [value] for name, value in detail.items() if name in _JOINED and isinstance(value, str)})
    for detail, texts in zip(whole, parts, strict=True):
        detail.update({name: "".join(pieces) for name, pieces in texts.items()})
    return whole


def _is_same(last: Json, detail: Json) -> bool:
    """Whether two parts belong together: without an index, parts of a text continue until its signature; encrypted data is never
    split."""
    if last.get("type") != detail.get("type") or last.get("index") != detail.get("index"):
        return False
    if detail.get("id") is not None and last.get("id") is not None and detail["id"] != last["id"]:
        return False
    return last.get("index") is not None or (last.get("signature") is None and "data" not in detail)


def tool_call(call: Any, gathered: Gathered) -> ToolCallDelta | None:
    """A tool call, or a part of one, in OpenAI's shape. Arguments may be missing, null, or an object instead of text."""
    if not isinstance(call, dict):
        return None
    function = object_of(call.get("function"))
    state: Json = {}
    for owner in (call, function):
        for name, value in owner.items():
            if name == "provider_specific_fields" and isinstance(value, dict):
                state |= value
            elif name not in _CALL_MEMBERS and value is not None:
                gathered.kept[f"message.tool_calls.{name}"] = None
                state[name] = value
    index = call.get("index")
    return ToolCallDelta(
        index=index if isinstance(index, int) else None,
        id=name_of(call.get("id")),
        name=text_of(function.get("name")),
        arguments=arguments_of(function.get("arguments")),
        provider_specific_fields=state or None,
    )


_CALL_MEMBERS = frozenset({"id", "index", "type", "function", "name", "arguments"})


def arguments_of(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def images_of(value: Any) -> tuple[list[Json], list[Json]]:
    """Images as the bridge sends them, and those that it can't: an image part takes data: and https: URLs only."""
    fit, unfit = [], []
    for image in objects_of(value):
        found = image.get("image_url")
        url = found.get("url") if isinstance(found, dict) else found
        if isinstance(url, str) and url.startswith(("data:", "https://")):
            fit.append({"type": "image_url", "image_url": {"url": url}})
        else:
            unfit.append(image)
    return fit, unfit


def image_of(type: str, data: str) -> Json | None:
    """An image as a data URL; None for what can't be in one."""
    if not type.startswith("image/") or not f"{type}{data}".isascii():
        return None
    return {"type": "image_url", "image_url": {"url": f"data:{type};base64,{data}"}}


def joined_base64(parts: list[str]) -> str:
    """Base64 that came in parts, each with its own padding."""
    if len(parts) == 1:
        return parts[0]
    try:
        return base64.b64encode(b"".join(base64.b64decode(part, validate=True) for part in parts)).decode()
    except (binascii.Error, ValueError):
        return "".join(parts)


def audio_of(value: Any) -> tuple[Json, Json]:
    """The members of audio that a message can hold, and the others."""
    audio = {name: member for name, member in object_of(value).items() if member is not None}
    fit = {
        name: member for name, member in audio.items() if name in _AUDIO and isinstance(member, _AUDIO[name]) and member is not True
    }
    return fit, {name: member for name, member in audio.items() if name not in fit}


def thinking_blocks_of(value: Any) -> tuple[list[Json], list[Json]]:
    """Anthropic's blocks as a message can hold them, and those that it can't."""
    fit, unfit = [], []
    for block in objects_of(value):
        members = _THINKING.get(str(block.get("type")), ())
        known = {name: block[name] for name in members if isinstance(block.get(name), str)}
        if known and ("data" in known or "thinking" in known or "signature" in known):
            if block["type"] == "thinking":
                known.setdefault("thinking", "")
            fit.append({"type": block["type"], **known})
        else:
            unfit.append(block)
    return fit, unfit
