"""What a cassette has, an exchange a row; and what differs between two runs.

Owns the rows of ``omni-bridge cassette show`` and the pairs of ``diff``. Refuses to know a terminal.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bridge_worker.cassettes.cassette import Cassette
from bridge_worker.cassettes.matching import differences

Entry = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """``position`` is from 1. ``formats`` are those of the recorded bytes."""

    position: int
    method: str
    model: str
    stream: bool
    outcome: str
    status: int | None
    deltas: int
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    ms: float
    formats: tuple[str, ...]
    hash: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Change:
    """One exchange of two runs. ``only`` is "A" or "B" where the other has none; ``members`` are paths with their two values."""

    a: int | None
    b: int | None
    method: str
    model: str
    members: tuple[tuple[str, Any, Any], ...] = ()

    @property
    def only(self) -> str | None:
        return "B" if self.a is None else "A" if self.b is None else None

    def as_json(self) -> dict[str, Any]:
        members = [{"member": name, "a": a, "b": b} for name, a, b in self.members]
        return {"a": self.a, "b": self.b, "method": self.method, "model": self.model, "members": members}


def rows(cassette: Cassette) -> Iterator[Row]:
    for position, entry in enumerate(cassette.entries(), 1):
        yield row_of(position, entry)


def row_of(position: int, entry: Entry) -> Row:
    wire, params = entry["wire"], entry["request"]["params"]
    result = wire.get("result") or {}
    usage = result.get("usage") or {}
    provider = entry.get("provider") or []
    return Row(
        position,
        entry["exchange"],
        str(params.get("model")),
        bool(params.get("stream")),
        "ok" if "result" in wire else wire["error"]["data"]["kind"],
        next((attempt["status"] for attempt in reversed(provider)), None),
        len(wire.get("deltas") or ()),
        usage.get("input_tokens", result.get("input_tokens")),
        usage.get("output_tokens"),
        result.get("cost_usd"),
        float(entry.get("ms") or 0.0),
        tuple(dict.fromkeys(attempt["format"] for attempt in provider)),
        entry["hash"],
    )


def compare(a: Cassette, b: Cassette) -> list[Change]:
    """The exchanges that differ, in the order of the runs. Same requests are paired; others by their position between these."""
    left, right = a.index.exchanges, b.index.exchanges
    hashes: list[list[str]] = [[hash for _, hash, _ in side] for side in (left, right)]
    found = []
    for _, i1, i2, j1, j2 in difflib.SequenceMatcher(None, hashes[0], hashes[1], autojunk=False).get_opcodes():
        for at in range(max(i2 - i1, j2 - j1)):
            one = (i1 + at + 1, a.entry(left[i1 + at][2])) if i1 + at < i2 else None
            other = (j1 + at + 1, b.entry(right[j1 + at][2])) if j1 + at < j2 else None
            change = _change(one, other)
            if change.only or change.members:
                found.append(change)
    return found


def _change(a: tuple[int, Entry] | None, b: tuple[int, Entry] | None) -> Change:
    known = a or b
    assert known is not None  # noqa: S101  # for mypy
    entry = known[1]
    about = (entry["exchange"], str(entry["request"]["params"].get("model")))
    if a is None or b is None:
        return Change(a and a[0], b and b[0], *about)
    return Change(a[0], b[0], *about, members=tuple(_members(a[1], b[1])))


def _members(a: Entry, b: Entry) -> Iterator[tuple[str, Any, Any]]:
    """The request, then what an agent sees of the outcome; not times, ids and the receipt."""
    for path in differences(a["request"], b["request"]):
        yield f"request.{path}", value_at(a["request"], path), value_at(b["request"], path)
    one, other = _outcome(a["wire"]), _outcome(b["wire"])
    for path in differences(one, other):
        yield path, value_at(one, path), value_at(other, path)


def _outcome(wire: Mapping[str, Any]) -> dict[str, Any]:
    if "error" in wire:
        error = wire["error"]
        data = {name: error["data"].get(name) for name in ("kind", "status", "retry_after_ms", "partial")}
        return {"error": data | {"message": error["message"]}}
    result = dict(wire["result"])
    calls = [{"function": call["function"]} for call in result.get("tool_calls") or ()]
    left_out = ("timing", "receipt", "id", "message", "tool_calls", "rate_limits", "embeddings")
    shown = {name: value for name, value in result.items() if name not in left_out}
    return shown | ({"tool_calls": calls} if calls else {}) | ({"vectors": result["embeddings"]} if "embeddings" in result else {})


def value_at(value: Any, path: str) -> Any:
    """The member at a path of `matching.differences`; None where it is not there."""
    for name in path.split("."):
        if isinstance(value, dict):
            value = value.get(name)
        elif isinstance(value, list):
            value = value[int(name)] if int(name) < len(value) else None
    return value
