"""Recorded conversations: text that a person can read and a client in any language can check itself against.

    # a comment
    # flags: --max-in-flight 1      the worker's; files are relative to the checkout
    # rules: BAT-1 BAT-2            of protocol.md, that this conversation holds
    > what is written to the worker, as it is, one line
    < the JSON value that must be read next

An expected value that is "«any»", "«string»" or "«number»" stands for any value, any string, any number; all else must be equal.
notifications/ready, which comes when it comes, is skipped where another line is expected. At the end the input is closed;
nothing more may come, and the exit code must be 0. The files in ``tests/golden/`` and the examples in protocol.md are such texts.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.support.worker import Worker

_FLAGS = "# flags:"


@dataclass(frozen=True)
class Step:
    """A line sent, or a value expected. ``number`` is the line's in its text, from 1."""

    number: int
    sent: str | None = None
    expected: Any = None


@dataclass(frozen=True)
class Transcript:
    flags: tuple[str, ...]
    steps: tuple[Step, ...]

    def messages(self) -> Iterator[Any]:
        """Each JSON object in it, sent or expected; the members of batches too. What is not JSON is left out."""
        for step in self.steps:
            value = step.expected if step.sent is None else _json_or_none(step.sent)
            yield from (member for member in (value if isinstance(value, list) else [value]) if isinstance(member, dict))


def parse(text: str) -> Transcript:
    flags: list[str] = []
    steps: list[Step] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("> "):
            steps.append(Step(number, sent=line[2:]))
        elif line.startswith("< "):
            steps.append(Step(number, expected=json.loads(line[2:])))
        elif line.startswith(_FLAGS):
            flags += shlex.split(line.removeprefix(_FLAGS))
        elif line and not line.startswith("#"):
            raise ValueError(f"line {number} is neither a comment nor sent (>) nor received (<): {line!r:.60}")
    return Transcript(tuple(flags), tuple(steps))


def play(transcript: Transcript, worker: Worker, *, additions: bool = False) -> None:
    """Fails with the line at fault. ``additions``: of a kept transcript, which later versions add members to."""
    seen = 0
    for step in transcript.steps:
        if step.sent is not None:
            worker.write(step.sent.encode() + b"\n")
            continue
        while True:
            got = _received(worker, seen, step)
            seen += 1
            if not (_is_ready(got) and not _is_ready(step.expected)):
                break
        problem = difference(step.expected, got, additions=additions)
        assert problem is None, (
            f"line {step.number}: {problem}\n  expected {json.dumps(step.expected)}\n  received {json.dumps(got)}"
        )
    worker.end_input()
    code = worker.exit_code()
    rest = [message for message in worker.received[seen:] if not _is_ready(message)]
    assert not rest, f"more came than the transcript has: {rest}"
    assert code == 0, f"exit code {code}\n{worker.stderr}"


def difference(expected: Any, got: Any, path: str = "", *, additions: bool = False) -> str | None:
    """Where ``got`` is not as ``expected``; None where it is. With ``additions`` its objects may have further members."""
    match expected:
        case "«any»":
            return None
        case "«string»":
            return None if isinstance(got, str) else f"{path or 'the value'} is no string"
        case "«number»":
            return None if isinstance(got, int | float) and not isinstance(got, bool) else f"{path or 'the value'} is no number"
        case dict() if isinstance(got, dict):
            if odd := expected.keys() - got.keys() if additions else expected.keys() ^ got.keys():
                return f"{path or 'the object'} {'lacks' if min(odd) in expected else 'has the unexpected'} {min(odd)!r}"
            parts = ((value, got[name], f"{path}.{name}".lstrip(".")) for name, value in expected.items())
            found = (difference(*part, additions=additions) for part in parts)
            return next(filter(None, found), None)
        case list() if isinstance(got, list) and len(expected) == len(got):
            parts = ((value, got[at], f"{path}[{at}]") for at, value in enumerate(expected))
            found = (difference(*part, additions=additions) for part in parts)
            return next(filter(None, found), None)
    same = expected == got and type(expected) is type(got)
    return None if same else f"{path or 'the value'} is {got!r:.200}, not {expected!r:.200}"


def _received(worker: Worker, position: int, step: Step) -> Any:
    worker.wait_for(lambda _: len(worker.received) > position or worker.ended)
    assert len(worker.received) > position, f"line {step.number}: the worker ended\n{worker.stderr}"
    return worker.received[position]


def _is_ready(message: Any) -> bool:
    return isinstance(message, dict) and message.get("method") == "notifications/ready"


def _json_or_none(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None
