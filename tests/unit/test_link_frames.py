"""Frames of the link between the server process and an engine: whatever the chunks, the same frames come out."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_worker.protocol.link_frames import HEAD, MAX_REQUEST, Frame, FrameReader, Kind, LinkBroken, encode_frame

FRAMES = st.lists(
    st.builds(Frame, st.sampled_from(Kind), st.integers(0, MAX_REQUEST), st.binary(max_size=200)),
    max_size=20,
)


def chunks(data: bytes, cuts: list[int]) -> list[bytes]:
    at = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[start:end] for start, end in itertools.pairwise(at)]


@given(FRAMES, st.lists(st.integers(0, 10_000), max_size=30))
def test_any_chunks_give_the_same_frames(frames: list[Frame], cuts: list[int]) -> None:
    reader = FrameReader()
    data = b"".join(encode_frame(*frame) for frame in frames)
    assert [frame for chunk in chunks(data, cuts) for frame in reader.feed(chunk)] == frames


@given(FRAMES.filter(bool))
def test_a_frame_comes_with_its_last_byte_and_not_before(frames: list[Frame]) -> None:
    reader = FrameReader()
    for frame in frames:
        data = encode_frame(*frame)
        assert reader.feed(data[:-1]) == []
        assert reader.feed(data[-1:]) == [frame]


def test_the_head_has_eight_bytes() -> None:
    assert HEAD.size == 8
    assert len(encode_frame(Kind.PING)) == 8
    assert encode_frame(Kind.DELTAS, 7, b"line\n")[:8] == bytes([5, 0, 0, 0, Kind.DELTAS, 7, 0, 0])


def test_a_long_body_is_joined_once() -> None:
    reader = FrameReader()
    body = b"x" * 3_000_000
    data = encode_frame(Kind.REQUEST, 1, body) + encode_frame(Kind.PING)
    frames = [frame for at in range(0, len(data), 65_536) for frame in reader.feed(data[at : at + 65_536])]
    assert frames == [Frame(Kind.REQUEST, 1, body), Frame(Kind.PING, 0, b"")]


@pytest.mark.parametrize("data", [HEAD.pack(0, 0), HEAD.pack(0, 31), HEAD.pack(2**31, Kind.PING)], ids=["no-kind", "gap", "length"])
def test_bytes_that_are_not_frames_are_an_error(data: bytes) -> None:
    with pytest.raises(LinkBroken):
        FrameReader().feed(data)


def test_kinds_have_one_direction() -> None:
    to_engine = {kind for kind in Kind if kind < 32}
    assert to_engine == {
        Kind.SETUP,
        Kind.REQUEST,
        Kind.CANCEL,
        Kind.PING,
        Kind.PAUSE,
        Kind.RESUME,
        Kind.REPLY,
        Kind.STOP,
        Kind.PUSH,
    }
