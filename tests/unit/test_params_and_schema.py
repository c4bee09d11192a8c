"""The wire types: what is let in, what is refused and in what words, and the schema that all of it is published as."""

from __future__ import annotations

import asyncio
import json
import re
import time
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import BaseModel, ValidationError

from bridge_worker.backends.offline.chat import Offline
from bridge_worker.core.accumulator import WireDelta
from bridge_worker.core.chat_runner import run_chat
from bridge_worker.errors import KINDS, BridgeError
from bridge_worker.methods.params import validate, validate_chat
from bridge_worker.protocol.framing import DeltaLines
from bridge_worker.protocol.session import MCP_VERSIONS, PROTOCOL_VERSION, Cancel, ClientInitialized, Drain, Send, Session
from bridge_worker.schema.chat_request import ChatParams
from bridge_worker.schema.lifecycle import CancelledParams, InitializeParams, ShutdownParams
from bridge_worker.schema.messages import METHODS, METHODS_OF_CLIENT, NOTIFICATIONS_IN, NOTIFICATIONS_OUT, json_schema
from bridge_worker.security.refused_params import REFUSED
from tests.support.data import Json
from tests.support.requests import chat_request

quick = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])

USER = {"role": "user", "content": "hi"}
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def chat(**params: Any) -> Json:
    return {"model": "offline/echo", "messages": [USER]} | params


def message(**members: Any) -> Json:
    return chat(messages=[USER | members])


def part(**members: Any) -> Json:
    return chat(messages=[{"role": "user", "content": [{"type": "text", "text": "hi"}, members]}])


def assistant(**members: Any) -> Json:
    return chat(messages=[USER, {"role": "assistant", "content": None, **members}])


def tool(**members: Any) -> Json:
    return {"type": "function", "function": {"name": "f"} | members}


def refusal(params: Json) -> str:
    """The same for a chat, which has a short check for messages that are a text, also with such messages around the wrong one."""
    with pytest.raises(BridgeError) as caught:
        validate(params, ChatParams)
    assert caught.value.kind == "invalid_request"
    assert refusal_of_chat(params) == caught.value.message
    if isinstance(messages := params.get("messages"), list) and messages:
        among_texts = params | {"messages": [USER, USER, *messages, USER]}
        with pytest.raises(BridgeError) as again:
            validate(among_texts, ChatParams)
        assert refusal_of_chat(among_texts) == again.value.message
    return caught.value.message


def refusal_of_chat(params: Json) -> str:
    with pytest.raises(BridgeError) as caught:
        validate_chat(params)
    return caught.value.message


# --- what is let in ----------------------------------------------------------------------------------------------------------

IMAGE = "data:image/png;base64,AAAA"
ACCEPTED: dict[str, Json] = {
    "the least": chat(),
    "every option": chat(
        tools=[
            {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True}}
        ],
        tool_choice="required",
        parallel_tool_calls=False,
        stream=True,
        temperature=0,
        top_p=0.5,
        max_tokens=1,
        max_completion_tokens=1,
        stop=["a", "b"],
        seed=-5,
        response_format={"type": "json_object"},
        reasoning_effort="high",
        thinking={"type": "enabled", "budget_tokens": 1024},
        frequency_penalty=-1.5,
        presence_penalty=1,
        logit_bias={"50256": -100},
        logprobs=True,
        top_logprobs=0,
        user="u",
        metadata={"session": "1"},
        deadlines={"total_ms": 1, "first_token_ms": 1, "idle_ms": 1},
        provider_params={"top_k": 5},
    ),
    "nulls for all that may be left out": chat(**dict.fromkeys(set(ChatParams.model_fields) - {"model", "messages"})),
    "one string to stop at": chat(stop="a"),
    "a tool by name": chat(tool_choice={"type": "function", "function": {"name": "f"}}),
    "a tool without parameters": chat(tools=[{"type": "function", "function": {"name": "f"}}]),
    "a cached tool": chat(tools=[{"type": "function", "function": {"name": "f"}, "cache_control": {"type": "ephemeral"}}]),
    "all roles": chat(
        messages=[
            {"role": "system", "content": "s"},
            {"role": "developer", "content": [{"type": "text", "text": "d", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]},
            {"role": "user", "content": "u", "name": "ann"},
            {"role": "assistant", "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "call_1", "content": "t"},
            {"role": "assistant", "content": "a"},
        ]
    ),
    "an image by URL": part(type="image_url", image_url={"url": "https://example.com/a.png", "detail": "low"}),
    "an image as data": part(type="image_url", image_url=IMAGE),
    "audio": part(type="input_audio", input_audio={"data": "AAAA", "format": "wav"}),
    "a file as data": part(type="file", file={"file_data": "data:application/pdf;base64,AAAA", "filename": "a.pdf"}),
    "a file by id": part(type="file", file={"file_id": "file-abc_123"}),
    "an assistant's refusal": assistant(content=[{"type": "refusal", "refusal": "no"}], refusal="no"),
    "an assistant's state": assistant(
        reasoning_content="hm",
        thinking_blocks=[{"type": "thinking", "thinking": "hm", "signature": "c2ln"}, {"type": "redacted_thinking", "data": "x"}],
        tool_calls=[CALL | {"index": 0, "provider_specific_fields": {"thought_signature": "c2ln", "deep": {"er": [1, None]}}}],
        provider_specific_fields={"any": ["thing", {"at": "all"}]},
    ),
    "thinking as parts": assistant(
        content=[{"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "text", "text": "a"}]
    ),
    "a JSON schema": chat(
        response_format={"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": {"type": "object"}}}
    ),
    "a lone surrogate": message(content="\ud800"),
    "no text": message(content=""),
    "a large whole number for a fraction": chat(temperature=2**60),
}


@pytest.mark.parametrize("params", ACCEPTED.values(), ids=ACCEPTED)
def test_what_fits_is_let_in_by_the_types_and_by_the_schema(params: Json) -> None:
    validate(params, ChatParams)
    validate_chat(params)
    assert not list(validator("ChatParams").iter_errors(params))


@pytest.mark.rule("CHT-9")
def test_validating_changes_nothing() -> None:
    params = ACCEPTED["every option"]
    before = repr(params)
    validate(params, ChatParams)
    assert repr(params) == before


@pytest.mark.rule("CHT-6")
@pytest.mark.parametrize("name", sorted(set(ChatParams.model_fields) - {"model", "messages"}))
def test_an_optional_member_may_be_null(name: str) -> None:
    validate(chat(**{name: None}), ChatParams)


# --- what is refused ---------------------------------------------------------------------------------------------------------

WRONG: list[tuple[Json, str]] = [
    ({"messages": [USER]}, "model"),
    ({"model": "m"}, "messages"),
    (chat(model=""), "model"),
    (chat(model=None), "model"),
    (chat(model=5), "model"),
    (chat(model="https://example.com/v1"), "model"),
    (chat(messages=[]), "messages"),
    (chat(messages=None), "messages"),
    (chat(messages="hi"), "messages"),
    (chat(messages=USER), "messages"),
    (chat(messages=[5]), "messages[0]"),
    (chat(messages=[USER, {}]), "messages[1]"),
    (chat(messages=[{"content": "hi"}]), "messages[0]"),
    (message(role="robot"), "messages[0]"),
    (message(role=None), "messages[0]"),
    (message(content=None), "messages[0].content"),
    (message(content=5), "messages[0].content"),
    (chat(messages=[{"role": "user"}]), "messages[0].content"),
    (chat(messages=[{"role": "tool", "content": "t"}]), "messages[0].tool_call_id"),
    (message(text="hi"), "messages[0].text"),
    (message(tool_calls=[CALL]), "messages[0].tool_calls"),
    (part(), "messages[0].content[1]"),
    (part(type="video"), "messages[0].content[1]"),
    (part(type="text"), "messages[0].content[1].text"),
    (part(type="text", text=5), "messages[0].content[1].text"),
    (part(type="text", text="a", extra=1), "messages[0].content[1].extra"),
    (part(type="text", text="a", cache_control={}), "messages[0].content[1].cache_control.type"),
    (part(type="text", text="a", cache_control={"type": "ephemeral", "extra": 1}), "messages[0].content[1].cache_control.extra"),
    (part(type="refusal", refusal="a", extra=1), "messages[0].content[1].extra"),
    (part(type="thinking", thinking="a", extra=1), "messages[0].content[1].extra"),
    (part(type="image_url", image_url=IMAGE, extra=1), "messages[0].content[1].extra"),
    (part(type="image_url", image_url={}), "messages[0].content[1].image_url.url"),
    (part(type="image_url", image_url={"url": IMAGE, "extra": 1}), "messages[0].content[1].image_url.extra"),
    (part(type="image_url", image_url=5), "messages[0].content[1].image_url"),
    (part(type="input_audio", input_audio={"data": "AAAA"}), "messages[0].content[1].input_audio.format"),
    (part(type="file", file={"path": "a"}), "messages[0].content[1].file.path"),
    (part(type="file", file={"file_id": 5}), "messages[0].content[1].file.file_id"),
    (assistant(tool_calls=CALL), "messages[1].tool_calls"),
    (assistant(tool_calls=[{"id": "a"}]), "messages[1].tool_calls[0].type"),
    (assistant(tool_calls=[CALL | {"function": {"name": "f", "arguments": {}}}]), "messages[1].tool_calls[0].function.arguments"),
    (assistant(tool_calls=[CALL | {"function": {"name": "f"}}]), "messages[1].tool_calls[0].function.arguments"),
    (assistant(tool_calls=[CALL | {"extra": 1}]), "messages[1].tool_calls[0].extra"),
    (assistant(thinking_blocks=[{"type": "thinking", "thinking": "a", "extra": 1}]), "messages[1].thinking_blocks[0].extra"),
    (assistant(provider_specific_fields=[]), "messages[1].provider_specific_fields"),
    (chat(tools={}), "tools"),
    (chat(tools=[{"type": "function"}]), "tools[0].function"),
    (chat(tools=[{"type": "function", "function": {}}]), "tools[0].function.name"),
    (chat(tools=[{"type": "function", "function": {"name": ""}}]), "tools[0].function.name"),
    (chat(tools=[{"type": "function", "function": {"name": "f", "extra": 1}}]), "tools[0].function.extra"),
    (chat(tools=[{"type": "function", "function": {"name": "f", "parameters": "{}"}}]), "tools[0].function.parameters"),
    (chat(tools=[{"type": "web_search", "function": {"name": "f"}}]), "tools[0].type"),
    (chat(tool_choice="any"), "tool_choice"),
    (chat(tool_choice=5), "tool_choice"),
    (chat(tool_choice={"type": "function"}), "tool_choice.function"),
    (chat(tool_choice={"type": "function", "function": {}}), "tool_choice.function.name"),
    (chat(tool_choice={"type": "function", "function": {"name": "f", "extra": 1}}), "tool_choice.function.extra"),
    (chat(stream=1), "stream"),
    (chat(stream="true"), "stream"),
    (chat(temperature="1"), "temperature"),
    (chat(temperature=True), "temperature"),
    (chat(max_tokens=0), "max_tokens"),
    (chat(max_tokens=1.5), "max_tokens"),
    (chat(max_tokens=True), "max_tokens"),
    (chat(top_logprobs=-1), "top_logprobs"),
    (chat(stop=5), "stop"),
    (chat(stop=["a", 5]), "stop[1]"),
    (chat(logit_bias={"5": "x"}), "logit_bias.5"),
    (chat(metadata={"a": 5}), "metadata.a"),
    (chat(response_format="json"), "response_format"),
    (chat(response_format={"type": "xml"}), "response_format.type"),
    (chat(response_format={"type": "json_schema", "json_schema": {"schema": {}}}), "response_format.json_schema.name"),
    (chat(response_format={"type": "json_schema", "json_schema": {"name": "n", "extra": 1}}), "response_format.json_schema.extra"),
    (chat(thinking={"type": "enabled", "budget_tokens": -1}), "thinking.budget_tokens"),
    (chat(thinking={"type": "enabled", "enabled": 1}), "thinking.enabled"),
    (chat(deadlines={"total_ms": 0}), "deadlines.total_ms"),
    (chat(deadlines={"total": 5}), "deadlines.total"),
    (chat(deadlines=5), "deadlines"),
    (chat(provider_params=[]), "provider_params"),
    (chat(extra=1), "extra"),
    (chat(n=2), "n"),
    (chat(timeout=5), "timeout"),
]

# pydantic's words for its own insides; a caller in another language has no use for them.
PYDANTIC = re.compile(r"instance of|discriminator|expected tags|constrained|literal\[|list\[|union|pydantic|Input|dictionary")


@pytest.mark.rule("CHT-1", "CHT-2", "CHT-5")
@pytest.mark.parametrize(("params", "path"), WRONG, ids=lambda value: value if isinstance(value, str) else "")
def test_a_wrong_param_is_named_by_its_path_in_readable_words(params: Json, path: str) -> None:
    message = refusal(params)
    assert message.startswith((f"{path}:", f"{path} ")), message
    assert not PYDANTIC.search(message)
    assert "\n" not in message


@pytest.mark.rule("CHT-2")
def test_several_errors_are_reported_together_and_many_are_counted() -> None:
    assert refusal(chat(a=1, b=2)).count("unknown member") == 2
    message = refusal(chat(a=1, b=2, c=3, d=4, e=5))
    assert message.count("unknown member") == 3
    assert message.endswith("(and 2 more)")


def test_a_message_repeats_no_value() -> None:
    for params in (
        chat(temperature="sk-secret"),
        message(content={"sk": "sk-secret"}),
        part(type="sk-secret"),
        message(role="sk-secret"),
    ):
        assert "sk-secret" not in refusal(params)


def test_params_that_are_nested_too_deeply_are_refused_and_do_no_harm() -> None:
    deep: Any = {}
    for _ in range(5000):
        deep = {"a": [deep]}
    for params in (assistant(provider_specific_fields=deep), chat(provider_params=deep), chat(messages=deep), chat(tools=[deep])):
        assert "nested too deeply" in refusal(params)


@pytest.mark.rule("CHT-7")
@pytest.mark.parametrize(
    "address",
    [
        "http://example.com/a.png",
        "file:///etc/passwd",
        "/etc/passwd",
        "ftp://a",
        "",
        "HTTPS://a",
        " https://a",
        "\nhttps://a",
        "s3://a/b",
    ],
)
def test_an_image_or_file_is_fetched_from_nowhere_but_https(address: str) -> None:
    assert "https" in refusal(part(type="image_url", image_url=address))
    assert "https" in refusal(part(type="image_url", image_url={"url": address}))
    assert "https" in refusal(part(type="file", file={"file_data": address}))
    assert "https" in refusal(part(type="file", file={"file_id": address}))


# Where a half-trusted caller may try to put a name, and where names are data.
HIDING_PLACES = {
    "the params": lambda name: chat(**{name: "x"}),
    "a message": lambda name: message(**{name: "x"}),
    "a content part": lambda name: part(type="text", text="a", **{name: "x"}),
    "an image": lambda name: part(type="image_url", image_url={"url": IMAGE, name: "x"}),
    "a tool call": lambda name: assistant(tool_calls=[CALL | {name: "x"}]),
    "a tool call's function": lambda name: assistant(tool_calls=[CALL | {"function": {"name": "f", "arguments": "{}", name: "x"}}]),
    "a tool call's state": lambda name: assistant(tool_calls=[CALL | {"provider_specific_fields": {name: "x"}}]),
    "a message's state": lambda name: assistant(provider_specific_fields={name: "x"}),
    "a list in a message's state": lambda name: assistant(provider_specific_fields={"a": [1, [{"b": {name: None}}]]}),
    "what a message's state calls parameters": lambda name: assistant(provider_specific_fields={"parameters": {name: "x"}}),
    "what a message's state calls schema": lambda name: assistant(
        provider_specific_fields={"json_schema": {"schema": {name: "x"}}}
    ),
    "what a message's state calls tools": lambda name: assistant(
        provider_specific_fields={"tools": [tool(parameters={name: "x"})]}
    ),
    "what provider_params call tools": lambda name: chat(provider_params={"tools": [tool(parameters={name: "x"})]}),
    "metadata": lambda name: chat(metadata={name: "x"}),
    "provider_params": lambda name: chat(provider_params={name: "x"}),
    "deep in provider_params": lambda name: chat(provider_params={"a": {"input_schema": [{name: "x"}]}}),
    "a response format": lambda name: chat(response_format={"type": "json_schema", name: "x"}),
    "a named schema": lambda name: chat(response_format={"type": "json_schema", "json_schema": {"name": "n", name: "x"}}),
    "a tool": lambda name: chat(tools=[{"type": "function", "function": {"name": "f"}, name: "x"}]),
    "a tool's function": lambda name: chat(tools=[{"type": "function", "function": {"name": "f", name: "x"}}]),
    "a tool's cache_control": lambda name: chat(
        tools=[{"type": "function", "function": {"name": "f"}, "cache_control": {"type": "ephemeral", name: "x"}}]
    ),
    "tool_choice": lambda name: chat(tool_choice={"type": "function", "function": {"name": "f", name: "x"}}),
    "thinking": lambda name: chat(thinking={"type": "enabled", name: "x"}),
    "deadlines": lambda name: chat(deadlines={name: "x"}),
}
DATA_PLACES = {
    "a tool's parameters": lambda name: chat(
        tools=[
            {
                "type": "function",
                "function": {"name": "f", "parameters": {"properties": {name: {"type": "string"}}, "required": [name]}},
            }
        ]
    ),
    "deep in a tool's parameters": lambda name: chat(
        tools=[{"type": "function", "function": {"name": "f", "parameters": {"$defs": {"a": {"properties": {name: {}}}}}}}]
    ),
    "a schema for the answer": lambda name: chat(
        response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": {"properties": {name: {}}}}}
    ),
}


@pytest.mark.rule("CHT-3", "SEC-1")
@pytest.mark.parametrize("place", HIDING_PLACES)
def test_no_refused_name_gets_in_wherever_it_hides(place: str) -> None:
    for name in REFUSED:
        message = refusal(HIDING_PLACES[place](name))
        assert f"{name} is refused" in message or f"{name}: unknown member" in message


@pytest.mark.rule("CHT-4")
@pytest.mark.parametrize("place", DATA_PLACES)
def test_inside_a_json_schema_every_name_is_data(place: str) -> None:
    for name in REFUSED:
        validate(DATA_PLACES[place](name), ChatParams)


@pytest.mark.rule("CHT-3")
def test_the_contracts_examples_of_refused_names_are_refused() -> None:
    assert {"api_base", "base_url", "api_key", "extra_headers", "custom_llm_provider", "fallbacks", "mock_response"} <= REFUSED
    assert {"aws_secret_access_key", "vertex_credentials", "azure_ad_token", "callbacks", "litellm_credential_name"} <= REFUSED


def test_no_param_of_the_contract_is_a_refused_name() -> None:
    definitions = schema()["$defs"]
    of_requests = [definition for type, definition in definitions.items() if not type.startswith("CredentialsGet")]
    names = {name for definition in of_requests for name in definition.get("properties", ())}
    assert names & REFUSED == {"cache"}  # LiteLLM's is an object; the bridge's, "auto", is not sent to it


# --- the schema --------------------------------------------------------------------------------------------------------------


@cache
def schema() -> Any:
    return json_schema()


@cache
def validator(name: str) -> Draft202012Validator:
    """For one of the types in ``$defs``."""
    return Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": schema()["$defs"]})


def at(reference: Json) -> Draft202012Validator:
    return validator(reference["$ref"].removeprefix("#/$defs/"))


@pytest.mark.rule("VER-1")
def test_the_schema_is_valid_json_schema_2020_12() -> None:
    assert schema()["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    Draft202012Validator.check_schema(schema())  # with all that is in $defs


@pytest.mark.rule("VER-1")
def test_the_schema_has_every_method_and_every_notification_and_the_error() -> None:
    assert set(schema()["methods"]) == set(METHODS) >= {"initialize", "ping", "shutdown", "chat"}
    assert set(schema()["methodsOfClient"]) == set(METHODS_OF_CLIENT)
    assert set(schema()["notifications"]["toBridge"]) == set(NOTIFICATIONS_IN)
    assert set(schema()["notifications"]["fromBridge"]) == set(NOTIFICATIONS_OUT)
    pairs = [pair for method in schema()["methods"].values() for pair in (method["params"], method["result"])]
    for reference in [
        *pairs,
        *(one for direction in schema()["notifications"].values() for one in direction.values()),
        schema()["error"],
    ]:
        assert reference["$ref"].removeprefix("#/$defs/") in schema()["$defs"]


def test_no_two_types_of_the_wire_share_a_name() -> None:
    methods = (*METHODS.values(), *METHODS_OF_CLIENT.values())
    types = {type for method in methods for type in method} | {*NOTIFICATIONS_IN.values(), *NOTIFICATIONS_OUT.values()}
    assert len({type.__name__ for type in types}) == len(types)


@pytest.mark.rule("CHT-2")
@pytest.mark.parametrize(("params", "path"), WRONG, ids=lambda value: value if isinstance(value, str) else "")
def test_the_schema_refuses_what_the_types_refuse(params: Json, path: str) -> None:
    if params.get("model") == "https://example.com/v1":
        return  # an address for a name: more than a schema says
    assert list(validator("ChatParams").iter_errors(params))


@pytest.mark.rule("VER-2")
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("model", ["offline/echo", "offline/tools"])
def test_a_real_chats_result_and_deltas_fit_the_schema(model: str, stream: bool) -> None:
    async def main() -> Json:
        async def find(_: str) -> Offline:
            return Offline()

        lines = DeltaLines("a")
        delta = at(schema()["notifications"]["fromBridge"]["notifications/chat/delta"])

        async def emit(wire: list[WireDelta]) -> None:
            for line in lines.encode(wire):
                fits(delta, json.loads(line)["params"])

        parameters = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
        params = chat(model=model, stream=stream, tools=[{"type": "function", "function": {"name": "f", "parameters": parameters}}])
        validate(params, ChatParams)
        return await run_chat(chat_request(params, time.monotonic()), find, emit)

    fits(at(schema()["methods"]["chat"]["result"]), asyncio.run(main()))


def fits(validator: Draft202012Validator, value: object) -> None:
    errors = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]
    assert not errors


@pytest.mark.rule("VER-2")
@pytest.mark.parametrize("kind", KINDS)
def test_an_error_of_each_kind_fits_the_schema(kind: str) -> None:
    partial = {"content": None, "tool_calls": [CALL]}
    for extra in ({}, {"partial": partial}, {"partial": partial, "upstream_closed": False}, {"deadline": "total_ms"}):
        error = BridgeError(kind, "m", 5, "p", "m", 500, dict(extra))
        fits(at(schema()["error"]), {"code": error.code, "message": error.message, "data": error.data()})


ENGINE = {"name": "litellm", "version": None, "ready": False}


@pytest.mark.rule("VER-2", "LIF-3")
@pytest.mark.parametrize("version", [PROTOCOL_VERSION, *MCP_VERSIONS])
def test_the_initialize_result_fits_the_schema(version: str) -> None:
    send = events_of("initialize", {"protocolVersion": version})[0]
    assert isinstance(send, Send)
    assert isinstance(send.value, dict)
    fits(at(schema()["methods"]["initialize"]["result"]), send.value["result"])


# --- the types of the lifecycle, and the checks that session.py makes by hand because it can't wait for pydantic --------------


def events_of(method: str, params: Json) -> list[Any]:
    session = Session(lambda: ENGINE, max_message_bytes=1000)
    return session.receive({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})


def is_valid(type: type[BaseModel], params: Json) -> bool:
    try:
        type.model_validate(params)
    except ValidationError:
        return False
    return True


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


def params(**members: st.SearchStrategy[Any]) -> st.SearchStrategy[Json]:
    """Any of the members, of the right kind or any other, and some that no one knows."""
    wrong_or_right = {name: kind | anything for name, kind in members.items()}
    return st.builds(
        lambda known, unknown: unknown | known,
        st.fixed_dictionaries({}, optional=wrong_or_right),
        st.dictionaries(st.text(max_size=3), anything, max_size=2),
    )


process_ids = st.sampled_from([1, 0, -1, 2**31 - 1, 2**31, True, 1.0])


@pytest.mark.rule("LIF-5", "LIF-6")
@quick
@given(params(protocolVersion=st.sampled_from(["omni-bridge/1", "2025-06-18"]), processId=process_ids, clientInfo=anything))
def test_initialize_is_checked_by_hand_as_its_type_is(params: Json) -> None:
    assert any(isinstance(event, ClientInitialized) for event in events_of("initialize", params)) == is_valid(
        InitializeParams, params
    )


@pytest.mark.rule("LIF-13")
@quick
@given(params(mode=st.sampled_from(["drain", "cancel", "", "Drain"])))
def test_shutdown_is_checked_by_hand_as_its_type_is(params: Json) -> None:
    assert any(isinstance(event, Drain) for event in events_of("shutdown", params)) == is_valid(ShutdownParams, params)


@pytest.mark.rule("CAN-5")
@quick
@given(anything, st.booleans())
def test_a_cancel_is_checked_by_hand_as_its_type_is(id: Any, is_given: bool) -> None:
    """But for ``reason``, which does not matter: a cancel with an odd one still saves money."""
    session = Session(lambda: ENGINE, max_message_bytes=1000)
    for known in [id] if type(id) in (int, str) else [0, 1, "", "1"]:
        session.receive({"jsonrpc": "2.0", "id": known, "method": "chat"})
    params = {"requestId": id} if is_given else {}
    events = session.receive({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params})
    assert (events == [Cancel(id)]) == is_valid(CancelledParams, params)


@pytest.mark.rule("VER-1")
def test_every_reference_in_the_schema_leads_somewhere_and_every_type_is_referred_to() -> None:
    assert set(re.findall(r'"#/\$defs/(\w+)"', json.dumps(schema()))) == schema()["$defs"].keys()
