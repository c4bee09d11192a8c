"""What a wire decoder leaves in a message is what LiteLLM's own request transformers send back to that provider.

Which member LiteLLM reads each kind of state from is not documented. After an upgrade these fail first; the decoders are in
``bridge_worker/backends/wire``. Nothing here calls a provider.
"""

from __future__ import annotations

import importlib.metadata
from typing import Any

import pytest
from litellm.litellm_core_utils.prompt_templates.factory import _bedrock_converse_messages_pt, anthropic_messages_pt
from litellm.llms.vertex_ai.gemini.transformation import _gemini_convert_messages_with_history

from bridge_worker.backends.wire.anthropic import Anthropic
from bridge_worker.backends.wire.bedrock_converse import BedrockConverse
from bridge_worker.backends.wire.gemini import Gemini
from tests.unit.wire import anthropic_cases as claude
from tests.unit.wire import bedrock_converse_cases as bedrock
from tests.unit.wire import gemini_cases as google
from tests.unit.wire.joined import plain

VERSION = tuple(int(part) for part in importlib.metadata.version("litellm").split(".")[:2])
since_110 = pytest.mark.skipif(VERSION < (1, 110), reason="earlier versions of LiteLLM drop this state themselves")
pytestmark = [pytest.mark.filterwarnings("ignore:.*`ReadOnly` qualifier:UserWarning")]


def conversation(make: type[Any], body: Any) -> list[Any]:
    """The next request's messages: a question, the decoded response as the accumulator appends it, and what follows it."""
    joined = plain(make, body)
    assert joined.error is None
    message: dict[str, Any] = {"role": "assistant", "content": joined.content or None, **joined.message}
    if joined.reasoning:
        message["reasoning_content"] = joined.reasoning
    if joined.thinking_blocks:
        message["thinking_blocks"] = joined.thinking_blocks
    calls = [(call["id"] or f"call_{at}", call) for at, call in enumerate(joined.calls)]
    if calls:
        message["tool_calls"] = [
            {
                "id": id,
                "type": "function",
                "function": {"name": call["name"], "arguments": call["arguments"]},
                **({"provider_specific_fields": call["fields"]} if call["fields"] else {}),
            }
            for id, call in calls
        ]
    results = [{"role": "tool", "tool_call_id": id, "content": "r"} for id, _ in calls]
    return [{"role": "user", "content": "q"}, message, *(results or [{"role": "user", "content": "go on"}])]


@pytest.mark.parametrize(
    "blocks",
    [
        [claude.THINKING, claude.REDACTED, claude.TEXT, claude.TOOL],
        [claude.COMPACTION, claude.TEXT],
        pytest.param([claude.THINKING, claude.SEARCH, claude.FOUND, claude.TEXT], marks=since_110),
        pytest.param([claude.SEARCH, claude.FOUND], marks=since_110),
        pytest.param([claude.SEARCH, {**claude.RAN, "tool_use_id": "srvtoolu_1"}, claude.TOOL], marks=since_110),
    ],
)
def test_anthropics_blocks_return(blocks: list[Any]) -> None:
    sent = anthropic_messages_pt(conversation(Anthropic, claude.body(*blocks)), "claude-sonnet-4-5", "anthropic")
    assert next(message for message in sent if message["role"] == "assistant")["content"] == blocks


@pytest.mark.parametrize(
    "blocks",
    [
        [bedrock.THINKING, bedrock.TEXT, bedrock.TOOL],
        [{"reasoningContent": {"reasoningText": {"text": "", "signature": "c2ln"}}}, bedrock.TEXT],
        pytest.param([bedrock.THINKING, bedrock.REDACTED, bedrock.TEXT], marks=since_110),
    ],
)
def test_bedrocks_blocks_return(blocks: list[Any]) -> None:
    messages = conversation(BedrockConverse, bedrock.body(*blocks))
    sent: Any = _bedrock_converse_messages_pt(messages, "anthropic.claude-sonnet-4-5-20250929-v1:0", "bedrock_converse")
    assert next(message for message in sent if message["role"] == "assistant")["content"] == blocks


LAST = {"text": "", "thoughtSignature": "TEFTVA=="}


@pytest.mark.parametrize(
    ("parts", "returned"),
    [
        ([google.SIGNED], [google.SIGNED]),
        ([google.THOUGHT, google.TEXT, LAST], [google.THOUGHT, {**google.TEXT, "thoughtSignature": "TEFTVA=="}]),
        ([LAST], [LAST]),
        ([google.TEXT, google.SIGNED_CALL], [google.TEXT, google.SIGNED_CALL]),
        ([google.SERVED, google.SERVED_RESULT], [google.SERVED, google.SERVED_RESULT]),
    ],
)
def test_geminis_signatures_return(parts: list[Any], returned: list[Any]) -> None:
    sent = _gemini_convert_messages_with_history(conversation(Gemini, google.body(*parts)), model="gemini-3-pro-preview")
    found: Any = next(content for content in sent if content["role"] == "model")["parts"]
    for part in found:
        if call := part.pop("function_call", None):
            part["functionCall"] = {name: member for name, member in call.items() if name != "id"}
    assert found == returned
