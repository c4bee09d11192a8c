"""Records each message on the pipe as one line of JSON, in a separate thread, so that the server never waits.

Owns the trace file: how it is opened, the form of its lines, and the count of messages that did not fit in the queue. Refuses to
know what a message means. It records the bytes between the pipe and the server, so it also has lines that are not valid JSON.

A run begins with a line {"trace", "pid", "time", "version", "content"}. Each message is {"pid", "time", "ms", "dir", "bytes"} with
``message``, with ``fault`` if it was not JSON, or with ``omitted``. A line with ``lost`` counts messages that did not fit in the
queue; one with ``engine_lost`` has an engine process that was lost; a line with ``end`` closes a run that ended normally.
"""

from __future__ import annotations

import json
import logging
import os
import stat
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from bridge_worker.protocol.envelope import WORKER_ID
from bridge_worker.protocol.framing import Fault, decode, encode
from bridge_worker.protocol.transport import Transport
from bridge_worker.telemetry.log import utc
from bridge_worker.trace.content_filter import with_content, without_content, without_keys
from bridge_worker.trace.lines import MAX_LINE_BYTES, Lines, Redact, masked
from bridge_worker.version import __version__

FORMAT = 1
_MAX_QUEUED_BYTES = 32 * 1024 * 1024
_FACTS = 4096  # cached strings: messages repeat a few methods, models and ids, and the search for secrets is the slowest step
_MAX_TEXT = 65_536  # characters of a line that is not JSON
_WRITE_BYTES = 256 * 1024
_CLOSE_SECONDS = 1.0

_log = logging.getLogger(__name__)


class TraceError(Exception):
    """The reason why the trace can't be opened, as one line for the operator."""


def open_trace(path: str) -> int:
    """Opens the trace at ``path`` for appending; a new file is readable by its user only. Raises TraceError.

    A file that is not a trace is not changed, because the path may be mistyped.
    """
    try:
        # Non-blocking, because opening a named pipe without a reader would block the start; _check rejects pipes.
        fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0), 0o600)
    except (OSError, ValueError) as error:
        raise TraceError(f"--trace {path}: {getattr(error, 'strerror', None) or error}") from None
    try:
        _check(fd, path)
    except TraceError:
        os.close(fd)
        raise
    return fd


def _check(fd: int, path: str) -> None:
    state = os.fstat(fd)
    if not stat.S_ISREG(state.st_mode):
        raise TraceError(f"--trace {path}: not a regular file; name a trace or a new file")
    if state.st_size and not os.pread(fd, 16, 0).startswith(b'{"trace":'):
        raise TraceError(f"--trace {path}: the file is not a trace and was not changed; name a trace or a new file")
    if state.st_mode & 0o077:
        _log.warning("others may read the trace %s: chmod go= it", path)


class TracedPipe:
    """`Transport` that passes a copy of all bytes to ``recorder``."""

    def __init__(self, pipe: Transport, recorder: Recorder) -> None:
        self._pipe = pipe
        self._recorder = recorder
        self.queued = pipe.queued
        self.drained = pipe.drained
        self.broken = pipe.broken

    async def read(self) -> bytes:
        data = await self._pipe.read()
        self._recorder.put("in", data)
        return data

    def write(self, data: bytes) -> None:
        self._recorder.put("out", data)
        self._pipe.write(data)


class _Passed(NamedTuple):
    """Bytes that passed in ``direction`` ("in", "out"), or the JSON of a lost engine ("engine")."""

    time: float
    monotonic: float
    direction: str
    data: bytes
    lost: _Lost | None  # messages before these bytes that did not fit in the queue


@dataclass(slots=True)
class _Lost:
    messages: int = 0
    size: int = 0
    input: bool = False
    in_line: bool = False  # the lost input ends within a line

    def add(self, direction: str, data: bytes) -> None:
        self.messages += data.count(b"\n")
        self.size += len(data)
        if direction == "in":
            self.input, self.in_line = True, not data.endswith(b"\n")

    def counts(self) -> dict[str, int]:
        return {"messages": self.messages + self.in_line, "bytes": self.size}


class Recorder:
    """Appends to ``fd``. ``content``: records content too, otherwise only its length."""

    def __init__(self, fd: int, redact: Redact, *, content: bool) -> None:
        self._fd = fd
        self._redact = redact
        self._redact_fact = lru_cache(_FACTS)(redact)
        self._content = content
        self._passed: deque[_Passed] = deque()
        self._queued = 0
        self._lost: _Lost | None = None
        self._stopped = False  # further bytes are dropped
        self._closing = False
        self._changed = threading.Condition()
        self._started = time.monotonic()
        self._pid = os.getpid()
        self._lines = Lines()
        self._thread = threading.Thread(target=self._run, name="trace", daemon=True)
        self._thread.start()

    def traced(self, pipe: Transport) -> Transport:
        return TracedPipe(pipe, self)

    def put(self, direction: str, data: bytes) -> None:
        """Queues bytes; never waits. Incoming bytes are any piece of the stream, b"" its end; outgoing bytes are one message."""
        with self._changed:
            if self._stopped:
                return
            if self._queued > _MAX_QUEUED_BYTES:
                self._lost = self._lost or _Lost()
                self._lost.add(direction, data)
                return
            self._passed.append(_Passed(time.time(), time.monotonic(), direction, data, self._lost))
            self._lost = None
            self._queued += len(data)
            self._changed.notify()

    def put_loss(self, loss: Mapping[str, object]) -> None:
        """An engine process: its pid, how it ended, the number of its requests."""
        self.put("engine", encode(dict(loss)))

    def close(self) -> None:
        """Waits until all is written, at most a second."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(_CLOSE_SECONDS)

    def _run(self) -> None:
        try:
            self._write([self._header()])
            while self._wait():
                self._write(line for passed in self._taken() for line in self._lines_for(passed))
            self._write([*self._last_lost(), self._line(time.time(), time.monotonic(), end=True)])
        except OSError as error:
            _log.error("tracing has stopped, serving continues: %s", error.strerror)  # a full disk needs no traceback
        except Exception:
            _log.exception("tracing has stopped, serving continues")
        finally:
            with self._changed:
                self._stopped = True
                self._passed.clear()

    def _wait(self) -> bool:
        """Waits for queued bytes; False when the recorder is closing and the queue is empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._passed or self._closing)
            return bool(self._passed)

    def _taken(self) -> Iterator[_Passed]:
        while self._passed:  # only this thread removes from it
            passed = self._passed.popleft()
            with self._changed:
                self._queued -= len(passed.data)
            yield passed

    def _write(self, lines: Iterable[bytes]) -> None:
        """Writes blocks of whole lines, so that a killed process leaves at most one half line."""
        gathered: list[bytes] = []
        size = 0
        for line in lines:
            gathered.append(line)
            size += len(line)
            if size > _WRITE_BYTES:
                _write_all(self._fd, b"".join(gathered))
                gathered, size = [], 0
        _write_all(self._fd, b"".join(gathered))

    def _header(self) -> bytes:
        size = os.fstat(self._fd).st_size
        torn = size > 0 and os.pread(self._fd, 1, size - 1) != b"\n"  # a run before this one was killed
        content = "full" if self._content else "none"
        header = {"trace": FORMAT, "pid": self._pid, "time": utc(time.time()), "version": __version__, "content": content}
        return b"\n" * torn + encode(header)

    def _lines_for(self, passed: _Passed) -> Iterator[bytes]:
        when, monotonic, direction, data, lost = passed
        if lost:
            if lost.input:
                self._lines.lose(rest=lost.in_line)
            yield self._line(when, monotonic, lost=lost.counts())
        if direction == "engine":
            yield self._line(when, monotonic, engine_lost=json.loads(data))
            return
        if direction == "out":
            for out in [data] if data.find(b"\n") == len(data) - 1 else data.splitlines(keepends=True):
                yield self._message(when, monotonic, direction, out[:-1] if len(out) <= MAX_LINE_BYTES else None, len(out))
            return
        for line, size in self._lines.feed(data) if data else self._lines.end():
            if line is None or line.strip():
                yield self._message(when, monotonic, direction, line, size)

    def _last_lost(self) -> Iterator[bytes]:
        """The count of messages that were lost after the last recorded one."""
        with self._changed:
            lost, self._lost = self._lost, None
        if lost:
            yield self._line(time.time(), time.monotonic(), lost=lost.counts())

    def _message(self, when: float, monotonic: float, direction: str, line: bytes | None, size: int) -> bytes:
        about: dict[str, Any] = {"dir": direction, "bytes": size}
        if line is None:
            return self._line(when, monotonic, **about, omitted=f"longer than {MAX_LINE_BYTES} bytes")
        read = decode(line)
        if isinstance(read, Fault):
            shows = self._content and WORKER_ID.encode() not in line  # a response of the client's may be a key
            text = {"text": line[: 4 * _MAX_TEXT].decode("utf-8", "replace")[:_MAX_TEXT]} if shows else {}
            return self._line(when, monotonic, **about, fault=read.error.message, **text)
        value = without_keys(read.value) if direction == "in" else read.value
        shown = with_content(value) if self._content else without_content(value, self._redact_fact)
        return self._line(when, monotonic, **about, message=shown)

    def _line(self, when: float, monotonic: float, **members: Any) -> bytes:
        ms = round((monotonic - self._started) * 1000, 3)
        line = {"pid": self._pid, "time": utc(when), "ms": ms, **members}
        if not self._content:
            return encode(line)  # without_content has masked each fact
        return masked(line, self._redact) or encode(
            line | {"message": None, "text": None, "omitted": "its secrets could not be masked"}
        )


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
