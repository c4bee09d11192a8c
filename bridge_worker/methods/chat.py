"""The method ``chat``: params -> ChatRequest -> result.

Owns the order of a chat: validate, find the model, reserve, run, settle. Refuses to know JSON-RPC and backends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from bridge_worker.agent.cached_turn import CachedTurn, TurnCache
from bridge_worker.agent.ensure import chat_until_valid
from bridge_worker.agent.fit import DEFAULT_STRATEGY, fit_to_model
from bridge_worker.agent.response_check import ResponseCheck
from bridge_worker.budgets.estimate import CostInputs
from bridge_worker.budgets.limits import BUDGET
from bridge_worker.budgets.spending import Spending
from bridge_worker.config.settings import Settings
from bridge_worker.core.accumulator import WireDelta
from bridge_worker.core.chat_runner import Emit, run_chat, with_receipt
from bridge_worker.core.exchange import Exchange, Journal, noted
from bridge_worker.core.ports import Backends, ChatRequest, Params, RequestContext
from bridge_worker.core.receipt import Receipt
from bridge_worker.errors import MAX_NAME_LENGTH, BridgeError
from bridge_worker.methods.params import check_provider_params, validate_chat
from bridge_worker.protocol.framing import DeltaLines
from bridge_worker.schema.chat_request import OF_THE_BRIDGE, ChatParams, Deadlines

# Members that are passed to the model unchanged, besides model and messages.
_NOT_OPTIONS = {"model", "messages", "stream"} | OF_THE_BRIDGE
_OPTIONS = tuple(name for name in ChatParams.model_fields if name not in _NOT_OPTIONS)


class Chat:
    def __init__(
        self, backends: Backends, settings: Callable[[], Settings], spending: Spending, journal: Journal | None = None
    ) -> None:
        self._backends = backends
        self._settings = settings
        self._spending = spending
        self._journal = journal
        self._cache = TurnCache()
        self._known_deadlines: tuple[Settings | None, Deadlines] = (None, Deadlines())

    async def __call__(self, context: RequestContext, params: Params) -> dict[str, Any]:
        """Sends each delta as a notification, numbered from 0."""
        context.log["stream"] = params.get("stream") is True
        result = await self.run(params, context.received, _notify_deltas(context) if params.get("stream") else None)
        usage = result["usage"] or {}
        context.log |= {
            "provider": result["provider"],
            "input_tokens": usage.get("input_tokens"),
            "output_tokens": usage.get("output_tokens"),
            "cost_usd": result["cost_usd"],
        }
        return result

    async def run(self, params: Params, received: float, emit: Emit | None) -> dict[str, Any]:
        """Validates and runs one chat; ``emit`` gets its deltas when it is streamed. The result has the members of `ChatResult`.

        Raises BridgeError.
        """
        settings = self._settings()
        validate_chat(params, settings.image_policy)
        check_provider_params(params, settings)
        request = chat_request(params, received, self._deadlines(settings))
        ensured = params.get("ensure")
        check = ResponseCheck(params, tolerates=ensured is not None)
        request.keeps_arguments = ensured is not None or params.get("repair") is not None

        turn = CachedTurn(self._cache, params, request) if params.get("cache") is not None else None

        async def run(emit: Emit | None) -> dict[str, Any]:
            result = await self._run_once(params, request, emit)
            if turn is not None:
                turn.finish(result)
            return result

        if ensured is not None:
            return await chat_until_valid(request, run, check.apply, ensured["attempts"], emit)
        result = await run(emit)
        try:
            await check.apply(result)
        except BridgeError as error:
            raise with_receipt(error, request.receipt) from None
        return result

    async def _run_once(self, params: Params, request: ChatRequest, emit: Emit | None) -> dict[str, Any]:
        """One call of the model, with its reservation; an exchange where something records."""
        if self._journal is None:
            return await self._call(params, request, emit)
        exchange = self._journal.chat(request)
        return await noted(exchange, self._call(params, request, _noted_emit(exchange, emit)))

    async def _call(self, params: Params, request: ChatRequest, emit: Emit | None) -> dict[str, Any]:
        reservation = self._spending.reservation(params.get("metadata"), cost_inputs(request), params.get("task"))

        async def reserve() -> None:
            if (fit := params.get("fit")) is not None and request.receipt.fit is None:
                await self._fit(request, fit)
                reservation.change(cost_inputs(request))
            await reservation.reserve(self._backends.services)

        try:
            result = await run_chat(request, self._backends.chat_model, emit if request.stream else None, before_send=reserve)
        except BridgeError as error:
            await reservation.settle_failed(error)
            raise
        except Exception:  # an internal error of the bridge, at an unknown point of the call
            await reservation.settle(None, None)
            raise
        await reservation.settle(result["usage"], result["cost_usd"])
        return result

    async def _fit(self, request: ChatRequest, fit: str | Mapping[str, Any]) -> None:
        """Drops and shortens messages before the request is sent. The receipt names them."""
        options: Mapping[str, Any] = {"strategy": fit} if isinstance(fit, str) else fit
        output = request.options.get("max_completion_tokens") or request.options.get("max_tokens") or 0
        services = await self._backends.services(request.model)
        strategy, limit = options.get("strategy") or DEFAULT_STRATEGY, options.get("max_input_tokens")
        model, tools = request.model, request.options.get("tools")
        fitted = await asyncio.to_thread(fit_to_model, services, model, request.messages, tools, strategy, limit, output)
        request.messages, request.receipt.fit = fitted.messages, fitted.facts()

    def _deadlines(self, settings: Settings) -> Deadlines:
        """The operator's, made once for as long as the settings are active."""
        known, deadlines = self._known_deadlines
        if known is not settings:
            deadlines = Deadlines(**settings.deadlines)
            self._known_deadlines = (settings, deadlines)
        return deadlines


def _notify_deltas(context: RequestContext) -> Emit:
    lines = DeltaLines(context.id)

    async def notify_deltas(deltas: list[WireDelta]) -> None:
        await context.notify.lines(lines.encode(deltas))

    return notify_deltas


def _noted_emit(exchange: Exchange, emit: Emit | None) -> Emit | None:
    if emit is None:
        return None

    async def note_and_emit(deltas: list[WireDelta]) -> None:
        exchange.deltas(deltas)
        await emit(deltas)

    return note_and_emit


def chat_request(params: Mapping[str, Any], received: float, deadlines: Deadlines) -> ChatRequest:
    """``params`` have passed `validate`; ``deadlines`` are the defaults of those that the params leave out."""
    given = {name: value for name, value in (params.get("deadlines") or {}).items() if value is not None}
    return ChatRequest(
        model=params["model"],
        messages=params["messages"],
        options=_options(params),
        stream=bool(params.get("stream")),
        deadlines=deadlines.model_copy(update=given) if given else deadlines,
        received=received,
        receipt=Receipt(requested_model=params["model"][:MAX_NAME_LENGTH]),
    )


def cost_inputs(request: ChatRequest) -> CostInputs:
    options = request.options
    return CostInputs(
        model=request.model,
        total_ms=request.deadlines.total_ms or 0,
        messages=request.messages,
        tools=options.get("tools"),
        output_tokens=options.get("max_completion_tokens") or options.get("max_tokens"),
        streamed=request.stream,
    )


def _options(params: Mapping[str, Any]) -> dict[str, Any]:
    options = {name: params[name] for name in _OPTIONS if params.get(name) is not None}
    metadata = {name: value for name, value in options.pop("metadata", {}).items() if name != BUDGET}
    return options | ({"metadata": metadata} if metadata else {}) | (params.get("provider_params") or {})
