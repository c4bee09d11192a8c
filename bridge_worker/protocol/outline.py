"""The outline of a long line: the same JSON with each long string replaced by a short one. Sans-IO.

Owns where the strings are, found while the line arrives: 50 MB are never scanned or decoded in one go. Refuses to decode: an
outline is for a reader who passes the line itself on, to one who decodes it.
"""

from __future__ import annotations

_LONG = 4096  # bytes of a string; names, ids and keys are shorter
_QUOTE = b'"'


class Outline:
    def __init__(self) -> None:
        self._kept: list[bytes] = []
        self._held = b""  # what can't be placed yet: a string that may become long, a backslash without what it escapes
        self._in_long = False  # a string that has been replaced goes on
        self._replaced = 0

    def feed(self, data: bytes | bytearray) -> None:
        """The next part of the line."""
        text, start = self._held + bytes(data), 0
        end = len(text) - (len(text) - len(text.rstrip(b"\\"))) % 2  # of an even number each has what it escapes
        self._held, masked = text[end:], text[:end]
        if b"\\" in masked:
            masked = masked.replace(b"\\\\", b"__").replace(b'\\"', b"__")  # quotes of strings remain, each at its place
        if self._in_long:
            start = masked.find(_QUOTE) + 1
            if not start:
                return
            self._in_long = False
            self._kept.append(_QUOTE)
        pieces = masked[start:].split(_QUOTE)  # every second one is a string
        is_open = len(pieces) % 2 == 0
        if not is_open and max(map(len, pieces[1::2]), default=0) <= _LONG:
            self._kept.append(text[start:end])
            return
        kept = []
        for number, piece in enumerate(pieces):
            kept.append(self._replacement() if number % 2 and len(piece) > _LONG else text[start : start + len(piece)])
            start += len(piece) + 1
        if is_open and len(pieces[-1]) > _LONG:
            self._in_long = True
        elif is_open:
            self._held = _QUOTE + kept.pop() + self._held
        self._kept.append(_QUOTE.join(kept))

    def text(self) -> str:
        """So far. What is not UTF-8 is replaced."""
        return (b"".join(self._kept) + self._held).decode("utf-8", "replace")

    def _replacement(self) -> bytes:
        """Each another, as two members of one object may not have the same name; too long for an id, as what it replaces."""
        self._replaced += 1
        return b"%01100d" % self._replaced
