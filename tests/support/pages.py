"""The code blocks of the pages, and a runner for them."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support.data import ROOT
from tests.support.upstream import Upstream
from tests.support.worker import WAIT_SECONDS, clean_environment

BUILD_SECONDS = 600.0  # the Rust crate's dependencies, once
_BLOCK = re.compile(r"(?:^<!-- (?P<mark>[a-z]+)(?:: (?P<name>\S+))? -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    mark: str | None
    name: str | None
    language: str
    text: str
    page: str
    line: int

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(file: str) -> list[Block]:
    text = (ROOT / file).read_text(encoding="utf-8")
    return [Block(**found.groupdict(), page=file, line=text.count("\n", 0, found.start()) + 1) for found in _BLOCK.finditer(text)]


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
    bound = BUILD_SECONDS if "cargo" in block.text else WAIT_SECONDS
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=bound, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert not done.stderr, done.stderr.decode()
    return done.stdout.decode()
