"""``omni-bridge replay``: what was once said to a worker, said again.

Owns how a recording is read and when its next line is due. Refuses to know what the lines mean beyond their ids: a line that
no worker understands is sent as it stands.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from typing import NamedTuple

import click

from bridge_worker.cli.command_error import Problem
from bridge_worker.cli.terminal import note
from bridge_worker.cli.transcript_view import Screen
from bridge_worker.cli.worker_process import Answer, Worker

_SHOWN = re.compile(r"(?:\s*\d+\.\d+ )?(?P<arrow>-->|<--|>|<) (?P<message>.*)")
_FORMS = """\b
FILE has either
  lines as an agent sends them, one message each;
  what `omni-bridge demo` or `replay` printed, or lines after "> " and "< ";
  what `omni-bridge --stdio --trace FILE` wrote.
"""


class Recorded(NamedTuple):
    """A line that was sent to a worker, or came from it."""

    sent: bool
    text: str


@click.command(epilog=_FORMS, short_help="Send recorded lines to a worker and show both directions.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option("--config", envvar="OMNI_BRIDGE_CONFIG", metavar="FILE", help="A LiteLLM gateway's config.yaml, for the worker.")
@click.option("--indent", is_flag=True, help="Show each message over many lines.")
def replay(file: str, config: str | None, indent: bool) -> int:
    """Send the recorded lines of FILE to a new worker, and show what goes over the pipe both ways, with times.

    Each line waits for what it waited for when it was recorded: the answers and deltas that came before it. The exit code is the
    worker's.
    """
    try:
        recording = list(read(_text(file)))
    except (ValueError, LookupError, AttributeError):
        raise Problem(
            f"{file} looks like a trace and is none; see omni-bridge replay --help for the forms it may have", 2
        ) from None
    if not any(line.sent for line in recording):
        raise Problem(f"{file} has no line that was sent to a worker; see omni-bridge replay --help for the forms it may have", 2)
    screen = Screen(indent=indent)
    with Worker(config=config, watch=screen.line) as worker:
        _play(recording, worker)
        worker.end_input()
        code = worker.wait()
    screen.total(code)
    return code


def read(text: str) -> Iterator[Recorded]:
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
    try:
        read = [json.loads(line) for line in lines]
    except ValueError:
        read = [json.loads(line) for line in lines[:-1]]  # cut in the middle of a line, as a killed worker leaves it
    header = next(line for line in reversed(read) if "trace" in line)
    if header.get("content") != "full":
        note("the trace has no content: each text is said as its length; record with --trace-content=full")
    for line in read:
        if line.get("pid") == header.get("pid") and line.get("dir") in ("in", "out"):
            text = json.dumps(line["message"], ensure_ascii=False) if "message" in line else line.get("text")
            if text is not None:
                yield Recorded(line["dir"] == "in", text)


def _play(recording: list[Recorded], worker: Worker) -> None:
    asked: dict[object, Answer] = {}
    for line in recording:
        if line.sent:
            asked |= {answer.id: answer for answer in worker.replay(line.text)}
        elif not _wait_for(line.text, asked):
            return


def _wait_for(text: str, asked: dict[object, Answer]) -> bool:
    """False when the worker has ended. What was recorded and is about no request of this file is not waited for."""
    try:
        message = json.loads(text)
    except ValueError:
        return True
    for one in message if isinstance(message, list) else [message]:
        if not isinstance(one, dict):
            continue
        id = one.get("id", one.get("params", {}).get("requestId"))
        answer = asked.get(id) if isinstance(id, str | int) else None
        try:
            if answer and "id" in one:
                answer.response()
            elif answer:
                next(answer, None)
        except Problem:
            return False
    return True


def _text(file: str) -> str:
    try:
        if file == "-":
            return sys.stdin.buffer.read().decode()
        with open(file, encoding="utf-8") as opened:
            return opened.read()
    except OSError as error:
        raise Problem(f"{file} can't be read: {error.strerror}", 2) from None
    except UnicodeDecodeError as error:
        raise Problem(f"{file} is not UTF-8 at byte {error.start}", 2) from None
