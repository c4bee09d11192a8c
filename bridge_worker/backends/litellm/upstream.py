"""One response of a provider: sent for, read and decoded.

Owns the order of these steps, plain and streamed, and what a failure in each of them means. Refuses to know the Router, LiteLLM's
callbacks and receipts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress

import litellm

from bridge_worker.backends.litellm import transport
from bridge_worker.backends.litellm.exceptions import about_key
from bridge_worker.backends.litellm.pricing import price
from bridge_worker.backends.litellm.rate_limits import rate_limits
from bridge_worker.backends.litellm.transport import ConnectionFailed, Destination, Response
from bridge_worker.backends.wire.decoder import Decoder
from bridge_worker.core.deltas import Delta
from bridge_worker.core.ports import Facts
from bridge_worker.errors import BridgeError

# After the first delta these become `stream_interrupted`. The other kinds name what the caller has to correct, streamed or not.
INTERRUPTIONS = {"rejected_by_provider", "rate_limited", "timeout", "provider_unavailable", "bad_upstream_response"}
# Headers of a LiteLLM proxy that is the provider, whatever the config calls it.
_PROXY, _PROXY_COST = "x-litellm-version", "x-litellm-response-cost"


class AttemptError(Exception):
    """An attempt failed with ``fault``. ``headers`` are the response's; ``is_connection``: there was none, or it broke off."""

    def __init__(self, fault: BridgeError, headers: Mapping[str, str] | None = None, *, is_connection: bool = False) -> None:
        super().__init__(fault.message)
        self.fault = fault
        self.headers = headers or {}
        self.is_connection = is_connection


class Target:
    """The names of what is called. ``model`` and ``provider`` are LiteLLM's, ``deployment`` is an id of the gateway's config."""

    __slots__ = ("deployment", "model", "provider")

    def __init__(self, model: str | None, provider: str | None, deployment: str | None = None) -> None:
        self.model = model
        self.provider = provider
        self.deployment = deployment


def target_of(model: str | None, provider: str | None = None, api_base: str | None = None, deployment: str | None = None) -> Target:
    with suppress(Exception):  # a name that is the Router's, or a provider that LiteLLM does not know
        name, found, _, _ = litellm.get_llm_provider(model, provider, api_base)
        return Target(name, found, deployment)
    return Target(model, None, deployment)


class Upstream:
    """A response with a good status. `aclose` must be awaited. All methods raise AttemptError only."""

    def __init__(self, response: Response, decoder: Decoder, target: Target, sent: float) -> None:
        """``sent``: when the request was, on `time.monotonic`."""
        self._response = response
        self._decoder = decoder
        self._target = target
        self._ended = False
        self._text = ""
        self.has_content = False  # a delta has been read
        self.status = response.status
        self._sent = sent

    async def whole(self) -> list[Delta]:
        """The deltas of a plain response."""
        try:
            body = await self._response.read_all()
            deltas = self._decoder.whole(body)
        except (BridgeError, ConnectionFailed) as error:
            raise self._failed(error) from error
        self._ended = True
        self._text = "".join(delta.content for delta in deltas if delta.content)
        return deltas

    async def read(self) -> list[Delta]:
        """The deltas of the next read that has any; [] at the end of the stream."""
        decoder = self._decoder
        try:
            while not self._ended:
                if decoder.failure is not None:  # it was found behind the deltas of the last read
                    raise decoder.failure
                data = b"" if decoder.done else await self._response.read()
                if data:
                    deltas = decoder.feed(data)
                else:
                    if decoder.done:
                        await self._response.finish()
                    self._ended = True
                    deltas = decoder.flush()
                if deltas:
                    self.has_content = self.has_content or any(map(_shows, deltas))
                    return deltas
        except ConnectionFailed as error:
            self._ended = True
            if not self._is_complete():
                raise self._failed(error) from error
        except BridgeError as error:
            self._ended = True
            raise self._failed(error) from error
        return []

    def facts(self) -> Facts:
        """The facts of the response; call it at its end."""
        target = self._target
        try:
            end = self._decoder.end()
        except BridgeError as error:
            if self._text:  # of a plain response that ended in an error
                error.extra.setdefault("partial", {"content": self._text, "tool_calls": []})
            raise self._failed(error) from error
        headers = self._response.headers
        charged: float | str | None = end.cost_usd
        if charged is None and _PROXY in headers:
            charged = headers.get(_PROXY_COST)
        if end.model is not None and target.provider is not None:
            end.model = end.model.removeprefix(f"{target.provider}/")
        cost = price(
            end.usage,
            provider=target.provider,
            deployment=target.deployment,
            models=(target.model, end.model),
            charged=charged,
            seconds=time.monotonic() - self._sent,
        )
        usd, source, date = cost or (None, None, None)
        return Facts(end, target.provider, usd, source, date, rate_limits(headers.items()))

    @property
    def headers(self) -> Mapping[str, str]:
        return self._response.headers

    async def aclose(self) -> bool:
        return await self._response.aclose()

    def _is_complete(self) -> bool:
        """Whether the provider sent its end marker before the connection broke."""
        try:
            self._decoder.end()
        except BridgeError:
            return False
        return True

    def _failed(self, error: BridgeError | ConnectionFailed) -> AttemptError:
        target = self._target
        is_connection = isinstance(error, ConnectionFailed)
        fault = _of_connection(error, target) if isinstance(error, ConnectionFailed) else error
        fault.provider = fault.provider or target.provider
        if self.has_content and fault.kind in INTERRUPTIONS:
            fault.kind, fault.message = "stream_interrupted", f"the stream broke off: {fault.message}"
            fault.extra.pop("deadline", None)
            fault.retry_after_ms = fault.status = None
        elif not self.has_content and fault.kind == "stream_interrupted":
            fault.kind = "bad_upstream_response"
            is_connection = True
        elif fault.kind == "stream_interrupted":
            is_connection = True
        return AttemptError(fault, self._response.headers, is_connection=is_connection)


def _shows(delta: Delta) -> bool:
    return bool(delta.content or delta.reasoning or delta.tool_calls or delta.refusal)


async def open_upstream(
    decoder: Callable[[], Decoder], destination: Destination, body: bytes, timeout: float, target: Target
) -> Upstream:
    """Sends a request. Returns when the response's headers have arrived with a good status. Raises AttemptError."""
    sent = time.monotonic()
    try:
        response = await transport.send(destination, body, timeout)
    except ConnectionFailed as error:
        raise AttemptError(_of_connection(error, target), is_connection=True) from error
    except BridgeError as error:
        error.provider = error.provider or target.provider
        raise AttemptError(error) from error
    made = decoder()
    if 200 <= response.status < 300:
        return Upstream(response, made, target, sent)
    try:
        raise AttemptError(await _of_status(response, made, target), response.headers)
    finally:
        await response.aclose()


async def _of_status(response: Response, decoder: Decoder, target: Target) -> BridgeError:
    status = response.status
    if status < 400:
        wrong = f"the provider redirected the request (status {status}), and redirects are not followed; correct its base URL"
        return BridgeError("bad_upstream_response", wrong, provider=target.provider, status=status)
    try:
        body = await response.read_up_to(transport.MAX_ERROR_BYTES)
    except (ConnectionFailed, BridgeError):
        body = b""
    fault = decoder.error(status, response.headers, body)
    fault.provider = fault.provider or target.provider
    fault.status = status
    if fault.kind == "authentication":
        fault.message = about_key(fault.message, target.provider, responded=True)
    return fault


def _of_connection(error: ConnectionFailed, target: Target) -> BridgeError:
    who = target.provider or "the provider"
    if error.timed_out:
        extra: dict[str, object] = {"deadline": "provider"}
        return BridgeError("timeout", f"{who} did not respond in time", provider=target.provider, extra=extra)
    return BridgeError("provider_unavailable", f"{who} could not be reached: {error}", provider=target.provider)
