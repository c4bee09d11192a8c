"""A task of the server that dies ends the process with what is in flight answered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest

from bridge_worker.protocol.session import Response, Start
from bridge_worker.runtime.exit_codes import EXIT_INTERNAL
from bridge_worker.runtime.server import Server


class Broken:
    """A `Transport` that hands out one line, and fails at the second read."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self._reads = [b'{"jsonrpc":"2.0","id":7,"method":"chat","params":{}}\n']

    async def read(self) -> bytes:
        if not self._reads:
            raise RuntimeError("the reader is out of order")
        return self._reads.pop()

    def write(self, data: bytes) -> None:
        self.lines.append(data)

    def queued(self) -> int:
        return 0

    async def drained(self, limit: int) -> None:
        await asyncio.sleep(0)

    def break_off(self) -> None: ...

    async def broken(self) -> None:
        await asyncio.Event().wait()


class Forever:
    """A `Dispatch` whose requests never end."""

    def state(self) -> Mapping[str, object]:
        return {}

    async def dispatch(self, start: Start, received: float, notify: Any) -> Response:
        await asyncio.Event().wait()
        raise AssertionError

    async def ready(self) -> Mapping[str, object]:
        return {}


@pytest.mark.rule("EXT-4", "EXT-7")
def test_the_death_of_the_reader_finishes_requests_in_flight_and_exits_with_70(caplog: pytest.LogCaptureFixture) -> None:
    pipe = Broken()
    code = asyncio.run(asyncio.wait_for(Server(pipe, Forever(), grace_seconds=60).run(), 10))
    assert code == EXIT_INTERNAL
    (response,) = [json.loads(line) for line in pipe.lines]
    assert (response["id"], response["error"]["data"]["kind"]) == (7, "internal")
    assert "the reader is out of order" in caplog.text
