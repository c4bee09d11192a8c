"""One request's reservation: the most that it can cost, then what it has cost, of its budget and of its task."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from bridge_worker.backends.offline.services import OfflineServices
from bridge_worker.budgets.estimate import CostInputs
from bridge_worker.budgets.limits import NOTHING, Account, Amount, Hold, Standing, nano_usd, read_budgets
from bridge_worker.budgets.spending import USAGE_UNKNOWN_KINDS, Reservation, Spending
from bridge_worker.budgets.store import MemoryStore
from bridge_worker.core.ports import Expense
from bridge_worker.errors import BridgeError

BUDGETS = read_budgets([{"path": "usd", "max_usd": 1}, {"path": "tokens", "max_tokens": 1000}, {"path": "small", "max_tokens": 1}])
TOTAL_MS = 5000
INPUT, OUTPUT = 3, 20  # tokens: an offline model counts words
PRICE = 0.001  # USD of a token
INPUTS = CostInputs("offline/echo", TOTAL_MS, [{"role": "user", "content": "one two three"}], output_tokens=OUTPUT)
MOST = Amount(nano_usd((INPUT + OUTPUT) * PRICE), INPUT + OUTPUT)
USED = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
SENT = {"receipt": {"attempts": [{}]}}


class Services(OfflineServices):
    """Of a provider's model with this price."""

    def __init__(self, price: float | None = PRICE, *, runs_here: bool = False) -> None:
        self.price = price
        self.runs_here = runs_here

    def cost_usd(self, model: str, expense: Expense) -> float | None:
        return None if self.price is None else (expense.input_tokens + (expense.output_tokens or 0)) * self.price


class Store(MemoryStore):
    lease_ms = 0

    async def reserve(self, id: str, accounts: tuple[Account, ...], amount: Amount, lease_ms: int) -> Hold | Standing:
        self.lease_ms = lease_ms
        return await super().reserve(id, accounts, amount, lease_ms)


class Request:
    """``path``: its budget, None for none. ``task``: the limits of its task, None for a request without one."""

    def __init__(self, path: str | None = None, task: Mapping[str, Any] | None = None, services: Services | None = None) -> None:
        self.store = Store()
        self.spending = Spending(lambda: BUDGETS, self.store)
        self._services = services or Services()
        self._path = path
        self.made: Reservation = self.spending.reservation(
            {"budget": path} if path else None, INPUTS, None if task is None else {"id": "t", **task}
        )

    async def find(self, model: str) -> Any:
        assert model == INPUTS.model
        return self._services

    async def fail_to_find(self, model: str) -> Any:
        raise BridgeError("model_not_found", "no such model")

    async def account(self) -> tuple[Amount, Amount]:
        """Used, reserved."""
        (standing,) = await self.spending.standings(self._path)
        return standing.used, standing.reserved

    async def task(self) -> tuple[float, int, int, int]:
        """Spent: USD, tokens, requests. Reserved: requests."""
        row: Any = await self.spending.tasks.get("t")
        return row["spent_usd"], row["spent_tokens"], row["spent_requests"], row["reserved_requests"]


@pytest.mark.rule("BUD-4", "BUD-5", "TSK-1")
@pytest.mark.parametrize(
    ("usage", "cost", "expected"),
    [
        (USED, 0.002, Amount(nano_usd(0.002), 7)),
        (None, 0.002, Amount(nano_usd(0.002), MOST.tokens)),
        (USED, None, Amount(MOST.nano_usd, 7)),
        (USED, 0.0, Amount(0, 7)),
        (None, None, MOST),
    ],
)
def test_the_most_is_reserved_and_what_is_not_known_counts_as_reserved(usage: Any, cost: float | None, expected: Amount) -> None:
    async def check() -> None:
        request = Request("usd", {"max_usd": 1, "max_tokens": 1000})
        await request.made.reserve(request.find)
        assert await request.account() == (NOTHING, MOST)
        row: Any = await request.spending.tasks.get("t")
        assert (nano_usd(row["reserved_usd"]), row["reserved_tokens"], row["reserved_requests"]) == (*MOST, 1)
        assert request.store.lease_ms > TOTAL_MS  # a process that is dead by then gives it back
        for _ in range(2):  # once is all
            await request.made.settle(usage, cost)
            assert await request.account() == (expected, NOTHING)
            usd, *rest = await request.task()
            assert (nano_usd(usd), *rest) == (*expected, 1, 0)

    asyncio.run(check())


@pytest.mark.rule("BUD-5", "TSK-1")
@pytest.mark.parametrize("runs_here", [False, True])
@pytest.mark.parametrize("sent", [False, True])
@pytest.mark.parametrize("kind", [*USAGE_UNKNOWN_KINDS, "rate_limited"])
def test_a_failed_request_costs_the_most_where_a_provider_may_have_charged_it(kind: str, sent: bool, runs_here: bool) -> None:
    async def check() -> None:
        request = Request("usd", {}, Services(runs_here=runs_here))
        await request.made.reserve(request.find)
        await request.made.settle_failed(BridgeError(kind, "no", extra=dict(SENT) if sent else {}))
        reached = sent or runs_here
        spent = MOST if reached and kind in USAGE_UNKNOWN_KINDS else NOTHING
        assert await request.account() == (spent, NOTHING)
        usd, *rest = await request.task()
        assert (nano_usd(usd), *rest) == (*spent, int(reached), 0)

    asyncio.run(check())


@pytest.mark.rule("BUD-4")
@pytest.mark.parametrize(("path", "is_refused"), [("usd", True), ("tokens", False)])
def test_a_model_without_a_price_is_refused_by_a_budget_in_usd_only(path: str, is_refused: bool) -> None:
    async def check() -> None:
        request = Request(path, {}, Services(None))
        if is_refused:
            with pytest.raises(BridgeError, match="no known price"):
                await request.made.reserve(request.find)
            assert await request.task() == (0, 0, 0, 0)
        else:
            await request.made.reserve(request.find)
            await request.made.settle_failed(BridgeError("timeout", "no", extra=dict(SENT)))
            assert await request.account() == (Amount(0, MOST.tokens), NOTHING)
            assert await request.task() == (0, MOST.tokens, 1, 0)

    asyncio.run(check())


@pytest.mark.rule("TSK-1", "BUD-4")
def test_a_request_that_its_budget_refuses_costs_its_task_nothing() -> None:
    async def check() -> None:
        request = Request("small", {})
        with pytest.raises(BridgeError) as refused:
            await request.made.reserve(request.find)
        assert refused.value.kind == "budget_exceeded"
        assert await request.task() == (0, 0, 0, 0)
        assert await request.account() == (NOTHING, NOTHING)

    asyncio.run(check())


@pytest.mark.rule("TSK-3")
@pytest.mark.parametrize(("limits", "is_refused"), [({"max_requests": 1}, False), ({"max_tokens": 1000}, True)])
def test_a_task_that_counts_requests_needs_no_estimate(limits: Mapping[str, int], is_refused: bool) -> None:
    async def check() -> None:
        request = Request(None, limits)
        if is_refused:
            with pytest.raises(BridgeError, match="offline/echo"):
                await request.made.reserve(request.fail_to_find)
            return
        await request.made.reserve(request.fail_to_find)
        assert await request.task() == (0, 0, 0, 1)
        await request.made.settle_failed(BridgeError("timeout", "no", extra=dict(SENT)))
        assert await request.task() == (0, 0, 1, 0)

    asyncio.run(check())


@pytest.mark.rule("TSK-3")
def test_a_request_that_its_task_refuses_reserves_nothing() -> None:
    async def check() -> None:
        request = Request("usd", {"max_tokens": 1})
        with pytest.raises(BridgeError) as refused:
            await request.made.reserve(request.find)
        assert refused.value.kind == "budget_exceeded"
        assert await request.account() == (NOTHING, NOTHING)
        await request.made.settle_failed(refused.value)
        assert await request.task() == (0, 0, 0, 0)

    asyncio.run(check())


def test_a_request_without_a_budget_and_a_task_finds_no_services() -> None:
    async def check() -> None:
        request = Request()
        await request.made.reserve(request.fail_to_find)
        await request.made.settle(USED, 1.0)
        await request.made.settle_failed(BridgeError("timeout", "no"))

    asyncio.run(check())
