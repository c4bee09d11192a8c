"""Interleavings, in memory: what may happen while something else is happening. `support/memory_server.py` takes the steps
one by one."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from bridge_worker.config.settings import DEFAULTS
from bridge_worker.config.source import Config
from bridge_worker.core.deltas import Delta
from bridge_worker.errors import BridgeError
from bridge_worker.protocol.framing import encode
from bridge_worker.protocol.session import Start, response
from bridge_worker.runtime import server as server_module
from bridge_worker.runtime.app import App
from bridge_worker.runtime.client_requests import NoResult
from bridge_worker.runtime.dispatch import response_of
from bridge_worker.runtime.exit_codes import EXIT_BROKEN, EXIT_DRAINED
from bridge_worker.runtime.notifier import DELTA_QUEUE_BYTES, Notifier
from bridge_worker.runtime.server import CANCEL_SECONDS, READ_QUEUE_BYTES, Server
from bridge_worker.security.redaction import Redactor
from tests.support.memory_server import (
    Client,
    MemoryPipe,
    ScriptedEngine,
    ScriptedModel,
    TimelessLoop,
    cancel_message,
    chat_message,
    quiet,
    request,
    timeless,
)

INITIALIZE = {"protocolVersion": "omni-bridge/1", "clientInfo": {"name": "test", "version": "1"}, "capabilities": {}}


def now() -> float:
    return asyncio.get_running_loop().time()


# ---- cancel ------------------------------------------------------------------------------------------------------------------


async def cancel_and_check(client: Client, id: int | str, *, within: float = 0.1) -> dict[str, Any]:
    began = now()
    client.cancel(id)
    error: dict[str, Any] = (await client.response(id))["error"]
    assert error["code"] == -32800
    assert now() - began < within
    assert error["data"]["upstream_closed"] is True
    return error


@pytest.mark.rule("CAN-1", "CAN-2")
@timeless
async def test_a_request_cancelled_in_the_same_read_gets_its_response_immediately() -> None:
    async with Client() as client:
        began = now()
        client.send(chat_message(1), cancel_message(1))
        assert await client.kind(1) == "cancelled"
        assert client.responses_to(1)[0]["error"]["data"]["upstream_closed"] is True
        assert now() - began < CANCEL_SECONDS / 2


@pytest.mark.rule("CAN-1")
@timeless
async def test_a_request_and_its_cancel_in_one_batch_get_their_response_immediately() -> None:
    async with Client() as client:
        began = now()
        client.send([chat_message(1), cancel_message(1), request(2, "ping")])
        assert await client.kind(1) == "cancelled"
        assert now() - began < CANCEL_SECONDS / 2


@pytest.mark.rule("CAN-1")
@timeless
async def test_a_cancel_before_the_methods_are_loaded_gets_its_response() -> None:
    async with Client(loaded=False) as client:
        client.chat(1)
        await quiet()
        error = await cancel_and_check(client, 1)
        assert error["data"]["partial"] == {"content": None, "tool_calls": []}
        client.engine.loaded.set()


@pytest.mark.rule("CAN-1")
@timeless
async def test_a_cancel_while_waiting_for_the_engine_gets_its_response() -> None:
    async with Client(warm=False) as client:
        client.chat(1)
        await quiet()
        error = await cancel_and_check(client, 1)
        assert error["data"]["partial"] == {"content": None, "tool_calls": []}
        assert not client.model.chats


@pytest.mark.rule("CAN-1", "CAN-2")
@pytest.mark.parametrize("stream", [False, True])
@timeless
async def test_a_cancel_closes_the_model_and_returns_what_had_come(stream: bool) -> None:
    async with Client() as client:
        chat = await client.begin(1, stream=stream)
        chat.emit("half", " an")
        await quiet()
        error = await cancel_and_check(client, 1)
        assert chat.closed
        assert error["data"]["partial"] == {"content": "half an", "tool_calls": []}
        assert len(client.deltas(1)) == (2 if stream else 0)


@pytest.mark.rule("CAN-4", "CAN-5")
@timeless
async def test_a_cancel_after_the_response_changes_nothing_and_the_id_is_free() -> None:
    async with Client() as client:
        (await client.begin(1)).finish()
        assert "result" in await client.response(1)
        client.cancel(1)
        await quiet()
        assert len(client.responses()) == 1
        client.send(request("again", "ping"))
        await client.response("again")


@pytest.mark.rule("CAN-4")
@timeless
async def test_the_id_of_a_cancelled_request_may_be_used_again() -> None:
    async with Client() as client:
        await client.begin(1)
        await cancel_and_check(client, 1)
        client.model.chats.clear()
        client.send(chat_message(1))
        (await client.model.started("1")).finish()
        await client.pipe.changes.wait_until(lambda: len(client.responses_to(1)) == 2)
        assert "result" in client.responses_to(1)[1]
        client.forget()  # the general check counts one answer an id


@pytest.mark.rule("CAN-5", "RPC-3")
@timeless
async def test_one_does_not_cancel_the_string_one() -> None:
    async with Client() as client:
        chat = await client.begin("1")
        for id in (1, "2", None, True, 1.0, [1], {"id": 1}):
            client.cancel(id)
        await quiet()
        chat.finish()
        assert "result" in await client.response("1")


@pytest.mark.rule("CAN-5")
@timeless
async def test_a_second_cancel_does_not_tear_up_the_closing_of_the_first() -> None:
    async with Client() as client:
        chat = await client.begin(1, model="stubborn")
        for _ in range(3):
            client.cancel(1)
            await quiet()
        assert chat.cancels == 1
        chat.relent()
        chat.finish()
        await client.response(1)


@pytest.mark.rule("CAN-6")
@timeless
async def test_a_cancel_leaves_the_other_requests_alone() -> None:
    async with Client() as client:
        first, second = await client.begin(1, stream=True), await client.begin(2, stream=True)
        await cancel_and_check(client, 1)
        assert first.closed
        assert not second.closed
        second.emit("on we go")
        second.finish()
        assert (await client.response(2))["result"]["content"] == "on we go"


@pytest.mark.rule("CAN-3", "CAN-4", "STR-6")
@timeless
async def test_a_task_that_ignores_its_cancel_gets_the_servers_response_and_its_own_is_dropped() -> None:
    async with Client() as client:
        chat = await client.begin(1, stream=True, model="stubborn")
        chat.emit("early")
        await quiet()
        began = now()
        client.cancel(1)
        error = (await client.response(1))["error"]
        assert now() - began == pytest.approx(CANCEL_SECONDS, abs=0.1)
        assert error["code"] == -32800
        assert error["data"]["upstream_closed"] is False
        chat.emit("late", "later")
        chat.finish()
        await chat.changes.wait_until(lambda: chat.closed)
        await quiet()
        assert [delta["delta"] for delta in client.deltas(1)] == [{"content": "early"}]
        assert len(client.responses()) == 1


@pytest.mark.rule("CAN-4")
@timeless
async def test_a_new_request_with_the_id_of_a_task_that_would_not_end_gets_its_own_response() -> None:
    async with Client() as client:
        old = await client.begin(1, stream=True, model="stubborn")
        client.cancel(1)
        await client.response(1)
        client.forget()
        client.model.chats.clear()
        client.chat(1, stream=True)
        new = await client.model.started("1")
        old.emit("old")
        new.emit("new")
        old.finish()
        await quiet()
        new.finish()
        assert (await client.response(1))["result"]["content"] == "new"
        assert [delta["delta"] for delta in client.deltas(1)] == [{"content": "new"}]


@pytest.mark.rule("CAN-1", "STR-10")
@timeless
async def test_a_stream_that_waits_for_its_reader_can_be_cancelled() -> None:
    async with Client() as client:
        chat = await client.begin(1, stream=True)
        client.pipe.stop_reading()
        chat.emit(*["x" * 10_000] * 100)
        await quiet()
        client.cancel(1)
        await quiet()
        assert chat.closed
        client.pipe.read_on()
        assert await client.kind(1) == "cancelled"


# ---- deltas and answers ------------------------------------------------------------------------------------------------------


@pytest.mark.rule("STR-1", "STR-2", "STR-5", "STR-6")
@timeless
async def test_deltas_come_before_the_response_in_order_and_make_it_up() -> None:
    async with Client() as client:
        words = [f"{n} " for n in range(200)]
        chat = await client.begin("s", stream=True)
        chat.emit(*words)
        chat.finish()
        result = (await client.response("s"))["result"]
        assert [delta["seq"] for delta in client.deltas("s")] == list(range(200))
        assert "".join(delta["delta"]["content"] for delta in client.deltas("s")) == result["content"] == "".join(words)
        assert client.received[-1]["result"] == result


@pytest.mark.rule("STR-2", "RPC-12")
@timeless
async def test_streams_side_by_side_count_each_for_itself_and_end_when_they_are_ready() -> None:
    async with Client() as client:
        first, second = await client.begin(1, stream=True), await client.begin(2, stream=True)
        for n in range(5):
            first.emit(f"a{n}")
            second.emit(f"b{n}")
            await quiet()
        second.finish()
        await client.response(2)
        first.finish()
        await client.response(1)
        assert [response["id"] for response in client.responses()] == [2, 1]
        assert [delta["seq"] for delta in client.deltas(1)] == [delta["seq"] for delta in client.deltas(2)] == list(range(5))


@pytest.mark.rule("BAT-1", "BAT-2", "BAT-5")
@timeless
async def test_a_batch_with_streams_is_one_array_once_the_last_is_ready_and_its_deltas_come_immediately() -> None:
    async with Client() as client:
        client.send([chat_message(1, stream=True), request(2, "ping"), cancel_message("nobody"), chat_message(3)])
        first, third = await client.model.started("1"), await client.model.started("3")
        first.emit("now")
        await quiet()
        assert len(client.deltas(1)) == 1
        assert client.responses() == []
        first.finish()
        await quiet()
        assert client.responses() == []
        third.finish()
        await client.response(3)
        assert {response["id"] for response in client.received[-1]} == {1, 2, 3}


@pytest.mark.rule("BAT-1", "CAN-1")
@timeless
async def test_a_cancelled_member_of_a_batch_has_its_response_in_the_array() -> None:
    async with Client() as client:
        client.send([chat_message(1), chat_message(2)])
        await client.model.started("1")
        client.cancel(1)
        await quiet()
        assert client.responses() == []
        (await client.model.started("2")).finish()
        assert await client.kind(1) == "cancelled"
        assert len(client.received[-1]) == 2


@pytest.mark.rule("ERR-8")
@timeless
async def test_one_request_too_many_is_refused_and_there_is_room_again_after_a_response() -> None:
    async with Client(max_in_flight=2) as client:
        first = await client.begin(1)
        second = await client.begin(2)
        client.chat(3)
        assert await client.kind(3) == "overloaded"
        client.send(request("p", "ping"), request("i", "initialize", INITIALIZE))
        assert "result" in await client.response("p")
        assert "result" in await client.response("i")
        first.finish()
        await client.response(1)
        (await client.begin(4)).finish()
        assert "result" in await client.response(4)
        second.finish()


@pytest.mark.rule("RPC-5")
@timeless
async def test_a_second_request_with_the_id_of_one_in_flight_is_refused_and_the_first_continues() -> None:
    async with Client() as client:
        chat = await client.begin(1)
        client.send(request(1, "ping"))
        await client.pipe.changes.wait_until(lambda: bool(client.responses()))
        assert client.responses()[0]["error"]["code"] == -32600
        client.forget()
        client.sent.append(1)
        chat.finish()
        assert "result" in await client.response(1)


@pytest.mark.rule("ERR-7", "ERR-9")
@timeless
async def test_a_model_that_breaks_is_an_internal_error_of_that_request_only() -> None:
    async with Client() as client:
        broken, intact = await client.begin(1, stream=True), await client.begin(2)
        broken.emit("a")
        broken.fail(ZeroDivisionError("secret detail"))
        error = (await client.response(1))["error"]
        assert error["data"]["kind"] == "internal"
        assert "secret detail" not in json.dumps(error)
        intact.finish()
        assert "result" in await client.response(2)


@pytest.mark.rule("STR-8")
@timeless
async def test_an_interrupted_stream_gets_a_response_with_the_received_content() -> None:
    async with Client() as client:
        chat = await client.begin(1, stream=True)
        chat.emit("so ", "far")
        chat.fail(BridgeError("stream_interrupted", "the provider broke off"))
        error = (await client.response(1))["error"]
        assert error["data"]["kind"] == "stream_interrupted"
        assert error["data"]["partial"]["content"] == "so far"


@pytest.mark.rule("RPC-1", "ERR-7")
@timeless
async def test_a_delta_without_json_form_makes_its_request_fail_and_nothing_else() -> None:
    async with Client() as client:
        chat = await client.begin(1, stream=True)
        chat.put(Delta(content="fine"))
        chat.put(Delta(content=object()))  # type: ignore[arg-type]
        assert await client.kind(1) == "internal"
        assert len(client.deltas(1)) == 1
        assert chat.closed


class FixedResults:
    """A `Dispatcher` with an answer for each method name."""

    def __init__(self, **results: object) -> None:
        self._results = results

    async def dispatch(self, start: Start, received: float, notify: Any) -> Any:
        result = self._results[start.method]
        if isinstance(result, BaseException):
            raise result
        return response(start.id, result)


def circle() -> object:
    value: list[object] = []
    value.append(value)
    return value


@pytest.mark.rule("RPC-1", "ERR-7")
@pytest.mark.parametrize("result", [float("nan"), object(), {1: b""}, circle()], ids=["nan", "object", "bytes", "circle"])
@timeless
async def test_a_response_without_json_form_becomes_internal(result: object) -> None:
    async with Client(dispatcher=FixedResults(bad=result)) as client:
        client.send(request(1, "bad"))
        assert await client.kind(1) == "internal"


@pytest.mark.rule("BAT-1", "ERR-9")
@timeless
async def test_a_response_without_json_form_spoils_no_other_of_its_batch() -> None:
    async with Client(dispatcher=FixedResults(bad=object(), good="fine")) as client:
        client.send([request(1, "bad"), request(2, "good"), request(3, "ping")])
        assert await client.kind(1) == "internal"
        assert (await client.response(2))["result"] == "fine"
        assert len(client.received[-1]) == 3


@pytest.mark.rule("RPC-1", "ERR-9")
@pytest.mark.parametrize("fault", [RuntimeError("no"), BridgeError("timeout", "late"), asyncio.CancelledError()], ids=str)
@timeless
async def test_a_request_gets_a_response_although_the_dispatcher_raises(fault: BaseException) -> None:
    async with Client(dispatcher=FixedResults(bad=fault, good=1)) as client:
        client.send(request(1, "bad"), request(2, "good"))
        assert "error" in await client.response(1)
        assert (await client.response(2))["result"] == 1


@pytest.mark.rule("FRM-8", "RPC-1")
@timeless
async def test_lines_that_can_not_be_read_do_not_stop_the_others() -> None:
    async with Client() as client:
        client.pipe.feed(b'nonsense\n\xff\xfe\n[]\n{"jsonrpc":"2.0","id":1,"method":"ping"')
        client.pipe.feed(b"}\n[1]\n")
        client.sent.append(1)
        assert (await client.response(1))["result"] == {}


# ---- end of input, shutdown, stop, broken pipe ---------------------------------------------------------------------------------


@pytest.mark.rule("LIF-15", "EXT-1")
@timeless
async def test_the_end_of_input_waits_for_what_is_in_flight() -> None:
    async with Client() as client:
        streamed, plain = await client.begin(1, stream=True), await client.begin(2)
        client.pipe.end_input()
        await quiet()
        assert not client.running.done()
        streamed.emit("still ", "here")
        streamed.finish()
        await client.response(1)
        assert not client.running.done()
        plain.finish()
        assert await client.running == EXIT_DRAINED
        assert len(client.deltas(1)) == 2


@pytest.mark.rule("FRM-3", "LIF-15")
@timeless
async def test_a_last_line_without_its_newline_gets_its_response() -> None:
    async with Client() as client:
        client.pipe.feed(encode(request(1, "ping")).rstrip(b"\n"))
        client.sent.append(1)
        client.pipe.end_input()
        assert await client.running == EXIT_DRAINED


@pytest.mark.rule("LIF-15")
@timeless
async def test_an_immediate_end_of_input_ends_with_0_even_while_litellm_never_loads() -> None:
    async with Client(loaded=False, warm=False) as client:
        client.pipe.end_input()
        assert await client.running == EXIT_DRAINED


@pytest.mark.rule("LIF-11", "LIF-14", "LIF-10")
@timeless
async def test_shutdown_waits_refuses_and_gets_the_last_response() -> None:
    async with Client() as client:
        chat = await client.begin(1, stream=True)
        client.send(request("end", "shutdown"))
        await quiet()
        client.send(chat_message(2), request("p", "ping"), request("i", "initialize", INITIALIZE))
        assert await client.kind(2) == "shutting_down"
        assert await client.kind("i") == "shutting_down"
        assert (await client.response("p"))["result"] == {}
        assert not client.responses_to("end")
        chat.emit("done")
        chat.finish()
        assert await client.running == EXIT_DRAINED
        assert [message["id"] for message in client.responses()][-2:] == [1, "end"]


@pytest.mark.rule("LIF-12")
@timeless
async def test_shutdown_with_cancel_cancels_and_gets_the_last_response() -> None:
    async with Client() as client:
        plain, streamed = await client.begin(1), await client.begin(2, stream=True)
        client.send(request("end", "shutdown", {"mode": "cancel"}))
        assert await client.running == EXIT_DRAINED
        assert await client.kind(1) == await client.kind(2) == "cancelled"
        assert plain.closed
        assert streamed.closed
        assert client.responses()[-1] == {"jsonrpc": "2.0", "id": "end", "result": {}}


@pytest.mark.rule("LIF-12")
@timeless
async def test_a_shutdown_that_drains_can_be_followed_by_one_that_cancels() -> None:
    async with Client() as client:
        chat = await client.begin(1)
        client.send(request("a", "shutdown"))
        await quiet()
        client.send(request("b", "shutdown", {"mode": "cancel"}))
        assert await client.running == EXIT_DRAINED
        assert chat.closed


@pytest.mark.rule("LIF-11", "RPC-1")
@timeless
async def test_a_shutdown_that_comes_after_the_last_response_is_not_even_read() -> None:
    async with Client() as client:
        client.pipe.stop_reading()
        client.send(request("a", "shutdown"))
        await quiet()
        client.send(request("b", "shutdown"))
        await quiet()
        client.pipe.read_on()
        assert await client.running == EXIT_DRAINED
        assert client.pipe.unread_input
        client.sent.remove("b")


@pytest.mark.rule("LIF-11")
@timeless
async def test_shutdown_gets_the_last_response_even_if_the_backend_becomes_ready_then() -> None:
    async with Client(warm=False) as client:
        client.send(request(0, "initialize", INITIALIZE))
        await client.response(0)
        client.pipe.stop_reading()
        client.send(request("end", "shutdown"))
        await quiet()
        client.engine.warm.set()
        await quiet()
        client.pipe.read_on()
        assert await client.running == EXIT_DRAINED
        assert client.received[-1]["id"] == "end"


@pytest.mark.rule("LIF-14")
@timeless
async def test_a_cancel_works_while_draining() -> None:
    async with Client() as client:
        await client.begin(1)
        client.send(request("end", "shutdown"))
        await quiet()
        await cancel_and_check(client, 1)
        assert await client.running == EXIT_DRAINED


@pytest.mark.rule("LIF-13")
@timeless
async def test_a_shutdown_of_an_unknown_mode_is_refused_and_the_server_continues() -> None:
    async with Client() as client:
        client.send(request(1, "shutdown", {"mode": "now"}), request(2, "ping"))
        assert await client.kind(1) == "invalid_request"
        assert "result" in await client.response(2)
        (await client.begin(3)).finish()
        assert "result" in await client.response(3)


@pytest.mark.rule("EXT-5")
@timeless
async def test_stop_grants_a_grace_and_requests_that_end_in_it_get_their_response() -> None:
    async with Client() as client:
        chat = await client.begin(1)
        client.server.stop()
        await quiet()
        client.chat(2)
        assert await client.kind(2) == "shutting_down"
        chat.finish()
        assert await client.running == EXIT_DRAINED
        assert "result" in client.responses_to(1)[0]


@pytest.mark.rule("EXT-5")
@timeless
async def test_requests_beyond_the_grace_of_stop_are_cancelled_and_get_a_response() -> None:
    async with Client() as client:
        chat = await client.begin(1)
        began = now()
        client.server.stop()
        assert await client.running == EXIT_DRAINED
        assert now() - began == pytest.approx(DEFAULTS.grace_seconds, abs=0.1)
        assert chat.closed
        assert await client.kind(1) == "cancelled"


@pytest.mark.rule("EXT-5")
@timeless
async def test_a_second_stop_leaves_no_grace() -> None:
    async with Client() as client:
        await client.begin(1)
        await client.begin(2, stream=True)
        began = now()
        client.server.stop()
        await quiet()
        client.server.stop()
        assert await client.running == EXIT_DRAINED
        assert now() - began < 0.1
        assert await client.kind(1) == await client.kind(2) == "cancelled"


@pytest.mark.rule("EXT-5", "CAN-3")
@timeless
async def test_stop_ends_even_if_a_task_ignores_its_cancel_and_nothing_reads_stdout() -> None:
    async with Client() as client:
        chat = await client.begin(1, model="stubborn")
        client.pipe.stop_reading()
        client.server.stop()
        client.server.stop()
        assert await client.running == EXIT_BROKEN  # with answers that nobody has taken
        assert now() < CANCEL_SECONDS + server_module.FLUSH_SECONDS + 1
        chat.relent()


@pytest.mark.rule("EXT-5")
@timeless
async def test_after_the_grace_the_reader_has_a_second_for_the_last_responses() -> None:
    async with Client() as client:
        await client.begin(1)
        client.pipe.stop_reading()
        client.server.stop()
        client.server.stop()
        await asyncio.sleep(0.9 * server_module.FLUSH_SECONDS)
        assert not client.running.done()
        client.pipe.read_on()
        assert await client.running == EXIT_DRAINED
        assert await client.kind(1) == "cancelled"


@pytest.mark.rule("EXT-5")
@pytest.mark.parametrize("stops_first", [True, False])
@timeless
async def test_a_stop_and_the_end_of_the_input_leave_no_grace(stops_first: bool) -> None:
    async with Client() as client:
        await client.begin(1)
        ends = (client.server.stop, client.pipe.end_input)
        for end in ends if stops_first else reversed(ends):
            end()
            await quiet()
        assert await client.running == EXIT_DRAINED
        assert now() < 0.1
        assert await client.kind(1) == "cancelled"


@pytest.mark.rule("EXT-5")
@timeless
async def test_stop_without_work_ends_immediately() -> None:
    async with Client() as client:
        client.server.stop()
        assert await client.running == EXIT_DRAINED
        assert now() < 0.1


@pytest.mark.rule("EXT-3")
@timeless
async def test_a_broken_pipe_cancels_everything_and_the_exit_code_is_3() -> None:
    async with Client() as client:
        chats = [await client.begin(1), await client.begin(2, stream=True), await client.begin(3)]
        client.pipe.break_off()
        assert await client.running == EXIT_BROKEN
        assert now() < CANCEL_SECONDS  # not their deadlines
        assert all(chat.closed for chat in chats)
        client.forget()  # which no longer reads responses


@pytest.mark.rule("EXT-3")
@timeless
async def test_a_broken_pipe_ends_a_drain_and_a_wait_for_the_engine() -> None:
    async with Client(warm=False) as client:
        client.chat(1)
        client.send(request("end", "shutdown"))
        await quiet()
        client.pipe.break_off()
        assert await client.running == EXIT_BROKEN
        client.forget()


@pytest.mark.rule("EXT-3")
@timeless
async def test_a_pipe_that_breaks_while_a_stream_waits_for_its_reader_closes_the_model() -> None:
    async with Client() as client:
        chat = await client.begin(1, stream=True)
        client.pipe.stop_reading()
        chat.emit(*["x" * 10_000] * 100)
        await quiet()
        client.pipe.break_off()
        assert await client.running == EXIT_BROKEN
        assert chat.closed
        client.forget()


# ---- slow readers ------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("STR-10")
@timeless
async def test_a_slow_reader_holds_back_the_stream_and_no_other_response() -> None:
    async with Client() as client:
        chat = await client.begin(1, stream=True)
        client.pipe.stop_reading()
        chat.emit(*["x" * 1000] * 2000)
        chat.finish()
        await quiet()
        held = chat.taken
        assert held < 400
        client.send(request("p", "ping"), chat_message(2))
        (await client.model.started("2")).finish()
        await quiet()
        client.pipe.read_on(held + 3)  # what was queued by then, and the two answers
        assert client.responses_to("p")
        assert client.responses_to(2)
        assert not client.responses_to(1)
        client.pipe.read_on()
        assert len((await client.response(1))["result"]["content"]) == 2_000_000
        assert client.pipe.most_queued < DELTA_QUEUE_BYTES + 100_000


@pytest.mark.rule("STR-10")
@timeless
async def test_many_streams_with_a_slow_reader_cost_one_delta_each_beyond_the_limit() -> None:
    async with Client() as client:
        chats = [await client.begin(n, stream=True) for n in range(50)]
        client.pipe.stop_reading()
        for chat in chats:
            chat.emit(*["x" * 1000] * 500)
            chat.finish()
        await quiet()
        assert client.pipe.queued() < DELTA_QUEUE_BYTES + 50 * 1200
        client.pipe.read_on()
        for n in range(50):
            assert len((await client.response(n))["result"]["content"]) == 500_000


@pytest.mark.rule("STR-10")
@timeless
async def test_a_reader_that_takes_one_message_at_a_time_gets_the_whole_stream() -> None:
    async with Client() as client:
        chat = await client.begin(1, stream=True)
        client.pipe.stop_reading()
        chat.emit(*["x" * 50_000] * 30)
        chat.finish()
        while not client.responses_to(1):
            await quiet()
            client.pipe.read_on(1)
        assert len(client.deltas(1)) == 30


@pytest.mark.rule("DLN-6")
@timeless
async def test_waiting_for_a_slow_reader_does_not_count_as_silence_of_the_provider() -> None:
    async with Client() as client:
        chat = await client.begin(1, stream=True, deadlines={"idle_ms": 1000})
        client.pipe.stop_reading()
        chat.emit(*["x" * 100_000] * 5)
        chat.finish()
        await asyncio.sleep(60)
        client.pipe.read_on()
        assert "result" in await client.response(1)


@pytest.mark.rule("FRM-10")
@pytest.mark.parametrize("a_read", [1, 64], ids=["a-line-a-read", "many-lines-a-read"])
@timeless
async def test_no_requests_are_read_while_their_responses_are_not(a_read: int) -> None:
    async with Client(dispatcher=FixedResults(big="x" * 500_000), max_in_flight=1000) as client:
        client.pipe.stop_reading()
        for start in range(0, 256, a_read):
            client.send(*(request(id, "big") for id in range(start, start + a_read)))
            await quiet()
        assert client.pipe.unread_input, "all was read, though nobody reads the answers"
        assert client.pipe.most_queued < READ_QUEUE_BYTES + (a_read + 1) * 500_100
        client.pipe.read_on()
        await client.response(255)


@pytest.mark.rule("FRM-10")
@timeless
async def test_a_burst_of_pings_without_a_reader_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "READ_QUEUE_BYTES", 50_000)
    async with Client() as client:
        client.pipe.stop_reading()
        for start in range(0, 10_000, 1000):
            client.send(*(request(id, "ping") for id in range(start, start + 1000)))
        await quiet()
        assert client.pipe.unread_input
        assert client.pipe.most_queued < 60_000
        client.pipe.read_on()
        await client.response(9_999)


@pytest.mark.rule("EXT-5", "FRM-10")
@timeless
async def test_a_server_that_waits_for_its_reader_can_be_stopped() -> None:
    async with Client(dispatcher=FixedResults(big="x" * 500_000)) as client:
        client.pipe.stop_reading()
        for id in range(130):
            client.send(request(id, "big"))
        await quiet()
        client.server.stop()
        client.server.stop()
        assert await client.running == EXIT_BROKEN
        client.forget()


# ---- the engine --------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("LIF-2", "LIF-9", "LIF-10")
@timeless
async def test_methods_without_litellm_get_their_response_before_it_is_loaded_and_chats_wait() -> None:
    async with Client(loaded=False, warm=False) as client:
        client.send(request(0, "initialize", INITIALIZE), request(1, "ping"), chat_message(2))
        result = (await client.response(0))["result"]
        assert result["engine"]["ready"] is False
        assert "result" in await client.response(1)
        client.engine.loaded.set()
        await quiet()
        assert not client.responses_to(2)
        client.engine.warm.set()
        (await client.model.started("2")).finish()
        assert "result" in await client.response(2)


@pytest.mark.rule("LIF-8")
@timeless
async def test_ready_is_sent_once_and_only_after_the_warm_up() -> None:
    async with Client(warm=False) as client:
        client.send(request(0, "initialize", INITIALIZE))
        await client.response(0)
        await quiet()
        assert len(client.received) == 1
        client.engine.warm.set()
        await quiet()
        ready = client.received[1]
        assert ready["method"] == "notifications/ready"
        assert ready["params"] == {"engine": {"name": "litellm", "version": "1.0", "ready": True}, "warmMs": 12.5}
        client.send(request(1, "ping"))
        await client.response(1)
        assert len(client.received) == 3


@pytest.mark.rule("LIF-8")
@pytest.mark.parametrize(("version", "is_sent"), [("omni-bridge/1", True), ("omni-bridge/9", True), ("2025-06-18", False)])
@timeless
async def test_ready_is_sent_to_clients_of_this_protocol_only(version: str, is_sent: bool) -> None:
    async with Client() as client:
        client.send(request(0, "initialize", INITIALIZE | {"protocolVersion": version}))
        await client.response(0)
        await quiet()
        assert (client.received[-1].get("method") == "notifications/ready") is is_sent


@pytest.mark.rule("LIF-8")
@timeless
async def test_ready_is_not_sent_without_a_handshake_or_when_loading_fails() -> None:
    async with Client() as client:
        client.send(request(1, "ping"))
        await quiet()
        assert len(client.received) == 1
    async with Client(warm=False) as client:
        client.send(request(0, "initialize", INITIALIZE))
        client.engine.error = BridgeError("internal", "it could not be loaded")
        client.engine.warm.set()
        await quiet()
        assert len(client.received) == 1


class FaultyApp(App):
    """The real one, whose LiteLLM does not load."""

    def __init__(self, fault: BaseException | None) -> None:
        super().__init__(Config(), Redactor({}))
        self._fault = fault

    def _load_litellm(self) -> None:
        assert self._fault
        raise self._fault

    def start(self) -> None:  # without the thread and the garbage collector's settings
        loop = asyncio.get_running_loop()
        loop.call_soon(self._dispatcher.load)
        if self._fault:
            loop.call_soon(self._litellm.load)


@pytest.mark.rule("ERR-10")
@pytest.mark.parametrize("fault", [ImportError("no module named litellm"), SystemExit(3), None], ids=["import", "exit", "hang"])
@timeless
async def test_a_loader_that_fails_or_hangs_is_reported_to_every_chat_that_needs_it(fault: BaseException | None) -> None:
    async with Client() as client:
        app = FaultyApp(fault)
        client.server._app = app
        app.start()
        client.send(chat_message(1, model="openai/x", deadlines={"total_ms": 3_600_000}), request(2, "ping"))
        client.send(chat_message(3, model="offline/echo"))
        error = (await client.response(1))["error"]
        assert error["data"]["kind"] == "internal"
        assert "LiteLLM" in error["message"]
        assert "restart the worker" in error["message"]
        assert "result" in await client.response(2)
        assert "result" in await client.response(3)


@pytest.mark.rule("LIF-16")
@timeless
async def test_the_process_that_initialize_names_is_watched() -> None:
    watched: list[int] = []
    async with Client(watch_process=watched.append) as client:
        client.send(request(0, "initialize", INITIALIZE))
        await client.response(0)
        assert watched == []
    async with Client(watch_process=watched.append) as client:
        client.send(request(0, "initialize", INITIALIZE | {"processId": 4711}))
        await client.response(0)
        assert watched == [4711]


@timeless
async def test_a_begin_that_raises_gives_internal_and_the_next_request_its_response() -> None:
    async with Client() as client:
        begin = client.engine.begin

        def raises(*_: Any) -> Any:
            client.engine.begin = begin  # type: ignore[method-assign]
            raise RuntimeError("a fault")

        client.engine.begin = raises  # type: ignore[method-assign]
        client.send(chat_message(1), request(2, "ping"))
        assert await client.kind(1) == "internal"
        assert (await client.response(2))["result"] == {}


@timeless
async def test_a_cancel_of_the_task_that_waits_for_a_response_cancels_the_request() -> None:
    engine = ScriptedEngine(model := ScriptedModel())
    message = chat_message(1)
    start = Start(1, "chat", message["params"])
    task = asyncio.create_task(response_of(engine, start, 0.0, Notifier(MemoryPipe())))
    await model.started("1")
    task.cancel()
    result: Any = await task
    assert result["error"]["code"] == -32800


@pytest.mark.rule("EXT-3")
@timeless
async def test_input_that_can_not_be_read_ends_with_3_after_the_responses_in_flight() -> None:
    class FailsOnce(MemoryPipe):
        async def read(self) -> bytes:
            if data := await super().read():
                return data
            raise OSError(5, "Input/output error")

    pipe = FailsOnce()
    engine = ScriptedEngine(model := ScriptedModel())
    running = asyncio.create_task(Server(pipe, engine).run())
    pipe.feed(encode(chat_message(1)))
    chat = await model.started("1")
    pipe.end_input()
    await quiet()
    assert not running.done()
    chat.emit("one")
    chat.finish()
    assert await running == EXIT_BROKEN
    assert json.loads(pipe.lines[-1])["result"]["content"] == "one"


@pytest.mark.rule("LIF-11")
@timeless
async def test_a_shutdown_that_drains_waits_for_a_slow_reader_to_the_last_byte() -> None:
    async with Client() as client:
        client.pipe.stop_reading()
        client.send(request("end", "shutdown"))
        await asyncio.sleep(60)
        assert not client.running.done()
        client.pipe.read_on()
        client.pipe._queued = 1
        await quiet()
        assert not client.running.done()
        client.pipe._queued = 0
        client.pipe.changes.notify()
        assert await client.running == EXIT_DRAINED


@timeless
async def test_a_burst_of_messages_leaves_turns_to_everything_else() -> None:
    turns = 0
    async with Client() as client:
        client.send(*(request(id, "ping") for id in range(640)))
        while not client.responses_to(639):
            turns += 1
            await asyncio.sleep(0)
        assert turns > 640 / 64


WITH_CREDENTIALS = INITIALIZE | {"capabilities": {"credentials": {}}}


class NeedsKey:
    """A `Dispatcher` whose requests wait for a key from the client."""

    def __init__(self) -> None:
        self.client: Any = None

    def on_credentials(self, client: Any, capability: Any) -> None:
        self.client = client

    async def dispatch(self, start: Start, received: float, notify: Any) -> Any:
        try:
            return response(start.id, await self.client.request("credentials/get", {}))
        except NoResult as error:
            return response(start.id, str(error))


@timeless
async def test_the_workers_own_requests_get_the_clients_response_or_the_end_of_its_input() -> None:
    needs_key: Any = NeedsKey()
    async with Client(dispatcher=needs_key, on_credentials=needs_key.on_credentials) as client:
        client.send(request(0, "initialize", INITIALIZE))
        await client.response(0)
        assert needs_key.client is None
    async with Client(dispatcher=needs_key, on_credentials=needs_key.on_credentials) as client:
        client.send(request(0, "initialize", WITH_CREDENTIALS))
        await client.response(0)
        client.send(request(1, "chat"))
        await quiet()
        sent = json.loads(client.pipe.lines[-1])
        client.pipe.feed(encode({"jsonrpc": "2.0", "id": sent["id"], "result": "sk-1"}))
        assert (await client.response(1))["result"] == "sk-1"
        client.send(request(2, "chat"))
        await quiet()
        client.pipe.end_input()
        assert "closed" in (await client.response(2))["result"]
        await client.running
        client.forget()  # the general check knows no requests of the worker


# ---- any interleaving ----------------------------------------------------------------------------------------------------------


class AnyConversation(RuleBasedStateMachine):
    """Whatever a client, a provider and a signal do in whatever order: every request gets one response and the server ends."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=TimelessLoop)
        self.next_id = 0
        self.unsure: set[int | str] = set()  # sent when the server may already have ended
        self.input_open = self.accepts = True
        self.pipe_broken = False

    def do(self, *actions: Any, turns: int = 0) -> None:
        async def act() -> None:
            for action in actions:
                action()
            for _ in range(turns):
                await asyncio.sleep(0)

        self.runner.run(act())

    @initialize(loaded=st.booleans(), warm=st.booleans(), limit=st.sampled_from([3, 256]))
    def start(self, loaded: bool, warm: bool, limit: int) -> None:
        async def make() -> Client:
            return Client(loaded=loaded, warm=warm, max_in_flight=limit)

        self.client = self.runner.run(make())

    def new_id(self) -> int | str:
        self.next_id += 1
        return self.next_id if self.next_id % 2 else f"s{self.next_id}"

    def send(self, messages: list[Any], turns: int) -> None:
        if not self.accepts:
            self.unsure |= {member["id"] for m in messages for member in (m if isinstance(m, list) else [m]) if "id" in member}
        self.do(lambda: self.client.send(*messages), turns=turns)

    def a_message(self, what: str) -> Any:
        match what:
            case "ping":
                return request(self.new_id(), "ping")
            case "unknown":
                return request(self.new_id(), "no/such/method")
            case "invalid":
                return request(self.new_id(), "chat", {"model": 1})
            case "nonsense":
                return {"jsonrpc": "2.0", "method": "notifications/nonsense"}
            case "offline":
                return chat_message(self.new_id(), model="offline/echo", stream=True)
            case model:
                return chat_message(self.new_id(), stream=model.endswith("+"), model=model.rstrip("+"))

    kinds = st.sampled_from(["ping", "unknown", "invalid", "nonsense", "offline", "scripted", "scripted+", "stubborn", "stubborn+"])
    turns = st.integers(0, 12)

    @precondition(lambda self: self.input_open)
    @rule(whats=st.lists(kinds, min_size=1, max_size=4), batch=st.booleans(), turns=turns)
    def requests(self, whats: list[str], batch: bool, turns: int) -> None:
        messages = [self.a_message(what) for what in whats]
        self.send([messages] if batch else messages, turns)

    @precondition(lambda self: self.input_open)
    @rule(data=st.data(), same_read=st.booleans(), turns=turns)
    def cancel(self, data: st.DataObject, same_read: bool, turns: int) -> None:
        if same_read or not self.client.sent:
            message = self.a_message("scripted+")
            self.send([message, cancel_message(message["id"])], turns)
        else:
            self.send([cancel_message(data.draw(st.sampled_from(self.client.sent)))], turns)

    @precondition(lambda self: self.input_open and self.client.model.chats)
    @rule(data=st.data(), wait=st.sampled_from([0.0, 1.0, 3.0]), turns=turns)
    def cancel_a_chat_that_may_still_speak(self, data: st.DataObject, wait: float, turns: int) -> None:
        text = data.draw(st.sampled_from(sorted(self.client.model.chats)))
        self.send([cancel_message(int(text) if text.isdigit() else text)], turns)
        self.runner.run(asyncio.sleep(wait))
        self.do(lambda: self.client.model.chats[text].emit("late "), turns=turns)

    @precondition(lambda self: self.client.model.chats)
    @rule(data=st.data(), what=st.sampled_from(["say", "flood", "finish", "fail", "interrupt", "break"]), turns=turns)
    def model_acts(self, data: st.DataObject, what: str, turns: int) -> None:
        chat = self.client.model.chats[data.draw(st.sampled_from(sorted(self.client.model.chats)))]
        acts = {
            "say": lambda: chat.emit("one ", "two "),
            "flood": lambda: chat.emit(*["x" * 60_000] * 8),
            "finish": chat.finish,
            "fail": lambda: chat.fail(BridgeError("rate_limited", "slower")),
            "interrupt": lambda: chat.fail(BridgeError("stream_interrupted", "broke off")),
            "break": lambda: chat.fail(RuntimeError("a fault")),
        }
        self.do(acts[what], turns=turns)

    @rule(turns=turns)
    def engine_moves_on(self, turns: int) -> None:
        self.do(self.client.engine.warm.set if self.client.engine.loaded.is_set() else self.client.engine.loaded.set, turns=turns)

    @rule(what=st.sampled_from(["stop", "one", "all"]), turns=turns)
    def reader(self, what: str, turns: int) -> None:
        pipe = self.client.pipe
        self.do({"stop": pipe.stop_reading, "one": lambda: pipe.read_on(1), "all": pipe.read_on}[what], turns=turns)

    @rule(seconds=st.sampled_from([0.001, 1.0, 3.0]))
    def time_passes(self, seconds: float) -> None:
        self.runner.run(asyncio.sleep(seconds))

    @precondition(lambda self: self.input_open)
    @rule(mode=st.sampled_from(["drain", "cancel", "now"]), turns=turns)
    def shutdown(self, mode: str, turns: int) -> None:
        self.send([request(self.new_id(), "shutdown", {"mode": mode})], turns)
        self.accepts = self.accepts and mode == "now"

    @precondition(lambda self: self.input_open)
    @rule(turns=turns)
    def input_ends(self, turns: int) -> None:
        self.input_open = False
        self.do(self.client.pipe.end_input, turns=turns)

    @rule(turns=turns)
    def signal(self, turns: int) -> None:
        self.accepts = False
        self.unsure |= set(self.client.sent) if self.client.pipe.unread_input else set()
        self.do(self.client.server.stop, turns=turns)

    @rule(turns=turns)
    @precondition(lambda self: self.next_id > 6)
    def pipe_breaks(self, turns: int) -> None:
        self.pipe_broken = True
        self.accepts = False
        self.do(self.client.pipe.break_off, turns=turns)

    def teardown(self) -> None:
        if not hasattr(self, "client"):
            return
        try:
            self.runner.run(asyncio.wait_for(self.come_to_an_end(), 3600))
        finally:
            self.runner.close()

    async def come_to_an_end(self) -> None:
        client = self.client
        client.engine.loaded.set()
        client.engine.warm.set()
        client.pipe.read_on()
        client.pipe.end_input()
        while not client.running.done():
            for chat in client.model.chats.values():
                chat.finish()
            await quiet()
        for chat in client.model.chats.values():
            chat.relent()
        assert (
            client.running.result() == (EXIT_BROKEN if self.pipe_broken else EXIT_DRAINED) or self.pipe_broken or not self.accepts
        )
        if self.pipe_broken:
            client.check(is_allowed=lambda times: times <= 1)
            return
        sure = [id for id in client.sent if id not in self.unsure]
        client.check(is_allowed=lambda times: times <= 1)
        missing = [id for id in sure if not client.responses_to(id)]
        assert not missing, f"never answered: {missing}"


TestAnyConversation = AnyConversation.TestCase
TestAnyConversation.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)


def test_the_pipe_in_memory_keeps_the_seams_promises() -> None:
    async def promises() -> None:
        pipe = MemoryPipe()
        pipe.stop_reading()
        pipe.write(b"1\n")
        assert pipe.queued() == 2
        await pipe.drained(2)
        waits = asyncio.ensure_future(pipe.drained(0))
        await quiet()
        assert not waits.done()
        pipe.break_off()
        await waits
        await pipe.broken()
        pipe.write(b"2\n")
        assert pipe.queued() == 2
        pipe.end_input()
        assert await pipe.read() == await pipe.read() == b""

    with asyncio.Runner(loop_factory=TimelessLoop) as runner:
        runner.run(promises())
