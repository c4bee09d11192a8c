"""The far side of every test: an HTTP server whose replies are those of `tests.support.upstream_format`, or a test's own.

Owns a socket on 127.0.0.1, one thread with one event loop, and what was observed there. Written on bare asyncio streams because
half of the faults are below HTTP. Refuses to know what a reply means.

    with Upstream() as upstream:
        ... a chat with model "openai/hang", api_base upstream.base_url, and its cancel ...
        upstream.wait_for_request(model="hang").wait_closed(timeout=5)
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Self

from tests.support.upstream_format import (
    BEHAVIOURS,
    DONE,
    ERRORS,
    THOUGHTS,
    USAGE,
    End,
    Gate,
    Json,
    Pause,
    Request,
    Step,
    Steps,
    chunk,
    http,
    reply_text,
    reply_to,
    sse,
    stream,
)

__all__ = [  # with what a test needs of the format, so that it imports one module
    "BEHAVIOURS",
    "DONE",
    "ERRORS",
    "THOUGHTS",
    "USAGE",
    "Connection",
    "End",
    "Gate",
    "Json",
    "Pause",
    "Request",
    "Step",
    "Upstream",
    "chunk",
    "reply_text",
    "sse",
]


class Connection(asyncio.StreamReaderProtocol):
    """One client: reads a request, writes its reply, again. Its single task is cancelled as soon as the client closes."""

    def __init__(self, upstream: Upstream) -> None:
        self._reader = asyncio.StreamReader(limit=1 << 20)
        super().__init__(self._reader, self._opened)
        self._upstream = upstream
        self._serving: asyncio.Task[None] | None = None
        self._request: Request | None = None  # set while its reply is held open

    def _opened(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._serving = asyncio.get_running_loop().create_task(self._serve())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._upstream._seen(lambda: self._upstream._connections.add(self))

    def connection_lost(self, exc: Exception | None) -> None:
        self._client_closed()
        super().connection_lost(exc)
        self._upstream._seen(lambda: self._upstream._connections.discard(self))

    def eof_received(self) -> bool | None:
        self._client_closed()
        return super().eof_received()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._request:
            self._request.stalled.set()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._request:
            self._request.stalled.clear()

    def abort(self) -> None:
        self._request = None
        self._writer.transport.abort()

    def _client_closed(self) -> None:
        if request := self._request:
            self._request = None
            request.closed_at = time.monotonic()
            self._upstream._seen(request.closed_by_client.set)
        if self._serving:
            self._serving.cancel()

    async def _serve(self) -> None:
        try:
            while True:
                self._request = request = await self._read()
                await self._write(request, self._upstream._reply_to(request))
                self._request = None
                self._upstream._seen(request.replied.set)
                if request.headers.get("connection") == "close":
                    await self._end(End.CLOSE)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client is gone, and noted as such
        except Exception as fault:
            self._upstream._faults.append(fault)
        finally:
            self.abort()

    async def _read(self) -> Request:
        first, *lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        raw = await self._reader.readexactly(int(headers.get("content-length", "0")))
        request = Request(method, path, headers, raw)
        self._upstream._received(request)
        return request

    async def _write(self, request: Request, steps: Steps) -> None:
        for step in steps:
            if isinstance(step, bytes):
                self._writer.write(step)
                await self._writer.drain()
                await asyncio.sleep(0)  # drain does not yield while the socket takes everything; others must get a turn
                request.sent += 1
            elif isinstance(step, Gate):
                await step.passed()
            elif isinstance(step, Pause):
                await asyncio.sleep(step.seconds)
            else:
                await self._end(step)

    async def _end(self, how: End) -> None:
        if how is not End.HANG:
            self._request = None
        if how is End.RESET:
            linger = struct.pack("ii", 1, 0)  # closing discards what is unsent and sends RST
            self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self._writer.transport.abort()
        if how is End.CLOSE:
            self._writer.close()
        await asyncio.get_running_loop().create_future()  # until connection_lost or eof_received cancels this task


class Upstream:
    """The handle that tests hold. All of it may be called from any thread; nothing waits longer than its ``timeout`` in seconds."""

    def __init__(self, listener: socket.socket | None = None) -> None:
        """``listener`` is bound, to an address of another host perhaps; else it is one of its own on 127.0.0.1."""
        self._listener = listener
        self._changed = threading.Condition()
        self._requests: list[Request] = []
        self._counts: Counter[str] = Counter()
        self._connections: set[Connection] = set()
        self._scripts: dict[str, list[Callable[[], Steps]]] = {}
        self._faults: list[Exception] = []
        self._refusing = socket.socket()
        self._refusing.bind(("127.0.0.1", 0))  # bound but not listening: refuses for as long as we hold it
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="upstream", daemon=True)
        self._thread.start()
        self._server = self._run(self._listen())
        host, port = self._server.sockets[0].getsockname()
        self.base_url = f"http://{host}:{port}/v1"
        self.refused_url = f"http://127.0.0.1:{self._refusing.getsockname()[1]}/v1"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def requests(self) -> list[Request]:
        with self._changed:
            return list(self._requests)

    @property
    def counts(self) -> Counter[str]:
        """How many requests came for each model."""
        with self._changed:
            return Counter(self._counts)

    @property
    def connections(self) -> int:
        """Connections open now, idle ones that a client keeps included."""
        with self._changed:
            return len(self._connections)

    def script(
        self,
        model: str,
        *,
        chunks: Sequence[Json | Step] | None = None,
        body: Json | bytes = b"",
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        before: Gate | None = None,
        raw: Sequence[Step] | None = None,
    ) -> None:
        """Registers a reply for a model name; further ones are given in turn, the last for good. Any path, nothing validated.

        ``raw`` is everything that is sent, also what is no HTTP.
        ``chunks`` makes a stream: a dict is sent as a ``data:`` event, bytes (``DONE``) as they are, other steps happen at their
        place; otherwise ``body`` is sent. ``before`` holds the reply before its headers.
        """
        held = [before] if before else []
        events = None if chunks is None else [sse(item) if isinstance(item, dict) else item for item in chunks]

        def reply() -> Steps:
            if raw is not None:
                return [*held, *raw]
            return [*held, *(http(body, status, headers) if events is None else stream(events, headers, status))]

        with self._changed:
            self._scripts.setdefault(model, []).append(reply)

    def forget(self) -> None:
        """Begins another test: removes the requests, counts and scripts of the one before."""
        with self._changed:
            self._requests.clear()
            self._counts.clear()
            self._scripts.clear()

    def wait_until(self, condition: Callable[[], bool], timeout: float = 5) -> None:
        """Waits for a condition over ``requests``, ``counts`` or ``connections``; it is checked again after each change of them."""
        with self._changed:
            if not self._changed.wait_for(condition, timeout):
                seen = f"{self.connections} connections, requests {dict(self.counts)}"
                raise TimeoutError(f"the upstream did not come to this within {timeout} s: {seen}")

    def wait_for_request(self, model: str | None = None, nth: int = 1, timeout: float = 5) -> Request:
        """The nth request (from 1), of those for ``model`` if it is given; waits for it if need be."""

        def found() -> list[Request]:
            return [request for request in self._requests if model in (None, request.model)][nth - 1 : nth]

        self.wait_until(lambda: bool(found()), timeout)
        with self._changed:
            return found()[0]

    def close(self) -> None:
        """Aborts what is open, ends loop and thread; raises what went wrong in the stand-in itself. Safe to call twice."""
        if not self._thread.is_alive():
            return
        self._run(self._shut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._refusing.close()
        if self._faults:
            raise ExceptionGroup("the upstream stand-in is at fault, not what it tests", self._faults)

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=10)

    async def _listen(self) -> asyncio.Server:
        if self._listener is not None:
            return await self._loop.create_server(lambda: Connection(self), sock=self._listener, backlog=4096)
        return await self._loop.create_server(lambda: Connection(self), "127.0.0.1", 0, backlog=4096)

    async def _shut(self) -> None:
        self._server.close()
        await asyncio.sleep(0)  # a connection that was just accepted becomes one of ours
        for connection in list(self._connections):
            connection.abort()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.sleep(0)  # the aborted transports close their sockets, which cancels their tasks
        await asyncio.gather(*left, return_exceptions=True)

    def _seen(self, change: Callable[[], object]) -> None:
        with self._changed:
            change()
            self._changed.notify_all()

    def _received(self, request: Request) -> None:
        self._counts[request.model] += 1  # by the loop's thread only
        request.nth = self._counts[request.model]
        self._seen(lambda: self._requests.append(request))

    def _reply_to(self, request: Request) -> Steps:
        with self._changed:
            scripts = self._scripts.get(request.model, [])
            reply = (scripts.pop(0) if len(scripts) > 1 else scripts[0]) if scripts else None
        return reply() if reply else reply_to(request)
