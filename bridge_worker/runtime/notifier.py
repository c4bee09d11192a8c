"""Sends the notifications of one request to the client.

Owns the wait for a client that reads slowly. Refuses to know what a notification means.
"""

from __future__ import annotations

from typing import Any

from bridge_worker.protocol.framing import encode
from bridge_worker.protocol.transport import Transport

# A stream waits while this much is unread, so that its provider waits too: some 2,000 deltas.
DELTA_QUEUE_BYTES = 256 * 1024


class Notifier:
    """`Notify` for one request. Sends nothing after `close`: a slow cancel gets its response early."""

    __slots__ = ("_is_open", "_pipe")

    def __init__(self, pipe: Transport) -> None:
        self._pipe = pipe
        self._is_open = True

    def close(self) -> None:
        """The request has its response."""
        self._is_open = False

    async def __call__(self, method: str, params: dict[str, Any]) -> None:
        await self.lines([encode({"jsonrpc": "2.0", "method": method, "params": params})])

    async def lines(self, lines: list[bytes]) -> None:
        if not self._is_open:
            return
        for line in lines:
            self._pipe.write(line)
        await self._pipe.drained(DELTA_QUEUE_BYTES)

    def relay(self, lines: bytes) -> None:
        """Writes whole lines; never waits."""
        if self._is_open:
            self._pipe.write(lines)
