"""The process and its pipes: non-blocking descriptors, signals after the end of input, inherited dispositions, unseen processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.conftest import Spawn
from tests.support.upstream import Upstream
from tests.support.worker import COMMAND, WAIT_SECONDS, Json, clean_environment

TEXT = "x" * 3_000_000


def echo(id: int, text: str) -> bytes:
    params = {"model": "offline/echo", "messages": [{"role": "user", "content": text}]}
    return json.dumps({"jsonrpc": "2.0", "id": id, "method": "chat", "params": params}).encode() + b"\n"


@contextmanager
def process(**options: Any) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([*COMMAND, "--stdio"], env=clean_environment(), **options) as child:
        try:
            yield child
        finally:
            child.kill()


def lines_of(fd: int, count: int) -> list[Json]:
    data = b""
    while data.count(b"\n") < count and (more := os.read(fd, 65_536)):
        data += more
    return [json.loads(line) for line in data.splitlines()]


@pytest.mark.rule("FRM-11")
@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_nothing_is_lost_or_split_on_descriptors_with_o_nonblock(kind: str) -> None:
    """As a parent process on an event loop leaves them. Each response is larger than a pipe or a socket's buffer."""
    if kind == "pipe":
        (source, to_worker), (from_worker, sink) = os.pipe(), os.pipe()
    else:
        pairs = socket.socketpair(), socket.socketpair()
        (source, to_worker), (from_worker, sink) = ((a.detach(), b.detach()) for a, b in pairs)
    for fd in (source, sink):
        os.set_blocking(fd, False)
    with process(stdin=source, stdout=sink, stderr=subprocess.DEVNULL) as child:
        os.close(source)
        os.close(sink)
        with os.fdopen(to_worker, "wb", buffering=0) as stdin:
            for id in range(1, 4):
                view = memoryview(echo(id, TEXT))
                while view:
                    view = view[stdin.write(view) or 0 :]
            responses = lines_of(from_worker, 3)
        assert {response["id"]: response["result"]["content"] for response in responses} == dict.fromkeys((1, 2, 3), TEXT)
        assert child.wait(WAIT_SECONDS) == 0
    os.close(from_worker)


@pytest.mark.rule("FRM-11")
def test_a_stderr_with_o_nonblock_that_is_not_drained_holds_up_nothing_and_splits_no_line() -> None:
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    command = [*COMMAND, "--stdio", "--log-level=info"]
    with subprocess.Popen(command, env=clean_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=theirs) as child:
        os.close(theirs)
        assert child.stdin
        assert child.stdout
        for id in range(1000):  # with 150 bytes of log each: more than a pipe holds
            child.stdin.write(echo(id, "hi"))
            child.stdin.flush()
            assert json.loads(child.stdout.readline())["id"] == id
        child.stdin.close()
        with os.fdopen(ours, "rb") as stderr:
            logged = [json.loads(line) for line in stderr]
        assert sum(line["message"] == "request" for line in logged) == 1000
        assert child.wait(WAIT_SECONDS) == 0


@pytest.mark.rule("EXT-5")
def test_a_sigterm_after_the_end_of_input_cancels_immediately(upstream: Upstream, spawn: Spawn) -> None:
    worker = spawn("--grace-seconds=60", env={"OPENAI_API_KEY": "sk-secret-123", "OPENAI_BASE_URL": upstream.base_url})
    id = worker.request("chat", {"model": "openai/hang", "messages": [{"role": "user", "content": "hello"}]})
    request = upstream.wait_for_request(model="hang", timeout=WAIT_SECONDS)
    worker.end_input()
    began = time.monotonic()
    worker.process.send_signal(signal.SIGTERM)
    assert worker.exit_code() == 0
    assert time.monotonic() - began < 1
    assert worker.response(id)["error"]["data"]["kind"] == "cancelled"
    request.wait_closed(WAIT_SECONDS)


@pytest.mark.rule("LIF-16")
def test_a_process_id_that_can_not_be_seen_is_one_line_in_the_log(spawn: Spawn) -> None:
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    worker = spawn()
    response = worker.call("initialize", {"protocolVersion": "omni-bridge/1", "processId": ended.pid})
    assert "result" in response
    assert worker.chat("offline/echo")["content"] == "hello"
    worker.end_input()
    assert worker.exit_code() == 0
    assert worker.stderr.count("is not visible from here") == 1
    assert str(ended.pid) in worker.stderr


def block_and_ignore() -> None:
    signals = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    for number in signals:
        signal.signal(number, signal.SIG_IGN)


@pytest.mark.rule("EXT-6")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_that_the_parent_blocks_and_ignores_still_ends_the_worker(number: signal.Signals) -> None:
    with process(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=block_and_ignore) as child:
        assert child.stdin
        assert child.stdout
        child.stdin.write(b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n')
        child.stdin.flush()
        assert json.loads(child.stdout.readline())["id"] == 1
        child.send_signal(number)
        assert child.wait(WAIT_SECONDS) == 0
