"""Rules of protocol.md that belong to no other test file."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge_worker.schema import messages
from tests.support.upstream import Upstream
from tests.support.worker import WAIT_SECONDS, Worker, run


@pytest.mark.rule("OFF-1")
def test_an_offline_chat_imports_no_litellm() -> None:
    program = (
        "import sys, bridge_worker\n"
        "bridge_worker.chat([{'role': 'user', 'content': 'hi'}], 'offline/echo')\n"
        "print('litellm' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, timeout=WAIT_SECONDS, check=False)
    assert (done.stdout, done.stderr) == ("False\n", "")


@pytest.mark.rule("VER-1")
def test_every_reference_in_the_schema_leads_somewhere_and_every_type_is_referred_to() -> None:
    schema: Any = messages.json_schema()
    assert set(re.findall(r'"#/\$defs/(\w+)"', json.dumps(schema))) == schema["$defs"].keys()


@pytest.mark.rule("EXT-4", "ERR-7")
def test_a_fault_of_the_bridge_itself_ends_with_70_and_a_log_line() -> None:
    program = (
        "from bridge_worker.cli import main as cli\nfrom bridge_worker.runtime import startup as serve\n"
        "async def run(self): raise RuntimeError('unheard of')\n"
        "serve.Server.run = run\n"
        "cli.main(['--stdio'])"
    )
    code, printed, log = run(command=(sys.executable, "-I", "-c", program))
    assert (code, printed) == (70, "")
    assert "unheard of" in json.loads(log.splitlines()[-1])["exception"]


KEY = "sk-secret-123"


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def worker(upstream: Upstream) -> Iterator[Worker]:
    """One for all of this file: LiteLLM is imported once."""
    with Worker(env={"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": upstream.base_url}) as worker:
        yield worker


@pytest.mark.rule("ERR-5", "ERR-6")
@pytest.mark.parametrize(
    ("said", "left"),
    [
        (f"Incorrect API key provided: {KEY}. Try another.", "Try another"),
        (f"Authorization: Bearer {KEY}", "Authorization"),
        ("No such model.\nTraceback (most recent call last):\n  File '/srv/app/main.py', line 7", "No such model."),
        ("can't open /home/someone/.config/gateway/keys.json", "can't open"),
        ("wrong " * 10_000, "wrong wrong"),
    ],
)
def test_what_a_provider_says_is_cleaned_before_it_is_told(worker: Worker, upstream: Upstream, said: str, left: str) -> None:
    model = f"says-{hash(said)}"
    upstream.script(model, body={"error": {"message": said}}, status=400)
    error = worker.call("chat", {"model": f"openai/{model}", "messages": [{"role": "user", "content": "hi"}]})["error"]
    assert left in error["message"]
    assert not [secret for secret in (KEY, "Traceback", "/srv", "/home/someone") if secret in error["message"]]
    assert len(error["message"].encode()) <= 2048


@pytest.mark.rule("CFG-3")
def test_sections_of_the_config_without_effect_are_named_in_one_warning(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        "model_list: [{model_name: a, litellm_params: {model: openai/a}}]\n"
        "general_settings: {master_key: sk-1}\nlitellm_settings: {json_logs: true}\n"
    )
    code, _, log = run("--stdio", "--config", str(config))
    (line,) = [json.loads(line) for line in log.splitlines()]
    assert (code, line["level"]) == (0, "warning")
    assert "litellm_settings.json_logs, general_settings.master_key" in line["message"]
