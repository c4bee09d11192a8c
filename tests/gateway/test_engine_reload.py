"""A reload where engine processes serve: those with the new config take over, those with the old one end when they are idle."""

from __future__ import annotations

import itertools
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.data import HELLO, Json
from tests.support.gateway_config import deployment, write
from tests.support.upstream import Upstream
from tests.support.worker import Worker, wait_until

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="engine processes need Linux")


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reload") / "gateway.yaml"


@pytest.fixture(scope="module")
def started(upstream: Upstream, path: Path) -> Iterator[Worker]:
    write(path, config(upstream, "stays", "goes"))
    with Worker("--engines", "1", "--config", str(path), "--log-level=info") as worker:
        yield worker


@pytest.fixture
def worker(started: Worker, upstream: Upstream, path: Path) -> Worker:
    """With the first config active, whatever the test before did."""
    write(path, config(upstream, "stays", "goes"))
    assert "result" in started.call("config/reload")
    return started


def config(upstream: Upstream, *names: str) -> Json:
    return {"model_list": [deployment(upstream, name, "hang-after-1" if name == "goes" else "one") for name in names]}


def rows(worker: Worker) -> list[Json]:
    found: list[Json] = worker.call("status")["result"]["engines"]
    return found


def pids(worker: Worker, state: str) -> list[int]:
    return [row["pid"] for row in rows(worker) if row["state"] == state]


@pytest.mark.rule("RLD-1", "RLD-2", "RLD-4", "ENG-9")
def test_requests_in_flight_end_on_the_old_engine_and_new_ones_go_to_the_new(
    worker: Worker, upstream: Upstream, path: Path
) -> None:
    (old,) = pids(worker, "ready")
    stream = worker.request("chat", {"model": "goes", "messages": HELLO, "stream": True})
    worker.wait_for_delta(stream)
    write(path, config(upstream, "stays", "new"))
    result = worker.call("config/reload")["result"]
    assert (result["added"], result["removed"], result["restart_needed"]) == (["new"], ["goes"], [])
    assert worker.chat("new")["content"]
    assert worker.call("chat", {"model": "goes", "messages": HELLO})["error"]["data"]["kind"] == "model_not_found"
    assert pids(worker, "draining") == [old]
    worker.notify("notifications/cancelled", {"requestId": stream})
    assert worker.response(stream)["error"]["data"]["kind"] == "cancelled"
    wait_until(lambda: old not in [row["pid"] for row in rows(worker)], "the old engine ends")


@pytest.mark.rule("RLD-3", "ENG-9")
@pytest.mark.parametrize(
    "wrong",
    [
        {"omni_bridge": {"max_in_flight": "many"}},
        {"model_list": "none"},
        {"router_settings": {"routing_strategy": "no-such-strategy"}},
    ],
    ids=["setting", "models", "strategy"],
)
def test_a_config_with_errors_leaves_the_old_engines_serving(worker: Worker, upstream: Upstream, path: Path, wrong: Json) -> None:
    before = pids(worker, "ready")
    write(path, config(upstream, "stays") | wrong)
    error = worker.call("config/reload")["error"]
    assert error["data"]["kind"] == "invalid_request"
    assert error["data"]["mistakes"]
    assert str(path.parent) not in str(error)
    assert pids(worker, "ready") == before
    assert worker.chat("stays")["content"]
    wait_until(lambda: len(rows(worker)) == 1, "no engine with the wrong config is left")


@pytest.mark.rule("RLD-4", "ENG-6")
def test_every_member_but_those_of_the_server_process_takes_effect(worker: Worker, upstream: Upstream, path: Path) -> None:
    own = {"engine": "litellm", "max_in_flight": 7, "provider_params": ["top_k"], "engine_max_requests": 1}
    of_litellm = {"callbacks": ["anthropic_cache_control_hook"], "cache": True, "cache_params": {"type": "local"}}
    of_router = {"redis_host": "127.0.0.1", "redis_port": 1}
    write(path, config(upstream, "stays") | {"omni_bridge": own, "litellm_settings": of_litellm, "router_settings": of_router})
    result = worker.call("config/reload")["result"]
    assert result["restart_needed"] == ["omni_bridge.max_in_flight"]
    assert {f"omni_bridge.{name}" for name in own if name != "max_in_flight"} <= set(result["settings"])
    assert {"litellm_settings.callbacks", "litellm_settings.cache", "router_settings.redis_host"} <= set(result["settings"])
    (new,) = pids(worker, "ready")
    assert worker.chat("stays")["receipt"]["engine"]["name"] == "litellm"
    wait_until(lambda: worker.call("status")["result"]["redis"]["state"] == "lost", "the new Redis is looked for")
    wait_until(lambda: new not in pids(worker, "ready"), "the engine is replaced after one request")


@pytest.mark.rule("RLD-7")
def test_without_engine_processes_a_reload_is_refused_with_what_to_do(upstream: Upstream, path: Path) -> None:
    write(path, config(upstream, "stays"))
    with Worker("--engines", "0", "--config", str(path)) as worker:
        assert "--engines 1" in worker.call("config/reload")["error"]["message"]
        worker.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "--engines 1" in worker.stderr, "the log reports it")
        assert worker.chat("stays")["content"]


RPM = 6


@pytest.mark.rule("CFG-13")
def test_rpm_is_exact_over_the_engines_of_a_worker(upstream: Upstream, tmp_path: Path) -> None:
    models = [deployment(upstream, f"limited-{at}", f"limited-{at}", rpm=RPM) for at in range(4)]
    settings = {"optional_pre_call_checks": ["enforce_model_rate_limits"], "num_retries": 0, "disable_cooldowns": True}
    file = write(tmp_path / "gateway.yaml", {"model_list": models, "router_settings": settings})
    with Worker("--engines", "2", "--config", str(file)) as worker:
        wait_until(lambda: len(pids(worker, "ready")) == 2, "both engines serve", 60)
        for at in itertools.count():  # the minute is the clock's: what was sent in two is sent again
            minute = time.time() // 60
            ids = [worker.request("chat", {"model": f"limited-{at}", "messages": HELLO}) for _ in range(3 * RPM)]
            served = ["result" in worker.response(id) for id in ids]
            if time.time() // 60 == minute:
                break
        assert all(row["requests"] > 0 for row in rows(worker))
    assert served.count(True) == RPM
    assert upstream.counts[f"limited-{at}"] == RPM
