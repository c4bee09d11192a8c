"""Sends a request over LiteLLM's HTTP transport and reads the response within bounds.

Owns the one HTTP client per event loop and its timeouts; no redirect is followed. The client is LiteLLM's, with the operator's
proxies, TLS settings and connection limits. Requests go to its pool of connections past LiteLLM's wrapping of aiohttp's requests
and responses, which takes 50 us a chat. Refuses to know a wire format.

PRIVATE: three members of LiteLLM's transport. Without one of them requests take its public method.
"""

from __future__ import annotations

import asyncio
import io
import socket
import ssl
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any

import aiohttp
import httpx
from litellm.llms.custom_httpx.aiohttp_transport import LiteLLMAiohttpTransport
from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler
from multidict import CIMultiDict
from yarl import URL

from bridge_worker.backends.litellm.inflate import Inflate
from bridge_worker.backends.reading import ConnectionFailed
from bridge_worker.core.progress import Progress, note_progress
from bridge_worker.errors import BridgeError

# One value for every call: a timeout that varies makes LiteLLM build a new client and connection pool each time. The deadlines of a
# request are the bridge's own and usually end it earlier.
REQUEST_TIMEOUT_SECONDS = 600.0
_WHOLE_BYTES = 1024 * 1024  # of a body that is sent in one go; of a longer one asyncio would copy what the socket does not take
_CLOSE_SECONDS = 1.0  # after this time the receipt of a cancel reports that the connection is not closed
_LAST_BYTES_SECONDS = 0.05  # after a stream's own end marker, for the end of the body; then the connection is closed, not kept

Read = Callable[[], Awaitable[bytes]]
Close = Callable[[], Coroutine[Any, Any, None] | None]  # None: it is closed already


class Destination:
    """The target and headers of requests of one kind, in the forms that the HTTP libraries need."""

    __slots__ = ("_aiohttp_headers", "_aiohttp_url", "headers", "url")

    def __init__(self, url: httpx.URL, headers: Mapping[str, str]) -> None:
        self.url = url
        self.headers = headers
        self._aiohttp_url = URL(str(url), encoded=True)
        self._aiohttp_headers = CIMultiDict(headers)


class Response:
    """A response after its headers have arrived. `aclose` must be awaited; a body that was read to its end keeps its connection."""

    __slots__ = ("_at_end", "_close", "_inflate", "_read", "headers", "status")

    def __init__(self, status: int, headers: Mapping[str, str], read: Read, at_end: Callable[[], bool], close: Close) -> None:
        self.status = status
        self.headers = headers
        self._read = read
        self._at_end = at_end
        self._close = close
        encoding = headers.get("content-encoding", "")
        self._inflate = Inflate(encoding) if encoding not in ("", "identity") else None

    async def read(self) -> bytes:
        """The bytes of one read; b"" at the end. Raises ConnectionFailed."""
        inflate = self._inflate
        try:
            if inflate is None:
                return await self._read()
            if data := inflate.pending():
                return data
            while data := await self._read():
                if data := inflate.feed(data):
                    return data
            return b""
        except _FAILURES as error:
            raise connection_failed(error) from error

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


async def send(destination: Destination, body: bytes, timeout: float = REQUEST_TIMEOUT_SECONDS) -> Response:
    """POSTs ``body``. Returns as soon as the response's headers have arrived. ``timeout``: seconds of silence.

    Raises ConnectionFailed. A cancel closes the connection.
    """
    client = await _client()
    note_progress(Progress.SENT)
    try:
        return await (
            client.send(destination, body, timeout) if client.is_aiohttp else client.send_by_httpx(destination, body, timeout)
        )
    except _FAILURES as error:
        raise connection_failed(error) from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        # A connector that closes cancels its own look-up of a host.
        raise ConnectionFailed("the connection was closed") from error


async def aclose() -> None:
    """Closes the connections of the current event loop that no response uses."""
    client: _Client | None = getattr(_of_thread, "client", None)
    _of_thread.client = None
    if client is not None:
        await client.life.aclose()


class _Client:
    """LiteLLM's HTTP client, made for one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._handler = AsyncHTTPHandler(timeout=REQUEST_TIMEOUT_SECONDS)
        self._httpx = self._handler.client
        self._transport: Any = self._httpx._transport
        self.is_aiohttp = isinstance(self._transport, LiteLLMAiohttpTransport) and all(
            hasattr(self._transport, name) for name in ("_get_valid_client_session", "_get_proxy_settings", "_ssl_verify")
        )
        self._proxies: dict[str, str | None] = {}
        self._theirs: aiohttp.ClientSession | None = None
        self._session: aiohttp.ClientSession | None = None
        self.life = self._live()

    async def _live(self) -> AsyncGenerator[None, None]:
        """`asyncio.run` closes the asynchronous generators that began in its loop, and so its connections."""
        try:
            yield
        finally:
            await self.aclose()

    async def send(self, destination: Destination, body: bytes, timeout: float) -> Response:
        options: dict[str, Any] = {} if self._transport._ssl_verify is None else {"ssl": self._transport._ssl_verify}
        response = await self._pool().post(
            destination._aiohttp_url,
            headers=destination._aiohttp_headers,
            data=body if len(body) <= _WHOLE_BYTES else io.BytesIO(body),
            allow_redirects=False,
            timeout=_aiohttp_timeout(timeout),
            proxy=await self._proxy(destination),
            **options,
        )
        return self._of_aiohttp(response)

    async def send_by_httpx(self, destination: Destination, body: bytes, timeout: float) -> Response:
        client = self._httpx
        request = client.build_request("POST", destination.url, headers=dict(destination.headers), content=body, timeout=timeout)
        return _of_httpx(await client.send(request, stream=True, follow_redirects=False))

    async def aclose(self) -> None:
        if self._session is not None:
            self._session.detach()
        await self._handler.close()

    def __del__(self) -> None:
        if (session := getattr(self, "_session", None)) is not None:
            session.detach()  # the connections are not its own; it would report that it was not closed

    def _pool(self) -> aiohttp.ClientSession:
        """A session over the connections of LiteLLM's, without the tracing of each request that LiteLLM's has."""
        theirs: aiohttp.ClientSession = self._transport._get_valid_client_session()
        if theirs is not self._theirs or self._session is None:
            if self._session is not None:
                self._session.detach()
            self._theirs = theirs
            self._session = aiohttp.ClientSession(
                connector=theirs.connector,
                connector_owner=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=theirs.trust_env,
                auto_decompress=False,
            )
        return self._session

    async def _proxy(self, destination: Destination) -> str | None:
        host = destination.url.host
        if host not in self._proxies:
            self._proxies[host] = await self._transport._get_proxy_settings(httpx.Request("POST", destination.url))
        return self._proxies[host]

    def _of_aiohttp(self, response: aiohttp.ClientResponse) -> Response:
        content = response.content

        def close(_: object = self) -> None:  # it must live as long as the body is read: its end closes all connections
            if content.at_eof():
                response.release()
            else:
                response.close()  # the rest of the body is never read: the provider must stop

        return Response(response.status, response.headers, content.readany, content.at_eof, close)


_of_thread = threading.local()  # an event loop runs in one thread; a thread has one at a time


async def _client() -> _Client:
    loop = asyncio.get_running_loop()
    client: _Client | None = getattr(_of_thread, "client", None)
    if client is None or client.loop is not loop:
        client = _of_thread.client = _Client(loop)
        await anext(client.life)
    return client


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
_aiohttp_timeout = lru_cache(maxsize=64)(
    lambda seconds: aiohttp.ClientTimeout(sock_connect=seconds, sock_read=seconds, connect=seconds)
)


def connection_failed(error: BaseException) -> ConnectionFailed:
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


_REASONS: tuple[tuple[type[BaseException], str], ...] = (
    (ConnectionRefusedError, "the connection was refused"),
    (ConnectionResetError, "the connection was reset"),
    (socket.gaierror, "its host name was not found"),
    (ssl.SSLError, "TLS could not be agreed on"),
    (aiohttp.ClientSSLError, "TLS could not be agreed on"),
    (aiohttp.ServerDisconnectedError, "it closed the connection"),
    (aiohttp.ClientResponseError, "its response is not valid HTTP"),
)
