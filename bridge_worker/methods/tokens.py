"""The methods ``tokens/count`` and ``tokens/fit``.

Owns their params and results. Refuses to know a tokenizer, and which message is dropped first (`agent.fit`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from bridge_worker.agent.fit import fit_to_model
from bridge_worker.config.settings import Settings
from bridge_worker.core.exchange import Journal, noted
from bridge_worker.core.ports import Backends, Params, RequestContext
from bridge_worker.methods.params import validate
from bridge_worker.schema.fit import TokensFitParams
from bridge_worker.schema.tokens import TokenCount, TokensCountParams


class CountTokens:
    """``before`` gets the model of each count, and may raise BridgeError."""

    def __init__(
        self,
        backends: Backends,
        settings: Callable[[], Settings],
        journal: Journal | None = None,
        before: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        self._backends = backends
        self._settings = settings
        self._journal = journal
        self._before = before

    async def __call__(self, context: RequestContext, params: Params) -> TokenCount:
        model = validate(params, TokensCountParams, self._settings().image_policy).model
        messages, tools = params["messages"], params.get("tools")

        async def run() -> TokenCount:
            if self._before is not None:
                await self._before(model)
            services = await self._backends.services(model)
            return await asyncio.to_thread(services.count, model, messages, tools)

        return await noted(self._journal.count(model, messages, tools, context.received) if self._journal else None, run())

    async def fit(self, context: RequestContext, params: Params) -> dict[str, Any]:
        valid = validate(params, TokensFitParams, self._settings().image_policy)
        services = await self._backends.services(valid.model)
        fitted = await asyncio.to_thread(
            fit_to_model, services, valid.model, params["messages"], params.get("tools"), valid.strategy, valid.max_input_tokens
        )
        return fitted.facts() | {"messages": fitted.messages}
