"""Bytes to messages and back, by the smallest steps: no process, no pipe."""

from __future__ import annotations

import json
import math
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge_worker.protocol import framing, value_counter
from bridge_worker.protocol.framing import Fault, Framer, Message, decode, encode
from bridge_worker.protocol.value_counter import has_too_many_values

quick = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])

BOM = b"\xef\xbb\xbf"

# Every JSON value. Text is drawn with lone surrogates: a JSON string may hold "\ud800", though UTF-8 can't carry it.
any_text = st.text(st.characters(exclude_categories=()))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | any_text,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(any_text, inner, max_size=5),
    max_leaves=20,
)


def framed(*pieces: bytes, max_bytes: int = 1000) -> list[Message | Fault]:
    """All that a stream that arrives in these pieces and then ends yields."""
    framer = Framer(max_bytes)
    events = [event for piece in pieces for event in framer.feed(piece)]
    return events + list(framer.close())


def values_of(events: list[Message | Fault]) -> list[object]:
    """Values as they are, faults as (kind, message), so that two readings can be compared."""
    return [event.value if isinstance(event, Message) else (event.error.kind, event.error.message) for event in events]


def kind(event: Message | Fault) -> str:
    return event.error.kind if isinstance(event, Fault) else "message"


# --- lines -------------------------------------------------------------------------------------------------------------------

lines = st.lists(
    st.one_of(
        json_values.map(lambda value: encode(value).rstrip(b"\n")),
        st.sampled_from(
            [b"", b" ", b"\r", b"\t \r", b'{"a":1}\r', BOM, BOM + b"1", b"\xff", b"NaN", b"[" * 50, b'"' + b"x" * 60 + b'"']
        ),
        st.binary(max_size=70).map(lambda data: data.replace(b"\n", b"")),
    ),
    max_size=6,
)


@pytest.mark.rule("FRM-3")
@quick
@given(lines, st.booleans(), st.lists(st.integers(0, 400), max_size=12))
def test_it_does_not_matter_in_what_pieces_a_stream_arrives(lines: list[bytes], ends_in_newline: bool, cuts: list[int]) -> None:
    stream = b"\n".join(lines) + (b"\n" if ends_in_newline else b"")
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    whole = values_of(framed(stream, max_bytes=50))
    assert values_of(framed(*(stream[start:end] for start, end in pairwise(places)), max_bytes=50)) == whole
    assert values_of(framed(*(bytes([byte]) for byte in stream), max_bytes=50)) == whole


def test_a_message_is_there_as_soon_as_its_newline_is() -> None:
    framer = Framer()
    assert list(framer.feed(b"[1]")) == []
    assert list(framer.feed(b"\n[2]\n[3")) == [Message([1]), Message([2])]
    assert list(framer.feed(b"]\n")) == [Message([3])]


@pytest.mark.rule("FRM-3", "FRM-4")
@pytest.mark.parametrize(
    ("stream", "values"),
    [
        pytest.param(b"1\r\n2\r\n", [1, 2], id="CRLF"),
        pytest.param(b"1\n2", [1, 2], id="a last line without a newline counts"),
        pytest.param(b"1\r\n2\r", [1, 2], id="nor does half of a CRLF matter at the end"),
        pytest.param(b"\n\n 1 \n\r\n\t\n2\n\n", [1, 2], id="blank lines"),
        pytest.param(BOM + b"1\n2\n", [1, 2], id="a BOM at the start"),
        pytest.param(BOM + b"\n1\n", [1], id="a BOM on a separate line"),
        pytest.param(BOM, [], id="a BOM and nothing else"),
        pytest.param(b"", [], id="nothing"),
        pytest.param(b'{"a":\t[1 , 2]}\n', [{"a": [1, 2]}], id="white space inside"),
        pytest.param('"é\u2028\u0085"\n'.encode(), ["é\u2028\u0085"], id="what only Unicode calls a line end"),
        pytest.param(b'""\n0\nnull\nfalse\n', ["", 0, None, False], id="values that Python takes for nothing"),
    ],
)
def test_what_is_tolerated_around_messages(stream: bytes, values: list[object]) -> None:
    assert values_of(framed(stream)) == values


@pytest.mark.rule("FRM-4")
@pytest.mark.parametrize("stream", [b"1\n" + BOM + b"2\n", b"\n" + BOM + b"2\n", BOM + BOM + b"2\n"])
def test_a_bom_anywhere_but_at_the_start_is_a_fault(stream: bytes) -> None:
    events = framed(stream)
    assert kind(events[-1]) == "parse_error"


# --- the limit ---------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("FRM-5")
def test_a_line_at_the_limit_is_read_and_one_byte_more_is_not() -> None:
    fits = b'"' + b"x" * 98 + b'"'
    for end in (b"\n", b"\r\n", b"\r", b""):
        assert values_of(framed(fits + end, max_bytes=100)) == ["x" * 98]
        assert [kind(event) for event in framed(b" " + fits + end, max_bytes=100)] == ["invalid_message"]


@pytest.mark.rule("FRM-5", "FRM-8")
@quick
@given(st.integers(1, 60), st.integers(1, 200))
def test_the_line_after_one_that_is_too_long_works(piece: int, excess: int) -> None:
    stream = b"1\n" + b"x" * (50 + excess) + b"\n2\n"
    pieces = [stream[start : start + piece] for start in range(0, len(stream), piece)]
    events = framed(*pieces, max_bytes=50)
    assert [kind(event) for event in events] == ["message", "invalid_message", "message"]
    assert values_of(events)[::2] == [1, 2]


def test_a_line_that_is_too_long_names_the_limit_and_the_hint() -> None:
    (event,) = framed(b"x" * 60, max_bytes=50)
    assert isinstance(event, Fault)
    assert "50 bytes" in event.error.message
    assert "--max-message-bytes" in event.error.message


@pytest.mark.rule("FRM-5")
def test_a_line_that_never_ends_is_not_kept() -> None:
    framer = Framer(10_000)
    piece = b"x" * 5_000
    assert list(framer.feed(piece)) == []
    tracemalloc.start()
    try:
        for _ in range(2_000):
            assert list(framer.feed(piece)) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100_000  # of the 10 MB that went in
    assert [kind(event) for event in framer.close()] == ["invalid_message"]


@pytest.mark.rule("FRM-5")
def test_a_stream_that_ends_inside_a_line_that_is_too_long_yields_one_fault() -> None:
    framer = Framer(10)
    assert list(framer.feed(b"x" * 50)) == []
    assert [kind(event) for event in framer.close()] == ["invalid_message"]
    assert list(framer.close()) == []


# --- JSON --------------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("FRM-6", "FRM-7", "FRM-8")
@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b'"\xff"', id="not UTF-8"),
        pytest.param(b'"\xc3', id="a character cut in two"),
        pytest.param(b'"\xed\xa0\x80"', id="a surrogate in UTF-8"),
        pytest.param(b'"\xc0\x80"', id="an overlong form"),
        pytest.param('{"a":1}'.encode("utf-16"), id="UTF-16"),
        pytest.param(b"hello", id="a word"),
        pytest.param(b'{"a":1', id="unfinished"),
        pytest.param(b"{'a':1}", id="single quotes"),
        pytest.param(b'{"a":1,}', id="a comma too many"),
        pytest.param(b"1 2", id="two values"),
        pytest.param(b'{"a":1}{"b":2}', id="two objects"),
        pytest.param(b'"a\tb"', id="a control character in a string"),
        pytest.param(b'"\\x"', id="an escape that there is not"),
        pytest.param(b"01", id="a leading zero"),
        pytest.param(b"+1", id="a plus sign"),
        pytest.param(b"1.", id="half a number"),
        pytest.param(b"NaN", id="NaN"),
        pytest.param(b'{"a":[Infinity]}', id="Infinity"),
        pytest.param(b"-Infinity", id="-Infinity"),
        pytest.param(b"1e999", id="a number beyond a double"),
        pytest.param(b"[-1.5e400]", id="and a negative one"),
        pytest.param(b'{"a":1,"a":1}', id="two members of one name"),
        pytest.param(b'[{"b":{"a":1,"\\u0061":2}}]', id="two members of one name, one spelled as an escape, deep down"),
        pytest.param(b"[" * 100_000, id="a depth bomb of arrays"),
        pytest.param(b'{"a":' * 100_000, id="a depth bomb of objects"),
        pytest.param(b"[" * 100_000 + b"]" * 100_000, id="a depth bomb that is valid"),
        pytest.param(b"1" * 10_000, id="an integer of 10,000 digits"),
        pytest.param(b'{"id":-' + b"9" * 10_000 + b"}", id="and a negative one in a message"),
    ],
)
def test_what_is_not_json_that_can_be_used_is_a_parse_error_and_the_next_line_works(line: bytes) -> None:
    events = framed(line + b"\n[1]\n", max_bytes=1_000_000)
    assert [kind(event) for event in events] == ["parse_error", "message"]
    assert values_of(events)[1] == [1]


@quick
@given(st.binary(max_size=200))
def test_no_line_at_all_raises(line: bytes) -> None:
    assert isinstance(decode(line), Message | Fault)


def test_a_parse_error_reports_where_and_repeats_nothing_of_the_line() -> None:
    fault = decode(b'{"key": "sk-secret", oops}')
    assert isinstance(fault, Fault)
    assert "character 21" in fault.error.message
    assert "secret" not in fault.error.message


@pytest.mark.parametrize(
    ("line", "value"),
    [
        (b"-0.0", -0.0),
        (b"1e308", 1e308),
        (b"5e-324", 5e-324),
        (b"1e-999", 0.0),
        (b"123456789012345678901234567890", 123456789012345678901234567890),
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        (b'"\\u0000"', "\0"),
        (b"[" * 100 + b"]" * 100, None),
    ],
)
def test_odd_values_that_are_json_are_read(line: bytes, value: object) -> None:
    message = decode(line)
    assert isinstance(message, Message)
    assert value is None or message.value == value


# --- encode ------------------------------------------------------------------------------------------------------------------


def normal(value: object) -> object:
    """Two surrogates that stand side by side in a Python string are one character on the wire; no JSON text distinguishes them."""
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    if isinstance(value, list):
        return [normal(member) for member in value]
    if isinstance(value, dict):
        return {normal(name): normal(member) for name, member in value.items()}
    return value


@pytest.mark.rule("FRM-1")
@quick
@given(json_values.map(normal))
def test_what_is_encoded_is_one_line_of_utf_8_that_decodes_to_the_same(value: object) -> None:
    line = encode(value)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert b"\r" not in line
    line.decode("utf-8")
    assert decode(line[:-1]) == Message(value)
    assert json.loads(line) == value  # a reader that is not ours


@pytest.mark.rule("FRM-9")
@pytest.mark.parametrize("escape", [b'"\\ud800"', b'"a\\udfffb"', b'"\\\\\\ud800"', b'{"\\ude00":"\\ude00\\ud83d"}'])
def test_a_lone_surrogate_goes_out_as_the_escape_that_it_came_in_as(escape: bytes) -> None:
    message = decode(escape)
    assert isinstance(message, Message)
    assert encode(message.value) == escape + b"\n"


def test_text_goes_out_as_utf_8_and_not_as_escapes() -> None:
    assert encode({"text": "Grüße 🙂"}) == '{"text":"Grüße 🙂"}\n'.encode()


@pytest.mark.parametrize("value", [math.nan, math.inf, [-math.inf]])
def test_a_number_that_json_lacks_is_not_encoded(value: object) -> None:
    with pytest.raises(ValueError, match="JSON"):
        encode(value)


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes"])
def test_a_value_that_json_lacks_is_not_encoded(value: object) -> None:
    with pytest.raises(TypeError):
        encode(value)


@pytest.mark.rule("FRM-5")
@pytest.mark.parametrize(
    ("head", "id"),
    [
        ('{"jsonrpc":"2.0","id":7,"method":"x","params":{"p":"', 7),
        ('{"id":"a\\u00e9","params":{"p":"', "aé"),
        ('\ufeff { "params" : {"id": 3, "x": [1, {"id": 4}]}, "id" : 5 , "p":"', 5),
        ('{"id":-12,"p":"', -12),
        ('{"params":{"id":9,"p":"', None),  # not the request's own
        ('[{"id":7,"p":"', None),  # a batch
        ('{"id":null,"p":"', None),
        ('{"id":true,"p":"', None),
        ('{"id":1.5,"p":"', None),
        ('{"id":[1],"p":"', None),
        ('{"p":"' + "x" * 4096 + '","id":7,"q":"', None),  # beyond the first 4,096 bytes
        ('{"p":"' + "x" * 4080 + '","id":123456,"q":"', None),  # cut within the number
        ('{"p" 1,"id":7,"q":"', None),
        ('{"p";1,"id":7,"q":"', None),
        ('{1:2,"id":7,"q":"', None),
        ('{"id":"' + "x" * 1_024 + '","p":"', "x" * 1_024),
        ('{"id":"' + "x" * 1_025 + '","p":"', None),
        ("{" * 4096, None),
        ("[" * 4096, None),
        ("", None),
    ],
)
@pytest.mark.parametrize("size", [1, 4096, 1_000_000])
def test_a_line_that_is_too_long_keeps_an_id_that_is_legible_at_its_beginning(head: str, id: object, size: int) -> None:
    framer = Framer(10_000)
    line = head.encode() + b"y" * 20_000 + b'"}}\n'
    pieces = [line[at : at + size] for at in range(0, len(line), size)]
    (fault,) = [event for piece in pieces for event in framer.feed(piece)]
    assert isinstance(fault, Fault)
    assert fault.id == id


@pytest.mark.rule("FRM-5")
def test_the_id_of_a_line_that_is_too_long_is_found_below_a_small_limit() -> None:
    (fault,) = Framer(10).feed(b'{"id":3,"method":"ping"}\n')
    assert isinstance(fault, Fault)
    assert fault.id == 3


JSON_VALUES = st.recursive(
    st.none() | st.integers() | st.text('",[{\\\\x', max_size=6),
    lambda values: st.lists(values, max_size=4) | st.dictionaries(st.text('",[\\\\', max_size=3), values, max_size=3),
    max_leaves=20,
)


def marks(value: object) -> int:
    """The brackets that open and the commas of ``value`` as JSON, without those in strings."""
    members = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if members is None else 1 + max(0, len(members) - 1) + sum(map(marks, members))


@pytest.mark.rule("BND-3", "BND-6")
@quick
@given(value=JSON_VALUES, window=st.integers(1, 9))
def test_values_are_counted_without_decoding_wherever_the_windows_end(value: object, window: int) -> None:
    text = json.dumps(value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(value_counter, "_WINDOW_BYTES", window)
        for limit in (0, 1, 3, 8):
            assert has_too_many_values(text, limit) == (marks(value) > limit)
            assert has_too_many_values(text.encode(), limit) == (marks(value) > limit)


@pytest.mark.rule("BND-4")
@pytest.mark.parametrize(
    "line",
    [
        b'["a,b,c,d","e",[{},{}],1,2]',
        b'["a\\",b,\\\\",",\\",c,",1,2,3]',
        b'{"a,,,,":"\\\\\\\\","b":",,\\\\\\",","c":[1,2,3]}',
        b"[1,2,3,4]",
    ],
)
def test_the_values_of_a_line_are_counted_the_same_wherever_it_is_cut(line: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in range(1, 12):
        for module in (framing, value_counter):
            monkeypatch.setattr(module, "MAX_VALUES", limit)
        wanted = Fault if has_too_many_values(line, limit) else Message
        pieces = [[line[:cut], line[cut:]] for cut in range(len(line))] + [[line[at : at + 1] for at in range(len(line))]]
        for cut in pieces:
            framer = Framer(10_000)
            events = [event for piece in (*cut, b"\n") for event in framer.feed(piece)]
            assert [type(event) for event in events] == [wanted], (limit, cut)
