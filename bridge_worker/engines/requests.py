"""A request in flight, as the server process keeps it.

Owns what is needed to place it, to respond to it and to report its loss. Refuses to know engines.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, Protocol, TypeVar

from bridge_worker.protocol.session import Start

T = TypeVar("T")  # an engine


class Relay(Protocol):
    """Where the notifications of one request go."""

    def relay(self, lines: bytes) -> None:
        """Writes whole lines; never waits."""


class Outcome(NamedTuple):
    """``line`` is the response. ``by_engine``: false for one that the server process made."""

    outcome: str
    chat_path: str | None
    line: bytes
    by_engine: bool = True


@dataclass(slots=True, eq=False)
class PendingRequest(Generic[T]):
    """``deadline`` is when the server process responds in the engine's place (time.monotonic())."""

    start: Start
    received: float
    relay: Relay
    done: asyncio.Future[Outcome]
    deadline: float
    engine: T | None = None
    number: int = 0
    cancelled: bool = False
    deltas: list[bytes] = field(default_factory=list)
