"""Budgets with the real process and a real upstream: what is refused before it is sent, and what is charged afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from bridge_worker.backends.offline.services import OfflineServices
from bridge_worker.budgets.estimate import CostInputs
from bridge_worker.budgets.limits import read_budgets
from bridge_worker.budgets.spending import Reservation, Spending
from bridge_worker.budgets.store import MemoryStore
from bridge_worker.core.accumulator import usage_to_wire
from bridge_worker.core.deltas import TokenUsage
from bridge_worker.errors import BridgeError
from tests.conftest import WorkerFor
from tests.support.data import HELLO
from tests.support.gateway_config import deployment
from tests.support.upstream import DONE, Gate, Json, Upstream, chunk
from tests.support.upstream_format import embeddings
from tests.support.worker import Worker

PRICE = {"input_cost_per_token": 0.001, "output_cost_per_token": 0.01}
COST = 9 * 0.001 + 12 * 0.01  # of what the upstream says it used
Refused = Callable[..., Json]


def config_of(upstream: Upstream) -> Json:
    return {
        "model_list": [
            deployment(upstream, "priced", "priced", **PRICE),
            deployment(upstream, "unpriced", "unpriced"),
            deployment(upstream, "down", "status-500", **PRICE),
            deployment(upstream, "hangs", "hang", **PRICE),
            deployment(upstream, "slow", "slow", **PRICE),
            deployment(upstream, "cheap", "status-503", input_cost_per_token=0, output_cost_per_token=0),
            deployment(upstream, "gone", "gone", **PRICE, api_base=upstream.refused_url),
            {
                "model_name": "priced-embed",
                "litellm_params": {"model": "openai/text-embedding-3-small", "api_base": upstream.base_url, "api_key": "k"},
            },
        ],
        "router_settings": {"num_retries": 0, "disable_cooldowns": True, "fallbacks": [{"cheap": ["priced"]}]},
        "omni_bridge": {
            "budgets": [
                {"path": "*", "max_usd": 100, "max_tokens": 100_000, "window": "30d"},
                {"path": "poor", "max_usd": 0.01, "window": "1d"},
                {"path": "crowd", "max_usd": 1},
                {"path": "words", "max_tokens": 300},
                {"path": "tasks/*", "max_usd": 0.5},
            ]
        },
    }


@pytest.fixture(scope="module")
def worker(upstream: Upstream, worker_for: WorkerFor) -> Worker:
    return worker_for(config=config_of(upstream))


@pytest.fixture
def refused(worker: Worker, upstream: Upstream) -> Refused:
    """The error of a chat that must not reach the upstream."""

    def refused_chat(model: str, path: str, **params: Any) -> Json:
        before = len(upstream.requests)
        error: Json = chat(worker, model, path, **params)["error"]
        assert len(upstream.requests) == before
        return error

    return refused_chat


def chat(worker: Worker, model: str, path: str, **params: Any) -> Json:
    return worker.call("chat", chat_params(model, path, **params))


def chat_params(model: str, path: str, **params: Any) -> Json:
    return {"model": model, "messages": HELLO, "max_tokens": 12, "metadata": {"budget": path}, **params}


def budget(worker: Worker, path: str) -> Json:
    """The last and most special of those that a path counts against."""
    budgets: list[Json] = worker.call("budgets/get", {"path": path})["result"]["budgets"]
    return budgets[-1]


# --- refused before it is sent --------------------------------------------------------------------------------------------------


@pytest.mark.rule("BUD-3", "BUD-13")
def test_a_chat_beyond_the_budget_is_refused_with_all_its_numbers(refused: Refused, worker: Worker, streamed: bool) -> None:
    error = refused("priced", "poor/task", stream=streamed)
    assert (error["code"], error["data"]["kind"], error["data"]["retryable"]) == (1008, "budget_exceeded", False)
    refused_by = error["data"]["budget"]
    assert {name: refused_by[name] for name in ("path", "window_ms", "max_usd", "used_usd", "reserved_usd", "max_tokens")} == {
        "path": "poor",
        "window_ms": 86_400_000,
        "max_usd": 0.01,
        "used_usd": 0,
        "reserved_usd": 0,
        "max_tokens": None,
    }
    assert refused_by["needed_usd"] >= COST
    assert refused_by["needed_tokens"] >= 21
    assert 0 < refused_by["resets_ms"] <= 86_400_000
    assert error["data"]["receipt"]["attempts"] == []
    assert "0.01 USD" in error["message"]
    known = budget(worker, "poor/task")
    assert known == {name: refused_by[name] for name in known} | {"resets_ms": known["resets_ms"]}


@pytest.mark.rule("BUD-7")
def test_a_model_without_a_price_has_no_place_under_a_limit_in_usd(refused: Refused, worker: Worker) -> None:
    error = refused("unpriced", "poor")
    assert (error["data"]["kind"], "no known price" in error["message"]) == ("budget_exceeded", True)
    assert "result" in chat(worker, "unpriced", "words")


@pytest.mark.rule("BUD-7")
def test_without_a_known_output_limit_max_tokens_is_required(refused: Refused) -> None:
    error = refused("priced", "agent", max_tokens=None)
    assert (error["code"], "set max_tokens" in error["message"]) == (-32602, True)


@pytest.mark.rule("BUD-3")
def test_the_most_expensive_candidate_determines_the_reservation(refused: Refused) -> None:
    assert refused("cheap", "poor")["data"]["budget"]["needed_usd"] >= COST  # its fallback is not for nothing


@pytest.mark.rule("BUD-1")
@pytest.mark.parametrize("method", ["chat", "chat/check", "embed", "rerank"])
def test_a_path_that_is_none_is_refused_by_each_method(worker: Worker, method: str) -> None:
    what = {
        "embed": {"model": "offline/embed", "input": "x"},
        "rerank": {"model": "offline/rerank", "query": "x", "documents": ["y"]},
    }.get(method, {"model": "offline/echo", "messages": HELLO})
    error = worker.call(method, {**what, "metadata": {"budget": "/".join(["a"] * 64)}})["error"]
    assert (error["code"], "metadata.budget" in error["message"]) == (-32602, True)


# --- charged afterwards ---------------------------------------------------------------------------------------------------------


@pytest.mark.rule("BUD-2", "BUD-5")
def test_a_response_is_charged_at_its_cost_to_each_prefix(worker: Worker, streamed: bool) -> None:
    agent, task = f"agent-{streamed}", f"tasks/{streamed}"
    assert chat(worker, "priced", f"{agent}/task", stream=streamed)["result"]["cost_usd"] == pytest.approx(COST)
    now = budget(worker, agent)
    assert (now["used_usd"], now["used_tokens"]) == (pytest.approx(COST), 21)
    assert (now["reserved_usd"], now["reserved_tokens"]) == (0, 0)
    assert "result" in chat(worker, "priced", task, stream=streamed)
    first, second = worker.call("budgets/get", {"path": task})["result"]["budgets"]
    assert (first["path"], second["path"], second["used_usd"]) == ("tasks", task, pytest.approx(COST))
    assert (second["window_ms"], second["resets_ms"]) == (None, None)


@pytest.mark.rule("BUD-4")
def test_however_many_chats_run_together_the_limit_is_not_passed(worker: Worker, upstream: Upstream) -> None:
    before = upstream.counts["priced"]
    ids = [worker.request("chat", chat_params("priced", f"crowd/{number}")) for number in range(40)]
    responses = [worker.response(id) for id in ids]
    served = [response["result"] for response in responses if "result" in response]
    kinds = {response["error"]["data"]["kind"] for response in responses if "error" in response}
    assert (len(served), kinds) == (upstream.counts["priced"] - before, {"budget_exceeded"})
    assert sum(result["cost_usd"] for result in served) == pytest.approx(budget(worker, "crowd")["used_usd"])
    assert 0 < budget(worker, "crowd")["used_usd"] <= 1


@pytest.mark.rule("BUD-6")
@pytest.mark.parametrize("model", ["down", "gone"])
def test_an_error_that_providers_do_not_charge_for_is_not_charged(worker: Worker, model: str, streamed: bool) -> None:
    assert "error" in chat(worker, model, f"failed-{model}", stream=streamed)
    now = budget(worker, f"failed-{model}")
    assert (now["used_usd"], now["used_tokens"], now["reserved_usd"]) == (0, 0, 0)


@pytest.mark.rule("BUD-6")
def test_a_cancelled_stream_is_charged_its_input_and_what_had_come(worker: Worker, upstream: Upstream) -> None:
    upstream.script("slow", chunks=[chunk({"content": "a few words only"}), Gate(), DONE])
    id = worker.request("chat", chat_params("slow", "stopped", stream=True, max_tokens=1000))
    worker.wait_for_delta(id)
    held = budget(worker, "stopped")
    worker.notify("notifications/cancelled", {"requestId": id})
    assert worker.response(id)["error"]["data"]["kind"] == "cancelled"
    now = budget(worker, "stopped")
    assert held["reserved_usd"] > 1000 * 0.01
    assert (now["reserved_usd"], 0 < now["used_usd"] < 1) == (0, True)


@pytest.mark.rule("BUD-6")
def test_a_cancelled_plain_chat_is_charged_all_that_was_reserved(worker: Worker, upstream: Upstream) -> None:
    id = worker.request("chat", chat_params("hangs", "lost", max_tokens=1000))
    upstream.wait_for_request(model="hang", timeout=30)
    held = budget(worker, "lost")
    worker.notify("notifications/cancelled", {"requestId": id})
    assert worker.response(id)["error"]["data"]["kind"] == "cancelled"
    now = budget(worker, "lost")
    assert (now["used_usd"], now["used_tokens"], now["reserved_usd"]) == (held["reserved_usd"], held["reserved_tokens"], 0)


@pytest.mark.rule("BUD-8")
def test_an_offline_model_costs_nothing_and_counts_its_tokens(worker: Worker, refused: Refused) -> None:
    assert "result" in chat(worker, "offline/echo", "words/task", max_tokens=None)
    assert budget(worker, "words/task")["used_usd"] == 0
    assert budget(worker, "words/task")["used_tokens"] >= 4
    assert refused("offline/echo", "words", max_tokens=400)["data"]["budget"]["max_tokens"] == 300


@pytest.mark.rule("BUD-12")
def test_embeddings_and_rankings_count_too(worker: Worker, upstream: Upstream) -> None:
    words = {"metadata": {"budget": "texts"}}
    assert "result" in worker.call("embed", {"model": "offline/embed", "input": ["two words", "three more words"], **words})
    assert budget(worker, "texts")["used_tokens"] == 5
    assert "result" in worker.call("rerank", {"model": "offline/rerank", "query": "one", "documents": ["two", "three"], **words})
    assert budget(worker, "texts")["used_tokens"] == 8
    upstream.script("text-embedding-3-small", body=embeddings([1.0], model="text-embedding-3-small"))
    made = worker.call("embed", {"model": "priced-embed", "input": "text", **words})["result"]
    assert budget(worker, "texts")["used_usd"] == pytest.approx(made["cost_usd"], abs=1e-9)
    assert "metadata" not in upstream.requests[-1].body


@pytest.mark.rule("BUD-14")
def test_a_path_is_not_sent_to_the_provider(worker: Worker, upstream: Upstream, streamed: bool) -> None:
    dropped = chat(worker, "priced", "agent", stream=streamed)["result"]["receipt"]["dropped"]
    assert "metadata" not in [change["param"] for change in dropped]
    assert "agent" not in upstream.requests[-1].raw.decode()
    others = chat(worker, "priced", "agent", metadata={"budget": "agent", "trace": "1"})["result"]["receipt"]["dropped"]
    assert {"param": "metadata", "change": "dropped", "sent": None} in others


@pytest.mark.rule("BUD-13")
def test_without_a_limit_no_spending_is_reported(worker: Worker) -> None:
    assert worker.call("budgets/get")["result"] == {"budgets": []}
    assert worker.call("budgets/get", {"path": "a//b"})["error"]["code"] == -32602


# --- without a process ----------------------------------------------------------------------------------------------------------

AGENT_LIMIT = read_budgets([{"path": "agent", "max_tokens": 100}])


def reservation_of(spending: Spending, **more: Any) -> Reservation:
    messages = [{"role": "user", "content": "three little words"}]
    return spending.reservation({"budget": "agent"}, CostInputs("offline/echo", 1000, messages, output_tokens=10, **more))


async def services(_: str) -> OfflineServices:
    return OfflineServices()


@pytest.mark.rule("BUD-5")
def test_usage_that_a_provider_does_not_report_counts_as_reserved() -> None:
    async def story(usage: TokenUsage | None) -> int:
        spending = Spending(lambda: AGENT_LIMIT, MemoryStore())
        reservation = reservation_of(spending)
        await reservation.reserve(services)
        await reservation.settle(usage and usage_to_wire(usage), None)
        return (await spending.standings("agent"))[0].used.tokens

    assert asyncio.run(story(None)) == 13
    assert asyncio.run(story(TokenUsage())) == 13
    assert asyncio.run(story(TokenUsage(3, 2, 9))) == 9


@pytest.mark.rule("BUD-6")
@pytest.mark.parametrize("kind", ["cancelled", "timeout", "stream_interrupted", "bad_upstream_response"])
def test_of_a_request_that_broke_off_at_home_what_had_come_counts(kind: str) -> None:
    async def story() -> int:
        spending = Spending(lambda: AGENT_LIMIT, MemoryStore())
        reservation = reservation_of(spending, streamed=True)
        await reservation.reserve(services)
        partial = {"content": "came before", "tool_calls": []}
        await reservation.settle_failed(BridgeError(kind, "", extra={"partial": partial}))
        return (await spending.standings("agent"))[0].used.tokens

    assert asyncio.run(story()) in range(4, 9)


def test_a_cancel_while_it_reserves_leaves_nothing_reserved() -> None:
    class Slow(MemoryStore):
        async def reserve(self, *of: Any) -> Any:
            found = await super().reserve(*of)
            reserved.set()
            await go_on.wait()
            return found

    async def story() -> None:
        spending = Spending(lambda: AGENT_LIMIT, Slow())
        task = asyncio.create_task(reservation_of(spending).reserve(services))
        await reserved.wait()
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        go_on.set()
        await asyncio.gather(*spending._settling)
        assert (await spending.standings("agent"))[0].reserved.tokens == 0

    reserved, go_on = asyncio.Event(), asyncio.Event()
    asyncio.run(story())
