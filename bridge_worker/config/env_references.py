"""Resolves references in a config (`os.environ/NAME`, `os.keyring/NAME`, `command/...`), and reads the variables that it sets.

Owns both, with the gateway's rules, and which values are secrets. Refuses to change the environment: it returns the variables.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from bridge_worker.config.diagnostics import Report
from bridge_worker.config.secret_references import PREFIXES as OF_SECRETS
from bridge_worker.config.secret_references import SecretReferences, Unreadable
from bridge_worker.config.yaml_document import Document

PREFIX = "os.environ/"
REFERENCES = (PREFIX, *OF_SECRETS)
# The gateway's list: these variables could change the code that runs or the target of a connection.
BLOCKED = frozenset(
    "PATH LD_PRELOAD LD_LIBRARY_PATH DYLD_LIBRARY_PATH DYLD_INSERT_LIBRARIES PYTHONPATH PYTHONSTARTUP PYTHONHOME HOME USER SHELL "
    "LOGNAME NO_PROXY no_proxy".split()
)
_MCP_FLAG = "LITELLM_ENABLE_MCP_STDIO"  # the gateway ignores it too, in upper and lower case
# LiteLLM resolves these itself at each use; a contract test compares the list with LiteLLM's.
POINTERS = frozenset({"anthropic_issuer_signing_key_ref", "anthropic_keycloak_client_secret_ref"})
_NAMES = frozenset({"model", "model_name"})  # in which command/... is a name
_OWN = "OMNI_BRIDGE_"
_SHELL = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*(?::?-[^}]*)?\}")
_SECRET = ("key", "token", "secret", "password", "credential", "passphrase", "auth", "dsn")


class Lookup:
    """The values of references: the process's environment, then the variables that the config sets.

    The gateway looks only into the environment; for a variable that is set there, the result is the same.
    """

    def __init__(self, environ: Mapping[str, str], own: Mapping[str, str], secret: SecretReferences) -> None:
        self._environ, self._own = environ, own
        self.secret = secret

    def get(self, name: str) -> str | bool | None:
        value = self._environ.get(name, self._own.get(name))
        word = value.strip().lower() if value else ""
        return word == "true" if word in ("true", "false") else value  # the gateway's rule


def variables(document: Document, report: Report, environ: Mapping[str, str], secret: SecretReferences) -> dict[str, str]:
    """The variables that the section `environment_variables` sets."""
    section = document.tree.get("environment_variables") or {}
    if not isinstance(section, dict):
        report.error(document.at("environment_variables"), "must be a mapping of names to values")  # the gateway ends here too
        return {}
    found: dict[str, str] = {}
    for name, value in section.items():
        place = document.at("environment_variables", name)
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            report.pass_over(place, "is not set: a variable's name is a text without =")
        elif name in BLOCKED or name.upper() == _MCP_FLAG:
            report.note(place, "can't be set by a config, as in the gateway")
        elif name.startswith(_OWN):
            report.note(place, "can't be set by a config", "write the bridge's settings under omni_bridge")
        elif isinstance(value, dict | list) or value is None:
            report.pass_over(place, "is not set: a variable's value is a text, a number or true or false")
        elif (text := _referred(str(value), place, report, environ, secret)) is not None:
            found[name] = text
    return found


def _referred(value: str, place: str, report: Report, environ: Mapping[str, str], secret: SecretReferences) -> str | None:
    if value.startswith(OF_SECRETS):
        try:
            return secret.get(value)
        except Unreadable as error:
            report.pass_over(place, str(error))
            return None
    if not value.startswith(PREFIX):
        return value
    name = value.removeprefix(PREFIX)
    if name not in environ:
        report.pass_over(place, unset(name))
    return environ.get(name)


def unset(name: str) -> str:
    return f"refers to the environment variable {name}, which is not set"


class Missing(NamedTuple):
    """A reference without a value: the variable, where it names one, and the rest of a sentence about its member."""

    variable: str | None
    problem: str


class Resolver:
    """Replaces references, member by member. ``values`` has the position of each reference with its value, ``unset`` that of
    each reference without one; its value is None, as in the gateway."""

    def __init__(self, document: Document, report: Report, lookup: Lookup) -> None:
        self.values: list[tuple[tuple[object, ...], str]] = []
        self.unset: dict[tuple[object, ...], Missing] = {}
        self._document, self._report, self._lookup = document, report, lookup

    def resolved(self, value: Any, *steps: object) -> Any:
        """``value``, which is at ``steps``, with references replaced. As in the gateway, a text in a list is not changed."""
        if isinstance(value, dict):
            return {name: self.resolved(member, *steps, name) for name, member in value.items()}
        if isinstance(value, list):
            return [self._item(item, *steps, position) for position, item in enumerate(value)]
        if isinstance(value, str) and value.startswith(PREFIX) and steps[-1] not in POINTERS:
            value = self._value(value.removeprefix(PREFIX), *steps)
        elif isinstance(value, str) and value.startswith(OF_SECRETS) and steps[-1] not in _NAMES:
            value = self._secret(value, *steps)
        elif isinstance(value, str) and _SHELL.search(value):
            hint = f"write {PREFIX}NAME as the whole value"
            self._report.pass_over(self._document.at(*steps), "has ${...}, which nothing replaces", hint)
        return value

    def _item(self, item: Any, *steps: object) -> Any:
        if isinstance(item, dict):
            return self.resolved(item, *steps)
        if isinstance(item, str) and item.startswith(PREFIX):
            self._report.note(self._document.at(*steps), "a reference in a list is not resolved, as in the gateway")
        return item

    def _value(self, name: str, *steps: object) -> str | bool | None:
        value = self._lookup.get(name)
        if value is None:
            self._miss(Missing(name, unset(name)), *steps)
        elif isinstance(value, str):
            self.values.append((steps, value))
        return value

    def _secret(self, reference: str, *steps: object) -> str | None:
        try:
            return self._lookup.secret.get(reference)
        except Unreadable as error:
            self._miss(Missing(None, str(error)), *steps)
            return None

    def _miss(self, missing: Missing, *steps: object) -> None:
        self.unset[steps] = missing
        self._report.pass_over(self._document.at(*steps), missing.problem)


def is_secret(name: object) -> bool:
    """Whether a member with this name has a secret."""
    return isinstance(name, str) and any(word in name.lower() for word in _SECRET)


def secrets_in(environment: Mapping[str, str]) -> Iterator[str]:
    return (value for name, value in environment.items() if is_secret(name))
