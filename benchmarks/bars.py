"""What the worker promises of its speed, and whether a run's figures keep it.

Owns the bars. Each is a number from `measure.Figures`; a bar whose figure is missing is neither passed nor missed, and says so.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.measure import Figures
from benchmarks.peer import FULL, LANE, PLAIN, PORTKEY_NAME, PROXY_NAME, WORKER_NAME


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


def _median(name: str) -> Callable[[Figures], float | None]:
    return lambda figures: figures.median(WORKER_NAME, name)


def _start(figures: Figures) -> float | None:
    pairs = zip(figures.of[WORKER_NAME]["initialize_ms"], figures.of[PLAIN]["bare_start_ms"], strict=True)
    ratios = sorted(mine / bare for mine, bare in pairs if mine and bare)
    return ratios[len(ratios) // 2] if ratios else None


def _beyond_openai(format: str) -> Callable[[Figures], float | None]:
    """Processor time of a chat in a format, minus that of one in OpenAI's, each in its round."""

    def figure(figures: Figures) -> float | None:
        mine, openai = (figures.of[WORKER_NAME].get(f"cpu_us_a_chat_{name}", []) for name in (format, "openai"))
        differences = [each - base for each, base in zip(mine, openai, strict=False) if each and base]
        return statistics.median(differences) if differences else None

    return figure


def _format_streams(format: str) -> Callable[[Figures], float | None]:
    """Against Portkey's streams in OpenAI's format."""

    def figure(figures: Figures) -> float | None:
        mine, theirs = figures.median(WORKER_NAME, f"chunks_a_second_{format}"), figures.median(PORTKEY_NAME, "chunks_a_second_16")
        return mine / theirs if mine and theirs else None

    return figure


_X, _PROXY, _PORTKEY, _DIRECT = "x plain script", "x LiteLLM proxy", "x Portkey", "x omni-bridge"
_CHATS, _CHUNKS, _CPU = "chats_a_second_64", "chunks_a_second_16", "us of CPU"
BARS = (
    Bar("spawn to the `initialize` response", 2.5, 'x `python -c "import asyncio"`', False, _start),
    Bar("spawn to first chat finished", 0.45, _X, False, _ratio("first_chat_s")),
    Bar("one chat at a time, p50", 0.2, _X, False, _ratio("p50_ms_1")),
    Bar("16 in flight, p99", 0.50, _X, False, _ratio("p99_ms_16")),
    Bar("64 in flight, chats a second", 13, _X, True, _ratio(_CHATS)),
    Bar("64 in flight, chats a second", 8, _PROXY, True, _ratio(_CHATS, PROXY_NAME)),
    Bar("64 in flight, chats a second", 1, _PORTKEY, True, _ratio(_CHATS, PORTKEY_NAME)),
    Bar("config: 64 in flight, chats a second", 0.9, _DIRECT, True, _ratio(_CHATS, WORKER_NAME, LANE)),
    Bar("config with limits: 64 in flight, chats a second", 1.9, _X, True, _ratio(_CHATS, PLAIN, FULL)),
    Bar("16 streams, chunks a second", 2, _PORTKEY, True, _ratio(_CHUNKS, PORTKEY_NAME)),
    Bar("config: 16 streams, chunks a second", 0.85, _DIRECT, True, _ratio(_CHUNKS, WORKER_NAME, LANE)),
    Bar("config with limits: 16 streams, chunks a second", 1, _PORTKEY, True, _ratio(_CHUNKS, PORTKEY_NAME, FULL)),
    Bar("a chat with Anthropic, beyond OpenAI", 200, _CPU, False, _beyond_openai("anthropic")),
    Bar("a chat with Gemini, beyond OpenAI", 1200, _CPU, False, _beyond_openai("gemini")),
    Bar("a chat with Bedrock, beyond OpenAI", 3000, _CPU, False, _beyond_openai("bedrock")),
    Bar("Anthropic: 16 streams, chunks a second", 1, _PORTKEY, True, _format_streams("anthropic")),
    Bar("Gemini: 16 streams, chunks a second", 1, _PORTKEY, True, _format_streams("gemini")),
    Bar("Bedrock: 16 streams, chunks a second", 1, _PORTKEY, True, _format_streams("bedrock")),
    Bar("a chat of 1,000 messages of 200 bytes", 3500, _CPU, False, _median("cpu_us_history_1000")),
    Bar("the bridge's own part of a chat", 100, _CPU, False, _median("own_us_a_chat")),
    Bar("the bridge's own part of a delta", 3, _CPU, False, _median("own_us_a_delta")),
    Bar("the bridge's own part of a 5 MB message", 3, "x one parse and one dump", False, _median("own_5mb_ratio")),
    Bar("memory after one chat", 0.75, _X, False, _ratio("memory_first_mib")),
    Bar("memory after 1,000 chats", 1.0, _X, False, _ratio("memory_loaded_mib")),
    Bar("memory after 1,000 chats", 0.65, _PROXY, False, _ratio("memory_loaded_mib", PROXY_NAME)),
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
