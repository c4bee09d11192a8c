"""Sends a request over LiteLLM's HTTP transport and reads the response within bounds.

Owns the one HTTP client per event loop, its timeouts, and the limits on what a provider may send: a body of an error is read up to
64 KiB, a plain response up to 64 MiB after decompression, and no redirect is followed. LiteLLM's transport keeps the operator's
proxies, TLS settings and connection limits. Refuses to know a wire format.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any, NamedTuple

import aiohttp
import httpx
from litellm.llms.custom_httpx.aiohttp_transport import LiteLLMAiohttpTransport
from litellm.llms.custom_httpx.http_handler import get_async_httpx_client

from bridge_worker.errors import BridgeError

# One value for every call: a timeout that varies makes LiteLLM build a new client and connection pool each time. The deadlines of a
# request are the bridge's own and usually end it earlier.
REQUEST_TIMEOUT_SECONDS = 600.0
MAX_ERROR_BYTES = 64 * 1024
MAX_BODY_BYTES = 64 * 1024 * 1024
_MAX_INFLATED_BYTES = 16 * 1024 * 1024  # ... unless what arrived is a 50th of it at least
_MAX_RATIO = 50  # JSON is compressed to a tenth; a thousandth is a bomb
_INFLATED_BYTES = 256 * 1024  # at most so much of a compressed stream is decompressed at a time
_CLOSE_SECONDS = 1.0  # after this time the receipt of a cancel reports that the connection is not closed
_LAST_BYTES_SECONDS = 0.05  # after a stream's own end marker, for the end of the body; then the connection is closed, not kept

Read = Callable[[], Awaitable[bytes]]
Close = Callable[[], Coroutine[Any, Any, None] | None]  # None: it is closed already


class ConnectionFailed(Exception):
    """The provider was not reached, or the connection broke. ``timed_out``: it was silent for too long."""

    def __init__(self, message: str, *, timed_out: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out


class _Request(NamedTuple):
    """The members of an httpx request that LiteLLM's transport reads."""

    method: str
    url: httpx.URL
    headers: Mapping[str, str]
    content: bytes
    extensions: dict[str, Any]


class Response:
    """A response after its headers have arrived. `aclose` must be awaited; a body that was read to its end keeps its connection."""

    __slots__ = ("_at_end", "_close", "_inflate", "_read", "headers", "status")

    def __init__(self, status: int, headers: httpx.Headers, read: Read, at_end: Callable[[], bool], close: Close) -> None:
        self.status = status
        self.headers = headers
        self._read = read
        self._at_end = at_end
        self._close = close
        encoding = headers.get("content-encoding", "")
        self._inflate = Inflate(encoding) if encoding not in ("", "identity") else None

    async def read(self) -> bytes:
        """The bytes of one read; b"" at the end. Raises ConnectionFailed."""
        if self._inflate is not None and (data := self._inflate.pending()):
            return data
        while data := await self._guarded(self._read):
            if self._inflate is None:
                return data
            if data := self._inflate.feed(data):
                return data
        return b""

    async def read_all(self, limit: int = MAX_BODY_BYTES) -> bytes:
        """The whole body. Raises ConnectionFailed, and BridgeError ``bad_upstream_response`` for a body over ``limit``."""
        body = await self.read_up_to(limit + 1)
        if len(body) > limit:
            raise BridgeError("bad_upstream_response", f"the provider's response is longer than {limit} bytes", status=self.status)
        return body

    async def read_up_to(self, limit: int) -> bytes:
        """The body's first ``limit`` bytes."""
        parts: list[bytes] = []
        size = 0
        while size < limit and (data := await self.read()):
            parts.append(data)
            size += len(data)
        return b"".join(parts)[:limit]

    async def finish(self) -> None:
        """Waits briefly for the end of a body after the format's end marker, so that the connection can be kept."""
        if not self._at_end():
            with suppress(ConnectionFailed, TimeoutError, BridgeError):
                async with asyncio.timeout(_LAST_BYTES_SECONDS):
                    await self.read()

    async def aclose(self) -> bool:
        """True when the connection is closed or free again. A cancel that arrives in the meantime does not interrupt it."""
        closing = self._close()
        if closing is None:
            return True
        task = asyncio.ensure_future(closing)
        done, _ = await asyncio.wait({task}, timeout=_CLOSE_SECONDS)
        return bool(done) and task.exception() is None

    async def _guarded(self, read: Read) -> bytes:
        try:
            return await read()
        except _FAILURES as error:
            raise _connection_failed(error) from error


class Inflate:
    """Decompresses a body in bounded steps, because a provider may compress although it was not invited to."""

    def __init__(self, encoding: str) -> None:
        if encoding not in ("gzip", "x-gzip", "deflate"):
            raise BridgeError("bad_upstream_response", f"the provider's response has the content-encoding {encoding!r:.40}")
        self._engine = zlib.decompressobj(zlib.MAX_WBITS | 32)
        self._received = 0
        self._inflated = 0

    def feed(self, data: bytes) -> bytes:
        self._received += len(data)
        return self._step(self._engine.unconsumed_tail + data)

    def pending(self) -> bytes:
        return self._step(self._engine.unconsumed_tail) if self._engine.unconsumed_tail else b""

    def _step(self, data: bytes) -> bytes:
        try:
            inflated = self._engine.decompress(data, _INFLATED_BYTES)
        except zlib.error as error:
            raise BridgeError("bad_upstream_response", f"the provider's compressed response can't be read ({error})") from error
        self._inflated += len(inflated)
        if self._inflated > max(_MAX_INFLATED_BYTES, _MAX_RATIO * self._received):
            wrong = f"the provider's compressed response is more than {_MAX_RATIO} times as long when it is decompressed"
            raise BridgeError("bad_upstream_response", wrong)
        return inflated


async def send(url: httpx.URL, headers: Mapping[str, str], body: bytes, timeout: float = REQUEST_TIMEOUT_SECONDS) -> Response:
    """POSTs ``body``. Returns as soon as the response's headers have arrived. ``timeout``: seconds of silence.

    Raises ConnectionFailed. A cancel closes the connection.
    """
    client = get_async_httpx_client("omni_bridge", {"timeout": REQUEST_TIMEOUT_SECONDS}).client
    transport = client._transport
    try:
        if isinstance(transport, LiteLLMAiohttpTransport):
            request = _Request("POST", url, headers, body, {"timeout": _timeout(timeout)})
            return _of_aiohttp(await transport.handle_async_request(request))
        built = client.build_request("POST", url, headers=dict(headers), content=body, timeout=timeout)
        return _of_httpx(await client.send(built, stream=True, follow_redirects=False))
    except _FAILURES as error:
        raise _connection_failed(error) from error


def _of_aiohttp(response: httpx.Response) -> Response:
    """PRIVATE: `_aiohttp_response`, which has `readany`: it returns the bytes of one read without a copy."""
    stream: Any = (
        response.stream
    )  # must live as long as the body is read: LiteLLM closes the session of a client that is garbage-collected
    inner: aiohttp.ClientResponse = stream._aiohttp_response
    content = inner.content

    def close(_: object = stream) -> None:
        if content.at_eof():
            inner.release()
        else:
            inner.close()  # the rest of the body is never read: the provider must stop

    return Response(response.status_code, response.headers, content.readany, content.at_eof, close)


def _of_httpx(response: httpx.Response) -> Response:
    chunks = response.aiter_raw()
    ended = False

    async def read() -> bytes:
        nonlocal ended
        async for chunk in chunks:
            if chunk:
                return chunk
        ended = True
        return b""

    return Response(response.status_code, response.headers, read, lambda: ended, response.aclose)


_FAILURES = (httpx.TransportError, httpx.InvalidURL, aiohttp.ClientError, TimeoutError, OSError)
_timeout = lru_cache(maxsize=64)(lambda seconds: httpx.Timeout(seconds).as_dict())


def _connection_failed(error: BaseException) -> ConnectionFailed:
    timed_out = isinstance(error, TimeoutError | httpx.TimeoutException | aiohttp.ServerTimeoutError)
    return ConnectionFailed(_reason(error), timed_out=timed_out)


def _reason(error: BaseException) -> str:
    """The innermost known reason: httpx's error contains aiohttp's, and that the system's."""
    reason = "the connection broke"
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        reason = next((text for kind, text in _REASONS if isinstance(link, kind)), reason)
        link = link.__cause__ or link.__context__ or getattr(link, "os_error", None)
    return reason


def _reasons() -> tuple[tuple[type[BaseException], str], ...]:
    import socket
    import ssl

    return (
        (ConnectionRefusedError, "the connection was refused"),
        (ConnectionResetError, "the connection was reset"),
        (socket.gaierror, "its host name was not found"),
        (ssl.SSLError, "TLS could not be agreed on"),
        (aiohttp.ClientSSLError, "TLS could not be agreed on"),
        (aiohttp.ServerDisconnectedError, "it closed the connection"),
    )


_REASONS = _reasons()
