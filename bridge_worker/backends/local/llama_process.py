"""Runs llama.cpp in a child process, one for each model: starts it, exchanges lines with it, detects its end.

Owns the child and the threads on its pipes. Refuses to know the content of calls: they pass through. It uses threads instead
of asyncio's streams, because a call belongs to the event loop that made it, and there may be several. No thread waits for a caller:
chunks wait in a queue that the model's context bounds.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from bridge_worker.errors import BridgeError

CLOSE_SECONDS = 2.0  # time for a cancelled call to stop; llama.cpp checks at each token, and after 128 tokens of a prompt
_TAIL_LINES = 20
_END = object()

Facts = dict[str, Any]
_log = logging.getLogger(__name__)


class LlamaProcess:
    """One child with one model. It is not restarted: make another."""

    def __init__(self, name: str, settings: Mapping[str, Any]) -> None:
        self.name = name
        self._file = Path(settings["file"]).name
        self._folder = tempfile.mkdtemp(prefix="omni-bridge-")  # 0700
        self._process = subprocess.Popen(  # this very program
            [sys.executable, "-I", "-X", "utf8", "-m", "bridge_worker.backends.local.llama_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self._folder,
            start_new_session=True,  # Ctrl-C goes to the worker, which drains
        )
        self._facts: Future[Facts] = Future()
        self._ids = itertools.count(1)
        self._calls: dict[int, LlamaCall] = {}
        self._lock = threading.Lock()
        self._ended: BridgeError | None = None
        self._outgoing: SimpleQueue[bytes | None] = SimpleQueue()
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._send(settings)
        self._errors = threading.Thread(target=self._read_errors, name=f"{name}-log", daemon=True)
        self._errors.start()
        for work in (self._write, self._read):
            threading.Thread(target=work, name=f"{name}{work.__name__}", daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._ended is None

    async def facts(self) -> Facts:
        """Returns when the model is loaded. Raises BridgeError when that fails."""
        try:
            return await asyncio.shield(asyncio.wrap_future(self._facts))  # a caller that stops waiting must not stop the loading
        except BridgeError as error:
            raise BridgeError(error.kind, error.message) from None  # one for each waiting caller

    def start_call(self, work: str, body: Mapping[str, Any]) -> LlamaCall:
        """The caller must close a call that it does not read to its end."""
        call = LlamaCall(self, next(self._ids))
        with self._lock:
            if self._ended:
                raise BridgeError(self._ended.kind, self._ended.message)
            self._calls[call.id] = call
        self._send({"id": call.id, "work": work, "body": body})
        return call

    def cancel(self, id: int) -> None:
        self._send({"cancel": id})

    def stop(self) -> None:
        """Ends the child, which detects the end of its input. Does not wait for it."""
        self._outgoing.put(None)

    def _send(self, message: Mapping[str, Any]) -> None:
        self._outgoing.put(json.dumps(message).encode() + b"\n")

    def _write(self) -> None:
        assert self._process.stdin  # noqa: S101  # for mypy
        with contextlib.suppress(OSError):  # `_read` detects its end
            while line := self._outgoing.get():
                self._process.stdin.write(line)
                self._process.stdin.flush()
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def _read(self) -> None:
        assert self._process.stdout  # noqa: S101  # for mypy
        failed = None
        with self._process.stdout as lines, contextlib.suppress(ValueError):  # a line that a crash cut
            for line in lines:
                message = json.loads(line)
                failed = message.get("failed", failed)
                self._take(message)
        self._finish(failed)

    def _take(self, message: Mapping[str, Any]) -> None:
        if "loaded" in message:
            self._facts.set_result(message["loaded"])
        elif "chunk" in message:
            self._calls[message["id"]].put(message["chunk"])
        elif "end" in message:
            with self._lock:
                call = self._calls.pop(message["id"])
            call.put(_END)

    def _finish(self, failed: str | None) -> None:
        code = self._process.wait()
        self._errors.join()
        shutil.rmtree(self._folder, ignore_errors=True)
        if failed or not self._facts.done():
            error = BridgeError(
                "model_not_found", f"{self.name} cannot be loaded from {self._file}: {self._reason() or failed or _how(code)}"
            )
        else:
            message = f"{self.name} stopped: {_how(code)}; the next request loads it again"
            error = BridgeError("provider_unavailable", message)
        with self._lock:
            self._ended = error
            calls = list(self._calls.values())
            self._calls.clear()
        if not self._facts.done():
            self._facts.set_exception(error)
        if calls or code:
            _log.error(
                "a local model's process ended", extra={"fields": {"model": self.name, "how": _how(code), "tail": self._last()}}
            )
        for call in calls:
            call.put(error)
        self._outgoing.put(None)

    def _read_errors(self) -> None:
        assert self._process.stderr  # noqa: S101  # for mypy
        with self._process.stderr as errors:
            for line in errors:
                text = line.decode(errors="replace").rstrip()
                self._tail.append(text)
                _log.debug("llama.cpp", extra={"fields": {"model": self.name, "line": text}})

    def _last(self) -> str:
        return " / ".join(self._tail)

    def _reason(self) -> str | None:
        """The first error line of llama.cpp: ``0.00.063.277 E llama_model_load: error loading model: tensor ...``."""
        return next((line.partition(" E ")[2].partition(": ")[2] for line in self._tail if " E " in line), None)


class LlamaCall:
    """One call of the child: an async iterator of its chunks. Belongs to the event loop that made it."""

    def __init__(self, process: LlamaProcess, id: int) -> None:
        self.id = id
        self.ended = False
        self._process = process
        self._loop = asyncio.get_running_loop()
        self._arrived: asyncio.Queue[Any] = asyncio.Queue()

    def put(self, event: object) -> None:
        """Passes an item to the loop; call it from another thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed, so no task waits
            self._loop.call_soon_threadsafe(self._arrived.put_nowait, event)

    async def __aiter__(self) -> AsyncIterator[Any]:
        while (event := await self._next()) is not _END:
            yield event

    async def close(self) -> bool:
        """Stops the call if it still runs. True when it has stopped."""
        if self.ended:
            return True
        self._process.cancel(self.id)
        draining = asyncio.ensure_future(self._drain())
        done, _ = await asyncio.wait({draining}, timeout=CLOSE_SECONDS)
        draining.cancel()
        return bool(done)

    async def _drain(self) -> None:
        with contextlib.suppress(BridgeError):
            while await self._next() is not _END:
                pass

    async def _next(self) -> Any:
        event = await self._arrived.get()
        self.ended = event is _END or isinstance(event, BridgeError)
        if isinstance(event, BridgeError):
            raise BridgeError(event.kind, event.message)  # each caller adds its own facts to it
        return event


def _how(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
