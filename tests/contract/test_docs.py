"""README.md, docs/ and protocol.md are true: their examples run, and what is generated from the code is up to date.

A code block that follows `<!-- runs -->` is run as it stands, in a folder of its own where bin/omni-bridge is this worker; what
`<!-- prints -->` announces must be its output, but for times. `<!-- file: NAME -->` puts a file there.
"""

from __future__ import annotations

import itertools
import json
import re
import shlex
import shutil
import subprocess
import sys
import xml.etree.ElementTree
from pathlib import Path
from typing import Any

import pytest

from bin import terminal_image
from tests.conftest import Spawn
from tests.support.data import ROOT
from tests.support.pages import BUILD_SECONDS, Block, blocks, run_block
from tests.support.programs import program
from tests.support.transcripts import difference, parse, play
from tests.support.upstream import Upstream
from tests.support.worker import COMMAND, clean_environment

FIRST_COMMAND = (
    """echo '{"jsonrpc":"2.0","id":1,"method":"chat","params":{"model":"offline/echo","messages":"""
    """[{"role":"user","content":"hello"}]}}' | bin/omni-bridge --stdio"""
)
INTERACTIVE = ("bin/omni-bridge chat", "PATH=$PWD/bin:$PATH cargo run")
IMAGE = ROOT / "docs" / "first-five-minutes.svg"
_RUNNERS = {"sh", "rust", "python"}
LINKED_FROM_A_PAGE = {"matrix.md", "hosts.md"}


# docs/operators.md and docs/fleet.md have tests of their own, with the providers and the Redis that they speak of.
PAGES = [
    "README.md",
    *(f"docs/{name}.md" for name in ("configuration", "local-models", "log", "trace", "without-the-crate", "agents")),
]
README = blocks("README.md")
BLOCKS = [block for page in PAGES for block in blocks(page)]
RUNNABLE = [block for block in BLOCKS if block.mark == "runs"]
PRINTED = dict(itertools.pairwise(BLOCKS))  # what follows a block


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.mark == "example"], ids=str)
def test_an_example_in_the_readme_is_the_one_that_is_compiled(block: Block) -> None:
    assert block.name is not None
    assert block.text == (ROOT / block.name).read_text(encoding="utf-8"), f"README.md shows another {block.name}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a reader has before them: bin/omni-bridge, and the files that README.md shows."""
    (tmp_path / "bin").mkdir()
    launcher = tmp_path / "bin" / "omni-bridge"
    launcher.write_text(f'#!/bin/sh\nexec {shlex.join(COMMAND)} "$@"\n')
    launcher.chmod(0o755)
    (tmp_path / "clients").symlink_to(ROOT / "clients")
    shutil.copy(ROOT / "README.md", tmp_path)
    for block in README:
        if block.mark == "file" and block.name:
            (tmp_path / block.name).write_text(block.text, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("block", RUNNABLE, ids=str)
def test_the_readme_examples_run_and_print_the_output_shown(block: Block, folder: Path, upstream: Upstream) -> None:
    needed = "rustc" if block.language == "rust" else "cargo" if "cargo" in block.text else "sh"
    program(needed)
    printed = run_block(block, folder, upstream)
    expected = PRINTED.get(block)
    if "demo" in block.text:  # its output is held by test_demo
        assert "Next steps" in printed
    elif block.text.startswith(INTERACTIVE):
        assert len(printed.split()) > 5  # words of a real model
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


def test_the_readme_begins_with_the_rust_agent_and_then_the_first_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 220
    beginning = "\n".join(text.splitlines()[:60])
    for step in ("Bridge::spawn()", "bridge.chat(", "chat_stream(", ".tool(", ".cancel()"):
        assert step in beginning
    assert [block.text for block in RUNNABLE[:2]] == ["bin/omni-bridge demo\n", FIRST_COMMAND + "\n"]


def test_the_readme_leads_to_each_page_once() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for page in sorted((ROOT / "docs").glob("*.md")):
        assert text.count(f"](docs/{page.name})") == 1 or page.name in LINKED_FROM_A_PAGE, page.name


def test_each_language_of_the_pages_is_run() -> None:
    assert {block.language for block in RUNNABLE} == _RUNNERS
    assert not [block for block in BLOCKS if block.language in _RUNNERS and block.mark not in ("runs", "example")], (
        "mark it <!-- runs -->"
    )


def words_of(file: Path) -> str:
    """The words in it. rich writes a space as one that does not break, and folds at the terminal's width."""
    texts = xml.etree.ElementTree.parse(file).getroot().iter("{http://www.w3.org/2000/svg}text")
    return re.sub(r"\s", "", "".join("".join(text.itertext()) for text in texts))


def test_the_image_is_generated_and_shows_the_commands_of_the_readme(folder: Path) -> None:
    program("cargo")
    new = folder / "new.svg"
    make = [sys.executable, "bin/terminal_image.py", "--in", str(folder), "--out", str(new)]
    subprocess.run(make, cwd=ROOT, check=True, capture_output=True, env=clean_environment(), timeout=BUILD_SECONDS)
    old = words_of(IMAGE)
    assert "://" not in IMAGE.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")  # it fetches nothing
    lines = {line for block in RUNNABLE for line in block.text.splitlines()}
    for command in terminal_image.COMMANDS:
        assert command in lines, "README.md and bin/terminal_image.py show different commands"
        for words in (old, words_of(new)):
            assert re.sub(r"\s", "", command) in words, "make docs/first-five-minutes.svg again: bin/terminal_image.py"


EXAMPLES = [block for block in blocks("protocol.md") if block.language == "jsonl"]


@pytest.mark.parametrize("block", EXAMPLES, ids=str)
def test_the_protocol_examples_are_what_the_worker_sends(block: Block, spawn: Spawn) -> None:
    transcript = parse(block.text)
    play(transcript, spawn(*transcript.flags))


def test_generated_parts_are_up_to_date() -> None:
    done = subprocess.run([sys.executable, "bin/generate.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_outdated_generated_part_is_reported_with_the_command_that_updates_it(tmp_path: Path) -> None:
    for folder in ("bin", "bridge_worker", "docs", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", ".node"))
    for file in ("protocol.md",):
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


@pytest.mark.parametrize("page", sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]), ids=lambda page: page.name)
def test_links_lead_to_files_that_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = [target for target in re.findall(r"\]\(([^)#]+)", text) if "://" not in target]
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_each_file_that_the_architecture_names_exists() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    paths = set(re.findall(r"`([a-z_./]+/[a-z_./]*)`", text)) - {"notifications/cancelled"}
    assert len(paths) > 30
    assert [path for path in sorted(paths) if not ((ROOT / "bridge_worker" / path).exists() or (ROOT / path).exists())] == []
