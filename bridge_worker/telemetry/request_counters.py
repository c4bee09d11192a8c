"""Counts the requests of a worker: in flight, ended by outcome, served by which chat path.

Owns the numbers that `status` reports. Refuses to know what a request is for.
"""

from __future__ import annotations

import time
from collections import Counter


class RequestCounters:
    """Counts from its construction."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._in_flight = 0
        self._outcomes: Counter[str] = Counter()
        self._engines: Counter[str] = Counter()

    def begin(self) -> None:
        self._in_flight += 1

    def end(self, outcome: str, engine: str | None) -> None:
        """``engine`` is the chat path that served the request, or None."""
        self._in_flight -= 1
        self._outcomes[outcome] += 1
        if engine:
            self._engines[engine] += 1

    @property
    def uptime_ms(self) -> float:
        return round((time.monotonic() - self._started) * 1000, 3)

    def requests(self) -> dict[str, object]:
        total = self._in_flight + self._outcomes.total()
        return {"in_flight": self._in_flight, "total": total, "outcomes": dict(self._outcomes), "engines": dict(self._engines)}
