"""What connects the processes: socket pairs and pipes with small buffers, which deliver bytes late and in pieces.

Owns buffers, end of file and broken pipes. Refuses to know what the bytes mean. A full buffer makes its writer wait; bytes that are
in it when the writer ends are still delivered, those that the writer holds are not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.simulation.kernel import Kernel, Process


class Endpoint:
    """One end of a socket pair, and the asyncio transport over it."""

    def __init__(self, kernel: Kernel, capacity: int, latency: float, cuts: bool) -> None:
        self.peer: Endpoint = self
        self.process: Process | None = None
        self.inbox = bytearray()
        self.eof = False
        self.on_data: Callable[[], None] | None = None  # for who reads without a loop
        self._kernel = kernel
        self._capacity = capacity
        self._latency = latency
        self._cuts = cuts
        self._protocol: Any = None
        self._outbox = bytearray()
        self._high = 65536
        self._paused = False
        self._closing = False
        self._lost = False
        self._delivering = False

    def connect(self, process: Process, protocol: Any) -> None:
        self.process, self._protocol = process, protocol
        process.open.add(self)
        self.arrived()

    # The transport.

    def set_write_buffer_limits(self, high: int) -> None:
        self._high = high

    def write(self, data: bytes | bytearray) -> None:
        if self._closing or self._lost:
            return
        self._outbox += data
        self._flush()
        if len(self._outbox) > self._high and not self._paused:
            self._paused = True
            self._protocol.pause_writing()

    def close(self) -> None:
        if not self._closing and not self._lost:
            self._closing = True
            if not self._outbox:
                self._lose()

    def abort(self) -> None:
        self._outbox.clear()
        self._lose()

    # The system.

    def process_ended(self) -> None:
        """Also a descriptor that no process has taken over."""
        self._lost = True
        self._outbox.clear()
        self.peer.hang_up()

    def hang_up(self) -> None:
        self.eof = True
        self.arrived()

    def arrived(self) -> None:
        if self.on_data is not None:
            self.on_data()
        elif self._protocol is not None and not self._delivering and not self._lost and (self.inbox or self.eof):
            self._delivering = True
            self._kernel.after(self._kernel.random.random() * self._latency, self._deliver)

    def take(self, count: int) -> bytes:
        data = bytes(self.inbox[:count])
        del self.inbox[:count]
        self.peer._on_room()
        return data

    def _deliver(self) -> None:
        """A chunk is read when the process gets to it: one that hangs leaves it in the buffer."""
        assert self.process is not None
        self.process.call_soon(self._read)

    def _read(self) -> None:
        self._delivering = False
        if self._lost:
            return
        if self.inbox:
            chance = self._kernel.random.random
            count = len(self.inbox) if not self._cuts or chance() < 0.5 else 1 + int(chance() * len(self.inbox))
            data = self.take(count)
            self.arrived()
            self._protocol.data_received(data)
        elif self.eof:
            self.abort()

    def _flush(self) -> None:
        if self._lost or not self._outbox:
            return
        if self.peer._lost:  # EPIPE: what was received and is not read yet is gone with it
            self.abort()
            return
        room = self._capacity - len(self.peer.inbox)
        if room > 0:
            self.peer.inbox += self._outbox[:room]
            del self._outbox[:room]
            self.peer.arrived()
        if self._paused and len(self._outbox) <= self._high // 4:
            self._paused = False
            assert self.process is not None
            self.process.call_soon(self._protocol.resume_writing)
        if self._closing and not self._outbox:
            self._lose()

    def _on_room(self) -> None:
        if self._outbox and self.process is not None:
            self.process.call_soon(self._flush)

    def _lose(self) -> None:
        if self._lost:
            return
        self._lost = True
        self.peer.hang_up()
        if self.process is not None:
            self.process.open.discard(self)
            self.process.call_soon(self._protocol.connection_lost, None)


def socket_pair(kernel: Kernel, capacity: int, latency: float, cuts: bool) -> tuple[Endpoint, Endpoint]:
    ours, theirs = Endpoint(kernel, capacity, latency, cuts), Endpoint(kernel, capacity, latency, cuts)
    ours.peer, theirs.peer = theirs, ours
    return ours, theirs


class Pipe:
    """A pipe between the client and the worker. ``on_data`` is called when its reader has something to see, ``on_room`` when its
    writer has."""

    def __init__(self, capacity: int) -> None:
        self.data = bytearray()
        self.writer_gone = False
        self.reader_gone = False
        self.on_data: Callable[[], None] = lambda: None
        self.on_room: Callable[[], None] = lambda: None
        self._capacity = capacity

    def room(self) -> int:
        return self._capacity - len(self.data)

    def put(self, data: bytes | memoryview) -> int:
        """How much of ``data`` fits. Raises OSError."""
        if self.reader_gone:
            raise BrokenPipeError
        count = min(len(data), self.room())
        self.data += data[:count]
        if count:
            self.on_data()
        return count

    def take(self, count: int) -> bytes:
        data = bytes(self.data[:count])
        del self.data[:count]
        if data:
            self.on_room()
        return data

    def lose_reader(self) -> None:
        self.reader_gone = True
        self.on_room()

    def lose_writer(self) -> None:
        self.writer_gone = True
        self.on_data()
