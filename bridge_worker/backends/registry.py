"""Finds the backend of a model by its name: ``offline/...``, ``local/...``, or LiteLLM for every other.

Owns the prefixes. Refuses to load LiteLLM itself: it awaits the given function. A lookup has no side effect.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from bridge_worker.backends.local.chat import Local
from bridge_worker.backends.local.services import LocalServices
from bridge_worker.backends.offline.chat import PREFIX as OFFLINE
from bridge_worker.backends.offline.chat import Offline
from bridge_worker.backends.offline.services import OfflineServices
from bridge_worker.config.local_models import PREFIX as LOCAL
from bridge_worker.core.ports import ChatModel, ModelServices
from bridge_worker.schema.models import ModelSummary


class Backend(NamedTuple):
    chat_model: ChatModel
    services: ModelServices


class Registry:
    """A `core.ports.Backends`. ``litellm`` waits until LiteLLM is loaded; ``is_configured`` is true when a gateway's config names
    the models. ``only_offline``: a local model is found like one of LiteLLM's."""

    def __init__(
        self,
        local: Local,
        litellm: Callable[[], Awaitable[Backend]],
        is_configured: Callable[[], bool] = lambda: False,
        *,
        only_offline: bool = False,
    ) -> None:
        self._offline = Backend(Offline(), OfflineServices())
        self._local = Backend(local, LocalServices(local))
        self._litellm = litellm
        self._is_configured = is_configured
        self._only_offline = only_offline

    async def chat_model(self, name: str) -> ChatModel:
        return (await self._backend(name)).chat_model

    async def services(self, name: str) -> ModelServices:
        return (await self._backend(name)).services

    async def list_models(self, *, every: bool) -> list[ModelSummary]:
        rows = [row for backend in (self._offline, self._local) for row in backend.services.names(every=True)]
        if every or self._is_configured():
            services = (await self._litellm()).services
            rows += await asyncio.to_thread(services.names, every=every)
        return rows

    async def _backend(self, name: str) -> Backend:
        if name.startswith(OFFLINE):
            return self._offline
        return self._local if name.startswith(LOCAL) and not self._only_offline else await self._litellm()
