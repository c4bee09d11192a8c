"""npm's aimock: one server that speaks the wire formats of ten providers, written by people who have not seen this bridge.

Owns its installation (pinned in tests/node/package.json, into tests/.node, which git ignores), its process and its journal. What it
answers is in tests/aimock.json. Without node, npm and npm's registry the tests that use it fail, and say so.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import urllib.request
from pathlib import Path
from typing import Self

from tests.support.data import Json
from tests.support.worker import WAIT_SECONDS, wait_until

_TESTS = Path(__file__).parents[1]
_WANTED = _TESTS / "node" / "package.json"
_FOLDER = _TESTS / ".node"
_INSTALLED = _FOLDER / "package.json"  # written last, so what is there is whole
_PROGRAM = _FOLDER / "node_modules" / "@copilotkit" / "aimock" / "dist" / "cli.js"
FIXTURES = _TESTS / "aimock.json"


class Aimock:
    """A running server. ``origin`` is its URL without a path."""

    def __init__(self) -> None:
        install()
        port = _free_port()
        self.origin = f"http://127.0.0.1:{port}"
        # Seven characters a chunk: several deltas for a short answer, and arguments cut in awkward places.
        flags = ["-h", "127.0.0.1", "-p", str(port), "-f", str(FIXTURES), "-c", "7", "--strict", "--log-level", "warn"]
        self._process = subprocess.Popen(["node", str(_PROGRAM), *flags], stdin=subprocess.DEVNULL)

    def __enter__(self) -> Self:
        wait_until(self._answers, "aimock answers")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def last_request(self) -> Json:
        """What came last: ``path`` and ``headers`` as they were, ``body`` as aimock understood it, in OpenAI's terms."""
        with urllib.request.urlopen(f"{self.origin}/__aimock/journal", timeout=WAIT_SECONDS) as answer:
            journal: list[Json] = json.load(answer)
        return journal[-1]

    def _answers(self) -> bool:
        assert self._process.poll() is None, "aimock has ended; what it said is above"
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.origin}/health", timeout=1):
            return True
        return False


def install() -> None:
    """Once for a checkout and a pinned version."""
    if _INSTALLED.exists() and _INSTALLED.read_bytes() == _WANTED.read_bytes():
        return
    npm = shutil.which("npm")
    assert npm, "these tests need node and npm on the PATH: they start npm's aimock"
    shutil.rmtree(_FOLDER, ignore_errors=True)
    _FOLDER.mkdir()
    name, version = next(iter(json.loads(_WANTED.read_bytes())["dependencies"].items()))
    flags = ["--no-save", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(_FOLDER)]
    command = [npm, "install", *flags, f"{name}@{version}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"npm could not install {name}@{version}: {done.stderr[-2000:]}"
    shutil.copyfile(_WANTED, _INSTALLED)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
