"""A machine in one thread: a clock, a random scheduler, and processes, each of which is an asyncio loop without descriptors.

Owns what runs next. One generator of random numbers decides everything, so that one seed is one schedule. Refuses to know what the
processes do. A process can hang (its callbacks wait) and be killed (they never run), which is why each has a loop.
"""

from __future__ import annotations

import asyncio
import random
from asyncio.events import _set_running_loop as set_running_loop
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from heapq import heappop, heappush
from typing import Any

MAX_STEPS = 400_000
_EARLY = 0.15  # how often an event of the next millisecond overtakes callbacks that could run: they take time too
_SOON = 0.001


class ProcessExit(BaseException):
    """`os._exit` in a process of this machine."""

    def __init__(self, code: int) -> None:
        self.code = code


class Call:
    """A handle, as `asyncio.TimerHandle`."""

    __slots__ = ("_when", "args", "callback", "context")

    def __init__(self, callback: Callable[..., Any], args: tuple[Any, ...], context: Any = None, when: float = 0.0) -> None:
        self.callback: Callable[..., Any] | None = callback
        self.args = args
        self.context = context
        self._when = when

    def cancel(self) -> None:
        self.callback = None
        self.args = ()

    def cancelled(self) -> bool:
        return self.callback is None

    def when(self) -> float:
        return self._when


class Kernel:
    """``fault`` is called with what must not happen in any process, such as an exception in a callback."""

    def __init__(self, seed: object) -> None:
        self.random = random.Random(seed)
        self.now = 1000.0
        self.runnable: list[Process] = []
        self.faults: list[str] = []
        self.steps = 0
        self._heap: list[tuple[float, float, int, Process | None, Call]] = []
        self._pushed = 0

    def clock(self) -> float:
        return self.now

    def after(self, delay: float, callback: Callable[..., Any], *args: Any) -> Call:
        """Calls outside any process."""
        return self.push(self.now + delay, None, Call(callback, args))

    def push(self, when: float, process: Process | None, call: Call) -> Call:
        self._pushed += 1
        heappush(self._heap, (when, self.random.random(), self._pushed, process, call))
        return call

    def run(self, done: Callable[[], bool], until: float) -> bool:
        """False when ``until`` has come, or nothing can happen any more."""
        chance, runnable, heap = self.random.random, self.runnable, self._heap
        while not done():
            self.steps += 1
            if self.steps > MAX_STEPS:
                self.faults.append("livelock: the processes run without end")
                return False
            if runnable and not (heap and heap[0][0] < self.now + _SOON and chance() < _EARLY):
                process = runnable.pop(0 if len(runnable) == 1 else int(chance() * len(runnable)))
                process.turn()
            elif heap:
                when, _, _, owner, call = heappop(heap)
                if call.callback is None:
                    continue
                if when > until:
                    heappush(heap, (when, 0.0, 0, owner, call))
                    return False
                self.now = max(when, self.now)
                if owner is None:
                    call.callback(*call.args)
                else:
                    owner.wake(call)
            else:
                return False
        return True


class Process(asyncio.AbstractEventLoop):
    """The loop of one process. ``on_end`` gets its exit code, a signal's as a negative one."""

    def __init__(self, kernel: Kernel, name: str, pid: int, on_end: Callable[[int], None]) -> None:
        self.kernel = kernel
        self.name = name
        self.pid = pid
        self.exit_code: int | None = None
        self.hangs = False
        self.open: set[Any] = set()  # what closes with it: endpoints, connections
        self.signals: dict[int, Callable[[], Any]] = {}
        self.readers: dict[int, Callable[[], Any]] = {}
        self.on_reader: Callable[[int], None] = lambda _: None
        self._on_end = on_end
        self._ready: deque[Call] = deque()
        self._never_run: deque[Call] = deque()
        self._queued = False

    def spawn(self, main: Coroutine[Any, Any, int]) -> None:
        """Runs ``main``, and ends with the code that it returns."""
        self.call_soon(self._begin, main)

    def end(self, code: int) -> None:
        if self.exit_code is None:
            self.exit_code = code
            self._never_run, self._ready = self._ready, deque()  # kept: to free a coroutine would run its handlers
            for one in list(self.open):
                one.process_ended()
            self.open.clear()
            self._on_end(code)

    def hang(self, seconds: float) -> None:
        self.hangs = True
        self.kernel.after(seconds, self._go_on)

    def wake(self, call: Call) -> None:
        if self.exit_code is None:
            self._ready.append(call)
            self._queue()

    def turn(self) -> None:
        self._queued = False
        if self.hangs or self.exit_code is not None:
            return
        ready = self._ready
        take = ready.popleft
        set_running_loop(self)
        try:
            for _ in range(len(ready)):
                call = take()
                if call.callback is not None:
                    call.context.run(call.callback, *call.args)
                    if self.hangs or self.exit_code is not None:
                        break
        except ProcessExit as exit:
            self.end(exit.code)
        except Exception as error:
            self.kernel.faults.append(f"a callback of {self.name} failed: {error!r}")
        finally:
            set_running_loop(NO_PROCESS)
        if ready and self.exit_code is None:
            self._queue()

    def _queue(self) -> None:
        if not self._queued and not self.hangs:
            self._queued = True
            self.kernel.runnable.append(self)

    def _go_on(self) -> None:
        self.hangs = False
        if self._ready and self.exit_code is None:
            self._queue()

    def _begin(self, main: Coroutine[Any, Any, int]) -> None:
        asyncio.Task(main, loop=self).add_done_callback(self._main_ended)

    def _main_ended(self, task: asyncio.Task[int]) -> None:
        if (error := task.exception()) is not None:
            self.kernel.faults.append(f"the main task of {self.name} failed: {error!r}")
            raise ProcessExit(70)
        raise ProcessExit(task.result())

    # asyncio.AbstractEventLoop

    def time(self) -> float:
        return self.kernel.now

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> Any:
        call = Call(callback, args, context or copy_context())
        if self.exit_code is None:
            self._ready.append(call)
            if not self._queued:
                self._queue()
        return call

    call_soon_threadsafe = call_soon

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> Any:
        return self.call_at(self.kernel.now + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:
        call = Call(callback, args, context or copy_context(), when)
        return self.kernel.push(when, self, call) if self.exit_code is None else call

    def create_future(self) -> Any:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: Any = None, context: Any = None) -> Any:
        return asyncio.Task(coro, loop=self, context=context)

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        """The thread runs while the loop does other things."""
        future = self.create_future()
        self.kernel.after(self.kernel.random.random() * 0.003, self._run_in_thread, future, func, args)
        return future

    def _run_in_thread(self, future: Any, func: Any, args: Any) -> None:
        if self.exit_code is not None:
            return
        try:
            result, error = func(*args), None
        except Exception as raised:
            result, error = None, raised
        self.call_soon(_set, future, result, error)

    async def create_connection(self, factory: Any, *, sock: Any) -> Any:  # type: ignore[override]  # a socket pair's end
        protocol = factory()
        sock.connect(self, protocol)
        protocol.connection_made(sock)
        return sock, protocol

    def add_signal_handler(self, number: Any, callback: Any, *args: Any) -> None:
        self.signals[number] = callback

    def signal(self, number: int) -> None:
        if self.exit_code is None and number in self.signals:
            self.call_soon(self.signals[number])

    def add_reader(self, fd: Any, callback: Any, *args: Any) -> None:
        self.readers[fd] = callback
        self.on_reader(fd)

    def remove_reader(self, fd: Any) -> bool:
        return self.readers.pop(fd, None) is not None

    def set_default_executor(self, executor: Any) -> None: ...

    def call_exception_handler(self, context: Any) -> None:
        """asyncio's complaint about a task that was destroyed: that is how a killed process looks from here."""
        if self.exit_code is None and "never retrieved" in context["message"]:
            self.kernel.faults.append(f"{self.name}: {context['message']}: {context.get('exception')!r}")


def _set(future: Any, result: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


# Runs where no process does. Handlers of coroutines that are freed then, those of killed processes, find a loop that does nothing.
NO_PROCESS = Process(Kernel(0), "nobody", 0, lambda code: None)
NO_PROCESS.exit_code = 0
