"""docs/operators.md says what is so: its commands run, its config serves, and its tables name what there is."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest

from bridge_worker.config import gateway_keys
from tests.conftest import Spawn
from tests.support.data import ROOT
from tests.support.pages import Block, blocks, run_block
from tests.support.upstream import Json, Upstream
from tests.support.worker import COMMAND

PAGE = blocks("docs/operators.md")
FILES = {block.name: block.text for block in PAGE if block.mark == "file" and block.name}
KEYS = {"OPENAI_API_KEY": "first-key-4711-abc", "ANTHROPIC_API_KEY": "second-key-0815-xyz"}
CLAUDE: Json = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-haiku-4-5-20251001",
    "content": [{"type": "text", "text": "Claude here"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 10, "output_tokens": 20},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "bin").mkdir()
    launcher = tmp_path / "bin" / "omni-bridge"
    variables = " ".join(f"{name}={key}" for name, key in KEYS.items())
    launcher.write_text(f'#!/bin/sh\n{variables} exec {" ".join(COMMAND)} "$@"\n')
    launcher.chmod(0o755)
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


RUNS = [(block, printed) for block, printed in itertools.pairwise(PAGE) if block.mark == "runs"]


@pytest.mark.parametrize(("block", "printed"), RUNS, ids=lambda block: str(block))
def test_a_command_of_the_page_prints_the_output_shown(block: Block, printed: Block, folder: Path, upstream: Upstream) -> None:
    assert printed.mark == "prints"
    assert run_block(block, folder, upstream) == printed.text


def test_the_config_of_the_page_serves_and_falls_back_as_described(upstream: Upstream, spawn: Spawn, folder: Path) -> None:
    upstream.script("gpt-4o-mini", status=503, body={"error": {"message": "down"}})
    upstream.script("claude-haiku-4-5", body=CLAUDE)
    bases = {"OPENAI_BASE_URL": upstream.base_url, "ANTHROPIC_API_BASE": upstream.base_url.removesuffix("/v1")}
    worker = spawn("--config", str(folder / "gateway.yaml"), env=KEYS | bases)
    result = worker.chat("chat")
    (shown,) = [json.loads(block.text) for block in PAGE if block.mark == "receipt"]
    assert without_times(result["receipt"]) == without_times(shown)
    assert (result["content"], result["cost_source"]) == ("Claude here", "price_map")
    assert result["cost_usd"] == pytest.approx(10 * 1e-6 + 20 * 5e-6)
    assert worker.stderr.count("general_settings.master_key") == 1


def test_the_config_of_the_page_serves_its_first_choice(upstream: Upstream, spawn: Spawn, folder: Path) -> None:
    bases = {"OPENAI_BASE_URL": upstream.base_url, "ANTHROPIC_API_BASE": upstream.refused_url}
    worker = spawn("--config", str(folder / "gateway.yaml"), env=KEYS | bases)
    receipt = worker.chat("chat", stream=True)["receipt"]
    assert (receipt["deployment"], receipt["fallback"], len(receipt["attempts"])) == ("openai-mini", False, 1)


def without_times(receipt: Json) -> Any:
    return receipt | {"attempts": [attempt | {"ms": 0.0} for attempt in receipt["attempts"]]}


def names(cell: str) -> set[str]:
    return set(re.findall(r"`(\w+)`", cell))


def test_the_page_describes_the_file_that_the_command_writes() -> None:
    page = (ROOT / "docs" / "operators.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"<!-- honoured -->\n\| .*\n\|[-| ]+\n((?:\|.*\n)+)", page)
    rows = {row[0].strip(): row[1:] for row in (line.strip("|").split("|") for line in table.strip().splitlines())}
    served, ignored = rows["`router_settings`"]
    assert names(served) <= gateway_keys.ROUTER.keys()
    assert names(ignored) <= gateway_keys.ROUTER_IGNORED
    served, ignored = rows["`litellm_settings`"]
    assert names(served) <= gateway_keys.LITELLM
    assert names(ignored) <= gateway_keys.LITELLM_IGNORED
    served, ignored = rows["`general_settings`"]
    known = gateway_keys.GENERAL_LITELLM | gateway_keys.GENERAL_ROUTER.keys()
    assert names(served) <= known
    assert not names(ignored) & known
    sections = {name for head in rows for name in names(head)}
    assert sections - gateway_keys.SERVER_SECTIONS == gateway_keys.SECTIONS - {"omni_bridge"}


def test_links_of_the_page_lead_to_files_that_exist() -> None:
    page = (ROOT / "docs" / "operators.md").read_text(encoding="utf-8")
    targets = [target for target in re.findall(r"\]\(([^)#]+)", page) if "://" not in target]
    assert targets
    assert [target for target in targets if not (ROOT / "docs" / target).exists()] == []
