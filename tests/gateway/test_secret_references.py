"""`command/...` and `os.keyring/...` in a config: secrets from where the operator keeps them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from bridge_worker.config import secret_references
from bridge_worker.config.secret_references import UNREAD, SecretReferences, Unreadable
from bridge_worker.config.source import Source
from tests.conftest import Spawn
from tests.support.gateway_config import write
from tests.support.upstream import Json, Upstream
from tests.support.worker import run

KEY = "key-of-the-vault-0123456789"


@pytest.fixture
def vault(tmp_path: Path) -> Path:
    """A program that writes the content of ``key``, counts its runs in ``runs``, and complains with the key on standard error."""
    (tmp_path / "key").write_text(f"{KEY}\n")
    program = tmp_path / "vault"
    program.write_text('#!/bin/sh\ncd "$(dirname "$0")"\necho run >> runs\ncat key >&2\n[ "$1" = fail ] && exit 3\ncat key\ncat\n')
    program.chmod(0o755)
    return program


def runs(vault: Path) -> int:
    file = vault.with_name("runs")
    return len(file.read_text().splitlines()) if file.exists() else 0


def config(upstream: Upstream, *keys: str) -> Json:
    params = {"model": "openai/good", "api_base": upstream.base_url}
    return {"model_list": [{"model_name": f"m{n}", "litellm_params": {**params, "api_key": key}} for n, key in enumerate(keys)]}


def reason(reference: str) -> str:
    with pytest.raises(Unreadable) as raised:
        SecretReferences(runs=True).get(reference)
    return str(raised.value)


@pytest.mark.rule("CFG-14")
def test_a_command_is_run_once_without_a_shell(vault: Path) -> None:
    references = SecretReferences(runs=True)
    assert references.get(f"command/{vault} a") == references.get(f"command/{vault} a") == KEY
    assert runs(vault) == 1
    assert references.get("command/echo $HOME 'two  words' ; true") == "$HOME two  words ; true"
    assert KEY in references.values()


@pytest.mark.rule("CFG-15")
def test_what_goes_wrong_is_named_without_the_output(vault: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert reason("command/no-such-program-here x") == "runs no-such-program-here, which is not on PATH"
    assert reason(f"command/{vault} fail").endswith("which ended with exit code 3")
    assert reason("command/true").endswith("which wrote nothing")
    assert reason("command/head -c 70000 /dev/zero").endswith("which wrote more than 64 KiB")
    assert "can't be split" in reason("command/a 'b")
    assert "without a program" in reason("command/ ")
    monkeypatch.setattr(secret_references, "SECONDS", 0.2)
    began = time.monotonic()
    assert "did not end" in reason("command/sh -c 'sleep 60; echo late'")
    assert time.monotonic() - began < 30
    assert KEY not in reason(f"command/{vault} fail")


@pytest.mark.rule("CFG-14", "CFG-15")
def test_the_keyring_is_read_by_the_systems_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "install libsecret-tools" in reason("os.keyring/openai")
    tool = tmp_path / "secret-tool"
    tool.write_text(f'#!/bin/sh\n[ "$1 $2 $3" = "lookup service openai" ] && echo {KEY}\n')
    tool.chmod(0o755)
    assert SecretReferences(runs=True).get("os.keyring/openai") == KEY
    assert "without a name" in reason("os.keyring/")


@pytest.mark.rule("CFG-15")
def test_nothing_is_run_to_look_at_a_config(vault: Path, upstream: Upstream, tmp_path: Path) -> None:
    file = str(write(tmp_path / "gateway.yaml", config(upstream, f"command/{vault}", "command/not-there")))
    read, errors = Source(file).read()
    assert not errors
    assert any("not-there, which is not on PATH" in warning for warning in read.warnings)
    assert UNREAD not in read.secrets
    code, _, stderr = run("--check-config", "--config", file)
    assert code == 0
    assert "runs not-there, which is not on PATH" in stderr
    code, printed, _ = run("--print-config", "--config", file)
    assert code == 0
    assert f"command/{vault}" in printed
    assert runs(vault) == 0


@pytest.mark.rule("CFG-15")
def test_nothing_is_run_from_a_config_that_others_can_write(vault: Path, upstream: Upstream, tmp_path: Path) -> None:
    file = write(tmp_path / "gateway.yaml", config(upstream, f"command/{vault}"))
    file.chmod(0o666)
    read = Source(str(file)).load()
    assert any("writable by all users" in warning and "not read" in warning for warning in read.warnings)
    assert runs(vault) == 0


@pytest.mark.rule("CFG-14", "CFG-15", "CFG-16")
def test_the_key_goes_to_the_provider_and_a_reload_reads_it_again(
    vault: Path, upstream: Upstream, tmp_path: Path, spawn: Spawn
) -> None:
    settings = config(upstream, f"command/{vault}", f"command/{vault} fail")
    file = write(tmp_path / "gateway.yaml", settings)
    worker = spawn("--config", str(file))
    assert "result" in worker.call("chat", {"model": "m0", "messages": [{"role": "user", "content": "hello"}]})
    assert upstream.requests[-1].headers["authorization"] == f"Bearer {KEY}"
    error = worker.call("chat", {"model": "m1", "messages": [{"role": "user", "content": "hello"}]})["error"]
    assert error["data"]["kind"] == "authentication"
    assert "exit code 3" in error["message"]
    assert runs(vault) == 2
    vault.with_name("key").write_text("another-key-0123456789")
    assert "result" in worker.call("config/reload")
    assert "result" in worker.call("chat", {"model": "m0", "messages": [{"role": "user", "content": "hello"}]})
    assert upstream.requests[-1].headers["authorization"] == "Bearer another-key-0123456789"
    assert runs(vault) == 4
    assert KEY not in worker.stderr
    assert os.path.basename(file) in worker.stderr  # the warning names the place
