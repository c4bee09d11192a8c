"""Requests with an idempotency key: joined in flight, repeated from memory and from the journal, with and without engines."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from bridge_worker.errors import BridgeError
from bridge_worker.protocol.session import Response, Start, error_response
from bridge_worker.runtime import once
from bridge_worker.runtime.dispatch import RunsInTasks, response_of
from bridge_worker.runtime.once import Kept, Once
from bridge_worker.runtime.once_journal import JournalError, SqliteJournal
from tests.conftest import Spawn
from tests.support.data import HELLO
from tests.support.upstream import Gate, Json, Upstream, chunk
from tests.support.worker import Worker


def environment(upstream: Upstream) -> dict[str, str]:
    return {"OPENAI_API_KEY": "sk-secret-123", "OPENAI_BASE_URL": upstream.base_url}


def params(model: str, key: str, **members: Any) -> Json:
    return {"model": model, "messages": HELLO, "idempotency_key": key, **members}


@pytest.mark.rule("IDM-1", "IDM-3")
@pytest.mark.parametrize("engines", [0, 1])
def test_a_repeated_request_joins_the_one_in_flight(upstream: Upstream, spawn: Spawn, engines: int) -> None:
    gate = Gate()
    upstream.script("slow", chunks=[chunk({"content": "one "}), gate, chunk({"content": "two"}), chunk({}, "stop")])
    worker = spawn(*(["--engines", str(engines)] if engines else []), env=environment(upstream))
    first = worker.request("chat", params("openai/slow", "k", stream=True))
    worker.wait_for_delta(first)
    second = worker.request("chat", params("openai/slow", "k", stream=True))
    worker.wait_for_delta(second)
    worker.notify("notifications/cancelled", {"requestId": first})
    assert worker.response(first)["error"]["data"]["kind"] == "cancelled"
    gate.set()
    assert worker.response(second)["result"]["content"] == "one two"
    assert "".join(delta["delta"]["content"] for delta in worker.deltas(second)) == "one two"
    third = worker.request("chat", params("openai/slow", "k", stream=True))
    assert worker.response(third)["result"]["content"] == "one two"
    assert [delta["seq"] for delta in worker.deltas(third)] == [0, 1]
    assert upstream.counts["slow"] == 1


@pytest.mark.rule("IDM-3", "IDM-4")
def test_the_last_cancel_stops_the_request_and_an_error_is_not_kept(upstream: Upstream, worker: Worker) -> None:
    id = worker.request("chat", params("openai/hang", "k"))
    upstream.wait_for_request("hang", timeout=60)
    worker.notify("notifications/cancelled", {"requestId": id})
    error = worker.response(id)["error"]
    assert error["data"]["upstream_closed"]
    assert "result" in worker.call("chat", params("openai/good", "k"))
    assert "error" in worker.call("chat", params("openai/status-500", "again"))
    assert "error" in worker.call("chat", params("openai/status-500", "again"))
    assert upstream.counts["status-500"] == 2


@pytest.mark.rule("IDM-5")
def test_a_result_survives_a_killed_worker_in_the_journal(upstream: Upstream, spawn: Spawn, tmp_path: Path) -> None:
    flags = ("--idempotency-journal", str(tmp_path / "results.db"))
    first = spawn(*flags, env=environment(upstream))
    result = first.call("chat", params("openai/good", "k"))["result"]
    os.kill(first.process.pid, signal.SIGKILL)
    second = spawn(*flags, env=environment(upstream))
    assert second.call("chat", params("openai/good", "k"))["result"] == result
    assert "error" in second.call("chat", params("openai/good", "k", seed=1))
    assert upstream.counts["good"] == 1
    assert (tmp_path / "results.db").stat().st_mode & 0o077 == 0


@pytest.mark.rule("IDM-5")
def test_a_file_that_is_not_a_journal_ends_the_worker_with_2(spawn: Spawn, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a database " * 100)
    worker = spawn("--idempotency-journal", str(tmp_path / "notes.txt"))
    assert worker.exit_code() == 2
    assert "idempotency_journal" in worker.stderr


class Counting(RunsInTasks):
    """A `Dispatch` that counts; a request fails when its params have ``fails``."""

    def __init__(self) -> None:
        self.runs = 0

    def state(self) -> Json:
        return {}

    async def ready(self) -> Json:
        return {}

    async def dispatch(self, start: Start, received: float, notify: Any) -> Response:
        self.runs += 1
        await asyncio.sleep(0)
        if start.params.get("fails"):
            return error_response(start.id, BridgeError("timeout", "late"))
        return {"jsonrpc": "2.0", "id": start.id, "result": {"run": self.runs, "size": "x" * int(str(start.params.get("size", 0)))}}


class Silent:
    async def lines(self, lines: list[bytes]) -> None:
        pass

    def relay(self, lines: bytes) -> None:
        pass


def dispatch(made: Once, key: str, **members: Any) -> Any:
    start = Start(1, "chat", {"idempotency_key": key, **members})
    return response_of(made, start, 0.0, Silent())  # type: ignore[arg-type]


@pytest.mark.rule("IDM-4")
def test_results_are_kept_for_a_time_and_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(once, "MAX_BYTES", 2_000)
    clock = [0.0]

    async def story() -> None:
        app = Counting()
        made = Once(app, clock=lambda: clock[0])
        for _ in range(3):
            await dispatch(made, "a")
        assert app.runs == 1
        clock[0] = 3_601.0
        await dispatch(made, "a")
        assert app.runs == 2
        await asyncio.gather(*(dispatch(made, "b", size=1_500) for _ in range(5)))
        assert app.runs == 3
        await dispatch(made, "c", size=1_500)  # "b" no longer fits
        await dispatch(made, "b", size=1_500)
        assert app.runs == 5
        await dispatch(made, "large", size=5_000)
        await dispatch(made, "large", size=5_000)
        assert app.runs == 7

    asyncio.run(story())


def test_the_journal_deletes_the_oldest_results(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("bridge_worker.runtime.once_journal.MAX_BYTES", 250)
    monkeypatch.setattr("bridge_worker.runtime.once_journal.time.time", lambda: 100.0)
    journal = SqliteJournal(str(tmp_path / "results.db"))
    for number in range(4):
        journal.store(("chat", f"k{number}"), Kept("f", {"n": number}, b"", 90.0 + number, 100))
    assert [journal.load(("chat", f"k{number}")) is not None for number in range(4)] == [False, False, True, True]


def test_a_journal_that_can_no_longer_be_written_is_a_line_of_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal = SqliteJournal(str(tmp_path / "results.db"))
    with sqlite3.connect(tmp_path / "results.db") as connection:
        connection.execute("DROP TABLE omni_bridge_results")
    journal.store(("chat", "k"), Kept("f", {}, b"", 0.0, 1))
    assert journal.load(("chat", "k")) is None
    assert "can't be written" in caplog.text
    with pytest.raises(JournalError, match="idempotency_journal"):
        SqliteJournal(str(tmp_path))
