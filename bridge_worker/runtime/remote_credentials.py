"""The client's keys for an engine process: its `CredentialSource`, and the server process's side of its calls.

Owns the JSON of a call, and which calls of an engine wait. Refuses to know how a call travels, and how the client is reached.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from bridge_worker.core.credentials import Credential, CredentialSource, Wanted
from bridge_worker.errors import BridgeError

Call = Callable[[str, Mapping[str, object]], Awaitable[Any]]
PREFIX = "credentials/"
_GET, _LEAVE, _DROP = f"{PREFIX}get", f"{PREFIX}leave", f"{PREFIX}drop"


class RemoteCredentials:
    """The server process has the results for all engines."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._numbers = itertools.count(1)

    async def get(self, wanted: Wanted, *, optional: bool) -> Credential | None:
        number = next(self._numbers)
        try:
            reply = await self._call(_GET, {"wait": number, "wanted": wanted, "optional": optional})
        except asyncio.CancelledError:
            await self._call(_LEAVE, {"wait": number})
            raise
        if reply is None:
            return None
        if "failed" in reply:
            raise BridgeError("authentication", reply["failed"], provider=wanted.provider)
        return Credential(wanted, reply["number"], reply["params"], reply["keep_seconds"])

    async def drop(self, credential: Credential) -> None:
        await self._call(_DROP, {"wanted": credential.wanted, "number": credential.number})


class CredentialService:
    """Carries out the calls of engines on ``source``."""

    def __init__(self, source: CredentialSource) -> None:
        self._source = source
        self._waiting: dict[tuple[int, int], asyncio.Task[Credential | None]] = {}

    async def serve(self, engine: int, call: Mapping[str, Any]) -> object:
        """``engine`` is the number of the caller. Raises ValueError for an unknown call."""
        match call["name"]:
            case "credentials/get":
                return await self._get((engine, call["wait"]), Wanted(*call["wanted"]), optional=call["optional"])
            case "credentials/leave":
                self._leave((engine, call["wait"]))
                return None
            case "credentials/drop":
                await self._source.drop(Credential(Wanted(*call["wanted"]), call["number"], {}, 0.0))
                return None
        raise ValueError(f"unknown call {call['name']!r:.100}")

    def engine_lost(self, engine: int) -> None:
        for wait in [wait for wait in self._waiting if wait[0] == engine]:
            self._leave(wait)

    async def _get(self, wait: tuple[int, int], wanted: Wanted, *, optional: bool) -> object:
        task = self._waiting[wait] = asyncio.ensure_future(self._source.get(wanted, optional=optional))
        try:
            credential = await task
        except asyncio.CancelledError:
            return None  # its request is gone, and reads no reply
        except BridgeError as error:
            return {"failed": error.message}
        finally:
            del self._waiting[wait]
        if credential is None:
            return None
        return {"number": credential.number, "params": dict(credential.params), "keep_seconds": credential.keep_seconds}

    def _leave(self, wait: tuple[int, int]) -> None:
        if (task := self._waiting.get(wait)) is not None:
            task.cancel()
