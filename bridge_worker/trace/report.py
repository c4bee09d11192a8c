"""Data classes of a parsed trace: runs, requests with their outcome, totals by model.

Owns these shapes. Refuses to know the file that they were read from.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

Id = str | int


@dataclass(slots=True)
class TracedRequest:
    """A request and its outcome: ``outcome`` is "ok", a kind of error or "unanswered". Times are ms since its run began."""

    id: Id | None
    method: str
    start_ms: float
    tool: str | None = None
    model: str | None = None
    served_model: str | None = None
    provider: str | None = None
    engine: str | None = None
    stream: bool = False
    first_ms: float | None = None  # of its first delta
    end_ms: float | None = None
    cancel_ms: float | None = None
    deltas: list[float] = field(default_factory=list)
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None
    outcome: str = "unanswered"
    attempts: int = 0
    fallback: bool = False
    messages: list[int] = field(default_factory=list)  # positions in its run's ``messages``

    @property
    def duration_ms(self) -> float | None:
        return None if self.end_ms is None else self.end_ms - self.start_ms


@dataclass(slots=True)
class EngineLost:
    """An engine process that ended or hung, with the number of its requests."""

    ms: float
    pid: int
    how: str
    requests: int


@dataclass(slots=True)
class Run:
    """One worker process. ``ended``: it closed the trace; otherwise it was killed or still runs. ``unread``: received lines that
    are not valid JSON; ``lost``: messages that did not fit in the recorder's queue. ``messages`` are the lines of the file."""

    pid: int
    time: str
    version: str
    content: str
    ended: bool = False
    lost: int = 0
    unread: int = 0
    engines_lost: list[EngineLost] = field(default_factory=list)
    end_ms: float = 0.0
    requests: list[TracedRequest] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)


@dataclass(slots=True)
class Total:
    """Totals of all requests to one model."""

    model: str
    requests: int = 0
    ok: int = 0
    cancelled: int = 0
    failed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float | None = None


@dataclass(slots=True)
class Trace:
    runs: list[Run]

    def requests(self) -> Iterator[TracedRequest]:
        for run in self.runs:
            yield from run.requests

    def totals(self) -> list[Total]:
        """Totals by model, sorted by cost, then by number of requests."""
        found: dict[str, Total] = {}
        for request in self.requests():
            if name := request.model or request.served_model:
                _add(found.setdefault(name, Total(name)), request)
        return sorted(found.values(), key=lambda total: (-(total.cost_usd or 0), -total.requests, total.model))

    def as_json(self, *, messages: bool) -> dict[str, Any]:
        """The trace as a JSON object; ``messages``: with the recorded messages."""
        lists = ("requests", "engines_lost")
        runs = [_members(run) | {name: [_members(each) for each in getattr(run, name)] for name in lists} for run in self.runs]
        if not messages:
            for run in runs:
                del run["messages"]
                for request in run["requests"]:
                    del request["messages"]
        return {"runs": runs, "totals": [_members(total) for total in self.totals()]}


def _members(of: Run | TracedRequest | EngineLost | Total) -> dict[str, Any]:
    """A dict of the fields. dataclasses.asdict() would copy every message in depth."""
    return {member.name: getattr(of, member.name) for member in fields(of)}


def _add(total: Total, request: TracedRequest) -> None:
    total.requests += 1
    total.ok += request.outcome == "ok"
    total.cancelled += request.outcome == "cancelled"
    total.failed += request.outcome not in ("ok", "cancelled", "unanswered")
    total.input_tokens += request.input_tokens or 0
    total.output_tokens += request.output_tokens or 0
    if request.cost_usd is not None:
        total.cost_usd = (total.cost_usd or 0) + request.cost_usd
