"""Counts the JSON values of a text without decoding it. Sans-IO.

Owns the limit of values in one line. Refuses to check that the text is JSON.
"""

from __future__ import annotations

MAX_VALUES = 200_000  # JSON values of one line: 10 MB of "[]," would block all other responses for 3 s
_WINDOW_BYTES = 256 * 1024


class ValueCounter:
    """Counts the JSON values of a line while it arrives, by its brackets and commas.

    A comma in a string is not one of these; strings are taken out only once there are so many commas that it matters, because that
    costs as much as decoding.
    """

    def __init__(self) -> None:
        self._upper_bound = 0
        self._seen = 0
        self._exact = 0
        self._exact_to = 0
        self._in_string = False

    def count_up_to(self, line: bytearray) -> int:
        """At least the number of values in ``line``, which has grown since the last call; exact where that is over the limit."""
        self._upper_bound += _marks(line, self._seen)
        self._seen = len(line)
        if self._upper_bound <= MAX_VALUES:
            return self._upper_bound
        end = len(line)
        while end > self._exact_to and line[end - 1] == ord("\\"):  # what it escapes has not arrived yet
            end -= 1
        text = bytes(memoryview(line)[self._exact_to : end])
        parts = text.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
        self._exact += sum(_marks(part) for part in parts[self._in_string :: 2])
        self._in_string ^= len(parts) % 2 == 0
        self._exact_to = end
        return self._exact


def has_too_many_values(text: str | bytes | bytearray, limit: int = MAX_VALUES) -> bool:
    """Whether ``text``, as JSON, has more than ``limit`` values; without decoding it, and without reading on when it has."""
    if len(text) <= limit:
        return False
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    return _marks(data) > limit and _marks_outside_strings(data, limit) > limit


def _marks_outside_strings(data: bytes | bytearray, limit: int) -> int:
    found, in_string, start = 0, False, 0
    while start < len(data) and found <= limit:
        end = min(start + _WINDOW_BYTES, len(data))
        while end < len(data) and data[end - 1] == ord("\\"):  # what it escapes is behind it
            end += 1
        window = data[start:end]
        if b"\\" in window:
            window = window.replace(b"\\\\", b"").replace(b'\\"', b"")
        parts = window.split(b'"')
        found += sum(_marks(part) for part in parts[in_string::2])
        in_string ^= len(parts) % 2 == 0
        start = end
    return found


def _marks(text: bytes | bytearray, start: int = 0) -> int:
    return text.count(b",", start) + text.count(b"[", start) + text.count(b"{", start)
