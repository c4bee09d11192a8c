"""Counts requests by key: in this process, or in the server process for all its engines.

Owns the counts, and the JSON of a call between an engine and the server process. Refuses to know what is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

CALL = "count"  # the name of the call
Call = Callable[[str, Mapping[str, object]], Awaitable[Any]]


class Counters(Protocol):
    async def advance(self, keys: Sequence[str]) -> list[int]:
        """Adds one to each count, and returns the counts."""


class LocalCounters:
    """`Counters` of this process."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    async def advance(self, keys: Sequence[str]) -> list[int]:
        self._counts.update(keys)
        return [self._counts[key] for key in keys]

    async def serve(self, call: Mapping[str, Any]) -> list[int]:
        """A call of an engine."""
        return await self.advance(call["keys"])


class RemoteCounters:
    """`Counters` of the server process."""

    def __init__(self, call: Call) -> None:
        self._call = call

    async def advance(self, keys: Sequence[str]) -> list[int]:
        counts: list[int] = await self._call(CALL, {"keys": list(keys)})
        return counts
