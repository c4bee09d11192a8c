"""``omni-bridge cassette``: shows, compares, verifies, trims and masks recorded exchanges.

Owns the output and the exit codes of these commands. Refuses to know the form of a line: `cassettes` does.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

import click

from bridge_worker.cassettes import rewriting, summary, verification
from bridge_worker.cassettes.cassette import Cassette
from bridge_worker.cassettes.writer import CassetteError
from bridge_worker.cli.command_error import CommandError
from bridge_worker.cli.terminal import echo_table, note, printable
from bridge_worker.config.settings import variable
from bridge_worker.security.redaction import Redactor
from bridge_worker.security.url_policy import UrlPolicy

_MAX_VALUE = 200  # characters of a value in a comparison
_File = click.Path(exists=True, dir_okay=False)


@click.group()
def cassette() -> None:
    """Show, compare, verify, trim and mask recorded exchanges."""


@cassette.command()
@click.argument("file", type=_File)
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
def show(file: str, as_json: bool) -> None:
    """Print a row for each exchange."""
    opened = _open(file)
    rows = list(_read(opened, summary.rows))
    if as_json:
        click.echo(json.dumps([row.as_json() for row in rows], ensure_ascii=False))
        return
    head = ("#", "method", "model", "outcome", "status", "deltas", "in", "out", "cost", "time", "bytes of", "hash")
    echo_table(head, map(_cells, rows), right=("#", "deltas", "in", "out", "cost", "time"))
    _note_unread(opened)


@cassette.command()
@click.argument("a", type=_File)
@click.argument("b", type=_File)
@click.option("--json", "as_json", is_flag=True, help="Print the differences as JSON.")
def diff(a: str, b: str, as_json: bool) -> int:
    """Compare two runs: prompts, responses, tool calls, tokens and cost. The exit code is 1 when they differ."""
    left, right = _open(a), _open(b)
    changes = list(_read(left, lambda _: summary.compare(left, right)))
    for opened in (left, right):
        _note_unread(opened)
    if as_json:
        click.echo(json.dumps([change.as_json() for change in changes], ensure_ascii=False))
    else:
        for change in changes:
            _print_change(change)
        if not changes:
            click.echo("no differences")
    return 1 if changes else 0


@cassette.command()
@click.argument("file", type=_File)
@click.option("--json", "as_json", is_flag=True, help="Print the verdicts as JSON.")
def verify(file: str, as_json: bool) -> int:
    """Decode the recorded bytes with this version, and compare with what was recorded. The exit code is 1 if one differs."""
    opened = _open(file)
    verdicts = list(_read(opened, lambda cassette: verification.verify(cassette, _read_by_litellm)))
    if as_json:
        rows = [{"exchange": each.position, "outcome": each.outcome, "members": each.members} for each in verdicts]
        click.echo(json.dumps(rows, ensure_ascii=False))
    else:
        for verdict in verdicts:
            for member, recorded, now in verdict.members:
                click.echo(f"{verdict.position} {printable(member)}: recorded {_shown(recorded)}, now {_shown(now)}")
        counts = Counter(verdict.outcome for verdict in verdicts)
        names = ("same", "differs", "no bytes", *(["not decoded"] if counts["not decoded"] else []))
        click.echo(", ".join(f"{counts[name]} {name}" for name in names))
    _note_unread(opened)
    return 1 if any(verdict.outcome == "differs" for verdict in verdicts) else 0


@cassette.command(context_settings={"ignore_unknown_options": True})
@click.argument("file", type=_File)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="Write here instead of replacing FILE.")
def trim(file: str, command: tuple[str, ...], output: str | None) -> None:
    """Keep what a run uses: omni-bridge cassette trim FILE -- AGENT ARGUMENTS.

    Runs the agent with a replay of FILE, which its worker finds in OMNI_BRIDGE_REPLAY. FILE is not changed when the agent fails.
    """
    opened = _open(file)
    with tempfile.TemporaryDirectory() as folder:
        used = os.path.join(folder, "used")
        variables = {variable("replay"): os.path.abspath(file), variable("record"): used}
        code = _run(command, os.environ | variables)
        if code:
            raise CommandError(f"{command[0]} ended with {code}; {file} was not changed", 1)
        if not os.path.exists(used):
            problem = f"{command[0]} started no worker that reads {variable('replay')}; {file} was not changed"
            raise CommandError(problem, 1, hint="pass the agent's environment on to omni-bridge")
        lines = chain(rewriting.head_lines(opened, str), rewriting.kept(opened, _open(used)))
        written = _write(output or file, lines) - 1 - len(opened.index.models)
    before = len(opened.index.exchanges)
    click.echo(f"{output or file}: {written} of {before} exchanges")
    _note_unread(opened)


@cassette.command()
@click.argument("file", type=_File)
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="Write here instead of replacing FILE.")
@click.option("--secret", "secrets", multiple=True, metavar="VARIABLE", help="A variable with one more secret; may be repeated.")
def scrub(file: str, output: str | None, secrets: tuple[str, ...]) -> None:
    """Mask again: the keys of this environment, and whatever this version takes for a key."""
    opened = _open(file)
    redactor = Redactor(os.environ)
    for name in secrets:
        if not os.environ.get(name):
            raise CommandError(f"--secret {name}: the variable is not set", 2, hint="set it to the secret, or leave it out")
        redactor.add(os.environ[name])
    changes: list[bool] = []

    def lines(cassette: Cassette) -> Iterator[bytes]:
        yield from rewriting.head_lines(cassette, redactor.redact)
        for entry, line in rewriting.scrubbed(cassette, redactor.redact):
            changes.append(json.loads(line) != entry)
            yield line

    _write(output or file, _read(opened, lines))
    click.echo(f"{output or file}: {sum(changes)} of {len(changes)} exchanges changed")
    _note_unread(opened)


def _open(file: str) -> Cassette:
    try:
        return Cassette(file)
    except CassetteError as error:
        raise CommandError(str(error), 2) from None


def _note_unread(opened: Cassette) -> None:
    if count := opened.index.unread:
        lines = "line is" if count == 1 else "lines are"
        click.echo(f"{opened.path}: {count} {lines} not an exchange: cut off, or of another version", err=True)


async def _read_by_litellm(method: str, params: Mapping[str, Any], response: Mapping[str, Any], body: bytes) -> Any:
    """A `verification.Read`."""
    read = _load_reader()
    return None if read is None else await read(method, params, response, body)


@functools.cache
def _load_reader() -> verification.Read | None:
    """LiteLLM, once something needs it; None where it is not installed."""
    try:
        from bridge_worker.backends.litellm import setup

        setup.prepare(UrlPolicy())
        from bridge_worker.backends.litellm.recorded_responses import read
    except ImportError:
        click.echo("LiteLLM is not installed: embeddings and rankings are not decoded", err=True)
        return None
    return read


def _read(opened: Cassette, read: Callable[[Cassette], Iterable[Any]]) -> Iterable[Any]:
    """Raises CommandError for a line in which a member is missing or of another type."""
    try:
        yield from read(opened)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        problem = f"{opened.path}: an exchange can't be read ({type(error).__name__}: {error})"
        raise CommandError(problem, 2, hint="omni-bridge schema has the format") from None


def _write(path: str, lines: Iterable[bytes]) -> int:
    try:
        return rewriting.write_new(path, lines)
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}", 2, hint="choose a file that can be written") from None


def _run(command: tuple[str, ...], environment: dict[str, str]) -> int:
    note(f"running {' '.join(command)}")
    try:
        return subprocess.run(command, env=environment, check=False).returncode  # noqa: S603  # the user's own command
    except OSError as error:
        raise CommandError(f"{command[0]}: {error.strerror}", 2, hint="name the agent's program after --") from None


def _cells(row: summary.Row) -> tuple[str, ...]:
    return (
        str(row.position),
        row.method + (" stream" if row.stream else ""),
        row.model,
        row.outcome,
        "" if row.status is None else str(row.status),
        str(row.deltas or ""),
        "" if row.input_tokens is None else str(row.input_tokens),
        "" if row.output_tokens is None else str(row.output_tokens),
        "" if row.cost_usd is None else f"${row.cost_usd:.6f}",
        f"{row.ms / 1000:.3f} s",
        ", ".join(row.formats),
        row.hash[:12],
    )


def _print_change(change: summary.Change) -> None:
    where = f"A {change.a or '-'}, B {change.b or '-'}: {change.method} {change.model}"
    click.echo(printable(f"{where}, only in {change.only}" if change.only else where))
    for member, a, b in change.members:
        click.echo(f"  {printable(member)}\n    A {_shown(a)}\n    B {_shown(b)}")


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return printable(text if len(text) <= _MAX_VALUE else f"{text[:_MAX_VALUE]}… ({len(text):,} characters)")
