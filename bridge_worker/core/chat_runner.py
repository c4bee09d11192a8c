"""One chat: drives a model to the end of its answer, within its deadlines.

Owns the clocks of a request, and what becomes of it when they run out, when it is cancelled, or when the model fails. Refuses to
know what a message on the wire looks like around a delta.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any

from bridge_worker.budgets.limits import BUDGET
from bridge_worker.config.settings import DEFAULTS
from bridge_worker.core.accumulator import Answer, WireDelta
from bridge_worker.core.ports import ChatRequest, Facts, Model
from bridge_worker.core.receipt import Receipt
from bridge_worker.errors import BridgeError
from bridge_worker.schema.chat_request import ChatParams, Deadlines

DEFAULT_DEADLINES = Deadlines(**DEFAULTS.deadlines)

# A provider's whole answer may be here already, and LiteLLM then takes it apart without ever waiting: half a second for 1,000
# chunks in which no other request is heard, nor a cancel of this one. So others get a turn this often.
_TURN_SECONDS = 0.001

# What goes to the model as the caller wrote it, beside model and messages.
_NOT_OPTIONS = {"model", "messages", "stream", "deadlines", "provider_params"}
_OPTIONS = tuple(name for name in ChatParams.model_fields if name not in _NOT_OPTIONS)

Emit = Callable[[list[WireDelta]], Awaitable[None]]
Find = Callable[[str], Awaitable[Model]]


def chat_request(params: Mapping[str, Any], received: float, deadlines: Deadlines = DEFAULT_DEADLINES) -> ChatRequest:
    """``params`` must have passed `validation.validate`; ``deadlines`` are for those that it does not name."""
    given = {name: value for name, value in (params.get("deadlines") or {}).items() if value is not None}
    return ChatRequest(
        model=params["model"],
        messages=params["messages"],
        options=_options(params),
        stream=bool(params.get("stream")),
        deadlines=deadlines.model_copy(update=given) if given else deadlines,
        received=received,
        receipt=Receipt(requested_model=params["model"]),
    )


def _options(params: Mapping[str, Any]) -> dict[str, Any]:
    options = {name: params[name] for name in _OPTIONS if params.get(name) is not None}
    metadata = {name: value for name, value in options.pop("metadata", {}).items() if name != BUDGET}
    return options | ({"metadata": metadata} if metadata else {}) | (params.get("provider_params") or {})


async def run_chat(request: ChatRequest, find: Find, emit: Emit | None = None) -> dict[str, Any]:
    """Drives the model that ``find`` returns for a name to the end of its answer; waiting for the model is on the clock too.

    The result is the plain object that is sent, with the members of `schema.chat_result.ChatResult`. ``emit`` gets the deltas of
    each read and may wait, which slows the model down.

    Raises BridgeError, with the receipt; one that comes after the first delta has ``partial``. A cancelled task raises BridgeError
    ``cancelled``.
    """
    try:
        return await _run(request, find, emit)
    except BridgeError as error:
        with_receipt(error, request.receipt)
        raise


def with_receipt(error: BridgeError, receipt: Receipt) -> BridgeError:
    """``error``, told what became of its request."""
    last = receipt.attempts[-1] if receipt.attempts else None
    if last and last.outcome in ("ok", "cancelled"):  # well sent, and of no use; and to the model a deadline is a cancel
        last.outcome = error.kind
    error.extra["receipt"] = receipt.wire()
    return error


async def _run(request: ChatRequest, find: Find, emit: Emit | None) -> dict[str, Any]:
    answer = Answer(request)
    clock, turn = _Clock(request), _Turn()
    try:
        async with asyncio.timeout(None) as timer:
            clock.start(timer)
            model = await find(request.model)
            answer.start()
            async with aclosing(model.chat(request)) as steps:
                async for step in steps:
                    if isinstance(step, Facts):
                        answer.facts = step
                        continue
                    wire = answer.add(step)
                    if wire and emit is not None:
                        clock.pause(timer)
                        await emit(wire)
                    await turn.share()
                    if request.stream:
                        clock.expect_next(timer, answer.first_token)
        last = answer.finish()
        if last and emit is not None:
            await emit([last])
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


class _Clock:
    """Which deadline is the next one. Most are moved, twice a delta, long before they come, so the loop's timer is left as it is
    until it rings, and then set to what has become of it: a fifth of what it costs to move an `asyncio.timeout`."""

    def __init__(self, request: ChatRequest) -> None:
        self._loop = asyncio.get_running_loop()
        limits = request.deadlines
        passed = time.monotonic() - request.received
        now = self._loop.time()
        self._limits = {"total_ms": limits.total_ms, "first_token_ms": limits.first_token_ms, "idle_ms": limits.idle_ms}
        self._total = _at(now - passed, limits.total_ms)
        self._first = _at(now - passed, limits.first_token_ms) if request.stream else float("inf")
        self._idle = limits.idle_ms
        self.deadline = "total_ms"
        self._when = float("inf")
        self._bell: asyncio.TimerHandle | None = None
        self._rung = False

    @property
    def limit_ms(self) -> int | None:
        return self._limits[self.deadline]

    def start(self, timer: asyncio.Timeout) -> None:
        self._set(timer, "first_token_ms", self._first)

    def pause(self, timer: asyncio.Timeout) -> None:
        """The caller reads slowly: that is no silence of the provider's."""
        self._set(timer, "total_ms", self._total)

    def expect_next(self, timer: asyncio.Timeout, first_token: float | None) -> None:
        if first_token is None:
            self._set(timer, "first_token_ms", self._first)
        else:
            self._set(timer, "idle_ms", _at(self._loop.time(), self._idle))

    def stop(self) -> None:
        if self._bell is not None:
            self._bell.cancel()
            self._bell = None

    def _set(self, timer: asyncio.Timeout, name: str, when: float) -> None:
        if self._rung:  # what comes in the same turn of the loop is too late, and must not change which deadline it was
            return
        self.deadline, self._when = (name, when) if when < self._total else ("total_ms", self._total)
        if self._bell is None or self._when < self._bell.when():
            self._wind(timer)

    def _wind(self, timer: asyncio.Timeout) -> None:
        self.stop()
        if self._when < float("inf"):
            self._bell = self._loop.call_at(self._when, self._ring, timer)

    def _ring(self, timer: asyncio.Timeout) -> None:
        self._bell = None
        self._rung = self._when <= self._loop.time()
        if self._rung:
            timer.reschedule(self._when)
        else:
            self._wind(timer)


class _Turn:
    """How long this task has kept the loop to itself."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    async def share(self) -> None:
        if time.monotonic() - self._began > _TURN_SECONDS:
            await asyncio.sleep(0)
            self._began = time.monotonic()


def _at(start: float, after_ms: int | None) -> float:
    return float("inf") if after_ms is None else start + after_ms / 1000
