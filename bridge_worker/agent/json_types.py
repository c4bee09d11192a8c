"""The types of JSON Schema, its limits on numbers and lengths, and the equality of JSON.

Owns these and their words in a problem. Refuses to walk through a schema or a value.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

MAX_SHOWN = 60  # characters of a value in a reason

Bound = tuple[str, str, Callable[[Any, Any], bool]]
LENGTHS: tuple[Bound, ...] = (
    ("minLength", "must have at least {} characters, has {}", lambda value, limit: value >= limit),
    ("maxLength", "must have at most {} characters, has {}", lambda value, limit: value <= limit),
)
NUMBERS: tuple[Bound, ...] = (
    ("minimum", "must be at least {}, is {}", lambda value, limit: value >= limit),
    ("maximum", "must be at most {}, is {}", lambda value, limit: value <= limit),
    ("exclusiveMinimum", "must be more than {}, is {}", lambda value, limit: value > limit),
    ("exclusiveMaximum", "must be less than {}, is {}", lambda value, limit: value < limit),
)
MEMBERS: tuple[Bound, ...] = (
    ("minProperties", "must have at least {} members, has {}", lambda value, limit: value >= limit),
    ("maxProperties", "must have at most {} members, has {}", lambda value, limit: value <= limit),
)
ITEMS: tuple[Bound, ...] = (
    ("minItems", "must have at least {} items, has {}", lambda value, limit: value >= limit),
    ("maxItems", "must have at most {} items, has {}", lambda value, limit: value <= limit),
)
_NAMES = {
    "string": "a string",
    "integer": "an integer",
    "number": "a number",
    "boolean": "a boolean",
    "object": "an object",
    "array": "an array",
    "null": "null",
}


def out_of_bounds(value: Any, schema: Mapping[str, Any], bounds: Sequence[Bound]) -> Iterator[str]:
    """The reason for each of ``bounds`` that ``value`` does not keep."""
    for keyword, words, holds in bounds:
        limit = schema.get(keyword)
        if limit is not None and is_type(limit, "number") and not holds(value, limit):
            yield words.format(shown(limit), shown(value))


def is_multiple(value: float, divisor: float) -> bool:
    if isinstance(value, int) and isinstance(divisor, int):
        return value % divisor == 0
    try:
        quotient = value / divisor
    except OverflowError:  # an integer that no double holds
        return True
    return math.isfinite(quotient) and abs(quotient - round(quotient)) < 1e-9 * max(1.0, abs(quotient))


def types_in(schema: Mapping[str, Any]) -> tuple[str, ...]:
    """The names in ``type``; Gemini's are in capital letters."""
    given = schema.get("type")
    names = given if isinstance(given, list) else [given]
    return tuple(name.lower() for name in names if isinstance(name, str) and name.lower() in _NAMES)


def types_of(values: Sequence[object]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(type for value in values for type in _NAMES if is_type(value, type)))


def is_type(value: object, type: str) -> bool:
    match type:
        case "string":
            return isinstance(value, str)
        case "integer":
            return (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and value.is_integer())
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "boolean":
            return isinstance(value, bool)
        case "object":
            return isinstance(value, dict)
        case "array":
            return isinstance(value, list)
    return value is None


def type_name(value: object) -> str:
    return next((words for type, words in _NAMES.items() if is_type(value, type)), "another value")


def one_of(types: Sequence[str]) -> str:
    return " or ".join(_NAMES[type] for type in types)


def is_same(one: Any, other: Any) -> bool:
    """Equality of JSON: 1 is 1.0 and not true."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(is_same(value, other[name]) for name, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(is_same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def shown(value: object) -> str:
    if isinstance(value, str):
        return json.dumps(value[:MAX_SHOWN], ensure_ascii=False) + ("..." if len(value) > MAX_SHOWN else "")
    if isinstance(value, dict | list):
        return type_name(value)
    text = json.dumps(value)
    return text[:MAX_SHOWN]
