"""Processor time of the worker by mode and by function: `python3 benchmarks/profiles.py [--only NAME]... [--functions N]`.

Owns the scenarios. Each is a worker with a sampling profiler in it (`profile_worker.py`), which serves a fixed number of chats. The
figure is its processor time a chat or a delta, which other load on the machine changes little. Needs what `run.py` has set up.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from benchmarks import peer as peers  # noqa: E402
from benchmarks.measure import messages  # noqa: E402
from benchmarks.peer import Peer, Running, Upstream  # noqa: E402
from benchmarks.setting_up import LOAD, PYTHON  # noqa: E402

REPEATS = 3
_STACK_TOP = "bridge_worker/"


class Scenario(NamedTuple):
    """``unit`` divides: a chat, or a delta of a stream."""

    name: str
    model: str | None = None
    flags: tuple[str, ...] = ()
    stream: bool = False
    count: int = 400
    in_flight: int = 64
    history: int = 1
    plain: bool = False


def scenarios(folder: Path, upstream: str) -> Iterator[Scenario]:
    lane = peers.config(folder, upstream, limits=False)
    full = peers.config(folder, upstream, limits=True)
    yield Scenario("plain", plain=True, count=100)
    yield Scenario("plain streams", plain=True, stream=True, count=8, in_flight=8)
    for name, model, flags in (("direct", None, ()), ("lane", None, lane), ("full", None, full)):
        count = 100 if name == "full" else 600
        yield Scenario(name, model, flags, count=count)
        yield Scenario(f"{name} streams", model, flags, stream=True, count=64, in_flight=16)
    for one in peers.formats.FORMATS:
        yield Scenario(one.name, one.model, count=200)
        yield Scenario(f"{one.name} streams", one.model, stream=True, count=32, in_flight=16)
    yield Scenario("own part", "offline/echo", count=1000, in_flight=1)
    yield Scenario("own part, 64 in flight", "offline/echo", count=2000)
    yield Scenario("own part, deltas", "offline/echo", stream=True, count=10, in_flight=1, history=-1000)
    yield Scenario("1,000 messages", count=20, in_flight=1, history=1000)


def measure(one: Scenario, upstream: Upstream, folder: Path, functions: int) -> None:
    report = folder / "report.json"
    command = [LOAD, "pipe", PYTHON, "-I", str(HERE / "profile_worker.py"), str(report), "--stdio", "--max-in-flight", "1024"]
    worker = Peer(one.name, "", lambda *_: [*command, *one.flags])
    running = Running(peers.PEERS[0] if one.plain else worker, upstream)
    model = {"model": one.model} if one.model else {}

    def load(count: int) -> dict[str, Any]:
        done = running.load(stream=one.stream, count=count, in_flight=min(one.in_flight, count), **model)
        if done["failed"]:
            raise SystemExit(f"{one.name}: {done['failed']} chats failed: {str(done['error'])[:300]}")
        return done

    running.messages(_conversation(one))
    load(max(2, min(200, one.count // 2)))
    loads = [load(one.count) for _ in range(REPEATS)]
    figures = sorted(done["cpu_s"] / (done["chunks"] if one.stream else done["chats"]) * 1e6 for done in loads)
    unit = "delta" if one.stream else "chat"
    rate = statistics.median((done["chunks"] if one.stream else done["chats"]) / done["seconds"] for done in loads)
    print(
        f"{one.name:26} {statistics.median(figures):9.1f} us CPU a {unit} {[round(f, 1) for f in figures]}, {rate:,.0f}/s",
        flush=True,
    )
    if functions and not one.plain:
        _show(running, load, one, report, functions)
    running.close()


def _conversation(one: Scenario) -> list[dict[str, str]]:
    if one.history < 0:
        return [{"role": "user", "content": "word " * -one.history}]
    if one.model == "offline/echo":
        return [{"role": "user", "content": "hello"}]
    return messages(1024) if one.history == 1 else messages(200 * one.history, one.history)


def _show(running: Running, load: Any, one: Scenario, report: Path, functions: int) -> None:
    report.unlink(missing_ok=True)
    os.kill(running.pid, signal.SIGUSR1)
    done = load(one.count * 5)
    os.kill(running.pid, signal.SIGUSR2)
    while not report.exists():
        time.sleep(0.01)
    counts = json.loads(report.read_text())
    each = done["cpu_s"] / (done["chunks"] if one.stream else done["chats"]) * 1e6
    total = max(1, sum(counts["own"].values()))
    for title in ("whole", "own"):
        print(f"  {title}: us, share, function")
        for name, count in sorted(counts[title].items(), key=lambda row: -row[1])[:functions]:
            print(f"  {count / total * each:8.1f} {count / total:6.1%}  {name}")


@contextmanager
def _ready() -> Iterator[tuple[Path, Upstream]]:
    with tempfile.TemporaryDirectory(prefix="omni-bridge-profile-") as folder, Upstream() as upstream:
        yield Path(folder), upstream


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", action="append", default=[], metavar="NAME")
    parser.add_argument("--functions", type=int, default=0, metavar="N", help="the dearest N functions too")
    options = parser.parse_args(arguments)
    with _ready() as (folder, upstream):
        for one in scenarios(folder, upstream.base_url):
            if not options.only or one.name in options.only:
                measure(one, upstream, folder, options.functions)


if __name__ == "__main__":
    main()
