"""Programs around a worker, and its lines: what the process tests of several files start and send."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.data import HELLO_ASCII
from tests.support.worker import Worker

# Runs the command with an import of LiteLLM that waits for a word in a FIFO: "go", or anything else to fail. A process that is
# forked has its parent's word.
HOLD_LITELLM = """
import os, sys

verdict = ""

def hold(event, arguments):
    global verdict
    if event == "import" and arguments[0] == "litellm":
        if not verdict:
            with open(os.environ["TEST_FIFO"]) as fifo:
                verdict = fifo.read()
        if verdict != "go":
            raise ImportError(verdict)

sys.addaudithook(hold)
from bridge_worker.cli.main import main
main()
"""


def children(pid: int) -> set[int]:
    """Process ids; of a worker's its template and its engines."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # it has ended
            found |= set(map(int, task.read_text().split()))
    return found


def descendants(pid: int) -> set[int]:
    """Process ids of its children, and of theirs: of a worker's also the one that its template rehearses in for a second."""
    direct = children(pid)
    return direct.union(*map(descendants, direct))


def processes(worker: Worker) -> list[int]:
    """The process that was started, its template, its engines and their own."""
    return [worker.process.pid, *descendants(worker.process.pid)]


class Resources(NamedTuple):
    descriptors: int
    threads: int
    kib: int  # resident; a page that processes share counts in parts
    processes: int


def resources(worker: Worker) -> Resources:
    """Of all its processes together, but for one that ends meanwhile."""
    rows = []
    for process in (Path(f"/proc/{pid}") for pid in processes(worker)):
        with suppress(OSError, KeyError):
            status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
            memory = dict(line.split(":", 1) for line in (process / "smaps_rollup").read_text().splitlines()[1:])
            rows.append(Resources(len(list((process / "fd").iterdir())), int(status["Threads"]), int(memory["Pss"].split()[0]), 1))
    return Resources(*map(sum, zip(*rows, strict=True)))


def is_zombie(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return False


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
