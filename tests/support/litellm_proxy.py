"""A real LiteLLM proxy, in an environment of its own: the gateway whose config the worker takes, and one more provider.

Owns its process, its port and one HTTP client for it. Refuses to know the requests.
"""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.support.data import ROOT
from tests.support.upstream import Json
from tests.support.worker import clean_environment

MASTER_KEY = "sk-master-4711-proxy"
START_SECONDS = 180.0  # it takes 6-20 s
STARTED = {
    "LITELLM_MASTER_KEY": MASTER_KEY,
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_MODE": "PRODUCTION",
    "HF_HUB_OFFLINE": "1",
    "NO_DOCS": "True",
    "DISABLE_ADMIN_UI": "True",
}


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]  # names in lower case
    text: str

    @property
    def json(self) -> Json:
        body: Json = json.loads(self.text)
        return body

    @property
    def events(self) -> list[Json]:
        lines = [line.removeprefix("data: ") for line in self.text.splitlines() if line.startswith("data: ")]
        return [json.loads(line) for line in lines if line != "[DONE]"]


def install() -> Path:
    """The environment's folder of commands; made once, as .venv is."""
    make = [sys.executable, "-I", "bin/bootstrap.py", "--venv", ".venv-proxy", "--lock", "requirements-proxy.lock"]
    made = subprocess.run(make, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    return ROOT / ".venv-proxy" / ("Scripts" if sys.platform == "win32" else "bin")


class Proxy:
    """Starts with a config file; `wait_ready` before the first request."""

    def __init__(self, config: str, folder: Path) -> None:
        commands = install()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.base_url = f"http://127.0.0.1:{self._port}"
        self._log = folder / "proxy.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [commands / "litellm", "--config", config, "--host", "127.0.0.1", "--port", str(self._port)],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=clean_environment() | STARTED,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def wait_ready(self) -> None:
        end = time.monotonic() + START_SECONDS
        while not self._is_up():
            assert self._process.poll() is None, f"the proxy ended: {self._log.read_text(errors='replace')[-4000:]}"
            assert time.monotonic() < end, f"the proxy is not ready: {self._log.read_text(errors='replace')[-4000:]}"
            time.sleep(0.1)

    def chat(self, model: str, messages: list[Json], *, key: str = MASTER_KEY, **params: Any) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
            body = {"model": model, "messages": messages, **params}
            connection.request("POST", "/v1/chat/completions", json.dumps(body).encode(), headers)
            response = connection.getresponse()
            headers = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, headers, response.read().decode())
        finally:
            connection.close()

    def _is_up(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=5)
        try:
            connection.request("GET", "/health/readiness")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()
