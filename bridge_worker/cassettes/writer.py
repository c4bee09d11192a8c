"""Passes exchanges on to the process that appends them to a cassette.

Owns the file until then: how it is opened, and its header; the queue, and the end of the process. Several processes may append to
one file. Refuses to know what a line means, and to make one (`writing_process`).
"""

from __future__ import annotations

import logging
import os
import pickle
import stat
import subprocess
import sys
import threading
import time
from collections import deque
from contextlib import suppress

from bridge_worker.cassettes.entry import FORMAT, HEADER, header_line
from bridge_worker.cassettes.writing_process import EXCHANGE, HEAD, LINE, MODEL, SECRETS, end_half_line, locked
from bridge_worker.security.redaction import Redactor
from bridge_worker.system.child_processes import OUTLIVES, how_it_ended
from bridge_worker.version import __version__

_MAX_QUEUED_BYTES = 64 * 1024 * 1024  # beyond it a request waits for the disk: a recording has every exchange
_CLOSE_SECONDS = 8.0
_BATCH_SECONDS = 0.02
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
        with locked(fd):
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
    elif (found := HEADER.match(os.pread(fd, 32, 0))) is None:
        raise CassetteError(f"{flag} {path}: the file is not a cassette and was not changed; name a cassette or a new file")
    elif int(found[1]) > FORMAT:
        raise CassetteError(f"{flag} {path}: format {int(found[1])} is newer than this omni-bridge; update it, or name a new file")
    else:
        end_half_line(fd)
    if state.st_mode & 0o077:
        _log.warning("others may read the cassette %s: chmod go= it", path)


class Writer:
    """Appends to ``fd``. The lines are made, masked and written by a child process: that takes longer than the chat itself.

    Messages are gathered for `_BATCH_SECONDS`, so that a busy loop does not share its time with the thread that passes them on.
    """

    def __init__(self, fd: int, redactor: Redactor) -> None:
        self._redactor = redactor
        self._known: object = None  # what the child process knows of the secrets
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._changed = threading.Condition()
        self._is_woken = False
        self._closing = False
        self._stopped = False
        self._child = _start(fd)
        os.close(fd)
        self._threads = [threading.Thread(target=work, name="cassette", daemon=True) for work in (self._pass_on, self._read_log)]
        for thread in self._threads:
            thread.start()

    def exchange(self, packed: bytes) -> None:
        """``packed`` is what `writing_process.pack` returned. Waits only when a slow disk has fallen far behind."""
        self._put(EXCHANGE, packed)

    def model(self, line: bytes) -> None:
        """A line with the facts of a model, which is masked."""
        self._put(MODEL, line)

    def line(self, line: bytes) -> None:
        """A line that is ready."""
        self._put(LINE, line)

    def close(self) -> None:
        """Waits until all is written, at most `_CLOSE_SECONDS`."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        ends = time.monotonic() + _CLOSE_SECONDS
        for thread in self._threads:
            thread.join(max(ends - time.monotonic(), 0))

    def _put(self, kind: bytes, data: bytes) -> None:
        if self._redactor.known is not self._known:
            self._known = self._redactor.known
            self._add(SECRETS, pickle.dumps(self._redactor))
        self._add(kind, data)

    def _add(self, kind: bytes, data: bytes) -> None:
        self._queue.append(HEAD.pack(kind, len(data)) + data)
        self._queued += len(data)
        if self._is_woken and self._queued < _MAX_QUEUED_BYTES:
            return
        with self._changed:
            self._is_woken = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._queued < _MAX_QUEUED_BYTES or self._stopped)

    def _pass_on(self) -> None:
        pipe = self._child.stdin
        assert pipe is not None  # noqa: S101  # for mypy
        try:
            while self._wait():
                data = self._taken()
                pipe.write(data)
        except OSError:
            pass  # the child process has ended, and its log has the reason
        finally:
            with suppress(OSError):
                pipe.close()
            with self._changed:
                self._stopped = True
                self._queue.clear()
                self._changed.notify_all()

    def _wait(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._is_woken or self._closing)
            is_closing = self._closing
        if not is_closing:
            time.sleep(_BATCH_SECONDS)
        self._is_woken = False  # what is added from here on wakes this thread again
        return bool(self._queue) or not is_closing

    def _taken(self) -> bytes:
        parts = []
        while self._queue:  # only this thread removes from it
            parts.append(self._queue.popleft())
        with self._changed:
            self._queued = 0
            self._changed.notify_all()
        return b"".join(parts)

    def _read_log(self) -> None:
        log = self._child.stdout
        assert log is not None  # noqa: S101  # for mypy
        for line in log:
            _log.error("%s", line.decode("utf-8", "replace").strip())
        code = self._child.wait()
        if code and not self._closing:
            _log.error("recording has stopped, serving continues: its process ended (%s)", how_it_ended(code))


def _start(fd: int) -> subprocess.Popen[bytes]:
    """The process that writes to ``fd``. It imports from where this one does."""
    code = f"import sys; sys.path[:] = {sys.path!r}; from bridge_worker.cassettes.writing_process import main; main({fd})"
    command = [sys.executable, "-I", "-S", "-X", "utf8", "-c", code, OUTLIVES]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, pass_fds=(fd,))  # noqa: S603
