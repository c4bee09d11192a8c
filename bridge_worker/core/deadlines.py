"""The deadline timer of one request: total, first token, idle.

Owns which deadline comes next. Refuses to know what happens when it has passed.
"""

from __future__ import annotations

import asyncio
import time

from bridge_worker.core.ports import ChatRequest

_NEVER = float("inf")


class DeadlineTimer:
    """Keeps an `asyncio.Timeout` at the next deadline of a request.

    Most deadlines move, twice a delta, long before they expire. So the loop's timer stays as it is until it fires, and is then
    armed again for the deadline of that moment: a fifth of the cost of moving an `asyncio.timeout` each time.
    """

    __slots__ = ("_expired", "_first", "_idle", "_limits", "_loop", "_timer", "_total", "_when", "deadline")

    def __init__(self, request: ChatRequest) -> None:
        self._loop = asyncio.get_running_loop()
        self._limits = limits = request.deadlines
        arrival = self._loop.time() - (time.monotonic() - request.received)
        self._total = _at(arrival, limits.total_ms)
        self._first = _at(arrival, limits.first_token_ms) if request.stream else _NEVER
        self._idle = limits.idle_ms
        self.deadline = "total_ms"
        self._when = _NEVER
        self._timer: asyncio.TimerHandle | None = None
        self._expired = False

    @property
    def limit_ms(self) -> int | None:
        limit: int | None = getattr(self._limits, self.deadline)
        return limit

    def start(self, timeout: asyncio.Timeout) -> None:
        self._move(timeout, "first_token_ms", self._first)

    def pause(self, timeout: asyncio.Timeout) -> None:
        """Only the total deadline counts while the client reads slowly: that is not the provider's silence."""
        self._move(timeout, "total_ms", self._total)

    def expect_next(self, timeout: asyncio.Timeout, first_token: float | None) -> None:
        if first_token is None:
            self._move(timeout, "first_token_ms", self._first)
        else:
            self._move(timeout, "idle_ms", _at(self._loop.time(), self._idle))

    def check(self) -> None:
        """Raises TimeoutError when a deadline has passed: a library may have caught its cancel."""
        if self._expired:
            raise TimeoutError

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _move(self, timeout: asyncio.Timeout, name: str, when: float) -> None:
        if self._expired:  # a delta in the same turn of the loop is too late, and must not change which deadline it was
            return
        self.deadline, self._when = (name, when) if when < self._total else ("total_ms", self._total)
        if self._timer is None or self._when < self._timer.when():
            self._arm(timeout)

    def _arm(self, timeout: asyncio.Timeout) -> None:
        self.stop()
        if self._when < _NEVER:
            self._timer = self._loop.call_at(self._when, self._on_timer, timeout)

    def _on_timer(self, timeout: asyncio.Timeout) -> None:
        self._timer = None
        self._expired = self._when <= self._loop.time()
        if self._expired:
            timeout.reschedule(self._when)
        else:
            self._arm(timeout)


def _at(start: float, after_ms: int | None) -> float:
    return _NEVER if after_ms is None else start + after_ms / 1000
