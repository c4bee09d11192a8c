"""Frames of the link between the server process and an engine process. Sans-IO: bytes in, frames out.

Owns the eight bytes before each body: its length (32 bits), the number of the request (24 bits) and the kind (8 bits). A body is a
line of the outside's JSON-RPC wherever possible, so that the server process relays it as it is. Refuses to know what a body means.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

HEAD = struct.Struct("<II")
MAX_REQUEST = 2**24 - 1
MAX_BODY_BYTES = 2**31 - 1  # beyond any message: a length over it means that the bytes are not frames


class Kind(IntEnum):
    """Those below 32 go to an engine, the others come from one. ``request`` is 0 where a frame belongs to no request."""

    SETUP = 1  # the first frame: what the engine serves, opaque to the server process
    REQUEST = 2  # when it was received (`RECEIVED`), then its line
    CANCEL = 3
    PING = 4
    PAUSE = 5  # the client reads slowly: send no more deltas
    RESUME = 6
    REPLY = 7  # to a CALL, as JSON; ``request`` is the call's number
    STOP = 8  # end, once the callbacks of requests have run
    PUSH = 9  # JSON: what other engines have written of the state that is one for all
    RESPONSE = 32  # outcome, chat path and response, a line each
    DELTAS = 33  # notifications of a request, each a line
    HAND_BACK = 34  # the request needs LiteLLM, which this engine does not have
    PONG = 35  # JSON: what the engine reports about itself
    LOADED = 36  # JSON: LiteLLM is loaded, or why it is not
    CALL = 37  # JSON: something that only the server process can do, such as a reservation


class Progress(IntEnum):
    """How far an engine is with a request, for the server process if the engine is lost."""

    PLACED = 0  # written to the link, and not read yet: another engine can take it
    RECEIVED = 1
    HANDED_OVER = 2  # to a backend, which may have sent it
    SENT = 3  # an HTTP request with it was begun


RECEIVED = struct.Struct("<d")  # time.monotonic(), which processes of one machine share


class Frame(NamedTuple):
    kind: Kind
    request: int
    body: bytes


class LinkBroken(Exception):
    """The bytes are not frames: the other process is not what it should be."""


def frame_head(kind: Kind, request: int, length: int) -> bytes:
    """The bytes before a body of ``length`` bytes."""
    return HEAD.pack(length, request << 8 | kind)


def encode_frame(kind: Kind, request: int = 0, body: bytes = b"") -> bytes:
    return frame_head(kind, request, len(body)) + body


class FrameReader:
    """Splits a byte stream into frames, independent of the chunks it arrives in."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._wanted = HEAD.size  # no frame can be complete before so many bytes are held

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that ``data`` completes, in order. Raises LinkBroken."""
        if self._held:
            self._held += data
            if len(self._held) < self._wanted:
                return []
            data = bytes(self._held)
            self._held = bytearray()
        frames: list[Frame] = []
        at, end = 0, len(data)
        self._wanted = HEAD.size
        while end - at >= HEAD.size:
            length, word = HEAD.unpack_from(data, at)
            if length > MAX_BODY_BYTES:
                raise LinkBroken(f"a frame of {length} bytes")
            if end - at < HEAD.size + length:
                self._wanted = HEAD.size + length
                break
            body_at = at + HEAD.size
            at = body_at + length
            frames.append(Frame(_kind(word & 0xFF), word >> 8, data[body_at:at]))
        self._held += memoryview(data)[at:]
        return frames


_KINDS = {int(kind): kind for kind in Kind}


def _kind(number: int) -> Kind:
    kind = _KINDS.get(number)
    if kind is None:
        raise LinkBroken(f"a frame of the unknown kind {number}")
    return kind
