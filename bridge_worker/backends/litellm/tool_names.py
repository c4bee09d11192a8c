"""Gives a tool another name where the provider would refuse the caller's, in the tools, the choice and the conversation alike.

Owns the providers' rules for names, and the new names, which depend on the old one only: the same in each turn, and no two alike.
`restoring` gives the caller back its own. Refuses to know how a request is sent.

Sources: the providers' API references; Bedrock's ToolSpecification, Gemini's FunctionDeclaration, OpenAI's and Anthropic's tools.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from bridge_worker.core.receipt import Change

Json = dict[str, Any]
Rule = re.Pattern[str]
_HASH = 8  # characters of it at the end of a new name
_KEPT = 54  # characters of the old one before that
_COMMON = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_BEDROCK = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}\Z")
_GEMINI = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,63}\Z")
_INVALID = re.compile(r"[^A-Za-z0-9_-]+")
_RULES: Mapping[str, Rule] = {
    **dict.fromkeys(
        """openai azure azure_ai anthropic mistral groq xai deepseek cohere cohere_chat openrouter together_ai fireworks_ai cerebras
        github databricks vertex_ai watsonx perplexity moonshot dashscope""".split(),
        _COMMON,
    ),
    "bedrock": _BEDROCK,
    "gemini": _GEMINI,
}


def rule_of(provider: str | None, model: str) -> Rule | None:
    """The names that a provider takes; None where it takes any, or that is not known."""
    if provider == "vertex_ai" and "gemini" in model:
        return _GEMINI
    return _RULES.get(provider or "")


def new_name(name: str) -> str:
    """The name that is sent instead of ``name``, valid for every provider."""
    head = _INVALID.sub("_", name).strip("_-")[:_KEPT] or "tool"
    if not head[0].isalpha():
        head = f"t{head}"
    return f"{head}_{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:_HASH]}"


def renamed_options(call: Mapping[str, Any], rule: Rule) -> tuple[Json, list[Change]]:
    """``tools`` and ``tool_choice`` of a call with valid names, where any is not."""
    changes: list[Change] = []
    made: Json = {}
    tools = call.get("tools") or []
    if any(_is_invalid(tool, rule) for tool in tools):
        made["tools"] = [_renamed(tool, rule) for tool in tools]
        for at, (tool, sent) in enumerate(zip(tools, made["tools"], strict=True)):
            if tool is not sent:
                changes.append(Change(f"tools[{at}].function.name", "rewritten", sent["function"]["name"]))
    if _is_invalid(choice := call.get("tool_choice"), rule):
        made["tool_choice"] = _renamed(choice, rule)
    return made, changes


def renamed_messages(messages: Sequence[Json], rule: Rule) -> list[Json]:
    """The messages with valid names in their tool calls and results."""
    return [_renamed_message(message, rule) for message in messages]


def _renamed_message(message: Json, rule: Rule) -> Json:
    calls = message.get("tool_calls")
    if calls and any(_is_invalid(call, rule) for call in calls):
        return {**message, "tool_calls": [_renamed(call, rule) for call in calls]}
    name = message.get("name")
    if message.get("role") == "tool" and isinstance(name, str) and not rule.match(name):
        return {**message, "name": new_name(name)}
    return message


def _is_invalid(owner: Any, rule: Rule) -> bool:
    function = owner.get("function") if isinstance(owner, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    return isinstance(name, str) and not rule.match(name)


def _renamed(owner: Any, rule: Rule) -> Any:
    if not _is_invalid(owner, rule):
        return owner
    return {**owner, "function": {**owner["function"], "name": new_name(owner["function"]["name"])}}
