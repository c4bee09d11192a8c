"""Every case of the decoders, over HTTP, plain and streamed, in each mode: direct, in the lane and through LiteLLM's wrapper.

The decoders' own tests say what a response means; these prove that no mode loses or changes anything of it.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from bridge_worker.backends.reading import INTERRUPTIONS
from bridge_worker.backends.wire.anthropic import Anthropic
from bridge_worker.backends.wire.bedrock_converse import BedrockConverse
from bridge_worker.backends.wire.cohere import Cohere
from bridge_worker.backends.wire.gemini import Gemini
from bridge_worker.backends.wire.ollama import Ollama
from bridge_worker.backends.wire.openai_chat import OpenAIChat
from bridge_worker.backends.wire.openai_responses import OpenAIResponses
from bridge_worker.core.returnable import leave_out_refused
from tests.support.every_mode import IGNORED_WARNINGS, MODES, EveryMode, Outcome, bridge, provider, raw
from tests.support.provider_formats import FORMATS, Format
from tests.unit.wire import anthropic_cases, bedrock_converse_cases, cases, gemini_cases
from tests.unit.wire.joined import Joined, plain, streamed

__all__ = ["bridge", "provider"]  # fixtures
pytestmark = IGNORED_WARNINGS
_FORMATS = {
    OpenAIChat: "openai",
    OpenAIResponses: "responses",
    Anthropic: "anthropic",
    BedrockConverse: "bedrock converse",
    Gemini: "gemini",
    Ollama: "ollama",
    Cohere: "cohere",
}


class Played(NamedTuple):
    """A case in one of its forms. ``data`` is what the provider sends."""

    name: str
    make: type[Any]
    wire: Format
    streamed: bool
    data: bytes


def _forms() -> Iterator[Played]:
    for case in cases.CASES:
        for form, data in (("plain", case.body), ("streamed", case.data)):
            if data is not None:
                yield _played(case.name, case.make, "", form == "streamed", data)
    for case in (*anthropic_cases.CASES, *bedrock_converse_cases.CASES, *gemini_cases.CASES):
        if case.body is not None:
            yield _played(case.name, case.make, "", False, case.body)
        for form, data in (case.data or {}).items():
            yield _played(case.name, case.make, form, True, data)


def _played(name: str, make: type[Any], form: str, is_stream: bool, data: Any) -> Played:
    wire = "bedrock invoke" if (make, form) == (Anthropic, "frames") else _FORMATS[make]
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    shown = f"{wire}: {name} - {form or ('streamed' if is_stream else 'plain')}"
    return Played(shown, make, FORMATS[wire], is_stream, raw)


# Each case in one mode, and with EVERY_MODE=1 in all of them, which takes minutes.
_MODES_OF_A_CASE = len(MODES) if os.environ.get("EVERY_MODE") else 1
CASES = [
    pytest.param(case, mode, id=f"{mode}: {case.name}")
    for at, mode in enumerate(MODES)
    for number, case in enumerate(_forms())
    if (number + at) % len(MODES) < _MODES_OF_A_CASE
]


@pytest.mark.parametrize(("case", "bridge"), CASES, indirect=["bridge"], scope="module")
def test_a_case_has_the_decoders_outcome_in_each_mode(case: Played, bridge: EveryMode) -> None:
    expected = (streamed if case.streamed else plain)(case.make, case.data)
    outcome = bridge.chat(case.wire, raw(case.wire, case.data, streamed=case.streamed), streamed=case.streamed)
    assert len(outcome.sent) == 1
    if expected.error is None and not outcome.error:
        _check_result(expected, outcome)
    else:
        assert outcome.kind == _kind(expected, case.streamed), outcome
        if expected.error is not None and expected.kind != "stream_interrupted":
            assert outcome.error["message"].endswith(expected.error.message)


def _check_result(expected: Joined, outcome: Outcome) -> None:
    result, end = outcome.result, expected.end
    assert end is not None
    shown = ("content", "reasoning", "refusal", "annotations")
    assert {name: result[name] for name in shown} == {name: getattr(expected, name) or None for name in shown}
    assert [call["function"]["name"] for call in result["tool_calls"]] == [call["name"] for call in expected.calls]
    arguments = [call["function"]["arguments"] for call in result["tool_calls"]]
    assert arguments == [call["arguments"] or "{}" for call in expected.calls]
    assert result["raw_finish_reason"] == (end.raw_finish_reason or end.finish_reason)
    assert result["id"] == end.id
    usage = end.usage and (end.usage.input_tokens, end.usage.output_tokens, end.usage.total_tokens)
    assert (result["usage"] and tuple(result["usage"].values())[:3]) == usage
    assert result["receipt"]["kept"] == end.kept
    message = result["message"]
    assert message.get("thinking_blocks", []) == expected.thinking_blocks
    appended = copy.deepcopy(expected.message | ({"images": expected.images} if expected.images else {}))
    leave_out_refused(appended)  # the parts that the next request could not have
    assert {name: message.get(name) for name in appended} == appended
    assert ("images" in message) == ("images" in appended)
    state = [call.get("provider_specific_fields", {}) for call in message.get("tool_calls", ())]
    assert state == [call["fields"] for call in expected.calls]


def _kind(expected: Joined, is_stream: bool) -> str | None:
    """What the chat's error is: after the first content of a stream, its interruption; arguments that are not JSON are an error."""
    if expected.error is None:
        return "bad_upstream_response"
    shown = expected.content or expected.reasoning or expected.calls or expected.refusal
    if is_stream and shown and expected.kind in INTERRUPTIONS:
        return "stream_interrupted"
    return "bad_upstream_response" if expected.kind == "stream_interrupted" and not shown else expected.kind
