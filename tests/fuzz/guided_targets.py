"""What is checked of any bytes: the first two choose what reads the others, and where they are cut.

Owns `check`, for `guided` and for the kept corpus. Refuses to know where the bytes come from.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any
from unittest import mock

from bridge_worker.backends.wire.aws_event_stream import FrameReader
from bridge_worker.backends.wire.formats import FORMATS, decoder_class
from bridge_worker.backends.wire.json_array import JsonArray
from bridge_worker.backends.wire.sse import EventStream
from bridge_worker.errors import BridgeError
from bridge_worker.protocol import framing, value_counter
from tests.fuzz import references
from tests.fuzz.line_reference import MAX_BYTES, MAX_VALUES, described, slow_lines
from tests.unit.wire.joined import plain, streamed


def check(data: bytes) -> None:
    """Raises AssertionError for a difference, and whatever else a reader raises that is not a BridgeError."""
    if len(data) >= 2:
        kinds = list(TARGETS.values())
        kinds[data[0] % len(kinds)](data[2:], _cuts(len(data) - 2, data[1]))


def _cuts(size: int, seed: int) -> list[int]:
    """None for seed 0, every byte for 1, else at random."""
    if seed < 2:
        return list(range(size)) if seed else []
    chance = random.Random(seed)
    return sorted(chance.randrange(size + 1) for _ in range(1 + seed % 8))


def _pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    return [data[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def _lines(data: bytes, cuts: list[int]) -> None:
    with mock.patch.object(framing, "MAX_VALUES", MAX_VALUES), mock.patch.object(value_counter, "MAX_VALUES", MAX_VALUES):
        framer = framing.Framer(MAX_BYTES)
        events = [event for piece in _pieces(data, cuts) for event in framer.feed(piece)] + [*framer.close()]
    assert [described(event) for event in events] == slow_lines(data)


def _sse(data: bytes, cuts: list[int]) -> None:
    stream = EventStream()
    events = [event for piece in _pieces(data, cuts) for event in stream.feed(piece)] + stream.close()
    assert (events, bytes(stream.stray)) == references.sse_events(data)


def _array(data: bytes, cuts: list[int]) -> None:
    stream = JsonArray()
    events = [event for piece in _pieces(data, cuts) for event in stream.feed(piece)] + stream.close()
    assert ([event for _, event in events], bytes(stream.stray)) == references.array_events(data)


def _frames(data: bytes, cuts: list[int]) -> None:
    reader, found, damaged = FrameReader(), list[tuple[dict[str, Any], bytes]](), False
    for piece in _pieces(data, cuts):
        try:
            found += reader.feed(piece)
        except BridgeError:
            found, damaged = found + list(reader.completed), True
            break
    assert (found, damaged) == references.aws_events(data)


def _decoder(make: Any) -> Callable[[bytes, list[int]], None]:
    def check_decoder(data: bytes, cuts: list[int]) -> None:
        assert streamed(make, data, cuts).comparable() == streamed(make, data).comparable()
        plain(make, data)
        assert make.error(500, {}, data).kind

    return check_decoder


MAKERS: dict[str, Any] = {name: decoder_class(found) for name, found in FORMATS.items()}
TARGETS: dict[str, Callable[[bytes, list[int]], None]] = {
    "lines": _lines,
    "sse": _sse,
    "array": _array,
    "frames": _frames,
    **{name: _decoder(make) for name, make in MAKERS.items()},
}
