"""The config: a LiteLLM gateway's YAML file with the bridge's own section, and what is wrong with it, before anything is started.

Owns what comes of it all, `Config`, and the order in which it is read; its neighbours have the parts: `documents` the files,
`references` the environment, `checks` and `gateway` the gateway's sections, `settings` and `validated` the bridge's own. Refuses to
import LiteLLM: a mistake in the file is told in a tenth of a second. What only LiteLLM can find is told once it has been loaded.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bridge_worker.config.diagnostics import ConfigError, Diagnostic, Report
from bridge_worker.config.settings import DEFAULTS, SECTION, Settings, from_environment

if TYPE_CHECKING:
    from bridge_worker.config.gateway import Gateway
    from bridge_worker.config.yaml_document import Document

__all__ = ["Config", "ConfigError", "Source", "load_config"]


@dataclass(frozen=True, slots=True)
class Config:
    """``gateway`` is None without a file. ``environment`` are the variables to set before LiteLLM is loaded, or its Router made.

    ``secrets`` are values of the file, or that its references stand for, which nobody may see; ``notes`` are warnings.
    ``document`` and ``sources`` (of each setting) are for whoever wants to see what it was made of.
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
        """Whether there are models of a gateway's config, and only these."""
        return self.gateway is not None and self.gateway.router is not None


@dataclass(frozen=True, slots=True)
class Source:
    """Where the config is from, for as long as the process lives. ``flags`` are the settings that were given as flags; ``environ``
    is the environment before a config added to it."""

    path: str | None = None
    flags: Mapping[str, str] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    def load(self) -> Config:
        """Raises ConfigError, with all mistakes that can be seen without LiteLLM."""
        return load_config(self.path, self.flags, self.environ)

    def read(self) -> tuple[Config, tuple[Diagnostic, ...]]:
        """What there is of a config, and the mistakes in it. Raises ConfigError when there is nothing to go on with."""
        return _read(self.path, self.flags, self.environ)


def load_config(
    path: str | None = None, flags: Mapping[str, str] | None = None, environ: Mapping[str, str] | None = None
) -> Config:
    """``flags`` are the settings that were given as flags. Raises ConfigError, with all mistakes that can be seen without LiteLLM.

    ``environ`` is what references stand for; a reload wants it as it was before an earlier config set its own.
    """
    config, mistakes = _read(path, flags or {}, os.environ if environ is None else environ)
    if mistakes:
        raise ConfigError(*mistakes)
    return config


def _read(path: str | None, flags: Mapping[str, str], environ: Mapping[str, str]) -> tuple[Config, tuple[Diagnostic, ...]]:
    """The config, and what is wrong with it. Loads what it needs only: an agent waits for its first answer meanwhile."""
    report = Report()
    if not path:
        settings, sources = _settings(flags, None, report)
        return Config(settings, sources=sources), tuple(report.mistakes)
    from bridge_worker.config.env_references import Lookup, Resolver, secrets_in, variables
    from bridge_worker.config.gateway import read_gateway
    from bridge_worker.config.shown import hidden_texts, is_shown
    from bridge_worker.config.yaml_document import read_document

    document = read_document(path, report)
    settings, sources = _settings(flags, document, report)
    environment = variables(document, report, environ)
    resolver = Resolver(document, report, Lookup(environ, environment))
    gateway = read_gateway(document, report, resolver)
    for file in document.files:
        if who := writable_by_others(file):
            report.note(file, f"can be changed by {who}, who can thereby read every key", "chmod go-w it")
    settings = replace(settings, image_policy=settings.image_policy.opened(gateway.open_hosts))
    referred = (text for steps, text in resolver.values if not is_shown(*steps))
    secrets = (*hidden_texts(document.tree), *referred, *secrets_in(environment))
    return Config(settings, gateway, environment, secrets, report.warnings(), document, sources), tuple(report.mistakes)


def _settings(flags: Mapping[str, str], document: Document | None, report: Report) -> tuple[Settings, Mapping[str, str]]:
    if not flags and not from_environment() and (document is None or document.tree.get(SECTION) is None):
        return DEFAULTS, {}  # valid by construction: pydantic would cost 0.1 s
    from bridge_worker.config.settings_validation import validated

    return validated(flags, document, report)


def writable_by_others(path: str) -> str:
    """Who may write to the file sees every prompt and, through an api_base, every key."""
    try:
        status = Path(path).stat()
    except OSError:
        return ""
    if os.name != "posix":  # there the mode says nothing
        return ""
    if status.st_uid not in (0, os.getuid()):
        return "its owner, who is neither root nor the user of this process"
    return "everybody" if status.st_mode & 0o002 else "its group" if status.st_mode & 0o020 else ""
