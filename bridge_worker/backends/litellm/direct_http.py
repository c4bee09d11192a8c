"""HTTP for the direct engine: LiteLLM's transport, and with it its connections, limits, proxies and TLS, without httpx on top.

Owns what a request and an answer are at that place. Refuses to know what is asked: it is handed to LiteLLM as its client, and what
LiteLLM's own client does around a request, a second try where nothing could be connected for one, stays LiteLLM's.
"""

from __future__ import annotations

import asyncio
import weakref
from functools import lru_cache
from typing import Any, NamedTuple, cast

import httpx
from litellm.llms.custom_httpx.aiohttp_transport import LiteLLMAiohttpTransport
from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler, get_async_httpx_client

from bridge_worker.backends.litellm.chat import REQUEST_TIMEOUT_SECONDS


class Handler(AsyncHTTPHandler):  # type: ignore[misc]  # LiteLLM's types are not read
    """LiteLLM's HTTP client, whose requests go to its transport without httpx's layers in between."""

    def __init__(self, ordinary: AsyncHTTPHandler) -> None:
        super().__init__(timeout=REQUEST_TIMEOUT_SECONDS)
        self.ordinary = ordinary
        wide = isinstance(ordinary.client._transport, LiteLLMAiohttpTransport)  # else the operator wants httpx's own, or HTTP/2
        self.client = _Client(ordinary.client) if wide else ordinary.client

    async def post(self, *arguments: Any, logging_obj: Any, **request: Any) -> httpx.Response:
        response: httpx.Response = await _plain_post(self, *arguments, logging_obj=logging_obj, **request)
        logging_obj.response = response
        return response


class _Client:
    """What of an httpx client LiteLLM's handler uses."""

    def __init__(self, ordinary: httpx.AsyncClient) -> None:
        self._ordinary = ordinary
        self._headers = dict(ordinary.headers)
        self._transport = cast(LiteLLMAiohttpTransport, ordinary._transport)

    def build_request(self, method: str, url: str, *, headers: Any, timeout: Any, content: Any, **form: Any) -> Any:
        if not isinstance(content, str) or any(form.values()) or not isinstance(timeout, float):
            return self._ordinary.build_request(method, url, headers=headers, timeout=timeout, content=content, **form)
        named = self._headers | {name.lower(): value for name, value in headers.items()}
        return _Request(method, _url(url), named, content.encode(), {"timeout": _timeout(timeout)})

    async def send(self, request: Any, *, stream: bool) -> httpx.Response:
        response: httpx.Response = await self._transport.handle_async_request(request)
        if isinstance(request, _Request) and (response.is_error or response.has_redirect_location):
            response.request = request = self._ordinary.build_request(
                request.method, request.url, headers=request.headers, content=request.content, extensions=request.extensions
            )
        if response.has_redirect_location:  # to be followed by httpx, which asks again
            await response.aclose()
            return await self._ordinary.send(request, stream=stream)
        if not stream:
            await response.aread()
        return response


class _Request(NamedTuple):
    """What of an httpx request LiteLLM's transport looks at."""

    method: str
    url: httpx.URL
    headers: dict[str, str]
    content: bytes
    extensions: dict[str, Any]


def handler() -> Handler:
    """One a loop, as connections are a loop's, and of LiteLLM's own cache, which renews it each hour and closes it at the end."""
    ordinary = get_async_httpx_client("omni_bridge", {"timeout": REQUEST_TIMEOUT_SECONDS})
    loop = asyncio.get_running_loop()
    if loop not in _handlers or _handlers[loop].ordinary is not ordinary:
        _handlers[loop] = Handler(ordinary)
    return _handlers[loop]


_handlers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Handler] = weakref.WeakKeyDictionary()
_url = lru_cache(maxsize=256)(httpx.URL)
_timeout = lru_cache(maxsize=16)(lambda seconds: httpx.Timeout(seconds).as_dict())
_plain_post = AsyncHTTPHandler.post.__wrapped__  # PRIVATE: without the task that it starts to time each request
