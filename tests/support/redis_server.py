"""A real Redis of its own for a test: Debian's redis-server on a free port, in memory only.

Owns its process. Refuses to keep anything once it has ended.
"""

from __future__ import annotations

import socket
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from tests.support.programs import program
from tests.support.worker import wait_until

PASSWORD = "correct-horse-4711"
ON_LOOPBACK = "127.0.0.1"


class RedisServer:
    """``command`` is put before it, to start it on another host. After `stop`, `start` starts an empty one at the same address."""

    def __init__(self, host: str = ON_LOOPBACK, command: Sequence[str] = ()) -> None:
        self._program = program("redis-server")
        self._command = command
        self.host = host
        self.port = _free_port() if host == ON_LOOPBACK else 6379
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def settings(self) -> dict[str, object]:
        """Of ``router_settings``."""
        return {"redis_host": self.host, "redis_port": self.port, "redis_password": PASSWORD}

    def start(self) -> None:
        with tempfile.NamedTemporaryFile(prefix="redis-", suffix=".log") as log:
            where = ["--bind", self.host, "--port", str(self.port), "--logfile", log.name]
            flags = [*where, "--save", "", "--appendonly", "no", "--requirepass", PASSWORD]
            self._process = subprocess.Popen([*self._command, self._program, *flags])
            wait_until(lambda: b"Ready to accept connections" in Path(log.name).read_bytes(), "redis-server is ready")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((ON_LOOPBACK, 0))
        return int(probe.getsockname()[1])
