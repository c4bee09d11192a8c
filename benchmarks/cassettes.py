"""What a recording costs, how fast a replay is, and how a long cassette opens: each figure against its bar.

    .venv-dev/bin/python -m benchmarks.cassettes                     some two minutes, on a machine that does nothing else
    .venv-dev/bin/python -m benchmarks.cassettes --only replay       one of them
    .venv-dev/bin/python -m benchmarks.cassettes --rounds 1 --scale 0.1    quickly: to see that it works

Owns the scenarios and the bars. What is printed is the median of the rounds. Of each rate there is one of the clock and one of the
processor time of the processes that serve, which varies less on a busy machine. Needs what `run.py` has set up. Exit code 0 when it
has measured, whatever the bars say.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import scenarios
from benchmarks.measure import messages
from benchmarks.peer import Peer, Running, Upstream, processor_seconds
from benchmarks.scenarios import Bar
from benchmarks.setting_up import LOAD, PYTHON, ROOT, WORKER
from bridge_worker.system.child_processes import OUTLIVES

IN_FLIGHT = 64
TURNS = 6  # of a load without and one with a recording
MIB = 1024 * 1024


class Context(NamedTuple):
    """``scale`` multiplies the number of chats and the length of the long cassette."""

    upstream: Upstream
    folder: Path
    scale: float

    def count(self, usual: int) -> int:
        return max(IN_FLIGHT, int(usual * self.scale))


class Load(NamedTuple):
    """``cpu_s`` is of the processes that serve, not of the one that writes the cassette."""

    chats: int
    chunks: int
    seconds: float
    cpu_s: float


@contextmanager
def running(context: Context, *flags: str) -> Iterator[Running]:
    one = Running(Peer(" ".join(flags) or "plain", "", lambda *_: [LOAD, "pipe", *WORKER, *flags]), context.upstream)
    try:
        one.messages(messages(1024))
        yield one
    finally:
        with suppress(BrokenPipeError):
            one.close()


def load(one: Running, count: int, *, stream: bool = False) -> Load:
    before = _serving_cpu(one)
    done: dict[str, Any] = one.load(count=count, in_flight=IN_FLIGHT, stream=stream)
    if done["failed"]:
        raise SystemExit(f"{done['failed']} chats failed: {str(done['error'])[:300]}")
    return Load(done["chats"], done["chunks"], done["seconds"], _serving_cpu(one) - before)


def _serving_cpu(one: Running) -> float:
    pids = [pid for pid in one.pids() if OUTLIVES.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return sum(map(processor_seconds, pids))


def recording(context: Context) -> dict[str, float]:
    """The two workers take turns."""
    with running(context) as without, running(context, "--record", str(context.folder / "cost.cassette")) as with_it:
        for one in (without, with_it):
            load(one, context.count(500))
        pairs = [(load(without, context.count(1500)), load(with_it, context.count(1500))) for _ in range(TURNS)]
    rates = [(b.chats / b.seconds) / (a.chats / a.seconds) for a, b in pairs]
    costs = [(b.cpu_s / b.chats) / (a.cpu_s / a.chats) for a, b in pairs]
    return {
        "recording against none, 64 in flight: chats a second": statistics.median(rates),
        "recording against none, 64 in flight: CPU of the serving processes a chat": statistics.median(costs),
    }


def replay(context: Context) -> dict[str, float]:
    file = str(context.folder / "replayed.cassette")
    with running(context, "--record", file) as one:
        load(one, IN_FLIGHT)
        load(one, IN_FLIGHT, stream=True)
    with running(context, "--replay", file) as one:
        load(one, context.count(1000))
        load(one, IN_FLIGHT, stream=True)
        chats = load(one, context.count(10_000))
        streams = load(one, context.count(1000), stream=True)
    return {
        "replay, 64 in flight: chats a second": chats.chats / chats.seconds,
        "replay, 64 in flight: chats a second of CPU": chats.chats / chats.cpu_s,
        "replay, 64 in flight: chunks a second": streams.chunks / streams.seconds,
        "replay, 64 in flight: chunks a second of CPU": streams.chunks / streams.cpu_s,
    }


_OPENING = """
import resource, sys, time
sys.path.insert(0, sys.argv[2])
from bridge_worker.cassettes.cassette import Cassette
from bridge_worker.cassettes.matching import Matching
from bridge_worker.cassettes.player import Player
def kib(): return int(next(row for row in open('/proc/self/status') if row.startswith('RssAnon')).split()[1])
before, began, cpu = kib(), time.perf_counter(), time.process_time()
player = Player(Cassette(sys.argv[1]), Matching(), str)
print(time.perf_counter() - began, time.process_time() - cpu, (kib() - before) / 1024)
"""


def opening(context: Context) -> dict[str, float]:
    """A cassette of 100 MB, of the chats that `replay` has."""
    short, long = context.folder / "short.cassette", context.folder / "long.cassette"
    with running(context, "--record", str(short)) as one:
        load(one, IN_FLIGHT)
    header, *lines = short.read_bytes().splitlines(keepends=True)
    block = b"".join(line for line in lines if line.startswith(b'{"exchange"'))
    with long.open("wb") as file:
        file.write(header)
        for _ in range(max(1, int(100 * 1e6 * context.scale / len(block)))):
            file.write(block)
    command = [PYTHON, "-c", _OPENING, str(long), str(ROOT)]
    seconds, cpu, mib = map(float, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    return {
        "opening a cassette of 100 MB": seconds,
        "opening a cassette of 100 MB: CPU": cpu,
        "opening a cassette of 100 MB: memory of the process beyond that before": mib,
    }


BARS = (
    Bar("recording against none, 64 in flight: chats a second", 0.95, "x", at_least=True),
    Bar("recording against none, 64 in flight: CPU of the serving processes a chat", 1.05, "x"),
    Bar("replay, 64 in flight: chats a second", 5_000, "/s", at_least=True),
    Bar("replay, 64 in flight: chats a second of CPU", 5_000, "/s", at_least=True),
    Bar("replay, 64 in flight: chunks a second", 100_000, "/s", at_least=True),
    Bar("replay, 64 in flight: chunks a second of CPU", 100_000, "/s", at_least=True),
    Bar("opening a cassette of 100 MB", 1.0, "s"),
    Bar("opening a cassette of 100 MB: CPU", 1.0, "s"),
    Bar("opening a cassette of 100 MB: memory of the process beyond that before", 20, "MiB"),
)
FIGURES: dict[str, Callable[[Context], dict[str, float]]] = {"recording": recording, "replay": replay, "opening": opening}


@contextmanager
def _prepared(scale: float) -> Iterator[Context]:
    with Upstream() as upstream, tempfile.TemporaryDirectory(prefix="omni-bridge-bench-") as folder:
        yield Context(upstream, Path(folder), scale)


def main(arguments: Sequence[str] | None = None) -> int:
    return scenarios.run(arguments, __doc__, FIGURES, BARS, _prepared)


if __name__ == "__main__":
    sys.exit(main())
