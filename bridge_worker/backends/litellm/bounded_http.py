"""Bounds what LiteLLM and the SDKs under it read of a response, on the path where the bridge does not read it itself.

Owns one replacement: `httpx.AsyncClient.send`, by public API only. An error's body ends after 16 KiB, because LiteLLM runs its
regular expressions over it on the loop; a whole body is bounded after decompression, and a stream's line by its length. Refuses to
know which method or provider a response is for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx

from bridge_worker.backends.litellm.inflate import Inflate
from bridge_worker.backends.litellm.transport import MAX_BODY_BYTES
from bridge_worker.errors import BridgeError
from bridge_worker.security.error_text import MAX_TEXT

MAX_LINE_BYTES = 16 * 1024 * 1024
_WHOLE = "application/json"

_send = httpx.AsyncClient.send


def install() -> None:
    """Puts the bounds into httpx. A second call changes nothing."""
    global _send
    if httpx.AsyncClient.send is not _bounded_send:
        _send = httpx.AsyncClient.send
        httpx.AsyncClient.send = _bounded_send  # type: ignore[method-assign]


async def _bounded_send(self: httpx.AsyncClient, request: httpx.Request, *, stream: bool = False, **options: Any) -> httpx.Response:
    response = await _send(self, request, stream=True, **options)
    if not response.is_stream_consumed:
        _bound(response, is_stream=stream and not response.headers.get("content-type", "").startswith(_WHOLE))
    if not stream:
        try:
            await response.aread()
        finally:
            await response.aclose()
    return response


def _bound(response: httpx.Response, *, is_stream: bool) -> None:
    encoding = response.headers.pop("content-encoding", "")
    inflate = Inflate(encoding) if encoding not in ("", "identity") else None
    stream: Any = response.stream
    response.stream = _Bounded(stream, inflate, is_error=response.is_error, is_stream=is_stream)


class _Bounded(httpx.AsyncByteStream):
    def __init__(self, stream: httpx.AsyncByteStream, inflate: Inflate | None, *, is_error: bool, is_stream: bool) -> None:
        self._stream = stream
        self._inflate = inflate
        self._is_error = is_error
        self._is_stream = is_stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for data in self._inflated():
            if self._is_error and size + len(data) >= MAX_TEXT:
                yield data[: MAX_TEXT - size]
                await self.aclose()  # the rest is never read
                return
            end = max(data.rfind(b"\n"), data.rfind(b"\r")) if self._is_stream else -1
            size = size + len(data) if end < 0 else len(data) - end - 1
            if size > (MAX_LINE_BYTES if self._is_stream else MAX_BODY_BYTES):
                await self.aclose()
                raise _too_long(self._is_stream)
            yield data

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


def _too_long(is_stream: bool) -> BridgeError:
    what = f"a line of more than {MAX_LINE_BYTES}" if is_stream else f"a response of more than {MAX_BODY_BYTES}"
    return BridgeError("bad_upstream_response", f"the provider sent {what} bytes")
