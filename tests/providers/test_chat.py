"""Chats through the real process and real HTTP. What holds for a plain answer holds for a streamed one, by the same assertions."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from bridge_worker.schema.chat_request import OF_THE_BRIDGE, ChatParams
from bridge_worker.schema.chat_result import ChatDelta, ChatResult
from tests.conftest import WorkerFor
from tests.support.data import HELLO, KEY, tool
from tests.support.upstream import DONE, THOUGHTS, USAGE, Gate, Json, Step, Upstream, chunk, reply_text, sse
from tests.support.worker import Worker

REPLY = reply_text("Grüße 🦜")
CITY = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
TOOLS = [tool(name, CITY) for name in ("weather", "news")]
ARGUMENTS = {"city": "Zürich ☃", "days": 7}

Chat = Callable[..., Json]


@pytest.fixture(scope="module")
def worker(upstream: Upstream, worker_for: WorkerFor) -> Worker:
    root = upstream.base_url.removesuffix("/v1")
    anthropic = {"ANTHROPIC_API_KEY": "sk-ant-secret-123", "ANTHROPIC_BASE_URL": root}
    return worker_for(env={"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": upstream.base_url, "OLLAMA_API_BASE": root} | anthropic)


@pytest.fixture
def chat(worker: Worker, streamed: bool) -> Chat:
    """One chat's result, plain or streamed; a streamed one's deltas have been held against it."""

    def chat(model: str, messages: list[Json] = HELLO, **params: Any) -> Json:
        id = worker.request("chat", {"model": model, "messages": messages, "stream": streamed, **params})
        response = worker.response(id)
        assert "result" in response, f"{response}\n{worker.stderr[-2000:]}"
        result: Json = response["result"]
        ChatResult.model_validate(result)
        check_deltas(worker.deltas(id), result, streamed)
        return result

    return chat


def check_deltas(notes: list[Json], result: Json, streamed: bool) -> None:
    """Numbered without a gap, of OpenAI's shape, none of them empty, and joined equal to the result."""
    assert streamed or not notes
    for position, note in enumerate(notes):
        ChatDelta.model_validate(note)
        assert note["seq"] == position
        assert note["delta"]
    if streamed:
        deltas = [note["delta"] for note in notes]
        assert ("".join(delta.get("content", "") for delta in deltas) or None) == result["content"]
        assert ("".join(delta.get("reasoning_content", "") for delta in deltas) or None) == result["reasoning"]
        assert joined_calls(deltas) == result["tool_calls"]


def joined_calls(deltas: list[Json]) -> list[Json]:
    calls: dict[int, Json] = {}
    for piece in (piece for delta in deltas for piece in delta.get("tool_calls", ())):
        if piece["index"] not in calls:
            name = piece["function"]["name"]
            calls[piece["index"]] = {"id": piece["id"], "type": "function", "function": {"name": name, "arguments": ""}}
        else:
            assert "id" not in piece
            assert "name" not in piece["function"]
        calls[piece["index"]]["function"]["arguments"] += piece["function"].get("arguments", "")
    assert list(calls) == list(range(len(calls)))
    return list(calls.values())


def script_message(upstream: Upstream, model: str, message: Json, finish_reason: str = "stop", usage: Json | None = USAGE) -> None:
    """The same answer for a plain request and then for a streamed one; ``message`` is a delta too."""
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish_reason}
    whole = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "answering-model", "choices": [choice]}
    upstream.script(f"{model}-plain", body=whole | ({"usage": usage} if usage else {}))
    chunks: list[Json | Step] = [chunk({"role": "assistant", **message}), chunk({}, finish_reason)]
    if usage:
        chunks.append(chunk({}) | {"choices": [], "usage": usage})
    upstream.script(f"{model}-streamed", chunks=[*chunks, DONE])


def named(model: str, streamed: bool) -> str:
    return f"openai/{model}-{'streamed' if streamed else 'plain'}"


def calls_of(result: Json) -> list[tuple[str, Any]]:
    return [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in result["tool_calls"]]


# ---- text --------------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("RES-1", "RES-3", "STR-1", "STR-2", "STR-3", "STR-5")
def test_a_response_arrives_whole_when_chunks_end_inside_characters(chat: Chat) -> None:
    result = chat("openai/torn")
    assert result["content"] == REPLY
    assert result["message"] == {"role": "assistant", "content": REPLY}
    assert (result["tool_calls"], result["reasoning"], result["finish_reason"], result["logprobs"]) == ([], None, "stop", None)


@pytest.mark.rule("RES-10")
def test_a_response_names_its_provider_and_model(chat: Chat, upstream: Upstream) -> None:
    result = chat("openai/origin")
    assert result["requested_model"] == "openai/origin"
    assert result["model"] == "origin-2026-01-01"
    assert result["provider"] == "openai"
    assert result["id"] == upstream.requests[-1].id


@pytest.mark.rule("RES-11")
def test_a_response_has_its_timing(chat: Chat, streamed: bool) -> None:
    timing = chat("openai/timed")["timing"]
    assert 0 <= timing["queued_ms"] <= timing["total_ms"]
    if streamed:
        assert timing["queued_ms"] <= timing["first_token_ms"] <= timing["total_ms"]
    else:
        assert timing["first_token_ms"] is None


def test_first_token_comes_before_the_end(worker: Worker, upstream: Upstream) -> None:
    gate = Gate()
    upstream.script("held-after-one", chunks=[chunk({"content": "a"}), gate, chunk({"content": "b"}, "stop"), DONE])
    id = worker.request("chat", {"model": "openai/held-after-one", "messages": HELLO, "stream": True})
    worker.wait_for_delta(id)
    gate.wait_reached()
    gate.set()
    timing = worker.response(id)["result"]["timing"]
    assert timing["first_token_ms"] < timing["total_ms"]


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_the_finish_reason_is_reported(chat: Chat, reason: str) -> None:
    assert chat(f"openai/finish-{reason.replace('_', '-')}")["finish_reason"] == reason


@pytest.mark.rule("RES-2")
def test_an_empty_response_is_null(chat: Chat, upstream: Upstream, streamed: bool) -> None:
    script_message(upstream, "empty", {"content": ""})
    result = chat(named("empty", streamed))
    assert (result["content"], result["message"]["content"], result["finish_reason"]) == (None, None, "stop")


def test_reasoning_is_apart_from_the_text(chat: Chat) -> None:
    result = chat("openai/reasoning")
    assert (result["reasoning"], result["content"]) == (THOUGHTS, REPLY)
    assert result["message"]["reasoning_content"] == THOUGHTS
    assert result["usage"]["reasoning_tokens"] == 5


def test_logprobs_are_handed_on(chat: Chat, upstream: Upstream, streamed: bool) -> None:
    token = {
        "token": "hi",
        "bytes": [104, 105],
        "logprob": -0.5,
        "top_logprobs": [{"token": "ho", "bytes": [104, 111], "logprob": -1.0}],
    }
    choice = {"index": 0, "logprobs": {"content": [token]}, "finish_reason": "stop"}
    message = {"role": "assistant", "content": "hi"}
    upstream.script("logprobs-plain", body=chunk({}) | {"object": "chat.completion", "choices": [choice | {"message": message}]})
    upstream.script("logprobs-streamed", chunks=[chunk({}) | {"choices": [choice | {"delta": message}]}, DONE])
    result = chat(named("logprobs", streamed), logprobs=True, top_logprobs=1)
    assert result["logprobs"]["content"] == [token]


@pytest.mark.parametrize("model", ["comments", "crlf", "no-done"])
def test_an_unusual_but_good_stream_is_whole(chat: Chat, model: str) -> None:
    assert chat(f"openai/{model}")["content"] == REPLY


@pytest.mark.parametrize(
    "odd",
    [
        lambda frame: b"event: message\nid: 7\nretry: 10\n" + frame,
        lambda frame: frame.replace(b"data: ", b"data:", 1),
        lambda frame: b"\n\n" + frame,
        lambda frame: b"event: ping\ndata: {}\n\n" + frame,
    ],
    ids=["other fields", "no space", "blank lines", "pings"],
)
def test_server_sent_events_may_have_other_line_ends_and_comments(
    worker: Worker, upstream: Upstream, odd: Callable[[bytes], bytes]
) -> None:
    model = f"odd-{len(upstream.requests)}"
    frames = [sse(chunk({"content": "a"})), sse(chunk({"content": "b"})), sse(chunk({}, "stop")), DONE]
    upstream.script(model, chunks=[odd(frame) for frame in frames])
    assert worker.chat(f"openai/{model}", stream=True)["content"] == "ab"


@pytest.mark.parametrize(
    "text", ["print [DONE] twice: [DONE]", "data: x", '{"error": "none"}', "<|im_end|>", "a\r\nb\n\nc\u2028d", "\x00\x1b[0m"]
)
def test_text_that_looks_like_a_format_is_text(chat: Chat, text: str) -> None:
    assert chat("openai/formats", [{"role": "user", "content": text}])["content"] == reply_text(text)


def test_120_equal_chunks_are_not_an_error(chat: Chat) -> None:
    assert chat("openai/repeat-120")["content"] == "––––– " * 120


def test_a_stream_of_5000_pieces_is_whole(worker: Worker) -> None:
    id = worker.request("chat", {"model": "openai/chunks-5000", "messages": HELLO, "stream": True})
    result = worker.response(id)["result"]
    assert result["content"] == "".join(f"{i} " for i in range(5000))
    check_deltas(worker.deltas(id), result, streamed=True)


def test_a_huge_response_is_whole(chat: Chat) -> None:
    result = chat("openai/huge-16")
    assert len(result["content"]) == 16 << 20
    assert result["content"] == result["message"]["content"]


@pytest.mark.rule("RPC-1", "RPC-12")
def test_many_simultaneous_chats_each_get_their_own_response(worker: Worker) -> None:
    texts = {
        worker.request(
            "chat", {"model": "openai/many", "messages": [{"role": "user", "content": f"I am {i}"}], "stream": i % 2 == 0}
        ): f"I am {i}"
        for i in range(200)
    }
    for id, text in texts.items():
        assert worker.response(id)["result"]["content"] == reply_text(text)


# ---- usage and cost ----------------------------------------------------------------------------------------------------------


def test_usage_is_what_the_provider_reported(chat: Chat) -> None:
    assert chat("openai/used")["usage"] == {
        "input_tokens": 9,
        "output_tokens": 12,
        "total_tokens": 21,
        "cached_input_tokens": 4,
        "cache_write_tokens": None,
        "reasoning_tokens": 0,
    }


@pytest.mark.rule("RES-9")
def test_usage_without_details_leaves_the_details_unknown(chat: Chat, upstream: Upstream, streamed: bool) -> None:
    script_message(
        upstream, "bare-usage", {"content": "hi"}, usage={"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
    )
    usage = chat(named("bare-usage", streamed))["usage"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (9, 2, 11)
    assert (usage["cached_input_tokens"], usage["cache_write_tokens"], usage["reasoning_tokens"]) == (None, None, None)


@pytest.mark.rule("RES-9")
def test_unreported_usage_is_null_and_so_is_the_cost(chat: Chat, upstream: Upstream, streamed: bool) -> None:
    script_message(upstream, "gpt-4o-mini-unused", {"content": "hi"}, usage=None)
    result = chat(named("gpt-4o-mini-unused", streamed))
    assert (result["content"], result["usage"], result["cost_usd"]) == ("hi", None, None)


def test_a_priced_model_costs_what_its_price_list_reports(chat: Chat) -> None:
    cost = 5 * 0.15e-6 + 4 * 0.075e-6 + 12 * 0.6e-6  # a token: input, cached input, output
    assert chat("openai/gpt-4o-mini")["cost_usd"] == pytest.approx(cost)


@pytest.mark.rule("RES-9")
def test_the_cost_of_an_unknown_model_is_null(chat: Chat) -> None:
    assert chat("openai/nobody-knows-its-price")["cost_usd"] is None


USED = chunk({}) | {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}}
FIRST, SECOND, END = chunk({"content": "he"}), chunk({"content": "llo"}), chunk({}, "stop")


@pytest.mark.rule("STR-5", "RES-9")
@pytest.mark.parametrize(
    "events",
    [
        [USED, FIRST, SECOND, END],
        [FIRST, USED, SECOND, END],
        [FIRST, SECOND, USED, END],
        [END, FIRST, SECOND, USED],
        [FIRST, END, SECOND, USED],
    ],
    ids=["usage first", "usage between", "usage before the end", "the end first", "the end between"],
)
def test_events_out_of_their_usual_order_lose_nothing(worker: Worker, upstream: Upstream, events: list[Json]) -> None:
    model = f"reordered-{len(upstream.requests)}"
    upstream.script(model, chunks=[*events, DONE])
    result = worker.chat(f"openai/{model}", stream=True)
    assert (result["content"], result["finish_reason"], result["usage"]["output_tokens"]) == ("hello", "stop", 2)


# ---- tools -------------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("STR-4", "STR-5")
def test_a_tool_call_has_openais_shape(chat: Chat) -> None:
    result = chat("openai/one-call", tools=TOOLS)
    (call,) = result["tool_calls"]
    assert call == {
        "id": "call_up0",
        "type": "function",
        "function": {"name": "weather", "arguments": json.dumps(ARGUMENTS, ensure_ascii=False)},
    }
    assert (result["content"], result["finish_reason"]) == (None, "tool_calls")
    assert result["message"] == {"role": "assistant", "content": None, "tool_calls": [call]}


@pytest.mark.rule("STR-4", "RES-5")
@pytest.mark.parametrize("model", ["tools-parallel", "tools-index-jump"])
def test_parallel_calls_stay_apart(chat: Chat, model: str) -> None:
    result = chat(f"openai/{model}", tools=TOOLS)
    assert calls_of(result) == [("weather", ARGUMENTS), ("news", ARGUMENTS)]
    assert [call["id"] for call in result["tool_calls"]] == ["call_up0", "call_up1"]


def test_a_call_may_come_with_text(chat: Chat) -> None:
    result = chat("openai/tools-with-text", tools=TOOLS)
    assert (result["content"], calls_of(result)) == ("Let me look that up…", [("weather", ARGUMENTS)])
    assert result["message"]["content"] == "Let me look that up…"


@pytest.mark.rule("RES-5")
def test_a_call_without_an_id_gets_one(chat: Chat) -> None:
    ids = {chat("openai/tools-no-id", tools=TOOLS)["tool_calls"][0]["id"] for _ in range(2)}
    assert len(ids) == 2
    assert all(ids)


@pytest.mark.rule("RES-4")
def test_a_call_without_arguments_has_an_empty_object(chat: Chat) -> None:
    assert chat("openai/tools-empty-args", tools=TOOLS)["tool_calls"][0]["function"]["arguments"] == "{}"


@pytest.mark.rule("RES-6")
def test_calls_make_the_finish_reason_tool_calls(chat: Chat, upstream: Upstream, streamed: bool) -> None:
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    script_message(upstream, "stopped-with-a-call", {"content": None, "tool_calls": [call]}, "stop")
    assert chat(named("stopped-with-a-call", streamed), tools=TOOLS)["finish_reason"] == "tool_calls"


def piece(arguments: str, index: int | None = 0, id: str | None = None, name: str | None = None) -> Json:
    """One delta with one piece of a tool call; what is None is left out."""
    function = {"arguments": arguments} | ({"name": name} if name is not None else {})
    rest = {"index": index, "id": id}
    return {"tool_calls": [{"type": "function", "function": function} | {k: v for k, v in rest.items() if v is not None}]}


WEATHER, NEWS = ("weather", {"a": 1}), ("news", {"b": 2})


@pytest.mark.rule("STR-4", "STR-5")
@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([piece("", id="c1", name="weather"), piece('{"a"'), piece(":1}")], [WEATHER]),
        ([piece('{"a":1}', id="c1", name="weather")], [WEATHER]),
        ([piece('{"a"', id="c1", name="weather"), piece(":1}", id="c1")], [WEATHER]),
        ([piece('{"a"', id="c1", name="weather"), piece(":1}", id="", name="")], [WEATHER]),
        ([piece('{"a":1}', id="c1", name="weather"), piece('{"b":2}', id="c2", name="news")], [WEATHER, NEWS]),
        ([piece('{"a":1}', 1, "c1", "weather"), piece('{"b":2}', 2, "c2", "news")], [WEATHER, NEWS]),
        (
            [
                piece("", 0, "c1", "weather"),
                piece("", 1, "c2", "news"),
                piece('{"b":', 1),
                piece('{"a":', 0),
                piece("2}", 1),
                piece("1}", 0),
            ],
            [WEATHER, NEWS],
        ),
        ([piece('{"a":"', id="c1", name="weather"), piece("\\u00e9"), piece('\\ud83e\\udd9c"}')], [("weather", {"a": "é🦜"})]),
    ],
    ids=["usual", "one piece", "id again", "empty id and name", "same index", "from one", "interleaved", "escapes"],
)
def test_odd_pieces_make_whole_calls(
    worker: Worker, upstream: Upstream, pieces: list[Json], expected: list[tuple[str, Any]]
) -> None:
    model = f"pieces-{len(upstream.requests)}"
    upstream.script(model, chunks=[*map(chunk, pieces), chunk({}, "tool_calls"), DONE])
    id = worker.request("chat", {"model": f"openai/{model}", "messages": HELLO, "tools": TOOLS, "stream": True})
    result = worker.response(id)["result"]
    assert calls_of(result) == expected
    check_deltas(worker.deltas(id), result, streamed=True)


def without_nulls(messages: list[Json]) -> list[Json]:
    """LiteLLM leaves them out; to OpenAI that is the same."""
    return [{name: value for name, value in message.items() if value is not None} for message in messages]


@pytest.mark.rule("RES-7")
@pytest.mark.parametrize("model", ["turn", "tools-parallel", "tools-with-text", "tools-no-id", "tools-empty-args"])
def test_an_agents_turn_goes_round(chat: Chat, upstream: Upstream, model: str) -> None:
    """The message is appended as it came, each call gets its result, and the upstream gets all of it unchanged."""
    first = chat(f"openai/{model}", tools=TOOLS)
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "snow – 2 °C ☃"} for call in first["tool_calls"]]
    messages = [*HELLO, first["message"], *results]
    second = chat(f"openai/{model}", messages, tools=TOOLS)
    assert second["content"] == reply_text("snow – 2 °C ☃")
    assert upstream.requests[-1].body["messages"] == without_nulls(messages)
    for call in first["tool_calls"]:  # arguments are text, and stay the same text
        assert json.dumps(call["function"]["arguments"]).encode() in upstream.requests[-1].raw


@pytest.mark.rule("RES-7")
def test_reasoning_can_be_sent_back(chat: Chat, upstream: Upstream) -> None:
    first = chat("openai/reasoning")
    messages = [*HELLO, first["message"], {"role": "user", "content": "And?"}]
    assert chat("openai/reasoning", messages)["content"] == reply_text("And?")
    sent = {name: value for name, value in first["message"].items() if name != "origin"}  # that is for the bridge
    assert upstream.requests[-1].body["messages"] == [messages[0], sent, messages[2]]


# ---- what goes upstream ------------------------------------------------------------------------------------------------------

TOOL_CHOICE = {"type": "function", "function": {"name": "news"}}
SCHEMA = {"type": "object", "properties": {"api_key": {"type": "string"}}, "required": ["api_key"], "additionalProperties": False}
FORMAT = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}}

# name -> (value, the model that takes it, what it needs beside it)
PARAMETERS: dict[str, tuple[Any, str, Json]] = {
    "tools": (TOOLS, "openai/any", {}),
    "tool_choice": (TOOL_CHOICE, "openai/any", {"tools": TOOLS}),
    "parallel_tool_calls": (False, "openai/any", {"tools": TOOLS}),
    "temperature": (0.25, "openai/any", {}),
    "top_p": (0.5, "openai/any", {}),
    "max_tokens": (7, "openai/any", {}),
    "max_completion_tokens": (8, "openai/any", {}),
    "stop": (["END", "\n"], "openai/any", {}),
    "seed": (42, "openai/any", {}),
    "response_format": (FORMAT, "openai/any", {}),
    "reasoning_effort": ("low", "openai/gpt-5-mini", {}),
    "frequency_penalty": (0.5, "openai/any", {}),
    "presence_penalty": (-0.5, "openai/any", {}),
    "logit_bias": ({"50256": -100}, "openai/any", {}),
    "logprobs": (True, "openai/any", {}),
    "top_logprobs": (2, "openai/any", {"logprobs": True}),
    "user": ("u-1", "openai/gpt-4o-mini", {}),  # LiteLLM drops it for an openai model that it does not know
}
NOT_OPENAIS = {"thinking"}  # has a test with Anthropic
KEPT_HERE = {"metadata"} | OF_THE_BRIDGE
OTHERWISE = {"model", "messages", "stream"}


def test_the_table_of_parameters_is_complete() -> None:
    assert PARAMETERS.keys() | NOT_OPENAIS | KEPT_HERE | OTHERWISE == ChatParams.model_fields.keys(), "add it to PARAMETERS here"


@pytest.mark.rule("CHT-9")
@pytest.mark.parametrize("name", PARAMETERS)
def test_a_parameter_reaches_the_provider_unchanged(chat: Chat, upstream: Upstream, name: str) -> None:
    value, model, others = PARAMETERS[name]
    chat(model, **{name: value}, **others)
    assert upstream.requests[-1].body[name] == value


@pytest.mark.rule("CHT-9")
def test_nothing_else_reaches_the_provider(chat: Chat, upstream: Upstream, streamed: bool) -> None:
    chat("openai/bare", deadlines={"total_ms": 60_000}, provider_params={}, metadata={"trace": "t-1"}, temperature=None)
    expected: Json = {"model": "bare", "messages": HELLO}
    assert upstream.requests[-1].body == expected | (
        {"stream": True, "stream_options": {"include_usage": True}} if streamed else {}
    )


@pytest.mark.rule("CHT-9")
def test_messages_of_every_kind_reach_the_provider_unchanged(chat: Chat, upstream: Upstream) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"}}
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{ "a" : 1.0 }'}}
    messages: list[Json] = [
        {"role": "system", "content": "Be brief.\u2028 "},
        {"role": "user", "content": [{"type": "text", "text": 'What is this? \\ " \x00 𝄞'}, image], "name": "someone"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": '{"b":2}'},
        {"role": "assistant", "content": "So it is."},
        {"role": "user", "content": "Sure?"},
    ]
    chat("openai/all-kinds", messages)
    assert upstream.requests[-1].body["messages"] == without_nulls(messages)


@pytest.mark.rule("CHT-10", "SEC-1")
def test_the_key_and_base_url_of_the_environment_are_used(chat: Chat, upstream: Upstream) -> None:
    chat("openai/keyed")
    request = upstream.requests[-1]
    assert (request.path, request.headers["authorization"]) == ("/v1/chat/completions", f"Bearer {KEY}")


def test_openai_is_the_provider_of_a_model_that_litellm_knows_by_its_bare_name(chat: Chat) -> None:
    assert chat("gpt-4o-mini")["provider"] == "openai"


def test_connections_are_kept(worker: Worker, upstream: Upstream) -> None:
    worker.chat("openai/kept")
    before = upstream.connections
    for _ in range(5):
        worker.chat("openai/kept")
    assert upstream.connections <= before


# ---- other providers ---------------------------------------------------------------------------------------------------------

THOUGHT = {"type": "thinking", "thinking": "Hm, let me see.", "signature": "sig=="}


def script_anthropic(upstream: Upstream, model: str) -> None:
    """A thought with its signature, a text, and a tool call; plain, then streamed, as Anthropic sends them."""
    call: Json = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": ARGUMENTS}
    usage = {"input_tokens": 5, "output_tokens": 6, "cache_read_input_tokens": 3, "cache_creation_input_tokens": 2}
    start = {"id": "msg_1", "type": "message", "role": "assistant", "model": model, "stop_sequence": None}
    content = [THOUGHT, {"type": "text", "text": "I’ll look."}, call]
    upstream.script(f"{model}-plain", body=start | {"content": content, "stop_reason": "tool_use", "usage": usage})
    deltas: list[tuple[Json, list[Json]]] = [
        (
            {"type": "thinking", "thinking": ""},
            [
                {"type": "thinking_delta", "thinking": "Hm, "},
                {"type": "thinking_delta", "thinking": "let me see."},
                {"type": "signature_delta", "signature": "sig=="},
            ],
        ),
        ({"type": "text", "text": ""}, [{"type": "text_delta", "text": "I’ll "}, {"type": "text_delta", "text": "look."}]),
        (
            call | {"input": {}},
            [{"type": "input_json_delta", "partial_json": part} for part in ("", '{"city": "Zürich ☃"', ', "days": 7}')],
        ),
    ]
    events: list[Json] = [
        {"type": "message_start", "message": start | {"content": [], "stop_reason": None, "usage": usage | {"output_tokens": 1}}}
    ]
    for index, (block, changes) in enumerate(deltas):
        events.append({"type": "content_block_start", "index": index, "content_block": block})
        events += [{"type": "content_block_delta", "index": index, "delta": change} for change in changes]
        events += [{"type": "content_block_stop", "index": index}, {"type": "ping"}]
    stop = {"stop_reason": "tool_use", "stop_sequence": None}
    events += [{"type": "message_delta", "delta": stop, "usage": {"output_tokens": 6}}, {"type": "message_stop"}]
    upstream.script(f"{model}-streamed", chunks=[b"event: %b\n%b" % (event["type"].encode(), sse(event)) for event in events])


def test_anthropic_is_reached_in_its_own_format(chat: Chat, upstream: Upstream, streamed: bool) -> None:
    script_anthropic(upstream, "claude")
    result = chat(named("claude", streamed).replace("openai", "anthropic"), tools=TOOLS)
    assert (result["content"], result["reasoning"], calls_of(result)) == (
        "I’ll look.",
        THOUGHT["thinking"],
        [("weather", ARGUMENTS)],
    )
    assert (result["finish_reason"], result["provider"]) == ("tool_calls", "anthropic")
    usage = result["usage"]
    assert (usage["input_tokens"], usage["output_tokens"]) == (10, 6)
    assert (usage["cached_input_tokens"], usage["cache_write_tokens"]) == (3, 2)
    request = upstream.requests[-1]
    assert (request.path, request.headers["x-api-key"]) == ("/v1/messages", "sk-ant-secret-123")


@pytest.mark.rule("RES-8")
def test_a_thought_goes_back_with_its_signature(chat: Chat, upstream: Upstream, streamed: bool) -> None:
    script_anthropic(upstream, "claude-sonnet-4-5")
    model = named("claude-sonnet-4-5", streamed).replace("openai", "anthropic")
    first = chat(model, tools=TOOLS, thinking={"type": "enabled", "budget_tokens": 1024}, max_tokens=2048)
    assert upstream.requests[-1].body["thinking"] == {"type": "enabled", "budget_tokens": 1024}
    assert first["message"]["thinking_blocks"] == [THOUGHT]
    tool_message = {"role": "tool", "tool_call_id": first["tool_calls"][0]["id"], "content": "snow"}
    chat(
        model,
        [*HELLO, first["message"], tool_message],
        tools=TOOLS,
        thinking={"type": "enabled", "budget_tokens": 1024},
        max_tokens=2048,
    )
    content = upstream.requests[-1].body["messages"][1]["content"]
    assert content[0] == THOUGHT
    assert {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": ARGUMENTS}.items() <= content[-1].items()


def script_ollama(upstream: Upstream, model: str, before: Gate | None = None) -> None:
    usual = {"model": model, "created_at": "2026-01-01T00:00:00Z", "done": False}
    end = {"done": True, "done_reason": "stop", "prompt_eval_count": 3, "eval_count": 2}
    upstream.script(f"{model}-plain", body=usual | {"message": {"role": "assistant", "content": "Dobrý den"}} | end, before=before)
    parts = [usual | {"message": {"role": "assistant", "content": part}} for part in ("Dobrý", " den")]
    lines = [json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in [*parts, usual | {"message": {"content": ""}} | end]]
    upstream.script(f"{model}-streamed", chunks=lines, before=before, headers={"content-type": "application/x-ndjson"})


def test_ollama_is_reached_in_its_own_format(chat: Chat, upstream: Upstream, streamed: bool) -> None:
    script_ollama(upstream, "small")
    result = chat(named("small", streamed).replace("openai", "ollama_chat"))
    assert (result["content"], result["finish_reason"], result["provider"]) == ("Dobrý den", "stop", "ollama_chat")
    assert (result["usage"]["input_tokens"], result["usage"]["output_tokens"]) == (3, 2)
    (request,) = [request for request in upstream.requests if request.model == named("small", streamed).removeprefix("openai/")]
    assert request.path == "/api/chat"


@pytest.mark.rule("ERR-9")
def test_a_slow_ollama_server_delays_no_other_request(worker: Worker, upstream: Upstream) -> None:
    """LiteLLM asks it about the model again, synchronously, when the answer is there; that must not happen on the loop."""
    reply, information = Gate(), Gate()
    script_ollama(upstream, "slow-to-tell", before=reply)
    id = worker.request("chat", {"model": "ollama_chat/slow-to-tell-plain", "messages": HELLO})
    reply.wait_reached()
    upstream.script("None", before=information, body={})  # /api/show, which has no `model`
    reply.set()
    try:
        assert worker.response(id)["result"]["content"] == "Dobrý den"
        assert worker.call("ping")["result"] == {}
    finally:
        information.set()
