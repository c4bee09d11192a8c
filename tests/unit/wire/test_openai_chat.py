"""OpenAI's chat completions: what servers that copy the format send, and the short path for the commonest events, which must
change nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bridge_worker.backends.wire.openai_chat import OpenAIChat
from tests.unit.wire.cases import HI, STOP, USAGE, chunk, message
from tests.unit.wire.joined import Joined, events, plain, streamed

# After two events of the same shape the next are read on the short path.
BEGUN = (HI, HI)


def of_stream(*values: Any, done: bool = True) -> Joined:
    joined = streamed(OpenAIChat, events(*values, done=done))
    assert joined.error is None, joined.error
    return joined


def choice(**members: Any) -> dict[str, Any]:
    return {"id": "c1", "model": "m", "choices": [members]}


def piece(call: Any) -> dict[str, Any]:
    return chunk({"tool_calls": [call]})


# ---- plain responses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("choices", [[], None, ["text"], [None]])
def test_a_response_without_a_choice_is_an_error(choices: Any) -> None:
    joined = plain(OpenAIChat, {"id": "c1", "choices": choices})
    assert joined.error is not None
    assert (joined.kind, "without any choice" in joined.error.message) == ("bad_upstream_response", True)


def test_a_plain_response_is_whole_without_a_finish_reason() -> None:
    joined = plain(OpenAIChat, message(None, content="hi"))
    assert (joined.error, joined.content) == (None, "hi")


def test_where_a_server_sends_both_the_message_counts_in_a_plain_response_and_the_delta_in_a_stream() -> None:
    both = {"index": 0, "message": {"content": "so far"}, "delta": {"content": "x"}, "finish_reason": "stop"}
    assert plain(OpenAIChat, choice(**both)).content == "so far"
    assert of_stream(choice(**both)).content == "x"


def test_log_probabilities_of_a_refusal_are_kept() -> None:
    logprobs = {"content": [{"token": "a"}], "refusal": [{"token": "no"}]}
    joined = plain(OpenAIChat, message(content="a", choice={"logprobs": logprobs}))
    assert (joined.logprobs, joined.fields) == ([{"token": "a"}], {"refusal_logprobs": [{"token": "no"}]})
    assert joined.end is not None
    assert joined.end.kept == ["choice.logprobs.refusal"]


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([-1.5], [{"token": "a", "logprob": -1.5}]),
        (None, []),
        ([-1.5, -2, -3], [{"token": "a", "logprob": -1.5}, {"token": "b", "logprob": -2}]),
    ],
)
def test_log_probabilities_in_two_lists_that_may_not_fit(numbers: Any, expected: list[Any]) -> None:
    tokens = ["a", "b"]
    joined = plain(OpenAIChat, message(content="ab", choice={"logprobs": {"tokens": tokens, "token_logprobs": numbers}}))
    assert (joined.error, joined.logprobs) == (None, expected)


# ---- events ----------------------------------------------------------------------------------------------------------------


def test_the_first_id_and_model_are_those_of_the_response() -> None:
    joined = of_stream({"choices": []}, HI, {**HI, "id": "c2", "model": "other"}, STOP)
    assert joined.end is not None
    assert (joined.end.id, joined.end.model) == ("c1", "m")


def test_the_last_usage_counts_unless_it_is_zero() -> None:
    grown = {"prompt_tokens": 3, "completion_tokens": 9, "total_tokens": 12}
    joined = of_stream(
        chunk({"content": "a"}, usage=USAGE), chunk({"content": "b"}, usage=grown), {**STOP, "usage": dict.fromkeys(USAGE, 0)}
    )
    assert joined.end is not None
    assert joined.end.usage is not None
    assert joined.end.usage.total_tokens == 12


@pytest.mark.parametrize("ping", ["null", "{}"])
def test_an_empty_event_is_a_ping(ping: str) -> None:
    assert of_stream(HI, ping, STOP).content == "hi"


@pytest.mark.parametrize("end", ["[DONE]", "[DONE] "])
def test_what_follows_the_end_is_not_read(end: str) -> None:
    assert of_stream(HI, STOP, end, HI, done=False).content == "hi"


@pytest.mark.parametrize("data", [{"detail": "busy now"}, "busy now", ["busy now"]])
def test_an_event_that_is_named_error_is_one(data: Any) -> None:
    joined = streamed(OpenAIChat, events(HI, done=False) + f"event: error\ndata: {json.dumps(data)}\n\n".encode())
    assert joined.error is not None
    assert "busy now" in joined.error.message
    assert joined.content == "hi"


def test_an_error_without_a_name_that_is_not_an_object_is_read() -> None:
    joined = streamed(OpenAIChat, events([{"error": {"message": "busy now", "code": 503}}]))
    assert joined.error is not None
    assert (joined.kind, "busy now" in joined.error.message) == ("provider_unavailable", True)


@pytest.mark.parametrize(
    ("word", "kind", "deadline"), [("timeout", "timeout", "provider"), ("network_error", "provider_unavailable", None)]
)
def test_a_finish_word_that_reports_an_error(word: str, kind: str, deadline: str | None) -> None:
    joined = streamed(OpenAIChat, events(HI, chunk({}, word)))
    assert joined.error is not None
    assert (joined.kind, joined.error.extra.get("deadline"), joined.content) == (kind, deadline, "hi")


def test_the_text_of_a_completion_in_a_stream_of_chats() -> None:
    assert of_stream(choice(index=0, text="a"), choice(index=0, text="b", finish_reason="stop")).content == "ab"
    joined = of_stream(choice(index=0, delta={"reasoning_content": "r"}, text=""), STOP)
    assert (joined.reasoning, joined.content) == ("r", "")


def test_a_delta_that_is_a_text() -> None:
    assert of_stream(*BEGUN, chunk("yo"), STOP).content == "hihiyo"


def test_a_message_instead_of_a_delta_in_each_event() -> None:
    parts = [choice(index=0, message={"content": text}, finish_reason=None) for text in "abc"]
    assert of_stream(*parts, STOP).content == "abc"


# ---- the short path --------------------------------------------------------------------------------------------------------


def test_a_delta_that_is_null_in_mid_stream() -> None:
    assert of_stream(*BEGUN, chunk(None), HI, STOP).content == "hihihi"


def test_another_choice_is_not_mixed_with_the_first() -> None:
    other = choice(index=1, delta={"content": "other"}, finish_reason=None)
    assert of_stream(*BEGUN, other, HI, STOP).content == "hihihi"


def test_each_text_arrives_where_it_belongs() -> None:
    joined = of_stream(*BEGUN, chunk({"reasoning": "r"}), chunk({"reasoning_content": "s"}), chunk({"refusal": "no"}), STOP)
    assert (joined.content, joined.reasoning, joined.refusal) == ("hihi", "rs", "no")


def test_a_member_of_the_choice_that_no_table_has_is_kept_wherever_it_comes() -> None:
    odd = [choice(index=0, delta={"content": "a"}, finish_reason=None, surprise=number) for number in (1, 2)]
    joined = of_stream(*odd, STOP)
    assert joined.fields == {"surprise": 2}
    joined = of_stream(*BEGUN, odd[0], STOP)
    assert (joined.fields, joined.content) == ({"surprise": 1}, "hihia")


def test_each_part_of_a_call_is_read_in_mid_stream() -> None:
    calls = (
        {"index": 0, "function": {"name": "f", "arguments": ""}},
        {"index": 0, "id": "t1", "function": {"arguments": '{"a"'}},
        {"index": 0, "function": {"arguments": ":1}"}},
        {"index": 1, "function": {"name": "g"}},
        {"index": 1, "function": {"arguments": {"b": 2}}},
    )
    joined = of_stream(*BEGUN, *map(piece, calls), STOP)
    assert [(call["id"], call["name"], call["arguments"]) for call in joined.calls] == [
        ("t1", "f", '{"a":1}'),
        (None, "g", '{"b": 2}'),
    ]


@pytest.mark.parametrize(
    "calls", [[None], {"a": 1}, [{"index": 0, "function": None}], [{"index": "0", "function": {"arguments": ""}}]]
)
def test_a_call_of_a_surprising_type_breaks_no_stream(calls: Any) -> None:
    odd = chunk({"tool_calls": calls})
    whole = of_stream(odd, STOP)
    assert of_stream(*BEGUN, odd, STOP).calls == whole.calls
