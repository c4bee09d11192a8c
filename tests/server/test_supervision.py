"""A task, a callback or a thread of the server that dies ends the process; what is in flight gets a response."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from bridge_worker.engines.board import Board, open_board
from bridge_worker.engines.engine import Engine
from bridge_worker.protocol.session import Response, Start, response
from bridge_worker.runtime import stdio
from bridge_worker.runtime.dispatch import RunsInTasks
from bridge_worker.runtime.exit_codes import EXIT_INTERNAL
from bridge_worker.runtime.server import Server
from bridge_worker.runtime.stdio import Stdio


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


class Forever(RunsInTasks):
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


def test_an_engine_that_cannot_report_what_it_has_loaded_ends(caplog: pytest.LogCaptureFixture) -> None:
    """Else it would never get a request, and nothing would replace it."""

    def report() -> Mapping[str, object]:
        raise ImportError("no descriptor is left")

    async def serve() -> None:
        ours, theirs = socket.socketpair()
        fd = open_board()
        try:
            with ours:
                await Engine(Forever(), Board(fd), report).run(theirs)
        finally:
            os.close(fd)

    asyncio.run(asyncio.wait_for(serve(), 10))
    assert "no descriptor is left" in caplog.text


class Unwritable(Broken):
    """Its first write fails."""

    async def read(self) -> bytes:
        return self._reads.pop() if self._reads else await asyncio.Event().wait() or b""

    def write(self, data: bytes) -> None:
        if not self.lines:
            self.lines.append(b"")
            raise RuntimeError("the writer is out of order")


class Immediate(Forever):
    async def dispatch(self, start: Start, received: float, notify: Any) -> Response:
        return response(start.id, {})


@pytest.mark.rule("EXT-7")
def test_the_death_of_a_request_with_its_response_exits_with_70(caplog: pytest.LogCaptureFixture) -> None:
    assert asyncio.run(asyncio.wait_for(Server(Unwritable(), Immediate(), grace_seconds=60).run(), 10)) == EXIT_INTERNAL
    assert "the writer is out of order" in caplog.text


CHAT = b'{"jsonrpc":"2.0","id":7,"method":"chat","params":{}}\n'
PING = b'{"jsonrpc":"2.0","id":"p","method":"ping"}\n'
PINGS = PING.replace(b'"p"', b'"' + b"p" * 1_000 + b'"') * 40  # their responses are more than a pipe of 4 KiB has room for


def breaks(at: int, original: Callable[..., Any]) -> Callable[..., Any]:
    """Fails at the call with this number, from 1; a second time it would not be called at all."""
    calls = 0

    def call(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at:
            raise RuntimeError("out of order")
        return original(*arguments)

    return call


def serve(source: int, sink: int) -> int:
    async def run() -> int:
        return await Server(Stdio(source, sink), Forever(), grace_seconds=60).run()

    return asyncio.run(asyncio.wait_for(run(), 30))


@pytest.mark.rule("EXT-4", "EXT-7")
@pytest.mark.parametrize("kind", ["callback", "thread"])
def test_the_death_of_what_reads_finishes_requests_in_flight_and_exits_with_70(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path, kind: str
) -> None:
    monkeypatch.setattr(stdio._Source, "_read", breaks(2, stdio._Source._read))
    from_server, sink = os.pipe()
    if kind == "callback":
        source, to_server = os.pipe()
        monkeypatch.setattr(stdio, "_READ_BYTES", len(CHAT))  # so that there is a second read
        os.write(to_server, CHAT + b"\n")
    else:
        (tmp_path / "lines").write_bytes(CHAT)
        source = os.open(tmp_path / "lines", os.O_RDONLY)
    assert serve(source, sink) == EXIT_INTERNAL
    os.close(sink)
    with os.fdopen(from_server, "rb") as lines:
        responses = [json.loads(line) for line in lines]
    assert [(response["id"], response["error"]["data"]["kind"]) for response in responses] == [(7, "internal")]
    assert "out of order" in caplog.text


@pytest.mark.rule("EXT-7")
@pytest.mark.parametrize("name", ["write_some", "write_all"])
def test_the_death_of_what_writes_exits_with_70(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """``write_some`` is called by the loop, ``write_all`` by a thread. Nothing more is written: a line may have been cut."""
    monkeypatch.setattr(stdio, name, breaks(1, getattr(stdio, name)))
    (source, to_server), (from_server, sink) = os.pipe(), os.pipe()
    fcntl.fcntl(sink, fcntl.F_SETPIPE_SZ, 4096)
    os.write(to_server, CHAT + (PINGS if name == "write_all" else PING))
    assert serve(source, sink) == EXIT_INTERNAL
    os.close(sink)
    with os.fdopen(from_server, "rb") as lines:
        assert lines.read() == b""
    assert "out of order" in caplog.text
