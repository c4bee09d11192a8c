"""Programs around a worker, and its lines: what the process tests of several files start and send."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tests.support.data import HELLO_ASCII
from tests.support.worker import Worker

# Runs the command with an import of LiteLLM that waits for a word in a FIFO: "go", or anything else to fail.
HOLD_LITELLM = """
import os, sys

def hold(event, arguments):
    if event == "import" and arguments[0] == "litellm":
        with open(os.environ["TEST_FIFO"]) as fifo:
            verdict = fifo.read()
        if verdict != "go":
            raise ImportError(verdict)

sys.addaudithook(hold)
from bridge_worker.cli.main import main
main()
"""


def script(path: Path, text: str) -> tuple[str, ...]:
    path.write_text(text)
    return (sys.executable, "-I", "-X", "utf8", str(path))


def chat(worker: Worker, model: str = "openai/x", **params: Any) -> int | str:
    return worker.request("chat", {"model": model, "messages": HELLO_ASCII, **params})


def line(id: int, method: str, **params: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).encode() + b"\n"


def kind(response: dict[str, Any]) -> str | None:
    found: str | None = response.get("error", {}).get("data", {}).get("kind")
    return found
