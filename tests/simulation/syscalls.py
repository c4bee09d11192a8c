"""A real worker in which one system call fails once, at each of its calls: start, chats, a stream, a reload, shutdown.

Owns the conversation, the injection (strace) and what is acceptable: every response or an exit code other than 0, no half line, and
an end in time. Refuses to know why a call is made. Needs strace, and the right to trace one's own processes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.conversation import Conversation
from tests.support.worker import clean_environment

# Name: the calls of that name, and the error that each gets.
FAILURES = {
    "read": ("read", "EIO"),
    "write": ("write", "EIO"),
    "open": ("openat", "EMFILE"),
    "socket": ("socket,socketpair,pipe2,eventfd2,epoll_create1", "EMFILE"),
    "clone": ("clone,clone3,fork,vfork", "EAGAIN"),
    "mmap": ("mmap", "ENOMEM"),
}
_ROOT = Path(__file__).parents[2]
_PYTHON = (str(_ROOT / ".venv/bin/python"), "-I", "-X", "utf8", "-m", "bridge_worker", "--stdio")
_SECONDS = 60.0
_INJECTED = "(INJECTED)"
# 2: a config error or flags; 3: the reader is gone; 70: an internal error. 1 is Python's, when a file of the program can't be read;
# 127 that of its loader, before Python runs.
DOCUMENTED = (0, 1, 2, 3, 70, 127)
_CRASHES = ("mmap",)  # native code that gets no memory (the loader, CPython, pydantic-core) may end by SIGSEGV or SIGABRT


@dataclass(frozen=True, slots=True)
class Result:
    """``wrong`` is empty where the worker did what it must. ``injected``: whether the process made that many calls."""

    injected: bool
    exit_code: int
    responses: int
    wrong: str
    stderr: str


def is_available() -> bool:
    """Whether strace can trace a process here."""
    if shutil.which("strace") is None or not sys.platform.startswith("linux"):
        return False
    return subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True, check=False).returncode == 0


def run(failure: str, number: int, flags: Sequence[str] = (), lines: Sequence[Any] | None = None) -> Result:
    """Lets call ``number`` of ``failure`` fail in each thread that makes so many."""
    calls, error = FAILURES[failure]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "strace")
        inject = f"inject={calls}:error={error}:when={number}"
        trace = ["strace", "-f", "-qq", "--seccomp-bpf", "-o", str(log), "-e", f"trace={calls}", "-e", inject]
        messages = list(lines or CONVERSATION)
        process = subprocess.Popen(
            [*trace, *_PYTHON, *flags],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=clean_environment(),
            start_new_session=True,
        )
        data = b"".join(json.dumps(message).encode() + b"\n" for message in messages)
        try:
            out, err = process.communicate(data, timeout=_SECONDS)
            hangs = False
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            hangs = True
        injected = _INJECTED in log.read_text(errors="replace")
    code = process.returncode
    result = _judged(messages, out, err.decode(errors="replace"), code, hangs=hangs, may_crash=failure in _CRASHES)
    return Result(injected, code, *result)


def _judged(messages: Sequence[Any], out: bytes, err: str, code: int, *, hangs: bool, may_crash: bool) -> tuple[int, str, str]:
    """The number of responses, what is wrong, and the last of stderr."""
    conversation = Conversation()
    for message in messages:
        conversation.sent(message)
    *lines, rest = out.split(b"\n")
    for line in lines:
        conversation.received(line)
    conversation.end(whole=code == 0)
    wrong = [f"{name}: {what}" for name, what in conversation.problems]
    has_crashed = may_crash and code in (-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS)
    if hangs:
        wrong.append(f"no end within {_SECONDS:.0f} s")
    elif code not in DOCUMENTED and not has_crashed:
        wrong.append(f"exit code {code}")
    if rest and code == 0:
        wrong.append(f"half a line: {rest[:60]!r}")
    if code not in (0, EXIT_BROKEN) and not has_crashed and not err.strip():
        wrong.append(f"exit code {code} without a word on stderr")
    return sum(conversation.response_counts.values()), "; ".join(wrong), _tail(err)


EXIT_BROKEN = 3
_ECHO = {"model": "offline/echo", "messages": [{"role": "user", "content": "one two three"}]}
CONVERSATION: list[Any] = [
    {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "omni-bridge/1"}},
    {"jsonrpc": "2.0", "id": 2, "method": "chat", "params": _ECHO},
    {"jsonrpc": "2.0", "id": 3, "method": "chat", "params": {**_ECHO, "stream": True}},
    {"jsonrpc": "2.0", "id": 4, "method": "status"},
    {"jsonrpc": "2.0", "id": 5, "method": "shutdown"},
]
WITH_RELOAD = [*CONVERSATION[:-1], {"jsonrpc": "2.0", "id": 6, "method": "config/reload"}, CONVERSATION[-1]]
_CONFIG = "omni_bridge:\n  grace_seconds: 5\n"


def sweep(
    failure: str, stride: float, flags: Sequence[str] = (), lines: Sequence[Any] | None = None
) -> Iterator[tuple[int, Result]]:
    """From the first call on, until the worker makes no more. ``stride`` 1 takes each call; 1.3 leaves out more and more."""
    number = 1
    while True:
        result = run(failure, number, flags, lines)
        if not result.injected:
            return
        yield number, result
        number = max(number + 1, round(number * stride))


def main(minutes: float, stride: float, engines: Sequence[int], failures: Sequence[str]) -> int:
    if not is_available():
        print("strace can't trace a process here")
        return 2
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "gateway.yaml")
        config.write_text(_CONFIG, encoding="utf-8")
        return _sweep_all(stride, engines, failures, config, time.monotonic() + minutes * 60)


def _sweep_all(stride: float, engines: Sequence[int], failures: Sequence[str], config: Path, ends: float) -> int:
    failed = 0
    for count in engines:
        flags = [f"--engines={count}", f"--config={config}"]
        for failure in failures:
            began, outcomes, last = time.monotonic(), Counter[int](), 0
            for number, result in sweep(failure, stride, flags, WITH_RELOAD):
                outcomes[result.exit_code] += 1
                last = number
                if result.wrong:
                    failed += 1
                    print(f"{failure} {number} {flags[0]}: {result.wrong}\n{result.stderr}", flush=True)
                if time.monotonic() > ends:
                    break
            codes = ", ".join(f"{code}: {times}" for code, times in sorted(outcomes.items()))
            took = time.monotonic() - began
            row = f"{failure:7} {flags[0]:11} {outcomes.total():4} of the first {last} calls"
            print(f"{row}; by exit code {codes}; {took:.0f} s", flush=True)
    return bool(failed)


def _tail(text: str) -> str:
    return re.sub(r"(?m)^", "    ", "\n".join(line[-300:] for line in text.strip().splitlines()[-4:]))
