"""Backends that a cassette serves: chats, embeddings, rankings and token counts come from recorded exchanges.

Owns what happens to a request that was not recorded: an error, or the provider's response. Refuses to know how an exchange is found
(`player`) and played (`playback`). Never imports LiteLLM.
"""

from __future__ import annotations

import asyncio
import base64
import struct
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from bridge_worker.cassettes import canonical, playback
from bridge_worker.cassettes.player import Player
from bridge_worker.core.deltas import Delta
from bridge_worker.core.ports import (
    Backends,
    ChatModel,
    ChatRequest,
    Cost,
    Embeddings,
    EmbedRequest,
    Expense,
    Facts,
    ModelServices,
    Ranking,
    RerankRequest,
)
from bridge_worker.core.receipt import Receipt
from bridge_worker.errors import BridgeError
from bridge_worker.schema.chat_result import Usage
from bridge_worker.schema.models import ModelInfo, ModelSummary
from bridge_worker.schema.tokens import TokenCount

Entry = Mapping[str, Any]


class Replay:
    """`Backends`. ``miss``: serves what was not recorded; None: that is an error. ``in_real_time``: with the recorded pauses."""

    def __init__(self, player: Player, *, in_real_time: bool = False, miss: Backends | None = None) -> None:
        self.player = player
        self.in_real_time = in_real_time
        self.miss = miss

    async def chat_model(self, name: str) -> ChatModel:
        return ReplayedModel(self)

    async def services(self, name: str) -> ModelServices:
        """A count of tokens can't wait for the backend that serves a miss: so that is found here."""
        other = await self.miss.services(name) if self.miss is not None else None
        return ReplayedServices(self, other)

    async def list_models(self, *, every: bool) -> list[ModelSummary]:
        rows = ReplayedServices(self, None).names(every=every)
        if self.miss is None:
            return rows
        recorded = {row.model for row in rows}
        return rows + [row for row in await self.miss.list_models(every=every) if row.model not in recorded]


class ReplayedModel:
    """A `ChatModel`."""

    def __init__(self, replay: Replay) -> None:
        self._replay = replay

    def chat(self, request: ChatRequest) -> AsyncGenerator[list[Delta] | Facts, None]:
        replay = self._replay
        wanted = canonical.of_chat(request)
        entry = replay.player.find(wanted)
        if entry is not None:
            return playback.play(entry, request, in_real_time=replay.in_real_time)
        if replay.miss is not None:
            return _chat_of(replay.miss, request)
        raise replay.player.miss(wanted)


async def _chat_of(backends: Backends, request: ChatRequest) -> AsyncGenerator[list[Delta] | Facts, None]:
    async with aclosing((await backends.chat_model(request.model)).chat(request)) as steps:
        async for step in steps:
            yield step


class ReplayedServices:
    """`ModelServices`. ``other`` serves what was not recorded."""

    runs_here = False

    def __init__(self, replay: Replay, other: ModelServices | None) -> None:
        self._replay = replay
        self._cassette = replay.player.cassette
        self._other = other

    def names(self, *, every: bool) -> list[ModelSummary]:
        models = self._cassette.index.models
        infos = [self.describe(name) for name in models]
        return [ModelSummary(model=info.model, provider=info.provider, mode=info.mode, key_present=None) for info in infos]

    def describe(self, model: str) -> ModelInfo:
        place = self._cassette.index.models.get(model)
        if place is not None:
            return ModelInfo.model_validate(self._cassette.entry(place)["info"])
        if self._other is not None:
            return self._other.describe(model)
        raise BridgeError("cassette_miss", f"the cassette has no facts about {model!r:.100}", model=model, extra={"nearest": None})

    def count(self, model: str, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None) -> TokenCount:
        wanted = canonical.of_tokens(model, messages, tools)
        entry = self._find(wanted)
        if entry is None:
            assert self._other is not None  # noqa: S101  # for mypy: `_find` raises without it
            return self._other.count(model, messages, tools)
        return TokenCount.model_validate(_result(entry))

    def cost_usd(self, model: str, expense: Expense) -> float | None:
        if model not in self._cassette.index.models and self._other is not None:
            return self._other.cost_usd(model, expense)
        prices = self.describe(model).prices
        if prices.input_usd is None or prices.output_usd is None or (expense.output_tokens is None and prices.output_usd):
            return None
        price_in = max(prices.input_usd, (prices.cache_write_usd or 0.0) if expense.writes_cache else 0.0)
        return expense.input_tokens * price_in + (expense.output_tokens or 0) * prices.output_usd

    def alternatives(self, model: str) -> list[str]:
        if model not in self._cassette.index.models and self._other is not None:
            return self._other.alternatives(model)
        return [model]

    async def embed(self, request: EmbedRequest) -> Embeddings:
        entry = self._find(canonical.of_embed(request))
        if entry is None:
            assert self._other is not None  # noqa: S101  # as above
            return await self._other.embed(request)
        result = await self._play(entry, request.receipt)
        vectors = [vector_of(vector) for vector in result["embeddings"]]
        return Embeddings(vectors, _usage(result), _cost(result), result["model"], result["provider"])

    async def rerank(self, request: RerankRequest) -> Ranking:
        entry = self._find(canonical.of_rerank(request))
        if entry is None:
            assert self._other is not None  # noqa: S101  # as above
            return await self._other.rerank(request)
        result = await self._play(entry, request.receipt)
        scores = [(row["index"], row["score"]) for row in result["results"]]
        return Ranking(scores, _usage(result), _cost(result), result["model"], result["provider"])

    def _find(self, wanted: Mapping[str, Any]) -> Entry | None:
        """Raises BridgeError ``cassette_miss`` where nothing else serves the request."""
        player = self._replay.player
        entry = player.find(wanted)
        if entry is None and self._other is None:
            raise player.miss(wanted)
        return entry

    async def _play(self, entry: Entry, receipt: Receipt) -> Mapping[str, Any]:
        playback.restore_receipt(receipt, entry)
        if self._replay.in_real_time:
            await asyncio.sleep(entry["ms"] / 1000)
        if "error" in entry["wire"] and entry["wire"]["error"]["data"]["kind"] == "cancelled":
            await asyncio.Event().wait()
        return _result(entry)


def _result(entry: Entry) -> Mapping[str, Any]:
    wire = entry["wire"]
    if "result" not in wire:
        raise playback.recorded_error(wire["error"])
    result: Mapping[str, Any] = wire["result"]
    return result


def vector_of(recorded: list[float] | str) -> list[float]:
    if not isinstance(recorded, str):
        return recorded
    data = base64.b64decode(recorded)
    return list(struct.unpack(f"<{len(data) // 4}f", data))


def _usage(result: Mapping[str, Any]) -> Usage | None:
    return Usage.model_validate(result["usage"]) if result["usage"] else None


def _cost(result: Mapping[str, Any]) -> Cost | None:
    return None if result["cost_usd"] is None else Cost(result["cost_usd"], result["cost_source"], result["price_map_date"])
