"""`Transport` over two descriptors: bytes pass them without blocking the loop.

Owns the threads that block on the descriptors, and reports the error that ends one of its threads or callbacks: otherwise the
process would silently stop reading and writing. Refuses to know what the bytes are.

The descriptors keep the blocking mode in which they were inherited, because it is shared with each other process that holds the
pipe or terminal; a parent process on an event loop often leaves O_NONBLOCK set. So a read waits until there is
something, a write checks first whether there is room, and only what could block is done in a thread: a write to a slow reader, a
regular file (``omni-bridge --stdio < requests.jsonl``), any pipe on Windows. A hop through a thread costs 50 us of CPU a message.
"""

from __future__ import annotations

import asyncio
import os
import queue
import select
import threading
from collections.abc import Callable
from typing import Any

from bridge_worker.system.descriptors import room_of_empty_pipe, wait_until_ready, write_all, write_some

_READ_BYTES = 256 * 1024
_ATOMIC_BYTES = getattr(select, "PIPE_BUF", 512)


class Stdio:
    """`Transport` over two descriptors. Make it inside the running loop that is to use it."""

    def __init__(self, source: int, sink: int) -> None:
        loop = asyncio.get_running_loop()
        self._fault = _Fault(loop)
        self._source = _Source(source, loop, self._fault)
        self._sink = _Sink(sink, loop, self._fault)
        self.read = self._source.read
        self.write = self._sink.write
        self.queued = self._sink.queued
        self.drained = self._sink.drained
        self.break_off = self._sink.break_off

    async def broken(self) -> None:
        """Returns when the reader is gone. Raises what a thread or a callback has died of."""
        gone: asyncio.Future[Any] = asyncio.ensure_future(self._sink.broken.wait())
        found: asyncio.Future[Any] = self._fault.found
        try:
            await asyncio.wait({gone, found}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
        if found.done():
            await found


class _Fault:
    """The first error that ended a thread or a callback."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.found: asyncio.Future[None] = loop.create_future()

    def watched(self, callback: Callable[..., None], ended: Callable[[], object] = lambda: None) -> Callable[..., None]:
        """``callback``, run as it is. ``ended`` is called on the loop when it dies."""

        def run(*args: object) -> None:
            try:
                callback(*args)
            except Exception as error:
                _call_soon(self._loop, self._set, error, ended)

        return run

    def _set(self, error: Exception, ended: Callable[[], object]) -> None:
        ended()
        if not self.found.done():
            self.found.set_exception(error)


class _Source:
    """Reads one chunk ahead and no more: who doesn't take it, slows the sender down."""

    def __init__(self, fd: int, loop: asyncio.AbstractEventLoop, fault: _Fault) -> None:
        self._fd = fd
        self._loop = loop
        self._on_readable = fault.watched(self._read_ready)
        self._chunk: bytes | None = None  # read, and not taken yet
        self._arrival: asyncio.Future[None] | None = None
        self._ended = False
        self._error: OSError | None = None  # of the read that ended the input
        self._wanted: threading.Semaphore | None = None  # for the thread, where there is one
        self._paused = False  # the loop has stopped listening
        if _can_watch(fd, loop):
            loop.add_reader(fd, self._on_readable)
        else:
            self._wanted = threading.Semaphore(1)
            threading.Thread(target=fault.watched(self._read_in_thread), name="stdin", daemon=True).start()

    async def read(self) -> bytes:
        """Raises OSError once if a read failed; what follows is the end of input."""
        if self._ended:
            return b""
        while self._chunk is None:
            self._arrival = self._loop.create_future()
            await self._arrival
        chunk, self._chunk = self._chunk, None
        self._ended = not chunk
        if self._ended and self._error is not None:
            raise self._error
        if self._paused and chunk:
            self._paused = False
            self._loop.add_reader(self._fd, self._on_readable)
        if self._wanted is not None:
            self._wanted.release()
        return chunk

    def _put(self, chunk: bytes) -> None:
        self._chunk = chunk
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)

    def _read_ready(self) -> None:
        """Keeps the reader registered: to remove and add it for each chunk would be two system calls a message."""
        if self._chunk is None:
            try:
                chunk = self._read()
            except BlockingIOError:  # O_NONBLOCK, and another process that shares the pipe was faster
                return
            self._put(chunk)
            self._paused = not chunk
        else:
            self._paused = True
        if self._paused:
            self._loop.remove_reader(self._fd)

    def _read_in_thread(self) -> None:
        chunk, wanted = b"-", self._wanted
        while chunk and wanted is not None:
            wanted.acquire()
            chunk = self._read_blocking()
            if not _call_soon(self._loop, self._put, chunk):
                return

    def _read(self) -> bytes:
        """Raises BlockingIOError when there is nothing to read yet. Another error ends the input."""
        try:
            return os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            raise
        except OSError as error:
            self._error = error
            return b""

    def _read_blocking(self) -> bytes:
        while True:
            try:
                return self._read()
            except BlockingIOError:
                wait_until_ready(self._fd, write=False)


class _Sink:
    """A queue that is emptied once a turn of the loop, with one write for all that has gathered.

    A write that fits in the pipe is done at once (POSIX: up to PIPE_BUF bytes never block when poll reports room; an empty pipe
    takes its whole size); a thread does the others, one at a time. All state belongs to the loop.
    """

    def __init__(self, fd: int, loop: asyncio.AbstractEventLoop, fault: _Fault) -> None:
        self.broken = asyncio.Event()
        self._fd = fd
        self._loop = loop
        # A line may have been cut in the middle then, so nothing more is written.
        self._pass_on = fault.watched(self._write_gathered, self.break_off)
        self._on_written = fault.watched(self._written, self.break_off)
        self._messages: list[bytes] = []
        self._queued = 0
        self._scheduled = False
        self._in_thread = False
        self._work: queue.SimpleQueue[tuple[int, memoryview]] = queue.SimpleQueue()
        self._progress = asyncio.Event()
        self._poll = select.poll() if hasattr(select, "poll") else None
        if self._poll and fd >= 0:
            self._poll.register(fd, select.POLLOUT)
        threading.Thread(target=fault.watched(self._write_in_thread, self.break_off), name="stdout", daemon=True).start()

    def write(self, data: bytes) -> None:
        if self.broken.is_set():
            return
        self._messages.append(data)
        self._queued += len(data)
        if not self._scheduled and not self._in_thread:
            self._scheduled = True
            self._loop.call_soon(self._pass_on)

    def queued(self) -> int:
        return self._queued

    async def drained(self, limit: int) -> None:
        while self._queued > limit and not self.broken.is_set():
            self._progress.clear()
            await self._progress.wait()

    def break_off(self) -> None:
        """Marks the reader as gone. Also called by other watches, such as the one on the parent process."""
        self.broken.set()
        self._progress.set()

    def _write_gathered(self) -> None:
        self._scheduled = False
        data = self._messages[0] if len(self._messages) == 1 else b"".join(self._messages)
        self._messages.clear()
        rest = memoryview(data)
        if self._has_room(len(data)):
            try:
                rest = write_some(self._fd, rest)
            except OSError:
                self._written(len(data), whole=False)
                return
        if rest:  # all of it, or what a socket with O_NONBLOCK did not take
            self._in_thread = True
            self._work.put((len(data), rest))
        else:
            self._written(len(data), whole=True)

    def _has_room(self, count: int) -> bool:
        """Whether a write of so many bytes can't block."""
        if count > _ATOMIC_BYTES:
            return count <= room_of_empty_pipe(self._fd)
        return self._poll is not None and any(event & select.POLLOUT for _, event in self._poll.poll(0))

    def _write_in_thread(self) -> None:
        while True:
            count, data = self._work.get()
            if not _call_soon(self._loop, self._on_written, count, _write_all(self._fd, data)):
                return

    def _written(self, count: int, whole: bool) -> None:
        self._in_thread = False
        if not whole:  # it stays queued, so that the server sees at its end that something was lost
            self.break_off()
            return
        self._queued -= count
        self._progress.set()
        if self._messages:
            self._pass_on()


def _can_watch(fd: int, loop: asyncio.AbstractEventLoop) -> bool:
    """Whether the loop can wait for ``fd``: not for a regular file, and for nothing of the kind on Windows."""
    try:
        loop.add_reader(fd, bool)
    except (NotImplementedError, OSError, ValueError):
        return False
    loop.remove_reader(fd)
    return True


def _write_all(fd: int, data: memoryview) -> bool:
    try:
        write_all(fd, data)
    except OSError:
        return False
    return True


def _call_soon(loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *args: object) -> bool:
    """Calls ``callback`` on the loop; False when the loop has ended."""
    try:
        loop.call_soon_threadsafe(callback, *args)
    except RuntimeError:
        return False
    return True
