"""Makes a small value that satisfies a JSON Schema, with the numbers and words of a text.

Owns the part of JSON Schema that tools use; it is not a solver. Refuses to know messages and tools.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

_MAX_STEPS = 10_000  # recursive schemas and nested lists grow exponentially with the depth
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
    """A small value that satisfies ``schema`` (JSON Schema), with numbers, words and enum values of ``text`` where they fit.

    Raises ValueError if the value would be large, and any exception for a value that is not a schema.
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
            raise ValueError("the schema needs too large a value")

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
        raise ValueError("the schema needs too long a text")
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
