"""Fault cards in a real worker: counts over engine processes, a lost engine, cards that can't be read, a reload."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Spawn
from tests.support.data import Json
from tests.support.worker import COMMAND, Worker, clean_environment

HELLO = {"model": "offline/echo", "messages": [{"role": "user", "content": "hello there"}]}


def outcome(worker: Worker, **params: object) -> str:
    response = worker.call("chat", {**HELLO, **params})
    kind: str = response["error"]["data"]["kind"] if "error" in response else "ok"
    return kind


@pytest.mark.rule("FLT-2", "FLT-3")
@pytest.mark.parametrize("engines", ["0", "2"])
def test_a_card_counts_the_requests_of_the_worker_whatever_engine_serves_them(engines: str, spawn: Spawn) -> None:
    cards = [
        {"match": {"nth": [2, 5]}, "do": {"status": 429, "retry_after": 3}},
        {"match": {"nth": 4}, "do": {"engine_lost": True}},
    ]
    worker = spawn("--faults", json.dumps(cards), "--engines", engines)
    seen = [outcome(worker) for _ in range(6)]
    assert seen == ["ok", "rate_limited", "ok", "engine_lost", "rate_limited", "ok"]


@pytest.mark.rule("FLT-2", "FLT-3", "FLT-4")
def test_embeddings_rankings_and_token_counts_meet_the_same_cards(spawn: Spawn) -> None:
    calls: dict[str, Json] = {
        "embed": {"model": "offline/embed", "input": ["a"]},
        "rerank": {"model": "offline/rerank", "query": "a", "documents": ["a", "b"]},
        "tokens/count": HELLO,
    }
    actions: list[tuple[Json, str]] = [
        ({"status": 429, "retry_after": 3}, "rate_limited"),
        ({"cut": True}, "provider_unavailable"),
        ({"broken_json": True}, "bad_upstream_response"),
        ({"stall_ms": 1}, "ok"),
        ({"engine_lost": True}, "engine_lost"),
    ]
    cards = [
        {"match": {"method": method, "nth": at}, "do": do, "sees": sees, "name": f"{method} {at}"}
        for method in calls
        for at, (do, sees) in enumerate(actions, 1)
    ]
    worker = spawn("--faults", json.dumps(cards), "--engines", "0")
    for method, params in calls.items():
        responses = [worker.call(method, params) for _ in range(len(actions) + 1)]
        errors = [response.get("error") for response in responses]
        assert [error["data"]["kind"] if error else "ok" for error in errors] == [*(sees for _, sees in actions), "ok"]
        assert errors[0]["data"]["retry_after_ms"] == 3000
        assert all(f"{method} {at}" in error["message"] for at, error in enumerate(errors, 1) if error and at in (1, 2, 5))


@pytest.mark.rule("FLT-5")
@pytest.mark.parametrize(
    ("card", "problem"),
    [
        ("{do: {status: 9}}", "[0].do.status: must be an HTTP status"),
        ("{do: {cut: true}, sees: timeout}", "[0].sees: an agent sees"),
    ],
)
def test_a_wrong_card_ends_the_start_with_the_member(card: str, problem: str, tmp_path: Path) -> None:
    file = tmp_path / "cards.yaml"
    file.write_text(f"faults: [{card}]")
    command = [*COMMAND, "--stdio", "--faults", str(file)]
    ended = subprocess.run(command, input=b"", capture_output=True, env=clean_environment(), timeout=60, check=False)
    assert ended.returncode == 2
    assert f"--faults: omni_bridge.faults{problem}" in ended.stderr.decode()


def test_a_reload_replaces_the_cards(spawn: Spawn, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"

    def write(cards: list[Json]) -> None:
        file.write_text(json.dumps({"omni_bridge": {"faults": cards}}))
        file.chmod(0o600)

    write([])
    worker = spawn("--config", str(file))
    assert outcome(worker) == "ok"
    write([{"do": {"status": 503}}])
    assert worker.call("config/reload")["result"]["settings"] == ["omni_bridge.faults"]
    assert outcome(worker) == "provider_unavailable"
    worker.process.send_signal(signal.SIGTERM)
    assert worker.exit_code() == 0
