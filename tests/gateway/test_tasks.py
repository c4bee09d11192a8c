"""Task budgets: sums over the requests of a task, the error before the limit, and what raises it."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest

from bridge_worker.budgets import tasks as tasks_module
from bridge_worker.budgets.tasks import MemoryTasks, TaskService
from tests.conftest import Spawn, WorkerFor
from tests.support.data import HELLO
from tests.support.gateway_config import deployment, write
from tests.support.upstream import Json, Upstream
from tests.support.worker import Worker, wait_until

PRICE = {"input_cost_per_token": 0.001, "output_cost_per_token": 0.01}
COST = 9 * 0.001 + 12 * 0.01  # of the usage that the upstream reports


def config_of(upstream: Upstream) -> Json:
    rows = [
        deployment(upstream, "priced", "priced", **PRICE),
        deployment(upstream, "unpriced", "unpriced"),
        deployment(upstream, "down", "status-500", **PRICE),
        deployment(upstream, "hangs", "hang", **PRICE),
    ]
    return {"model_list": rows, "router_settings": {"num_retries": 0, "disable_cooldowns": True}}


@pytest.fixture(scope="module")
def worker(upstream: Upstream, worker_for: WorkerFor) -> Worker:
    return worker_for(config=config_of(upstream))


def params(id: str, model: str = "priced", **limits: Any) -> Json:
    return {"model": model, "messages": HELLO, "max_tokens": 12, "task": {"id": id, **limits}}


def chat(worker: Worker, id: str, model: str = "priced", stream: bool = False, **limits: Any) -> Json:
    return worker.call("chat", params(id, model, **limits) | {"stream": stream})


def task(worker: Worker, id: str) -> Json:
    result: Json = worker.call("tasks/get", {"id": id})["result"]
    return result


@pytest.mark.rule("TSK-1", "TSK-3", "TSK-5")
def test_a_task_sums_its_requests_and_is_refused_before_its_limit(worker: Worker, upstream: Upstream, streamed: bool) -> None:
    id = f"sum-{streamed}"
    spent = 0.0
    refused: Json | None = None
    for _ in range(6):
        before = len(upstream.requests)
        response = chat(worker, id, stream=streamed, max_usd=0.6)
        if "error" in response:
            refused = response["error"]
            assert len(upstream.requests) == before
            break
        spent += response["result"]["cost_usd"]
    assert refused is not None
    assert refused["data"]["kind"] == "budget_exceeded"
    row = refused["data"]["task"]
    assert row["spent_usd"] == pytest.approx(spent)
    assert row["reserved_usd"] == 0
    assert row["estimate_usd"] > 0.12
    assert row["spent_usd"] + row["estimate_usd"] > row["max_usd"] == 0.6
    assert task(worker, id) == {name: value for name, value in row.items() if not name.startswith("estimate")}


@pytest.mark.rule("TSK-4")
def test_a_raised_task_continues(worker: Worker) -> None:
    assert "result" in chat(worker, "raised", max_requests=1)
    error = chat(worker, "raised", max_requests=1)["error"]
    assert error["data"]["task"]["spent_requests"] == 1
    assert worker.call("tasks/raise", {"id": "raised", "max_requests": 2})["result"]["max_requests"] == 2
    assert "result" in chat(worker, "raised", max_requests=1)  # an agent that sends what it sent at first
    assert chat(worker, "raised")["error"]["data"]["kind"] == "budget_exceeded"


@pytest.mark.rule("TSK-1")
def test_embeddings_count_in_a_task_too(worker: Worker) -> None:
    embed = {"model": "offline/embed", "input": "three short words", "task": {"id": "embeds", "max_tokens": 5}}
    assert "result" in worker.call("embed", embed)
    assert worker.call("embed", embed)["error"]["data"]["task"]["spent_tokens"] == 3


@pytest.mark.rule("TSK-1")
def test_tokens_are_a_limit_without_a_price(worker: Worker) -> None:
    assert "result" in chat(worker, "tokens", "unpriced", max_tokens=200)
    assert task(worker, "tokens")["spent_tokens"] == 21
    error = chat(worker, "usd", "unpriced", max_usd=5)["error"]
    assert error["data"]["kind"] == "budget_exceeded"
    assert "price" in error["message"]


@pytest.mark.rule("TSK-2")
@pytest.mark.parametrize(
    ("method", "members"),
    [
        ("chat", params("other", max_usd=2.0)),
        ("chat", params("", max_usd=2.0)),
        ("chat", params("x", max_usd=-1)),
        ("tasks/raise", {"id": "other", "max_usd": 0.5}),
        ("tasks/raise", {"id": "other", "max_tokens": 5}),
        ("tasks/raise", {"id": "other"}),
        ("tasks/raise", {"id": "never used", "max_usd": 1}),
        ("tasks/get", {"id": "never used"}),
        ("tasks/get", {}),
    ],
)
def test_a_wrong_member_is_an_invalid_request(worker: Worker, method: str, members: Json) -> None:
    chat(worker, "other", max_usd=1.0)
    assert worker.call(method, members)["error"]["data"]["kind"] == "invalid_request"


@pytest.mark.rule("TSK-3")
def test_a_request_that_was_not_charged_costs_nothing_and_a_cancelled_one_what_it_may_have(
    worker: Worker, upstream: Upstream
) -> None:
    assert "error" in chat(worker, "failed", "down", max_usd=1)
    assert task(worker, "failed")["spent_usd"] == 0
    id = worker.request("chat", params("failed", "hangs", max_usd=1))
    upstream.wait_for_request("hang")
    assert task(worker, "failed")["reserved_usd"] > 0.12
    assert chat(worker, "failed", max_usd=1)["result"]
    worker.notify("notifications/cancelled", {"requestId": id})
    assert worker.response(id)["error"]["data"]["kind"] == "cancelled"
    row = task(worker, "failed")
    assert (row["reserved_usd"], row["reserved_requests"]) == (0, 0)
    assert row["spent_usd"] > COST + 0.12


@pytest.mark.rule("TSK-5")
def test_a_task_survives_its_engine(upstream: Upstream, spawn: Spawn, tmp_path: Any) -> None:
    file = write(tmp_path / "gateway.yaml", config_of(upstream))
    worker = spawn("--config", str(file), "--engines", "1")
    assert "result" in chat(worker, "long", max_usd=1)
    before = task(worker, "long")
    assert before["spent_usd"] == pytest.approx(COST)
    id = worker.request("chat", params("long", "hangs", max_usd=1))
    upstream.wait_for_request("hang")
    engine = next(row for row in worker.call("status")["result"]["engines"] if row["state"] == "ready")
    os.kill(engine["pid"], signal.SIGKILL)
    assert worker.response(id)["error"]["data"]["kind"] == "engine_lost"
    wait_until(lambda: task(worker, "long")["reserved_requests"] == 0, "the lost request is settled")
    after = task(worker, "long")
    assert after["spent_requests"] == 2
    assert after["spent_usd"] > before["spent_usd"] + 0.12


def test_tasks_in_flight_are_not_forgotten_and_idle_ones_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks_module, "MAX_TASKS", 3)

    async def story() -> None:
        tasks = MemoryTasks()
        for number in range(6):
            await tasks.reserve(f"h{number}", f"t{number}", {"max_requests": 1}, 0.1, 5)
            if number != 0:
                await tasks.settle(f"h{number}", f"t{number}", 0.1, 5, 1)
        rows = [await tasks.get(f"t{number}") for number in range(6)]
        assert [row is not None for row in rows] == [True, False, False, False, True, True]

    asyncio.run(story())


def test_an_unknown_call_of_an_engine_is_an_error() -> None:
    with pytest.raises(ValueError, match="unknown call"):
        asyncio.run(TaskService().serve(1, {"name": "task/spend"}))
