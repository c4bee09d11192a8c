"""``omni-bridge trace FILE``: shows a recorded trace as a table, as JSON, or as a page for the browser.

Owns the table and the report of an error in the file. Refuses to know how requests and responses are paired (`trace.reader`) and
what the page looks like (`trace.html_page`). A trace has text of others, so no control character of it reaches the terminal.
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

from bridge_worker.cli.command_error import CommandError
from bridge_worker.trace.reader import TraceError, read
from bridge_worker.trace.report import Run, Total, Trace, TracedRequest

_WIDTH_IN_A_FILE = 200  # columns; no cell is folded
_STYLES = {"ok": "green", "cancelled": "yellow", "unanswered": "magenta"}


@click.command()
@click.argument("file", type=click.File("rb"))
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON, without the messages.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write it as one page for a browser.")
def trace(file: BinaryIO, as_json: bool, html: Path | None) -> None:
    """Show a trace that omni-bridge --stdio --trace FILE made."""
    try:
        found = read(file)
    except TraceError as error:
        raise CommandError(f"{file.name}: {error}", 2) from None
    if html:
        _write_page(found, html, file.name)
    if as_json:
        click.echo(json.dumps(found.as_json(messages=False), indent=2))
    elif not html:
        _print(found)


def _write_page(found: Trace, path: Path, title: str) -> None:
    from bridge_worker.trace.html_page import page

    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)  # the page has the content of the trace
        with open(fd, "w", encoding="utf-8") as out:
            out.write(page(found, title))
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}", 2, hint="choose a file that can be written") from None


def _print(found: Trace) -> None:
    console = Console(width=None if sys.stdout.isatty() else _WIDTH_IN_A_FILE, highlight=False)
    for run in found.runs:
        console.print(_about(run), style="bold")
        console.print(_requests(run))
        for lost in run.engines_lost:
            about = f"{_seconds(lost.ms)}: engine process {lost.pid} lost ({lost.how}) with {lost.requests} requests"
            console.print(_text(about, "red"))
    console.print(_totals(found.totals()))


def _about(run: Run) -> Text:
    ending = "" if run.ended else ", cut: the worker was killed or still runs"
    lost = f", {run.lost} messages are missing" if run.lost else ""
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
    for request in run.requests:
        table.add_row(*_row(request))
    return table


def _row(request: TracedRequest) -> list[Text]:
    first = None if request.first_ms is None else request.first_ms - request.start_ms
    tries = f"{request.attempts or ''}{' fallback' if request.fallback else ''}"
    cells = [
        "" if request.id is None else json.dumps(request.id),
        f"{request.method} {request.tool or ''}".rstrip(),
        _model(request),
        _seconds(request.start_ms),
        _seconds(first),
        _seconds(request.duration_ms),
        str(len(request.deltas) or ""),
        _number(request.input_tokens),
        _number(request.output_tokens),
        _dollars(request.cost_usd),
        request.outcome,
        tries,
        request.engine or "",
    ]
    style = _STYLES.get(request.outcome, "red")
    return [_text(cell, style if cell is request.outcome else "") for cell in cells]


def _model(request: TracedRequest) -> str:
    """The requested model, and the one that served the request if it differs by more than a date ("gpt-4o-2024-08-06")."""
    name = request.model or ""
    other = request.served_model and not request.served_model.startswith(name.rpartition("/")[2])
    return f"{name} → {request.served_model}" if other else name


def _totals(totals: list[Total]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", title="by model", title_justify="left", title_style="bold")
    table.add_column("model", overflow="fold")
    for name in ("requests", "ok", "failed", "cancelled", "in", "out", "cost"):
        table.add_column(name, justify="right", no_wrap=True)
    for of in totals:
        counts = (of.requests, of.ok, of.failed, of.cancelled, of.input_tokens, of.output_tokens)
        table.add_row(_text(of.model), *map(str, counts), _dollars(of.cost_usd))
    return table


def _text(content: str, style: str = "") -> Text:
    return Text("".join(c if c.isprintable() else "�" for c in content), style)


def _seconds(ms: float | None) -> str:
    return "" if ms is None else f"{ms / 1000:.3f} s"


def _number(value: int | None) -> str:
    return "" if value is None else str(value)


def _dollars(value: float | None) -> str:
    return "" if value is None else f"${value:.6f}"
