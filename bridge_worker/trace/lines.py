"""The lines of a trace: cuts incoming bytes into lines, and masks secrets in a line of the file.

Owns the length limit of a line, and that a masked line is still JSON. Refuses to know files and clocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from bridge_worker.protocol.framing import Message, decode, encode

MAX_LINE_BYTES = 8 * 1024 * 1024  # of a longer message only the length is recorded, because parsing it would delay the others
_BOM = b"\xef\xbb\xbf"

Redact = Callable[[str], str]


class Lines:
    """Cuts incoming bytes into lines, as `framing.Framer` does, and also returns the length of each line."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._size = 0
        self._skipping = False

    def feed(self, data: bytes) -> Iterator[tuple[bytes | None, int]]:
        """Each line that ``data`` ends, and its bytes; None for one that is too long."""
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            self._hold(data, start, end + 1)
            start = end + 1
            yield from self.end()
        self._hold(data, start, len(data))

    def end(self) -> Iterator[tuple[bytes | None, int]]:
        line, size, skipped = self._held, self._size, self._skipping
        self._held, self._size, self._skipping = bytearray(), 0, False
        if size and not skipped:
            yield None if size > MAX_LINE_BYTES else bytes(line).removeprefix(_BOM).rstrip(b"\r\n"), size

    def lose(self, *, rest: bool) -> None:
        """Drops the bytes of the current line received so far; ``rest``: drops its remaining bytes too."""
        self._held, self._size, self._skipping = bytearray(), 0, rest

    def _hold(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        if self._size <= MAX_LINE_BYTES and not self._skipping:
            self._held += memoryview(data)[start:end]
        elif self._held:
            self._held = bytearray()


def masked(line: dict[str, Any], redact: Redact) -> bytes | None:
    """Masks the secrets in ``line`` and returns JSON; None if the masked text is not JSON.

    The text is masked as a whole first, because some secrets are recognized by their name. If that removes a closing quote (a
    private key matches up to the end of the text), each string is masked separately before.
    """
    return _masked_text(line, redact) or _masked_text(_each_masked(line, redact), redact)


def _masked_text(line: dict[str, Any], redact: Redact) -> bytes | None:
    data = encode(line)
    text = data.decode()
    masked = redact(text)
    if masked == text:
        return data
    return masked.encode() if masked.endswith("\n") and isinstance(decode(masked.encode()), Message) else None


def _each_masked(value: Any, redact: Redact) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, list):
        return [_each_masked(member, redact) for member in value]
    if isinstance(value, dict):
        return {redact(name): _each_masked(held, redact) for name, held in value.items()}
    return value
