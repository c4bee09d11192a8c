"""Task budgets: what the requests of one task may cost together, by the limits that its first request sets.

Owns the tasks of a process, and the port by which an engine reaches those of the server process. Everything in the port is JSON.
Refuses to know the cost of a request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from bridge_worker.budgets.limits import NOTHING, Amount, nano_usd
from bridge_worker.budgets.remote_store import Call
from bridge_worker.errors import BridgeError

MAX_TASKS = 10_000  # the one that was used least recently, and has no request in flight, is forgotten first
LIMITS = ("max_usd", "max_tokens", "max_requests")
_NANO = 1_000_000_000

Limits = dict[str, Any]  # of `LIMITS`, those that are set
Row = dict[str, Any]  # a task as it is sent: `schema.tasks.TaskBudget`


class Tasks(Protocol):
    """Port: keeps tasks. A refusal is {``refused``: a reason, ``task``: a row}."""

    async def reserve(self, hold: str, id: str, limits: Limits, usd: float | None, tokens: int | None) -> Row:
        """{} or a refusal. ``usd`` and ``tokens`` are the most that the request may use, None where that is not known."""

    async def settle(self, hold: str, id: str, usd: float, tokens: int, requests: int) -> None: ...

    async def get(self, id: str) -> Row | None: ...

    async def raise_limits(self, id: str, limits: Limits) -> Row | None:
        """The task, or a refusal; None for an unknown task."""


@dataclass(slots=True)
class _Task:
    first: Limits  # those of its first request, which an agent sends again with each
    limits: Limits
    spent: Amount = NOTHING
    requests: int = 0
    holds: dict[str, Amount] = field(default_factory=dict)

    def row(self, id: str) -> Row:
        reserved = [sum(amounts) for amounts in zip(*self.holds.values(), strict=True)] or [0, 0]
        return {
            "id": id,
            "max_usd": self.limits.get("max_usd"),
            "spent_usd": self.spent.usd,
            "reserved_usd": reserved[0] / _NANO,
            "max_tokens": self.limits.get("max_tokens"),
            "spent_tokens": self.spent.tokens,
            "reserved_tokens": reserved[1],
            "max_requests": self.limits.get("max_requests"),
            "spent_requests": self.requests,
            "reserved_requests": len(self.holds),
        }

    def has_room_for(self, amount: Amount) -> bool:
        taken_usd = self.spent.nano_usd + sum(hold.nano_usd for hold in self.holds.values()) + amount.nano_usd
        taken_tokens = self.spent.tokens + sum(hold.tokens for hold in self.holds.values()) + amount.tokens
        limit_usd, limit_tokens, limit_requests = (self.limits.get(name) for name in LIMITS)
        fits = limit_usd is None or taken_usd <= nano_usd(limit_usd)
        fits = fits and (limit_tokens is None or taken_tokens <= limit_tokens)
        return fits and (limit_requests is None or self.requests + len(self.holds) + 1 <= limit_requests)


class MemoryTasks:
    """The `Tasks` of one process."""

    def __init__(self) -> None:
        self._tasks: dict[str, _Task] = {}

    async def reserve(self, hold: str, id: str, limits: Limits, usd: float | None, tokens: int | None) -> Row:
        task = self._tasks.pop(id, None)
        if task is None:
            self._forget_oldest()
            task = _Task(limits, limits)
        self._tasks[id] = task  # the last used
        for name, value in limits.items():
            if value not in (task.limits.get(name), task.first.get(name)):
                return {"refused": "differs", "member": name, "task": task.row(id)}
        if (usd is None and "max_usd" in task.limits) or (tokens is None and "max_tokens" in task.limits):
            return {"refused": "unknown", "task": task.row(id)}
        amount = Amount(nano_usd(usd or 0), tokens or 0)
        if not task.has_room_for(amount):
            return {"refused": "exceeded", "task": task.row(id)}
        task.holds[hold] = amount
        return {}

    async def settle(self, hold: str, id: str, usd: float, tokens: int, requests: int) -> None:
        task = self._tasks.get(id)
        if task is not None and task.holds.pop(hold, None) is not None:
            task.spent = Amount(task.spent.nano_usd + nano_usd(usd), task.spent.tokens + tokens)
            task.requests += requests

    async def get(self, id: str) -> Row | None:
        task = self._tasks.get(id)
        return None if task is None else task.row(id)

    async def raise_limits(self, id: str, limits: Limits) -> Row | None:
        task = self._tasks.get(id)
        if task is None:
            return None
        for name, value in limits.items():
            if task.limits.get(name) is None or value < task.limits[name]:
                return {"refused": "lower", "member": name, "task": task.row(id)}
        task.limits = task.limits | limits
        return task.row(id)

    def hold_of(self, hold: str, id: str) -> Amount:
        task = self._tasks.get(id)
        return (task.holds.get(hold) if task else None) or NOTHING

    def _forget_oldest(self) -> None:
        if len(self._tasks) < MAX_TASKS:
            return
        idle = next((id for id, task in self._tasks.items() if not task.holds), None)
        if idle is not None:
            del self._tasks[idle]


def limits_of(task: Mapping[str, Any]) -> Limits:
    return {name: task[name] for name in LIMITS if task.get(name) is not None}


def refusal(row: Row, usd: float | None, tokens: int | None, model: str) -> BridgeError:
    """The error for a refusal of `Tasks.reserve`."""
    task = row["task"]
    id = task["id"]
    if row["refused"] == "differs":
        member = row["member"]
        wrong = f"task.{member} differs from that of the task {id:.100} ({task[member]}); send the same or none, or use tasks/raise"
        return BridgeError("invalid_request", wrong)
    if row["refused"] == "unknown":
        reason = "has no known price or limit of output tokens, and the task has a budget"
        return BridgeError(
            "budget_exceeded", f"{model} {reason}; set max_tokens, or give the model prices in the config", model=model
        )
    estimate = {"estimate_usd": usd, "estimate_tokens": tokens}
    spent = f"{task['spent_usd']:g} USD, {task['spent_tokens']} tokens and {task['spent_requests']} requests are spent"
    more = f"this request may use {usd or 0:g} USD and {tokens or 0} tokens"
    wrong = f"the budget of the task {id:.100} does not allow it: {spent}, {more}; raise it with tasks/raise, or lower max_tokens"
    return BridgeError("budget_exceeded", wrong, model=model, extra={"task": task | estimate})


# --- the tasks of the server process, used by an engine ---------------------------------------------------------------------------

PREFIX = "task/"


class RemoteTasks:
    """A `Tasks`: `TaskService` keeps them, in another process."""

    def __init__(self, call: Call) -> None:
        self._call = call

    async def reserve(self, hold: str, id: str, limits: Limits, usd: float | None, tokens: int | None) -> Row:
        members = {"hold": hold, "id": id, "limits": limits, "usd": usd, "tokens": tokens}
        row: Row = await self._call(f"{PREFIX}reserve", members)
        return row

    async def settle(self, hold: str, id: str, usd: float, tokens: int, requests: int) -> None:
        await self._call(f"{PREFIX}settle", {"hold": hold, "id": id, "usd": usd, "tokens": tokens, "requests": requests})

    async def get(self, id: str) -> Row | None:
        row: Row | None = await self._call(f"{PREFIX}get", {"id": id})
        return row

    async def raise_limits(self, id: str, limits: Limits) -> Row | None:
        row: Row | None = await self._call(f"{PREFIX}raise", {"id": id, "limits": limits})
        return row


class TaskService:
    """Carries out the calls of engines, and settles what a lost engine has left reserved."""

    def __init__(self) -> None:
        self._tasks = MemoryTasks()
        self._holds: dict[int, dict[str, str]] = {}  # by engine: the task of each hold

    async def serve(self, engine: int, call: Mapping[str, Any]) -> object:
        """Raises ValueError for an unknown call."""
        members = {name: value for name, value in call.items() if name != "name"}
        match call["name"].removeprefix(PREFIX):
            case "reserve":
                row = await self._tasks.reserve(**members)
                if not row:
                    self._holds.setdefault(engine, {})[call["hold"]] = call["id"]
                return row
            case "settle":
                self._holds.get(engine, {}).pop(call["hold"], None)
                await self._tasks.settle(**members)
                return None
            case "get":
                return await self._tasks.get(**members)
            case "raise":
                return await self._tasks.raise_limits(**members)
        raise ValueError(f"unknown call {call['name']!r:.100}")

    async def engine_lost(self, engine: int) -> None:
        """What its requests have cost is not known: the reserved amount counts, the most that it can be."""
        for hold, id in self._holds.pop(engine, {}).items():
            amount = self._tasks.hold_of(hold, id)
            await self._tasks.settle(hold, id, amount.usd, amount.tokens, 1)
