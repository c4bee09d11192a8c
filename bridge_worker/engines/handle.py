"""One engine process as the server process sees it: its link, what it is doing, what it reported last.

Owns the descriptors of one engine in the server process. Refuses to start a process or to decide about one.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from bridge_worker.engines.board import SLOTS, Board, open_board
from bridge_worker.engines.link import Link, OnFrame
from bridge_worker.engines.requests import PendingRequest
from bridge_worker.protocol.link_frames import Frame, Kind
from bridge_worker.system.child_processes import how_it_ended, processor_times

_LOG_READ_BYTES = 64 * 1024
_MAX_LOG_LINE_BYTES = 256 * 1024
_LEAST_WEIGHT = 1 / 10  # of a ping that is missed while the process waits for a processor, or the template still loads modules
_SILENT_PINGS = 3  # without a response to so many, an engine gets no request; more, and it is killed (`supervisor`)

OnLog = Callable[[bytes], None]


class State(Enum):
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"  # gets no more requests; ends when it has none
    ENDING = "ending"
    LOST = "lost"


@dataclass(slots=True, eq=False)
class EngineHandle:
    """``early``: an engine without LiteLLM, which serves until one with it is ready. ``missed``: pings without a response;
    one counts less where the process waited for a processor."""

    key: int
    generation: int
    early: bool
    link: Link
    board: Board
    log: LogPipe
    state: State = State.STARTING
    pid: int | None = None
    served: int = 0
    load: int = 0  # the weight of its requests
    missed: float = 0
    waited: float | None = None  # for a processor, in seconds, when the last ping but one had no response
    paused: bool = False
    outgrown: bool = False  # another is to take its place
    loaded: dict[str, Any] | None = None  # as the engine reported it
    report: dict[str, Any] = field(default_factory=dict)  # of the last PONG
    requests: dict[int, PendingRequest[EngineHandle]] = field(default_factory=dict)
    hung: bool = False
    reaped: asyncio.Event = field(default_factory=asyncio.Event)
    loss: dict[str, object] | None = None  # pid, how it ended and its requests, of one that was not to end
    exit_code: int | None = None  # known once the system has reported it
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.cycle(range(1, SLOTS)))

    @property
    def memory_bytes(self) -> int:
        """Resident, as last reported; 0 until then."""
        return int(self.report.get("memory_bytes") or 0)

    @property
    def takes_requests(self) -> bool:
        return self.state is State.READY and self.missed < _SILENT_PINGS

    def how_it_ended(self) -> str:
        return "hung and was killed" if self.hung else how_it_ended(self.exit_code)

    def add(self, request: PendingRequest[EngineHandle]) -> int:
        """Returns the request's number. There are more numbers than requests may be in flight."""
        while (number := next(self._numbers)) in self.requests:
            pass
        self.requests[number] = request
        self.load += request.weight
        return number

    def pop(self, number: int) -> PendingRequest[EngineHandle] | None:
        request = self.requests.pop(number, None)
        self.load -= request.weight if request else 0
        return request

    def row(self) -> dict[str, object]:
        """In the result of `status`."""
        return {
            "pid": self.pid,
            "state": self.state.value,
            "in_flight": len(self.requests),
            "requests": self.served,
            "rss_mib": round(self.memory_bytes / 2**20, 1) or None,
        }

    def take_report(self, frame: Frame) -> None:
        self.missed, self.waited = 0, None
        self.report = json.loads(frame.body)

    def weight_of_a_miss(self, seconds: float, template: int | None) -> float:
        """1 for a process that could run in the last ``seconds``; a busy machine makes it slow, and it does not hang.

        Before ``template`` has forked it, that process counts, which first loads modules: it hangs when it does not run.
        """
        pid = self.pid or template
        if pid is None or self.missed < 1:
            return 1
        ran, waited = processor_times(pid)
        if self.pid is None:
            waited += ran
        before, self.waited = self.waited, waited
        if before is None or waited < before:  # a thread has ended, and its time with it
            return 1
        if self.pid is None and waited > before:
            return _LEAST_WEIGHT
        return max(_LEAST_WEIGHT, 1 - (waited - before) / seconds)

    def release(self) -> None:
        """Closes the descriptors. What the engine wrote to its log before it ended is read first."""
        self.link.abort()
        self.board.close()
        self.log.close()


class LogPipe:
    """Reads the log of one process, a line at a time. An engine never waits for a reader of the worker's stderr."""

    def __init__(self, fd: int, on_line: OnLog) -> None:
        self._fd = fd
        self._on_line = on_line
        self._rest = b""
        os.set_blocking(fd, False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(fd, self._read)

    def close(self) -> None:
        if self._fd >= 0:
            while self._read():
                pass
        self._end()

    def _read(self) -> bool:
        """False when there is nothing more to read now."""
        if self._fd < 0:
            return False
        try:
            data = os.read(self._fd, _LOG_READ_BYTES)
        except BlockingIOError:
            return False
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._on_line(line)
        if len(self._rest) > _MAX_LOG_LINE_BYTES or not data:
            if self._rest:
                self._on_line(self._rest)
            self._rest = b""
        if not data:
            self._end()
        return bool(data)

    def _end(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1


async def open_engine(
    key: int, generation: int, early: bool, on_frame: OnFrame, on_lost: Callable[[], None], on_log: OnLog
) -> tuple[EngineHandle, tuple[int, ...]]:
    """A handle, and the descriptors for its process, which the caller passes on and closes."""
    ours, theirs = socket.socketpair()
    log_read, log_write = os.pipe()
    try:
        board = open_board()
    except OSError:
        for fd in (log_read, log_write):
            os.close(fd)
        raise  # the pair closes itself
    link = Link(on_frame, on_lost)
    handle = EngineHandle(key, generation, early, link, Board(board), LogPipe(log_read, on_log))
    await link.connect(ours)
    return handle, (theirs.detach(), log_write, board)


def send_setup(handle: EngineHandle, setup: bytes) -> None:
    handle.link.send(Kind.SETUP, 0, setup)


def reason_against(engine: EngineHandle) -> str | None:
    """Why an engine with a new config is of no use; None when it serves."""
    if engine.state is State.LOST:
        return f"an engine process with it ended ({engine.how_it_ended()})"
    if engine.loaded is None:
        return "an engine process with it has not loaded in time"
    return engine.loaded.get("problem")
