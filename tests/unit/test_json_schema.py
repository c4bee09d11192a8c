"""A model's arguments against a tool's schema: the same verdict as a complete validator, and bounded work."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from bridge_worker.agent.json_repair import repair
from bridge_worker.agent.json_schema import SchemaCheck, TooMuch, path_text
from bridge_worker.agent.patterns import Patterns
from tests.support.data import Json

STEPS = 20_000
quick = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def problems(schema: Any, value: Any) -> list[tuple[str, str]]:
    return [(path_text(one.path), one.reason) for one in SchemaCheck(schema, STEPS, Patterns()).problems(value)]


SCALARS = st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from([0.5, 1.0, "", "a", "bb", "ccc"])
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
)
SIZES = st.integers(0, 3)
LEAVES: st.SearchStrategy[Any] = st.booleans() | st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["string", "integer", "number", "boolean", "object", "array", "null", ["string", "null"]]),
        "enum": st.lists(SCALARS, min_size=1, max_size=3),
        "const": SCALARS,
        "minLength": SIZES,
        "maxLength": SIZES,
        "pattern": st.sampled_from(["^a", "b+$", "^(c|b)*$"]),
        "minimum": SIZES,
        "exclusiveMaximum": SIZES,
        "multipleOf": st.sampled_from([1, 2, 0.5]),
        "minItems": SIZES,
        "maxProperties": SIZES,
        "required": st.lists(st.sampled_from("abc"), max_size=2, unique=True),
        "uniqueItems": st.just(False),
    },
)


def _larger(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    some = st.lists(inner, min_size=1, max_size=3)
    members = st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
    return st.fixed_dictionaries(
        {},
        optional={
            "properties": members,
            "patternProperties": st.dictionaries(st.sampled_from(["^a", "b"]), inner, max_size=1),
            "additionalProperties": inner,
            "items": inner,
            "prefixItems": some,
            "contains": inner,
            "anyOf": some,
            "oneOf": some,
            "allOf": some,
            "not": inner,
            "if": inner,
            "then": inner,
            "else": inner,
            "dependentRequired": st.dictionaries(st.sampled_from("abc"), st.lists(st.sampled_from("abc"), max_size=2), max_size=1),
            "propertyNames": inner,
        },
    )


@quick
@given(st.recursive(LEAVES, _larger, max_leaves=6), VALUES)
def test_a_value_has_problems_where_a_complete_validator_finds_some(schema: Any, value: Any) -> None:
    assert bool(problems(schema, value)) is not Draft202012Validator(schema).is_valid(value)


@pytest.mark.parametrize(
    ("schema", "value", "path", "reason"),
    [
        ({"properties": {"days": {"type": "integer"}}}, {"days": "3"}, "days", "must be an integer, is a string"),
        ({"required": ["city"]}, {}, "city", "is missing"),
        ({"additionalProperties": False}, {"x": 1}, "x", "is not a member that the schema has"),
        ({"items": {"properties": {"a": {"enum": ["x", "y"]}}}}, [{"a": "z"}], "[0].a", 'must be one of "x", "y"; is "z"'),
        ({"properties": {"n": {"maximum": 3}}}, {"n": 4}, "n", "must be at most 3, is 4"),
        ({"$ref": "#/$defs/p", "$defs": {"p": {"type": "object"}}}, [], "", "must be an object, is an array"),
        ({"type": "OBJECT"}, 1, "", "must be an object, is an integer"),
        ({"$ref": "https://example.com/x"}, 1, "", "was not checked: the schema has no https://example.com/x"),
    ],
)
def test_a_problem_has_the_path_and_the_reason(schema: Json, value: Any, path: str, reason: str) -> None:
    assert problems(schema, value) == [(path, reason)]


RECURSIVE = {"$defs": {"n": {"anyOf": [{"$ref": "#/$defs/n"}, {"$ref": "#/$defs/n"}]}}, "$ref": "#/$defs/n"}
NESTED_ANY: Json = {"type": "string"}
for _ in range(40):
    NESTED_ANY = {"anyOf": [NESTED_ANY, {"not": NESTED_ANY}], "items": {"oneOf": [{}, {}]}}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (RECURSIVE, 1),
        (NESTED_ANY, 1),
        ({"items": {"enum": list(range(9_000))}}, list(range(-9_000, 0))),
        ({"items": {"type": "integer"}}, [1] * 300_000),
        ({"$ref": "#"}, 1),
    ],
)
def test_a_check_ends_after_its_steps(schema: Json, value: Any) -> None:
    began = time.process_time()
    with suppress(TooMuch):
        SchemaCheck(schema, STEPS, Patterns()).problems(value)
    assert time.process_time() - began < 1


@pytest.mark.parametrize("pattern", [r"^(?!.*foo)(([a-z])+.)+[A-Z]([a-z])+$", "(", "a" * 5_000])
def test_a_pattern_that_cannot_be_searched_is_named_and_bounded(pattern: str) -> None:
    schema = {"items": {"pattern": pattern}}
    began = time.process_time()
    found = SchemaCheck(schema, STEPS, Patterns()).problems(["a" * 50_000] * 20)
    assert {one.kind for one in found} == {"unchecked"}
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    ("text", "was_cut", "repaired"),
    [
        ('```json\n{"code": "```py\\nx\\n```", "n": 1,}\n```', False, {"code": "```py\nx\n```", "n": 1}),
        ('{"a": "x\\ud83d', True, {"a": "x"}),
        ('{"a": "x\\ud83d\\ud', True, {"a": "x"}),
        ('```json\n{"a": 1}\n```', False, {"a": 1}),
        ('Here it is:\n```\n{"a": 1}\n```\nDone.', False, {"a": 1}),
        ('Here it is: {"a": [1, 2,],} Done.', False, {"a": [1, 2]}),
        ('{"a": 1}}', False, {"a": 1}),
        ('{"a": [1, 2,],}', False, {"a": [1, 2]}),
        ('{"a": True, "b": None}', False, {"a": True, "b": None}),
        ('{"a": "x\ny, ]"}', False, {"a": "x\ny, ]"}),
        ('{"a": {"b": [1, 2]', False, {"a": {"b": [1, 2]}}),
        ('{"a": 1, "b": "hel', True, {"a": 1, "b": "hel"}),
        ('{"a": 1, "b": 12', True, {"a": 1}),  # it may have been 123
        ('{"a": 1, "b', True, {"a": 1}),
        ('{"a": "x\\u00', True, {"a": "x"}),
        ('{"a": "x\\\\', True, {"a": "x\\"}),
    ],
)
def test_the_form_of_json_is_repaired(text: str, was_cut: bool, repaired: Any) -> None:
    fixed = repair(text, was_cut=was_cut)
    assert fixed is not None
    assert json.loads(fixed.text) == repaired
    assert fixed.changes


@pytest.mark.parametrize("text", ["", "sunny", "{a: 1}", '{"a": 1, "b": "hel', '{"a": 1}{"b": 2}', '{"a": NaN}', "{'a': 1}"])
def test_what_is_more_than_form_is_not_repaired(text: str) -> None:
    assert repair(text, was_cut=False) is None


@quick
@given(VALUES.filter(lambda value: isinstance(value, dict)), st.integers(0, 200))
def test_json_that_is_cut_anywhere_is_repaired_to_a_part_of_it(value: Any, at: int) -> None:
    text = json.dumps(value)
    cut = text[: 1 + at % len(text)]
    fixed = repair(cut, was_cut=True)
    assert fixed is not None
    assert json.loads(fixed.text).keys() <= value.keys()
