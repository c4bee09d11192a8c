"""Private copies of fd 0 and fd 1, taken before a library can print.

Owns the descriptors of the process. Refuses to know what is read from them and written to them.
"""

from __future__ import annotations

import contextlib
import os
import select

_PIPE_BYTES = 1024 * 1024  # Linux lets a user have pipes of this size; a 5 MB message then takes 5 wake-ups, not 80


def claim_descriptors() -> tuple[int, int]:
    """Private copies of fd 0 and fd 1; afterwards fd 0 is the null device and fd 1 is stderr, also for child processes.

    The second is -1, which can't be written to, when stdout was closed from the start. A process that is forked has neither.
    """
    closed = [fd for fd in (0, 1, 2) if not _is_open(fd)]
    for _ in closed:  # else the next file that is opened gets the number, and is taken for a standard stream
        os.open(os.devnull, os.O_RDWR)
    source, sink = os.dup(0), -1 if 1 in closed else os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    for fd in (source, sink):
        if fd >= 0:
            _widen(fd)
    keep_from_children(source, sink)
    return source, sink


def keep_from_children(*fds: int) -> None:
    """Closes them in each process that is forked from this one: a library's child must neither write to them nor hold them open
    after this process has ended."""
    if hasattr(os, "register_at_fork"):
        open_here = list(fds)
        os.register_at_fork(after_in_child=lambda: _close_once(open_here))


def write_some(fd: int, data: memoryview) -> memoryview:
    """Writes what ``fd`` takes now, and returns the rest. Raises OSError when the reader is gone."""
    try:
        while data:
            data = data[os.write(fd, data) :]
    except BlockingIOError:  # O_NONBLOCK, which a parent process on an event loop leaves set
        pass
    return data


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Waits for a reader, also where ``fd`` has O_NONBLOCK. Raises OSError when the reader is gone."""
    rest = write_some(fd, memoryview(data))
    while rest:
        wait_until_ready(fd, write=True)
        rest = write_some(fd, rest)


def wait_until_ready(fd: int, *, write: bool) -> None:
    """Blocks until ``fd`` can be read or written, or its other end is gone."""
    poll = select.poll()  # Windows has no poll, and no O_NONBLOCK either
    poll.register(fd, select.POLLOUT if write else select.POLLIN)
    poll.poll()


def room_of_empty_pipe(fd: int) -> int:
    """Bytes that a write to ``fd`` takes without blocking: its whole size while it is a pipe with nothing to read, 0 otherwise."""
    try:
        import fcntl
        import termios

        size = fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)  # no call of macOS; an error for what is no pipe
        unread = fcntl.ioctl(fd, termios.FIONREAD, bytes(4))
    except (ImportError, AttributeError, OSError):
        return 0
    return 0 if any(unread) else size


def _close_once(fds: list[int]) -> None:
    """A child of the child may have other files under these numbers."""
    while fds:
        with contextlib.suppress(OSError):
            os.close(fds.pop())


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _widen(fd: int) -> None:
    """A larger pipe, where it is one and the system has that call."""
    with contextlib.suppress(ImportError, AttributeError, OSError):
        import fcntl

        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
