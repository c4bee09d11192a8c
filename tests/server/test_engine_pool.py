"""The pool of engines: where a request goes, and what becomes of it. The links are real; a test plays the engines at their other
ends, and the client's output queue."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import socket
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Self

import pytest

from bridge_worker.engines import pool as pool_module
from bridge_worker.engines.board import Board
from bridge_worker.engines.handle import EngineHandle, State, open_engine
from bridge_worker.engines.link import Link
from bridge_worker.engines.pool import START_SECONDS, EnginePool
from bridge_worker.engines.requests import Outcome
from bridge_worker.protocol.link_frames import RECEIVED, Frame, Kind, Progress
from bridge_worker.protocol.session import Start
from tests.support.memory_server import Changes, quiet, timeless

LIMIT = 1000
PARAMS = {"model": "a/b", "messages": []}


class Output:
    """The client's queue: so many bytes are in it."""

    def __init__(self) -> None:
        self.bytes = 0
        self.changes = Changes()

    def queued(self) -> int:
        return self.bytes

    async def drained(self, limit: int) -> None:
        await self.changes.wait_until(lambda: self.bytes <= limit)

    def hold(self, count: int) -> None:
        self.bytes = count
        self.changes.notify()


class Notifications:
    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def relay(self, lines: bytes) -> None:
        self.lines.append(lines)


class Played:
    """An engine process, as its test plays it: the other end of the link, and its view of the board."""

    def __init__(self, handle: EngineHandle, board: int, end: int) -> None:
        self.handle = handle
        self.frames: list[Frame] = []
        self.board = Board(board)
        self._link = Link(self.frames.append, lambda: None)
        self._end = end

    async def connect(self) -> Self:
        await self._link.connect(socket.socket(fileno=self._end))
        return self

    async def send(self, kind: Kind, number: int, body: bytes = b"") -> None:
        self._link.send(kind, number, body)
        await quiet()

    async def respond(self, number: int, line: bytes = b"{}\n", path: bytes = b"direct") -> None:
        await self.send(Kind.RESPONSE, number, b"ok\n" + path + b"\n" + line)

    async def emit(self, number: int, text: str) -> None:
        message = {"method": "notifications/chat/delta", "params": {"requestId": 1, "seq": 0, "delta": {"content": text}}}
        await self.send(Kind.DELTAS, number, json.dumps(message).encode() + b"\n")

    async def pong(self) -> None:
        await self.send(Kind.PONG, 0, b"{}")

    def kinds(self) -> list[Kind]:
        return [frame.kind for frame in self.frames]

    def requests(self) -> list[Frame]:
        return [frame for frame in self.frames if frame.kind is Kind.REQUEST]

    def close(self) -> None:
        self._link.abort()
        self.board.close()
        self.handle.release()


class Processes:
    """The supervisor, as far as the pool knows it."""

    def __init__(self) -> None:
        self.engines: list[EngineHandle] = []
        self.after: list[EngineHandle] = []

    def start(self) -> None: ...

    def take_report(self, engine: EngineHandle, frame: Frame) -> None:
        engine.take_report(frame)

    def take_loaded(self, engine: EngineHandle, frame: Frame) -> None:
        engine.loaded = json.loads(frame.body)

    def after_request(self, engine: EngineHandle) -> None:
        self.after.append(engine)


class Setting:
    """A pool that has started. Leaving it closes every link."""

    def __init__(self, default_total_ms: int | None = None) -> None:
        self.output = Output()
        self.processes = Processes()
        self.lost: list[EngineHandle] = []
        self.pool = EnginePool(self.output, LIMIT, lambda: default_total_ms, self._serve, self._after_loss)
        supervisor: Any = self.processes
        self.pool.start(supervisor)
        self._played: list[Played] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for played in self._played:
            played.close()

    async def _serve(self, engine: EngineHandle, call: Mapping[str, Any]) -> object:
        return {"key": engine.key, "sum": call["a"] + call["b"]}

    async def _after_loss(self, engine: EngineHandle) -> None:
        self.lost.append(engine)

    async def engine(self, *, early: bool = False, ready: bool = True) -> Played:
        handle, (end, log, board) = await open_engine(
            len(self._played) + 1, 0, early, lambda frame: self.pool.on_frame(handle, frame), lambda: None, lambda line: None
        )
        played = await Played(handle, board, end).connect()
        os.close(log)
        os.close(board)
        self._played.append(played)
        self.processes.engines.append(handle)
        if ready and not early:
            await self.make_ready(played)
        return played

    async def make_ready(self, played: Played) -> None:
        played.handle.state = State.READY
        await played.send(Kind.LOADED, 0, b'{"engine": %d}' % played.handle.key)
        self.pool.on_ready(played.handle)
        await quiet()

    async def lose(self, played: Played) -> None:
        played.handle.state = State.LOST
        self.pool.on_lost(played.handle)
        self.processes.engines.remove(played.handle)
        await quiet()

    async def request(self, id: int = 1, *, ago: float = 0.0, relay: Any = None, line: bytes = b"", **params: Any) -> Pending:
        """Runs a chat; it has been received so many seconds ago."""
        start = Start(id, "chat", {**PARAMS, **params}, line)
        pending = Pending()
        pending.begin(self.pool, start, time.monotonic() - ago, relay or Notifications())
        await quiet()
        return pending

    async def swept(self) -> None:
        """Until the pool has looked at the deadlines of all requests so far: one that is late comes after them."""
        await (await self.request(-1, ago=3, deadlines={"total_ms": 1})).ended()


class Pending:
    def __init__(self) -> None:
        self._outcomes: list[Outcome] = []
        self._cancel: Callable[[], None] = lambda: None
        self._changes = Changes()

    def begin(self, pool: EnginePool, start: Start, received: float, relay: Any) -> None:
        self._cancel = pool.begin(start, received, relay, self._end)

    def _end(self, outcome: Outcome) -> None:
        self._outcomes.append(outcome)
        self._changes.notify()

    async def ended(self) -> None:
        await self._changes.wait_until(lambda: bool(self._outcomes))

    @property
    def is_open(self) -> bool:
        return not self._outcomes

    async def cancel(self) -> None:
        self._cancel()
        self._cancel = lambda: None
        await quiet()

    def outcome(self) -> Outcome:
        (outcome,) = self._outcomes
        return outcome

    def error(self) -> dict[str, Any]:
        """``error.data`` of a response that the server process made."""
        outcome = self.outcome()
        error: dict[str, Any] = json.loads(outcome.line)["error"]["data"]
        assert (outcome.by_engine, outcome.outcome) == (False, error["kind"])
        return error


# ---- placing ---------------------------------------------------------------------------------------------------------------


@timeless
async def test_requests_go_to_the_least_busy_engine_and_its_responses_come_back() -> None:
    async with Setting() as setting:
        one, two = await setting.engine(), await setting.engine()
        first, second = await setting.request(1, line=b"the line"), await setting.request(2)
        (placed,), (other,) = one.requests(), two.requests()
        assert placed.body[RECEIVED.size :] == b"the line"
        assert json.loads(other.body[RECEIVED.size :]) == {"id": 2, "method": "chat", "params": PARAMS}
        await one.respond(placed.request, b"one\n")
        await two.respond(other.request, b"two\n", path=b"")
        assert first.outcome() == Outcome("ok", "direct", b"one\n", by_engine=True)
        assert second.outcome() == Outcome("ok", None, b"two\n", by_engine=True)
        assert [(one.handle.row()[name]) for name in ("in_flight", "requests")] == [0, 1]
        assert setting.processes.after == [one.handle, two.handle]


@timeless
async def test_a_request_waits_for_an_engine_and_the_first_to_load_sets_the_time_of_loading() -> None:
    async with Setting() as setting:
        waiting = await setting.request()
        loading = asyncio.create_task(setting.pool.wait_loaded())
        one = await setting.engine()
        await quiet()
        assert loading.result() == {"engine": 1}
        assert 0 < setting.pool.loaded_ms < START_SECONDS * 1000
        (placed,) = one.requests()
        await one.respond(placed.request)
        assert waiting.outcome().by_engine
        first = setting.pool.loaded_ms
        await setting.engine()
        assert (setting.pool.loaded, setting.pool.loaded_ms) == ({"engine": 2}, first)


@timeless
async def test_the_early_engine_serves_until_another_is_ready_and_hands_back_what_it_cannot() -> None:
    async with Setting() as setting:
        early = await setting.engine(early=True)
        served, handed_back, cancelled = [await setting.request(id) for id in (1, 2, 3)]
        first, second, third = early.requests()
        await early.respond(first.request)
        assert served.outcome().by_engine
        await early.send(Kind.HAND_BACK, second.request)
        assert handed_back.is_open
        assert len(early.requests()) == 3
        await cancelled.cancel()
        assert cancelled.is_open  # until the engine says that it has ended
        await early.send(Kind.HAND_BACK, third.request)
        assert cancelled.error()["upstream_closed"] is True
        one = await setting.engine()
        (placed,) = one.requests()
        await one.respond(placed.request)
        assert handed_back.outcome().by_engine
        last = await setting.request(4)
        assert len(one.requests()) == 2
        assert last.is_open
        assert setting.processes.after == [early.handle] * 3 + [one.handle]


@timeless
async def test_what_is_handed_back_goes_to_an_engine_that_is_ready() -> None:
    async with Setting() as setting:
        early = await setting.engine(early=True)
        pending = await setting.request()
        one = await setting.engine()
        await early.send(Kind.HAND_BACK, early.requests()[0].request)
        await one.respond(one.requests()[0].request)
        assert pending.outcome().by_engine


@timeless
async def test_an_early_engine_that_ends_gets_no_request() -> None:
    async with Setting() as setting:
        early = await setting.engine(early=True)
        early.handle.state = State.ENDING
        await setting.request()
        assert early.requests() == []


@timeless
async def test_an_engine_that_was_silent_gets_the_requests_that_wait_once_it_responds() -> None:
    async with Setting() as setting:
        one = await setting.engine()
        one.handle.missed = 3
        await setting.request()
        assert one.requests() == []
        await one.pong()
        assert len(one.requests()) == 1


# ---- cancels ---------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("CAN-1")
@timeless
async def test_a_request_that_waits_for_an_engine_is_cancelled_and_let_go() -> None:
    async with Setting() as setting:
        relay = Notifications()
        held = weakref.ref(relay)
        waiting, kept = await setting.request(1, relay=relay), await setting.request(2)
        del relay
        await waiting.cancel()
        assert waiting.error()["upstream_closed"] is True
        gc.collect()
        assert held() is None
        one = await setting.engine()
        assert len(one.requests()) == 1
        assert kept.is_open


@pytest.mark.rule("CAN-1", "ENG-4")
@timeless
async def test_a_cancel_reaches_the_engine_and_its_response_counts_or_its_loss_closes_the_connection() -> None:
    async with Setting() as setting:
        one = await setting.engine()
        responds, lost = await setting.request(1), await setting.request(2)
        first, second = (frame.request for frame in one.requests())
        await responds.cancel()
        await lost.cancel()
        assert [frame.request for frame in one.frames if frame.kind is Kind.CANCEL] == [first, second]
        await one.respond(first, b"cancelled\n")
        assert responds.outcome().line == b"cancelled\n"
        await one.emit(second, "so far")
        one.board[second] = Progress.SENT
        await setting.lose(one)
        error = lost.error()
        assert (error["kind"], error["upstream_closed"], error["partial"]["content"]) == ("cancelled", True, "so far")


# ---- losses ----------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("ENG-2", "ENG-3")
@pytest.mark.parametrize(("progress", "sent"), [(Progress.RECEIVED, False), (Progress.HANDED_OVER, None), (Progress.SENT, True)])
def test_a_request_of_a_lost_engine_has_its_error_with_what_was_relayed(progress: Progress, sent: bool | None) -> None:
    @timeless
    async def check() -> None:
        async with Setting() as setting:
            one = await setting.engine()
            relay = Notifications()
            pending = await setting.request(relay=relay)
            number = one.requests()[0].request
            one.board[number] = progress
            await setting.swept()
            await one.emit(number, "half")
            await setting.lose(one)
            error = pending.error()
            assert (error["kind"], error["sent_upstream"], error["retryable"]) == ("engine_lost", sent, False)
            assert error["partial"]["content"] == "half"
            assert len(relay.lines) == 1
            assert setting.lost == [one.handle]

    check()


@pytest.mark.rule("ENG-2")
@timeless
async def test_a_request_that_a_lost_engine_never_read_goes_to_another_as_it_was() -> None:
    async with Setting() as setting:
        one = await setting.engine()
        pending = await setting.request(line=b"the whole line")
        bare = await setting.request(2, temperature=1)
        await setting.swept()
        await setting.lose(one)
        assert pending.is_open
        two = await setting.engine()
        first, second = two.requests()
        assert first.body[RECEIVED.size :] == b"the whole line"
        assert json.loads(second.body[RECEIVED.size :])["params"] == {**PARAMS, "temperature": 1}
        await two.respond(second.request)
        assert bare.outcome().by_engine


@pytest.mark.rule("ENG-1")
@timeless
async def test_requests_fail_while_no_engine_can_be_started_and_wait_again_once_one_was_ready() -> None:
    async with Setting() as setting:
        waiting = await setting.request(1)
        setting.pool.on_failing()
        await quiet()
        assert setting.pool.first_result.is_set()
        for failed in (waiting, await setting.request(2)):
            error = failed.error()
            assert (error["kind"], error["sent_upstream"], error["retryable"]) == ("engine_lost", False, True)
        one = await setting.engine()
        served = await setting.request(3)
        await one.respond(one.requests()[0].request)
        assert served.outcome().by_engine
        await setting.lose(one)
        assert (await setting.request(4)).is_open


@timeless
async def test_an_early_engine_gets_what_waits_when_it_opens() -> None:
    async with Setting() as setting:
        await setting.request()
        early = await setting.engine(early=True)
        setting.pool.on_opened()
        await quiet()
        assert len(early.requests()) == 1


# ---- deadlines -------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("ENG-1")
@timeless
async def test_an_engine_that_does_not_keep_a_deadline_is_cancelled_and_the_request_gets_its_error() -> None:
    async with Setting() as setting:
        one = await setting.engine()
        in_time = await setting.request(1, ago=11, deadlines={"total_ms": 10_000})  # the engine itself has two seconds more
        late = await setting.request(2, ago=3, deadlines={"total_ms": 1})
        number = one.requests()[1].request
        await one.emit(number, "half")
        await late.ended()
        await quiet()
        error = late.error()
        assert (error["kind"], error["deadline"], error["partial"]["content"]) == ("timeout", "total_ms", "half")
        assert [frame.request for frame in one.frames if frame.kind is Kind.CANCEL] == [number]
        assert in_time.is_open
        await one.respond(number)  # too late, and no request of a next one
        assert late.outcome().outcome == "timeout"


@pytest.mark.rule("ENG-1")
@timeless
async def test_a_request_that_waits_for_an_engine_has_a_deadline_too() -> None:
    async with Setting(default_total_ms=1000) as setting:
        waiting = await setting.request(1, ago=3.5)
        endless = await setting.request(2, ago=3.5, deadlines={"total_ms": 60_000})
        await setting.swept()
        assert waiting.error()["deadline"] == "total_ms"
        assert endless.is_open


@timeless
async def test_a_request_without_a_deadline_never_is_late() -> None:
    async with Setting() as setting:
        waiting = await setting.request(ago=1e9)
        await setting.swept()
        assert waiting.is_open


def test_requests_fail_when_litellm_is_not_loaded_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    @timeless
    async def check() -> None:
        async with Setting() as setting:
            waiting = await setting.request()
            await setting.swept()
            assert waiting.is_open
            assert not setting.pool.first_result.is_set()
            monkeypatch.setattr(pool_module, "START_SECONDS", 0.0)
            await waiting.ended()
            assert waiting.error()["kind"] == "internal"
            assert setting.pool.first_result.is_set()
            await setting.engine()
            later = await setting.request(2)
            await setting.swept()
            assert later.is_open  # one has loaded, however long it took

    check()


# ---- a slow client, calls --------------------------------------------------------------------------------------------------


@pytest.mark.rule("STR-10")
@timeless
async def test_engines_pause_while_the_client_has_more_than_the_limit_to_read() -> None:
    async with Setting() as setting:
        one, two = await setting.engine(), await setting.engine()
        lost = await setting.engine()
        lost.handle.state = State.LOST
        await setting.request()
        number = one.requests()[0].request
        setting.output.hold(LIMIT)
        await one.emit(number, "a")
        assert Kind.PAUSE not in one.kinds()
        setting.output.hold(LIMIT + 1)
        for _ in range(3):
            await one.emit(number, "a")
        for engine in (one, two):
            assert [kind for kind in engine.kinds() if kind in (Kind.PAUSE, Kind.RESUME)] == [Kind.PAUSE]
        setting.output.hold(LIMIT)
        await quiet()
        for engine in (one, two):
            assert engine.kinds()[-2:] == [Kind.PAUSE, Kind.RESUME]
        assert lost.frames == []
        setting.output.hold(LIMIT + 1)
        await one.emit(number, "a")
        assert one.kinds()[-1] is Kind.PAUSE


@timeless
async def test_a_delta_of_a_request_that_is_over_is_dropped() -> None:
    async with Setting() as setting:
        one = await setting.engine()
        await one.emit(7, "late")
        await one.respond(7)
        await one.send(Kind.HAND_BACK, 7)
        assert setting.processes.after == []
        assert one.handle.served == 0


@timeless
async def test_a_call_of_an_engine_gets_its_reply_and_one_that_fails_an_error(caplog: pytest.LogCaptureFixture) -> None:
    async with Setting() as setting:
        one = await setting.engine()
        await one.send(Kind.CALL, 5, b'{"a": 1, "b": 2}')
        await one.send(Kind.CALL, 6, b'{"a": 1}')
        replies = [(frame.request, json.loads(frame.body)) for frame in one.frames if frame.kind is Kind.REPLY]
        assert replies[0] == (5, {"result": {"key": 1, "sum": 3}})
        assert replies[1][0] == 6
        assert "error" in replies[1][1]
        assert "KeyError" in caplog.text
