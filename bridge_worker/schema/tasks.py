"""The task of a request, and the methods ``tasks/get`` and ``tasks/raise``.

Owns these types. Refuses to know where tasks are kept.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from bridge_worker.schema.base import Closed, Count

TaskId = Annotated[str, Field(min_length=1, max_length=256)]
Usd = Annotated[float, Field(ge=0, le=1e6)]


class Task(Closed):
    """The first request of a task sets its limits; later ones have the same or none."""

    id: TaskId
    max_usd: Usd | None = None
    max_tokens: Count | None = None
    max_requests: Count | None = None


class TaskBudget(Closed):
    """The amounts of a task. A limit that is null is not set; what is reserved belongs to requests in flight."""

    id: str
    max_usd: float | None
    spent_usd: float
    reserved_usd: float
    max_tokens: int | None
    spent_tokens: int
    reserved_tokens: int
    max_requests: int | None
    spent_requests: int
    reserved_requests: int


class ExceededTask(TaskBudget):
    """The estimate is the most that the rejected request may cost; null where the model has no price."""

    estimate_usd: float | None
    estimate_tokens: int | None


class TasksGetParams(Closed):
    id: TaskId


class TasksRaiseParams(Closed):
    """The new limits of a task; one that is left out stays."""

    id: TaskId
    max_usd: Usd | None = None
    max_tokens: Count | None = None
    max_requests: Count | None = None
