"""Decodes lines to JSON values and encodes values to lines. Sans-IO: no descriptor, no clock, no task.

Owns UTF-8, the line limit and all JSON errors of a line. Refuses to know the meaning of a value: ``session`` decides whether it is
a request or a batch. An unreadable line is a value, a `Fault`, not an exception, because the next line must still work.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from json.encoder import c_make_encoder, encode_basestring  # type: ignore[attr-defined]  # the stubs lack the first
from typing import TypeGuard

from bridge_worker.errors import BridgeError
from bridge_worker.protocol.outline import Outline
from bridge_worker.protocol.value_counter import MAX_VALUES, ValueCounter

DEFAULT_MAX_MESSAGE_BYTES = 64 * 1024 * 1024
_BOM = b"\xef\xbb\xbf"
_LONG_LINE_BYTES = 1024 * 1024  # a line of so many is decoded in 5 ms
_COMPARED = "idempotency_key"  # requests with it are compared as a whole
_HEAD_BYTES = 4096  # of a line over the limit; searched for its id
MAX_ID_LENGTH = 1_024  # characters or digits: each delta and each line of the log repeats an id
_MAX_INTEGER_ID = 10**MAX_ID_LENGTH


@dataclass(slots=True)  # not frozen, as what is made for every message: to freeze one takes longer than to make it
class Message:
    """A line of valid JSON: its value, of any JSON type, and the line itself. Of a long one the value may be an outline."""

    value: object
    line: bytes | bytearray = field(default=b"", compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Fault:
    """A line that cannot be used. ``error`` goes to its sender with ``id``, which is None if unreadable."""

    error: BridgeError
    id: str | int | None = None


class Framer:
    """Splits a byte stream into messages, independent of the chunks it arrives in.

    Bounded: no more than ``max_bytes`` of an unfinished line are held, and no line with more than `MAX_VALUES` values is decoded.
    The rest of such a line is dropped while it arrives; the line gets one error response, at its end.
    ``outlines``: of a long request only an outline is decoded; the engine, which gets the line, finds what is wrong in the strings.
    """

    def __init__(self, max_bytes: int = DEFAULT_MAX_MESSAGE_BYTES, *, outlines: bool = False) -> None:
        self._max_bytes = max_bytes
        self._short = min(max_bytes, MAX_VALUES)  # bytes of a line that is within both limits
        self._line = bytearray()
        self._values = ValueCounter()
        self._excess: str | None = None  # the limit that the line exceeds, as a message
        self._head = b""  # the start of a dropped line
        self._first = True
        self._outlines = outlines
        self._outline: Outline | None = None  # of the line, once it is long

    def feed(self, data: bytes) -> Iterator[Message | Fault]:
        """Yields the messages and faults that ``data`` completes, in order. The caller must exhaust the iterator."""
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            if end - start <= self._short and not (self._line or self._excess or self._first):
                line = data[start:end]  # whole and within every limit, as nearly all are
                event = decode(line) if line and not line.isspace() else None
            else:
                self._hold(data, start, end)
                event = self._end_line()
            start = end + 1
            if event is not None:
                yield event
        self._hold(data, start, len(data))

    def close(self) -> Iterator[Message | Fault]:
        """Yields the message of a last line without a newline."""
        if (event := self._end_line()) is not None:
            yield event

    def _hold(self, data: bytes, start: int, end: int) -> None:
        if self._excess or start == end:
            return
        # One byte of grace for the "\r" of "\r\n", which is not part of the message.
        if len(self._line) + end - start > self._max_bytes + 1:
            self._drop(self._byte_limit(), bytes(self._line[:_HEAD_BYTES]) + data[start : start + _HEAD_BYTES])
            return
        self._line += memoryview(data)[start:end]
        if len(self._line) > MAX_VALUES and self._values.count_up_to(self._line) > MAX_VALUES:  # a value has a byte at least
            limit = f"the line has more than {MAX_VALUES:,} JSON values, the limit; send it in parts"
            self._drop(limit, bytes(self._line[:_HEAD_BYTES]))
        elif self._outline is not None:
            self._outline.feed(data[start:end])
        elif self._outlines and len(self._line) > _LONG_LINE_BYTES:
            self._outline = Outline()
            self._outline.feed(self._line)

    def _drop(self, excess: str, head: bytes) -> None:
        self._excess, self._head = excess, head
        self._line = bytearray()  # a fresh one: clear() would keep the allocation

    def _byte_limit(self) -> str:
        return f"the line is longer than the limit of {self._max_bytes} bytes; send less or start with --max-message-bytes"

    def _end_line(self) -> Message | Fault | None:
        line, self._line = self._line, bytearray()
        excess, self._excess = self._excess, None
        outline, self._outline = self._outline, None
        self._values = ValueCounter()
        if self._first:
            self._first = False
            if line.startswith(_BOM):
                del line[: len(_BOM)]
        if line.endswith(b"\r"):
            del line[-1:]
        if excess is None and len(line) > self._max_bytes:
            excess, self._head = self._byte_limit(), bytes(line)
        if excess is not None:
            return Fault(BridgeError("invalid_message", excess), id_in(self._head[:_HEAD_BYTES]))
        if outline is not None and (message := _decode_outline(outline, line)) is not None:
            return message
        return decode(line) if line and not line.isspace() else None


def decode(line: bytes | bytearray) -> Message | Fault:
    """Decodes one line by RFC 8259; rejects NaN, Infinity, numbers beyond a double and duplicate members."""
    try:
        return Message(_DECODER.decode(line.decode("utf-8")), line)
    except UnicodeDecodeError as error:
        return _unreadable(f"the line is not UTF-8 (byte {error.start})")
    except json.JSONDecodeError as error:
        return _unreadable(f"the line is not JSON: {error.msg} at character {error.pos}")
    except RecursionError:
        return _unreadable("the JSON is nested too deeply")
    except ValueError as error:  # ours below, and int() of more than 4,300 digits
        return _unreadable(f"the line is not JSON that can be used: {error}")


def _decode_outline(outline: Outline, line: bytearray) -> Message | None:
    """None where the whole line is needed: for its exact fault, a batch, a response, or a request that is compared."""
    try:
        value = _DECODER.decode(outline.text().removeprefix("\ufeff"))
    except (ValueError, RecursionError):
        return None
    is_request = isinstance(value, dict) and "method" in value and _COMPARED not in (value.get("params") or ())
    return Message(value, line) if is_request else None


def id_in(head: bytes) -> str | int | None:
    """Returns the ``id`` from the beginning of a request; None where it can't be read for certain."""
    text = head.removeprefix(_BOM).decode("utf-8", "ignore")
    at = _skip(text, 0)
    if text[at : at + 1] != "{":
        return None
    try:
        while True:
            name, at = _DECODER.raw_decode(text, _skip(text, at + 1))
            at = _skip(text, at)
            if not isinstance(name, str) or text[at] != ":":
                return None
            value, at = _DECODER.raw_decode(text, _skip(text, at + 1))
            at = _skip(text, at)
            if text[at] not in ",}":  # also the end: a number may continue after it
                return None
            if name == "id":
                return value if is_id(value) else None
            if text[at] == "}":
                return None
    except (ValueError, IndexError, RecursionError):
        return None


def is_id(value: object) -> TypeGuard[str | int]:
    """Whether ``value`` can be the id of a request, or a token that messages repeat."""
    if isinstance(value, str):
        return len(value) <= MAX_ID_LENGTH
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < _MAX_INTEGER_ID


def _skip(text: str, at: int) -> int:
    while text[at : at + 1] in (" ", "\t", "\r"):
        at += 1
    return at


def encode(value: object) -> bytes:
    """Encodes ``value`` as one line. A lone surrogate, which UTF-8 can't carry, is sent as a JSON escape.

    Raises ValueError for NaN and Infinity, and TypeError for a type that JSON lacks.
    """
    return json_text(value).encode("utf-8", "backslashreplace") + b"\n"


def _unreadable(message: str) -> Fault:
    return Fault(BridgeError("parse_error", message))


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    if math.isfinite(number := float(text)):
        return number
    raise ValueError("a number is out of range")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("an object has two members of the same name")  # two readers may read it as two different requests
    return members


# Built once: json.loads() and json.dumps() with options make a new one at every call (8 us).
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_unique)
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), check_circular=False)


def _encoder() -> Callable[[object], str]:
    """`_ENCODER.encode`, which would make a new encoder in C at every call, a third of the time for a delta."""
    if c_make_encoder is None:
        return _ENCODER.encode
    in_c = c_make_encoder(None, _ENCODER.default, encode_basestring, None, ":", ",", False, False, False)
    return lambda value: "".join(in_c(value, 0))


json_text = _encoder()


class DeltaLines:
    """Encodes the deltas of one request as lines. Everything except the text is the same in each line and is encoded once."""

    __slots__ = ("_head", "_seq")

    def __init__(self, id: str | int) -> None:
        params = f'{{"requestId":{json_text(id)},"seq":'
        self._head = f'{{"jsonrpc":"2.0","method":"notifications/chat/delta","params":{params}'
        self._seq = 0

    def encode(self, deltas: Sequence[str | Mapping[str, object]]) -> list[bytes]:
        """Returns one line a delta. A string is a delta of ``content``."""
        head, seq = self._head, self._seq
        self._seq += len(deltas)
        lines = []
        for delta in deltas:
            text = f'{{"content":{encode_basestring(delta)}}}' if type(delta) is str else json_text(delta)
            lines.append(f'{head}{seq},"delta":{text}}}}}\n'.encode("utf-8", "backslashreplace"))
            seq += 1
        return lines
