"""The error object on the wire.

Owns these types. Refuses to know the kinds: they are the table in ``bridge_worker.errors``.
"""

from __future__ import annotations

from typing import Any, Literal

from bridge_worker.errors import KINDS
from bridge_worker.schema.base import Closed
from bridge_worker.schema.budgets import ExceededBudget
from bridge_worker.schema.chat_result import ChatReceipt
from bridge_worker.schema.tasks import ExceededTask


class Partial(Closed):
    """The content received before the error."""

    content: str | None
    tool_calls: list[dict[str, Any]]


class NearestRequest(Closed):
    """The recorded request that is most similar. ``exchange`` counts from 1; ``differs`` has the paths of members."""

    exchange: int
    differs: list[str]
    request: dict[str, Any] | None


class ErrorData(Closed):
    kind: Literal[tuple(KINDS)]  # type: ignore[valid-type]  # the table is the source; mypy can't read it
    retryable: bool
    retry_after_ms: int | None
    provider: str | None
    model: str | None
    status: int | None
    partial: Partial | None = None
    upstream_closed: bool | None = None
    sent_upstream: bool | None = None
    deadline: str | None = None
    receipt: ChatReceipt | None = None
    budget: ExceededBudget | None = None
    task: ExceededTask | None = None
    earlier_cost_usd: float | None = None  # of the attempts before, with `ensure`
    supported: list[str] | None = None
    requested: str | None = None
    nearest: NearestRequest | None = None


class Error(Closed):
    code: int
    message: str
    data: ErrorData
