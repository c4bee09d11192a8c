"""One chat: drives a model to the end of its answer, within its deadlines.

Owns the clocks of a request, and what becomes of it when they run out, when it is cancelled, or when the model fails. Refuses to
know what a message on the wire looks like around a delta.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

from bridge_worker.core.accumulator import Answer
from bridge_worker.core.deadlines import DeadlineTimer
from bridge_worker.core.ports import ChatRequest, Model
from bridge_worker.errors import BridgeError
from bridge_worker.schema.chat_result import ChatResult, Receipt

# A provider's whole answer may be here already, and LiteLLM then takes it apart without ever waiting: half a second for 1,000
# chunks in which no other request is heard, nor a cancel of this one. So others get a turn this often.
_TURN_SECONDS = 0.001

Emit = Callable[[dict[str, Any]], Awaitable[None]]
FindModel = Callable[[str], Awaitable[Model]]
BeforeSend = Callable[[], Awaitable[None]]


async def run_chat(
    request: ChatRequest, find_model: FindModel, emit: Emit | None = None, *, before_send: BeforeSend | None = None
) -> ChatResult:
    """Runs the request on the model that ``find_model`` returns for its name. Waiting for the model counts against the deadlines.

    ``before_send`` runs once the model is found, and may raise BridgeError to refuse the request. ``emit`` gets each delta in
    OpenAI's shape and may wait, which slows the model down.

    Raises BridgeError, with the receipt; one that comes after the first delta has ``partial``. A cancelled task raises BridgeError
    ``cancelled``.
    """
    try:
        return await _run(request, find_model, emit, before_send)
    except BridgeError as error:
        with_receipt(error, request.receipt)
        raise


def with_receipt(error: BridgeError, receipt: Receipt) -> BridgeError:
    """``error``, told what became of its request."""
    last = receipt.attempts[-1] if receipt.attempts else None
    if last and last.outcome in ("ok", "cancelled"):  # well sent, and of no use; and to the model a deadline is a cancel
        last.outcome = error.kind
    error.extra["receipt"] = receipt.model_dump()
    return error


async def _run(request: ChatRequest, find_model: FindModel, emit: Emit | None, before_send: BeforeSend | None) -> ChatResult:
    answer = Answer(request)
    clock, turn = DeadlineTimer(request), _Turn()
    try:
        async with asyncio.timeout(None) as timer:
            clock.start(timer)
            model = await find_model(request.model)
            if before_send is not None:
                await before_send()
            answer.start()
            async with aclosing(model.chat(request)) as deltas:
                async for delta in deltas:
                    wire = answer.add(delta)
                    if wire and emit is not None:
                        clock.pause(timer)
                        await emit(wire)
                    await turn.share()
                    if request.stream:
                        clock.expect_next(timer, answer.first_token)
        last = answer.finish()
        if last and emit is not None:
            await emit(last)
        return answer.result()
    except TimeoutError:
        late = f"the model did not answer within {clock.deadline} = {clock.limit_ms} ms; raise it in deadlines, or try again"
        raise answer.fault("timeout", late, deadline=clock.deadline) from None
    except asyncio.CancelledError:
        raise answer.fault("cancelled", "cancelled before it was finished", upstream_closed=not request.upstream_open) from None
    except BridgeError as error:
        error.model, error.provider = error.model or request.model, error.provider or answer.provider
        if answer.first_token is not None or error.kind in ("stream_interrupted", "bad_upstream_response"):
            error.extra.setdefault("partial", answer.partial())
        raise
    finally:
        clock.stop()


class _Turn:
    """How long this task has kept the loop to itself."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    async def share(self) -> None:
        if time.monotonic() - self._began > _TURN_SECONDS:
            await asyncio.sleep(0)
            self._began = time.monotonic()
