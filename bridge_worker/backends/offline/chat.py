"""Chat models without a key, network and LiteLLM: for a first try, an agent's CI, and to separate errors of a provider from ours.

Owns ``offline/echo``, which repeats the user's message, and ``offline/tools``, which fills in a tool's schema. They use the same
path as any other model. Their tokens are words, and they are free. Refuses to imitate a language model.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from bridge_worker.backends.offline.schema_example import example
from bridge_worker.core.deltas import Delta, End, TokenUsage, ToolCallDelta
from bridge_worker.core.ports import ChatRequest, Facts
from bridge_worker.core.receipt import EngineVersion
from bridge_worker.errors import BridgeError
from bridge_worker.version import __version__

PREFIX = "offline/"
NAMES = ("offline/echo", "offline/tools")
ENGINE = EngineVersion(name="offline", version=__version__)


class Offline:
    """A `ChatModel`."""

    async def chat(self, request: ChatRequest) -> AsyncGenerator[list[Delta] | Facts, None]:
        request.receipt.engine = ENGINE
        request.receipt.dropped = []
        request.receipt.added = []
        if request.model not in NAMES:
            raise BridgeError("model_not_found", f"unknown offline model {request.model!r:.100}; known: {', '.join(NAMES)}")
        if request.model == "offline/tools" and (calls := _tool_calls(request)):
            content, finish_reason = "", "tool_calls"
        else:
            calls, content, finish_reason = [], _text_to_repeat(request), "stop"
        for delta in _pieces(content, calls) if request.stream else [Delta(content=content, tool_calls=calls or None)]:
            yield [delta]
        end = End(finish_reason, finish_reason, _usage(request, content, calls), id="offline", model=request.model)
        yield Facts(end, provider="offline", cost_usd=0.0, cost_source="provider")


def _text_to_repeat(request: ChatRequest) -> str:
    """The last user message, or the last tool message for ``offline/tools``; without one, a sentence that reports this."""
    role = "tool" if request.model == "offline/tools" and request.messages[-1]["role"] == "tool" else "user"
    content = next((message["content"] for message in reversed(request.messages) if message["role"] == role), None)
    return _text(content) if content is not None else "There is no user message to repeat."


def _last_user_text(request: ChatRequest) -> str:
    content = next((message["content"] for message in reversed(request.messages) if message["role"] == "user"), None)
    return _text(content) if content is not None else ""


def _text(content: str | list[dict[str, Any]]) -> str:
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def _tool_calls(request: ChatRequest) -> list[ToolCallDelta]:
    tools = request.options.get("tools")
    choice = request.options.get("tool_choice")
    if not tools or choice == "none" or request.messages[-1]["role"] == "tool":
        return []
    wanted = choice["function"]["name"] if isinstance(choice, dict) else tools[0]["function"]["name"]
    tool = next((tool["function"] for tool in tools if tool["function"]["name"] == wanted), None)
    if tool is None:
        raise BridgeError("rejected_by_provider", f"tool_choice names {wanted!r:.100}, which is not among the tools")
    try:
        arguments = json.dumps(example(tool.get("parameters") or {"type": "object"}, _last_user_text(request)), ensure_ascii=False)
    except Exception as error:  # whatever a schema that is none leads to
        wrong = f"the parameters of {wanted!r:.100} are no JSON Schema that can be satisfied simply ({type(error).__name__})"
        raise BridgeError("rejected_by_provider", wrong) from None
    return [ToolCallDelta(index=0, id=f"call_{len(request.messages)}", name=tool["name"], arguments=arguments)]


def _pieces(content: str, calls: list[ToolCallDelta]) -> list[Delta]:
    """Word by word, and a call's arguments in two halves, as a provider would."""
    words = [Delta(content=word) for word in re.findall(r"\s*\S+\s*$|\s*\S+|\s+$", content)]
    halves = []
    for call in calls:
        middle = len(call.arguments) // 2
        first = ToolCallDelta(call.index, call.id, call.name, call.arguments[:middle])
        halves += [Delta(tool_calls=[first]), Delta(tool_calls=[ToolCallDelta(call.index, arguments=call.arguments[middle:])])]
    return words + halves


def _usage(request: ChatRequest, content: str, calls: list[ToolCallDelta]) -> TokenUsage:
    input, output = input_tokens(request.messages), len(content.split()) + sum(len(call.arguments.split()) for call in calls)
    return TokenUsage(input_tokens=input, output_tokens=output, total_tokens=input + output)


def input_tokens(messages: Sequence[Mapping[str, Any]]) -> int:
    return sum(len(_text(message.get("content") or "").split()) for message in messages)
