"""Merges JSON Schemas into one that holds where all of them hold, and finds what a reference means.

Owns how each keyword is joined. Refuses to know a provider.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Json = dict[str, Any]
ANNOTATIONS = ("title", "description", "default", "example")
MAX_BRANCHES = 64  # of one anyOf, when two are multiplied


def merged(parts: list[Json], lost: Callable[[str], object]) -> Json:
    """One schema that holds where all ``parts`` hold. ``lost`` gets the members that contradict or can't be joined."""
    whole: Json = {}
    for part in parts:
        for name, value in part.items():
            if name not in whole or whole[name] == value:
                whole[name] = value
            elif (joined := _JOIN.get(name, _last)(whole[name], value, lost)) is None:
                lost(name)
            else:
                whole[name] = joined
    return whole


def target(reference: str, root: Any) -> Any:
    """The schema that a reference within the document means, or None."""
    if reference != "#" and not reference.startswith("#/"):
        return None
    value = root
    for step in reference[2:].split("/") if reference != "#" else ():
        name = step.replace("~1", "/").replace("~0", "~")
        value = value.get(name) if isinstance(value, dict) else None
    return value


def listed(types: Any) -> list[str]:
    return types if isinstance(types, list) else [types]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _last(one: Any, other: Any, lost: Any) -> Any:
    return None


def _outer(one: Any, other: Any, lost: Any) -> Any:
    """Words: those nearest to the place where the schema is used."""
    return other


def _common_types(one: Any, other: Any, lost: Any) -> Any:
    here, there = listed(one), listed(other)
    common = [name for name in here if name in there or (name == "integer" and "number" in there)]
    common += [name for name in there if name == "integer" and "number" in here and name not in common]
    return (common[0] if len(common) == 1 else common) if common else None


def _common_values(one: Any, other: Any, lost: Any) -> Any:
    return [value for value in one if value in other] or None if isinstance(one, list) and isinstance(other, list) else None


def _all_names(one: Any, other: Any, lost: Any) -> Any:
    return list(dict.fromkeys([*one, *other])) if isinstance(one, list) and isinstance(other, list) else None


def _all_members(one: Any, other: Any, lost: Any) -> Any:
    if not isinstance(one, dict) or not isinstance(other, dict):
        return None
    both = {name: {"allOf": [one[name], other[name]]} for name in one.keys() & other.keys() if one[name] != other[name]}
    return {**one, **other, **both}


def _both(one: Any, other: Any, lost: Any) -> Any:
    return {"allOf": [one, other]}


def _product(one: Any, other: Any, lost: Any) -> Any:
    """Each branch of one with each of the other."""
    if not isinstance(one, list) or not isinstance(other, list) or len(one) * len(other) > MAX_BRANCHES:
        return None
    return [{"allOf": [here, there]} for here in one for there in other]


def _greatest(one: Any, other: Any, lost: Any) -> Any:
    return max(one, other) if _is_number(one) and _is_number(other) else None


def _least(one: Any, other: Any, lost: Any) -> Any:
    return min(one, other) if _is_number(one) and _is_number(other) else None


def _either_true(one: Any, other: Any, lost: Any) -> Any:
    return bool(one and other)


_JOIN: Mapping[str, Callable[[Any, Any, Any], Any]] = {
    "type": _common_types,
    "enum": _common_values,
    "required": _all_names,
    "properties": _all_members,
    "$defs": _all_members,
    "definitions": _all_members,
    "items": _both,
    "anyOf": _product,
    "nullable": _either_true,
    **dict.fromkeys((*ANNOTATIONS, "$schema", "$id", "$comment"), _outer),
    **dict.fromkeys(("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"), _greatest),
    **dict.fromkeys(("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"), _least),
    "additionalProperties": lambda one, other, lost: False if one is False or other is False else other,
}
