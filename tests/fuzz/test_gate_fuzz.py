"""Damaged responses through the whole path of a chat, in each mode: a result or an error of the provider's, in bounded time.

The decoders alone are in `test_wire_fuzz`; here the bytes come over HTTP, through the gate, the Router and the accumulator.
"""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Iterator
from typing import Any
from zlib import crc32

import pytest

from bridge_worker.backends.litellm.chat import LiteLLM
from bridge_worker.errors import KINDS
from tests.support.every_mode import IGNORED_WARNINGS, EveryMode, Reply, bridge, provider
from tests.support.provider_formats import FORMATS, Call, Completion, Format, line

__all__ = ["LiteLLM", "bridge", "provider"]  # fixtures, and the import by which LiteLLM is prepared
pytestmark = IGNORED_WARNINGS
ROUNDS = int(os.environ.get("GATE_FUZZ_ROUNDS", "8"))  # by hand: 500
DEADLINES = {"total_ms": 120_000}
COMPLETIONS = (
    Completion("Grüße ☃", "so", "c2lnbmF0dXJl", [Call("call_aaaaaaaaa", "f", '{"a": [1, {"b": "☃"}]}')], "tool_calls"),
    Completion("The whole text of an answer, in pieces.", usage=(20, 30, 5, 5, 12)),
)
JUNK = (
    b"\0",
    b"{",
    b"}",
    b"[",
    b'"',
    b"\n",
    b"null",
    b"\xff\xfe",
    b"data: ",
    b"1e999",
    b'"error":',
    b"\r\n\r\n",
    b"[DONE]",
    b"{}",
    b"-1",
)


def damaged(data: bytes, random: random.Random) -> bytes:
    for _ in range(random.randint(1, 3)):
        at, size = random.randrange(len(data) + 1), random.choice((0, 0, 1, 1, 4, 40))
        data = data[:at] + random.choice((*JUNK, b"")) + data[at + size :]
    return data[: random.randrange(len(data) + 1)] if random.random() < 0.2 else data


def reframed(frame: bytes, random: random.Random) -> bytes:
    """An AWS frame with a damaged payload and right checksums, so that the payload is read."""
    size = struct.unpack_from(">I", frame, 4)[0]
    payload = damaged(frame[12 + size : -4], random)
    prelude = struct.pack(">II", 16 + size + len(payload), size)
    whole = prelude + struct.pack(">I", crc32(prelude)) + frame[12 : 12 + size] + payload
    return whole + struct.pack(">I", crc32(whole))


def replies(wire: Format, random: random.Random, *, streamed: bool) -> Iterator[Reply]:
    for _ in range(ROUNDS):
        completion = random.choice(COMPLETIONS)
        if not streamed:
            status = random.choice((200, 200, 200, 400, 429, 500))
            yield Reply(damaged(line(wire.whole(completion)), random), status)
            continue
        frames = wire.events(completion)
        if wire.stream_type.endswith("eventstream") and random.random() < 0.7:
            at = random.randrange(len(frames))
            data = b"".join([*frames[:at], reframed(frames[at], random), *frames[at + 1 :]])
        else:
            data = damaged(b"".join(frames), random)
        cuts = sorted(random.randrange(len(data) + 1) for _ in range(random.randint(0, 5)))
        pieces = [data[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        yield Reply(headers={"content-type": wire.stream_type}, frames=[piece for piece in pieces if piece])


@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_response_is_a_result_or_an_error_of_the_provider(name: str, bridge: EveryMode, streamed: bool) -> None:
    wire = FORMATS[name]
    seed = f"{name} {streamed}"
    for reply in replies(wire, random.Random(seed), streamed=streamed):
        outcome = bridge.chat(wire, reply, streamed=streamed, deadlines=DEADLINES)
        if outcome.error:
            error: dict[str, Any] = outcome.error
            assert error["kind"] in KINDS
            assert error["kind"] not in ("internal", "timeout", "cancelled"), (reply, error)
            assert len(error["message"]) < 2_000
            assert error["receipt"]["attempts"]
        else:
            assert outcome.result["finish_reason"] in ("stop", "length", "tool_calls", "content_filter", None)
