"""Schemas for Gemini: each keyword arrives in Gemini's form, or the receipt names it. AI Studio and Vertex AI, in each mode."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge_worker.backends.litellm import gemini_schema, request_forms
from bridge_worker.core.receipt import Change
from bridge_worker.errors import BridgeError
from tests.support import vertex
from tests.support.every_mode import IGNORED_WARNINGS, EveryMode, Provider, bridge, provider, reply
from tests.support.provider_formats import FORMATS, Format
from tests.support.worker import Json

__all__ = ["bridge", "provider"]  # fixtures
pytestmark = IGNORED_WARNINGS

TEXT, WHOLE, FLAG, OBJECT = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}, {"type": "object"}
ANY = {"anyOf": [TEXT, {"type": "number"}, FLAG, OBJECT]}
# A property's schema, what Gemini gets, and the keywords that the receipt names.
CASES: list[tuple[str, Any, Any, set[str]]] = [
    ("a constant text", {"const": "a"}, {"type": "string", "enum": ["a"]}, set()),
    ("a constant number", {"type": "number", "const": 2.5}, {"type": "number", "minimum": 2.5, "maximum": 2.5}, set()),
    ("a constant flag", {"const": True}, FLAG, {"enum"}),
    ("a constant null", {"const": None}, {"type": "string", "nullable": True}, {"type"}),
    ("values with null", {"enum": ["a", None]}, {"type": "string", "enum": ["a"], "nullable": True}, set()),
    ("an empty value", {"type": "string", "enum": ["", "a"]}, {"type": "string", "enum": ["a"]}, {"enum"}),
    ("numbers in a row", {"enum": [1, 2, 3]}, {"type": "integer", "minimum": 1, "maximum": 3}, set()),
    ("numbers with gaps", {"enum": [1, 2, 5]}, {"type": "integer", "minimum": 1, "maximum": 5}, {"enum"}),
    (
        "values of two types",
        {"enum": ["a", 1]},
        {"anyOf": [{"type": "string", "enum": ["a"]}, {"type": "integer", "minimum": 1, "maximum": 1}]},
        set(),
    ),
    ("true", True, ANY, {"type"}),
    ("no constraint", {}, ANY, {"type"}),
    ("oneOf", {"oneOf": [TEXT, WHOLE]}, {"anyOf": [TEXT, WHOLE]}, set()),
    (
        "anyOf with a description",
        {"anyOf": [TEXT, WHOLE], "description": "d"},
        {"anyOf": [{**TEXT, "description": "d"}, {**WHOLE, "description": "d"}]},
        set(),
    ),
    ("one of two and null", {"oneOf": [TEXT, {"type": "null"}], "default": None}, {"type": "string", "nullable": True}, set()),
    ("types in a list", {"type": ["integer", "null"]}, {"type": "integer", "nullable": True}, set()),
    (
        "types in a list with their keywords",
        {"type": ["string", "array"], "minLength": 2, "items": TEXT},
        {"anyOf": [{"type": "string", "minLength": 2}, {"type": "array", "items": TEXT}]},
        set(),
    ),
    (
        "allOf",
        {
            "allOf": [
                {"type": "object", "properties": {"a": TEXT}, "required": ["a"]},
                {"properties": {"b": {"const": "q"}}, "required": ["b"]},
            ]
        },
        {"type": "object", "properties": {"a": TEXT, "b": {"type": "string", "enum": ["q"]}}, "required": ["a", "b"]},
        set(),
    ),
    (
        "allOf that narrows",
        {"type": "integer", "minimum": 1, "allOf": [{"minimum": 3}, {"maximum": 9}]},
        {"type": "integer", "minimum": 3, "maximum": 9},
        set(),
    ),
    ("allOf that contradicts itself", {"allOf": [TEXT, WHOLE]}, TEXT, {"type"}),
    (
        "a condition beside a union",
        {"type": "object", "properties": {"a": TEXT, "b": TEXT}, "oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
        {
            "anyOf": [
                {"type": "object", "properties": {"a": TEXT, "b": TEXT}, "required": ["a"]},
                {"type": "object", "properties": {"a": TEXT, "b": TEXT}, "required": ["b"]},
            ]
        },
        set(),
    ),
    ("a map", {"type": "object", "additionalProperties": WHOLE}, OBJECT, {"additionalProperties"}),
    ("a free object", {"type": "object", "additionalProperties": True}, OBJECT, {"additionalProperties"}),
    (
        "a closed object",
        {"type": "object", "properties": {"a": TEXT}, "additionalProperties": False},
        {"type": "object", "properties": {"a": TEXT}},
        set(),
    ),
    ("names by a pattern", {"type": "object", "patternProperties": {"^x": TEXT}}, OBJECT, {"patternProperties"}),
    (
        "a property that may not be",
        {"type": "object", "properties": {"a": TEXT, "b": False}},
        {"type": "object", "properties": {"a": TEXT}},
        set(),
    ),
    (
        "a property named strict",
        {"type": "object", "properties": {"strict": FLAG}},
        {"type": "object", "properties": {"strict": FLAG}},
        set(),
    ),
    (
        "a property named const",
        {"type": "object", "properties": {"const": FLAG}},
        {"type": "object", "properties": {"const": FLAG}},
        set(),
    ),
    (
        "a name that is required and no property",
        {"type": "object", "properties": {"a": TEXT}, "required": ["a", "z"]},
        {"type": "object", "properties": {"a": TEXT}, "required": ["a"]},
        {"required"},
    ),
    (
        "a tuple",
        {"type": "array", "prefixItems": [TEXT, WHOLE], "minItems": 2, "items": False},
        {"type": "array", "items": {"anyOf": [TEXT, WHOLE]}, "minItems": 2, "maxItems": 2},
        {"prefixItems"},
    ),
    (
        "a tuple as drafts before 2020 have it",
        {"type": "array", "items": [TEXT, WHOLE], "additionalItems": False},
        {"type": "array", "items": {"anyOf": [TEXT, WHOLE]}, "maxItems": 2},
        {"prefixItems"},
    ),
    ("a list of anything", {"type": "array"}, {"type": "array", "items": ANY}, {"items.type"}),
    ("a list without a type", {"items": TEXT}, {"type": "array", "items": TEXT}, set()),
    ("an open bound", {"type": "integer", "exclusiveMinimum": 0}, {"type": "integer", "minimum": 1}, set()),
    (
        "an open bound of a number",
        {"type": "number", "exclusiveMaximum": 1},
        {"type": "number", "maximum": 1},
        {"exclusiveMaximum"},
    ),
    ("a format", {"type": "string", "format": "email"}, TEXT, {"format"}),
    ("a time", {"type": "string", "format": "date-time"}, {"type": "string", "format": "date-time"}, set()),
    ("unique members", {"type": "array", "items": TEXT, "uniqueItems": True}, {"type": "array", "items": TEXT}, {"uniqueItems"}),
    ("not", {"type": "string", "not": {"const": "a"}}, TEXT, {"not"}),
    (
        "if",
        {"type": "object", "properties": {"a": TEXT}, "if": {}, "then": {}},
        {"type": "object", "properties": {"a": TEXT}},
        {"if", "then"},
    ),
    (
        "a reference",
        {"$ref": "#/$defs/Place", "description": "where"},
        {"type": "object", "properties": {"name": TEXT}, "description": "where"},
        set(),
    ),
    (
        "a reference in allOf",
        {"allOf": [{"$ref": "#/$defs/Place"}], "title": "T"},
        {"type": "object", "properties": {"name": TEXT}, "title": "T"},
        set(),
    ),
    ("a reference to nothing", {"$ref": "#/$defs/Nowhere"}, ANY, {"$ref", "type"}),
    ("a text instead of a schema", "string", ANY, {"", "type"}),
]
DEFINITIONS = {"Place": {"type": "object", "properties": {"name": TEXT}}}
GEMINIS: list[Format] = [FORMATS["gemini"], vertex.VertexGemini()]


@pytest.fixture(scope="module", autouse=True)
def vertex_credentials(provider: Provider) -> Iterator[None]:
    with vertex.credentials(provider.origin):
        yield


def with_property(schema: Any) -> Json:
    return {"type": "object", "properties": {"x": schema}, "required": ["x"], "$defs": DEFINITIONS}


def lower(value: Any) -> Any:
    """Types as JSON Schema has them, and no enum of numbers, which only some models get."""
    if isinstance(value, dict):
        made = {name: lower(member) for name, member in value.items()}
        if isinstance(made.get("type"), str):
            made["type"] = made["type"].lower()
        if made.get("type") == "integer":
            made.pop("enum", None)
        return made
    return [lower(member) for member in value] if isinstance(value, list) else value


@pytest.mark.parametrize("wire", GEMINIS, ids=[wire.name for wire in GEMINIS])
def test_each_schema_of_a_tool_arrives_or_is_named(wire: Format, bridge: EveryMode, streamed: bool) -> None:
    """All of them in one request: a tool for each."""
    tools = [
        {"type": "function", "function": {"name": f"tool_{at}", "parameters": with_property(schema)}}
        for at, (_, schema, _, _) in enumerate(CASES)
    ]
    for _ in range(2):  # the second request is prepared by what the first one left
        outcome = bridge.chat(wire, reply(wire, streamed=streamed), streamed=streamed, tools=tools)
        assert not outcome.error, outcome.error
        (declared,) = [tool["function_declarations"] for tool in outcome.sent[0].body["tools"]]
        dropped = [change["param"] for change in outcome.result["receipt"]["dropped"]]
        for at, (name, _, expected, lost) in enumerate(CASES):
            assert lower(declared[at]["parameters"]["properties"]["x"]) == expected, name
            place = f"tools[{at}].function.parameters.properties.x"
            named = {
                param.removeprefix(place).removeprefix(".") for param in dropped if param == place or param.startswith(f"{place}.")
            }
            assert named == lost, name
        assert all(param.startswith("tools[") for param in dropped)


def test_a_union_at_the_root_becomes_one_object() -> None:
    changes: list[Change] = []
    branches = [{"type": "object", "properties": {"a": TEXT, "k": {"const": "1"}}, "required": ["a", "k"]}]
    branches.append({"type": "object", "properties": {"k": {"const": "2"}}, "required": ["k"]})
    made = gemini_schema.parameters({"oneOf": branches}, "p", changes)
    assert made["required"] == ["k"]
    assert made["properties"]["a"] == TEXT
    assert [branch["enum"] for branch in made["properties"]["k"]["anyOf"]] == [["1"], ["2"]]
    assert [change.param for change in changes] == ["p.anyOf"]


@pytest.mark.parametrize("wire", GEMINIS, ids=[wire.name for wire in GEMINIS])
def test_a_response_format_stays_json_schema_where_gemini_reads_that(wire: Format, bridge: EveryMode, streamed: bool) -> None:
    schema = with_property({"allOf": [{"$ref": "#/$defs/Place"}, {"properties": {"kind": {"const": "a"}}}]})
    schema["properties"] |= {
        "where": {"$ref": "#/$defs/Place", "description": "d"},
        "there": {"$ref": "#/$defs/Place"},
        "kind": {"const": "a"},
        "pair": {"type": "array", "prefixItems": [TEXT, WHOLE]},
        "more": {"allOf": [TEXT, {"maxLength": 3}]},
    }
    format = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    outcome = bridge.chat(wire, reply(wire, streamed=streamed), streamed=streamed, response_format=format)
    sent = outcome.sent[0].body["generationConfig"]
    made = sent.get("responseJsonSchema") or sent["response_json_schema"]
    assert made["properties"]["kind"] == {"enum": ["a"]}
    assert made["properties"]["x"]["properties"] == {"name": TEXT, "kind": {"enum": ["a"]}}
    assert made["properties"]["where"] == {"type": "object", "properties": {"name": TEXT}, "description": "d"}
    assert made["properties"]["there"] == {"$ref": "#/$defs/Place"}
    assert made["properties"]["pair"]["prefixItems"] == [TEXT, WHOLE]
    assert made["properties"]["more"] == {"type": "string", "maxLength": 3}
    assert outcome.result["receipt"]["dropped"] == []


def test_a_response_format_is_in_openapis_subset_where_litellm_sends_that(bridge: EveryMode, streamed: bool) -> None:
    class Latest(type(FORMATS["gemini"])):  # type: ignore[misc]  # a class of the table
        name, model = "gemini, newest", "gemini/gemini-flash-latest"

    wire = Latest()
    format = {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": with_property({"oneOf": [{"const": "a"}, WHOLE], "not": {}})},
    }
    outcome = bridge.chat(wire, reply(wire, streamed=streamed), streamed=streamed, response_format=format)
    sent = outcome.sent[0].body["generationConfig"]
    made = lower(sent.get("responseSchema") or sent["response_schema"])
    assert made["properties"]["x"] == {"anyOf": [{"type": "string", "enum": ["a"]}, WHOLE]}
    dropped = {
        change["param"].removeprefix("response_format.json_schema.schema.properties.x.")
        for change in outcome.result["receipt"]["dropped"]
    }
    assert dropped == {"anyOf[0].not", "anyOf[1].not"}


RECURSIVE = [
    {"type": "object", "properties": {"a": {"$ref": "#"}, "b": {"$ref": "#"}}},
    {"$defs": {"N": {"type": "object", "properties": {"n": {"$ref": "#/$defs/N"}}}}, "$ref": "#/$defs/N"},
    {"$ref": "#"},
    {"type": "object", "properties": {"a": {"allOf": [{"$ref": "#/properties/a"}]}}},
]


@pytest.mark.parametrize("schema", RECURSIVE)
def test_a_recursive_schema_is_refused(schema: Json) -> None:
    with pytest.raises(BridgeError, match="recursive"):
        gemini_schema.parameters(schema, "p", [])


def test_unions_within_unions_take_bounded_time() -> None:
    schema: Json = TEXT
    for _ in range(30):
        branches = [{"required": ["a"]}, {"required": ["b"]}]
        schema = {"type": "object", "properties": {"a": schema, "b": TEXT}, "anyOf": branches, "oneOf": branches}
    changes: list[Change] = []
    began = time.process_time()
    made = rewritten(schema, changes)
    assert made is None or (changes and len(json.dumps(made)) < 10_000_000)
    assert time.process_time() - began < 5


def rewritten(schema: Json, changes: list[Change]) -> Json | None:
    """None for a refusal."""
    try:
        request_forms.json_schema(schema)
        return gemini_schema.parameters(schema, "p", changes)
    except BridgeError as error:
        if error.kind != "rejected_by_provider":
            raise
        return None


_KEYWORDS = st.sampled_from(
    """type enum const anyOf oneOf allOf not properties required additionalProperties items prefixItems minItems maxItems minimum
    exclusiveMinimum maximum minLength format nullable description default $ref $defs strict title pattern uniqueItems""".split()
)
_LEAVES: Any = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from(["string", "object", "array", "null", "a", "#", "#/$defs/a", ""])
)
_ANY: Any = st.recursive(
    _LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYWORDS | st.just("a"), inner, max_size=4), max_leaves=15
)
ALLOWED = frozenset(
    """type format title description nullable default items minItems maxItems enum properties required minProperties maxProperties
    minimum maximum minLength maxLength pattern example anyOf""".split()
)


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(_KEYWORDS, _ANY, max_size=5))
def test_any_value_as_a_schema_gives_geminis_form_or_a_refusal(schema: Json) -> None:
    before = json.dumps(schema)
    made = rewritten(schema, [])
    assert json.dumps(schema) == before
    if made is not None:
        _check_form(made)


def _check_form(schema: Any) -> None:
    assert isinstance(schema, dict)
    assert schema.keys() <= ALLOWED
    assert ("anyOf" in schema) != ("type" in schema)
    for member in [
        *schema.get("properties", {}).values(),
        *schema.get("anyOf", ()),
        *([schema["items"]] if "items" in schema else ()),
    ]:
        _check_form(member)
    assert set(schema.get("required", ())) <= set(schema.get("properties", ()))
