"""Captures the HTTP request that LiteLLM would send for a chat; nothing is sent and no callback of LiteLLM is called.

Owns three names of LiteLLM and httpx (all PRIVATE): the innermost `litellm.acompletion`, its `Logging` class, and
`httpx.AsyncClient.send`, which ends the call with a `BaseException` while a context variable is set. Refuses to know what becomes
of a captured request.
"""

from __future__ import annotations

import inspect
import uuid
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx
import litellm
from litellm.litellm_core_utils.litellm_logging import Logging

from bridge_worker.core.progress import Progress, note_progress

_capturing: ContextVar[bool] = ContextVar("omni_bridge_capturing", default=False)
_send = httpx.AsyncClient.send
_complete = inspect.unwrap(litellm.acompletion)  # taken at import, before `gate` replaces the attribute

_FORM = "application/x-www-form-urlencoded"
# Set by the HTTP client for each connection and body; a captured value must not be sent again.
_PER_SEND = frozenset(("host", "content-length", "accept-encoding", "connection", "transfer-encoding"))


class NothingSent(Exception):
    """LiteLLM returned without a request that can be captured: a mock, or a provider that it calls by another HTTP client."""


class _Captured(BaseException):
    """A `BaseException`, so that no code of LiteLLM retries it, maps it or reports it as a failure."""

    def __init__(self, request: httpx.Request) -> None:
        super().__init__()
        self.request = request


@dataclass(slots=True)
class CapturedRequest:
    """A request as LiteLLM made it. ``model`` and ``provider`` are LiteLLM's names after it has resolved the model's name.

    ``optional_params`` and ``litellm_params`` are what LiteLLM gives to the provider's `transform_request`.
    """

    url: httpx.URL
    headers: dict[str, str]
    body: bytes
    model: str
    provider: str
    optional_params: Mapping[str, Any]
    litellm_params: Mapping[str, Any]


class SilentLogging(Logging):  # type: ignore[misc]  # LiteLLM's types are not read
    """LiteLLM's logging object without a listener. LiteLLM writes into it what it made of the parameters."""

    def __init__(self, call: Mapping[str, Any]) -> None:
        super().__init__(
            model=call["model"],
            messages=call["messages"],
            stream=bool(call.get("stream")),
            call_type="acompletion",
            start_time=datetime.now(),
            litellm_call_id=str(uuid.uuid4()),
            function_id="",
        )

    def pre_call(self, *_: Any, **__: Any) -> None:
        """Calls no callback."""

    def post_call(self, *_: Any, **__: Any) -> None:
        """Calls no callback."""

    def failure_handler(self, *_: Any, **__: Any) -> None:
        """Calls no callback."""

    def success_handler(self, *_: Any, **__: Any) -> None:
        """Calls no callback."""

    async def async_failure_handler(self, *_: Any, **__: Any) -> None:
        """Calls no callback."""

    async def async_success_handler(self, *_: Any, **__: Any) -> None:
        """Calls no callback."""


async def capture(call: Mapping[str, Any]) -> CapturedRequest:
    """The request of ``call``, the keyword arguments of `litellm.acompletion`. LiteLLM may write into them.

    Raises NothingSent, and whatever LiteLLM raises before it sends (a missing key, a parameter that the provider does not have).
    """
    log = SilentLogging(call)
    token = _capturing.set(True)
    try:
        response = await _complete(**call, litellm_logging_obj=log)
        if call.get("stream"):
            async for _ in response:
                break
    except _Captured as captured:
        return _captured_request(captured.request, call, log)
    finally:
        _capturing.reset(token)
    raise NothingSent(f"LiteLLM sent nothing for {call['model']}")


def install() -> None:
    """Puts the gate into httpx. A second call changes nothing."""
    if httpx.AsyncClient.send is not _gated_send:
        httpx.AsyncClient.send = _gated_send  # type: ignore[method-assign]


async def _gated_send(self: httpx.AsyncClient, request: httpx.Request, **options: Any) -> httpx.Response:
    if not _capturing.get():
        note_progress(Progress.SENT)
        return await _send(self, request, **options)
    if not is_call(request):
        return await _send(self, request, **options)
    await request.aread()
    raise _Captured(request)


def is_call(request: httpx.Request) -> bool:
    """Whether it is the call of a model: neither for a cloud's token nor a look-up that LiteLLM needs first."""
    return request.method == "POST" and not request.headers.get("content-type", "").startswith(_FORM)


def _captured_request(request: httpx.Request, call: Mapping[str, Any], log: Any) -> CapturedRequest:
    details = log.model_call_details
    return CapturedRequest(
        url=request.url,
        headers={name: value for name, value in request.headers.items() if name not in _PER_SEND},
        body=request.content,
        model=str(details.get("model") or call["model"]),
        provider=str(details.get("custom_llm_provider") or ""),
        optional_params=details.get("optional_params") or {},
        litellm_params=details.get("litellm_params") or {},
    )
