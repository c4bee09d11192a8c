"""Places requests on engines and relays what comes back.

Owns the requests in flight: which engine has one, what is returned when that engine is lost, the deadline as a backstop. Refuses to
know what a request means: bytes pass through. Processes are the supervisor's.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from bridge_worker.engines.handle import EngineHandle, State
from bridge_worker.engines.losses import engine_lost, partial_of, was_sent
from bridge_worker.engines.requests import Outcome, PendingRequest, Relay
from bridge_worker.engines.supervisor import Supervisor
from bridge_worker.errors import BridgeError, cancelled_error
from bridge_worker.protocol.framing import encode
from bridge_worker.protocol.link_frames import RECEIVED, Frame, Kind, Progress
from bridge_worker.protocol.session import Start, error_response

START_SECONDS = 60.0  # within which the first engine has LiteLLM; a disk that needs longer has another problem
_SWEEP_SECONDS = 0.25
_LATE_SECONDS = 2.0  # beyond a deadline: the engine itself responds before

_log = logging.getLogger(__name__)


class Output(Protocol):
    """The queue that the client reads."""

    def queued(self) -> int: ...

    async def drained(self, limit: int) -> None: ...


AfterLoss = Callable[[EngineHandle], Awaitable[None]]
Request = PendingRequest[EngineHandle]
Serve = Callable[[EngineHandle, Mapping[str, Any]], Awaitable[object]]


class EnginePool:
    """``default_total_ms`` is the deadline of requests that set none. ``serve`` carries out a CALL of an engine, ``after_loss``
    what remains to be done for a lost one. Engines pause their deltas while ``output`` holds more than ``limit`` bytes."""

    def __init__(
        self, output: Output, limit: int, default_total_ms: Callable[[], int | None], serve: Serve, after_loss: AfterLoss
    ) -> None:
        self.supervisor: Supervisor | None = None
        self.loaded: Mapping[str, Any] | None = None  # what the last engine to load LiteLLM has reported
        self.loaded_ms = 0.0  # from the start to the first of them
        self._has_loaded = asyncio.Event()
        self.first_result = asyncio.Event()  # an engine has loaded, or none can be started
        self._after_loss = after_loss
        self._output = output
        self._limit = limit
        self._default_total_ms = default_total_ms
        self._serve = serve
        self._waiting: deque[Request] = deque()
        self._requests: dict[Request, None] = {}  # in the order of their arrival
        self._pausing = False
        self._failing = False
        self._started = time.monotonic()
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        supervisor.start()
        self._sweep()

    def begin(self, start: Start, received: float, relay: Relay, done: Callable[[Outcome], None]) -> Callable[[], None]:
        """Calls ``done`` once, with the outcome, also when the request is cancelled by calling what this returns."""
        request: Request = PendingRequest(start, received, relay, self._deadline(start, received), done)
        self._requests[request] = None
        self._place(request)
        return functools.partial(self._cancel, request)

    async def wait_loaded(self) -> Mapping[str, Any]:
        """What the first engine with LiteLLM has reported: a member ``engine``, or ``failed`` with the reason."""
        await self._has_loaded.wait()
        return self.loaded or {}

    def engines(self) -> list[EngineHandle]:
        return self.supervisor.engines if self.supervisor else []

    # Placing.

    def _place(self, request: Request) -> None:
        if request.outcome is not None:
            return
        if (engine := self._engine_for(request)) is not None:
            self._send(engine, request)
        else:
            self._wait_or_fail(request)

    def _wait_or_fail(self, request: Request) -> None:
        if self._failing:
            self._respond(request, engine_lost("engine processes end while they start; run omni-bridge doctor", False, ()))
        else:
            self._waiting.append(request)

    def _place_waiting(self) -> None:
        waiting, self._waiting = self._waiting, deque()
        for request in waiting:
            self._place(request)

    def _engine_for(self, request: Request) -> EngineHandle | None:
        """The least busy one; the early engine only while there is no other: it gives back what it can't serve."""
        ready = [engine for engine in self.engines() if engine.takes_requests]
        if len(ready) == 1:
            return ready[0]
        if ready:
            return min(ready, key=lambda engine: engine.key if request.is_local else engine.load)
        return next((one for one in self.engines() if one.early and one.state is State.STARTING), None)

    def _send(self, engine: EngineHandle, request: Request) -> None:
        number = request.number = engine.add(request)
        request.engine = engine
        engine.board[number] = Progress.PLACED
        start = request.start
        line = start.line or encode({"id": start.id, "method": start.method, "params": start.params})
        engine.link.send(Kind.REQUEST, number, RECEIVED.pack(request.received), line)

    def _finish(self, request: Request, outcome: Outcome) -> None:
        """The request is over for the client; a number that its engine still uses is not given to another."""
        request.outcome = outcome
        del self._requests[request]
        if request.engine is None and request in self._waiting:
            self._waiting.remove(request)
        request.done(outcome)

    def _cancel(self, request: Request) -> None:
        if request.outcome is not None:
            return
        request.cancelled = True
        if request.engine is None:
            self._respond(request, cancelled_error(upstream_closed=True))
        else:
            request.engine.link.send(Kind.CANCEL, request.number)

    def _respond(self, request: Request, error: BridgeError) -> None:
        if request.outcome is None:
            line = encode(error_response(request.start.id, error))
            self._finish(request, Outcome(error.kind, None, line, by_engine=False))

    # The supervisor's owner.

    def on_frame(self, engine: EngineHandle, frame: Frame) -> None:
        kind = frame.kind
        if kind is Kind.DELTAS:
            self._relay(engine, frame)
        elif kind is Kind.RESPONSE:
            self._take_response(engine, frame)
        elif kind is Kind.PONG and self.supervisor:
            was_silent = not engine.takes_requests
            self.supervisor.take_report(engine, frame)
            if was_silent and engine.takes_requests:
                self._place_waiting()
        elif kind is Kind.HAND_BACK:
            self._take_back(engine, frame)
        elif kind is Kind.CALL:
            self._in_background(self._carry_out(engine, frame))
        elif kind is Kind.LOADED and self.supervisor:
            self.supervisor.take_loaded(engine, frame)

    def on_opened(self) -> None:
        self._place_waiting()

    def on_ready(self, engine: EngineHandle) -> None:
        self._failing = False
        if self.loaded is None:
            self.loaded_ms = round((time.monotonic() - self._started) * 1000, 1)
        self.loaded = engine.loaded or {}
        self._has_loaded.set()
        self.first_result.set()
        self._place_waiting()

    def on_lost(self, engine: EngineHandle) -> None:
        lost, engine.requests = engine.requests, {}
        for number, request in lost.items():
            progress = engine.board[number]
            if request.cancelled:  # its connections have closed with the process
                error = cancelled_error(upstream_closed=True)
                error.extra["partial"] = partial_of(request.deltas)
                self._respond(request, error)
            elif progress == Progress.PLACED:
                request.engine = None
                self._place(request)
            else:
                self._respond(request, engine_lost(engine.how_it_ended(), was_sent(progress), request.deltas))
        self._in_background(self._after_loss(engine))

    def on_failing(self) -> None:
        self._failing = True
        self.first_result.set()
        self._place_waiting()

    # Frames.

    def _relay(self, engine: EngineHandle, frame: Frame) -> None:
        request = engine.requests.get(frame.request)
        if request is None:
            return
        request.deltas.append(frame.body)
        request.relay.relay(frame.body)
        if not self._pausing and self._output.queued() > self._limit:
            self._pausing = True
            self._in_background(self._pause())

    async def _pause(self) -> None:
        """The client reads slowly: engines send no more deltas until it has caught up, so that their providers wait too."""
        paused = [engine for engine in self.engines() if engine.state is not State.LOST]
        for engine in paused:
            engine.link.send(Kind.PAUSE)
        await self._output.drained(self._limit)
        self._pausing = False
        for engine in paused:
            engine.link.send(Kind.RESUME)

    def _take_response(self, engine: EngineHandle, frame: Frame) -> None:
        request = engine.pop(frame.request)
        if request is None:
            return
        engine.served += 1
        if request.outcome is None:
            outcome, path, line = frame.body.split(b"\n", 2)
            self._finish(request, Outcome(outcome.decode(), path.decode() or None, line))
        if self.supervisor:
            self.supervisor.after_request(engine)

    def _take_back(self, engine: EngineHandle, frame: Frame) -> None:
        request = engine.pop(frame.request)
        if request is None:
            return
        if request.outcome is None:  # else it has its response already, and only the engine has still to end
            self._place_elsewhere(request)
        if self.supervisor:
            self.supervisor.after_request(engine)

    def _place_elsewhere(self, request: Request) -> None:
        request.engine = None
        if request.cancelled:
            self._respond(request, cancelled_error(upstream_closed=True))
        elif any(one.state is State.READY for one in self.engines()):
            self._place(request)
        else:
            self._wait_or_fail(request)

    async def _carry_out(self, engine: EngineHandle, frame: Frame) -> None:
        try:
            reply = {"result": await self._serve(engine, json.loads(frame.body))}
        except Exception:
            _log.exception("a call of an engine failed")
            reply = {"error": "the server process failed; its log has the reason"}
        engine.link.send(Kind.REPLY, frame.request, json.dumps(reply).encode())

    # Deadlines.

    def _deadline(self, start: Start, received: float) -> float:
        deadlines = start.params.get("deadlines")
        total = deadlines.get("total_ms") if isinstance(deadlines, dict) else None
        total = total if type(total) is int and 0 < total <= 2**53 else self._default_total_ms()  # the engine refuses others
        return received + (total / 1000 + _LATE_SECONDS if total else float("inf"))

    def _sweep(self) -> None:
        asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self._sweep)
        now = time.monotonic()
        for request in list(self._requests):  # a response takes one out
            if now > request.deadline:
                self._respond_late(request)
            elif (engine := request.engine) is not None and not engine.early and engine.board[request.number] != Progress.PLACED:
                request.start = Start(request.start.id, request.start.method, {})  # its engine has it, and no other will
        if self.loaded is None and now > self._started + START_SECONDS:
            self._give_up_start()

    def _respond_late(self, request: Request) -> None:
        if request.engine is not None:
            request.engine.link.send(Kind.CANCEL, request.number)
        message = "the engine process did not respond within the deadline total_ms; raise it in deadlines, or try again"
        extra: dict[str, object] = {"deadline": "total_ms", "partial": partial_of(request.deltas)}
        self._respond(request, BridgeError("timeout", message, extra=extra))

    def _give_up_start(self) -> None:
        self.first_result.set()
        error = BridgeError("internal", f"LiteLLM is not loaded after {START_SECONDS:.0f} s; restart the worker")
        while self._waiting:
            self._respond(self._waiting.popleft(), error)

    def _in_background(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
