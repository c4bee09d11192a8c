"""Exit codes, and the functions that end the process with one.

Owns what each code means. Refuses to run exit handlers: those of LiteLLM take a second.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import NoReturn

EXIT_DRAINED = 0
EXIT_USAGE = 2
EXIT_BROKEN = 3  # the client stopped reading before everything was written, or stdin could not be read
EXIT_INTERNAL = 70


def end_with(work: Callable[[], int]) -> NoReturn:
    """Ends the process with the code that ``work`` returns. A reader of its output may stop early, as ``head`` does."""
    code = EXIT_INTERNAL
    with contextlib.suppress(BrokenPipeError):
        code = work()
    os._exit(code)


def fail(message: str, code: int = EXIT_USAGE) -> NoReturn:
    with contextlib.suppress(OSError):  # stderr may be closed
        os.write(2, f"omni-bridge: {' '.join(message.split())}\n".encode("utf-8", "backslashreplace"))
    os._exit(code)
