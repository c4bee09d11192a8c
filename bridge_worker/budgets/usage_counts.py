"""Requests and tokens of each deployment in the clock's current minute, and the one step that checks and counts a request.

Owns the counts of one process, and their calls between an engine and the server process. Refuses to know which limits a config has.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Protocol

from bridge_worker.budgets.remote_store import Call

ADMIT, SPEND = "usage/admit", "usage/spend"
_MINUTE_MS = 60_000


class UsageStore(Protocol):
    async def admit(self, deployment: str, rpm: int | None, tpm: int | None) -> int:
        """Counts a request and returns 0, or counts nothing and returns the milliseconds to the next minute."""
        ...

    async def spend(self, deployment: str, tokens: int) -> None: ...


class UsageCounts:
    """A `UsageStore` in memory."""

    def __init__(self) -> None:
        self._counts: dict[str, tuple[int, int, int]] = {}  # by deployment: the minute, its requests and tokens

    async def admit(self, deployment: str, rpm: int | None, tpm: int | None) -> int:
        minute, requests, tokens = self._count(deployment)
        if (rpm is not None and requests >= rpm) or (tpm is not None and tokens >= tpm):
            return (minute + 1) * _MINUTE_MS - int(time.time() * 1000)
        self._counts[deployment] = (minute, requests + 1, tokens)
        return 0

    async def spend(self, deployment: str, tokens: int) -> None:
        minute, requests, used = self._count(deployment)
        self._counts[deployment] = (minute, requests, used + tokens)

    async def serve(self, call: Mapping[str, Any]) -> int | None:
        """Carries out a call of `RemoteUsage`."""
        if call["name"] == ADMIT:
            return await self.admit(call["deployment"], call["rpm"], call["tpm"])
        await self.spend(call["deployment"], call["tokens"])
        return None

    def _count(self, deployment: str) -> tuple[int, int, int]:
        minute = int(time.time() // 60)
        found = self._counts.get(deployment)
        return found if found is not None and found[0] == minute else (minute, 0, 0)


class RemoteUsage:
    """A `UsageStore` in another process, which all engines of a worker share."""

    def __init__(self, call: Call) -> None:
        self._call = call

    async def admit(self, deployment: str, rpm: int | None, tpm: int | None) -> int:
        return int(await self._call(ADMIT, {"deployment": deployment, "rpm": rpm, "tpm": tpm}))

    async def spend(self, deployment: str, tokens: int) -> None:
        await self._call(SPEND, {"deployment": deployment, "tokens": tokens})
