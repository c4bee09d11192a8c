"""What cuts and decodes a provider's bytes against slow, obvious versions (`references`), in any cut.

`FUZZ_EXAMPLES=100000` runs longer; `tests.fuzz.guided` is guided by the branches that an input reaches.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from zlib import crc32

import pytest
from hypothesis import example, given, settings, target
from hypothesis import strategies as st

from bridge_worker.backends.wire.formats import FORMATS, decoder_class
from tests.fuzz import guided_targets, references
from tests.fuzz.examples import COMMON, EXAMPLES
from tests.fuzz.guided_targets import TARGETS
from tests.fuzz.references import Part
from tests.unit.wire import aws_frames
from tests.unit.wire.joined import streamed

_CUTS = st.lists(st.integers(0, 4000), max_size=12)
_SSE = st.sampled_from(
    [
        *(b"data: ", b"data:", b"data", b"event: e", b"event:", b"id:", b"retry:", b":", b": c", b" ", b"x", b"x:y", b"\xff"),
        *(b"\n", b"\n\n", b"\r", b"\r\n", b"{", b"}", b'{"a":1}', b"[DONE]", b"[", b'"', b"<", b"\t", b"\xe2\x80\xa8"),
        *(b"\xef\xbb\xbf", b"\xef", b"\xbb", b"e" * 201),
    ]
)
_ARRAY = st.sampled_from(
    [b"[", b"]", b"{", b"}", b",", b'"', b"\\", b" ", b"\n", b'{"a":1}', b'{"a":"}"}', b'{"b":[{}]}', b"x", b'["{"]', b"\xff"]
)
_HEADERS = st.sampled_from(
    [
        *(b"\1a\0", b"\1b\1", b"\1c\2\xff", b"\1d\3\x80\0", b"\1e\4\0\0\0\1", b"\1f\5" + b"\xff" * 8, b"\1g\x08" + b"\1" * 8),
        *(b"\2hi\6\0\2xy", b"\1j\7\0\3abc", b"\1k\7\0\1\xff", b"\1l\x09" + bytes(range(16)), b"\0\7\0\0"),
        *(b"\1m\x0a", b"\5ab", b"\1n\7\0\5abc", b"\1o\4\0", b"\1p"),
    ]
)


def places(data: bytes | bytearray, cuts: list[int]) -> list[int]:
    return sorted(at % (len(data) + 1) for at in cuts)


@COMMON
@example(b"{", [])
@example(b"\xef\xbb\xbf", [])
@example(b"\xef\xbb\xbf \xef\xbb\xbfdata: x", [4])
@example(b"event:e\ndata: x\n\nevent: " + b"e" * 201 + b"\ndata: y", [])
@example(b"data: x\r\ndata: y", [8, 8])
@example(b"data: x\n\ndata: y\r\n", [8])
@example(b"data: x\r\ndata: y\n\ndata: z", [8, 17])
@given(st.lists(_SSE | st.binary(max_size=3), max_size=30).map(b"".join), _CUTS)
def test_server_sent_events_are_those_of_a_slow_reader(data: bytes, cuts: list[int]) -> None:
    TARGETS["sse"](data, places(data, cuts))


@COMMON
@example(b"[x", [])
@example(b"[[1], {}]", [])
@given(st.lists(_ARRAY | st.binary(max_size=3), max_size=30).map(b"".join), _CUTS)
def test_objects_of_an_array_are_those_of_a_slow_reader(data: bytes, cuts: list[int]) -> None:
    TARGETS["array"](data, places(data, cuts))


@COMMON
@example([(b"\1l\x09" + bytes(range(16)) + b"\1a\0", b"")], None, False, [])
@given(
    st.lists(st.tuples(st.lists(_HEADERS, max_size=4).map(b"".join), st.binary(max_size=20)), max_size=5),
    st.none() | st.tuples(st.integers(0, 1000), st.integers(1, 255)),
    st.booleans(),
    _CUTS,
)
def test_frames_are_those_of_a_slow_reader(
    frames: list[tuple[bytes, bytes]], damage: tuple[int, int] | None, repaired: bool, cuts: list[int]
) -> None:
    """With one byte changed; ``repaired``: the checksum of the first lengths is right again."""
    data = bytearray(b"".join(aws_frames.frame({}, payload, headers) for headers, payload in frames))
    if damage and data:
        data[damage[0] % len(data)] ^= damage[1]
        if repaired:
            data[8:12] = crc32(data[:8]).to_bytes(4, "big")
    TARGETS["frames"](bytes(data), places(data, cuts))


_TEXTS = st.text(st.characters(exclude_characters="<>", exclude_categories=["Cs"]), max_size=6)
_ARGUMENTS = st.dictionaries(_TEXTS, _TEXTS | st.integers(-5, 5) | st.booleans(), max_size=3)
_PART: st.SearchStrategy[Part] = st.one_of(
    st.tuples(st.just("text"), _TEXTS),
    st.tuples(st.just("thought"), _TEXTS),
    st.tuples(st.just("call"), st.tuples(st.sampled_from(["f", "get_x"]), _ARGUMENTS)),
)


@pytest.mark.parametrize("form", references.WRITERS)
@settings(COMMON, max_examples=EXAMPLES // 3)
@given(reply=st.lists(_PART, max_size=8), cuts=_CUTS)
def test_a_reply_is_read_as_it_was_written_in_each_format(form: str, reply: list[Part], cuts: list[int]) -> None:
    name, write = references.WRITERS[form]
    data = write(reply)
    result = streamed(decoder_class(FORMATS[name]), data, places(data, cuts))  # type: ignore[arg-type]
    target(float(len(reply)))
    assert result.error is None
    calls = [(call["name"], json.loads(call["arguments"])) for call in result.calls]
    assert (result.content, result.reasoning, calls) == references.read(reply, form)


def _kept() -> list[bytes]:
    return [base64.b64decode(line) for line in Path(__file__).with_name("guided_corpus.txt").read_text().split()]


def test_what_the_guided_run_has_reached_still_holds() -> None:
    kept = _kept()
    assert len(kept) > 100
    for data in kept:
        guided_targets.check(data)
