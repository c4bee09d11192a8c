"""``omni-bridge doctor``: checks the installation, the keys and the models, with a hint for each problem.

Owns the order of the checks and how they are shown. Refuses to change anything.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from typing import BinaryIO

import click

from bridge_worker.cli import doctor_checks, doctor_deployments, doctor_probes
from bridge_worker.cli.command_error import CommandError
from bridge_worker.cli.doctor_checks import Check
from bridge_worker.cli.model_choice import is_installed
from bridge_worker.cli.terminal import echo_table, note
from bridge_worker.cli.worker_process import Worker
from bridge_worker.config.source import Config


@click.command()
@click.option(
    "--config", envvar="OMNI_BRIDGE_CONFIG", metavar="FILE", help="A LiteLLM gateway's config.yaml: calls each of its models."
)
@click.option("--offline", is_flag=True, help="Call no provider. By default each model gets a request of a few tokens.")
@click.option("--json", "as_json", is_flag=True, help="Print the checks as JSON.")
@click.option(
    "--report",
    metavar="FILE",
    help="Write a report for a bug tracker: versions, checks, and the config and a cassette without keys.",
)
@click.option("--cassette", type=click.Path(exists=True, dir_okay=False), help="A recording that shows the bug, for the report.")
def doctor(config: str | None, offline: bool, as_json: bool, report: str | None, cassette: str | None) -> int:
    """Check this installation, its keys and its models.

    The exit code is 1 when a check finds a problem. Without a config, it calls one small model of each provider with a
    configured key.
    """
    if cassette and not report:
        raise CommandError("--cassette goes with --report FILE", 2, hint="add --report, or leave it out")
    note("checking; a model that does not respond takes half a minute")
    found = list(_all(config, offline))
    if report:
        _write_report(report, found, config, cassette)
    healthy = all(check.status != "problem" for check in found)
    if as_json:
        click.echo(json.dumps({"ok": healthy, "checks": [check._asdict() for check in found]}, ensure_ascii=False))
        return 0 if healthy else 1
    echo_table(("check", "", "result"), [(check.name, check.status, check.detail) for check in found])
    _print_hints(found)
    return 0 if healthy else 1


def _write_report(path: str, found: list[Check], config_path: str | None, cassette_path: str | None) -> None:
    from bridge_worker.cassettes.cassette import Cassette
    from bridge_worker.cassettes.rewriting import write_new
    from bridge_worker.cassettes.writer import CassetteError
    from bridge_worker.cli.report import report_lines

    config, _ = doctor_checks.of_config(config_path)
    try:
        write_new(path, report_lines(found, config, Cassette(cassette_path) if cassette_path else None))
    except CassetteError as error:
        raise CommandError(str(error), 2) from None
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}", 2, hint="choose a file that can be written") from None
    click.echo(f"{path}: the report; read it before you send it", err=True)


def _print_hints(found: list[Check]) -> None:
    for check in found:
        if check.hint:
            click.echo(f"{check.status}: {check.name}: {check.hint}")
    if all(check.status != "problem" for check in found):
        click.echo("no problems found")


def _all(path: str | None, offline: bool) -> Iterator[Check]:
    yield doctor_checks.of_python()
    yield from doctor_checks.of_versions()
    yield doctor_checks.of_terminal()
    yield doctor_checks.of_files()
    config, found = doctor_checks.of_config(path)
    yield from found
    if not path:
        yield doctor_checks.of_keys()
    yield doctor_checks.of_local(config)
    if config is not None:
        yield from _of_worker(path, config, offline)


def _of_worker(path: str | None, config: Config, offline: bool) -> Iterator[Check]:
    with tempfile.TemporaryFile() as log:
        try:
            with Worker("--log-level=debug", "--log-format=json", config=path, log=log) as worker:
                yield from doctor_probes.of_worker(worker)
                yield from doctor_checks.of_redis(worker.call("status", {})["result"]["redis"]["state"])
                if path and doctor_deployments.is_needed(config):
                    yield from _of_deployments(config, offline)
                else:
                    names = doctor_probes.configured_models(worker) if path else doctor_probes.models_with_a_key(is_installed())
                    yield from doctor_probes.of_models(worker, names, offline=offline)
                yield from doctor_probes.of_litellm(worker)
        except CommandError as error:
            detail = f"{error.diagnostic.problem}: {_end_of(log)}"
            yield Check("worker", "problem", detail, "correct the cause in that line, then run omni-bridge doctor again")
            return
        yield doctor_probes.of_stdout(worker)
        yield from doctor_probes.of_log(_lines_of(log))


def _of_deployments(config: Config, offline: bool) -> Iterator[Check]:
    """Each deployment by itself: a fallback's response proves nothing about the deployment that failed."""
    with (
        tempfile.TemporaryDirectory() as folder,
        tempfile.TemporaryFile() as log,
        Worker(config=doctor_deployments.write(config, folder), log=log) as worker,
    ):
        yield from doctor_probes.of_models(worker, doctor_probes.configured_models(worker), offline=offline)


def _end_of(log: BinaryIO) -> str:
    lines = _lines_of(log) or ["its log is empty"]
    return f"{lines[-1]:.300}"


def _lines_of(log: BinaryIO) -> list[str]:
    log.seek(0)
    return log.read().decode("utf-8", "replace").strip().splitlines()
