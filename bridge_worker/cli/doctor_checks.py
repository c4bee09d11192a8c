"""What can be wrong with an installation and its surroundings, each told with its remedy.

Owns the checks that need no worker. Refuses to mend anything, and to say any key.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any, Literal, NamedTuple

from bridge_worker.cli.model_choice import FIRST_MODELS, LOCAL
from bridge_worker.config.diagnostics import Diagnostic
from bridge_worker.config.local_models import packaged_file
from bridge_worker.config.source import Config, ConfigError, Source
from bridge_worker.providers import key_variables, price_map
from bridge_worker.version import __version__

_OLDEST_PYTHON = (3, 11)
_FILES = 4096  # a chat is a socket, and there may be hundreds at once


class Check(NamedTuple):
    """``problem``: something does not work; ``note``: worth knowing. Both have a remedy."""

    name: str
    status: Literal["ok", "note", "problem", "skipped"]
    detail: str
    remedy: str = ""


def of_python() -> Check:
    found = sys.version.split()[0]
    if sys.version_info < _OLDEST_PYTHON:
        return Check("Python", "problem", found, "use Python 3.11 or newer")
    return Check("Python", "ok", f"{found}, {sys.executable}")


def of_versions() -> Iterator[Check]:
    yield Check("omni-bridge", "ok", __version__)
    try:
        engine = version("litellm")
    except PackageNotFoundError:
        yield Check(
            "LiteLLM", "problem", "not installed", "install omni-bridge anew: delete .venv, or pip install --force-reinstall"
        )
        return
    if price_map.DATE is None:
        known = ", ".join(price_map.DATES)
        yield Check("LiteLLM", "note", f"{engine}, which this version was not tested with", f"install litellm {known}")
        return
    yield Check("LiteLLM", "ok", f"{engine}, price map of {price_map.DATE}, the day this version was published")


def of_config(path: str | None) -> tuple[Config | None, list[Check]]:
    """The config that there is; None where it can't be used. What only LiteLLM finds, the worker logs."""
    if not path:
        return Config(), [Check("config", "ok", "none: any model is served by LiteLLM's name, with keys of the environment")]
    try:
        config, mistakes = Source(path).read()
    except ConfigError as error:
        config, mistakes = Config(), error.diagnostics
    found = [_check("problem", mistake, "correct the file at that line") for mistake in mistakes]
    found += [_check("note", note, "--print-config shows the effective config") for note in config.notes]
    if mistakes:
        return None, found
    models = f"{len(_router(config).get('model_list', ()))} deployments, {len(config.settings.local)} models of this machine"
    return config, [Check("config", "ok", f"{path}: {models}"), *found]


def _router(config: Config | None) -> dict[str, Any]:
    return (config.gateway.router if config and config.gateway else None) or {}


def _check(status: Literal["note", "problem"], diagnostic: Diagnostic, otherwise: str) -> Check:
    """``otherwise`` is the hint for a diagnostic that has none."""
    return Check("config", status, str(replace(diagnostic, hint="")), diagnostic.hint or otherwise)


def of_keys() -> Check:
    """Without a config. Names of variables only."""
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
        return Check("open files", "skipped", "this system has no such limit")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = "no limit" if hard == resource.RLIM_INFINITY else f"{hard:,}"
    if hard != resource.RLIM_INFINITY and hard < _FILES:
        return Check(
            "open files", "note", f"at most {most}, too few for many chats at once", f"ulimit -Hn {_FILES}, or LimitNOFILE="
        )
    return Check("open files", "ok", f"{soft:,} now, {most} at most; the worker raises it")


def of_local(config: Config | None) -> Check:
    missing = [name for name, there in (("llama.cpp", find_spec("xllamacpp")), ("SmolLM2", packaged_file())) if not there]
    names = [LOCAL, *(f"local/{name}" for name in (config.settings.local if config else ()))]
    if not missing:
        return Check("models here", "ok", ", ".join(dict.fromkeys(names)))
    status: Literal["problem", "note"] = "problem" if config and config.settings.local and "llama.cpp" in missing else "note"
    return Check("models here", status, f"not installed: {', '.join(missing)}", "bin/omni-bridge chat --local installs them")


def of_redis(state: str) -> Iterator[Check]:
    """``state`` as the worker's ``status`` tells it; none where no Redis is configured."""
    if state == "connected":
        yield Check("Redis", "ok", "connected: cooldowns, usage, cache and budgets are shared")
    elif state == "not_installed":
        yield Check("Redis", "problem", "configured, but the package redis is not installed", "pip install 'omni-bridge[redis]'")
    elif state != "none":
        yield Check("Redis", "problem", f"configured, and {state}", "start it, or mend redis_host or redis_url in the config")


def of_terminal() -> Check:
    encoding = (sys.stdout.encoding or "unknown").lower()
    if encoding.replace("-", "") != "utf8":
        return Check("terminal", "note", f"writes {encoding}", "set PYTHONUTF8=1, or start bin/omni-bridge")
    return Check("terminal", "ok", f"UTF-8, LANG={os.environ.get('LC_ALL') or os.environ.get('LANG') or 'C'}")
