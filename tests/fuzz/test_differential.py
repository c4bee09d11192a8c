"""Framing and decoders against slow, obvious versions of themselves, on any bytes in any cut.

The slow version reads the whole input at once. Where the two differ, one of them is wrong. `FUZZ_EXAMPLES=100000` runs longer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, target
from hypothesis import strategies as st

from bridge_worker.backends.wire.openai_chat import OpenAIChat
from bridge_worker.protocol import framing, value_counter
from bridge_worker.protocol.framing import Framer
from bridge_worker.protocol.link_frames import Frame, FrameReader, Kind, encode_frame
from tests.fuzz.examples import COMMON
from tests.fuzz.line_reference import MAX_BYTES, MAX_VALUES, described, slow_lines
from tests.unit.wire.joined import streamed

_BOM = b"\xef\xbb\xbf"

_PIECES = st.sampled_from(
    [
        *(b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\n", b"\n\n", b"\r\n", b"\r", b" ", b"\t", b"\x00", b"\xff", _BOM),
        *(b"1", b"-1.5", b"true", b"null", b"NaN", b"1e400", b'"a"', b'"id"', b'"\\u00e9"', b'"\\ud800"', "é☃".encode()),
        *(b'{"id":1}', b'{"a":1,"a":2}', b'{"id":"x","method":"ping"}', b"[[[]]]", b"[1,2,3]", b'{"a":{"b":[{}]}}', b"x" * 40),
        *(b'["\\",\\""]', b'"' + b"," * 20 + b'"', b"[" + b"1," * 14 + b"1]"),
    ]
)
_BYTES = st.lists(_PIECES | st.binary(max_size=4), max_size=20).map(b"".join)


def cut(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    bounds = [0, *sorted(at % (len(data) + 1) for at in cuts), len(data)]
    return (data[start:stop] for start, stop in pairwise(bounds))


# --- lines ------------------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True, scope="module")
def _small_limits() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module in (framing, value_counter):
            patch.setattr(module, "MAX_VALUES", MAX_VALUES)
        yield


@COMMON
@given(_BYTES, st.lists(st.integers(0, 400), max_size=12))
def test_lines_are_those_of_a_slow_reader_in_any_cut(data: bytes, cuts: list[int]) -> None:
    framer = Framer(MAX_BYTES)
    events = [event for piece in cut(data, cuts) for event in framer.feed(piece)]
    events += framer.close()
    expected = slow_lines(data)
    target(float(len({kind for kind, _ in expected}) + len(expected)))
    assert [described(event) for event in events] == expected


# --- frames -----------------------------------------------------------------------------------------------------------------


@COMMON
@given(
    st.lists(st.tuples(st.sampled_from(list(Kind)), st.integers(0, 2**24 - 1), st.binary(max_size=30)), max_size=8),
    st.lists(st.integers(0, 400), max_size=12),
)
def test_frames_come_out_as_they_went_in_whatever_the_cut(frames: list[tuple[Kind, int, bytes]], cuts: list[int]) -> None:
    reader = FrameReader()
    data = b"".join(encode_frame(*frame) for frame in frames)
    assert [frame for piece in cut(data, cuts) for frame in reader.feed(piece)] == [Frame(*frame) for frame in frames]


# --- decoders ---------------------------------------------------------------------------------------------------------------

_TEXTS = st.lists(st.text(st.characters(exclude_characters="<>"), max_size=6), max_size=8)


@COMMON
@given(
    _TEXTS,
    st.lists(st.integers(0, 4000), max_size=12),
    st.sampled_from([b"\n", b"\r\n"]),
    st.booleans(),
    st.booleans(),
)
def test_text_of_server_sent_events_is_that_of_a_slow_reader(
    texts: list[str], cuts: list[int], newline: bytes, ascii: bool, with_comments: bool
) -> None:
    chunks: list[Any] = [{"choices": [{"index": 0, "delta": {"content": text}}]} for text in texts]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    lines = [b"data: " + _encoded(chunk, ascii) for chunk in chunks] + [b"data: [DONE]"]
    comment = b": ping" + newline if with_comments else b""
    data = b"".join(comment + line + newline * 2 for line in lines)
    events = [event for event in data.decode().replace("\r\n", "\n").split("\n\n") if event]
    values = [line.removeprefix("data: ") for event in events for line in event.split("\n") if line.startswith("data: ")]
    slow = "".join(json.loads(value)["choices"][0]["delta"].get("content", "") for value in values if value != "[DONE]")
    result = streamed(OpenAIChat, data, [at % (len(data) + 1) for at in cuts])
    assert result.error is None
    assert result.content == slow == "".join(texts)


def _encoded(chunk: Any, ascii: bool) -> bytes:
    return json.dumps(chunk, ensure_ascii=ascii).encode("utf-8", "backslashreplace")
