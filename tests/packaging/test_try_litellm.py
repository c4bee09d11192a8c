"""bin/try-litellm: its comparison and its table on recorded inputs, and the real facts of the installed version."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest

from tests.support.data import ROOT


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("try_litellm", ROOT / "bin/try_litellm.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["try_litellm"] = module  # for its NamedTuple
    spec.loader.exec_module(module)
    return module


def facts(**changed: Any) -> dict[str, Any]:
    return {
        "version": "1.0.0",
        "patches": {"usage": ["holds", "litellm:a"]},
        "parameters": {"temperature": False},
        "providers": ["openai"],
        "settings": ["drop_params"],
        "Router arguments": ["fallbacks"],
        "costs": {"import CPU, s": 2.0, "memory, MiB": 200.0},
    } | changed


def test_a_version_against_itself_holds(tool: ModuleType) -> None:
    rows = list(tool.compare(facts(), facts()))
    assert {row.kind for row in rows} == {"holds", "ratio"}


def test_each_difference_has_its_row(tool: ModuleType) -> None:
    after = facts(
        patches={
            "usage": ["no longer needed", "usage is counted"],
            "gone": ["does not apply", "module has no attribute"],
            "old": ["removed upstream", ""],
        },
        parameters={"token_exchange_endpoint": True, "mood": False},
        providers=["openai", "newcomer"],
        settings=[],
        costs={"import CPU, s": 2.42, "memory, MiB": 200.0},
    )
    rows = {row.subject: (row.kind, row.detail) for row in tool.compare(facts(), after)}
    assert rows["patch gone"] == ("broken", "does not apply: module has no attribute")
    assert rows["patch usage"] == ("look at", "no longer needed: usage is counted")
    assert rows["patch old"][0] == "holds"
    assert rows["parameter token_exchange_endpoint"] == ("new", "refused")
    assert rows["parameter mood"] == ("look at", "not refused by a rule")
    assert rows["parameter temperature"][0] == "gone"
    assert rows["providers: newcomer"] == ("look at", "new")
    assert rows["settings: drop_params"][0] == "gone"
    assert rows["import CPU, s"] == ("look at", "2.42, 1.21 of the pinned version's")


def test_a_version_that_cannot_be_imported_is_broken(tool: ModuleType) -> None:
    (row,) = tool.compare(facts(), {"error": "ImportError: no such name"})
    assert (row.kind, row.detail) == ("broken", "ImportError: no such name")


PASSED = "....\n4 passed, 1 skipped in 2.00s\n"
FAILED = "..F.\nFAILED tests/a.py::test_b - AssertionError\nERROR tests/c.py\n1 failed, 3 passed, 1 error in 2.00s\n"


def test_the_output_of_pytest_becomes_a_row_a_failure(tool: ModuleType) -> None:
    assert list(tool.of_pytest("suite", 0, PASSED)) == [tool.Row("holds", "suite", "4 passed, 1 skipped in 2.00s")]
    assert [row.detail for row in tool.of_pytest("suite", 1, FAILED)] == ["tests/a.py::test_b - AssertionError", "tests/c.py"]
    (row,) = tool.of_pytest("suite", 4, "usage: pytest\n")
    assert (row.kind, row.detail) == ("broken", "no test ran")


def test_the_table_is_worst_first(tool: ModuleType) -> None:
    rows = [tool.Row("holds", "a", ""), tool.Row("new", "b", ""), tool.Row("broken", "c", "why"), tool.Row("look at", "d", "")]
    lines = tool.table(rows, "1.0.0", "2.0.0").splitlines()
    assert lines[0] == "LiteLLM 2.0.0 against the pinned 1.0.0"
    assert [line.split()[0] for line in lines[2:6]] == ["broken", "look", "new", "holds"]
    assert lines[-1] == "1 broken, 1 look at, 1 new, 0 gone, 0 ratio, 1 holds"


def test_the_pin_is_one_version(tool: ModuleType) -> None:
    assert tool.pinned_version((ROOT / "pyproject.toml").read_text(encoding="utf-8")) == importlib.metadata.version("litellm")
    with pytest.raises(SystemExit, match="has no line"):
        tool.pinned_version('dependencies = ["litellm>=1.0,<2"]')


def test_what_is_no_version_is_refused() -> None:
    done = subprocess.run([ROOT / "bin/try-litellm", "newest"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "'newest' is not a version" in done.stderr


def test_the_installed_version_holds(tool: ModuleType) -> None:
    """The real facts, from the environment in which this test runs."""
    done = subprocess.run([sys.executable, "-I", "bin/litellm_facts.py"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert {row.kind for row in tool.compare(found, found)} == {"holds", "ratio"}
    assert found["version"] == importlib.metadata.version("litellm")
    assert len(found["providers"]) > 100
