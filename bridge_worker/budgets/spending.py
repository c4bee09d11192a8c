"""What requests may cost under the operator's budgets: reserved before each one is sent, settled after it.

Owns the upper bound that is reserved, and what is charged when nobody knows what was used. Refuses to know where accounts are kept
(`budgets.Store`) and how a model is called. A request that no budget applies to costs nothing here.
"""

from __future__ import annotations

import asyncio
import json
import math
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from bridge_worker.budgets.limits import NOTHING, Account, Amount, Budgets, Hold, MemoryStore, Standing, Store, exceeded, nano_usd
from bridge_worker.core.ports import ChatRequest, Expense, Services
from bridge_worker.errors import BridgeError
from bridge_worker.schema.services import EmbedResult, RerankResult

Find = Callable[[str], Awaitable[Services]]
R = TypeVar("R", dict[str, Any], EmbedResult, RerankResult)  # a chat's result is a plain object

# Another tokenizer than the provider's is up to a quarter off for plain text; the rest is what a provider puts around it.
_MARGIN, _AROUND = 1.25, 64
_LEASE_MS = 30_000  # beyond the deadline of a request, which ends it: whoever has not settled by then is dead
# What a request that ended so has used, nobody tells. Any other error is one that providers do not charge for.
_UNTOLD = ("cancelled", "timeout", "stream_interrupted", "bad_upstream_response")


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, as far as its price depends on it. ``output_tokens`` is the caller's limit, 0 where nothing is generated."""

    model: str
    total_ms: int
    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]] | None = None
    output_tokens: int | None = None
    streamed: bool = False
    ranks: bool = False


def asked_of(request: ChatRequest) -> Asked:
    options = request.options
    return Asked(
        model=request.model,
        total_ms=request.deadlines.total_ms or 0,
        messages=request.messages,
        tools=options.get("tools"),
        output_tokens=options.get("max_completion_tokens") or options.get("max_tokens"),
        streamed=request.stream,
    )


class Spending:
    def __init__(self, budgets: Budgets | None = None, store: Store | None = None) -> None:
        self.budgets = budgets or Budgets()  # a reload replaces them
        self._store = store or MemoryStore()
        self._settling: set[asyncio.Task[None]] = set()

    def bill(self, metadata: Mapping[str, str] | None, asked: Asked) -> Bill:
        return Bill(self.budgets.accounts((metadata or {}).get("budget")), asked, self)

    async def standings(self, path: str | None) -> list[Standing]:
        return await self._store.standings(self.budgets.accounts(path))

    async def reserve(self, accounts: tuple[Account, ...], amount: Amount, lease_ms: int) -> Hold:
        """Raises BridgeError ``budget_exceeded``. Cancelled, it holds nothing in the end."""
        reserving = asyncio.ensure_future(self._store.reserve(uuid.uuid4().hex, accounts, amount, lease_ms))
        try:
            found = await asyncio.shield(reserving)
        except asyncio.CancelledError:
            self._in_background(self._let_go(reserving))
            raise
        if isinstance(found, Standing):
            raise exceeded(found, amount)
        return found

    async def settle(self, hold: Hold, spent: Amount) -> None:
        """Is done even if the task is cancelled meanwhile."""
        await asyncio.shield(self._in_background(self._store.settle(hold, spent)))

    async def _let_go(self, reserving: asyncio.Future[Hold | Standing]) -> None:
        found = await reserving
        if isinstance(found, Hold):
            await self._store.settle(found, NOTHING)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)
        return task


class Bill:
    """Of one request. Without accounts it does nothing."""

    def __init__(self, accounts: tuple[Account, ...], asked: Asked, spending: Spending) -> None:
        self._accounts = accounts
        self._asked = asked
        self._spending = spending
        self._hold: Hold | None = None
        self._estimate: _Estimate | None = None

    async def reserve(self, find: Find) -> None:
        """Raises BridgeError; then nothing is reserved, and nothing may be sent."""
        if not self._accounts:
            return
        services = await find(self._asked.model)
        self._estimate = estimate = await asyncio.to_thread(_Estimate, services, self._asked)
        usd = await asyncio.to_thread(estimate.usd, estimate.output_tokens)
        if usd is None and any(account.limit.max_nano_usd is not None for account in self._accounts):
            wrong = "has no known price, and a budget in USD applies; the operator can give it one in the config"
            raise BridgeError("budget_exceeded", f"{self._asked.model} {wrong}", model=self._asked.model)
        amount = Amount(nano_usd(usd or 0), estimate.input_tokens + estimate.output_tokens)
        self._hold = await self._spending.reserve(self._accounts, amount, self._asked.total_ms + _LEASE_MS)

    async def charge(self, answering: Awaitable[R]) -> R:
        """The result, settled. Raises BridgeError, settled too."""
        try:
            result = await answering
        except BridgeError as error:
            await self._settle_failed(error)
            raise
        except Exception:  # a fault of the bridge: nobody knows how far it came
            await self._settle(None, None)
            raise
        plain = result if isinstance(result, dict) else result.model_dump(include={"usage", "cost_usd"})
        await self._settle(plain["usage"], plain["cost_usd"])
        return result

    async def _settle(self, usage: Mapping[str, int | None] | None, cost_usd: float | None) -> None:
        """What was not told counts as it was reserved."""
        if self._hold is None:
            return
        tokens, usd = _told(usage), self._hold.amount.nano_usd if cost_usd is None else nano_usd(cost_usd)
        await self._close(Amount(usd, self._hold.amount.tokens if tokens is None else tokens))

    async def _settle_failed(self, error: BridgeError) -> None:
        if self._hold is None or self._estimate is None:
            return
        spent = NOTHING
        if error.kind in _UNTOLD and self._estimate.was_sent(error):
            spent = await asyncio.to_thread(self._estimate.of_failed, error, self._hold.amount)
        await self._close(spent)

    async def _close(self, spent: Amount) -> None:
        hold, self._hold = self._hold, None
        if hold is not None:
            await self._spending.settle(hold, spent)


class _Estimate:
    """What a request can use at most. Making one blocks, raises BridgeError, and may load a local model."""

    def __init__(self, services: Services, asked: Asked) -> None:
        self._services = services
        self._asked = asked
        self._names = services.alternatives(asked.model)
        self._writes_cache = '"cache_control"' in json.dumps([asked.messages, asked.tools])
        counted = services.count(asked.model, asked.messages, asked.tools)
        self.input_tokens = counted.input_tokens if counted.exact else _with_margin(counted.input_tokens)
        self.output_tokens = self._most_output() if asked.output_tokens is None else asked.output_tokens

    def usd(self, output_tokens: int) -> float | None:
        """Of the dearest deployment of those that may be asked; None when one has no price."""
        expense = Expense(self.input_tokens, output_tokens, self._writes_cache)
        prices = [self._price(name, expense) for name in self._names]
        known = [price for price in prices if price is not None]
        return max(known) if len(known) == len(prices) else None

    def was_sent(self, error: BridgeError) -> bool:
        """LiteLLM's attempts are in the receipt; the models of this machine have none, and work all the same."""
        receipt: Any = error.extra.get("receipt") or {}
        return bool(receipt.get("attempts")) or self._services.at_home

    def of_failed(self, error: BridgeError, reserved: Amount) -> Amount:
        """Streamed: the input and what had come. Else the whole answer may have been made, and charged, before it was lost."""
        if not self._asked.streamed:
            return reserved
        partial: Any = error.extra.get("partial") or {}
        said = json.dumps([partial.get("content") or "", partial.get("tool_calls") or []], ensure_ascii=False)
        came = self._services.count(self._asked.model, [{"role": "assistant", "content": said}], None).input_tokens
        usd = self.usd(came)
        return Amount(reserved.nano_usd if usd is None else nano_usd(usd), self.input_tokens + came)

    def _price(self, name: str, expense: Expense) -> float | None:
        per_query = self._services.describe(name).prices.query_usd if self._asked.ranks else None
        return per_query if per_query is not None else self._services.cost_usd(name, expense)

    def _most_output(self) -> int:
        infos = [self._services.describe(name) for name in self._names]
        limits = [info.limits.output_tokens or info.limits.context_tokens for info in infos]
        if self._services.at_home and None in limits:  # offline models say what they were told, or fill in a form
            return _with_margin(self.input_tokens)
        known = [limit for limit in limits if limit is not None]
        if len(known) < len(limits):
            wrong = "has no known limit of its answer, and a budget counts the most that it may be"
            raise BridgeError("invalid_request", f"{self._asked.model} {wrong}; give max_tokens", model=self._asked.model)
        return max(known)


def _with_margin(tokens: int) -> int:
    return math.ceil(tokens * _MARGIN) + _AROUND


def _told(usage: Mapping[str, int | None] | None) -> int | None:
    """A provider's total may have more than the two: reasoning that it counts apart."""
    if usage is None or (usage["total_tokens"] is None and usage["input_tokens"] is None):
        return None
    return max(usage["total_tokens"] or 0, (usage["input_tokens"] or 0) + (usage["output_tokens"] or 0))
