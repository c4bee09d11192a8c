"""Renders the effective config as YAML, with the source of each value as a comment.

Owns the layout: valid YAML with a comment at the end of each line. Refuses to show a secret: references are printed unresolved, and
a value is masked unless its member is known to be harmless.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from bridge_worker.budgets.limits import Budgets
from bridge_worker.config.env_references import REFERENCES
from bridge_worker.config.settings import SECTION, SETTINGS
from bridge_worker.config.shown import is_shown
from bridge_worker.config.source import Config
from bridge_worker.config.yaml_document import Document
from bridge_worker.security.redaction import REDACTED, Redactor

_COLUMN = 48  # the column of the comments; longer lines have them further right
_WORD = re.compile(r"[A-Za-z_](?:[\w./-]*\w)?")
_NOT_TEXT = ("null", "true", "false", "yes", "no", "on", "off", "y", "n")


def render_config(config: Config) -> str:
    redactor = Redactor()
    for secret in config.secrets:
        redactor.add(secret)
    lines = [f"{SECTION}:"]
    for name in SETTINGS:
        value = _scalar(_plain(getattr(config.settings, name)))
        lines.append(_noted(f"  {name}: {redactor.redact(value)}", config.sources.get(name, "default")))
    if config.document:
        printing = _Printing(config.document, redactor)
        for name in config.document.tree:
            lines += printing.lines(config.document.tree[name], 0, name) if name != SECTION else []
    return "\n".join(lines) + "\n"


class _Printing:
    def __init__(self, document: Document, redactor: Redactor) -> None:
        self._document, self._redactor = document, redactor

    def lines(self, value: Any, indent: int, *steps: Any) -> Iterator[str]:
        """``value`` below the key or the dash of its last step."""
        name = steps[-1]
        head = " " * indent + ("-" if isinstance(name, int) else f"{_scalar(name)}:")
        source = self._document.source(*steps)
        if isinstance(value, dict | list) and value:
            yield _noted(head, source)
            for key, member in value.items() if isinstance(value, dict) else enumerate(value):
                yield from self.lines(member, indent + 2, *steps, key)
        else:
            yield _noted(f"{head} {_scalar(self._masked(steps, value))}", source)

    def _masked(self, steps: tuple[Any, ...], value: Any) -> Any:
        """``value`` without secrets. A reference is printed, because it only names where a value is."""
        if value is None or isinstance(value, bool | dict | list) or (isinstance(value, str) and value.startswith(REFERENCES)):
            return value
        if not is_shown(*steps):
            return REDACTED
        return self._redactor.redact(value) if isinstance(value, str) else value


def _plain(value: Any) -> Any:
    if isinstance(value, Budgets):
        return value.section()
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {name: _plain(member) for name, member in value.items()}
    if isinstance(value, tuple):
        return [_plain(member) for member in value]
    if isinstance(value, frozenset):
        return sorted(value)
    return str(value) if isinstance(value, Path) else value


def _scalar(value: Any) -> str:
    """The value as JSON, which is also YAML; a plain word has no quotes."""
    if isinstance(value, str) and _WORD.fullmatch(value) and value.lower() not in _NOT_TEXT:
        return value
    return json.dumps(value, ensure_ascii=False, default=str)


def _noted(line: str, source: str) -> str:
    return f"{line:<{_COLUMN}}  # {source}"
