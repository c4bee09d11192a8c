"""Fault cards: which requests they meet, what an agent sees of each, and the checks of their members."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bridge_worker.backends.local.chat import Local
from bridge_worker.backends.registry import Backend, Registry
from bridge_worker.backends.wire.openai_chat import OpenAIChat
from bridge_worker.cassettes.counters import CALL, LocalCounters, RemoteCounters
from bridge_worker.cassettes.faults import Faults, FaultyBackends, early_error
from bridge_worker.config.fault_cards import ERROR_EVENTS, FaultCard, kinds_of, read_fault_cards
from bridge_worker.core.accumulator import WireDelta
from bridge_worker.core.chat_runner import run_chat
from bridge_worker.core.ports import EmbedRequest
from bridge_worker.core.receipt import Receipt
from bridge_worker.errors import BridgeError, MemberError
from tests.support.data import ROOT, Json, tool
from tests.support.requests import chat_request

RESILIENCE = ROOT / "docs/resilience.yaml"
TOOL = tool("weather", {"type": "object", "properties": {"city": {}}})
TEXT = "one two three four five"


def cards(*given: Json) -> tuple[FaultCard, ...]:
    return read_fault_cards(list(given), Path())


class Agent:
    """Chats with ``offline/echo`` under cards."""

    def __init__(self, given: Sequence[FaultCard]) -> None:
        async def no_litellm() -> Backend:
            raise AssertionError("an offline model needs no LiteLLM")

        self.backends = FaultyBackends(Registry(Local(), no_litellm), Faults(lambda: given, LocalCounters()))

    def chat(self, *, stream: bool = True, text: str = TEXT, deadline_ms: int = 5_000, **params: Any) -> Json | BridgeError:
        """The result or the error; with ``deltas``, those that were sent."""
        deltas: list[WireDelta] = []

        async def emit(wire: list[WireDelta]) -> None:
            deltas.extend(wire)

        given = {"model": "offline/echo", "messages": [{"role": "user", "content": text}], "stream": stream, **params}
        request = chat_request(given | {"deadlines": {"total_ms": deadline_ms}}, time.monotonic())
        try:
            result = asyncio.run(run_chat(request, self.backends.chat_model, emit if stream else None))
        except BridgeError as error:
            error.extra["deltas"] = deltas
            return error
        return result | {"deltas": deltas}

    def sees(self, **params: Any) -> str:
        seen = self.chat(**params)
        return seen.kind if isinstance(seen, BridgeError) else "ok"


# --- the ready file ----------------------------------------------------------------------------------------------------------


@pytest.mark.rule("FLT-1", "FLT-4")
def test_each_card_of_the_ready_file_is_seen_as_the_kind_that_it_names_and_the_chats_between_succeed() -> None:
    ready = read_fault_cards(str(RESILIENCE), Path())
    agent = Agent(ready)
    seen = [agent.sees(deadline_ms=1_000 if card.do.action != "stall_ms" else 50, tools=[TOOL]) for card in ready for _ in "ab"]
    assert seen[0::2] == ["ok"] * len(ready)
    assert dict(zip([card.name for card in ready], seen[1::2], strict=True)) == {card.name: card.sees for card in ready}


def test_the_page_has_a_line_for_each_card_of_the_ready_file() -> None:
    page = (ROOT / "docs/resilience.md").read_text(encoding="utf-8")
    missing = [card.name for card in read_fault_cards(str(RESILIENCE), Path()) if f"| {card.name} |" not in page]
    assert not missing


# --- which requests ----------------------------------------------------------------------------------------------------------


@pytest.mark.rule("FLT-2")
@pytest.mark.parametrize(
    ("match", "met"),
    [
        ({"nth": 2}, [2]),
        ({"nth": [1, 4]}, [1, 4]),
        ({"every": 3}, [3, 6]),
        ({}, [1, 2, 3, 4, 5, 6]),
        ({"model": "offline/e*", "nth": 1}, [1]),
        ({"model": "openai/*"}, []),
        ({"stream": False}, []),
        ({"method": "embed"}, []),
        ({"chance": 0.0}, []),
        ({"chance": 1.0}, [1, 2, 3, 4, 5, 6]),
    ],
)
def test_a_card_meets_the_requests_that_it_names(match: Json, met: list[int]) -> None:
    agent = Agent(cards({"match": match, "do": {"status": 429}}))
    assert [at for at in range(1, 7) if agent.sees() == "rate_limited"] == met


@pytest.mark.rule("FLT-2")
def test_a_chance_is_the_same_in_each_run_with_its_seed_and_another_with_another() -> None:
    def run(seed: int) -> list[str]:
        agent = Agent(cards({"match": {"chance": 0.5, "seed": seed}, "do": {"status": 503}}))
        return [agent.sees() for _ in range(32)]

    assert run(1) == run(1) != run(2)
    assert 4 < run(1).count("ok") < 28


@pytest.mark.rule("FLT-2")
def test_the_first_card_that_is_due_applies_and_every_card_counts() -> None:
    agent = Agent(cards({"match": {"nth": 2}, "do": {"status": 429}}, {"match": {"every": 2}, "do": {"status": 503}}))
    assert [agent.sees() for _ in range(4)] == ["ok", "rate_limited", "ok", "provider_unavailable"]


def test_engines_count_in_the_server_process() -> None:
    async def run() -> list[list[int]]:
        server = LocalCounters()

        async def call(name: str, arguments: Any) -> object:
            assert name == CALL
            return await server.serve(arguments)

        first, second = RemoteCounters(call), RemoteCounters(call)
        return [await first.advance(["a"]), await second.advance(["a", "b"]), await first.advance(["b"])]

    assert asyncio.run(run()) == [[1], [2, 1], [2]]


# --- what they do ------------------------------------------------------------------------------------------------------------


def error_of(do: Json, *, stream: bool = True, **params: Any) -> BridgeError:
    error = Agent(cards({"do": do})).chat(stream=stream, **params)
    assert isinstance(error, BridgeError)
    return error


@pytest.mark.rule("FLT-3")
def test_a_status_has_its_retry_after_and_names_the_card() -> None:
    error = error_of({"status": 429, "retry_after": 3})
    assert (error.kind, error.status, error.retry_after_ms, error.provider) == ("rate_limited", 429, 3000, "offline")
    assert "card 1: status" in error.message
    receipt: Any = error.extra["receipt"]
    assert receipt["engine"]["name"] == "faults"
    assert receipt["attempts"][0]["outcome"] == "rate_limited"


@pytest.mark.rule("FLT-3")
@pytest.mark.parametrize(
    ("position", "content"), [({"after_deltas": 2}, "one two"), ({"after_bytes": 5}, "one t"), ({"after_bytes": 7}, "one two")]
)
@pytest.mark.parametrize("do", [{"cut": True}, {"broken_json": True}, {"error_event": "overloaded_error"}, {"engine_lost": True}])
def test_a_stream_breaks_off_at_the_position_with_the_content_before_it(do: Json, position: Json, content: str) -> None:
    error = error_of({**do, **position})
    assert error.kind == ("engine_lost" if "engine_lost" in do else "stream_interrupted")
    partial: Any = error.extra["partial"]
    assert partial["content"] == content == "".join(error.extra["deltas"])  # type: ignore[arg-type]
    assert not error.retryable


@pytest.mark.rule("FLT-3")
def test_a_position_in_a_plain_response_is_before_it() -> None:
    error = error_of({"cut": True, "after_deltas": 2}, stream=False)
    assert (error.kind, error.extra.get("partial", None)) == ("provider_unavailable", None)


@pytest.mark.rule("FLT-3")
def test_a_cut_within_a_character_keeps_the_characters_before_it() -> None:
    error = error_of({"cut": True, "after_bytes": 3}, text="aé☃")
    assert error.extra["partial"] == {"content": "aé", "tool_calls": []}


@pytest.mark.rule("FLT-3")
def test_a_stall_amid_a_stream_meets_the_deadline_and_continues_when_that_is_later() -> None:
    assert error_of({"stall_ms": 60_000, "after_deltas": 2}, deadline_ms=40).extra["partial"] == {
        "content": "one two",
        "tool_calls": [],
    }
    result = Agent(cards({"do": {"stall_ms": 1, "after_deltas": 2}})).chat()
    assert not isinstance(result, BridgeError)
    assert result["content"] == TEXT


@pytest.mark.rule("FLT-3")
def test_a_trickle_is_a_delta_for_each_character() -> None:
    result = Agent(cards({"do": {"trickle_ms": 1}})).chat(text="slow")
    assert not isinstance(result, BridgeError)
    assert (result["content"], result["deltas"]) == ("slow", list("slow"))


@pytest.mark.rule("FLT-3")
def test_responses_that_an_agent_does_not_expect() -> None:
    def result(do: Json) -> Json:
        seen = Agent(cards({"do": do})).chat(tools=[TOOL])
        assert not isinstance(seen, BridgeError)
        return seen

    assert result({"empty": True})["content"] is None
    assert result({"finish_reason": "length"})["finish_reason"] == "length"
    call = result({"tool_arguments": {"unknown": 1}})
    assert call["finish_reason"] == "tool_calls"
    assert call["tool_calls"][0]["function"] == {"name": "weather", "arguments": '{"unknown": 1}'}
    assert error_of({"tool_arguments": "{"}, tools=[TOOL]).kind == "bad_upstream_response"


@pytest.mark.rule("FLT-3")
def test_embeddings_meet_cards_too() -> None:
    agent = Agent(cards({"match": {"method": "embed", "nth": 1}, "do": {"status": 503}}))

    async def embed() -> Any:
        services = await agent.backends.services("offline/embed")
        return await services.embed(EmbedRequest("offline/embed", ["a"], Receipt("offline/embed")))

    with pytest.raises(BridgeError) as caught:
        asyncio.run(embed())
    assert caught.value.kind == "provider_unavailable"
    assert len(asyncio.run(embed()).vectors) == 1


# --- the kinds that a card may name ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [*range(400, 432), 451, 499, 500, 502, 503, 504, 529, 599])
def test_the_kind_of_a_status_is_the_decoders_own(status: int) -> None:
    (card,) = cards({"do": {"status": status}})
    assert kinds_of(card.match, card.do) == (OpenAIChat.error(status, {}, b'{"error": {"message": "a fault on purpose"}}').kind,)


@pytest.mark.parametrize("event", ERROR_EVENTS)
def test_the_kind_of_an_error_event_is_the_decoders_own(event: str) -> None:
    (card,) = cards({"do": {"error_event": event}})
    assert kinds_of(card.match, card.do) == (early_error(card, "offline/echo").kind,)


@pytest.mark.rule("FLT-5")
@pytest.mark.parametrize(
    ("card", "problem"),
    [
        ({}, "[0].do: is missing"),
        ({"do": {}}, "[0].do: must have exactly one of"),
        ({"do": {"status": 429, "cut": True}}, "it has status, cut"),
        ({"do": {"status": 200}}, "[0].do.status: must be an HTTP status from 400"),
        ({"do": {"statsu": 429}}, "[0].do.statsu: is not a member"),
        ({"do": {"cut": True, "retry_after": 1}}, "[0].do.retry_after: goes with status"),
        ({"do": {"status": 429, "after_deltas": 1}}, "[0].do.after_deltas: goes with one of"),
        ({"do": {"finish_reason": "never"}}, "must be one of: stop"),
        ({"do": {"status": 429}, "match": {"nth": 0}}, "[0].match.nth: must be a whole number, at least 1"),
        ({"do": {"status": 429}, "match": {"nth": 1, "every": 2}}, "has more than one of"),
        ({"do": {"status": 429}, "match": {"chance": 2}}, "must be a number from 0 to 1"),
        ({"do": {"empty": True}, "match": {"method": "embed"}}, "is for chats"),
        ({"do": {"cut": True, "after_bytes": 2}, "match": {"method": "rerank"}}, "after_deltas and after_bytes are for chats"),
        ({"do": {"cut": True}, "match": {"method": "embed", "stream": True}}, "[0].match.stream: is for chats"),
        ({"do": {"tool_arguments": "{"}, "match": {"method": "tokens/count"}}, "[0].do.tool_arguments: is for chats"),
        ({"do": {"stall_ms": 5}, "match": {"method": "tokens/count"}, "sees": "timeout"}, "an agent sees ok of this card"),
        ({"do": {"cut": True}, "match": {"method": "tokens"}}, "must be one of: chat, embed, rerank, tokens/count"),
        ({"do": {"status": 429}, "sees": "rate_limit"}, "is no error kind"),
        ({"do": {"status": 429}, "sees": "timeout"}, "an agent sees rate_limited of this card, not timeout"),
    ],
)
def test_a_wrong_card_names_the_member_and_the_correction(card: Json, problem: str) -> None:
    with pytest.raises(MemberError) as caught:
        cards(card)
    assert problem in str(caught.value)


@pytest.mark.rule("FLT-5")
def test_a_file_of_cards_is_a_list_or_has_the_section(tmp_path: Path) -> None:
    texts = (
        "- do: {cut: true}",
        "faults: [{do: {cut: true}}]",
        "omni_bridge: {faults: [{do: {cut: true}}]}",
        '[{"do": {"cut": true}}]',
    )
    for text in texts:
        (tmp_path / "cards.yaml").write_text(text)
        assert [card.do.cut for card in read_fault_cards("cards.yaml", tmp_path)] == [True]
    (tmp_path / "cards.yaml").write_text("faults: [")
    for name, problem in (("cards.yaml", "is not YAML"), ("none.yaml", "can't be read")):
        with pytest.raises(MemberError, match=problem):
            read_fault_cards(name, tmp_path)
