"""Invariants of a worker: their names and rules, the check that counts and logs a broken one.

Owns the names with their rules of protocol.md, and the counters that ``status`` reports. Refuses to see the state itself: its owner
calls `check`, which costs a comparison. Simulation, tests and production use the same names.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

_log = logging.getLogger(__name__)


class Invariant(NamedTuple):
    """``rule`` is its id in protocol.md. ``checked``: where, "worker" (a running one) or "tests" (and simulation) only."""

    rule: str
    text: str
    checked: str


INVARIANTS: Mapping[str, Invariant] = {
    "one_response": Invariant("RPC-1", "a request gets one response, or the pipe is closed", "worker"),
    "nothing_after": Invariant("STR-6", "no delta of a request follows its response", "tests"),
    "seq": Invariant("STR-2", "`seq` has no gaps", "tests"),
    "joined": Invariant("STR-5", "the joined deltas equal the result", "tests"),
    "one_line": Invariant("FRM-1", "standard output has whole lines of JSON", "tests"),
    "in_flight": Invariant("ERR-8", "no more requests are in flight than the limit", "worker"),
    "money": Invariant("INV-2", "what is reserved is settled once, and no amount is negative", "worker"),
    "outbox": Invariant("FRM-10", "the output that waits to be read is bounded", "worker"),
    "task_age": Invariant("INV-1", "no task, connection or descriptor outlives its request", "tests"),
    "cancel_bound": Invariant("CAN-3", "a cancelled request gets its response within two seconds", "worker"),
}

_violations: Counter[str] = Counter()


def check(name: str, holds: bool, **facts: object) -> None:
    """Counts and logs an invariant that does not hold. ``facts`` are numbers and ids, never content."""
    if not holds:
        _violations[name] += 1
        _log.error(f"invariant broken: {INVARIANTS[name].text}", extra={"fields": {"rule": INVARIANTS[name].rule, **facts}})


def violations(of_engines: Iterable[Mapping[str, int] | None] = ()) -> dict[str, int]:
    """By name, since the start; empty in a worker without a fault. ``of_engines`` has what engine processes report of theirs."""
    return dict(sum((Counter(one or {}) for one in of_engines), _violations.copy()))


def reset() -> None:
    """For a process that runs one worker after the other."""
    _violations.clear()
