"""The size that a JSON Schema has when it is inlined, computed without inlining it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_worker.security.schema_size import MAX_DEPTH, MAX_NODES, SchemaTooLarge, is_recursive, nodes_when_inlined

Json = dict[str, Any]


def inlined(value: Any, definitions: Json, chain: tuple[str, ...] = ()) -> Any:
    """The slow truth: each reference beside its definition."""
    if isinstance(value, list):
        return [inlined(member, definitions, chain) for member in value]
    if not isinstance(value, dict):
        return value
    made = {name: inlined(member, definitions, chain) for name, member in value.items()}
    name = str(value.get("$ref", "")).rpartition("/")[2]
    if name in definitions:
        made["inlined"] = inlined(definitions[name], definitions, (*chain, name))
    return made


def size(value: Any) -> int:
    members = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(size, members))


def level(number: int, width: int) -> Json:
    return {"type": "object", "properties": {f"p{n}": {"$ref": f"#/$defs/L{number + 1}"} for n in range(width)}}


def layered(levels: int, width: int) -> Json:
    definitions = {f"L{number}": level(number, width) for number in range(levels - 1)} | {f"L{levels - 1}": {"type": "string"}}
    return {"$defs": definitions, "$ref": "#/$defs/L0"}


@pytest.mark.rule("BND-1")
@given(levels=st.integers(1, 4), width=st.integers(0, 4))
def test_the_size_is_that_of_the_schema_with_each_definition_inserted(levels: int, width: int) -> None:
    schema = layered(levels, width)
    before = copy.deepcopy(schema)
    assert nodes_when_inlined(schema) == size(inlined(schema, schema["$defs"]))
    assert schema == before


@pytest.mark.rule("BND-1")
@pytest.mark.parametrize("member", ["$defs", "definitions"])
def test_a_schema_that_would_be_a_hundred_million_nodes_is_refused_immediately(member: str) -> None:
    schema = layered(8, 10)
    schema = {member: schema["$defs"], "properties": {"a": {"$ref": f"#/{member}/L0"}}}
    with pytest.raises(SchemaTooLarge, match=f"{MAX_NODES:,} nodes"):
        nodes_when_inlined(schema)


@pytest.mark.rule("BND-1")
def test_a_schema_may_be_as_large_and_as_deep_as_the_limits_and_no_more() -> None:
    assert nodes_when_inlined({"enum": list(range(MAX_NODES - 2))}) == MAX_NODES
    with pytest.raises(SchemaTooLarge):
        nodes_when_inlined({"enum": list(range(MAX_NODES - 1))})
    deep: Any = 1
    for _ in range(MAX_DEPTH - 1):
        deep = [deep]
    nodes_when_inlined(deep)
    with pytest.raises(SchemaTooLarge, match=f"{MAX_DEPTH} levels"):
        nodes_when_inlined([deep])


@pytest.mark.rule("BND-1")
def test_a_chain_of_references_has_a_depth_too() -> None:
    chain = {f"A{number}": {"$ref": f"#/$defs/A{number + 1}"} for number in range(2_000)}
    with pytest.raises(SchemaTooLarge):
        nodes_when_inlined({"$defs": chain, "$ref": "#/$defs/A0"})


@pytest.mark.rule("BND-1", "BND-2")
def test_a_recursive_definition_is_found_and_not_followed_forever() -> None:
    tree = {"$defs": {"T": {"properties": {"child": {"$ref": "#/$defs/T"}}}}, "$ref": "#/$defs/T"}
    assert nodes_when_inlined(tree) < 20
    assert is_recursive(tree, {})
    assert is_recursive({"$ref": "#/$defs/A"}, {"A": {"anyOf": [{"$ref": "#/$defs/B"}]}, "B": {"$ref": "#/$defs/A"}})
    assert not is_recursive(layered(3, 2), {})


@pytest.mark.rule("BND-1")
@pytest.mark.parametrize("schema", [{"$ref": 1}, {"$defs": []}, {"properties": {"$ref": {"type": "string"}}}, [], None, "x"])
def test_a_value_that_is_not_a_schema_is_only_counted(schema: object) -> None:
    assert nodes_when_inlined(schema) == size(schema)
