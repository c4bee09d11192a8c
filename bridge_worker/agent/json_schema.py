"""Checks a JSON value against a caller's JSON Schema, within a number of steps.

Owns the keywords that are checked and the words of a problem. The steps bound the work: a schema and a value of a few kB can
make a validator that tries every alternative run for hours. Refuses to load a reference from elsewhere, and to know where the value
came from.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from bridge_worker.agent.json_types import (
    ITEMS,
    LENGTHS,
    MEMBERS,
    NUMBERS,
    is_multiple,
    is_same,
    is_type,
    one_of,
    out_of_bounds,
    shown,
    type_name,
    types_in,
    types_of,
)

MAX_PROBLEMS = 20  # of one value; the first are enough to correct it
MAX_DEPTH = 100  # levels of the value, and references that lead to references

Path = tuple[str | int, ...]
Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Problem:
    """``kind`` is "schema", "unchecked", or one that the caller adds. ``expected`` are the types that would fit at ``path``."""

    kind: str
    path: Path
    reason: str
    expected: tuple[str, ...] = ()

    def wire(self) -> dict[str, str]:
        return {"kind": self.kind, "path": path_text(self.path), "reason": self.reason}


class Search(Protocol):
    """`agent.patterns.Patterns`: raises an exception with the reason as its message where a pattern can't be searched."""

    def matches(self, pattern: str, text: str) -> bool: ...


class TooMuch(Exception):
    """The check takes more steps than it may."""


def path_text(path: Path) -> str:
    """``items[2].name``; "" for the whole value."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step:.100}" for step in path).removeprefix(".")


class SchemaCheck:
    """One schema. ``steps`` are those of all its checks together; ``search`` None: a pattern raises TooMuch."""

    def __init__(self, schema: object, steps: int, search: Search | None) -> None:
        self._root = schema
        self.steps_left = steps
        self._search = search

    def problems(self, value: object) -> list[Problem]:
        """The first `MAX_PROBLEMS`. Raises TooMuch."""
        found: list[Problem] = []
        for problem in self._check(value, self._root, (), 0):
            found.append(problem)
            if len(found) >= MAX_PROBLEMS:
                break
        return found

    def _spend(self, steps: int) -> None:
        self.steps_left -= steps
        if self.steps_left < 0:
            raise TooMuch

    def _check(self, value: Any, schema: Any, path: Path, depth: int) -> Iterator[Problem]:
        self._spend(1)
        if depth > MAX_DEPTH:
            raise TooMuch
        if schema is False:
            yield Problem("schema", path, "is not allowed here")
        if not isinstance(schema, dict) or (value is None and schema.get("nullable") is True):
            return
        if (types := types_in(schema)) and not any(is_type(value, type) for type in types):
            yield Problem("schema", path, f"must be {one_of(types)}, is {type_name(value)}", types)
            return
        yield from self._check_values(value, schema, path)
        yield from self._check_combined(value, schema, path, depth)
        if isinstance(value, dict):
            yield from self._check_object(value, schema, path, depth)
        elif isinstance(value, list):
            yield from self._check_array(value, schema, path, depth)

    def _fits(self, value: Any, schema: Any, depth: int) -> bool:
        return not any(problem.kind == "schema" for problem in self._check(value, schema, (), depth + 1))

    # --- one value ------------------------------------------------------------------------------------------------------------

    def _check_values(self, value: Any, schema: Schema, path: Path) -> Iterator[Problem]:
        if isinstance(allowed := schema.get("enum"), list):
            self._spend(len(allowed))
            if not any(is_same(value, one) for one in allowed):
                words = ", ".join(shown(one) for one in allowed[:10]) + (", ..." if len(allowed) > 10 else "")
                yield Problem("schema", path, f"must be one of {words}; is {shown(value)}", types_of(allowed))
        if "const" in schema and not is_same(value, schema["const"]):
            yield Problem("schema", path, f"must be {shown(schema['const'])}, is {shown(value)}", types_of([schema["const"]]))
        if isinstance(value, str):
            yield from _reasons(out_of_bounds(len(value), schema, LENGTHS), path)
            yield from self._check_pattern(value, schema, path)
        elif is_type(value, "number"):
            yield from _reasons(out_of_bounds(value, schema, NUMBERS), path)
            divisor: Any = schema.get("multipleOf")
            if is_type(divisor, "number") and divisor > 0 and not is_multiple(value, divisor):
                yield Problem("schema", path, f"must be a multiple of {divisor}, is {shown(value)}")

    def _check_pattern(self, value: str, schema: Schema, path: Path) -> Iterator[Problem]:
        pattern = schema.get("pattern")
        if isinstance(pattern, str):
            fits = self._matches(pattern, value)
            if isinstance(fits, str):
                yield Problem("unchecked", path, f"was not checked against the pattern {pattern:.60}: {fits}")
            elif not fits:
                yield Problem("schema", path, f"must match {pattern:.100}, is {shown(value)}")

    def _matches(self, pattern: str, text: str) -> bool | str:
        """A string is the reason why the pattern was not searched."""
        if self._search is None:
            raise TooMuch
        self._spend(1)
        try:
            return self._search.matches(pattern, text)
        except Exception as error:
            return str(error)[:200]

    # --- combinations ---------------------------------------------------------------------------------------------------------

    def _check_combined(self, value: Any, schema: Schema, path: Path, depth: int) -> Iterator[Problem]:
        if isinstance(reference := schema.get("$ref"), str):
            target = _resolve(self._root, reference)
            if target is None:
                yield Problem("unchecked", path, f"was not checked: the schema has no {reference:.100}")
            else:
                yield from self._check(value, target, path, depth + 1)
        for part in _list(schema, "allOf"):
            yield from self._check(value, part, path, depth + 1)
        if branches := _list(schema, "anyOf"):
            yield from self._check_any(value, branches, path, depth)
        if branches := _list(schema, "oneOf"):
            fitting = sum(self._fits(value, branch, depth) for branch in branches)
            if fitting > 1:
                yield Problem("schema", path, f"fits {fitting} of the schema's alternatives, and must fit one")
            elif not fitting:
                yield from self._check_any(value, branches, path, depth)
        yield from self._check_conditions(value, schema, path, depth)

    def _check_conditions(self, value: Any, schema: Schema, path: Path, depth: int) -> Iterator[Problem]:
        if "not" in schema and self._fits(value, schema["not"], depth):
            yield Problem("schema", path, "has a form that the schema excludes")
        if "if" in schema:
            branch = schema.get("then") if self._fits(value, schema["if"], depth) else schema.get("else")
            if branch is not None:
                yield from self._check(value, branch, path, depth + 1)

    def _check_any(self, value: Any, branches: Sequence[Any], path: Path, depth: int) -> Iterator[Problem]:
        """The problem of the alternative that ``value`` fits furthest: the deepest path."""
        nearest: Problem | None = None
        expected: list[str] = []
        for branch in branches:
            unchecked: list[Problem] = []
            first = None
            for problem in self._check(value, branch, path, depth + 1):
                if problem.kind == "schema":
                    first = problem
                    break
                unchecked.append(problem)
            if first is None:
                yield from unchecked
                return
            if first.path == path:
                expected += first.expected
            if nearest is None or len(first.path) > len(nearest.path):
                nearest = first
        if nearest is not None:
            place = "" if nearest.path == path else f" ({path_text(nearest.path)})"
            reason = f"fits none of the schema's {len(branches)} alternatives; the nearest{place}: {nearest.reason}"
            yield Problem("schema", path, reason, tuple(dict.fromkeys(expected)))

    # --- objects and arrays ---------------------------------------------------------------------------------------------------

    def _check_object(self, value: dict[str, Any], schema: Schema, path: Path, depth: int) -> Iterator[Problem]:
        yield from _reasons(out_of_bounds(len(value), schema, MEMBERS), path)
        for name in _list(schema, "required"):
            self._spend(1)
            if isinstance(name, str) and name not in value:
                yield Problem("schema", (*path, name), "is missing")
        properties, others = _object(schema, "properties"), _object(schema, "patternProperties")
        rest, names = schema.get("additionalProperties", True), schema.get("propertyNames", True)
        for name, member in value.items():
            known = name in properties
            if known:
                yield from self._check(member, properties[name], (*path, name), depth + 1)
            for pattern, part in others.items():
                fits = self._matches(pattern, name)
                known = known or fits is not False
                if fits is True:
                    yield from self._check(member, part, (*path, name), depth + 1)
            if not known and rest is False:
                yield Problem("schema", (*path, name), "is not a member that the schema has")
            elif not known:
                yield from self._check(member, rest, (*path, name), depth + 1)
            if names is not True and not self._fits(name, names, depth):
                yield Problem("schema", (*path, name), "has a name that the schema does not allow")
        yield from self._check_dependencies(value, schema, path, depth)

    def _check_dependencies(self, value: dict[str, Any], schema: Schema, path: Path, depth: int) -> Iterator[Problem]:
        for keyword in ("dependentRequired", "dependentSchemas", "dependencies"):
            for name, needed in _object(schema, keyword).items():
                if name not in value:
                    continue
                if isinstance(needed, list):
                    self._spend(len(needed))
                    missing = [other for other in needed if isinstance(other, str) and other not in value]
                    yield from (Problem("schema", (*path, other), f"is missing, and {name:.60} needs it") for other in missing)
                else:
                    yield from self._check(value, needed, path, depth + 1)

    def _check_array(self, value: list[Any], schema: Schema, path: Path, depth: int) -> Iterator[Problem]:
        yield from _reasons(out_of_bounds(len(value), schema, ITEMS), path)
        items = schema.get("items", True)
        first = items if isinstance(items, list) else _list(schema, "prefixItems")
        rest = schema.get("additionalItems", True) if isinstance(items, list) else items
        for position, item in enumerate(value):
            part = first[position] if position < len(first) else rest
            yield from self._check(item, part, (*path, position), depth + 1)
        if "contains" in schema and not any(self._fits(item, schema["contains"], depth) for item in value):
            yield Problem("schema", path, "has no item of the form that the schema demands")
        if schema.get("uniqueItems") is True:
            self._spend(len(value))
            if len({json.dumps(item, sort_keys=True) for item in value}) < len(value):
                yield Problem("schema", path, "has an item twice")


def _reasons(reasons: Iterable[str], path: Path) -> Iterator[Problem]:
    return (Problem("schema", path, reason) for reason in reasons)


def _list(schema: Schema, name: str) -> list[Any]:
    value = schema.get(name)
    return value if isinstance(value, list) else []


def _object(schema: Schema, name: str) -> dict[str, Any]:
    value = schema.get(name)
    return value if isinstance(value, dict) else {}


def _resolve(root: object, reference: str) -> Any:
    """The part of the schema at a JSON pointer; None where it is not in the same schema."""
    if not reference.startswith("#"):
        return None
    value: Any = root
    for step in reference[1:].split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        else:
            return None
    return value
