"""The interactive chat: reads a line, sends it, shows the response.

Owns the commands /help, /model, /clear and /exit. Refuses to keep anything after the end: the history of the arrow keys is in
memory only.
"""

from __future__ import annotations

import contextlib
import sys

import click

from bridge_worker.cli.command_error import CommandError
from bridge_worker.cli.conversation import Cancelled, Conversation, usage_summary
from bridge_worker.cli.terminal import in_colour, note

with contextlib.suppress(ImportError):  # Windows does not have it
    import readline  # noqa: F401  # gives input() line editing and a history

_HELP = """\
/model NAME   continue with another model   /clear   delete the messages so far
/help         show this text                /exit    end, like Ctrl-D
Ctrl-C cancels the response that is being streamed, or empties the line."""


def run_repl(conversation: Conversation) -> int:
    """Runs until /exit or Ctrl-D and returns the exit code."""
    note(f"{conversation.model}; /help lists the commands, Ctrl-D ends")
    # \x01 and \x02 enclose characters without width, for readline
    prompt = "\x01\x1b[1m\x02> \x01\x1b[0m\x02" if in_colour(sys.stdout) else "> "
    while True:
        try:
            line = input(prompt).strip()
            if line == "/exit":
                return 0
            if line:
                _take_turn(conversation, line)
        except EOFError:
            click.echo()
            return 0
        except KeyboardInterrupt:
            click.echo()


def _take_turn(conversation: Conversation, line: str) -> None:
    if line.startswith("/"):
        _run_command(conversation, line)
        return
    try:
        result = conversation.send(line)
    except Cancelled:
        return
    except CommandError as error:
        if error.final:
            raise
        click.echo(f"omni-bridge: {error.message}", err=True)
    else:
        note(usage_summary(result))


def _run_command(conversation: Conversation, line: str) -> None:
    command, _, rest = line.partition(" ")
    if command == "/model" and rest.strip():
        conversation.model = rest.strip()
    elif command == "/clear":
        conversation.clear()
    elif command not in ("/model", "/help"):
        note(f"unknown command {command}; /help lists the commands")
        return
    note(_HELP if command == "/help" else conversation.model if command == "/model" else "messages deleted")
