"""Whether memory and descriptors stay level over thousands of chats of every outcome.

    .venv-dev/bin/python -m benchmarks.soak                  6,000 chats, some two minutes
    .venv-dev/bin/python -m benchmarks.soak --rounds 200     as long as you like
    .venv-dev/bin/python -m benchmarks.soak --minutes 10 --engines 2 --engine-max-requests 500      engines that are replaced

Owns the mix of chats and the sampling between two rounds, when nothing is in flight. Refuses to judge but by one rule: after the
warm-up the last third must not stand higher than the second. tests/process/test_soak.py runs a short form of it.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.support.processes import is_zombie, processes, resources
from tests.support.request_ledger import Ledger
from tests.support.upstream import Upstream
from tests.support.worker import Worker, wait_until_loaded

HELLO: list[Any] = [{"role": "user", "content": "hello " * 20}]
WAVE = 50  # chats in flight at once: as many connections
KINDS: dict[str, dict[str, Any]] = {
    "plain": {"model": "openai/gpt-4o-mini"},
    "streamed": {"model": "openai/chunks-50", "stream": True},
    "tools": {"model": "openai/gpt-4o-mini", "stream": True, "tools": [{"type": "function", "function": {"name": "f"}}]},
    "failed": {"model": "openai/status-500"},
    "broken off": {"model": "openai/reset-after-2", "stream": True},
    "unreadable": {"model": "openai/garbage"},
    "timed out": {"model": "openai/hang", "deadlines": {"total_ms": 200}},
    "timed out in the stream": {"model": "openai/hang-after-2", "stream": True, "deadlines": {"total_ms": 200}},
    "cancelled": {"model": "openai/hang-after-headers"},
    "cancelled in the stream": {"model": "openai/endless", "stream": True},
}


@dataclass(frozen=True)
class Sample:
    chats: int
    memory_mib: float
    descriptors: int
    threads: int
    zombies: int
    processes: int


def soak(rounds: int, waves: int = 4, flags: tuple[str, ...] = (), minutes: float = 0) -> Iterator[tuple[Sample, Counter[str]]]:
    """A sample and the outcomes after each round of ``waves`` * WAVE chats: for so many rounds, or minutes."""
    end = time.monotonic() + minutes * 60
    with Upstream() as upstream:
        env = {"OPENAI_API_KEY": "sk-secret-123", "OPENAI_BASE_URL": upstream.base_url, "MALLOC_ARENA_MAX": "2"}  # as the launcher
        with Worker(*flags, env=env) as worker:
            worker.chat("openai/gpt-4o-mini")  # waits for LiteLLM: the deadlines of the others do not
            wait_until_loaded(worker)
            for done in itertools.count(1):
                if time.monotonic() > end if minutes else done > rounds:
                    break
                outcomes: Counter[str] = Counter()
                for _ in range(waves):
                    outcomes += _wave(worker, upstream)
                yield _sample(worker, done * waves * WAVE), outcomes


def _wave(worker: Worker, upstream: Upstream) -> Counter[str]:
    worker.received.clear()
    ledger = Ledger(worker)
    kinds = [list(KINDS)[number % len(KINDS)] for number in range(WAVE)]
    reached = upstream.counts["hang-after-headers"] + kinds.count("cancelled")
    ids = {ledger.owe(worker.request("chat", KINDS[kind] | {"messages": HELLO})): kind for kind in kinds}
    for id, kind in ids.items():
        if kind == "cancelled in the stream":
            worker.wait_for_delta(id)
    upstream.wait_until(lambda: upstream.counts["hang-after-headers"] >= reached, 30)
    for id, kind in ids.items():
        if kind.startswith("cancelled"):
            worker.notify("notifications/cancelled", {"requestId": id})
    return ledger.check()


def _sample(worker: Worker, chats: int) -> Sample:
    held = resources(worker)
    zombies = sum(is_zombie(pid) for pid in processes(worker))
    return Sample(chats, held.kib / 1024, held.descriptors, held.threads, zombies, held.processes)


def growth(samples: list[Sample]) -> tuple[float, float]:
    """MiB and descriptors by which the last third stands above the second; the first is the warm-up."""
    third = len(samples) // 3
    second, last = samples[third : 2 * third], samples[2 * third :]
    return (
        statistics.median(s.memory_mib for s in last) - statistics.median(s.memory_mib for s in second),
        statistics.median(s.descriptors for s in last) - statistics.median(s.descriptors for s in second),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30, help="of 200 chats")
    parser.add_argument("--minutes", type=float, default=0, help="instead of rounds")
    options, flags = parser.parse_known_args()
    samples = []
    print("chats   MiB  descriptors  threads  processes  zombies  outcomes")
    for sample, outcomes in soak(options.rounds, flags=tuple(flags), minutes=options.minutes):
        samples.append(sample)
        summary = ", ".join(f"{count} {kind}" for kind, count in sorted(outcomes.items()))
        shown = f"{sample.chats:5}  {sample.memory_mib:4.0f}  {sample.descriptors:11}  {sample.threads:7}"
        print(f"{shown}  {sample.processes:9}  {sample.zombies:7}  {summary}", flush=True)
    mib, descriptors = growth(samples)
    per_thousand = mib / max(1, samples[-1].chats // 3) * 1000
    print(
        f"last third against the second: {mib:+.1f} MiB ({per_thousand:+.2f} MiB a thousand chats), {descriptors:+.0f} descriptors"
    )
    return int(mib > 16 or descriptors > 0)


if __name__ == "__main__":
    sys.exit(main())
