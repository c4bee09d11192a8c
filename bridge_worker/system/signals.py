"""Signal handlers of the serving process.

Owns which signals are handled and on which systems. Refuses to know what a handler does.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable


def reset_signals() -> None:
    """Default dispositions and an empty mask: what the parent process blocked or ignored is inherited otherwise."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGCHLD", "SIGQUIT", "SIGALRM"):
        if (number := getattr(signal, name, None)) is not None and signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def handle_signals(loop: asyncio.AbstractEventLoop, *, stop: Callable[[], object], hang_up: Callable[[], object]) -> None:
    """SIGTERM and SIGINT call ``stop``, SIGHUP calls ``hang_up``, each in ``loop``."""
    for name, handler in {"SIGTERM": stop, "SIGINT": stop, "SIGHUP": hang_up}.items():
        with contextlib.suppress(AttributeError, NotImplementedError):  # Windows has neither SIGHUP nor add_signal_handler
            loop.add_signal_handler(getattr(signal, name), handler)
