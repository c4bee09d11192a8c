"""Ends of a chat that its caller wants: the provider's side must see the connection close, and the caller one answer."""

from __future__ import annotations

import json
import os

import pytest

from bridge_worker.schema.errors import Error
from tests.conftest import Spawn, WorkerFor
from tests.support.data import HELLO, tool
from tests.support.upstream import DONE, Gate, Json, Request, Upstream, chunk, reply_text
from tests.support.upstream_format import words
from tests.support.worker import Worker

WORDS = words(reply_text("Grüße 🦜"))
TOOLS = [tool("weather")]


@pytest.fixture(scope="module")
def worker(upstream: Upstream, worker_for: WorkerFor) -> Worker:
    return worker_for(env=environment(upstream))


def environment(upstream: Upstream) -> dict[str, str]:
    return {"OPENAI_API_KEY": "sk-secret-123", "OPENAI_BASE_URL": upstream.base_url}


def start(worker: Worker, model: str, *, stream: bool, id: int | str | None = None, **params: object) -> int | str:
    return worker.request("chat", {"model": f"openai/{model}", "messages": HELLO, "stream": stream, **params}, id)


def arrived(upstream: Upstream, model: str) -> Request:
    """The newest request for a model; waits for one that has no response yet and is not closed."""

    def held() -> list[Request]:
        mine = [request for request in upstream.requests if request.model == model]
        return [request for request in mine if not request.replied.is_set() and not request.closed_by_client.is_set()]

    upstream.wait_until(lambda: bool(held()), timeout=30)
    return held()[-1]


def cancelled(worker: Worker, id: int | str) -> Json:
    """Cancels, and returns the error's data after what is true of every such answer has been checked."""
    worker.notify("notifications/cancelled", {"requestId": id, "reason": "a test"})
    return check_cancelled(worker, id)


def check_cancelled(worker: Worker, id: int | str) -> Json:
    response = worker.response(id)
    assert "error" in response, response
    Error.model_validate(response["error"])
    data: Json = response["error"]["data"]
    assert (response["error"]["code"], data["kind"], data["retryable"]) == (-32800, "cancelled", False)
    assert data["upstream_closed"] is True
    return data


def check_nothing_follows(worker: Worker, id: int | str) -> None:
    """A round trip later, the answer is still the last that was said about ``id``, and the only one."""
    worker.call("ping")
    about = [m for m in worker.received if isinstance(m, dict) and id in (m.get("id"), m.get("params", {}).get("requestId"))]
    assert "error" in about[-1]
    assert sum("method" not in message for message in about) == 1


# ---- when ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("CAN-1", "CAN-2", "CAN-4")
@pytest.mark.parametrize("model", ["hang", "hang-after-headers", "reset-never-comes"])
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_a_cancel_before_the_first_byte_of_the_response_closes_the_connection(
    worker: Worker, upstream: Upstream, model: str, stream: bool
) -> None:
    if model == "reset-never-comes":
        upstream.script(model, before=Gate())
    id = start(worker, model, stream=stream)
    request = arrived(upstream, model)
    assert cancelled(worker, id)["partial"] == {"content": None, "tool_calls": []}
    request.wait_closed()
    check_nothing_follows(worker, id)


@pytest.mark.rule("CAN-1", "CAN-2", "CAN-4")
def test_a_cancel_in_the_middle_of_a_stream_keeps_what_came(worker: Worker, upstream: Upstream) -> None:
    id = start(worker, "hang-after-3", stream=True)
    worker.wait_for(lambda m: isinstance(m, dict) and m.get("params", {}).get("seq") == 2 and m["params"]["requestId"] == id)
    assert cancelled(worker, id)["partial"] == {"content": "".join(WORDS[:3]), "tool_calls": []}
    upstream.wait_for_request(model="hang-after-3").wait_closed()
    check_nothing_follows(worker, id)


@pytest.mark.rule("CAN-1")
def test_a_cancel_in_the_middle_of_a_tool_call_keeps_the_piece(worker: Worker, upstream: Upstream) -> None:
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"ci'}}
    upstream.script("held-in-a-call", chunks=[chunk({"tool_calls": [call]}), Gate()])
    id = start(worker, "held-in-a-call", stream=True, tools=TOOLS)
    worker.wait_for_delta(id)
    (kept,) = cancelled(worker, id)["partial"]["tool_calls"]
    assert (kept["id"], kept["function"]) == ("call_1", {"name": "weather", "arguments": '{"ci'})
    upstream.wait_for_request(model="held-in-a-call").wait_closed()


@pytest.mark.rule("CAN-2")
@pytest.mark.parametrize("model", ["endless", "slow-20ms"])
def test_a_cancel_during_the_response_closes_the_connection(worker: Worker, upstream: Upstream, model: str) -> None:
    id = start(worker, model, stream=True)
    worker.wait_for_delta(id)
    request = upstream.wait_for_request(model=model)
    partial = cancelled(worker, id)["partial"]["content"]
    request.wait_closed()
    assert partial == "".join(note["delta"]["content"] for note in worker.deltas(id))
    check_nothing_follows(worker, id)


@pytest.mark.rule("CAN-1", "CAN-2")
def test_a_cancel_without_a_reader_closes_the_connection(upstream: Upstream, spawn: Spawn) -> None:
    reading, writing = os.pipe()
    worker = spawn(env=environment(upstream), stdout=writing)
    os.close(writing)
    with open(reading, "rb") as output:
        before = upstream.counts["endless"]
        id = start(worker, "endless", stream=True)
        request = upstream.wait_for_request(model="endless", nth=before + 1, timeout=30)
        assert request.stalled.wait(30)
        worker.notify("notifications/cancelled", {"requestId": id})
        request.wait_closed(timeout=30)
        response = next(message for message in map(json.loads, output) if message.get("id") == id)
    assert (response["error"]["data"]["kind"], response["error"]["data"]["upstream_closed"]) == ("cancelled", True)


@pytest.mark.rule("CAN-2")
def test_a_cancel_in_the_middle_of_a_plain_body_closes_the_connection(worker: Worker, upstream: Upstream) -> None:
    gate = Gate()
    upstream.script("half-a-body", chunks=[b'{"id": "chatcmpl-1", "choices": [', gate])
    id = start(worker, "half-a-body", stream=False)
    gate.wait_reached(timeout=30)
    cancelled(worker, id)
    upstream.wait_for_request(model="half-a-body").wait_closed()


@pytest.mark.rule("CAN-1", "CAN-2", "LIF-9")
def test_a_cancel_while_the_engine_still_loads_reaches_no_provider(upstream: Upstream, spawn: Spawn) -> None:
    worker = spawn(env=environment(upstream))
    worker.call("ping")  # it reads; LiteLLM needs seconds more
    id = start(worker, "too-early", stream=True)
    cancelled(worker, id)
    assert worker.chat("openai/after-the-early-one")["finish_reason"] == "stop"
    assert upstream.counts["too-early"] == 0


# ---- which --------------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("CAN-6")
def test_other_requests_go_on(worker: Worker, upstream: Upstream) -> None:
    gate = Gate()
    upstream.script("neighbour", chunks=[chunk({"content": "a"}), gate, chunk({"content": "b"}, "stop"), DONE])
    other = start(worker, "neighbour", stream=True)
    worker.wait_for_delta(other)
    id = start(worker, "hang", stream=True)
    request = arrived(upstream, "hang")
    cancelled(worker, id)
    request.wait_closed()
    gate.set()
    assert worker.response(other)["result"]["content"] == "ab"
    assert not upstream.wait_for_request(model="neighbour").closed_by_client.is_set()


@pytest.mark.rule("CAN-5")
def test_a_cancel_is_for_an_id_of_the_same_type_only(worker: Worker, upstream: Upstream) -> None:
    gate = Gate()
    upstream.script("same-looking", before=gate, chunks=[chunk({"content": "a"}, "stop"), DONE])
    start(worker, "same-looking", stream=True, id="777")
    gate.wait_reached(timeout=30)
    worker.notify("notifications/cancelled", {"requestId": 777})
    worker.notify("notifications/cancelled", {"requestId": "no such id"})
    worker.call("ping")
    gate.set()
    assert worker.response("777")["result"]["content"] == "a"


@pytest.mark.rule("CAN-5", "RPC-1")
def test_a_repeated_cancel_changes_nothing(worker: Worker, upstream: Upstream) -> None:
    id = start(worker, "hang", stream=False)
    request = arrived(upstream, "hang")
    for _ in range(5):
        worker.notify("notifications/cancelled", {"requestId": id})
    cancelled(worker, id)
    request.wait_closed()
    check_nothing_follows(worker, id)


@pytest.mark.rule("CAN-5")
def test_a_cancel_after_the_response_is_ignored(worker: Worker) -> None:
    id = start(worker, "finished", stream=True)
    assert "result" in worker.response(id)
    worker.notify("notifications/cancelled", {"requestId": id})
    worker.call("ping")
    assert sum(isinstance(m, dict) and m.get("id") == id for m in worker.received) == 1


@pytest.mark.rule("CAN-4")
def test_an_id_may_be_used_again_after_its_cancel(worker: Worker, upstream: Upstream) -> None:
    start(worker, "hang", stream=True, id="again")
    arrived(upstream, "hang")
    cancelled(worker, "again")
    start(worker, "second-time", stream=False, id="again")
    second = worker.wait_for(lambda m: isinstance(m, dict) and m.get("id") == "again" and "result" in m)
    assert isinstance(second, dict)
    assert second["result"]["finish_reason"] == "stop"


@pytest.mark.rule("CAN-1", "CAN-2", "CAN-6")
def test_many_simultaneous_cancels_each_get_a_response(worker: Worker, upstream: Upstream) -> None:
    upstream.script("crowd", chunks=[chunk({"content": "I wait"}), Gate()])
    ids = [start(worker, "crowd", stream=i % 2 == 0) for i in range(100)]
    upstream.wait_until(lambda: upstream.counts["crowd"] == 100, timeout=30)
    for id in ids:
        worker.notify("notifications/cancelled", {"requestId": id})
    for id in ids:
        check_cancelled(worker, id)
    for nth in range(100):
        upstream.wait_for_request(model="crowd", nth=nth + 1).wait_closed()
    assert worker.chat("openai/after-the-crowd")["finish_reason"] == "stop"


@pytest.mark.rule("RPC-1")
def test_a_cancel_that_crosses_the_response_gets_one_of_the_two(worker: Worker) -> None:
    for _ in range(30):
        id = start(worker, "crossing", stream=True)
        worker.wait_for_delta(id)
        worker.notify("notifications/cancelled", {"requestId": id})
        response = worker.response(id)
        assert "result" in response or response["error"]["data"]["kind"] == "cancelled"
        worker.call("ping")
        assert sum(isinstance(m, dict) and m.get("id") == id for m in worker.received) == 1


# ---- the worker's own end -----------------------------------------------------------------------------------------------------


@pytest.mark.rule("LIF-11", "LIF-12", "CAN-1", "CAN-2")
def test_shutdown_with_cancel_ends_what_is_in_flight(upstream: Upstream, spawn: Spawn) -> None:
    worker = spawn(env=environment(upstream))
    ids = [start(worker, "hang-after-1", stream=True), start(worker, "hang", stream=False)]
    worker.wait_for_delta(ids[0])
    requests = [arrived(upstream, "hang-after-1"), arrived(upstream, "hang")]
    shutdown = worker.request("shutdown", {"mode": "cancel"})
    assert worker.response(shutdown)["result"] == {}
    assert worker.exit_code() == 0
    for id, request in zip(ids, requests, strict=True):
        check_cancelled(worker, id)
        request.wait_closed()
    assert [m.get("id") for m in worker.received if isinstance(m, dict) and "method" not in m][-1] == shutdown


@pytest.mark.rule("LIF-15")
def test_the_end_of_input_lets_a_stream_finish(upstream: Upstream, spawn: Spawn) -> None:
    gate = Gate()
    upstream.script("finishing", chunks=[chunk({"content": "a"}), gate, chunk({"content": "b"}, "stop"), DONE])
    worker = spawn(env=environment(upstream))
    id = start(worker, "finishing", stream=True)
    worker.wait_for_delta(id)
    worker.end_input()
    gate.set()
    assert worker.exit_code() == 0
    assert worker.response(id)["result"]["content"] == "ab"


@pytest.mark.rule("EXT-3")
def test_a_stream_ends_upstream_when_its_reader_has_closed_the_pipe(upstream: Upstream, spawn: Spawn) -> None:
    reading, writing = os.pipe()
    worker = spawn(env=environment(upstream), stdout=writing)
    os.close(writing)
    with open(reading, "rb") as output:
        start(worker, "hang-after-2", stream=True)
        assert b"notifications/chat/delta" in output.readline()
        request = arrived(upstream, "hang-after-2")
    request.wait_closed(timeout=30)
    assert worker.exit_code() == 3
