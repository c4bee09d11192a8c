"""Checks a chat's result against the request: tool calls against their tools, the content against its ``response_format``.

Owns the marks in a result: ``problems`` and ``repaired`` of a tool call, and of the result for its content. Long work is done in a
thread, within a number of steps. Refuses to call a model again (`agent.ensure`) and to know a provider.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping
from typing import Any

from bridge_worker.agent import json_repair
from bridge_worker.agent.json_schema import MAX_PROBLEMS, Problem, SchemaCheck, Search, TooMuch, path_text
from bridge_worker.agent.json_types import is_type, shown
from bridge_worker.errors import BridgeError

QUICK_STEPS = 1_000  # on the loop: about a millisecond
QUICK_CHARACTERS = 16 * 1024
MAX_STEPS = 200_000  # of a whole response, in a thread
_NAMES_SHOWN = 20

Params = Mapping[str, Any]
Result = dict[str, Any]


class ResponseCheck:
    """The checks of one request. ``tolerates``: arguments that are not JSON are a problem like another, not an error."""

    def __init__(self, params: Params, *, tolerates: bool = False) -> None:
        self.tools = {tool["function"]["name"]: tool["function"].get("parameters") for tool in params.get("tools") or ()}
        self.format = _schema_of(params.get("response_format"))
        self.repairs = params.get("repair") == "json"
        self.tolerates = tolerates

    async def apply(self, result: Result) -> list[Problem]:
        """Marks ``result``, and returns its problems. Raises BridgeError ``bad_upstream_response``: arguments are not JSON."""
        calls = result["tool_calls"]
        content = result["content"] if self.format is not None and not calls and not result["refusal"] else None
        if not calls and content is None:
            return []
        length = len(content or "") + sum(len(call["function"]["arguments"]) for call in calls)
        if length <= QUICK_CHARACTERS:
            try:
                return _Pass(self, result, content, QUICK_STEPS, None).run()
            except TooMuch:
                pass
        return await asyncio.to_thread(self._check_long, result, content)

    def _check_long(self, result: Result, content: str | None) -> list[Problem]:
        from bridge_worker.agent.patterns import Patterns  # 30 ms, and few schemas have a pattern

        return _Pass(self, result, content, MAX_STEPS, Patterns()).run()


class _Pass:
    """One pass over a result. ``search`` None: it is the quick one, which raises TooMuch and has changed nothing then."""

    def __init__(self, check: ResponseCheck, result: Result, content: str | None, steps: int, search: Search | None) -> None:
        self._check = check
        self._result = result
        self._content = content
        self._steps = steps
        self._search = search
        self._was_cut = result["finish_reason"] == "length" or result["raw_finish_reason"] in ("length", "max_tokens", "MAX_TOKENS")

    def run(self) -> list[Problem]:
        judged = [self._judge_call(call) for call in self._result["tool_calls"]]
        of_content = None if self._content is None else self._judge(self._content, self._check.format)
        for call, (text, repaired, problems) in zip(self._result["tool_calls"], judged, strict=True):
            _mark(call, repaired, problems)
            self._replace_arguments(call, text)
        found = [problem for _, _, problems in judged for problem in problems]
        if of_content is not None:
            text, repaired, problems = of_content
            _mark(self._result, repaired, problems)
            if repaired:
                self._result["content"] = self._result["message"]["content"] = text
            found += problems
        return found

    def _judge_call(self, call: Mapping[str, Any]) -> tuple[str, list[dict[str, str]], list[Problem]]:
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        tools = self._check.tools
        text, repaired, problems = self._judge(arguments, tools.get(name))
        if name not in tools:
            known = ", ".join(list(tools)[:_NAMES_SHOWN]) or "none"
            problems.insert(0, Problem("unknown_tool", (), f"the request has no tool {shown(name)}; its tools: {known}"))
        if any(problem.kind == "not_json" for problem in problems) and not self._check.tolerates:
            reason = next(problem.reason for problem in problems if problem.kind == "not_json")
            partial = {"content": self._result["content"], "tool_calls": self._result["tool_calls"]}
            wrong = f"the model called {name} with arguments that are not JSON ({reason}); try again"
            raise BridgeError("bad_upstream_response", wrong, model=self._result["model"], extra={"partial": partial})
        return text, repaired, problems

    def _judge(self, text: str, schema: object) -> tuple[str, list[dict[str, str]], list[Problem]]:
        """(the text as it goes into the result, the changes, the problems)"""
        changes: list[dict[str, str]] = []
        problems: list[Problem] = []
        if not json_repair.is_json(text):
            fixed = json_repair.repair(text, was_cut=self._was_cut) if self._check.repairs else None
            if fixed is None:
                return text, [], [Problem("not_json", (), self._why_not_json(text))]
            text = fixed.text
            changes = [{"path": "", "change": change} for change in fixed.changes]
            if fixed.cut and self._was_cut:
                problems.append(Problem("truncated", (), "the response ended at its limit of tokens; raise max_tokens"))
        value, converted, found = self._against(json.loads(text), schema)
        if converted:
            text = json.dumps(value, ensure_ascii=False)
        return text, changes + converted, problems + found

    def _against(self, value: Any, schema: object) -> tuple[Any, list[dict[str, str]], list[Problem]]:
        found = self._problems(value, schema)
        if not self._check.repairs or not any(problem.expected for problem in found) or not _is_finite(value):
            return value, [], found
        converted: list[dict[str, str]] = []
        for problem in found:
            value, change = _convert(value, problem)
            converted += change
        return (value, converted, self._problems(value, schema)) if converted else (value, [], found)

    def _problems(self, value: Any, schema: object) -> list[Problem]:
        if schema is None:
            return []
        check = SchemaCheck(schema, self._steps, self._search)
        try:
            found = check.problems(value)
        except (TooMuch, RecursionError):
            if self._search is None:
                raise TooMuch from None
            return [Problem("unchecked", (), f"was not checked to the end: that takes more than {MAX_STEPS:,} steps")]
        self._steps = check.steps_left
        return found

    def _why_not_json(self, text: str) -> str:
        if self._was_cut:
            return "the response ended at its limit of tokens; raise max_tokens"
        try:
            json.loads(text)
        except (ValueError, RecursionError) as error:
            return str(error)[:200]
        return "NaN and Infinity are not JSON"

    def _replace_arguments(self, call: dict[str, Any], text: str) -> None:
        """In the result and in the message that goes back to the provider, which has its own copy of the call."""
        if text == call["function"]["arguments"]:
            return
        call["function"]["arguments"] = text
        for other in self._result["message"].get("tool_calls") or ():
            if other["id"] == call["id"]:
                other["function"]["arguments"] = text


def _mark(marked: dict[str, Any], repaired: list[dict[str, str]], problems: list[Problem]) -> None:
    if repaired:
        marked["repaired"] = repaired
    if problems:
        marked["problems"] = [problem.wire() for problem in problems[:MAX_PROBLEMS]]


def _schema_of(response_format: Any) -> object:
    """The schema that the content must fit; None where any text does."""
    format = response_format or {}
    if format.get("type") == "json_object":
        return {"type": "object"}
    if format.get("type") == "json_schema":
        schema = (format.get("json_schema") or {}).get("schema")
        return {} if schema is None else schema
    return None


def _convert(value: Any, problem: Problem) -> tuple[Any, list[dict[str, str]]]:
    """``value``, with a string at the problem's place replaced by the value that it spells, if that has an expected type."""
    holder, last, at = None, None, value
    for step in problem.path:
        try:
            holder, last, at = at, step, at[step]
        except (KeyError, IndexError, TypeError):
            return value, []
    if not isinstance(at, str) or "string" in problem.expected:
        return value, []
    meant = _spelled(at, problem.expected)
    if meant is None:
        return value, []
    change = {"path": path_text(problem.path), "change": f"the string {shown(at)} became {shown(meant[0])}"}
    if holder is None:
        return meant[0], [change]
    holder[last] = meant[0]
    return value, [change]


def _spelled(text: str, expected: tuple[str, ...]) -> tuple[Any] | None:
    word = text.strip()
    try:
        meant = json.loads(word.lower() if word in ("True", "False") else word)
    except (ValueError, RecursionError):
        return None
    if isinstance(meant, float) and not math.isfinite(meant):
        return None
    return (meant,) if not isinstance(meant, str) and any(is_type(meant, type) for type in expected) else None


def _is_finite(value: Any) -> bool:
    """Whether ``value`` can be written as JSON again: 1e999 is JSON, and no double."""
    try:
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError):
        return False
    return True
