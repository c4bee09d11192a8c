"""A worker with a sampling profiler in it: `python profile_worker.py REPORT --stdio ...`, started as the worker itself would be.

Owns the sampling: every millisecond of processor time a signal handler notes the Python stack of the main thread. It costs 2 %, and
C code counts for the function that calls it. SIGUSR1 starts it, SIGUSR2 writes the report and forgets what it has noted.
Refuses to know what is measured; `profiles.py` drives it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType

_SECONDS = 0.001
_own: Counter[str] = Counter()
_whole: Counter[str] = Counter()


def _sample(_: int, frame: FrameType | None) -> None:
    seen: set[str] = set()
    while frame is not None:
        code = frame.f_code
        name = f"{_short(code.co_filename)}:{code.co_qualname}"
        if not seen:
            _own[name] += 1
        if name not in seen:
            seen.add(name)
            _whole[name] += 1
        frame = frame.f_back


def _short(path: str) -> str:
    for mark in ("/site-packages/", "/bridge_worker/", "/lib/python"):
        _, found, rest = path.rpartition(mark)
        if found:
            return f"bridge_worker/{rest}" if mark == "/bridge_worker/" else rest
    return path


def main() -> None:
    report = Path(sys.argv.pop(1))

    def write(*_: object) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        part = report.with_suffix(".part")
        part.write_text(json.dumps({"own": _own, "whole": _whole}))
        part.rename(report)
        _own.clear()
        _whole.clear()

    signal.signal(signal.SIGPROF, _sample)
    signal.signal(signal.SIGUSR1, lambda *_: signal.setitimer(signal.ITIMER_PROF, _SECONDS, _SECONDS))
    signal.signal(signal.SIGUSR2, write)
    from bridge_worker.cli.main import main as start

    sys.argv[0] = "omni-bridge"
    start(sys.argv[1:])


if __name__ == "__main__":
    os.environ.setdefault("MALLOC_ARENA_MAX", "2")
    main()
