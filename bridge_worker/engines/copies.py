"""Values of which each engine has a copy: an engine's writes go to the server process, which sends them to the other engines.

Owns the unsent writes, and in the server process the values that an engine receives when it starts. Reads are an engine's own, in
memory and without a wait. Counts are sums, so that concurrent ones add up; of other values the last write remains. Refuses to know
what a value means.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

JOIN, WRITE = "copies/join", "copies/write"
_SOON_SECONDS = 0.05  # in which writes are gathered: a busy engine sends 20 times a second, not with each chat
_MAX_VALUES = 10_000
_MAX_VALUE_BYTES = 64 * 1024

Call = Callable[[str, Mapping[str, object]], Awaitable[Any]]
Push = Callable[[int, bytes], None]  # to the engine of this number


class Write(NamedTuple):
    """``value`` is a number where it ``adds``, and JSON text elsewhere. ``expires`` is of `time.monotonic`, which processes of one
    machine share."""

    space: str
    key: str
    value: Any
    expires: float
    adds: bool

    def then(self, later: Write) -> Write:
        """Both, as one write."""
        if not later.adds or self.expires <= time.monotonic():
            return later
        number = json.loads(self.value) if isinstance(self.value, str) else self.value
        if not isinstance(number, int | float):
            return later
        value = number + later.value
        return self._replace(value=value if self.adds else json.dumps(value))


class Copies:
    """An engine's side. ``call`` reaches the server process."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._unsent: dict[tuple[str, str], Write] = {}
        self._take: Callable[[Write], None] = lambda _: None
        self._sending: set[asyncio.Task[None]] = set()

    def join(self, take: Callable[[Write], None]) -> None:
        """Call it in a thread. ``take`` is called in the loop: with all values before this returns, then with each write of another
        engine."""

        async def join() -> None:
            self._take = take
            await self._call(JOIN, {})

        asyncio.run_coroutine_threadsafe(join(), self._loop).result()

    def add(self, space: str, key: str, value: float, seconds: float) -> None:
        self._write(Write(space, key, value, time.monotonic() + seconds, adds=True))

    def put(self, space: str, key: str, value: object, seconds: float, *, now: bool = False) -> None:
        """Does nothing for a value that JSON does not have: it is of one process. ``now``: without gathering further writes."""
        try:
            text = json.dumps(value)
        except (TypeError, ValueError, RuntimeError):  # the last when another thread changes it
            return
        if len(text) <= _MAX_VALUE_BYTES:
            self._write(Write(space, key, text, time.monotonic() + seconds, adds=False))
        if now:
            self._loop.call_soon_threadsafe(self._send)

    def receive(self, rows: list[list[Any]]) -> None:
        """Those of other engines, as the server process sends them."""
        for row in rows:
            self._take(Write(*row))

    def _write(self, write: Write) -> None:
        """In any thread."""
        with self._lock:
            is_first = not self._unsent
            before = self._unsent.get((write.space, write.key))
            self._unsent[write.space, write.key] = before.then(write) if before else write
        if is_first:
            self._loop.call_soon_threadsafe(self._loop.call_later, _SOON_SECONDS, self._send)

    async def flush(self) -> None:
        """Returns when the server process has all that was written."""
        with self._lock:
            rows, self._unsent = list(self._unsent.values()), {}
        if rows:
            await self._call(WRITE, {"rows": rows})

    def _send(self) -> None:
        sending = self._loop.create_task(self.flush())
        self._sending.add(sending)
        sending.add_done_callback(self._sending.discard)


class CopiesService:
    """The server process's side: it keeps the values, and passes each write to the engines that have joined."""

    def __init__(self, push: Push) -> None:
        self._push = push
        self._values: dict[tuple[str, str], Write] = {}
        self._joined: set[int] = set()

    async def serve(self, engine: int, call: Mapping[str, Any]) -> None:
        if call["name"] == JOIN:
            self._joined.add(engine)
            self._forget_expired()
            self._push(engine, _encode(list(self._values.values())))  # before the reply, on the same link
            return
        writes = [Write(*row) for row in call["rows"]]
        for write in writes:
            before = self._values.pop((write.space, write.key), None)
            self._values[write.space, write.key] = before.then(write) if before else write
        if len(self._values) > _MAX_VALUES:
            self._forget_expired()
        while len(self._values) > _MAX_VALUES:
            del self._values[next(iter(self._values))]  # the one that was written longest ago
        if others := self._joined - {engine}:
            body = _encode(writes)
            for other in others:
                self._push(other, body)

    def engine_lost(self, engine: int) -> None:
        self._joined.discard(engine)

    def _forget_expired(self) -> None:
        now = time.monotonic()
        self._values = {key: write for key, write in self._values.items() if write.expires > now}


def _encode(writes: list[Write]) -> bytes:
    return json.dumps(writes).encode()
