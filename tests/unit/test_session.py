"""The envelope, the lifecycle and the ids in flight, message by message: no task, no byte."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bridge_worker.errors import MAX_NAME_LENGTH, BridgeError
from bridge_worker.protocol import mcp_envelope
from bridge_worker.protocol.lifecycle_table import LIFECYCLE, Action, Input, State
from bridge_worker.protocol.session import (
    MCP_VERSIONS,
    PROTOCOL_VERSION,
    Cancel,
    ClientInitialized,
    Drain,
    Event,
    Send,
    Session,
    Start,
    response,
)
from bridge_worker.version import __version__
from tests.support.data import Json

ENGINE = {"name": "litellm", "version": None, "ready": False}
INITIALIZE = {"protocolVersion": PROTOCOL_VERSION, "clientInfo": {"name": "test", "version": "1"}}


def session(state: State = State.OPEN, *, max_in_flight: int = 256) -> Session:
    """A session that came to ``state`` by messages."""
    session = Session(lambda: ENGINE, max_message_bytes=1000, max_in_flight=max_in_flight)
    if state is State.INITIALIZED:
        session.receive(request("initialize", INITIALIZE, id="greeting"))
    if state is State.DRAINING:
        session.drain()
    assert session.state is state
    return session


def request(method: object = "chat", params: object = None, id: object = 1) -> Json:
    return {"jsonrpc": "2.0", "id": id, "method": method, "params": {} if params is None else params}


def notification(method: str, params: object = None) -> Json:
    return {"jsonrpc": "2.0", "method": method, "params": {} if params is None else params}


def cancelled(id: object) -> Json:
    return notification("notifications/cancelled", {"requestId": id})


def sent(events: list[Event]) -> list[Any]:
    """The lines that the events write; fails the test for any event that writes none."""
    assert all(isinstance(event, Send) for event in events), events
    return [event.value for event in events if isinstance(event, Send)]


def error_of(events: list[Event]) -> tuple[object, int, str]:
    """(id, code, kind) of the one error that the events write."""
    (line,) = sent(events)
    error = line["error"]
    assert set(line) == {"jsonrpc", "id", "error"}
    assert error["message"]
    return line["id"], error["code"], error["data"]["kind"]


# --- the lifecycle table -----------------------------------------------------------------------------------------------------

MESSAGE: dict[Input, Json] = {
    Input.INITIALIZE: request("initialize", INITIALIZE),
    Input.PING: request("ping"),
    Input.SHUTDOWN: request("shutdown"),
    Input.DISCOVER: request("server/discover"),
    Input.REQUEST: request("chat"),
    Input.CANCELLED: cancelled("running"),
    Input.NOTIFICATION: notification("notifications/whatever"),
}


def check_initialized(events: list[Event]) -> None:
    assert sent(events[:1])[0]["result"]["protocolVersion"] == PROTOCOL_VERSION
    assert events[1:] == [ClientInitialized(None, True)]


# What each action looks like from outside.
EFFECT = {
    Action.INITIALIZE: check_initialized,
    Action.PONG: lambda events: check(sent(events) == [response(1, {})]),
    Action.DISCOVER: lambda events: check(sent(events) == [response(1, mcp_envelope.discover_result({}))]),
    Action.START: lambda events: check(events == [Start(1, "chat", {})]),
    Action.CANCEL: lambda events: check(events == [Cancel("running")]),
    Action.IGNORE: lambda events: check(events == []),
    Action.DRAIN: lambda events: check(events == [Drain(cancel=False)]),
    Action.REFUSE_INITIALIZED: lambda events: check(error_of(events) == (1, -32600, "invalid_message")),
    Action.REFUSE_DRAINING: lambda events: check(error_of(events) == (1, 1013, "shutting_down")),
}


def check(holds: bool) -> None:
    assert holds


# The table once more, as DESIGN has it in words; a change of the lifecycle is made in both.
EXPECTED = {
    (State.OPEN, Input.INITIALIZE): (Action.INITIALIZE, State.INITIALIZED),
    (State.OPEN, Input.PING): (Action.PONG, State.OPEN),
    (State.OPEN, Input.SHUTDOWN): (Action.DRAIN, State.DRAINING),
    (State.OPEN, Input.DISCOVER): (Action.DISCOVER, State.OPEN),
    (State.OPEN, Input.REQUEST): (Action.START, State.OPEN),
    (State.OPEN, Input.CANCELLED): (Action.CANCEL, State.OPEN),
    (State.OPEN, Input.NOTIFICATION): (Action.IGNORE, State.OPEN),
    (State.INITIALIZED, Input.INITIALIZE): (Action.REFUSE_INITIALIZED, State.INITIALIZED),
    (State.INITIALIZED, Input.PING): (Action.PONG, State.INITIALIZED),
    (State.INITIALIZED, Input.SHUTDOWN): (Action.DRAIN, State.DRAINING),
    (State.INITIALIZED, Input.DISCOVER): (Action.DISCOVER, State.INITIALIZED),
    (State.INITIALIZED, Input.REQUEST): (Action.START, State.INITIALIZED),
    (State.INITIALIZED, Input.CANCELLED): (Action.CANCEL, State.INITIALIZED),
    (State.INITIALIZED, Input.NOTIFICATION): (Action.IGNORE, State.INITIALIZED),
    (State.DRAINING, Input.INITIALIZE): (Action.REFUSE_DRAINING, State.DRAINING),
    (State.DRAINING, Input.PING): (Action.PONG, State.DRAINING),
    (State.DRAINING, Input.SHUTDOWN): (Action.DRAIN, State.DRAINING),
    (State.DRAINING, Input.DISCOVER): (Action.REFUSE_DRAINING, State.DRAINING),
    (State.DRAINING, Input.REQUEST): (Action.REFUSE_DRAINING, State.DRAINING),
    (State.DRAINING, Input.CANCELLED): (Action.CANCEL, State.DRAINING),
    (State.DRAINING, Input.NOTIFICATION): (Action.IGNORE, State.DRAINING),
}


def test_the_lifecycle_table_has_a_row_for_every_state_and_input_and_no_other() -> None:
    assert set(LIFECYCLE) == set(itertools.product(State, Input))
    assert set(MESSAGE) == set(Input)
    assert set(EFFECT) == set(Action) == {action for action, _ in LIFECYCLE.values()}


@pytest.mark.rule("LIF-7", "LIF-10", "LIF-14")
@pytest.mark.parametrize(("state", "input"), LIFECYCLE, ids=lambda value: value.value)
def test_each_row_of_the_lifecycle_table(state: State, input: Input) -> None:
    assert LIFECYCLE[state, input] == EXPECTED[state, input]
    peer = session()
    peer.receive(request("chat", id="running"))
    if state is State.INITIALIZED:
        peer.receive(request("initialize", INITIALIZE, id="greeting"))
    elif state is State.DRAINING:
        peer.drain()
    action, next_state = EXPECTED[state, input]
    EFFECT[action](peer.receive(MESSAGE[input]))
    assert peer.state is next_state


@pytest.mark.rule("RPC-2")
@pytest.mark.parametrize("method", ["initialize", "ping", "shutdown", "chat"])
def test_a_request_method_sent_as_a_notification_does_nothing(method: str) -> None:
    peer = session()
    assert peer.receive(notification(method, INITIALIZE)) == []
    assert peer.state is State.OPEN


def test_a_notification_sent_as_a_request_is_run_as_any_other_method() -> None:
    assert session().receive(request("notifications/cancelled", {"requestId": 2})) == [
        Start(1, "notifications/cancelled", {"requestId": 2})
    ]


# --- the envelope ------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("RPC-3")
@pytest.mark.parametrize("id", [0, 1, -1, 2**63, 10**30, "", "1", "a", "\ud800", "x" * 1000])
def test_an_id_of_any_string_or_integer_is_echoed_as_it_came(id: object) -> None:
    (line,) = sent(session().receive(request("ping", id=id)))
    assert line == {"jsonrpc": "2.0", "id": id, "result": {}}
    assert type(line["id"]) is type(id)


@pytest.mark.rule("RPC-4")
@pytest.mark.parametrize("id", [None, True, False, 1.0, 1.5, [], [1], {}, {"id": 1}])
def test_an_id_of_another_type_is_an_invalid_message_with_id_null(id: object) -> None:
    assert error_of(session().receive(request("ping", id=id))) == (None, -32600, "invalid_message")


@pytest.mark.rule("RPC-6")
@pytest.mark.parametrize("value", [None, True, 1, 1.5, "ping", ""])
def test_a_value_that_is_not_an_object_is_an_invalid_message(value: object) -> None:
    assert error_of(session().receive(value)) == (None, -32600, "invalid_message")


BAD_ENVELOPES = [
    pytest.param({"method": "ping"}, id="jsonrpc is missing"),
    pytest.param({"jsonrpc": "1.0", "method": "ping"}, id="jsonrpc is 1.0"),
    pytest.param({"jsonrpc": 2.0, "method": "ping"}, id="jsonrpc is a number"),
    pytest.param({"jsonrpc": None, "method": "ping"}, id="jsonrpc is null"),
    pytest.param({"jsonrpc": ["2.0"], "method": "ping"}, id="jsonrpc is a list"),
    pytest.param({"jsonrpc": "2.0"}, id="method is missing"),
    pytest.param({"jsonrpc": "2.0", "method": 1}, id="method is a number"),
    pytest.param({"jsonrpc": "2.0", "method": None}, id="method is null"),
    pytest.param({"jsonrpc": "2.0", "method": ["ping"]}, id="method is a list"),
    pytest.param({"jsonrpc": "2.0", "method": {}}, id="method is an object"),
    pytest.param({"jsonrpc": "2.0", "method": "ping", "params": 1}, id="params is a number"),
    pytest.param({"jsonrpc": "2.0", "method": "ping", "params": "x"}, id="params is a string"),
    pytest.param({"jsonrpc": "2.0", "method": "ping", "params": False}, id="params is false"),
]


@pytest.mark.rule("RPC-6")
@pytest.mark.parametrize("envelope", BAD_ENVELOPES)
@pytest.mark.parametrize("id", [7, "seven"])
def test_a_faulty_envelope_is_an_invalid_message_that_echoes_a_legible_id(envelope: Json, id: object) -> None:
    assert error_of(session().receive(envelope | {"id": id})) == (id, -32600, "invalid_message")


@pytest.mark.rule("RPC-6")
@pytest.mark.parametrize("envelope", BAD_ENVELOPES)
def test_the_response_to_a_faulty_envelope_without_an_id_has_id_null(envelope: Json) -> None:
    assert error_of(session().receive(envelope)) == (None, -32600, "invalid_message")


def test_an_empty_object_is_an_invalid_message() -> None:
    assert error_of(session().receive({})) == (None, -32600, "invalid_message")


@pytest.mark.rule("RPC-8")
@pytest.mark.parametrize("params", [[1], [{"model": "x"}], [[]]])
def test_positional_params_are_invalid_params(params: object) -> None:
    assert error_of(session().receive(request("chat", params))) == (1, -32602, "invalid_request")


@pytest.mark.rule("RPC-2")
def test_positional_params_of_a_notification_get_no_response() -> None:
    assert session().receive(notification("notifications/cancelled", [1])) == []


@pytest.mark.rule("RPC-7")
@pytest.mark.parametrize("message", [{"params": None}, {"params": []}, {"params": {}}, {}])
def test_empty_params_may_be_omitted_null_or_empty(message: Json) -> None:
    assert session().receive({"jsonrpc": "2.0", "id": 1, "method": "chat", **message}) == [Start(1, "chat", {})]


@pytest.mark.rule("RPC-9")
@pytest.mark.parametrize("member", [{"_meta": {"traceparent": "00"}}, {"result": 1}, {"error": {}}, {"": None}])
def test_an_unknown_member_of_the_envelope_is_ignored(member: Json) -> None:
    assert session().receive(request("chat") | member) == [Start(1, "chat", {})]


@pytest.mark.rule("RPC-11")
@pytest.mark.parametrize("id", [1, "1", None, 1.5])
@pytest.mark.parametrize("outcome", [{"result": {}}, {"result": None}, {"error": {"code": 1, "message": "no"}}])
def test_a_response_is_ignored_because_nothing_was_requested(id: object, outcome: Json) -> None:
    peer = session()
    peer.receive(request("chat", id=1))
    assert peer.receive({"jsonrpc": "2.0", "id": id, **outcome}) == []
    assert peer.in_flight == 1


def test_the_response_to_an_unreadable_line_has_id_null() -> None:
    assert error_of(session().refuse(BridgeError("parse_error", "not JSON"))) == (None, -32700, "parse_error")


@pytest.mark.rule("ERR-1")
def test_an_error_on_the_wire_has_the_standard_shape() -> None:
    (line,) = sent(session().receive(request("ping", id=None)))
    assert line["jsonrpc"] == "2.0"
    assert set(line["error"]) == {"code", "message", "data"}
    assert set(line["error"]["data"]) == {"kind", "retryable", "retry_after_ms", "provider", "model", "status"}


# --- ids in flight -----------------------------------------------------------------------------------------------------------


@pytest.mark.rule("RPC-3")
def test_the_number_1_and_the_string_1_are_two_ids() -> None:
    peer = session()
    assert peer.receive(request(id=1)) == [Start(1, "chat", {})]
    assert peer.receive(request(id="1")) == [Start("1", "chat", {})]
    assert peer.in_flight == 2
    assert peer.receive(cancelled("1")) == [Cancel("1")]
    assert sent(peer.respond("1", response("1", "b"))) == [response("1", "b")]
    assert sent(peer.respond(1, response(1, "a"))) == [response(1, "a")]


@pytest.mark.rule("RPC-5")
@pytest.mark.parametrize("method", ["chat", "ping", "initialize", "shutdown", "nonsense"])
def test_a_duplicate_of_an_id_in_flight_is_refused_and_leaves_the_first_untouched(method: str) -> None:
    peer = session()
    peer.receive(request(id=1))
    assert error_of(peer.receive(request(method, INITIALIZE, id=1))) == (1, -32600, "invalid_message")
    assert peer.in_flight == 1
    assert peer.state is State.OPEN
    assert sent(peer.respond(1, response(1, "first"))) == [response(1, "first")]


@pytest.mark.rule("RPC-5")
def test_a_duplicate_of_a_shutdown_that_waits_is_refused() -> None:
    peer = session()
    peer.receive(request("shutdown", id=1))
    assert error_of(peer.receive(request("ping", id=1))) == (1, -32600, "invalid_message")
    assert sent(peer.end()) == [response(1, {})]


@pytest.mark.rule("CAN-4")
def test_an_id_may_be_used_again_after_its_response() -> None:
    peer = session()
    for _ in range(3):
        assert peer.receive(request(id=1)) == [Start(1, "chat", {})]
        assert sent(peer.respond(1, response(1, "a"))) == [response(1, "a")]
        assert peer.receive(request("ping", id=1)) == [Send(response(1, {}))]


@pytest.mark.rule("RPC-1")
def test_a_second_response_to_the_same_request_is_not_written() -> None:
    peer = session()
    peer.receive(request(id=1))
    assert sent(peer.respond(1, response(1, "a"))) == [response(1, "a")]
    assert peer.respond(1, response(1, "b")) == []
    assert peer.respond("never", response("never", "c")) == []


@pytest.mark.rule("ERR-8")
def test_one_request_more_than_the_limit_is_overloaded_until_another_gets_its_response() -> None:
    peer = session(max_in_flight=2)
    peer.receive(request(id=1))
    peer.receive(request(id=2))
    assert error_of(peer.receive(request(id=3))) == (3, 1012, "overloaded")
    assert sent(peer.receive(request("ping", id=3))) == [response(3, {})]
    assert peer.receive(cancelled(1)) == [Cancel(1)]
    peer.respond(1, response(1, None))
    assert peer.receive(request(id=3)) == [Start(3, "chat", {})]
    assert peer.in_flight == 2


@pytest.mark.rule("ERR-8")
def test_a_full_worker_can_still_be_shut_down() -> None:
    peer = session(max_in_flight=1)
    peer.receive(request(id=1))
    assert peer.receive(request("shutdown", id=2)) == [Drain(cancel=False)]


# --- cancel ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("params", [{"requestId": 1}, {"requestId": 1, "reason": "enough"}, {"requestId": 1, "_meta": {}}])
def test_a_cancel_names_the_request_in_flight(params: Json) -> None:
    peer = session()
    peer.receive(request(id=1))
    assert peer.receive(notification("notifications/cancelled", params)) == [Cancel(1)]
    assert peer.in_flight == 1  # it must still get a response


@pytest.mark.rule("CAN-5")
@pytest.mark.parametrize("id", [2, "1", True, 1.0, None, [], [1], {}, {"id": 1}])
def test_a_cancel_of_anything_else_is_ignored(id: object) -> None:
    peer = session()
    peer.receive(request(id=1))
    assert peer.receive(cancelled(id)) == []
    assert peer.in_flight == 1


@pytest.mark.rule("CAN-5")
def test_a_cancel_without_a_request_id_is_ignored() -> None:
    peer = session()
    peer.receive(request(id=1))
    assert peer.receive(notification("notifications/cancelled")) == []


@pytest.mark.rule("CAN-5")
def test_a_cancel_of_a_finished_request_is_ignored() -> None:
    peer = session()
    peer.receive(request(id=1))
    peer.respond(1, response(1, None))
    assert peer.receive(cancelled(1)) == []


@pytest.mark.rule("CAN-7")
def test_a_request_is_cancelled_by_the_notification_of_lsp_too() -> None:
    peer = session()
    peer.receive(request(id=1))
    assert peer.receive(notification("$/cancelRequest", {"requestId": 1})) == []
    assert peer.receive(notification("$/cancelRequest", {"id": "1"})) == []
    assert peer.receive(notification("notifications/cancelled", {"id": 1})) == []
    assert peer.receive(notification("$/cancelRequest", {"id": 1})) == [Cancel(1)]


def test_a_shutdown_that_waits_can_not_be_cancelled() -> None:
    peer = session()
    peer.receive(request("shutdown", id=1))
    assert peer.receive(cancelled(1)) == []
    assert sent(peer.end()) == [response(1, {})]


# --- initialize --------------------------------------------------------------------------------------------------------------


def initialize(**params: object) -> list[Event]:
    return session().receive(request("initialize", params))


@pytest.mark.rule("LIF-3")
def test_initialize_returns_name_version_limits_and_engine() -> None:
    peer = Session(lambda: ENGINE, max_message_bytes=12345, max_in_flight=67)
    (line,) = sent(peer.receive(request("initialize", INITIALIZE))[:1])
    assert line["result"] == {
        "protocolVersion": "omni-bridge/1",
        "serverInfo": {"name": "omni-bridge", "version": __version__},
        "capabilities": {},
        "limits": {"maxMessageBytes": 12345, "maxInFlight": 67},
        "engine": ENGINE,
    }


@pytest.mark.rule("LIF-4", "LIF-8")
@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"])
def test_an_mcp_revision_is_echoed_and_its_client_gets_no_ready(version: str) -> None:
    events = initialize(protocolVersion=version)
    assert sent(events[:1])[0]["result"]["protocolVersion"] == version
    assert events[1:] == [ClientInitialized(None, False)]
    assert version in MCP_VERSIONS


@pytest.mark.rule("LIF-4")
@pytest.mark.parametrize("version", ["2026-07-28", "2031-01-01", "1.0", "", "omni-bridge"])
def test_a_revision_that_is_unknown_gets_the_newest_that_is_known(version: str) -> None:
    events = initialize(protocolVersion=version)
    result = sent(events[:1])[0]["result"]
    assert (result["protocolVersion"], result["capabilities"]) == ("2025-11-25", {"tools": {}})
    assert events[1:] == [ClientInitialized(None, False)]


@pytest.mark.rule("LIF-4")
@pytest.mark.parametrize("version", ["omni-bridge/1", "omni-bridge/2", "omni-bridge/"])
def test_a_version_of_the_bridge_gets_the_bridges_own(version: str) -> None:
    events = initialize(protocolVersion=version)
    assert sent(events[:1])[0]["result"]["protocolVersion"] == "omni-bridge/1"
    assert events[1:] == [ClientInitialized(None, True)]


@pytest.mark.rule("LIF-6")
@pytest.mark.parametrize("version", [None, 1, 1.0, True, [], {}, ["2025-06-18"]])
def test_a_protocol_version_that_is_not_a_string_is_refused(version: object) -> None:
    assert error_of(initialize(protocolVersion=version)) == (1, -32602, "invalid_request")


@pytest.mark.rule("LIF-6")
def test_initialize_without_a_protocol_version_is_refused_and_may_be_tried_again() -> None:
    peer = session()
    assert error_of(peer.receive(request("initialize"))) == (1, -32602, "invalid_request")
    assert peer.state is State.OPEN
    check_initialized(peer.receive(request("initialize", INITIALIZE)))


@pytest.mark.parametrize("process_id", [1, 4711, 2**31 - 1])
def test_a_process_id_is_handed_on(process_id: int) -> None:
    assert initialize(**INITIALIZE, processId=process_id)[1:] == [ClientInitialized(process_id, True)]


@pytest.mark.rule("LIF-6")
@pytest.mark.parametrize("process_id", [0, -1, 2**31, 10**30, True, False, 1.0, 1.5, "1", "", [], {}])
def test_a_process_id_that_can_not_be_one_is_refused(process_id: object) -> None:
    assert error_of(initialize(**INITIALIZE, processId=process_id)) == (1, -32602, "invalid_request")


def test_a_process_id_of_null_is_none() -> None:
    assert initialize(**INITIALIZE, processId=None)[1:] == [ClientInitialized(None, True)]


@pytest.mark.rule("LIF-5")
@pytest.mark.parametrize("extra", [{"clientInfo": 5}, {"capabilities": {"roots": {}}}, {"_meta": {}}, {"rootUri": None}])
def test_what_else_a_client_of_another_protocol_sends_is_ignored(extra: Json) -> None:
    check_initialized(initialize(**(INITIALIZE | extra)))


# --- shutdown ----------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("LIF-11", "LIF-12")
@pytest.mark.parametrize(("params", "cancel"), [({}, False), ({"mode": "drain"}, False), ({"mode": "cancel"}, True)])
def test_the_shutdown_response_follows_those_of_all_requests_in_flight(params: Json, cancel: bool) -> None:
    peer = session()
    peer.receive(request(id=1))
    assert peer.receive(request("shutdown", params, id=2)) == [Drain(cancel=cancel)]
    assert sent(peer.respond(1, response(1, "a"))) == [response(1, "a")]
    assert sent(peer.end()) == [response(2, {})]
    assert peer.end() == []


@pytest.mark.rule("LIF-13")
@pytest.mark.parametrize("mode", ["", "now", None, 1, True, [], {}, ["drain"]])
def test_an_unknown_mode_of_shutdown_is_refused_and_nothing_ends(mode: object) -> None:
    peer = session()
    assert error_of(peer.receive(request("shutdown", {"mode": mode}))) == (1, -32602, "invalid_request")
    assert peer.state is State.OPEN
    assert peer.end() == []


def test_a_second_shutdown_may_be_more_urgent_and_both_get_a_response() -> None:
    peer = session()
    peer.receive(request(id=1))
    assert peer.receive(request("shutdown", id=2)) == [Drain(cancel=False)]
    assert peer.receive(request("shutdown", {"mode": "cancel"}, id=3)) == [Drain(cancel=True)]
    peer.respond(1, response(1, None))
    assert sent(peer.end()) == [response(2, {}), response(3, {})]


@pytest.mark.rule("LIF-14")
def test_while_draining_requests_are_refused_and_those_in_flight_go_on() -> None:
    peer = session()
    peer.receive(request(id=1))
    peer.receive(request("shutdown", id=2))
    assert error_of(peer.receive(request(id=3))) == (3, 1013, "shutting_down")
    assert error_of(peer.receive(request("initialize", INITIALIZE, id=3))) == (3, 1013, "shutting_down")
    assert sent(peer.receive(request("ping", id=3))) == [response(3, {})]
    assert peer.receive(cancelled(1)) == [Cancel(1)]
    assert sent(peer.respond(1, response(1, "a"))) == [response(1, "a")]


def test_after_the_end_of_input_no_unrequested_response_is_owed() -> None:
    peer = session()
    peer.drain()
    assert peer.end() == []


# --- batches -----------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("BAT-3")
def test_an_empty_batch_is_one_error_and_no_array() -> None:
    assert error_of(session().receive([])) == (None, -32600, "invalid_message")


@pytest.mark.rule("BND-4")
def test_a_batch_over_the_limit_is_one_error_and_starts_nothing() -> None:
    peer = session()
    assert error_of(peer.receive([request(id=number) for number in range(1_001)])) == (None, -32600, "invalid_message")
    assert peer.in_flight == 0


@pytest.mark.rule("BAT-1")
def test_a_batch_with_immediate_responses_is_one_array() -> None:
    events = session().receive([request("ping", id=1), request("ping", id="b")])
    assert sent(events) == [[response(1, {}), response("b", {})]]


@pytest.mark.rule("BAT-1")
def test_the_response_to_a_batch_of_one_is_an_array_of_one() -> None:
    assert sent(session().receive([request("ping")])) == [[response(1, {})]]


@pytest.mark.rule("BAT-2")
@pytest.mark.parametrize(
    "batch",
    [
        [notification("a"), notification("b")],
        [cancelled(5)],
        [{"jsonrpc": "2.0", "id": 1, "result": {}}],
        [notification("a", [1])],
    ],
)
def test_a_batch_of_notifications_gets_no_response(batch: list[Json]) -> None:
    assert session().receive(batch) == []


@pytest.mark.rule("BAT-4")
def test_each_invalid_member_of_a_batch_gets_its_own_error() -> None:
    ((first, second, third, fourth),) = sent(session().receive([1, [], {"id": 5, "method": "ping"}, request("ping", id=6)]))
    assert [(line["id"], line["error"]["code"]) for line in (first, second, third)] == [(None, -32600), (None, -32600), (5, -32600)]
    assert fourth == response(6, {})


@pytest.mark.rule("BAT-1")
def test_a_batch_is_written_once_with_its_last_members_response() -> None:
    peer = session()
    batch = [request(id=1), request("ping", id=2), notification("x"), request(id=3), "nonsense"]
    assert peer.receive(batch) == [Start(1, "chat", {}), Start(3, "chat", {})]
    assert peer.respond(3, response(3, "c")) == []
    assert peer.respond(3, response(3, "again")) == []
    ((*lines,),) = sent(peer.respond(1, response(1, "a")))
    assert len(lines) == 4
    assert [line for line in lines if "result" in line] == [response(2, {}), response(3, "c"), response(1, "a")]
    assert [line["error"]["code"] for line in lines if "error" in line] == [-32600]
    assert peer.in_flight == 0


def test_a_batch_is_not_written_while_its_own_line_is_still_being_read() -> None:
    peer = session()
    events = peer.receive([request("ping", id=1), request(id=2), request("ping", id=3)])
    assert events == [Start(2, "chat", {})]
    assert sent(peer.respond(2, response(2, "b"))) == [[response(1, {}), response(3, {}), response(2, "b")]]


@pytest.mark.rule("RPC-5")
def test_a_duplicate_inside_a_batch_is_refused_and_the_first_continues() -> None:
    peer = session()
    assert peer.receive([request(id=1), request(id=1)]) == [Start(1, "chat", {})]
    ((refusal, result),) = sent(peer.respond(1, response(1, "a")))
    assert (refusal["id"], refusal["error"]["code"]) == (1, -32600)
    assert result == response(1, "a")


def test_an_id_with_an_immediate_response_is_free_for_the_next_member_of_the_batch() -> None:
    assert sent(session().receive([request("ping"), request("ping")])) == [[response(1, {}), response(1, {})]]


def test_a_batch_beyond_the_limit_of_requests_in_flight_is_cut_there() -> None:
    peer = session(max_in_flight=1)
    assert peer.receive([request(id=1), request(id=2)]) == [Start(1, "chat", {})]
    ((refusal, result),) = sent(peer.respond(1, response(1, "a")))
    assert (refusal["id"], refusal["error"]["code"]) == (2, 1012)
    assert result == response(1, "a")


def test_a_request_can_be_cancelled_later_in_its_own_batch_and_from_outside() -> None:
    peer = session()
    assert peer.receive([request(id=1), cancelled(1)]) == [Start(1, "chat", {}), Cancel(1)]
    assert peer.receive(cancelled(1)) == [Cancel(1)]
    assert sent(peer.respond(1, response(1, "a"))) == [[response(1, "a")]]


def test_two_batches_do_not_mix() -> None:
    peer = session()
    peer.receive([request(id=1), request(id=2)])
    peer.receive([request(id=3), request(id=4)])
    assert peer.respond(1, response(1, "a")) == []
    assert peer.respond(3, response(3, "c")) == []
    assert sent(peer.respond(4, response(4, "d"))) == [[response(3, "c"), response(4, "d")]]
    assert sent(peer.respond(2, response(2, "b"))) == [[response(1, "a"), response(2, "b")]]


def test_a_batch_with_shutdown_is_written_at_the_end() -> None:
    peer = session()
    events = peer.receive([request(id=1), request("shutdown", id=2), request(id=3)])
    assert events == [Start(1, "chat", {}), Drain(cancel=False)]
    assert peer.respond(1, response(1, "a")) == []
    ((refusal, first, last),) = sent(peer.end())
    assert (refusal["id"], refusal["error"]["code"]) == (3, 1013)
    assert [first, last] == [response(1, "a"), response(2, {})]


def test_initialize_may_be_part_of_a_batch() -> None:
    peer = session()
    initialized, send = peer.receive([request("initialize", INITIALIZE), notification("notifications/initialized")])
    assert initialized == ClientInitialized(None, True)
    assert sent([send])[0][0]["id"] == 1


# --- for any sequence --------------------------------------------------------------------------------------------------------

ids = st.sampled_from([1, 2, 3, "1", "2", ""])
methods = st.sampled_from(["chat", "ping", "initialize", "shutdown", "nonsense"])
some_params = st.sampled_from([{}, {"mode": "cancel"}, {"mode": "no"}, INITIALIZE, {"protocolVersion": 1}, None, []])
requests_with_id = st.builds(request, methods, some_params, ids)
faulty_with_id = st.one_of(
    st.builds(lambda an_id: {"id": an_id, "method": "ping"}, ids),
    st.builds(lambda an_id: request(5, id=an_id), ids),
    st.builds(lambda an_id: request("chat", 5, id=an_id), ids),
    st.builds(lambda an_id: request("chat", [5], id=an_id), ids),
)
illegible = st.sampled_from([request(id=None), request(id=1.0), request(id=True), 5, None, "x", {}, {"jsonrpc": "2.0"}, [[]]])
unasked = st.one_of(
    st.builds(cancelled, ids | st.sampled_from([None, True, 1.0, []])),
    st.sampled_from(
        [notification("chat"), notification("shutdown"), notification("initialize", INITIALIZE), notification("x", [1])]
    ),
    st.builds(lambda an_id: {"jsonrpc": "2.0", "id": an_id, "result": {}}, ids),
)
any_message = st.one_of(requests_with_id, requests_with_id, faulty_with_id, illegible, unasked)


class Conversation(RuleBasedStateMachine):
    """Any messages, alone and in batches, and responses in any order. ``owed`` is what must get a response by the rules: the test's
    own count, by id, of requests that came and answers that went."""

    def __init__(self) -> None:
        super().__init__()
        self.session = Session(lambda: ENGINE, max_message_bytes=1000, max_in_flight=3)
        self.owed: Counter[object] = Counter()
        self.running: set[Any] = set()
        self.draining = False

    @rule(message=any_message)
    def a_message_comes(self, message: object) -> None:
        self.owed += owed_for(message)
        self.watch(self.session.receive(message))

    @rule(batch=st.lists(any_message, max_size=6))
    def a_batch_comes(self, batch: list[object]) -> None:
        self.owed += sum((owed_for(member) for member in batch), Counter()) if batch else Counter([None])
        self.watch(self.session.receive(batch))

    @rule()
    def a_line_comes_that_can_not_be_read(self) -> None:
        self.owed[None] += 1
        self.watch(self.session.refuse(BridgeError("parse_error", "not JSON")))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def a_request_gets_its_response(self, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from(sorted(self.running, key=repr)))
        self.running.remove(id)
        self.watch(self.session.respond(id, response(id, "done")))
        assert self.session.respond(id, response(id, "again")) == []

    @rule()
    def the_input_ends(self) -> None:
        self.session.drain()
        self.draining = True

    @invariant()
    def it_counts_what_is_in_flight(self) -> None:
        assert self.session.in_flight == len(self.running) <= 3

    def teardown(self) -> None:
        """In the end all have a response, shutdowns last; then nothing is owed."""
        for id in list(self.running):
            self.running.remove(id)
            self.watch(self.session.respond(id, response(id, "done")))
        self.watch(self.session.end())
        assert +self.owed == Counter()

    def watch(self, events: list[Event]) -> None:
        for event in events:
            match event:
                case Start(id):
                    assert id not in self.running
                    assert not self.draining
                    self.running.add(id)
                case Cancel(id):
                    assert id in self.running
                case Drain():
                    self.draining = True
                case Send(value):
                    lines = value if isinstance(value, list) else [value]
                    assert lines
                    for line in lines:
                        assert ("result" in line) != ("error" in line)
                        self.owed[key(line["id"])] -= 1
                        assert self.owed[key(line["id"])] >= 0, f"an answer that nobody asked for: {line}"


def key(id: object) -> object:
    return (type(id), id) if id is not None else None


def owed_for(message: object) -> Counter[object]:
    """By JSON-RPC alone: one response for a request or for what can't be identified; none for a notification or a response."""
    if not isinstance(message, dict):
        return Counter([None])
    if "method" not in message and ("result" in message or "error" in message):
        return Counter()
    id = message.get("id")
    if type(id) in (str, int):
        return Counter([key(id)])
    is_notification = "id" not in message and message.get("jsonrpc") == "2.0" and isinstance(message.get("method"), str)
    return Counter() if is_notification else Counter([None])


TestConversation = pytest.mark.rule("RPC-1", "RPC-2", "BAT-1")(Conversation.TestCase)
TestConversation.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


@pytest.mark.rule("FRM-5")
def test_a_line_that_could_not_be_read_takes_no_id_that_is_in_flight() -> None:
    session = Session(lambda: ENGINE, max_message_bytes=1000, max_in_flight=3)
    session.receive({"jsonrpc": "2.0", "id": 1, "method": "chat", "params": {}})
    error = BridgeError("invalid_message", "too long")
    for id, expected in ((1, None), (2, 2), (None, None)):
        (sent,) = session.refuse(error, id)
        assert isinstance(sent, Send)
        assert isinstance(sent.value, dict)
        assert sent.value["id"] == expected


@pytest.mark.rule("RPC-5")
def test_an_id_is_in_flight_until_the_array_of_its_batch_is_sent() -> None:
    """Found by simulation: deltas of a second request with the id came before the response to the first."""
    one = session()
    one.receive([request(id=1), request("ping", id=2)])
    assert error_of(one.receive(request(id=2)))[2] == "invalid_message"
    one.respond(1, {"jsonrpc": "2.0", "id": 1, "result": {}})
    assert isinstance(one.receive(request(id=2))[0], Start)


# --- limits, and MCP's silence ---------------------------------------------------------------------------------------------------


@pytest.mark.rule("BND-4")
def test_a_batch_has_at_most_a_thousand_members() -> None:
    (whole,) = sent(session().receive([request("ping", id=id) for id in range(1000)]))
    assert len(whole) == 1000
    assert error_of(session().receive([request("ping", id=id) for id in range(1001)]))[2] == "invalid_message"


@pytest.mark.rule("BND-3", "LIF-6")
def test_a_protocol_version_has_the_length_of_a_name_at_most() -> None:
    longest = "omni-bridge/" + "1" * (MAX_NAME_LENGTH - len("omni-bridge/"))
    accepted = session().receive(request("initialize", {"protocolVersion": longest}))
    assert isinstance(accepted[-1], ClientInitialized)
    assert error_of(session().receive(request("initialize", {"protocolVersion": longest + "1"})))[2] == "invalid_request"


ENVELOPE = {"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}}


@pytest.mark.rule("MCP-9")
@pytest.mark.parametrize(
    ("is_mcp", "params", "method", "is_silent"),
    [
        (True, {}, "tools/call", True),
        (True, {}, "chat", False),
        (False, ENVELOPE, "tools/call", True),
        (False, ENVELOPE, "chat", False),
        (False, {}, "tools/call", False),
    ],
)
def test_only_a_tool_call_of_an_mcp_client_gets_no_response_when_it_is_cancelled(
    is_mcp: bool, params: Json, method: str, is_silent: bool
) -> None:
    one = session()
    if is_mcp:
        one.receive(request("initialize", {"protocolVersion": MCP_VERSIONS[-1]}, id="first"))
    one.receive(request(method, params))
    assert one.receive(cancelled(1)) == [Cancel(1)]
    assert len(sent(one.respond(1, response(1, {})))) == (not is_silent)


@pytest.mark.rule("MCP-9")
def test_a_silent_member_of_a_batch_is_left_out_of_the_array_and_its_id_is_free() -> None:
    one = session()
    one.receive([request("tools/call", ENVELOPE, id=1), request(id=2)])
    one.receive(cancelled(1))
    assert one.respond(1, response(1, {})) == []
    assert isinstance(one.receive(request("chat", id=1))[0], Start)
    assert sent(one.respond(2, response(2, {}))) == [[response(2, {})]]
    one.receive([request("tools/call", ENVELOPE, id=3)])
    one.receive(cancelled(3))
    assert one.respond(3, response(3, {})) == []
