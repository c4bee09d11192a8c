"""Workers that are forked from a process in which LiteLLM is imported: for tests of anything but a worker's start.

Owns that process, and the rule which workers it can fork. A forked worker is a real one: a process with its own pipes, arguments,
environment and working directory, which runs `main`. It only finds its modules imported and warmed up, as an engine process does
that was forked from the template process. What they read of the environment then has to be what the worker's environment has;
keys and addresses of providers, and proxies, may differ: every call and every HTTP client reads those.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO, NoReturn

_HEAD = 4  # bytes: the length of a command
_READ_BY_EVERY_CALL = re.compile(r"_(API_KEY|API_BASE|BASE_URL)$")


class ForkServer:
    """The handle that tests hold. The process is started when it is first needed, and ends with the tests' process, as do all that
    were forked from it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)
        self._lock = threading.Lock()
        self._control, self._end = socket.socketpair()
        self._replies = self._control.makefile("rb")
        self._process: subprocess.Popen[bytes] | None = None
        self._was_read: frozenset[str] = frozenset()

    def can_fork(self, environment: Mapping[str, str]) -> bool:
        with self._lock:
            if self._process is None:
                self._start()
        for name, _ in environment.items() ^ self._environment.items():
            if name.startswith("PYTHON") or (name in self._was_read and not _READ_BY_EVERY_CALL.search(name)):
                return False
        return True

    def fork(self, arguments: Sequence[str | os.PathLike[str]], environment: Mapping[str, str]) -> ForkedProcess:
        command = {"arguments": list(map(os.fspath, arguments)), "environment": dict(environment), "directory": os.getcwd()}
        body = json.dumps(command).encode()
        stdin, *outputs = [os.pipe() for _ in range(4)]  # the last: how the process ended
        theirs = [stdin[0], *(write for _, write in outputs)]
        try:
            with self._lock:
                socket.send_fds(self._control, [len(body).to_bytes(_HEAD, "big")], theirs)
                self._control.sendall(body)
                pid = int(self._replies.readline())
        finally:
            for fd in theirs:
                os.close(fd)
        return ForkedProcess(pid, stdin[1], *(read for read, _ in outputs))

    def close(self) -> None:
        for part in (self._replies, self._control, self._end):
            part.close()
        if self._process is not None:
            self._process.wait()

    def _start(self) -> None:
        end = self._end.fileno()
        command = [sys.executable, "-I", "-X", "utf8", __file__, str(end)]
        self._process = subprocess.Popen(command, pass_fds=[end], env=self._environment, stdin=subprocess.DEVNULL)
        self._end.close()
        self._was_read = frozenset(json.loads(self._replies.readline()))


class ForkedProcess:
    """What tests use of `subprocess.Popen`, for a process whose parent is the fork server."""

    def __init__(self, pid: int, stdin: int, stdout: int, stderr: int, end: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.stdin: BinaryIO = os.fdopen(stdin, "wb")
        self.stdout: BinaryIO = os.fdopen(stdout, "rb")
        self.stderr: BinaryIO = os.fdopen(stderr, "rb")
        self._end = os.fdopen(end, "rb")
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        return self._wait(0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._wait(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        return code

    def _wait(self, timeout: float | None) -> int | None:
        with self._lock:
            if self.returncode is None and select.select([self._end], [], [], timeout)[0]:
                with self._end:
                    self.returncode = int(self._end.read())
            return self.returncode

    def communicate(self, input: bytes, timeout: float) -> tuple[bytes, bytes]:
        """Writes all input, and reads both outputs to their ends. Raises subprocess.TimeoutExpired after ``timeout`` seconds."""
        with ThreadPoolExecutor(2) as threads:
            outputs = [threads.submit(pipe.read) for pipe in (self.stdout, self.stderr)]
            with contextlib.suppress(BrokenPipeError), self.stdin:
                self.stdin.write(input)
            try:
                self.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
            stdout, stderr = (output.result() for output in outputs)
        for pipe in (self.stdout, self.stderr):
            pipe.close()
        return stdout, stderr

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


# The process itself.


@contextlib.contextmanager
def _recorded_reads() -> Iterator[set[str]]:
    """The names of the environment variables that are read meanwhile."""
    names: set[str] = set()
    read = os._Environ.__getitem__

    def recorded(environment: Any, name: Any) -> Any:
        names.add(name)
        return read(environment, name)

    os._Environ.__getitem__ = recorded
    yield names
    os._Environ.__getitem__ = read


def _import_all() -> None:
    from bridge_worker.runtime import pooled_app, startup  # noqa: F401
    from bridge_worker.runtime.engine_process import load_early, load_litellm, load_rest

    load_early()
    load_litellm()
    for _ in load_rest():
        pass


def _serve(control: socket.socket) -> NoReturn:
    running: dict[int, tuple[int, int]] = {}  # a descriptor of the process -> its id, where its end is reported
    while True:
        for ready in select.select([control, *running], [], [])[0]:
            if ready is control:
                _obey(control, running)
                continue
            pid, report = running.pop(ready)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            with contextlib.suppress(BrokenPipeError):
                os.write(report, b"%d" % code)
            os.close(ready)
            os.close(report)


def _obey(control: socket.socket, running: dict[int, tuple[int, int]]) -> None:
    head, descriptors, _, _ = socket.recv_fds(control, _HEAD, 4)
    if not head:
        for pid, _ in running.values():
            os.kill(pid, signal.SIGKILL)
        os._exit(0)
    with control.makefile("rb") as body:
        command = json.loads(body.read(int.from_bytes(head, "big")))
    *standard, report = descriptors
    pid = os.fork()
    if pid == 0:
        for fd in (control.fileno(), report, *running, *(other for _, other in running.values())):
            os.close(fd)
        _become_worker(standard, **command)
    for fd in standard:
        os.close(fd)
    running[os.pidfd_open(pid)] = (pid, report)
    control.sendall(b"%d\n" % pid)


def _become_worker(standard: Sequence[int], arguments: list[str], environment: dict[str, str], directory: str) -> NoReturn:
    for number, fd in enumerate(standard):
        os.dup2(fd, number)
        os.close(fd)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[1:] = arguments
    from bridge_worker.cli.main import main

    main()


if __name__ == "__main__":
    with _recorded_reads() as _names:
        _import_all()
    gc.collect()
    gc.freeze()  # no collection of a worker touches these pages, so that they stay shared
    _control = socket.socket(fileno=int(sys.argv[1]))
    _control.sendall(json.dumps(sorted(_names)).encode() + b"\n")
    _serve(_control)
