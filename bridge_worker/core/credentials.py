"""Keys that the client has: the port to request one, and how long a process keeps one.

Owns both. A key that has expired, or that its provider has rejected, is dropped once no request uses it, and is masked until then.
Refuses to know how a key is requested, and what a provider needs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from bridge_worker.security.redaction import Redactor


class Wanted(NamedTuple):
    """What a key is for. ``base_url``: the host it goes to, where that is not the provider's own."""

    provider: str
    base_url: str | None = None


@dataclass(frozen=True, eq=False)
class Credential:
    """The client's result. ``params`` are LiteLLM's keyword arguments, none where the provider needs no key.

    ``number`` identifies the result in this worker. ``keep_seconds``: it is requested again after this time.
    """

    wanted: Wanted
    number: int
    params: Mapping[str, str] = field(repr=False)
    keep_seconds: float


class CredentialSource(Protocol):
    """Port: requests keys from the client."""

    async def get(self, wanted: Wanted, *, optional: bool) -> Credential | None:
        """The cached result, or a new one. None where the client gets no request. ``optional``: the provider can do without a key,
        so the client gets a request only where it has named the provider.

        Raises BridgeError ``authentication`` for a denied, late or malformed result.
        """

    async def drop(self, credential: Credential) -> None:
        """Its provider has rejected it: the next chat requests another."""


@dataclass(eq=False)
class _Use:
    credential: Credential
    timer: asyncio.TimerHandle
    requests: int = 0
    ended: bool = False


class CredentialsInUse:
    """The keys that requests of this process use. All calls are made in its one loop."""

    def __init__(self, source: CredentialSource, redactor: Redactor) -> None:
        self._source = source
        self._redactor = redactor
        self._uses: dict[int, _Use] = {}
        self.on_forget: Callable[[Credential], None] = lambda _: None  # it is not used any more

    async def get(self, wanted: Wanted, request: asyncio.Task[Any] | None, *, optional: bool) -> Credential | None:
        """As `CredentialSource.get`; the key is kept until ``request``, the task that makes the response, is done."""
        credential = await self._source.get(wanted, optional=optional)
        return None if credential is None else self._use(credential, request)

    async def drop(self, credential: Credential) -> None:
        self._end(credential.number)
        await self._source.drop(credential)

    def _use(self, credential: Credential, request: asyncio.Task[Any] | None) -> Credential:
        number = credential.number
        for use in list(self._uses.values()):
            if use.credential.wanted == credential.wanted and use.credential.number != number:
                self._end(use.credential.number)
        if number not in self._uses:
            timer = asyncio.get_running_loop().call_later(credential.keep_seconds, self._end, number)
            self._uses[number] = _Use(credential, timer)
            self._redactor.hold(secrets(credential.params))
        use = self._uses[number]
        if request is not None and not request.done():
            use.requests += 1
            request.add_done_callback(lambda _: self._let_go(number))
        return use.credential

    def _let_go(self, number: int) -> None:
        use = self._uses[number]
        use.requests -= 1
        self._forget_if_done(use)

    def _end(self, number: int) -> None:
        if (use := self._uses.get(number)) is not None:
            use.ended = True
            use.timer.cancel()
            self._forget_if_done(use)

    def _forget_if_done(self, use: _Use) -> None:
        if use.ended and use.requests == 0:
            del self._uses[use.credential.number]
            self._redactor.release(secrets(use.credential.params))
            self.on_forget(use.credential)


# Members of a result that are no secrets.
OPEN = frozenset({"base_url", "api_base", "api_version", "aws_region_name", "vertex_project", "vertex_location"})


def secrets(params: Mapping[str, str]) -> Iterator[str]:
    return (value for name, value in params.items() if name not in OPEN)
