"""A budget, as `budgets/get` and the error ``budget_exceeded`` tell it.

Owns these types. Refuses to know how a budget is kept.
"""

from __future__ import annotations

from bridge_worker.schema.base import Closed


class Budget(Closed):
    """One limit of a path, "/" for all requests. ``window_ms`` and ``resets_ms`` are null where it has no window."""

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
    """``needed`` is the most that the refused request may cost."""

    needed_usd: float
    needed_tokens: int
