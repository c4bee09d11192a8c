"""`--check-config`: every mistake in a config, also those that only LiteLLM finds.

Owns what a person, or a deployment's script, sees of them. Refuses to serve anything and to call a provider.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Sequence

from bridge_worker.config import unusable
from bridge_worker.config.diagnostics import Diagnostic
from bridge_worker.config.source import Config, ConfigError, Source
from bridge_worker.security.redaction import Redactor


def check_config(source: Source, *, strict: bool = False) -> int:
    """The exit code: 0, or 2 with a line for each error on standard error. What a start would pass over or not serve is a warning,
    and with ``strict`` an error."""
    out = os.dup(1)
    os.dup2(2, 1)  # LiteLLM prints where it likes
    try:
        config, mistakes = source.read()
    except ConfigError as error:
        return _print_lines(error.lines, Redactor())
    os.environ.update(config.environment)
    redactor = Redactor()
    for secret in config.secrets:
        redactor.add(secret)
    late_mistakes, unserved = _judgement_of_litellm(config)
    notes = (*config.notes, *unserved)
    mistakes = (*mistakes, *late_mistakes, *(note for note in notes if strict and note.strict))
    _print_lines([f"warning: {note}" for note in notes if note not in mistakes], redactor)
    if mistakes:
        return _print_lines(map(str, mistakes), redactor)
    os.write(out, f"{source.path or 'no config file'}: OK ({_models(config, unserved)})\n".encode())
    return 0


def _judgement_of_litellm(config: Config) -> tuple[Sequence[Diagnostic], Sequence[Diagnostic]]:
    """(errors, what is not served): the same as at a start and at a reload."""
    from bridge_worker.backends.litellm import setup

    setup.prepare(config.settings.image_policy)
    from bridge_worker.backends.litellm.chat import LiteLLM
    from bridge_worker.backends.local.chat import Local

    async def in_a_loop() -> Sequence[Diagnostic]:
        """Budgets and usage limits of a Router begin to run when it is made."""
        return LiteLLM(config.gateway, Local(config.settings.local)).rejected

    try:
        return (), asyncio.run(in_a_loop())
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        return [Diagnostic("", f"LiteLLM does not take it: {type(error).__name__}: {lines[0]:.300}")], ()


def _models(config: Config, unserved: Iterable[Diagnostic]) -> str:
    if config.gateway is None or config.gateway.router is None:
        return "every model is served by its LiteLLM name"
    deployments = config.gateway.router["model_list"]
    out = sum(note.place in config.gateway.places for note in unserved)
    dead = sum(map(unusable.is_unusable, deployments))
    but = f", {out + dead} of them not served" if out + dead else ""
    return f"{len({model['model_name'] for model in deployments})} models, {len(deployments)} deployments{but}"


def _print_lines(lines: Iterable[str], redactor: Redactor) -> int:
    for line in lines:
        os.write(2, f"omni-bridge: {' '.join(redactor.redact(line).split())}\n".encode("utf-8", "backslashreplace"))
    return 2
