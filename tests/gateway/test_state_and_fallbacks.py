"""A provider's own state in a conversation goes back to those that can read it. A fallback to another provider works without it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import WorkerFor
from tests.support.agent_provider import THREE, ManyProviders
from tests.support.data import Json, tool
from tests.support.provider_formats import Call, Completion, environment
from tests.support.worker import Worker

SIGNATURE = "c2lnbmF0dXJlLW9mLXRoZS1wcm92aWRlcg=="
ARGUMENTS = '{"city": "Bern"}'
TOOLS: list[Json] = [tool("weather")]
MODELS = {"openai": "openai/gpt-4o-mini", "anthropic": "anthropic/claude-sonnet-4-5", "gemini": "gemini/gemini-3-pro-preview"}
PAIRS = list(itertools.permutations(THREE, 2))


@pytest.fixture(scope="module")
def provider() -> Iterator[ManyProviders]:
    with ManyProviders() as provider:
        yield provider


@pytest.fixture(scope="module")
def worker(provider: ManyProviders, worker_for: WorkerFor) -> Worker:
    rows = [{"model_name": name, "litellm_params": {"model": model}} for name, model in MODELS.items()]
    rows += [{"model_name": f"{one}-{other}", "litellm_params": {"model": MODELS[one]}} for one, other in PAIRS]
    fallbacks = [{f"{one}-{other}": [other]} for one, other in PAIRS]
    settings = {"num_retries": 0, "disable_cooldowns": True, "fallbacks": fallbacks}
    return worker_for(config={"model_list": rows, "router_settings": settings}, env=environment(provider.origin))


def first_turn(worker: Worker, provider: ManyProviders, name: str, streamed: bool) -> list[Json]:
    """The conversation after a call with thoughts by ``name``, and the result of its tool."""
    calls = [Call("call_1", "weather", ARGUMENTS)]
    provider.completions[name] = Completion(thoughts="I must look.", signature=SIGNATURE, calls=calls, finish="tool_calls")
    messages: list[Json] = [{"role": "user", "content": "Weather in Bern?"}]
    params = {"model": name, "messages": messages, "tools": TOOLS, "stream": streamed}
    result = worker.call("chat", params)["result"]
    call = result["tool_calls"][0]
    return [*messages, result["message"], {"role": "tool", "tool_call_id": call["id"], "content": "sunny"}]


@pytest.mark.rule("RES-18", "STF-1", "STF-2")
@pytest.mark.parametrize(("home", "other"), PAIRS, ids=[f"{one} to {other}" for one, other in PAIRS])
def test_a_fallback_to_another_provider_works_without_the_state(
    worker: Worker, provider: ManyProviders, home: str, other: str, streamed: bool
) -> None:
    messages = first_turn(worker, provider, home, streamed)
    provider.completions[home] = provider.completions[other] = Completion("It is sunny.")
    more: Json = {"tools": TOOLS, "stream": streamed}
    if other == "anthropic":
        more["thinking"] = {"type": "enabled", "budget_tokens": 1024}

    provider.down = {home}
    result = worker.call("chat", {"model": f"{home}-{other}", "messages": messages, **more})["result"]
    assert result["content"] == "It is sunny."
    assert result["receipt"]["fallback"]
    sent = provider.last_sent(other)
    assert SIGNATURE not in json.dumps(sent)
    assert "I must look." not in json.dumps(sent)
    assert "Bern" in json.dumps(sent)
    dropped = {change["param"] for change in result["receipt"]["dropped"] if change["change"] == "dropped"}
    assert any(param.startswith("messages[1].") for param in dropped), dropped

    provider.down = set()
    result = worker.call("chat", {"model": f"{home}-{other}", "messages": messages, "tools": TOOLS, "stream": streamed})["result"]
    assert not result["receipt"]["fallback"]
    if home != "openai":  # the chat completions of OpenAI have no signature
        assert SIGNATURE in json.dumps(provider.last_sent(home))


@pytest.mark.rule("STF-3")
def test_claude_does_not_think_in_a_tool_loop_that_another_model_began(
    worker: Worker, provider: ManyProviders, streamed: bool
) -> None:
    """Anthropic: a final assistant message must start with a thinking block when thinking is enabled."""
    messages = first_turn(worker, provider, "gemini", streamed)
    provider.completions["anthropic"] = Completion("It is sunny.")
    for effort in ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, {"reasoning_effort": "low"}):
        params: Json = {"model": "anthropic", "messages": messages, "tools": TOOLS, "stream": streamed, **effort}
        result = worker.call("chat", params)["result"]
        assert "thinking" not in provider.last_sent("anthropic")
        assert next(iter(effort)) in {change["param"] for change in result["receipt"]["dropped"]}
        messages_after: list[Any] = [*messages, {"role": "user", "content": "thanks"}]
        worker.call("chat", params | {"messages": messages_after})
        assert "thinking" in provider.last_sent("anthropic")
