"""Bedrock's Converse: its tables, and the cases of `bedrock_converse_cases`, plain and in AWS's frames."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_worker.backends.wire import bedrock_converse
from bridge_worker.backends.wire.bedrock_converse import BedrockConverse
from bridge_worker.core.deltas import TokenUsage
from bridge_worker.errors import KINDS
from tests.unit.wire import aws_frames
from tests.unit.wire.bedrock_converse_cases import (
    CASES,
    RICH,
    TEXT,
    USAGE,
    case,
    message_events,
)
from tests.unit.wire.joined import plain, streamed
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


@pytest.mark.parametrize(("word", "reason"), bedrock_converse.FINISH.items())
def test_each_stop_reason_has_its_finish_reason(word: str, reason: str) -> None:
    assert reason in {"stop", "length", "tool_calls", "content_filter"}
    for _, joined in results(case(word, {}, TEXT, stop=word)):
        assert joined.end is not None
        assert (joined.end.finish_reason, joined.end.raw_finish_reason) == (reason, word)


@pytest.mark.parametrize(("word", "kind"), bedrock_converse.FINISH_ERRORS.items())
def test_each_word_of_a_broken_response_is_an_error(word: str, kind: str) -> None:
    for _, joined in results(case(word, {}, TEXT, stop=word)):
        assert joined.error is not None
        assert (joined.kind, joined.content, word in joined.error.message) == (kind, "hello", True)


@pytest.mark.parametrize("word", ["tired", "END_TURN", "x" * 1000])
def test_an_unknown_stop_reason_is_never_stop(word: str) -> None:
    for _, joined in results(case(word, {}, TEXT, stop=word)):
        assert joined.end is not None
        assert (joined.end.finish_reason, joined.end.raw_finish_reason) == (None, word)


@pytest.mark.parametrize(
    ("status", "type", "kind"),
    [
        (429, "ThrottlingException:http://internal.amazon.com/coral/com.amazon.bedrock/", "rate_limited"),
        (400, "ThrottlingException", "rate_limited"),
        (400, "ValidationException", "rejected_by_provider"),
        (403, "AccessDeniedException", "permission"),
        (403, "UnrecognizedClientException", "authentication"),
        (403, "ExpiredTokenException", "authentication"),
        (404, "ResourceNotFoundException", "model_not_found"),
        (408, "ModelTimeoutException", "timeout"),
        (424, "ModelErrorException", "provider_unavailable"),
        (429, "ModelNotReadyException", "provider_unavailable"),
        (500, "InternalServerException", "provider_unavailable"),
        (503, "ServiceUnavailableException", "provider_unavailable"),
    ],
)
def test_each_error_response_has_its_kind(status: int, type: str, kind: str) -> None:
    failed = BedrockConverse.error(status, {"x-amzn-errortype": type}, b'{"message":"the words"}')
    assert (failed.kind, failed.message, failed.status) == (kind, "the words", status)


def test_usage_has_every_number_and_null_where_the_provider_has_none() -> None:
    cached = {**USAGE, "cacheReadInputTokens": 100, "cacheWriteInputTokens": 10}
    older = {**USAGE, "cacheReadInputTokenCount": 100, "cacheWriteInputTokenCount": 10}
    assert bedrock_converse.usage_of(cached) == bedrock_converse.usage_of(older) == TokenUsage(113, 2, 115, 100, 10)
    assert bedrock_converse.usage_of(USAGE) == TokenUsage(3, 2, 5)
    assert bedrock_converse.usage_of({"outputTokens": 2}) == TokenUsage(None, 2, None)
    assert bedrock_converse.usage_of({"totalTokens": 2}) == TokenUsage(None, None, 2)
    assert bedrock_converse.usage_of({"inputTokens": "3", "outputTokens": 2**70}) is None


ALL_CASES = repr([case.data for case in CASES]) + json.dumps([case.body for case in CASES if not isinstance(case.body, bytes)])


@pytest.mark.parametrize("name", [*bedrock_converse.EVENTS, *bedrock_converse.BLOCKS, *bedrock_converse.DELTAS])
def test_each_row_is_in_a_case(name: str) -> None:
    assert name in ALL_CASES


@pytest.mark.parametrize("kind", ["video", "document", "searchResult", "guardContent", "audio", "cachePoint"])
def test_each_kind_of_block_without_a_row_is_kept_whole(kind: str) -> None:
    for _, joined in results(case(kind, {}, {kind: {"x": [1]}}, TEXT)):
        assert joined.fields == {"content_blocks": [{kind: {"x": [1]}}]}
        assert joined.end is not None
        assert joined.end.kept == [f"message.content.{kind}"]


@pytest.mark.parametrize("value", ["text", 5, {"a": 1}, [1, 2]])
def test_what_no_table_has_is_kept_and_named(value: Any) -> None:
    for _, joined in results(case("", {}, TEXT, surprise=value)):
        assert joined.fields == {"surprise": value}
        assert joined.end is not None
        assert joined.end.kept == ["response.surprise"]


# ---- any bytes -------------------------------------------------------------------------------------------------------------------


@given(data=st.binary(max_size=300), at=st.integers(0, 2000), framed=st.booleans())
def test_any_bytes_give_a_result_or_an_error(data: bytes, at: int, framed: bool) -> None:
    good = aws_frames.converse(*message_events(RICH)) if framed else b""
    joined = streamed(BedrockConverse, good[:at] + data + good[at:], [len(good[:at])])
    assert joined.error is None or joined.kind in KINDS
    joined = plain(BedrockConverse, data)
    assert joined.error is None or joined.kind in KINDS


@given(st.lists(st.integers(0, 5000), max_size=40))
def test_random_cuts(cuts: list[int]) -> None:
    data = aws_frames.converse(*message_events(RICH))
    whole = streamed(BedrockConverse, data)
    assert whole.error is None
    assert streamed(BedrockConverse, data, [cut for cut in cuts if cut < len(data)]).comparable() == whole.comparable()


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 50_000, '{"a":' * 500 + "1" + "}" * 500, "1e999", '"\\ud83d"'])
def test_hostile_json(value: str) -> None:
    bodies = (
        '{"output":{"message":{"content":[{"toolUse":{"input":%s,"x":%s}}]}},"stopReason":"end_turn"}',
        '{"output":{"message":{"content":[{"x":%s}]}},"stopReason":%s}',
    )
    events = (
        ("contentBlockDelta", '{"contentBlockIndex":%s,"delta":{"x":%s}}'),
        ("metadata", '{"usage":{"inputTokens":%s},"x":%s}'),
    )
    found = [plain(BedrockConverse, (text % (value, value)).encode()) for text in bodies]
    found += [streamed(BedrockConverse, aws_frames.event(name, (text % (value, value)).encode())) for name, text in events]
    assert all(joined.error is None or joined.kind in KINDS for joined in found)
