"""An engine process from within: reads requests from its link, runs a task for each, and writes what comes of them.

Owns the tasks and the engine's end of the link. Refuses to know what a request is for: ``dispatch`` is handed in. Whatever ends the
server process ends this one.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from bridge_worker.engines.board import Board
from bridge_worker.engines.link import Link
from bridge_worker.errors import INTERNAL_MESSAGE, BridgeError, NotLoaded, cancelled_error
from bridge_worker.protocol.framing import Fault, decode, encode
from bridge_worker.protocol.link_frames import HEAD, RECEIVED, Frame, Kind, Progress
from bridge_worker.protocol.responses import encode_response
from bridge_worker.protocol.session import Response, Start, error_response

_log = logging.getLogger(__name__)


class HandBack(BaseException):
    """The request needs what this engine does not have. Not an `Exception`: no code on the path turns it into an error."""


class Notifier:
    """Notifications of one request. Waits while the client reads slowly."""

    __slots__ = ("_engine", "_number")

    def __init__(self, engine: Engine, number: int) -> None:
        self._engine = engine
        self._number = number

    async def __call__(self, method: str, params: dict[str, Any]) -> None:
        await self.lines([encode({"jsonrpc": "2.0", "method": method, "params": params})])

    async def lines(self, lines: list[bytes]) -> None:
        await self._engine.send_deltas(self._number, lines)

    def note_progress(self, progress: int) -> None:
        """For the server process, should this one end."""
        self._engine.board[self._number] = progress


class Dispatch(Protocol):
    async def dispatch(self, start: Start, received: float, notify: Notifier) -> Response:
        """Returns the whole response; may raise HandBack before it has called a backend."""

    async def ready(self) -> Mapping[str, object]:
        """Returns when LiteLLM is loaded. Raises BridgeError when it can't be."""


class Engine:
    """``report`` returns the members of a PONG: memory and the like. ``receive`` gets the value of a PUSH."""

    def __init__(
        self,
        app: Dispatch,
        board: Board,
        report: Callable[[], Mapping[str, object]],
        receive: Callable[[Any], None] = lambda _: None,
    ) -> None:
        self.board = board
        self._receive = receive
        self._app = app
        self._report = report
        self._link = Link(self._take, self._server_ended)
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._call_numbers = itertools.cycle(range(1, 1 << 16))
        self._may_send = asyncio.Event()
        self._may_send.set()
        self._stop = asyncio.Event()

    async def run(self, end: socket.socket) -> None:
        """Serves until the server process stops this engine. When that process ends, this one ends here."""
        await self._link.connect(end)
        sending = asyncio.create_task(self._send_loaded())
        sending.add_done_callback(self._loaded_sent)
        await self._stop.wait()

    def close(self) -> None:
        self._link.close()

    async def call(self, name: str, arguments: Mapping[str, object]) -> Any:
        """Calls a function of the server process; arguments and result are JSON values. Raises BridgeError when that raises."""
        number = next(number for number in self._call_numbers if number not in self._calls)  # one may wait for the client
        future = self._calls[number] = asyncio.get_running_loop().create_future()
        try:
            self._link.send(Kind.CALL, number, json.dumps({"name": name, **arguments}).encode())
            return await future
        finally:
            del self._calls[number]

    async def send_deltas(self, number: int, lines: list[bytes]) -> None:
        self._link.send(Kind.DELTAS, number, *lines)
        if not self._may_send.is_set():
            await self._may_send.wait()
        await self._link.drained()

    def _take(self, frame: Frame) -> None:
        match frame.kind:
            case Kind.REQUEST:
                self._start(frame.request, frame.body)
            case Kind.CANCEL:
                self._cancel(frame.request)
            case Kind.PING:
                self._send_report()
            case Kind.PAUSE:
                self._may_send.clear()
            case Kind.RESUME:
                self._may_send.set()
            case Kind.REPLY:
                self._take_reply(frame.request, json.loads(frame.body))
            case Kind.PUSH:
                self._receive(json.loads(frame.body))
            case Kind.STOP:
                self._stop.set()

    def _start(self, number: int, body: bytes) -> None:
        self.board[number] = Progress.RECEIVED
        task = self._tasks[number] = asyncio.create_task(self._run(number, body))
        task.add_done_callback(lambda task: self._ended(number, body, task))

    def _ended(self, number: int, body: bytes, task: asyncio.Task[None]) -> None:
        """Responds to a request that was cancelled before its task began: the cancel came with it."""
        self._tasks.pop(number, None)
        if task.cancelled():
            start = _start_of(body)
            id = start.id if isinstance(start, Start) else None
            self._respond(number, error_response(id, cancelled_error(upstream_closed=True)))

    def _cancel(self, number: int) -> None:
        task = self._tasks.get(number)
        if task is not None and not task.cancelling():  # a second cancel would tear up the closing that the first has begun
            task.cancel()

    async def _run(self, number: int, body: bytes) -> None:
        (received,) = RECEIVED.unpack_from(body)
        start = _start_of(body)
        if isinstance(start, Fault):  # of a long line the server process has read the outline
            self._respond(number, error_response(None, start.error))
            return
        try:
            response = await self._app.dispatch(start, received, Notifier(self, number))
        except HandBack:
            self._link.send(Kind.HAND_BACK, number)
            return
        except BridgeError as error:
            response = error_response(start.id, error)
        except Exception:
            _log.exception("dispatching failed", extra={"fields": {"id": start.id}})
            response = error_response(start.id, BridgeError("internal", INTERNAL_MESSAGE))
        self._respond(number, response)

    def _respond(self, number: int, response: Response) -> None:
        outcome, path = _outcome_of(response)
        self._link.send(Kind.RESPONSE, number, f"{outcome}\n{path}\n".encode(), encode_response(response, _log_unencodable))

    def _take_reply(self, number: int, reply: Mapping[str, Any]) -> None:
        future = self._calls.get(number)
        if future is None or future.done():  # its caller was cancelled
            return
        if "error" in reply:
            future.set_exception(BridgeError("internal", reply["error"]))
        else:
            future.set_result(reply["result"])

    async def _send_loaded(self) -> None:
        try:
            loaded: Mapping[str, object] = await self._app.ready()
        except BridgeError as error:
            loaded = {"failed": error.message, "problem": error.problem if isinstance(error, NotLoaded) else error.message}
        self._send_report()  # so that `status` has it once the engine is ready
        self._link.send(Kind.LOADED, 0, json.dumps(loaded).encode())

    def _send_report(self) -> None:
        self._link.send(Kind.PONG, 0, json.dumps(self._report()).encode())

    def _loaded_sent(self, task: asyncio.Task[None]) -> None:
        """An engine that can't report what it has loaded would never get a request: it ends, and is replaced."""
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.critical("an engine process failed", exc_info=error)
            self._stop.set()

    def _server_ended(self) -> None:
        if not self._stop.is_set():
            os._exit(0)  # no reader of a response is left; connections to providers close with the process


def _log_unencodable() -> None:
    _log.exception("a response has no JSON form")


def _start_of(body: bytes) -> Start | Fault:
    message = decode(body[RECEIVED.size :])
    if isinstance(message, Fault):
        return message
    value = message.value
    assert isinstance(value, dict)  # noqa: S101  # for mypy: the server process has read the line before
    return Start(value["id"], value["method"], value.get("params") or {})


def _outcome_of(response: Mapping[str, Any]) -> tuple[str, str]:
    """The outcome and the chat path, as the server process counts them."""
    if "error" in response:
        data = response["error"]["data"]
        return data["kind"], _chat_path(data)
    result = response["result"]
    return "ok", _chat_path(result) if isinstance(result, dict) else ""


def _chat_path(body: Mapping[str, Any]) -> str:
    receipt = body.get("receipt")
    return receipt["engine"]["name"] if receipt and receipt["engine"] else ""


def receive_setup(end: socket.socket) -> bytes:
    """The body of the first frame, read without a loop. Ends the process when the server process has ended."""
    length, _ = HEAD.unpack(_receive(end, HEAD.size))
    return _receive(end, length)


def _receive(end: socket.socket, length: int) -> bytes:
    parts: list[bytes] = []
    while length:
        if not (data := end.recv(min(length, 1 << 20))):
            os._exit(0)
        parts.append(data)
        length -= len(data)
    return b"".join(parts)


Call = Callable[[str, Mapping[str, object]], Awaitable[Any]]
