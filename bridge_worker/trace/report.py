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
    messages: list[int] = field(default_factory=list)  # places in its run's ``messages``

    @property
    def duration_ms(self) -> float | None:
        return None if self.end_ms is None else self.end_ms - self.start_ms


@dataclass(slots=True)
class Run:
    """One worker's life. ``ended``: in order, else it was killed or still goes on. ``unread``: lines of the caller that no one
    could read; ``lost``: messages that found no place in the trace. ``messages`` are the file's own lines."""

    pid: int
    time: str
    version: str
    content: str
    ended: bool = False
    lost: int = 0
    unread: int = 0
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
        for asked in self.requests():
            if name := asked.model or asked.served_model:
                _add(found.setdefault(name, Total(name)), asked)
        return sorted(found.values(), key=lambda total: (-(total.cost_usd or 0), -total.requests, total.model))

    def told(self, *, messages: bool) -> dict[str, Any]:
        """As JSON; ``messages``: with each message itself."""
        runs = [_members(run) | {"requests": [_members(asked) for asked in run.requests]} for run in self.runs]
        if not messages:
            for run in runs:
                del run["messages"]
                for asked in run["requests"]:
                    del asked["messages"]
        return {"runs": runs, "totals": [_members(total) for total in self.totals()]}


def _members(of: Run | TracedRequest | Total) -> dict[str, Any]:
    """Not by asdict(), which copies every message in depth."""
    return {member.name: getattr(of, member.name) for member in fields(of)}


def _add(total: Total, asked: TracedRequest) -> None:
    total.requests += 1
    total.ok += asked.outcome == "ok"
    total.cancelled += asked.outcome == "cancelled"
    total.failed += asked.outcome not in ("ok", "cancelled", "unanswered")
    total.input_tokens += asked.input_tokens or 0
    total.output_tokens += asked.output_tokens or 0
    if asked.cost_usd is not None:
        total.cost_usd = (total.cost_usd or 0) + asked.cost_usd
