"""Decoders on arbitrary bytes: any cut gives the same result, and any bytes give a result or a BridgeError."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge_worker.backends.wire import anthropic, bedrock_converse
from bridge_worker.backends.wire.anthropic import Anthropic
from bridge_worker.backends.wire.bedrock_converse import BedrockConverse
from bridge_worker.backends.wire.cohere import Cohere
from bridge_worker.backends.wire.gemini import Gemini
from bridge_worker.backends.wire.ollama import Ollama
from bridge_worker.backends.wire.openai_chat import OpenAIChat
from bridge_worker.backends.wire.openai_responses import EVENTS, OpenAIResponses
from tests.unit.wire import anthropic_cases, aws_frames, bedrock_converse_cases, gemini_cases
from tests.unit.wire.cases import CASES, Case
from tests.unit.wire.joined import plain, streamed

MAKERS = [OpenAIChat, OpenAIResponses, Ollama, Cohere, Anthropic, Gemini, BedrockConverse]
FORMED = [
    Case(f"{case.name}, {form}", case.make, case.expected, data=data)
    for module in (anthropic_cases, bedrock_converse_cases, gemini_cases)
    for case in module.CASES
    for form, data in (case.data or {}).items()
]
STREAMS = [case for case in (*CASES, *FORMED) if case.data and len(case.data) < 20_000]
COMMON = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])

_LEAVES: Any = (
    st.none()
    | st.booleans()
    | st.integers(-5, 2**70)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["text", "stop", "error", "<think>", "</think>", "f", "thinking", "data:,", "reasoning", "completed"])
)
_NAMES = st.sampled_from(
    """id model choices index delta message finish_reason content role reasoning reasoning_content tool_calls
    function name arguments type text usage prompt_tokens completion_tokens total_tokens error code logprobs audio
    images image_url url annotations refusal reasoning_details function_call thinking_blocks
    provider_specific_fields citations output item output_index item_id part response status summary result
    tool_plan done done_reason eval_count data transcript x_groq metadata raw details detail surprise""".split()
)
_VALUES: Any = st.recursive(
    _LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=4), max_leaves=12
)
_CHOICE = st.fixed_dictionaries(
    {"index": st.sampled_from([0, None, 1, "0"]), "delta": _VALUES, "message": _VALUES},
    optional={"finish_reason": _VALUES, "logprobs": _VALUES, "error": _VALUES},
)
_OBJECTS = (
    st.dictionaries(_NAMES, _VALUES, max_size=4)
    | st.fixed_dictionaries({"choices": st.lists(_CHOICE, max_size=2)}, optional={"usage": _VALUES, "error": _VALUES})
    | st.fixed_dictionaries(
        {"type": st.sampled_from([*EVENTS, "content-delta", "tool-call-start", "message-end"])},
        optional=dict.fromkeys(
            ("delta", "item", "response", "part", "text", "arguments", "output_index", "content_index", "error", "code", "message"),
            _VALUES,
        ),
    )
    | st.fixed_dictionaries(
        {"type": st.sampled_from([*anthropic.EVENTS])},
        optional={
            **dict.fromkeys(("message", "content_block", "usage", "error"), _VALUES),
            "index": st.sampled_from([0, None, 1, "0"]),
            "delta": _VALUES | st.fixed_dictionaries({"type": st.sampled_from([*anthropic.DELTAS])}, optional={"text": _VALUES}),
        },
    )
    | st.fixed_dictionaries(
        {"candidates": st.lists(st.fixed_dictionaries({"content": _VALUES}, optional={"finishReason": _VALUES}), max_size=2)},
        optional={"usageMetadata": _VALUES, "promptFeedback": _VALUES, "error": _VALUES},
    )
    | st.fixed_dictionaries({"contentBlockIndex": _VALUES}, optional={"start": _VALUES, "delta": _VALUES, "stopReason": _VALUES})
    | st.fixed_dictionaries({"message": _VALUES, "done": st.booleans()}, optional={"done_reason": _VALUES, "error": _VALUES})
)
_EVENTS = st.lists(_OBJECTS | _VALUES, max_size=4)
_CUTS = st.lists(st.integers(0, 5000), max_size=6)


def framed(make: type[Any], values: list[Any]) -> bytes:
    texts = [json.dumps(value) for value in values]  # NaN and Infinity too
    if make is Ollama:
        return "".join(f"{text}\n" for text in texts).encode()
    if make is BedrockConverse:
        names = [*bedrock_converse.EVENTS]
        return b"".join(aws_frames.event(names[at % len(names)], text.encode()) for at, text in enumerate(texts, 1))
    return "".join(f"data: {text}\n\n" for text in texts).encode()


def cut(data: bytes, cuts: list[int]) -> list[int]:
    return [place % (len(data) + 1) for place in cuts]


@pytest.mark.parametrize("make", MAKERS)
@given(values=_EVENTS, cuts=_CUTS)
@COMMON
def test_any_json_gives_a_result_or_an_error_whatever_the_cut(make: type[Any], values: list[Any], cuts: list[int]) -> None:
    data = framed(make, values)
    assert streamed(make, data, cut(data, cuts)).comparable() == streamed(make, data).comparable()


@pytest.mark.parametrize("make", MAKERS)
@given(value=_OBJECTS | _VALUES)
@COMMON
def test_any_json_body_gives_a_result_or_an_error(make: type[Any], value: Any) -> None:
    joined = plain(make, json.dumps(value).encode())
    assert (joined.end is None) == (joined.error is not None)


@pytest.mark.parametrize("make", MAKERS)
@given(data=st.binary(max_size=200), cuts=_CUTS)
@COMMON
def test_any_bytes_give_a_result_or_an_error(make: type[Any], data: bytes, cuts: list[int]) -> None:
    whole = streamed(make, data)
    assert streamed(make, data, cut(data, cuts)).comparable() == whole.comparable()
    plain(make, data)
    assert make.error(500, {}, data).kind


@given(case=st.sampled_from(STREAMS), cuts=_CUTS, at=st.integers(0, 5000), junk=st.binary(max_size=6), drop=st.integers(0, 40))
@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_damaged_stream_gives_a_result_or_an_error_whatever_the_cut(
    case: Case, cuts: list[int], at: int, junk: bytes, drop: int
) -> None:
    assert case.data is not None
    at %= len(case.data)
    data = case.data[:at] + junk + case.data[at + drop :]
    assert streamed(case.make, data, cut(data, cuts)).comparable() == streamed(case.make, data).comparable()


# Where each event has a finish reason, nothing shows that another event was to follow.
_ENDS_SEEN = [case for case in STREAMS if "kind" not in case.expected and not case.name.startswith("a finish reason in each event")]


@given(case=st.sampled_from(_ENDS_SEEN), at=st.integers(0, 5000))
@settings(max_examples=500, deadline=None)
def test_a_stream_cut_off_anywhere_is_an_error_or_whole(case: Case, at: int) -> None:
    """Never a shortened response that passes for a whole one."""
    assert case.data is not None
    whole, short = streamed(case.make, case.data), streamed(case.make, case.data[: at % len(case.data)])
    if short.error is None:
        assert (short.content, short.reasoning, short.refusal, short.calls) == (
            whole.content,
            whole.reasoning,
            whole.refusal,
            whole.calls,
        )
    else:
        assert short.error.kind in ("stream_interrupted", "bad_upstream_response")
        assert whole.content.startswith(short.content) or "<think>".startswith(short.content)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize(
    "value",
    ["9" * 5000, "[" * 50_000, "[" * 900 + "]" * 900, '{"a":' * 500 + "1" + "}" * 500, "1e999", "-" + "9" * 4000, '"\\ud83d"'],
)
def test_a_hostile_value_in_each_member_gives_a_result_or_an_error(make: type[Any], value: str) -> None:
    for body in (
        '{"choices":[{"index":0,"delta":{"content":%s},"message":{"content":%s},"finish_reason":%s}]}',
        '{"choices":[{"index":%s,"delta":{"x":%s},"message":{"tool_calls":%s}}]}',
        '{"choices":[{"delta":{"tool_calls":[{"index":%s,"function":{"arguments":%s},"id":%s}]},"finish_reason":"stop"}]}',
        '{"usage":{"prompt_tokens":%s,"completion_tokens":%s,"cost":%s},"choices":[{"delta":{},"message":{},"finish_reason":"stop"}]}',
        '{"error":{"message":%s,"code":%s,"details":%s}}',
        '{"type":"response.completed","response":{"output":%s,"usage":{"input_tokens":%s},"id":%s}}',
        '{"type":"response.output_text.delta","output_index":%s,"delta":%s,"logprobs":%s}',
        '{"message":{"content":%s,"tool_calls":[{"function":{"arguments":%s}}]},"done":true,"done_reason":"stop","x":%s}',
        '{"type":"message-end","delta":{"finish_reason":"COMPLETE","usage":{"tokens":{"input_tokens":%s}},"error":%s},"x":%s}',
        '{"message":{"content":[{"type":%s,"text":%s}],"x":%s},"finish_reason":"COMPLETE"}',
    ):
        text = (body % (value, value, value)).encode()
        plain(make, text)
        streamed(make, text + b"\n" if make is Ollama else b"data: " + text + b"\n\n")
        assert make.error(400, {}, text).kind
