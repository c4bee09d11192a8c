"""Writes down each message that passes the pipe, a JSON object a line, in a thread that nobody waits for.

Owns the trace file: how it is opened, what a line of it looks like, and what becomes of a message that finds no place. Refuses to
know what a message means. It sees bytes on their way between the pipe and the server, so that it also has what nobody could read.

A run begins with a line {"trace", "pid", "time", "version", "content"}. Each message is {"pid", "time", "ms", "dir", "bytes"} with
``message``, with ``fault`` where it was no JSON, or with ``omitted``. A line with ``lost`` counts what found no place, one with
``end`` closes a run that ended in order.
"""

from __future__ import annotations

import logging
import os
import stat
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from bridge_worker.protocol.framing import Fault, decode, encode
from bridge_worker.protocol.transport import Transport
from bridge_worker.telemetry.log import utc
from bridge_worker.trace.content_filter import with_content, without_content
from bridge_worker.trace.lines import MAX_LINE_BYTES, Lines, Redact, masked
from bridge_worker.version import __version__

FORMAT = 1
_MAX_QUEUED_BYTES = 32 * 1024 * 1024
_FACTS = 4096  # methods, models, ids: the same few in each message, and to look for secrets takes longer than all the rest
_MAX_TEXT = 65_536  # characters of a line that is no JSON
_WRITE_BYTES = 256 * 1024
_CLOSE_SECONDS = 1.0

_log = logging.getLogger(__name__)


class TraceError(Exception):
    """One line for the operator: why there can be no trace."""


def open_trace(path: str) -> int:
    """A descriptor that appends to the trace at ``path``, which is made for its user only. Raises TraceError.

    What is there and no trace is left alone: a mistyped path must not spoil a file.
    """
    try:
        # Not blocking: a pipe without a reader would hold up the start, and a pipe is refused below anyway.
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
        raise TraceError(f"--trace {path}: it is no regular file; name one that is, or is yet to be made")
    if state.st_size and not os.pread(fd, 16, 0).startswith(b'{"trace":'):
        raise TraceError(f"--trace {path}: there is a file that is no trace, and it was left as it is; name another")
    if state.st_mode & 0o077:
        _log.warning("others may read the trace %s: chmod go= it", path)


class TracedPipe:
    """`Transport` that tells ``recorder`` what passes."""

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
    """Bytes that went ``way`` ("in", "out")."""

    time: float
    monotonic: float
    way: str
    data: bytes
    lost: _Lost | None  # what went before them and found no place


@dataclass(slots=True)
class _Lost:
    messages: int = 0
    size: int = 0
    input: bool = False
    in_line: bool = False  # the input that is lost ends within a line

    def add(self, way: str, data: bytes) -> None:
        self.messages += data.count(b"\n")
        self.size += len(data)
        if way == "in":
            self.input, self.in_line = True, not data.endswith(b"\n")

    def told(self) -> dict[str, int]:
        return {"messages": self.messages + self.in_line, "bytes": self.size}


class Recorder:
    """Appends to ``fd``. ``content``: also what was said, not only how long it was."""

    def __init__(self, fd: int, redact: Redact, *, content: bool) -> None:
        self._fd = fd
        self._redact = redact
        self._redact_fact = lru_cache(_FACTS)(redact)
        self._content = content
        self._passed: deque[_Passed] = deque()
        self._queued = 0
        self._lost: _Lost | None = None
        self._stopped = False  # nothing more is taken
        self._closing = False
        self._changed = threading.Condition()
        self._started = time.monotonic()
        self._pid = os.getpid()
        self._lines = Lines()
        self._thread = threading.Thread(target=self._run, name="trace", daemon=True)
        self._thread.start()

    def traced(self, pipe: Transport) -> Transport:
        return TracedPipe(pipe, self)

    def put(self, way: str, data: bytes) -> None:
        """Takes bytes down; never waits. Incoming ones are any piece of the stream, b"" is its end; outgoing whole messages."""
        with self._changed:
            if self._stopped:
                return
            if self._queued > _MAX_QUEUED_BYTES:
                self._lost = self._lost or _Lost()
                self._lost.add(way, data)
                return
            self._passed.append(_Passed(time.time(), time.monotonic(), way, data, self._lost))
            self._lost = None
            self._queued += len(data)
            self._changed.notify()

    def close(self) -> None:
        """Waits, a second at most, until all is written."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(_CLOSE_SECONDS)

    def _run(self) -> None:
        try:
            self._write([self._header()])
            while self._wait():
                self._write(line for passed in self._taken() for line in self._told(passed))
            self._write([*self._unsaid(), self._line(time.time(), time.monotonic(), end=True)])
        except OSError as error:
            _log.error("tracing has stopped, serving goes on: %s", error.strerror)  # a full disk is no fault of the code
        except Exception:
            _log.exception("tracing has stopped, serving goes on")
        finally:
            with self._changed:
                self._stopped = True
                self._passed.clear()

    def _wait(self) -> bool:
        """Until there is something to write; False when there never will be."""
        with self._changed:
            self._changed.wait_for(lambda: self._passed or self._closing)
            return bool(self._passed)

    def _taken(self) -> Iterator[_Passed]:
        while self._passed:  # this thread alone takes from it
            passed = self._passed.popleft()
            with self._changed:
                self._queued -= len(passed.data)
            yield passed

    def _write(self, lines: Iterable[bytes]) -> None:
        """In pieces of whole lines, so that a process that is killed leaves half a line at most."""
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

    def _told(self, passed: _Passed) -> Iterator[bytes]:
        when, monotonic, way, data, lost = passed
        if lost:
            if lost.input:
                self._lines.lose(rest=lost.in_line)
            yield self._line(when, monotonic, lost=lost.told())
        if way == "out":
            for out in [data] if data.find(b"\n") == len(data) - 1 else data.splitlines(keepends=True):
                yield self._message(when, monotonic, way, out[:-1] if len(out) <= MAX_LINE_BYTES else None, len(out))
            return
        for line, size in self._lines.feed(data) if data else self._lines.end():
            if line is None or line.strip():
                yield self._message(when, monotonic, way, line, size)

    def _unsaid(self) -> Iterator[bytes]:
        """What was lost last of all."""
        with self._changed:
            lost, self._lost = self._lost, None
        if lost:
            yield self._line(time.time(), time.monotonic(), lost=lost.told())

    def _message(self, when: float, monotonic: float, way: str, line: bytes | None, size: int) -> bytes:
        about: dict[str, Any] = {"dir": way, "bytes": size}
        if line is None:
            return self._line(when, monotonic, **about, omitted=f"longer than {MAX_LINE_BYTES} bytes")
        read = decode(line)
        if isinstance(read, Fault):
            text = {"text": line[: 4 * _MAX_TEXT].decode("utf-8", "replace")[:_MAX_TEXT]} if self._content else {}
            return self._line(when, monotonic, **about, fault=read.error.message, **text)
        shown = with_content(read.value) if self._content else without_content(read.value, self._redact_fact)
        return self._line(when, monotonic, **about, message=shown)

    def _line(self, when: float, monotonic: float, **members: Any) -> bytes:
        ms = round((monotonic - self._started) * 1000, 3)
        line = {"pid": self._pid, "time": utc(when), "ms": ms, **members}
        if not self._content:
            return encode(line)  # its facts are masked one by one
        return masked(line, self._redact) or encode(
            line | {"message": None, "text": None, "omitted": "its secrets could not be masked"}
        )


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
