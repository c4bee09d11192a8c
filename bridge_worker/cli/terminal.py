"""What a person looks at: whether anybody does, in what colours and how wide, and how a table is laid out there.

Owns what goes to a terminal and must not go to a pipe. Refuses to know what is shown, and to pass on a model's control characters.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import TextIO

import click

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
# A model's words must not move the cursor, set the title or fill the clipboard of whoever reads them.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_WIDE = 10_000  # columns of what is no terminal: a pipe gets whole lines


def looked_at(*streams: TextIO | None) -> bool:
    """Whether all of them are a terminal. A descriptor that was closed before the start is None here."""
    return all(stream is not None and stream.isatty() for stream in streams)


def in_colour(stream: TextIO) -> bool:
    return looked_at(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def styled(text: str, style: str, stream: TextIO) -> str:
    return f"\x1b[{_CODES[style]}m{text}\x1b[0m" if in_colour(stream) else text


def note(text: str) -> None:
    """A line beside the output, for whoever looks: never in the way of a pipe."""
    if looked_at(sys.stderr):
        click.echo(styled(printable(text), "dim", sys.stderr), err=True, color=True)


def printable(text: str) -> str:
    """As it may be shown on a terminal."""
    return _CONTROLS.sub("", text)


def echo_table(head: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """To stdout. ``right``: the columns of numbers. A first word such as "ok" or "problem" has its colour."""
    from rich.console import Console  # 0.1 s, which a chat need not wait for
    from rich.table import Table
    from rich.text import Text

    looked = looked_at(sys.stdout)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in head:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold", no_wrap=not looked)
    for row in rows:
        table.add_row(*(Text(printable(cell), style=_WORDS.get(cell, "")) for cell in row))
    console = Console(
        file=sys.stdout, markup=False, highlight=False, width=None if looked else _WIDE, no_color=not in_colour(sys.stdout)
    )
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        click.echo(line.rstrip(), color=looked)


_WORDS = {"ok": "green", "note": "yellow", "problem": "red", "skipped": "dim", "yes": "green"}
