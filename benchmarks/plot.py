"""The picture of a run, as SVG: a panel a figure, a bar a peer.

Owns the drawing. A panel's scale is made by the peers that have LiteLLM in them; what is far beyond it, a raw client say, is
cut and marked, for else the others could not be distinguished.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

# figure, title, whether more is better
PANELS = (
    ("first_chat_s", "spawn to first chat finished, s", False),
    ("p50_ms_1", "one chat at a time, p50, ms", False),
    ("p99_ms_16", "16 in flight, p99, ms", False),
    ("chats_a_second_64", "64 in flight, chats a second", True),
    ("chunks_a_second_16", "16 streams, chunks a second", True),
    ("cpu_us_a_chunk_16", "CPU a streamed chunk, us", False),
    ("cancel_ms", "cancel to upstream closed, ms", False),
    ("memory_loaded_mib", "memory after 1,000 chats, MiB", False),
)
COLUMNS, WIDTH, LABELS, BAR, GAP, HEAD = 2, 560, 190, 18, 6, 34
OURS, THEIRS, FLOOR = "#c2410c", "#64748b", "#cbd5e1"
_FLOORS = ("genai", "aiohttp", "upstream")  # no LiteLLM in them: what is physically possible
_LONGEST = WIDTH - LABELS - 90


def svg(results: Mapping[str, Any]) -> str:
    peers = {name: peer["medians"] for name, peer in results["peers"].items() if peer["rounds"]}
    height = HEAD + len(peers) * (BAR + GAP) + 24
    rows = -(-len(PANELS) // COLUMNS)
    wide, total = COLUMNS * WIDTH, rows * height + 50
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide}" height="{total}" font-size="13" font-family="sans-serif">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="16" y="28" font-size="17" font-weight="bold">omni-bridge beside its peers</text>'
        f'<text x="290" y="28" fill="#475569">{escape(results["machine"])}, {results["rounds"]} rounds, {results["date"]}</text>',
    ]
    for at, (figure, title, more) in enumerate(PANELS):
        x, y = at % COLUMNS * WIDTH, 46 + at // COLUMNS * height
        parts += [f'<g transform="translate({x} {y})">', *_panel(figure, title, more, peers), "</g>"]
    return "\n".join([*parts, "</svg>", ""])


def _panel(figure: str, title: str, more: bool, peers: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    better = "more is better" if more else "less is better"
    yield f'<text x="16" y="20" font-weight="bold">{title}</text>'
    yield f'<text x="{WIDTH - 20}" y="20" text-anchor="end" fill="#94a3b8" font-size="11">{better}</text>'
    scale = max((medians.get(figure) or 0 for name, medians in peers.items() if name not in _FLOORS), default=0) or 1
    for at, (name, medians) in enumerate(peers.items()):
        y = HEAD + at * (BAR + GAP)
        yield f'<text x="{LABELS - 8}" y="{y + 13}" text-anchor="end">{escape(name)}</text>'
        yield from _bar(medians.get(figure), scale, y, OURS if name.startswith("omni") else FLOOR if name in _FLOORS else THEIRS)


def _bar(value: float | None, scale: float, y: int, colour: str) -> Iterator[str]:
    if value is None:
        yield f'<text x="{LABELS}" y="{y + 13}" fill="#94a3b8">not measured</text>'
        return
    length = max(1.0, min(1.0, value / scale) * _LONGEST)
    yield f'<rect x="{LABELS}" y="{y}" width="{length:.0f}" height="{BAR}" rx="2" fill="{colour}"/>'
    if value > scale:
        yield f'<text x="{LABELS + length - 6:.0f}" y="{y + 14}" text-anchor="end" fill="#475569">»</text>'
    label = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    yield f'<text x="{LABELS + length + 6:.0f}" y="{y + 13}">{label}</text>'
