"""One request as a method sees it, and the worker's own account of all of them.

Owns what `status` counts. Refuses to know what a request is for.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from bridge_worker.schema.services import RequestCounts


class Notify(Protocol):
    """Sends notifications of one request, and waits while the reader of them is slow."""

    async def __call__(self, method: str, params: dict[str, Any]) -> None: ...

    async def lines(self, lines: list[bytes]) -> None:
        """The same for notifications that are encoded already, each a whole line."""


@dataclass(slots=True)
class Call:
    """What a method is told beside its params. ``log`` gathers what the request's one log line says; never content."""

    id: str | int
    received: float  # time.monotonic()
    notify: Notify
    log: dict[str, object]
    engine: str | None = None  # what carried it out


class Account:
    """Counts from the moment it is made."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._in_flight = 0
        self._outcomes: Counter[str] = Counter()
        self._engines: Counter[str] = Counter()

    def begin(self) -> None:
        self._in_flight += 1

    def end(self, outcome: str, engine: str | None) -> None:
        """``engine`` is what carried it out, if any had a part in it."""
        self._in_flight -= 1
        self._outcomes[outcome] += 1
        if engine:
            self._engines[engine] += 1

    @property
    def uptime_ms(self) -> float:
        return round((time.monotonic() - self._started) * 1000, 3)

    def requests(self) -> RequestCounts:
        total = self._in_flight + self._outcomes.total()
        return RequestCounts(in_flight=self._in_flight, total=total, outcomes=dict(self._outcomes), engines=dict(self._engines))


def memory_bytes() -> int | None:
    """Resident memory: now where the system tells it, else the most there was; None where it tells neither."""
    with suppress(OSError, ValueError, IndexError):
        import resource

        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    with suppress(ImportError):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return None
