"""The method ``tokens/count``.

Owns its params and result. Refuses to know a tokenizer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from bridge_worker.config.settings import Settings
from bridge_worker.core.ports import Backends, Params, RequestContext
from bridge_worker.methods.params import validate
from bridge_worker.schema.tokens import TokenCount, TokensCountParams


class CountTokens:
    def __init__(self, backends: Backends, settings: Callable[[], Settings]) -> None:
        self._backends = backends
        self._settings = settings

    async def __call__(self, context: RequestContext, params: Params) -> TokenCount:
        model = validate(params, TokensCountParams, self._settings().image_policy).model
        services = await self._backends.services(model)
        return await asyncio.to_thread(services.count, model, params["messages"], params.get("tools"))
