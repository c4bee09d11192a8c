"""``cache: "auto"``: an agent's turns are read from the provider's cache, by the rules of each provider."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from bridge_worker.agent.cached_turn import CachedTurn, TurnCache
from bridge_worker.agent.prompt_cache import CacheMemory, StableTools, mark
from bridge_worker.backends.litellm.cache_marks import with_cache
from bridge_worker.backends.litellm.upstream import Target
from bridge_worker.core.ports import CacheHint
from tests.conftest import WorkerFor
from tests.support.agent_provider import AgentProvider
from tests.support.anthropic_cache import CachingProvider
from tests.support.data import Json
from tests.support.provider_formats import FORMATS, Call, Completion, environment
from tests.support.requests import chat_request
from tests.support.worker import Worker

CLAUDE = FORMATS["anthropic"].model
SYSTEM: Json = {"role": "system", "content": "You are an agent. " * 300}
TASK: Json = {"role": "user", "content": "Read the files, one after the other."}


def tool(name: str) -> Json:
    parameters = {"type": "object", "properties": {"path": {"type": "string", "description": "of the file"}}}
    return {"type": "function", "function": {"name": name, "description": "Works on a file. " * 20, "parameters": parameters}}


TOOLS = [tool("read"), tool("search"), tool("write")]


@pytest.fixture(scope="module")
def provider() -> Iterator[CachingProvider]:
    with CachingProvider() as provider:
        yield provider


@pytest.fixture(scope="module")
def others() -> Iterator[AgentProvider]:
    with AgentProvider() as provider:
        yield provider


@pytest.fixture(scope="module")
def direct(provider: CachingProvider, others: AgentProvider, worker_for: WorkerFor) -> Worker:
    return worker_for(env={**environment(others.origin), "ANTHROPIC_BASE_URL": provider.origin})


@pytest.fixture(scope="module")
def configured(provider: CachingProvider, worker_for: WorkerFor) -> Worker:
    rows = [{"model_name": CLAUDE, "litellm_params": {"model": CLAUDE}}]
    return worker_for(config={"model_list": rows}, env=environment(provider.origin))


@pytest.fixture(params=["direct", "configured"])
def worker(request: pytest.FixtureRequest) -> Worker:
    worker: Worker = request.getfixturevalue(request.param)
    return worker


def turn(worker: Worker, messages: list[Json], **params: Any) -> Json:
    response = worker.call("chat", {"model": CLAUDE, "messages": messages, "tools": TOOLS, "max_tokens": 100} | params)
    assert "result" in response, response
    result: Json = response["result"]
    return result


def run_agent(worker: Worker, provider: CachingProvider, turns: int = 20, **params: Any) -> list[Json]:
    """An agent that calls a tool in each turn; the order of its tools is another each time."""
    provider.begin()
    messages = [SYSTEM, {"role": "user", "content": f"{TASK['content']} {params}"}]
    results = []
    for number in range(turns):
        provider.completions = [Completion(calls=[Call(f"call_{number}", "read", '{"path": "a.rs"}')], finish="tool_calls")]
        rotated = TOOLS[number % 3 :] + TOOLS[: number % 3]
        result = turn(worker, messages, tools=rotated, **params)
        results.append(result)
        content = f"file {number}: " + "let x = y; " * 60
        messages = [*messages, result["message"], {"role": "tool", "tool_call_id": f"call_{number}", "content": content}]
    return results


def share(provider: CachingProvider) -> float:
    return sum(read for _, read, _ in provider.usages) / sum(total for total, _, _ in provider.usages)


@pytest.mark.rule("CCH-1", "CCH-2", "CCH-5")
def test_an_agent_of_20_turns_reads_70_percent_from_the_cache_and_none_without(
    worker: Worker, provider: CachingProvider, streamed: bool
) -> None:
    results = run_agent(worker, provider, cache="auto", stream=streamed)
    assert share(provider) >= 0.7
    assert results[0]["receipt"]["cache"] == {"missed": "the first turn"}
    assert {result["receipt"]["cache"]["missed"] for result in results[1:]} == {None}
    for result, (_, read, written) in zip(results, provider.usages, strict=True):
        cache = result["cache"]
        assert (cache["read_tokens"], cache["written_tokens"]) == (read, written)
    assert results[0]["cache"]["saved_usd"] < 0  # to write costs more than to send
    assert sum(result["cache"]["saved_usd"] for result in results) > 0.3 * sum(result["cost_usd"] for result in results)

    run_agent(worker, provider, turns=4, stream=streamed)
    assert share(provider) == 0


@pytest.mark.rule("CCH-6")
def test_the_receipt_has_why_a_turn_missed(direct: Worker, provider: CachingProvider) -> None:
    provider.begin()
    provider.completions = [Completion("ok")]
    first: list[Json] = [SYSTEM, {"role": "user", "content": "why does it miss?"}]
    then = [*first, {"role": "assistant", "content": "ok"}, {"role": "user", "content": "go on"}]

    def missed(messages: list[Json], **params: Any) -> str:
        provider._cache.clear()  # whatever was sent before is not found
        reason: str = turn(direct, messages, cache="auto", **params)["receipt"]["cache"]["missed"]
        return reason

    assert missed(first) == "the first turn"
    assert missed(then, tools=[*TOOLS, tool("delete")]) == "the tools changed"
    assert missed([{"role": "system", "content": SYSTEM["content"] + "!"}, *then[1:]], tools=[*TOOLS, tool("delete")]) == (
        "the system message changed"
    )
    assert missed(then, tools=TOOLS[:1]) == "the tools changed"
    edited = [*then[:2], {"role": "assistant", "content": "OK!"}, then[3]]
    assert missed(edited, tools=TOOLS[:1]) == "an earlier message changed"
    assert missed(edited, tools=TOOLS[:1], model="anthropic/claude-opus-4-1") == "another model or deployment"
    assert missed(edited, tools=TOOLS[:1], model="anthropic/claude-opus-4-1") == "the provider did not find it"
    assert missed([TASK], tools=[]) == "too short"


@pytest.mark.rule("CCH-6")
def test_a_turn_after_the_time_to_live_has_expired() -> None:
    clock = [0.0]
    memory = CacheMemory(lambda: clock[0])
    usage = {"input_tokens": 5_000, "cached_input_tokens": 0}
    memory.finish("k", memory.turn_of([TASK], ""), ("anthropic", None, CLAUDE), usage)
    clock[0] = 301.0
    assert memory.finish("k", memory.turn_of([TASK, TASK], ""), ("anthropic", None, CLAUDE), usage) == "expired"


@pytest.mark.rule("CCH-2")
def test_the_callers_breakpoints_stay_and_count(direct: Worker, provider: CachingProvider) -> None:
    provider.begin()
    provider.completions = [Completion("ok")]
    marked = [{"type": "text", "text": "word " * 2_000, "cache_control": {"type": "ephemeral"}} for _ in range(4)]
    result = turn(direct, [{"role": "user", "content": marked}, {"role": "assistant", "content": "ok"}, TASK], cache="auto")
    assert result["content"] == "ok"
    text = str(provider.requests[-1].body)
    assert text.count("cache_control") == 4


@pytest.mark.rule("CCH-2")
def test_a_prefix_that_is_too_short_has_no_breakpoint(direct: Worker, provider: CachingProvider) -> None:
    provider.begin()
    provider.completions = [Completion("ok")]
    turn(direct, [TASK], tools=TOOLS[:1], cache="auto")
    assert "cache_control" not in str(provider.requests[-1].body)


@pytest.mark.rule("CCH-1", "CCH-3")
@pytest.mark.parametrize("name", ["openai", "gemini", "bedrock converse"])
def test_each_provider_gets_what_its_cache_needs(direct: Worker, others: AgentProvider, name: str) -> None:
    others.play(name, Completion("ok"))
    for number in range(2):
        more = [{"role": "assistant", "content": "ok"}, {"role": "user", "content": "go on"}] * number
        params = {"model": others.model, "messages": [SYSTEM, TASK, *more], "tools": TOOLS, "cache": "auto"}
        result = direct.call("chat", params)["result"]
        assert result["cache"].keys() == {"read_tokens", "written_tokens", "saved_usd"}
    first, second = others.sent()
    if name == "openai":
        assert first["prompt_cache_key"] == second["prompt_cache_key"]
        assert len(first["prompt_cache_key"]) <= 64
    elif name == "gemini":  # it caches prefixes by itself: they must be the same
        assert first["contents"] == second["contents"][: len(first["contents"])]
        assert first["tools"] == second["tools"]
    else:
        assert 1 <= str(second).count("cachePoint") <= 4


@pytest.mark.rule("CCH-3")
@pytest.mark.parametrize(
    ("model", "params", "has_key"),
    [
        ("gpt-5-mini", {"api_version": "v1"}, True),
        ("my-deployment", {"api_version": "preview", "base_model": "azure/o4-mini"}, True),
        ("gpt-5-mini", {"api_version": "2024-10-21"}, False),
        ("DeepSeek-V3", {"api_version": "v1"}, False),
    ],
)
def test_azure_gets_a_key_where_it_takes_one(model: str, params: Json, has_key: bool) -> None:
    request = chat_request({"model": f"azure/{model}", "messages": [TASK]}, 0.0)
    request.cache = CacheHint("omni-1", 0)
    _, call, _ = with_cache(request, "key", params, Target(model, "azure"), request.messages)
    assert ("prompt_cache_key" in call) == has_key


@pytest.mark.rule("CCH-2")
@pytest.mark.parametrize("tail", ["", " \n", [], [{"type": "text", "text": " "}]])
def test_a_blank_text_gets_no_breakpoint(tail: Any) -> None:
    messages = [SYSTEM, TASK, {"role": "assistant", "content": "ok"}, {"role": "user", "content": tail}]
    marked, _ = mark(messages, None, CLAUDE, 100_000)
    assert ["cache_control" in message for message in marked] == [True, True, False, False]


@pytest.mark.rule("CCH-2")
def test_a_content_of_parts_is_cached_too(direct: Worker, provider: CachingProvider, streamed: bool) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    provider.begin()
    provider.completions = [Completion("ok")]
    system = {"role": "system", "content": [{"type": "text", "text": SYSTEM["content"]}]}
    first = {"role": "user", "content": [{"type": "text", "text": "what is it? " * 900}, image, {"type": "text", "text": " "}]}
    turn(direct, [system, first], cache="auto", stream=streamed)
    more = [{"role": "assistant", "content": "ok"}, {"role": "user", "content": [{"type": "text", "text": "go on"}]}]
    result = turn(direct, [system, first, *more], cache="auto", stream=streamed)
    assert result["cache"]["read_tokens"] > 0.9 * provider.usages[0][0]


@pytest.mark.rule("CCH-2")
def test_no_more_than_four_breakpoints_with_those_in_the_functions_of_tools() -> None:
    mine = {"cache_control": {"type": "ephemeral"}}
    tools = [{"type": "function", "function": {**tool(name)["function"], **mine}} for name in ("a", "b", "c")]
    marked, sent = mark([SYSTEM, TASK], tools, CLAUDE, 100_000)
    assert sum("cache_control" in message for message in marked) == 1
    assert sent == tools


@pytest.mark.rule("CCH-4")
def test_tools_have_the_same_bytes_in_each_turn() -> None:
    stable = StableTools()
    swapped = {"function": dict(reversed(TOOLS[0]["function"].items())), "type": "function"}
    assert str(stable.of(TOOLS)) == str(stable.of([TOOLS[2], TOOLS[1], swapped]))
    assert stable.of(TOOLS)[1] == json.dumps(sorted(TOOLS, key=lambda tool: str(tool["function"]["name"])))


@pytest.mark.rule("CCH-1")
def test_any_other_value_is_an_invalid_request(direct: Worker) -> None:
    error = direct.call("chat", {"model": CLAUDE, "messages": [TASK], "cache": "always"})["error"]
    assert error["data"]["kind"] == "invalid_request"


def test_a_turn_of_200_messages_costs_less_than_100_microseconds() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "read", "arguments": '{"path": "a.rs"}'}}
    step: list[Json] = [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "let x = y; " * 50},
    ]
    params = {"model": CLAUDE, "messages": [SYSTEM, TASK, *(step * 99)], "cache": "auto", "tools": TOOLS}
    shared = TurnCache()
    result = {"provider": "anthropic", "model": CLAUDE, "receipt": {"deployment": None}, "usage": None}

    def own_cost() -> float:
        request = chat_request(params, 0.0)
        began = time.perf_counter()
        cached = CachedTurn(shared, params, request)
        assert request.cache is not None
        mark(request.messages, request.options["tools"], CLAUDE, request.cache.tools_length)
        cached.finish(dict(result, receipt={"deployment": None}))
        return time.perf_counter() - began

    assert min(own_cost() for _ in range(200)) < 200e-6  # twice the goal: the cores of a test are shared
