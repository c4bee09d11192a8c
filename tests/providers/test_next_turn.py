"""What a provider sent comes back byte for byte in the next request, in each mode; and a full context is known by any words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from bridge_worker.backends.litellm.chat import LiteLLM
from tests.support.every_mode import HI, IGNORED_WARNINGS, EveryMode, Outcome, Provider, Reply, bridge, provider, raw, reply
from tests.support.provider_formats import FORMATS, Format, OpenAI, aws, sse
from tests.support.worker import Json
from tests.unit.wire import aws_frames
from tests.unit.wire.wordings import WORDINGS

__all__ = ["LiteLLM", "bridge", "provider"]  # fixtures, and the import by which LiteLLM is prepared
pytestmark = IGNORED_WARNINGS
SIGNATURE = "EqQBCkYIBxgCKkBb0th+byte/for+byte/ZWlnbmF0dXJlIHRlc3Q="
REDACTED = "EmwKAhgBEgy3va3pzix/LafPsn4aDFIT2Xlxh0L5L8rLVyIwxtE3rAFBa8cr3qpP/+=="
THINKING = {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 2048}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}}


class OpenRouter(OpenAI):
    name = "openrouter"
    model: ClassVar[str] = "openrouter/x/y"


@pytest.fixture(scope="module", autouse=True)
def openrouter(provider: Provider) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENROUTER_API_KEY", "sk-or-test-0010")
        patch.setenv("OPENROUTER_API_BASE", provider.base_url)
        yield


def next_turn(bridge: EveryMode, wire: Format, first: Outcome, *, streamed: bool, **params: Any) -> Any:
    """The body of the request that continues a chat with the message that it returned."""
    assert not first.error, first.error
    results = [
        {"role": "tool", "tool_call_id": call["id"], "content": "7"} for call in first.result["message"].get("tool_calls", ())
    ]
    messages = [*HI, first.result["message"], *(results or [{"role": "user", "content": "and?"}])]
    after = bridge.chat(wire, reply(wire, streamed=streamed), streamed=streamed, messages=messages, **params)
    assert not after.error, after.error
    assert after.result["receipt"]["dropped"] == []
    return after.sent[-1].body


def anthropic_events(blocks: list[Json], stop: str = "end_turn") -> list[Json]:
    usage = {"input_tokens": 3, "output_tokens": 2}
    start = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "content": [], "usage": usage}
    events: list[Json] = [{"type": "message_start", "message": start}]
    for index, block in enumerate(blocks):
        empty = {"text": {"text": ""}, "thinking": {"thinking": "", "signature": ""}}.get(block["type"], {})
        events.append({"type": "content_block_start", "index": index, "content_block": block | empty})
        for kind, member in (("text_delta", "text"), ("thinking_delta", "thinking"), ("signature_delta", "signature")):
            if empty and member in block:
                half = len(block[member]) // 2
                pieces = [block[member]] if member == "signature" else [block[member][:half], block[member][half:]]
                events += [{"type": "content_block_delta", "index": index, "delta": {"type": kind, member: one}} for one in pieces]
        events.append({"type": "content_block_stop", "index": index})
    end = {"type": "message_delta", "delta": {"stop_reason": stop}, "usage": {"output_tokens": 2}}
    return [*events, end, {"type": "message_stop"}]


def anthropic(blocks: list[Json], *, streamed: bool, stop: str = "end_turn") -> Reply:
    wire = FORMATS["anthropic"]
    if streamed:
        return raw(wire, b"".join(sse(event, event["type"]) for event in anthropic_events(blocks, stop)), streamed=True)
    usage = {"input_tokens": 3, "output_tokens": 2}
    body = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "content": blocks, "usage": usage}
    return raw(wire, {**body, "stop_reason": stop}, streamed=False)


def test_redacted_thinking_of_claude_goes_back_byte_for_byte(bridge: EveryMode, streamed: bool) -> None:
    wire = FORMATS["anthropic"]
    blocks = [
        {"type": "thinking", "thinking": "let me see", "signature": SIGNATURE},
        {"type": "redacted_thinking", "data": REDACTED},
        {"type": "text", "text": "Done."},
    ]
    first = bridge.chat(wire, anthropic(blocks, streamed=streamed), streamed=streamed, **THINKING)
    body = next_turn(bridge, wire, first, streamed=streamed, **THINKING)
    assert body["messages"][1]["content"][:2] == blocks[:2]


def test_a_signature_without_text_goes_back(bridge: EveryMode, streamed: bool) -> None:
    """Anthropic leaves the text of thinking out where it is not to be shown."""
    wire = FORMATS["anthropic"]
    blocks = [{"type": "thinking", "thinking": "", "signature": SIGNATURE}, {"type": "text", "text": "Done."}]
    first = bridge.chat(wire, anthropic(blocks, streamed=streamed), streamed=streamed, **THINKING)
    body = next_turn(bridge, wire, first, streamed=streamed, **THINKING)
    assert body["messages"][1]["content"][0] == blocks[0]


def test_a_server_side_tool_is_not_a_tool_call_and_goes_back(bridge: EveryMode, streamed: bool) -> None:
    wire = FORMATS["anthropic"]
    found = {"type": "web_search_result", "url": "https://a.invalid", "title": "A", "encrypted_content": SIGNATURE}
    blocks = [
        {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "q"}},
        {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [found]},
        {"type": "text", "text": "Done."},
    ]
    first = bridge.chat(wire, anthropic(blocks, streamed=streamed, stop="pause_turn"), streamed=streamed)
    assert (first.result["tool_calls"], first.result["raw_finish_reason"]) == ([], "pause_turn")
    assert first.result["finish_reason"] is None
    sent = next_turn(bridge, wire, first, streamed=streamed)["messages"][1]["content"]
    assert sorted(block["type"] for block in sent) == sorted(block["type"] for block in blocks)  # LiteLLM puts the text first
    assert [block["content"] for block in sent if block["type"] == "web_search_tool_result"] == [[found]]


def test_a_thought_signature_of_gemini_goes_back_whatever_part_has_it(bridge: EveryMode, streamed: bool) -> None:
    wire = FORMATS["gemini"]
    for parts in (
        [{"functionCall": {"name": "f", "args": {"a": 1}}, "thoughtSignature": SIGNATURE}],
        [{"text": "Done.", "thoughtSignature": SIGNATURE}],
        [{"text": "Done."}, {"text": "", "thoughtSignature": SIGNATURE}],
        [{"text": "Done."}, {"thoughtSignature": SIGNATURE}],
    ):
        bodies = [
            {"candidates": [{"index": 0, "content": {"role": "model", "parts": [part]}}], "modelVersion": "gemini"}
            for part in (parts if streamed else parts[:1])
        ]
        if not streamed:
            bodies[0]["candidates"][0]["content"]["parts"] = parts
        bodies[-1]["candidates"][0]["finishReason"] = "STOP"
        data = b"".join(map(sse, bodies)) if streamed else bodies[0]
        first = bridge.chat(wire, raw(wire, data, streamed=streamed), streamed=streamed, tools=[TOOL])
        assert SIGNATURE in json.dumps(next_turn(bridge, wire, first, streamed=streamed, tools=[TOOL])), parts


def test_reasoning_details_of_openrouter_go_back_as_they_came(bridge: EveryMode, streamed: bool) -> None:
    wire = OpenRouter()
    details = [
        {"type": "reasoning.text", "text": "hm", "signature": SIGNATURE, "format": "anthropic-claude-v1", "index": 0},
        {"type": "reasoning.encrypted", "data": REDACTED, "id": "r1", "format": "x-v1", "index": 1},
    ]
    message = {"role": "assistant", "content": "so", "reasoning": "hm", "reasoning_details": details}
    choice: Json = {"index": 0, "finish_reason": "stop", "delta" if streamed else "message": message}
    body = {"id": "a", "object": "x", "created": 1, "model": "x/y", "choices": [choice]}
    data = sse(body) + b"data: [DONE]\n\n" if streamed else body
    first = bridge.chat(wire, raw(wire, data, streamed=streamed), streamed=streamed)
    sent = next_turn(bridge, wire, first, streamed=streamed)["messages"][1]
    assert sent["reasoning_details"] == details


@pytest.mark.parametrize("words", WORDINGS)
def test_a_full_context_is_known_by_any_providers_words(words: str, bridge: EveryMode, streamed: bool) -> None:
    wire = FORMATS["openai"]
    outcome = bridge.chat(wire, Reply(json.dumps({"error": {"message": words}}).encode(), 400), streamed=streamed)
    assert (outcome.kind, outcome.error["status"]) == ("context_length_exceeded", 400)


@pytest.mark.parametrize(
    ("type", "kind", "retryable"),
    [
        ("overloaded_error", "provider_unavailable", True),
        ("rate_limit_error", "rate_limited", True),
        ("authentication_error", "authentication", False),
        ("permission_error", "permission", False),
        ("invalid_request_error", "rejected_by_provider", False),
        ("api_error", "provider_unavailable", True),
    ],
)
def test_an_error_event_of_anthropic_has_its_kind(type: str, kind: str, retryable: bool, bridge: EveryMode) -> None:
    """Before the first delta; after it the same error breaks a stream off, which may not be sent again without the caller."""
    wire = FORMATS["anthropic"]
    events = anthropic_events([{"type": "text", "text": "so far"}])
    failed = {"type": "error", "error": {"type": type, "message": "the words"}}
    for before, expected in ((events[:2], (kind, retryable)), (events[:4], None)):
        data = b"".join(sse(event, event["type"]) for event in (*before, failed))
        error = bridge.chat(wire, raw(wire, data, streamed=True), streamed=True).error
        assert "the words" in error["message"]
        if expected is not None:
            assert (error["kind"], error["retryable"]) == expected
        else:
            assert error["partial"]["content"] == "so far"
            assert error["kind"] == ("stream_interrupted" if kind not in ("authentication", "permission") else kind)


def test_an_error_line_of_ollama_and_an_exception_of_bedrock_have_the_providers_words(bridge: EveryMode) -> None:
    first = {"model": "m", "message": {"role": "assistant", "content": "so"}, "done": False}
    lines = f"{json.dumps(first)}\n{json.dumps({'error': 'an error was encountered while running the model: CUDA'})}\n"
    error = bridge.chat(FORMATS["ollama"], raw(FORMATS["ollama"], lines.encode(), streamed=True), streamed=True).error
    assert (error["kind"], error["partial"]["content"]) == ("stream_interrupted", "so")
    assert "running the model: CUDA" in error["message"]

    wire = FORMATS["bedrock converse"]
    begun = aws({"contentBlockIndex": 0, "delta": {"text": "so"}}, "contentBlockDelta")
    for name, kind in (("throttlingException", "rate_limited"), ("modelStreamErrorException", "provider_unavailable")):
        frame = aws_frames.exception(name, {"message": "the words of Bedrock"})
        error = bridge.chat(wire, raw(wire, frame, streamed=True), streamed=True).error
        assert (error["kind"], "the words of Bedrock" in error["message"]) == (kind, True)
        error = bridge.chat(wire, raw(wire, begun + frame, streamed=True), streamed=True).error
        assert (error["kind"], error["partial"]["content"]) == ("stream_interrupted", "so")


def test_bedrock_without_an_output_is_a_bad_response(bridge: EveryMode) -> None:
    for body in ({"stopReason": "end_turn", "usage": {}}, {"output": None}, {"Output": {"__type": "x"}}):
        outcome = bridge.chat(FORMATS["bedrock converse"], raw(FORMATS["bedrock converse"], body, streamed=False), streamed=False)
        assert outcome.kind == "bad_upstream_response"
        assert json.dumps(body)[:20] in outcome.error["message"]


def test_a_text_that_litellm_writes_into_the_conversation_is_named(bridge: EveryMode, streamed: bool) -> None:
    """Anthropic takes no empty message, and LiteLLM fills it; each time, also where the rest of the request is known already."""
    wire = FORMATS["anthropic"]
    messages = [*HI, {"role": "assistant", "content": "yes"}, {"role": "user", "content": ""}]
    for _ in range(2):
        outcome = bridge.chat(wire, reply(wire, streamed=streamed), streamed=streamed, messages=messages)
        own = {"hi", "yes"}
        texts = {text for message in outcome.sent[-1].body["messages"] for text in texts_of(message["content"])} - own - {""}
        named = {addition["sent"] for addition in outcome.result["receipt"]["added"] if addition["param"] == "messages"}
        assert named == {text.strip() for text in texts if text.strip()}


def texts_of(content: Any) -> list[str]:
    return [content] if isinstance(content, str) else [part["text"] for part in content if part.get("type") == "text"]
