"""Computes the size that a JSON Schema has after its references are inlined, without inlining it.

Owns the limits on a caller's schemas. LiteLLM inlines every ``$ref`` for some providers, and 3 kB of definitions that refer to each
other become 100,000,000 nodes. Refuses to know which provider inlines, and whether a schema means anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

MAX_NODES = 10_000  # of one schema, inlined
MAX_TOTAL_NODES = 20_000  # of all schemas of a request
MAX_DEPTH = 64

_DEFINITIONS = ("$defs", "definitions", "schemas")  # the last: components.schemas of OpenAPI


class SchemaTooLarge(ValueError):
    """The message names the limit."""


class _Size(NamedTuple):
    nodes: int
    depth: int


def nodes_when_inlined(schema: object) -> int:
    """The number of JSON values in ``schema`` after each reference is replaced by its definition.

    A reference within its own definition is not replaced and counts as one value. Raises SchemaTooLarge above `MAX_NODES` or
    `MAX_DEPTH`.
    """
    return _Measurement(_definitions(schema)).measure(schema, 1).nodes


def is_recursive(schema: object, definitions: Mapping[str, object]) -> bool:
    """Whether a definition that ``schema`` refers to refers to itself, be it through others."""
    known = {**_definitions(schema), **{name: [definition] for name, definition in definitions.items()}}
    measurement = _Measurement(known)
    measurement.measure(schema, 1)
    return measurement.found_recursion


def _definitions(schema: object) -> dict[str, list[object]]:
    """Each definition by its name, wherever it is: LiteLLM resolves a reference by the last segment alone."""
    found: dict[str, list[object]] = {}
    seen = 0
    waiting: list[Iterator[object]] = [iter((schema,))]
    while waiting:
        for value in waiting[-1]:
            seen += 1
            if seen > MAX_NODES:
                raise SchemaTooLarge(f"the schema has more than {MAX_NODES:,} nodes, the limit")
            if isinstance(value, dict):
                for name in _DEFINITIONS:
                    if isinstance(members := value.get(name), dict):
                        for key, definition in members.items():
                            found.setdefault(key, []).append(definition)
                waiting.append(iter(value.values()))
                break
            if isinstance(value, list):
                waiting.append(iter(value))
                break
        else:
            waiting.pop()
        if len(waiting) > MAX_DEPTH + 1:
            raise SchemaTooLarge(f"the schema is nested deeper than {MAX_DEPTH} levels, the limit")
    return found


class _Measurement:
    """One pass: the size of a definition is computed once, and added wherever it is referred to."""

    def __init__(self, definitions: Mapping[str, list[object]]) -> None:
        self._definitions = definitions
        self._sizes: dict[str, _Size | None] = {}  # None: it is being measured
        self.found_recursion = False

    def measure(self, value: object, level: int) -> _Size:
        if level > MAX_DEPTH:
            raise SchemaTooLarge(f"the schema is nested deeper than {MAX_DEPTH} levels when its references are inlined, the limit")
        if isinstance(value, dict):
            sizes = [self.measure(member, level + 1) for member in value.values()]
            if isinstance(reference := value.get("$ref"), str):
                sizes.append(self._referred(reference.rpartition("/")[2], level))
        elif isinstance(value, list):
            sizes = [self.measure(member, level + 1) for member in value]
        else:
            return _Size(1, 1)
        size = _Size(1 + sum(size.nodes for size in sizes), 1 + max((size.depth for size in sizes), default=0))
        return _checked(size, level)

    def _referred(self, name: str, level: int) -> _Size:
        if name in self._sizes:
            known = self._sizes[name]
            if known is None:
                self.found_recursion = True
                return _Size(1, 1)
            return _checked(known, level + 1)
        self._sizes[name] = None
        # Of two definitions with one name, in different places, either may be the one that is inlined.
        sizes = [self.measure(definition, level + 1) for definition in self._definitions.get(name, ())]
        size = _Size(max((size.nodes for size in sizes), default=1), max((size.depth for size in sizes), default=1))
        self._sizes[name] = size
        return size


def _checked(size: _Size, level: int) -> _Size:
    if size.nodes > MAX_NODES:
        raise SchemaTooLarge(f"the schema has more than {MAX_NODES:,} nodes when its references are inlined, the limit")
    if size.depth + level - 1 > MAX_DEPTH:
        raise SchemaTooLarge(f"the schema is nested deeper than {MAX_DEPTH} levels when its references are inlined, the limit")
    return size
