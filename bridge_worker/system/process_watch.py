"""Watches the reader of stdout and the parent process, and calls back when either is gone.

Owns both watches, each a thread that sleeps in the kernel. Refuses to know what is done when one is gone. Not
PR_SET_PDEATHSIG, which fires when the parent's spawning *thread* ends.
"""

from __future__ import annotations

import os
import select
import sys
import threading
from collections.abc import Callable

_POLL_SECONDS = 0.5  # where the system has no pidfd


def watch_reader(fd: int, gone: Callable[[], object]) -> None:
    """Calls ``gone``, in another thread, when the reader of ``fd`` is gone. A write would detect that only later."""
    if fd < 0:
        gone()
        return
    if not hasattr(select, "poll"):
        return  # Windows: the next write detects it
    poll = select.poll()
    poll.register(fd, 0)  # errors are always reported

    def wait() -> None:
        events = poll.poll()
        if any(event & (select.POLLERR | select.POLLHUP) for _, event in events):  # POLLNVAL: not a pipe, nothing to watch
            gone()

    threading.Thread(target=wait, name="reader-watch", daemon=True).start()


def watch_process(pid: int, gone: Callable[[], object], unseen: Callable[[], object] | None = None) -> None:
    """Calls ``gone``, in another thread, when process ``pid`` has ended; ``unseen`` when it does not exist, for example
    because it is in another container. Without ``unseen`` that counts as ended."""
    present = _is_present(pid)

    def wait() -> None:
        if not present:
            (unseen or gone)()
            return
        try:
            _wait_for_end(pid)
        except ProcessLookupError:
            pass
        except PermissionError:
            return  # it lives, and may not be watched
        gone()

    threading.Thread(target=wait, name="process-watch", daemon=True).start()


def watch_parent(gone: Callable[[], object]) -> None:
    """Calls ``gone``, in another thread, when the current parent process has ended."""
    parent = os.getppid()
    if parent > 1:
        watch_process(parent, gone)


def _is_present(pid: int) -> bool:
    if sys.platform == "win32":
        return True  # the wait itself finds out
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # of another user
    return True


def _wait_for_end(pid: int) -> None:
    if sys.platform == "win32":
        _wait_for_end_on_windows(pid)
        return
    try:
        fd = os.pidfd_open(pid)
    except (AttributeError, OSError) as error:
        if isinstance(error, ProcessLookupError):
            raise
        _poll_for_end(pid)
        return
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    poll.poll()
    os.close(fd)


def _wait_for_end_on_windows(pid: int) -> None:
    """Does not use os.kill(pid, 0), which sends a Ctrl-C there. Written from the documentation, to be tested on a Windows host."""
    import _winapi

    synchronize = 0x0010_0000
    try:
        process = _winapi.OpenProcess(synchronize, False, pid)  # type: ignore[attr-defined,unused-ignore]
    except PermissionError:
        raise
    except OSError as error:
        raise ProcessLookupError from error
    _winapi.WaitForSingleObject(process, _winapi.INFINITE)  # type: ignore[attr-defined,unused-ignore]


def _poll_for_end(pid: int) -> None:
    pause = threading.Event()
    while True:
        os.kill(pid, 0)
        pause.wait(_POLL_SECONDS)
