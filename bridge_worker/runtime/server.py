"""One client's server: reads messages, begins requests, writes the events of the session.

Owns the requests in flight, cancelling them, draining them, and the order of what is written. Refuses to know what a method does,
and where the bytes come from. Every request gets a response: the session ensures at most one, this file at least one.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass

from bridge_worker.config.settings import DEFAULTS
from bridge_worker.errors import INTERNAL_MESSAGE, BridgeError, cancelled_error
from bridge_worker.protocol.client_capabilities import CredentialsCapability
from bridge_worker.protocol.framing import DEFAULT_MAX_MESSAGE_BYTES, Fault, Framer, Message, encode
from bridge_worker.protocol.responses import encode_response
from bridge_worker.protocol.session import (
    DEFAULT_MAX_IN_FLIGHT,
    Cancel,
    ClientInitialized,
    ClientResponse,
    Drain,
    Encoded,
    Event,
    Id,
    Response,
    Send,
    Session,
    Start,
    error_response,
)
from bridge_worker.protocol.transport import Transport
from bridge_worker.runtime.client_requests import ClientRequests
from bridge_worker.runtime.dispatch import Cancel as CancelRequest
from bridge_worker.runtime.dispatch import Dispatch
from bridge_worker.runtime.exit_codes import EXIT_BROKEN, EXIT_DRAINED, EXIT_INTERNAL
from bridge_worker.runtime.notifier import Notifier
from bridge_worker.runtime.server_checks import ServerChecks

CANCEL_SECONDS = 2.0  # after which a cancelled request gets its response even if its task does not end
FLUSH_SECONDS = 1.0  # time for the reader to take the last responses after the grace
# No more requests are read while this much is unread: a caller that only writes must not fill the memory with responses.
READ_QUEUE_BYTES = 8 * 1024 * 1024
_MESSAGES_A_TURN = 64  # after which the loop gets a turn, so that a burst of messages holds up no stream

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Request:
    """In flight. ``cancel`` is None while it begins."""

    notify: Notifier
    cancel: CancelRequest | None = None
    cancelled: bool = False


class Server:
    """``watch_process`` is called with the client's process id, if it gives one, and ``on_credentials`` for a client with that
    capability. ``keeps_lines``: requests go to ``app`` with the line that they were read from."""

    def __init__(
        self,
        pipe: Transport,
        app: Dispatch,
        *,
        max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
        max_in_flight: int = DEFAULT_MAX_IN_FLIGHT,
        grace_seconds: float = DEFAULTS.grace_seconds,
        watch_process: Callable[[int], object] = lambda _: None,
        on_credentials: Callable[[ClientRequests, CredentialsCapability], object] = lambda *_: None,
        keeps_lines: bool = False,
    ) -> None:
        self._pipe = pipe
        self._app = app
        self._grace_seconds = grace_seconds
        self._watch_process = watch_process
        self._on_credentials = on_credentials
        self._client = ClientRequests(pipe.write)
        self._keeps_lines = keeps_lines
        self._checks = ServerChecks(max_in_flight, CANCEL_SECONDS)
        self._framer = Framer(max_message_bytes, outlines=keeps_lines)
        self._session = Session(app.state, max_message_bytes=max_message_bytes, max_in_flight=max_in_flight)
        self._requests: dict[Id, _Request] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._stops = 0
        self._broken = False
        self._failed = False  # a task of the server itself has died
        self._input_ended = False
        self._drain = asyncio.Event()  # no more requests
        self._hurry = asyncio.Event()  # and no more patience with those in flight
        self._idle = asyncio.Event()  # none in flight
        self._idle.set()

    async def run(self) -> int:
        """Serves until the input ends, `stop`, ``shutdown``, or the reader is gone; returns the exit code."""
        self._in_background(self._watch_pipe())
        reading = self._in_background(self._read())
        try:
            await self._drain.wait()
            self._session.drain()
            await _first(self._idle.wait(), self._hurry.wait())
            for id in list(self._requests):
                self._cancel(id)
                if self._failed and id in self._requests:
                    self._send_response(id, error_response(id, BridgeError("internal", INTERNAL_MESSAGE)))
            await self._idle.wait()
            reading.cancel()  # later requests could get no response
            self._write(self._session.end())
            await _first(self._pipe.drained(0), self._flush_patience())
            if self._failed:
                return EXIT_INTERNAL
            return EXIT_BROKEN if self._broken or self._pipe.queued() else EXIT_DRAINED
        finally:
            for task in self._background:
                task.cancel()

    def stop(self) -> None:
        """The first time: no more requests, and the grace for those in flight. The second time, or after the end of the input: no
        grace, because a client that has closed its end of the pipe and then sends a signal waits for nothing but the exit."""
        self._stops += 1
        self._drain.set()
        if self._stops > 1 or self._input_ended:
            self._hurry.set()
        else:
            asyncio.get_running_loop().call_later(self._grace_seconds, self._hurry.set)

    async def _watch_pipe(self) -> None:
        await self._pipe.broken()
        self._broken = True
        self._drain.set()
        self._hurry.set()

    async def _flush_patience(self) -> None:
        await self._hurry.wait()
        await asyncio.sleep(FLUSH_SECONDS)

    async def _read(self) -> None:
        received = 0
        while data := await self._next_chunk():
            for item in self._framer.feed(data):
                self._take(item)
                received += 1
                if received % _MESSAGES_A_TURN == 0:
                    await asyncio.sleep(0)
                if self._pipe.queued() > READ_QUEUE_BYTES:
                    self._checks.queued(self._pipe.queued(), READ_QUEUE_BYTES)
                    await self._pipe.drained(READ_QUEUE_BYTES)
        for item in self._framer.close():
            self._take(item)
        self._input_ended = True
        self._client.end()
        self._drain.set()
        if self._stops:
            self._hurry.set()

    async def _next_chunk(self) -> bytes:
        await self._pipe.drained(READ_QUEUE_BYTES)
        try:
            return await self._pipe.read()
        except OSError as error:  # requests may be lost: the end of the input, but no success
            _log.error("stdin can't be read: %s", error)
            self._broken = True
            return b""

    def _take(self, item: Message | Fault) -> None:
        if isinstance(item, Fault):
            self._write(self._session.refuse(item.error, item.id))
        else:
            self._write(self._session.receive(item.value, item.line if self._keeps_lines else b""))

    def _write(self, events: Iterable[Event]) -> None:
        for event in events:
            match event:
                case Send(value):
                    self._pipe.write(line := encode_response(value, _log_unencodable))
                    self._checks.wrote(len(line))
                case Start():
                    self._start(event)
                case Cancel(id):
                    self._cancel(id)
                case Drain(cancel):
                    self._drain.set()
                    if cancel:
                        self._hurry.set()
                case ClientInitialized():
                    self._on_initialized(event)
                case ClientResponse(value):
                    self._client.take(value)

    def _start(self, start: Start) -> None:
        self._idle.clear()
        id = start.id
        request = self._requests[id] = _Request(Notifier(self._pipe))
        respond = functools.partial(self._respond, id, request)
        try:
            request.cancel = self._app.begin(start, time.monotonic(), request.notify, respond)
        except Exception:
            _log.exception("dispatching failed", extra={"fields": {"id": id}})
            respond(error_response(id, BridgeError("internal", INTERNAL_MESSAGE)))
        self._checks.started(self._session.in_flight, len(self._requests))

    def _respond(self, id: Id, request: _Request, response: Response | Encoded) -> None:
        """Does nothing for a request that has its response already: its cancel took too long."""
        if self._requests.get(id) is request:
            try:
                self._send_response(id, response)
            except Exception as error:
                self._fail(error)

    def _send_response(self, id: Id, response: Response | Encoded) -> None:
        request = self._requests.pop(id)
        request.notify.close()
        request.cancel = None  # it refers to this request: a cycle for the collector
        before, events = self._session.in_flight, self._session.respond(id, response)
        self._checks.responded(id, in_flight=self._session.in_flight < before)
        try:
            self._write(events)
        finally:  # else a write that fails would keep the process from its end
            if not self._requests:
                self._idle.set()

    def _cancel(self, id: Id) -> None:
        request = self._requests[id]
        if not request.cancelled:  # a second cancel would tear up the closing that the first has begun
            request.cancelled = True
            self._checks.cancelled(id)
            asyncio.get_running_loop().call_later(CANCEL_SECONDS, self._give_up, id, request)
            if request.cancel is not None:
                request.cancel()

    def _give_up(self, id: Id, request: _Request) -> None:
        if self._requests.get(id) is request:
            _log.error("a cancelled request did not end", extra={"fields": {"id": id, "after_seconds": CANCEL_SECONDS}})
            self._send_response(id, error_response(id, cancelled_error(upstream_closed=False)))

    def _on_initialized(self, client: ClientInitialized) -> None:
        if client.process_id is not None:
            self._watch_process(client.process_id)
        if client.credentials is not None:
            self._on_credentials(self._client, client.credentials)
        if client.wants_ready:
            self._in_background(self._send_ready())

    def _in_background(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        task.add_done_callback(self._check)
        return task

    def _check(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """Ends the process, with responses to requests in flight: with a dead task the server would not read or write."""
        _log.critical("a task of the server has died; the worker ends", exc_info=error)
        self._failed = True
        self._drain.set()
        self._hurry.set()

    async def _send_ready(self) -> None:
        try:
            params = await self._app.ready()
        except BridgeError:
            return  # every chat returns the reason
        if self._drain.is_set():
            return
        self._pipe.write(encode({"jsonrpc": "2.0", "method": "notifications/ready", "params": dict(params)}))


def _log_unencodable() -> None:
    _log.exception("a response has no JSON form")


async def _first(*waits: Coroutine[object, object, object]) -> None:
    """Returns when one of them has; the others are cancelled."""
    tasks = [asyncio.create_task(wait) for wait in waits]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
