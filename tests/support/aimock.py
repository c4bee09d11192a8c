"""npm's aimock: one server that speaks the wire formats of ten providers, written by people who have not seen this bridge.

Owns its process and its journal. What it answers is in tests/aimock.json; `tests.support.node` installs it.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import urllib.request
from pathlib import Path
from typing import Self

from tests.support import node
from tests.support.data import Json
from tests.support.worker import WAIT_SECONDS, wait_until

_PROGRAM = node.FOLDER / "node_modules" / "@copilotkit" / "aimock" / "dist" / "cli.js"
FIXTURES = Path(__file__).parents[1] / "aimock.json"


class Aimock:
    """A running server. ``origin`` is its URL without a path."""

    def __init__(self) -> None:
        node.install()
        port = _free_port()
        self.origin = f"http://127.0.0.1:{port}"
        # Seven characters a chunk: several deltas for a short answer, and arguments cut in awkward places.
        flags = ["-h", "127.0.0.1", "-p", str(port), "-f", str(FIXTURES), "-c", "7", "--strict", "--log-level", "warn"]
        self._process = subprocess.Popen(["node", str(_PROGRAM), *flags], stdin=subprocess.DEVNULL)

    def __enter__(self) -> Self:
        wait_until(self._is_up, "aimock answers")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def last_request(self) -> Json:
        """What came last: ``path`` and ``headers`` as they were, ``body`` as aimock understood it, in OpenAI's terms."""
        with urllib.request.urlopen(f"{self.origin}/__aimock/journal", timeout=WAIT_SECONDS) as response:
            journal: list[Json] = json.load(response)
        return journal[-1]

    def _is_up(self) -> bool:
        assert self._process.poll() is None, "aimock has ended; what it said is above"
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.origin}/health", timeout=1):
            return True
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
