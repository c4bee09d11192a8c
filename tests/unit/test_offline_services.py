"""The offline models beside chat, and the methods that must not wait for LiteLLM."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_worker.backends.offline.services import OfflineServices
from bridge_worker.core.ports import EmbedRequest, RerankRequest
from bridge_worker.errors import BridgeError
from bridge_worker.schema.chat_result import Receipt
from bridge_worker.schema.models import ModelInfo, ModelSummary
from bridge_worker.schema.tokens import TokenCount
from tests.support.memory_server import Client, Json, timeless
from tests.support.worker import WAIT_SECONDS


def embedded(*texts: str, dimensions: int = 64) -> list[list[float]]:
    request = EmbedRequest(
        "offline/embed", list(texts), Receipt(requested_model="offline/embed"), options={"dimensions": dimensions}
    )
    return asyncio.run(OfflineServices().embed(request)).vectors


def likeness(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


@pytest.mark.rule("OFF-7")
@given(st.text(), st.integers(1, 4096))
def test_every_embedding_has_length_1_and_as_many_dimensions_as_requested(text: str, dimensions: int) -> None:
    (vector,) = embedded(text, dimensions=dimensions)
    assert len(vector) == dimensions
    assert math.hypot(*vector) == pytest.approx(1.0)


@pytest.mark.rule("OFF-7")
def test_texts_that_share_words_are_closer() -> None:
    fox, foxes, bird = embedded("the quick red fox", "the slow red fox", "a blue bird sings", dimensions=4096)
    assert likeness(fox, foxes) == pytest.approx(0.75)
    assert likeness(fox, bird) == pytest.approx(0.0)


@pytest.mark.rule("OFF-7")
def test_too_many_dimensions_are_refused() -> None:
    with pytest.raises(BridgeError) as refused:
        embedded("a", dimensions=10**9)
    assert refused.value.kind == "rejected_by_provider"


@pytest.mark.rule("OFF-8")
def test_a_document_is_scored_by_the_words_of_the_query_that_it_has() -> None:
    request = RerankRequest("offline/rerank", "red fox", ["A red FOX", "red", "blue"], Receipt(requested_model="offline/rerank"))
    assert asyncio.run(OfflineServices().rerank(request)).scores == [(0, 1.0), (1, 0.5), (2, 0.0)]


@pytest.mark.rule("OFF-6")
@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("embed", {"model": "offline/echo", "input": "a"}),
        ("rerank", {"model": "offline/embed", "query": "a", "documents": ["b"]}),
        ("chat", {"model": "offline/embed", "messages": [{"role": "user", "content": "a"}]}),
        ("embed", {"model": "offline/nothing", "input": "a"}),
    ],
)
@timeless
async def test_a_model_does_only_what_it_is_for(method: str, params: Json) -> None:
    async with Client() as client:
        client.send({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        assert await client.kind(1) == "model_not_found"


class Slow(OfflineServices):
    """Each question about a model blocks its thread until a test lets it go."""

    def __init__(self) -> None:
        self.called, self.free = threading.Event(), threading.Event()

    def names(self, *, every: bool) -> list[ModelSummary]:
        self._wait()
        return []

    def describe(self, model: str) -> ModelInfo:
        self._wait()
        return super().describe("offline/echo")

    def count(self, model: str, messages: Sequence[Json], tools: Sequence[Json] | None) -> TokenCount:
        self._wait()
        return super().count("offline/echo", messages, tools)

    def _wait(self) -> None:
        self.called.set()
        assert self.free.wait(WAIT_SECONDS)


CONVERSATION = {"model": "some/model", "messages": [{"role": "user", "content": "a"}]}


@pytest.mark.rule("CAN-1", "CAN-6")
@pytest.mark.parametrize(
    ("method", "params"),
    [("models/list", {}), ("models/get", {"model": "some/model"}), ("tokens/count", CONVERSATION), ("chat/check", CONVERSATION)],
)
def test_what_takes_long_holds_up_nothing_and_can_be_cancelled(method: str, params: Json) -> None:
    async def converse() -> None:
        async with Client() as client:
            client.engine.services = slow = Slow()
            client.send({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
            assert await asyncio.to_thread(slow.called.wait, WAIT_SECONDS)
            client.send({"jsonrpc": "2.0", "id": 2, "method": "status"})
            assert (await client.response(2))["result"]["requests"]["in_flight"] == 2
            client.cancel(1)
            assert await client.kind(1) == "cancelled"
            slow.free.set()

    asyncio.run(converse())


@pytest.mark.rule("STA-1", "OFF-1", "MOD-10")
@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("status", {}),
        ("models/list", {}),
        ("tools/list", {}),
        ("server/discover", {}),
        ("embed", {"model": "offline/embed", "input": "a"}),
        ("rerank", {"model": "offline/rerank", "query": "a", "documents": ["b"]}),
    ],
)
@timeless
async def test_what_needs_no_litellm_does_not_wait_for_it(method: str, params: Json) -> None:
    async with Client(warm=False, configured=False) as client:
        client.send({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        result = (await client.response(1))["result"]
        assert method != "status" or result["engine"]["ready"] is False


@pytest.mark.rule("MOD-10")
@pytest.mark.parametrize(("configured", "params"), [(True, {}), (False, {"all": True})])
def test_a_list_of_more_than_the_offline_models_waits_for_litellm(configured: bool, params: Json) -> None:
    async def converse() -> None:
        async with Client(warm=False, configured=configured) as client:
            client.send({"jsonrpc": "2.0", "id": 1, "method": "models/list", "params": params})
            client.send({"jsonrpc": "2.0", "id": 2, "method": "status"})
            assert (await client.response(2))["result"]["requests"]["in_flight"] == 2
            client.engine.warm.set()
            assert "models" in (await client.response(1))["result"]

    asyncio.run(converse())
