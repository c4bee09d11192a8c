"""Holds the upstream stand-in to OpenAI's format, with OpenAI's own SDK, and to the faults it promises, with bare sockets."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from tests.support.data import HELLO, tool
from tests.support.upstream import BEHAVIOURS, DONE, ERRORS, THOUGHTS, USAGE, End, Gate, Upstream, chunk, reply_text

CITY = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
TOOLS: list[Any] = [tool(name, CITY) for name in ("weather", "news")]
ARGUMENTS = {"city": "Zürich ☃", "days": 7}


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as started:
        yield started


@pytest.fixture
def client(upstream: Upstream) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=upstream.base_url, api_key="sk-test", max_retries=0, timeout=10) as made:
        yield made


def create(client: openai.OpenAI, model: str, **params: Any) -> Any:
    return client.chat.completions.create(**{"model": model, "messages": HELLO, **params})


def content_of(chunks: Any) -> str:
    return "".join(one.choices[0].delta.content or "" for one in chunks if one.choices)


def calls_of(chunks: Any) -> dict[int, list[str]]:
    """A stream's tool calls by index: [id, name, joined arguments]."""
    calls: dict[int, list[str]] = {}
    for piece in (piece for one in chunks if one.choices for piece in one.choices[0].delta.tool_calls or ()):
        if piece.index not in calls:
            calls[piece.index] = [piece.id, piece.function.name, ""]
        calls[piece.index][2] += piece.function.arguments
    return calls


def raw_chat(upstream: Upstream, model: str, **body: Any) -> socket.socket:
    """A connection on which a chat was requested; the test reads the response, byte by byte where it wants."""
    data = json.dumps({"model": model, "messages": HELLO, **body}).encode()
    connection = socket.create_connection(("127.0.0.1", int(upstream.base_url.split(":")[2].split("/")[0])), timeout=10)
    start = b"POST /v1/chat/completions HTTP/1.1\r\nhost: up\r\nauthorization: Bearer sk-test\r\nconnection: close\r\n"
    connection.sendall(start + b"content-length: %d\r\n\r\n" % len(data) + data)
    return connection


def read_all(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(1 << 16), b""))


# ---- the format --------------------------------------------------------------------------------------------------------------


def test_a_plain_response_has_openais_shape(upstream: Upstream, client: openai.OpenAI) -> None:
    completion = create(client, "gpt-test")
    assert completion.choices[0].message.content == reply_text("Grüße 🦜")
    assert (completion.object, completion.model, completion.choices[0].finish_reason) == (
        "chat.completion",
        "gpt-test-2026-01-01",
        "stop",
    )
    assert completion.usage.to_dict() == USAGE
    request = upstream.wait_for_request(model="gpt-test")
    assert (request.path, request.headers["authorization"]) == ("/v1/chat/completions", "Bearer sk-test")
    assert request.body["messages"] == HELLO


def test_a_stream_goes_from_role_to_finish_reason_to_usage(client: openai.OpenAI) -> None:
    chunks = list(create(client, "gpt-test", stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert content_of(chunks) == reply_text("Grüße 🦜")
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 2) + ["stop"]
    assert (chunks[-1].choices, chunks[-1].usage.total_tokens) == ([], 21)
    assert len({chunk.id for chunk in chunks}) == 1
    assert create(client, "gpt-test").id not in {chunk.id for chunk in chunks}


def test_without_include_usage_a_stream_has_none(client: openai.OpenAI) -> None:
    assert {chunk.usage for chunk in create(client, "gpt-test", stream=True)} == {None}


def test_an_ordinary_stream_is_written_in_pieces_that_end_inside_a_character(upstream: Upstream) -> None:
    with raw_chat(upstream, "gpt-test", stream=True) as connection:
        pieces = list(iter(lambda: connection.recv(1 << 16), b""))
    whole = b"".join(pieces)
    assert whole.count(b"data: ") == whole.count(b"\n\n")
    assert whole.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    assert any(piece[-1] >= 0xC2 for piece in pieces)


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_is_called_and_its_result_gets_a_response(client: openai.OpenAI, stream: bool) -> None:
    first = create(client, "gpt-test", tools=TOOLS, stream=stream)
    if stream:
        (id_, name, arguments) = calls_of(first)[0]
    else:
        call = first.choices[0].message.tool_calls[0]
        assert (first.choices[0].finish_reason, first.choices[0].message.content) == ("tool_calls", None)
        (id_, name, arguments) = (call.id, call.function.name, call.function.arguments)
    assert (name, json.loads(arguments)) == ("weather", ARGUMENTS)
    assistant = {
        "role": "assistant",
        "tool_calls": [{"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}],
    }
    again = create(
        client, "gpt-test", tools=TOOLS, messages=[*HELLO, assistant, {"role": "tool", "tool_call_id": id_, "content": "snow"}]
    )
    assert again.choices[0].message.content == reply_text("snow")


def test_parallel_calls_are_interleaved_in_small_pieces(client: openai.OpenAI) -> None:
    chunks = list(create(client, "tools-parallel", tools=TOOLS, stream=True))
    assert {call[1]: json.loads(call[2]) for call in calls_of(chunks).values()} == {"weather": ARGUMENTS, "news": ARGUMENTS}
    order = [chunk.choices[0].delta.tool_calls[0].index for chunk in chunks if chunk.choices[0].delta.tool_calls]
    assert order[2:6] == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("tools-bad-json", {0: ["call_up0", "weather", '{"city": "Zür']}),
        ("tools-empty-args", {0: ["call_up0", "weather", ""]}),
        ("tools-no-id", {0: [None, "weather", json.dumps(ARGUMENTS, ensure_ascii=False)]}),
        ("tools-index-jump", {i: [f"call_up{n}", TOOLS[n]["function"]["name"], json.dumps(ARGUMENTS, ensure_ascii=False)]
                              for n, i in enumerate((0, 5))}),
    ],
)  # fmt: skip
def test_calls_can_be_odd(client: openai.OpenAI, model: str, expected: dict[int, list[str]]) -> None:
    assert calls_of(create(client, model, tools=TOOLS, stream=True)) == expected


def test_reasoning_is_separate_from_the_text(client: openai.OpenAI) -> None:
    completion = create(client, "reasoning")
    assert completion.choices[0].message.reasoning_content == THOUGHTS
    assert completion.usage.completion_tokens_details.reasoning_tokens == 5
    chunks = list(create(client, "reasoning", stream=True))
    assert "".join(getattr(chunk.choices[0].delta, "reasoning_content", None) or "" for chunk in chunks) == THOUGHTS
    assert content_of(chunks) == completion.choices[0].message.content


@pytest.mark.parametrize("model", ["comments", "crlf", "no-done", "slow-1ms"])
def test_unusual_but_good_streams_are_whole(client: openai.OpenAI, model: str) -> None:
    assert content_of(create(client, model, stream=True)) == reply_text("Grüße 🦜")


def test_a_stream_has_as_many_chunks_as_the_name_specifies(client: openai.OpenAI) -> None:
    assert sum(bool(content_of([chunk])) for chunk in create(client, "chunks-700", stream=True)) == 700
    assert [text for chunk in create(client, "repeat-120", stream=True) if (text := content_of([chunk]))] == ["––––– "] * 120


def test_what_openai_would_refuse_is_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="must answer a preceding message"):
        create(client, "gpt-test", messages=[{"role": "tool", "tool_call_id": "call_9", "content": "snow"}])


# ---- faults ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [*ERRORS, 500, 502, 503, 504])
def test_a_status_comes_with_openais_error_object(client: openai.OpenAI, status: int) -> None:
    with pytest.raises(openai.APIStatusError) as raised:
        create(client, f"status-{status}")
    assert raised.value.status_code == status
    assert isinstance(raised.value.body, dict)
    assert raised.value.body.keys() == {"message", "type", "param", "code"}
    assert ("sk-test" in raised.value.message) == (status == 401)


@pytest.mark.parametrize(
    ("model", "header", "value"), [("retry-after-7", "retry-after", "7"), ("retry-after-ms-1500", "retry-after-ms", "1500")]
)
def test_a_429_carries_its_advice(client: openai.OpenAI, model: str, header: str, value: str) -> None:
    with pytest.raises(openai.RateLimitError) as raised:
        create(client, model)
    assert raised.value.response.headers[header] == value


@pytest.mark.parametrize(
    ("model", "code"), [("context-length", "context_length_exceeded"), ("content-policy", "content_policy_violation")]
)
def test_a_400_names_its_code(client: openai.OpenAI, model: str, code: str) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        create(client, model)
    assert raised.value.code == code


def test_a_flaky_model_works_after_its_failures(client: openai.OpenAI) -> None:
    for _ in range(2):
        with pytest.raises(openai.InternalServerError):
            create(client, "flaky-2")
    assert create(client, "flaky-2").choices[0].finish_reason == "stop"


@pytest.mark.parametrize("model", ["reset", "close", "too-short"])
def test_a_connection_can_break_before_or_in_a_plain_reply(client: openai.OpenAI, model: str) -> None:
    with pytest.raises(openai.APIConnectionError):
        create(client, model)


def test_a_refused_connection(upstream: Upstream) -> None:
    refused = openai.OpenAI(base_url=upstream.refused_url, api_key="sk-test", max_retries=0)
    with refused as client, pytest.raises(openai.APIConnectionError) as raised:
        create(client, "gpt-test")
    assert "refused" in str(raised.value.__cause__)


@pytest.mark.parametrize(("model", "ending"), [("reset-after-2", ConnectionResetError), ("cut-2", None)])
def test_a_stream_breaks_after_n_pieces(upstream: Upstream, model: str, ending: type[Exception] | None) -> None:
    received = b""
    with raw_chat(upstream, model, stream=True) as connection:
        while received.count(b"\n\n") < 3:  # role and two pieces
            received += connection.recv(1 << 16)
        if ending:
            with pytest.raises(ending):
                read_all(connection)
        else:
            assert read_all(connection) == b""
    assert received.count(b"data: ") == 3
    assert not received.endswith(b"0\r\n\r\n")
    assert not upstream.wait_for_request(model=model).closed_by_client.is_set()


def test_a_truncated_stream_ends_well_but_without_a_finish_reason(client: openai.OpenAI) -> None:
    chunks = list(create(client, "truncated-2", stream=True))
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * 3


def test_a_stream_can_carry_an_error_or_half_a_chunk(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIError, match="had an error"):
        list(create(client, "stream-error-1", stream=True))
    with pytest.raises(json.JSONDecodeError):
        list(create(client, "bad-chunk-1", stream=True))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", sorted(BEHAVIOURS.keys() - {"hang", "hang-after", "hang-after-headers", "endless", "huge"}))
def test_every_name_of_the_table_comes_to_an_end(upstream: Upstream, model: str, stream: bool) -> None:
    with raw_chat(upstream, model, stream=stream, tools=TOOLS if model.startswith("tools") else None) as connection:
        if "reset" in model:
            with pytest.raises(ConnectionResetError):
                read_all(connection)
        else:
            assert read_all(connection).startswith(b"HTTP/1.1 ") == (model != "close")
    assert not upstream.wait_for_request(model=model).closed_by_client.is_set()


def test_a_huge_body_is_as_big_as_the_name_specifies(client: openai.OpenAI) -> None:
    assert len(create(client, "huge-50").choices[0].message.content) == 50 << 20


# ---- what is observed --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["hang", "hang-after-1", "hang-after-headers", "endless"])
def test_a_client_that_closes_is_noticed_while_the_reply_is_held(upstream: Upstream, model: str) -> None:
    with raw_chat(upstream, model, stream=True) as connection:
        request = upstream.wait_for_request(model=model)
        assert model == "hang" or connection.recv(1)
        assert not request.closed_by_client.is_set()
        assert upstream.connections == 1
    assert request.wait_closed() >= request.received_at
    assert not request.replied.is_set()
    upstream.wait_until(lambda: upstream.connections == 0)


def test_a_client_that_closes_after_the_reply_has_closed_nothing_early(upstream: Upstream, client: openai.OpenAI) -> None:
    create(client, "gpt-test")
    client.close()
    upstream.wait_until(lambda: upstream.connections == 0)
    request = upstream.wait_for_request()
    assert request.replied.is_set()
    assert not request.closed_by_client.is_set()
    with pytest.raises(TimeoutError, match="gpt-test"):
        request.wait_closed(timeout=0)


def test_a_slow_reader_stalls_the_reply(upstream: Upstream) -> None:
    with raw_chat(upstream, "endless", stream=True) as connection:
        request = upstream.wait_for_request()
        assert request.stalled.wait(10)
        sent = request.sent
        while request.sent == sent:
            assert connection.recv(1 << 20)


def test_a_connection_is_kept_for_the_next_request(upstream: Upstream, client: openai.OpenAI) -> None:
    for model in ("gpt-test", "status-429", "gpt-test"):
        with contextlib.suppress(openai.RateLimitError):
            create(client, model)
    assert (upstream.connections, upstream.counts) == (1, {"gpt-test": 2, "status-429": 1})
    assert [request.nth for request in upstream.requests] == [1, 1, 2]


# ---- scripts -----------------------------------------------------------------------------------------------------------------


def test_scripted_replies_are_given_in_turn_and_the_last_for_good(upstream: Upstream, client: openai.OpenAI) -> None:
    upstream.script("mine", body={"error": {"message": "no"}}, status=418, headers={"x-mine": "yes"})
    upstream.script("mine", chunks=[chunk({"content": "a"}), b": comment\n\n", chunk({"content": "b"}, "stop"), DONE])
    with pytest.raises(openai.APIStatusError) as raised:
        create(client, "mine")
    assert (raised.value.status_code, raised.value.response.headers["x-mine"]) == (418, "yes")
    assert [content_of(create(client, "mine", stream=True)) for _ in range(2)] == ["ab", "ab"]


def test_a_gate_holds_a_reply_at_its_position(upstream: Upstream, client: openai.OpenAI) -> None:
    before, middle = Gate(), Gate()
    upstream.script("held", before=before, chunks=[chunk({"content": "a"}), middle, chunk({"content": "b"}), End.RESET])
    with ThreadPoolExecutor(1) as pool:
        opened = pool.submit(create, client, "held", stream=True)
        before.wait_reached()
        assert not opened.done()
        before.set()
        stream = iter(opened.result(timeout=5))
    assert content_of([next(stream)]) == "a"
    middle.wait_reached()
    middle.set()
    with pytest.raises(Exception, match="reset"):
        list(stream)


def test_a_gate_may_be_held_by_many_and_left_shut(upstream: Upstream) -> None:
    gate = Gate()
    upstream.script("held", before=gate, body={})
    connections = [raw_chat(upstream, "held") for _ in range(200)]
    upstream.wait_until(lambda: len(upstream.requests) == 200)
    assert upstream.connections == 200
    for connection in connections[:100]:
        connection.close()
    upstream.wait_until(lambda: upstream.connections == 100)
    gate.set()
    for connection in connections[100:]:
        assert connection.recv(16) == b"HTTP/1.1 200 OK\r"
        connection.close()


def test_closing_leaves_nothing_behind() -> None:
    before = threading.active_count()
    started = Upstream()
    with raw_chat(started, "hang") as connection:
        request = started.wait_for_request()
        started.close()
        assert read_all(connection) == b""
    assert not request.closed_by_client.is_set()
    assert (started.connections, threading.active_count()) == (0, before)


def test_an_error_in_the_stand_in_is_raised_when_it_closes() -> None:
    started = Upstream()
    with raw_chat(started, "hang-3") as connection:  # `hang` takes no number
        assert read_all(connection) == b""
    with pytest.raises(ExceptionGroup, match="stand-in is at fault"):
        started.close()
