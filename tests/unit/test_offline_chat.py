"""The models without a network: what they say, and that the arguments they make satisfy the schema they were given."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from bridge_worker.backends.offline.chat import NAMES, Offline, example
from bridge_worker.core.accumulator import WireDelta
from bridge_worker.core.chat_runner import run_chat
from bridge_worker.errors import BridgeError
from bridge_worker.methods.params import validate
from bridge_worker.schema.chat_request import ChatParams
from bridge_worker.schema.chat_result import ChatResult
from tests.support.data import Json
from tests.support.requests import chat_request

quick = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])

USER = {"role": "user", "content": "hello there"}
TOOL = {"role": "tool", "tool_call_id": "call_1", "content": "21 degrees"}
CALL = {"role": "assistant", "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}


def tool(name: str = "f", **parameters: Any) -> Json:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", **parameters}}}


def chat(model: str, *messages: Json, **params: Any) -> tuple[ChatResult, list[Json]]:
    """The result and the deltas."""
    body = {"model": model, "messages": list(messages or (USER,)), **params}
    validate(body, ChatParams)
    deltas: list[Json] = []

    async def find(_: str) -> Offline:
        return Offline()

    async def emit(wire: list[WireDelta]) -> None:
        deltas.extend({"content": delta} if isinstance(delta, str) else delta for delta in wire)

    result = asyncio.run(run_chat(chat_request(body, time.monotonic()), find, emit if params.get("stream") else None))
    return ChatResult.model_validate(result), deltas


def refusal(model: str, *messages: Json, **params: Any) -> BridgeError:
    with pytest.raises(BridgeError) as caught:
        chat(model, *messages, **params)
    return caught.value


# --- echo --------------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("OFF-2")
@pytest.mark.parametrize("stream", [True, False])
def test_echo_repeats_the_last_user_message(stream: bool) -> None:
    messages = [
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "a"},
        USER,
        {"role": "assistant", "content": "b"},
    ]
    result, _ = chat("offline/echo", *messages, stream=stream)
    assert (result.content, result.finish_reason, result.tool_calls) == ("hello there", "stop", [])


@pytest.mark.rule("OFF-2")
def test_echo_repeats_the_text_of_parts() -> None:
    parts = [{"type": "text", "text": "hello "}, {"type": "image_url", "image_url": "data:,"}, {"type": "text", "text": "there"}]
    assert chat("offline/echo", {"role": "user", "content": parts})[0].content == "hello there"


@pytest.mark.rule("OFF-2")
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("one", ["one"]),
        ("one two three", ["one", " two", " three"]),
        ("  one\n\ntwo  \n", ["  one", "\n\ntwo  \n"]),
        ("   ", ["   "]),
        ("", []),
    ],
)
def test_echo_streams_word_by_word(text: str, words: list[str]) -> None:
    _, deltas = chat("offline/echo", {"role": "user", "content": text}, stream=True)
    assert deltas == [{"content": word} for word in words]


@quick
@given(st.text())
def test_echo_loses_nothing_of_any_text(text: str) -> None:
    result, deltas = chat("offline/echo", {"role": "user", "content": text}, stream=True)
    assert "".join(delta["content"] for delta in deltas) == text == (result.content or "")


def test_without_a_user_message_echo_reports_it() -> None:
    assert chat("offline/echo", {"role": "system", "content": "s"})[0].content == "There is no user message to repeat."


def test_echo_calls_no_tool() -> None:
    assert chat("offline/echo", tools=[tool()])[0].tool_calls == []


@pytest.mark.rule("OFF-5")
def test_usage_counts_words_and_the_cost_is_0() -> None:
    result, _ = chat("offline/echo", {"role": "system", "content": "be brief"}, USER)
    assert result.usage is not None
    assert (result.usage.input_tokens, result.usage.output_tokens, result.usage.total_tokens) == (4, 2, 6)
    assert result.cost_usd == 0.0
    assert (result.provider, result.model, result.id) == ("offline", "offline/echo", "offline")


@pytest.mark.rule("OFF-6")
@pytest.mark.parametrize("name", ["offline/", "offline/Echo", "offline/echo2", "offline/" + "x" * 1000])
def test_an_unknown_offline_name_is_not_found_and_the_error_lists_the_known_ones(name: str) -> None:
    error = refusal(name)
    assert error.kind == "model_not_found"
    assert all(known in error.message for known in NAMES)
    assert len(error.message) < 300


# --- tools -------------------------------------------------------------------------------------------------------------------


def arguments(text: str, **properties: Any) -> Json:
    """The arguments that offline/tools makes of a user message for a tool whose properties are all required."""
    result, _ = chat(
        "offline/tools", {"role": "user", "content": text}, tools=[tool(properties=properties, required=list(properties))]
    )
    made: Json = json.loads(result.tool_calls[0].function.arguments)
    return made


NUMBER, INTEGER, WORD = {"type": "number"}, {"type": "integer"}, {"type": "string"}


@pytest.mark.rule("OFF-3")
@pytest.mark.parametrize(
    ("text", "properties", "expected"),
    [
        ("What is 6 times 7?", {"left": NUMBER, "right": NUMBER}, {"left": 6, "right": 7}),
        ("What is 17.5 plus -3?", {"left": NUMBER, "right": NUMBER}, {"left": 17.5, "right": -3}),
        ("17.5 days, or 4", {"days": INTEGER}, {"days": 4}),
        ("1,000 or 2000", {"a": INTEGER, "b": INTEGER}, {"a": 1000, "b": 2000}),
        (
            "9 or 5 or 40",
            {"a": {"type": "integer", "minimum": 10}, "b": {"type": "integer", "exclusiveMaximum": 9}},
            {"a": 40, "b": 5},
        ),
        ("5 or 6", {"a": {"type": "integer", "multipleOf": 3}}, {"a": 6}),
        ("model gpt4 v1.2 " + "9" * 5000, {"a": INTEGER}, {"a": 1}),
        ("add 1, 2 and 3", {"all": {"type": "array", "items": NUMBER}}, {"all": [1, 2, 3]}),
        ("add 1, 2 and 3", {"all": {"type": "array", "items": NUMBER, "maxItems": 2}}, {"all": [1, 2]}),
        ("What is the weather in Brno?", {"city": WORD}, {"city": "Brno"}),
        ("weather in brno", {"city": WORD}, {"city": "brno"}),
        ("From Oslo to Bern", {"start": WORD, "end": WORD}, {"start": "Oslo", "end": "Bern"}),
        ("Weather in Bern", {"code": {"type": "string", "maxLength": 2}}, {"code": "in"}),
        ("Weather in Bern", {"date": {"type": "string", "format": "date"}}, {"date": "2026-01-31"}),
        ("Turn it OFF, please", {"state": {"enum": ["on", "off"]}}, {"state": "off"}),
        ("6 - 7", {"operator": {"enum": ["*", "+", "-"]}}, {"operator": "-"}),
        ("nothing of it", {"operator": {"enum": ["*", "+", ""]}}, {"operator": "*"}),
        ("", {"a": INTEGER, "b": WORD}, {"a": 1, "b": "example"}),
    ],
)
def test_arguments_come_from_the_last_user_message(text: str, properties: Json, expected: Json) -> None:
    assert arguments(text, **properties) == expected


@quick
@given(
    st.text(alphabet="0123456789.,- abcÅ", max_size=40),
    st.fixed_dictionaries({}, optional={"minimum": st.integers(-20, 20), "multipleOf": st.sampled_from([1, 2, 3])}),
    st.fixed_dictionaries({}, optional={"minLength": st.integers(0, 9), "maxLength": st.integers(10, 20)}),
)
def test_arguments_from_any_text_satisfy_the_schema(text: str, number: Json, word: Json) -> None:
    properties = {"number": NUMBER | number, "integer": INTEGER | number, "word": WORD | word}
    properties["list"] = {"type": "array", "items": INTEGER | number, "minItems": 2}
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    Draft202012Validator(schema).validate(example(schema, text))


@pytest.mark.rule("OFF-3")
@pytest.mark.parametrize("choice", [None, "auto", "required"])
def test_the_first_tool_is_called(choice: str | None) -> None:
    result, _ = chat(
        "offline/tools", tools=[tool("f", properties={"a": {"type": "integer"}}, required=["a"]), tool("g")], tool_choice=choice
    )
    (made,) = result.tool_calls
    assert (made.function.name, json.loads(made.function.arguments)) == ("f", {"a": 1})
    assert (result.content, result.finish_reason) == (None, "tool_calls")


@pytest.mark.rule("OFF-3")
def test_the_tool_that_is_named_is_called() -> None:
    choice = {"type": "function", "function": {"name": "g"}}
    assert chat("offline/tools", tools=[tool("f"), tool("g")], tool_choice=choice)[0].tool_calls[0].function.name == "g"


@pytest.mark.rule("OFF-4")
@pytest.mark.parametrize("params", [{}, {"tools": []}, {"tools": [tool()], "tool_choice": "none"}])
def test_without_tools_the_result_is_that_of_echo(params: Json) -> None:
    result, _ = chat("offline/tools", **params)
    assert (result.content, result.finish_reason, result.tool_calls) == ("hello there", "stop", [])


def test_a_tool_choice_that_is_not_among_the_tools_is_refused_as_a_provider_would() -> None:
    error = refusal("offline/tools", tools=[tool("f")], tool_choice={"type": "function", "function": {"name": "other"}})
    assert error.kind == "rejected_by_provider"
    assert "other" in error.message


@pytest.mark.rule("OFF-4")
@pytest.mark.parametrize("content", ["21 degrees", [{"type": "text", "text": "21 "}, {"type": "text", "text": "degrees"}]])
def test_the_result_after_a_tools_message_is_its_text(content: Any) -> None:
    result, _ = chat("offline/tools", USER, CALL, TOOL | {"content": content}, tools=[tool()])
    assert (result.content, result.finish_reason, result.tool_calls) == ("21 degrees", "stop", [])


@pytest.mark.rule("OFF-3")
def test_the_result_after_a_later_user_message_is_a_tool_call_again() -> None:
    result, _ = chat("offline/tools", USER, CALL, TOOL, USER, tools=[tool()])
    assert len(result.tool_calls) == 1


@pytest.mark.rule("STR-5", "RES-7")
def test_a_streamed_call_arrives_in_parts_and_its_message_continues_the_conversation() -> None:
    tools = [tool(properties={"city": {"type": "string"}}, required=["city"])]
    result, deltas = chat("offline/tools", tools=tools, stream=True)
    arguments = [piece["function"]["arguments"] for delta in deltas for piece in delta["tool_calls"]]
    assert len(arguments) > 1
    assert "".join(arguments) == result.tool_calls[0].function.arguments
    tool_message = TOOL | {"tool_call_id": result.tool_calls[0].id}
    assert chat("offline/tools", USER, result.message, tool_message, tools=tools)[0].content == "21 degrees"


def test_a_tool_without_parameters_gets_an_empty_object() -> None:
    (made,) = chat("offline/tools", tools=[{"type": "function", "function": {"name": "f"}}])[0].tool_calls
    assert made.function.arguments == "{}"


# --- example -----------------------------------------------------------------------------------------------------------------


def object_of(**properties: Any) -> Json:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


TEXT, WHOLE, NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}

SCHEMAS: dict[str, Any] = {
    "nothing": {},
    "true": True,
    "an object": {"type": "object"},
    "properties without a type": {"properties": {"a": WHOLE}, "required": ["a"]},
    "only what is required": {"type": "object", "properties": {"a": WHOLE, "b": TEXT}, "required": ["b"]},
    "required but not described": {"type": "object", "required": ["a"]},
    "every type": object_of(
        a=TEXT, b=WHOLE, c=NUMBER, d={"type": "boolean"}, e={"type": "null"}, f={"type": "array"}, g={"type": "object"}
    ),
    "types to choose from": object_of(a={"type": ["null", "string"]}, b={"type": ["integer", "null"]}),
    "a property that may be anything": object_of(a=True, b={}),
    "objects in objects": object_of(a=object_of(b=object_of(c=WHOLE))),
    "const": object_of(a={"const": 5}, b={"const": None}, c={"const": False}),
    "enum": object_of(a={"enum": ["x", "y"]}, b=WHOLE | {"enum": [7]}, c={"enum": [None, 1]}),
    "default": object_of(a=TEXT | {"default": "d"}, b={"type": ["string", "null"], "default": None}),
    "examples": object_of(a=TEXT | {"examples": ["e"]}, b=WHOLE | {"examples": []}),
    "lengths": object_of(a=TEXT | {"minLength": 20}, b=TEXT | {"maxLength": 2}, c=TEXT | {"maxLength": 0}),
    "formats": object_of(
        **{name.replace("-", "_"): TEXT | {"format": name} for name in ("date", "date-time", "email", "ipv4", "uuid", "our-own")}
    ),
    "lists": object_of(a={"type": "array", "items": WHOLE, "minItems": 3}, b={"type": "array", "minItems": 1}),
    "lists of lists": object_of(a={"type": "array", "minItems": 1, "items": {"type": "array", "minItems": 1, "items": TEXT}}),
    "unique items": object_of(a={"type": "array", "items": TEXT, "minItems": 1, "uniqueItems": True}),
    "a tuple": object_of(a={"type": "array", "prefixItems": [WHOLE, TEXT], "minItems": 2}),
    "minimum": object_of(a=WHOLE | {"minimum": 5}, b=NUMBER | {"minimum": 0.25}, c=WHOLE | {"minimum": -3.5}),
    "maximum": object_of(a=WHOLE | {"maximum": -5}, b=NUMBER | {"maximum": -0.25}, c=WHOLE | {"maximum": 3.5}),
    "exclusive": object_of(
        a=WHOLE | {"exclusiveMinimum": 5},
        b=NUMBER | {"exclusiveMinimum": 0, "maximum": 1},
        c=WHOLE | {"exclusiveMaximum": 0},
        d=NUMBER | {"exclusiveMinimum": 0, "exclusiveMaximum": 1},
        e=WHOLE | {"exclusiveMinimum": 3, "exclusiveMaximum": 5},
    ),
    "both bounds of a kind": object_of(
        a=WHOLE | {"minimum": 0, "exclusiveMinimum": 5}, b=WHOLE | {"maximum": 9, "exclusiveMaximum": 5}
    ),
    "a narrow range": object_of(a=NUMBER | {"minimum": 0.2, "maximum": 0.3}, b=NUMBER | {"minimum": 1, "maximum": 1}),
    "multiples": object_of(
        a=WHOLE | {"multipleOf": 7},
        b=WHOLE | {"multipleOf": 5, "minimum": 11},
        c=WHOLE | {"multipleOf": 5, "maximum": -1},
        d=NUMBER | {"multipleOf": 0.25, "minimum": 0.3},
    ),
    "large numbers": object_of(a=WHOLE | {"minimum": 2**53 + 1}, b=WHOLE | {"minimum": 10**400}),
    "anyOf": object_of(a={"anyOf": [WHOLE, {"type": "null"}]}, b={"anyOf": [{"type": "null"}, TEXT]}),
    "oneOf": object_of(a={"oneOf": [TEXT | {"minLength": 9}, WHOLE]}),
    "anyOf with what they share": {
        "type": "object",
        "properties": {"k": WHOLE, "l": WHOLE},
        "required": ["k"],
        "anyOf": [{"required": ["l"]}, {"required": ["m"]}],
    },
    "anyOf that refers, with what they share": {
        "type": "object",
        "properties": {"k": WHOLE},
        "required": ["k"],
        "anyOf": [{"$ref": "#/$defs/l"}],
        "$defs": {"l": {"properties": {"l": WHOLE}, "required": ["l"]}},
    },
    "allOf": {
        "allOf": [{"properties": {"a": WHOLE}, "required": ["a"]}, {"$ref": "#/$defs/b"}],
        "$defs": {"b": {"type": "object", "properties": {"b": WHOLE}, "required": ["b"]}},
    },
    "references": object_of(a={"$ref": "#/$defs/x"}, b={"$ref": "#/definitions/y"})
    | {"$defs": {"x": WHOLE}, "definitions": {"y": {"enum": [3]}}},
    "a reference with odd characters": object_of(a={"$ref": "#/$defs/x~1y~0z"}) | {"$defs": {"x/y~z": WHOLE}},
    "a reference and what stands beside it": object_of(a={"$ref": "#/$defs/x", "required": ["c"]})
    | {"$defs": {"x": {"type": "object", "properties": {"b": WHOLE}, "required": ["b"]}}},
    "a whole schema that refers": {"$ref": "#/$defs/x", "$defs": {"x": object_of(a=WHOLE)}},
    "a tree that may end": {
        "$ref": "#/$defs/tree",
        "$defs": {"tree": {"type": "object", "properties": {"v": WHOLE, "next": {"$ref": "#/$defs/tree"}}, "required": ["v"]}},
    },
    "names that are keywords": object_of(type=WHOLE, properties=TEXT, **{"$ref": {"type": "boolean"}}),
}


def check(schema: Any) -> None:
    Draft202012Validator.check_schema(schema)
    value = json.loads(json.dumps(example(schema)))
    errors = [f"{error.json_path}: {error.message}" for error in Draft202012Validator(schema).iter_errors(value)]
    assert not errors, value


@pytest.mark.rule("OFF-3")
@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_an_example_satisfies_its_schema(schema: Any) -> None:
    check(schema)


def within(draw: st.DrawFn, low: str, high: str, numbers: st.SearchStrategy[float]) -> Json:
    """Bounds that leave room."""
    bounds = sorted(draw(st.lists(numbers, min_size=2, max_size=2)))
    return {name: bound for name, bound in zip((low, high), bounds, strict=True) if draw(st.booleans())}


@st.composite
def leaves(draw: st.DrawFn) -> Json:
    match draw(st.sampled_from(["string", "integer", "number", "boolean", "null", "const", "enum", "default"])):
        case "string":
            return {"type": "string"} | within(draw, "minLength", "maxLength", st.integers(0, 20))
        case "integer":
            return {"type": "integer"} | within(draw, "minimum", "maximum", st.integers(-(10**6), 10**6))
        case "number":
            fractions = st.floats(-1000, 1000, allow_nan=False)
            return {"type": "number"} | within(draw, "minimum", "maximum", fractions)
        case "const":
            return {"const": draw(st.none() | st.booleans() | st.integers() | st.text(max_size=3))}
        case "enum":
            return {"enum": draw(st.lists(st.none() | st.integers() | st.text(max_size=3), min_size=1, max_size=3, unique_by=repr))}
        case "default":
            return {"type": "string", "default": draw(st.text(max_size=3))}
        case kind:
            return {"type": kind}


def objects(inner: st.SearchStrategy[Json]) -> st.SearchStrategy[Json]:
    def build(properties: dict[str, Json], optional: set[str]) -> Json:
        return {"type": "object", "properties": properties, "required": [name for name in properties if name not in optional]}

    names = st.sampled_from(["a", "b", "type", "items", "$ref", "required"])
    return st.builds(build, st.dictionaries(names, inner, max_size=3), st.sets(names, max_size=2))


def composites(inner: st.SearchStrategy[Json]) -> st.SearchStrategy[Json]:
    return st.one_of(
        objects(inner),
        st.builds(lambda items, least: {"type": "array", "items": items, "minItems": least}, inner, st.integers(0, 3)),
        st.builds(lambda choices: {"anyOf": choices}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda one: {"allOf": [one]}, inner),
        st.builds(lambda kinds: {"type": kinds}, st.lists(st.sampled_from(["string", "integer", "null"]), min_size=1, unique=True)),
    )


@pytest.mark.rule("OFF-3")
@quick
@given(objects(st.recursive(leaves(), composites, max_leaves=8)))
def test_an_example_satisfies_any_schema_of_the_supported_kind(schema: Json) -> None:
    check(schema)


ABSURD: dict[str, Json] = {
    "an endless chain": {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
    "an endless tree": {"type": "object", "properties": {name: {"$ref": "#"} for name in "abcdefgh"}, "required": list("abcdefgh")},
    "a reference to itself": {"$ref": "#"},
    "a reference to nowhere": {"$ref": "#/$defs/none"},
    "a reference to elsewhere": {"$ref": "https://example.com/schema"},
    "required is no list": {"type": "object", "required": 5},
    "properties is no object": {"type": "object", "properties": [1], "required": ["a"]},
    "a bound that is text": {"type": "object", "properties": {"a": {"type": "integer", "minimum": "5"}}, "required": ["a"]},
    "a type that there is not": {"type": "colour"},
    "a type that is no text": {"type": 5},
    "no type at all": {"type": []},
    "anyOf is no list": {"anyOf": 5},
    "allOf of no schema": {"allOf": [5]},
    "multiples of nothing": object_of(a=NUMBER | {"multipleOf": 0, "minimum": 1}),
    "a very long list": object_of(a={"type": "array", "minItems": 10**12}),
    "a very long text": object_of(a=TEXT | {"minLength": 10**13}),
}


@pytest.mark.parametrize("schema", ABSURD.values(), ids=ABSURD)
def test_an_absurd_schema_costs_no_more_than_an_error(schema: Json) -> None:
    try:
        (made,) = chat("offline/tools", tools=[{"type": "function", "function": {"name": "f", "parameters": schema}}])[0].tool_calls
    except BridgeError as error:
        outcome = error.kind
    else:
        outcome = "small" if len(made.function.arguments) < 1_000_000 else "large"
    assert outcome in ("small", "rejected_by_provider")
