"""The log's writer: each record is one line, secrets are redacted, and a reader that does not read blocks nothing."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from bridge_worker.security.redaction import Redactor
from bridge_worker.telemetry.log import _MAX_LINE_CHARACTERS, _MAX_QUEUED_BYTES, _MAX_QUEUED_LINES, LineWriter, set_up
from tests.support.worker import WAIT_SECONDS

SECRET = "sk-very-secret-0815"
library_print = print  # as a library does; the linter would have none of it


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
    assert "test_log.py" in text


# ---- whatever is logged becomes lines --------------------------------------------------------------------------------------------


@pytest.mark.rule("LOG-6")
def test_what_is_printed_becomes_lines_of_the_log(started: SetUp) -> None:
    log = started()
    library_print("one line")
    library_print("another\nin two, with", SECRET)
    library_print("to stderr", file=sys.stderr)
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
    library_print("100% %s {}", flush=True)
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
    assert len(lines[0]) <= _MAX_LINE_CHARACTERS
    assert json.loads(lines[0])["level"] == "warning"


@pytest.mark.rule("LOG-1")
def test_a_record_that_can_not_be_formatted_is_a_line_with_that_error(started: SetUp) -> None:
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
    total = 3 * _MAX_QUEUED_LINES
    for n in range(total):
        writer.write(f"{n:060}")
    writer.flush(0.01)  # bounded, though nobody reads
    assert writer._lines
    assert len(writer._lines) <= _MAX_QUEUED_LINES + 1

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
    (note,) = [line for line in seen if b"were dropped" in line]
    dropped = int(json.loads(note)["message"].split()[0])
    assert dropped > 0
    assert len(seen) - 2 + dropped == total  # but for the one that reported it, and the next one


@pytest.mark.rule("LOG-5")
def test_the_queue_of_unread_lines_is_bounded_in_bytes_too() -> None:
    read, write = os.pipe()
    writer = LineWriter(write)
    for _ in range(2000):
        writer.write("x" * 60_000)
    assert sum(map(len, writer._lines)) <= _MAX_QUEUED_BYTES + _MAX_LINE_CHARACTERS * 6
    os.close(read)


@pytest.mark.rule("LOG-5")
def test_a_log_with_a_closed_pipe_raises_nothing() -> None:
    read, write = os.pipe()
    os.close(read)
    writer = LineWriter(write)
    for n in range(100):
        writer.write(f"{n}")
    writer.flush(WAIT_SECONDS)
    assert not writer._lines
