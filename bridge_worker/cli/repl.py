"""A talk by turns: a line from the person, an answer from the model.

Owns the lines that are no questions: /help, /model, /clear, /exit. Refuses to keep anything after the end; the history that the
arrow keys bring back is in memory only.
"""

from __future__ import annotations

import contextlib
import sys

import click

from bridge_worker.cli.command_error import Problem
from bridge_worker.cli.conversation import Cancelled, Conversation, what_it_took
from bridge_worker.cli.terminal import in_colour, note

with contextlib.suppress(ImportError):  # Windows has none
    import readline  # noqa: F401  # input() then edits the line and keeps a history

_HELP = """\
/model NAME   go on with another model     /clear   forget what was said
/help         this                         /exit    end, as Ctrl-D does
Ctrl-C cancels the answer that is coming, or empties the line."""


def take_turns(talk: Conversation) -> int:
    """The exit code. Ends at /exit or Ctrl-D."""
    note(f"{talk.model}; /help for more, Ctrl-D ends")
    prompt = "\x01\x1b[1m\x02> \x01\x1b[0m\x02" if in_colour(sys.stdout) else "> "  # \x01 and \x02: of no width, for readline
    while True:
        try:
            line = input(prompt).strip()
            if line == "/exit":
                return 0
            if line:
                _take_turn(talk, line)
        except EOFError:
            click.echo()
            return 0
        except KeyboardInterrupt:
            click.echo()


def _take_turn(talk: Conversation, line: str) -> None:
    if line.startswith("/"):
        _obey(talk, line)
        return
    try:
        result = talk.say(line)
    except Cancelled:
        return
    except Problem as problem:
        if problem.final:
            raise
        click.echo(f"omni-bridge: {problem.message}", err=True)
    else:
        note(what_it_took(result))


def _obey(talk: Conversation, line: str) -> None:
    order, _, rest = line.partition(" ")
    if order == "/model" and rest.strip():
        talk.model = rest.strip()
    elif order == "/clear":
        talk.clear()
    elif order not in ("/model", "/help"):
        note(f"there is no {order}; /help lists what there is")
        return
    note(_HELP if order == "/help" else talk.model if order == "/model" else "forgotten")
