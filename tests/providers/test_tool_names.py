"""Names of tools that a provider would refuse: another one is sent, in each turn the same, and the caller gets its own back."""

from __future__ import annotations

import re
from typing import Any

import pytest

from bridge_worker.backends.litellm.tool_names import new_name
from tests.support.every_mode import IGNORED_WARNINGS, EveryMode, bridge, provider, reply
from tests.support.provider_formats import FORMATS, Call, Completion
from tests.support.worker import Json

__all__ = ["bridge", "provider"]  # fixtures
pytestmark = IGNORED_WARNINGS
NAMES = ["fs.read", "fs_read", "1st", "größe", "a" * 65, "mcp://server/tool?x=1", "_hidden", " ", "fs-read", "f" * 256]
RENAMING = [name for name in FORMATS if name not in ("ollama", "vllm")]


def tool(name: str) -> Json:
    parameters = {"type": "object", "properties": {"path": {"type": "string"}}}
    return {"type": "function", "function": {"name": name, "description": "it reads", "parameters": parameters}}


TOOLS = [tool(name) for name in NAMES]


def sent_names(body: Any) -> list[str]:
    """The values of every ``name`` in a provider's request."""
    found: list[str] = []
    if isinstance(body, dict):
        found += [value for name, value in body.items() if name == "name" and isinstance(value, str)]
        found += [name for member in body.values() for name in sent_names(member)]
    elif isinstance(body, list):
        found += [name for member in body for name in sent_names(member)]
    return found


@pytest.mark.parametrize("name", RENAMING)
def test_a_tool_of_any_name_is_called_by_it_in_each_turn(name: str, bridge: EveryMode, streamed: bool) -> None:
    wire = FORMATS[name]
    probe = bridge.chat(wire, reply(wire, streamed=streamed), streamed=streamed, tools=TOOLS)
    there = sent_names(probe.sent[0].body)[: len(NAMES)]
    assert len(set(there)) == len(NAMES)
    assert all(re.fullmatch(r"[A-Za-z0-9_.:-]{1,64}", one) for one in there)
    rewritten = {change["param"]: change["sent"] for change in probe.result["receipt"]["dropped"]}
    sent_as = zip(NAMES, there, strict=True)
    assert rewritten == {f"tools[{at}].function.name": new for at, (old, new) in enumerate(sent_as) if new != old}

    calls = [Call(f"call_{at}aaaaaaaa", new, '{"path": "x"}') for at, new in enumerate(there)]
    called = Completion(calls=calls, finish="tool_calls")
    outcome = bridge.chat(wire, reply(wire, called, streamed=streamed), streamed=streamed, tools=TOOLS)
    assert [call["function"]["name"] for call in outcome.result["tool_calls"]] == NAMES

    results = [{"role": "tool", "tool_call_id": call["id"], "content": "done"} for call in outcome.result["tool_calls"]]
    turn = [{"role": "user", "content": "hi"}, outcome.result["message"], *results]
    choice = {"type": "function", "function": {"name": "größe"}}
    again = bridge.chat(wire, reply(wire, streamed=streamed), streamed=streamed, tools=TOOLS, messages=turn, tool_choice=choice)
    assert not again.error
    body = again.sent[0].body
    assert set(sent_names(body)) & set(NAMES) == set(there) & set(NAMES)
    assert all(sent_names(body).count(new) >= 2 for new in there)  # declared and called
    assert "größe" not in str(body)


@pytest.mark.parametrize("name", ["ollama", "vllm"])
def test_a_server_that_takes_any_name_gets_it(name: str, bridge: EveryMode, streamed: bool) -> None:
    wire = FORMATS[name]
    outcome = bridge.chat(wire, reply(wire, streamed=streamed), streamed=streamed, tools=TOOLS)
    assert [one for one in sent_names(outcome.sent[0].body) if one in NAMES] == NAMES
    assert outcome.result["receipt"]["dropped"] == []


def test_new_names_are_valid_everywhere_and_no_two_alike() -> None:
    made = [new_name(name) for name in [*NAMES, "fs:read", "fs/read", "\ud83d", "...", "--"]]
    assert len(set(made)) == len(made)
    assert all(re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,63}", name) for name in made)
