"""Runs one chat on a model to the end of the response, within its deadlines.

Owns the error of a request that is cancelled, passes a deadline, or fails in the model. Refuses to know the wire message around a
delta.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

from bridge_worker.core.accumulator import ChatAccumulator, WireDelta
from bridge_worker.core.deadlines import DeadlineTimer
from bridge_worker.core.ports import ChatModel, ChatRequest, Facts
from bridge_worker.core.progress import Progress, note_progress
from bridge_worker.core.receipt import Receipt
from bridge_worker.errors import BridgeError

# When a provider's whole response has arrived, LiteLLM parses it without ever waiting: half a second for 1,000 chunks, in which the
# loop reads no other request and no cancel. So a chat yields to the loop this often.
_YIELD_SECONDS = 0.001

Emit = Callable[[list[WireDelta]], Awaitable[None]]
FindModel = Callable[[str], Awaitable[ChatModel]]
BeforeSend = Callable[[], Awaitable[None]]


async def _nothing() -> None:
    pass


async def run_chat(
    request: ChatRequest, find_model: FindModel, emit: Emit | None = None, *, before_send: BeforeSend = _nothing
) -> dict[str, Any]:
    """Runs the request on the model that ``find_model`` returns for its name. Waiting for the model counts against the deadlines.

    The result is the plain object that is sent, with the members of `schema.chat_result.ChatResult`. ``before_send`` runs once the
    model is found, and may raise BridgeError to reject the request. ``emit`` gets the deltas of each read and may wait, which slows
    the model down.

    Raises BridgeError with the receipt; after the first delta the error has ``partial``. A cancelled task raises BridgeError
    ``cancelled``.
    """
    try:
        return await _run(request, find_model, emit, before_send)
    except BridgeError as error:
        with_receipt(error, request.receipt)
        raise


def with_receipt(error: BridgeError, receipt: Receipt) -> BridgeError:
    """``error``, with the outcome of its request added."""
    last = receipt.attempts[-1] if receipt.attempts else None
    # The attempt was sent but its response is not used; and the backend sees a passed deadline as a cancel.
    if last and last.outcome in ("ok", "cancelled"):
        last.outcome = error.kind
    error.extra["receipt"] = receipt.wire()
    return error


async def _run(request: ChatRequest, find_model: FindModel, emit: Emit | None, before_send: BeforeSend) -> dict[str, Any]:
    accumulator = ChatAccumulator(request)
    clock, yielder = DeadlineTimer(request), _LoopYielder()
    try:
        async with asyncio.timeout(None) as timer:
            clock.start(timer)
            model = await find_model(request.model)
            await before_send()
            note_progress(Progress.HANDED_OVER)
            accumulator.start()
            async with aclosing(model.chat(request)) as steps:
                async for step in steps:
                    clock.check()
                    if isinstance(step, Facts):
                        accumulator.facts = step
                        continue
                    wire = accumulator.add(step)
                    if wire and emit is not None:
                        clock.pause(timer)
                        await emit(wire)
                    await yielder.yield_if_due()
                    if request.stream:
                        clock.expect_next(timer, accumulator.first_token)
        clock.stop()  # a slow client may hold the last delta beyond the deadline: the timeout is over then
        last = accumulator.finish()
        if last and emit is not None:
            await emit([last])
        return accumulator.result()
    except TimeoutError:
        late = f"the model did not respond within {clock.deadline} = {clock.limit_ms} ms; raise it in deadlines, or try again"
        raise accumulator.fault("timeout", late, deadline=clock.deadline) from None
    except asyncio.CancelledError:
        raise accumulator.fault(
            "cancelled", "cancelled before it was finished", upstream_closed=not request.upstream_open
        ) from None
    except BridgeError as error:
        error.model, error.provider = error.model or request.model, error.provider or accumulator.provider
        if accumulator.first_token is not None or error.kind in ("stream_interrupted", "bad_upstream_response"):
            error.extra.setdefault("partial", accumulator.partial())
        raise
    finally:
        clock.stop()


class _LoopYielder:
    """Yields to the event loop when this task has run for `_YIELD_SECONDS`."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    async def yield_if_due(self) -> None:
        if time.monotonic() - self._began > _YIELD_SECONDS:
            await asyncio.sleep(0)
            self._began = time.monotonic()
