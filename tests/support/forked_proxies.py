"""LiteLLM proxies by the dozen: one process imports the proxy, and forks one child for each config.

Owns both sides: `Proxies` in the tests, and below it the script that runs in the proxy's environment. The import takes 6-20 s, a
fork with its config about one. Refuses to know the requests.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

READY_SECONDS = 120.0


class Proxies:
    """``python`` is the interpreter of the proxy's environment."""

    def __init__(self, python: Path, environment: Mapping[str, str], log: Path) -> None:
        self._log = log
        with log.open("wb") as stderr:
            self._process = subprocess.Popen(
                [python, "-I", Path(__file__)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=dict(environment),
                text=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def start(self, config: Path, environment: Mapping[str, str]) -> int:
        """The port of a proxy on ``config``. The one before has been ended. Raises RuntimeError with the reason when it ends at its
        start."""
        port = self._command({"config": str(config), "environment": dict(environment)})["port"]
        end = time.monotonic() + READY_SECONDS
        while not _is_up(port):
            if (code := self._command({"poll": True})["code"]) is not None:
                raise RuntimeError(f"the proxy ended with {code}: {self._reason()}")
            assert time.monotonic() < end, self._reason()
        return int(port)

    def _command(self, command: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, self._reason()
        response: dict[str, Any] = json.loads(line)
        return response

    def _reason(self) -> str:
        lines = [
            line.strip() for line in self._log.read_text(errors="replace").splitlines() if "Error" in line or "Exception" in line
        ]
        return lines[-1][:300] if lines else "no reason on its log"


def _is_up(port: int) -> bool:
    """Waits for a response: the port listens before the proxy reads from it."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"GET /health/liveliness HTTP/1.0\r\n\r\n")
            return b" 200 " in connection.recv(100)
    except OSError:
        return False


# ---- in the proxy's environment ------------------------------------------------------------------------------------------------


def _serve(listener: socket.socket, config: str, environment: Mapping[str, str]) -> None:
    import uvicorn

    os.environ.update(environment)
    os.environ["CONFIG_FILE_PATH"] = config
    os.chdir(Path(config).parent)
    from litellm.proxy.proxy_server import app

    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="on"))
    server.run(sockets=[listener])
    os._exit(0 if server.started else 3)


def _main() -> None:
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # LiteLLM prints where it likes
    import litellm.proxy.proxy_server  # noqa: F401

    gc.collect()
    gc.freeze()  # no collection of a child touches these pages, nor looks at them
    child: int | None = None
    for line in sys.stdin:
        command = json.loads(line)
        if "poll" in command:
            ended, status = os.waitpid(child or 0, os.WNOHANG)
            response: dict[str, Any] = {"code": os.waitstatus_to_exitcode(status) if ended else None}
            child = None if ended else child
        else:
            _end(child)
            listener = socket.create_server(("127.0.0.1", 0))
            response = {"port": listener.getsockname()[1]}
            child = os.fork()
            if child == 0:
                out.close()
                try:
                    _serve(listener, command["config"], command["environment"])
                finally:
                    os._exit(4)
            listener.close()
        out.write(json.dumps(response) + "\n")
        out.flush()
    _end(child)


def _end(child: int | None) -> None:
    if child is not None:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


if __name__ == "__main__":
    _main()
