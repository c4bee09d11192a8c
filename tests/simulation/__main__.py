"""Runs seeds, and reduces what fails to the actions that it needs.

    bin/simulate --seeds 1000000 --minutes 40       from a random first seed
    bin/simulate --seed 4711                        one, with its diagram
    bin/simulate --planted                          the planted faults, each with the seeds that it takes to find it
    bin/simulate --syscalls                         a worker under strace, each system call failing once

Owns the command. Refuses to know what a run is.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.simulation import machine, mutants, planted, schedules, simulate, syscalls
from tests.simulation.diagram import diagram
from tests.simulation.schedules import Plan
from tests.simulation.simulate import Outcome

CORPUS = Path(__file__).with_name("corpus.txt")
_MOST_FAILURES = 5


def corpus() -> list[Plan]:
    """The plans that have ever failed, reduced; a comment before each names the fault."""
    rows = CORPUS.read_text(encoding="utf-8").splitlines()
    return [schedules.from_literal(row) for row in rows if row and not row.startswith("#")]


def failures(seeds: Iterable[int], seconds: float, progress: bool = False) -> Iterator[tuple[int, Outcome | None]]:
    """(number of runs so far, a failed outcome or None at the end). Call it within `machine.virtual`."""
    began = reported_at = time.perf_counter()
    done = 0
    for seed in seeds:
        outcome = simulate.run(schedules.plan(seed))
        done += 1
        if outcome.problems:
            yield done, outcome
        simulate.collect_garbage(done)
        now = time.perf_counter()
        if progress and now - reported_at > 60:
            reported_at = now
            print(f"{done:,} schedules in {now - began:.0f} s, none but those above failed", flush=True)
        if now - began > seconds:
            break
    yield done, None


def shrunk(outcome: Outcome) -> Outcome:
    """The same fault with as few actions as can be found by leaving out one after the other."""
    names = {name for name, _ in outcome.problems}
    best, position = outcome, len(outcome.plan.actions) - 1
    while position >= 0:
        smaller = simulate.run(best.plan.without([position]))
        if names & {name for name, _ in smaller.problems}:
            best = smaller
        position -= 1
    return best


def report(outcome: Outcome) -> str:
    plan = (small := shrunk(outcome)).plan
    head = f"seed {plan.seed} fails; {plan.engines} engines, load after {plan.load_seconds} s; the actions needed:"
    rows = [f"  {when:8.4f} s  {kind}  {'' if argument is None else argument}" for when, kind, argument in plan.actions]
    return "\n".join([head, *rows, "for corpus.txt:", plan.literal(), diagram(small), ""])


def main() -> int:
    parser = argparse.ArgumentParser(prog="bin/simulate", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10_000, metavar="N")
    parser.add_argument("--minutes", type=float, default=60.0, metavar="M")
    parser.add_argument("--first", type=int, metavar="SEED", help="the first seed; the time, unless given")
    parser.add_argument("--seed", type=int, help="this one only, with its diagram")
    parser.add_argument("--planted", action="store_true", help="how many seeds find each planted fault")
    parser.add_argument("--syscalls", action="store_true", help="system calls that fail, by strace")
    parser.add_argument(
        "--stride", type=float, default=1.15, metavar="X", help="with --syscalls: 1 takes each call, 2 every doubled"
    )
    parser.add_argument("--call", action="append", default=[], choices=syscalls.FAILURES, help="with --syscalls: of this call only")
    parser.add_argument(
        "--engines", action="append", type=int, default=[], help="with --syscalls: 0 without an engine process, 1 with one"
    )
    parser.add_argument("--mutants", action="store_true", help="changes of the core that no check notices, for M minutes")
    parser.add_argument("--module", action="append", default=[], help="with --mutants: of modules with this in their name only")
    options = parser.parse_args()
    if options.planted:
        return planted.main(options.seeds)
    if options.mutants:
        return mutants.main(options.minutes, options.module)
    if options.syscalls:
        return syscalls.main(options.minutes, options.stride, options.engines or (0, 1), options.call or tuple(syscalls.FAILURES))
    if options.seed is not None:
        with machine.virtual():
            outcome = simulate.run(schedules.plan(options.seed))
            print(report(outcome) if outcome.problems else diagram(outcome))
        return bool(outcome.problems)
    first = int(time.time()) * 1000 if options.first is None else options.first
    return _run(itertools.islice(itertools.count(first), options.seeds), options.minutes * 60, first)


def _run(seeds: Iterable[int], seconds: float, first: int) -> int:
    failed, done, began = 0, 0, time.perf_counter()
    with machine.virtual():
        for count, outcome in failures(seeds, seconds, progress=True):
            done = count
            if outcome is not None:
                failed += 1
                print(report(outcome), flush=True)
            if failed >= _MOST_FAILURES:
                break
    took = time.perf_counter() - began
    print(f"{done:,} schedules from seed {first} in {took:.0f} s ({done / took:.0f} a second): {failed} failed")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
