"""The methods ``embed`` and ``rerank``.

Owns `run_bounded`, the order in which both run: deadline, reserve, call, receipt, settle. Refuses to know backends.
"""

from __future__ import annotations

import asyncio
import base64
import struct
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from bridge_worker.budgets.estimate import CostInputs
from bridge_worker.budgets.spending import Reservation, Spending
from bridge_worker.config.settings import Settings
from bridge_worker.core.chat_runner import with_receipt
from bridge_worker.core.exchange import Journal, noted
from bridge_worker.core.ports import (
    Backends,
    Embeddings,
    EmbedRequest,
    ModelServices,
    Params,
    Ranking,
    RequestContext,
    RerankRequest,
)
from bridge_worker.core.progress import Progress, note_progress
from bridge_worker.core.receipt import Receipt
from bridge_worker.errors import MAX_NAME_LENGTH, BridgeError, cancelled_error
from bridge_worker.methods.params import check_provider_params, validate
from bridge_worker.schema.chat_result import Receipt as WireReceipt
from bridge_worker.schema.embed_rerank import EmbedParams, EmbedResult, RankedDocument, RerankParams, RerankResult

M = TypeVar("M", Embeddings, Ranking)


class EmbedRerank:
    def __init__(
        self, backends: Backends, settings: Callable[[], Settings], spending: Spending, journal: Journal | None = None
    ) -> None:
        self._backends = backends
        self._settings = settings
        self._spending = spending
        self._journal = journal

    async def embed(self, context: RequestContext, params: Params) -> EmbedResult:
        settings = self._settings()
        valid = validate(params, EmbedParams, settings.image_policy)
        check_provider_params(params, settings)
        options = {name: params[name] for name in ("dimensions", "user") if params.get(name) is not None}
        texts = [valid.input] if isinstance(valid.input, str) else valid.input
        receipt = Receipt(requested_model=valid.model[:MAX_NAME_LENGTH])
        request = EmbedRequest(valid.model, texts, receipt, options | (valid.provider_params or {}))

        async def call(services: ModelServices) -> Embeddings:
            request.ends = context.received + self._total_ms(valid) / 1000
            return await services.embed(request)

        async def run() -> EmbedResult:
            embeddings = await self.run_bounded(valid, texts, receipt, context.received, call)
            in_base64 = valid.encoding_format == "base64"
            vectors = [_in_base64(vector) if in_base64 else vector for vector in embeddings.vectors]
            return EmbedResult(embeddings=vectors, **_common_members(embeddings, receipt))

        return await noted(self._journal.embed(request, context.received) if self._journal else None, run())

    async def rerank(self, context: RequestContext, params: Params) -> RerankResult:
        settings = self._settings()
        valid = validate(params, RerankParams, settings.image_policy)
        check_provider_params(params, settings)
        options = {"top_n": valid.top_n} if valid.top_n is not None else {}
        receipt = Receipt(requested_model=valid.model[:MAX_NAME_LENGTH])
        request = RerankRequest(valid.model, valid.query, valid.documents, receipt, options | (valid.provider_params or {}))

        async def call(services: ModelServices) -> Ranking:
            request.ends = context.received + self._total_ms(valid) / 1000
            return await services.rerank(request)

        async def run() -> RerankResult:
            ranking = await self.run_bounded(valid, [valid.query, *valid.documents], receipt, context.received, call)
            shown = valid.documents if valid.return_documents else [None] * len(valid.documents)
            results = [
                RankedDocument(index=index, score=score, document=shown[index]) for index, score in ranking.best(valid.top_n)
            ]
            return RerankResult(results=results, **_common_members(ranking, receipt))

        return await noted(self._journal.rerank(request, context.received) if self._journal else None, run())

    async def run_bounded(
        self,
        params: EmbedParams | RerankParams,
        texts: list[str],
        receipt: Receipt,
        received: float,
        call: Callable[[ModelServices], Awaitable[M]],
    ) -> M:
        """Raises BridgeError, with the receipt; also when the task is cancelled. Waiting for the backend counts against the
        deadline."""
        total_ms = self._total_ms(params)
        reservation = self._reservation(params, texts, total_ms)
        try:
            async with asyncio.timeout(total_ms / 1000 - (time.monotonic() - received)):
                services = await self._backends.services(params.model)
                await reservation.reserve(self._backends.services)
                note_progress(Progress.HANDED_OVER)
                result = await call(services)
        except TimeoutError:
            error = _late(params.model, total_ms)
        except asyncio.CancelledError:
            error = cancelled_error(upstream_closed=True)
        except BridgeError as raised:
            error = raised
        except Exception:  # an internal error of the bridge, at an unknown point of the call
            await reservation.settle(None, None)
            raise
        else:
            await reservation.settle(result.usage.model_dump() if result.usage else None, result.cost.usd if result.cost else None)
            return result
        await reservation.settle_failed(with_receipt(error, receipt))
        raise error

    def _total_ms(self, params: EmbedParams | RerankParams) -> int:
        return (params.deadlines and params.deadlines.total_ms) or self._settings().deadline_total_ms

    def _reservation(self, params: EmbedParams | RerankParams, texts: list[str], total_ms: int) -> Reservation:
        messages = [{"role": "user", "content": text} for text in texts]
        ranks = isinstance(params, RerankParams)
        return self._spending.reservation(
            params.metadata,
            CostInputs(params.model, total_ms, messages, output_tokens=0, ranks=ranks),
            None if params.task is None else params.task.model_dump(),
        )


def _late(model: str, total_ms: int) -> BridgeError:
    late = f"the model did not respond within total_ms = {total_ms} ms; raise it in deadlines, or try again"
    return BridgeError("timeout", late, model=model, extra={"deadline": "total_ms"})


def _common_members(result: Embeddings | Ranking, receipt: Receipt) -> dict[str, Any]:
    receipt.served_model = result.model
    usd, source, date = result.cost or (None, None, None)
    return {
        "usage": result.usage,
        "cost_usd": usd,
        "cost_source": source,
        "price_map_date": date,
        "model": result.model,
        "requested_model": receipt.requested_model,
        "provider": result.provider,
        "receipt": WireReceipt.model_validate(receipt.wire()),
    }


def _in_base64(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")
