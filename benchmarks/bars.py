"""What the worker promises of its speed, and whether a run's figures keep it.

Owns the bars. Each is a number from `measure.Figures`; a bar whose figure is missing is neither passed nor missed, and says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.measure import Figures
from benchmarks.peer import ORDINARY, PLAIN, PROXY_NAME, WORKER_NAME


@dataclass(frozen=True)
class Bar:
    what: str
    limit: float
    unit: str
    at_least: bool
    figure: Callable[[Figures], float | None]

    def text(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.limit:g} {self.unit}"

    def holds(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit


def _ratio(name: str, other: str = PLAIN, of: str = WORKER_NAME) -> Callable[[Figures], float | None]:
    return lambda figures: figures.ratio(name, of, other)


def _ordinary(name: str) -> Callable[[Figures], float | None]:
    """Of a worker without a choice of engines the ordinary path is all there is."""

    def figure(figures: Figures) -> float | None:
        return figures.ratio(name, WORKER_NAME if ORDINARY in figures.absent else ORDINARY, PLAIN)

    return figure


def _median(name: str) -> Callable[[Figures], float | None]:
    return lambda figures: figures.median(WORKER_NAME, name)


def _start(figures: Figures) -> float | None:
    pairs = zip(figures.of[WORKER_NAME]["initialize_ms"], figures.of[PLAIN]["bare_start_ms"], strict=True)
    ratios = sorted(mine / bare for mine, bare in pairs if mine and bare)
    return ratios[len(ratios) // 2] if ratios else None


_X = "x plain script"
BARS = (
    Bar("spawn to the `initialize` response", 2.5, 'x `python -c "import asyncio"`', False, _start),
    Bar("spawn to first chat finished", 0.65, _X, False, _ratio("first_chat_s")),
    Bar("one chat at a time, p50", 0.40, _X, False, _ratio("p50_ms_1")),
    Bar("16 in flight, p99", 0.50, _X, False, _ratio("p99_ms_16")),
    Bar("64 in flight, chats a second", 3, _X, True, _ratio("chats_a_second_64")),
    Bar("64 in flight, chats a second", 8, "x LiteLLM proxy", True, _ratio("chats_a_second_64", PROXY_NAME)),
    Bar("16 streams, chunks a second", 4, _X, True, _ratio("chunks_a_second_16")),
    Bar("ordinary path: one at a time, p50", 0.80, _X, False, _ordinary("p50_ms_1")),
    Bar("ordinary path: 64 in flight, chats a second", 1.3, _X, True, _ordinary("chats_a_second_64")),
    Bar("ordinary path: 16 streams, chunks a second", 1.8, _X, True, _ordinary("chunks_a_second_16")),
    Bar("the bridge's own part of a chat", 250, "us of CPU", False, _median("own_us_a_chat")),
    Bar("the bridge's own part of a delta", 25, "us of CPU", False, _median("own_us_a_delta")),
    Bar("the bridge's own part of a 5 MB message", 3, "x one parse and one dump", False, _median("own_5mb_ratio")),
    Bar("memory after 1,000 chats", 1.10, _X, False, _ratio("memory_loaded_mib")),
    Bar("memory after 1,000 chats", 0.65, "x LiteLLM proxy", False, _ratio("memory_loaded_mib", PROXY_NAME)),
    Bar("stdin closed to process gone", 200, "ms", False, _median("gone_ms")),
)


def judged(figures: Figures) -> list[dict[str, object]]:
    """Of each bar what was measured, and whether it holds; null where there is no figure."""
    rows: list[dict[str, object]] = []
    for bar in BARS:
        value = bar.figure(figures)
        holds = bar.holds(value) if value is not None else None
        rows.append({"what": bar.what, "bar": bar.text(), "measured": value, "holds": holds})
    return rows
