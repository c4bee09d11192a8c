"""Which HTTP requests of LiteLLM are recorded, and what LiteLLM makes of a recorded response without a request."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from bridge_worker.backends.litellm import setup
from bridge_worker.core.exchange import Tape, Tapes, heard, tapes
from bridge_worker.errors import BridgeError
from bridge_worker.security.url_policy import UrlPolicy

TOKEN = b'{"access_token": "ya29.of-a-cloud"}'


@pytest.fixture(autouse=True)
def prepared() -> None:
    setup.prepare(UrlPolicy())


@pytest.fixture
def recording() -> Iterator[Tapes]:
    found = Tapes(time.monotonic())
    token = tapes.set(found)
    yield found
    tapes.reset(token)


def respond(request: httpx.Request) -> httpx.Response:
    body = httpx.ByteStream(TOKEN if b"grant_type" in request.content else b'{"data": []}')
    return httpx.Response(200, stream=body)


def test_a_token_a_look_up_and_what_a_callback_sends_later_are_not_recorded(recording: Tapes) -> None:
    asyncio.run(_send_several(recording))
    (tape,) = recording.list
    assert (tape.status, tape.ended, b"".join(piece.data for piece in tape.pieces)) == (200, True, b'{"data": []}')


async def _send_several(recording: Tapes) -> None:
    def begin(recording: Tapes) -> Tape:
        return recording.begin_unread(0, "m", "p")

    async with httpx.AsyncClient(transport=httpx.MockTransport(respond)) as client:
        released = asyncio.Event()

        async def callback() -> None:
            await released.wait()
            await client.post("http://logs/", json={"a": "log"})

        with heard(begin):
            await client.post("http://token/", data={"grant_type": "x"})
            await client.get("http://models/")
            assert recording.list == []
            await client.post("http://model/", json={"input": "a"})
            late = asyncio.create_task(callback())
        released.set()
        await late
        await client.post("http://other/", json={})


def test_the_blocking_client_is_recorded_too_and_a_failure_has_its_reason(recording: Tapes) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no", request=request)

    for transport in (httpx.MockTransport(respond), httpx.MockTransport(refuse)):
        with httpx.Client(transport=transport) as client, heard(lambda tapes: tapes.begin_unread(len(tapes.list), "m", "p")):
            try:
                client.post("http://model/", json={})
            except httpx.ConnectError:
                continue
    good, failed = recording.list
    assert (good.status, good.ended, failed.status, failed.failure) == (200, True, None, "the connection broke")


ROW = {"embedding": [0.5, 1.0], "index": 0}
OPENAI = {"data": [ROW], "model": "m", "usage": {"prompt_tokens": 2, "total_tokens": 2}}
BODIES: dict[str, dict[str, Any]] = {  # as the providers' documentation has them
    "cohere/embed-v4.0": {"id": "a", "embeddings": {"float": [[0.5, 1.0]]}, "meta": {"billed_units": {"input_tokens": 2}}},
    "voyage/voyage-3": {"object": "list", "data": [ROW], "model": "voyage-3", "usage": {"total_tokens": 2}},
    "gemini/gemini-embedding-001": {"embeddings": [{"values": [0.5, 1.0]}]},
    "bedrock/amazon.titan-embed-text-v2:0": {"embedding": [0.5, 1.0], "inputTextTokenCount": 2},
    "azure/a-deployment": OPENAI,
    "hosted_vllm/m": OPENAI,
}


def recorded(model: str, status: int = 200) -> dict[str, Any]:
    provider, _, name = model.partition("/")
    headers = {"content-type": "application/json"}
    return {"model": name, "provider": provider, "status": status, "response_headers": headers, "end": "whole"}


@pytest.mark.parametrize("model", BODIES)
def test_litellm_reads_a_recorded_embedding_of_each_provider_without_key_host_and_network(model: str) -> None:
    from bridge_worker.backends.litellm.recorded_responses import read

    body = json.dumps(BODIES[model]).encode()
    found = asyncio.run(read("embed", {"model": "an-alias", "input": ["x"]}, recorded(model), body))
    assert found is not None
    assert found.vectors == [[0.5, 1.0]]  # type: ignore[union-attr]


def test_a_recorded_error_is_classified_again_and_a_token_is_not_requested() -> None:
    from bridge_worker.backends.litellm.recorded_responses import read

    params = {"model": "m", "input": ["x"]}
    with pytest.raises(BridgeError) as raised:
        asyncio.run(read("embed", params, recorded("cohere/m", 429), b'{"message": "slow down"}'))
    assert (raised.value.kind, raised.value.status) == ("rate_limited", 429)
    assert asyncio.run(read("embed", params, recorded("vertex_ai/text-embedding-005"), b"{}")) is None
