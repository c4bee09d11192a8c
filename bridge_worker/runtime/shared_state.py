"""State that all engines of a worker share: budgets, tasks, requests and tokens a minute, the client's keys, fault cards' counters.

Owns both ends of the calls for it: an engine's stores, and the server process that has the values. Refuses to know how a call
travels. Without engines, each part is in the worker's one process.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from bridge_worker.budgets import usage_counts
from bridge_worker.budgets.remote_store import Call, RemoteStore, StoreService
from bridge_worker.budgets.store import Store
from bridge_worker.budgets.tasks import PREFIX as OF_TASKS
from bridge_worker.budgets.tasks import RemoteTasks, Tasks, TaskService
from bridge_worker.cassettes import counters
from bridge_worker.core.credentials import CredentialSource
from bridge_worker.runtime.remote_credentials import PREFIX as OF_CREDENTIALS
from bridge_worker.runtime.remote_credentials import CredentialService, RemoteCredentials


class SharedState(NamedTuple):
    """None: the process has it itself."""

    budgets: Store | None = None
    tasks: Tasks | None = None
    usage: usage_counts.UsageStore | None = None
    fault_counters: counters.Counters | None = None
    credentials: CredentialSource | None = None


def remote_state(call: Call) -> SharedState:
    """That of an engine. ``call`` reaches the server process."""
    usage, faults = usage_counts.RemoteUsage(call), counters.RemoteCounters(call)
    return SharedState(RemoteStore(call), RemoteTasks(call), usage, faults, RemoteCredentials(call))


class SharedStateService:
    """The server process's side. ``credentials`` reaches the client."""

    def __init__(self, credentials: CredentialSource) -> None:
        self._credentials = CredentialService(credentials)
        self._budgets = StoreService()
        self._tasks = TaskService()
        self._usage = usage_counts.UsageCounts()
        self._fault_counters = counters.LocalCounters()

    async def serve(self, engine: int, call: Mapping[str, Any]) -> object:
        """``engine`` is the number of the caller. Raises ValueError for an unknown call."""
        name = call["name"]
        if name == counters.CALL:
            return await self._fault_counters.serve(call)
        if name in (usage_counts.ADMIT, usage_counts.SPEND):
            return await self._usage.serve(call)
        if name.startswith(OF_CREDENTIALS):
            return await self._credentials.serve(engine, call)
        if name.startswith(OF_TASKS):
            return await self._tasks.serve(engine, call)
        return await self._budgets.serve(engine, call)

    async def engine_lost(self, engine: int) -> None:
        await self._budgets.engine_lost(engine)
        await self._tasks.engine_lost(engine)
        self._credentials.engine_lost(engine)
