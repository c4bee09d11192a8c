"""The system under the worker: processes, descriptors, threads and the clock are virtual, the worker's own modules real.

Owns what replaces ``os``, ``select``, ``threading`` and the like in these modules, for the machine that is current. Refuses to know
a client and a schedule.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import select as real_select
import signal
import time
import uuid
import warnings
from asyncio import events
from collections.abc import Callable, Iterator, Mapping
from types import CoroutineType, SimpleNamespace
from typing import Any
from unittest import mock

from bridge_worker.budgets.store import MemoryStore
from bridge_worker.config.source import Config, ConfigError
from bridge_worker.engines import engine as engine_module
from bridge_worker.engines import handle, supervisor
from bridge_worker.engines import link as link_module
from bridge_worker.engines.engine import Engine
from bridge_worker.engines.handle import EngineHandle
from bridge_worker.engines.link import Link
from bridge_worker.methods import status as status_method
from bridge_worker.protocol.link_frames import HEAD
from bridge_worker.runtime import notifier, pooled_app, server, startup, stdio
from bridge_worker.runtime.client_credentials import ClientCredentials
from bridge_worker.runtime.engine_process import _Noted
from bridge_worker.runtime.pooled_app import PooledApp
from bridge_worker.runtime.shared_state import remote_state
from bridge_worker.security.redaction import Redactor
from tests.simulation.kernel import NO_PROCESS, Kernel, Process, ProcessExit
from tests.simulation.provider import SimApp
from tests.simulation.schedules import Plan, plan
from tests.simulation.wires import Endpoint, Pipe, socket_pair

SERVER_PID, FIRST_TEMPLATE_PID = 100, 200
STDIN, STDOUT = 10, 11
_MEMORY = 1 << 20
# Smaller than in production, so that a few requests reach them.
READ_QUEUE_BYTES, DELTA_QUEUE_BYTES, LINK_QUEUE_BYTES, ATOMIC_BYTES, READ_BYTES = 4096, 1024, 1024, 256, 1000
_REDACTOR = Redactor({})

current: Any = None  # the `Machine` that runs


class Machine:
    """One run: the server process on its pipes, with or without engine processes."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.kernel = Kernel(plan.seed)
        self.stdin = Pipe(plan.stdin_bytes)
        self.stdout = Pipe(plan.stdout_bytes)
        self.writing: list[tuple[memoryview, Callable[[bool], None]]] = []  # what a thread of the server is blocked with
        self.children: dict[int, Process] = {}
        self.zombies: dict[int, int] = {}
        self.engines: dict[int, EngineProcess] = {}  # by key
        self.templates: list[TemplateStub] = []
        self.connections: dict[str, int] = {}  # open to the provider, by the key of the chat
        self.charged: dict[str, tuple[int, int]] = {}  # nano USD that a chat of this key may have cost: least, most
        self.log: list[str] = []
        self.reload_calls = 0
        self.server_process = Process(self.kernel, "server", SERVER_PID, self._server_ended)
        self.server: server.Server | None = None
        self.pipe: stdio.Stdio | None = None
        self.app: PooledApp | SimApp | None = None
        self.most_queued = 0
        self.exit_code: int | None = None
        self.lost_output = False  # a write has failed
        self._pids = FIRST_TEMPLATE_PID
        self._on_reader_gone: list[Callable[[], None]] = []
        self.stdout.on_room = self._continue_writing
        self.stdin.on_data = self._poll_stdin
        self.server_process.on_reader = lambda fd: self._poll_stdin() if fd == STDIN else None
        self._polling = False

    def start(self) -> None:
        self.server_process.spawn(self._serve())

    async def _serve(self) -> int:
        config = self.plan.config(0)
        credentials = ClientCredentials(_REDACTOR)
        if self.plan.engines:
            source: Any = SourceStub(self)
            app: Any = PooledApp(config, source, _REDACTOR, self.spawn_template(), self._take_log, credentials, preload_local=False)
        else:
            app = SimApp(self, self.server_process, config, None)
        self.app = app
        return await startup._run(config.settings, app, credentials, None, None, STDIN, STDOUT, has_file=isinstance(app, PooledApp))

    # Processes.

    def new_pid(self) -> int:
        self._pids += 1
        return self._pids

    def child_ended(self, pid: int, code: int) -> None:
        self.children.pop(pid, None)
        self.zombies[pid] = code
        self.kernel.after(self.kernel.random.random() * 0.002, self.server_process.signal, signal.SIGCHLD)

    def kill(self, pid: int) -> None:
        if pid in self.children:
            self.children[pid].end(-signal.SIGKILL)

    def reap(self) -> dict[int, int]:
        ended, self.zombies = self.zombies, {}
        return ended

    def spawn_template(self) -> TemplateStub:
        template = TemplateStub(self)
        self.templates.append(template)
        return template

    def _server_ended(self, code: int) -> None:
        self.exit_code = code
        self.writing.clear()
        self.stdin.lose_reader()
        self.stdout.lose_writer()
        for child in list(self.children.values()):  # PR_SET_PDEATHSIG
            self.kernel.after(0.001, child.end, -signal.SIGKILL)

    def _take_log(self, line: bytes) -> None:
        self.log.append(line.decode())

    # Descriptors of the server process.

    def close_reading_end(self) -> None:
        self.stdout.lose_reader()
        for callback in self._on_reader_gone:
            self.kernel.after(self.kernel.random.random() * 0.05, callback)

    def watch_reader(self, callback: Callable[[], None]) -> None:
        self._on_reader_gone.append(callback)

    def _poll_stdin(self) -> None:
        if not self._polling and STDIN in self.server_process.readers and (self.stdin.data or self.stdin.writer_gone):
            self._polling = True
            self.kernel.after(self.kernel.random.random() * self.plan.latency, self._wake_reader)

    def _wake_reader(self) -> None:
        self.server_process.call_soon(self._stdin_is_readable)

    def _stdin_is_readable(self) -> None:
        self._polling = False
        if (callback := self.server_process.readers.get(STDIN)) is not None and (self.stdin.data or self.stdin.writer_gone):
            callback()
        self._poll_stdin()

    def read(self, fd: int, count: int) -> bytes:
        assert fd == STDIN
        if not self.stdin.data and not self.stdin.writer_gone:
            raise BlockingIOError
        return self.stdin.take(count)

    def write_some(self, fd: int, data: memoryview) -> memoryview:
        """A blocking pipe takes all of a small write; a socket with O_NONBLOCK what fits."""
        self.lost_output |= self.stdout.reader_gone
        room = self.stdout.room()
        if self.plan.partial_writes and room > 1 and self.kernel.random.random() < 0.3:
            room = 1 + int(self.kernel.random.random() * room)
            return data[self.stdout.put(data[:room]) :]
        return data[self.stdout.put(data) :]

    def write_in_thread(self, data: memoryview, done: Callable[[bool], None]) -> None:
        self.writing.append((data, done))
        self.kernel.after(self.kernel.random.random() * 0.001, self._continue_writing)

    def _continue_writing(self) -> None:
        while self.writing:
            data, done = self.writing[0]
            try:
                rest = data[self.stdout.put(data) :] if self.stdout.room() or self.stdout.reader_gone else data
            except OSError:
                self.lost_output = True
                self.writing.clear()
                done(False)
                return
            if rest:
                self.writing[0] = (rest, done)
                return
            self.writing.pop(0)
            done(True)


class EngineProcess:
    """What the template forks: reads its setup, then runs the real `Engine`."""

    def __init__(self, machine: Machine, key: int, end: Endpoint, board: Board) -> None:
        self.machine = machine
        self.key = key
        self.pid = machine.new_pid()
        self.end = end
        self.board = board
        self.engine: Engine | None = None
        self.app: SimApp | None = None
        self.process = Process(machine.kernel, f"engine {key}", self.pid, self._ended)
        self.process.open.add(end)
        machine.children[self.pid] = self.process
        machine.engines[key] = self
        end.on_data = self._boot
        self._boot()

    def _ended(self, code: int) -> None:
        self.machine.child_ended(self.pid, code)

    def _boot(self) -> None:
        inbox, end = self.end.inbox, self.end
        length = HEAD.unpack_from(inbox)[0] if len(inbox) >= HEAD.size else 1 << 30
        if len(inbox) >= HEAD.size + length:
            setup = end.take(HEAD.size + length)[HEAD.size :]
            end.on_data = None
            self.process.spawn(self._run(setup))
        elif end.eof:
            end.on_data = None
            self.machine.kernel.after(0, self.process.end, 0)

    async def _run(self, setup: bytes) -> int:
        generation, early = map(int, setup.split())
        plan = self.machine.plan

        async def call(name: str, arguments: Mapping[str, object]) -> object:
            return await engine.call(name, arguments)

        app = SimApp(self.machine, self.process, plan.config(generation), remote_state(call), early=bool(early))
        self.app = app
        noted: Any = _Noted(app)  # type: ignore[arg-type]  # the part of `App` that it uses
        board: Any = self.board
        engine = self.engine = Engine(noted, board, lambda: {"memory_bytes": _MEMORY})
        app.start()
        await engine.run(self.end)  # type: ignore[arg-type]
        return 0


class TemplateStub:
    """The server's side of a template process, and that process."""

    def __init__(self, machine: Machine) -> None:
        self.pid = machine.new_pid()
        self.forks = True
        self.loaded = False
        self.rehearsed: list[dict[str, str]] | None = None
        self.is_lost = False
        self._machine = machine
        self._held: list[tuple[int, Endpoint, Board]] = []
        self._on_message: Callable[[dict[str, Any]], None] = lambda _: None
        self._on_lost: Callable[[], None] = lambda: None
        self._process = Process(machine.kernel, "template", self.pid, self._ended)
        machine.children[self.pid] = self._process
        self._is_loaded = False
        machine.kernel.after(machine.plan.load_seconds, self._load)

    def listen(self, on_log: object, on_message: Callable[[dict[str, Any]], None], on_lost: Callable[[], None]) -> None:
        self._on_message, self._on_lost = on_message, on_lost

    def command(self, command: dict[str, Any], descriptors: tuple[Any, ...]) -> None:
        end, _, board = descriptors
        if self._process.exit_code is not None:
            end.process_ended()
            return
        self._held.append((command["engine"], end, board))
        self._machine.kernel.after(self._machine.kernel.random.random() * 0.03, self._fork)

    def close(self) -> None:
        self.is_lost = True
        self._machine.kernel.after(0.001, self._process.end, 0)

    def _load(self) -> None:
        if self._process.exit_code is None:
            self._is_loaded = True
            self._send({"loaded_ms": 1.0})

    def _fork(self) -> None:
        if self._process.exit_code is not None or not self._held:
            return
        if self._process.hangs:
            self._machine.kernel.after(0.05, self._fork)
            return
        key, end, board = self._held.pop(0)
        engine = EngineProcess(self._machine, key, end, board)
        self._send({"engine": key, "pid": engine.pid})

    def _send(self, message: dict[str, Any]) -> None:
        self._machine.kernel.after(self._machine.kernel.random.random() * 0.01, self._arrive, message)

    def _arrive(self, message: dict[str, Any]) -> None:
        if not self.is_lost:
            self._machine.server_process.call_soon(self._take, message)

    def _take(self, message: dict[str, Any]) -> None:
        if not self.is_lost:
            self.loaded = self.loaded or "loaded_ms" in message
            self._on_message(message)

    def _ended(self, code: int) -> None:
        for _, end, _ in self._held:
            end.process_ended()
        self._held.clear()
        self._machine.child_ended(self.pid, code)
        if not self.is_lost:
            self._machine.server_process.call_soon(self._lose)

    def _lose(self) -> None:
        if not self.is_lost:
            self._on_lost()


class SourceStub:
    """Reads the next config of the plan, or an error."""

    path = "/etc/gateway.yaml"
    environ: Mapping[str, str] = {}

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def load(self) -> Config:
        self._machine.reload_calls += 1
        config = self._machine.plan.reload(self._machine.reload_calls)
        if config is None:
            raise ConfigError("/etc/gateway.yaml:1: model_list: must be a list")
        return config


class Board:
    """As `engines.board.Board`; shared by both processes until the server process closes its own mapping."""

    def __init__(self, cells: dict[int, int]) -> None:
        self._cells = cells
        self._closed = False

    def __getitem__(self, request: int) -> int:
        if self._closed:
            raise ValueError("mmap closed or invalid")
        return self._cells.get(request, 0)

    def __setitem__(self, request: int, progress: int) -> None:
        if self._closed:
            raise ValueError("mmap closed or invalid")
        self._cells[request] = progress

    def close(self) -> None:
        self._closed = True


class _Log:
    def close(self) -> None: ...


async def _open_engine(
    key: int, generation: int, early: bool, on_frame: Any, on_lost: Any, on_log: Any
) -> tuple[EngineHandle, tuple[Any, ...]]:
    machine = current
    if machine.plan.open_failures and machine.kernel.random.random() < machine.plan.open_failures:
        raise OSError(errno.EMFILE, "Too many open files")
    ours, theirs = socket_pair(machine.kernel, machine.plan.link_bytes, machine.plan.latency, machine.plan.cuts)
    cells: dict[int, int] = {}
    link = Link(on_frame, on_lost)
    log: Any = _Log()
    board: Any = Board(cells)
    engine = EngineHandle(key, generation, early, link, board, log)
    end: Any = ours
    await link.connect(end)
    return engine, (theirs, log, Board(cells))


class _Queue:
    """`_Sink._work`: what is put there is written by a thread, which blocks as long as the client does not read."""

    sink: Any = None

    def put(self, work: tuple[int, memoryview]) -> None:
        count, data = work
        process, written = current.server_process, self.sink._on_written
        current.write_in_thread(data, lambda whole: process.call_soon(written, count, whole) and None)


class _Poll:
    def register(self, fd: int, events: int) -> None: ...

    def poll(self, timeout: int) -> list[tuple[int, int]]:
        out = current.stdout
        is_ready = out.reader_gone or out.room() >= stdio._ATOMIC_BYTES
        return [(STDOUT, real_select.POLLOUT)] if is_ready else []


class _Thread:
    def __init__(self, **_: object) -> None: ...

    def start(self) -> None: ...


class _SimStdio(stdio.Stdio):
    def __init__(self, source: int, sink: int) -> None:
        super().__init__(source, sink)
        self._sink._work.sink = self._sink  # type: ignore[attr-defined]
        current.pipe = self
        write = self.write

        def noted(data: bytes) -> None:
            write(data)
            current.most_queued = max(current.most_queued, self.queued())

        self.write = noted  # type: ignore[method-assign]


class _SimServer(server.Server):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        current.server = self


class _Errors(logging.Handler):
    """An exception in the log, or a broken invariant."""

    def emit(self, record: logging.LogRecord) -> None:
        expected = record.getMessage() in EXPECTED
        is_freed = events._get_running_loop() is NO_PROCESS  # a coroutine of a process that was killed
        if record.getMessage() == "a cancelled request did not end" and not current.plan.is_slow():
            current.kernel.faults.append("a cancelled request did not end, although nothing holds it up")
        if (record.exc_info or record.levelno >= logging.CRITICAL) and not expected and not is_freed:
            current.kernel.faults.append(f"logged: {record.getMessage()} {record.exc_info and record.exc_info[1]!r}")


EXPECTED = ("a method failed: expected",)


def _exit(code: int) -> None:
    raise ProcessExit(code)


def _fast_exit(code: int) -> None:
    """In a callback of the engine's link."""
    raise ProcessExit(code)


@contextlib.contextmanager
def virtual() -> Iterator[None]:
    """The worker's modules are on the current machine within it."""
    global current
    children = SimpleNamespace(
        adopt_orphans=lambda: True,
        reap=lambda: current.reap(),
        children=lambda: set(current.children),
        kill=lambda pid: current.kill(pid),
    )
    logger = logging.getLogger("bridge_worker")
    errors, level, propagate = _Errors(), logger.level, logger.propagate
    requests = logging.getLogger("bridge_worker.requests")
    with contextlib.ExitStack() as stack:

        def patch(target: object, name: str, value: object) -> None:
            stack.enter_context(mock.patch.object(target, name, value))

        patch(time, "monotonic", lambda: current.kernel.now)
        patch(time, "time", lambda: current.kernel.now + 1_700_000_000)
        patch(MemoryStore.__init__, "__defaults__", (lambda: current.kernel.now + 1_700_000_000,))
        patch(uuid, "uuid4", lambda: uuid.UUID(int=current.kernel.random.getrandbits(128)))
        patch(supervisor, "child_processes", children)
        patch(handle, "processor_times", lambda pid: (0.0, 0.0))
        patch(supervisor, "os", SimpleNamespace(getpid=lambda: SERVER_PID, close=lambda fd: None))
        patch(supervisor, "_TICKS", 3)  # fewer pings
        patch(supervisor, "open_engine", _open_engine)
        patch(engine_module, "os", SimpleNamespace(_exit=_fast_exit))
        patch(pooled_app, "encode_setup", lambda setup: b"%d %d" % (current.plan.generation(setup.config), setup.early))
        patch(pooled_app, "_spawn", lambda: current.spawn_template())
        patch(pooled_app, "memory_bytes", lambda *_: _MEMORY)
        patch(status_method, "memory_bytes", lambda: _MEMORY)
        patch(stdio, "os", SimpleNamespace(read=lambda fd, count: current.read(fd, count)))
        patch(stdio, "write_some", lambda fd, data: current.write_some(fd, data))
        patch(stdio, "room_of_empty_pipe", lambda fd: current.stdout.room() if not current.stdout.data else 0)
        patch(stdio, "queue", SimpleNamespace(SimpleQueue=_Queue))
        patch(stdio, "threading", SimpleNamespace(Thread=_Thread, Semaphore=_Semaphore))
        patch(stdio, "select", SimpleNamespace(poll=_Poll, POLLOUT=real_select.POLLOUT))
        patch(stdio, "_ATOMIC_BYTES", ATOMIC_BYTES)
        patch(stdio, "_READ_BYTES", READ_BYTES)
        patch(link_module, "_QUEUE_BYTES", LINK_QUEUE_BYTES)
        patch(server, "READ_QUEUE_BYTES", READ_QUEUE_BYTES)
        patch(notifier, "DELTA_QUEUE_BYTES", DELTA_QUEUE_BYTES)
        patch(pooled_app, "DELTA_QUEUE_BYTES", DELTA_QUEUE_BYTES)
        patch(startup, "Stdio", _SimStdio)
        patch(startup, "Server", _SimServer)
        patch(startup, "set_executor", lambda: None)
        patch(startup, "watch_reader", lambda fd, callback: current.watch_reader(callback))
        patch(startup, "watch_parent", lambda callback: None)
        logger.addHandler(errors)
        stack.callback(logger.removeHandler, errors)
        stack.callback(setattr, logger, "propagate", propagate)
        stack.callback(logger.setLevel, level)
        stack.callback(requests.setLevel, requests.level)
        of_asyncio = logging.getLogger("asyncio")  # it complains of each task of a killed process
        stack.callback(of_asyncio.setLevel, of_asyncio.level)
        of_asyncio.setLevel(logging.CRITICAL + 1)
        logger.propagate = False
        logger.setLevel(logging.ERROR)
        requests.setLevel(logging.ERROR)
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore", RuntimeWarning)  # coroutines of killed processes are never awaited
        if gc.isenabled():  # a collection within a run would free coroutines of killed processes at any time
            gc.disable()
            stack.callback(gc.enable)
        gc.collect()
        gc.freeze()  # so that a collection between runs looks at what they have left, and at no module
        events._set_running_loop(NO_PROCESS)
        stack.callback(events._set_running_loop, None)
        current = current or Machine(plan(0))  # a clock before the first run
        yield
        current = Machine(current.plan) if current else None  # where the handlers of freed coroutines do no harm
        _free_what_is_left()


def _free_what_is_left() -> None:
    """Frees coroutines of killed processes while nothing listens. Their handlers make tasks, which the next round frees."""
    gc.unfreeze()
    for _ in range(4):
        gc.collect()
        for one in [one for one in gc.get_objects() if isinstance(one, CoroutineType)]:
            if "bridge_worker" in one.cr_code.co_filename:
                with contextlib.suppress(RuntimeError, ValueError):
                    one.close()


class _Semaphore:
    def __init__(self, value: int) -> None: ...

    def release(self) -> None: ...

    def acquire(self) -> None: ...
