"""README.md and protocol.md say what is so: their examples run, and what is made from the code is up to date.

A code block that follows `<!-- runs -->` is run as it stands, in a folder of its own where bin/omni-bridge is this worker; what
`<!-- prints -->` announces must be its output, but for times. `<!-- file: NAME -->` puts a file there.
"""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Spawn
from tests.transcripts import difference, parse, play
from tests.upstream import Upstream
from tests.worker import COMMAND, WAIT_SECONDS, clean_environment

ROOT = Path(__file__).parent.parent
FIRST_COMMAND = (
    """echo '{"jsonrpc":"2.0","id":1,"method":"chat","params":{"model":"offline/echo","messages":"""
    """[{"role":"user","content":"hello"}]}}' | bin/omni-bridge --stdio"""
)
_BLOCK = re.compile(r"(?:^<!-- (?P<mark>[a-z]+)(?:: (?P<name>\S+))? -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)
_RUNNERS = {"sh", "rust", "python"}


@dataclass(frozen=True)
class Block:
    mark: str | None
    name: str | None
    language: str
    text: str
    line: int

    def __str__(self) -> str:
        return f"{self.language}-line-{self.line}"


def blocks(file: str) -> list[Block]:
    text = (ROOT / file).read_text(encoding="utf-8")
    return [Block(**found.groupdict(), line=text.count("\n", 0, found.start()) + 1) for found in _BLOCK.finditer(text)]


README = blocks("README.md")
RUNNABLE = [block for block in README if block.mark == "runs"]
PRINTED = dict(itertools.pairwise(README))  # what follows a block


@pytest.mark.parametrize("block", [block for block in README if block.mark == "example"], ids=str)
def test_an_example_in_the_readme_is_the_one_that_is_compiled(block: Block) -> None:
    assert block.name is not None
    assert block.text == (ROOT / block.name).read_text(encoding="utf-8"), f"README.md shows another {block.name}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a reader has before them: bin/omni-bridge, and the files that README.md shows."""
    (tmp_path / "bin").mkdir()
    launcher = tmp_path / "bin" / "omni-bridge"
    launcher.write_text(f'#!/bin/sh\nexec {" ".join(COMMAND)} "$@"\n')
    launcher.chmod(0o755)
    for block in README:
        if block.mark == "file" and block.name:
            (tmp_path / block.name).write_text(block.text, encoding="utf-8")
    return tmp_path


def run_block(block: Block, folder: Path, upstream: Upstream) -> str:
    """Its output. Fails the test when it ends badly."""
    if block.language == "rust":
        (folder / "main.rs").write_text(block.text, encoding="utf-8")
        compiled = subprocess.run(
            ["rustc", "--edition=2021", "-o", "program", "main.rs"], cwd=folder, capture_output=True, check=False
        )
        assert compiled.returncode == 0, compiled.stderr.decode()
        command = ["./program"]
    else:
        command = ["sh", "-ec", block.text] if block.language == "sh" else [sys.executable, "-I", "-c", block.text]
    environment = clean_environment() | {"OPENAI_BASE_URL": upstream.base_url, "OPENAI_API_KEY": "sk-test"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=WAIT_SECONDS, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert not done.stderr, done.stderr.decode()
    return done.stdout.decode()


@pytest.mark.parametrize("block", RUNNABLE, ids=str)
def test_the_readme_examples_run_and_print_what_it_says(block: Block, folder: Path, upstream: Upstream) -> None:
    if block.language == "rust" and not shutil.which("rustc"):
        pytest.skip("no rustc on this machine")
    printed = run_block(block, folder, upstream)
    expected = PRINTED.get(block)
    if "demo" in block.text:  # its output is held by test_demo
        assert "What to try next" in printed
    elif expected is None or expected.mark != "prints":
        assert all("result" in json.loads(line) for line in printed.splitlines()), printed
        assert printed
    elif expected.language == "json":
        assert_same_lines(expected.text, printed)
    else:
        assert printed == expected.text


def assert_same_lines(expected: str, printed: str) -> None:
    wanted, got = ([json.loads(line) for line in text.splitlines()] for text in (expected, printed))
    assert difference([timeless(line) for line in wanted], got) is None, difference([timeless(line) for line in wanted], got)
    for line, other in zip(expected.splitlines(), printed.splitlines(), strict=True):  # members in the same order, too
        assert list(json.loads(line)) == list(json.loads(other))


def timeless(value: Any) -> Any:
    """With wildcards in place of clock readings."""
    if not isinstance(value, dict):
        return value
    return {
        name: "«number»"
        if (name.endswith("_ms") or name == "ms") and member is not None
        else "«string»"
        if name == "time"
        else timeless(member)
        for name, member in value.items()
    }


def test_the_readme_begins_with_the_first_commands() -> None:
    assert [block.text for block in RUNNABLE[:2]] == ["bin/omni-bridge demo\n", FIRST_COMMAND + "\n"]


def test_each_language_of_the_readme_is_run() -> None:
    assert {block.language for block in RUNNABLE} == _RUNNERS
    assert not [block for block in README if block.language in _RUNNERS and block.mark not in ("runs", "example")], (
        "mark it <!-- runs -->"
    )


EXAMPLES = [block for block in blocks("protocol.md") if block.language == "jsonl"]


@pytest.mark.parametrize("block", EXAMPLES, ids=str)
def test_the_protocol_examples_are_what_the_worker_says(block: Block, spawn: Spawn) -> None:
    transcript = parse(block.text)
    play(transcript, spawn(*transcript.flags))


def test_generated_parts_are_up_to_date() -> None:
    done = subprocess.run([sys.executable, "bin/generate.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_drifted_part_is_told_with_the_command_that_mends_it(tmp_path: Path) -> None:
    for folder in ("bin", "bridge_worker", "docs", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", ".node"))
    for file in ("README.md", "protocol.md"):
        text = (ROOT / file).read_text(encoding="utf-8")
        (tmp_path / file).write_text(
            text.replace("| -32800 | `cancelled` | no |", "| -32800 | `cancelled` | maybe |"), encoding="utf-8"
        )
    check = [sys.executable, "bin/generate.py", "--check"]
    drifted = subprocess.run(check, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert drifted.returncode == 1
    assert "protocol.md: errors has drifted" in drifted.stdout
    assert "bin/generate.py" in drifted.stdout
    subprocess.run([sys.executable, "bin/generate.py"], cwd=tmp_path, capture_output=True, check=True)
    assert (tmp_path / "protocol.md").read_bytes() == (ROOT / "protocol.md").read_bytes()


@pytest.mark.parametrize("file", ["README.md", "protocol.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_lead_to_files_that_exist(file: str) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    targets = [target for target in re.findall(r"\]\(([^)#]+)", text) if "://" not in target]
    assert [target for target in targets if not (ROOT / target).exists()] == []
