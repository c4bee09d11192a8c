"""Bedrock's Converse: its tables, and cases from public reports, plain and in AWS's frames."""

from __future__ import annotations

import base64
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
from tests.unit.wire.joined import plain, streamed
from tests.unit.wire.three_forms import FormCase, Json, check_case, check_cuts, check_hostile, check_truncated, results

USAGE = {"inputTokens": 3, "outputTokens": 2, "totalTokens": 5}
Event = tuple[str, Any]


def body(*blocks: Any, stop: Any = "end_turn", **more: Any) -> Json:
    message = {"role": "assistant", "content": list(blocks)}
    return {"output": {"message": message}, "stopReason": stop, "usage": USAGE, "metrics": {"latencyMs": 10}, **more}


def halves(text: str) -> list[str]:
    return [part for part in (text[: len(text) // 2], text[len(text) // 2 :]) if part]


def block_events(index: int, block: Any) -> list[Event]:
    """The events of a content block, as Bedrock sends them: only a tool, an image and others have a start."""
    start: Any = None
    deltas: list[Any] = []
    for kind, value in block.items() if isinstance(block, dict) else [("text", block)]:
        members = value if isinstance(value, dict) else {}
        if kind == "text":
            deltas += [{"text": part} for part in halves(value)] if isinstance(value, str) else [{"text": value}]
        elif kind == "toolUse":
            start = {"toolUse": {name: member for name, member in members.items() if name != "input"}}
            deltas += [{"toolUse": {"input": part}} for part in ["", *halves(json.dumps(members.get("input", {})))]]
        elif kind == "reasoningContent":
            deltas += reasoning_deltas(value)
        elif kind == "citationsContent":
            deltas += [{"text": part.get("text")} for part in list_of(members.get("content")) if isinstance(part, dict)]
            deltas += [{"citation": citation} for citation in list_of(members.get("citations"))]
        elif kind == "image" and isinstance(members.get("source"), dict):
            start = {"image": {"format": members.get("format")}}
            deltas += [{"image": {"source": members["source"]}}]
        else:
            start = {kind: value}
    started = [("contentBlockStart", {"contentBlockIndex": index, "start": start})] if start is not None else []
    return [
        *started,
        *(("contentBlockDelta", {"contentBlockIndex": index, "delta": delta, "p": "abc"}) for delta in deltas),
        ("contentBlockStop", {"contentBlockIndex": index}),
    ]


def list_of(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def reasoning_deltas(value: Any) -> list[Any]:
    text = value.get("reasoningText") if isinstance(value, dict) else value
    if not isinstance(text, dict):
        return [{"reasoningContent": value}]
    deltas: list[Any] = [
        {"reasoningContent": {"text": part}}
        for part in (halves(text.get("text")) if isinstance(text.get("text"), str) else [text.get("text")])
    ]
    return [*deltas, {"reasoningContent": {"signature": text["signature"]}}] if "signature" in text else deltas


def message_events(whole: Any) -> list[Event]:
    try:
        content = whole["output"]["message"]["content"]
        blocks = [event for index, block in enumerate(content) for event in block_events(index, block)]
    except (TypeError, KeyError):
        return [("messageStart", whole)]
    stop = {name: whole[name] for name in ("stopReason", "additionalModelResponseFields") if name in whole}
    rest = {name: member for name, member in whole.items() if name not in {"output", *stop}}
    return [("messageStart", {"role": "assistant"}), *blocks, ("messageStop", stop), ("metadata", rest)]


def case(name: str, expected: Json, *blocks: Any, **more: Any) -> FormCase:
    whole = body(*blocks, **more)
    return FormCase(name, BedrockConverse, expected, whole, {"frames": aws_frames.converse(*message_events(whole))})


def stream_case(name: str, expected: Json, *events: Event, raw: bytes = b"") -> FormCase:
    return FormCase(name, BedrockConverse, expected, data={"frames": aws_frames.converse(*events) + raw})


def call(arguments: str, name: str = "f", id: str = "t1", index: int = 0, fields: Json | None = None) -> Json:
    return {"index": index, "id": id, "name": name, "arguments": arguments, "fields": fields or {}}


TEXT = {"text": "hello"}
TOOL = {"toolUse": {"toolUseId": "t1", "name": "f", "input": {"a": 1}}}
THINKING = {"reasoningContent": {"reasoningText": {"text": "let me see", "signature": "c2lnbmF0dXJl+/=="}}}
NATIVE = "cmVkYWN0ZWQ+/w=="
REDACTED = {"reasoningContent": {"redactedContent": base64.b64encode(NATIVE.encode()).decode()}}
BYTES = base64.b64encode(b"\xff\x00").decode()
BLOCK = {"type": "thinking", "thinking": "let me see", "signature": "c2lnbmF0dXJl+/=="}
CITATION = {"title": "T", "location": {"web": {"url": "https://x.example"}}, "sourceContent": [{"text": "s"}]}
CITED = {"citationsContent": {"content": [{"text": "hello"}], "citations": [CITATION]}}
IMAGE = {"image": {"format": "png", "source": {"bytes": "AAAA"}}}
SERVED = {"toolUse": {"toolUseId": "s1", "name": "nova_grounding", "type": "server_tool_use", "input": {"q": 1}}}
RESULT = {"toolResult": {"toolUseId": "s1", "type": "nova_grounding_result", "content": [{"json": {}}]}}
GUARD = {"guardrail": {"inputAssessment": {"g": {"topicPolicy": {"topics": []}}}}}
BEGUN: Event = ("messageStart", {"role": "assistant"})
HI: Event = ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "hi"}})
STOP: Event = ("messageStop", {"stopReason": "end_turn"})
META: Event = ("metadata", {"usage": USAGE, "metrics": {"latencyMs": 1}})
HTML = b"<html><head><title>503 Service Unavailable</title></head></html>"

CASES = [
    case("text", {"content": "hello", "finish_reason": "stop", "usage": (3, 2, 5), "kept": []}, TEXT),
    case("several texts", {"content": "hellohello"}, TEXT, TEXT),
    case("no block at all", {"content": "", "finish_reason": "stop"}),
    case("a tool call", {"calls": [call('{"a": 1}')], "finish_reason": "tool_calls", "kept": []}, TOOL, stop="tool_use"),
    case(
        "two tool calls behind a text",
        {"content": "hello", "calls": [call('{"a": 1}'), call('{"a": 1}', id="t2", index=1)]},
        TEXT,
        TOOL,
        {"toolUse": {**TOOL["toolUse"], "toolUseId": "t2"}},
        stop="tool_use",
    ),
    case(
        "a tool call without arguments",
        {"calls": [call("{}")]},
        {"toolUse": {"toolUseId": "t1", "name": "f", "input": {}}},
        stop="tool_use",
    ),
    case(
        "LiteLLM's tool for a response_format is the text",
        {"content": '{"a": 1}', "calls": []},
        {"toolUse": {**TOOL["toolUse"], "name": "json_tool_call"}},
        stop="tool_use",
    ),
    case("reasoning comes back byte for byte", {"reasoning": "let me see", "thinking_blocks": [BLOCK], "kept": []}, THINKING, TEXT),
    case(
        "reasoning with a signature and no text",
        {"reasoning": "", "thinking_blocks": [{"type": "thinking", "thinking": "", "signature": "c2ln"}]},
        {"reasoningContent": {"reasoningText": {"text": "", "signature": "c2ln"}}},
        TEXT,
    ),
    case(
        "reasoning without a signature",
        {"reasoning": "mm", "thinking_blocks": [{"type": "thinking", "thinking": "mm"}]},
        {"reasoningContent": {"reasoningText": {"text": "mm"}}},
        TEXT,
    ),
    case(
        "redacted reasoning comes back byte for byte",
        {"thinking_blocks": [{"type": "redacted_thinking", "data": NATIVE}], "kept": []},
        REDACTED,
        TEXT,
    ),
    case(
        "reasoning, redacted and not, stays separate blocks",
        {"thinking_blocks": [BLOCK, {"type": "redacted_thinking", "data": NATIVE}, BLOCK]},
        THINKING,
        REDACTED,
        THINKING,
        TEXT,
    ),
    case("citations", {"content": "hello", "annotations": [{"type": "citation", **CITATION}], "kept": []}, CITED),
    case("an image", {"images": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}], "kept": []}, IMAGE),
    case(
        "a tool that the provider runs is not the caller's",
        {
            "calls": [],
            "content": "hello",
            "fields": {"content_blocks": [SERVED, RESULT]},
            "kept": ["message.content.toolUse.server_tool_use", "message.content.toolResult"],
        },
        SERVED,
        RESULT,
        TEXT,
    ),
    case("a block of an unknown kind", {"fields": {"content_blocks": [{"hologram": {"x": 1}}]}}, {"hologram": {"x": 1}}, TEXT),
    case(
        "a guardrail and its trace",
        {"content": "no", "finish_reason": "content_filter", "fields": {"trace": GUARD}, "kept": ["response.trace"]},
        {"text": "no"},
        stop="guardrail_intervened",
        trace=GUARD,
    ),
    case(
        "additional fields of the model",
        {"fields": {"additionalModelResponseFields": {"stop_sequence": "END"}}},
        TEXT,
        additionalModelResponseFields={"stop_sequence": "END"},
    ),
    case(
        "cached tokens are input tokens",
        {"usage": (113, 2, 115)},
        TEXT,
        usage={**USAGE, "cacheReadInputTokens": 100, "cacheWriteInputTokens": 10},
    ),
    case("no usage", {"usage": None}, TEXT, usage=None),
    case(
        "a malformed tool call, with the text",
        {"kind": "bad_upstream_response", "text": "malformed_tool_use", "content": "hello"},
        TEXT,
        stop="malformed_tool_use",
    ),
    stream_case("a text in a block that is never stopped", {"content": "hi", "usage": (3, 2, 5)}, BEGUN, HI, STOP, META),
    stream_case(
        "reasoning in a block that is never stopped",
        {"thinking_blocks": [{"type": "thinking", "thinking": "a", "signature": "s"}]},
        ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"reasoningContent": {"text": "a"}}}),
        ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"reasoningContent": {"signature": "s"}}}),
        STOP,
        META,
    ),
    stream_case(
        "redacted reasoning in a start",
        {"thinking_blocks": [{"type": "redacted_thinking", "data": BYTES}]},
        ("contentBlockStart", {"contentBlockIndex": 0, "start": {"reasoningContent": {"redactedContent": BYTES}}}),
        ("contentBlockStop", {"contentBlockIndex": 0}),
        STOP,
    ),
    stream_case(
        "redacted reasoning in parts with their own padding",
        {"thinking_blocks": [{"type": "redacted_thinking", "data": "abcd"}]},
        (
            "contentBlockDelta",
            {"contentBlockIndex": 0, "delta": {"reasoningContent": {"redactedContent": base64.b64encode(b"ab").decode()}}},
        ),
        (
            "contentBlockDelta",
            {"contentBlockIndex": 0, "delta": {"reasoningContent": {"redactedContent": base64.b64encode(b"cd").decode()}}},
        ),
        ("contentBlockStop", {"contentBlockIndex": 0}),
        STOP,
    ),
    stream_case("no metadata", {"content": "hi", "finish_reason": "stop", "usage": None}, BEGUN, HI, STOP),
    stream_case("an unknown event", {"content": "hi", "kept": ["event.sparkle"]}, BEGUN, ("sparkle", {"x": 1}), HI, STOP, META),
    stream_case("the first frame of AWS", {"content": "hi", "kept": []}, ("initial-response", {}), BEGUN, HI, STOP, META),
    stream_case(
        "throttled before the first delta",
        {"kind": "rate_limited", "text": "slow"},
        BEGUN,
        raw=aws_frames.exception("throttlingException", {"message": "slow"}),
    ),
    stream_case(
        "a fault of the model in mid-stream",
        {"kind": "provider_unavailable", "content": "hi", "text": "try your request again"},
        BEGUN,
        HI,
        raw=aws_frames.exception("modelStreamErrorException", {"message": "m", "originalMessage": "try your request again"}),
    ),
    stream_case(
        "a full context in mid-stream",
        {"kind": "context_length_exceeded"},
        BEGUN,
        raw=aws_frames.exception(
            "validationException", {"message": "The model returned the following errors: Input is too long for requested model."}
        ),
    ),
    stream_case(
        "an exception as an event",
        {"kind": "provider_unavailable", "text": "w"},
        BEGUN,
        ("internalServerException", {"message": "w"}),
    ),
    stream_case("cut off", {"kind": "stream_interrupted", "content": "hi"}, BEGUN, HI),
    stream_case("cut off before any text", {"kind": "bad_upstream_response"}, BEGUN),
    stream_case(
        "a call without a start has no name",
        {"calls": [{**call("{}"), "id": None, "name": None}]},
        ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"toolUse": {"input": "{}"}}}),
        STOP,
    ),
    FormCase(
        "a damaged frame",
        BedrockConverse,
        {"kind": "bad_upstream_response", "content": "hi", "text": "damaged"},
        data={"frames": aws_frames.converse(BEGUN, HI) + aws_frames.event("messageStop", {})[:-1] + b"x"},
    ),
    FormCase("no output", BedrockConverse, {"kind": "bad_upstream_response"}, {"stopReason": "end_turn", "usage": USAGE}),
    FormCase("output null", BedrockConverse, {"kind": "bad_upstream_response"}, {"output": None, "stopReason": "end_turn"}),
    FormCase("message null", BedrockConverse, {"kind": "bad_upstream_response"}, {"output": {"message": None}}),
    FormCase(
        "an unknown operation, with status 200",
        BedrockConverse,
        {"kind": "bad_upstream_response", "text": "UnknownOperation"},
        {"Output": {"__type": "com.amazon.coral.service#UnknownOperationException"}, "Version": "1.0"},
    ),
    FormCase(
        "an error in a 200",
        BedrockConverse,
        {"kind": "rate_limited", "text": "slow"},
        {"__type": "ThrottlingException", "message": "slow"},
        {"json": b'{"__type":"ThrottlingException","message":"slow"}'},
    ),
    FormCase(
        "JSON instead of a stream",
        BedrockConverse,
        {"content": "hello", "finish_reason": "stop"},
        body(TEXT),
        {"json": json.dumps(body(TEXT)).encode()},
    ),
    FormCase("frames although none were requested", BedrockConverse, {"content": "hi"}, aws_frames.converse(BEGUN, HI, STOP, META)),
    FormCase(
        "HTML with status 200",
        BedrockConverse,
        {"kind": "bad_upstream_response", "text": "503 Service Unavailable"},
        HTML,
        {"html": HTML},
    ),
    FormCase("an empty body", BedrockConverse, {"kind": "bad_upstream_response"}, b"", {"empty": b""}),
    FormCase(
        "an event that is not JSON",
        BedrockConverse,
        {"kind": "bad_upstream_response", "text": "oops"},
        data={"frames": aws_frames.event("messageStart", b"oops")},
    ),
]
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


def test_usage_has_every_number_and_null_where_there_is_none() -> None:
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

RICH = body(THINKING, REDACTED, TEXT, CITED, IMAGE, SERVED, RESULT, TOOL, stop="tool_use", trace=GUARD)


def test_hostile_values_in_every_place() -> None:
    check_hostile(BedrockConverse, RICH, lambda changed: aws_frames.converse(*message_events(changed)))


def test_hostile_values_in_every_event() -> None:
    def stream(changed: Any) -> bytes:
        pairs = [event for event in changed if isinstance(event, list) and len(event) == 2] if isinstance(changed, list) else []
        return aws_frames.converse(*((name, value) for name, value in pairs if isinstance(name, str) and name.isascii()))

    check_hostile(BedrockConverse, json.loads(json.dumps(message_events(RICH))), stream)


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
