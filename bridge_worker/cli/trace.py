"""``omni-bridge trace FILE``: what went over the pipe, as a table, as JSON, or as a page for the browser.

Owns the table and how a fault of the file is told. Refuses to know how requests and answers are paired (`trace.reading`) and
what the page looks like (`trace.page`). What stands in a trace was written by others: none of it reaches a terminal as a control
character.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import BinaryIO

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bridge_worker.cli.command_error import Problem
from bridge_worker.trace.reader import TraceFault, read
from bridge_worker.trace.report import Run, Total, Trace, TracedRequest

_WIDTH_IN_A_FILE = 200  # where nobody looks, nothing is folded
_STYLES = {"ok": "green", "cancelled": "yellow", "unanswered": "magenta"}


@click.command()
@click.argument("file", type=click.File("rb"))
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON, without the messages.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write it as one page for a browser.")
def trace(file: BinaryIO, as_json: bool, html: Path | None) -> None:
    """Show a trace that omni-bridge --stdio --trace FILE made."""
    try:
        found = read(file)
    except TraceFault as error:
        raise Problem(f"{file.name}: {error}", 2) from None
    if html:
        _write_page(found, html, file.name)
    if as_json:
        click.echo(json.dumps(found.told(messages=False), indent=2))
    elif not html:
        _print(found)


def _write_page(found: Trace, path: Path, title: str) -> None:
    from bridge_worker.trace.html_page import page

    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)  # it has what the trace has
        with open(fd, "w", encoding="utf-8") as out:
            out.write(page(found, title))
    except OSError as error:
        raise Problem(f"{path}: {error.strerror}; name a file that can be written", 2) from None


def _print(found: Trace) -> None:
    console = Console(width=None if sys.stdout.isatty() else _WIDTH_IN_A_FILE, highlight=False)
    for run in found.runs:
        console.print(_about(run), style="bold")
        console.print(_requests(run))
    console.print(_totals(found.totals()))


def _about(run: Run) -> Text:
    ending = "" if run.ended else ", cut: the worker was killed or still runs"
    lost = f", {run.lost} messages found no place" if run.lost else ""
    lost += f", {run.unread} lines could not be read" if run.unread else ""
    worker = f"worker {run.pid}, omni-bridge {run.version}, from {run.time}"
    return _text(f"{worker}, {len(run.messages)} messages, {_seconds(run.end_ms)}{ending}{lost}")


def _requests(run: Run) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("id", "method", "model"):
        table.add_column(name, overflow="fold")
    for name in ("start", "first", "total", "deltas", "in", "out", "cost"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("outcome", "tries", "engine"):
        table.add_column(name, overflow="fold")
    for asked in run.requests:
        table.add_row(*_row(asked))
    return table


def _row(asked: TracedRequest) -> list[Text]:
    first = None if asked.first_ms is None else asked.first_ms - asked.start_ms
    tries = f"{asked.attempts or ''}{' fallback' if asked.fallback else ''}"
    told = [
        "" if asked.id is None else json.dumps(asked.id),
        f"{asked.method} {asked.tool or ''}".rstrip(),
        _model(asked),
        _seconds(asked.start_ms),
        _seconds(first),
        _seconds(asked.duration_ms),
        str(len(asked.deltas) or ""),
        _number(asked.input_tokens),
        _number(asked.output_tokens),
        _dollars(asked.cost_usd),
        asked.outcome,
        tries,
        asked.engine or "",
    ]
    style = _STYLES.get(asked.outcome, "red")
    return [_text(cell, style if cell is asked.outcome else "") for cell in told]


def _model(asked: TracedRequest) -> str:
    """And who answered in its place: "gpt-4o-2024-08-06" for "openai/gpt-4o" is no news."""
    name = asked.model or ""
    other = asked.served_model and not asked.served_model.startswith(name.rpartition("/")[2])
    return f"{name} → {asked.served_model}" if other else name


def _totals(totals: list[Total]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", title="by model", title_justify="left", title_style="bold")
    table.add_column("model", overflow="fold")
    for name in ("requests", "ok", "failed", "cancelled", "in", "out", "cost"):
        table.add_column(name, justify="right", no_wrap=True)
    for of in totals:
        counts = (of.requests, of.ok, of.failed, of.cancelled, of.input_tokens, of.output_tokens)
        table.add_row(_text(of.model), *map(str, counts), _dollars(of.cost_usd))
    return table


def _text(told: str, style: str = "") -> Text:
    return Text("".join(c if c.isprintable() else "�" for c in told), style)


def _seconds(ms: float | None) -> str:
    return "" if ms is None else f"{ms / 1000:.3f} s"


def _number(value: int | None) -> str:
    return "" if value is None else str(value)


def _dollars(value: float | None) -> str:
    return "" if value is None else f"${value:.6f}"
