"""Events of a stream that differ from an earlier one in a single text, decoded without parsing their JSON again.

Owns the proof that an event is such a one: its bytes before and after the text are those of the earlier event, and the bytes
between them are one JSON string. Then its value can differ in nothing but that text. Refuses to know a format.
"""

from __future__ import annotations

from json.decoder import scanstring  # type: ignore[attr-defined]  # the stubs lack it

_MISSES = 3  # events without a match after which no more are looked at: some providers pad each event to another length


class RepeatedEvents:
    """``member``: the name of the object member that holds the text."""

    __slots__ = ("_head", "_left", "_marks", "_tail")

    def __init__(self, member: str) -> None:
        name = f'"{member}":'.encode()
        self._marks = (name + b'"', name + b' "')
        self._head = self._tail = b""
        self._left = _MISSES

    def learn(self, data: bytes, text: str) -> None:
        """``data`` is an event in which nothing counts but ``text``, the value of its one member of that name."""
        if self._left == 0:
            return
        self._left -= 1
        for mark in self._marks:
            if data.count(mark) == 1:
                start = data.index(mark) + len(mark)
                rest = data[start:].decode("utf-8", "replace")
                found, end = scanstring(rest, 0)
                if found == text:
                    self._head, self._tail = data[:start], rest[end - 1 :].encode()

    def text(self, data: bytes) -> str | None:
        """The text of an event that repeats the learned one; None for any other event."""
        head, tail = self._head, self._tail
        if not head or not data.startswith(head) or not data.endswith(tail) or len(data) < len(head) + len(tail):
            return None
        string = data[len(head) : len(data) - len(tail) + 1].decode("utf-8", "replace")  # with its closing quote
        text: str
        try:
            text, end = scanstring(string, 0)
        except ValueError:
            return None
        if end != len(string):
            return None
        self._left = _MISSES
        return text
