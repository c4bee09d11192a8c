"""Prints the lines on the pipe with their times, for `demo` and `replay`.

Owns how a line looks: coloured and cut to the width on a terminal, whole and plain elsewhere. Refuses to know what a line means,
except whether it is an error.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import threading
import time

from bridge_worker.cli.terminal import is_terminal, printable, styled


class Screen:
    """Writes to stdout. Thread-safe: the lines of the two directions come from different threads."""

    def __init__(self, *, indent: bool = False) -> None:
        """``indent``: show a message on several lines."""
        self._indent = indent
        self._shown = {"-->": 0, "<--": 0}
        self._started = time.monotonic()
        self._lock = threading.Lock()
        self._is_terminal = is_terminal(sys.stdout)

    def title(self, text: str) -> None:
        self._print("\n" + styled(text, "bold", sys.stdout))

    def text(self, text: str) -> None:
        self._print("            " + text)

    def line(self, arrow: str, text: str) -> None:
        """``arrow`` is "-->" to the worker and "<--" from it."""
        style = "cyan" if arrow == "-->" else "red" if '"error":{' in text else "green"
        with self._lock:  # keeps the times in order
            before = f"{(time.monotonic() - self._started) * 1000:8.1f} {arrow} "
            self._shown[arrow] += 1
            self._write(styled(before, "dim", sys.stdout) + styled(self._fitting(text, len(before)), style, sys.stdout))

    def total(self, code: int) -> None:
        self.text(f"{self._shown['-->']} lines to the worker, {self._shown['<--']} from it; its exit code is {code}")

    def _fitting(self, text: str, indent: int) -> str:
        if self._indent:
            with contextlib.suppress(ValueError):
                text = json.dumps(json.loads(text), ensure_ascii=False, indent=2).replace("\n", "\n" + " " * indent)
        if not self._is_terminal:
            return text
        text, width = printable(text), shutil.get_terminal_size().columns - indent
        return text if self._indent or len(text) <= width else text[: max(width - 1, 20)] + "…"

    def _print(self, text: str) -> None:
        with self._lock:
            self._write(text)

    def _write(self, text: str) -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
