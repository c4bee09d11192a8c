"""Server-sent events out of bytes, sans-IO: any cut of the bytes gives the same events.

Owns lines (LF, CRLF, CR), comments, event names, multi-line data and the limit of an event's size. Works on bytes, so that U+2028
and its relatives inside data are not line ends. Each byte is copied a bounded number of times, whatever the sizes of the reads.
Refuses to know what an event means: data is not parsed.
"""

from __future__ import annotations

from bridge_worker.errors import BridgeError

MAX_EVENT_BYTES = 32 * 1024 * 1024
_MAX_STRAY_BYTES = 65_536
_BOM = b"\xef\xbb\xbf"
_SPACE = b" \t\r\n"
_FIELDS = (b"data", b"event", b"id", b"retry")  # a field without a colon has an empty value
_IGNORED = (b":", b"id:", b"retry:")

Event = tuple[str, bytes]  # the name of `event:`, or "", and the data


class EventStream:
    """Cuts a byte stream into events.

    `feed` returns the events that the bytes complete; `close` those that only the end of the bytes completes, because many servers
    leave out the last blank line. Two JSON objects in adjacent data lines are two events: some servers send no blank lines at all.

    ``stray`` holds bytes that are not server-sent events: the whole body if its first character can only be JSON or HTML, else the
    lines without a known field, cut to 64 KiB. A decoder looks at it in its `flush`.

    Raises BridgeError ``bad_upstream_response`` when an event, or a body that is not a stream of events, is over ``max_bytes``.
    Events that the same bytes completed before it are then in ``completed``.
    """

    __slots__ = ("_after_cr", "_begun", "_body", "_bom", "_data", "_head", "_max", "_name", "_rest", "completed", "stray")

    def __init__(self, max_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max = max_bytes
        self._begun = self._body = self._bom = self._after_cr = False
        self._head = b""
        self._rest = bytearray()  # of an unfinished line
        self._data: bytes | bytearray | None = None  # of an unfinished event
        self._name = ""
        self.stray = bytearray()
        self.completed: list[Event] = []

    def feed(self, data: bytes) -> list[Event]:
        if not self._begun:
            data = self._begin(data)
        if self._body:
            self._add_body(data)
            return []
        if self._after_cr or b"\r" in data:
            data = self._with_line_feeds(data)
        lines = data.split(b"\n")
        last = lines.pop()
        events: list[Event] = []
        self.completed = events
        if lines:
            if self._rest:
                lines[0] = bytes(self._rest) + lines[0]
            self._rest = bytearray(last)
            self._add_lines(lines, events)
        else:
            self._rest += last
        if len(self._rest) > self._max:
            raise self._too_large()
        return events

    def close(self) -> list[Event]:
        """The unfinished line and event; they may have been cut off in the middle."""
        if self._head:  # a body of one or two bytes
            self._begun, head, self._head = True, self._head, b""
            self._rest += head
        rest, self._rest = bytes(self._rest), bytearray()
        events: list[Event] = []
        self.completed = events
        if not self._body:
            self._add_lines([rest, b""], events)
        return events

    def _add_lines(self, lines: list[bytes], events: list[Event]) -> None:
        pending, longest = self._data, self._max
        for line in lines:
            if line[:5] == b"data:":
                data = line[6:] if line[5:6] == b" " else line[5:]
                if len(data) > longest:
                    raise self._too_large()
                pending = data if pending is None else self._joined(pending, data, events)
            elif not line:
                if pending:
                    events.append((self._name, bytes(pending)))
                pending, self._name = None, ""
            elif line[:6] == b"event:":
                self._name = line[6:].strip()[:200].decode("utf-8", "replace")
            elif not line.startswith(_IGNORED) and line not in _FIELDS and len(self.stray) < _MAX_STRAY_BYTES:
                self.stray += line[:_MAX_STRAY_BYTES] + b"\n"
        self._data = pending

    def _joined(self, pending: bytes | bytearray, data: bytes, events: list[Event]) -> bytes | bytearray:
        """An event with a further line of data."""
        if pending[:1] == b"{" and pending[-1:] == b"}" and data.lstrip().startswith((b"{", b"[DONE]")):
            events.append((self._name, bytes(pending)))
            return data
        if len(pending) + len(data) > self._max:
            raise self._too_large()
        joined = pending if isinstance(pending, bytearray) else bytearray(pending)
        joined += b"\n"
        joined += data
        return joined

    def _begin(self, data: bytes) -> bytes:
        """``data`` without a byte-order mark; decides whether it is a stream of events at all."""
        data = self._head + data
        if not self._bom:
            if len(data) < len(_BOM) and _BOM.startswith(data):
                self._head = data
                return b""
            self._bom = True
            data = data.removeprefix(_BOM)
        self._head = b""
        data = data.lstrip(_SPACE)
        if data:
            self._begun = True
            self._body = data[:1] in b'{["<'
        return data

    def _add_body(self, data: bytes) -> None:
        if len(self.stray) + len(data) > self._max:
            raise BridgeError("bad_upstream_response", f"the provider sent a body of more than {self._max} bytes; try again")
        self.stray += data

    def _with_line_feeds(self, data: bytes) -> bytes:
        """CRLF and CR as LF. A CR ends its line immediately; an LF that follows, perhaps in the next read, belongs to it."""
        if self._after_cr and data:
            data = data.removeprefix(b"\n")
            self._after_cr = False
        if b"\r" in data:
            self._after_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return data

    def _too_large(self) -> BridgeError:
        return BridgeError("bad_upstream_response", f"the provider sent an event of more than {self._max} bytes; try again")
