"""What starts engines, as the server process sees it: the template process, or on systems where forking is not safe this process.

Owns the two descriptors of a template process, and the command line of a program that is spawned. Refuses to decide when one is
started.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, Protocol

from bridge_worker.engines.handle import LogPipe, OnLog
from bridge_worker.engines.template import MAX_MESSAGE_BYTES, Rows

_log = logging.getLogger(__name__)
OnMessage = Callable[[dict[str, Any]], None]


class EngineStarter(Protocol):
    """``pid`` is its process, None for this one. ``loaded``: it can start engines.
    ``forks``: an engine is its child, and not this process's. ``rehearsed``: what does not fit the installed LiteLLM, None until
    it is known, and where each engine finds out by itself."""

    pid: int | None
    loaded: bool
    rehearsed: Rows | None
    is_lost: bool
    forks: bool

    def listen(self, on_log: OnLog, on_message: OnMessage, on_lost: Callable[[], None]) -> None:
        """Call it in the loop that serves. ``on_message`` gets the process id of each engine."""

    def command(self, command: dict[str, Any], descriptors: Sequence[int]) -> None:
        """Starts an engine, which gets ``descriptors``. Raises OSError where there is no process or descriptor for it."""

    def close(self) -> None: ...


class SpawnedEngines:
    """Spawns ``module`` as a program for each engine, which loads LiteLLM itself, so that it takes seconds. The program's arguments
    are the numbers of the descriptors."""

    def __init__(self, module: str) -> None:
        self.pid: int | None = None
        self.loaded = True
        self.rehearsed: Rows | None = None
        self.is_lost = self.forks = False
        self._module = module
        self._on_message: OnMessage = lambda _: None

    def listen(self, on_log: OnLog, on_message: OnMessage, on_lost: Callable[[], None]) -> None:
        self._on_message = on_message
        asyncio.get_running_loop().call_soon(on_message, {"loaded_ms": 0.0})

    def command(self, command: dict[str, Any], descriptors: Sequence[int]) -> None:
        log = descriptors[1]
        pid = _spawn([self._module, *map(str, descriptors), str(os.getpid())], log, descriptors)
        self._on_message({"engine": command["engine"], "pid": pid})

    def close(self) -> None:
        """Engines end by their links."""


class TemplateProcess:
    """``control`` is the server's end of the socket pair, ``log`` the reading end of the pipe that is the template's stderr."""

    def __init__(self, pid: int, control: socket.socket, log: int) -> None:
        self.pid: int | None = pid
        self.forks = True
        self.loaded = False
        self.rehearsed: Rows | None = None
        self.is_lost = False
        self._control = control
        self._log = log
        self._pipe: LogPipe | None = None
        self._on_message: OnMessage = lambda _: None
        self._on_lost: Callable[[], None] = lambda: None
        control.setblocking(False)

    def listen(self, on_log: OnLog, on_message: OnMessage, on_lost: Callable[[], None]) -> None:
        self._pipe = LogPipe(self._log, on_log)
        self._on_message, self._on_lost = on_message, on_lost
        asyncio.get_running_loop().add_reader(self._control.fileno(), self._read)

    def command(self, command: dict[str, Any], descriptors: Sequence[int]) -> None:
        """It is lost with the template: then no process holds the descriptors, and the ends of the links report it."""
        with contextlib.suppress(OSError):
            socket.send_fds(self._control, [json.dumps(command).encode()], list(descriptors))

    def close(self) -> None:
        """The template ends by it."""
        if not self.is_lost:
            self.is_lost = True
            asyncio.get_running_loop().remove_reader(self._control.fileno())
            self._control.close()
            if self._pipe is not None:
                self._pipe.close()

    def _read(self) -> None:
        try:
            data = self._control.recv(MAX_MESSAGE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._on_lost()
            return
        message = json.loads(data)
        self.loaded = self.loaded or "loaded_ms" in message
        if "rehearsed" in message:
            self._take_rehearsal(message["rehearsed"])
        self._on_message(message)

    def _take_rehearsal(self, rows: Rows) -> None:
        self.rehearsed = rows
        for row in rows:
            _log.warning("degraded: %s (%s); effect: %s", row["part"], row["reason"], row["effect"])


def fork_template(run: Callable[[socket.socket, int], NoReturn]) -> TemplateProcess:
    """Forks this process, which must have one thread. ``run`` gets the control socket and the server's process id."""
    ours, theirs = _control_pair()
    log_read, log_write = os.pipe()
    server = os.getpid()
    pid = os.fork()
    if pid == 0:
        ours.close()
        os.close(log_read)
        os.dup2(log_write, 2)
        os.dup2(log_write, 1)
        os.close(log_write)
        run(theirs, server)
    theirs.close()
    os.close(log_write)
    return TemplateProcess(pid, ours, log_read)


def spawn_template(module: str) -> TemplateProcess:
    """Starts ``module`` as a program with the number of the control socket and this process's id as its arguments."""
    ours, theirs = _control_pair()
    log_read, log_write = os.pipe()
    pid = _spawn([module, str(theirs.fileno()), str(os.getpid())], log_write, [theirs.fileno()])
    theirs.close()
    os.close(log_write)
    return TemplateProcess(pid, ours, log_read)


def _spawn(module: Sequence[str], log: int, descriptors: Sequence[int]) -> int:
    """The process id of ``module``, a program of this installation and its arguments. The supervisor reaps it."""
    command = [sys.executable, "-I", "-X", "utf8", "-m", *module]
    process = subprocess.Popen(  # noqa: S603  # this very program
        command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=descriptors
    )
    process.returncode = 0
    return process.pid


def _control_pair() -> tuple[socket.socket, socket.socket]:
    """A message is one packet, with the descriptors that belong to it."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
