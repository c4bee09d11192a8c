"""Plays recorded responses through today's decoders and compares what comes out with what was recorded.

Owns the comparison: this is the test of an upgrade. Refuses to call a provider: an exchange without bytes is not verified. LiteLLM,
which decodes embeddings and rankings, is handed in.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bridge_worker.cassettes import playback
from bridge_worker.cassettes.canonical import canonical, hash_of
from bridge_worker.cassettes.cassette import Cassette
from bridge_worker.cassettes.entry import raw
from bridge_worker.cassettes.matching import differences
from bridge_worker.cassettes.replay import vector_of
from bridge_worker.cassettes.summary import value_at
from bridge_worker.core.accumulator import WireDelta
from bridge_worker.core.chat_runner import run_chat
from bridge_worker.core.deltas import Delta
from bridge_worker.core.exchange import READ_BY_LITELLM
from bridge_worker.core.ports import ChatRequest, Embeddings, Facts, Ranking
from bridge_worker.core.receipt import Receipt
from bridge_worker.errors import BridgeError
from bridge_worker.schema.chat_request import Deadlines

Entry = Mapping[str, Any]
_SECONDS = 60
# What a run measures, and what the method adds to the response of the model.
_NOT_COMPARED = ("timing", "receipt", "problems", "repaired", "cost_usd", "cost_source", "price_map_date", "rate_limits")
_OF_AN_ERROR = ("kind", "status", "partial")


@dataclass(frozen=True, slots=True)
class Verdict:
    """``outcome`` is "same", "differs", "no bytes" or "not decoded", for what nothing decodes here. ``members``: the paths that
    differ, with the recorded and today's value."""

    position: int
    outcome: str
    members: tuple[tuple[str, Any, Any], ...] = ()


# Gets the method, its canonical params, and a recorded response with its body. None: it can't decode it. Raises BridgeError.
Read = Callable[[str, Entry, Entry, bytes], Awaitable[Embeddings | Ranking | None]]


def verify(cassette: Cassette, read: Read | None = None) -> Iterator[Verdict]:
    for position, entry in enumerate(cassette.entries(), 1):
        yield verdict_of(position, entry, read)


def is_read_by_litellm(entry: Entry) -> bool:
    return bool(entry.get("provider")) and entry["provider"][-1]["format"] == READ_BY_LITELLM


def verdict_of(position: int, entry: Entry, read: Read | None = None) -> Verdict:
    if hash_of(canonical(entry["request"])) != entry["hash"]:
        return Verdict(position, "differs", (("hash", entry["hash"], hash_of(canonical(entry["request"]))),))
    if not entry.get("provider"):
        return Verdict(position, "no bytes")
    if is_read_by_litellm(entry):
        compared = None if read is None else asyncio.run(_read_again(entry, read))
        if compared is None:
            return Verdict(position, "not decoded")
        recorded, played = compared
    else:
        recorded, played = _recorded(entry), asyncio.run(_play(entry))
    if (recorded.get("error") or {}).get("kind") in ("cancelled", "timeout"):  # the client's decision: only the deltas are known
        recorded, played = {"deltas": recorded["deltas"]}, {"deltas": played["deltas"]}
    paths = differences(recorded, played)
    members = tuple((path, value_at(recorded, path), value_at(played, path)) for path in paths)
    return Verdict(position, "differs" if paths else "same", members)


async def _read_again(entry: Entry, read: Read) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """(what was recorded, what LiteLLM makes of the bytes today)"""
    method, wire, last = entry["exchange"], entry["wire"], entry["provider"][-1]
    error = wire["error"]["data"] if "error" in wire else None
    is_clients = error is not None and error["kind"] in ("cancelled", "timeout") and last["end"] != "cut"
    if method not in ("embed", "rerank") or last["end"] == "left" or is_clients:
        return None
    params = entry["request"]["params"]
    try:
        found = await read(method, params, last, raw(last["body"]))
    except BridgeError as raised:
        played: dict[str, Any] = {"error": {"kind": raised.kind, "status": raised.status}}
    else:
        if found is None:
            return None
        played = _of_vectors(found) if isinstance(found, Embeddings) else _of_scores(found, params.get("top_n"))
    if error is not None:
        return {"error": {"kind": error["kind"], "status": error["status"]}}, played
    result = wire["result"]
    shown: dict[str, Any] = {"usage": result["usage"]}
    if method == "rerank":
        return shown | {"results": [[row["index"], row["score"]] for row in result["results"]]}, played
    if "embeddings" in played and any(isinstance(vector, str) for vector in result["embeddings"]):
        played["embeddings"] = [list(_in_four_bytes(vector)) for vector in played["embeddings"]]
    return shown | {"embeddings": [vector_of(vector) for vector in result["embeddings"]]}, played


def _of_vectors(found: Embeddings) -> dict[str, Any]:
    return {"usage": found.usage and found.usage.model_dump(), "embeddings": found.vectors}


def _of_scores(found: Ranking, top_n: int | None) -> dict[str, Any]:
    return {"usage": found.usage and found.usage.model_dump(), "results": [list(scored) for scored in found.best(top_n)]}


def _in_four_bytes(vector: list[float]) -> tuple[float, ...]:
    """As base64 has them."""
    return struct.unpack(f"<{len(vector)}f", struct.pack(f"<{len(vector)}f", *vector))


class _Player:
    """A `ChatModel` that plays one exchange, and never waits."""

    def __init__(self, entry: Entry) -> None:
        error = entry["wire"].get("error")
        if error is not None and error["data"]["kind"] == "cancelled":
            ended = {**error, "data": {**error["data"], "kind": "timeout"}}
            entry = {**entry, "wire": {**entry["wire"], "error": ended}}
        self._entry = entry

    def chat(self, request: ChatRequest) -> AsyncGenerator[list[Delta] | Facts, None]:
        return playback.play(self._entry, request, in_real_time=False)


async def _play(entry: Entry) -> dict[str, Any]:
    params = entry["request"]["params"]
    options = {name: value for name, value in params.items() if name not in ("model", "messages", "stream")}
    request = ChatRequest(
        model=params["model"],
        messages=params["messages"],
        options=options,
        stream=bool(params.get("stream")),
        deadlines=Deadlines(total_ms=_SECONDS * 1000),
        received=time.monotonic(),
        receipt=Receipt(requested_model=params["model"]),
        keeps_arguments="result" in entry["wire"],  # the method decides what arguments that are not JSON mean
    )
    sent: list[WireDelta] = []

    async def find(_: str) -> _Player:
        return _Player(entry)

    async def emit(deltas: list[WireDelta]) -> None:
        sent.extend(deltas)

    try:
        result = await run_chat(request, find, emit if request.stream else None)
    except BridgeError as error:
        return {"deltas": sent, "error": _error(error.data())}
    return {"deltas": sent, "result": _result(result)}


def _recorded(entry: Entry) -> dict[str, Any]:
    wire = entry["wire"]
    deltas = [delta for _, delta in wire.get("deltas") or ()]
    if "error" in wire:
        return {"deltas": deltas, "error": _error(wire["error"]["data"])}
    return {"deltas": deltas, "result": _result(wire["result"])}


def _result(result: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in result.items() if name not in _NOT_COMPARED}


def _error(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: data.get(name) for name in _OF_AN_ERROR}
