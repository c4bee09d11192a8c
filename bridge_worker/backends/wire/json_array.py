"""A JSON array of objects that arrives in pieces, sans-IO: each object as soon as it is whole.

Owns the search for the end of an object. Refuses to parse it.
"""

from __future__ import annotations

import re

from bridge_worker.backends.wire.sse import MAX_EVENT_BYTES, Event
from bridge_worker.errors import BridgeError

_MARKS = re.compile(rb'["\\{}\[\]]')
_IN_STRING = re.compile(rb'["\\]')
_SPACE = b" \t\r\n,"
_MAX_STRAY_BYTES = 65_536


class JsonArray:
    """Cuts ``[{...}, {...}]`` into events without a name; the same members as `sse.EventStream`.

    ``stray`` holds bytes of the array that belong to no object. Raises BridgeError for an object over 32 MiB.
    """

    __slots__ = ("_at", "_begin", "_depth", "_rest", "_string", "completed", "stray")

    def __init__(self) -> None:
        self._rest = bytearray()
        self._at = 0  # up to here, the rest was searched
        self._begin = 0  # of the unfinished object, or of what is between two
        self._depth = 0  # the array itself is 1
        self._string = False
        self.stray = bytearray()
        self.completed: list[Event] = []

    def feed(self, data: bytes) -> list[Event]:
        events: list[Event] = []
        self.completed = events
        self._rest += data
        rest = self._rest
        at, size = self._at, len(rest)
        while at < size:
            found = (_IN_STRING if self._string else _MARKS).search(rest, at)
            if found is None:
                at = size
                break
            at = found.end()
            mark = rest[at - 1]
            if mark == 92:  # a backslash: the next byte has no meaning, here or in the next read
                at += 1
            elif mark == 34:
                self._string = not self._string
            elif mark in b"{[":
                self._open(at, mark)
            else:
                self._close(at, events)
        self._at = at - self._begin
        del rest[: self._begin]
        self._begin = 0
        if len(rest) > MAX_EVENT_BYTES:
            raise BridgeError(
                "bad_upstream_response", f"the provider sent an event of more than {MAX_EVENT_BYTES} bytes; try again"
            )
        return events

    def close(self) -> list[Event]:
        """The unfinished object, if any."""
        self.completed = []
        rest = bytes(self._rest).strip(_SPACE)
        if self._depth > 1 and rest:
            self.completed = [("", rest)]
        else:
            self._skip(rest)
        return self.completed

    def _open(self, at: int, mark: int) -> None:
        self._depth += 1
        if self._depth == 1 or (self._depth == 2 and mark == 123):
            begin = at if self._depth == 1 else at - 1
            self._skip(bytes(self._rest[self._begin : at - 1]))
            self._begin = begin

    def _close(self, at: int, events: list[Event]) -> None:
        self._depth -= 1
        if self._depth == 1 and self._rest[self._begin] == 123:
            event = bytes(self._rest[self._begin : at])
            if len(event) > MAX_EVENT_BYTES:
                raise BridgeError(
                    "bad_upstream_response", f"the provider sent an event of more than {MAX_EVENT_BYTES} bytes; try again"
                )
            events.append(("", event))
            self._begin = at
        elif self._depth < 1:
            self._skip(bytes(self._rest[self._begin : at - 1]))
            self._begin = at

    def _skip(self, data: bytes) -> None:
        data = data.strip(_SPACE)
        if data and len(self.stray) < _MAX_STRAY_BYTES:
            self.stray += data[:_MAX_STRAY_BYTES] + b"\n"
