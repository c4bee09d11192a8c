"""Bedrock's Converse: cases from public reports, plain and in AWS's frames."""

from __future__ import annotations

import base64
import json
from typing import Any

from bridge_worker.backends.wire.bedrock_converse import BedrockConverse
from tests.unit.wire import aws_frames
from tests.unit.wire.three_forms import FormCase, Json

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

# A response with a part of each kind.
RICH = body(THINKING, REDACTED, TEXT, CITED, IMAGE, SERVED, RESULT, TOOL, stop="tool_use", trace=GUARD)
