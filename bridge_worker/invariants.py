"""What is true of every worker at any time, whatever clients, providers and engine processes do; and the count of what was not.

Owns the names with their rules of protocol.md, and the counters that ``status`` reports. Refuses to see the state itself: whoever
has it calls `check`, which costs a comparison. Simulation, tests and production use the same names.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

_log = logging.getLogger(__name__)


class Invariant(NamedTuple):
    """``rule`` is its id in protocol.md. ``checked``: "production" where a running worker checks it too."""

    rule: str
    text: str
    checked: str


INVARIANTS: Mapping[str, Invariant] = {
    "one_response": Invariant("RPC-1", "a request gets one response, or the pipe is closed", "production"),
    "nothing_after": Invariant("STR-6", "no delta of a request follows its response", "tests"),
    "seq": Invariant("STR-2", "`seq` has no gaps", "tests"),
    "joined": Invariant("STR-5", "the joined deltas equal the result", "tests"),
    "one_line": Invariant("FRM-1", "standard output has whole lines of JSON", "tests"),
    "in_flight": Invariant("ERR-8", "no more requests are in flight than the limit", "production"),
    "money": Invariant("BUD-15", "what is reserved is settled once, and no amount is negative", "production"),
    "outbox": Invariant("FRM-10", "the output that waits to be read is bounded", "production"),
    "task_age": Invariant("STA-10", "no task, connection or descriptor outlives its request", "tests"),
    "cancel_bound": Invariant("CAN-3", "a cancelled request gets its response within two seconds", "production"),
}

_violations: Counter[str] = Counter()


def check(name: str, holds: bool, **facts: object) -> None:
    """Counts and logs an invariant that does not hold. ``facts`` are numbers and ids, never content."""
    if not holds:
        _violations[name] += 1
        _log.error(f"invariant broken: {INVARIANTS[name].text}", extra={"fields": {"rule": INVARIANTS[name].rule, **facts}})


def violations() -> dict[str, int]:
    """By name, since the start; empty in a worker without a fault."""
    return dict(_violations)


def reset() -> None:
    """For a process that runs one worker after the other."""
    _violations.clear()
