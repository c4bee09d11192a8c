"""The receipt of a chat in memory: what was left out of the result, and the receipt of an error."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from bridge_worker.core.accumulator import MAX_MEDIA_CHARACTERS
from bridge_worker.core.chat_runner import run_chat
from bridge_worker.core.deltas import Delta, End
from bridge_worker.core.ports import ChatRequest, Facts
from bridge_worker.errors import BridgeError
from bridge_worker.methods.chat import chat_request as request_of
from bridge_worker.schema.chat_request import Deadlines
from bridge_worker.schema.chat_result import ChatResult
from tests.support.requests import chat_request

USER = [{"role": "user", "content": "hello"}]


class Painter:
    """A `ChatModel` that answers with images."""

    def __init__(self, *sizes: int) -> None:
        self._sizes = sizes

    async def chat(self, request: ChatRequest) -> AsyncGenerator[list[Delta] | Facts, None]:
        images = [{"type": "image_url", "image_url": {"url": "x" * size}} for size in self._sizes]
        yield [Delta(images=images)]
        yield Facts(End("stop", "stop"))


@pytest.mark.rule("RES-14")
def test_images_beyond_the_limit_are_left_out_and_named() -> None:
    async def find(name: str) -> Any:
        return Painter(MAX_MEDIA_CHARACTERS, 1)

    made = asyncio.run(run_chat(chat_request({"model": "m", "messages": USER}, time.monotonic()), find))
    result = ChatResult.model_validate(made)

    assert [len(image["image_url"]["url"]) for image in result.message["images"]] == [MAX_MEDIA_CHARACTERS]
    assert [(change.param, change.change) for change in result.receipt.dropped or ()] == [("message.images[1]", "dropped")]


@pytest.mark.rule("RCP-1")
def test_an_error_of_the_model_has_the_receipt() -> None:
    async def find(name: str) -> Any:
        raise BridgeError("model_not_found", "there is none")

    with pytest.raises(BridgeError) as raised:
        asyncio.run(run_chat(chat_request({"model": "m", "messages": USER}, time.monotonic()), find))

    assert raised.value.data()["receipt"] == {
        "requested_model": "m",
        "served_model": None,
        "deployment": None,
        "attempts": [],
        "fallback": False,
        "dropped": None,
        "added": None,
        "kept": [],
        "engine": None,
    }


@pytest.mark.rule("BND-7")
def test_a_long_model_name_is_cut_in_the_receipt() -> None:
    params = {"model": "offline/" + "x" * 1000, "messages": [{"role": "user", "content": "hi"}]}
    request = request_of(params, 0.0, Deadlines())
    assert request.receipt.requested_model == params["model"][:256]
    assert request.model == params["model"]
