"""A fleet: eight workers on four machines (network namespaces, where the machine allows it), with one Redis and one provider."""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.data import HELLO, ROOT
from tests.support.gateway_config import deployment, write
from tests.support.namespaces import Hosts, NotPermitted
from tests.support.redis_server import PASSWORD, RedisServer
from tests.support.upstream import Json, Upstream
from tests.support.worker import COMMAND, WAIT_SECONDS, Worker, wait_until

WORKERS, MACHINES = 8, 4
LOAD_SECONDS = 120.0  # two at once, on a machine that has much else to do
RPM = 10
COST = 9 * 0.001 + 12 * 0.01  # of what the upstream says it used
LIMIT = 4.0
HELD = 20.0


class Fleet(NamedTuple):
    workers: Sequence[Worker]
    upstream: Upstream
    redis: RedisServer
    hosts: Hosts | None


def config_of(upstream: Upstream, redis: RedisServer) -> Json:
    price = {"input_cost_per_token": 0.001, "output_cost_per_token": 0.01}
    return {
        "model_list": [
            *(deployment(upstream, f"limited-{at}", f"limited-{at}", rpm=RPM) for at in range(8)),
            deployment(upstream, "priced", "priced", **price),
            deployment(upstream, "tired", "retry-after-7"),
            deployment(upstream, "tired", "retry-after-8"),
        ],
        "router_settings": {"routing_strategy": "usage-based-routing-v2", "num_retries": 0, **redis.settings},
        "omni_bridge": {
            "budgets": [
                {"path": "crowd", "max_usd": LIMIT, "window": "30d"},
                {"path": "words", "max_tokens": 100_000},
                {"path": "alone", "max_usd": HELD},
            ]
        },
    }


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Machine 0 has Redis and the provider, the others the workers."""
    with ExitStack() as stack:
        try:
            hosts: Hosts | None = stack.enter_context(Hosts(1 + MACHINES))
        except NotPermitted:
            hosts = None
        redis = stack.enter_context(RedisServer(hosts.address(0), hosts.command(0)) if hosts else RedisServer())
        upstream = stack.enter_context(Upstream(hosts.listener(0) if hosts else None))
        path = write(tmp_path_factory.mktemp("fleet") / "fleet.yaml", config_of(upstream, redis))
        machines = [hosts.command(1 + number % MACHINES) if hosts else () for number in range(WORKERS)]
        flags = ("--config", str(path), "--max-in-flight", "1000")
        workers: list[Worker] = []
        for pair in zip(machines[::2], machines[1::2], strict=True):  # loading LiteLLM takes a core for 2.5 s
            workers += [stack.enter_context(Worker(*flags, command=(*machine, *COMMAND))) for machine in pair]
            for worker in workers[-2:]:
                wait_until(partial(ready, worker), "it has loaded LiteLLM", LOAD_SECONDS)
                worker.chat("priced", max_tokens=12)
        yield Fleet(workers, upstream, redis, hosts)


def ready(worker: Worker) -> bool:
    return bool(worker.call("status")["result"]["engine"]["ready"])


def chat_params(model: str, path: str = "nobody", **params: Any) -> Json:
    return {"model": model, "messages": HELLO, "max_tokens": 12, "metadata": {"budget": path}, **params}


def all_at_once(workers: Sequence[Worker], times: int, params: Json) -> list[Json]:
    """The answers to so many chats of each worker, all sent before one is awaited."""
    together = threading.Barrier(len(workers))
    sent: list[tuple[Worker, int | str]] = []

    def send(worker: Worker) -> None:
        together.wait(WAIT_SECONDS)
        sent.extend((worker, worker.request("chat", params)) for _ in range(times))

    threads = [threading.Thread(target=send, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [worker.response(id) for worker, id in sent]


def kinds(responses: Sequence[Json]) -> set[str]:
    return {response["error"]["data"]["kind"] for response in responses if "error" in response}


def states(fleet: Fleet) -> set[str]:
    return {worker.call("status")["result"]["redis"]["state"] for worker in fleet.workers}


def used(worker: Worker, path: str) -> float:
    """Of what money is counted in: billionths are exact."""
    return round(float(worker.call("budgets/get", {"path": path})["result"]["budgets"][-1]["used_usd"]), 9)


# --- what is shared -------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("STA-3")
def test_each_worker_reports_that_redis_is_connected(fleet: Fleet) -> None:
    assert states(fleet) == {"connected"}
    assert {worker.stderr for worker in fleet.workers} == {""}


def test_the_workers_are_on_different_machines(fleet: Fleet) -> None:
    if fleet.hosts is None:
        pytest.skip("this machine does not let us make network namespaces; all workers are on one")
    networks = {os.readlink(f"/proc/{worker.process.pid}/ns/net") for worker in fleet.workers}
    assert len(networks) == MACHINES
    assert os.readlink("/proc/self/ns/net") not in networks


@pytest.mark.rule("BUD-4", "BUD-10")
def test_budgets_are_exact_for_simultaneous_requests_of_all_workers(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    before = fleet.upstream.counts["priced"]
    responses = all_at_once(fleet.workers, 20, chat_params("priced", "crowd/rush"))
    while (more := all_at_once(fleet.workers[:1], 1, chat_params("priced", "crowd/rush"))) and "result" in more[0]:
        responses += more
    served = fleet.upstream.counts["priced"] - before
    assert served == sum("result" in response for response in responses)
    assert kinds([*responses, *more]) == {"budget_exceeded"}
    assert served * COST <= LIMIT
    assert {used(worker, "crowd") for worker in fleet.workers} == {round(served * COST, 9)}
    with capsys.disabled():
        sys.stdout.write(
            f"\nbudget of {LIMIT} USD, {len(responses)} chats of {COST} USD: {served} served, {served * COST:.3f} USD\n"
        )


def test_a_cooldown_of_one_worker_is_one_of_all(fleet: Fleet) -> None:
    first, *others = fleet.workers
    looked = time.monotonic()  # or earlier; a Router that has looked in Redis takes what it saw for a second
    wait_until(lambda: time.monotonic() - looked > 1, "a second has passed")
    assert kinds([first.call("chat", chat_params("tired")) for _ in range(2)]) == {"rate_limited"}
    requests = fleet.upstream.counts["retry-after-7"] + fleet.upstream.counts["retry-after-8"]
    assert requests == 2
    responses = [worker.call("chat", chat_params("tired")) for worker in others]
    assert kinds(responses) == {"rate_limited"}
    assert [response["error"]["data"]["receipt"]["attempts"] for response in responses] == [[]] * len(others)
    assert fleet.upstream.counts["retry-after-7"] + fleet.upstream.counts["retry-after-8"] == requests


@pytest.mark.rule("CFG-13")
def test_rpm_is_exact_over_all_workers_also_for_a_burst(fleet: Fleet) -> None:
    deployments = iter(range(8))

    def served_of(send: Any) -> int:
        while True:  # LiteLLM's minute is the clock's: what was sent in two is sent again
            model, minute = f"limited-{next(deployments)}", time.time() // 60
            send(model)
            if time.time() // 60 == minute:
                return fleet.upstream.counts[model]

    def one_after_the_other(model: str) -> None:
        for number in range(5 * WORKERS):
            fleet.workers[number % WORKERS].call("chat", chat_params(model))

    slow = served_of(one_after_the_other)
    burst = served_of(lambda model: all_at_once(fleet.workers, 2 * RPM, chat_params(model)))
    assert (slow, burst) == (RPM, RPM)


# --- without Redis --------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("BUD-11", "STA-3")
def test_when_redis_is_lost_each_worker_continues_alone_and_reconnects(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    fleet.redis.stop()
    began = time.monotonic()
    first = fleet.workers[0].chat("priced", max_tokens=12, metadata={"budget": "alone"})
    waited = time.monotonic() - began
    wait_until(lambda: states(fleet) == {"lost"}, "all have noticed that Redis is lost")
    for worker in fleet.workers:
        assert worker.chat("priced", max_tokens=12, metadata={"budget": "alone"})["cost_usd"] == pytest.approx(COST)
        assert worker.chat("limited-7", max_tokens=12)["finish_reason"] == "stop"
        assert worker.stderr.count("Redis can't be reached") == 1
    fleet.redis.start()
    wait_until(lambda: states(fleet) == {"connected"}, "all have noticed that Redis is back")
    assert first["cost_usd"] == pytest.approx(COST)
    spent = round(COST * (1 + WORKERS), 9)
    wait_until(lambda: {used(worker, "alone") for worker in fleet.workers} == {spent}, "all know what each has spent alone")
    for worker in fleet.workers:
        assert worker.stderr.count("Redis is back") == 1
        assert PASSWORD not in worker.stderr
    with capsys.disabled():
        sys.stdout.write(f"\nthe first chat after Redis was lost took {waited * 1000:.0f} ms\n")


# --- as the docs have it --------------------------------------------------------------------------------------------------------


def test_the_config_of_the_docs_is_served_and_cached_responses_are_shared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (config,) = re.findall(r"<!-- file: fleet.yaml -->\n```yaml\n(.*?)```", (ROOT / "docs" / "fleet.md").read_text(), re.S)
    path = tmp_path / "fleet.yaml"
    path.write_text(config)
    path.chmod(0o600)
    with RedisServer() as redis, Upstream() as upstream, ExitStack() as stack:
        keys = {"OPENAI_API_KEY": "sk-docs-4711", "OPENAI_BASE_URL": upstream.base_url, "OUR_MODEL_URL": upstream.base_url}
        where = {"REDIS_HOST": redis.host, "REDIS_PORT": str(redis.port), "REDIS_PASSWORD": PASSWORD}
        left, right = (stack.enter_context(Worker("--config", str(path), env=keys | where)) for _ in range(2))
        task = {"metadata": {"budget": "agent-7/task-12"}}
        wait_until(lambda: ready(left) and ready(right), "both have loaded LiteLLM", LOAD_SECONDS)
        first = left.chat("own", "a question", **task)
        assert first["cost_usd"] == pytest.approx(9 * 2e-7 + 12 * 8e-7)
        budgets = right.call("budgets/get", {"path": "agent-7/task-12"})["result"]["budgets"]
        reported = [(one["path"], one["max_usd"], one["used_usd"], one["used_tokens"]) for one in budgets]
        spent = pytest.approx(first["cost_usd"], abs=1e-9)
        assert reported == [("/", 200, spent, 21), ("agent-7", 40, spent, 21), ("agent-7/task-12", 2, spent, 21)]

        def is_cached() -> bool:
            before = len(upstream.requests)
            second = right.chat("own", "a question", **task)
            return bool(second["content"] == first["content"] and len(upstream.requests) == before)

        wait_until(is_cached, "the answer that the other worker got is in the cache")  # LiteLLM writes it behind
        assert right.chat("fast", "another question", max_tokens=100, **task)["finish_reason"] == "stop"
        assert {left.stderr, right.stderr} == {""}
        redis.stop()
        for _ in range(2):
            assert left.chat("own", "a third question", **task)["finish_reason"] == "stop"  # nor does the cache need it


WITHOUT_THE_PACKAGE = "import sys; sys.modules['redis'] = None; from bridge_worker.cli.main import main; main(sys.argv[1:])"


@pytest.mark.rule("STA-3")
def test_without_the_package_a_worker_logs_it_and_continues_with_local_state(tmp_path: Path) -> None:
    router = {"redis_host": "127.0.0.1", "redis_port": 1}
    model = {"model_name": "one", "litellm_params": {"model": "openai/one", "mock_response": "hi", "api_key": "k"}}
    path = write(tmp_path / "gateway.yaml", {"model_list": [model], "router_settings": router})
    command = (sys.executable, "-I", "-X", "utf8", "-c", WITHOUT_THE_PACKAGE)
    with Worker("--config", str(path), command=command) as worker:
        wait_until(partial(ready, worker), "it has loaded LiteLLM", LOAD_SECONDS)
        assert worker.chat("one")["content"] == "hi"
        assert worker.call("status")["result"]["redis"]["state"] == "not_installed"
        assert "omni-bridge[redis]" in worker.stderr
