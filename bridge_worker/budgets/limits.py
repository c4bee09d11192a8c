"""Budgets: the operator's spending limits by path and window, and whether one more request fits.

Owns the section ``omni_bridge.budgets``, the paths and the arithmetic. Money is counted in whole billionths of a dollar, so that
sums are exact here and in Redis. Refuses to know the cost of a request: `spending` does.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from bridge_worker.errors import BridgeError, MemberError

BUDGET = "budget"  # the member of a request's metadata
ROOT = "/"  # in the config: all requests together, also those without a path
_SEGMENT = r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,63}"
_PATH = re.compile(rf"{_SEGMENT}(/{_SEGMENT}){{0,7}}")
_PATTERN = re.compile(rf"/|(\*|{_SEGMENT})(/(\*|{_SEGMENT})){{0,7}}")
_WINDOW = re.compile(r"([1-9]\d{0,8})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SECTION = "omni_bridge.budgets"
_MEMBERS = ("path", "max_usd", "max_tokens", "window")
_NANO = 1_000_000_000
_MOST_USD, _MOST_TOKENS = 1e6, 10**15  # sums stay exact in Redis, which stores numbers as doubles


class Amount(NamedTuple):
    """Billionths of a dollar, and tokens (input and output)."""

    nano_usd: int
    tokens: int

    @property
    def usd(self) -> float:
        return self.nano_usd / _NANO


NOTHING = Amount(0, 0)


def nano_usd(usd: float) -> int:
    """Rounds up; a third decimal is rounding noise of the float."""
    return math.ceil(round(usd * _NANO, 3))


@dataclass(frozen=True, slots=True)
class Limit:
    """A row of the config. ``window`` is in seconds, None without a window."""

    pattern: tuple[str, ...]  # () for all requests
    max_nano_usd: int | None
    max_tokens: int | None
    window: int | None

    def row(self) -> dict[str, Any]:
        usd = None if self.max_nano_usd is None else self.max_nano_usd / _NANO
        window = None if self.window is None else f"{self.window}s"
        return {"path": "/".join(self.pattern) or ROOT, "max_usd": usd, "max_tokens": self.max_tokens, "window": window}

    def matches(self, prefix: Sequence[str]) -> bool:
        pairs = zip(self.pattern, prefix, strict=False)
        return len(self.pattern) == len(prefix) and all(mine in ("*", theirs) for mine, theirs in pairs)


@dataclass(frozen=True, slots=True)
class Account:
    """The account of a path (``/`` for all) for one limit."""

    path: str
    limit: Limit

    @property
    def key(self) -> str:
        return f"{self.path}:{self.limit.window or 'ever'}"

    def room_for(self, spent: Amount, amount: Amount) -> bool:
        usd, tokens = self.limit.max_nano_usd, self.limit.max_tokens
        fits = usd is None or spent.nano_usd + amount.nano_usd <= usd
        return fits and (tokens is None or spent.tokens + amount.tokens <= tokens)


@dataclass(frozen=True, slots=True)
class Standing:
    """The amounts of an account at one time; ``resets_ms`` from then, None for a limit without a window."""

    account: Account
    used: Amount
    reserved: Amount
    resets_ms: int | None

    def wire(self) -> dict[str, Any]:
        limit = self.account.limit
        return {
            "path": self.account.path,
            "window_ms": limit.window * 1000 if limit.window else None,
            "max_usd": limit.max_nano_usd / _NANO if limit.max_nano_usd is not None else None,
            "used_usd": self.used.usd,
            "reserved_usd": self.reserved.usd,
            "max_tokens": limit.max_tokens,
            "used_tokens": self.used.tokens,
            "reserved_tokens": self.reserved.tokens,
            "resets_ms": self.resets_ms,
        }


@dataclass(frozen=True, slots=True)
class Hold:
    """A reservation. ``starts`` are its accounts' windows (Unix seconds): a request counts in the window in which it began."""

    id: str
    accounts: tuple[Account, ...]
    amount: Amount
    starts: tuple[int, ...]
    shared: bool = False  # in Redis


# --- the config and the paths ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Budgets:
    """The whole section."""

    limits: tuple[Limit, ...] = ()

    def accounts(self, path: str | None) -> tuple[Account, ...]:
        """The accounts of a request of ``path``: for each prefix of the path, the limits of the most specific matching pattern."""
        return tuple(self._accounts(path.split("/") if path else [])) if self.limits else ()

    def section(self) -> list[dict[str, Any]]:
        """The section as a config has it."""
        return [limit.row() for limit in self.limits]

    def _accounts(self, segments: Sequence[str]) -> Iterator[Account]:
        for length in range(len(segments) + 1):
            prefix = segments[:length]
            matching = [limit for limit in self.limits if limit.matches(prefix)]
            best = max((_specificity(limit) for limit in matching), default=None)
            yield from (Account("/".join(prefix) or ROOT, limit) for limit in matching if _specificity(limit) == best)


def read_budgets(section: object) -> Budgets:
    """Raises MemberError."""
    if section is None:
        return Budgets()
    if not isinstance(section, list):
        raise MemberError(_SECTION, "must be a list of limits, each with a path and max_usd or max_tokens")
    limits = tuple(_limit(f"{_SECTION}[{position}]", row) for position, row in enumerate(section))
    seen: set[tuple[tuple[str, ...], int | None]] = set()
    for position, limit in enumerate(limits):
        if (limit.pattern, limit.window) in seen:
            raise MemberError(f"{_SECTION}[{position}]", "an earlier limit has the same path and window")
        seen.add((limit.pattern, limit.window))
    return Budgets(limits)


def check_path(path: str, member: str) -> None:
    """Raises BridgeError ``invalid_request`` that names the ``member`` of the params."""
    if not _PATH.fullmatch(path):
        wrong = f"{member} must be a path such as agent-7/task-12: at most 8 names of 1 to 64 letters, digits and . _ : @ -"
        raise BridgeError("invalid_request", wrong)


def exceeded(standing: Standing, needed: Amount) -> BridgeError:
    limit, used, reserved = standing.account.limit, standing.used, standing.reserved
    in_usd = limit.max_nano_usd is not None and used.nano_usd + reserved.nano_usd + needed.nano_usd > limit.max_nano_usd
    most = f"{(limit.max_nano_usd or 0) / _NANO:g} USD" if in_usd else f"{limit.max_tokens} tokens"
    taken = f"{used.usd:g} used, {reserved.usd:g} reserved" if in_usd else f"{used.tokens} used, {reserved.tokens} reserved"
    more = f"{needed.usd:g}" if in_usd else f"{needed.tokens}"
    problem = f"the budget of {standing.account.path} is {most}: {taken}, and this request may use {more} more"
    budget = {**standing.wire(), "needed_usd": needed.usd, "needed_tokens": needed.tokens}
    return BridgeError("budget_exceeded", f"{problem}; lower max_tokens, or wait", extra={"budget": budget})


def _specificity(limit: Limit) -> tuple[bool, ...]:
    return tuple(segment != "*" for segment in limit.pattern)


def _limit(member: str, row: object) -> Limit:
    if not isinstance(row, Mapping):
        raise MemberError(member, "must be a mapping with path, and max_usd or max_tokens")
    if unknown := sorted(str(name) for name in row if name not in _MEMBERS):
        raise MemberError(f"{member}.{unknown[0]}", f"is not a setting; known: {', '.join(_MEMBERS)}")
    path, window = row.get("path"), row.get("window")
    if not isinstance(path, str) or not _PATTERN.fullmatch(path):
        raise MemberError(f"{member}.path", 'must be "/" (all requests) or names and * between slashes, such as agent-7/*')
    if row.get("max_usd") is None and row.get("max_tokens") is None:
        raise MemberError(member, "needs max_usd or max_tokens")
    usd, tokens = _most(member, row, "max_usd", _MOST_USD), _most(member, row, "max_tokens", _MOST_TOKENS)
    if tokens is not None and tokens != int(tokens):
        raise MemberError(f"{member}.max_tokens", "must be a whole number")
    return Limit(
        pattern=() if path == ROOT else tuple(path.split("/")),
        max_nano_usd=None if usd is None else nano_usd(usd),
        max_tokens=None if tokens is None else int(tokens),
        window=None if window is None else _seconds(member, window),
    )


def _most(member: str, row: Mapping[str, Any], name: str, most: float) -> float | None:
    value = row.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise MemberError(f"{member}.{name}", f"must be a number from 0 to {most:g}")
    return value


def _seconds(member: str, window: object) -> int:
    if not isinstance(window, str) or not (found := _WINDOW.fullmatch(window)):
        raise MemberError(f"{member}.window", "must be a number and s, m, h or d, such as 1h or 30d; leave it out for no window")
    return int(found[1]) * _SECONDS[found[2]]
