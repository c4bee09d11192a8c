"""A worker as a command uses it: a child ``omni-bridge --stdio``, its requests and what is said about each.

Owns the child, its pipes and its end. A command is a client like any other, so that what a person sees is what an agent gets.
Refuses to know what is asked, and shows nothing: a `Watch` may.
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

from bridge_worker.cli.command_error import Problem
from bridge_worker.version import __version__

WAIT_SECONDS = 660.0  # beyond the worker's own last deadline: only a worker that hangs is given up
CLOSE_SECONDS = 10.0
_ENDED: dict[str, Any] = {}  # what stands in the queues behind the last message

Json = dict[str, Any]
Watch = Callable[[str, str], None]  # "-->" or "<--", and the line


def own_command() -> list[str]:
    """This very program, as a child is started."""
    frozen = getattr(sys, "frozen", False)
    return [sys.executable] if frozen else [sys.executable, "-I", "-X", "utf8", "-m", "bridge_worker"]


class Worker:
    """Use it in ``with``. What it logs goes to this process's own stderr, or to ``log``."""

    def __init__(self, *flags: str, config: str | None = None, watch: Watch | None = None, log: BinaryIO | None = None) -> None:
        self._log = log
        self._flags = ["--stdio", "--log-format=text", *([f"--config={config}"] if config else []), *flags]
        self._watch = watch or _unseen
        self._ids = 0
        self._answers: dict[object, Answer] = {}
        self._changing = threading.Lock()
        self._ended = False
        self._says_anything = False  # lines that no worker can read, too
        self._unwatched: BrokenPipeError | None = None
        self.stray: list[str] = []  # lines that are no message

    def __enter__(self) -> Self:
        # In a session of its own: a Ctrl-C is for the command, which cancels what is to be cancelled.
        self._process = subprocess.Popen(  # noqa: S603  # this very program
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
        """Lets it finish what is in flight; after a failure nobody waits for that, and somebody pays for it."""
        if failed:
            self._watch = _unseen
            self.send({"jsonrpc": "2.0", "id": "end", "method": "shutdown", "params": {"mode": "cancel"}})
        self.end_input()
        try:
            self._process.wait(CLOSE_SECONDS)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            self._process.kill()
        self._reader.join(1)
        if not self._reader.is_alive() and self._process.stdout:
            self._process.stdout.close()

    def greet(self, name: str) -> Json:
        """The handshake; returns the worker's answer."""
        client = {"name": name, "version": __version__}
        greeting = self.call("initialize", {"protocolVersion": "omni-bridge/1", "clientInfo": client, "processId": os.getpid()})
        self.notify("notifications/initialized", {})
        return greeting

    def call(self, method: str, params: Json) -> Json:
        """The response: with ``result`` or ``error``. Raises Problem when the worker ends without one."""
        return self.request(method, params).response()

    def request(self, method: str, params: Json) -> Answer:
        self._ids += 1
        return self.send({"jsonrpc": "2.0", "id": self._ids, "method": method, "params": params})

    def notify(self, method: str, params: Json) -> None:
        self.send({"jsonrpc": "2.0", "method": method, "params": params})

    def send(self, message: Json) -> Answer:
        """Of a notification the answer never comes. Raises Problem for text that is none."""
        line = json.dumps(message, ensure_ascii=False, separators=(",", ":"))
        if not line.isascii() and any("\ud800" <= character <= "\udfff" for character in line):
            raise Problem("what was said is not UTF-8; a terminal's or a shell's encoding must be", 2, final=False)
        answer = self._expect(message.get("id"))
        self.write(line)
        return answer

    def replay(self, line: str) -> list[Answer]:
        """A line as it stands, whatever it is; the answers to the requests in it."""
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        self._says_anything = True
        requests = [one for one in (message if isinstance(message, list) else [message]) if isinstance(one, dict)]
        answers = [self._expect(one["id"]) for one in requests if isinstance(one.get("id"), str | int) and "method" in one]
        self.write(line)
        return answers

    def _expect(self, id: object) -> Answer:
        answer = Answer(self, id)
        with self._changing:
            if self._ended:
                answer.queue.put(_ENDED)
            return answer if id is None else self._answers.setdefault(id, answer)

    def write(self, line: str) -> None:
        """A line as it stands. That nobody reads it any more, the answers tell."""
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
        """The exit code, when all that it wrote has been read."""
        code = self._process.wait(WAIT_SECONDS)
        self._reader.join(WAIT_SECONDS)
        return code

    def gone(self) -> Exception:
        """Why there is no answer. What is wrong with the flags or the config, it has said itself, and ended with 2."""
        if self._unwatched:
            return self._unwatched
        code = None
        if self._ended:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self._process.wait(CLOSE_SECONDS)
        if code == 2:
            return Problem("", 2)
        return Problem(f"the worker gave no answer (exit code {code}); its log is above; omni-bridge doctor looks for the cause")

    def _read(self) -> None:
        assert self._process.stdout  # noqa: S101  # for mypy
        try:
            for data in self._process.stdout:
                line = data.decode("utf-8", "replace").rstrip("\n")
                self._watch("<--", line)
                self._deliver(line)
        except BrokenPipeError as error:  # nobody looks at what is watched: | head
            self._unwatched = error
        with self._changing:
            self._ended = True
            for answer in self._answers.values():
                answer.queue.put(_ENDED)

    def _deliver(self, line: str) -> None:
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        for one in message if isinstance(message, list) else [message]:
            if not isinstance(one, dict) or one.get("jsonrpc") != "2.0":
                self.stray.append(line)
                continue
            with self._changing:
                about = self._subject_of(one)
                answer = self._answers.pop(about, None) if "id" in one else self._answers.get(about)
            if answer:
                answer.queue.put(one)

    def _subject_of(self, message: Json) -> object:
        if "id" not in message:
            return message.get("params", {}).get("requestId")
        if message["id"] is None and not self._says_anything:  # a request that was too long for its id to be read
            return next(reversed(self._answers), None)
        return message["id"]


def _unseen(arrow: str, line: str) -> None:
    """Nobody watches."""


class Answer:
    """What is said about one request: iterate over its deltas as they come, then take the response."""

    def __init__(self, worker: Worker, id: Any) -> None:
        self.id = id
        self.queue: SimpleQueue[Json] = SimpleQueue()
        self._worker = worker
        self._response: Json | None = None

    def __iter__(self) -> Iterator[Json]:
        return self

    def __next__(self) -> Json:
        """The next delta. No generator, so that a Ctrl-C meanwhile leaves it as it is."""
        if self._response is not None:
            raise StopIteration
        try:
            message = self.queue.get(timeout=WAIT_SECONDS)
        except Empty:
            raise self._worker.gone() from None
        if message is _ENDED:
            raise self._worker.gone()
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
        """Asks for its end and returns the response, which says whether the provider's connection is closed."""
        self._worker.notify("notifications/cancelled", {"requestId": self.id})
        return self.response()
