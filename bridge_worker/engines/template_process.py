"""The template process as the server process sees it: forks or spawns it, sends it commands and reads its messages.

Owns the two descriptors of it. Refuses to decide when one is started.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from bridge_worker.engines.handle import LogPipe, OnLog
from bridge_worker.engines.template import MAX_COMMAND_BYTES


class TemplateProcess:
    """``control`` is the server's end of the socket pair, ``log`` the reading end of the pipe that is the template's stderr."""

    def __init__(self, pid: int, control: socket.socket, log: int) -> None:
        self.pid = pid
        self.loaded = False  # what the first chat needs
        self.complete = False  # and the rest
        self.is_lost = False
        self._control = control
        self._log = log
        self._pipe: LogPipe | None = None
        self._on_message: Callable[[dict[str, Any]], None] = lambda _: None
        self._on_lost: Callable[[], None] = lambda: None
        control.setblocking(False)

    def listen(self, on_log: OnLog, on_message: Callable[[dict[str, Any]], None], on_lost: Callable[[], None]) -> None:
        """Call it in the loop that serves."""
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
            data = self._control.recv(MAX_COMMAND_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._on_lost()
            return
        message = json.loads(data)
        self.loaded = self.loaded or "loaded_ms" in message
        self.complete = self.complete or "complete" in message
        self._on_message(message)


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
    command = [sys.executable, "-I", "-X", "utf8", "-m", module, str(theirs.fileno()), str(os.getpid())]
    process = subprocess.Popen(  # noqa: S603  # this very program
        command, stdin=subprocess.DEVNULL, stdout=log_write, stderr=log_write, pass_fds=(theirs.fileno(),)
    )
    process.returncode = 0  # the supervisor reaps it
    theirs.close()
    os.close(log_write)
    return TemplateProcess(process.pid, ours, log_read)


def _control_pair() -> tuple[socket.socket, socket.socket]:
    """A message is one packet, with the descriptors that belong to it."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
