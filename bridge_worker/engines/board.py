"""How far an engine is with each of its requests, in memory that outlives the engine.

Owns one byte a request, written by the engine and read by the server process once the engine is lost: exact whatever ended it, and
without a message. Refuses to know what the numbers mean.
"""

from __future__ import annotations

import mmap
import os
import tempfile

SLOTS = 65_536  # requests of one engine that may be in flight; their numbers are below it


class Board:
    def __init__(self, fd: int) -> None:
        """``fd`` is one of `open_board`; it may be closed afterwards."""
        self._bytes = mmap.mmap(fd, SLOTS)

    def __getitem__(self, request: int) -> int:
        return self._bytes[request]

    def __setitem__(self, request: int, progress: int) -> None:
        self._bytes[request] = progress

    def close(self) -> None:
        self._bytes.close()


def open_board() -> int:
    """A descriptor of zeros that has no name on the disk."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("omni-bridge-engine")
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, SLOTS)
    return fd
