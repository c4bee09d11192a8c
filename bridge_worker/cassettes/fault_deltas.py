"""Splits deltas at a position, and into single characters, for faults in the middle of a response.

Owns the size of a delta in bytes: the UTF-8 of its text, reasoning and tool arguments. Refuses to know what happens at a position.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bridge_worker.config.fault_cards import Do
from bridge_worker.core.deltas import Delta


class Position:
    """After so many deltas with content, or so many bytes of it."""

    def __init__(self, do: Do) -> None:
        self._deltas = do.after_deltas
        self._bytes = do.after_bytes

    def split(self, deltas: list[Delta]) -> tuple[list[Delta], list[Delta] | None]:
        """The deltas before the position and those behind it; None where the position is further on."""
        for at, delta in enumerate(deltas):
            size = _size(delta)
            if not size:
                continue
            if self._deltas:
                self._deltas -= 1
                if not self._deltas:
                    return deltas[: at + 1], deltas[at + 1 :]
            elif size < self._bytes:
                self._bytes -= size
            else:
                before, after = _cut(delta, self._bytes)
                rest = [after] if after is not None else []
                return [*deltas[:at], before], [*rest, *deltas[at + 1 :]]
        return deltas, None


def in_pieces(deltas: list[Delta]) -> Iterator[Delta]:
    """A delta of content for each character; others as they are."""
    for delta in deltas:
        if delta.content and delta == Delta(content=delta.content):
            yield from (Delta(content=character) for character in delta.content)
        else:
            yield delta


def _size(delta: Delta) -> int:
    texts = [delta.content, delta.reasoning, *(call.arguments or call.name for call in delta.tool_calls or ())]
    return sum(len(text.encode("utf-8", "surrogatepass")) for text in texts if text)


def _cut(delta: Delta, size: int) -> tuple[Delta, Delta | None]:
    """Only text is cut; a delta with anything else stays whole."""
    content = delta.content or ""
    if delta != Delta(content=content):
        return delta, None
    head = content.encode("utf-8", "surrogatepass")[:size].decode("utf-8", "ignore")
    tail = content[len(head) :]
    return replace(delta, content=head), replace(delta, content=tail) if tail else None
