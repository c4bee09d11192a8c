"""Budget accounts in another process: the store of an engine, and the server process's side of its calls.

Owns the JSON of a call. Refuses to know how a call travels, and what a request costs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from bridge_worker.budgets.limits import Account, Amount, Hold, Limit, Standing
from bridge_worker.budgets.store import MemoryStore

Call = Callable[[str, Mapping[str, object]], Awaitable[Any]]


class RemoteStore:
    """A `Store`: `StoreService` keeps the accounts, in another process."""

    def __init__(self, call: Call) -> None:
        self._call = call

    async def reserve(self, id: str, accounts: Sequence[Account], amount: Amount, lease_ms: int) -> Hold | Standing:
        rows = [_account_row(account) for account in accounts]
        reply = await self._call("reserve", {"id": id, "accounts": rows, "amount": amount})
        return _standing(reply["exceeded"]) if "exceeded" in reply else _hold(reply["hold"])

    async def settle(self, hold: Hold, spent: Amount) -> None:
        await self._call("settle", {"hold": _hold_row(hold), "spent": spent})

    async def standings(self, accounts: Sequence[Account]) -> list[Standing]:
        return [_standing(row) for row in await self._call("standings", {"accounts": [_account_row(one) for one in accounts]})]


class StoreService:
    """Carries out the calls of engines on one store, and settles what a lost engine has left reserved."""

    def __init__(self) -> None:
        self._store = MemoryStore()
        self._holds: dict[int, dict[str, Hold]] = {}

    async def serve(self, engine: int, call: Mapping[str, Any]) -> object:
        """``engine`` is the number of the caller. Raises ValueError for an unknown call."""
        match call["name"]:
            case "reserve":
                accounts = [_account(row) for row in call["accounts"]]
                reserved = await self._store.reserve(call["id"], accounts, Amount(*call["amount"]), 0)
                if isinstance(reserved, Standing):
                    return {"exceeded": _standing_row(reserved)}
                self._holds.setdefault(engine, {})[reserved.id] = reserved
                return {"hold": _hold_row(reserved)}
            case "settle":
                hold = _hold(call["hold"])
                self._holds.get(engine, {}).pop(hold.id, None)
                await self._store.settle(hold, Amount(*call["spent"]))
                return None
            case "standings":
                standings = await self._store.standings([_account(row) for row in call["accounts"]])
                return [_standing_row(standing) for standing in standings]
        raise ValueError(f"unknown call {call['name']!r:.100}")

    async def engine_lost(self, engine: int) -> None:
        """What its requests have cost is not known: the reserved amount counts, the most that it can be."""
        for hold in self._holds.pop(engine, {}).values():
            await self._store.settle(hold, hold.amount)


def _account_row(account: Account) -> list[object]:
    limit = account.limit
    return [account.path, limit.pattern, limit.max_nano_usd, limit.max_tokens, limit.window]


def _account(row: Sequence[Any]) -> Account:
    path, pattern, max_nano_usd, max_tokens, window = row
    return Account(path, Limit(tuple(pattern), max_nano_usd, max_tokens, window))


def _hold_row(hold: Hold) -> list[object]:
    return [hold.id, [_account_row(account) for account in hold.accounts], hold.amount, hold.starts]


def _hold(row: Sequence[Any]) -> Hold:
    id, accounts, amount, starts = row
    return Hold(id, tuple(_account(one) for one in accounts), Amount(*amount), tuple(starts))


def _standing_row(standing: Standing) -> list[object]:
    return [_account_row(standing.account), standing.used, standing.reserved, standing.resets_ms]


def _standing(row: Sequence[Any]) -> Standing:
    account, used, reserved, resets_ms = row
    return Standing(_account(account), Amount(*used), Amount(*reserved), resets_ms)
