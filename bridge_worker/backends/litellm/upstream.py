"""One response of a provider: sent for, read and decoded.

Owns the order of these steps, and the price of the response. Refuses to know the Router, LiteLLM's callbacks and receipts, and how
a response is read (`backends.reading`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

import litellm

from bridge_worker.backends.litellm import transport
from bridge_worker.backends.litellm.exceptions import about_key
from bridge_worker.backends.litellm.pricing import price
from bridge_worker.backends.litellm.rate_limits import rate_limits
from bridge_worker.backends.litellm.transport import Destination, Response
from bridge_worker.backends.reading import AttemptError, ConnectionFailed, Reading, connection_fault, status_fault
from bridge_worker.backends.wire.decoder import Decoder
from bridge_worker.core.exchange import Tape
from bridge_worker.core.ports import Facts
from bridge_worker.errors import BridgeError

# Headers of a LiteLLM proxy that is the provider, whatever the config calls it.
_PROXY, _PROXY_COST = "x-litellm-version", "x-litellm-response-cost"


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


class Upstream(Reading):
    """A response with a good status, and the target that sent it. `aclose` must be awaited."""

    def __init__(self, response: Response | TapedResponse, decoder: Decoder, target: Target, sent: float) -> None:
        """``sent``: when the request was, on `time.monotonic`."""
        super().__init__(response, decoder, target.provider)
        self._response = response
        self._target = target
        self._sent = sent

    def facts(self) -> Facts:
        """The facts of the response; call it at its end."""
        target, headers, end = self._target, self.headers, self.end()
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

    async def aclose(self) -> bool:
        return await self._response.aclose()


class TapedResponse:
    """A response that is recorded while it is read."""

    def __init__(self, response: Response, tape: Tape) -> None:
        self.status = tape.status = response.status
        self.headers = tape.headers = response.headers
        self.finish = response.finish
        self.aclose = response.aclose
        self._response = response
        self._tape = tape

    async def read(self) -> bytes:
        try:
            data = await self._response.read()
        except ConnectionFailed as error:
            self._tape.fail(error)
            raise
        self._tape.hear(data)
        return data


async def open_upstream(
    decoder: Callable[[], Decoder], destination: Destination, body: bytes, timeout: float, target: Target, tape: Tape | None = None
) -> Upstream:
    """Sends a request. Returns when the response's headers have arrived with a good status. Raises AttemptError."""
    sent = time.monotonic()
    response: Response | TapedResponse
    try:
        response = await transport.send(destination, body, timeout)
        if tape is not None:
            response = TapedResponse(response, tape)
    except ConnectionFailed as error:
        if tape is not None:
            tape.fail(error)
        raise AttemptError(connection_fault(error, target.provider), is_connection=True) from error
    except BridgeError as error:
        error.provider = error.provider or target.provider
        raise AttemptError(error) from error
    made = decoder()
    if 200 <= response.status < 300:
        return Upstream(response, made, target, sent)
    try:
        fault = await status_fault(response, made, target.provider)
        if fault.kind == "authentication":
            fault.message = about_key(fault.message, target.provider, responded=True)
        raise AttemptError(fault, response.headers)
    finally:
        await response.aclose()
