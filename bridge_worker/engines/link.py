"""One end of the link between the server process and an engine process: frames over a socket pair.

Owns the socket, what waits to be written to it, and the loss of it. Refuses to know what a frame is for.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from typing import cast

from bridge_worker.protocol.link_frames import HEAD, Frame, FrameReader, Kind, LinkBroken, frame_head

_QUEUE_BYTES = 256 * 1024  # unsent bytes from which `drained` waits, and no more are copied for the system at a time

OnFrame = Callable[[Frame], None]


class Link(asyncio.Protocol):
    """``on_frame`` is called for each frame, in order, ``on_lost`` once, when the other process has ended or sends no frames.

    What is sent within one turn of the loop leaves with one system call; a long frame in pieces, as the other process reads them.
    """

    def __init__(self, on_frame: OnFrame, on_lost: Callable[[], None]) -> None:
        self.lost = False
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._frames = FrameReader()
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._unsent: deque[bytes | bytearray | memoryview] = deque()
        self._unsent_bytes = 0
        self._writable = asyncio.Event()
        self._writable.set()

    async def connect(self, end: socket.socket) -> None:
        await self._loop.create_connection(lambda: self, sock=end)

    def send(self, kind: Kind, request: int = 0, *parts: bytes | bytearray) -> None:
        """Never blocks; does nothing once the link is lost."""
        if self.lost:
            return
        if not self._unsent:
            self._loop.call_soon(self.flush)
        length = sum(map(len, parts))
        self._unsent.append(frame_head(kind, request, length))
        self._unsent += parts
        self._unsent_bytes += HEAD.size + length

    def flush(self) -> None:
        """What is sent before `connect` waits for it, or while the other process reads nothing."""
        while self._unsent and self._transport is not None and self._writable.is_set():
            self._transport.write(self._take_all() if self._unsent_bytes <= _QUEUE_BYTES else self._take_piece())

    def _take_all(self) -> bytes | bytearray | memoryview:
        data = self._unsent[0] if len(self._unsent) == 1 else b"".join(self._unsent)
        self._unsent.clear()
        self._unsent_bytes = 0
        return data

    def _take_piece(self) -> bytes | bytearray | memoryview:
        piece = self._unsent.popleft()
        if len(piece) > _QUEUE_BYTES:
            view = memoryview(piece)
            piece = view[:_QUEUE_BYTES]
            self._unsent.appendleft(view[_QUEUE_BYTES:])
        self._unsent_bytes -= len(piece)
        return piece

    async def drained(self) -> None:
        """Returns when the other process has taken most of what was sent, or the link is lost."""
        await self._writable.wait()

    def close(self) -> None:
        """What was sent is still delivered."""
        if self._transport is not None:
            self._transport.write(self._take_all())
            self._transport.close()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_QUEUE_BYTES)
        self.flush()

    def data_received(self, data: bytes) -> None:
        try:
            frames = self._frames.feed(data)
        except LinkBroken:
            self.abort()
            return
        for frame in frames:
            self._on_frame(frame)

    def abort(self) -> None:
        """The link is lost now; what was not delivered yet is dropped."""
        if self._transport is not None:
            self._transport.abort()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._unsent.clear()
        self._writable.set()
        self._on_lost()
