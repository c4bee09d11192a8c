"""Scenarios that measure figures, run in rounds, and each figure against its bar.

Owns the command line, the rounds and the printed lines. Refuses to know what a scenario measures.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, TypeVar

from benchmarks import setting_up

Context = TypeVar("Context")


class Bar(NamedTuple):
    what: str
    limit: float
    unit: str
    at_least: bool = False
    worst: bool = False  # of the rounds, not their median

    def line(self, values: Sequence[float]) -> str:
        value = (min if self.at_least else max)(values) if self.worst else statistics.median(values)
        holds = value >= self.limit if self.at_least else value <= self.limit
        sign = ">=" if self.at_least else "<="
        spread = f"  [{min(values):.3g} .. {max(values):.3g}]" if len(values) > 1 else ""
        return f"{'holds ' if holds else 'missed'}  {self.what:66} {value:8.3g} {self.unit:4}  bar {sign} {self.limit:g}{spread}"


def run(
    arguments: Sequence[str] | None,
    description: str | None,
    scenarios: Mapping[str, Callable[[Context], dict[str, float]]],
    bars: Sequence[Bar],
    prepared: Callable[[float], AbstractContextManager[Context]],
) -> int:
    """Runs each of ``scenarios``, by name, in each round, with what ``prepared`` makes for it, given the scale; then prints
    ``bars``. 0 when it has measured, whatever the bars say."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="of the amount of work")
    parser.add_argument("--only", action="append", default=[], choices=list(scenarios))
    options = parser.parse_args(arguments)
    setting_up.needed()
    values: dict[str, list[float]] = {}
    for number in range(options.rounds):
        for name in options.only or scenarios:
            began = time.monotonic()
            with prepared(options.scale) as context:
                for what, value in scenarios[name](context).items():
                    values.setdefault(what, []).append(value)
            print(f"round {number + 1}: {name}, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    for bar in bars:
        if bar.what in values:
            print(bar.line(values[bar.what]))
    return 0
