"""Requests a provider's key from the client, and caches the result.

Owns ``credentials/get``: when it is sent, what its result must be, how long that is cached. One request for a provider is in
flight, however many chats wait for it. Refuses to know which request needs a key, and LiteLLM.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from bridge_worker.core.credentials import Credential, Wanted, secrets
from bridge_worker.errors import BridgeError
from bridge_worker.protocol.client_capabilities import CredentialsCapability
from bridge_worker.runtime.client_requests import ClientRequests, NoResult
from bridge_worker.security.redaction import Redactor

METHOD = "credentials/get"
KEEP_SECONDS = 300.0  # without expires_in_seconds
MAX_KEEP_SECONDS = 86_400.0
_MAX_CHARACTERS = 64 * 1024  # of one value; a service account's JSON has 2,400
# Members of a result, with LiteLLM's name where that is another.
_PARAMS = {
    "api_key": "api_key",
    "base_url": "api_base",
    "api_version": "api_version",
    "azure_ad_token": "azure_ad_token",
    "aws_access_key_id": "aws_access_key_id",
    "aws_secret_access_key": "aws_secret_access_key",
    "aws_session_token": "aws_session_token",
    "aws_region_name": "aws_region_name",
    "vertex_credentials": "vertex_credentials",
    "vertex_project": "vertex_project",
    "vertex_location": "vertex_location",
}
_KEYS = ("api_key", "azure_ad_token", "aws_access_key_id", "vertex_credentials")


@dataclass(eq=False)
class _Cached:
    credential: Credential
    expires: float  # time.monotonic()
    timer: asyncio.TimerHandle


@dataclass(eq=False)
class _Flight:
    task: asyncio.Task[Credential]
    waiting: int = 0


class ClientCredentials:
    """A `CredentialSource`, in the process that has the client. Requests nothing before `connect`."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._client: ClientRequests | None = None
        self._capability = CredentialsCapability()
        self._numbers = itertools.count(1)
        self._cached: dict[Wanted, _Cached] = {}
        self._flights: dict[Wanted, _Flight] = {}
        self._rejected: set[Wanted] = set()

    def connect(self, client: ClientRequests, capability: CredentialsCapability) -> None:
        self._client, self._capability = client, capability

    async def get(self, wanted: Wanted, *, optional: bool) -> Credential | None:
        named = self._capability.providers
        if self._client is None or (optional if named is None else wanted.provider not in named):
            return None
        if (cached := self._cached.get(wanted)) is not None:
            return replace(cached.credential, keep_seconds=max(0.0, cached.expires - time.monotonic()))
        flight = self._flights.get(wanted) or self._begin(self._client, wanted)
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)
        except asyncio.CancelledError:
            if flight.waiting == 1:  # no other request waits for it
                self._end(wanted, flight)
                flight.task.cancel()
            raise
        finally:
            flight.waiting -= 1

    def _begin(self, client: ClientRequests, wanted: Wanted) -> _Flight:
        flight = self._flights[wanted] = _Flight(asyncio.create_task(self._request(client, wanted)))
        flight.task.add_done_callback(lambda task: self._end(wanted, flight))
        return flight

    def _end(self, wanted: Wanted, flight: _Flight) -> None:
        if self._flights.get(wanted) is flight:
            del self._flights[wanted]
        if flight.task.done() and not flight.task.cancelled():
            flight.task.exception()  # retrieved: the requests that waited have it, and there may be none left

    async def drop(self, credential: Credential) -> None:
        cached = self._cached.get(credential.wanted)
        if cached is not None and cached.credential.number == credential.number:
            self._rejected.add(credential.wanted)
            self._forget(credential.wanted)

    async def _request(self, client: ClientRequests, wanted: Wanted) -> Credential:
        provider, base_url = wanted
        limit = self._capability.timeout_ms
        reason = "rejected" if wanted in self._rejected else "missing"
        params = {"provider": provider, "reason": reason} | ({"base_url": base_url} if base_url else {})
        try:
            async with asyncio.timeout(limit / 1000):
                result = await client.request(METHOD, params)
            credential = self._credential(wanted, result)
        except TimeoutError:
            raise _failed(wanted, f"the client did not return a key for {provider} within {limit} ms") from None
        except NoResult as error:
            raise _failed(wanted, f"the client returned no key for {provider}: {error}") from None
        except _Malformed as error:
            raise _failed(wanted, f"the client's result of {METHOD} for {provider} is malformed: {error}") from None
        self._rejected.discard(wanted)
        if credential.keep_seconds > 0:
            self._keep(credential)
        return credential

    def _credential(self, wanted: Wanted, result: object) -> Credential:
        params, seconds = read_result(result)
        if wanted.base_url is not None:
            params.pop("api_base", None)
        return Credential(wanted, next(self._numbers), params, seconds)

    def _keep(self, credential: Credential) -> None:
        wanted, seconds = credential.wanted, credential.keep_seconds
        timer = asyncio.get_running_loop().call_later(seconds, self._forget, wanted)
        self._cached[wanted] = _Cached(credential, time.monotonic() + seconds, timer)
        self._redactor.hold(secrets(credential.params))

    def _forget(self, wanted: Wanted) -> None:
        cached = self._cached.pop(wanted)
        cached.timer.cancel()
        self._redactor.release(secrets(cached.credential.params))


class _Malformed(Exception):
    """The message names a member, never its value."""


def read_result(result: object) -> tuple[dict[str, str], float]:
    """LiteLLM's parameters, and for how many seconds they are cached. Raises _Malformed."""
    if not isinstance(result, dict):
        raise _Malformed("it must be an object")
    members: Mapping[str, Any] = result
    unknown = members.keys() - _PARAMS.keys() - {"expires_in_seconds"}
    if unknown:
        raise _Malformed(f"it has an unknown member; the members are {', '.join((*_PARAMS, 'expires_in_seconds'))}")
    for name in _PARAMS.keys() & members.keys():
        _check_text(name, members[name])
    params = {_PARAMS[name]: value.strip() for name, value in members.items() if name in _PARAMS and value is not None}
    if "api_key" not in members and not any(name in params for name in _KEYS):
        raise _Malformed("it has no api_key (null: no key is needed)")
    if ("aws_access_key_id" in params) != ("aws_secret_access_key" in params):
        raise _Malformed("aws_access_key_id and aws_secret_access_key belong together")
    return params, _seconds(members.get("expires_in_seconds"))


def _check_text(name: str, value: object) -> None:
    if value is None:
        return
    if not isinstance(value, str) or not value.strip() or len(value) > _MAX_CHARACTERS:
        raise _Malformed(f"{name} must be a text of 1 to {_MAX_CHARACTERS:,} characters, or null")
    if name != "vertex_credentials" and not (value.strip().isascii() and value.strip().isprintable()):
        raise _Malformed(f"{name} has characters that no HTTP header can hold")
    if name == "base_url" and not value.strip().startswith(("https://", "http://")):
        raise _Malformed("base_url must begin with https:// or http://")


def _seconds(value: object) -> float:
    if value is None:
        return KEEP_SECONDS
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise _Malformed("expires_in_seconds must be a number of at least 0, or null")
    return min(float(value), MAX_KEEP_SECONDS)


def _failed(wanted: Wanted, message: str) -> BridgeError:
    return BridgeError("authentication", message, provider=wanted.provider)
