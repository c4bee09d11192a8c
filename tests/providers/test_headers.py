"""Headers of a response that break HTTP's rules: a value beyond ASCII costs nothing, a name is an error of the provider's."""

from __future__ import annotations

import asyncio
import time

import pytest

from bridge_worker.backends.litellm.chat import LiteLLM
from bridge_worker.core.accumulator import WireDelta
from bridge_worker.core.chat_runner import run_chat
from bridge_worker.errors import BridgeError
from tests.support.every_mode import HI, IGNORED_WARNINGS, Provider, Reply, provider, reply
from tests.support.provider_formats import FORMATS
from tests.support.requests import chat_request

__all__ = ["provider"]  # a fixture
pytestmark = IGNORED_WARNINGS
FORMS = ["openai", "anthropic", "ollama"]
VALUES = ["Zürich ☃".encode().decode("latin-1"), "Z\xfcrich"]  # UTF-8, and bytes that are not


def content_or_kind(engine: str, model: str, *, streamed: bool) -> str:
    async def run() -> str:
        backend = LiteLLM(engine=engine)

        async def find(_: str) -> LiteLLM:
            return backend

        async def emit(_: list[WireDelta]) -> None:
            pass

        request = chat_request({"model": model, "messages": HI, "stream": streamed}, time.monotonic())
        try:
            return str((await run_chat(request, find, emit))["content"])
        except BridgeError as error:
            return error.kind
        finally:
            await backend.aclose()

    return asyncio.run(run())


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("engine", ["auto", "litellm"])
@pytest.mark.parametrize("name", FORMS)
def test_a_header_value_beyond_ascii_costs_nothing(name: str, engine: str, value: str, streamed: bool, provider: Provider) -> None:
    wire = FORMATS[name]
    good = reply(wire, streamed=streamed)
    provider.play(good._replace(headers={**good.headers, "x-town": value}))
    assert content_or_kind(engine, wire.model, streamed=streamed) == "taught"
    provider.play(Reply(b'{"error": {"message": "slow down"}}', 429, {"x-town": value}))
    assert content_or_kind(engine, wire.model, streamed=streamed) == "rate_limited"


@pytest.mark.parametrize("engine", ["auto", "litellm"])
def test_a_header_name_beyond_ascii_is_an_error_of_the_provider(engine: str, streamed: bool, provider: Provider) -> None:
    wire = FORMATS["openai"]
    good = reply(wire, streamed=streamed)
    provider.play(good._replace(headers={**good.headers, "x-v\xe1ros": "a"}))
    assert content_or_kind(engine, wire.model, streamed=streamed) in ("provider_unavailable", "bad_upstream_response")
