"""State of LiteLLM's that is one for all engines of a worker: cooldowns, failures, what the Router keeps, the cache in memory."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from litellm import Router
from litellm.redis.stores.router_usage import UsageCounter

from bridge_worker.backends.litellm import router, router_copies
from bridge_worker.engines.copies import Copies, CopiesService
from bridge_worker.engines.kept_texts import KeptTexts, TextsService
from tests.support.data import Json
from tests.support.gateway_config import deployment, write
from tests.support.upstream import Upstream
from tests.support.worker import Worker, wait_until

pytestmark = [
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince211"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # LiteLLM's, for the Router's older members
]
needs_engines = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="engine processes need Linux")

COOLS_DOWN = {"num_retries": 0, "allowed_fails": 0, "cooldown_time": 600}
CACHES = {"cache": True, "cache_params": {"type": "local", "supported_call_types": ["acompletion"]}}


def ready(worker: Worker) -> list[int]:
    rows = worker.call("status")["result"]["engines"]
    return [row["pid"] for row in rows if row["state"] == "ready"]


def wait_for_two(worker: Worker) -> None:
    wait_until(lambda: len(ready(worker)) == 2, "both engines serve", 120)


def chat(worker: Worker, model: str, text: str = "hello") -> Json:
    return worker.call("chat", {"model": model, "messages": [{"role": "user", "content": text}]})


def fail_once(worker: Worker, upstream: Upstream, model: str, failing: str) -> None:
    """Chats until one has failed, which cools its deployment down."""
    wait_until(lambda: "error" in chat(worker, model), "a chat fails")
    assert upstream.counts[failing] == 1


def serve_by_each(worker: Worker, upstream: Upstream, model: str, count: int) -> list[Json]:
    """Responses of the first engine, then of the other one."""
    first = [chat(worker, model) for _ in range(count)]
    hanging = worker.request("chat", {"model": "hang", "messages": [{"role": "user", "content": "hello"}]})
    upstream.wait_for_request(model="hang", timeout=60)
    other = [chat(worker, model) for _ in range(count)]
    rows = worker.call("status")["result"]["engines"]
    assert sorted(row["in_flight"] for row in rows) == [0, 1]
    worker.notify("notifications/cancelled", {"requestId": hanging})
    worker.response(hanging)
    upstream.forget()
    return first + other


@needs_engines
@pytest.mark.rule("ENG-10")
def test_what_one_engine_has_cooled_down_is_out_in_all_and_after_a_loss_and_a_reload(upstream: Upstream, tmp_path: Path) -> None:
    groups = {"lane": "status-500", "full": "status-503"}
    models = [deployment(upstream, name, what) for name, failing in groups.items() for what in (failing, f"good-{name}")]
    models += [deployment(upstream, "hang", "hang"), deployment(upstream, "cached", "cached")]
    config = {"model_list": models, "router_settings": COOLS_DOWN}
    path = write(tmp_path / "gateway.yaml", config)
    with Worker("--engines", "2", "--config", str(path)) as worker:
        wait_for_two(worker)
        fail_once(worker, upstream, "lane", "status-500")
        assert all("result" in one for one in serve_by_each(worker, upstream, "lane", 8))
        for pid in ready(worker):
            os.kill(pid, signal.SIGKILL)
        assert all("result" in chat(worker, "lane") for _ in range(8))
        write(path, config | {"litellm_settings": CACHES})
        assert "result" in worker.call("config/reload")
        wait_for_two(worker)
        upstream.forget()
        assert all("result" in chat(worker, "lane", f"without a cache {at}") for at in range(8))
        wait_until(lambda: "error" in chat(worker, "full", os.urandom(8).hex()), "a chat fails")
        assert all("result" in chat(worker, "full", f"without a cache {at}") for at in range(8))
        assert "status-500" not in upstream.counts
        check_the_cache_is_one(worker, upstream)


def check_the_cache_is_one(worker: Worker, upstream: Upstream) -> None:
    responses = serve_by_each(worker, upstream, "cached", 2)
    assert len({one["result"]["content"] for one in responses}) == 1
    for pid in ready(worker):
        os.kill(pid, signal.SIGKILL)
    chat(worker, "cached")
    assert upstream.counts["cached"] == 0  # since `serve_by_each`


# --- the stores, two Routers in one process ----------------------------------------------------------------------------------


class Engines:
    """The given number of engines, with one server process; frames are delivered in the next turn of the loop."""

    def __init__(self) -> None:
        self.copies: list[Copies] = []
        self.service = CopiesService(self._push)
        self.texts = TextsService()
        self.cooled: list[str] = []

    async def start(self, settings: Mapping[str, Any]) -> Router:
        number = len(self.copies)

        async def call(name: str, arguments: Mapping[str, object]) -> object:
            message = json.loads(json.dumps({"name": name, **arguments}))
            return await (self.texts.serve(message) if name.startswith("texts/") else self.service.serve(number, message))

        self.copies.append(Copies(call))
        made: Router = await asyncio.to_thread(lambda: Router(**settings))
        lane: Any = self
        await asyncio.to_thread(router_copies.share, made, lane, self.copies[number], KeptTexts(call))
        return made

    def close_for(self, deployment: str, seconds: float) -> None:
        """The lane's."""
        self.cooled.append(deployment)

    async def settle(self) -> None:
        for each in self.copies:
            await each.flush()

    def _push(self, engine: int, body: bytes) -> None:
        self.copies[engine].receive(json.loads(body))


SETTINGS = {"model_list": [{"model_name": "m", "litellm_params": {"model": "openai/x", "api_key": "k"}, "model_info": {"id": "a"}}]}


def in_two(work: Callable[[Engines, Router, Router], Any]) -> None:
    async def run() -> None:
        engines = Engines()
        await work(engines, await engines.start(SETTINGS), await engines.start(SETTINGS))

    asyncio.run(run())


def cooled_in(made: Router) -> list[str]:
    return [id for id, _ in made.health().cooldowns.get_active_cooldowns(["a"], None)]


def test_a_cooldown_is_read_synchronously_in_the_other_router_and_in_a_later_one() -> None:
    async def work(engines: Engines, one: Router, two: Router) -> None:
        one.health().cooldowns.add_deployment_to_cooldown("a", ValueError("down"), 500, 60)
        await engines.settle()
        assert cooled_in(two) == ["a"]
        assert cooled_in(await engines.start(SETTINGS)) == ["a"]
        assert engines.cooled == ["a", "a"]

    in_two(work)


def test_an_expired_cooldown_is_not_given_to_a_later_router() -> None:
    async def work(engines: Engines, one: Router, two: Router) -> None:
        one.health().cooldowns.add_deployment_to_cooldown("a", ValueError("down"), 500, 0.001)
        await engines.settle()
        await asyncio.sleep(0.002)
        assert cooled_in(await engines.start(SETTINGS)) == []

    in_two(work)


def test_failures_and_successes_add_up() -> None:
    async def work(engines: Engines, one: Router, two: Router) -> None:
        for made, count in ((one, 2), (two, 3)):
            for _ in range(count):
                router.store(made).increment_cache(key="a:fails", value=1, local_only=True, ttl=60)
                made.health().cooldowns.cooldown_store.increment_allowed_fails("a", None, 60)
        await engines.settle()
        for made in (one, two, await engines.start(SETTINGS)):
            assert router.store(made).get_cache(key="a:fails", local_only=True) == 5
            assert made.health().cooldowns.cooldown_store.increment_allowed_fails("a", None, 60) == 6
            await asyncio.sleep(0)  # not flushed: the next Router has 5 too

    in_two(work)


def test_usage_and_values_are_shared_and_what_json_does_not_have_stays() -> None:
    counter = UsageCounter("a", "m", "12-00", "rpm")

    async def work(engines: Engines, one: Router, two: Router) -> None:
        one._usage.increment_sync(counter, 2, 60)
        two._usage.increment_deployment_sync("a", "m", "12-00", 7, 1)
        router.store(one).set_cache("m_map", {"a": {"latency": [0.1]}}, ttl=60)
        router.store(one).set_cache("client", object(), ttl=60)
        router.store(one).increment_cache("m_request_count:a", 1, ttl=60)
        await engines.settle()
        for made in (one, two):
            assert list(made._usage.get_many_sync([counter])) == [3]
            assert router.store(made).get_cache("m_map") == {"a": {"latency": [0.1]}}
        assert router.store(two).get_cache("client") is None
        assert router.store(two).get_cache("m_request_count:a") is None

    in_two(work)


def test_the_service_keeps_a_bounded_number_of_texts() -> None:
    async def work() -> None:
        service = TextsService()
        for at in range(5):
            await service.serve({"name": "texts/set", "key": str(at), "text": "t", "seconds": 60 + at, "most": 3})
        found = [await service.serve({"name": "texts/get", "key": str(at)}) for at in range(5)]
        assert found == [None, None, "t", "t", "t"]

    asyncio.run(work())
