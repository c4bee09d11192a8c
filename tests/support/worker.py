"""The real process over real pipes, as its parent sees it.

Owns spawning `omni-bridge --stdio`, speaking its lines and ending it. Every wait ends when its condition holds, or fails the test.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from tests.support.data import Json
from tests.support.fork_server import ForkedProcess, ForkServer

# OMNI_BRIDGE_UNDER_TEST is another command: the one of a wheel or a bundle, which test_bundle.py and test_wheel.py put there.
COMMAND = tuple(shlex.split(os.environ.get("OMNI_BRIDGE_UNDER_TEST", ""))) or (
    sys.executable,
    "-I",
    "-X",
    "utf8",
    "-m",
    "bridge_worker",
)
# What workers are forked from, where possible; None starts each. tests/conftest.py sets it for the tests of a file.
fork_server: ForkServer | None = None
WAIT_SECONDS = 60.0  # generous: a wait that works ends when its condition does, whatever the machine's load


class ResponseError(Exception):
    """Raised by `Worker.respond`: the client returns an error with this message."""


class Worker:
    """A running worker. ``received`` holds every message so far, in order."""

    def __init__(
        self,
        *flags: str,
        env: Mapping[str, str] | None = None,
        stdout: int = subprocess.PIPE,
        command: Sequence[str] | None = None,
    ) -> None:
        environment = clean_environment() | dict(env or {})
        self.flags = flags
        arguments = ["--stdio", *flags]
        self.process: subprocess.Popen[bytes] | ForkedProcess
        if fork_server and stdout == subprocess.PIPE and command is None and fork_server.can_fork(environment):
            self.process = fork_server.fork(arguments, environment)
        else:
            self.process = subprocess.Popen(
                [*(command or COMMAND), *arguments],  # not a default, for a test may have put another COMMAND there
                stdin=subprocess.PIPE,
                stdout=stdout,
                stderr=subprocess.PIPE,
                env=environment,
            )
        self.received: list[Json | list[Json]] = []
        self.stderr = ""
        self.respond: Callable[[Json], object] | None = None  # to a request of the worker's: a result, or a `ResponseError`
        self.received_requests: list[Json] = []  # requests of the worker's
        self.ended = False  # stdout has
        self._ids = itertools.count(1)
        self._changed = threading.Condition()
        self._threads = [threading.Thread(target=self._read_stderr, daemon=True)]
        if stdout == subprocess.PIPE:
            self._threads.append(threading.Thread(target=self._read_stdout, daemon=True))
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leaves nothing behind, whatever state it is in."""
        with contextlib.suppress(OSError):
            self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()
        for thread in self._threads:
            thread.join()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe:
                with contextlib.suppress(OSError):
                    pipe.close()

    def write(self, data: bytes) -> None:
        assert self.process.stdin
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def send(self, message: object) -> None:
        self.write(json.dumps(message, ensure_ascii=False).encode() + b"\n")

    def request(self, method: str, params: Json | None = None, id: int | str | None = None) -> int | str:
        """Sends a request and returns its id."""
        id = next(self._ids) if id is None else id
        self.send({"jsonrpc": "2.0", "id": id, "method": method, "params": params or {}})
        return id

    def notify(self, method: str, params: Json) -> None:
        self.send({"jsonrpc": "2.0", "method": method, "params": params})

    def call(self, method: str, params: Json | None = None) -> Json:
        """Sends a request and waits for its response."""
        return self.response(self.request(method, params))

    def chat(self, model: str, text: str = "hello", **params: Any) -> Json:
        """One chat's result; fails the test if it is an error."""
        response = self.call("chat", {"model": model, "messages": [{"role": "user", "content": text}], **params})
        assert "result" in response, f"{response}\n{self.stderr}"
        result: Json = response["result"]
        return result

    def response(self, id: int | str | None) -> Json:
        def is_response(message: Json | list[Json]) -> bool:
            return isinstance(message, dict) and "method" not in message and message["id"] == id and type(message["id"]) is type(id)

        found = self.wait_for(is_response)
        assert isinstance(found, dict)
        return found

    def wait_for(self, wanted: Callable[[Json | list[Json]], bool]) -> Json | list[Json]:
        """The first message, past or to come, that is ``wanted``."""
        seen = 0

        def arrived() -> bool:
            nonlocal seen
            while seen < len(self.received) and not wanted(self.received[seen]):
                seen += 1
            return seen < len(self.received)

        with self._changed:
            self._changed.wait_for(lambda: arrived() or self.ended, WAIT_SECONDS)
            assert arrived(), f"no such message came; there are {self.received[-5:]}\n{self.stderr[-4000:]}"
            return self.received[seen]

    def wait_for_delta(self, id: int | str) -> None:
        """Returns when the first delta of a streamed chat is there."""
        self.wait_for(
            lambda m: isinstance(m, dict) and m.get("method") == "notifications/chat/delta" and m["params"]["requestId"] == id
        )

    def deltas(self, id: int | str) -> list[Json]:
        """The params of the deltas of a request so far."""
        notes = [message["params"] for message in self.received if isinstance(message, dict) and is_delta(message)]
        return [note for note in notes if note["requestId"] == id]

    def end_input(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()

    def exit_code(self, timeout: float = WAIT_SECONDS) -> int:
        """Waits for the end; all that was written before it is then in ``received``."""
        code = self.process.wait(timeout)
        for thread in self._threads:
            thread.join(timeout)
        return code

    def _read_stdout(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            message = json.loads(line)
            if isinstance(message, dict) and "method" in message and "id" in message:
                self.received_requests.append(message)
            with self._changed:
                self.received.append(message)
                self._changed.notify_all()
            if self.respond is not None and message in self.received_requests[-1:]:
                self._respond(self.respond, message)
        with self._changed:
            self.ended = True
            self._changed.notify_all()

    def _respond(self, respond: Callable[[Json], object], request: Json) -> None:
        try:
            outcome: Json = {"result": respond(request)}
        except ResponseError as error:
            outcome = {"error": {"code": -32000, "message": str(error)}}
        self.send({"jsonrpc": "2.0", "id": request["id"], **outcome})

    def _read_stderr(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self.stderr += line.decode(errors="replace")


# Runs any test of a worker with so many engine processes, or without deferred imports.
_FOR_EVERY_WORKER = {"TEST_ENGINES": "OMNI_BRIDGE_ENGINES", "TEST_EAGER": "OMNI_BRIDGE_EAGER"}
_AT_START = dict(os.environ)  # before a test imports bridge_worker.backends.litellm, which sets LiteLLM's switches


def clean_environment() -> dict[str, str]:
    """Without what a developer's shell may hold of keys, proxies and settings of this very program."""
    prefixes = ("OMNI_BRIDGE_", "LITELLM_")
    words = ("_API_KEY", "_BASE_URL", "_API_BASE", "_PROXY", "_proxy", "_TOKEN")
    clean = {name: value for name, value in _AT_START.items() if not name.startswith(prefixes) and not name.endswith(words)}
    return clean | {setting: _AT_START[name] for name, setting in _FOR_EVERY_WORKER.items() if name in _AT_START}


def is_delta(message: Json) -> bool:
    return message.get("method") == "notifications/chat/delta"


def run(
    *flags: str, input: bytes = b"", env: Mapping[str, str] | None = None, command: Sequence[str] = COMMAND
) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of one whole run."""
    environment = clean_environment() | dict(env or {})
    if fork_server and command is COMMAND and fork_server.can_fork(environment):
        forked = fork_server.fork(flags, environment)
        stdout, stderr = forked.communicate(input, WAIT_SECONDS)
        return forked.wait(), stdout.decode(), stderr.decode()
    done = subprocess.run([*command, *flags], input=input, capture_output=True, env=environment, timeout=WAIT_SECONDS, check=False)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def wait_until(condition: Callable[[], bool], what: str, seconds: float = WAIT_SECONDS) -> None:
    """For what has no event to wait on, such as a process that ends elsewhere. It looks less often the longer it takes."""
    begin = time.monotonic()
    pause = threading.Event()
    while not condition():
        waited = time.monotonic() - begin
        assert waited < seconds, f"never happened: {what}"
        pause.wait(min(0.1, max(0.01, waited / 20)))


def wait_until_loaded(worker: Worker) -> None:
    """Returns when all is loaded that a worker loads behind its first chat: tens of MiB, which is no part of what is measured."""
    wait_until(lambda: worker.call("status")["result"]["degraded"] is not None, "all that is loaded ahead is loaded")


# Those of tests/process/test_process.py whose process is the command under test and nothing else.
_OF_THE_COMMAND = "end_of_input_waits or line_in_and or files_in_place or descriptors or bad_ or schema"


def pass_the_tests_of_the_process(command: Path, besides: str = "") -> None:
    """Runs them with ``command`` as the one under test; ``besides`` is the name of one more."""
    chosen = f"{_OF_THE_COMMAND} or {besides}" if besides else _OF_THE_COMMAND
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n0", "-q", "-p", "no:cacheprovider", "tests/process/test_process.py", "-k", chosen],
        cwd=root,
        env=clean_environment() | {"OMNI_BRIDGE_UNDER_TEST": shlex.quote(str(command))},
        capture_output=True,
        text=True,
        timeout=20 * WAIT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert re.search(r"\d\d passed", done.stdout), done.stdout
