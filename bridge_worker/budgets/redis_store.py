"""Budgets that all workers share: a `budgets.Store` in Redis, and in memory while Redis is disconnected.

Owns the scripts, which Redis runs atomically, and the keys ``omni-bridge:{budgets}:PATH:WINDOW``, one slot of a cluster. Windows
use Redis's clock. Refuses to know what a path may spend. An account is a hash (start of its window, used, reserved) and a sorted
set of its holds by the end of their lease, so the holds of a worker that died expire.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from bridge_worker.budgets.limits import NOTHING, Account, Amount, Hold, Standing
from bridge_worker.budgets.store import MemoryStore
from bridge_worker.system.redis_connection import RedisLink, with_timeout

_log = logging.getLogger(__name__)

_PREFIX = "omni-bridge:{budgets}:"
_MOST_OWED = 10_000  # accounts that were charged while Redis was disconnected

# KEYS are a hash and a sorted set for each account. `open` brings one up to date and returns the end of its window (0: none).
_OPEN = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function number(book, field) return tonumber(redis.call('HGET', book, field) or '0') end
local function add(book, field, value) redis.call('HINCRBY', book, field, string.format('%.0f', value + 0)) end
local function open(book, holds, window)
  local start = 0
  if window > 0 then start = math.floor(now / (window * 1000)) * window end
  if number(book, 'start') ~= start then
    redis.call('DEL', book, holds)
    redis.call('HSET', book, 'start', string.format('%.0f', start))
    redis.call('PEXPIREAT', book, string.format('%.0f', (start + window) * 1000 + 60000))
  end
  for _, hold in ipairs(redis.call('ZRANGEBYSCORE', holds, '-inf', string.format('%.0f', now))) do
    local usd, tokens = string.match(hold, '^[^:]*:(%d+):(%d+)$')
    add(book, 'held_usd', -usd)
    add(book, 'held_tokens', -tokens)
    redis.call('ZREM', holds, hold)
  end
  return start
end
local function state(book, start, window)
  local resets = -1
  if window > 0 then resets = (start + window) * 1000 - now end
  return {string.format('%.0f', start), redis.call('HGET', book, 'usd') or '0', redis.call('HGET', book, 'tokens') or '0',
    redis.call('HGET', book, 'held_usd') or '0', redis.call('HGET', book, 'held_tokens') or '0', string.format('%.0f', resets)}
end
"""
# ARGV: hold, usd, tokens, lease in ms, then window, most usd and most tokens (-1: no limit) of each account.
# Returns the position of the first account without room (0: all have room), and the state of each account.
_RESERVE = (
    _OPEN
    + """
local hold, usd, tokens, lease = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local member = hold .. ':' .. ARGV[2] .. ':' .. ARGV[3]
local again, full, states = redis.call('ZSCORE', KEYS[2], member), 0, {}
for at = 1, #KEYS / 2 do
  local book, window = KEYS[2 * at - 1], tonumber(ARGV[3 * at + 2])
  local most_usd, most_tokens = tonumber(ARGV[3 * at + 3]), tonumber(ARGV[3 * at + 4])
  local start = open(book, KEYS[2 * at], window)
  local much = most_usd >= 0 and number(book, 'usd') + number(book, 'held_usd') + usd > most_usd
  local many = most_tokens >= 0 and number(book, 'tokens') + number(book, 'held_tokens') + tokens > most_tokens
  if (much or many) and full == 0 and not again then full = at end
  states[at] = state(book, start, window)
end
if full == 0 and not again then
  for at = 1, #KEYS / 2 do
    local book, holds = KEYS[2 * at - 1], KEYS[2 * at]
    redis.call('ZADD', holds, string.format('%.0f', now + lease), member)
    local window = tonumber(ARGV[3 * at + 2])
    if window > 0 then redis.call('PEXPIREAT', holds, string.format('%.0f', now + window * 1000 + 60000)) end
    add(book, 'held_usd', usd)
    add(book, 'held_tokens', tokens)
  end
end
return {full, states}
"""
)
# ARGV: hold as it is in the sets ("" for none), its usd and tokens, then usd and tokens spent, window and start of each account.
# A request that began in an earlier window is not counted in this one. Returns the state of each account.
_SETTLE = (
    _OPEN
    + """
local states = {}
local again = ARGV[1] ~= '' and not redis.call('SET', KEYS[1] .. ':settled:' .. ARGV[1], '1', 'NX', 'EX', '60')
for at = 1, #KEYS / 2 do
  local book, holds = KEYS[2 * at - 1], KEYS[2 * at]
  local usd, tokens, window, began = ARGV[4 * at], ARGV[4 * at + 1], tonumber(ARGV[4 * at + 2]), tonumber(ARGV[4 * at + 3])
  local start = open(book, holds, window)
  if start == began and not again then
    if redis.call('ZREM', holds, ARGV[1]) == 1 then
      add(book, 'held_usd', -ARGV[2])
      add(book, 'held_tokens', -ARGV[3])
    end
    add(book, 'usd', usd)
    add(book, 'tokens', tokens)
  end
  states[at] = state(book, start, window)
end
return states
"""
)


class RedisStore:
    """A `budgets.Store`. While Redis is disconnected it continues in memory with the last known state, and adds the charges to
    Redis after the reconnect."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link
        self._alone = MemoryStore()
        self._owed: dict[tuple[Account, int], Amount] = {}
        if link.client is not None:
            self._reserve = link.client.register_script(_RESERVE)
            self._settle = link.client.register_script(_SETTLE)
            link.on_return(self._pay)

    async def reserve(self, id: str, accounts: Sequence[Account], amount: Amount, lease_ms: int) -> Hold | Standing:
        limits = [value for account in accounts for value in _limits(account)]
        arguments = [id, amount.nano_usd, amount.tokens, lease_ms, *limits]
        if (reply := await self._run(self._reserve, accounts, arguments)) is None:
            return await self._alone.reserve(id, accounts, amount, lease_ms)
        full, states = reply
        starts = self._learned(accounts, states)
        if full:
            return _standing(accounts[full - 1], states[full - 1])
        return Hold(id, tuple(accounts), amount, starts, shared=True)

    async def settle(self, hold: Hold, spent: Amount) -> None:
        if not hold.shared:
            await self._alone.settle(hold, spent)
        if not hold.shared or not await self._settled(hold, spent):
            self._owe(hold, spent)
        if self._owed and self._link.connected:
            with suppress(Exception):  # it stays owed
                await self._pay()

    async def standings(self, accounts: Sequence[Account]) -> list[Standing]:
        """Settles an empty hold, which only reads the accounts."""
        nothing = Hold("", tuple(accounts), NOTHING, (-1,) * len(accounts))
        if (states := await self._run(self._settle, accounts, _settlement(nothing, NOTHING))) is not None:
            return [_standing(account, state) for account, state in zip(accounts, states, strict=True)]
        return await self._alone.standings(accounts)

    async def _settled(self, hold: Hold, spent: Amount) -> bool:
        states = await self._run(self._settle, hold.accounts, _settlement(hold, spent))
        if states is None:
            return False
        self._learned(hold.accounts, states)
        return True

    async def _run(self, script: Any, accounts: Sequence[Account], arguments: Sequence[object]) -> Any:
        """None when Redis is disconnected. While it is connected, a failed script is sent again; the scripts are idempotent."""
        while accounts and await self._link.ready():
            try:
                return await _send(script, accounts, arguments)
            except Exception as error:  # redis-py's ConnectionError and TimeoutError are not Python's
                if type(error).__name__ not in ("ConnectionError", "TimeoutError"):
                    _log.warning("Redis rejects the budget script (%s: %s); this worker counts alone", type(error).__name__, error)
                    return None
                await self._link.doubt()
        return None

    def _learned(self, accounts: Sequence[Account], states: Sequence[Sequence[bytes]]) -> tuple[int, ...]:
        for account, state in zip(accounts, states, strict=True):
            self._alone.learn(account, int(state[0]), Amount(int(state[1]), int(state[2])))
        return tuple(int(state[0]) for state in states)

    def _owe(self, hold: Hold, spent: Amount) -> None:
        for account, start in zip(hold.accounts, hold.starts, strict=True):
            if (account, start) in self._owed or len(self._owed) < _MOST_OWED:
                before = self._owed.get((account, start), NOTHING)
                self._owed[account, start] = Amount(before.nano_usd + spent.nano_usd, before.tokens + spent.tokens)

    async def _pay(self) -> None:
        """Adds the charges made without Redis to the windows in which they were made."""
        while self._owed:
            (account, start), spent = self._owed.popitem()
            hold = Hold("", (account,), NOTHING, (start,))
            try:
                await _send(self._settle, hold.accounts, _settlement(hold, spent))
            except Exception:
                self._owe(hold, spent)
                raise


async def _send(script: Any, accounts: Sequence[Account], arguments: Sequence[object]) -> Any:
    keys = [_PREFIX + account.key + part for account in accounts for part in ("", ":holds")]
    return await with_timeout(script(keys=keys, args=arguments))


def _limits(account: Account) -> tuple[int, int, int]:
    limit = account.limit
    usd = -1 if limit.max_nano_usd is None else limit.max_nano_usd
    return limit.window or 0, usd, -1 if limit.max_tokens is None else limit.max_tokens


def _settlement(hold: Hold, spent: Amount) -> list[object]:
    """The script's arguments."""
    member = f"{hold.id}:{hold.amount.nano_usd}:{hold.amount.tokens}" if hold.id else ""
    of_each = [
        value
        for account, start in zip(hold.accounts, hold.starts, strict=True)
        for value in (spent.nano_usd, spent.tokens, account.limit.window or 0, start)
    ]
    return [member, hold.amount.nano_usd, hold.amount.tokens, *of_each]


def _standing(account: Account, state: Sequence[bytes]) -> Standing:
    _, usd, tokens, held_usd, held_tokens, resets = map(int, state)
    return Standing(account, Amount(usd, tokens), Amount(held_usd, held_tokens), resets if account.limit.window else None)
