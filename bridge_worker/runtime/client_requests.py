"""Requests that the worker sends to its client.

Owns their ids, which of them wait for a response, and their cancel. Refuses to know what a request is for.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping

from bridge_worker.protocol.envelope import WORKER_ID
from bridge_worker.protocol.framing import encode

INPUT_ENDED = "it has closed its end of the pipe"


class NoResult(Exception):
    """The client has returned an error, or can't respond. The message is for the user."""


class ClientRequests:
    """``write`` sends one line."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._numbers = itertools.count(1)
        self._waiting: dict[object, asyncio.Future[object]] = {}
        self._ended = False

    async def request(self, method: str, params: Mapping[str, object]) -> object:
        """The result of the client's response. Raises NoResult. A cancel of the waiting task is sent to the client."""
        if self._ended:
            raise NoResult(INPUT_ENDED)
        id = f"{WORKER_ID}{next(self._numbers)}"
        future = self._waiting[id] = asyncio.get_running_loop().create_future()
        self._write(encode({"jsonrpc": "2.0", "id": id, "method": method, "params": dict(params)}))
        try:
            return await future
        except asyncio.CancelledError:
            self._write(encode({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}}))
            raise
        finally:
            del self._waiting[id]

    def take(self, response: Mapping[str, object]) -> None:
        """A response of the client's. One to no request that waits is ignored."""
        id = response.get("id")
        future = self._waiting.get(id) if isinstance(id, str) else None
        if future is None or future.done():
            return
        if "error" in response:
            future.set_exception(NoResult(_reason(response["error"])))
        elif response.get("jsonrpc") != "2.0" or "result" not in response:
            future.set_exception(NoResult("its response is not a JSON-RPC 2.0 response"))
        else:
            future.set_result(response["result"])

    def end(self) -> None:
        """The client can send no more responses."""
        self._ended = True
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(NoResult(INPUT_ENDED))


def _reason(error: object) -> str:
    message = error.get("message") if isinstance(error, dict) else None
    return message if isinstance(message, str) and message else "it gave no reason"
