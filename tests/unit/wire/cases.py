"""Responses of real providers and gateways, by public reports: each case plain and streamed where both exist, whole and in bytes.

A case is a decoder, what is sent, and what must come of it. `tests/unit/wire/joined.py` joins the deltas.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from bridge_worker.backends.wire.cohere import Cohere
from bridge_worker.backends.wire.ollama import Ollama
from bridge_worker.backends.wire.openai_chat import OpenAIChat
from bridge_worker.backends.wire.openai_responses import OpenAIResponses
from tests.support.data import Json
from tests.unit.wire.joined import events


@dataclass
class Case:
    """``body`` is plain, ``data`` a stream; ``expected`` are attributes of the joined result, or of its `End` or error."""

    name: str
    make: type[Any]
    expected: Json
    body: Any = None
    data: bytes | None = None


def chunk(delta: Any = None, finish: Any = None, **more: Any) -> Json:
    return {"id": "c1", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}


def message(finish: Any = "stop", choice: Json | None = None, top: Json | None = None, **members: Any) -> Json:
    whole = {"index": 0, "message": {"role": "assistant", **members}, "finish_reason": finish, **(choice or {})}
    return {"id": "c1", "model": "m", "choices": [whole], **(top or {})}


STOP = chunk({}, "stop")
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
CALL = {"index": 0, "id": "t1", "type": "function", "function": {"name": "f", "arguments": ""}}
HI = chunk({"content": "hi"})
HTML = b"<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head></html>"


def call(**expected: Any) -> Json:
    return {"index": 0, "id": "t1", "name": "f", "arguments": "", "fields": {}, **expected}


def chat(name: str, expected: Json, body: Any = None, *stream: Any, done: bool = True) -> Case:
    return Case(name, OpenAIChat, expected, body, events(*stream, done=done) if stream else None)


CHAT = [
    # -- pieces that servers really send
    chat("delta null", {"content": "hi"}, None, chunk(None), HI, STOP),
    chat("delta missing", {"content": "hi"}, None, {"id": "c1", "choices": [{"index": 0}]}, HI, STOP),
    chat("choices null, with usage", {"content": "hi", "usage": (3, 2, 5)}, None, HI, STOP, {"choices": None, "usage": USAGE}),
    chat("choices empty, with usage", {"content": "hi", "usage": (3, 2, 5)}, None, HI, STOP, {"choices": [], "usage": USAGE}),
    chat(
        "usage beside the last choice counts once",
        {"content": "hi", "usage": (3, 2, 5)},
        message(content="hi", top={"usage": USAGE}),
        chunk({"content": "hi"}, "stop", usage=USAGE),
    ),
    chat("usage of zeros", {"usage": None}, message(content="x", top={"usage": dict.fromkeys(USAGE, 0)}), STOP),
    chat(
        "null token counts",
        {"usage": (None, 2, None)},
        message(content="x", top={"usage": {"prompt_tokens": None, "completion_tokens": 2, "prompt_tokens_details": None}}),
        STOP,
        {"choices": [], "usage": {"prompt_tokens": None, "completion_tokens": 2, "prompt_tokens_details": None}},
    ),
    chat(
        "arguments empty, missing and null",
        {"calls": [call(arguments='{"a":1}')], "finish_reason": "tool_calls"},
        None,
        chunk({"tool_calls": [CALL]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"a"'}}]}),
        chunk({"tool_calls": [{"index": 0, "function": {}}]}),
        chunk({"tool_calls": [{"index": 0}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"name": None, "arguments": None}}]}),
        chunk({"tool_calls": [{"index": 0, "id": "", "function": {"name": "", "arguments": ":1}"}}]}),
        chunk({}, "tool_calls"),
    ),
    chat(
        "arguments as an object",
        {"calls": [call(arguments='{"a": 1}')]},
        message("tool_calls", tool_calls=[{**CALL, "function": {"name": "f", "arguments": {"a": 1}}}]),
        chunk({"tool_calls": [{**CALL, "function": {"name": "f", "arguments": {"a": 1}}}]}, "tool_calls"),
    ),
    chat(
        "tool_calls null",
        {"content": "hi", "calls": []},
        message(content="hi", tool_calls=None),
        HI,
        chunk({"tool_calls": None}, "stop"),
    ),
    chat("numeric id", {"id": "17", "content": "hi"}, {**message(content="hi"), "id": 17}, {**HI, "id": 17}, STOP),
    chat(
        "content as parts",
        {"content": "hi you"},
        message(content=[{"type": "text", "text": "hi"}, {"type": "text", "text": " you"}]),
        chunk({"content": [{"type": "text", "text": "hi"}]}),
        chunk({"content": [{"text": " you"}]}, "stop"),
    ),
    chat(
        "mistral's thinking and references",
        {"reasoning": "ab", "content": "c", "annotations": [{"type": "reference", "reference_ids": [1]}]},
        message(
            content=[
                {"type": "thinking", "thinking": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
                {"type": "text", "text": "c"},
                {"type": "reference", "reference_ids": [1]},
            ]
        ),
        chunk({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "a"}]}]}),
        chunk({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "b"}]}]}),
        chunk({"content": "c"}),
        chunk({"content": [{"type": "reference", "reference_ids": [1]}]}, "stop"),
    ),
    chat(
        "an unknown part is kept",
        {"fields": {"content_parts": [{"type": "hologram", "x": 1}]}, "kept": ["message.content.hologram"]},
        message(content=[{"type": "hologram", "x": 1}]),
        chunk({"content": [{"type": "hologram", "x": 1}]}, "stop"),
    ),
    chat(
        "an unknown member is kept, in pieces too",
        {"fields": {"verdict": "yes"}, "kept": ["message.verdict"]},
        message(content="x", verdict="yes"),
        chunk({"verdict": "y"}),
        chunk({"verdict": "es"}, "stop"),
    ),
    chat(
        "legacy function_call",
        {"calls": [call(id=None, arguments="{}")], "finish_reason": "tool_calls"},
        message("function_call", content=None, function_call={"name": "f", "arguments": "{}"}),
        chunk({"function_call": {"name": "f", "arguments": ""}}),
        chunk({"function_call": {"arguments": "{}"}}, "function_call"),
    ),
    chat("refusal", {"refusal": "no."}, message(refusal="no."), chunk({"refusal": "no"}), chunk({"refusal": "."}, "stop")),
    chat(
        "audio",
        {"audio": {"id": "a", "data": "AAAA", "transcript": "hey", "expires_at": 9}},
        message(audio={"id": "a", "data": "AAAA", "transcript": "hey", "expires_at": 9}),
        chunk({"audio": {"id": "a", "transcript": "he"}}),
        chunk({"audio": {"data": "AAAA", "transcript": "y"}}),
        chunk({"audio": {"expires_at": 9}}, "stop"),
    ),
    chat(
        "images, also one without a URL that may be sent back",
        {
            "images": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}],
            "fields": {"images": [{"type": "image_url", "image_url": {"url": "file:///x"}}]},
        },
        message(
            images=[{"type": "image_url", "index": 0, "image_url": {"url": u}} for u in ("data:image/png;base64,AA",)]
            + [{"type": "image_url", "image_url": {"url": "file:///x"}}]
        ),
        chunk({"images": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]}),
        chunk({"images": [{"type": "image_url", "image_url": {"url": "file:///x"}}]}, "stop"),
    ),
    chat(
        "annotations",
        {"annotations": [{"type": "url_citation", "url_citation": {"url": "https://x"}}]},
        message(content="x", annotations=[{"type": "url_citation", "url_citation": {"url": "https://x"}}]),
        chunk({"annotations": [{"type": "url_citation", "url_citation": {"url": "https://x"}}]}, "stop"),
    ),
    chat(
        "perplexity's citations, in each event",
        {"annotations": [{"type": "url_citation", "url_citation": {"url": "https://x"}}], "cost_usd": 0.5},
        {
            **message(content="x", choice={"delta": {"role": "assistant", "content": ""}}),
            "citations": ["https://x"],
            "usage": {**USAGE, "cost": {"total_cost": 0.5}},
        },
        {**HI, "citations": ["https://x"]},
        {**STOP, "citations": ["https://x"], "usage": {**USAGE, "cost": {"total_cost": 0.5}}},
    ),
    chat(
        "logprobs with NaN and beyond a double",
        {"logprobs": [{"token": "a", "logprob": None}, {"token": "b", "logprob": None}]},
        json.dumps(
            message(content="x", choice={"logprobs": {"content": [{"token": "a", "logprob": 1}, {"token": "b", "logprob": 2}]}})
        )
        .replace('"logprob": 1', '"logprob": NaN')
        .replace('"logprob": 2', '"logprob": 1e999')
        .encode(),
        '{"choices":[{"index":0,"delta":{},"logprobs":{"content":[{"token":"a","logprob":-Infinity},{"token":"b","logprob":1e999}]}}]}',
        STOP,
    ),
    chat(
        "together's logprobs",
        {"logprobs": [{"token": "a", "logprob": -1.0}]},
        message(content="a", choice={"logprobs": {"tokens": ["a"], "token_logprobs": [-1.0]}}),
        {"choices": [{"index": 0, "delta": {"content": "a"}, "logprobs": {"tokens": ["a"], "token_logprobs": [-1.0]}}]},
        STOP,
    ),
    chat(
        "openrouter's cost and native finish reason",
        {"cost_usd": 0.001, "finish_reason": "stop", "raw_finish_reason": "STOP"},
        message(content="x", choice={"native_finish_reason": "STOP"}, top={"usage": {**USAGE, "cost": 0.001}}),
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "native_finish_reason": "STOP"}]},
        {"choices": [], "usage": {**USAGE, "cost": 0.001}},
    ),
    chat(
        "openrouter's reasoning_details, streamed in parts with the signature alone",
        {
            "reasoning": "ab",
            "fields": {
                "reasoning_details": [
                    {"type": "reasoning.text", "index": 0, "text": "ab", "signature": "S+/="},
                    {"type": "reasoning.encrypted", "index": 1, "data": "E=="},
                ]
            },
        },
        message(
            content="x",
            reasoning="ab",
            reasoning_details=[
                {"type": "reasoning.text", "index": 0, "text": "ab", "signature": "S+/="},
                {"type": "reasoning.encrypted", "index": 1, "data": "E=="},
            ],
        ),
        chunk({"reasoning": "a", "reasoning_details": [{"type": "reasoning.text", "index": 0, "text": "a"}]}),
        chunk({"reasoning": "b", "reasoning_details": [{"type": "reasoning.text", "index": 0, "text": "b"}]}),
        chunk({"reasoning_details": [{"type": "reasoning.text", "index": 0, "signature": "S+/="}]}),
        chunk({"reasoning_details": [{"type": "reasoning.encrypted", "index": 1, "data": "E=="}]}),
        chunk({"content": "x"}, "stop"),
    ),
    chat(
        "gemini's signature of a call behind an OpenAI-compatible interface",
        {"calls": [call(arguments="{}", fields={"extra_content": {"google": {"thought_signature": "s"}}})]},
        message(
            "tool_calls",
            tool_calls=[
                {**CALL, "function": {"name": "f", "arguments": "{}"}, "extra_content": {"google": {"thought_signature": "s"}}}
            ],
        ),
        chunk({"tool_calls": [{**CALL, "extra_content": {"google": {"thought_signature": "s"}}}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}, "tool_calls"),
    ),
    chat(
        "deepseek's reasoning",
        {"reasoning": "r", "content": "c"},
        message(reasoning_content="r", content="c"),
        chunk({"content": None, "reasoning_content": "r"}),
        chunk({"content": "c", "reasoning_content": None}, "stop"),
    ),
    chat(
        "reasoning twice under two names",
        {"reasoning": "r"},
        message(reasoning_content="r", reasoning="r", content="c"),
        chunk({"reasoning": "r", "reasoning_content": "r"}),
        STOP,
    ),
    chat(
        "think tags",
        {"reasoning": "\nr", "content": "\n\nc <think>"},
        message(content="<think>\nr</think>\n\nc <think>"),
        chunk({"content": "<thi"}),
        chunk({"content": "nk>\nr</thi"}),
        chunk({"content": "nk>\n\nc <think>"}, "stop"),
    ),
    chat(
        "a think tag that is never closed",
        {"reasoning": "r</th", "content": ""},
        message("length", content="<think>r</th"),
        chunk({"content": "<think>r</th"}, "length"),
    ),
    chat(
        "text that only begins like a tag", {"content": " <thin"}, message(content=" <thin"), chunk({"content": " <thin"}, "stop")
    ),
    chat(
        "azure's filter results",
        {
            "content": "hi",
            "fields": {"prompt_filter_results": [{"prompt_index": 0}], "content_filter_results": {"hate": {"filtered": False}}},
        },
        message(
            content="hi",
            choice={"content_filter_results": {"hate": {"filtered": False}}},
            top={"prompt_filter_results": [{"prompt_index": 0}]},
        ),
        {"choices": [], "prompt_filter_results": [{"prompt_index": 0}]},
        HI,
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "content_filter_results": {"hate": {"filtered": False}}}]},
    ),
    chat("groq's usage", {"usage": (3, 2, 5)}, None, HI, {**STOP, "x_groq": {"id": "r", "usage": USAGE}}),
    chat(
        "moonshot's usage in the choice",
        {"usage": (3, 2, 5)},
        None,
        HI,
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": USAGE}]},
    ),
    chat(
        "xai counts reasoning apart",
        {"usage": (3, 6, 9)},
        message(
            content="x",
            top={
                "usage": {
                    "prompt_tokens": 3,
                    "completion_tokens": 2,
                    "total_tokens": 9,
                    "completion_tokens_details": {"reasoning_tokens": 4},
                }
            },
        ),
    ),
    chat(
        "a response split over two choices of one index",
        {"content": "hi", "calls": [call(arguments="{}")]},
        {
            "choices": [
                message(content="hi")["choices"][0],
                message("tool_calls", tool_calls=[{**CALL, "function": {"name": "f", "arguments": "{}"}}])["choices"][0],
            ]
        },
    ),
    chat(
        "a second choice is not mixed in",
        {"content": "hi"},
        None,
        HI,
        {"choices": [{"index": 1, "delta": {"content": "no"}}]},
        STOP,
    ),
    chat("finish reason empty until the end", {"content": "hi", "finish_reason": "stop"}, None, chunk({"content": "hi"}, ""), STOP),
    chat(
        "an unknown finish reason",
        {"finish_reason": None, "raw_finish_reason": "tired"},
        message("tired", content="x"),
        HI,
        chunk({}, "tired"),
    ),
    chat(
        "the text so far in each event",
        {"content": "hi"},
        None,
        {"choices": [{"index": 0, "delta": {"content": "h"}, "message": {"content": "h"}}]},
        {"choices": [{"index": 0, "delta": {"content": "i"}, "message": {"content": "hi"}, "finish_reason": "stop"}]},
    ),
    chat(
        "vllm's token ids and stop reason",
        {"content": "hi", "fields": {"stop_reason": "END"}},
        message(content="hi", choice={"stop_reason": "END"}),
        HI,
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "stop_reason": "END"}]},
    ),
    chat("usage without choices", {"content": "hi", "usage": (3, 2, 5)}, None, HI, STOP, {"usage": USAGE}),
    chat("a finish without a delta", {"content": "hi"}, None, HI, {"choices": [{"index": 0, "finish_reason": "stop"}]}),
    chat(
        "tool calls without an index",
        {"calls": [call(index=None, arguments="{}"), call(index=None, id="t2", arguments='{"b":2}')]},
        message(
            "tool_calls",
            tool_calls=[
                {"id": "t1", "function": {"name": "f", "arguments": "{}"}},
                {"id": "t2", "function": {"name": "f", "arguments": '{"b":2}'}},
            ],
        ),
        chunk({"tool_calls": [{"id": "t1", "function": {"name": "f", "arguments": "{}"}}]}),
        chunk({"tool_calls": [{"id": "t2", "function": {"name": "f", "arguments": '{"b"'}}]}),
        chunk({"tool_calls": [{"function": {"arguments": ":2}"}}]}, "tool_calls"),
    ),
    chat(
        "role null and a quiet unknown member",
        {"content": "hi"},
        None,
        {
            "choices": [
                {
                    "index": 0,
                    "delta": {"role": None, "content": "hi", "tool_calls": None},
                    "finish_reason": "",
                    "matched_stop": None,
                }
            ]
        },
        STOP,
    ),
    chat(
        "a surrogate pair over two events",
        {"content": "\ud83d\ude00"},
        None,
        '{"choices":[{"delta":{"content":"\\ud83d"}}]}',
        '{"choices":[{"delta":{"content":"\\ude00"},"finish_reason":"stop"}]}',
    ),
    Case(
        "invalid UTF-8 in a text",
        OpenAIChat,
        {"content": "a\ufffdb"},
        data=b'data: {"choices":[{"delta":{"content":"a\xffb"},"finish_reason":"stop"}]}\n\n',
    ),
    chat("only a role, then the end marker", {"kind": "bad_upstream_response"}, None, chunk({"role": "assistant"})),
    chat("cut off within a tag", {"kind": "stream_interrupted", "content": "<thi"}, None, chunk({"content": "<thi"}), done=False),
    chat(
        "pieces of each kind, one after the other, in one shape",
        {"content": "ab", "reasoning": "rs", "calls": [call(arguments="{}")]},
        None,
        chunk({"reasoning_content": "r"}),
        chunk({"reasoning_content": "s", "content": None}),
        chunk({"role": "assistant", "content": "a", "reasoning_content": ""}),
        chunk({"content": "b"}),
        chunk({"content": "", "tool_calls": []}),
        chunk({"tool_calls": [CALL]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": "{"}}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": "}"}}]}),
        chunk({}, "tool_calls"),
    ),
    # -- errors, never an empty success
    chat(
        "error in mid-stream",
        {"kind": "rate_limited", "content": "hi"},
        None,
        HI,
        {"error": {"code": 429, "message": "slow"}, "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}]},
    ),
    chat(
        "finish_reason error",
        {"kind": "provider_unavailable", "content": "hi"},
        message("error", content="hi"),
        HI,
        chunk({}, "error"),
    ),
    chat(
        "error in the choice",
        {"kind": "provider_unavailable", "text": "boo"},
        message("error", content="", choice={"error": {"code": 502, "message": "boo"}}),
        HI,
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "error", "error": {"code": 502, "message": "boo"}}]},
    ),
    chat(
        "an error body with status 200",
        {"kind": "authentication", "text": "bad key"},
        {"error": {"message": "bad key", "code": 401}},
    ),
    chat("error as a text", {"kind": "provider_unavailable", "text": "boo"}, {"error": "boo"}, {"error": "boo"}),
    chat(
        "vllm's older error object",
        {"kind": "rejected_by_provider", "text": "bad"},
        {"object": "error", "message": "bad", "type": "BadRequestError", "code": 400},
        {"object": "error", "message": "bad", "type": "BadRequestError", "code": 400},
    ),
    Case(
        "a named error event",
        OpenAIChat,
        {"kind": "provider_unavailable", "content": "hi", "text": "gone"},
        data=events(HI, done=False) + b'event: error\ndata: {"message": "gone"}\n\n',
    ),
    Case(
        "a named error event that is plain text",
        OpenAIChat,
        {"kind": "provider_unavailable", "text": "went away"},
        data=b"event: error\ndata: it went away\n\n",
    ),
    Case(
        "an error without data: in mid-stream",
        OpenAIChat,
        {"kind": "context_length_exceeded", "content": "hi"},
        data=events(HI, done=False) + b'{"error": {"code": "context_length_exceeded", "message": "full"}}\n',
    ),
    Case(
        "one JSON body to a streamed request",
        OpenAIChat,
        {"content": "hi", "finish_reason": "stop"},
        data=json.dumps(message(content="hi"), indent=1).encode(),
    ),
    Case(
        "an error body to a streamed request",
        OpenAIChat,
        {"kind": "budget_exceeded"},
        data=b'{"error": {"code": "insufficient_quota", "message": "x"}}',
    ),
    Case("events to a plain request", OpenAIChat, {"content": "hi", "finish_reason": "stop"}, body=events(HI, STOP)),
    Case("HTML with status 200", OpenAIChat, {"kind": "bad_upstream_response", "text": "502 Bad Gateway"}, body=HTML, data=HTML),
    Case(
        "text with status 200",
        OpenAIChat,
        {"kind": "bad_upstream_response", "text": "upstream gone"},
        body=b"upstream gone",
        data=b"upstream gone",
    ),
    Case("an empty response", OpenAIChat, {"kind": "bad_upstream_response"}, body=b"", data=b""),
    chat("only the end marker", {"kind": "bad_upstream_response"}, {"choices": []}, "[DONE]", done=False),
    chat("choices empty", {"kind": "bad_upstream_response"}, {"id": "c", "choices": [], "usage": USAGE}),
    chat("cut off", {"kind": "stream_interrupted", "content": "hi"}, None, HI, done=False),
    chat("the end marker without a finish reason", {"kind": "stream_interrupted", "content": "hi"}, None, HI),
    Case(
        "cut off within an event",
        OpenAIChat,
        {"kind": "stream_interrupted", "text": '{"choi'},
        data=events(HI, done=False) + b'data: {"choi',
    ),
    Case(
        "an event that is not JSON",
        OpenAIChat,
        {"kind": "bad_upstream_response", "content": "hi", "text": "{oops"},
        data=events(HI, "{oops", STOP),
    ),
    chat(
        "deepseek has no resources left",
        {"kind": "provider_unavailable"},
        message("insufficient_system_resource", content="x"),
        chunk({"content": "x"}, "insufficient_system_resource"),
    ),
    chat("a comment, CRLF and no blank lines", {"content": "hi"}, None, HI, STOP),
    # -- hostile values
    Case(
        "an integer of 5,000 digits",
        OpenAIChat,
        {"kind": "bad_upstream_response"},
        body=b'{"choices": [{"message": {"content": ' + b"9" * 5000 + b"}}]}",
        data=b'data: {"id": ' + b"9" * 5000 + b"}\n\n",
    ),
    Case(
        "nesting of 100,000",
        OpenAIChat,
        {"kind": "bad_upstream_response"},
        body=b'{"choices": ' + b"[" * 100_000,
        data=b'data: {"choices": ' + b"[" * 100_000 + b"\n\n",
    ),
    chat(
        "a token count of 1e300",
        {"usage": None},
        message(content="x", top={"usage": {"prompt_tokens": 1e300, "completion_tokens": -1, "total_tokens": True}}),
    ),
    chat(
        "the message is a list",
        {"kind": "bad_upstream_response"},
        {"choices": [{"message": [1], "finish_reason": "stop"}]},
        {"choices": [{"delta": [1]}]},
    ),
]


def response(status: str = "completed", *output: Any, **more: Any) -> Json:
    return {
        "id": "r1",
        "model": "m",
        "status": status,
        "output": list(output),
        "usage": {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5},
        **more,
    }


def event(kind: str, **more: Any) -> Json:
    return {"type": kind, **more}


def finished(*output: Any, status: str = "completed", **more: Any) -> Json:
    return event(f"response.{status}", response=response(status, *output, **more))


FUNCTION = {"type": "function_call", "id": "fc1", "call_id": "t1", "name": "f", "arguments": '{"a":1}', "status": "completed"}
TEXT = {
    "type": "message",
    "id": "m1",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "hi", "annotations": []}],
}
REASONING = {
    "type": "reasoning",
    "id": "rs1",
    "summary": [{"type": "summary_text", "text": "a"}, {"type": "summary_text", "text": "b"}],
    "encrypted_content": "E+/=",
}
SEARCH = {"type": "web_search_call", "id": "ws1", "status": "completed", "action": {"query": "q"}}
NOTE = {"type": "url_citation", "url": "https://x", "start_index": 0, "end_index": 1, "title": "X"}


def responses(name: str, expected: Json, body: Any = None, *stream: Any) -> Case:
    return Case(name, OpenAIResponses, expected, body, events(*stream, done=False) if stream else None)


def added(index: int, item: Json, **changes: Any) -> Json:
    return event("response.output_item.added", output_index=index, item={**item, **changes})


def item_done(index: int, item: Json) -> Json:
    return event("response.output_item.done", output_index=index, item=item)


ONE_CALL = [call(index=0, arguments='{"a":1}')]
RESPONSES = [
    responses(
        "text",
        {"content": "hi", "finish_reason": "stop", "raw_finish_reason": "completed", "usage": (3, 2, 5), "id": "r1"},
        response("completed", TEXT),
        added(0, TEXT, content=[]),
        event("response.output_text.delta", output_index=0, content_index=0, delta="h"),
        event("response.output_text.delta", output_index=0, content_index=0, delta="i"),
        event("response.output_text.done", output_index=0, content_index=0, text="hi"),
        item_done(0, TEXT),
        finished(TEXT),
    ),
    responses(
        "arguments only in done",
        {"calls": ONE_CALL, "finish_reason": "tool_calls"},
        response("completed", FUNCTION),
        added(0, FUNCTION, arguments=""),
        event("response.function_call_arguments.done", output_index=0, item_id="fc1", arguments='{"a":1}'),
        finished(FUNCTION),
    ),
    responses(
        "arguments only in the finished item",
        {"calls": ONE_CALL},
        None,
        added(0, FUNCTION, arguments=""),
        item_done(0, FUNCTION),
        finished(),
    ),
    responses(
        "arguments only in the finished response", {"calls": ONE_CALL, "finish_reason": "tool_calls"}, None, finished(FUNCTION)
    ),
    responses(
        "arguments in deltas and again",
        {"calls": ONE_CALL},
        None,
        added(0, FUNCTION, arguments=""),
        event("response.function_call_arguments.delta", output_index=0, delta='{"a"'),
        event("response.function_call_arguments.delta", output_index=0, delta=":1}"),
        event("response.function_call_arguments.done", output_index=0, arguments='{"a":1}'),
        item_done(0, FUNCTION),
        finished(FUNCTION),
    ),
    responses(
        "an item id that changes with each event",
        {"calls": ONE_CALL},
        None,
        added(0, FUNCTION, arguments="", id="x1"),
        event("response.function_call_arguments.delta", output_index=0, item_id="x2", delta='{"a":1}'),
        item_done(0, {**FUNCTION, "id": "x3"}),
        finished({**FUNCTION, "id": "x4"}),
    ),
    responses(
        "text only in the finished response",
        {"content": "hi"},
        None,
        event("response.created", response={"id": "r1"}),
        finished(TEXT),
    ),
    responses(
        "text only in the finished part",
        {"content": "hi"},
        None,
        event("response.content_part.done", output_index=0, content_index=0, part=TEXT["content"][0]),
        item_done(0, TEXT),
        finished(),
    ),
    responses(
        "text in deltas, then only the finished response",
        {"content": "hi"},
        None,
        event("response.output_text.delta", output_index=0, item_id="m1", content_index=0, delta="hi"),
        finished(TEXT),
    ),
    responses(
        "text in deltas by position only, then only the finished response",
        {"content": "hi"},
        None,
        event("response.output_text.delta", output_index=0, content_index=0, delta="hi"),
        finished(TEXT),
    ),
    responses(
        "text in deltas that name no item",
        {"content": "hi"},
        None,
        event("response.output_text.delta", delta="h"),
        event("response.output_text.delta", delta="i"),
        item_done(0, TEXT),
        finished(TEXT),
    ),
    responses(
        "text in deltas by item id only",
        {"content": "hi"},
        None,
        event("response.output_text.delta", item_id="m1", delta="hi"),
        finished(TEXT),
    ),
    responses(
        "two calls without position and item id",
        {"calls": [call(index=0, arguments='{"a":1}'), call(index=1, id="t2", arguments="{}")]},
        None,
        event("response.output_item.done", item={**FUNCTION, "id": None}),
        event("response.output_item.done", item={**FUNCTION, "id": None, "call_id": "t2", "arguments": "{}"}),
        finished(),
    ),
    responses(
        "the finished response lacks the calls that were streamed",
        {"calls": ONE_CALL, "content": "", "finish_reason": "tool_calls"},
        None,
        added(0, FUNCTION, arguments=""),
        event("response.function_call_arguments.done", output_index=0, arguments='{"a":1}'),
        finished({"type": "message", "id": "m9", "content": [{"type": "text", "text": ""}]}),
    ),
    Case(
        "the response itself as the data of a named event",
        OpenAIResponses,
        {"content": "hi", "id": "r1", "finish_reason": "stop"},
        data=b"event: response.completed\ndata: " + json.dumps(response("completed", TEXT)).encode() + b"\n\n",
    ),
    responses(
        "an incomplete response without any message",
        {"content": "", "finish_reason": "length"},
        response("incomplete", incomplete_details={"reason": "max_output_tokens"}),
        finished(status="incomplete", incomplete_details={"reason": "max_output_tokens"}),
    ),
    responses(
        "every item has the position 0",
        {"content": "hi", "reasoning": "a\n\nb"},
        response("completed", REASONING, TEXT),
        item_done(0, REASONING),
        event("response.output_text.delta", output_index=0, content_index=0, delta="hi"),
        item_done(0, TEXT),
        finished(REASONING, TEXT),
    ),
    responses(
        "a flat error event",
        {"kind": "context_length_exceeded", "text": "full"},
        None,
        event("error", code="context_length_exceeded", message="full", param=None),
    ),
    responses(
        "an error event with an object",
        {"kind": "rate_limited"},
        None,
        event("error", error={"type": "too_many_requests", "code": "too_many_requests", "message": "slow"}),
    ),
    responses(
        "response.failed",
        {"kind": "provider_unavailable", "text": "oh"},
        response("failed", error={"code": "server_error", "message": "oh"}),
        finished(status="failed", error={"code": "server_error", "message": "oh"}),
    ),
    responses("response.failed without a reason", {"kind": "provider_unavailable"}, response("failed"), finished(status="failed")),
    responses(
        "incomplete, by length",
        {"content": "hi", "finish_reason": "length", "raw_finish_reason": "max_output_tokens"},
        response("incomplete", TEXT, incomplete_details={"reason": "max_output_tokens"}),
        finished(TEXT, status="incomplete", incomplete_details={"reason": "max_output_tokens"}),
    ),
    responses(
        "incomplete, by a filter",
        {"finish_reason": "content_filter"},
        response("incomplete", incomplete_details={"reason": "content_filter"}),
        finished(status="incomplete", incomplete_details={"reason": "content_filter"}),
    ),
    responses(
        "incomplete, by something new",
        {"finish_reason": None, "raw_finish_reason": "moon"},
        response("incomplete", incomplete_details={"reason": "moon"}),
        finished(status="incomplete", incomplete_details={"reason": "moon"}),
    ),
    responses(
        "reasoning with encrypted content",
        {"reasoning": "a\n\nb", "content": "hi", "reasoning_items": [REASONING]},
        response("completed", REASONING, TEXT),
        added(0, REASONING, summary=[]),
        event("response.reasoning_summary_text.delta", output_index=0, summary_index=0, delta="a"),
        event("response.reasoning_summary_part.done", output_index=0, summary_index=0, part={"type": "summary_text", "text": "a"}),
        event("response.reasoning_summary_text.delta", output_index=0, summary_index=1, delta="b"),
        item_done(0, REASONING),
        item_done(1, TEXT),
        finished(REASONING, TEXT),
    ),
    responses(
        "raw reasoning",
        {"reasoning": "ab"},
        response(
            "completed", {"type": "reasoning", "id": "q", "summary": [], "content": [{"type": "reasoning_text", "text": "ab"}]}
        ),
        event("response.reasoning_text.delta", output_index=0, content_index=0, delta="a"),
        event("response.reasoning_text.done", output_index=0, content_index=0, text="ab"),
        finished(),
    ),
    responses(
        "refusal",
        {"refusal": "no."},
        response("completed", {**TEXT, "content": [{"type": "refusal", "refusal": "no."}]}),
        event("response.refusal.delta", output_index=0, content_index=0, delta="no"),
        event("response.refusal.done", output_index=0, content_index=0, refusal="no."),
        finished(),
    ),
    responses(
        "annotations",
        {
            "content": "hi",
            "annotations": [
                {"type": "url_citation", "url_citation": {name: value for name, value in NOTE.items() if name != "type"}}
            ],
        },
        response("completed", {**TEXT, "content": [{"type": "output_text", "text": "hi", "annotations": [NOTE]}]}),
        event("response.output_text.delta", output_index=0, content_index=0, delta="hi"),
        event("response.output_text.annotation.added", output_index=0, content_index=0, annotation=NOTE),
        item_done(0, {**TEXT, "content": [{"type": "output_text", "text": "hi", "annotations": [NOTE]}]}),
        finished(),
    ),
    responses(
        "an item of the provider's own tool",
        {
            "content": "hi",
            "calls": [],
            "finish_reason": "stop",
            "fields": {"output_items": [SEARCH]},
            "kept": ["output.web_search_call"],
        },
        response("completed", SEARCH, TEXT),
        added(0, SEARCH),
        event("response.web_search_call.searching", output_index=0),
        item_done(0, SEARCH),
        item_done(1, TEXT),
        finished(SEARCH, TEXT),
    ),
    responses(
        "an image",
        {"images": [{"type": "image_url", "image_url": {"url": "data:image/webp;base64,AA"}}]},
        response("completed", {"type": "image_generation_call", "id": "i", "result": "AA", "output_format": "webp"}),
        item_done(0, {"type": "image_generation_call", "id": "i", "result": "AA", "output_format": "webp"}),
        finished({"type": "image_generation_call", "id": "i", "result": "AA", "output_format": "webp"}),
    ),
    responses(
        "an unknown event is kept",
        {
            "content": "hi",
            "fields": {"events": {"response.sparkle": {"type": "response.sparkle", "x": 1}}},
            "kept": ["event.response.sparkle"],
        },
        None,
        event("response.sparkle", x=1),
        finished(TEXT),
    ),
    responses(
        "cut off",
        {"kind": "stream_interrupted", "content": "hi"},
        None,
        event("response.output_text.delta", output_index=0, content_index=0, delta="hi"),
    ),
    responses(
        "only a beginning",
        {"kind": "bad_upstream_response"},
        response("in_progress"),
        event("response.created", response={"id": "r1"}),
    ),
    Case(
        "a JSON body to a streamed request",
        OpenAIResponses,
        {"content": "hi"},
        data=json.dumps(response("completed", TEXT)).encode(),
    ),
    Case(
        "HTML with status 200", OpenAIResponses, {"kind": "bad_upstream_response", "text": "502 Bad Gateway"}, body=HTML, data=HTML
    ),
    responses(
        "an error body",
        {"kind": "permission"},
        {"error": {"message": "no", "code": 403}},
        {"error": {"message": "no", "code": 403}},
    ),
]


def lines(*values: Any) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


def line(done: bool = False, reason: str | None = None, top: Json | None = None, **members: Any) -> Json:
    return {
        "model": "m",
        "created_at": "t",
        "message": {"role": "assistant", "content": "", **members},
        "done": done,
        **({"done_reason": reason} if reason else {}),
        **(top or {}),
    }


OLLAMA = [
    Case(
        "text",
        Ollama,
        {"content": "hi", "finish_reason": "stop", "usage": (3, 2, 5), "model": "m"},
        line(True, "stop", {"prompt_eval_count": 3, "eval_count": 2}, content="hi"),
        lines(line(content="h"), line(content="i"), line(True, "stop", {"prompt_eval_count": 3, "eval_count": 2})),
    ),
    Case(
        "length",
        Ollama,
        {"finish_reason": "length"},
        line(True, "length", content="x"),
        lines(line(content="x"), line(True, "length")),
    ),
    Case(
        "an error line in mid-stream",
        Ollama,
        {"kind": "provider_unavailable", "content": "hi", "text": "llama runner terminated"},
        data=lines(line(content="hi"), {"error": "llama runner terminated"}),
    ),
    Case(
        "an error body",
        Ollama,
        {"kind": "model_not_found"},
        {"error": "model 'x' not found"},
        lines({"error": "model 'x' not found"}),
    ),
    Case("a full context", Ollama, {"kind": "context_length_exceeded"}, {"error": "the input length exceeds the context length"}),
    Case(
        "thinking",
        Ollama,
        {"reasoning": "ab", "content": "c"},
        line(True, "stop", thinking="ab", content="c"),
        lines(line(thinking="a"), line(thinking="b"), line(content="c"), line(True, "stop")),
    ),
    Case(
        "think tags",
        Ollama,
        {"reasoning": "a", "content": "c"},
        line(True, "stop", content="<think>a</think>c"),
        lines(line(content="<thi"), line(content="nk>a</think>c"), line(True, "stop")),
    ),
    Case(
        "tool calls with objects",
        Ollama,
        {"calls": [call(index=0, id=None, arguments='{"a": 1}'), call(index=1, id=None, name="g", arguments="{}")]},
        line(
            True,
            "stop",
            tool_calls=[{"function": {"name": "f", "arguments": {"a": 1}}}, {"function": {"name": "g", "arguments": {}}}],
        ),
        lines(
            line(tool_calls=[{"function": {"name": "f", "arguments": {"a": 1}}}]),
            line(tool_calls=[{"function": {"index": 0, "name": "g", "arguments": {}}}]),
            line(True, "stop"),
        ),
    ),
    Case("the model was only loaded", Ollama, {"kind": "bad_upstream_response"}, line(True, "load"), lines(line(True, "load"))),
    Case(
        "no reason",
        Ollama,
        {"finish_reason": None, "raw_finish_reason": None, "content": "x"},
        line(True, content="x"),
        lines(line(content="x"), line(True)),
    ),
    Case(
        "an unknown reason",
        Ollama,
        {"finish_reason": None, "raw_finish_reason": "tired"},
        line(True, "tired", content="x"),
        lines(line(True, "tired", content="x")),
    ),
    Case(
        "an unknown member is kept",
        Ollama,
        {"fields": {"mood": "good"}, "kept": ["message.mood"]},
        line(True, "stop", mood="good"),
        lines(line(mood="go"), line(mood="od"), line(True, "stop")),
    ),
    Case(
        "cut off", Ollama, {"kind": "stream_interrupted", "content": "hi"}, data=lines(line(content="hi")) + b'{"model": "m", "mess'
    ),
    Case("an empty response", Ollama, {"kind": "bad_upstream_response"}, body=b"", data=b""),
    Case("HTML with status 200", Ollama, {"kind": "bad_upstream_response"}, body=HTML, data=HTML),
    Case(
        "a reason without done",
        Ollama,
        {"content": "hi", "finish_reason": "stop"},
        data=lines({**line(content="hi"), "done_reason": "stop"}),
    ),
    Case(
        "the form of /api/generate",
        Ollama,
        {"content": "hi", "reasoning": "r"},
        {"model": "m", "response": "hi", "thinking": "r", "done": True, "done_reason": "stop"},
        lines(
            {"response": "", "thinking": "r", "done": False},
            {"response": "hi", "done": False},
            {"response": "", "done": True, "done_reason": "stop"},
        ),
    ),
    Case("no newline at the end", Ollama, {"content": "hi"}, data=lines(line(True, "stop", content="hi"))[:-1]),
]


def cohere_message(finish: str = "COMPLETE", **members: Any) -> Json:
    return {
        "id": "c1",
        "finish_reason": finish,
        "message": {"role": "assistant", **members},
        "usage": {"tokens": {"input_tokens": 3, "output_tokens": 2}, "billed_units": {"input_tokens": 1}},
    }


def part(kind: str, index: int = 0, **members: Any) -> Json:
    return {"type": kind, "index": index, "delta": {"message": members}}


def cohere_end(finish: str = "COMPLETE", **more: Any) -> Json:
    return {
        "type": "message-end",
        "id": "c1",
        "delta": {"finish_reason": finish, "usage": {"tokens": {"input_tokens": 3, "output_tokens": 2}}, **more},
    }


def cohere(name: str, expected: Json, body: Any = None, *stream: Any) -> Case:
    return Case(name, Cohere, expected, body, events(*stream, done=False) if stream else None)


START = {
    "type": "message-start",
    "id": "c1",
    "delta": {"message": {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}},
}
CITE = {"start": 0, "end": 2, "text": "hi", "sources": [{"type": "tool", "id": "t"}], "type": "TEXT_CONTENT"}
CITED = {"type": "url_citation", "url_citation": {"start_index": 0, "end_index": 2, "title": "t"}}
COHERE = [
    cohere(
        "text",
        {"content": "hi", "finish_reason": "stop", "raw_finish_reason": "COMPLETE", "usage": (3, 2, 5), "id": "c1"},
        cohere_message(content=[{"type": "text", "text": "hi"}]),
        START,
        part("content-start", content={"type": "text", "text": ""}),
        part("content-delta", content={"text": "h"}),
        part("content-delta", content={"text": "i"}),
        {"type": "content-end", "index": 0},
        cohere_end(),
    ),
    cohere(
        "a plan and tool calls",
        {
            "reasoning": "I will",
            "calls": [call(arguments='{"a":1}'), call(index=1, id="t2", arguments="{}")],
            "finish_reason": "tool_calls",
        },
        cohere_message(
            "TOOL_CALL",
            tool_plan="I will",
            tool_calls=[
                {"id": "t1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
                {"id": "t2", "type": "function", "function": {"name": "f", "arguments": "{}"}},
            ],
        ),
        START,
        part("tool-plan-delta", tool_plan="I "),
        part("tool-plan-delta", tool_plan="will"),
        part("tool-call-start", tool_calls={"id": "t1", "type": "function", "function": {"name": "f", "arguments": ""}}),
        part("tool-call-delta", tool_calls={"function": {"arguments": '{"a":1}'}}),
        {"type": "tool-call-end", "index": 0},
        part("tool-call-start", 1, tool_calls={"id": "t2", "type": "function", "function": {"name": "f", "arguments": ""}}),
        part("tool-call-delta", 1, tool_calls={"function": {"arguments": "{}"}}),
        cohere_end("TOOL_CALL"),
    ),
    cohere(
        "thinking",
        {"reasoning": "ab", "content": "c"},
        cohere_message(content=[{"type": "thinking", "thinking": "ab"}, {"type": "text", "text": "c"}]),
        part("content-start", content={"type": "thinking", "thinking": "a"}),
        part("content-delta", content={"thinking": "b"}),
        part("content-start", 1, content={"type": "text", "text": ""}),
        part("content-delta", 1, content={"text": "c"}),
        cohere_end(),
    ),
    cohere(
        "citations",
        {"content": "hi", "annotations": [CITED]},
        cohere_message(content=[{"type": "text", "text": "hi"}], citations=[CITE]),
        part("content-delta", content={"text": "hi"}),
        part("citation-start", citations=CITE),
        {"type": "citation-end", "index": 0},
        cohere_end(),
    ),
    cohere(
        "an error at the end",
        {"kind": "provider_unavailable", "content": "hi", "text": "oops"},
        None,
        part("content-delta", content={"text": "hi"}),
        cohere_end("ERROR", error="oops"),
    ),
    cohere("finish_reason ERROR", {"kind": "provider_unavailable"}, cohere_message("ERROR"), cohere_end("ERROR")),
    cohere("toxic", {"finish_reason": "content_filter"}, cohere_message("ERROR_TOXIC"), cohere_end("ERROR_TOXIC")),
    cohere("timeout", {"kind": "timeout"}, cohere_message("TIMEOUT"), cohere_end("TIMEOUT")),
    cohere(
        "an unknown finish reason",
        {"finish_reason": None, "raw_finish_reason": "TIRED"},
        cohere_message("TIRED"),
        cohere_end("TIRED"),
    ),
    cohere("an error body", {"kind": "rate_limited"}, {"message": "too many requests"}, {"message": "too many requests"}),
    cohere(
        "an unknown event is kept",
        {"content": "hi", "kept": ["event.sparkle"]},
        None,
        {"type": "sparkle", "x": 1},
        part("content-delta", content={"text": "hi"}),
        cohere_end(),
    ),
    cohere(
        "an unknown part is kept",
        {"fields": {"content_parts": [{"type": "hologram", "x": 1}]}},
        cohere_message(content=[{"type": "hologram", "x": 1}]),
        part("content-start", content={"type": "hologram", "x": 1}),
        cohere_end(),
    ),
    cohere("cut off", {"kind": "stream_interrupted", "content": "hi"}, None, part("content-delta", content={"text": "hi"})),
    cohere(
        "the end without a reason",
        {"kind": "stream_interrupted"},
        None,
        part("content-delta", content={"text": "hi"}),
        {"type": "message-end", "delta": {}},
    ),
    Case("HTML with status 200", Cohere, {"kind": "bad_upstream_response"}, body=HTML, data=HTML),
]

CASES = [*CHAT, *RESPONSES, *OLLAMA, *COHERE]
