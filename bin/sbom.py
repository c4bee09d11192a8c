"""The software bill of materials, CycloneDX 1.6, of what a release of the worker consists of. No network.

    .venv-dev/bin/python bin/sbom.py > sbom.json     from requirements.lock and the metadata of what is installed here
    .venv-dev/bin/python bin/sbom.py --check         says where pyproject.toml, the lock and what is installed differ; exit code 1

Owns reading the lock. Refuses to ask a registry or a list of known faults: that needs a network; the document is what such a
scanner takes (`pip-audit`, `grype`, `trivy`, `osv-scanner` all read it).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import re
import sys
import tomllib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
(VERSION,) = re.findall(r'^__version__ = "(.+)"$', (ROOT / "bridge_worker" / "version.py").read_text("utf-8"), re.MULTILINE)
_ENTRY = re.compile(r"^(?P<requirement>[A-Za-z0-9][^\\\n]*?)(?P<hashes>(?: \\\n    --hash=sha256:[0-9a-f]{64})*)$", re.MULTILINE)
_BUILD_ONLY = {"setuptools"}  # builds what comes as source, and is gone then; see bin/bootstrap.py


@dataclass(frozen=True)
class Locked:
    requirement: Requirement
    hashes: tuple[str, ...]

    @property
    def name(self) -> str:
        return canonicalize_name(self.requirement.name)

    @property
    def version(self) -> str:
        (pin,) = self.requirement.specifier
        return pin.version

    @property
    def here(self) -> bool:
        """Whether this platform and Python want it."""
        return self.requirement.marker is None or self.requirement.marker.evaluate()

    @property
    def purl(self) -> str:
        return f"pkg:pypi/{self.name}@{self.version}"


def locked(lock: Path = LOCK) -> list[Locked]:
    entries = _ENTRY.finditer(lock.read_text(encoding="utf-8"))
    return [Locked(Requirement(entry["requirement"]), tuple(re.findall(r"[0-9a-f]{64}", entry["hashes"]))) for entry in entries]


def wanted() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [Requirement(text) for text in project["dependencies"]]


def differences() -> Iterator[str]:
    lock = {entry.name: entry for entry in locked()}
    for requirement in wanted():
        entry = lock.get(canonicalize_name(requirement.name))
        if entry is None or entry.version not in requirement.specifier:
            yield f"pyproject.toml wants {requirement}, the lock has {entry.version if entry else 'none'}: run bin/lock"
    for entry in lock.values():
        if not entry.hashes:
            yield f"{entry.name} is locked without a hash: run bin/lock"
        if not entry.here or entry.name in _BUILD_ONLY:
            continue
        try:
            installed = importlib.metadata.version(entry.name)
        except importlib.metadata.PackageNotFoundError:
            yield f"{entry.name} is locked and not installed: run bin/bootstrap.py"
            continue
        if installed != entry.version:
            yield f"{entry.name} {installed} is installed, {entry.version} is locked: run bin/bootstrap.py"
    known = {*lock, "pip"}
    for entry in lock.values():
        for needed in sorted(set(_needs(entry)) - known):
            yield f"{entry.name} needs {needed}, which is not locked: run bin/lock"


def document(entries: list[Locked], required: list[Requirement]) -> dict[str, Any]:
    """Of ``entries``, of which the application itself asks for ``required``."""
    root = {
        "type": "application",
        "bom-ref": "omni-bridge",
        "name": "omni-bridge",
        "version": VERSION,
        "licenses": [{"license": {"id": "MIT"}}],
    }
    names = {entry.name: entry.purl for entry in entries}
    direct = [names[canonicalize_name(requirement.name)] for requirement in required]
    needed = {entry.purl: set(_needs(entry)) & set(names) for entry in entries}
    graph = [{"ref": purl, "dependsOn": sorted(names[name] for name in each)} for purl, each in needed.items()]
    known = "".join(f"{entry.purl} {entry.hashes}" for entry in entries)
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, known + VERSION)}",  # reproducible
        "version": 1,
        "metadata": {"component": root, "lifecycles": [{"phase": "build"}]},
        "components": [_component(entry) for entry in entries],
        "dependencies": [{"ref": "omni-bridge", "dependsOn": sorted(direct)}, *graph],
    }


def _component(entry: Locked) -> dict[str, Any]:
    """``hashes`` are of all files that the lock accepts: a wheel for each platform and the source."""
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": entry.purl,
        "name": entry.name,
        "version": entry.version,
        "purl": entry.purl,
    }
    component["scope"] = "excluded" if entry.name in _BUILD_ONLY else "required"
    component["hashes"] = [{"alg": "SHA-256", "content": digest} for digest in entry.hashes]
    if license := _license(entry):
        component["licenses"] = [license]
    if entry.requirement.marker is not None:
        component["properties"] = [{"name": "omni-bridge:marker", "value": str(entry.requirement.marker)}]
    return component


def _license(entry: Locked) -> dict[str, Any] | None:
    """As the package says it itself; None where it is not installed here, or says nothing."""
    try:
        metadata = importlib.metadata.metadata(entry.name)
    except importlib.metadata.PackageNotFoundError:
        return None
    if expression := metadata.get("License-Expression"):
        return {"expression": expression}
    classified = [c.rpartition(" :: ")[2] for c in metadata.get_all("Classifier", []) if c.startswith("License :: ")]
    name = (classified or [metadata.get("License") or ""])[0].strip().splitlines()[:1]
    return {"license": {"name": name[0][:100]}} if name else None


def _needs(entry: Locked) -> Iterator[str]:
    try:
        requires = importlib.metadata.requires(entry.name) or []
    except importlib.metadata.PackageNotFoundError:
        return
    extras = entry.requirement.extras or {""}
    for requirement in map(Requirement, requires):
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in extras):
            yield canonicalize_name(requirement.name)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="print differences instead of the document")
    if parser.parse_args().check:
        found = list(differences())
        print(*(found or ["pyproject.toml, the lock and what is installed agree"]), sep="\n")
        return int(bool(found))
    print(json.dumps(document(locked(), wanted()), indent=2, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
