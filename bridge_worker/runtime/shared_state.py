"""State that all engines of a worker share: budget accounts, tasks, requests and tokens a minute, counters of fault cards, what the
Router keeps, LiteLLM's cache in memory, and the client's keys.

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
from bridge_worker.engines import copies, kept_texts
from bridge_worker.runtime.remote_credentials import PREFIX as OF_CREDENTIALS
from bridge_worker.runtime.remote_credentials import CredentialService, RemoteCredentials


class SharedState(NamedTuple):
    budgets: Store
    tasks: Tasks
    usage: usage_counts.UsageStore
    fault_counters: counters.Counters
    copies: copies.Copies
    texts: kept_texts.KeptTexts
    credentials: CredentialSource


def remote_state(call: Call) -> SharedState:
    """That of an engine. ``call`` reaches the server process. Call it in the loop that serves."""
    return SharedState(
        RemoteStore(call),
        RemoteTasks(call),
        usage_counts.RemoteUsage(call),
        counters.RemoteCounters(call),
        copies.Copies(call),
        kept_texts.KeptTexts(call),
        RemoteCredentials(call),
    )


class SharedStateService:
    """The server process's side. ``push`` sends a PUSH to the engine of that number; ``credentials`` reaches the client."""

    def __init__(self, push: copies.Push, credentials: CredentialSource) -> None:
        self._credentials = CredentialService(credentials)
        self._budgets = StoreService()
        self._tasks = TaskService()
        self._usage = usage_counts.UsageCounts()
        self._fault_counters = counters.LocalCounters()
        self._copies = copies.CopiesService(push)
        self._texts = kept_texts.TextsService()

    async def serve(self, engine: int, call: Mapping[str, Any]) -> object:
        """``engine`` is the number of the caller. Raises ValueError for an unknown call."""
        name = call["name"]
        if name == counters.CALL:
            return await self._fault_counters.serve(call)
        if name in (usage_counts.ADMIT, usage_counts.SPEND):
            return await self._usage.serve(call)
        if name in (copies.JOIN, copies.WRITE):
            await self._copies.serve(engine, call)
            return None
        if name in (kept_texts.GET, kept_texts.SET):
            return await self._texts.serve(call)
        if name.startswith(OF_CREDENTIALS):
            return await self._credentials.serve(engine, call)
        if name.startswith(OF_TASKS):
            return await self._tasks.serve(engine, call)
        return await self._budgets.serve(engine, call)

    async def engine_lost(self, engine: int) -> None:
        self._copies.engine_lost(engine)
        await self._budgets.engine_lost(engine)
        await self._tasks.engine_lost(engine)
        self._credentials.engine_lost(engine)
