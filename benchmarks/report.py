"""How the results of a run are shown: tables for a terminal, the part of docs/performance.md between its markers.

Owns words and layout. Works from the JSON of a run, not from the run, so that what is shown can be made again. Refuses to judge.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

Results = dict[str, Any]
# name, what it says, unit. One peer is a column of these.
FIGURES = (
    ("first_chat_s", "spawn to first chat", "s"),
    ("added_p50_ms_1", "added a chat, 1 in flight, p50", "ms"),
    ("added_p99_ms_1", "... p99", "ms"),
    ("added_p50_ms_16", "added a chat, 16 in flight, p50", "ms"),
    ("added_p99_ms_16", "... p99", "ms"),
    ("added_p50_ms_64", "added a chat, 64 in flight, p50", "ms"),
    ("added_p99_ms_64", "... p99", "ms"),
    ("chats_a_second_1", "chats a second, 1 in flight", "/s"),
    ("chats_a_second_64", "... 64 in flight", "/s"),
    ("cpu_us_a_chat_1", "CPU a chat, 1 in flight", "us"),
    ("cpu_us_a_chat_64", "... 64 in flight", "us"),
    ("added_first_token_ms_1", "added to the first token", "ms"),
    ("chunks_a_second_1", "chunks a second, 1 stream", "/s"),
    ("chunks_a_second_16", "... 16 streams", "/s"),
    ("cpu_us_a_chunk_1", "CPU a chunk, 1 stream", "us"),
    ("cpu_us_a_chunk_16", "... 16 streams", "us"),
    ("cpu_us_a_chat_openai", "CPU a chat, OpenAI", "us"),
    ("cpu_us_a_chat_anthropic", "... Anthropic", "us"),
    ("cpu_us_a_chat_gemini", "... Gemini", "us"),
    ("cpu_us_a_chat_bedrock", "... Bedrock", "us"),
    ("cpu_us_a_chunk_openai", "CPU a chunk, OpenAI", "us"),
    ("cpu_us_a_chunk_anthropic", "... Anthropic", "us"),
    ("cpu_us_a_chunk_gemini", "... Gemini", "us"),
    ("cpu_us_a_chunk_bedrock", "... Bedrock", "us"),
    ("own_us_a_chat", "the bridge's own part of a chat", "us"),
    ("own_us_a_delta", "... of a delta", "us"),
    ("cancel_ms", "cancel to upstream closed", "ms"),
    ("memory_first_mib", "memory after one chat", "MiB"),
    ("memory_idle_mib", "memory, idle", "MiB"),
    ("memory_loaded_mib", "memory after 1,000 chats", "MiB"),
    ("p50_ms_1kb", "a chat of 1 KB", "ms"),
    ("p50_ms_100kb", "... 100 KB", "ms"),
    ("p50_ms_5mb", "... 5 MB", "ms"),
    ("p50_ms_history_10", "a chat of 10 messages", "ms"),
    ("p50_ms_history_100", "... 100", "ms"),
    ("p50_ms_history_1000", "... 1,000", "ms"),
    ("cpu_us_history_10", "CPU a chat of 10 messages", "us"),
    ("cpu_us_history_100", "... 100", "us"),
    ("cpu_us_history_1000", "... 1,000", "us"),
)
_ON_THE_PAGE = (
    *("first_chat_s", "p50_ms_1", "chats_a_second_64", "cpu_us_a_chat_64", "chunks_a_second_16", "cpu_us_a_chunk_16"),
    *("cancel_ms", "memory_loaded_mib"),
)
_PAGE_HEADS = (
    *("", "first chat, s", "a chat, ms", "chats/s, 64 at once", "CPU us a chat", "chunks/s, 16 streams", "CPU us a chunk"),
    *("cancel to closed, ms", "MiB"),
)
_PART = re.compile(r"(<!-- benchmarks -->\n)(.*?)(<!-- end of benchmarks -->)", re.DOTALL)


def terminal(results: Results) -> str:
    return "\n".join([*_head(results), "", *_figures(results), "", *_bars(results)])


def write_page(results: Results, page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    new, count = _PART.subn(lambda part: f"{part[1]}{markdown(results)}\n{part[3]}", text)
    if not count:
        raise SystemExit(f"{page.name} has no part between <!-- benchmarks --> and <!-- end of benchmarks -->")
    page.write_text(new, encoding="utf-8")


def markdown(results: Results) -> str:
    peers = [(name, peer) for name, peer in results["peers"].items() if peer["rounds"]]
    rows = [[name, *(_number(peer["medians"].get(figure)) for figure in _ON_THE_PAGE)] for name, peer in peers]
    bars = [[bar["what"], bar["bar"], _number(bar["measured"]), _verdict(bar)] for bar in results["bars"]]
    heading = f"{results['date']}, {results['machine']}, medians of {results['rounds']} rounds."
    return "\n".join([heading, "", *_markdown(_PAGE_HEADS, rows), "", *_markdown(("", "bar", "measured", ""), bars)])


def _head(results: Results) -> Iterator[str]:
    yield f"{results['date']}  {results['machine']}  {results['rounds']} rounds, {results['seconds']:.0f} s"
    yield f"the upstream alone: {results['upstream_a_second']:,.0f} requests a second"
    for name, peer in results["peers"].items():
        if not peer["absent"] and not peer["rounds"]:
            continue
        yield f"{name}: {peer['about']}" + (f". ABSENT: {peer['absent']}" if peer["absent"] else "")
        if peer["failed"]:
            yield f"  FAILED: {peer['failed']}"


def _figures(results: Results) -> Iterator[str]:
    peers = {name: peer["medians"] for name, peer in results["peers"].items() if peer["rounds"]}
    rows = [
        [f"{what}, {unit}", *(_number(medians.get(name)) for medians in peers.values())]
        for name, what, unit in FIGURES
        if any(name in medians for medians in peers.values())
    ]
    return _aligned([["", *peers], *rows])


def _bars(results: Results) -> Iterator[str]:
    rows = [[bar["what"], bar["bar"], _number(bar["measured"]), _verdict(bar)] for bar in results["bars"]]
    return _aligned([["bar", "", "measured", ""], *rows], text_columns=2)


def _verdict(bar: Results) -> str:
    return {True: "pass", False: "MISS", None: "not measured"}[bar["holds"]]


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _aligned(rows: Sequence[Sequence[str]], text_columns: int = 1) -> Iterator[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (
            cell.ljust(width) if at < text_columns else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join(cells).rstrip()


def _markdown(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    heads = list(heads)
    yield f"| {' | '.join(heads)} |"
    yield f"| --- |{' ---: |' * (len(heads) - 1)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
