"""Small members that LiteLLM leaves out for some providers: each is in the provider's request, or named in the receipt."""

from __future__ import annotations

import json

import pytest

from tests.support.every_mode import IGNORED_WARNINGS, EveryMode, bridge, provider, reply
from tests.support.provider_formats import FORMATS
from tests.support.worker import Json

__all__ = ["bridge", "provider"]  # fixtures
pytestmark = IGNORED_WARNINGS


def tool(name: str, **more: object) -> Json:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}, **more}}


@pytest.mark.rule("RCP-4")
@pytest.mark.parametrize("name", FORMATS)
def test_a_strict_tool_and_a_participants_name_are_sent_or_named(name: str, bridge: EveryMode, streamed: bool) -> None:
    wire = FORMATS[name]
    messages = [
        {"role": "user", "content": "hi", "name": "Kim"},
        {"role": "assistant", "content": "yes", "name": "Robin"},
        {"role": "user", "content": "and?"},
    ]
    tools = [tool("easy", strict=False), tool("exact", strict=True)]
    outcome = bridge.chat(wire, reply(wire, streamed=streamed), streamed=streamed, tools=tools, messages=messages)
    sent, receipt = json.dumps(outcome.sent[0].body), outcome.result["receipt"]
    dropped = {change["param"] for change in receipt["dropped"] if change["change"] == "dropped"}
    assert ("tools[1].function.strict" in dropped) == ('"strict": true' not in sent)
    assert "tools[0].function.strict" not in dropped
    assert ("messages[0].name" in dropped) == ("Kim" not in sent)
    assert ("messages[1].name" in dropped) == ("Robin" not in sent)
