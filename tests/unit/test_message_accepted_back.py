"""Every ``message`` that the bridge hands out is accepted in the next request, whatever the provider sent."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge_worker.backends.wire.anthropic import Anthropic
from bridge_worker.backends.wire.bedrock_converse import BedrockConverse
from bridge_worker.backends.wire.cohere import Cohere
from bridge_worker.backends.wire.decoder import Decoder
from bridge_worker.backends.wire.gemini import Gemini
from bridge_worker.backends.wire.ollama import Ollama
from bridge_worker.backends.wire.openai_chat import OpenAIChat
from bridge_worker.backends.wire.openai_responses import OpenAIResponses
from bridge_worker.core.accumulator import ChatAccumulator
from bridge_worker.core.deltas import Delta, End
from bridge_worker.core.ports import Facts
from bridge_worker.errors import BridgeError
from bridge_worker.methods.params import validate_chat
from tests.support.cases import FEATURES
from tests.support.data import Json
from tests.support.provider_formats import FORMATS, Format
from tests.support.requests import chat_request
from tests.unit.wire.cases import CASES, Case

MAKERS: dict[str, type[Any]] = {
    "openai": OpenAIChat,
    "responses": OpenAIResponses,
    "anthropic": Anthropic,
    "gemini": Gemini,
    "bedrock converse": BedrockConverse,
    "ollama": Ollama,
    "cohere": Cohere,
}
# Names that a parameter must not have; within what a provider sent they are its data.
REFUSED_AS_PARAMS = (
    "token",
    "headers",
    "organization",
    "cache",
    "timeout",
    "client",
    "api_base",
    "vertex_x",
    "_private",
    "url",
    "key",
)


def decoded(make: type[Any], *, body: bytes | None = None, data: Iterable[bytes] = ()) -> tuple[list[Delta], End]:
    decoder: Decoder = make()
    if body is not None:
        return list(decoder.whole(body)), decoder.end()
    deltas: list[Delta] = []
    for piece in data:
        deltas += decoder.feed(piece)
        if decoder.failure is not None:
            raise decoder.failure
    return [*deltas, *decoder.flush()], decoder.end()


def message_of(deltas: list[Delta], end: End) -> Json:
    """As the accumulator makes it, after a round trip over the wire."""
    request = chat_request({"model": "openai/x", "messages": [{"role": "user", "content": "hi"}]}, time.monotonic())
    accumulator = ChatAccumulator(request)
    accumulator.add(deltas)
    accumulator.facts = Facts(end, provider="openai")
    accumulator.finish()
    message: Json = json.loads(json.dumps(accumulator.result()["message"]))
    return message


def assert_accepted(message: Json) -> None:
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "21"} for call in message.get("tool_calls") or ()]
    validate_chat({"model": "openai/x", "messages": [{"role": "user", "content": "hi"}, message, *results]})


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[start:stop] for start, stop in pairwise([*range(0, len(data), size), len(data)])]


@pytest.mark.rule("RES-7")
@pytest.mark.parametrize(
    "case", [case for case in CASES if "kind" not in case.expected], ids=lambda case: f"{case.make.__name__}: {case.name}"
)
def test_the_message_of_each_wire_case_is_accepted(case: Case) -> None:
    if case.body is not None:
        body = case.body if isinstance(case.body, bytes) else json.dumps(case.body).encode()
        assert_accepted(message_of(*decoded(case.make, body=body)))
    if case.data is not None:
        assert_accepted(message_of(*decoded(case.make, data=cut(case.data, max(1, len(case.data) // 50)))))


@pytest.mark.rule("RES-7")
@pytest.mark.parametrize("name", MAKERS)
def test_the_message_of_each_response_in_each_format_is_accepted(name: str) -> None:
    wire: Format = FORMATS[name]
    messages: list[Json] = []
    for feature in FEATURES:
        if feature.status == 200 and name in feature.formats and feature.edit is None:
            for form in ({"body": json.dumps(wire.whole(feature.completion)).encode()}, {"data": wire.events(feature.completion)}):
                with suppress(BridgeError):  # a call with broken arguments, say
                    messages.append(message_of(*decoded(MAKERS[name], **form)))
    assert len(messages) > 10
    for message in messages:
        assert_accepted(message)


def _places(value: Any) -> list[Json]:
    """Each object in ``value``."""
    inner = [
        place
        for member in (value.values() if isinstance(value, dict) else value if isinstance(value, list) else ())
        for place in _places(member)
    ]
    return [value, *inner] if isinstance(value, dict) else inner


BODIES = [(case.make, case.body) for case in CASES if isinstance(case.body, dict) and "kind" not in case.expected]
_VALUES = (
    st.none()
    | st.integers(-1, 2**40)
    | st.text(max_size=300)
    | st.lists(st.dictionaries(st.sampled_from(REFUSED_AS_PARAMS), st.text(max_size=3)))
)
_NAMES = st.sampled_from(
    [*REFUSED_AS_PARAMS, "index", "id", "name", "type", "signature", "data", "citations", "extra", "arguments", "cache_control"]
)


@pytest.mark.rule("RES-7")
@given(of=st.sampled_from(BODIES), added=st.lists(st.tuples(st.integers(0, 99), _NAMES, _VALUES), max_size=3))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_a_provider_adds_the_message_is_accepted_or_the_response_is_an_error(
    of: tuple[type[Any], Json], added: list[tuple[int, str, Any]]
) -> None:
    make, body = of[0], json.loads(json.dumps(of[1]))
    for at, name, value in added:
        places = _places(body)
        places[at % len(places)][name] = value
    try:
        message = message_of(*decoded(make, body=json.dumps(body).encode()))
    except BridgeError:
        return
    assert_accepted(message)
