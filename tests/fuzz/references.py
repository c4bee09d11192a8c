"""Slow, obvious versions of what cuts and decodes a provider's bytes.

Owns readers of a whole input, a byte or a line at a time, and writers of a reply in each wire format. Refuses to share code with
what they are compared to.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any
from zlib import crc32

from tests.unit.wire import aws_frames

Json = dict[str, Any]
Event = tuple[str, bytes]
Part = tuple[str, Any]  # ("text" or "thought", a text), or ("call", (name, arguments))

_BOM = b"\xef\xbb\xbf"


def sse_events(data: bytes) -> tuple[list[Event], bytes]:
    """The events of `EventStream`, and its stray bytes."""
    text = data.removeprefix(_BOM).lstrip(b" \t\r\n")
    if text.startswith((b"{", b"[", b'"', b"<")):
        return [], text
    events, stray, name, held = list[Event](), b"", "", list[bytes]()
    for line in [*re.split(rb"\r\n|\r|\n", text), b""]:
        field, colon, value = line.partition(b":")
        whole = b"\n".join(held)
        if not line:
            if whole:
                events.append((name, whole))
            name, held = "", []
        elif field == b"data" and colon:
            value = value.removeprefix(b" ")
            if whole.startswith(b"{") and whole.endswith(b"}") and value.lstrip().startswith((b"{", b"[DONE]")):
                events.append((name, whole))
                held = []
            held.append(value)
        elif field == b"event" and colon:
            name = value.strip()[:200].decode("utf-8", "replace")
        elif line not in (b"data", b"event", b"id", b"retry") and not (colon and field in (b"", b"id", b"retry")):
            stray += line + b"\n"
    return events, stray


def array_events(data: bytes) -> tuple[list[bytes], bytes]:
    """The objects of `JsonArray`, an unfinished one too, and its stray bytes."""
    events, stray, piece, depth = list[bytes](), list[bytes](), b"", 0
    for byte, mark in zip(data, _marks(data), strict=True):
        piece += bytes([byte])
        if mark in ("[", "{"):
            depth += 1
            if depth == 1 or (depth == 2 and mark == "{"):
                stray.append(piece[:-1])
                piece = b"" if depth == 1 else b"{"
        elif mark in ("]", "}"):
            depth -= 1
            if depth == 1 and piece.startswith(b"{"):
                events.append(piece)
                piece = b""
            elif depth < 1:
                stray.append(piece[:-1])
                piece = b""
    (events if depth > 1 and piece.strip(b" \t\r\n,") else stray).append(piece.strip(b" \t\r\n,"))
    return events, b"".join(one.strip(b" \t\r\n,") + b"\n" for one in stray if one.strip(b" \t\r\n,"))


def _marks(data: bytes) -> Iterator[str]:
    """Of each byte: a character that has a meaning, or none."""
    in_string = escaped = False
    for mark in map(chr, data):
        means, escaped = not escaped, mark == "\\" and not escaped
        if means and mark == '"':
            in_string = not in_string
        yield mark if means and not in_string else ""


def aws_events(data: bytes) -> tuple[list[tuple[Json, bytes]], bool]:
    """The frames of `FrameReader`, and whether the one after them is damaged."""
    frames = []
    while len(data) >= 12:
        total, headers, checksum = (int.from_bytes(data[at : at + 4], "big") for at in (0, 4, 8))
        if crc32(data[:8]) != checksum or total > 32 << 20 or headers > 128 << 10 or total < 16 + headers:
            return frames, True
        if len(data) < total:
            break
        body, last, data = data[: total - 4], data[total - 4 : total], data[total:]
        if crc32(body) != int.from_bytes(last, "big"):
            return frames, True
        try:
            frames.append((dict(_aws_headers(body[12 : 12 + headers])), body[12 + headers :]))
        except IndexError:
            return frames, True
    return frames, False


def _aws_headers(data: bytes) -> Iterator[tuple[str, Any]]:
    """Raises IndexError for what can't be read."""
    while data:
        name, data = _taken(data[1:], data[0])
        kind, data = data[0], data[1:]
        sizes = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
        if kind in (6, 7):
            size, data = _taken(data, 2)
            value, data = _taken(data, int.from_bytes(size, "big"))
        else:
            value, data = _taken(data, sizes.get(kind, 1 << 30))
        yield name.decode("utf-8", "replace"), _aws_value(kind, value)


def _aws_value(kind: int, value: bytes) -> Any:
    if kind in (0, 1):
        return kind == 0
    if kind in (6, 7):
        return value if kind == 6 else value.decode("utf-8", "replace")
    if kind == 9:
        digits = value.hex()
        return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
    return int.from_bytes(value, "big", signed=True)


def _taken(data: bytes, count: int) -> tuple[bytes, bytes]:
    if count > len(data):
        raise IndexError
    return data[:count], data[count:]


# --- a reply in each format -------------------------------------------------------------------------------------------------


def _pieces(arguments: Json) -> list[str]:
    text = json.dumps(arguments, ensure_ascii=False)
    return [text[at : at + 5] for at in range(0, len(text), 5)]


def _sse(values: list[Any], *, named: bool = False) -> bytes:
    lines = [f"event: {value.get('type')}\n" * named + f"data: {json.dumps(value, ensure_ascii=False)}\n\n" for value in values]
    return "".join(lines).encode()


def openai_chat(reply: list[Part]) -> bytes:
    deltas, calls = list[Json](), 0
    for kind, value in reply:
        if kind == "call":
            function = {"name": value[0], "arguments": ""}
            deltas.append({"tool_calls": [{"index": calls, "id": f"c{calls}", "type": "function", "function": function}]})
            deltas += ({"tool_calls": [{"index": calls, "function": {"arguments": piece}}]} for piece in _pieces(value[1]))
            calls += 1
        else:
            deltas.append({"content" if kind == "text" else "reasoning_content": value})
    choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": "stop"})
    return _sse([{"id": "x", "choices": [choice]} for choice in choices]) + b"data: [DONE]\n\n"


def openai_responses(reply: list[Part]) -> bytes:
    """As servers send it that leave the "done" events and the output of the finished response out."""
    events = list[Json]()
    for index, (kind, value) in enumerate(reply):
        of = {"output_index": index, "item_id": f"i{index}"}
        if kind == "call":
            item = {"type": "function_call", "id": f"i{index}", "call_id": f"c{index}", "name": value[0], "arguments": ""}
            events.append({"type": "response.output_item.added", "output_index": index, "item": item})
            events += ({"type": "response.function_call_arguments.delta", "delta": piece, **of} for piece in _pieces(value[1]))
        else:
            name = "output_text" if kind == "text" else "reasoning_text"
            events.append({"type": f"response.{name}.delta", "content_index": 0, "delta": value, **of})
    return _sse([*events, {"type": "response.completed", "response": {"id": "r", "status": "completed"}}], named=True)


def _anthropic(reply: list[Part]) -> list[Json]:
    events: list[Json] = [{"type": "message_start", "message": {"id": "m", "content": []}}]
    for index, (kind, value) in enumerate(reply):
        if kind == "call":
            block: Json = {"type": "tool_use", "id": f"c{index}", "name": value[0], "input": {}}
            deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in _pieces(value[1])]
        else:
            name = "text" if kind == "text" else "thinking"
            block, deltas = {"type": name, name: ""}, [{"type": f"{name}_delta", name: value}]
        events.append({"type": "content_block_start", "index": index, "content_block": block})
        events += ({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas)
        events.append({"type": "content_block_stop", "index": index})
    return [*events, {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}, {"type": "message_stop"}]


def anthropic(reply: list[Part]) -> bytes:
    return _sse(_anthropic(reply), named=True)


def bedrock_anthropic(reply: list[Part]) -> bytes:
    return b"".join(aws_frames.chunk(event) for event in _anthropic(reply))


def bedrock_converse(reply: list[Part]) -> bytes:
    events: list[tuple[str, Json]] = [("messageStart", {"role": "assistant"})]
    for index, (kind, value) in enumerate(reply):
        of = {"contentBlockIndex": index}
        if kind == "call":
            start = {"toolUse": {"toolUseId": f"c{index}", "name": value[0]}}
            events.append(("contentBlockStart", {"start": start, **of}))
            events += (("contentBlockDelta", {"delta": {"toolUse": {"input": piece}}, **of}) for piece in _pieces(value[1]))
        else:
            delta = {"text": value} if kind == "text" else {"reasoningContent": {"text": value}}
            events.append(("contentBlockDelta", {"delta": delta, **of}))
        events.append(("contentBlockStop", of))
    return aws_frames.converse(*events, ("messageStop", {"stopReason": "end_turn"}), ("metadata", {"usage": {}}))


def _gemini(reply: list[Part]) -> list[Json]:
    parts: list[Json] = []
    for kind, value in reply:
        if kind == "call":
            parts.append({"functionCall": {"name": value[0], "args": value[1]}})
        else:
            parts.append({"text": value} if kind == "text" else {"text": value, "thought": True})
    contents: list[Json] = [{"index": 0, "content": {"role": "model", "parts": [part]}} for part in parts]
    return [{"candidates": [content]} for content in [*contents, {"index": 0, "finishReason": "STOP"}]]


def gemini(reply: list[Part]) -> bytes:
    return _sse(_gemini(reply))


def gemini_array(reply: list[Part]) -> bytes:
    return json.dumps(_gemini(reply), ensure_ascii=False, indent=1).encode()


def cohere(reply: list[Part]) -> bytes:
    events: list[Json] = [{"type": "message-start", "id": "m", "delta": {"message": {"role": "assistant"}}}]
    for index, (kind, value) in enumerate(reply):
        if kind == "call":
            call = {"id": f"c{index}", "type": "function", "function": {"name": value[0], "arguments": ""}}
            calls = [call, *({"function": {"arguments": piece}} for piece in _pieces(value[1]))]
            names = ["tool-call-start", *["tool-call-delta"] * (len(calls) - 1)]
            events += (
                {"type": name, "index": index, "delta": {"message": {"tool_calls": one}}}
                for name, one in zip(names, calls, strict=True)
            )
        else:
            content = {"text" if kind == "text" else "thinking": value}
            events.append({"type": "content-delta", "index": index, "delta": {"message": {"content": content}}})
    return _sse([*events, {"type": "message-end", "delta": {"finish_reason": "COMPLETE"}}])


def ollama(reply: list[Part]) -> bytes:
    messages = list[Json]()
    for kind, value in reply:
        if kind == "call":
            messages.append({"tool_calls": [{"function": {"name": value[0], "arguments": value[1]}}]})
        else:
            messages.append({"content" if kind == "text" else "thinking": value})
    lines: list[Json] = [{"message": message, "done": False} for message in messages]
    lines.append({"message": {"content": ""}, "done": True, "done_reason": "stop"})
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()


# By the name of the form: the format's name in `backends.wire.formats`, and what writes a reply in it.
WRITERS: dict[str, tuple[str, Callable[[list[Part]], bytes]]] = {
    "openai_chat": ("openai_chat", openai_chat),
    "openai_responses": ("openai_responses", openai_responses),
    "anthropic": ("anthropic", anthropic),
    "gemini": ("gemini", gemini),
    "gemini_array": ("gemini", gemini_array),
    "bedrock_converse": ("bedrock_converse", bedrock_converse),
    "bedrock_anthropic": ("bedrock_anthropic", bedrock_anthropic),
    "cohere": ("cohere", cohere),
    "ollama": ("ollama", ollama),
}


def read(reply: list[Part], form: str) -> tuple[str, str, list[tuple[str, Json]]]:
    """Content, reasoning and calls that a client must get for ``reply``. The Responses API's parts of reasoning are paragraphs."""
    thoughts = [value for kind, value in reply if kind == "thought" and value]
    content = "".join(value for kind, value in reply if kind == "text")
    separator = "\n\n" if form == "openai_responses" else ""
    return content, separator.join(thoughts), [value for kind, value in reply if kind == "call"]
