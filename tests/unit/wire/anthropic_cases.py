"""Anthropic's Messages: cases from public reports in all three forms: plain, as events, and in Bedrock's frames."""

from __future__ import annotations

import json
from typing import Any

from bridge_worker.backends.wire.anthropic import Anthropic
from tests.unit.wire import aws_frames
from tests.unit.wire.three_forms import FormCase, Json

USAGE = {"input_tokens": 3, "output_tokens": 2}


def body(*blocks: Any, stop: Any = "end_turn", **more: Any) -> Json:
    whole = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "content": list(blocks)}
    return {**whole, "stop_reason": stop, "stop_sequence": None, "usage": USAGE, **more}


def halves(text: str) -> list[str]:
    return [part for part in (text[: len(text) // 2], text[len(text) // 2 :]) if part]


def list_of(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def block_events(index: int, block: Any) -> list[Json]:
    """The events of a content block, as Anthropic sends them."""
    kind = block.get("type") if isinstance(block, dict) else None
    start, deltas = block, []
    if kind == "text" and isinstance(block.get("text"), str):
        start = {**block, "text": ""}
        start.pop("citations", None)
        deltas = [{"type": "text_delta", "text": part} for part in halves(block["text"])]
        deltas += [{"type": "citations_delta", "citation": citation} for citation in list_of(block.get("citations"))]
    elif kind == "thinking" and isinstance(block.get("thinking"), str):
        start = {**block, "thinking": "", "signature": ""}
        deltas = [{"type": "thinking_delta", "thinking": part} for part in halves(block["thinking"])]
        deltas += [{"type": "signature_delta", "signature": block.get("signature", "")}]
    elif kind in ("tool_use", "server_tool_use") and "input" in block:
        start = {**block, "input": {}}
        deltas = [{"type": "input_json_delta", "partial_json": ""}]
        deltas += [{"type": "input_json_delta", "partial_json": part} for part in halves(json.dumps(block["input"]))]
    elif kind == "compaction" and isinstance(block.get("content"), str):
        start = {**block, "content": None}
        deltas = [{"type": "compaction_delta", "content": part} for part in halves(block["content"])]
    return [
        {"type": "content_block_start", "index": index, "content_block": start},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def message_events(whole: Any) -> list[Any]:
    """The events of a body; a body that is not one is an event itself."""
    if not isinstance(whole, dict) or not isinstance(whole.get("content"), list):
        return [whole]
    usage = whole.get("usage")
    start = {**whole, "content": [], "stop_reason": None, "stop_sequence": None}
    if isinstance(usage, dict):
        start["usage"] = {**usage, "output_tokens": 1 if usage.get("output_tokens") else 0}
    ends = ("stop_reason", "stop_sequence", "stop_details", "container")
    rest = {name: start.pop(name) for name in ("context_management", "stop_details", "container") if name in start}
    delta = {**{name: whole[name] for name in ends if name in whole}}
    blocks = [event for index, block in enumerate(whole["content"]) for event in block_events(index, block)]
    end = {"type": "message_delta", "delta": delta, "usage": usage}
    if "context_management" in rest:
        end["context_management"] = rest["context_management"]
    return [{"type": "message_start", "message": start}, {"type": "ping"}, *blocks, end, {"type": "message_stop"}]


def sse(*values: Any) -> bytes:
    parts = []
    for value in values:
        name = value.get("type") if isinstance(value, dict) else None
        parts.append(
            (f"event: {name}\n" if isinstance(name, str) and name.isprintable() else "") + f"data: {json.dumps(value)}\n\n"
        )
    return "".join(parts).encode("utf-8", "replace")


def frames(*values: Any) -> bytes:
    return b"".join(aws_frames.chunk(value) for value in values)


def forms(*events: Any) -> dict[str, bytes]:
    return {"events": sse(*events), "frames": frames(*events)}


def case(name: str, expected: Json, *blocks: Any, **more: Any) -> FormCase:
    whole = body(*blocks, **more)
    return FormCase(name, Anthropic, expected, whole, forms(*message_events(whole)))


def stream_case(name: str, expected: Json, *events: Any) -> FormCase:
    return FormCase(name, Anthropic, expected, data=forms(*events))


def call(arguments: str, name: str = "f", id: str = "t1", index: int = 0, fields: Json | None = None) -> Json:
    return {"index": index, "id": id, "name": name, "arguments": arguments, "fields": fields or {}}


TEXT = {"type": "text", "text": "hello"}
THINKING = {"type": "thinking", "thinking": "let me see", "signature": "c2lnbmF0dXJl+/=="}
REDACTED = {"type": "redacted_thinking", "data": "cmVkYWN0ZWQ+/=="}
TOOL = {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}}
SEARCH = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "q"}}
FOUND = {
    "type": "web_search_tool_result",
    "tool_use_id": "srvtoolu_1",
    "content": [{"type": "web_search_result", "url": "https://x.example", "encrypted_content": "ZW5j"}],
}
FETCHED = {"type": "web_fetch_tool_result", "tool_use_id": "srvtoolu_1", "content": {"type": "web_fetch_result", "url": "u"}}
RAN = {"type": "bash_code_execution_tool_result", "tool_use_id": "srvtoolu_2", "content": {"stdout": "1", "return_code": 0}}
COMPACTION = {"type": "compaction", "content": "a summary"}
CITATION = {"type": "char_location", "cited_text": "t", "document_index": 0, "start_char_index": 0, "end_char_index": 1}
SERVER_CALL = {"id": "srvtoolu_1", "type": "function", "function": {"name": "web_search", "arguments": '{"query": "q"}'}}
START = {"type": "message_start", "message": body(stop=None, usage={"input_tokens": 3, "output_tokens": 1})}
BEGUN = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
HI = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hi"}}
ENDED = {"type": "content_block_stop", "index": 0}
END = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}}
STOP = {"type": "message_stop"}
HTML = b"<html><head><title>502 Bad Gateway</title></head></html>"


def error(kind: str, message: str = "the words") -> Json:
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}


CASES = [
    case(
        "text",
        {"content": "hello", "finish_reason": "stop", "usage": (3, 2, 5), "id": "msg_1", "model": "claude", "kept": []},
        TEXT,
    ),
    case("several texts", {"content": "hellohello"}, TEXT, TEXT),
    case("an empty text", {"content": "", "finish_reason": "stop"}, {"type": "text", "text": ""}),
    case("no block at all", {"content": "", "finish_reason": "stop"}),
    case(
        "thinking comes back byte for byte",
        {"reasoning": "let me see", "thinking_blocks": [THINKING], "content": "hello", "kept": []},
        THINKING,
        TEXT,
    ),
    case(
        "redacted thinking comes back byte for byte", {"reasoning": "", "thinking_blocks": [REDACTED], "kept": []}, REDACTED, TEXT
    ),
    case(
        "interleaved thinking stays separate blocks",
        {"thinking_blocks": [THINKING, REDACTED, {**THINKING, "thinking": "again"}], "reasoning": "let me seeagain"},
        THINKING,
        REDACTED,
        TEXT,
        {**THINKING, "thinking": "again"},
    ),
    case(
        "a signature without thinking (display omitted)",
        {"thinking_blocks": [{"type": "thinking", "thinking": "", "signature": "c2ln"}], "reasoning": ""},
        {"type": "thinking", "thinking": "", "signature": "c2ln"},
        TEXT,
    ),
    case("a tool call", {"calls": [call('{"a": 1}')], "finish_reason": "tool_calls", "kept": []}, TOOL, stop="tool_use"),
    case(
        "two tool calls behind a text are numbered from 0",
        {"calls": [call('{"a": 1}'), call('{"a": 1}', id="t2", index=1)], "content": "hello"},
        TEXT,
        TOOL,
        {**TOOL, "id": "t2"},
        stop="tool_use",
    ),
    case("a tool call without arguments", {"calls": [call("{}")]}, {**TOOL, "input": {}}, stop="tool_use"),
    case(
        "a tool call by the provider's code keeps its caller",
        {"calls": [call('{"a": 1}', fields={"caller": {"type": "code_execution", "tool_id": "s"}})]},
        {**TOOL, "caller": {"type": "code_execution", "tool_id": "s"}},
        stop="tool_use",
    ),
    case(
        "LiteLLM's tool for a response_format is the text",
        {"content": '{"a": 1}', "calls": [], "finish_reason": "tool_calls"},
        {**TOOL, "name": "json_tool_call"},
        stop="tool_use",
    ),
    case(
        "tools that the provider runs are not the caller's",
        {
            "calls": [],
            "content": "hello",
            "finish_reason": "stop",
            "fields": {"server_tool_calls": [SERVER_CALL], "web_search_results": [FOUND]},
            "kept": ["message.content.server_tool_use", "message.content.web_search_tool_result"],
        },
        SEARCH,
        FOUND,
        TEXT,
    ),
    case(
        "a turn that pauses in a provider's tool",
        {"calls": [], "finish_reason": None, "raw_finish_reason": "pause_turn", "fields": {"server_tool_calls": [SERVER_CALL]}},
        SEARCH,
        stop="pause_turn",
    ),
    case(
        "provider's and caller's tools in one message",
        {
            "calls": [call('{"a": 1}')],
            "fields": {"server_tool_calls": [SERVER_CALL], "web_search_results": [FETCHED], "tool_results": [RAN]},
        },
        SEARCH,
        FETCHED,
        RAN,
        TOOL,
        stop="tool_use",
    ),
    case(
        "citations",
        {"content": "hello", "annotations": [CITATION, {**CITATION, "document_index": 1}], "kept": []},
        {**TEXT, "citations": [CITATION, {**CITATION, "document_index": 1}]},
    ),
    case("citations null", {"content": "hello", "annotations": []}, {**TEXT, "citations": None}),
    case("a compaction", {"fields": {"compaction_blocks": [COMPACTION]}, "content": "hello"}, COMPACTION, TEXT),
    case(
        "a container",
        {"fields": {"container": {"id": "c", "expires_at": "x"}}, "kept": ["response.container"]},
        TEXT,
        container={"id": "c", "expires_at": "x"},
    ),
    case(
        "context management",
        {"fields": {"context_management": {"applied_edits": [{"type": "e"}]}}},
        TEXT,
        context_management={"applied_edits": [{"type": "e"}]},
    ),
    case(
        "a refusal with its explanation",
        {"finish_reason": "content_filter", "raw_finish_reason": "refusal", "refusal": "not this"},
        stop="refusal",
        stop_details={"type": "refusal", "category": "bio", "explanation": "not this"},
    ),
    case(
        "a stop sequence",
        {"finish_reason": "stop", "raw_finish_reason": "stop_sequence", "fields": {"stop_sequence": "END"}},
        TEXT,
        stop="stop_sequence",
        stop_sequence="END",
    ),
    case(
        "a block of an unknown kind",
        {"fields": {"content_blocks": [{"type": "hologram", "x": 1}]}},
        {"type": "hologram", "x": 1},
        TEXT,
    ),
    case(
        "cached tokens are input tokens",
        {"usage": (113, 2, 115)},
        TEXT,
        usage={**USAGE, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 10},
    ),
    case("no usage", {"usage": None}, TEXT, usage=None),
    case("usage of zeros", {"usage": None}, TEXT, usage={"input_tokens": 0, "output_tokens": 0}),
    stream_case("a stream without content_block_start", {"content": "hi", "usage": (3, 2, 5)}, START, HI, END, STOP),
    stream_case(
        "thinking without content_block_start or stop",
        {"reasoning": "a", "thinking_blocks": [{"type": "thinking", "thinking": "a", "signature": "s"}]},
        START,
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "a"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "s"}},
        END,
        STOP,
    ),
    stream_case(
        "a gateway's input tokens come in the last event",
        {"usage": (11, 5, 16)},
        {"type": "message_start", "message": {"usage": {"input_tokens": 0, "output_tokens": 0}}},
        HI,
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"input_tokens": 11, "output_tokens": 5}},
        STOP,
    ),
    stream_case(
        "zeros in the last event do not overwrite",
        {"usage": (3, 2, 5)},
        START,
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"input_tokens": 0, "output_tokens": 2}},
        STOP,
    ),
    stream_case("no usage in the last event", {"content": "hi", "usage": (3, 1, 4)}, START, HI, {**END, "usage": None}, STOP),
    stream_case("no message_stop", {"content": "hi", "finish_reason": "stop"}, START, BEGUN, HI, ENDED, END),
    stream_case(
        "an event of an unknown type",
        {"content": "hi", "kept": ["event.sparkle"]},
        START,
        {"type": "sparkle", "x": 1},
        HI,
        END,
        STOP,
    ),
    stream_case(
        "input that comes whole in the start",
        {"calls": [call('{"a": 1}')]},
        START,
        {"type": "content_block_start", "index": 0, "content_block": TOOL},
        ENDED,
        END,
        STOP,
    ),
    stream_case(
        "overloaded before the first delta", {"kind": "provider_unavailable", "text": "the words"}, START, error("overloaded_error")
    ),
    stream_case(
        "overloaded in mid-stream", {"kind": "provider_unavailable", "content": "hi"}, START, BEGUN, HI, error("overloaded_error")
    ),
    stream_case("cut off", {"kind": "stream_interrupted", "content": "hi"}, START, BEGUN, HI),
    stream_case("cut off before any text", {"kind": "bad_upstream_response"}, START),
    FormCase(
        "an error in a 200",
        Anthropic,
        {"kind": "rate_limited", "text": "the words"},
        error("rate_limit_error"),
        forms(error("rate_limit_error")),
    ),
    FormCase(
        "JSON instead of a stream",
        Anthropic,
        {"content": "hello", "finish_reason": "stop"},
        body(TEXT),
        {"json": json.dumps(body(TEXT)).encode()},
    ),
    FormCase(
        "a JSON error instead of a stream",
        Anthropic,
        {"kind": "authentication"},
        data={"json": json.dumps(error("authentication_error")).encode()},
    ),
    FormCase("HTML with status 200", Anthropic, {"kind": "bad_upstream_response", "text": "502 Bad Gateway"}, HTML, {"html": HTML}),
    FormCase("an empty body", Anthropic, {"kind": "bad_upstream_response"}, b"", {"empty": b""}),
    FormCase("content missing", Anthropic, {"kind": "bad_upstream_response"}, {"id": "x", "type": "message"}),
    FormCase("content as a text", Anthropic, {"content": "hi"}, {**body(), "content": "hi"}),
    FormCase("a stream although none was requested", Anthropic, {"content": "hi"}, sse(START, BEGUN, HI, ENDED, END, STOP)),
    FormCase("frames although none were requested", Anthropic, {"content": "hi"}, frames(START, BEGUN, HI, ENDED, END, STOP)),
    FormCase(
        "an event that is not JSON",
        Anthropic,
        {"kind": "bad_upstream_response", "text": "oops"},
        data={"events": b"event: message_start\ndata: oops\n\n"},
    ),
    FormCase(
        "an exception in mid-stream",
        Anthropic,
        {"kind": "rate_limited", "content": "hi", "text": "slow down"},
        data={"frames": frames(START, BEGUN, HI) + aws_frames.exception("throttlingException", {"message": "slow down"})},
    ),
    FormCase(
        "a frame without bytes", Anthropic, {"content": "hi"}, data={"frames": aws_frames.event("chunk", HI) + frames(END, STOP)}
    ),
    FormCase(
        "a frame of bad base64",
        Anthropic,
        {"kind": "bad_upstream_response"},
        data={"frames": aws_frames.event("chunk", {"bytes": "%%%"})},
    ),
    FormCase(
        "a guardrail of Bedrock",
        Anthropic,
        {"content": "hello", "finish_reason": "content_filter", "raw_finish_reason": "end_turn"},
        {**body(TEXT), "amazon-bedrock-guardrailAction": "INTERVENED"},
        {"frames": frames(*message_events(body(TEXT))[:-1], {**STOP, "amazon-bedrock-guardrailAction": "INTERVENED"})},
    ),
]

# A response with a part of each kind.
RICH = body(THINKING, {**TEXT, "citations": [CITATION]}, SEARCH, FOUND, TOOL, stop="tool_use", stop_details={"explanation": "x"})
