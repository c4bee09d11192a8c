"""The log: JSON or text lines on stderr, one per request at level info, without content or secrets.

Owns the use of fd 2 by this process. A full or closed stderr must not block or break anything: lines go through a bounded queue to
a thread, and lines that do not fit are counted and dropped. Refuses to decide what is logged.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable

from bridge_worker.system.descriptors import write_all

_MAX_QUEUED_LINES = 10_000
_MAX_QUEUED_BYTES = 8 * 1024 * 1024
_MAX_LINE_BYTES = 64 * 1024
_MAX_FIELD_CHARACTERS = 1_024  # a caller may send a model's name of 50 MB
_MAX_SECRET = 4_096  # characters
_MAX_LINE_CHARACTERS = _MAX_LINE_BYTES // 8  # a character is at most 6 bytes here, a lone surrogate's escape

Redact = Callable[[str], str]


def set_up(level: str, format: str, redact: Redact, fd: int = 2) -> LineWriter:
    """Sends the root logger's records and all printed text to ``fd``. Call the writer's ``flush`` before the process ends."""
    writer = LineWriter(fd)
    handler = _Handler(writer)
    handler.setFormatter(_Json(redact) if format == "json" else _Text(redact))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
    logging.raiseExceptions = False
    sys.stdout, sys.stderr = _Printed(logging.DEBUG), _Printed(logging.WARNING)
    return writer


class LineWriter:
    """Writes lines in a thread, so that the server never waits for the reader of stderr."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lines: deque[bytes] = deque()
        self._queued = 0  # bytes
        self._dropped = 0
        self._writing = False
        self._changed = threading.Condition()
        threading.Thread(target=self._run, name="log", daemon=True).start()

    def write(self, line: str) -> None:
        self.write_line(line.encode("utf-8", "backslashreplace"))

    def write_line(self, line: bytes) -> None:
        """``line`` has no line ending."""
        data = line + b"\n"
        with self._changed:
            if len(self._lines) >= _MAX_QUEUED_LINES or self._queued > _MAX_QUEUED_BYTES:
                self._dropped += 1
                return
            if self._dropped:
                self._lines.append(
                    b'{"level":"warning","message":"%d log lines were dropped: stderr was not read"}\n' % self._dropped
                )
                self._dropped = 0
            self._lines.append(data)
            self._queued += len(data)
            self._changed.notify_all()

    def flush(self, timeout: float) -> None:
        """Waits until all is written, at most ``timeout`` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: not self._lines and not self._writing, timeout)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._writing = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._lines)
                data = b"".join(self._lines)
                self._lines.clear()
                self._queued = 0
                self._writing = True
            with contextlib.suppress(OSError):  # stderr is closed or its disk is full; nothing is left to report it to
                write_all(self._fd, data)


class _Printed(io.StringIO):
    """Replaces sys.stdout and sys.stderr: text that a library prints becomes a log line, and can't block."""

    def __init__(self, level: int) -> None:
        super().__init__()
        self._log = logging.getLogger("printed")
        self._level = level
        self._rest = ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        self._rest = self._rest[-_MAX_LINE_CHARACTERS:]
        for line in lines:
            if line.strip():
                self._log.log(self._level, "%s", line)
        return len(text)


class _Handler(logging.Handler):
    def __init__(self, writer: LineWriter) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._writer.write(self.format(record))
        except Exception as error:  # a record that can't be formatted must not fail the request
            self._writer.write(f'{{"level":"error","message":"a log record could not be formatted: {type(error).__name__}"}}')


class _Json(logging.Formatter):
    """``time`` is UTC; ``fields`` of the record become members."""

    def __init__(self, redact: Redact) -> None:
        super().__init__()
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        line: dict[str, object] = {
            "time": utc(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _start(message, self._redact, _MAX_LINE_CHARACTERS),
        }
        for name, value in getattr(record, "fields", {}).items():
            line[name] = _start(value, self._redact, _MAX_FIELD_CHARACTERS) if isinstance(value, str) else value
        if record.exc_info:
            line["exception"] = _end(self.formatException(record.exc_info), self._redact)
        text = json.dumps(line, ensure_ascii=False, default=str)
        short = len(text) <= _MAX_LINE_CHARACTERS or len(text.encode("utf-8", "backslashreplace")) <= _MAX_LINE_BYTES
        return text if short and len(message) <= _MAX_LINE_CHARACTERS else json.dumps(_shortened(line), ensure_ascii=False)


class _Text(logging.Formatter):
    def __init__(self, redact: Redact) -> None:
        super().__init__()
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        pairs = [(name, value) for name, value in getattr(record, "fields", {}).items() if value is not None]
        fields = " ".join(f"{name}={_start(str(value), self._redact, _MAX_FIELD_CHARACTERS)}" for name, value in pairs)
        message = _start(record.getMessage(), self._redact, _MAX_LINE_CHARACTERS)
        text = f"{utc(record.created)} {record.levelname.lower()} {record.name}: {message} {fields}".rstrip()
        text = _printable(text)[:_MAX_LINE_CHARACTERS]
        if record.exc_info:
            text += "\n" + _end(self.formatException(record.exc_info), self._redact)
        return text


def _start(text: str, redact: Redact, characters: int) -> str:
    """The start of ``text`` without secrets. It is cut first, because redaction costs seconds a MB on the loop, and not within a
    secret."""
    return redact(text[: characters + _MAX_SECRET])[:characters]


def _end(text: str, redact: Redact) -> str:
    return redact(text[-_MAX_LINE_CHARACTERS - _MAX_SECRET :])[-_MAX_LINE_CHARACTERS:]


def _shortened(line: dict[str, object]) -> dict[str, object]:
    kept = {name: str(line[name])[: _MAX_LINE_CHARACTERS // 8] for name in ("time", "level", "logger", "message")}
    return {**kept, "exception": str(line.get("exception", ""))[-_MAX_LINE_CHARACTERS // 8 :], "cut": True}


def _printable(text: str) -> str:
    """Escapes line breaks: a model name that a caller sends must not start a new log line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1000):03d}Z"
