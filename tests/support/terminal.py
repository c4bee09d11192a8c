"""The command in a terminal, as a person has it: a real pseudo terminal, keys typed into it, and what it shows.

Owns the terminal, the process in it and its end. Every wait ends when its condition holds, or fails the test.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Self

from tests.support.worker import COMMAND, WAIT_SECONDS, clean_environment

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]")
CTRL_C, CTRL_D, UP = "\x03", "\x04", "\x1b[A"


def _environment() -> dict[str, str]:
    """The terminal itself says how wide it is."""
    return {name: value for name, value in clean_environment().items() if name not in ("COLUMNS", "LINES")} | {
        "TERM": "xterm-256color"
    }


def _own_the_terminal() -> None:
    """So that Ctrl-C is a signal to the process, also where the test run ignores it, as one in the background does."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])


class Terminal:
    """``omni-bridge`` with these words. ``shown`` is all that has come to the screen, ``text`` the same without colours."""

    def __init__(
        self, *words: str, env: Mapping[str, str] | None = None, columns: int = 100, command: Sequence[str] = COMMAND
    ) -> None:
        self._fd, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        self.process = subprocess.Popen(
            [*command, *words],
            stdin=inner,
            stdout=inner,
            stderr=inner,
            env=_environment() | dict(env or {}),
            start_new_session=True,
            preexec_fn=_own_the_terminal,
        )
        os.close(inner)
        self.shown = ""
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def text(self) -> str:
        return _ESCAPES.sub("", self.shown).replace("\r\n", "\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        self._reader.join(WAIT_SECONDS)
        os.close(self._fd)

    def type(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def wait_for(self, text: str, times: int = 1) -> None:
        """Until it has been shown so many times."""
        self.wait_until(lambda: self.text.count(text) >= times, repr(text))

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        with self._changed:
            self._changed.wait_for(condition, WAIT_SECONDS)
            assert condition(), f"never shown: {what}; the screen has {self.text[-3000:]!r}"

    def exit_code(self) -> int:
        """When it has ended and all is shown."""
        code = self.process.wait(WAIT_SECONDS)
        self._reader.join(WAIT_SECONDS)
        return code

    def _read(self) -> None:
        data = b""
        while True:
            try:
                data += os.read(self._fd, 65536)
            except OSError:  # EIO: nobody holds the other end any more
                return
            with self._changed:
                self.shown = data.decode("utf-8", "replace")
                self._changed.notify_all()
