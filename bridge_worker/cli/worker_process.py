"""A worker for a command: a child process ``omni-bridge --stdio`` with its requests, deltas and responses.

Owns the child, its pipes and its end. A command is an ordinary client, so a user sees what an agent gets. Refuses to know the
methods, and prints nothing: a `Watch` gets each line.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from typing import Any, BinaryIO, Self

from bridge_worker.cli.command_error import CommandError, WorkerReportedError
from bridge_worker.version import __version__

WAIT_SECONDS = 660.0  # longer than the worker's own deadlines: it ends the wait only for a worker that hangs
CLOSE_SECONDS = 10.0
_ENDED: dict[str, Any] = {}  # follows the last message in each queue

Json = dict[str, Any]
Watch = Callable[[str, str], None]  # "-->" or "<--", and the line


def own_command() -> list[str]:
    """The command line that starts this program as a child."""
    frozen = getattr(sys, "frozen", False)
    return [sys.executable] if frozen else [sys.executable, "-I", "-X", "utf8", "-m", "bridge_worker"]


class Worker:
    """Use it in ``with``. Its log goes to this process's stderr, or to ``log``."""

    def __init__(self, *flags: str, config: str | None = None, watch: Watch | None = None, log: BinaryIO | None = None) -> None:
        self._log = log
        self._flags = ["--stdio", "--log-format=text", *([f"--config={config}"] if config else []), *flags]
        self._watch = watch or _no_watch
        self._ids = 0
        self._pending: dict[object, PendingResponse] = {}
        self._lock = threading.Lock()
        self._ended = False
        self._sends_raw_lines = False  # `replay` also sends lines that are not valid messages
        self._watch_error: BrokenPipeError | None = None
        self.stray: list[str] = []  # lines of the worker that are not messages

    def __enter__(self) -> Self:
        # In a separate session, so that Ctrl-C reaches only the command, which then cancels the request.
        self._process = subprocess.Popen(  # noqa: S603  # this program itself
            [*own_command(), *self._flags],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, failed: object, *_: object) -> None:
        """Waits for requests in flight; after a failure cancels them instead, because they cost money."""
        if failed:
            self._watch = _no_watch
            self.send({"jsonrpc": "2.0", "id": "end", "method": "shutdown", "params": {"mode": "cancel"}})
        self.end_input()
        try:
            self._process.wait(CLOSE_SECONDS)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            self._process.kill()
        self._reader.join(1)
        if not self._reader.is_alive() and self._process.stdout:
            self._process.stdout.close()

    def initialize(self, name: str) -> Json:
        """Does the handshake and returns the response to ``initialize``."""
        client = {"name": name, "version": __version__}
        response = self.call("initialize", {"protocolVersion": "omni-bridge/1", "clientInfo": client, "processId": os.getpid()})
        self.notify("notifications/initialized", {})
        return response

    def call(self, method: str, params: Json) -> Json:
        """The response: with ``result`` or ``error``. Raises CommandError when the worker ends without one."""
        return self.request(method, params).response()

    def request(self, method: str, params: Json) -> PendingResponse:
        self._ids += 1
        return self.send({"jsonrpc": "2.0", "id": self._ids, "method": method, "params": params})

    def notify(self, method: str, params: Json) -> None:
        self.send({"jsonrpc": "2.0", "method": method, "params": params})

    def send(self, message: Json) -> PendingResponse:
        """Sends a message. For a notification no response arrives. Raises CommandError for text that is not valid Unicode."""
        line = json.dumps(message, ensure_ascii=False, separators=(",", ":"))
        if not line.isascii() and any("\ud800" <= character <= "\udfff" for character in line):
            raise CommandError("the text is not UTF-8", 2, hint="set the encoding of the terminal or shell to UTF-8", final=False)
        pending = self._expect(message.get("id"))
        self.write(line)
        return pending

    def replay(self, line: str) -> list[PendingResponse]:
        """Sends a line unchanged, valid or not; returns the pending responses of the requests in it."""
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        self._sends_raw_lines = True
        requests = [one for one in (message if isinstance(message, list) else [message]) if isinstance(one, dict)]
        pending = [self._expect(one["id"]) for one in requests if isinstance(one.get("id"), str | int) and "method" in one]
        self.write(line)
        return pending

    def _expect(self, id: object) -> PendingResponse:
        pending = PendingResponse(self, id)
        with self._lock:
            if self._ended:
                pending.queue.put(_ENDED)
            return pending if id is None else self._pending.setdefault(id, pending)

    def write(self, line: str) -> None:
        """Sends a line unchanged. When the worker has ended, the pending responses raise, not this."""
        self._watch("-->", line)
        assert self._process.stdin  # noqa: S101  # for mypy
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line.encode("utf-8", "surrogatepass") + b"\n")
            self._process.stdin.flush()

    def end_input(self) -> None:
        assert self._process.stdin  # noqa: S101  # for mypy
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()

    def wait(self) -> int:
        """Waits for the end of the process and of its output; returns the exit code."""
        code = self._process.wait(WAIT_SECONDS)
        self._reader.join(WAIT_SECONDS)
        return code

    def exit_error(self) -> Exception:
        """The reason why no response arrived. A worker that ends with code 2 has printed the error itself."""
        if self._watch_error:
            return self._watch_error
        code = None
        if self._ended:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self._process.wait(CLOSE_SECONDS)
        if code == 2:
            return WorkerReportedError()
        problem = f"the worker ended without a response (exit code {code}); its log is above"
        return CommandError(problem, hint="omni-bridge doctor looks for the cause")

    def _read(self) -> None:
        assert self._process.stdout  # noqa: S101  # for mypy
        try:
            for data in self._process.stdout:
                line = data.decode("utf-8", "replace").rstrip("\n")
                self._watch("<--", line)
                self._deliver(line)
        except BrokenPipeError as error:  # the reader of the watched lines, such as head, ended
            self._watch_error = error
        with self._lock:
            self._ended = True
            for pending in self._pending.values():
                pending.queue.put(_ENDED)

    def _deliver(self, line: str) -> None:
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        for one in message if isinstance(message, list) else [message]:
            if not isinstance(one, dict) or one.get("jsonrpc") != "2.0":
                self.stray.append(line)
                continue
            with self._lock:
                id = self._request_id_of(one)
                pending = self._pending.pop(id, None) if "id" in one else self._pending.get(id)
            if pending:
                pending.queue.put(one)

    def _request_id_of(self, message: Json) -> object:
        if "id" not in message:
            return message.get("params", {}).get("requestId")
        if message["id"] is None and not self._sends_raw_lines:  # the request was too long, so the worker did not read its id
            return next(reversed(self._pending), None)
        return message["id"]


def _no_watch(arrow: str, line: str) -> None:
    """The watch of a worker that has none."""


class PendingResponse:
    """The deltas of one request, as an iterator, and then its response."""

    def __init__(self, worker: Worker, id: Any) -> None:
        self.id = id
        self.queue: SimpleQueue[Json] = SimpleQueue()
        self._worker = worker
        self._response: Json | None = None

    def __iter__(self) -> Iterator[Json]:
        return self

    def __next__(self) -> Json:
        """The next delta. A generator would be closed by Ctrl-C; this object can still be used after it."""
        if self._response is not None:
            raise StopIteration
        try:
            message = self.queue.get(timeout=WAIT_SECONDS)
        except Empty:
            raise self._worker.exit_error() from None
        if message is _ENDED:
            raise self._worker.exit_error()
        if "id" in message:
            self._response = message
            raise StopIteration
        delta: Json = message["params"].get("delta", {})
        return delta

    def response(self) -> Json:
        for _ in self:
            pass
        assert self._response is not None  # noqa: S101  # for mypy
        return self._response

    def cancel(self) -> Json:
        """Cancels the request and returns its response, which reports whether the provider's connection is closed."""
        self._worker.notify("notifications/cancelled", {"requestId": self.id})
        return self.response()
