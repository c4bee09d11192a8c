"""Reads one response of a provider through its decoder, plain or streamed, and decides what a failure during it means.

Owns the error of a connection that fails, and of a response that breaks off after content. Refuses to know where the bytes come
from: a provider's connection and a cassette are read by the same code. Never imports LiteLLM.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from bridge_worker.backends.wire.decoder import Decoder
from bridge_worker.core.deltas import Delta, End
from bridge_worker.errors import BridgeError

MAX_ERROR_BYTES = 64 * 1024
MAX_BODY_BYTES = 64 * 1024 * 1024
# After the first delta these become `stream_interrupted`. The other kinds name what the caller has to correct, streamed or not.
INTERRUPTIONS = {"rejected_by_provider", "rate_limited", "timeout", "provider_unavailable", "bad_upstream_response"}


class ConnectionFailed(Exception):
    """The provider was not reached, or the connection broke. ``timed_out``: it was silent for too long."""

    def __init__(self, message: str, *, timed_out: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out


class AttemptError(Exception):
    """An attempt failed with ``fault``. ``headers`` are the response's; ``is_connection``: there was none, or it broke off."""

    def __init__(self, fault: BridgeError, headers: Mapping[str, str] | None = None, *, is_connection: bool = False) -> None:
        super().__init__(fault.message)
        self.fault = fault
        self.headers = headers or {}
        self.is_connection = is_connection


class Body(Protocol):
    """A response after its headers have arrived. Each method raises ConnectionFailed."""

    status: int
    headers: Mapping[str, str]

    async def read(self) -> bytes:
        """The bytes of one read; b"" at the end."""

    async def finish(self) -> None:
        """Waits briefly for the end of a body after the format's end marker."""


class Reading:
    """A response with a good status. All methods raise AttemptError only."""

    def __init__(self, body: Body, decoder: Decoder, provider: str | None) -> None:
        self._body = body
        self._decoder = decoder
        self._provider = provider
        self._ended = False
        self._whole: list[Delta] = []  # of a plain response
        self.has_content = False  # a delta has been read
        self.status = body.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self._body.headers

    async def whole(self) -> list[Delta]:
        """The deltas of a plain response."""
        try:
            data = await read_all(self._body)
            deltas = self._decoder.whole(data)
        except (BridgeError, ConnectionFailed) as error:
            raise self._failed(error) from error
        self._ended = True
        self._whole = deltas
        return deltas

    async def read(self) -> list[Delta]:
        """The deltas of the next read that has any; [] at the end of the stream."""
        decoder = self._decoder
        try:
            while not self._ended:
                if decoder.failure is not None:  # it was found behind the deltas of the last read
                    raise decoder.failure
                data = b"" if decoder.done else await self._body.read()
                if data:
                    deltas = decoder.feed(data)
                else:
                    if decoder.done:
                        await self._body.finish()
                    self._ended = True
                    deltas = decoder.flush()
                if deltas:
                    self.has_content = self.has_content or any(map(has_content, deltas))
                    return deltas
        except ConnectionFailed as error:
            self._ended = True
            if not self._is_complete():
                raise self._failed(error) from error
        except BridgeError as error:
            self._ended = True
            raise self._failed(error) from error
        return []

    def end(self) -> End:
        """The facts that the decoder has; call it at the end of the response."""
        try:
            return self._decoder.end()
        except BridgeError as error:
            if text := "".join(delta.content or "" for delta in self._whole):  # of a plain response that ended in an error
                error.extra.setdefault("partial", {"content": text, "tool_calls": []})
            raise self._failed(error) from error

    def _is_complete(self) -> bool:
        """Whether the provider sent its end marker before the connection broke."""
        try:
            self._decoder.end()
        except BridgeError:
            return False
        return True

    def _failed(self, error: BridgeError | ConnectionFailed) -> AttemptError:
        is_connection = isinstance(error, ConnectionFailed)
        fault = connection_fault(error, self._provider) if isinstance(error, ConnectionFailed) else error
        fault.provider = fault.provider or self._provider
        return interrupted(fault, self.headers, after_content=self.has_content, is_connection=is_connection)


def interrupted(
    fault: BridgeError, headers: Mapping[str, str] | None = None, *, after_content: bool, is_connection: bool = False
) -> AttemptError:
    """What ``fault``, met while a response was read, is to the caller: after content, a stream that broke off."""
    if after_content and fault.kind in INTERRUPTIONS:
        fault.kind, fault.message = "stream_interrupted", f"the stream broke off: {fault.message}"
        fault.extra.pop("deadline", None)
        fault.retry_after_ms = fault.status = None
    elif not after_content and fault.kind == "stream_interrupted":
        fault.kind = "bad_upstream_response"
        is_connection = True
    elif fault.kind == "stream_interrupted":
        is_connection = True
    return AttemptError(fault, headers, is_connection=is_connection)


def has_content(delta: Delta) -> bool:
    return bool(delta.content or delta.reasoning or delta.tool_calls or delta.refusal)


async def read_all(body: Body, limit: int = MAX_BODY_BYTES) -> bytes:
    """The whole body. Raises ConnectionFailed, and BridgeError ``bad_upstream_response`` for a body over ``limit``."""
    data = await read_up_to(body, limit + 1)
    if len(data) > limit:
        raise BridgeError("bad_upstream_response", f"the provider's response is longer than {limit} bytes", status=body.status)
    return data


async def read_up_to(body: Body, limit: int) -> bytes:
    """The body's first ``limit`` bytes."""
    parts: list[bytes] = []
    size = 0
    while size < limit and (data := await body.read()):
        parts.append(data)
        size += len(data)
    return b"".join(parts)[:limit]


async def status_fault(body: Body, decoder: Decoder, provider: str | None) -> BridgeError:
    """The error that a response with a status other than 2xx means."""
    status = body.status
    if status < 400:
        wrong = f"the provider redirected the request (status {status}), and redirects are not followed; correct its base URL"
        return BridgeError("bad_upstream_response", wrong, provider=provider, status=status)
    try:
        data = await read_up_to(body, MAX_ERROR_BYTES)
    except (ConnectionFailed, BridgeError):
        data = b""
    fault = decoder.error(status, body.headers, data)
    fault.provider = fault.provider or provider
    fault.status = status
    return fault


def connection_fault(error: ConnectionFailed, provider: str | None) -> BridgeError:
    who = provider or "the provider"
    if error.timed_out:
        extra: dict[str, object] = {"deadline": "provider"}
        return BridgeError("timeout", f"{who} did not respond in time", provider=provider, extra=extra)
    return BridgeError("provider_unavailable", f"{who} could not be reached: {error}", provider=provider)
