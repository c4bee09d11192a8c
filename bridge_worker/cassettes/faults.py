"""Backends in which requests meet the faults of cards, whatever model serves them.

Owns the choice of the card and what it does to a chat, an embedding, a ranking or a token count. An error comes out of the decoders
that read a provider's responses, so it is the one that the agent would get from a provider. Refuses to know the members of a card
(`config.fault_cards`) and the backend behind it.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from bridge_worker.backends.reading import ConnectionFailed, connection_fault, interrupted
from bridge_worker.backends.wire.openai_chat import OpenAIChat
from bridge_worker.cassettes.counters import Counters
from bridge_worker.cassettes.fault_deltas import Position, in_pieces
from bridge_worker.config.fault_cards import Do, FaultCard
from bridge_worker.core.deltas import Delta, End, ToolCallDelta
from bridge_worker.core.ports import (
    Backends,
    ChatModel,
    ChatRequest,
    Embeddings,
    EmbedRequest,
    Expense,
    Facts,
    ModelServices,
    Ranking,
    RerankRequest,
)
from bridge_worker.core.receipt import Attempt, EngineVersion, Receipt
from bridge_worker.errors import BridgeError
from bridge_worker.protocol.framing import encode
from bridge_worker.schema.models import ModelInfo, ModelSummary
from bridge_worker.schema.tokens import TokenCount
from bridge_worker.version import __version__

Cards = Callable[[], Sequence[FaultCard]]
_BROKEN = b'data: {"choices": [{"index": 0, "delta": {"content": \n\n'


class Faults:
    """The active cards and their counts. ``in_engine``: this process is an engine, which a card may end."""

    def __init__(self, cards: Cards, counters: Counters, *, in_engine: bool = False) -> None:
        self.cards = cards
        self._counters = counters
        self._in_engine = in_engine

    async def choose(self, method: str, model: str, *, stream: bool = False) -> FaultCard | None:
        """Counts the request on each card that it fits; the first card that is due."""
        fitting = [card for card in self.cards() if card.match.fits(method, model, stream=stream)]
        if not fitting:
            return None
        counts = await self._counters.advance([card.key for card in fitting])
        return next((card for card, count in zip(fitting, counts, strict=True) if card.match.is_due(count)), None)

    async def meet(self, method: str, model: str, receipt: Receipt | None = None) -> None:
        """Counts a request that has no deltas, and lets it meet the card that is due. Raises BridgeError; returns after a stall."""
        card = await self.choose(method, model)
        if card is None:
            return
        if card.do.action == "stall_ms":
            await asyncio.sleep((card.do.stall_ms or 0) / 1000)
            return
        if receipt is not None:
            _note_attempt(receipt, model, card)
        error = self.lose_engine(card, model) if card.do.engine_lost else early_error(card, model)
        raise error if receipt is None else _with_outcome(error, receipt)

    async def meet_count(self, model: str) -> None:
        """`meet`, for a token count, which is made without a provider and has no receipt."""
        await self.meet("tokens/count", model)

    def lose_engine(self, card: FaultCard, model: str) -> BridgeError:
        """Ends this engine process, as the system would; without engine processes the error that the client would get."""
        if self._in_engine:
            os.kill(os.getpid(), signal.SIGKILL)
        message = f"the engine process of this request ended ({card.name}); send it again"
        extra: dict[str, object] = {"sent_upstream": True, "partial": {"content": None, "tool_calls": []}}
        return BridgeError("engine_lost", message, model=model, extra=extra)


class FaultyBackends:
    """`Backends`, around others."""

    def __init__(self, inner: Backends, faults: Faults) -> None:
        self._inner = inner
        self._faults = faults

    async def chat_model(self, name: str) -> ChatModel:
        model = await self._inner.chat_model(name)
        return FaultyModel(model, self._faults) if self._faults.cards() else model

    async def services(self, name: str) -> ModelServices:
        services = await self._inner.services(name)
        return FaultyServices(services, self._faults) if self._faults.cards() else services

    async def list_models(self, *, every: bool) -> list[ModelSummary]:
        return await self._inner.list_models(every=every)


class FaultyModel:
    """A `ChatModel`."""

    def __init__(self, inner: ChatModel, faults: Faults) -> None:
        self._inner = inner
        self._faults = faults

    async def chat(self, request: ChatRequest) -> AsyncGenerator[list[Delta] | Facts, None]:
        card = await self._faults.choose("chat", request.model, stream=request.stream)
        if card is None:
            steps: AsyncGenerator[list[Delta] | Facts, None] = self._inner.chat(request)
        else:
            steps = self._meet(card, request)
        async with aclosing(steps):
            async for step in steps:
                yield step

    async def _meet(self, card: FaultCard, request: ChatRequest) -> AsyncGenerator[list[Delta] | Facts, None]:
        do = card.do
        if do.action in ("finish_reason", "tool_arguments", "empty", "trickle_ms"):
            async for step in self._changed(do, request):
                yield step
            return
        is_amid = do.is_amid and request.stream
        if not is_amid:
            _note_attempt(request.receipt, request.model, card)
            await self._meet_early(card, request)
        position, seen = Position(do), False
        async with aclosing(self._inner.chat(request)) as steps:
            async for step in steps:
                if isinstance(step, Facts):
                    yield step
                    return
                before, after = position.split(step) if is_amid else (step, None)
                if before:
                    seen = True
                    yield before
                if after is None:
                    continue
                if do.action != "stall_ms":
                    raise await self._amid_error(card, request, seen=seen)
                await asyncio.sleep((do.stall_ms or 0) / 1000)
                is_amid = False
                yield after

    async def _meet_early(self, card: FaultCard, request: ChatRequest) -> None:
        """Raises the error that comes before any content; returns after a stall."""
        if card.do.action == "stall_ms":
            await asyncio.sleep((card.do.stall_ms or 0) / 1000)
            request.receipt.attempts.clear()  # the model's own follow
            return
        raise _with_outcome(self._early_error(card, request.model), request.receipt)

    def _early_error(self, card: FaultCard, model: str) -> BridgeError:
        return self._faults.lose_engine(card, model) if card.do.engine_lost else early_error(card, model)

    async def _amid_error(self, card: FaultCard, request: ChatRequest, *, seen: bool) -> BridgeError:
        if card.do.engine_lost:
            await asyncio.sleep(0)  # the deltas before it are written
            lost = self._faults.lose_engine(card, request.model)
            lost.extra = {"sent_upstream": True, "retryable": not seen}  # the partial response is added where it is known
            return lost
        fault = interrupted(early_error(card, request.model), after_content=seen).fault
        if request.receipt.attempts:
            request.receipt.attempts[-1].outcome = fault.kind
        return fault

    async def _changed(self, do: Do, request: ChatRequest) -> AsyncIterator[list[Delta] | Facts]:
        """The model's response, with the change of the card."""
        call = _first_tool(request) if do.tool_arguments is not None else None
        async with aclosing(self._inner.chat(request)) as steps:
            async for step in steps:
                if isinstance(step, Facts):
                    if call is not None:
                        yield [Delta(tool_calls=[ToolCallDelta(0, "call_fault", call, do.tool_arguments or "")])]
                    yield replace(step, end=_changed_end(do, step.end, is_call=call is not None))
                elif do.trickle_ms is not None and request.stream:
                    for piece in in_pieces(step):
                        await asyncio.sleep(do.trickle_ms / 1000)
                        yield [piece]
                elif not do.empty and call is None:
                    yield step


class FaultyServices:
    """`ModelServices`."""

    def __init__(self, inner: ModelServices, faults: Faults) -> None:
        self._inner = inner
        self._faults = faults
        self.runs_here = inner.runs_here

    def names(self, *, every: bool) -> list[ModelSummary]:
        return self._inner.names(every=every)

    def describe(self, model: str) -> ModelInfo:
        return self._inner.describe(model)

    def count(self, model: str, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None) -> TokenCount:
        return self._inner.count(model, messages, tools)

    def cost_usd(self, model: str, expense: Expense) -> float | None:
        return self._inner.cost_usd(model, expense)

    def alternatives(self, model: str) -> list[str]:
        return self._inner.alternatives(model)

    async def embed(self, request: EmbedRequest) -> Embeddings:
        await self._faults.meet("embed", request.model, request.receipt)
        return await self._inner.embed(request)

    async def rerank(self, request: RerankRequest) -> Ranking:
        await self._faults.meet("rerank", request.model, request.receipt)
        return await self._inner.rerank(request)


def early_error(card: FaultCard, model: str) -> BridgeError:
    """The error of a provider that does this before any content."""
    do, provider = card.do, model.partition("/")[0]
    text = do.message or f"a fault on purpose ({card.name})"
    if do.status is not None:
        headers = {} if do.retry_after is None else {"retry-after": f"{do.retry_after:g}"}
        error = OpenAIChat.error(do.status, headers, encode({"error": {"message": text}}))
        error.status = do.status
    elif do.cut:
        error = connection_fault(ConnectionFailed(f"the connection was reset ({card.name})"), provider)
    else:
        event = {"error": {"type": do.error_event, "message": text}}
        error = _error_of(_BROKEN if do.broken_json else b"data: " + encode(event) + b"\n")
    error.provider, error.model = provider, model
    return error


def _error_of(event: bytes) -> BridgeError:
    """What the decoder raises for an event."""
    decoder = OpenAIChat()
    try:
        decoder.feed(event)
        decoder.flush()
        decoder.end()
    except BridgeError as error:
        return error
    raise AssertionError("an event that is an error decodes as content")


def _note_attempt(receipt: Receipt, model: str, card: FaultCard) -> None:
    receipt.engine = EngineVersion("faults", __version__, card.name)
    receipt.attempts.append(Attempt("cancelled", card.do.status, 0.0, model, model.partition("/")[0], None))


def _with_outcome(error: BridgeError, receipt: Receipt) -> BridgeError:
    receipt.attempts[-1].outcome = error.kind
    return error


def _first_tool(request: ChatRequest) -> str | None:
    tools = request.options.get("tools")
    return tools[0]["function"]["name"] if tools else None


def _changed_end(do: Do, end: End, *, is_call: bool) -> End:
    if is_call:
        return replace(end, finish_reason="tool_calls", raw_finish_reason="tool_calls")
    reason = "stop" if do.empty else do.finish_reason
    return end if reason is None else replace(end, finish_reason=reason, raw_finish_reason=reason)
