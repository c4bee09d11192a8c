"""Responses that users of such bridges have reported in public trackers, over HTTP in each mode. Inputs are small and written here.

The decoders' cases have the older ones; each case here names the report that it follows.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest

from bridge_worker.backends.litellm.chat import LiteLLM
from tests.support.every_mode import IGNORED_WARNINGS, EveryMode, bridge, provider, raw
from tests.support.provider_formats import FORMATS, aws, sse
from tests.support.worker import Json

__all__ = ["LiteLLM", "bridge", "provider"]  # fixtures, and the import by which LiteLLM is prepared
pytestmark = IGNORED_WARNINGS


class Report(NamedTuple):
    """``data`` is a stream's bytes, or a plain body; ``expected`` are members of the result, or ``kind`` of the error."""

    name: str
    wire: str
    data: Any
    expected: Json


def chunk(delta: Any = None, finish: Any = None, **more: Any) -> Json:
    return {
        "id": "c1",
        "object": "chat.completion.chunk",
        "model": "m",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        **more,
    }


def chunks(*values: Json) -> bytes:
    return b"".join(map(sse, values)) + b"data: [DONE]\n\n"


def claude(*events: Json) -> bytes:
    start = {"id": "m1", "type": "message", "role": "assistant", "model": "claude", "content": [], "usage": {"input_tokens": 3}}
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}}
    return b"".join(
        sse(event, event["type"]) for event in ({"type": "message_start", "message": start}, *events, end, {"type": "message_stop"})
    )


def begun(index: int, block: Json) -> Json:
    return {"type": "content_block_start", "index": index, "content_block": block}


def grown(index: int, **delta: Any) -> Json:
    return {"type": "content_block_delta", "index": index, "delta": delta}


def ended(index: int) -> Json:
    return {"type": "content_block_stop", "index": index}


def gemini(*candidates: Json, **more: Any) -> bytes:
    return b"".join(sse({"candidates": [{"index": 0, **one}], "modelVersion": "gemini", **more}) for one in candidates)


def parts(*values: Json, **more: Any) -> Json:
    return {"content": {"role": "model", "parts": list(values)}, **more}


HEAD = {"index": 0, "id": "t1", "type": "function", "function": {"name": "f", "arguments": ""}}
ADDED = {
    "type": "response.output_item.added",
    "output_index": 0,
    "item": {"type": "function_call", "id": "fc", "call_id": "t1", "name": "f", "arguments": ""},
}
ARGUMENTS = {"type": "response.function_call_arguments.done", "output_index": 0, "item_id": "fc", "arguments": '{"a": 1}'}
COMPLETED = {"type": "response.completed", "response": {"id": "r", "model": "m", "status": "completed", "output": []}}


def piece(arguments: str) -> Json:
    return {"tool_calls": [{"index": 0, "function": {"arguments": arguments}}]}


TEXT, TOOL = {"type": "text", "text": ""}, {"type": "tool_use", "id": "t1", "name": "f", "input": {}}
REPORTS = [
    Report(
        "jcode 1326: a finish reason after every piece",
        "openai",
        chunks(
            chunk({"tool_calls": [HEAD]}),
            chunk({}, "stop"),
            chunk(piece('{"a"')),
            chunk({}, "stop"),
            chunk(piece(": 1}")),
            chunk({}, "tool_calls"),
        ),
        {"calls": [("f", {"a": 1})], "finish_reason": "tool_calls"},
    ),
    Report(
        "GenieX 1246, ollama 4357: an empty finish reason with each piece",
        "openai",
        chunks(chunk({"content": "a"}, ""), chunk({"content": "b"}, ""), chunk({}, "stop")),
        {"content": "ab", "finish_reason": "stop"},
    ),
    Report(
        "GenieX 1246: an empty finish reason to the end",
        "openai",
        chunks(chunk({"content": "a"}, ""), chunk({"content": "b"}, "")),
        {"kind": "stream_interrupted"},
    ),
    Report(
        "planet 10281: no finish reason before [DONE]",
        "openai",
        chunks(chunk({"content": "a"}), chunk({}, None)),
        {"kind": "stream_interrupted"},
    ),
    Report(
        "vllm 19662: the last piece has an empty content and a stop_reason",
        "vllm",
        chunks(chunk({"content": "a"}), chunk({"content": ""}, "stop")),
        {"content": "a", "finish_reason": "stop"},
    ),
    Report(
        "command-code 785: a stream that ends within the arguments",
        "openai",
        chunks(chunk({"tool_calls": [HEAD]}), chunk(piece('{"a"'))).removesuffix(b"data: [DONE]\n\n"),
        {"kind": "stream_interrupted"},
    ),
    Report(
        "vscode-unify-chat-provider 29: a choice without delta ends the stream",
        "openai",
        chunks(chunk({"content": "a"}), {"id": "c", "choices": [{"index": 0, "finish_reason": "stop"}]}),
        {"content": "a", "finish_reason": "stop"},
    ),
    Report(
        "command-code 785: an error body of a gateway's own, with status 200",
        "openai",
        {"success": False, "error": {"code": "INTERNAL_SERVER_ERROR", "status": 500, "message": "it broke"}},
        {"kind": "provider_unavailable"},
    ),
    Report(
        "litellm 24442: STOP and a content without parts",
        "gemini",
        {"candidates": [{"content": {"role": "model"}, "finishReason": "STOP", "index": 0}]},
        {"content": None, "finish_reason": "stop"},
    ),
    Report(
        "livekit 4066: STOP and a part of empty text",
        "gemini",
        gemini(parts({"text": ""}, finishReason="STOP")),
        {"content": None, "finish_reason": "stop"},
    ),
    Report(
        "pydantic-ai 2097: only thoughts, and a last candidate without content",
        "gemini",
        gemini(parts({"text": "hm", "thought": True}), {"finishReason": "STOP"}),
        {"content": None, "reasoning": "hm"},
    ),
    Report(
        "kelivo 1003: STOP in empty pieces before the text",
        "gemini",
        gemini(parts(finishReason="STOP"), parts({"text": "a"}), parts({"text": "b"}), parts(finishReason="STOP")),
        {"content": "ab", "finish_reason": "stop"},
    ),
    Report(
        "litellm 31634: a finish reason between the calls",
        "gemini",
        gemini(
            parts({"functionCall": {"name": "f", "args": {"a": 1}}}, finishReason="STOP"),
            parts({"functionCall": {"name": "g", "args": {}}}, finishReason="STOP"),
        ),
        {"calls": [("f", {"a": 1}), ("g", {})], "finish_reason": "tool_calls"},
    ),
    Report(
        "litellm 40477: NO_IMAGE and no content",
        "gemini",
        {"candidates": [{"finishReason": "NO_IMAGE", "index": 0}]},
        {"kind": "bad_upstream_response"},
    ),
    Report(
        "aimock 165: a delta of Bedrock's with Anthropic's type",
        "bedrock converse",
        aws({"contentBlockIndex": 0, "delta": {"type": "text_delta", "text": "a"}}, "contentBlockDelta")
        + aws({"stopReason": "end_turn"}, "messageStop"),
        {"content": "a", "finish_reason": "stop"},
    ),
    Report(
        "litellm 33315: an empty reasoning delta of Bedrock's",
        "bedrock converse",
        aws({"contentBlockIndex": 0, "delta": {"reasoningContent": {}}}, "contentBlockDelta")
        + aws({"contentBlockIndex": 1, "delta": {"text": "a"}}, "contentBlockDelta")
        + aws({"stopReason": "end_turn"}, "messageStop"),
        {"content": "a", "reasoning": None},
    ),
    Report(
        "neuron-ai 643: text and signature of Bedrock's reasoning come apart",
        "bedrock converse",
        aws({"contentBlockIndex": 0, "delta": {"reasoningContent": {"signature": "c2ln"}}}, "contentBlockDelta")
        + aws({"contentBlockIndex": 0}, "contentBlockStop")
        + aws({"contentBlockIndex": 1, "delta": {"text": "a"}}, "contentBlockDelta")
        + aws({"stopReason": "end_turn"}, "messageStop"),
        {"content": "a", "thinking_blocks": [{"type": "thinking", "thinking": "", "signature": "c2ln"}]},
    ),
    Report(
        "sglang 24293: a text delta for a block that is a tool's",
        "anthropic",
        claude(
            begun(0, TOOL),
            grown(0, type="input_json_delta", partial_json='{"a": 1}'),
            grown(0, type="text_delta", text="\n"),
            ended(0),
        ),
        {"calls": [("f", {"a": 1})]},
    ),
    Report(
        "ai 12718: a compaction delta of null",
        "anthropic",
        claude(
            begun(0, {"type": "compaction", "content": None}),
            grown(0, type="compaction_delta", content=None),
            ended(0),
            begun(1, TEXT),
            grown(1, type="text_delta", text="a"),
            ended(1),
        ),
        {"content": "a"},
    ),
    Report(
        "ai 14717: blocks in message_start",
        "anthropic",
        claude(
            {
                "type": "message_start",
                "message": {
                    "id": "m1",
                    "role": "assistant",
                    "content": [{"type": "code_execution_tool_result", "tool_use_id": "s1", "content": {"stdout": "1"}}],
                },
            },
            begun(0, TEXT),
            grown(0, type="text_delta", text="a"),
            ended(0),
        ),
        {"content": "a", "kept": "message.content.code_execution_tool_result", "calls": []},
    ),
    Report(
        "ai 1159: an event's name without data in a read",
        "anthropic",
        claude(begun(0, TEXT), grown(0, type="text_delta", text="a"), ended(0)).replace(b"event: ping", b""),
        {"content": "a"},
    ),
    Report(
        "litellm 27144: arguments only when they are done",
        "responses",
        b"".join(sse(event, event["type"]) for event in (ADDED, ARGUMENTS, COMPLETED)),
        {"calls": [("f", {"a": 1})], "finish_reason": "tool_calls"},
    ),
    Report(
        "litellm 39288: an error that is a flat event",
        "responses",
        sse({"type": "error", "code": "rate_limit_exceeded", "message": "slow down", "param": None}, "error"),
        {"kind": "rate_limited"},
    ),
]


@pytest.mark.parametrize("report", REPORTS, ids=[report.name for report in REPORTS])
def test_a_reported_response_has_its_right_outcome(report: Report, bridge: EveryMode) -> None:
    wire = FORMATS[report.wire]
    streamed = isinstance(report.data, bytes)
    outcome = bridge.chat(wire, raw(wire, report.data, streamed=streamed), streamed=streamed)
    expected = dict(report.expected)
    if "kind" in expected:
        assert outcome.kind == expected["kind"], outcome
        return
    assert not outcome.error, outcome.error
    result = outcome.result
    calls = expected.pop("calls", None)
    if calls is not None:
        assert [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in result["tool_calls"]] == calls
    if kept := expected.pop("kept", None):
        assert kept in result["receipt"]["kept"]
    if blocks := expected.pop("thinking_blocks", None):
        assert result["message"]["thinking_blocks"] == blocks
    assert {name: result[name] for name in expected} == expected
