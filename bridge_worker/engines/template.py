"""The template process: loads what engines need, then forks one for each command. It runs no loop and no thread.

Owns the order of loading and forking. Refuses to know what is loaded and what an engine runs: both are handed in. Whatever ends the
server process ends this one.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket
import time
import traceback
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn

from bridge_worker.system.child_processes import end_with_parent

MAX_COMMAND_BYTES = 4096
MAX_MESSAGE_BYTES = 64 * 1024  # to the server process
_COMMAND_SECONDS = 5.0  # for the command to fork the early engine, which may not wait for an import of LiteLLM that hangs
_QUIET_SECONDS = 1.0  # without a command, after which the rest is loaded: the first chats have the processor until then
DESCRIPTORS = 3  # of an engine: its link, its log, its board

RunEngine = Callable[[socket.socket, int, int], NoReturn]
Rows = list[dict[str, str]]  # of `status.degraded`


class Template:
    """``load_early`` loads what needs no LiteLLM, ``load`` what the first chat needs, ``load_rest`` what any chat may need; all run
    in this process, and between the steps of the last engines are forked. None may leave a thread, a loop or a connection.
    ``rehearse`` may: it runs in a separate process, which ends with it, so that what it loads takes no memory for long.
    ``run_engine`` gets the descriptors of a new engine, in that engine's process."""

    def __init__(
        self,
        control: socket.socket,
        load_early: Callable[[], None],
        load: Callable[[], None],
        load_rest: Callable[[], Iterator[None]],
        rehearse: Callable[[], Rows],
        run_engine: RunEngine,
    ) -> None:
        self._control = control
        self._load_early = load_early
        self._load = load
        self._load_rest = load_rest
        self._rehearse = rehearse
        self._rehearsal = -1  # the pipe from its process while that runs
        self._run_engine = run_engine

    def run(self, server: int) -> NoReturn:
        """``server`` is the process id of the server process, which is the parent of this one.

        The engines of the start are forked before the rest is loaded, and load of it what they need; all later ones share it.
        """
        end_with_parent(server)
        ignore_terminal()
        started = time.monotonic()
        gc.disable()  # a collection while modules are being made finds nothing and costs a fifth of the import
        self._load_early()
        self._has_command(_COMMAND_SECONDS)
        while self._has_command(0):
            self._obey()
        self._load()
        gc.freeze()  # no collection of an engine touches these pages, so that they stay shared
        self._send({"loaded_ms": round((time.monotonic() - started) * 1000, 1)})
        while self._has_command(_QUIET_SECONDS):
            self._obey()
        for _ in self._load_rest():
            while self._has_command(0):
                self._obey()
        gc.collect()
        gc.freeze()
        self._send({"rehearsed": self._rows_of_rehearsal()})
        while True:
            self._obey()

    def _rows_of_rehearsal(self) -> Rows:
        """Obeys commands until it has ended."""
        try:
            self._rehearsal, write = os.pipe()
            pid = os.fork()
        except OSError as error:
            return _not_rehearsed(f"it could not be started: {error}")
        if pid == 0:
            self._run_rehearsal(write)
        os.close(write)
        report = b""
        while True:
            if self._control.fileno() in select.select([self._control.fileno(), self._rehearsal], [], [])[0]:
                self._obey()
            elif piece := os.read(self._rehearsal, MAX_MESSAGE_BYTES):
                report += piece
            else:
                break
        os.close(self._rehearsal)
        self._rehearsal = -1
        _, status = os.waitpid(pid, 0)
        if status or not report:
            return _not_rehearsed(f"its process ended with {os.waitstatus_to_exitcode(status)}")
        rows: Rows = json.loads(report)
        return rows

    def _run_rehearsal(self, write: int) -> NoReturn:
        code = 70
        try:
            template = os.getppid()
            self._control.close()
            end_with_parent(template)
            data = json.dumps(self._rehearse()).encode()
            while data:
                data = data[os.write(write, data) :]
            code = 0
        except BaseException:
            traceback.print_exc()
        os._exit(code)

    def _has_command(self, seconds: float) -> bool:
        """Waits so long for one."""
        return bool(select.select([self._control], [], [], seconds)[0])

    def _obey(self) -> None:
        data, descriptors, _, _ = socket.recv_fds(self._control, MAX_COMMAND_BYTES, DESCRIPTORS)
        if not data:
            os._exit(0)
        command = json.loads(data)
        with contextlib.suppress(OSError):  # no memory or too many processes: the server process sees the link's end
            self._fork(command["engine"], command["server"], descriptors)
        for fd in descriptors:
            os.close(fd)

    def _fork(self, engine: int, server: int | None, descriptors: list[int]) -> None:
        """``server`` adopts the engine when the process between them ends, so that it outlives this one and no other; None where
        there is no such adoption."""
        if server is None:
            pid = os.fork()
            if pid == 0:
                self._become_engine(descriptors)
            self._send({"engine": engine, "pid": pid})
            return
        between = os.fork()
        if between:
            os.waitpid(between, 0)
            return
        between = os.getpid()
        try:
            pid = os.fork()
        except OSError:
            os._exit(1)
        if pid:
            self._send({"engine": engine, "pid": pid})
            os._exit(0)
        while os.getppid() == between:
            time.sleep(0.0002)
        end_with_parent(server)
        self._become_engine(descriptors)

    def _become_engine(self, descriptors: list[int]) -> NoReturn:
        try:
            self._control.close()
            if self._rehearsal >= 0:
                os.close(self._rehearsal)
            link, log, board = descriptors
            os.dup2(log, 1)
            os.dup2(log, 2)
            self._run_engine(socket.socket(fileno=link), log, board)
        except BaseException:
            traceback.print_exc()
        os._exit(70)  # never back into the template's loop

    def _send(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # the server process has ended, and so will this one
            self._control.send(json.dumps(message).encode())


def _not_rehearsed(reason: str) -> Rows:
    return [{"part": "self-test", "reason": reason, "effect": "each format is tested before its first chat"}]


def ignore_terminal() -> None:
    """Ctrl-C and a closed terminal go to the whole group; the server process decides what becomes of them. Functions, not SIG_IGN,
    which programs that are started later would inherit."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"):
        if (number := getattr(signal, name, None)) is not None:
            signal.signal(number, _do_nothing)


def _do_nothing(number: int, frame: FrameType | None) -> None:
    pass
