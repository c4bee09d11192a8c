"""A budget in the result of ``budgets/get`` and in the error ``budget_exceeded``.

Owns these types. Refuses to know where a budget is stored.
"""

from __future__ import annotations

from bridge_worker.schema.base import Closed, Id


class Budget(Closed):
    """One limit of a path, "/" for all requests. ``window_ms`` and ``resets_ms`` are null for a limit without a window."""

    path: str
    window_ms: int | None
    max_usd: float | None
    used_usd: float
    reserved_usd: float
    max_tokens: int | None
    used_tokens: int
    reserved_tokens: int
    resets_ms: int | None


class ExceededBudget(Budget):
    """``needed_usd`` and ``needed_tokens`` are the most that the rejected request may cost."""

    needed_usd: float
    needed_tokens: int


class BudgetsGetParams(Closed):
    """``path`` as in ``metadata.budget`` of a chat; without it, the path of a chat without a budget."""

    path: Id | None = None


class BudgetsGetResult(Closed):
    """All limits that apply to a request of the path."""

    budgets: list[Budget]
