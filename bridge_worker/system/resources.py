"""Resources of the process: resident memory and the limit of open files.

Owns the system calls that read and raise them. Refuses to decide what a caller does with the numbers.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

_FILES = 65_536


def raise_file_limit() -> None:
    """A thousand chats are a thousand sockets; the usual soft limit is 1,024 descriptors."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def memory_bytes(pid: int | None = None) -> int | None:
    """Resident memory of this process: the current value where the system reports it, else the peak; None where it reports neither.
    With ``pid`` that of another process; None where the system does not report it."""
    with suppress(ImportError, OSError, ValueError, IndexError):
        import resource

        return int(Path(f"/proc/{pid or 'self'}/statm").read_text().split()[1]) * resource.getpagesize()
    with suppress(ImportError):
        import resource

        if pid is not None:
            return None
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return None
