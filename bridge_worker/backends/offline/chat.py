"""Models that need no key, no network and no LiteLLM: for a first try, for an agent's CI, for telling a provider's fault from ours.

Owns ``offline/echo`` and ``offline/tools``. They come through the same path as any other model, so what works with them works.
Their tokens are words, and they cost nothing. Refuses to be clever: one echoes, the other fills in a form.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from fractions import Fraction
from typing import Any

from bridge_worker.core.deltas import Delta, End, TokenUsage, ToolCallDelta
from bridge_worker.core.ports import ChatRequest, Facts
from bridge_worker.core.receipt import EngineVersion
from bridge_worker.errors import BridgeError
from bridge_worker.version import __version__

PREFIX = "offline/"
NAMES = ("offline/echo", "offline/tools")
ENGINE = EngineVersion(name="offline", version=__version__)


class Offline:
    """A `Model`."""

    async def chat(self, request: ChatRequest) -> AsyncGenerator[list[Delta] | Facts, None]:
        request.receipt.engine = ENGINE
        request.receipt.dropped = []
        request.receipt.added = []
        if request.model not in NAMES:
            raise BridgeError("model_not_found", f"there is no {request.model!r:.100}; offline models are {' and '.join(NAMES)}")
        if request.model == "offline/tools" and (calls := _tool_calls(request)):
            content, finish_reason = "", "tool_calls"
        else:
            calls, content, finish_reason = [], _text_to_repeat(request), "stop"
        for delta in _pieces(content, calls) if request.stream else [Delta(content=content, tool_calls=calls or None)]:
            yield [delta]
        end = End(finish_reason, finish_reason, _usage(request, content, calls), id="offline", model=request.model)
        yield Facts(end, provider="offline", cost_usd=0.0, cost_source="provider")


def _text_to_repeat(request: ChatRequest) -> str:
    """The last user message, or the last tool message for ``offline/tools``; without one, a sentence that says so."""
    role = "tool" if request.model == "offline/tools" and request.messages[-1]["role"] == "tool" else "user"
    said = next((message["content"] for message in reversed(request.messages) if message["role"] == role), None)
    return _text(said) if said is not None else "There is no user message to repeat."


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
    asked = input_tokens(request.messages)
    answered = len(content.split()) + sum(len(call.arguments.split()) for call in calls)
    return TokenUsage(input_tokens=asked, output_tokens=answered, total_tokens=asked + answered)


def input_tokens(messages: Sequence[Mapping[str, Any]]) -> int:
    return sum(len(_text(message.get("content") or "").split()) for message in messages)


_MAX_STEPS = 10_000  # a tree without an end, and lists of lists, double at each level
_MAX_LENGTH = 100_000


_MAX_TEXT = 10_000
_NUMBER = re.compile(r"(?<![\w.])(?:(?<!\S)-)?(?:\d{1,3}(?:,\d{3})+|\d{1,15})(?:\.\d{1,15})?(?![\w])")
_WORD = re.compile(r"[^\W\d_][\w'-]*")


class _Text:
    """Numbers and words of a text. Each is taken at most once, so that two arguments get two values."""

    def __init__(self, text: str) -> None:
        text = text[:_MAX_TEXT]
        self._text = text
        self._numbers = [match.replace(",", "") for match in _NUMBER.findall(text)]
        words = _WORD.findall(text)
        # "What is the weather in Brno?": a name that does not begin the text comes first, then the last of the other words.
        names = [word for word in words[1:] if word[0].isupper()]
        self._words = names + [word for word in reversed(words) if word not in names]

    def take_number(self, schema: Mapping[str, Any], *, whole: bool) -> Any:
        """The first number that ``schema`` allows, or None."""
        for index, digits in enumerate(self._numbers):
            value = float(digits) if "." in digits else int(digits)
            if (isinstance(value, int) or not whole) and _is_allowed(value, schema):
                del self._numbers[index]
                return value
        return None

    def take_numbers(self, schema: Mapping[str, Any], *, whole: bool, most: int) -> list[Any]:
        numbers: list[Any] = []
        while len(numbers) < most and (number := self.take_number(schema, whole=whole)) is not None:
            numbers.append(number)
        return numbers

    def take_word(self, schema: Mapping[str, Any]) -> str | None:
        """The first word of a length that ``schema`` allows, or None."""
        shortest, longest = schema.get("minLength", 0), schema.get("maxLength", _MAX_LENGTH)
        word = next((word for word in self._words if shortest <= len(word) <= longest), None)
        if word is not None:
            self._words.remove(word)
        return word

    def choose(self, values: Sequence[Any]) -> Any:
        """The value of an enum that the text contains, the first one if it contains none."""
        return next((value for value in values if isinstance(value, str) and self._contains(value)), values[0])

    def _contains(self, value: str) -> bool:
        edge = r"(?!\w)" if value[-1:].isalnum() else ""
        start = r"(?<!\w)" if value[:1].isalnum() else ""
        return bool(value) and re.search(start + re.escape(value) + edge, self._text, re.IGNORECASE) is not None


def _is_allowed(value: float, schema: Mapping[str, Any]) -> bool:
    return (
        schema.get("minimum", value) <= value <= schema.get("maximum", value)
        and ("exclusiveMinimum" not in schema or value > schema["exclusiveMinimum"])
        and ("exclusiveMaximum" not in schema or value < schema["exclusiveMaximum"])
        and Fraction(str(value)) % Fraction(str(schema.get("multipleOf", value or 1))) == 0
    )


def example(schema: Any, text: str = "") -> Any:
    """A small value that satisfies ``schema`` (JSON Schema): enough of it for the schemas that tools have, no solver.

    Takes numbers, words and enum values out of ``text`` where the schema allows them.

    Raises ValueError where that would be large, and anything at all for what is no schema.
    """
    return _Example(schema, text).of(schema, 0)


class _Example:
    def __init__(self, root: Any, text: str) -> None:
        self._root = root
        self._text = _Text(text)
        self._steps = 0

    def of(self, schema: Any, depth: int) -> Any:
        self._count()
        if not isinstance(schema, dict) or depth > 32:
            return {} if depth == 0 else None
        if isinstance(schema.get("$ref"), str):
            return self.of(_merged(schema, "$ref", [_resolve(schema["$ref"], self._root)]), depth + 1)
        for named in ("const", "default"):
            if named in schema:
                return schema[named]
        if schema.get("enum"):
            return self._text.choose(schema["enum"])
        if schema.get("examples"):
            return schema["examples"][0]
        for choice in ("anyOf", "oneOf"):
            if schema.get(choice):
                return self.of(_merged(schema, choice, schema[choice][:1]), depth + 1)
        if schema.get("allOf"):
            parts = [_resolve(part["$ref"], self._root) if "$ref" in part else part for part in schema["allOf"]]
            return self.of(_merged(schema, "allOf", parts), depth + 1)
        return self._of_type(schema, depth)

    def _count(self) -> None:
        self._steps += 1
        if self._steps > _MAX_STEPS:
            raise ValueError("the schema asks for too much")

    def _of_type(self, schema: Mapping[str, Any], depth: int) -> Any:
        type = schema.get("type", "object" if "properties" in schema or depth == 0 else "string")
        match type[0] if isinstance(type, list) else type:
            case "object":
                properties = schema.get("properties", {})
                return {name: self.of(properties.get(name, {}), depth + 1) for name in schema.get("required", [])}
            case "array":
                first = schema.get("prefixItems", [])
                numbers = [] if first else self._numbers(schema)
                if numbers:
                    return numbers
                rest = range(schema.get("minItems", 0) - len(first))
                return [self.of(one, depth + 1) for one in first] + [self.of(schema.get("items", {}), depth + 1) for _ in rest]
            case "integer" | "number" as kind:
                number = self._text.take_number(schema, whole=kind == "integer")
                return number if number is not None else _number(schema, whole=kind == "integer")
            case "boolean":
                return True
            case "null":
                return None
            case _:
                is_free = "format" not in schema and "pattern" not in schema
                return (self._text.take_word(schema) if is_free else None) or _string(schema)

    def _numbers(self, schema: Mapping[str, Any]) -> list[Any]:
        """All numbers of the text for a list of numbers; none if the schema needs more, or other ones."""
        items = schema.get("items")
        if not isinstance(items, dict) or items.get("type") not in ("integer", "number"):
            return []
        if schema.get("uniqueItems") or schema.keys() & {"contains"} or items.keys() & {"const", "enum", "default", "examples"}:
            return []
        numbers = self._text.take_numbers(items, whole=items["type"] == "integer", most=schema.get("maxItems", _MAX_STEPS))
        return numbers if len(numbers) >= schema.get("minItems", 0) else []


def _string(schema: Mapping[str, Any]) -> str:
    formats = {"date": "2026-01-31", "date-time": "2026-01-31T12:00:00Z", "time": "12:00:00Z", "email": "someone@example.com"}
    formats |= {"uri": "https://example.com/", "uuid": "00000000-0000-4000-8000-000000000000", "ipv4": "192.0.2.1"}
    text = formats.get(schema.get("format", ""), "example")
    if schema.get("minLength", 0) > _MAX_LENGTH:
        raise ValueError("the schema asks for too long a text")
    return text.ljust(schema.get("minLength", 0), "x")[: schema.get("maxLength")]


def _number(schema: Mapping[str, Any], *, whole: bool) -> Any:
    step: Any = schema.get("multipleOf", 1)
    low: Any = max((schema[name] for name in ("minimum", "exclusiveMinimum") if name in schema), default=None)
    high: Any = min((schema[name] for name in ("maximum", "exclusiveMaximum") if name in schema), default=None)
    if low is not None:
        number = math.ceil(Fraction(low) / Fraction(step)) * step  # exact, and for integers of any size
        number += step if number == schema.get("exclusiveMinimum") else 0
    elif high is not None:
        number = math.floor(Fraction(high) / Fraction(step)) * step
        number -= step if number == schema.get("exclusiveMaximum") else 0
    else:
        return step
    between = low is not None and high is not None and not whole and "multipleOf" not in schema
    return (low + high) / 2 if between and not low < number < high else number


def _merged(schema: Mapping[str, Any], without: str, parts: list[Any]) -> dict[str, Any]:
    whole = {name: value for name, value in schema.items() if name != without}
    for part in parts:
        part = part if isinstance(part, dict) else {}
        properties = whole.get("properties", {}) | part.get("properties", {})
        required = list(dict.fromkeys([*whole.get("required", []), *part.get("required", [])]))
        whole |= part
        whole |= ({"properties": properties} if properties else {}) | ({"required": required} if required else {})
    return whole


def _resolve(reference: str, root: Mapping[str, Any]) -> Any:
    value: Any = root
    for step in reference.removeprefix("#").strip("/").split("/"):
        if step:
            value = value.get(step.replace("~1", "/").replace("~0", "~"), {}) if isinstance(value, dict) else {}
    return value
