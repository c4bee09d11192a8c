"""A request in flight, as the server process keeps it.

Owns what is needed to place it, to respond to it and to report its loss. Refuses to know engines.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, Protocol, TypeVar

from bridge_worker.protocol.session import Start

_LOCAL = "local/"
_BYTES_OF_ONE = 64 * 1024  # of a line, which cost an engine as much as a usual chat
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
    deadline: float
    done: Callable[[Outcome], None]  # called once
    engine: T | None = None
    number: int = 0
    cancelled: bool = False
    deltas: list[bytes] = field(default_factory=list)
    outcome: Outcome | None = None
    weight: int = field(init=False)  # 1 for a usual request, more for one with a long line

    def __post_init__(self) -> None:
        self.weight = 1 + len(self.start.line) // _BYTES_OF_ONE

    @property
    def is_local(self) -> bool:
        """For a model of this machine. All of these go to the oldest engine, so that each model is in memory once."""
        params = self.start.params
        inner = params.get("arguments") if self.start.method == "tools/call" else params
        model = inner.get("model") if isinstance(inner, dict) else None
        return isinstance(model, str) and model.startswith(_LOCAL)
