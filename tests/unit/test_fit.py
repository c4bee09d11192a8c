"""A history that fits: what is dropped and shortened, what stays, and how much work a long one is."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge_worker.agent.fit import Fitted, fit_to_model
from bridge_worker.backends.offline.services import OfflineServices
from bridge_worker.errors import BridgeError
from tests.support.data import Json

SERVICES = OfflineServices()
LONG = "word " * 300


def fit(messages: list[Json], limit: int | None, strategy: str = "oldest_tool_results") -> Fitted:
    return fit_to_model(SERVICES, "offline/echo", messages, None, strategy, limit)


def user(text: str) -> Json:
    return {"role": "user", "content": text}


def step(id: str, result: str) -> list[Json]:
    """A tool call and its result."""
    call = {"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    return [message, {"role": "tool", "tool_call_id": id, "content": result}]


HISTORY = [
    {"role": "system", "content": "be brief"},
    user("first"),
    *step("a", LONG),
    {"role": "assistant", "content": "one"},
    user("second " + LONG),
    {"role": "assistant", "content": "two"},
    user("third"),
    *step("b", LONG),
]


@pytest.mark.rule("FIT-1")
def test_a_history_that_fits_is_unchanged() -> None:
    fitted = fit(HISTORY, 10_000)
    assert (fitted.messages, fitted.changes) == (HISTORY, [])


@pytest.mark.rule("FIT-2", "FIT-3")
def test_the_oldest_tool_results_are_shortened_first() -> None:
    fitted = fit(HISTORY, 750)
    assert [(one["index"], one["change"]) for one in fitted.changes] == [(3, "shortened")]
    assert fitted.messages[3]["tool_call_id"] == "a"
    assert "left out" in fitted.messages[3]["content"]
    assert HISTORY[3]["content"] == LONG
    assert fitted.count.input_tokens <= 750


@pytest.mark.rule("FIT-2", "FIT-3")
def test_the_oldest_turns_are_dropped_with_their_calls_and_results() -> None:
    fitted = fit(HISTORY, 700, "oldest_turns")
    assert [(one["index"], one["change"]) for one in fitted.changes] == [(at, "dropped") for at in (1, 2, 3, 4)]
    assert fitted.messages == [HISTORY[0], *HISTORY[5:]]


@pytest.mark.rule("FIT-3", "FIT-4")
def test_the_system_and_the_last_turn_stay_or_it_is_an_error() -> None:
    fitted = fit(HISTORY, 320)
    assert fitted.messages == [HISTORY[0], *HISTORY[7:]]
    with pytest.raises(BridgeError) as caught:
        fit(HISTORY, 50)
    assert caught.value.kind == "context_length_exceeded"


@pytest.mark.rule("FIT-4")
def test_a_limit_that_is_not_known_is_named() -> None:
    with pytest.raises(BridgeError, match="max_input_tokens"):
        fit(HISTORY, None)


TEXTS = st.integers(0, 300).map(lambda words: "word " * words)
STEPS = TEXTS.map(lambda text: step(f"id-{len(text)}", text))
TURNS = st.tuples(TEXTS, st.lists(STEPS, min_size=1, max_size=3)).map(
    lambda turn: [user(turn[0]), *(m for s in turn[1] for m in s)]
)


@settings(max_examples=100, deadline=None)
@given(st.lists(TURNS, min_size=1, max_size=6), st.integers(1, 2_000), st.sampled_from(["oldest_tool_results", "oldest_turns"]))
def test_whatever_is_dropped_the_rest_fits_and_calls_have_their_results(turns: Any, limit: int, strategy: str) -> None:
    messages = [{"role": "system", "content": "be brief"}, *(message for turn in turns for message in turn)]
    least = [one for one in messages if one["role"] == "system"] + turns[-1]
    if SERVICES.count("offline/echo", least, None).input_tokens > limit:
        limit = 10_000
    fitted = fit(messages, limit, strategy)
    assert fitted.count.input_tokens <= limit
    assert fitted.count.input_tokens == SERVICES.count("offline/echo", fitted.messages, None).input_tokens
    assert fitted.messages[0] == messages[0]
    for before, after in zip(fitted.messages, fitted.messages[1:], strict=False):
        if "tool_calls" in before:
            assert after["tool_call_id"] == before["tool_calls"][0]["id"]
        if after["role"] == "tool":
            assert "tool_calls" in before
    assert [json.dumps(one) for one in fitted.messages if one["role"] == "user"][-1] == json.dumps(turns[-1][0])


def test_ten_thousand_messages_are_made_to_fit_in_a_moment() -> None:
    messages = [user(f"message {number}") if number % 2 else {"role": "assistant", "content": "ok"} for number in range(10_000)]
    began = time.process_time()
    fitted = fit(messages, 500, "oldest_turns")
    assert fitted.count.input_tokens <= 500
    assert time.process_time() - began < 2
