"""Anthropic's Messages: its tables, and the cases of `anthropic_cases` in all three forms."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_worker.backends.wire import anthropic
from bridge_worker.backends.wire.anthropic import Anthropic
from bridge_worker.core.deltas import TokenUsage
from bridge_worker.errors import KINDS
from tests.unit.wire import aws_frames
from tests.unit.wire.anthropic_cases import (
    BEGUN,
    CASES,
    END,
    ENDED,
    HI,
    RICH,
    START,
    STOP,
    TEXT,
    TOOL,
    USAGE,
    case,
    error,
    forms,
    frames,
    message_events,
    sse,
)
from tests.unit.wire.joined import events, plain, streamed
from tests.unit.wire.three_forms import FormCase, check_case, check_cuts, check_truncated, results

IDS = [one.name for one in CASES]


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_case(case: FormCase) -> None:
    check_case(case)


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_any_cut_gives_the_same(case: FormCase) -> None:
    check_cuts(case)


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_a_stream_that_ends_early(case: FormCase) -> None:
    check_truncated(case)


# ---- tables ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("word", "reason"), anthropic.FINISH.items())
def test_each_stop_reason_has_its_finish_reason(word: str, reason: str | None) -> None:
    assert reason in {"stop", "length", "tool_calls", "content_filter", None}
    for _, joined in results(case(word, {}, TEXT, stop=word)):
        assert joined.end is not None
        assert (joined.end.finish_reason, joined.end.raw_finish_reason) == (reason, word)


@pytest.mark.parametrize("word", ["tired", "END_TURN", "x" * 1000])
def test_an_unknown_stop_reason_is_never_stop(word: str) -> None:
    for _, joined in results(case(word, {}, TEXT, stop=word)):
        assert joined.end is not None
        assert (joined.end.finish_reason, joined.end.raw_finish_reason) == (None, word)


@pytest.mark.parametrize(
    ("type", "kind", "retryable"),
    [
        ("overloaded_error", "provider_unavailable", True),
        ("rate_limit_error", "rate_limited", True),
        ("api_error", "provider_unavailable", True),
        ("timeout_error", "timeout", True),
        ("authentication_error", "authentication", False),
        ("permission_error", "permission", False),
        ("not_found_error", "model_not_found", False),
        ("invalid_request_error", "rejected_by_provider", False),
        ("request_too_large", "rejected_by_provider", False),
        ("billing_error", "budget_exceeded", False),
    ],
)
def test_each_error_type_has_its_kind(type: str, kind: str, retryable: bool) -> None:
    for data in forms(START, BEGUN, HI, error(type)).values():
        joined = streamed(Anthropic, data)
        assert joined.error is not None
        assert (joined.kind, joined.error.retryable, joined.error.message, joined.content) == (kind, retryable, "the words", "hi")
    assert plain(Anthropic, error(type)).kind == kind


@pytest.mark.parametrize(
    "words", ["prompt is too long: 210000 tokens > 200000 maximum", "input length and `max_tokens` exceed context limit"]
)
def test_a_full_context_is_its_own_kind(words: str) -> None:
    full = error("invalid_request_error", words)
    assert plain(Anthropic, full).kind == streamed(Anthropic, sse(full)).kind == "context_length_exceeded"
    assert Anthropic.error(400, {}, json.dumps(full).encode()).kind == "context_length_exceeded"


def test_retry_after_of_an_error_response() -> None:
    failed = Anthropic.error(429, {"retry-after": "7"}, json.dumps(error("rate_limit_error")).encode())
    assert (failed.kind, failed.retry_after_ms, failed.status) == ("rate_limited", 7000, 429)


def test_usage_has_every_number_and_null_where_the_provider_has_none() -> None:
    usage = {
        **USAGE,
        "cache_read_input_tokens": 100,
        "cache_creation_input_tokens": 10,
        "output_tokens_details": {"thinking_tokens": 1},
    }
    assert anthropic.usage_of(usage) == TokenUsage(113, 2, 115, 100, 10, 1)
    assert anthropic.usage_of(USAGE) == TokenUsage(3, 2, 5)
    assert anthropic.usage_of({"output_tokens": 2}) == TokenUsage(None, 2, None)
    assert anthropic.usage_of({"input_tokens": "3", "output_tokens": 2**70}) is None
    compacted = [{"type": "compaction", "input_tokens": 1000, "output_tokens": 50}, {"type": "message", **USAGE}]
    assert anthropic.usage_of({**USAGE, "iterations": compacted}) == TokenUsage(1003, 52, 1055, 0, 0)


ALL_CASES = json.dumps([case.body for case in CASES if not isinstance(case.body, bytes)]) + repr([case.data for case in CASES])


@pytest.mark.parametrize("kind", anthropic.BLOCKS)
def test_each_kind_of_block_is_read_and_none_is_lost(kind: str) -> None:
    sample = {"type": kind, "id": "i", "name": "n", "tool_use_id": "u", "input": {"a": 1}, "content": "c"}
    if kind == "text":
        sample = {"type": kind, "text": "mark"}
    if kind == "tool_use":
        sample = TOOL
    if kind in ("thinking", "redacted_thinking"):
        sample = {"type": kind, "thinking": "mark", "signature": "s"} if kind == "thinking" else {"type": kind, "data": "mark"}
    joined = [one for _, one in results(case(kind, {}, sample))]
    assert all(one.comparable() == joined[0].comparable() for one in joined)
    found = joined[0]
    assert found.end is not None
    named = kind not in ("text", "thinking", "redacted_thinking", "tool_use")
    assert found.end.kept == ([f"message.content.{kind}"] if named else [])
    assert found.content or found.thinking_blocks or found.calls or found.fields
    assert bool(found.calls) == (kind == "tool_use")


@pytest.mark.parametrize("name", [*anthropic.EVENTS, *anthropic.DELTAS])
def test_each_event_and_delta_is_in_a_case(name: str) -> None:
    if name == "initial-response":
        data = aws_frames.event(name, {}) + frames(START, BEGUN, HI, ENDED, END, STOP)
        assert (
            streamed(Anthropic, data).comparable() == streamed(Anthropic, frames(START, BEGUN, HI, ENDED, END, STOP)).comparable()
        )
    else:
        assert f'"{name}"' in ALL_CASES


@pytest.mark.parametrize("value", ["text", 5, {"a": 1}, [1, 2]])
def test_what_no_table_has_is_kept_and_named(value: Any) -> None:
    for _, joined in results(case("", {}, TEXT, surprise=value)):
        assert joined.fields == {"surprise": value}
        assert joined.end is not None
        assert joined.end.kept == ["response.surprise"]


# ---- what some gateways send -----------------------------------------------------------------------------------------------------


def test_an_event_without_a_type_has_that_of_its_name() -> None:
    named = [
        ("content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}}),
        ("content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": "ab"}}),
        ("message_delta", {"delta": {"stop_reason": "end_turn"}}),
        ("message_stop", {"x": 1}),
    ]
    joined = streamed(Anthropic, "".join(f"event: {name}\ndata: {json.dumps(value)}\n\n" for name, value in named).encode())
    assert (joined.error, joined.content) == (None, "ab")


def test_a_block_ends_where_another_begins_with_its_index() -> None:
    blocks = [{"type": "thinking", "thinking": text, "signature": text} for text in ("a", "b")]
    starts = [{"type": "content_block_start", "index": 0, "content_block": block} for block in blocks]
    end = [{"type": "message_delta", "delta": {"stop_reason": "end_turn"}}, {"type": "message_stop"}]
    assert streamed(Anthropic, events(*starts, *end)).thinking_blocks == blocks


def test_a_member_of_a_text_block_that_is_not_known_is_kept() -> None:
    block = {"type": "text", "text": "ab", "surprise": 7}
    joined = plain(Anthropic, {"id": "m", "content": [block], "stop_reason": "end_turn"})
    assert joined.fields == {"surprise": 7}
    assert joined.end is not None
    assert joined.end.kept == ["message.content.text.surprise"]


def test_a_delta_that_no_table_has_or_that_has_no_block_is_kept() -> None:
    deltas = [{"type": "smell_delta", "smell": "tea"}, {"type": "citations_delta", "citation": {"x": 1}}]
    deltas.append({"type": "input_json_delta", "partial_json": "{"})
    odd = [{"type": "content_block_delta", "index": index, "delta": delta} for index, delta in zip((0, 7, 8), deltas, strict=True)]
    joined = streamed(Anthropic, sse(START, BEGUN, HI, *odd, ENDED, END, STOP))
    assert (joined.error, joined.content, joined.annotations, joined.calls) == (None, "hi", [], [])
    assert joined.fields == {"deltas": deltas}
    assert joined.end is not None
    assert joined.end.kept == ["delta.smell_delta", "delta.citations_delta", "delta.input_json_delta"]


def test_what_follows_the_end_is_not_read() -> None:
    more = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "more"}}
    for end in ("data: [DONE]\n\n", "data: null\n\n"):
        assert streamed(Anthropic, sse(START, BEGUN, HI, END) + end.encode() + sse(more)).content == "hi"


@pytest.mark.parametrize("content", [5, {"type": "text"}, None])
def test_a_body_with_content_that_is_neither_blocks_nor_text_is_an_error(content: object) -> None:
    assert plain(Anthropic, {"id": "m", "content": content, "stop_reason": None}).kind == "bad_upstream_response"
    assert plain(Anthropic, {"id": "m", "content": None, "stop_reason": "end_turn"}).error is None


def test_iterations_count_only_where_the_context_was_compacted() -> None:
    parts = [{"type": "message", "input_tokens": 9, "output_tokens": 9}]
    assert anthropic.usage_of({**USAGE, "iterations": parts}) == TokenUsage(3, 2, 5)


# ---- any bytes -------------------------------------------------------------------------------------------------------------------


@given(data=st.binary(max_size=300), form=st.sampled_from(["events", "frames", "bytes"]), at=st.integers(0, 2000))
def test_any_bytes_give_a_result_or_an_error(data: bytes, form: str, at: int) -> None:
    good = forms(*message_events(RICH)).get(form, b"")
    joined = streamed(Anthropic, good[:at] + data + good[at:], [len(good[:at])])
    assert joined.error is None or joined.kind in KINDS
    joined = plain(Anthropic, data)
    assert joined.error is None or joined.kind in KINDS


@given(cuts=st.lists(st.integers(0, 5000), max_size=40), form=st.sampled_from(["events", "frames"]))
def test_random_cuts(cuts: list[int], form: str) -> None:
    data = forms(*message_events(RICH))[form]
    whole = streamed(Anthropic, data)
    assert whole.error is None
    assert streamed(Anthropic, data, [cut for cut in cuts if cut < len(data)]).comparable() == whole.comparable()


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 50_000, '{"a":' * 500 + "1" + "}" * 500, "1e999", '"\\ud83d"'])
def test_hostile_json(value: str) -> None:
    for text in (
        '{"type":"content_block_delta","index":%s,"delta":{"type":"text_delta","text":%s}}',
        '{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","input":%s,"x":%s}}',
        '{"type":"message_delta","delta":{"stop_reason":%s},"usage":{"input_tokens":%s}}',
        '{"content":[{"type":"x","x":%s}],"stop_reason":%s}',
    ):
        data = (text % (value, value)).encode()
        for joined in (plain(Anthropic, data), streamed(Anthropic, b"data: " + data + b"\n\n")):
            assert joined.error is None or joined.kind in KINDS
