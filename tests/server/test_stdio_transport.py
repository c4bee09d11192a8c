"""Bytes through real pipes: whole, in order, bounded, and closed to code that prints."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge_worker.runtime.stdio import _READ_BYTES, Stdio
from bridge_worker.system.process_watch import watch_process, watch_reader
from tests.support.worker import COMMAND, WAIT_SECONDS, clean_environment

MIB = 1024 * 1024


def bounded(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Runs a coroutine test in a real loop, and not for ever."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), WAIT_SECONDS))

    return run


class Ends:
    """A `Stdio` and the other process's ends of its two pipes."""

    def __init__(self) -> None:
        source, self.to_us = os.pipe()
        self.from_us, sink = os.pipe()
        self.ours = (source, sink)
        self.pipe = Stdio(source, sink)
        self._pool = ThreadPoolExecutor(2)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close_input()
        self.close_output()
        self._pool.shutdown()

    def close_input(self) -> None:
        if self.to_us >= 0:
            os.close(self.to_us)
            self.to_us = -1

    def close_output(self) -> None:
        if self.from_us >= 0:
            os.close(self.from_us)
            self.from_us = -1

    async def take(self, size: int) -> bytes:
        """So many bytes of what was written."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._take, size)

    def _take(self, size: int) -> bytes:
        data = b""
        while len(data) < size and (piece := os.read(self.from_us, size - len(data))):
            data += piece
        return data

    def give(self, data: bytes) -> asyncio.Future[None]:
        return asyncio.get_running_loop().run_in_executor(self._pool, self._give, data)

    def _give(self, data: bytes) -> None:
        while data:
            data = data[os.write(self.to_us, data) :]

    async def read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            data += await self.pipe.read()
        return data

    def fill(self) -> int:
        """Writes messages until some of them find no place in the pipe; returns their number."""
        count = 0
        while self.pipe.queued() < 3 * MIB:
            self.pipe.write(b"%07d" % count + b"x" * 65_528 + b"\n")
            count += 1
        return count


@bounded
async def test_bytes_are_read_as_they_come() -> None:
    with Ends() as ends:
        for piece in (b"a", b"bc\nd", b"\xf0\x9f", b"\xa6\x9c\n"):
            os.write(ends.to_us, piece)
            assert await ends.pipe.read() == piece


@pytest.mark.rule("LIF-15")
@bounded
async def test_the_end_of_input_is_read_again_and_again() -> None:
    with Ends() as ends:
        os.write(ends.to_us, b"last")
        ends.close_input()
        assert await ends.pipe.read() == b"last"
        assert [await ends.pipe.read() for _ in range(3)] == [b"", b"", b""]


@bounded
async def test_a_read_that_fails_is_raised_once_and_is_the_end_of_input(tmp_path: Path) -> None:
    near, far = socket.socketpair()
    near.send(b"unread")
    far.close()  # with unread data: a reset
    folder = os.open(tmp_path, os.O_RDONLY)  # read by the thread
    unread, sink = os.pipe()
    for source, error in ((near.fileno(), ConnectionResetError), (folder, IsADirectoryError)):
        pipe = Stdio(source, sink)
        with pytest.raises(error):
            await pipe.read()
        assert await pipe.read() == b""
    near.close()
    for fd in (folder, unread, sink):
        os.close(fd)


@bounded
async def test_5_mb_pass_in_both_directions_together() -> None:
    with Ends() as ends:
        inward, outward = os.urandom(5 * MIB), os.urandom(5 * MIB)
        given_ = ends.give(inward)
        ends.pipe.write(outward)
        taken = asyncio.ensure_future(ends.take(len(outward)))
        assert await ends.read(len(inward)) == inward
        assert await taken == outward
        await given_


@bounded
async def test_unread_input_slows_the_sender_down() -> None:
    with Ends() as ends:
        os.set_blocking(ends.to_us, False)
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while select.select([], [ends.to_us], [], 0.1)[1] and sent < 20 * MIB:
                sent += os.write(ends.to_us, b"x" * 65_536)
        assert sent <= 1 * MIB + _READ_BYTES + 65_536  # the pipe and one chunk
        assert len(await ends.read(sent)) == sent


@bounded
async def test_writing_never_blocks_and_queued_counts_what_has_not_left() -> None:
    with Ends() as ends:
        count = ends.fill()
        whole = count * 65_536
        assert 3 * MIB <= ends.pipe.queued() <= whole
        assert (await ends.take(whole)).count(b"\n") == count
        await ends.pipe.drained(0)
        assert ends.pipe.queued() == 0


@bounded
async def test_drained_returns_as_soon_as_no_more_than_its_limit_is_queued() -> None:
    with Ends() as ends:
        count = ends.fill()
        await ends.pipe.drained(count * 65_536)  # at once
        waits = [asyncio.ensure_future(ends.pipe.drained(limit)) for limit in (2 * MIB, 0, 0)]
        await asyncio.sleep(0)
        assert not any(wait.done() for wait in waits)
        await ends.take(count * 65_536)
        await asyncio.gather(*waits)


@given(messages=st.lists(st.binary(max_size=3000).map(lambda data: data.replace(b"\n", b"") + b"\n"), max_size=40))
@settings(max_examples=20, deadline=None)
def test_messages_leave_whole_and_in_order(messages: list[bytes]) -> None:
    async def leave() -> None:
        with Ends() as ends:
            for message in messages:
                ends.pipe.write(message)
                if len(message) % 3 == 0:
                    await asyncio.sleep(0)
            assert await ends.take(sum(map(len, messages))) == b"".join(messages)

    asyncio.run(asyncio.wait_for(leave(), WAIT_SECONDS))


@bounded
async def test_what_has_gathered_leaves_in_one_write() -> None:
    far, near = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)  # keeps writes apart
    null = os.open(os.devnull, os.O_RDONLY)
    with far, near:
        with contextlib.suppress(BlockingIOError):
            while True:
                near.send(b"full", socket.MSG_DONTWAIT)
        pipe = Stdio(null, near.fileno())
        messages = [b"%d\n" % n for n in range(500)]
        for message in messages:
            pipe.write(message)
        packets: list[bytes] = []
        while b"".join(packets) != b"".join(messages):
            packet = await asyncio.to_thread(far.recv, MIB)
            packets += [packet] if packet != b"full" else []
        assert len(packets) <= 2  # the first, alone or not, and all that came while it could not leave


@pytest.mark.rule("EXT-3")
@bounded
async def test_a_reader_that_is_gone_is_found_by_writing() -> None:
    with Ends() as ends:
        ends.fill()
        drained = asyncio.ensure_future(ends.pipe.drained(0))
        ends.close_output()
        await ends.pipe.broken()
        await drained
        queued = ends.pipe.queued()
        ends.pipe.write(b"into the void\n")
        assert ends.pipe.queued() == queued


@bounded
async def test_a_pipe_that_is_closed_from_outside_blocks_no_task() -> None:
    with Ends() as ends:
        ends.fill()
        waits = [asyncio.ensure_future(wait) for wait in (ends.pipe.drained(0), ends.pipe.broken())]
        await asyncio.sleep(0)
        ends.pipe.break_off()
        await asyncio.gather(*waits)


@pytest.mark.rule("EXT-3")
@pytest.mark.parametrize("make", [os.pipe, socket.socketpair], ids=["pipe", "socket"])
def test_a_reader_that_goes_away_is_noticed_without_writing(make: Callable[[], Any]) -> None:
    far, near = make()
    gone = threading.Event()
    watch_reader(near if isinstance(near, int) else near.fileno(), gone.set)
    assert not gone.is_set()
    os.close(far) if isinstance(far, int) else far.close()
    assert gone.wait(WAIT_SECONDS)
    os.close(near) if isinstance(near, int) else near.close()


@pytest.mark.rule("LIF-16")
def test_the_end_of_a_process_is_noticed() -> None:
    with subprocess.Popen([sys.executable, "-I", "-c", "input()"], stdin=subprocess.PIPE) as process:
        gone = threading.Event()
        watch_process(process.pid, gone.set)
        assert not gone.is_set()
        process.kill()
        assert gone.wait(WAIT_SECONDS)


@pytest.mark.rule("LIF-16")
def test_a_process_that_is_gone_already_is_noticed() -> None:
    process = subprocess.Popen([sys.executable, "-I", "-c", ""])
    process.wait()
    gone = threading.Event()
    watch_process(process.pid, gone.set)
    assert gone.wait(WAIT_SECONDS)


# ---- claim_descriptors ---------------------------------------------------------------------------------------------------------

CLAIM = """
import ctypes, os, subprocess, sys
from bridge_worker.system.descriptors import claim_descriptors
source, sink = claim_descriptors()
{}
"""


def claim(script: str, redirect: str = "", input: bytes = b"") -> tuple[bytes, bytes]:
    """stdout and stderr of a process that has claimed its descriptors and then runs ``script``."""
    command = ["sh", "-c", f'exec "$@" {redirect}', "sh", COMMAND[0], "-I", "-c", CLAIM.format(script)]
    done = subprocess.run(command, input=input, capture_output=True, env=clean_environment(), timeout=WAIT_SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


PRINTS = {
    "python": "print('stray')",
    "the stream": "sys.stdout.write('stray'); sys.stdout.flush()",
    "the original stream": "sys.__stdout__.write('stray'); sys.__stdout__.flush()",
    "the descriptor": "os.write(1, b'stray')",
    "C": "libc = ctypes.CDLL(None); libc.printf(b'stray'); libc.fflush(None)",
    "a child": "subprocess.run(['echo', 'stray'], check=True)",
    "a shell": "os.system('echo stray')",
}


@pytest.mark.rule("FRM-2", "SEC-4")
@pytest.mark.parametrize("script", PRINTS.values(), ids=PRINTS.keys())
def test_what_is_printed_goes_to_stderr(script: str) -> None:
    stdout, stderr = claim(script + "\nos.write(sink, b'a message')")
    assert stdout == b"a message"
    assert b"stray" in stderr


@pytest.mark.rule("SEC-4")
@pytest.mark.parametrize(
    "script",
    [
        "data = sys.stdin.read().encode()",
        "data = os.read(0, 100)",
        "data = subprocess.run(['cat'], capture_output=True, check=True).stdout",
    ],
    ids=["python", "the descriptor", "a child"],
)
def test_the_input_is_out_of_reach(script: str) -> None:
    stdout, _ = claim(script + "\nos.write(sink, repr([data, os.read(source, 100)]).encode())", input=b"a request")
    assert stdout == b"[b'', b'a request']"


def test_the_private_copies_are_not_inherited() -> None:
    stdout, _ = claim("code = subprocess.run(['sh', '-c', f'echo x >&{sink}']).returncode\nos.write(sink, b'%d' % (code != 0))")
    assert stdout == b"1"


@pytest.mark.parametrize("closed", ["0<&-", "2>&-", "0<&- 2>&-"])
def test_a_closed_input_or_stderr_does_not_get_the_number_of_another_descriptor(closed: str) -> None:
    script = """
fds = [os.open('/dev/zero', os.O_RDONLY) for _ in range(3)]
print('stray')
os.write(1, b'stray')
os.write(2, b'stray')
assert min(fds) > 2
os.write(sink, b'a message')
"""
    stdout, _ = claim(script, closed)
    assert stdout == b"a message"


def test_a_closed_output_is_not_mistaken_for_another_file() -> None:
    _, stderr = claim("os.write(1, b'stray')\nos.system('echo stray')\nassert sink == -1", "1>&-")
    assert stderr.count(b"stray") == 2
