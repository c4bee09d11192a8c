"""Decoding takes time linear in the bytes, whatever their shape."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from bridge_worker.backends.wire.cohere import Cohere
from bridge_worker.backends.wire.ollama import Ollama
from bridge_worker.backends.wire.openai_chat import OpenAIChat
from bridge_worker.backends.wire.openai_responses import OpenAIResponses
from tests.unit.wire.cases import chunk, cohere_message, event, message, response
from tests.unit.wire.cases import line as ollama_line

TEXT = {"type": "text", "text": "x" * 40}
THINKING = {"type": "thinking", "thinking": "y" * 40}
CALL = {"type": "function", "function": {"name": "f", "arguments": "{}"}}


def _annotated(count: int) -> Any:
    return {"type": "message", "content": [{**TEXT, "annotations": [{"type": "x"}] * count}]}


CALL_ITEM = {"type": "function_call", "name": "f"}
SHAPES: dict[str, tuple[type[Any], Callable[[int], Any]]] = {
    "parts": (OpenAIChat, lambda n: message(content=[TEXT, THINKING] * n)),
    "unknown parts": (OpenAIChat, lambda n: message(content=[{"type": "hologram"}] * n)),
    "tool calls": (OpenAIChat, lambda n: message(tool_calls=[{**CALL, "id": str(i), "extra": i} for i in range(n)])),
    "details": (OpenAIChat, lambda n: message(reasoning_details=[{"type": "reasoning.text", "index": 0, "text": "x" * 40}] * n)),
    "choices": (OpenAIChat, lambda n: {"choices": [message(content="x" * 40)["choices"][0]] * n}),
    "text items": (OpenAIResponses, lambda n: response("completed", *[{"type": "message", "content": [TEXT]}] * n)),
    "call items": (
        OpenAIResponses,
        lambda n: response("completed", *[{**CALL_ITEM, "call_id": str(i)} for i in range(n)]),
    ),
    "annotations": (
        OpenAIResponses,
        lambda n: response("completed", {"type": "message", "content": [{**TEXT, "annotations": [{"type": "x"}] * n}]}),
    ),
    "ollama's calls": (Ollama, lambda n: ollama_line(True, "stop", tool_calls=[CALL] * n)),
    "cohere's parts": (Cohere, lambda n: cohere_message(content=[TEXT, THINKING] * n)),
}


def seconds(run: Callable[[], Any]) -> float:
    began = time.process_time()
    run()
    return time.process_time() - began


def check_linear(run: Callable[[int], Any]) -> None:
    """Measured again only if the first time is too long, which a busy machine can make it."""
    small, large = min(seconds(lambda: run(1_000)) for _ in range(2)), seconds(lambda: run(10_000))
    if large >= 30 * small + 0.05:
        large = min(seconds(lambda: run(10_000)) for _ in range(3))
    assert large < 30 * small + 0.05, (small, large)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_body_of_many_parts(shape: str) -> None:
    make, body = SHAPES[shape]
    bodies = {size: json.dumps(body(size)).encode() for size in (1_000, 10_000)}

    def run(size: int) -> None:
        decoder = make()
        assert decoder.whole(bodies[size])
        decoder.end()

    check_linear(run)


@pytest.mark.parametrize(
    ("make", "piece"),
    [
        (OpenAIChat, chunk({"surprise": "x" * 40})),
        (OpenAIChat, chunk({"content": " "})),
        (OpenAIChat, chunk({"reasoning_details": [{"type": "reasoning.text", "index": 0, "text": "x" * 40}]})),
        (OpenAIResponses, event("response.output_text.delta", output_index=0, content_index=0, delta="x" * 40)),
        (OpenAIResponses, event("response.sparkle", x=[1])),
    ],
    ids=["an unknown text", "white space", "details", "text", "unknown events"],
)
def test_a_stream_of_many_small_events(make: type[Any], piece: Any) -> None:
    data = f"data: {json.dumps(piece)}\n\n".encode()

    def run(size: int) -> None:
        decoder = make()
        for _ in range(size // 100):
            decoder.feed(data * 100)
        decoder.flush()

    check_linear(run)


def test_a_tag_that_is_never_closed_in_small_pieces() -> None:
    pieces = [f"data: {json.dumps(chunk({'content': text}))}\n\n".encode() for text in ("<think>", "</thin", "<")]

    def run(size: int) -> None:
        decoder = OpenAIChat()
        decoder.feed(pieces[0])
        for _ in range(size // 100):
            decoder.feed((pieces[1] + pieces[2]) * 50)
        decoder.flush()

    check_linear(run)


def test_a_chunk_of_text_is_decoded_in_a_few_microseconds() -> None:
    """6 us is the target; the bound leaves room for a busy machine."""
    members = {"object": "chat.completion.chunk", "created": 1, "system_fingerprint": "fp_" + "a" * 60, "usage": None}
    value = {"id": "chatcmpl-" + "a" * 30, "model": "gpt-4o-mini", **members}
    value["choices"] = [{"index": 0, "delta": {"content": "hello world"}, "logprobs": None, "finish_reason": None}]
    data = f"data: {json.dumps(value)}\n\n".encode()
    assert 250 < len(data) < 350

    def run() -> None:
        decoder = OpenAIChat()
        for _ in range(500):
            assert len(decoder.feed(data * 10)) == 10

    best = min(seconds(run) for _ in range(5)) / 5_000
    assert best < 25e-6, best
