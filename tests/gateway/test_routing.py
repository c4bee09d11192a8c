"""Which deployment responds, and what the receipt says about the route: LiteLLM's Router in a real worker, with real upstreams."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.conftest import WorkerFor
from tests.support.data import HELLO_ASCII as HELLO
from tests.support.gateway_config import attempts, deployment
from tests.support.upstream import Json, Upstream
from tests.support.worker import Worker, wait_until

PRICE = {"input_cost_per_token": 0.5, "output_cost_per_token": 0.25}
COST = 9 * 0.5 + 12 * 0.25
DEAR = {"input_cost_per_token": 70.0, "output_cost_per_token": 70.0}


def config_of(upstream: Upstream) -> Json:
    def one(*args: Any, **params: Any) -> Json:
        return deployment(upstream, *args, **params)

    return {
        "model_list": [
            one("spare", "spare", **PRICE),
            one("down", "status-503", **DEAR),
            one("breaks-early", "stream-error-0", **DEAR),
            one("breaks-early-twice", "stream-error-0"),
            one("too-long", "context-length"),
            one("refused", "content-policy"),
            one("hopeless", "status-500"),
            one("limited-only", "retry-after-7"),
            one("refuses", "status-400"),
            one("mixed-up", "mixed-up", num_retries=1),
            one("flaky", "flaky-2", num_retries=2),
            one("limited-for-long", "long", order=1),
            one("limited-for-long", "steady", order=2),
            one("limited-alone", "retry-after-30"),
            one("limited", "short", order=1),
            one("limited", "steady", order=2),
            one("ordered", "second", order=2),
            one("ordered", "first", order=1),
            one("weighted", "nine", weight=9),
            one("weighted", "one", weight=1),
            one("weighted", "none", weight=0),
            one("impatient", "hang", timeout=0.3),
            one("impatient-stream", "hang", stream_timeout=0.3, timeout=600),
            one("impatient-inside", "hang-after-1", timeout=0.3),
            one("one-at-a-time", "hang", max_parallel_requests=1),
            one("poor", "poor", **PRICE, max_budget=0.000001, budget_duration="1d"),
            one("tagged", "free", tags=["free"]),
            one("tagged", "paid", tags=["paid", "default"]),
            one("only-tagged", "free", tags=["free"]),
            one("any/*", "*"),
            one("openai/*", "*"),
        ],
        "router_settings": {
            "num_retries": 0,
            "fallbacks": [
                {"down": ["spare"]},
                {"breaks-early": ["spare"]},
                {"breaks-early-twice": ["breaks-early", "spare"]},
                {"hopeless": ["limited-only", "refuses"]},
            ],
            "context_window_fallbacks": [{"too-long": ["spare"]}],
            "content_policy_fallbacks": [{"refused": ["spare"]}],
            "model_group_alias": {"shown": "spare", "unseen": {"model": "spare", "hidden": True}},
            "enable_tag_filtering": True,
        },
    }


@pytest.fixture(scope="module")
def worker(upstream: Upstream, worker_for: WorkerFor) -> Worker:
    return worker_for(config=config_of(upstream))


def fail(worker: Worker, model: str, **params: Any) -> Json:
    response = worker.call("chat", {"model": model, "messages": HELLO, **params})
    assert "error" in response, response
    data: Json = response["error"]["data"]
    return data


# ---- fallbacks ---------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("RCP-2", "RCP-3", "RES-16")
@pytest.mark.parametrize(
    ("model", "failed", "outcome", "status"),
    [
        ("down", "status-503", "provider_unavailable", 503),
        ("too-long", "context-length", "context_length_exceeded", 400),
        ("refused", "content-policy", "content_policy", 400),
    ],
)
def test_a_fallback_of_any_kind_is_reported_and_priced_by_the_deployment_that_served(
    worker: Worker, model: str, failed: str, outcome: str, status: int, streamed: bool
) -> None:
    result = worker.chat(model, stream=streamed)
    receipt = result["receipt"]
    assert attempts(receipt) == [(f"{model}/{failed}", outcome), ("spare/spare", "ok")]
    assert receipt["attempts"][0]["status"] == status
    assert (receipt["fallback"], receipt["requested_model"], receipt["served_model"]) == (True, model, "spare-2026-01-01")
    assert (result["cost_usd"], result["cost_source"]) == (pytest.approx(COST), "deployment")


@pytest.mark.rule("STR-8", "RCP-2", "RCP-3", "RES-16")
def test_a_stream_that_breaks_before_its_first_delta_reports_all_attempts(worker: Worker) -> None:
    result = worker.chat("breaks-early", stream=True)
    (broken, served) = result["receipt"]["attempts"]
    assert (broken["outcome"], broken["deployment"]) == ("provider_unavailable", "breaks-early/stream-error-0")
    assert broken["ms"] > 0
    assert (served["outcome"], served["deployment"]) == ("ok", "spare/spare")
    assert (result["model"], result["receipt"]["served_model"]) == ("spare-2026-01-01", "spare-2026-01-01")
    assert result["cost_usd"] == pytest.approx(COST)


@pytest.mark.rule("STR-8", "RCP-2")
def test_a_fallback_that_breaks_as_early_is_an_attempt_too(worker: Worker) -> None:
    result = worker.chat("breaks-early-twice", stream=True)
    assert [outcome for _, outcome in attempts(result["receipt"])] == ["provider_unavailable", "provider_unavailable", "ok"]
    assert result["cost_usd"] == pytest.approx(COST)


@pytest.mark.rule("RCP-1", "RCP-2", "ERR-3")
def test_when_every_fallback_fails_the_error_is_that_of_what_was_wanted(worker: Worker, streamed: bool) -> None:
    data = fail(worker, "hopeless", stream=streamed)
    assert (data["kind"], data["status"], data["model"]) == ("provider_unavailable", 500, "hopeless")
    assert data["retry_after_ms"] is None
    assert data["receipt"]["fallback"] is True
    assert [(attempt["outcome"], attempt["status"]) for attempt in data["receipt"]["attempts"]] == [
        ("provider_unavailable", 500),
        ("rate_limited", 429),
        ("rejected_by_provider", 400),
    ]


# ---- retries -----------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("RCP-2", "RCP-3")
def test_each_retry_is_an_attempt_and_none_a_fallback(worker: Worker) -> None:
    receipt = worker.chat("flaky")["receipt"]
    assert attempts(receipt) == [("flaky/flaky-2", "provider_unavailable")] * 2 + [("flaky/flaky-2", "ok")]
    assert receipt["fallback"] is False


@pytest.mark.rule("ERR-3", "ERR-4", "RCP-2")
def test_an_error_after_a_retry_has_the_facts_of_one_response(upstream: Upstream, worker: Worker) -> None:
    """The Router raises the second while it handles the first: kind, status and advice must not be mixed."""
    upstream.script("mixed-up", status=503, body={"error": {"message": "down"}})
    upstream.script("mixed-up", status=429, body={"error": {"message": "slow down"}}, headers={"retry-after": "1"})
    data = fail(worker, "mixed-up")
    attempts = [(attempt["outcome"], attempt["status"]) for attempt in data["receipt"]["attempts"]]
    assert attempts == [("provider_unavailable", 503), ("rate_limited", 429)]
    assert (data["kind"], data["status"], data["retry_after_ms"]) == ("rate_limited", 429, 1000)


# ---- cooldowns ---------------------------------------------------------------------------------------------------------------


def limit_first(upstream: Upstream, model: str, seconds: int) -> None:
    upstream.script(model, status=429, body={"error": {"message": "slow down"}}, headers={"retry-after": str(seconds)})


@pytest.mark.rule("RCP-2", "RCP-3")
def test_a_cooling_deployment_is_not_called_again_before_its_time(worker: Worker, upstream: Upstream, streamed: bool) -> None:
    limit_first(upstream, "long", 600)
    worker.chat("limited-for-long", stream=streamed)
    calls = upstream.counts["long"]
    for _ in range(3):
        receipt = worker.chat("limited-for-long", stream=streamed)["receipt"]
        assert attempts(receipt) == [("limited-for-long/steady", "ok")]
        assert receipt["fallback"] is False
    assert upstream.counts["long"] == calls <= 1  # none when the test's other mode has already cooled the deployment down


def test_a_deployment_comes_back_when_its_retry_after_is_over(worker: Worker, upstream: Upstream) -> None:
    limit_first(upstream, "short", 1)
    receipt = worker.chat("limited")["receipt"]
    assert attempts(receipt) == [("limited/short", "rate_limited"), ("limited/steady", "ok")]
    limited = upstream.wait_for_request("short").received_at

    def is_called_again() -> bool:
        worker.chat("limited")
        return upstream.counts["short"] > 1

    wait_until(is_called_again, "the deployment was asked again")
    assert upstream.wait_for_request("short", nth=2).received_at - limited >= 1
    assert time.monotonic() - limited >= 1


def test_the_only_deployment_of_a_model_does_not_rest_after_a_429(worker: Worker) -> None:
    for _ in range(2):
        data = fail(worker, "limited-alone")
        assert (data["status"], data["retry_after_ms"], len(data["receipt"]["attempts"])) == (429, 30_000, 1)


# ---- which one of several ----------------------------------------------------------------------------------------------------


def test_a_lower_order_is_called_first(worker: Worker) -> None:
    served = {worker.chat("ordered")["receipt"]["deployment"] for _ in range(8)}
    assert served == {"ordered/first"}


def test_weights_are_kept(worker: Worker) -> None:
    served = [worker.chat("weighted")["receipt"]["deployment"] for _ in range(60)]
    assert served.count("weighted/nine") > 30  # fewer: 1 in 10**12
    assert served.count("weighted/none") == 0


@pytest.mark.rule("CHT-12")
@pytest.mark.parametrize(("tags", "served"), [(None, "paid"), ("free", "free"), ("paid", "paid"), ("eu, free", "free")])
def test_tags_choose_among_deployments(worker: Worker, tags: str | None, served: str, streamed: bool) -> None:
    metadata = {"metadata": {"tags": tags}} if tags else {}
    assert worker.chat("tagged", stream=streamed, **metadata)["receipt"]["deployment"] == f"tagged/{served}"


@pytest.mark.rule("CHT-12", "ERR-3")
def test_a_tag_that_no_deployment_has_is_refused(worker: Worker, upstream: Upstream) -> None:
    before = len(upstream.requests)
    data = fail(worker, "only-tagged", metadata={"tags": "nobody-s"})
    assert (data["kind"], data["retryable"], data["receipt"]["attempts"]) == ("permission", False, [])
    assert len(upstream.requests) == before


# ---- names -------------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("CHT-11", "RCP-5")
@pytest.mark.parametrize("alias", ["shown", "unseen"])
def test_an_alias_serves_its_model(worker: Worker, alias: str, streamed: bool) -> None:
    result = worker.chat(alias, stream=streamed)
    assert (result["requested_model"], result["model"]) == (alias, "spare-2026-01-01")
    assert attempts(result["receipt"]) == [("spare/spare", "ok")]
    assert result["receipt"]["fallback"] is False
    assert result["cost_usd"] == pytest.approx(COST)
    described = worker.call("models/get", {"model": alias})["result"]
    assert (described["model"], described["deployments"]) == (alias, ["openai/spare"])
    assert described["prices"]["input_usd"] == PRICE["input_cost_per_token"]


@pytest.mark.rule("MOD-1")
def test_a_hidden_alias_is_not_listed(worker: Worker) -> None:
    names = {model["model"] for model in worker.call("models/list")["result"]["models"]}
    assert {"shown", "spare", "any/*", "openai/*"} <= names
    assert "unseen" not in names


@pytest.mark.rule("CHT-11", "RES-16")
@pytest.mark.parametrize("prefix", ["any", "openai"])
def test_a_wildcard_serves_and_describes_the_models_that_it_matches(
    worker: Worker, upstream: Upstream, prefix: str, streamed: bool
) -> None:
    name = f"{prefix}/gpt-4o-mini"
    result = worker.chat(name, stream=streamed)
    assert (result["requested_model"], result["model"]) == (name, "gpt-4o-mini-2026-01-01")
    assert upstream.requests[-1].model == "gpt-4o-mini"
    (attempt,) = result["receipt"]["attempts"]
    assert (attempt["model"], attempt["provider"], attempt["outcome"]) == ("gpt-4o-mini", "openai", "ok")
    assert attempt["deployment"] == result["receipt"]["deployment"] is not None
    assert result["cost_source"] == "price_map"
    described = worker.call("models/get", {"model": name})["result"]
    assert (described["deployments"], described["limits"]["context_tokens"]) == (["openai/gpt-4o-mini"], 128_000)
    listed = {model["model"] for model in worker.call("models/list", {"all": True})["result"]["models"]}
    assert "openai/gpt-4o-mini" in listed


# ---- limits of the operator's ------------------------------------------------------------------------------------------------


@pytest.mark.rule("ERR-3")
@pytest.mark.parametrize(("model", "stream"), [("impatient", False), ("impatient", True), ("impatient-stream", True)])
def test_a_deployments_timeout_is_the_providers(worker: Worker, model: str, stream: bool) -> None:
    data = fail(worker, model, stream=stream)
    assert (data["kind"], data["deadline"], data["retryable"]) == ("timeout", "provider", True)
    assert attempts(data["receipt"]) == [(f"{model}/hang", "timeout")]


def test_a_stream_timeout_is_not_for_plain_chats(worker: Worker) -> None:
    data = fail(worker, "impatient-stream", deadlines={"total_ms": 1500})
    assert (data["kind"], data["deadline"]) == ("timeout", "total_ms")


@pytest.mark.rule("STR-8")
def test_a_deployments_timeout_after_the_first_delta_ends_the_stream(worker: Worker) -> None:
    data = fail(worker, "impatient-inside", stream=True)
    assert (data["kind"], attempts(data["receipt"])) == (
        "stream_interrupted",
        [("impatient-inside/hang-after-1", "stream_interrupted")],
    )


@pytest.mark.rule("ERR-3", "RCP-2")
def test_a_deployment_that_is_full_refuses_what_is_too_much(worker: Worker, upstream: Upstream, streamed: bool) -> None:
    before = upstream.counts["hang"]
    held = worker.request("chat", {"model": "one-at-a-time", "messages": HELLO})
    upstream.wait_for_request("hang", nth=before + 1, timeout=30)
    data = fail(worker, "one-at-a-time", stream=streamed)
    assert (data["kind"], data["retryable"], data["receipt"]["attempts"]) == ("rate_limited", True, [])
    worker.notify("notifications/cancelled", {"requestId": held})
    assert worker.response(held)["error"]["data"]["kind"] == "cancelled"


@pytest.mark.rule("ERR-3", "RCP-2")
def test_a_deployment_with_a_spent_budget_refuses(worker: Worker) -> None:
    assert worker.chat("poor")["cost_usd"] == pytest.approx(COST)
    responses: list[Json] = []

    def refused() -> bool:  # LiteLLM counts in a task after the answer
        responses.append(worker.call("chat", {"model": "poor", "messages": HELLO}))
        return "error" in responses[-1]

    wait_until(refused, "the budget was used up")
    error = responses[-1]["error"]
    assert (error["code"], error["data"]["kind"], error["data"]["retryable"]) == (1008, "budget_exceeded", False)
    assert error["data"]["receipt"]["attempts"] == []
    assert "budget" in error["message"]


def test_a_full_deployment_serves_again_after_a_cancelled_stream(worker: Worker, upstream: Upstream) -> None:
    """What LiteLLM counts as in flight is given back whatever ends it."""
    before = upstream.counts["hang"]
    for nth in (1, 2):
        held = worker.request("chat", {"model": "one-at-a-time", "messages": HELLO, "stream": True})
        upstream.wait_for_request("hang", nth=before + nth, timeout=30)
        worker.notify("notifications/cancelled", {"requestId": held})
        assert worker.response(held)["error"]["data"]["kind"] == "cancelled"
