"""Canned responses of Anthropic, Gemini and Bedrock for the upstream: as long as its own of OpenAI, plain and in 200 events.

Owns the bytes. Refuses to know who reads them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tests.support.provider_formats import aws, line, sse

EVENTS = 200
_TEXT = "Rayleigh scattering: the air sends short waves of light to all sides more than long ones, so blue comes from everywhere."
_WORDS = [f" word{position}" for position in range(1, EVENTS)]


class Format(NamedTuple):
    """``model`` is what a chat names; ``environment`` sends it to the upstream, of which {} is the address."""

    name: str
    model: str
    environment: Mapping[str, str]


ANTHROPIC = Format("Anthropic", "anthropic/claude-sonnet-4-5", {"ANTHROPIC_API_KEY": "sk-benchmark", "ANTHROPIC_API_BASE": "{}"})
GEMINI = Format("Gemini", "gemini/gemini-2.5-flash", {"GEMINI_API_KEY": "key-benchmark", "GEMINI_API_BASE": "{}"})
BEDROCK = Format(
    "Bedrock",
    "bedrock/converse/anthropic.claude-sonnet-4-5-20250929-v1:0",
    {
        "AWS_ACCESS_KEY_ID": "AKIA0123456789ABCDEF",
        "AWS_SECRET_ACCESS_KEY": "secret-of-the-benchmark",
        "AWS_REGION_NAME": "us-east-1",
        "AWS_BEDROCK_RUNTIME_ENDPOINT": "{}",
    },
)
FORMATS = (ANTHROPIC, GEMINI, BEDROCK)


def environment(address: str) -> dict[str, str]:
    """``address`` is the upstream's, without a path."""
    return {name: value.format(address) for one in FORMATS for name, value in one.environment.items()}


def routes() -> bytes:
    """What the upstream takes as its argument."""
    json_type, events, frames = "application/json", "text/event-stream", "application/vnd.amazon.eventstream"
    rows = [
        _route("/v1/messages", False, json_type, [line(_anthropic(_TEXT))]),
        _route("/v1/messages", True, events, [sse(event, event["type"]) for event in _anthropic_events()]),
        _route(":generateContent", None, json_type, [line(_gemini(_TEXT, "STOP"))]),
        _route(":streamGenerateContent", None, events, [sse(event) for event in _gemini_events()]),
        _route("/converse", None, json_type, [line(_BEDROCK_RESPONSE)]),
        _route("/converse-stream", None, frames, [aws(event, name) for name, event in _bedrock_events()]),
    ]
    return json.dumps(rows).encode()


def _route(path: str, stream: bool | None, type: str, parts: list[bytes]) -> dict[str, Any]:
    return {"path": path, "stream": stream, "type": type, "parts": [part.decode("latin-1") for part in parts]}


def _anthropic(text: str) -> dict[str, Any]:
    usage = {"input_tokens": 194, "output_tokens": 31, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0}
    return {
        "id": "msg_01XFDUDYJgAACzvnptvVoYEL",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5-20250929",
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": usage | {"service_tier": "standard"},
    }


def _anthropic_events() -> Iterator[dict[str, Any]]:
    yield {"type": "message_start", "message": _anthropic("") | {"content": [], "stop_reason": None}}
    yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    for word in _WORDS:
        yield {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}}
    yield {"type": "content_block_stop", "index": 0}
    yield {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"output_tokens": EVENTS - 1},
    }
    yield {"type": "message_stop"}


def _gemini(text: str, finish: str | None) -> dict[str, Any]:
    candidate = {"content": {"parts": [{"text": text}], "role": "model"}, "index": 0}
    usage = {
        "promptTokenCount": 194,
        "candidatesTokenCount": 31,
        "totalTokenCount": 225,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 194}],
    }
    return {
        "candidates": [candidate | ({"finishReason": finish} if finish else {})],
        "usageMetadata": usage,
        "modelVersion": "gemini-2.5-flash",
        "responseId": "mAUJaZqxJ-Wm1MkP3qWIgA8",
    }


def _gemini_events() -> Iterator[dict[str, Any]]:
    for word in _WORDS[:-1]:
        yield _gemini(word, None)
    yield _gemini(_WORDS[-1], "STOP")


_BEDROCK_USAGE = {"inputTokens": 194, "outputTokens": 31, "totalTokens": 225}
_BEDROCK_RESPONSE = {
    "output": {"message": {"role": "assistant", "content": [{"text": _TEXT}]}},
    "stopReason": "end_turn",
    "usage": _BEDROCK_USAGE,
    "metrics": {"latencyMs": 551},
}


def _bedrock_events() -> Iterator[tuple[str, dict[str, Any]]]:
    yield "messageStart", {"role": "assistant", "p": "abcdefghijk"}
    for word in _WORDS:
        yield "contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": word}, "p": "abcdefghijklmnop"}
    yield "contentBlockStop", {"contentBlockIndex": 0, "p": "abcdefgh"}
    yield "messageStop", {"stopReason": "end_turn", "p": "abcd"}
    yield "metadata", {"usage": _BEDROCK_USAGE, "metrics": {"latencyMs": 551}, "p": "abc"}
