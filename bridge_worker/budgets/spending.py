"""Reserves the upper bound of a request's cost before it is sent, and settles it afterwards.

Owns the charge for a failed request, because no provider reports its usage. Refuses to know where accounts are stored
(`budgets.store`) and how a model is called. A request without a budget does no work here.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Mapping

from bridge_worker.budgets.estimate import CostInputs, Estimate
from bridge_worker.budgets.limits import NOTHING, Account, Amount, Budgets, Hold, Standing, exceeded, nano_usd
from bridge_worker.budgets.store import MemoryStore, Store
from bridge_worker.core.ports import ModelServices
from bridge_worker.errors import BridgeError

FindServices = Callable[[str], Awaitable[ModelServices]]

_LEASE_MS = 30_000  # after a request's deadline, when it has ended: a process that has not settled by then is dead
# No provider reports the usage of a request that ended with one of these. For any other error providers charge nothing.
USAGE_UNKNOWN_KINDS = ("cancelled", "timeout", "stream_interrupted", "bad_upstream_response")


class Spending:
    """``budgets`` returns the limits that are active now."""

    def __init__(self, budgets: Callable[[], Budgets] = Budgets, store: Store | None = None) -> None:
        self._budgets = budgets
        self._store = store or MemoryStore()
        self._settling: set[asyncio.Task[None]] = set()

    def reservation(self, metadata: Mapping[str, str] | None, inputs: CostInputs) -> Reservation:
        """For one request; it reserves nothing yet."""
        return Reservation(self._budgets().accounts((metadata or {}).get("budget")), inputs, self)

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

    async def settle(self, hold: Hold, spent: Callable[[], Awaitable[Amount]]) -> None:
        """Completes even when the task is cancelled. ``spent`` may take its time to count."""
        await asyncio.shield(self._in_background(self._settle(hold, spent)))

    async def _settle(self, hold: Hold, spent: Callable[[], Awaitable[Amount]]) -> None:
        await self._store.settle(hold, await spent())

    async def _release(self, reserving: asyncio.Future[Hold | Standing]) -> None:
        reserved = await reserving
        if isinstance(reserved, Hold):
            await self._store.settle(reserved, NOTHING)

    def _in_background(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)
        return task


class Reservation:
    """The most that one request may cost: reserved, then settled once. Without accounts it does nothing."""

    def __init__(self, accounts: tuple[Account, ...], inputs: CostInputs, spending: Spending) -> None:
        self._accounts = accounts
        self._inputs = inputs
        self._spending = spending
        self._hold: Hold | None = None
        self._estimate: Estimate | None = None

    async def reserve(self, find_services: FindServices) -> None:
        """Raises BridgeError; then nothing is reserved, and nothing may be sent."""
        if not self._accounts:
            return
        services = await find_services(self._inputs.model)
        self._estimate = estimate = await asyncio.to_thread(Estimate, services, self._inputs)
        usd = await asyncio.to_thread(estimate.usd, estimate.output_tokens)
        if usd is None and any(account.limit.max_nano_usd is not None for account in self._accounts):
            reason = "has no known price, and a budget in USD applies; the operator can give it one in the config"
            raise BridgeError("budget_exceeded", f"{self._inputs.model} {reason}", model=self._inputs.model)
        amount = Amount(nano_usd(usd or 0), estimate.input_tokens + estimate.output_tokens)
        self._hold = await self._spending.reserve(self._accounts, amount, self._inputs.total_ms + _LEASE_MS)

    async def settle(self, usage: Mapping[str, int | None] | None, cost_usd: float | None) -> None:
        """Charges the usage, or the reserved amount if the usage is unknown."""
        if self._hold is None:
            return
        tokens = total_tokens(usage)
        usd = self._hold.amount.nano_usd if cost_usd is None else nano_usd(cost_usd)
        await self._close(_known(Amount(usd, self._hold.amount.tokens if tokens is None else tokens)))

    async def settle_failed(self, error: BridgeError) -> None:
        """``error`` has the receipt of the request."""
        hold, estimate = self._hold, self._estimate
        if hold is None or estimate is None:
            return
        if error.kind in USAGE_UNKNOWN_KINDS and estimate.was_sent(error):
            await self._close(lambda: asyncio.to_thread(estimate.of_failed, error, hold.amount))
        else:
            await self._close(_known(NOTHING))

    async def _close(self, spent: Callable[[], Awaitable[Amount]]) -> None:
        hold, self._hold = self._hold, None
        if hold is not None:
            await self._spending.settle(hold, spent)


def _known(amount: Amount) -> Callable[[], Awaitable[Amount]]:
    async def spent() -> Amount:
        return amount

    return spent


def total_tokens(usage: Mapping[str, int | None] | None) -> int | None:
    """A provider's total may be more than input plus output: some count reasoning separately."""
    if usage is None or (usage["total_tokens"] is None and usage["input_tokens"] is None):
        return None
    return max(usage["total_tokens"] or 0, (usage["input_tokens"] or 0) + (usage["output_tokens"] or 0))
