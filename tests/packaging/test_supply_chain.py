"""What a release consists of: locked, hashed, listed, and the same everywhere. LiteLLM's private parts: tests/upstream_contract."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.data import ROOT

SBOM = [sys.executable, str(ROOT / "bin" / "sbom.py")]


@pytest.fixture(scope="module")
def bom() -> dict[str, Any]:
    made = [subprocess.run(SBOM, capture_output=True, check=True).stdout for _ in range(2)]
    assert made[0] == made[1], "the same input makes the same document"
    document: dict[str, Any] = json.loads(made[0])
    return document


def test_pyproject_the_lock_and_what_is_installed_agree() -> None:
    done = subprocess.run([*SBOM, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_package_is_locked_with_hashes(bom: dict[str, Any]) -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    pinned = set(re.findall(r"^([a-z0-9][a-z0-9._-]*)(?:\[[^\]]*\])?==", lock, re.MULTILINE))
    assert {component["name"] for component in bom["components"]} == pinned
    assert all(component["hashes"] for component in bom["components"])
    assert "--find-links" not in lock
    assert "git+" not in lock


def test_the_bill_is_cyclonedx_and_closed(bom: dict[str, Any]) -> None:
    """Each dependency that is named is a component that is there, and all hang from the one root."""
    assert (bom["bomFormat"], bom["specVersion"]) == ("CycloneDX", "1.6")
    assert re.fullmatch(r"urn:uuid:[0-9a-f-]{36}", bom["serialNumber"])
    refs = {component["bom-ref"] for component in bom["components"]}
    assert len(refs) == len(bom["components"])
    graph = {node["ref"]: node["dependsOn"] for node in bom["dependencies"]}
    assert set(graph) == refs | {"omni-bridge"}
    assert {ref for needed in graph.values() for ref in needed} <= refs
    litellm = f"pkg:pypi/litellm@{importlib.metadata.version('litellm')}"
    assert litellm in graph["omni-bridge"]
    assert any(ref.startswith("pkg:pypi/openai@") for ref in graph[litellm])
    for component in bom["components"]:
        assert component["purl"] == component["bom-ref"] == f"pkg:pypi/{component['name']}@{component['version']}"


def test_a_difference_is_reported(tmp_path: Path) -> None:
    """Against a copy of the project whose lock has another version of one package and lacks the hash of another."""
    for name in ("pyproject.toml", "bin/sbom.py", "bridge_worker/version.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    lock = re.sub(r"^litellm==[\d.]+", "litellm==1.0.0", lock, flags=re.MULTILINE)
    lock = re.sub(r"^(certifi==\S+)(?: \\\n    --hash=\S+)+", r"\1", lock, flags=re.MULTILINE)
    (tmp_path / "requirements.lock").write_text(lock, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(tmp_path / "bin" / "sbom.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "pyproject.toml wants litellm" in done.stdout
    assert f"litellm {importlib.metadata.version('litellm')} is installed, 1.0.0 is locked" in done.stdout
    assert "certifi is locked without a hash" in done.stdout


def test_the_promises_name_tests_that_there_are() -> None:
    named = set(re.findall(r"(?:tests|benchmarks)/[\w./]+", (ROOT / "SECURITY.md").read_text(encoding="utf-8")))
    assert len(named) > 10
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []
