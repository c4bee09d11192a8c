"""Reserves the upper bound of a request's cost before it is sent, and settles it afterwards.

Owns the charge for a failed request, because no provider reports its usage. Refuses to know where accounts are stored
(`budgets.store`) and how a model is called. A request without a budget does no work here.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any

from bridge_worker.budgets.estimate import CostInputs, Estimate, has_attempts
from bridge_worker.budgets.limits import NOTHING, Account, Amount, Budgets, Hold, Standing, exceeded, nano_usd
from bridge_worker.budgets.store import MemoryStore, Store
from bridge_worker.budgets.tasks import MemoryTasks, Row, Tasks, limits_of, refusal
from bridge_worker.core.ports import ModelServices
from bridge_worker.errors import BridgeError

FindServices = Callable[[str], Awaitable[ModelServices]]

_LEASE_MS = 30_000  # after a request's deadline, when it has ended: a process that has not settled by then is dead
# No provider reports the usage of a request that ended with one of these. For any other error providers charge nothing.
USAGE_UNKNOWN_KINDS = ("cancelled", "timeout", "stream_interrupted", "bad_upstream_response")


class Spending:
    """``budgets`` returns the limits that are active now."""

    def __init__(self, budgets: Callable[[], Budgets] = Budgets, store: Store | None = None, tasks: Tasks | None = None) -> None:
        self._budgets = budgets
        self._store = store or MemoryStore()
        self.tasks = tasks or MemoryTasks()
        self._settling: set[asyncio.Task[None]] = set()

    def reservation(
        self, metadata: Mapping[str, str] | None, inputs: CostInputs, task: Mapping[str, Any] | None = None
    ) -> Reservation:
        """For one request; it reserves nothing yet. ``task`` is the member of the params."""
        accounts = self._budgets().accounts((metadata or {}).get("budget"))
        return Reservation(accounts, inputs, self, None if task is None else TaskShare(task, self))

    async def standings(self, path: str | None) -> list[Standing]:
        return await self._store.standings(self._budgets().accounts(path))

    async def reserve(self, accounts: tuple[Account, ...], amount: Amount, lease_ms: int) -> Hold:
        """Raises BridgeError ``budget_exceeded``. When it is cancelled, nothing stays reserved."""
        reserving = asyncio.ensure_future(self._store.reserve(uuid.uuid4().hex, accounts, amount, lease_ms))
        try:
            reserved = await asyncio.shield(reserving)
        except asyncio.CancelledError:
            self._in_background(self._release(reserving))
            raise
        if isinstance(reserved, Standing):
            raise exceeded(reserved, amount)
        return reserved

    async def settle(self, hold: Hold, spent: Amount) -> None:
        """Completes even when the task is cancelled."""
        await self.complete(self._store.settle(hold, spent))

    async def reserve_task(self, hold: str, id: str, limits: dict[str, Any], usd: float | None, tokens: int | None) -> Row:
        """A refusal, or {}. When it is cancelled, nothing stays reserved."""
        reserving = asyncio.ensure_future(self.tasks.reserve(hold, id, limits, usd, tokens))
        try:
            return await asyncio.shield(reserving)
        except asyncio.CancelledError:
            self._in_background(self._release_task(reserving, hold, id))
            raise

    async def settle_task(self, hold: str, id: str, usd: float, tokens: int, requests: int) -> None:
        """Completes even when the task is cancelled."""
        await self.complete(self.tasks.settle(hold, id, usd, tokens, requests))

    async def complete(self, work: Coroutine[object, object, None]) -> None:
        """``work`` runs to its end, also when the task is cancelled in that time."""
        await asyncio.shield(self._in_background(work))

    async def _release_task(self, reserving: asyncio.Future[Row], hold: str, id: str) -> None:
        await reserving
        await self.tasks.settle(hold, id, 0, 0, 0)

    async def _release(self, reserving: asyncio.Future[Hold | Standing]) -> None:
        reserved = await reserving
        if isinstance(reserved, Hold):
            await self._store.settle(reserved, NOTHING)

    def _in_background(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)
        return task


class TaskShare:
    """One request's part of its task: reserved, then settled once."""

    def __init__(self, task: Mapping[str, Any], spending: Spending) -> None:
        self._id: str = task["id"]
        self._limits = limits_of(task)
        self._spending = spending
        self._hold: str | None = None
        self._most = NOTHING

    async def reserve(self, usd: float | None, tokens: int | None, model: str) -> None:
        """Raises BridgeError; then nothing is reserved."""
        hold = uuid.uuid4().hex
        if row := await self._spending.reserve_task(hold, self._id, self._limits, usd, tokens):
            raise refusal(row, usd, tokens, model)
        self._hold, self._most = hold, Amount(nano_usd(usd or 0), tokens or 0)

    async def settle(self, usd: float | None, tokens: int | None, *, sent: bool = True) -> None:
        """What is not known counts as reserved."""
        hold, self._hold = self._hold, None
        if hold is not None:
            usd, tokens = self._most.usd if usd is None else usd, self._most.tokens if tokens is None else tokens
            await self._spending.settle_task(hold, self._id, usd, tokens, int(sent))


class Reservation:
    """The most that one request may cost: reserved, then settled once. Without accounts and a task it does nothing."""

    def __init__(
        self, accounts: tuple[Account, ...], inputs: CostInputs, spending: Spending, task: TaskShare | None = None
    ) -> None:
        self._task = task
        self._accounts = accounts
        self._inputs = inputs
        self._spending = spending
        self._hold: Hold | None = None
        self._estimate: Estimate | None = None
        self._usd: float | None = None

    def change(self, inputs: CostInputs) -> None:
        """Before it reserves: the request has become another one."""
        self._inputs = inputs

    async def reserve(self, find_services: FindServices) -> None:
        """Raises BridgeError; then nothing is reserved, and nothing may be sent."""
        if self._task is not None:
            await self._reserve_task(self._task, find_services)
        if not self._accounts:
            return
        try:
            await self._reserve_accounts(find_services)
        except BaseException:
            if self._task is not None:
                await self._task.settle(0, 0, sent=False)
            raise

    async def _reserve_accounts(self, find_services: FindServices) -> None:
        estimate, usd = await self._estimated(find_services)
        if usd is None and any(account.limit.max_nano_usd is not None for account in self._accounts):
            reason = "has no known price, and a budget in USD applies; the operator can give it one in the config"
            raise BridgeError("budget_exceeded", f"{self._inputs.model} {reason}", model=self._inputs.model)
        amount = Amount(nano_usd(usd or 0), estimate.input_tokens + estimate.output_tokens)
        self._hold = await self._spending.reserve(self._accounts, amount, self._inputs.total_ms + _LEASE_MS)

    async def _reserve_task(self, task: TaskShare, find_services: FindServices) -> None:
        """A task without a limit of cost and tokens has no need of an estimate, so a model that has none is no error here."""
        usd = tokens = None
        with suppress(BridgeError):
            estimate, usd = await self._estimated(find_services)
            tokens = estimate.input_tokens + estimate.output_tokens
        await task.reserve(usd, tokens, self._inputs.model)

    async def _estimated(self, find_services: FindServices) -> tuple[Estimate, float | None]:
        if self._estimate is None:
            services = await find_services(self._inputs.model)
            self._estimate = await asyncio.to_thread(Estimate, services, self._inputs)
            self._usd = await asyncio.to_thread(self._estimate.usd, self._estimate.output_tokens)
        return self._estimate, self._usd

    async def settle(self, usage: Mapping[str, int | None] | None, cost_usd: float | None) -> None:
        """Charges the usage, or the reserved amount if the usage is unknown. Completes even when the task is cancelled."""
        if self._hold or self._task:
            await self._spending.complete(self._settle(usage, cost_usd))

    async def settle_failed(self, error: BridgeError) -> None:
        """``error`` has the receipt of the request. Completes even when the task is cancelled."""
        if self._hold or self._task:
            await self._spending.complete(self._settle_failed(error))

    async def _settle(self, usage: Mapping[str, int | None] | None, cost_usd: float | None) -> None:
        tokens = total_tokens(usage)
        if self._task is not None:
            await self._task.settle(cost_usd, tokens)
        if self._hold is None:
            return
        usd = self._hold.amount.nano_usd if cost_usd is None else nano_usd(cost_usd)
        await self._close(Amount(usd, self._hold.amount.tokens if tokens is None else tokens))

    async def _settle_failed(self, error: BridgeError) -> None:
        estimate, spent = self._estimate, NOTHING
        if estimate is None:
            if self._task is not None:
                await self._task.settle(0, 0, sent=has_attempts(error))
            return
        if error.kind in USAGE_UNKNOWN_KINDS and estimate.was_sent(error):
            most = Amount(nano_usd(self._usd or 0), estimate.input_tokens + estimate.output_tokens)
            spent = await asyncio.to_thread(estimate.of_failed, error, most)
        if self._task is not None:
            await self._task.settle(spent.usd, spent.tokens, sent=estimate.was_sent(error))
        await self._close(spent)

    async def _close(self, spent: Amount) -> None:
        hold, self._hold = self._hold, None
        if hold is not None:
            await self._spending.settle(hold, spent)


def total_tokens(usage: Mapping[str, int | None] | None) -> int | None:
    """A provider's total may be more than input plus output: some count reasoning separately."""
    if usage is None or (usage["total_tokens"] is None and usage["input_tokens"] is None):
        return None
    return max(usage["total_tokens"] or 0, (usage["input_tokens"] or 0) + (usage["output_tokens"] or 0))
