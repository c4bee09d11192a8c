"""What an agent's loop gets besides a chat, in OpenAI's, Anthropic's and Gemini's format, without a config and with one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.conftest import WorkerFor
from tests.support.agent_provider import THREE, AgentProvider, calling
from tests.support.data import Json, tool
from tests.support.provider_formats import FORMATS, Call, Completion, environment
from tests.support.worker import Worker

WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer", "maximum": 7}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS: list[Json] = [tool("weather", WEATHER)]
CITY: Json = {
    "type": "json_schema",
    "json_schema": {"name": "city", "schema": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}},
}
HELLO: list[Json] = [{"role": "user", "content": "hello"}]
Respond = Callable[..., Json]


@pytest.fixture(scope="module")
def provider() -> Iterator[AgentProvider]:
    with AgentProvider() as provider:
        yield provider


@pytest.fixture(scope="module")
def direct(provider: AgentProvider, worker_for: WorkerFor) -> Worker:
    return worker_for(env=environment(provider.origin))


@pytest.fixture(scope="module")
def configured(provider: AgentProvider, worker_for: WorkerFor) -> Worker:
    rows = [{"model_name": FORMATS[name].model, "litellm_params": {"model": FORMATS[name].model}} for name in THREE]
    return worker_for(config={"model_list": rows}, env=environment(provider.origin))


@pytest.fixture(params=THREE)
def wire(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["direct", "configured"])
def worker(request: pytest.FixtureRequest) -> Worker:
    worker: Worker = request.getfixturevalue(request.param)
    return worker


@pytest.fixture
def respond(provider: AgentProvider, worker: Worker, wire: str, streamed: bool) -> Respond:
    """Gives the answers to one chat, and returns its whole response, with the deltas in ``deltas``."""

    def run(*completions: Completion, **params: Any) -> Json:
        provider.play(wire, *completions)
        id = worker.request("chat", {"model": provider.model, "messages": HELLO, "stream": streamed} | params)
        response = worker.response(id)
        return response | {"deltas": worker.deltas(id)}

    return run


# --- tool calls and response formats ------------------------------------------------------------------------------------------


@pytest.mark.rule("TLC-1", "TLC-2")
def test_a_call_that_does_not_fit_its_tool_has_the_problems(respond: Respond) -> None:
    (call,) = respond(calling('{"days": 9, "town": "Bern"}'), tools=TOOLS)["result"]["tool_calls"]
    assert call["problems"] == [
        {"kind": "schema", "path": "city", "reason": "is missing"},
        {"kind": "schema", "path": "days", "reason": "must be at most 7, is 9"},
        {"kind": "schema", "path": "town", "reason": "is not a member that the schema has"},
    ]
    assert "repaired" not in call


@pytest.mark.rule("TLC-1")
def test_a_call_that_fits_has_no_mark(respond: Respond) -> None:
    (call,) = respond(calling('{"city": "Bern", "days": 3}'), tools=TOOLS)["result"]["tool_calls"]
    assert call.keys() == {"id", "type", "function"}


@pytest.mark.rule("TLC-3")
def test_a_call_of_a_tool_that_the_request_does_not_have_is_marked(respond: Respond) -> None:
    (call,) = respond(calling('{"city": "Bern"}', "weather_v2"), tools=TOOLS)["result"]["tool_calls"]
    assert [(one["kind"], one["path"]) for one in call["problems"]] == [("unknown_tool", "")]
    assert "weather_v2" in call["problems"][0]["reason"]
    assert "weather" in call["problems"][0]["reason"]


@pytest.mark.rule("TLC-4", "STR-5")
def test_a_string_instead_of_a_number_is_repaired_and_named(respond: Respond) -> None:
    response = respond(calling('{"city": "Bern", "days": "3"}'), tools=TOOLS, repair="json")
    (call,) = response["result"]["tool_calls"]
    assert call["function"]["arguments"] == '{"city": "Bern", "days": 3}'
    assert call["repaired"] == [{"path": "days", "change": 'the string "3" became 3'}]
    assert "problems" not in call
    (sent_back,) = response["result"]["message"]["tool_calls"]
    assert sent_back["function"]["arguments"] == call["function"]["arguments"]
    assert "repaired" not in sent_back


@pytest.mark.rule("TLC-4", "STR-5")
@pytest.mark.parametrize("wire", ["openai"])  # the others send arguments as an object, plain
def test_code_fences_and_trailing_commas_are_repaired(respond: Respond, streamed: bool) -> None:
    written = '```json\n{"city": "Bern",}\n```'
    response = respond(calling(written), tools=TOOLS, repair="json")
    (call,) = response["result"]["tool_calls"]
    assert call["function"]["arguments"] == '{"city": "Bern"}'
    assert [one["change"] for one in call["repaired"]] == ["the code fence was removed", "trailing commas were removed"]
    if streamed:  # the deltas are what the model wrote
        pieces = [delta["delta"]["tool_calls"][0]["function"].get("arguments", "") for delta in response["deltas"]]
        assert "".join(pieces) == written


@pytest.mark.rule("TLC-5")
@pytest.mark.parametrize("wire", ["openai"])
def test_arguments_that_were_cut_off_by_max_tokens_are_marked(respond: Respond) -> None:
    cut = calling('{"city": "Ber', finish="length")
    (call,) = respond(cut, tools=TOOLS, repair="json")["result"]["tool_calls"]
    assert call["function"]["arguments"] == '{"city": "Ber"}'
    assert [one["kind"] for one in call["problems"]] == ["truncated"]
    assert "max_tokens" in call["problems"][0]["reason"]

    error = respond(cut, tools=TOOLS)["error"]
    assert error["data"]["kind"] == "bad_upstream_response"
    assert "max_tokens" in error["message"]


@pytest.mark.rule("TLC-4", "RES-4")
@pytest.mark.parametrize("wire", ["openai"])
def test_arguments_beyond_repair_are_an_error(respond: Respond) -> None:
    error = respond(calling("sunny"), tools=TOOLS, repair="json")["error"]
    assert error["data"]["kind"] == "bad_upstream_response"
    assert error["data"]["partial"]["tool_calls"][0]["function"]["arguments"] == "sunny"
    assert error["data"]["receipt"]["attempts"][0]["outcome"] == "bad_upstream_response"


@pytest.mark.rule("TLC-6")
def test_content_that_does_not_fit_the_response_format_has_the_problems(respond: Respond) -> None:
    result = respond(Completion('{"n": "many"}'), response_format=CITY)["result"]
    assert result["problems"] == [{"kind": "schema", "path": "n", "reason": "must be an integer, is a string"}]
    assert "problems" not in respond(Completion('{"n": 3}'), response_format=CITY)["result"]


@pytest.mark.rule("TLC-6")
def test_content_is_repaired_and_named(respond: Respond) -> None:
    result = respond(Completion('Sure:\n```json\n{"n": "3"}\n```'), response_format=CITY, repair="json")["result"]
    assert result["content"] == result["message"]["content"] == '{"n": 3}'
    assert [one["path"] for one in result["repaired"]] == ["", "n"]
    assert "problems" not in result


@pytest.mark.rule("ENS-1", "ENS-2", "ENS-3")
def test_a_response_that_does_not_fit_is_requested_again(respond: Respond, provider: AgentProvider, streamed: bool) -> None:
    response = respond(
        Completion("nothing"), Completion('{"n": "x"}'), Completion('{"n": 3}'), response_format=CITY, ensure={"attempts": 4}
    )
    result = response["result"]
    assert result["content"] == '{"n": 3}'
    assert "problems" not in result
    assert result["usage"]["input_tokens"] == 60
    assert [one["outcome"] for one in result["receipt"]["attempts"]] == ["bad_upstream_response", "bad_upstream_response", "ok"]
    first, second, third = map(str, provider.sent())
    assert "must be an integer" not in second
    assert "nothing" in second
    assert "must be an integer" in third
    assert "required format" not in first
    if streamed:
        assert "".join(delta["delta"]["content"] for delta in response["deltas"]) == '{"n": 3}'


@pytest.mark.rule("ENS-1", "ENS-3")
def test_the_cost_is_that_of_all_attempts(respond: Respond) -> None:
    one = respond(Completion('{"n": 3}'), response_format=CITY)["result"]["cost_usd"]
    two = respond(Completion("no"), Completion('{"n": 3}'), response_format=CITY, ensure={"attempts": 2})["result"]["cost_usd"]
    assert two == pytest.approx(2 * one)


@pytest.mark.rule("ENS-1")
def test_the_attempts_are_bounded_and_the_last_response_has_its_problems(respond: Respond, provider: AgentProvider) -> None:
    result = respond(Completion('{"n": "x"}'), response_format=CITY, ensure={"attempts": 3})["result"]
    assert len(provider.requests) == 3
    assert [one["path"] for one in result["problems"]] == ["n"]


@pytest.mark.rule("ENS-2")
def test_a_call_that_does_not_fit_is_requested_again_with_a_result_for_each_call(respond: Respond, provider: AgentProvider) -> None:
    both = Completion(calls=[Call("c1", "weather", "{}"), Call("c2", "weather", '{"city": "Bern"}')], finish="tool_calls")
    result = respond(both, calling('{"city": "Bern"}'), tools=TOOLS, ensure={"attempts": 2})["result"]
    assert [call.get("problems") for call in result["tool_calls"]] == [None]
    again = str(provider.sent()[1])
    assert "city: is missing" in again
    assert "Repeat it" in again


@pytest.mark.rule("ENS-4")
def test_an_error_of_a_later_attempt_has_the_cost_of_the_earlier_ones(
    provider: AgentProvider, direct: Worker, streamed: bool
) -> None:
    provider.play("openai", Completion("no"), calling("sunny"))
    params = {"response_format": CITY, "tools": TOOLS, "ensure": {"attempts": 2}, "stream": streamed}
    error = direct.response(direct.request("chat", {"model": provider.model, "messages": HELLO} | params))["error"]
    assert error["data"]["kind"] == "bad_upstream_response"
    assert error["data"]["earlier_cost_usd"] > 0
    assert len(error["data"]["receipt"]["attempts"]) == 2


@pytest.mark.rule("ENS-1")
@pytest.mark.parametrize("members", [{"ensure": {"attempts": 0}}, {"ensure": {"attempts": 11}}, {"ensure": {}}, {"repair": "yaml"}])
def test_a_wrong_member_is_an_invalid_request(direct: Worker, members: Json) -> None:
    response = direct.response(direct.request("chat", {"model": "offline/echo", "messages": HELLO} | members))
    assert response["error"]["data"]["kind"] == "invalid_request"


# --- a history that fits ------------------------------------------------------------------------------------------------------

LONG: list[Json] = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "first"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "a", "type": "function", "function": {"name": "weather", "arguments": "{}"}}],
    },
    {"role": "tool", "tool_call_id": "a", "content": "sunny " * 400},
    {"role": "assistant", "content": "It is sunny."},
    {"role": "user", "content": "And tomorrow?"},
]


@pytest.mark.rule("FIT-5")
def test_a_chat_is_made_to_fit_before_it_is_sent_and_the_receipt_has_it(respond: Respond, provider: AgentProvider) -> None:
    fit = {"strategy": "oldest_tool_results", "max_input_tokens": 300}
    receipt = respond(Completion("rain"), messages=LONG, tools=TOOLS, fit=fit)["result"]["receipt"]
    assert [(one["index"], one["role"], one["change"]) for one in receipt["fit"]["dropped"]] == [(3, "tool", "shortened")]
    assert receipt["fit"]["input_tokens"] <= receipt["fit"]["max_input_tokens"] == 300
    sent = str(provider.sent()[0])
    assert "left out" in sent
    assert "And tomorrow?" in sent
    assert len(sent) < 2_500


@pytest.mark.rule("FIT-5", "FIT-4")
def test_the_limit_of_a_chat_is_that_of_the_model(respond: Respond) -> None:
    receipt = respond(Completion("rain"), messages=LONG, fit="oldest_turns", max_tokens=100)["result"]["receipt"]
    assert receipt["fit"]["dropped"] == []
    assert receipt["fit"]["max_input_tokens"] > 90_000
    error = respond(Completion("rain"), messages=LONG, fit={"max_input_tokens": 3})["error"]
    assert error["data"]["kind"] == "context_length_exceeded"


@pytest.mark.rule("FIT-1", "FIT-2")
@pytest.mark.parametrize("name", THREE)
def test_tokens_fit_returns_the_messages_and_their_count(direct: Worker, name: str) -> None:
    model = FORMATS[name].model
    params = {"model": model, "messages": LONG, "tools": TOOLS, "max_input_tokens": 150, "strategy": "oldest_turns"}
    result = direct.call("tokens/fit", params)["result"]
    assert result["messages"] == [LONG[0], LONG[5]]
    assert [one["index"] for one in result["dropped"]] == [1, 2, 3, 4]
    counted = direct.call("tokens/count", {"model": model, "messages": result["messages"], "tools": TOOLS})["result"]
    assert {member: result[member] for member in counted} == counted
    assert result["input_tokens"] <= 150


# --- once ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("IDM-1", "IDM-2")
def test_a_repeated_request_gets_the_result_and_the_deltas_of_the_first(
    respond: Respond, provider: AgentProvider, worker: Worker, wire: str, streamed: bool, request: pytest.FixtureRequest
) -> None:
    key = request.node.name
    first = respond(Completion("once only"), idempotency_key=key)
    params = {"model": provider.model, "messages": HELLO, "stream": streamed, "idempotency_key": key}
    id = worker.request("chat", params)
    again = worker.response(id)
    assert again["result"] == first["result"]
    assert [delta["delta"] for delta in worker.deltas(id)] == [delta["delta"] for delta in first["deltas"]]
    assert {delta["requestId"] for delta in worker.deltas(id)} <= {id}
    assert len(provider.requests) == 1
    refused = worker.call("chat", params | {"temperature": 0.5})["error"]
    assert refused["data"]["kind"] == "invalid_request"
    assert len(provider.requests) == 1
