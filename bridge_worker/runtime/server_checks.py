"""The invariants that a server checks of itself while it runs: numbers that it has anyway, compared.

Owns when each cancel began and the longest response. Refuses to know tasks and messages.
"""

from __future__ import annotations

import time

from bridge_worker.invariants import check
from bridge_worker.protocol.session import Id

_CANCEL_SLACK_SECONDS = 1.0  # for a loop that is busy, before a late response to a cancel counts


class ServerChecks:
    """``cancel_seconds`` is the bound of a cancel."""

    def __init__(self, max_in_flight: int, cancel_seconds: float) -> None:
        self._max_in_flight = max_in_flight
        self._cancel_bound = cancel_seconds + _CANCEL_SLACK_SECONDS
        self._cancelled: dict[Id, float] = {}  # when
        self.longest = 0  # bytes of a response

    def started(self, in_flight: int, tasks: int) -> None:
        """A batch's requests are all in flight before the first of their tasks begins."""
        check("in_flight", tasks <= in_flight <= self._max_in_flight, in_flight=in_flight, tasks=tasks)

    def cancelled(self, id: Id) -> None:
        self._cancelled[id] = time.monotonic()

    def responded(self, id: Id, *, in_flight: bool) -> None:
        check("one_response", in_flight, id=id)
        began = self._cancelled.pop(id, None)
        seconds = 0.0 if began is None else time.monotonic() - began
        check("cancel_bound", seconds <= self._cancel_bound, id=id, seconds=seconds)

    def wrote(self, length: int) -> None:
        self.longest = max(self.longest, length)

    def queued(self, queued: int, limit: int) -> None:
        """Beyond ``limit`` there is one line's response, one for each request in flight, and the deltas that engines had sent when
        they were paused."""
        bound = self.most_queued(limit)
        check("outbox", queued <= bound, queued=queued, bound=bound)

    def most_queued(self, limit: int) -> int:
        return 3 * limit + self.longest * (self._max_in_flight + 1)
