"""Who must be alive for this process to be of use: the reader of its answers, and its parent.

Owns two kinds of watch, each a thread that sleeps in the kernel. Refuses to know what is done when one is gone. Not
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
    """Calls ``gone``, in another thread, when nobody can read any more what is written to ``fd``. A write finds out only later."""
    if fd < 0:
        gone()
        return
    if not hasattr(select, "poll"):
        return  # Windows: the next write will tell
    poll = select.poll()
    poll.register(fd, 0)  # errors are always reported

    def wait() -> None:
        events = poll.poll()
        if any(event & (select.POLLERR | select.POLLHUP) for _, event in events):  # POLLNVAL: not a pipe, nothing to watch
            gone()

    threading.Thread(target=wait, name="reader-watch", daemon=True).start()


def watch_process(pid: int, gone: Callable[[], object], unseen: Callable[[], object] | None = None) -> None:
    """Calls ``gone``, in another thread, when process ``pid`` has ended; ``unseen`` when there is none to begin with, for example
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
    """Calls ``gone``, in another thread, when the parent of now has ended."""
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
    """Not by os.kill(pid, 0), which sends a Ctrl-C there. Written from the documentation; run by whoever has a Windows."""
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
