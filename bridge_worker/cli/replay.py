"""``omni-bridge replay``: sends recorded lines to a new worker and prints both directions with times.

Owns how a recording is read and when its next line is due. Refuses to know what the lines mean beyond their ids: a line that
is not a valid message is sent unchanged.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import click

from bridge_worker.cli.command_error import CommandError
from bridge_worker.cli.terminal import note
from bridge_worker.cli.transcript_view import Screen
from bridge_worker.cli.worker_process import PendingResponse, Worker

_SHOWN = re.compile(r"(?:\s*\d+\.\d+ )?(?P<arrow>-->|<--|>|<) (?P<message>.*)")
_FORMS = """\b
FILE is one of
  messages of an agent, one on each line;
  the output of `omni-bridge demo` or `replay`, or lines after "> " and "< ";
  a trace, written by `omni-bridge --stdio --trace FILE`.
"""
_FORMS_HINT = "accepted formats: omni-bridge replay --help"


class Recorded(NamedTuple):
    """A line that a worker received (``sent``) or wrote."""

    sent: bool
    text: str


@click.command(epilog=_FORMS, short_help="Send recorded lines to a worker and show both directions.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option("--config", envvar="OMNI_BRIDGE_CONFIG", metavar="FILE", help="A LiteLLM gateway's config.yaml, for the worker.")
@click.option("--indent", is_flag=True, help="Show each message on several lines.")
def replay(file: str, config: str | None, indent: bool) -> int:
    """Send the recorded lines of FILE to a new worker, and show both directions of the pipe, with times.

    A line is sent after the responses and deltas that came before it in the recording. The exit code is the worker's.
    """
    text = _text(file)
    try:
        recording = list(read(text))
    except NotATraceError as error:
        raise CommandError(f"{file}: {error}", 2, hint=_FORMS_HINT) from None
    if not any(line.sent for line in recording):
        raise CommandError(f"{file} has no line that was sent to a worker", 2, hint=_FORMS_HINT)
    screen = Screen(indent=indent)
    with Worker(config=config, watch=screen.line) as worker:
        _play(recording, worker)
        worker.end_input()
        code = worker.wait()
    screen.total(code)
    return code


class NotATraceError(Exception):
    """The first line is a trace's header, and a later one is not a trace record."""


def read(text: str) -> Iterator[Recorded]:
    """Raises NotATraceError."""
    lines = [line for line in text.removeprefix("\ufeff").splitlines() if line.strip()]
    if lines and lines[0].startswith('{"trace":'):
        yield from _traced(lines)
        return
    marked = [found for line in lines if (found := _SHOWN.fullmatch(line))]
    if marked:
        yield from (Recorded(found["arrow"] in ("-->", ">"), found["message"]) for found in marked)
        return
    for line in lines:
        yield Recorded(True, line)


def _traced(lines: list[str]) -> Iterator[Recorded]:
    """The last run of a file of ``--trace``."""
    records = [_trace_record(number, line, is_last=number == len(lines)) for number, line in enumerate(lines, 1)]
    header = next(record for record in reversed(records) if "trace" in record)
    if header.get("content") != "full":
        note("the trace has no content: each text is sent as its length; record with --trace-content=full")
    for line in records:
        if line.get("pid") == header.get("pid") and line.get("dir") in ("in", "out"):
            text = json.dumps(line["message"], ensure_ascii=False) if "message" in line else line.get("text")
            if text is not None:
                yield Recorded(line["dir"] == "in", text)


def _trace_record(number: int, line: str, *, is_last: bool) -> dict[str, Any]:
    """{} for a last line that is cut, as a killed worker leaves it."""
    try:
        record = json.loads(line)
    except ValueError:
        record = {} if is_last else None
    if not isinstance(record, dict):
        raise NotATraceError(f"line {number} is not a trace record")
    return record


def _play(recording: list[Recorded], worker: Worker) -> None:
    pending: dict[object, PendingResponse] = {}
    for line in recording:
        if line.sent:
            pending |= {request.id: request for request in worker.replay(line.text)}
        elif not _wait_for(line.text, pending):
            return


def _wait_for(text: str, pending: dict[object, PendingResponse]) -> bool:
    """Waits for the recorded message. False when the worker has ended. Ignores messages of requests that are not in the file."""
    try:
        message = json.loads(text)
    except ValueError:
        return True
    for one in message if isinstance(message, list) else [message]:
        if not isinstance(one, dict):
            continue
        id = one.get("id", one.get("params", {}).get("requestId"))
        request = pending.get(id) if isinstance(id, str | int) else None
        try:
            if request and "id" in one:
                request.response()
            elif request:
                next(request, None)
        except CommandError:
            return False
    return True


def _text(file: str) -> str:
    try:
        if file == "-":
            return sys.stdin.buffer.read().decode()
        with open(file, encoding="utf-8") as opened:
            return opened.read()
    except OSError as error:
        raise CommandError(f"{file} can't be read: {error.strerror}", 2) from None
    except UnicodeDecodeError as error:
        raise CommandError(f"{file} is not UTF-8 at byte {error.start}", 2) from None
