"""Appends lines to a cassette in a separate thread: each whole, by one write, so that a killed process leaves at most a half line.

Owns the file: how it is opened, its header, the queue and the end. Several processes may append to one file. Refuses to know what a
line means.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import threading
from collections import deque
from collections.abc import Callable

from bridge_worker.cassettes.entry import HEADER, header_line
from bridge_worker.version import __version__

_MAX_QUEUED_BYTES = 64 * 1024 * 1024  # beyond it a request waits for the disk: a recording has every exchange
_CLOSE_SECONDS = 5.0
_log = logging.getLogger(__name__)


class CassetteError(Exception):
    """Why a cassette can't be used, as one line for the operator."""


def open_cassette(path: str, flag: str) -> int:
    """Opens the cassette at ``path`` for appending; a new file gets its header, and is readable by its user only.

    Raises CassetteError, which names ``flag``. A file that is not a cassette is not changed: the path may be mistyped.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0), 0o600)
    except (OSError, ValueError) as error:
        raise CassetteError(f"{flag} {path}: {getattr(error, 'strerror', None) or error}") from None
    try:
        _prepare(fd, path, flag)
    except CassetteError:
        os.close(fd)
        raise
    return fd


def _prepare(fd: int, path: str, flag: str) -> None:
    state = os.fstat(fd)
    if not stat.S_ISREG(state.st_mode):
        raise CassetteError(f"{flag} {path}: not a regular file; name a cassette or a new file")
    if not state.st_size:
        os.write(fd, header_line(version=__version__))
    elif not HEADER.match(os.pread(fd, 32, 0)):
        raise CassetteError(f"{flag} {path}: the file is not a cassette and was not changed; name a cassette or a new file")
    elif os.pread(fd, 1, state.st_size - 1) != b"\n":
        os.write(fd, b"\n")  # a process before this one was killed within a line
    if state.st_mode & 0o077:
        _log.warning("others may read the cassette %s: chmod go= it", path)


class Writer:
    """Appends to ``fd`` what the queued functions return."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._queue: deque[tuple[int, Callable[[], bytes]]] = deque()
        self._queued = 0
        self._changed = threading.Condition()
        self._closing = False
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="cassette", daemon=True)
        self._thread.start()

    def put(self, size: int, make: Callable[[], bytes]) -> None:
        """``make`` runs in the writer's thread, and returns a line. Waits only when a slow disk has fallen far behind."""
        with self._changed:
            self._changed.wait_for(lambda: self._queued < _MAX_QUEUED_BYTES or self._stopped)
            if not self._stopped:
                self._queue.append((size, make))
                self._queued += size
                self._changed.notify_all()

    def close(self) -> None:
        """Waits until all is written, at most `_CLOSE_SECONDS`."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(_CLOSE_SECONDS)

    def _run(self) -> None:
        try:
            while self._wait():
                size, make = self._queue.popleft()  # only this thread removes from it
                self._append(make)
                with self._changed:
                    self._queued -= size
                    self._changed.notify_all()
        except OSError as error:
            _log.error("recording has stopped, serving continues: %s", error.strerror)  # a full disk needs no traceback
        finally:
            with self._changed:
                self._stopped = True
                self._queue.clear()
                self._changed.notify_all()

    def _append(self, make: Callable[[], bytes]) -> None:
        try:
            line = make()
        except Exception:
            _log.exception("an exchange could not be recorded")
            return
        written = os.write(self._fd, line)
        if written < len(line):  # the disk is full: what is written of the line is ended, and a reader skips it
            os.write(self._fd, b"\n")
            raise OSError(errno.ENOSPC, "no space was left for a whole line")

    def _wait(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing)
            return bool(self._queue)
