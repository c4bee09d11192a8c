"""The tests' own fork server: which workers it forks, and that each is a process with its own directory, input and exit code."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.fork_server import ForkServer
from tests.support.worker import WAIT_SECONDS, clean_environment, wait_until

PING = b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n'


def test_a_forked_worker_has_its_own_directory_input_and_exit_code(
    fork_server: ForkServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = clean_environment()
    assert fork_server.can_fork(environment)
    monkeypatch.chdir(tmp_path)
    worker = fork_server.fork(["--stdio"], environment)
    wait_until(lambda: os.readlink(f"/proc/{worker.pid}/cwd") == str(tmp_path), "it is in the directory")
    assert worker.communicate(PING, WAIT_SECONDS) == (b'{"jsonrpc":"2.0","id":1,"result":{}}\n', b"")
    assert worker.wait() == 0
    refused = fork_server.fork(["--stdio", "--max-in-flight=x"], environment | {"OMNI_BRIDGE_LOG_LEVEL": "info"})
    assert b"max-in-flight" in refused.communicate(b"", WAIT_SECONDS)[1]
    assert refused.wait() == 2


@pytest.mark.parametrize("name", ["LITELLM_MODE", "OMNI_BRIDGE_EAGER", "SSL_CERT_FILE", "AIOHTTP_TRUST_ENV", "HOME", "PYTHONUTF8"])
def test_a_worker_with_another_value_of_what_the_import_reads_is_not_forked(fork_server: ForkServer, name: str) -> None:
    assert not fork_server.can_fork(clean_environment() | {name: "another"})


def test_a_worker_with_keys_addresses_proxies_and_settings_is_forked(fork_server: ForkServer) -> None:
    names = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_API_BASE", "HTTPS_PROXY", "OMNI_BRIDGE_ENGINES", "SOME_VARIABLE")
    assert fork_server.can_fork(clean_environment() | dict.fromkeys(names, "another"))
