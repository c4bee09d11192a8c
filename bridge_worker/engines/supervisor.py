"""Starts, watches, replaces and ends the template process and the engines.

Owns the processes: how many engines there are, when one counts as hung, what replaces one that is lost. Refuses to know requests:
the pool decides which engine gets one, and what becomes of it when its engine is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
from collections.abc import Callable, Coroutine
from typing import Any

from bridge_worker.engines.handle import EngineHandle, OnLog, State, open_engine, reason_against, send_setup
from bridge_worker.engines.owner import Limits, Owner
from bridge_worker.engines.template_process import EngineStarter
from bridge_worker.protocol.link_frames import Frame, Kind
from bridge_worker.system import child_processes

_TICKS = 5  # pings within the time after which an engine counts as hung
_REAP_SECONDS = 0.5  # between the end of a link and the end of its process: it may have a traceback to write
_LEFTOVER_SECONDS = 1.0  # for an engine's own children to end by themselves: a local model removes its files
_MAX_FAILURES = 3  # processes that ended before they were of use, one after the other; then a pause
_PAUSE_SECONDS = 5.0
_RETRY_SECONDS = 0.5  # after an engine for which there was no descriptor
_CANDIDATE_SECONDS = 60.0  # for an engine with a new config to load
_END_SECONDS = 0.5  # for all processes to end at the end, after what an engine may take for its callbacks and recording

_log = logging.getLogger(__name__)


class Supervisor:
    """``template`` has been started already; ``start_template`` starts another when it is lost. ``setup`` is what an engine
    receives first, given whether it is an early one; ``on_log`` gets each line of the processes' logs."""

    def __init__(
        self,
        owner: Owner,
        limits: Limits,
        template: EngineStarter,
        start_template: Callable[[], EngineStarter],
        setup: Callable[[bool], bytes],
        on_log: OnLog,
    ) -> None:
        self.engines: list[EngineHandle] = []
        self.generation = 0
        self._owner = owner
        self.limits = limits  # a reload may change them
        self.template = template
        self._start_template = start_template
        self._setup = setup
        self._on_log = on_log
        self._loop = asyncio.get_running_loop()
        self._server: int | None = None  # the process that adopts engines, this one
        self._keys = 0
        self._opening = 0
        self._candidate: EngineHandle | None = None  # with a config that is not active yet
        self._candidate_loaded = asyncio.Event()
        self._failures = 0
        self._restarted = False  # the template
        self._pausing = False
        self._closing = False
        self._one_ended = asyncio.Event()  # of the processes
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        self._loop.add_signal_handler(signal.SIGCHLD, self._reap)
        self._run(self._begin())

    def drain(self, engine: EngineHandle) -> None:
        """It gets no more requests, and ends when it has none."""
        if engine.state in (State.STARTING, State.READY):
            engine.state = State.DRAINING
        self.end_if_idle(engine)

    def end_if_idle(self, engine: EngineHandle) -> None:
        if engine.state is State.DRAINING and not engine.requests:
            self._end(engine)

    def _end(self, engine: EngineHandle) -> None:
        engine.state = State.ENDING
        engine.link.send(Kind.STOP)

    def after_request(self, engine: EngineHandle) -> None:
        """Call it when a request of ``engine`` has ended."""
        if engine.state is State.DRAINING:
            self.end_if_idle(engine)
        elif self.limits.max_requests and engine.served >= self.limits.max_requests:
            self._replace(engine)

    def take_report(self, engine: EngineHandle, frame: Frame) -> None:
        engine.take_report(frame)
        if self._is_too_large(engine):
            self._replace(engine)

    def _is_too_large(self, engine: EngineHandle) -> bool:
        return bool(self.limits.max_mib) and engine.memory_bytes > self.limits.max_mib * 2**20

    def take_loaded(self, engine: EngineHandle, frame: Frame) -> None:
        engine.loaded = json.loads(frame.body)
        engine.missed, engine.waited = 0, None  # its loop runs
        if engine is self._candidate:
            self._candidate_loaded.set()
        elif not engine.early and engine.state is State.STARTING:
            self._make_ready(engine)

    async def start_generation(self, setup: Callable[[bool], bytes]) -> EngineHandle:
        """Starts an engine with another setup. When nothing speaks against it (`reason_against`), it and its like take over; else
        everything stays."""
        engine = await self._open_candidate(setup)
        if engine.pid is None and engine.state is State.LOST:  # with its template: not by the setup
            engine = await self._open_candidate(setup)
        if reason_against(engine):
            self._end(engine)
            return engine
        self.generation = engine.generation
        self._setup = setup
        self._make_ready(engine)
        self.maintain()
        return engine

    async def _open_candidate(self, setup: Callable[[bool], bytes]) -> EngineHandle:
        """Returns when it is loaded, lost or late."""
        self._candidate_loaded.clear()
        engine = self._candidate = await self._open(setup, self.generation + 1, early=False)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CANDIDATE_SECONDS):
                await self._candidate_loaded.wait()
        self._candidate = None
        return engine

    def _make_ready(self, engine: EngineHandle) -> None:
        engine.state = State.READY
        self._failures = 0
        if self._is_too_large(engine):
            _log.warning("an engine process has %d MiB once it is loaded; raise --engine-max-mib", engine.memory_bytes // 2**20)
        for old in [old for old in self.engines if old.early or old.generation < self.generation]:
            self.drain(old)
        if outgrown := next((old for old in self.engines if old.outgrown and old.state is State.READY), None):
            self.drain(outgrown)
        self._owner.on_ready(engine)

    async def close(self) -> None:
        """Ends every process; what has not ended in time is killed."""
        self._closing = True
        for engine in self.engines:
            self._end(engine)
        self.template.close()
        try:
            async with asyncio.timeout(self.limits.closing_seconds + _END_SECONDS):
                await self._until(lambda: not self.engines)
            for pid in child_processes.children() & {self.template.pid}:  # it may be loading, and has nothing to put away
                child_processes.kill(pid)
            async with asyncio.timeout(_LEFTOVER_SECONDS):
                await self._until(lambda: not child_processes.children())
        except TimeoutError:
            pass
        finally:
            for pid in child_processes.children() | {engine.pid for engine in self.engines if engine.pid is not None}:
                child_processes.kill(pid)

    async def _until(self, have_ended: Callable[[], bool]) -> None:
        while not have_ended():
            self._one_ended.clear()
            await self._one_ended.wait()

    # Starting.

    async def _begin(self) -> None:
        try:
            adopts = await asyncio.to_thread(child_processes.adopt_orphans)  # it imports ctypes
        except RuntimeError:  # no thread can be started
            adopts = child_processes.adopt_orphans()
        if self._closing:  # the input has ended meanwhile
            return
        self._server = os.getpid() if adopts else None
        self.template.listen(self._on_log, self._take_message, self._template_lost)
        await self._try_to_open(self._setup, self.generation, early=True)
        self._owner.on_opened()
        self._tick()

    def _take_message(self, message: dict[str, Any]) -> None:
        if "pid" in message:
            for engine in self.engines:
                if engine.key == message["engine"]:
                    engine.pid = message["pid"]
                    return
            child_processes.kill(message["pid"])  # its link is lost already
        elif "loaded_ms" in message:
            self._failures = 0
            if self._restarted:
                _log.info("the next template process is loaded", extra={"fields": {"pid": self.template.pid}})
            self.maintain()

    def maintain(self) -> None:
        """Starts the engines that are missing."""
        if not self.template.loaded or self._closing or self._pausing:
            return
        serving = [engine for engine in self.engines if self._counts(engine)]
        for _ in range(self.limits.engines - len(serving) - self._opening):
            self._opening += 1
            self._run(self._open_one(self._setup, self.generation))

    def _counts(self, engine: EngineHandle) -> bool:
        """Whether it is one of those that there shall be."""
        current = engine.generation == self.generation and engine.state in (State.STARTING, State.READY)
        return current and not engine.early and not engine.outgrown

    async def _open_one(self, setup: Callable[[bool], bytes], generation: int) -> None:
        try:
            await self._try_to_open(setup, generation, early=False)
        finally:
            self._opening -= 1

    async def _try_to_open(self, setup: Callable[[bool], bytes], generation: int, *, early: bool) -> None:
        try:
            await self._open(setup, generation, early=early)
        except OSError as error:  # no descriptor is left
            _log.error("an engine process could not be started: %s; check ulimit -n", error)
            self._count_failure()
            self._loop.call_later(_RETRY_SECONDS, self.maintain)

    async def _open(self, setup: Callable[[bool], bytes], generation: int, *, early: bool) -> EngineHandle:
        self._keys += 1
        engine, descriptors = await open_engine(
            self._keys,
            generation,
            early,
            lambda frame: self._owner.on_frame(engine, frame),
            lambda: self._link_lost(engine),
            self._on_log,
        )
        self.engines.append(engine)
        send_setup(engine, setup(early))
        if self._closing:  # the end has begun while its socket pair was made
            self._end(engine)
        try:
            self.template.command({"engine": engine.key, "server": self._server}, descriptors)
        finally:
            for fd in descriptors:
                os.close(fd)  # so that the link ends when the engine does, or was never started
        return engine

    def _replace(self, engine: EngineHandle) -> None:
        """Another is started; `take_loaded` drains this one when it is ready."""
        if engine.state is State.READY and not engine.outgrown:
            engine.outgrown = True
            self.maintain()

    # Watching.

    def _tick(self) -> None:
        seconds = self.limits.hang_seconds / _TICKS
        self._loop.call_later(seconds, self._tick)
        for engine in [one for one in self.engines if one.state is not State.LOST and (one.pid or self.template.loaded)]:
            engine.missed += engine.weight_of_a_miss(seconds, self.template.pid)  # by this loop's turns: it may be stopped too
            if engine.missed > _TICKS + 1:
                self._hung(engine)
            else:
                engine.link.send(Kind.PING)

    def _hung(self, engine: EngineHandle) -> None:
        if engine.pid is None and self.template.pid is not None:
            _log.error("the template process does not fork; it is replaced", extra={"fields": {"pid": self.template.pid}})
            child_processes.kill(self.template.pid)
            self._template_lost()
        elif engine.pid is not None:
            about = {"pid": engine.pid, "requests": len(engine.requests), "after_seconds": self.limits.hang_seconds}
            _log.error("an engine process hangs and is killed", extra={"fields": about})
            engine.hung = True
            child_processes.kill(engine.pid)
        engine.link.abort()

    def _link_lost(self, engine: EngineHandle) -> None:
        expected = engine.state is State.ENDING
        was_ready = engine.state is not State.STARTING or engine.early
        engine.state = State.LOST
        if engine is self._candidate:
            self._candidate_loaded.set()
        if not was_ready:
            self._count_failure()
        self._run(self._finish(engine, expected))
        self.maintain()

    async def _finish(self, engine: EngineHandle, expected: bool) -> None:
        if engine.pid is not None:
            self._reap()
            if not await self._is_reaped(engine):
                child_processes.kill(engine.pid)  # without its link it is of no use
                await self._is_reaped(engine)
        if not expected:
            engine.loss = {"pid": engine.pid, "how": engine.how_it_ended(), "requests": len(engine.requests)}
            _log.error("an engine process is lost", extra={"fields": engine.loss})
        try:
            self._owner.on_lost(engine)
        finally:
            engine.release()
            self.engines.remove(engine)
            self._one_ended.set()
        self._loop.call_later(_LEFTOVER_SECONDS, self._kill_leftovers)

    async def _is_reaped(self, engine: EngineHandle) -> bool:
        if self._server is None and self.template.forks:  # the system does not report the end of the template's child here
            return False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_REAP_SECONDS):
                await engine.reaped.wait()
        return engine.reaped.is_set()

    def _reap(self) -> None:
        self._one_ended.set()
        for pid, code in child_processes.reap().items():
            if pid == self.template.pid:
                self._template_lost()
            for engine in self.engines:
                if engine.pid == pid:
                    engine.exit_code = code
                    engine.reaped.set()
                    engine.link.abort()

    def _kill_leftovers(self) -> None:
        """Children of an engine that was lost, such as a llama.cpp that was stopped: this process has become their parent."""
        if self._server is not None and not self._closing and all(engine.pid is not None for engine in self.engines):
            known = {engine.pid for engine in self.engines} | {self.template.pid}
            for pid in child_processes.children() - known:
                child_processes.kill(pid)

    def _template_lost(self) -> None:
        if self._closing or self.template.is_lost:
            return
        self.template.close()
        _log.error("the template process is lost", extra={"fields": {"pid": self.template.pid}})
        if not self.template.loaded:
            self._count_failure()
        if not self._pausing:
            self._restart_template()

    def _restart_template(self) -> None:
        self._restarted = True
        self.template = self._start_template()
        self.template.listen(self._on_log, self._take_message, self._template_lost)

    def _count_failure(self) -> None:
        self._failures += 1
        if self._failures >= _MAX_FAILURES and not self._pausing:
            self._pausing = True
            self._owner.on_failing()
            self._loop.call_later(_PAUSE_SECONDS, self._continue)

    def _continue(self) -> None:
        self._pausing = False
        if self.template.is_lost:
            self._restart_template()
        self.maintain()

    def _run(self, work: Coroutine[object, object, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.critical("supervising the engines failed", exc_info=error)
