"""The mode that serves a chat: direct, lane, full, or LiteLLM's own path; and what the receipt reports of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Spawn
from tests.support.data import KEY
from tests.support.upstream import Upstream
from tests.support.worker import Json, Worker


def deployment(upstream: Upstream, name: str, model: str, **params: Any) -> Json:
    litellm_params = {"model": f"openai/{model}", "api_key": KEY, "api_base": upstream.base_url, **params}
    return {"model_name": name, "litellm_params": litellm_params, "model_info": {"id": f"id-of-{name}-{model}"}}


def gateway(spawn: Spawn, path: Path, models: list[Json], **sections: Any) -> Worker:
    path.write_text(json.dumps({"model_list": models, **sections}), encoding="utf-8")
    path.chmod(0o600)
    return spawn("--config", str(path))


def engine_of(worker: Worker, model: str, **params: Any) -> Json:
    engine: Json = worker.chat(model, **params)["receipt"]["engine"]
    return engine


@pytest.mark.rule("RCP-5", "STA-4")
def test_without_a_config_a_chat_is_served_directly(spawn: Spawn, upstream: Upstream) -> None:
    worker = spawn("--engine", "direct", env={"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": upstream.base_url})
    assert engine_of(worker, "openai/gpt-4o-mini")["name"] == "litellm-direct"
    assert engine_of(worker, "offline/echo")["name"] == "offline"
    refused = worker.call("chat", {"model": "replicate/owner/name", "messages": [{"role": "user", "content": "hi"}]})
    assert refused["error"]["data"]["kind"] == "model_not_found"
    assert "--engine auto" in refused["error"]["message"]
    engines = worker.call("status")["result"]["requests"]["engines"]
    assert (engines["litellm-direct"], engines["offline"]) == (2, 1)  # one of them was refused


@pytest.mark.rule("RCP-5")
def test_litellms_own_path_serves_everything_when_the_operator_sets_it(spawn: Spawn, upstream: Upstream, streamed: bool) -> None:
    worker = spawn("--engine", "litellm", env={"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": upstream.base_url})
    engine = engine_of(worker, "openai/gpt-4o-mini", stream=streamed)
    assert (engine["name"], engine["reason"]) == ("litellm", "the worker was started with --engine litellm")


@pytest.mark.rule("RCP-5")
def test_a_plain_group_takes_the_lane_once_the_router_has_taught_it(
    spawn: Spawn, upstream: Upstream, tmp_path: Path, streamed: bool
) -> None:
    models = [deployment(upstream, "g", "one"), deployment(upstream, "g", "two")]
    worker = gateway(spawn, tmp_path / "config.yaml", models)
    names = [engine_of(worker, "g", stream=streamed)["name"] for _ in range(30)]

    assert names[0] == "litellm-full"
    assert names.count("litellm-full") <= 2 * len(models)  # a deployment that the lane picks first is the Router's to call
    assert names[-1] == "litellm-lane"
    assert {request.model for request in upstream.requests} == {"one", "two"}


@pytest.mark.rule("RCP-5")
def test_the_first_failure_closes_the_lane_and_the_router_sees_it(
    spawn: Spawn, upstream: Upstream, tmp_path: Path, streamed: bool
) -> None:
    models = [deployment(upstream, "g", "gpt-4o-mini"), deployment(upstream, "spare", "spare")]
    settings = {"fallbacks": [{"g": ["spare"]}], "num_retries": 0, "allowed_fails": 0, "cooldown_time": 60}
    worker = gateway(spawn, tmp_path / "config.yaml", models, router_settings=settings)
    while engine_of(worker, "g", stream=streamed)["name"] != "litellm-lane":
        pass
    before = len(upstream.requests)
    upstream.script("gpt-4o-mini", status=503, body={"error": {"message": "down", "type": "server_error"}})
    receipt = worker.chat("g", stream=streamed)["receipt"]

    assert [(attempt["outcome"], attempt["model"]) for attempt in receipt["attempts"]] == [
        ("provider_unavailable", "gpt-4o-mini"),
        ("ok", "spare"),
    ]
    assert (receipt["fallback"], receipt["engine"]["name"]) == (True, "litellm-full")
    assert len(upstream.requests) == before + 2  # nothing is sent twice
    after = worker.chat("g", stream=streamed)["receipt"]
    assert [attempt["model"] for attempt in after["attempts"]] == ["spare"]  # the Router lets the deployment cool down
    assert after["engine"]["reason"] == "a deployment of this model has failed a moment ago"


@pytest.mark.rule("RCP-5")
@pytest.mark.parametrize(
    ("params", "settings", "reason"),
    [
        ({"rpm": 1000}, {}, "the model's deployments have limits, tags, an order or a wildcard"),
        ({}, {"routing_strategy": "least-busy"}, "the config has a routing strategy"),
    ],
    ids=["a limit", "a strategy"],
)
def test_what_the_lane_can_not_weigh_is_the_routers(
    params: Json, settings: Json, reason: str, spawn: Spawn, upstream: Upstream, tmp_path: Path
) -> None:
    worker = gateway(spawn, tmp_path / "config.yaml", [deployment(upstream, "g", "one", **params)], router_settings=settings)
    for _ in range(3):
        engine = engine_of(worker, "g")
        assert (engine["name"], engine["reason"]) == ("litellm-full", reason)


def test_a_cache_serves_a_chat_again_without_a_call(spawn: Spawn, upstream: Upstream, tmp_path: Path, streamed: bool) -> None:
    cache = {"cache": True, "cache_params": {"type": "local"}}
    worker = gateway(spawn, tmp_path / "config.yaml", [deployment(upstream, "g", "gpt-4o-mini")], litellm_settings=cache)
    first, second = (worker.chat("g", stream=streamed) for _ in range(2))
    assert (first["content"], len(upstream.requests)) == (second["content"], 1)
    assert (second["cost_source"], second["receipt"]["attempts"]) == ("cache", [])
    assert second["receipt"]["engine"]["reason"] == "a callback, a cache or a budget listens"
