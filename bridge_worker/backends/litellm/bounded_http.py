"""Bounds what LiteLLM and the SDKs under it read of a response, on the path where the bridge does not read it itself.

Owns the replacements of `send` of httpx's two clients (the plain one fetches clouds' tokens) and of `Session` of the package
requests, by public API only, and so the place where such a response is recorded and a recorded one is played. An error's body
ends after 16 KiB, because LiteLLM runs its regular expressions over it on the loop; a whole body is bounded after decompression,
and a stream's line by its length. Refuses to know which method or provider a response is for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from typing import Any

import httpx
import requests

from bridge_worker.backends.litellm.capture import is_call
from bridge_worker.backends.litellm.inflate import Inflate
from bridge_worker.backends.litellm.transport import connection_failed
from bridge_worker.backends.reading import MAX_BODY_BYTES
from bridge_worker.core.exchange import Tape, next_tape
from bridge_worker.errors import BridgeError
from bridge_worker.security.error_text import MAX_TEXT

MAX_LINE_BYTES = 16 * 1024 * 1024
MAX_CONTAINERS = 1_000_000  # arrays and objects of a whole body: an embedding is one, and 64 MiB of "[]," block the loop for 6 s
_WHOLE = "application/json"
_READ_BYTES = 64 * 1024

# Returns the response to a request, which is not sent then.
played: ContextVar[Callable[[httpx.Request], httpx.Response] | None] = ContextVar("omni_bridge_played", default=None)

_send = httpx.AsyncClient.send
_send_plainly = httpx.Client.send
_send_by_requests = requests.Session.send


def install() -> None:
    """Puts the bounds into httpx and requests. A second call changes nothing."""
    global _send
    if httpx.AsyncClient.send is not _bounded_send:
        _send = httpx.AsyncClient.send
        httpx.AsyncClient.send = _bounded_send  # type: ignore[method-assign]
    httpx.Client.send = _bounded_send_plainly  # type: ignore[method-assign]
    requests.Session.send = _bounded_send_by_requests  # type: ignore[method-assign]


async def _bounded_send(self: httpx.AsyncClient, request: httpx.Request, *, stream: bool = False, **options: Any) -> httpx.Response:
    if (play := played.get()) is not None:
        return play(request)
    tape = _begin_tape(request)
    try:
        response = await _send(self, request, stream=True, **options)
    except Exception as error:
        _note_failure(tape, error)
        raise
    if not response.is_stream_consumed:
        bounds, inflate = _bounds_of(response, stream)
        inner: Any = response.stream
        response.stream = _Bounded(inner, inflate, _taped(tape, response, bounds))
    if not stream:
        try:
            await response.aread()
        finally:
            await response.aclose()
    return response


def _bounded_send_plainly(self: httpx.Client, request: httpx.Request, *, stream: bool = False, **options: Any) -> httpx.Response:
    if (play := played.get()) is not None:
        return play(request)
    tape = _begin_tape(request)
    try:
        response = _send_plainly(self, request, stream=True, **options)
    except Exception as error:
        _note_failure(tape, error)
        raise
    if not response.is_stream_consumed:
        bounds, inflate = _bounds_of(response, stream)
        inner: Any = response.stream
        response.stream = _BoundedPlainly(inner, inflate, _taped(tape, response, bounds))
    if not stream:
        try:
            response.read()
        finally:
            response.close()
    return response


def _bounded_send_by_requests(
    self: requests.Session, request: requests.PreparedRequest, *, stream: bool = False, **options: Any
) -> requests.Response:
    """The package decompresses in bounded steps itself."""
    if played.get() is not None:
        raise requests.ConnectionError("no request is sent")
    response = _send_by_requests(self, request, stream=True, **options)
    if not stream and not isinstance(response._content, bytes):
        bounds = _Bounds(is_error=response.status_code >= 400, is_stream=False)
        try:
            response._content = b"".join(bounds.of(response.iter_content(_READ_BYTES)))  # PRIVATE: what `content` returns
            response._content_consumed = True
        finally:
            response.close()
    return response


def _bounds_of(response: httpx.Response, stream: bool) -> tuple[_Bounds, Inflate | None]:
    encoding = response.headers.pop("content-encoding", "")
    inflate = Inflate(encoding) if encoding not in ("", "identity") else None
    is_stream = stream and not response.headers.get("content-type", "").startswith(_WHOLE)
    return _Bounds(is_error=response.is_error, is_stream=is_stream), inflate


class _Bounds:
    """The limits of one body. ``ended``: the rest must not be read."""

    def __init__(self, *, is_error: bool, is_stream: bool) -> None:
        self._is_error = is_error
        self._is_stream = is_stream
        self._size = 0
        self._containers = 0
        self.ended = False
        self.tape: Tape | None = None  # of a response that is recorded

    def take(self, data: bytes) -> bytes:
        """``data``, or as much of it as may be read. Raises BridgeError for a body or a line that is too long."""
        data = self._within(data)
        if data and self.tape is not None:
            self.tape.hear(data)
        return data

    def end(self) -> None:
        if self.tape is not None:
            self.tape.hear(b"")

    def _within(self, data: bytes) -> bytes:
        if self._is_error and self._size + len(data) >= MAX_TEXT:
            self.ended = True
            return data[: MAX_TEXT - self._size]
        self._count(data)
        end = max(data.rfind(b"\n"), data.rfind(b"\r")) if self._is_stream else -1
        self._size = self._size + len(data) if end < 0 else len(data) - end - 1
        if self._size > (MAX_LINE_BYTES if self._is_stream else MAX_BODY_BYTES):
            raise _too_long(self._is_stream)
        return data

    def _count(self, data: bytes) -> None:
        if self._is_stream:
            return
        self._containers += data.count(b"[") + data.count(b"{")
        if self._containers > MAX_CONTAINERS:
            raise BridgeError("bad_upstream_response", f"the provider sent more than {MAX_CONTAINERS:,} JSON arrays and objects")

    def of(self, parts: Iterator[bytes]) -> Iterator[bytes]:
        for data in parts:
            yield self.take(data)
            if self.ended:
                return
        self.end()


class _Bounded(httpx.AsyncByteStream):
    def __init__(self, stream: httpx.AsyncByteStream, inflate: Inflate | None, bounds: _Bounds) -> None:
        self._stream = stream
        self._inflate = inflate
        self._bounds = bounds

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for data in self._inflated():
                yield self._bounds.take(data)
                if self._bounds.ended:
                    await self.aclose()
                    return
            self._bounds.end()
        except BridgeError:
            await self.aclose()
            raise
        except Exception as error:
            _note_failure(self._bounds.tape, error)
            raise

    async def _inflated(self) -> AsyncIterator[bytes]:
        async for data in self._stream:
            if self._inflate is None:
                yield data
                continue
            yield self._inflate.feed(data)
            while data := self._inflate.pending():
                yield data

    async def aclose(self) -> None:
        await self._stream.aclose()


class _BoundedPlainly(httpx.SyncByteStream):
    """A `_Bounded` for the blocking client; `httpx.Response` always closes it."""

    def __init__(self, stream: httpx.SyncByteStream, inflate: Inflate | None, bounds: _Bounds) -> None:
        self._stream = stream
        self._inflate = inflate
        self._bounds = bounds

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._bounds.of(self._inflated())
        except httpx.TransportError as error:
            _note_failure(self._bounds.tape, error)
            raise

    def _inflated(self) -> Iterator[bytes]:
        for data in self._stream:
            if self._inflate is None:
                yield data
                continue
            yield self._inflate.feed(data)
            while data := self._inflate.pending():
                yield data

    def close(self) -> None:
        self._stream.close()


def _begin_tape(request: httpx.Request) -> Tape | None:
    begin = next_tape.get()
    return begin() if begin is not None and is_call(request) else None


def _taped(tape: Tape | None, response: httpx.Response, bounds: _Bounds) -> _Bounds:
    if tape is not None:
        tape.status, tape.headers = response.status_code, response.headers
        bounds.tape = tape
    return bounds


def _note_failure(tape: Tape | None, error: Exception) -> None:
    if tape is not None:
        tape.fail(connection_failed(error))


def _too_long(is_stream: bool) -> BridgeError:
    what = f"a line of more than {MAX_LINE_BYTES}" if is_stream else f"a response of more than {MAX_BODY_BYTES}"
    return BridgeError("bad_upstream_response", f"the provider sent {what} bytes")
