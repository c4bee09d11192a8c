"""The methods beside `chat`: what there is, what it costs, whether a chat would work, embeddings, reranking, and how the worker is.

Owns what each of them means, for every model alike. Refuses to know JSON-RPC, LiteLLM and bytes. Raises BridgeError only; a
cancelled task ends at once, for what blocks has a thread of its own.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import struct
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from bridge_worker.backends.local.services import LocalServices
from bridge_worker.backends.offline.chat import PREFIX as OFFLINE
from bridge_worker.backends.offline.services import OfflineServices
from bridge_worker.budgets.spending import Asked, Bill, Spending
from bridge_worker.config.local_models import PREFIX as LOCAL
from bridge_worker.config.settings import Settings
from bridge_worker.core.chat_runner import with_receipt
from bridge_worker.core.ports import Embeddings, EmbedRequest, Expense, Ranking, RerankRequest, Services
from bridge_worker.core.receipt import Receipt
from bridge_worker.errors import BridgeError
from bridge_worker.methods.params import validate
from bridge_worker.schema.chat_request import ChatParams
from bridge_worker.schema.chat_result import Receipt as WireReceipt
from bridge_worker.schema.services import (
    CapabilityGap,
    ChatCheck,
    EmbedParams,
    EmbedResult,
    ModelInfo,
    ModelsGetParams,
    ModelsListParams,
    ModelsListResult,
    RankedDocument,
    RerankParams,
    RerankResult,
    TokenCount,
    TokensCountParams,
    TotalDeadline,
)

FindServices = Callable[[], Awaitable[Services]]
Params = dict[str, Any]
T = TypeVar("T")

PAGE = 100  # models a page: some 12 KB
# Members of ChatParams that need no ability of the model.
_NO_OPTIONS = {"model", "messages", "stream", "deadlines", "provider_params", "metadata"}
_PARTS = {"image_url": "vision", "input_audio": "audio_input", "file": "pdf_input"}


class InForce(NamedTuple):
    """What the operator has set, and a reload replaces. ``configured``: there is a gateway's config, whose models are listed."""

    settings: Settings
    configured: bool


class Queries:
    """``find_services`` waits for LiteLLM; ``check_provider_params`` raises for one that the operator does not allow."""

    def __init__(
        self,
        find_services: FindServices,
        local: LocalServices,
        check_provider_params: Callable[[Params], None],
        in_force: Callable[[], InForce],
        spending: Spending,
    ) -> None:
        self._find_services = find_services
        self._in_force = in_force
        self._spending = spending
        self._check_provider_params = check_provider_params
        self._offline = OfflineServices()
        self._local = local

    async def models_list(self, params: Params) -> ModelsListResult:
        asked = validate(params, ModelsListParams)
        after = _name_of(asked.cursor) if asked.cursor is not None else ""
        found = [*self._offline.names(every=True), *self._local.names(every=True)]
        if asked.all or self._in_force().configured:
            services = await self._find_services()
            found += await asyncio.to_thread(services.names, every=bool(asked.all))
        rest = sorted((row for row in found if row.model > after), key=lambda row: row.model)
        more = len(rest) > PAGE
        return ModelsListResult(models=rest[:PAGE], nextCursor=_cursor_of(rest[PAGE - 1].model) if more else None)

    async def models_get(self, params: Params) -> ModelInfo:
        model = validate(params, ModelsGetParams).model
        services = await self.services(model)
        return await asyncio.to_thread(services.describe, model)

    async def tokens_count(self, params: Params) -> TokenCount:
        model = validate(params, TokensCountParams).model
        services = await self.services(model)
        return await asyncio.to_thread(services.count, model, params["messages"], params.get("tools"))

    async def chat_check(self, params: Params) -> ChatCheck:
        asked = validate(params, ChatParams)
        self._check_provider_params(params)
        services = await self.services(asked.model)
        info = await asyncio.to_thread(services.describe, asked.model)
        count = await asyncio.to_thread(services.count, asked.model, params["messages"], params.get("tools"))
        limit = asked.max_completion_tokens or asked.max_tokens or info.limits.output_tokens
        without = _without_effect(params, info)
        drops = info.unsupported_parameters == "dropped"
        gaps = [*_gaps(params, info), *_too_long(count, info)]
        told = {gap.member for gap in gaps}
        gaps += [_refused(name) for name in without if name not in told and not drops]
        expense = Expense(count.input_tokens, limit, _writes_cache(params))
        countable = not any(_media(params))  # what a picture costs is not in the count
        return ChatCheck(
            ok=not gaps and info.key_present is not False,
            requested_model=asked.model,
            deployments=info.deployments,
            provider=info.provider,
            key_present=info.key_present,
            gaps=gaps,
            dropped=without if drops else [],
            **count.model_dump(),
            max_output_tokens=limit,
            max_cost_usd=await asyncio.to_thread(services.cost_usd, asked.model, expense) if countable else None,
        )

    async def embed(self, params: Params, received: float) -> EmbedResult:
        asked = validate(params, EmbedParams)
        self._check_provider_params(params)
        options = {name: params[name] for name in ("dimensions", "user") if params.get(name) is not None}
        texts = [asked.input] if isinstance(asked.input, str) else asked.input
        receipt = Receipt(requested_model=asked.model)
        request = EmbedRequest(asked.model, texts, receipt, options | (asked.provider_params or {}))
        bill = self._bill(asked, texts)

        async def answer() -> EmbedResult:
            services = await self.services(asked.model)
            await bill.reserve(self.services)
            made = await services.embed(request)
            in_base64 = asked.encoding_format == "base64"
            return EmbedResult(
                embeddings=[_in_base64(vector) if in_base64 else vector for vector in made.vectors],
                **_account(made, receipt),
            )

        return await bill.charge(_told(_in_time(answer, self._limit(asked.deadlines), received, asked.model), receipt))

    async def rerank(self, params: Params, received: float) -> RerankResult:
        asked = validate(params, RerankParams)
        self._check_provider_params(params)
        options = {"top_n": asked.top_n} if asked.top_n is not None else {}
        receipt = Receipt(requested_model=asked.model)
        request = RerankRequest(asked.model, asked.query, asked.documents, receipt, options | (asked.provider_params or {}))
        bill = self._bill(asked, [asked.query, *asked.documents])

        async def answer() -> RerankResult:
            services = await self.services(asked.model)
            await bill.reserve(self.services)
            made = await services.rerank(request)
            best = sorted(made.scores, key=lambda scored: (-scored[1], scored[0]))[: asked.top_n]
            shown = asked.documents if asked.return_documents else [None] * len(asked.documents)
            return RerankResult(
                results=[RankedDocument(index=index, score=score, document=shown[index]) for index, score in best],
                **_account(made, receipt),
            )

        return await bill.charge(_told(_in_time(answer, self._limit(asked.deadlines), received, asked.model), receipt))

    def _limit(self, asked: TotalDeadline | None) -> int:
        return (asked and asked.total_ms) or self._in_force().settings.deadline_total_ms

    async def services(self, model: str) -> Services:
        """Raises BridgeError."""
        if model.startswith(OFFLINE):
            return self._offline
        return self._local if model.startswith(LOCAL) else await self._find_services()

    def _bill(self, asked: EmbedParams | RerankParams, texts: list[str]) -> Bill:
        messages = [{"role": "user", "content": text} for text in texts]
        ranks = isinstance(asked, RerankParams)
        known = Asked(asked.model, self._limit(asked.deadlines), messages, output_tokens=0, ranks=ranks)
        return self._spending.bill(asked.metadata, known)


async def _in_time(work: Callable[[], Awaitable[T]], limit: int, received: float, model: str) -> T:
    passed = time.monotonic() - received
    try:
        async with asyncio.timeout(limit / 1000 - passed):
            return await work()
    except TimeoutError:
        late = f"the model did not answer within total_ms = {limit} ms; raise it in deadlines, or try again"
        raise BridgeError("timeout", late, model=model, extra={"deadline": "total_ms"}) from None


async def _told(answering: Awaitable[T], receipt: Receipt) -> T:
    """Raises BridgeError, with the receipt; also when the task is cancelled."""
    try:
        return await answering
    except asyncio.CancelledError:
        raise with_receipt(cancelled(), receipt) from None
    except BridgeError as error:
        with_receipt(error, receipt)
        raise


def cancelled() -> BridgeError:
    """What a request ends in that has nothing open any more, and of which nothing had come."""
    extra: dict[str, object] = {"upstream_closed": True, "partial": {"content": None, "tool_calls": []}}
    return BridgeError("cancelled", "cancelled before it was finished", extra=extra)


def _account(made: Embeddings | Ranking, receipt: Receipt) -> dict[str, Any]:
    """What results have in common beside what was asked for."""
    receipt.served_model = made.model
    usd, source, date = made.cost or (None, None, None)
    return {
        "usage": made.usage,
        "cost_usd": usd,
        "cost_source": source,
        "price_map_date": date,
        "model": made.model,
        "requested_model": receipt.requested_model,
        "provider": made.provider,
        "receipt": WireReceipt.model_validate(receipt.wire()),
    }


def _without_effect(params: Params, info: ModelInfo) -> list[str]:
    """The options that were given and that the model does not take."""
    if info.parameters is None:
        return []
    given = (name for name in ChatParams.model_fields if name not in _NO_OPTIONS and params.get(name) is not None)
    return [name for name in given if name not in info.parameters]


def _refused(name: str) -> CapabilityGap:
    return CapabilityGap(member=name, reason="the model has no such parameter, and the chat would be refused; leave it out")


def _gaps(params: Params, info: ModelInfo) -> Iterator[CapabilityGap]:
    supports = info.supports.model_dump()
    if info.mode not in (None, "chat", "completion", "responses"):
        yield CapabilityGap(member="model", reason=f"it is a model for {info.mode}, not for chat")
    if params.get("tools") and supports["tools"] is False:
        yield CapabilityGap(member="tools", reason="the model calls no tools")
    if (params.get("response_format") or {}).get("type") == "json_schema" and supports["json_schema"] is False:
        yield CapabilityGap(member="response_format", reason="the model does not follow a JSON Schema")
    if (params.get("thinking") or {}).get("type") in ("enabled", "adaptive") and supports["reasoning"] is False:
        yield CapabilityGap(member="thinking", reason="the model does not reason")
    for place, type in _media(params):
        if supports[_PARTS[type]] is False:
            yield CapabilityGap(member=place, reason=f"the model takes no {type}")


def _media(params: Params) -> Iterator[tuple[str, str]]:
    """(place, type) of each part that is no text."""
    for at, message in enumerate(params["messages"]):
        content = message.get("content")
        for position, part in enumerate(content if isinstance(content, list) else ()):
            if part["type"] in _PARTS:
                yield f"messages[{at}].content[{position}]", part["type"]


def _too_long(count: TokenCount, info: ModelInfo) -> Iterator[CapabilityGap]:
    limit = info.limits.context_tokens
    if limit is not None and count.input_tokens > limit:
        yield CapabilityGap(member="messages", reason=f"{count.input_tokens} tokens are more than the model's {limit}")


def _writes_cache(value: object) -> bool:
    """Whether anything is marked for the provider's prompt cache, which costs more to write than to read."""
    if isinstance(value, Mapping):
        return bool(value.get("cache_control")) or any(map(_writes_cache, value.values()))
    return isinstance(value, list) and any(map(_writes_cache, value))


def _in_base64(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")


def _cursor_of(name: str) -> str:
    return base64.urlsafe_b64encode(name.encode()).decode("ascii")


def _name_of(cursor: str) -> str:
    try:
        return base64.b64decode(cursor, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise BridgeError("invalid_request", "cursor must be a nextCursor of models/list, as it was sent") from None
