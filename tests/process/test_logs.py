"""The log: a line each, never content, never a secret, and never in anybody's way."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from bridge_worker.security.redaction import Redactor
from bridge_worker.telemetry import log
from bridge_worker.telemetry.log import LineWriter, set_up
from tests.conftest import Spawn
from tests.support.upstream import Upstream
from tests.support.worker import WAIT_SECONDS, run

MARKER = "Zebra-4711"  # what was said
SECRET = "sk-very-secret-0815"
say = print  # as a library does; the linter would have none of it
USER = [{"role": "user", "content": f"tell me of {MARKER}"}]


class Log:
    """What came out of the log's descriptor."""

    def __init__(self) -> None:
        self._read, self.fd = os.pipe()
        os.set_blocking(self._read, False)
        self.writer: LineWriter

    def text(self) -> str:
        data = b""
        for _ in range(100):  # the pipe may hold less than the log
            self.writer.flush(0.01)
            with suppress(BlockingIOError):
                while piece := os.read(self._read, 1 << 20):
                    data += piece
            if not self.writer._lines and not self.writer._writing:
                break
        with suppress(BlockingIOError):
            while piece := os.read(self._read, 1 << 20):
                data += piece
        return data.decode()

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text().split("\n")[:-1]]


SetUp = Callable[..., Log]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[SetUp]:
    """Sets the log up as a process does, and puts everything back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    monkeypatch.setattr(logging, "raiseExceptions", True)
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys, "stderr", sys.stderr)

    def start(level: str = "debug", format: str = "json") -> Log:
        log = Log()
        log.writer = set_up(level, format, Redactor({"SOME_API_KEY": SECRET}).redact, log.fd)
        return log

    yield start
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)


# ---- one line a request --------------------------------------------------------------------------------------------------------


def ask(*requests: dict[str, Any], format: str = "json", level: str = "info") -> list[str]:
    """The log of a process that was asked this."""
    lines = [{"jsonrpc": "2.0", "id": n, "method": "chat", **request} for n, request in enumerate(requests)]
    input = "".join(json.dumps(line) + "\n" for line in lines).encode()
    code, _, stderr = run("--stdio", f"--log-level={level}", f"--log-format={format}", input=input, env={"SOME_API_KEY": SECRET})
    assert code == 0
    assert not stderr or stderr.endswith("\n")
    return stderr.split("\n")[:-1]  # and not where str.splitlines does: U+2028 may stand in JSON


def chat(model: Any = "offline/echo", **params: Any) -> dict[str, Any]:
    return {"params": {"model": model, "messages": USER, **params}}


@pytest.mark.rule("LOG-1", "LOG-2")
def test_a_chat_is_one_line_with_what_it_cost() -> None:
    (line,) = ask(chat(stream=True))
    members = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", members.pop("time"))
    assert members.pop("ms") >= 0
    assert members == {
        "level": "info",
        "logger": "bridge_worker.requests",
        "message": "request",
        "id": 0,
        "method": "chat",
        "outcome": "ok",
        "model": "offline/echo",
        "stream": True,
        "provider": "offline",
        "input_tokens": 4,
        "output_tokens": 4,
        "cost_usd": 0.0,
    }


@pytest.mark.rule("LOG-2")
@pytest.mark.parametrize(
    ("request_", "outcome"),
    [
        (chat("offline/none"), "model_not_found"),
        (chat(colour="red"), "invalid_request"),
        ({"params": {}}, "invalid_request"),
    ],
    ids=["no such model", "unknown member", "no params"],
)
def test_a_chat_that_fails_is_one_line_too(request_: dict[str, Any], outcome: str) -> None:
    (line,) = ask(request_)
    members = json.loads(line)
    assert (members["id"], members["method"], members["outcome"]) == (0, "chat", outcome)
    assert {"model", "stream", "provider", "ms"} <= set(members)


@pytest.mark.rule("LOG-2")
def test_a_method_that_does_not_exist_is_one_line_and_the_lifecycle_none() -> None:
    lines = ask({"method": "no/such"}, {"method": "ping"}, {"method": "initialize", "params": {"protocolVersion": "2025-06-18"}})
    assert [json.loads(line)["outcome"] for line in lines] == ["method_not_found"]


@pytest.mark.rule("LOG-2")
@pytest.mark.parametrize("format", ["json", "text"])
def test_each_request_is_one_line_whatever_its_names_hold(format: str) -> None:
    hostile = 'offline/none\n2026-01-01T00:00:00.000Z error forged: {"level":"error"}\r\x85\u2028\x1b[31m'
    lines = ask(chat(hostile), {"method": hostile}, {"id": hostile, **chat()}, format=format)
    assert len(lines) == 3
    assert all("forged" not in line or line.index("forged") > line.index("request") for line in lines)
    assert "\x1b" not in "".join(lines)


@pytest.mark.rule("LOG-1")
def test_the_text_format_is_text_with_the_same_facts() -> None:
    (line,) = ask(chat(), format="text")
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z info bridge_worker\.requests: request id=0 method=chat ", line)
    assert {"outcome=ok", "model=offline/echo", "stream=False", "provider=offline", "input_tokens=4"} <= set(line.split())


@pytest.mark.rule("LOG-1")
def test_nothing_is_logged_of_ordinary_work_by_default() -> None:
    assert ask(chat(), chat("offline/none"), chat(colour="red"), level="warning") == []


# ---- never content, never a secret ---------------------------------------------------------------------------------------------

SAID_ANYWHERE = [
    chat(),
    chat(stream=True),
    chat("offline/none"),
    chat(messages=[{"role": "user", "content": [{"type": "text", "text": MARKER}]}]),
    chat(messages=[{"role": "user", "content": {"text": MARKER}}]),
    chat(messages=[{"role": MARKER, "content": MARKER}]),
    chat(messages=MARKER),
    chat(model=[MARKER]),
    chat(model={"name": MARKER}),
    chat(stream=MARKER),
    chat(stop=[MARKER], user=MARKER, metadata={"x": MARKER}),
    chat("offline/tools", tools=[{"type": "function", "function": {"name": "f", "description": MARKER}}]),
    chat("offline/tools", tools=[{"type": MARKER}]),
    chat(**{MARKER: MARKER}),
    {"params": [MARKER]},
    {"method": "no/such", "params": {"said": MARKER}},
]


@pytest.mark.rule("LOG-3")
@pytest.mark.parametrize("format", ["json", "text"])
def test_nothing_of_what_was_said_is_logged(format: str) -> None:
    lines = ask(*SAID_ANYWHERE, format=format)
    assert len(lines) == len(SAID_ANYWHERE) - 1  # params that are an array never reach a method
    assert [line for line in lines if MARKER in line] == []


@pytest.mark.rule("LOG-4")
@pytest.mark.parametrize("format", ["json", "text"])
def test_secrets_are_masked_wherever_they_stand(format: str) -> None:
    hidden = [
        chat(f"offline/{SECRET}"),
        {"id": f"key {SECRET}", **chat()},
        {"method": f"{SECRET}/x"},
        chat({"key": SECRET}),
        chat([SECRET]),
    ]
    lines = ask(*hidden, format=format)
    assert len(lines) == len(hidden)
    assert SECRET not in "\n".join(lines)


@pytest.mark.rule("LOG-3", "LOG-2")
def test_at_info_litellm_adds_nothing_to_the_line_a_request(upstream: Upstream, spawn: Spawn) -> None:
    worker = spawn("--log-level=info", env={"OPENAI_API_KEY": SECRET, "OPENAI_BASE_URL": upstream.base_url})
    for model, stream in (
        ("openai/gpt-4o-mini", False),
        ("openai/gpt-4o-mini", True),
        ("openai/status-401", False),
        ("nobody/x", False),
    ):
        worker.call("chat", {"model": model, "messages": USER, "stream": stream})
    worker.end_input()
    assert worker.exit_code() == 0
    lines = [json.loads(line) for line in worker.stderr.splitlines()]
    assert [line["logger"] for line in lines] == ["bridge_worker.requests"] * 4, worker.stderr
    assert [line["outcome"] for line in lines[:3]] == ["ok", "ok", "authentication"]
    assert MARKER not in worker.stderr
    assert SECRET not in worker.stderr


@pytest.mark.rule("LOG-3", "LOG-4")
def test_at_debug_litellm_tells_neither_keys_nor_what_was_said(upstream: Upstream, spawn: Spawn) -> None:
    worker = spawn("--log-level=debug", env={"OPENAI_API_KEY": SECRET, "OPENAI_BASE_URL": upstream.base_url})
    for model in ("openai/gpt-4o-mini", "openai/status-401", "openai/garbage", "nobody/x"):
        worker.call("chat", {"model": model, "messages": USER})
    worker.end_input()
    assert worker.exit_code() == 0
    lines = [json.loads(line) for line in worker.stderr.splitlines()]
    assert len([line for line in lines if line["message"] == "request"]) == 4
    assert "debug" in {line["level"] for line in lines}
    assert SECRET not in worker.stderr
    assert MARKER not in worker.stderr


@pytest.mark.rule("LOG-4")
@pytest.mark.parametrize("format", ["json", "text"])
def test_a_traceback_is_logged_whole_and_without_secrets(started: SetUp, format: str) -> None:
    log = started(format=format)
    try:
        raise ValueError(f"bad key {SECRET}")
    except ValueError:
        logging.getLogger("x").exception("with %s", SECRET)
    text = log.text()
    assert SECRET not in text
    assert "Traceback" in text
    assert "test_logs.py" in text


# ---- whatever is logged becomes lines --------------------------------------------------------------------------------------------


@pytest.mark.rule("LOG-6")
def test_what_is_printed_becomes_lines_of_the_log(started: SetUp) -> None:
    log = started()
    say("one line")
    say("another\nin two, with", SECRET)
    say("to stderr", file=sys.stderr)
    sys.stdout.write("in pie")
    sys.stdout.write("ces\n\n")
    lines = log.lines()
    assert {line["logger"] for line in lines} == {"printed"}
    assert [line["message"] for line in lines] == ["one line", "another", "in two, with [redacted]", "to stderr", "in pieces"]


@pytest.mark.rule("LOG-6")
def test_what_a_library_does_to_a_stream_works(started: SetUp) -> None:
    log = started()
    sys.stdout.flush()
    assert sys.stdout.writable()
    assert not sys.stdout.isatty()
    say("100% %s {}", flush=True)
    sys.stdout.writelines(["a\n", "b\n"])
    assert [line["message"] for line in log.lines()] == ["100% %s {}", "a", "b"]


@pytest.mark.rule("LOG-6")
@pytest.mark.filterwarnings("default")
def test_warnings_and_faults_of_threads_become_lines_too(started: SetUp, monkeypatch: pytest.MonkeyPatch) -> None:
    log = started()
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)
    logging.captureWarnings(True)
    warnings.warn("careful", stacklevel=1)
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
    lines = log.lines()
    assert any(line["logger"] == "py.warnings" and "careful" in line["message"] for line in lines)
    assert any(line["logger"] == "printed" and "ZeroDivisionError" in line["message"] for line in lines)


@pytest.mark.rule("LOG-1")
@pytest.mark.parametrize(
    "message",
    ["", "two\nlines", "Grüße 🦜", "\udc80 lone", "\x00\x1b[31m", "x" * 200_000, "🦜" * 50_000, '"\\' * 60_000],
    ids=lambda m: repr(m[:8]),
)
def test_every_line_is_json_and_not_too_long(started: SetUp, message: str) -> None:
    log = started()
    logging.getLogger("x").warning(message, extra={"fields": {"also": message, "odd": {1, 2}, "number": 1}})
    lines = log.text().split("\n")[:-1]
    assert len(lines) == 1
    assert len(lines[0]) <= log._MAX_LINE_CHARACTERS
    assert json.loads(lines[0])["level"] == "warning"


@pytest.mark.rule("LOG-1")
def test_a_record_that_can_not_be_formatted_is_a_line_that_says_so(started: SetUp) -> None:
    log = started()
    logging.getLogger("x").warning("%d items", "three")
    logging.getLogger("x").warning("next")
    first, second = log.lines()
    assert first["level"] == "error"
    assert second["message"] == "next"


# ---- nobody reads ----------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("LOG-5")
def test_lines_that_find_no_place_are_dropped_and_counted() -> None:
    read, write = os.pipe()
    writer = LineWriter(write)
    total = 3 * log._MAX_QUEUED_LINES
    for n in range(total):
        writer.write(f"{n:060}")
    writer.flush(0.01)  # bounded, though nobody reads
    assert writer._lines
    assert len(writer._lines) <= log._MAX_QUEUED_LINES + 1

    seen: list[bytes] = []

    def read_all() -> None:
        with open(read, "rb") as lines:
            seen.extend(lines)

    reader = threading.Thread(target=read_all, daemon=True)
    reader.start()
    writer.flush(WAIT_SECONDS)
    writer.write("the next one")
    writer.flush(WAIT_SECONDS)
    os.close(write)
    reader.join(WAIT_SECONDS)
    (told,) = [line for line in seen if b"were dropped" in line]
    dropped = int(json.loads(told)["message"].split()[0])
    assert dropped > 0
    assert len(seen) - 2 + dropped == total  # but for what told of it, and the next one


@pytest.mark.rule("LOG-5")
def test_the_queue_of_unread_lines_is_bounded_in_bytes_too() -> None:
    read, write = os.pipe()
    writer = LineWriter(write)
    for _ in range(2000):
        writer.write("x" * 60_000)
    assert sum(map(len, writer._lines)) <= log._MAX_QUEUED_BYTES + log._MAX_LINE_CHARACTERS * 6
    os.close(read)


@pytest.mark.rule("LOG-5")
def test_a_reader_that_is_gone_is_nobodys_trouble() -> None:
    read, write = os.pipe()
    os.close(read)
    writer = LineWriter(write)
    for n in range(100):
        writer.write(f"{n}")
    writer.flush(WAIT_SECONDS)
    assert not writer._lines
