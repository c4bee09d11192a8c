"""bin/try-litellm: its comparison and its table on recorded inputs, and the real facts of the installed version."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support import provider_hosts
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
        "patches": {"usage": ["holds", "litellm:a", "patches/correctness.py", "tests/a.py"]},
        "degraded": [],
        "parameters": {"temperature": False},
        "providers": ["openai"],
        "settings": ["drop_params"],
        "Router arguments": ["fallbacks"],
        "costs": {"import: CPU, s": 2.0, "memory of a worker, MiB": 200.0},
        "hosts": None,
    } | changed


def test_a_version_against_itself_holds(tool: ModuleType) -> None:
    rows = list(tool.compare(facts(), facts()))
    assert {row.kind for row in rows} == {"holds", "cost"}


def test_each_difference_has_its_row_and_what_to_do(tool: ModuleType) -> None:
    where = ["patches/correctness.py", "tests/a.py"]
    after = facts(
        patches={
            "usage": ["no longer needed", "usage is counted", *where],
            "gone": ["does not apply", "module has no attribute", *where],
            "odd": ["check fails", "KeyError: 'a'", *where],
            "old": ["removed upstream", "", *where],
        },
        degraded=[
            {"part": "patch gone", "reason": "module has no attribute", "effect": "it is wrong"},
            {"part": "format gemini", "reason": "another path", "effect": "LiteLLM's own path serves it"},
        ],
        parameters={"token_exchange_endpoint": True, "mood": False},
        providers=["openai", "newcomer"],
        settings=[],
        costs={"import: CPU, s": 2.42, "memory of a worker, MiB": 200.0, "new cost": 1.0},
    )
    rows = {f"{row.subject} {row.detail}": row for row in tool.compare(facts(), after)}
    kinds = {text: row.kind for text, row in rows.items()}
    assert kinds == {
        "patch usage no longer needed, LiteLLM has corrected: usage is counted": "look at",
        "patch gone does not apply: module has no attribute": "broken",
        "patch odd its check fails: KeyError: 'a'": "look at",
        "patch old (removed upstream) ": "holds",
        "rehearsal of the format gemini another path; LiteLLM's own path serves it": "broken",
        "parameters, refused by rule token_exchange_endpoint": "new",
        "parameters, not refused mood": "look at",
        "parameters temperature": "gone",
        "providers, new newcomer": "look at",
        "settings drop_params": "gone",
        "import: CPU, s 2.42, 1.21 of the pinned version's 2.0": "look at",
        "memory of a worker, MiB 200.0, 1.00 of the pinned version's 200.0": "cost",
        "new cost 1.0, not known for the pinned version": "cost",
    }
    assert all(row.next for row in rows.values() if row.kind in ("broken", "look at"))


def test_hosts_are_compared_with_those_that_were_reviewed(tool: ModuleType) -> None:
    page = "# Hosts\n\n| provider | chat | embed |\n|---|---|---|\n| groq | `api.groq.com` |  |\n| old | `old.example` | |\n"
    accepted = tool.accepted_hosts(page)
    assert accepted == {"groq chat": "api.groq.com", "groq embed": "", "old chat": "old.example", "old embed": ""}
    recorded = {"groq chat": "api.groq.com", "groq embed": "embed.groq.com", "new chat": "api.openai.com"}
    rows = list(tool.rows_of_hosts(accepted, {"rows": recorded, "forbidden": ["new contacts api.openai.com"]}))
    assert [(row.kind, row.detail) for row in rows] == [
        ("broken", "new contacts api.openai.com"),
        ("look at", "groq embed: embed.groq.com, accepted: none"),
        ("look at", "new chat: api.openai.com, accepted: none"),
        ("gone", "old chat: none, accepted: old.example"),
    ]


def test_hosts_that_could_not_be_recorded_are_a_row(tool: ModuleType) -> None:
    (row,) = tool.rows_of_hosts({}, {"error": "LiteLLM is not loaded after 60 s"})
    assert (row.kind, row.detail) == ("broken", "they could not be recorded: LiteLLM is not loaded after 60 s")


def test_the_reviewed_page_can_be_read_and_equals_what_the_recording_writes(tool: ModuleType) -> None:
    accepted = tool.accepted_hosts((ROOT / "docs/hosts.md").read_text(encoding="utf-8"))
    assert accepted["anthropic chat"] == "api.anthropic.com"
    methods = provider_hosts.METHODS
    table: dict[str, dict[str, list[str]]] = {}
    for key, hosts in accepted.items():
        provider, _, method = key.rpartition(" ")
        table.setdefault(provider, {})[method] = [host for host in hosts.split(", ") if host]
    assert all(tuple(row) == methods for row in table.values())
    assert provider_hosts.by_method(table) == accepted
    assert provider_hosts.page(table) == provider_hosts.TABLE.read_text(encoding="utf-8")


def test_a_version_that_cannot_be_imported_is_broken(tool: ModuleType) -> None:
    (row,) = tool.compare(facts(), {"error": "ImportError: no such name"})
    assert (row.kind, row.detail) == ("broken", "ImportError: no such name")


PASSED = "....\n4 passed, 1 skipped in 2.00s\n"
FAILED = "..F.\nFAILED tests/a.py::test_b - AssertionError\nERROR tests/c.py\n1 failed, 3 passed, 1 error in 2.00s\n"


def test_the_output_of_pytest_becomes_a_row_a_failure(tool: ModuleType) -> None:
    assert list(tool.of_pytest("suite", 0, PASSED)) == [tool.Row("holds", "suite: 4 passed, 1 skipped in 2.00s")]
    assert [row.detail for row in tool.of_pytest("suite", 1, FAILED)] == ["tests/a.py::test_b: AssertionError", "tests/c.py"]
    (row,) = tool.of_pytest("suite", 4, "usage: pytest\n")
    assert (row.kind, row.detail) == ("broken", "no test ran")


def test_a_check_that_hangs_is_a_row(tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / ".venv-dev/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\nexec sleep 600\n", encoding="utf-8")
    python.chmod(0o755)
    monkeypatch.setattr(tool, "_CHECK_SECONDS", 0.1)
    rows = list(tool.run_checks(tmp_path, quick=True))
    assert {(row.kind, "not done after 0 s" in row.detail) for row in rows} == {("broken", True)}
    assert len(rows) == len(tool.CHECKS)


def test_the_table_is_worst_first_and_gathers_rows_of_one_subject(tool: ModuleType) -> None:
    rows = [
        tool.Row("holds", "a"),
        tool.Row("new", "settings, new", "b"),
        tool.Row("new", "settings, new", "c"),
        tool.Row("broken", "patch d", "why", "correct it"),
        tool.Row("look at", "hosts", "one host", "look"),
        tool.Row("look at", "hosts", "another host", "look"),
    ]
    assert tool.table(rows, "1.0.0", "2.0.0", 90).splitlines() == [
        "LiteLLM 2.0.0 against the pinned 1.0.0, in 2 min",
        "",
        "BROKEN: correct these before --accept (1)",
        "  patch d: why",
        "    -> correct it",
        "",
        "LOOK AT: decide for each, then --accept (2)",
        "  hosts: 2",
        "      - one host",
        "      - another host",
        "    -> look",
        "",
        "NEW (2)",
        "  settings, new: b, c",
        "",
        "HOLDS (1)",
        "  a",
    ]


def test_what_comes_next_depends_on_what_is_broken(tool: ModuleType) -> None:
    def next_step(kind: str, **options: bool) -> str:
        given = argparse.Namespace(**{"quick": False, "accept": False, "keep": False} | options)
        text: str = tool.what_next([tool.Row(kind, "a")], "1.0.0", "2.0.0", given)
        return text

    assert next_step("broken").startswith("Next: 1 broken and 0 to look at. bin/try-litellm 2.0.0 --keep")
    assert next_step("look at") == "Next: nothing is broken, 1 to look at; then bin/try-litellm 2.0.0 --accept."
    assert next_step("broken", accept=True) == "Next: git diff, correct what is broken (1), bin/test, commit."
    assert "--quick" in next_step("look at", quick=True)
    assert tool.what_next([], "1.0.0", "1.0.0", argparse.Namespace(quick=False)) == "Everything holds."


@pytest.mark.parametrize("older", ["", "## 0.1.0\n\n- Old.\n"])
def test_the_changelogs_line_is_of_the_newest_release(tool: ModuleType, older: str) -> None:
    head = "# Changelog\n\n## Unreleased\n\n- New.\n"
    written = tool.with_entry(head + ("\n" + older if older else ""), "1.0.0", "2.0.0")
    assert written == head + "- LiteLLM 2.0.0 instead of 1.0.0.\n" + ("\n" + older if older else "")


def test_the_pin_is_one_version(tool: ModuleType) -> None:
    assert tool.pinned_version((ROOT / "pyproject.toml").read_text(encoding="utf-8")) == importlib.metadata.version("litellm")
    with pytest.raises(SystemExit, match="has no line"):
        tool.pinned_version('dependencies = ["litellm>=1.0,<2"]')


def test_a_text_that_is_not_a_version_is_refused() -> None:
    done = subprocess.run([ROOT / "bin/try-litellm", "latest"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "'latest' is not a version" in done.stderr


def test_the_pinned_version_holds(tool: ModuleType) -> None:
    """The real facts, from the environment in which this test runs."""
    done = subprocess.run([sys.executable, "-I", "bin/litellm_facts.py"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert {row.kind for row in tool.compare(found, found)} == {"holds", "cost"}
    assert found["version"] == importlib.metadata.version("litellm")
    assert len(found["providers"]) > 100
