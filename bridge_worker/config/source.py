"""Reads the config: a LiteLLM gateway's YAML file with the bridge's own section, and all its errors, before the worker starts.

Owns the result, `Config`, and the order of the steps: `yaml_document` reads the files, `env_references` the environment,
`gateway_checks` and `gateway` the gateway's sections, `settings` and `settings_validation` the bridge's own. Refuses to import
LiteLLM, so an error is reported in a tenth of a second. Errors that only LiteLLM can detect are reported after it is loaded.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bridge_worker.config.diagnostics import ConfigError, Diagnostic, Report
from bridge_worker.config.settings import DEFAULTS, SECTION, SETTINGS, TEXTS, Settings, flag, from_environment, variable

if TYPE_CHECKING:
    from bridge_worker.config.gateway import Gateway
    from bridge_worker.config.yaml_document import Document

_BUCKET = "LITELLM_CONFIG_BUCKET_NAME"

__all__ = ["Config", "ConfigError", "Source", "load_config"]


@dataclass(frozen=True, slots=True)
class Config:
    """``gateway`` is None without a file. ``environment`` has the variables to set before LiteLLM is loaded or its Router is made.

    ``secrets`` are values of the file and of its references that must not leave the process; ``notes`` are warnings. ``document``
    and ``sources`` (of each setting) are for --print-config.
    """

    settings: Settings = DEFAULTS
    gateway: Gateway | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    notes: tuple[Diagnostic, ...] = ()
    document: Document | None = None
    sources: Mapping[str, str] = field(default_factory=dict)

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(map(str, self.notes))

    @property
    def configured(self) -> bool:
        """Whether a gateway's config names the models; only these are then served."""
        return self.gateway is not None and self.gateway.router is not None

    @property
    def needs_completion(self) -> bool:
        """Whether LiteLLM's own completion has a part in each chat."""
        return self.settings.engine == "litellm" or (self.gateway is not None and self.gateway.needs_completion)


@dataclass(frozen=True, slots=True)
class Source:
    """The inputs of the config; they do not change while the process runs. ``flags`` are the settings given as flags; ``environ``
    is the environment before a config added variables."""

    path: str | None = None
    flags: Mapping[str, str] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    def load(self, *, runs_commands: bool = True) -> Config:
        """Raises ConfigError with all errors that can be detected without LiteLLM."""
        return load_config(self.path, self.flags, self.environ, runs_commands=runs_commands)

    def read(self) -> tuple[Config, tuple[Diagnostic, ...]]:
        """The config as far as it can be read without running a command, and its errors. Raises ConfigError if the file can't be
        read at all."""
        return _read(self.path, self.flags, self.environ, runs_commands=False)


def load_config(
    path: str | None = None,
    flags: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    runs_commands: bool = False,
) -> Config:
    """``flags`` are the settings given as flags. Raises ConfigError with all errors that can be detected without LiteLLM.

    ``environ`` has the values of references; a reload passes the environment before an earlier config added variables.
    ``runs_commands``: reads `command/...` and `os.keyring/...`, which takes as long as these programs.
    """
    config, errors = _read(path, flags or {}, os.environ if environ is None else environ, runs_commands=runs_commands)
    if errors:
        raise ConfigError(*errors)
    return config


def _read(
    path: str | None, flags: Mapping[str, str], environ: Mapping[str, str], *, runs_commands: bool
) -> tuple[Config, tuple[Diagnostic, ...]]:
    """The config and its errors. Imports only the needed modules, because the first response waits for this."""
    report = Report()
    if not path:
        settings, sources = _settings(flags, None, report)
        return Config(settings, sources=sources), tuple(report.errors)
    from bridge_worker.config.env_references import Lookup, Resolver, secrets_in, variables
    from bridge_worker.config.gateway import read_gateway
    from bridge_worker.config.secret_references import SecretReferences
    from bridge_worker.config.shown import hidden_texts, is_shown
    from bridge_worker.config.yaml_document import read_document

    document = read_document(path, report)
    if bucket := environ.get(_BUCKET):
        report.pass_over(_BUCKET, f"a gateway would read its config from the bucket {bucket}; a worker reads {path}")
    settings, sources = _settings(flags, document, report)
    secret = SecretReferences(runs=runs_commands, refused=_reason_against_commands(document.files))
    environment = variables(document, report, environ, secret)
    resolver = Resolver(document, report, Lookup(environ, environment, secret))
    gateway = read_gateway(document, report, resolver)
    for file in document.files:
        if writer := writable_by_others(file):
            report.note(file, f"is writable by {writer}, which gives access to every key", f"chmod go-w {file}")
    settings = replace(settings, image_policy=settings.image_policy.opened(gateway.open_hosts))
    referred = (text for steps, text in resolver.values if not is_shown(*steps))
    secrets = (*hidden_texts(document.tree), *referred, *secret.values(), *secrets_in(environment))
    return Config(settings, gateway, environment, secrets, report.warnings(), document, sources), tuple(report.errors)


def _settings(flags: Mapping[str, str], document: Document | None, report: Report) -> tuple[Settings, Mapping[str, str]]:
    if not flags and not from_environment() and (document is None or document.tree.get(SECTION) is None):
        return DEFAULTS, {}  # valid without a check; pydantic would cost 0.1 s
    if document is None and (flags.keys() | from_environment().keys()) <= TEXTS:
        return _texts(flags)
    from bridge_worker.config.settings_validation import validate_settings

    return validate_settings(flags, document, report)


def _texts(flags: Mapping[str, str]) -> tuple[Settings, Mapping[str, str]]:
    """Settings of which any text is valid: the start of a replay does not wait for pydantic-settings."""
    given: dict[str, Any] = {**from_environment(), **flags}
    places = {**{name: variable(name) for name in from_environment()}, **{name: flag(name) for name in flags}}
    return Settings(**given), {name: places.get(name, "default") for name in SETTINGS}


def _reason_against_commands(files: list[str]) -> str | None:
    """Nothing is run that another user could have written."""
    writers = ((file, writable_by_others(file)) for file in files)
    return next((f"is not read, because {file} is writable by {writer}" for file, writer in writers if writer), None)


def writable_by_others(path: str) -> str:
    """The other users who can write to the file, or "". With an api_base they can read every prompt and key."""
    try:
        status = Path(path).stat()
    except OSError:
        return ""
    if os.name != "posix":  # on Windows the mode does not show the permissions
        return ""
    if status.st_uid not in (0, os.getuid()):
        return "its owner, who is neither root nor the user of this process"
    return "all users" if status.st_mode & 0o002 else "its group" if status.st_mode & 0o020 else ""
