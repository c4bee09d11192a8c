"""A gateway's config.yaml: which models there are, and what LiteLLM's Router does when a deployment fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import WorkerFor
from tests.support.data import HELLO
from tests.support.gateway_config import KEY, deployment, write
from tests.support.upstream import DONE, End, Gate, Json, Upstream, chunk, reply_text
from tests.support.worker import Worker, run

REPLY = reply_text("Grüße 🦜")
VARIABLE_KEY = "variable-key-0815-xyz"

Fail = Callable[..., Json]


def config_of(upstream: Upstream) -> Json:
    key_of_variable = {"api_key": "os.environ/GATEWAY_TEST_KEY"}
    price = {"input_cost_per_token": 0.001, "output_cost_per_token": 0.01}
    return {
        "model_list": [
            deployment(upstream, "pair", "left"),
            deployment(upstream, "pair", "right", **key_of_variable),
            deployment(upstream, "dear", "dear", **price),
            deployment(upstream, "flaky", "flaky-1", num_retries=1),
            deployment(upstream, "down", "status-503", num_retries=1),
            deployment(upstream, "down-with-backup", "status-500"),
            deployment(upstream, "breaks-early", "stream-error-0"),
            deployment(upstream, "breaks-late", "late"),
            deployment(upstream, "backup", "backup"),
            deployment(upstream, "wrong-key", "status-401"),
            deployment(upstream, "wrong-variable-key", "status-401", **key_of_variable),
            deployment(upstream, "tired", "retry-after-7"),
            deployment(upstream, "tired", "retry-after-8"),
            deployment(upstream, "hangs", "hang"),
        ],
        "router_settings": {
            "num_retries": 0,  # but for the two that say so: LiteLLM waits a second or more before a retry
            "fallbacks": [{"down-with-backup": ["backup"]}, {"breaks-early": ["backup"]}, {"breaks-late": ["backup"]}],
        },
        "omni_bridge": {"provider_params": ["top_k"]},
    }


@pytest.fixture(scope="module")
def worker(upstream: Upstream, worker_for: WorkerFor) -> Worker:
    return worker_for("--log-level=info", config=config_of(upstream), env={"GATEWAY_TEST_KEY": VARIABLE_KEY})


@pytest.fixture
def fail(worker: Worker) -> Fail:
    def chat(model: str, **params: Any) -> Json:
        response = worker.call("chat", {"model": model, "messages": HELLO, **params})
        assert "error" in response, response
        assert KEY not in json.dumps(response)
        assert VARIABLE_KEY not in json.dumps(response)
        error: Json = response["error"]
        return error

    return chat


# ---- which models there are --------------------------------------------------------------------------------------------------


@pytest.mark.rule("CHT-11", "RES-10")
def test_a_model_of_the_config_serves_under_its_name(worker: Worker, streamed: bool) -> None:
    result = worker.chat("backup", "Grüße 🦜", stream=streamed)
    assert result["content"] == REPLY
    assert (result["requested_model"], result["model"]) == ("backup", "backup-2026-01-01")
    assert result["provider"] == "openai"


@pytest.mark.rule("CHT-11")
@pytest.mark.parametrize(
    "model", ["openai/none", "left", "openai/gpt-4o-mini", "gpt-4o-mini", "ollama/llama3", "PAIR", "pair ", "*"]
)
def test_a_model_that_the_config_does_not_name_does_not_exist(fail: Fail, upstream: Upstream, model: str, streamed: bool) -> None:
    before = len(upstream.requests)
    error = fail(model, stream=streamed)
    assert (error["code"], error["data"]["kind"], error["data"]["model"]) == (1003, "model_not_found", model)
    assert len(upstream.requests) == before


@pytest.mark.rule("CHT-11")
def test_the_offline_models_are_there_too(worker: Worker) -> None:
    assert worker.chat("offline/echo", "still here")["content"] == "still here"


def test_both_deployments_of_a_name_are_used_each_with_its_key(worker: Worker, upstream: Upstream) -> None:
    for _ in range(40):  # chosen at random: that one is never chosen happens once in 2**39
        worker.chat("pair")
    keys = {request.model: request.headers["authorization"] for request in upstream.requests if request.model in ("left", "right")}
    assert keys == {"left": f"Bearer {KEY}", "right": f"Bearer {VARIABLE_KEY}"}


def test_a_price_in_the_config_counts(worker: Worker, streamed: bool) -> None:
    assert worker.chat("dear", stream=streamed)["cost_usd"] == pytest.approx(9 * 0.001 + 12 * 0.01)


def test_messages_and_parameters_reach_a_deployment_unchanged(worker: Worker, upstream: Upstream, streamed: bool) -> None:
    worker.chat("backup", "Grüße 🦜", stream=streamed, temperature=0.5, metadata={"trace": "1"}, deadlines={"total_ms": 60_000})
    stream = {"stream": True, "stream_options": {"include_usage": True}} if streamed else {"stream": False}  # the Router says so
    assert upstream.requests[-1].body == {"model": "backup", "messages": HELLO, "temperature": 0.5, **stream}


# ---- what a caller may say ---------------------------------------------------------------------------------------------------


@pytest.mark.rule("CHT-8")
def test_a_provider_param_that_the_operator_allows_reaches_the_provider(worker: Worker, upstream: Upstream, streamed: bool) -> None:
    worker.chat("backup", stream=streamed, provider_params={"top_k": 5})
    assert upstream.requests[-1].body["top_k"] == 5


@pytest.mark.rule("CHT-8", "CHT-3")
@pytest.mark.parametrize("name", ["min_p", "api_base", "fallbacks", "mock_response"])
def test_any_other_provider_param_is_refused(fail: Fail, upstream: Upstream, name: str) -> None:
    before = len(upstream.requests)
    error = fail("backup", provider_params={name: "x"})
    assert error["code"] == -32602
    assert f"provider_params.{name}" in error["message"]
    assert len(upstream.requests) == before


# ---- when a deployment fails -------------------------------------------------------------------------------------------------


@pytest.mark.rule("ERR-3")
def test_the_config_can_set_a_retry(worker: Worker, upstream: Upstream) -> None:
    assert worker.chat("flaky")["finish_reason"] == "stop"
    assert upstream.counts["flaky-1"] == 2


@pytest.mark.rule("ERR-3")
def test_when_the_retries_fail_too_the_error_is_the_providers(fail: Fail, upstream: Upstream) -> None:
    data = fail("down")["data"]
    assert (data["kind"], data["status"], data["provider"], data["model"]) == ("provider_unavailable", 503, "openai", "down")
    assert upstream.counts["status-503"] == 2


def test_a_fallback_serves_instead_of_a_deployment_that_is_down(worker: Worker, streamed: bool) -> None:
    result = worker.chat("down-with-backup", "Grüße 🦜", stream=streamed)
    assert result["content"] == REPLY
    assert (result["requested_model"], result["model"]) == ("down-with-backup", "backup-2026-01-01")


def test_a_stream_that_breaks_before_its_first_delta_falls_back(worker: Worker) -> None:
    id = worker.request("chat", {"model": "breaks-early", "messages": HELLO, "stream": True})
    result = worker.response(id)["result"]
    assert result["content"] == REPLY
    assert "".join(note["delta"].get("content", "") for note in worker.deltas(id)) == REPLY


@pytest.mark.rule("STR-7", "STR-8")
def test_a_stream_that_breaks_after_its_first_delta_does_not(worker: Worker, upstream: Upstream) -> None:
    gate, before = Gate(), upstream.counts["backup"]
    upstream.script("late", chunks=[chunk({"content": "I was"}), gate, End.CLOSE])
    id = worker.request("chat", {"model": "breaks-late", "messages": HELLO, "stream": True})
    worker.wait_for_delta(id)
    gate.set()
    data = worker.response(id)["error"]["data"]
    assert (data["kind"], data["partial"]["content"]) == ("stream_interrupted", "I was")
    assert (upstream.counts["late"], upstream.counts["backup"]) == (1, before)


def test_a_name_with_only_cooling_deployments_is_rate_limited(fail: Fail, upstream: Upstream) -> None:
    fail("tired")
    fail("tired")
    requests = upstream.counts["retry-after-7"] + upstream.counts["retry-after-8"]
    error = fail("tired")
    assert (error["data"]["kind"], error["data"]["model"], error["data"]["retryable"]) == ("rate_limited", "tired", True)
    assert 0 < error["data"]["retry_after_ms"] <= 8000
    assert upstream.counts["retry-after-7"] + upstream.counts["retry-after-8"] == requests


@pytest.mark.rule("ERR-5", "LOG-4")
@pytest.mark.parametrize("model", ["wrong-key", "wrong-variable-key"])
def test_a_key_of_the_config_is_never_sent_or_logged(fail: Fail, worker: Worker, model: str, streamed: bool) -> None:
    error = fail(model, stream=streamed)
    assert error["data"]["kind"] in ("authentication", "rate_limited")  # the latter while LiteLLM lets the deployment rest
    assert KEY not in worker.stderr
    assert VARIABLE_KEY not in worker.stderr


@pytest.mark.rule("CAN-2")
def test_a_cancel_closes_the_connection_of_a_deployment(worker: Worker, upstream: Upstream, streamed: bool) -> None:
    before = upstream.counts["hang"]
    id = worker.request("chat", {"model": "hangs", "messages": HELLO, "stream": streamed})
    request = upstream.wait_for_request(model="hang", nth=before + 1, timeout=30)
    worker.notify("notifications/cancelled", {"requestId": id})
    data = worker.response(id)["error"]["data"]
    assert (data["kind"], data["upstream_closed"]) == ("cancelled", True)
    request.wait_closed()


@pytest.mark.rule("CAN-2")
def test_a_cancel_in_the_middle_of_a_stream_closes_the_connection_of_a_deployment(worker: Worker, upstream: Upstream) -> None:
    upstream.script("right", chunks=[chunk({"content": "a"}), Gate(), DONE])
    upstream.script("left", chunks=[chunk({"content": "a"}), Gate(), DONE])
    before = len(upstream.requests)
    id = worker.request("chat", {"model": "pair", "messages": HELLO, "stream": True})
    worker.wait_for_delta(id)
    worker.notify("notifications/cancelled", {"requestId": id})
    data = worker.response(id)["error"]["data"]
    assert (data["upstream_closed"], data["partial"]["content"]) == (True, "a")
    (request,) = upstream.requests[before:]
    request.wait_closed()


# ---- faults of the config ----------------------------------------------------------------------------------------------------


@pytest.mark.rule("CFG-2", "EXT-2")
def test_an_error_in_the_config_ends_the_process(upstream: Upstream, tmp_path: Path) -> None:
    config = {"model_list": [deployment(upstream, "one", "one")], "router_settings": {"num_retries": "many"}}
    code, out, err = run("--stdio", "--config", str(write(tmp_path / "gateway.yaml", config)))
    assert (code, out) == (2, "")
    assert "router_settings.num_retries" in err
    assert err.count("\n") == 1
