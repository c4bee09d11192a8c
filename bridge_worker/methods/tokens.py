"""The method ``tokens/count``.

Owns its params and result. Refuses to know a tokenizer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from bridge_worker.config.settings import Settings
from bridge_worker.core.exchange import Journal, noted
from bridge_worker.core.ports import Backends, Params, RequestContext
from bridge_worker.methods.params import validate
from bridge_worker.schema.tokens import TokenCount, TokensCountParams


class CountTokens:
    def __init__(self, backends: Backends, settings: Callable[[], Settings], journal: Journal | None = None) -> None:
        self._backends = backends
        self._settings = settings
        self._journal = journal

    async def __call__(self, context: RequestContext, params: Params) -> TokenCount:
        model = validate(params, TokensCountParams, self._settings().image_policy).model
        messages, tools = params["messages"], params.get("tools")

        async def run() -> TokenCount:
            services = await self._backends.services(model)
            return await asyncio.to_thread(services.count, model, messages, tools)

        return await noted(self._journal.count(model, messages, tools, context.received) if self._journal else None, run())
