"""Processes that end with another one: who is killed when this process ends, who adopts its grandchildren, how a child ended.

Owns the Linux calls for that (prctl, by ctypes, 10 ms at the first call), which do nothing on other systems. Refuses to know what a
process is for.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path

OUTLIVES = "outlives-the-worker"  # an argument of a program that has to finish, such as the one that writes a cassette
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def end_with_parent(parent: int) -> None:
    """This process is killed when ``parent``, its parent process, ends. Call it in the main thread. Ends now if that has ended."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if sys.platform == "linux" and os.getppid() != parent:
        os._exit(0)


def adopt_orphans() -> bool:
    """Makes this process the parent of each descendant that loses its parent. False where the system does not have that."""
    return _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def reap() -> dict[int, int]:
    """Exit codes of the children that have ended, by process id; a signal's is negative."""
    ended: dict[int, int] = {}
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            ended[pid] = os.waitstatus_to_exitcode(status)
    return ended


def children() -> set[int]:
    """Process ids of the children of this process but those with the argument `OUTLIVES`; empty where the system does not list
    them."""
    found: set[int] = set()
    with contextlib.suppress(OSError):
        for task in Path("/proc/self/task").iterdir():
            found.update(map(int, (task / "children").read_text().split()))
    return {pid for pid in found if OUTLIVES.encode() not in _arguments(pid)}


def _arguments(pid: int) -> list[bytes]:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return []


def processor_times(pid: int) -> tuple[float, float]:
    """Seconds for which the threads of a process ran, and for which they could have run but others had the processor; 0 where the
    system does not count them."""
    ran = waited = 0
    with contextlib.suppress(OSError, ValueError, IndexError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            times = (task / "schedstat").read_text().split()
            ran, waited = ran + int(times[0]), waited + int(times[1])
    return ran / 1e9, waited / 1e9


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def how_it_ended(code: int | None) -> str:
    """For a log line: "exit code 1", "signal 9 (SIGKILL)"."""
    if code is None:
        return "unknown"
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return f"signal {-code} ({signal.Signals(-code).name})"
    return f"signal {-code}"


def _prctl(option: int, argument: int) -> bool:
    if sys.platform != "linux":
        return False
    try:
        import ctypes

        return bool(ctypes.CDLL(None).prctl(option, ctypes.c_ulong(argument), 0, 0, 0) == 0)
    except (ImportError, OSError, AttributeError):
        return False
