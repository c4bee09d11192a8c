"""A response with a part of each kind, in which any part is replaced by a hostile value, gives a result or an error."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from bridge_worker.backends.wire.anthropic import Anthropic
from bridge_worker.backends.wire.bedrock_converse import BedrockConverse
from bridge_worker.backends.wire.gemini import Gemini
from bridge_worker.errors import KINDS
from tests.unit.wire import anthropic_cases, aws_frames, bedrock_converse_cases, gemini_cases
from tests.unit.wire.joined import plain, streamed

HOSTILE = [None, True, 0, -1, 1.5, 2**70, "", "x", "\ud83d", [], [[]], [None], {}, {"a": None}, {"type": []}, [{"type": {}}]]


def mutations(value: Any) -> Iterator[Any]:
    """``value`` with each of its parts replaced by each hostile value, or removed."""
    if isinstance(value, dict):
        for name, member in value.items():
            yield {other: kept for other, kept in value.items() if other != name}
            yield from ({**value, name: hostile} for hostile in HOSTILE)
            yield from ({**value, name: changed} for changed in mutations(member))
    elif isinstance(value, list):
        for at, member in enumerate(value):
            yield [*value[:at], *value[at + 1 :]]
            yield from ([*value[:at], hostile, *value[at + 1 :]] for hostile in HOSTILE)
            yield from ([*value[:at], changed, *value[at + 1 :]] for changed in mutations(member))


def check(make: type[Any], body: Any, stream: Callable[[Any], bytes]) -> None:
    """Every mutation of a body and of its stream gives a result or a BridgeError; anything else escapes and fails the test."""
    for changed in mutations(body):
        for one in (plain(make, json.dumps(changed).encode()), streamed(make, stream(changed))):
            assert one.error is None or one.kind in KINDS


def test_every_part_of_anthropics_body() -> None:
    check(Anthropic, anthropic_cases.RICH, lambda changed: anthropic_cases.sse(*anthropic_cases.message_events(changed)))


def test_every_part_of_anthropics_events() -> None:
    events = anthropic_cases.message_events(anthropic_cases.RICH)
    check(Anthropic, events, lambda changed: anthropic_cases.frames(*(changed if isinstance(changed, list) else [changed])))


def test_every_part_of_geminis_body() -> None:
    check(Gemini, gemini_cases.RICH, lambda changed: gemini_cases.sse(*gemini_cases.stream_events(changed)))


def test_every_part_of_geminis_events() -> None:
    check(Gemini, gemini_cases.stream_events(gemini_cases.RICH), lambda changed: json.dumps(changed).encode())


def test_every_part_of_bedrocks_body() -> None:
    cases = bedrock_converse_cases
    check(BedrockConverse, cases.RICH, lambda changed: aws_frames.converse(*cases.message_events(changed)))


def test_every_part_of_bedrocks_events() -> None:
    def stream(changed: Any) -> bytes:
        pairs = [event for event in changed if isinstance(event, list) and len(event) == 2] if isinstance(changed, list) else []
        return aws_frames.converse(*((name, value) for name, value in pairs if isinstance(name, str) and name.isascii()))

    events = bedrock_converse_cases.message_events(bedrock_converse_cases.RICH)
    check(BedrockConverse, json.loads(json.dumps(events)), stream)
