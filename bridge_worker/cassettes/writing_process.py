"""The process that appends exchanges to a cassette: makes each line, masks it, and writes it whole.

Owns the frames that it reads, and `pack`, their content: only processes of this worker write them. The lines of one read are one
write under a lock of the file, so that a process that is killed leaves at most a half line, which the next one to write ends. It
ends with its input, and writes what it has got when the worker was killed.
Refuses to know the queue of the worker.
"""

from __future__ import annotations

import json
import marshal
import os
import pickle
import signal
import struct
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any

from bridge_worker.cassettes.canonical import canonical
from bridge_worker.cassettes.entry import Exchanged, chosen_headers, line_of
from bridge_worker.cassettes.masking import Redact, in_data_too, masked_value
from bridge_worker.core.exchange import Piece, Tape
from bridge_worker.protocol.framing import encode, json_text
from bridge_worker.security.redaction import Redactor
from bridge_worker.version import __version__

HEAD = struct.Struct("<cQ")
_READ_BYTES = 256 * 1024
_NICE = 10  # chats first: where all processors are busy, lines wait in the worker's queue
EXCHANGE, MODEL, LINE, SECRETS = b"x", b"m", b"l", b"s"


def pack_request(request: Mapping[str, Any]) -> bytes:
    """The request as it is now; marshal is ten times as fast as JSON."""
    return _packed(request)


def pack(
    request: bytes, time: str, ms: float, tapes: list[Tape], deltas: list[Any], outcome: Mapping[str, Any], error_kind: str | None
) -> bytes:
    """``request`` is what `pack_request` returned."""
    rows = [_row(tape) for tape in tapes]
    return _packed((request, time, ms, rows, deltas, outcome, error_kind))


def _packed(value: Any) -> bytes:
    try:
        return marshal.dumps(value)
    except ValueError:  # a subclass of a text or a number, which is one in JSON
        return marshal.dumps(_plain(value))


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return f"{value}"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if isinstance(value, float) else int(value)
    if isinstance(value, Mapping):
        return {_plain(name): _plain(member) for name, member in value.items()}
    return tuple(map(_plain, value)) if isinstance(value, tuple) else list(map(_plain, value)) if isinstance(value, list) else value


def _row(tape: Tape) -> tuple[Any, ...]:
    about = (tape.started, tape.sent, tape.attempt, tape.format, dict(tape.renamed), tape.schema_tool, tape.model, tape.provider)
    pieces = [tuple(piece) for piece in tape.pieces]
    return (*about, tape.status, chosen_headers(tape.headers), pieces, tape.ended, tape.failure, tape.timed_out)


def unpack(packed: bytes) -> Exchanged:
    request, time, ms, rows, deltas, outcome, error_kind = marshal.loads(packed)  # noqa: S302  # from the worker
    message = marshal.loads(request)  # noqa: S302
    tapes = [_tape(row) for row in rows]
    return Exchanged(message["method"], canonical(message), time, tapes, deltas, ms, json_text(outcome), error_kind)


def _tape(row: tuple[Any, ...]) -> Tape:
    *about, pieces, ended, failure, timed_out = row
    tape = Tape(*about)
    tape.pieces = [Piece(*piece) for piece in pieces]
    tape.ended, tape.failure, tape.timed_out = ended, failure, timed_out
    return tape


def main(fd: int) -> None:
    if hasattr(os, "nice"):
        os.nice(_NICE)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends with the worker
    try:
        _run(sys.stdin.fileno(), fd)
    except OSError as error:
        _report(f"recording has stopped, serving continues: {error.strerror}")  # a full disk needs no traceback
    os._exit(0)


def _run(source: int, fd: int) -> None:
    redact = in_data_too(Redactor({}).redact)
    for frames in _frames(source):
        lines = []
        for kind, data in frames:
            if kind == SECRETS:
                redact = in_data_too(pickle.loads(data).redact)  # noqa: S301  # from the worker
            else:
                lines.append(_line(kind, data, redact))
        append(fd, b"".join(lines))


def _frames(source: int) -> Iterator[list[tuple[bytes, bytes]]]:
    """The whole frames of each read. What a worker that was killed has left of the last one is not among them."""
    rest = bytearray()
    while data := os.read(source, _READ_BYTES):
        rest += data
        frames, at = [], 0
        while len(rest) - at >= HEAD.size:
            kind, size = HEAD.unpack_from(rest, at)
            start = at + HEAD.size
            if len(rest) < start + size:
                break
            at = start + size
            frames.append((kind, bytes(memoryview(rest)[start:at])))
        if frames:
            del rest[:at]
            yield frames


def _line(kind: bytes, data: bytes, redact: Redact) -> bytes:
    if kind == LINE:
        return data
    try:
        if kind == MODEL:
            return encode(masked_value(json.loads(data), redact))
        return line_of(unpack(data), versions(), redact)
    except Exception as error:  # one exchange is lost, not the recording
        _report(f"an exchange could not be recorded ({type(error).__name__})")
        return b""


def append(fd: int, lines: bytes) -> None:
    with locked(fd):
        end_half_line(fd)
        written = os.write(fd, lines)
    if written < len(lines):
        raise OSError(28, "no space was left for a whole line")


@contextmanager
def locked(fd: int) -> Iterator[None]:
    """Processes of other engines append to the file. The lock of a process that is killed ends with it."""
    try:
        from fcntl import LOCK_EX, LOCK_UN, flock
    except ImportError:  # Windows, which has no engine processes
        yield
        return
    with suppress(OSError):  # a file system without locks
        flock(fd, LOCK_EX)
    try:
        yield
    finally:
        with suppress(OSError):
            flock(fd, LOCK_UN)


def end_half_line(fd: int) -> None:
    """Another process may have been killed, or its disk full, within a line."""
    size = os.fstat(fd).st_size
    if size and os.pread(fd, 1, size - 1) != b"\n":
        os.write(fd, b"\n")


def _report(text: str) -> None:
    """The worker logs it."""
    os.write(1, text.encode() + b"\n")


@lru_cache(1)
def versions() -> dict[str, str | None]:
    """Of the bridge and LiteLLM; the look-up takes 40 ms."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        litellm: str | None = version("litellm")
    except PackageNotFoundError:
        litellm = None
    return {"omni_bridge": __version__, "litellm": litellm}
