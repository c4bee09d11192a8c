"""A stream's repeated events: whatever is recognised without parsing is what parsing finds."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_worker.backends.wire.openai_chat import OpenAIChat
from bridge_worker.backends.wire.repeated_events import RepeatedEvents
from tests.support.data import Json


def event(text: str, **members: object) -> Json:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return {"id": "c", "model": "m", "choices": [choice], "usage": None, **members}


def line(value: object, *, ascii: bool = False, spaces: bool = False) -> bytes:
    text = json.dumps(value, ensure_ascii=ascii, separators=(", ", ": ") if spaces else (",", ":"))
    return text.encode("utf-8", "surrogatepass" if not ascii else "strict")


def learned(text: str = "first", **form: bool) -> RepeatedEvents:
    known = RepeatedEvents("content")
    known.learn(line(event(text), **form), text)
    return known


@given(st.text(), st.booleans(), st.booleans())
def test_a_repeated_event_gives_the_text_that_parsing_gives(text: str, ascii: bool, spaces: bool) -> None:
    data = line(event(text), ascii=ascii, spaces=spaces)
    found = learned(ascii=ascii, spaces=spaces).text(data)
    assert found == json.loads(data.decode("utf-8", "replace"))["choices"][0]["delta"]["content"]


@pytest.mark.parametrize(
    "data",
    [
        line(event("a", id="other")),
        line(event("a", usage={"prompt_tokens": 1})),
        line({"id": "c"}),
        b"[DONE]",
        b"",
        line(event("x")).replace(b'"x"', b'"x","refusal":"y"'),  # a second member: the bytes around are the same
        line(event("x")).replace(b'"x"', b'"x\\"'),  # the text never ends
        line(event("x")).replace(b'"x"', b'"x\n"'),  # not JSON
        line(event("x"))[:-10],
        line(event("x"))[: len(line(event(""))) - 5],
    ],
)
def test_any_other_event_has_to_be_parsed(data: bytes) -> None:
    assert learned().text(data) is None


def test_an_event_with_the_member_twice_teaches_nothing() -> None:
    known = RepeatedEvents("content")
    data = line({"content": "a", "delta": {"content": "a"}})
    known.learn(data, "a")
    assert known.text(data) is None


def test_a_stream_without_repetition_is_not_looked_at_for_ever() -> None:
    known = RepeatedEvents("content")
    for number in range(10):
        known.learn(line(event("a", id=str(number))), "a")
    assert known.text(line(event("b", id="2"))) == "b"
    assert known.text(line(event("b", id="9"))) is None


@given(st.lists(st.text(), min_size=3), st.integers(1, 40))
def test_a_streams_text_is_the_same_for_any_cut_of_its_bytes(texts: list[str], size: int) -> None:
    body = b"".join(b"data: " + line(event(text), ascii=True) + b"\n\n" for text in ["Well, ", *texts])
    decoder = OpenAIChat()
    deltas = [delta for at in range(0, len(body), size) for delta in decoder.feed(body[at : at + size])]
    assert "".join(delta.content or "" for delta in deltas) == "Well, " + "".join(texts)
