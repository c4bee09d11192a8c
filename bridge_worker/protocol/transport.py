"""Transport port: the byte stream between a server and its client.

Owns the interface that a server reads from and writes to. Refuses to know descriptors and messages.
"""

from __future__ import annotations

from typing import Protocol


class Transport(Protocol):
    """Byte stream that a server reads from and writes to."""

    async def read(self) -> bytes:
        """The next bytes, as soon as there are any; b"" at the end of input, and ever after.

        Raises OSError once if the input can't be read."""

    def write(self, data: bytes) -> None:
        """Queues whole messages, mostly one; never blocks. Does nothing once the pipe is broken."""

    def queued(self) -> int:
        """Number of bytes that were written and have not left the process."""

    async def drained(self, limit: int) -> None:
        """Returns when no more than ``limit`` bytes are queued, or the pipe is broken."""

    async def broken(self) -> None:
        """Returns when the reader of the output is gone."""
