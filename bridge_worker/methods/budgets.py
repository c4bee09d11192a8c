"""The method ``budgets/get``: limits, usage and reservations of a budget path.

Owns its params and result. Refuses to know where accounts are kept.
"""

from __future__ import annotations

from bridge_worker.budgets.limits import check_path
from bridge_worker.budgets.spending import Spending
from bridge_worker.core.ports import Params, RequestContext
from bridge_worker.methods.params import validate
from bridge_worker.schema.budgets import Budget, BudgetsGetParams, BudgetsGetResult


class GetBudgets:
    def __init__(self, spending: Spending) -> None:
        self._spending = spending

    async def __call__(self, context: RequestContext, params: Params) -> BudgetsGetResult:
        path = validate(params, BudgetsGetParams).path
        if path is not None:
            check_path(path, "path")
        return BudgetsGetResult(budgets=[Budget(**standing.wire()) for standing in await self._spending.standings(path)])
