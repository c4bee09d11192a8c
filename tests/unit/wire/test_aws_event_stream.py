"""AWS's event stream: frames of any content in any cut, and what is damaged or hostile."""

from __future__ import annotations

import struct
import time
import uuid
from contextlib import suppress
from itertools import pairwise
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_worker.backends.wire import aws_event_stream
from bridge_worker.backends.wire.aws_event_stream import (
    MAX_FRAME_BYTES,
    AwsEvents,
    Frame,
    FrameReader,
    is_aws,
    read_headers,
)
from bridge_worker.errors import BridgeError
from tests.unit.wire.aws_frames import event, exception, frame

EVERY_TYPE = (
    b"\1t\0" + b"\1f\1" + b"\1b\2\xff" + b"\1s\3\xff\xfe" + b"\1i\4\0\0\1\0" + b"\1l\5" + b"\0" * 7 + b"\5"
    b"\1y\6\0\3abc" + b"\1n\7\0\2hi" + b"\1d\x08" + b"\0" * 6 + b"\1\0" + b"\1u\x09" + bytes(range(16))
)


def read(data: bytes, cuts: list[int] | None = None) -> list[Frame]:
    reader = FrameReader()
    frames: list[Frame] = []
    for start, stop in pairwise([0, *sorted(cuts or ()), len(data)]):
        frames += reader.feed(data[start:stop])
    assert not reader.rest
    return frames


def test_headers_of_every_type() -> None:
    assert read_headers(EVERY_TYPE) == {
        "t": True,
        "f": False,
        "b": -1,
        "s": -2,
        "i": 256,
        "l": 5,
        "y": b"abc",
        "n": "hi",
        "d": 256,
        "u": str(uuid.UUID(bytes=bytes(range(16)))),
    }


def test_the_vectors_of_the_specification() -> None:
    """Its empty message, and its message with a payload and one header (aws-c-event-stream's test vectors, by their bytes)."""
    assert read(bytes.fromhex("000000100000000005c248eb7d98c8ff")) == [Frame({}, b"")]
    one = bytes.fromhex("0000003d0000002007fd8396") + b"\x0ccontent-type\x07\x00\x10application/json" + b"{'foo':'bar'}"
    assert read(one + bytes.fromhex("8d9c08b1")) == [Frame({"content-type": "application/json"}, b"{'foo':'bar'}")]


@given(
    payloads=st.lists(st.binary(max_size=300), max_size=6),
    names=st.lists(st.text(st.characters(codec="utf-8"), max_size=20), min_size=6, max_size=6),
    cuts=st.lists(st.integers(0, 3000), max_size=30),
)
def test_any_cut_gives_the_same_frames(payloads: list[bytes], names: list[str], cuts: list[int]) -> None:
    data = b"".join(frame({"n": name}, payload) for name, payload in zip(names, payloads, strict=False))
    whole = read(data)
    assert [(f.headers, f.payload) for f in whole] == [({"n": n}, p) for n, p in zip(names, payloads, strict=False)]
    assert read(data, [cut for cut in cuts if cut < len(data)]) == whole


@given(st.binary(max_size=400))
def test_any_bytes_give_frames_or_an_error(data: bytes) -> None:
    for prefix in (b"", b"\0\0\0\x20"):
        with suppress(BridgeError):
            AwsEvents().feed(prefix + data)


@given(st.binary(max_size=120))
def test_any_headers_give_values_or_an_error(data: bytes) -> None:
    with suppress(BridgeError):
        assert all(isinstance(value, bool | int | str | bytes) for value in read_headers(data).values())


@pytest.mark.parametrize("at", range(len(event("x", {"a": 1}))))
def test_each_damaged_byte_is_found(at: int) -> None:
    data = bytearray(event("x", {"a": 1}) + b"\0" * 40)
    data[at] ^= 0x10
    with pytest.raises(BridgeError, match=r"damaged|more than") as caught:
        FrameReader().feed(bytes(data))
    assert caught.value.kind == "bad_upstream_response"


@pytest.mark.parametrize(
    ("total", "headers"), [(MAX_FRAME_BYTES + 1, 0), (2**32 - 1, 0), (100, 99), (15, 0), (0, 0), (2**20, 2**19)]
)
def test_lengths_that_cannot_be_are_found_before_they_are_waited_for(total: int, headers: int) -> None:
    prelude = struct.pack(">II", total, headers)
    with pytest.raises(BridgeError):
        FrameReader().feed(prelude + struct.pack(">I", crc32(prelude)))


def test_the_limits_themselves_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    data = frame({"n": "abc"}, b"payload")
    monkeypatch.setattr(aws_event_stream, "MAX_FRAME_BYTES", len(data))
    monkeypatch.setattr(aws_event_stream, "MAX_HEADER_BYTES", 8)
    assert read(data) == [Frame({"n": "abc"}, b"payload")]
    for larger in (frame({"n": "abc"}, b"payloads"), frame({"n": "abcd"}, b"")):
        with pytest.raises(BridgeError):
            read(larger)


@pytest.mark.parametrize(
    "headers",
    [b"\5ab", b"\1a", b"\1a\x0a", b"\1a\7\0", b"\1a\7\0\5abc", b"\1a\x04\0", b"\1a\x09abc", b"\1a\xff"],
)
def test_headers_that_cannot_be_read(headers: bytes) -> None:
    with pytest.raises(BridgeError, match="headers"):
        FrameReader().feed(frame({}, b"{}", headers))


def test_events_before_a_damaged_frame_are_not_lost() -> None:
    damaged = bytearray(event("b", {}))
    damaged[-1] ^= 1
    events = AwsEvents()
    with pytest.raises(BridgeError):
        events.feed(event("a", {}) + bytes(damaged))
    assert events.completed == [("a", b"{}")]


@pytest.mark.parametrize(
    ("name", "kind", "retryable"),
    [
        ("throttlingException", "rate_limited", True),
        ("ThrottlingException", "rate_limited", True),
        ("modelStreamErrorException", "provider_unavailable", True),
        ("internalServerException", "provider_unavailable", True),
        ("serviceUnavailableException", "provider_unavailable", True),
        ("modelTimeoutException", "timeout", True),
        ("modelErrorException", "provider_unavailable", True),
        ("modelNotReadyException", "provider_unavailable", True),
        ("validationException", "rejected_by_provider", False),
        ("accessDeniedException", "permission", False),
        ("resourceNotFoundException", "model_not_found", False),
        ("serviceQuotaExceededException", "rate_limited", True),
        ("expiredTokenException", "authentication", False),
    ],
)
def test_each_exception_has_its_kind_and_the_services_words(name: str, kind: str, retryable: bool) -> None:
    events = AwsEvents()
    with pytest.raises(BridgeError) as caught:
        events.feed(event("a", {}) + exception(name, {"message": "the words"}))
    assert (caught.value.kind, caught.value.retryable, events.completed) == (kind, retryable, [("a", b"{}")])
    assert "the words" in caught.value.message


@pytest.mark.parametrize(
    ("data", "kind", "text"),
    [
        (
            exception("validationException", {"message": "Input is too long for requested model."}),
            "context_length_exceeded",
            "too long",
        ),
        (
            exception("modelStreamErrorException", {"message": "m", "originalMessage": "the GPU is gone"}),
            "provider_unavailable",
            "GPU",
        ),
        (exception("throttlingException", b"not JSON"), "rate_limited", "not JSON"),
        (exception("throttlingException", b""), "rate_limited", "throttlingException"),
        (exception("someNewException", {"Message": "new"}), "provider_unavailable", "new"),
        (exception("validationException", [1]), "rejected_by_provider", "validationException"),
        (
            frame({":message-type": "error", ":error-code": "InternalFailure", ":error-message": "an internal fault"}),
            "provider_unavailable",
            "an internal fault",
        ),
        (frame({":message-type": "error"}), "provider_unavailable", ""),
    ],
)
def test_exceptions_of_other_shapes(data: bytes, kind: str, text: str) -> None:
    with pytest.raises(BridgeError) as caught:
        AwsEvents().feed(data)
    assert caught.value.kind == kind
    assert text in caught.value.message


@pytest.mark.parametrize("text", [b"data: x", b"{", b"[", b"<", b" ", b"\n", b"event", b":", b"\xef\xbb\xbf{", b""])
def test_text_is_not_taken_for_frames(text: bytes) -> None:
    assert not is_aws(text)


def test_a_large_frame_in_small_reads_takes_linear_time() -> None:
    def seconds(size: int) -> float:
        data = event("x", b"x" * size)
        began = time.process_time()
        read(data, list(range(0, len(data), 1000)))
        return time.process_time() - began

    small, large = min(seconds(300_000) for _ in range(3)), seconds(3_000_000)
    assert large < 30 * small + 0.1
