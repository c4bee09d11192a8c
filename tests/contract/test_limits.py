"""Each string that a caller may send has a limit in the schema, or is a text in a closed list."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from bridge_worker.schema.messages import METHODS, NOTIFICATIONS_IN, json_schema

# What a model reads or wrote, a provider's state that must come back whole, and data. No name and no id.
TEXTS = {
    "arguments",  # of a tool call, JSON as the model wrote it
    "content",
    "data",  # of audio and of a redacted thought
    "description",
    "documents[]",
    "file_data",
    "image_url",
    "input",
    "input[]",
    "query",
    "reason",  # of a cancel: never read
    "reasoning_content",
    "refusal",
    "signature",
    "text",
    "thinking",
    "transcript",
    "url",
    "metadata{}",
}


def strings(schema: Any, definitions: Any, name: str, seen: frozenset[str] = frozenset()) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, schema) of each string that a value of ``schema`` can hold."""
    if reference := schema.get("$ref"):
        if reference not in seen:
            yield from strings(definitions[reference.rpartition("/")[2]], definitions, name, seen | {reference})
        return
    for group in ("anyOf", "oneOf", "allOf"):
        for member in schema.get(group, ()):
            yield from strings(member, definitions, name, seen)
    for member, below in schema.get("properties", {}).items():
        yield from strings(below, definitions, member, seen)
    if isinstance(items := schema.get("items"), dict):
        yield from strings(items, definitions, f"{name}[]", seen)
    if isinstance(values := schema.get("additionalProperties"), dict):
        yield from strings(
            schema.get("propertyNames", {"type": "string"}) | {"type": "string"}, definitions, f"{name}{{name}}", seen
        )
        yield from strings(values, definitions, f"{name}{{}}", seen)
    if schema.get("type") == "string" and "enum" not in schema and "const" not in schema:
        yield name, schema


@pytest.mark.rule("BND-3")
def test_each_name_and_each_id_has_a_limit() -> None:
    schema = json_schema()
    definitions = schema["$defs"]
    types = {method.params.__name__ for method in METHODS.values()} | {type.__name__ for type in NOTIFICATIONS_IN.values()}
    unlimited = {
        f"{type}.{name}"
        for type in types
        for name, found in strings(definitions[type], definitions, type)  # type: ignore[index]
        if "maxLength" not in found and name not in TEXTS
    }
    assert not unlimited, "give each a type of schema/base.py with a limit; add to TEXTS only what is no name and no id"


def test_the_walk_sees_the_strings() -> None:
    """A walk of nothing would find nothing."""
    schema = json_schema()
    definitions = schema["$defs"]
    names = {name for name, _ in strings(definitions["ChatParams"], definitions, "ChatParams")}  # type: ignore[index]
    assert {"model", "stop", "stop[]", "tool_call_id", "text", "user", "metadata{name}", "logit_bias{name}"} <= names
    assert TEXTS - names <= {"documents[]", "input", "input[]", "query", "reason"}
