"""Checks of the installation and its surroundings, each with a hint.

Owns the checks that need no worker. Refuses to change anything, and to print a key.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any, Literal, NamedTuple

from bridge_worker.cli.model_choice import LOCAL
from bridge_worker.config.diagnostics import Diagnostic
from bridge_worker.config.local_models import packaged_file
from bridge_worker.config.source import Config, ConfigError, Source
from bridge_worker.providers import key_variables, price_map
from bridge_worker.providers.facts import FIRST_MODELS
from bridge_worker.version import __version__

_OLDEST_PYTHON = (3, 11)
_FILES = 4096  # each chat in flight needs a socket, and there may be hundreds
REINSTALL_HINT = "reinstall omni-bridge: delete .venv, or run pip install --force-reinstall"


class Check(NamedTuple):
    """``problem``: something does not work; ``note``: it works, with a restriction. Both have a hint."""

    name: str
    status: Literal["ok", "note", "problem", "skipped"]
    detail: str
    hint: str = ""


def of_python() -> Check:
    found = sys.version.split()[0]
    if sys.version_info < _OLDEST_PYTHON:
        return Check("Python", "problem", found, "use Python 3.11 or newer")
    return Check("Python", "ok", f"{found}, {sys.executable}")


def of_versions() -> Iterator[Check]:
    yield Check("omni-bridge", "ok", __version__)
    try:
        installed = version("litellm")
    except PackageNotFoundError:
        yield Check("LiteLLM", "problem", "not installed", REINSTALL_HINT)
        return
    if price_map.DATE is None:
        known = ", ".join(price_map.DATES)
        yield Check("LiteLLM", "note", f"{installed}, which this version was not tested with", f"install litellm {known}")
        return
    yield Check("LiteLLM", "ok", f"{installed}, price map of {price_map.DATE}, the day this version was published")


def of_config(path: str | None) -> tuple[Config | None, list[Check]]:
    """The config; None when it has an error. An error that only LiteLLM detects is in the worker's log."""
    if not path:
        return Config(), [Check("config", "ok", "none: models by LiteLLM's names, keys from the environment")]
    try:
        config, errors = Source(path).read()
    except ConfigError as error:
        config, errors = Config(), error.diagnostics
    found = [_check("problem", error, "correct the file at that line") for error in errors]
    found += [_check("note", note, "--print-config shows the effective config") for note in config.notes]
    if errors:
        return None, found
    models = f"{len(_router(config).get('model_list', ()))} deployments, {len(config.settings.local)} local models"
    return config, [Check("config", "ok", f"{path}: {models}"), *found]


def _router(config: Config | None) -> dict[str, Any]:
    return (config.gateway.router if config and config.gateway else None) or {}


def _check(status: Literal["note", "problem"], diagnostic: Diagnostic, otherwise: str) -> Check:
    """``otherwise`` is the hint for a diagnostic that has none."""
    return Check("config", status, str(replace(diagnostic, hint="")), diagnostic.hint or otherwise)


def of_keys() -> Check:
    """Providers with a key in the environment, by the names of the variables; for use without a config."""
    providers = dict.fromkeys(provider for _, provider, _ in price_map.rows())
    found = dict.fromkeys(
        f"{key_variables.owner(name)} ({variable})" for name in providers if (variable := key_variables.variable(name))
    )
    if found:
        return Check("keys", "ok", ", ".join(found))
    looked_for = ", ".join(FIRST_MODELS)
    return Check("keys", "note", "none", f"set one, such as {looked_for}; {LOCAL} and offline/echo need none")


def of_files() -> Check:
    try:
        import resource
    except ImportError:  # Windows
        return Check("open files", "skipped", "this system has no limit")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = "no limit" if hard == resource.RLIM_INFINITY else f"{hard:,}"
    if hard != resource.RLIM_INFINITY and hard < _FILES:
        return Check(
            "open files", "note", f"at most {most}, too few for many concurrent chats", f"ulimit -Hn {_FILES}, or LimitNOFILE="
        )
    return Check("open files", "ok", f"{soft:,} now, {most} at most; the worker raises it")


def of_local(config: Config | None) -> Check:
    missing = [name for name, part in (("llama.cpp", find_spec("xllamacpp")), ("SmolLM2", packaged_file())) if not part]
    names = [LOCAL, *(f"local/{name}" for name in (config.settings.local if config else ()))]
    if not missing:
        return Check("local models", "ok", ", ".join(dict.fromkeys(names)))
    status: Literal["problem", "note"] = "problem" if config and config.settings.local and "llama.cpp" in missing else "note"
    return Check("local models", status, f"not installed: {', '.join(missing)}", "bin/omni-bridge chat --local installs them")


def of_redis(state: str) -> Iterator[Check]:
    """``state`` is the member of the worker's ``status`` result; "none" means that no Redis is configured."""
    if state == "connected":
        yield Check("Redis", "ok", "connected: cooldowns, usage, cache and budgets are shared")
    elif state == "not_installed":
        yield Check("Redis", "problem", "configured, but the package redis is not installed", "pip install 'omni-bridge[redis]'")
    elif state != "none":
        yield Check("Redis", "problem", f"configured, and {state}", "start it, or correct redis_host or redis_url in the config")


def of_terminal() -> Check:
    encoding = (sys.stdout.encoding or "unknown").lower()
    if encoding.replace("-", "") != "utf8":
        return Check("terminal", "note", f"writes {encoding}", "set PYTHONUTF8=1, or start bin/omni-bridge")
    return Check("terminal", "ok", f"UTF-8, LANG={os.environ.get('LC_ALL') or os.environ.get('LANG') or 'C'}")
