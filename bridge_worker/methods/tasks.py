"""The methods ``tasks/get`` and ``tasks/raise``.

Owns their params and results. Refuses to know where tasks are kept.
"""

from __future__ import annotations

from bridge_worker.budgets.spending import Spending
from bridge_worker.budgets.tasks import limits_of
from bridge_worker.core.ports import Params, RequestContext
from bridge_worker.errors import BridgeError
from bridge_worker.methods.params import validate
from bridge_worker.schema.tasks import TaskBudget, TasksGetParams, TasksRaiseParams


class TaskMethods:
    def __init__(self, spending: Spending) -> None:
        self._tasks = spending.tasks

    async def get(self, context: RequestContext, params: Params) -> TaskBudget:
        id = validate(params, TasksGetParams).id
        return _found(id, await self._tasks.get(id))

    async def raise_limits(self, context: RequestContext, params: Params) -> TaskBudget:
        id, limits = validate(params, TasksRaiseParams).id, limits_of(params)
        if not limits:
            raise BridgeError("invalid_request", "tasks/raise needs max_usd, max_tokens or max_requests")
        row = await self._tasks.raise_limits(id, limits)
        if row is not None and "refused" in row:
            member = row["member"]
            current = row["task"][member]
            problem = "is not set for this task, so nothing limits it" if current is None else f"is {current} already"
            raise BridgeError("invalid_request", f"{member} {problem}; a limit can only be raised")
        return _found(id, row)


def _found(id: str, row: dict[str, object] | None) -> TaskBudget:
    if row is None:
        raise BridgeError(
            "invalid_request", f"there is no task {id!r:.100}: none of its requests has been made, or it was forgotten"
        )
    return TaskBudget.model_validate(row)
