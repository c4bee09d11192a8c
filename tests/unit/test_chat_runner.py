"""One chat against models that follow a script: how deltas add up, and how a chat ends.

Time is the test's own: where a script waits, the loop's clock is moved on instead of anyone waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import selectors
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from bridge_worker.core import accumulator
from bridge_worker.core.chat_runner import run_chat
from bridge_worker.core.deltas import Delta, End, TokenUsage, ToolCallDelta
from bridge_worker.core.ports import ChatRequest, Facts
from bridge_worker.errors import BridgeError
from bridge_worker.methods.params import validate
from bridge_worker.schema.chat_request import ChatParams
from bridge_worker.schema.chat_result import ChatResult, Usage
from bridge_worker.schema.chat_result import Delta as WireDelta
from tests.support.data import Json
from tests.support.requests import chat_request

quick = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])

FOREVER = 1e9  # seconds on the test's clock
STOP = Facts(End("stop", "stop"))
Step = Delta | Facts | BridgeError | float

# --- a loop whose time is moved on -------------------------------------------------------------------------------------------


class _Selector(selectors.SelectSelector):
    """Instead of waiting it moves the clock on; when there is nothing to wait for, the test would hang, so it fails."""

    now = 1000.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise AssertionError("everything waits, and nothing will ever happen")
        self.now += max(timeout, 0)
        return super().select(0)


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._clock = _Selector()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now


def run(main: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(main)


# --- a model that follows a script -------------------------------------------------------------------------------------------


class Scripted:
    """A `ChatModel`. Each step is a delta to yield, an exception to raise, or seconds to wait."""

    def __init__(self, *steps: Step, closes: bool = True) -> None:
        self.steps = steps
        self.closes = closes
        self.closed = False
        self.waiting = asyncio.Event()

    async def chat(self, request: ChatRequest) -> AsyncGenerator[list[Delta] | Facts, None]:
        request.upstream_open = True
        try:
            for step in self.steps:
                if isinstance(step, Delta):
                    yield [step]
                elif isinstance(step, Facts):
                    yield step
                elif isinstance(step, BridgeError):
                    raise step
                else:
                    self.waiting.set()
                    await asyncio.sleep(step)
        finally:
            request.upstream_open = not self.closes
            self.closed = True


def request(stream: bool = True, **params: Any) -> ChatRequest:
    body = {"model": "scripted", "messages": [{"role": "user", "content": "hi"}], "stream": stream} | params
    validate(body, ChatParams)
    return chat_request(body, time.monotonic())


@dataclass
class Outcome:
    deltas: list[Json]
    result: ChatResult | None
    error: BridgeError | None
    seconds: float  # on the test's clock


async def outcome(
    model: Scripted, chat: ChatRequest, emit: Callable[[Json], Awaitable[None]] | None = None, find_seconds: float = 0
) -> Outcome:
    deltas: list[Json] = []

    async def collect(wire: list[accumulator.WireDelta]) -> None:
        for delta in wire:
            deltas.append({"content": delta} if isinstance(delta, str) else delta)
            if emit:
                await emit(deltas[-1])

    async def find(name: str) -> Scripted:
        await asyncio.sleep(find_seconds)
        return model

    start = asyncio.get_running_loop().time()
    result = error = None
    try:
        result = ChatResult.model_validate(await run_chat(chat, find, collect if chat.stream else None))
    except BridgeError as caught:
        error = caught
    return Outcome(deltas, result, error, asyncio.get_running_loop().time() - start)


def play(*steps: Step, **params: Any) -> Outcome:
    done: Outcome = run(outcome(Scripted(*steps), request(**params)))
    return done


def result_of(*steps: Step, **params: Any) -> ChatResult:
    done = play(*steps, **params)
    assert done.result is not None, done.error
    return done.result


def failed(*steps: Step, **params: Any) -> BridgeError:
    done = play(*steps, **params)
    assert done.error is not None, done.result
    return done.error


def call(*pieces: ToolCallDelta) -> list[Delta]:
    return [Delta(tool_calls=[piece]) for piece in pieces]


def joined(deltas: list[Json]) -> Json:
    """What a client that knows the contract, and nothing else, makes of the deltas."""
    content = reasoning = ""
    calls: dict[int, Json] = {}
    for delta in deltas:
        assert delta, "a delta has at least one member"
        content += delta.get("content", "")
        reasoning += delta.get("reasoning_content", "")
        for piece in delta.get("tool_calls", []):
            function = piece["function"]
            if piece["index"] not in calls:
                calls[piece["index"]] = {
                    "id": piece["id"],
                    "type": piece["type"],
                    "function": {"name": function["name"], "arguments": ""},
                }
            else:
                assert not set(piece) & {"id", "type"}, "these come with a call's first piece only"
                assert set(function) == {"arguments"}
            calls[piece["index"]]["function"]["arguments"] += function["arguments"]
    assert sorted(calls) == list(range(len(calls)))
    return {"content": content or None, "reasoning": reasoning or None, "tool_calls": [calls[index] for index in sorted(calls)]}


def parts_of(result: ChatResult) -> Json:
    dumped = result.model_dump(exclude_none=True) | {"content": result.content, "reasoning": result.reasoning}
    return {name: dumped[name] for name in ("content", "reasoning", "tool_calls")}


# --- joined deltas equal the result ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Completion:
    """What a model means to say, and how its provider cuts it up."""

    deltas: list[Delta]
    content: str
    reasoning: str
    calls: list[tuple[str, str]]


@st.composite
def completions(draw: st.DrawFn) -> Completion:
    """Text, reasoning and tool calls in pieces of all sizes, interleaved as providers do."""
    content, reasoning = draw(st.text(max_size=30)), draw(st.text(max_size=30))
    arguments = st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=8), max_size=3).map(json.dumps)
    calls = draw(st.lists(st.tuples(st.sampled_from(["f", "g", "lookup"]), arguments | st.just("")), max_size=4))
    numbering = draw(st.sampled_from(["from 0", "from 1", "with jumps", "none"]))
    ids = draw(
        st.sampled_from(
            ["with the first piece", "with each piece", "missing"]
            if numbering != "none"
            else ["with the first piece", "with each piece"]
        )
    )
    indexes: list[int | None] = [None] * len(calls)
    if numbering != "none":
        jumps = draw(st.lists(st.integers(1, 7), min_size=len(calls), max_size=len(calls)))
        indexes = [sum(jumps[: n + 1]) if numbering == "with jumps" else n + (numbering == "from 1") for n in range(len(calls))]

    tracks = [
        [Delta(content=piece) for piece in split(draw, content)],
        [Delta(reasoning=piece) for piece in split(draw, reasoning)],
    ]
    of_calls = []
    for number, (name, text) in enumerate(calls):
        pieces = []
        for position, part in enumerate(split(draw, text) or [""]):
            id = f"id{number}" if ids == "with each piece" or (ids == "with the first piece" and position == 0) else None
            pieces += call(ToolCallDelta(indexes[number], id, name if position == 0 else None, part))
        of_calls.append(pieces)
    if numbering == "none" and ids != "with each piece":
        tracks.append([piece for pieces in of_calls for piece in pieces])  # nothing else would show whose a piece is
    else:
        tracks += of_calls
    return Completion([*interleaved(draw, tracks, keep_starts=of_calls), STOP], content, reasoning, calls)


def split(draw: st.DrawFn, text: str) -> list[str]:
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=5)))
    places = [0, *cuts, len(text)]
    return [text[start:end] for start, end in pairwise(places)] if text else []


def interleaved(draw: st.DrawFn, tracks: list[list[Delta]], keep_starts: list[list[Delta]]) -> list[Delta]:
    """In any order that keeps each track's own, and the calls' beginnings in theirs."""
    rest = [list(track) for track in tracks if track]
    firsts = [pieces[0] for pieces in keep_starts]
    merged: list[Delta] = []
    while rest:
        free = [track for track in rest if not any(track[0] is first for first in firsts[1:]) or track[0] is firsts[0]]
        track = draw(st.sampled_from(free or rest))
        delta = track.pop(0)
        firsts = [first for first in firsts if first is not delta]
        merged.append(delta)
        rest = [track for track in rest if track]
    return merged


def without_receipt(error: BridgeError) -> dict[str, object]:
    """What an error has beside the receipt, which every one has."""
    assert "receipt" in error.extra
    return {name: value for name, value in error.extra.items() if name != "receipt"}


@pytest.mark.rule("STR-5", "STR-3", "STR-4", "RES-4", "RES-5")
@quick
@given(completions())
def test_joined_deltas_equal_the_result_and_that_is_what_the_model_meant(completion: Completion) -> None:
    done = play(*completion.deltas)
    assert done.result is not None, done.error
    assert joined(done.deltas) == parts_of(done.result)
    assert done.result.content == (completion.content or None)
    assert done.result.reasoning == (completion.reasoning or None)
    assert [(c.function.name, c.function.arguments) for c in done.result.tool_calls] == [
        (name, text or "{}") for name, text in completion.calls
    ]
    assert len({c.id for c in done.result.tool_calls}) == len(completion.calls)
    for delta in done.deltas:
        WireDelta.model_validate(delta)


pieces = st.builds(
    ToolCallDelta,
    st.none() | st.integers(-1, 3),
    st.sampled_from([None, "", "a", "b"]),
    st.sampled_from([None, "", "f", "g"]),
    st.sampled_from(["", "{", "}", "{}", " ", '"a":1', "[]", "1", "\ud83d", "\ude00"]),
)
any_deltas = st.builds(
    Delta,
    content=st.sampled_from([None, "", "a", " ", "\ud83d", "\ude00", "\n"]),
    reasoning=st.sampled_from([None, "", "r"]),
    tool_calls=st.none() | st.lists(pieces, max_size=2),
)


@pytest.mark.rule("STR-5", "RES-4", "RES-7")
@quick
@given(st.lists(any_deltas, max_size=8))
def test_whatever_a_provider_sends_the_chat_has_a_result_that_equals_its_deltas_or_a_known_error(deltas: list[Delta]) -> None:
    done = play(*deltas, STOP)
    if done.error is not None:
        assert done.error.kind == "bad_upstream_response"
        return
    assert done.result is not None
    assert joined(done.deltas) == parts_of(done.result)
    for made in done.result.tool_calls:
        json.loads(made.function.arguments)
    assert len({made.id for made in done.result.tool_calls}) == len(done.result.tool_calls)
    accepted_as_input(done.result.message)


@quick
@given(completions())
def test_a_plain_chat_and_a_streamed_one_have_the_same_result(completion: Completion) -> None:
    def whole(result: ChatResult) -> Json:
        dumped = result.model_dump(exclude={"timing"})
        for made in [*dumped["tool_calls"], *dumped["message"].get("tool_calls", ())]:
            made["id"] = "made by chance" if made["id"].startswith("call_") else made["id"]
        return dumped

    assert whole(result_of(*completion.deltas)) == whole(result_of(*completion.deltas, stream=False))


@pytest.mark.rule("STR-1")
def test_a_plain_chat_emits_nothing() -> None:
    done = play(Delta(content="hello"), STOP, stream=False)
    assert done.deltas == []
    assert done.result is not None
    assert done.result.timing.first_token_ms is None


# --- tool calls --------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("RES-4", "STR-5")
@pytest.mark.parametrize("arguments", [[""], ["", ""], [" "], [" ", "\n"]])
def test_a_tool_call_without_arguments_has_an_empty_object(arguments: list[str]) -> None:
    first, *rest = arguments
    done = play(*call(ToolCallDelta(0, "a", "f", first), *(ToolCallDelta(0, arguments=text) for text in rest)), STOP)
    assert done.result is not None
    (made,) = done.result.tool_calls
    assert json.loads(made.function.arguments) == {}
    assert joined(done.deltas) == parts_of(done.result)
    assert done.result.message["tool_calls"][0]["function"]["arguments"] == made.function.arguments


@pytest.mark.rule("RES-4")
@pytest.mark.parametrize("arguments", ['{"a":', "not json", "{'a': 1}", '{"a": NaN}', "Infinity", '{"a":1}{"b":2}', "[" * 100_000])
def test_arguments_that_are_not_json_are_a_bad_upstream_response_with_what_had_come(arguments: str) -> None:
    error = failed(Delta(content="let me see"), *call(ToolCallDelta(0, "a", "f", arguments)), STOP)
    assert error.kind == "bad_upstream_response"
    assert error.extra["partial"] == {
        "content": "let me see",
        "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": arguments}}],
    }


def test_a_tool_call_that_never_gets_a_name_is_a_bad_upstream_response() -> None:
    assert failed(*call(ToolCallDelta(0, "a", None, "{}")), STOP).kind == "bad_upstream_response"


CALLS = {
    "ids missing": ([(0, None, "f", "{}"), (1, None, "g", "[1]")], [("f", "{}"), ("g", "[1]")]),
    "one index for all, each call whole": (
        [(0, None, "f", "1"), (0, None, "f", "2"), (0, None, "f", "3")],
        [("f", "1"), ("f", "2"), ("f", "3")],
    ),
    "one index for all, ids tell": ([(0, "a", "f", "1"), (0, "b", "f", "2")], [("f", "1"), ("f", "2")]),
    "no index, ids tell": (
        [(None, "a", "f", "["), (None, "b", "g", "{"), (None, "a", None, "]"), (None, "b", None, "}")],
        [("f", "[]"), ("g", "{}")],
    ),
    "no index and no id: the last call goes on": ([(None, "a", "f", "{"), (None, None, None, "}")], [("f", "{}")]),
    "id with each piece": ([(0, "a", "f", "["), (0, "a", None, "1"), (0, "a", "f", "]")], [("f", "[1]")]),
    "the first index is not 0": ([(3, "a", "f", "["), (3, None, None, "]"), (7, "b", "g", "{}")], [("f", "[]"), ("g", "{}")]),
    "indexes jump back": (
        [(1, "a", "f", "["), (0, "b", "g", "{"), (1, None, None, "]"), (0, None, None, "}")],
        [("f", "[]"), ("g", "{}")],
    ),
    "an empty name goes on": ([(0, "a", "f", "["), (0, "", "", "]")], [("f", "[]")]),
    "the same id for two calls": (
        [(0, "a", "f", "["), (1, "a", "g", "{"), (0, None, None, "]"), (1, None, None, "}")],
        [("f", "[]"), ("g", "{}")],
    ),
    "the same id for two calls, with each piece": (
        [(0, "a", "f", "["), (1, "a", "g", "{"), (0, "a", None, "]"), (1, "a", None, "}")],
        [("f", "[]"), ("g", "{}")],
    ),
    "the name comes late": ([(0, "a", None, ""), (0, None, "f", "{}")], [("f", "{}")]),
}


@pytest.mark.rule("STR-5", "RES-5")
@pytest.mark.parametrize(("sent", "meant"), CALLS.values(), ids=CALLS)
def test_pieces_find_their_tool_call(
    sent: list[tuple[int | None, str | None, str | None, str]], meant: list[tuple[str, str]]
) -> None:
    done = play(*call(*(ToolCallDelta(*piece) for piece in sent)), STOP)
    assert done.result is not None, done.error
    assert [(made.function.name, made.function.arguments) for made in done.result.tool_calls] == meant
    assert len({made.id for made in done.result.tool_calls}) == len(meant)
    assert joined(done.deltas) == parts_of(done.result)


def test_the_ids_of_the_provider_are_kept() -> None:
    result = result_of(*call(ToolCallDelta(0, "toolu_1", "f", "{}"), ToolCallDelta(1, "toolu_2", "f", "{}")), STOP)
    assert [made.id for made in result.tool_calls] == ["toolu_1", "toolu_2"]


@pytest.mark.rule("RES-6")
@pytest.mark.parametrize(("reason", "expected"), [("stop", "tool_calls"), ("tool_calls", "tool_calls"), ("length", "length")])
def test_a_stop_with_tool_calls_becomes_tool_calls(reason: str, expected: str) -> None:
    assert result_of(*call(ToolCallDelta(0, "a", "f", "{}")), Facts(End(reason, reason))).finish_reason == expected


# --- the result --------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("RES-1", "RES-2", "RES-3", "RES-9")
def test_missing_content_is_null_and_missing_tool_calls_are_an_empty_list() -> None:
    result = result_of(STOP).model_dump(exclude={"timing", "receipt", "problems", "repaired", "cache"})
    assert result == {
        "content": None,
        "tool_calls": [],
        "reasoning": None,
        "refusal": None,
        "annotations": None,
        "finish_reason": "stop",
        "raw_finish_reason": "stop",
        "message": {"role": "assistant", "content": None},
        "usage": None,
        "cost_usd": None,
        "cost_source": None,
        "price_map_date": None,
        "rate_limits": None,
        "model": None,
        "requested_model": "scripted",
        "provider": None,
        "id": None,
        "logprobs": None,
    }


@pytest.mark.rule("RES-10")
def test_the_facts_of_the_response_are_those_of_its_end() -> None:
    usage = Usage(input_tokens=1, output_tokens=2, total_tokens=3)
    end = End("stop", "end_turn", TokenUsage(1, 2, 3), id="1", model="m-2")
    result = result_of(Delta(content="a"), Facts(end, provider="p", cost_usd=0.5, cost_source="provider"))
    assert result.raw_finish_reason == "end_turn"
    assert (result.id, result.model, result.provider, result.usage, result.cost_usd) == ("1", "m-2", "p", usage, 0.5)


@pytest.mark.parametrize("stream", [True, False])
def test_logprobs_add_up(stream: bool) -> None:
    a, b = {"token": "a", "logprob": -0.1}, {"token": "b", "logprob": -0.2}
    assert result_of(Delta(content="a", logprobs=[a]), Delta(content="b", logprobs=[b]), STOP, stream=stream).logprobs == {
        "content": [a, b]
    }


def accepted_as_input(message: Json) -> None:
    validate({"model": "m", "messages": [{"role": "user", "content": "hi"}, message]}, ChatParams)


@pytest.mark.rule("RES-7", "RES-8")
def test_the_message_holds_what_the_provider_needs_again_and_is_accepted_as_it_is() -> None:
    block = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
    state = {"thought_signature": "c2ln"}
    result = result_of(
        Delta(reasoning="hm", thinking_blocks=[block]),
        Delta(content="let me see"),
        *call(ToolCallDelta(0, "a", "f", '{"x":', state), ToolCallDelta(0, arguments="1}")),
        STOP,
    )
    assert result.message == {
        "role": "assistant",
        "content": "let me see",
        "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}, "provider_specific_fields": state}
        ],
        "reasoning_content": "hm",
        "thinking_blocks": [block],
    }
    accepted_as_input(result.message)


@pytest.mark.rule("RES-7")
@quick
@given(completions())
def test_any_results_message_is_accepted_unchanged(completion: Completion) -> None:
    accepted_as_input(result_of(*completion.deltas).message)


@pytest.mark.rule("RES-8")
def test_a_thinking_block_that_is_streamed_in_pieces_is_one_block_with_its_signature() -> None:
    pieces = [
        {"type": "thinking", "thinking": "h"},
        {"type": "thinking", "thinking": "m"},
        {"type": "thinking", "thinking": "", "signature": "s"},
    ]
    redacted = {"type": "redacted_thinking", "data": "x"}
    second = {"type": "thinking", "thinking": "2", "signature": "t"}
    result = result_of(*(Delta(thinking_blocks=[block]) for block in [*pieces, redacted, second]), STOP)
    assert result.message["thinking_blocks"] == [{"type": "thinking", "thinking": "hm", "signature": "s"}, redacted, second]


@pytest.mark.rule("RES-11")
def test_timing_counts_from_the_arrival_of_the_request() -> None:
    chat = replace(request(), received=time.monotonic() - 5)
    done: Outcome = run(outcome(Scripted(Delta(content="a"), STOP), chat))
    assert done.result is not None
    timing = done.result.timing
    assert timing.first_token_ms is not None
    assert 5000 <= timing.queued_ms <= timing.first_token_ms <= timing.total_ms


# --- deadlines ---------------------------------------------------------------------------------------------------------------


def limits(**deadlines: int | None) -> Json:
    return {"deadlines": deadlines}


A, B, C = Delta(content="a"), Delta(content="b"), Delta(content="c")


@pytest.mark.rule("DLN-1", "DLN-2", "DLN-3", "DLN-4", "DLN-7")
@pytest.mark.parametrize(
    ("deadlines", "steps", "passed", "seconds"),
    [
        pytest.param({"total_ms": 2000}, [FOREVER], "total_ms", 2, id="the total, before anything came"),
        pytest.param({"total_ms": 2000}, [A, FOREVER], "total_ms", 2, id="the total, in the middle"),
        pytest.param({"total_ms": 2000}, [1.0, A, 0.9, B, 0.9], "total_ms", 2, id="the total, though it moves"),
        pytest.param({"first_token_ms": 500}, [FOREVER], "first_token_ms", 0.5, id="the first token"),
        pytest.param({"first_token_ms": 500}, [Delta(), Delta(content=""), FOREVER], "first_token_ms", 0.5, id="no token yet"),
        pytest.param({"idle_ms": 300}, [1.0, A, FOREVER], "idle_ms", 1.3, id="silence after a token"),
        pytest.param({"idle_ms": 300}, [A, 0.2, B, 0.2, C, 0.4], "idle_ms", 0.7, id="silence at last"),
        pytest.param({"total_ms": 500, "first_token_ms": 900}, [FOREVER], "total_ms", 0.5, id="the earlier one"),
        pytest.param({"total_ms": 500, "idle_ms": 900}, [A, FOREVER], "total_ms", 0.5, id="the earlier one again"),
        pytest.param({}, [FOREVER], "total_ms", 600, id="the default total"),
        pytest.param({}, [A, FOREVER], "idle_ms", 120, id="the default silence"),
        pytest.param({"total_ms": None, "idle_ms": None}, [A, FOREVER], "idle_ms", 120, id="null is not a word"),
    ],
)
def test_the_deadline_that_passes_first_ends_the_chat(deadlines: Json, steps: list[Any], passed: str, seconds: float) -> None:
    done = play(*steps, **limits(**deadlines))
    assert done.error is not None
    assert (done.error.kind, done.error.extra["deadline"]) == ("timeout", passed)
    assert done.seconds == pytest.approx(seconds, abs=0.1)
    content = "".join(delta.get("content", "") for delta in done.deltas)
    assert done.error.extra["partial"] == {"content": content or None, "tool_calls": []}
    assert passed in done.error.message


@pytest.mark.rule("DLN-2", "DLN-3")
def test_only_the_total_counts_for_a_plain_chat() -> None:
    done = play(50.0, Delta(content="a"), 50.0, STOP, stream=False, **limits(total_ms=200_000, first_token_ms=10, idle_ms=10))
    assert done.result is not None
    assert play(50.0, stream=False, **limits(total_ms=10_000, first_token_ms=10)).seconds == pytest.approx(10, abs=0.1)


def test_what_has_passed_before_the_chat_began_counts() -> None:
    chat = replace(request(**limits(total_ms=2000)), received=time.monotonic() - 1.5)
    done: Outcome = run(outcome(Scripted(FOREVER), chat))
    assert done.seconds == pytest.approx(0.5, abs=0.1)


@pytest.mark.rule("DLN-1")
def test_waiting_for_the_model_itself_is_on_the_clock() -> None:
    done: Outcome = run(outcome(Scripted(STOP), request(**limits(total_ms=2000)), find_seconds=FOREVER))
    assert done.error is not None
    assert (done.error.kind, done.error.extra["deadline"]) == ("timeout", "total_ms")


@pytest.mark.rule("DLN-5")
@pytest.mark.parametrize("deadlines", [{"total_ms": 500}, {"idle_ms": 500}])
def test_a_deadline_closes_the_upstream_connection(deadlines: Json) -> None:
    model, chat = Scripted(Delta(content="a"), FOREVER), request(**limits(**deadlines))
    run(outcome(model, chat))
    assert model.closed
    assert not chat.upstream_open


@pytest.mark.rule("DLN-1", "DLN-5")
def test_a_library_that_catches_the_cancel_of_a_deadline_is_stopped_at_its_next_piece() -> None:
    class Deaf(Scripted):
        async def chat(self, request: ChatRequest) -> AsyncGenerator[list[Delta] | Facts, None]:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(FOREVER)
            async for step in super().chat(request):
                yield step

    model = Deaf(Delta(content="late"), FOREVER)
    done: Outcome = run(outcome(model, request(**limits(total_ms=500))))
    assert done.error is not None
    assert (done.error.kind, done.error.extra["deadline"], done.deltas) == ("timeout", "total_ms", [])
    assert done.seconds == pytest.approx(0.5, abs=0.1)


@pytest.mark.rule("DLN-6")
def test_a_slow_reader_does_not_count_as_silence_of_the_provider() -> None:
    async def slow(_: Json) -> None:
        await asyncio.sleep(50)

    steps = [Delta(content="a"), 0.1, Delta(content="b"), 0.1, STOP]
    done: Outcome = run(outcome(Scripted(*steps), request(**limits(first_token_ms=200, idle_ms=200)), slow))
    assert done.result is not None, done.error
    assert done.result.content == "ab"


@pytest.mark.rule("DLN-1")
def test_a_slow_reader_does_not_stretch_the_total() -> None:
    async def slow(_: Json) -> None:
        await asyncio.sleep(FOREVER)

    done: Outcome = run(outcome(Scripted(Delta(content="a"), STOP), request(**limits(total_ms=3000)), slow))
    assert done.error is not None
    assert done.error.extra["deadline"] == "total_ms"
    assert done.seconds == pytest.approx(3, abs=1)  # less what has passed on the machine's clock, which the deadline counts too


@pytest.mark.rule("DLN-1")
def test_a_deadline_that_passes_while_the_last_delta_is_written_changes_nothing() -> None:
    problems: list[Any] = []

    async def slow(delta: Json) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, problem: problems.append(problem))
        if delta == {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}:
            await asyncio.sleep(50)

    steps = [*call(ToolCallDelta(0, "c1", "f", "")), STOP]
    done: Outcome = run(outcome(Scripted(*steps), request(**limits(total_ms=200, idle_ms=100)), slow))
    assert done.result is not None, done.error
    assert done.seconds == pytest.approx(50, abs=1)
    assert problems == []


# --- cancel ------------------------------------------------------------------------------------------------------------------


async def cancelled_outcome(model: Scripted, chat: ChatRequest) -> BridgeError:
    """Cancelled while the model waits."""
    task = asyncio.create_task(outcome(model, chat))
    await model.waiting.wait()
    task.cancel()
    done = await task
    assert done.error is not None
    return done.error


@pytest.mark.rule("CAN-1", "CAN-2")
@pytest.mark.parametrize("stream", [True, False])
def test_a_cancelled_chat_closes_the_connection_and_returns_the_received_content(stream: bool) -> None:
    model = Scripted(Delta(content="so "), Delta(content="far"), *call(ToolCallDelta(0, "a", "f", '{"x":')), FOREVER)
    error = run(cancelled_outcome(model, request(stream)))
    assert error.kind == "cancelled"
    assert model.closed
    assert without_receipt(error) == {
        "upstream_closed": True,
        "partial": {
            "content": "so far",
            "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":'}}],
        },
    }


@pytest.mark.rule("CAN-3")
def test_a_connection_that_does_not_close_is_not_called_closed() -> None:
    error = run(cancelled_outcome(Scripted(Delta(content="a"), FOREVER, closes=False), request()))
    assert error.extra["upstream_closed"] is False


@pytest.mark.rule("CAN-1", "CAN-2")
def test_a_chat_that_is_cancelled_while_its_reader_is_slow_closes_the_connection_too() -> None:
    model, chat = Scripted(Delta(content="a"), Delta(content="b"), STOP), request()

    async def stuck(_: Json) -> None:
        model.waiting.set()
        await asyncio.sleep(FOREVER)

    async def main() -> BridgeError:
        task = asyncio.create_task(outcome(model, chat, stuck))
        await model.waiting.wait()
        task.cancel()
        error = (await task).error
        assert error is not None
        return error

    error = run(main())
    assert (error.kind, error.extra["upstream_closed"]) == ("cancelled", True)
    assert model.closed


def test_a_chat_that_is_cancelled_before_there_is_a_model_has_nothing_to_close() -> None:
    async def main() -> BridgeError:
        task = asyncio.create_task(outcome(Scripted(STOP), request(), find_seconds=10))
        await asyncio.sleep(1)
        task.cancel()
        error = (await task).error
        assert error is not None
        return error

    assert without_receipt(run(main())) == {"upstream_closed": True, "partial": {"content": None, "tool_calls": []}}


# --- faults of the model -----------------------------------------------------------------------------------------------------


@pytest.mark.rule("STR-8")
def test_a_stream_that_breaks_off_has_what_had_come() -> None:
    done = play(Delta(content="half an "), BridgeError("stream_interrupted", "gone", provider="p"))
    assert done.error is not None
    assert done.error.kind == "stream_interrupted"
    assert done.error.data()["partial"] == {"content": "half an ", "tool_calls": []}
    assert done.deltas == [{"content": "half an "}]


@pytest.mark.parametrize("kind", ["rate_limited", "provider_unavailable", "internal"])
def test_any_fault_after_the_first_delta_has_what_had_come(kind: str) -> None:
    error = failed(Delta(content="half"), BridgeError(kind, "gone", retry_after_ms=5))
    assert error.kind == kind
    assert error.extra["partial"] == {"content": "half", "tool_calls": []}


@pytest.mark.rule("STR-9")
@pytest.mark.parametrize("stream", [True, False])
def test_an_error_before_the_first_delta_is_the_same_in_both_modes(stream: bool) -> None:
    error = failed(BridgeError("rate_limited", "slow down", 1500, "p", "m", 429), stream=stream)
    assert without_receipt(error) == {}
    assert error.data() == BridgeError("rate_limited", "", 1500, "p", "m", 429, error.extra).data()


@pytest.mark.parametrize("step", [STOP, BridgeError("rate_limited", "no"), FOREVER])
def test_the_model_is_closed_however_the_chat_ends(step: Any) -> None:
    model = Scripted(Delta(content="a"), step)
    run(outcome(model, request(**limits(total_ms=1000))))
    assert model.closed


def test_a_model_that_is_not_found_is_the_chats_error() -> None:
    async def main() -> None:
        async def find(name: str) -> Any:
            raise BridgeError("model_not_found", name)

        await run_chat(request(), find)

    with pytest.raises(BridgeError, match="scripted") as caught:
        run(main())
    assert caught.value.kind == "model_not_found"


# --- chat_request ------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("CHT-9", "CHT-6")
def test_params_reach_the_model_as_they_were_sent_and_nulls_do_not() -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    chat = request(tools=tools, tool_choice="auto", temperature=0, seed=None, stop=["a"], provider_params={"top_k": 5})
    assert chat.options == {"tools": tools, "tool_choice": "auto", "temperature": 0, "stop": ["a"], "top_k": 5}
    assert chat.options["tools"] is tools
    assert (chat.model, chat.messages) == ("scripted", [{"role": "user", "content": "hi"}])


@quick
@given(st.lists(any_deltas, max_size=6), st.integers(0, 6))
def test_the_partial_content_of_an_error_is_that_of_the_deltas(deltas: list[Delta], place: int) -> None:
    assume(place <= len(deltas))
    done = play(*deltas[:place], BridgeError("stream_interrupted", "gone"))
    assert done.error is not None
    partial: Any = done.error.extra["partial"]
    assert partial["content"] == ("".join(delta.get("content", "") for delta in done.deltas) or None)
    streamed = "".join(piece["function"]["arguments"] for delta in done.deltas for piece in delta.get("tool_calls", ()))
    named = [made["function"] for made in partial["tool_calls"] if made["function"]["name"]]  # others are not reported yet
    assert sorted("".join(made["arguments"] for made in named)) == sorted(streamed)
