"""Terminal output: TTY detection, colours, width, tables.

Owns the output that only a terminal gets. Refuses to know what is shown, and to pass on control characters of a model.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import TextIO

import click

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
# The text of a model must not move the cursor, set the title or fill the clipboard of the user's terminal.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_PIPE_COLUMNS = 10_000  # a pipe gets whole lines


def is_terminal(*streams: TextIO | None) -> bool:
    """Whether all of them are terminals. A descriptor that was closed before the start is None here."""
    return all(stream is not None and stream.isatty() for stream in streams)


def in_colour(stream: TextIO) -> bool:
    return is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def styled(text: str, style: str, stream: TextIO) -> str:
    return f"\x1b[{_CODES[style]}m{text}\x1b[0m" if in_colour(stream) else text


def note(text: str) -> None:
    """Prints a line to stderr when that is a terminal, so that pipes and scripts do not get it."""
    if is_terminal(sys.stderr):
        click.echo(styled(printable(text), "dim", sys.stderr), err=True, color=True)


def printable(text: str) -> str:
    """The text without control characters."""
    return _CONTROLS.sub("", text)


def echo_table(head: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """Prints a table to stdout. ``right``: the columns that align right. A cell such as "ok" or "problem" has a colour."""
    from rich.console import Console  # 0.1 s, not needed for a chat
    from rich.table import Table
    from rich.text import Text

    on_terminal = is_terminal(sys.stdout)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in head:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold", no_wrap=not on_terminal)
    for row in rows:
        table.add_row(*(Text(printable(cell), style=_WORDS.get(cell, "")) for cell in row))
    console = Console(
        file=sys.stdout,
        markup=False,
        highlight=False,
        width=None if on_terminal else _PIPE_COLUMNS,
        no_color=not in_colour(sys.stdout),
    )
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        click.echo(line.rstrip(), color=on_terminal)


_WORDS = {"ok": "green", "note": "yellow", "problem": "red", "skipped": "dim", "yes": "green"}
