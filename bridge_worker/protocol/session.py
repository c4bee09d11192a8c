"""JSON-RPC session: lifecycle, ids in flight, batches. Sans-IO: messages in, events out.

Owns the JSON-RPC envelope and the lifecycle methods, which are handled here so that they work before any heavy import.
Refuses to know the other methods, clocks, bytes and tasks: `Start` passes a request to the server, and `Session.respond` takes the
response.

Invariants: every request with a readable id gets exactly one response, except a ``tools/call`` that an MCP client has cancelled:
MCP requires silence then. A notification gets no response. An id is in flight from its `Start` until its response is sent or
omitted, that of a batch until its array is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bridge_worker.errors import MAX_NAME_LENGTH, BridgeError
from bridge_worker.protocol import mcp_envelope
from bridge_worker.protocol.client_capabilities import CredentialsCapability, credentials_capability
from bridge_worker.protocol.envelope import check_envelope, is_response, readable_id
from bridge_worker.protocol.lifecycle_table import LIFECYCLE, Action, Input, State

PROTOCOL_VERSION = "omni-bridge/1"
MCP_VERSIONS = mcp_envelope.HANDSHAKE_REVISIONS  # a stock MCP client sends one of them and expects it back
DEFAULT_MAX_IN_FLIGHT = 256

Id = str | int
Response = dict[str, object]
Encoded = bytes  # a response that is a line already

_REQUESTS = {input.value: input for input in (Input.INITIALIZE, Input.PING, Input.SHUTDOWN, Input.DISCOVER)}
_CANCELLED_ID = {"notifications/cancelled": "requestId", "$/cancelRequest": "id"}  # the latter as in LSP and ACP
_OWN_VERSIONS = "omni-bridge/"
MAX_BATCH = 1_000  # more requests than may be in flight; the members are taken in one turn of the loop


@dataclass(slots=True)
class Start:
    """Run this request; give its response to `Session.respond`. ``line`` is what it was read from; b"" where that was not kept."""

    id: Id
    method: str
    params: dict[str, object]
    line: bytes | bytearray = b""


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop this request, which is in flight, because its client cancelled it; `Session.respond` still needs its response."""

    id: Id


@dataclass(frozen=True, slots=True)
class Drain:
    """Take no more requests; end when nothing is in flight. ``cancel``: don't wait for it."""

    cancel: bool


@dataclass(frozen=True, slots=True)
class ClientInitialized:
    """``initialize`` was accepted. ``process_id``: exit when that process is gone. ``wants_ready``: send notifications/ready."""

    process_id: int | None
    wants_ready: bool
    credentials: CredentialsCapability | None = None


@dataclass(frozen=True, slots=True)
class ClientResponse:
    """The client's response to a request of the worker's."""

    value: dict[str, object]


@dataclass(slots=True)
class Send:
    """Write this value, a response or an array of them, as one line."""

    value: Response | Encoded | list[Response | Encoded]


Event = Start | Cancel | Drain | ClientInitialized | ClientResponse | Send


@dataclass(slots=True)
class _Batch:
    """Responses to one array line; written as one array when the last is complete."""

    open: int = 0
    responses: list[Response | Encoded] = field(default_factory=list)
    ids: list[Id] = field(default_factory=list)  # of its requests


@dataclass(slots=True)
class _Flight:
    """A request that was started. ``silent``: its MCP client has cancelled it and must get no response."""

    batch: _Batch | None
    silent_when_cancelled: bool
    silent: bool = False


def response(id: Id | None, result: object) -> Response:
    return {"jsonrpc": "2.0", "id": id, "result": result}


def error_response(id: Id | None, error: BridgeError) -> Response:
    return {"jsonrpc": "2.0", "id": id, "error": {"code": error.code, "message": error.message, "data": error.data()}}


class Session:
    """Session of one client. ``engine`` returns the current engine state for the ``initialize`` response."""

    def __init__(
        self,
        engine: Callable[[], Mapping[str, object]],
        *,
        max_message_bytes: int,
        max_in_flight: int = DEFAULT_MAX_IN_FLIGHT,
    ) -> None:
        self.state = State.OPEN
        self._engine = engine
        self._limits = {"maxMessageBytes": max_message_bytes, "maxInFlight": max_in_flight}
        self._max_in_flight = max_in_flight
        self._mcp = False
        self._in_flight: dict[Id | None, _Flight] = {}
        self._waiting_for_end: dict[Id | None, _Batch | None] = {}
        self._in_batches: set[Id | None] = (
            set()
        )  # their array is not sent: for the client they are in flight, with a response or not

    @property
    def in_flight(self) -> int:
        """Number of started requests without a response."""
        return len(self._in_flight)

    def receive(self, value: object, line: bytes | bytearray = b"") -> list[Event]:
        """Returns the events of one line's JSON value, in order."""
        if not isinstance(value, list):
            return self._receive_one(value, None, line)
        if not value:
            return [Send(error_response(None, BridgeError("invalid_message", "an empty batch has no requests; send at least one")))]
        if len(value) > MAX_BATCH:
            limit = f"the batch has {len(value):,} members; the limit is {MAX_BATCH:,}, none of them was started"
            return [Send(error_response(None, BridgeError("invalid_message", limit)))]
        batch = _Batch(open=1)  # counts this method too: the array is not sent before its last member is read
        events = [event for member in value for event in self._receive_one(member, batch)]
        self._in_batches.update(batch.ids)
        return events + self._close_place(batch)

    def refuse(self, error: BridgeError, id: Id | None = None) -> list[Event]:
        """Returns the response to an unreadable line. An id that is in flight keeps its own response."""
        return [Send(error_response(None if id in self._in_flight else id, error))]

    def respond(self, id: Id, response: Response | Encoded) -> list[Event]:
        """Returns the events that send ``response``: none while its batch is incomplete, after an earlier response, or for a
        silent request."""
        if id not in self._in_flight:
            return []
        flight = self._in_flight.pop(id)
        if flight.silent:
            self._in_batches.discard(id)
            return self._close_place(flight.batch) if flight.batch is not None else []
        return self._deliver(response, flight.batch)

    def drain(self) -> None:
        """Refuses further requests: the input has ended or a signal arrived."""
        self.state = State.DRAINING

    def end(self) -> list[Event]:
        """Returns the outstanding ``shutdown`` responses, once no request is in flight."""
        waiting, self._waiting_for_end = self._waiting_for_end, {}
        return [event for id, batch in waiting.items() for event in self._deliver(response(id, {}), batch)]

    def _receive_one(self, value: object, batch: _Batch | None, line: bytes | bytearray = b"") -> list[Event]:
        if isinstance(value, dict) and is_response(value):
            return [ClientResponse(value)]
        id = readable_id(value)
        try:
            envelope = check_envelope(value, id)
            if envelope is None:
                return []
            if id in self._in_flight or id in self._waiting_for_end or id in self._in_batches:
                raise BridgeError("invalid_message", f"id {id!r:.100} is already in flight; the first request continues")
            if id is not None and batch is not None:
                batch.ids.append(id)
            method, params = envelope
            return self._act(id, method, params, batch, line)
        except BridgeError as error:
            unanswerable = id is None and error.kind != "invalid_message"  # a notification, well-formed but with invalid params
            return [] if unanswerable else self._place(error_response(id, error), batch)

    def _act(
        self, id: Id | None, method: str, params: dict[str, object], batch: _Batch | None, line: bytes | bytearray
    ) -> list[Event]:
        if id is None:
            action, self.state = LIFECYCLE[self.state, Input.CANCELLED if method in _CANCELLED_ID else Input.NOTIFICATION]
            return self._cancel(params.get(_CANCELLED_ID[method])) if action is Action.CANCEL else []
        action, next_state = LIFECYCLE[self.state, _REQUESTS.get(method, Input.REQUEST)]
        match action:
            case Action.START:
                events = self._start(Start(id, method, params, line), batch)
            case Action.PONG:
                events = self._place(response(id, {}), batch)
            case Action.DISCOVER:
                events = self._place(response(id, mcp_envelope.discover_result(params)), batch)
            case Action.INITIALIZE:
                events = self._initialize(id, params, batch)
            case Action.DRAIN:
                events = self._shutdown(id, params, batch)
            case Action.REFUSE_INITIALIZED:
                raise BridgeError("invalid_message", "this session is already initialized; a process serves one session")
            case _:
                raise BridgeError("shutting_down", "the worker is about to exit and accepts no more requests; use another worker")
        self.state = next_state
        return events

    def _start(self, start: Start, batch: _Batch | None) -> list[Event]:
        if len(self._in_flight) >= self._max_in_flight:
            limit = f"{self._max_in_flight} requests are in flight, the limit; wait for a response or raise --max-in-flight"
            raise BridgeError("overloaded", limit)
        of_mcp = self._mcp or mcp_envelope.has_envelope(start.params)
        self._in_flight[start.id] = _Flight(batch, silent_when_cancelled=of_mcp and start.method == "tools/call")
        if batch is not None:
            batch.open += 1
        return [start]

    def _initialize(self, id: Id, params: dict[str, object], batch: _Batch | None) -> list[Event]:
        requested = params.get("protocolVersion")
        process_id = params.get("processId")
        if not isinstance(requested, str) or len(requested) > MAX_NAME_LENGTH:
            raise BridgeError("invalid_request", f'initialize needs protocolVersion, a string such as "{PROTOCOL_VERSION}"')
        if process_id is not None and (type(process_id) is not int or not 0 < process_id < 2**31):
            raise BridgeError("invalid_request", "processId must be the positive process id of the client, or null")
        credentials = credentials_capability(params)
        self._mcp = not requested.startswith(_OWN_VERSIONS)
        version = PROTOCOL_VERSION
        if self._mcp:  # an unknown revision gets the newest one, and the client decides, as MCP specifies
            version = requested if requested in MCP_VERSIONS else MCP_VERSIONS[-1]
        result = {
            "protocolVersion": version,
            "serverInfo": mcp_envelope.SERVER_INFO,
            "capabilities": mcp_envelope.CAPABILITIES if self._mcp else {},
            "limits": self._limits,
            "engine": self._engine(),
        }
        return [*self._place(response(id, result), batch), ClientInitialized(process_id, not self._mcp, credentials)]

    def _shutdown(self, id: Id, params: dict[str, object], batch: _Batch | None) -> list[Event]:
        mode = params.get("mode", "drain")
        if mode not in ("drain", "cancel"):
            raise BridgeError("invalid_request", 'mode must be "drain" (the default) or "cancel"')
        self._waiting_for_end[id] = batch
        if batch is not None:
            batch.open += 1
        return [Drain(cancel=mode == "cancel")]

    def _cancel(self, id: object) -> list[Event]:
        if not isinstance(id, str | int) or type(id) is bool or id not in self._in_flight:
            return []
        flight = self._in_flight[id]
        flight.silent = flight.silent_when_cancelled
        return [Cancel(id)]

    def _place(self, response: Response | Encoded, batch: _Batch | None) -> list[Event]:
        """Sends an immediate response, or adds it to its batch."""
        if batch is None:
            return [Send(response)]
        batch.responses.append(response)
        return []

    def _deliver(self, response: Response | Encoded, batch: _Batch | None) -> list[Event]:
        """Sends the response of a started request, or completes its batch."""
        return self._place(response, batch) + (self._close_place(batch) if batch is not None else [])

    def _close_place(self, batch: _Batch) -> list[Event]:
        batch.open -= 1
        if batch.open == 0:
            self._in_batches.difference_update(batch.ids)
        return [Send(batch.responses)] if batch.open == 0 and batch.responses else []
