"""The report of ``omni-bridge doctor --report``: a cassette with the versions, the checks and the config in its header.

Owns what a report has, and that no key and no path of this machine is in it. Refuses to run checks.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version

from bridge_worker.cassettes.cassette import Cassette
from bridge_worker.cassettes.entry import header_line
from bridge_worker.cassettes.rewriting import head_lines, scrubbed
from bridge_worker.cli.doctor_checks import Check
from bridge_worker.config.render import render_config
from bridge_worker.config.source import Config
from bridge_worker.security.error_text import clean
from bridge_worker.security.redaction import Redactor
from bridge_worker.version import __version__

_PACKAGES = ("litellm", "openai", "httpx", "aiohttp", "pydantic", "jsonrpcserver", "boto3", "google-auth", "redis")
_MAX_DETAIL = 2_000


def report_lines(checks: Sequence[Check], config: Config | None, cassette: Cassette | None) -> Iterator[bytes]:
    redactor = Redactor(os.environ)
    for secret in config.secrets if config else ():
        redactor.add(secret)
    report = {
        "versions": _versions(),
        "platform": {"python": sys.version.split()[0], "system": platform.system(), "machine": platform.machine()},
        "checks": [_check(check, redactor) for check in checks],
        "config": None if config is None else _without_folders(redactor.redact(render_config(config))).splitlines(),
    }
    if cassette is None:
        yield header_line(version=__version__, report=report)
        return
    yield from head_lines(cassette, redactor.redact, report=report)
    for _, line in scrubbed(cassette, redactor.redact):
        yield line


def _versions() -> Mapping[str, str | None]:
    def installed(name: str) -> str | None:
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    return {"omni_bridge": __version__, **{name: installed(name) for name in _PACKAGES}}


def _check(check: Check, redactor: Redactor) -> dict[str, str]:
    detail, hint = (clean(text, redactor, _MAX_DETAIL) if text else "" for text in (check.detail, check.hint))
    return {"name": check.name, "status": check.status, "detail": detail, "hint": hint}


def _without_folders(text: str) -> str:
    """The config's text has the names of files in its comments."""
    for folder in {os.getcwd(), os.path.expanduser("~")} - {"/", "~"}:
        text = text.replace(folder + os.sep, "")
    return text
