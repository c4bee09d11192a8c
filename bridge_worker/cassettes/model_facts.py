"""Backends that note the facts of each model that is used, so that a replay knows its limits and prices.

Owns the line of a model in a cassette: once for each process. Refuses to delay a request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from bridge_worker.cassettes.writer import Writer
from bridge_worker.core.ports import Backends, ChatModel, ModelServices
from bridge_worker.errors import BridgeError
from bridge_worker.protocol.framing import encode
from bridge_worker.schema.models import ModelSummary

_MAX_MODELS = 1_000


class NotingModels:
    """`Backends`, around others."""

    def __init__(self, inner: Backends, writers: Sequence[Writer]) -> None:
        self._inner = inner
        self._writers = writers
        self._known: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def chat_model(self, name: str) -> ChatModel:
        model = await self._inner.chat_model(name)
        self._note(name)
        return model

    async def services(self, name: str) -> ModelServices:
        services = await self._inner.services(name)
        self._note(name)
        return services

    async def list_models(self, *, every: bool) -> list[ModelSummary]:
        return await self._inner.list_models(every=every)

    def _note(self, name: str) -> None:
        if name not in self._known and len(self._known) < _MAX_MODELS:
            self._known.add(name)
            task = asyncio.get_running_loop().create_task(self._describe(name))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _describe(self, name: str) -> None:
        try:
            services = await self._inner.services(name)
            info = await asyncio.to_thread(services.describe, name)
        except BridgeError:
            return  # a model that no backend serves: its exchange has the error
        line = encode({"model": name, "info": info.model_dump()})
        for writer in self._writers:
            writer.model(line)
