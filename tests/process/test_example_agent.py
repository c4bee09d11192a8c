"""docs/agent.py records against a provider, and prints the same in a replay without LiteLLM and network."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.support import without_litellm
from tests.support.data import ROOT, Json
from tests.support.upstream import Upstream
from tests.support.upstream_format import DONE
from tests.support.worker import COMMAND, clean_environment


def agent(folder: Path, command: Sequence[str], *flags: str, **environment: str) -> str:
    """What the agent prints. ``command`` is what it finds as omni-bridge."""
    folder.mkdir()
    launcher = folder / "omni-bridge"
    launcher.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
    launcher.chmod(0o755)
    variables = clean_environment() | environment
    variables["PATH"] = f"{folder}:{variables['PATH']}"
    program = [sys.executable, str(ROOT / "docs/agent.py"), "openai/agent", *flags]
    done = subprocess.run(program, env=variables, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def chunk(delta: Json, reason: str | None = None) -> Json:
    return {"id": "c1", "model": "agent", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


def test_the_agent_of_the_page_replays_byte_identically_without_litellm_and_network(tmp_path: Path) -> None:
    file = str(tmp_path / "run.cassette")
    (tmp_path / "packages").mkdir()
    without = without_litellm.command(tmp_path / "packages")
    unshare = shutil.which("unshare")
    if unshare and subprocess.run([unshare, "-rn", "true"], check=False, capture_output=True).returncode == 0:
        without = (unshare, "-rn", *without)
    call = {"index": 0, "type": "function", "function": {"name": "square", "arguments": '{"n": 12}'}}  # without an id
    with Upstream() as upstream:
        upstream.script("agent", chunks=[chunk({"tool_calls": [call]}), chunk({}, "tool_calls"), DONE])
        upstream.script("agent", chunks=[chunk({"content": "It is "}), chunk({"content": "144 🦜"}), chunk({}, "stop"), DONE])
        keys = {"OPENAI_API_KEY": "sk-secret-123456", "OPENAI_BASE_URL": upstream.base_url}
        recorded = agent(tmp_path / "one", COMMAND, "--record", file, **keys)
        assert len(upstream.requests) == 2
    assert "144 🦜" in recorded
    assert agent(tmp_path / "two", without, "--replay", file) == recorded
    assert json.loads(Path(file).read_text().splitlines()[0])["cassette"] == 1
