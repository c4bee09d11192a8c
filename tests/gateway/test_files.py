"""Gateway files in the shapes that public ones have: a LiteLLM proxy and a worker do the same with each (`bin/try-config`).

One process imports the proxy and forks one child for each file; one worker reads the files one after the other. What counts as a
difference: tests/support/try_config.py. The files combine features as operators combine them; no text is copied.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.data import ROOT
from tests.support.try_config import Comparison
from tests.support.worker import run

FILES = sorted((Path(__file__).parent / "files").glob("*.yaml"), key=lambda file: (file.stem == "callbacks", file.stem))


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Comparison]:
    comparison = Comparison(tmp_path_factory.mktemp("files"), FILES)
    yield comparison
    comparison.close()


def test_there_are_files_enough() -> None:
    assert len(FILES) >= 25


@pytest.mark.rule("CFG-12")
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_gateway_and_a_worker_do_the_same_with_a_file(comparison: Comparison, file: Path) -> None:
    assert comparison.differences(file) == []


def test_a_difference_is_found(comparison: Comparison, tmp_path: Path) -> None:
    """The comparison itself: a weight that is a text fails each request in the gateway, and is a number in the worker."""
    params = '{model: openai/x, api_key: sk-1, api_base: "https://one.example/v1", weight: "3"}'
    (tmp_path / "differs.yaml").write_text(f"model_list: [{{model_name: a, litellm_params: {params}}}]")
    lines = comparison.differences(tmp_path / "differs.yaml")
    assert any("the gateway ends with ['an error'], the worker with ['ok" in line for line in lines)


@pytest.mark.rule("CFG-8")
def test_check_config_accepts_what_the_gateway_serves() -> None:
    """Of those files, the ones with most that is passed over: a warning for each, and exit code 0."""
    for name in ("unset-keys", "aliases"):
        file = ROOT / "tests/gateway/files" / f"{name}.yaml"
        code, out, err = run("--check-config", "--config", str(file), env={"OPENAI_API_KEY": "k", "ANTHROPIC_API_KEY": "k"})
        assert (code, "OK (" in out) == (0, True), err
        assert all(": warning: " in line for line in err.splitlines())


def test_the_command_prints_its_usage() -> None:
    done = subprocess.run([sys.executable, "-m", "tests.support.try_config"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "usage: bin/try-config FILE...\n")
