"""AWS's binary event streams (``application/vnd.amazon.eventstream``), sans-IO: any cut of the bytes gives the same events.

Owns frames: lengths, both checksums, headers of all ten types, and the limit of a frame's size; and what the headers mean for a
response: an event with its name, or an exception of the service. Refuses to know what an event's payload holds.

A frame is: total length (4 bytes, big-endian), length of the headers (4), CRC-32 of these 8 bytes (4), headers, payload, CRC-32 of
all before (4). Source: Smithy's specification of the event stream.
"""

from __future__ import annotations

import struct
import uuid
from typing import NamedTuple
from zlib import crc32

from bridge_worker.backends.wire import provider_errors
from bridge_worker.backends.wire.json_values import object_of, parse
from bridge_worker.backends.wire.sse import MAX_EVENT_BYTES, Event
from bridge_worker.errors import BridgeError

MAX_HEADER_BYTES = 128 * 1024
MAX_FRAME_BYTES = MAX_EVENT_BYTES
_PRELUDE = struct.Struct(">III")
_CRC = struct.Struct(">I")
_LEAST = _PRELUDE.size + _CRC.size
_MAX_KNOWN_HEADERS = 32

Header = bool | int | bytes | str
_NUMBERS = {2: struct.Struct(">b"), 3: struct.Struct(">h"), 4: struct.Struct(">i"), 5: struct.Struct(">q"), 8: struct.Struct(">q")}
_SIZED = struct.Struct(">H")


class Frame(NamedTuple):
    headers: dict[str, Header]
    payload: bytes


def is_aws(data: bytes) -> bool:
    """Whether a body that begins so is a stream of frames: the first byte of a length is 0 or 1, and of text never."""
    return data[:1] in (b"\0", b"\1")


class FrameReader:
    """Cuts bytes into frames. Raises BridgeError ``bad_upstream_response`` for a frame that is damaged or too large.

    Frames that the same bytes completed before it are then in ``completed``. Each byte is copied twice, whatever the reads' sizes.
    """

    __slots__ = ("_known", "completed", "rest")

    def __init__(self) -> None:
        self.rest = bytearray()
        self.completed: list[Frame] = []
        self._known: dict[bytes, dict[str, Header]] = {}  # most frames of a stream have the same headers

    def feed(self, data: bytes) -> list[Frame]:
        self.completed = frames = []
        rest = self.rest
        rest += data
        at, size = 0, len(rest)
        while size - at >= _PRELUDE.size:
            total, headers_size, checksum = _PRELUDE.unpack_from(rest, at)
            _check_prelude(rest[at : at + 8], total, headers_size, checksum)
            end = at + total
            if end > size:
                break
            body = bytes(rest[at : end - 4])
            if crc32(body) != _CRC.unpack_from(rest, end - 4)[0]:
                raise _damaged("its checksum is wrong")
            split = _PRELUDE.size + headers_size
            frames.append(Frame(self._headers(body[_PRELUDE.size : split]), body[split:]))
            at = end
        del rest[:at]
        return frames

    def _headers(self, data: bytes) -> dict[str, Header]:
        headers = self._known.get(data)
        if headers is None:
            headers = read_headers(data)
            if len(self._known) < _MAX_KNOWN_HEADERS:
                self._known[data] = headers
        return headers


def _check_prelude(prelude: bytearray, total: int, headers_size: int, checksum: int) -> None:
    if crc32(prelude) != checksum:
        raise _damaged("the checksum of its lengths is wrong")
    if total > MAX_FRAME_BYTES or headers_size > MAX_HEADER_BYTES:
        raise BridgeError("bad_upstream_response", f"the provider sent an event of more than {MAX_FRAME_BYTES} bytes; try again")
    if total < _LEAST + headers_size:
        raise _damaged("its lengths contradict each other")


def read_headers(data: bytes) -> dict[str, Header]:
    """The headers of a frame, by name. Raises BridgeError for what can't be read."""
    headers: dict[str, Header] = {}
    at = 0
    try:
        while at < len(data):
            start = at + 1
            at = start + data[at]
            name = data[start:at].decode("utf-8", "replace")
            headers[name], at = _read_value(data, at + 1, data[at])
    except (IndexError, struct.error, ValueError):
        raise _damaged("its headers can't be read") from None
    return headers


def _read_value(data: bytes, at: int, kind: int) -> tuple[Header, int]:
    if kind in (0, 1):
        return kind == 0, at
    if number := _NUMBERS.get(kind):
        return number.unpack_from(data, at)[0], at + number.size
    if kind in (6, 7):
        end = at + 2 + _SIZED.unpack_from(data, at)[0]
        value = data[at + 2 : end]
        if end > len(data):
            raise ValueError("cut off")
        return (value if kind == 6 else value.decode("utf-8", "replace")), end
    if kind == 9:
        return str(uuid.UUID(bytes=data[at : at + 16])), at + 16
    raise ValueError(f"type {kind}")


def _damaged(why: str) -> BridgeError:
    return BridgeError("bad_upstream_response", f"the provider's event stream is damaged: {why}; try again")


class AwsEvents:
    """The events of a stream of frames; the same members as `sse.EventStream`, so that a decoder can use either.

    Raises BridgeError for an exception of the service, with its code and words, in the place where it came.
    """

    __slots__ = ("_frames", "completed", "stray")

    def __init__(self) -> None:
        self._frames = FrameReader()
        self.completed: list[Event] = []
        self.stray = bytearray()  # nothing can be between frames

    def feed(self, data: bytes) -> list[Event]:
        self.completed = events = []
        damaged: BridgeError | None = None
        try:
            frames = self._frames.feed(data)
        except BridgeError as error:
            frames, damaged = self._frames.completed, error
        for headers, payload in frames:
            if headers.get(":message-type", "event") != "event":
                raise _exception(headers, payload)
            events.append((_text(headers, ":event-type")[:200], payload))
        if damaged is not None:
            raise damaged
        return events

    def close(self) -> list[Event]:
        """None: an unfinished frame was cut off."""
        self.completed = []
        return self.completed


def _text(headers: dict[str, Header], name: str) -> str:
    value = headers.get(name)
    return value if isinstance(value, str) else ""


def _exception(headers: dict[str, Header], payload: bytes) -> BridgeError:
    """A modelled exception has its name in a header and JSON as payload; an unmodelled error has only headers."""
    code = _text(headers, ":exception-type") or _text(headers, ":error-code")
    try:
        value = parse(payload)
    except ValueError:
        value = None
    members = object_of(value)
    given = _text(headers, ":error-message") or payload.decode("utf-8", "replace")
    text = members.get("message") or members.get("Message") or given
    status = members.get("originalStatusCode")
    original = members.get("originalMessage")
    if isinstance(original, str) and original and original not in str(text):
        text = f"{text} {original}"
    return provider_errors.from_value({"code": code, "message": str(text), "error_code": status})
