"""Server-sent events: any cut, each line end, bounded and linear."""

from __future__ import annotations

import json
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge_worker.backends.wire.sse import EventStream
from bridge_worker.errors import BridgeError


def read(data: bytes, *cuts: int, max_bytes: int = 1 << 20) -> tuple[list[tuple[str, bytes]], bytes]:
    stream = EventStream(max_bytes)
    bounds = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    found = []
    for start, stop in pairwise(bounds):
        found += stream.feed(data[start:stop])
    return [*found, *stream.close()], bytes(stream.stray)


@pytest.mark.parametrize(
    ("data", "events"),
    [
        (b"data: a\n\ndata: b\n\n", [("", b"a"), ("", b"b")]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [("", b"a"), ("", b"b")]),
        (b"data: a\r\rdata: b\r\r", [("", b"a"), ("", b"b")]),
        (b"data:a\n\n", [("", b"a")]),
        (b"data:  a\n\n", [("", b" a")]),
        (b"data: a\ndata: b\n\n", [("", b"a\nb")]),
        (b"data: a\ndata:\ndata: b\n\n", [("", b"a\n\nb")]),
        (b": ping\n\ndata: a\n\n: ping\n\n", [("", b"a")]),
        (b"event: x\ndata: a\n\ndata: b\n\n", [("x", b"a"), ("", b"b")]),
        (b"id: 7\nretry: 5\nevent\ndata: a\n\n", [("", b"a")]),
        (b"\xef\xbb\xbfdata: a\n\n", [("", b"a")]),
        (b"\n\n\ndata: a\n\n", [("", b"a")]),
        (b"data: a", [("", b"a")]),
        (b"data: a\n", [("", b"a")]),
        (b"data:\n\n", []),
        (b"event: x\n\n", []),
        ("data: a\u2028b\u2029c\x0b\x0c\x85d\n\n".encode(), [("", "a\u2028b\u2029c\x0b\x0c\x85d".encode())]),
        (b'data: {"a":1}\ndata: {"b":2}\ndata: [DONE]\n', [("", b'{"a":1}'), ("", b'{"b":2}'), ("", b"[DONE]")]),
        (b'data: {\ndata: "a": {}\ndata: }\n\n', [("", b'{\n"a": {}\n}')]),
    ],
)
def test_events(data: bytes, events: list[tuple[str, bytes]]) -> None:
    assert read(data)[0] == events
    assert read(data, *range(len(data)))[0] == events, "byte by byte"


@pytest.mark.parametrize("body", [b'{"error": 1}', b'[{"a": 1}]', b"<html>\n\n</html>", b'  \n{"data: x\n\n": 1}'])
def test_a_body_that_is_not_a_stream_is_kept_whole(body: bytes) -> None:
    for cuts in ((), range(len(body))):
        events, stray = read(body, *cuts)
        assert not events
        assert stray.strip() == body.strip()


def test_lines_that_are_not_fields_are_kept_up_to_a_limit() -> None:
    events, stray = read(b"data: a\n\nInternal error\n" + b"x" * 100_000 + b"\n" + b"more\n" * 20_000 + b"data: b\n\n")
    assert events == [("", b"a"), ("", b"b")]
    assert stray.startswith(b"Internal error\nxxx")
    assert len(stray) < 140_000


_PIECES = [
    b"data: ",
    b"data:",
    b"event: e",
    b"\n",
    b"\r",
    b"\r\n",
    b": c",
    b"{",
    b"}",
    b"x",
    b"id:",
    b"\xe2\x80\xa8",
    b"\xef\xbb\xbf",
    b"[DONE]",
]


@given(st.lists(st.sampled_from(_PIECES), max_size=40).map(b"".join), st.lists(st.integers(0, 400), max_size=8))
@settings(max_examples=100, deadline=None)
def test_any_cut_gives_the_same_events(data: bytes, cuts: list[int]) -> None:
    assert read(data, *cuts) == read(data)


@pytest.mark.parametrize(
    "data",
    [
        b"data: ok\n\ndata: " + b"x" * 2000 + b"\n\n",
        b"data: ok\n\ndata: " + b"x" * 2000,
        b"data: ok\n\n" + b"data: xxxxxxxxxxxxxxxx\n" * 100,
        b"data: ok\n\n: " + b"x" * 2000,
    ],
)
@pytest.mark.parametrize("size", [1, 7, 5000])
def test_an_event_over_the_limit_is_an_error_and_those_before_it_are_not_lost(data: bytes, size: int) -> None:
    stream = EventStream(1000)
    found = []
    with pytest.raises(BridgeError) as caught:  # noqa: PT012  # the loop is one read after the other
        for start in range(0, len(data), size):
            try:
                found += stream.feed(data[start : start + size])
            except BridgeError:
                found += stream.completed
                raise
    assert caught.value.kind == "bad_upstream_response"
    assert found == [("", b"ok")]


def test_a_body_over_the_limit_is_an_error() -> None:
    with pytest.raises(BridgeError):
        read(b"{" + b" " * 2000, 10, max_bytes=1000)


@pytest.mark.parametrize("largest", [b"data: 1234567890\n\n", b"data: 12345\ndata: 12345\n\n", b"data: 1234", b"{23456789}"])
def test_the_limit_itself_is_allowed(largest: bytes) -> None:
    read(largest, max_bytes=10)
    with pytest.raises(BridgeError):
        read(largest.replace(b"4", b"44"), max_bytes=10)


@pytest.mark.parametrize("end", [b"\n\n", b""])
def test_a_long_line_in_small_pieces_takes_linear_time(end: bytes) -> None:
    def seconds(size: int) -> float:
        data = b'data: "' + b"x" * size + b'"' + end
        stream = EventStream()
        began = time.process_time()
        found = [event for start in range(0, len(data), 100) for event in stream.feed(data[start : start + 100])]
        found += stream.close()
        assert len(json.loads(found[0][1])) == size
        return time.process_time() - began

    small, large = min(seconds(1_000_000) for _ in range(3)), seconds(10_000_000)
    assert large < 40 * small + 0.05, (small, large)
