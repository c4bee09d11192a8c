"""The port for budget accounts, and the store in memory.

Owns reserving and settling in one process. Refuses to know what a request costs. `budgets.redis_store` has the other
implementation.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from bridge_worker.budgets.limits import NOTHING, Account, Amount, Hold, Standing
from bridge_worker.invariants import check

_SWEEP = 1024  # accounts before the first removal of those with a past window


class Store(Protocol):
    """Port: stores accounts. ``reserve`` and ``settle`` are atomic, also between workers."""

    async def reserve(self, id: str, accounts: Sequence[Account], amount: Amount, lease_ms: int) -> Hold | Standing:
        """Returns a hold, or the standing of the first account without room. A hold that is not settled ends with its lease."""

    async def settle(self, hold: Hold, spent: Amount) -> None:
        """Ends the hold and counts ``spent``, unless the window has passed."""

    async def standings(self, accounts: Sequence[Account]) -> list[Standing]: ...


@dataclass(slots=True)
class _Book:
    start: int
    window: int | None
    used: Amount = NOTHING
    reserved: dict[str, Amount] = field(default_factory=dict)


class MemoryStore:
    """A `Store` for one process. Holds need no lease: they end with the process."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._books: dict[str, _Book] = {}
        self._sweep_at = _SWEEP

    async def reserve(self, id: str, accounts: Sequence[Account], amount: Amount, lease_ms: int) -> Hold | Standing:
        books = [self._book(account) for account in accounts]
        for account, book in zip(accounts, books, strict=True):
            if not account.room_for(_sum(book.used, *book.reserved.values()), amount):
                return self._standing(account, book)
        for account, book in zip(accounts, books, strict=True):
            book.reserved[id] = amount
            self._books[account.key] = book
        self._sweep()
        return Hold(id, tuple(accounts), amount, tuple(book.start for book in books))

    async def settle(self, hold: Hold, spent: Amount) -> None:
        for account, start in zip(hold.accounts, hold.starts, strict=True):
            book = self._book(account)
            if book.start == start:
                is_held = book.reserved.pop(hold.id, None) is not None
                check("money", is_held and min(spent) >= 0, account=account.key, nano_usd=spent.nano_usd, tokens=spent.tokens)
                if is_held:  # settled before, it counts once
                    book.used = _sum(book.used, spent)

    async def standings(self, accounts: Sequence[Account]) -> list[Standing]:
        return [self._standing(account, self._book(account)) for account in accounts]

    def learn(self, account: Account, start: int, used: Amount) -> None:
        """Takes over the used amount of the shared store; within a window it never decreases."""
        book = self._books[account.key] = self._book(account)
        if book.start == start:
            book.used = Amount(max(book.used.nano_usd, used.nano_usd), max(book.used.tokens, used.tokens))

    def _standing(self, account: Account, book: _Book) -> Standing:
        window = account.limit.window
        resets = int((book.start + window - self._clock()) * 1000) if window else None
        return Standing(account, book.used, _sum(*book.reserved.values()), resets)

    def _book(self, account: Account) -> _Book:
        """Windows begin at whole multiples of their length since 1970 (UTC): a day at midnight."""
        window = account.limit.window
        start = int(self._clock() // window * window) if window else 0
        book = self._books.get(account.key)
        return book if book and book.start == start else _Book(start, window)

    def _sweep(self) -> None:
        """Removes accounts with a past window: callers choose the paths, so their number has no other limit."""
        if len(self._books) < self._sweep_at:
            return
        now = self._clock()
        self._books = {key: book for key, book in self._books.items() if not book.window or now < book.start + book.window}
        self._sweep_at = max(_SWEEP, 2 * len(self._books))


def _sum(*amounts: Amount) -> Amount:
    return Amount(sum(one.nano_usd for one in amounts), sum(one.tokens for one in amounts))
