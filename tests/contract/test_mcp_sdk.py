"""The worker as the official MCP SDKs see it: for Python in both eras, and for TypeScript. clients/rust/integrations has rmcp's."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.support import node
from tests.support.data import ROOT
from tests.support.upstream import End, Upstream, chunk
from tests.support.worker import COMMAND, clean_environment

SECONDS = 120.0


@pytest.fixture(scope="module")
def sdk() -> str:
    """The Python that has the SDK; made once, as .venv is."""
    make = [sys.executable, "-I", "bin/bootstrap.py", "--venv", ".venv-mcp", "--lock", "requirements-mcp.lock"]
    made = subprocess.run(make, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    return str(ROOT / ".venv-mcp" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python"))


@pytest.mark.rule("MCP-1", "MCP-2", "MCP-3", "MCP-5", "MCP-6", "MCP-7", "MCP-8", "MCP-9")
@pytest.mark.parametrize(("mode", "revision"), [("legacy", "2025-11-25"), ("2026-07-28", "2026-07-28"), ("auto", "2026-07-28")])
def test_the_official_client_works_in_both_eras(sdk: str, upstream: Upstream, mode: str, revision: str) -> None:
    upstream.script("hang-after-first", chunks=[chunk({"content": "first"}), End.HANG])
    environment = clean_environment() | {"OPENAI_API_KEY": "sk-secret-123", "OPENAI_BASE_URL": upstream.base_url}
    command = [sdk, "-I", str(ROOT / "tests" / "support" / "mcp_client.py"), mode, *COMMAND, "--stdio"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    saw = json.loads(done.stdout)
    assert saw["revision"] == revision
    if mode != revision:  # a client that knows the revision sends no request first
        assert saw["server"] == "omni-bridge"
        assert "tools" in saw["capabilities"]
    assert saw["tools"] == ["chat", "count_tokens", "list_models"]
    assert saw["chat"]["text"] == saw["chat"]["structured"]["content"] == "two words"
    assert saw["count"]["structured"] == {"input_tokens": 2, "tokenizer": "words", "exact": True}
    assert "offline/echo" in [model["model"] for model in saw["models"]["structured"]["models"]]
    assert saw["progress"] == [[1, "these"], [2, " are"], [3, " four"], [4, " words"]]
    assert saw["failed"]["failed"] is True
    assert "offline/nothing" in saw["failed"]["text"]
    assert saw["unknown"] == {"code": -32602}
    assert saw["cancelled"] is True
    upstream.wait_for_request("hang-after-first").wait_closed(timeout=30)
    assert saw["after"]["text"] == "still here"


@pytest.mark.rule("MCP-1", "MCP-5", "MCP-6", "MCP-7", "MCP-8", "MCP-9")
def test_the_official_client_for_typescript_works(upstream: Upstream) -> None:
    """It checks each result by the tool's schema."""
    upstream.script("hang-after-first", chunks=[chunk({"content": "first"}), End.HANG])
    environment = clean_environment() | {"OPENAI_API_KEY": "sk-secret-123", "OPENAI_BASE_URL": upstream.base_url}
    saw = json.loads(node.run_program("mcp_client.mjs", *COMMAND, "--stdio", environment=environment, seconds=SECONDS))
    assert saw["revision"] == "2025-11-25"
    assert saw["server"] == "omni-bridge"
    assert saw["capabilities"] == {"tools": {}}
    assert saw["tools"] == ["chat", "count_tokens", "list_models"]
    assert saw["chat"]["text"] == saw["chat"]["structured"]["content"] == "two words"
    assert saw["count"]["structured"] == {"input_tokens": 2, "tokenizer": "words", "exact": True}
    assert saw["progress"] == [[1, "first"]]  # this client drops progress that arrives in one read with the response
    assert saw["failed"]["failed"] is True
    assert "offline/nothing" in saw["failed"]["text"]
    assert saw["unknown"]["code"] == -32602
    assert saw["cancelled"] is True
    upstream.wait_for_request("hang-after-first").wait_closed(timeout=30)
    assert saw["after"]["text"] == "still here"
