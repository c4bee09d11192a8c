"""What a result and an error say of the way of a request: the attempts, what did not arrive, the price and its source."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge_worker.schema.chat_result import Receipt
from tests.conftest import Spawn
from tests.support.upstream import DONE, Gate, Upstream, chunk
from tests.support.worker import Json, Worker

KEY = "sk-secret-1234567890"
USER = [{"role": "user", "content": "hello"}]


def deployment(name: str, model: str, upstream: Upstream, **more: Any) -> Json:
    params = {"model": f"openai/{model}", "api_base": upstream.base_url, "api_key": KEY, **more}
    return {"model_name": name, "litellm_params": params, "model_info": {"id": f"id-of-{model}"}}


@pytest.fixture
def routed(upstream: Upstream, spawn: Spawn, tmp_path: Path) -> Worker:
    """A worker with a config: "wanted" fails and falls back to "spare"; "priced" has prices of its own; "flaky" is tried again."""
    models = [
        deployment("wanted", "status-503", upstream),
        deployment("spare", "gpt-4o-mini", upstream),
        deployment("priced", "own", upstream, input_cost_per_token=1.0, output_cost_per_token=2.0),
        deployment("unpriced", "unheard-of", upstream),
        deployment("flaky", "flaky-1", upstream, num_retries=1),
        deployment("broken", "status-429", upstream),
    ]
    settings = {"fallbacks": [{"wanted": ["spare"]}], "num_retries": 0, "disable_cooldowns": True}
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps({"model_list": models, "router_settings": settings}), encoding="utf-8")
    return spawn("--config", str(config))


@pytest.mark.rule("RCP-2", "RCP-3", "RCP-5")
@pytest.mark.parametrize("stream", [False, True])
def test_a_fallback_is_reported_with_both_attempts(routed: Worker, stream: bool) -> None:
    receipt = routed.chat("wanted", stream=stream)["receipt"]

    attempts = [(attempt["outcome"], attempt["status"], attempt["model"], attempt["deployment"]) for attempt in receipt["attempts"]]
    assert attempts == [
        ("provider_unavailable", 503, "status-503", "id-of-status-503"),
        ("ok", None, "gpt-4o-mini", "id-of-gpt-4o-mini"),
    ]
    assert all(attempt["ms"] > 0 and attempt["provider"] == "openai" for attempt in receipt["attempts"])
    assert (receipt["requested_model"], receipt["served_model"]) == ("wanted", "gpt-4o-mini-2026-01-01")
    assert (receipt["deployment"], receipt["fallback"]) == ("id-of-gpt-4o-mini", True)
    assert receipt["engine"]["name"] == "litellm-full"
    assert receipt["engine"]["version"].count(".") == 2


@pytest.mark.rule("RCP-2")
def test_a_retry_is_a_separate_attempt(routed: Worker) -> None:
    receipt = routed.chat("flaky")["receipt"]

    assert [attempt["outcome"] for attempt in receipt["attempts"]] == ["provider_unavailable", "ok"]
    assert receipt["fallback"] is False


@pytest.mark.rule("RCP-1", "RCP-6")
def test_an_error_has_its_receipt_without_a_secret(routed: Worker, upstream: Upstream) -> None:
    error = routed.call("chat", {"model": "broken", "messages": USER})["error"]

    receipt = error["data"]["receipt"]
    assert [(attempt["outcome"], attempt["status"]) for attempt in receipt["attempts"]] == [("rate_limited", 429)]
    text = json.dumps(receipt)
    assert KEY not in text
    assert upstream.base_url not in text
    assert "authorization" not in text.lower()


@pytest.mark.rule("RES-16")
def test_a_deployments_own_price_counts_first(routed: Worker) -> None:
    result = routed.chat("priced")

    usage = result["usage"]
    assert result["cost_usd"] == pytest.approx(usage["input_tokens"] * 1.0 + usage["output_tokens"] * 2.0)
    assert (result["cost_source"], result["price_map_date"]) == ("deployment", None)


@pytest.mark.rule("RES-16")
def test_a_model_of_the_config_that_no_price_is_known_of_is_not_free(routed: Worker) -> None:
    result = routed.chat("unpriced")

    assert result["usage"] is not None
    assert (result["cost_usd"], result["cost_source"], result["price_map_date"]) == (None, None, None)


@pytest.mark.rule("RES-16")
@pytest.mark.parametrize("stream", [False, True])
def test_a_providers_own_figure_is_the_cost(spawn: Spawn, upstream: Upstream, stream: bool) -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7, "cost": 0.0021}
    message = {"role": "assistant", "content": "hi"}
    head = {"id": "gen-1", "created": 1, "model": "some/model"}
    choice = {"index": 0, "finish_reason": "stop"}
    whole = head | {"object": "chat.completion", "choices": [choice | {"message": message}], "usage": usage}
    chunk = head | {"object": "chat.completion.chunk", "choices": [choice | {"delta": message}]}
    last = head | {"object": "chat.completion.chunk", "choices": [], "usage": usage}
    upstream.script("some/model", **({"chunks": [chunk, last, b"data: [DONE]\n\n"]} if stream else {"body": whole}))
    worker = spawn(env={"OPENROUTER_API_KEY": "sk-or-test-0001", "OPENROUTER_API_BASE": upstream.base_url})

    result = worker.chat("openrouter/some/model", stream=stream)

    assert (result["cost_usd"], result["cost_source"]) == (0.0021, "provider")


@pytest.mark.rule("RCP-1", "RCP-2")
def test_a_deadline_and_a_cancel_end_their_attempts(worker: Worker, upstream: Upstream) -> None:
    worker.chat("openai/gpt-4o-mini")  # so that LiteLLM is loaded, and the deadline falls into the call
    late = worker.call("chat", {"model": "openai/hang", "messages": USER, "deadlines": {"total_ms": 300}})
    id = worker.request("chat", {"model": "openai/hang-after-1", "messages": USER, "stream": True})
    worker.wait_for_delta(id)
    worker.notify("notifications/cancelled", {"requestId": id})
    cancelled = worker.response(id)

    assert [attempt["outcome"] for attempt in late["error"]["data"]["receipt"]["attempts"]] == ["timeout"]
    assert [attempt["outcome"] for attempt in cancelled["error"]["data"]["receipt"]["attempts"]] == ["cancelled"]


@pytest.mark.rule("RCP-1")
def test_a_chat_without_a_provider_call_has_no_attempts(worker: Worker) -> None:
    receipt = worker.chat("offline/echo")["receipt"]

    assert (receipt["attempts"], receipt["dropped"], receipt["engine"]["name"]) == ([], [], "offline")


@pytest.mark.rule("RCP-4")
def test_params_that_were_not_sent_are_named(spawn: Spawn, upstream: Upstream) -> None:
    worker = spawn(env={"HOSTED_VLLM_API_KEY": "vllm-test-0001", "HOSTED_VLLM_API_BASE": upstream.base_url})
    messages = [{"role": "user", "content": [{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}]}]

    receipt = worker.chat("hosted_vllm/m", messages=messages, metadata={"session": "7"})["receipt"]

    assert {change["param"]: change["change"] for change in receipt["dropped"]} == {
        "cache_control": "dropped",
        "metadata": "dropped",
    }


# --- embeddings and rankings ----------------------------------------------------------------------------------------------------

VECTOR = {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}], "model": "served-vectors"}
COUNTED = VECTOR | {"usage": {"prompt_tokens": 4, "total_tokens": 4}}
RANKING = {"id": "r", "results": [{"index": 0, "relevance_score": 0.5}], "meta": {"billed_units": {"search_units": 1}}}
EMBED = {"input": "a", "user": "someone"}
RERANK = {"query": "q", "documents": ["a"], "top_n": 1}


@pytest.fixture(scope="module")
def provider() -> Iterator[Upstream]:
    with Upstream() as provider:
        for model in ("vectors", "spare-vectors", "text-embedding-3-small"):
            provider.script(model, body=COUNTED)
        for model in ("ranks", "rerank-v3.5"):
            provider.script(model, body=RANKING)
        provider.script("bad-vectors", body=COUNTED | {"data": []})
        provider.script("bad-ranks", body=RANKING | {"results": []})
        for model, status in (("wanted-vectors", 503), ("refused-vectors", 429), ("refused-ranks", 429)):
            provider.script(model, status=status, body={"error": {"message": f"no, {KEY}"}, "message": f"no, {KEY}"})
        for model in ("held-vectors", "held-ranks"):
            provider.script(model, body={}, before=Gate())
        yield provider


@pytest.fixture(scope="module")
def services(provider: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """Embeddings of "wanted-vectors" fail and fall back; those of "vectors" have a price of their own, and so has "ranks"."""

    def ranker(name: str, **more: Any) -> Json:
        row = deployment(name, name, provider, **more)
        row["litellm_params"]["model"] = f"cohere/{name}"
        return row

    models = [
        deployment("wanted-vectors", "wanted-vectors", provider),
        deployment("spare-vectors", "spare-vectors", provider),
        deployment("vectors", "vectors", provider, input_cost_per_token=1.0, output_cost_per_token=0.0),
        deployment("text-embedding-3-small", "text-embedding-3-small", provider),
        deployment("refused-vectors", "refused-vectors", provider),
        deployment("bad-vectors", "bad-vectors", provider),
        deployment("held-vectors", "held-vectors", provider),
        ranker("ranks", input_cost_per_query=3.0),
        ranker("rerank-v3.5"),
        ranker("refused-ranks"),
        ranker("bad-ranks"),
        ranker("held-ranks"),
    ]
    settings = {"fallbacks": [{"wanted-vectors": ["spare-vectors"]}], "num_retries": 0, "disable_cooldowns": True}
    config = tmp_path_factory.mktemp("services") / "config.yaml"
    config.write_text(json.dumps({"model_list": models, "router_settings": settings}), encoding="utf-8")
    with Worker("--config", str(config)) as worker:
        yield worker


@pytest.mark.rule("RCP-7", "RCP-2", "RCP-3", "RCP-5")
def test_an_embedding_reports_both_attempts_of_a_fallback(services: Worker) -> None:
    result = services.call("embed", {"model": "wanted-vectors", **EMBED})["result"]
    receipt = result["receipt"]

    attempts = [(attempt["outcome"], attempt["status"], attempt["model"], attempt["deployment"]) for attempt in receipt["attempts"]]
    assert attempts == [
        ("provider_unavailable", 503, "wanted-vectors", "id-of-wanted-vectors"),
        ("ok", None, "spare-vectors", "id-of-spare-vectors"),
    ]
    assert all(attempt["ms"] > 0 and attempt["provider"] == "openai" for attempt in receipt["attempts"])
    assert (receipt["requested_model"], receipt["served_model"]) == ("wanted-vectors", "served-vectors")
    assert (receipt["deployment"], receipt["fallback"], receipt["dropped"]) == ("id-of-spare-vectors", True, [])
    assert receipt["engine"]["name"] == "litellm"


@pytest.mark.rule("RCP-7", "RCP-2", "RCP-4")
def test_a_ranking_has_the_receipt_of_a_chat(services: Worker) -> None:
    receipt = services.call("rerank", {"model": "ranks", **RERANK})["result"]["receipt"]

    attempts = [(attempt["outcome"], attempt["provider"], attempt["deployment"]) for attempt in receipt["attempts"]]
    assert attempts == [("ok", "cohere", "id-of-ranks")]
    assert (receipt["requested_model"], receipt["served_model"], receipt["dropped"]) == ("ranks", "ranks", [])
    assert Receipt.model_validate(receipt).model_dump() == receipt


@pytest.mark.rule("EMB-3", "RES-16")
@pytest.mark.parametrize(
    ("method", "params", "cost", "source"),
    [
        ("embed", {"model": "vectors", **EMBED}, 4.0, "deployment"),
        ("embed", {"model": "text-embedding-3-small", **EMBED}, 4 * 2e-8, "price_map"),
        ("embed", {"model": "spare-vectors", **EMBED}, None, None),
        ("rerank", {"model": "ranks", **RERANK}, 3.0, "deployment"),
        ("rerank", {"model": "rerank-v3.5", **RERANK}, 0.002, "price_map"),
        ("embed", {"model": "offline/embed", "input": "a"}, 0.0, "provider"),
    ],
)
def test_the_source_of_a_cost_is_reported(
    services: Worker, method: str, params: Json, cost: float | None, source: str | None
) -> None:
    result = services.call(method, params)["result"]

    assert (result["cost_usd"], result["cost_source"]) == (cost if cost is None else pytest.approx(cost), source)
    assert (result["price_map_date"] is not None) == (source == "price_map")


@pytest.mark.rule("RCP-7", "RCP-6")
@pytest.mark.parametrize(
    ("method", "params", "outcome", "status"),
    [
        ("embed", {"model": "refused-vectors", **EMBED}, "rate_limited", 429),
        ("embed", {"model": "bad-vectors", **EMBED}, "bad_upstream_response", None),
        ("embed", {"model": "held-vectors", **EMBED, "deadlines": {"total_ms": 300}}, "timeout", None),
        ("rerank", {"model": "refused-ranks", **RERANK}, "rate_limited", 429),
        ("rerank", {"model": "bad-ranks", **RERANK}, "bad_upstream_response", None),
        ("rerank", {"model": "held-ranks", **RERANK, "deadlines": {"total_ms": 300}}, "timeout", None),
    ],
)
def test_an_error_of_other_methods_has_its_receipt_without_a_secret(
    services: Worker, provider: Upstream, method: str, params: Json, outcome: str, status: int | None
) -> None:
    services.call("embed", {"model": "vectors", **EMBED})  # so that LiteLLM is loaded, and the deadline falls into the call
    data = services.call(method, params)["error"]["data"]

    attempts = data["receipt"]["attempts"]
    assert (data["kind"], [(attempt["outcome"], attempt["status"]) for attempt in attempts]) == (outcome, [(outcome, status)])
    assert attempts[0]["ms"] > 0
    assert data["receipt"]["requested_model"] == params["model"]
    assert KEY not in json.dumps(data["receipt"])
    assert provider.base_url not in json.dumps(data["receipt"])


@pytest.mark.rule("RCP-7")
@pytest.mark.parametrize(
    ("method", "params"), [("embed", {"model": "held-vectors", **EMBED}), ("rerank", {"model": "held-ranks", **RERANK})]
)
def test_a_cancel_of_other_methods_ends_its_attempt(services: Worker, provider: Upstream, method: str, params: Json) -> None:
    before = provider.counts[params["model"]]
    id = services.request(method, params)
    provider.wait_for_request(params["model"], nth=before + 1, timeout=30)
    services.notify("notifications/cancelled", {"requestId": id})

    receipt = services.response(id)["error"]["data"]["receipt"]

    assert [attempt["outcome"] for attempt in receipt["attempts"]] == ["cancelled"]


@pytest.mark.rule("RCP-7", "RCP-1")
def test_other_methods_without_a_provider_call_have_no_attempts(services: Worker) -> None:
    receipt = services.call("rerank", {"model": "offline/rerank", **RERANK})["result"]["receipt"]
    assert (receipt["attempts"], receipt["dropped"], receipt["engine"]["name"]) == ([], [], "offline")
    receipt = services.call("embed", {"model": "nothing", **EMBED})["error"]["data"]["receipt"]
    assert (receipt["attempts"], receipt["requested_model"]) == ([], "nothing")


@pytest.mark.rule("RCP-8")
def test_what_the_bridge_and_litellm_put_into_a_request_is_named(worker: Worker, upstream: Upstream) -> None:
    plain, streamed = (worker.chat("openai/gpt-4o-mini", stream=stream, temperature=0.5)["receipt"] for stream in (False, True))
    assert (plain["added"], plain["dropped"]) == ([], [])
    assert streamed["added"] == [{"param": "stream_options", "sent": None}]
    assert upstream.requests[-1].body["stream_options"] == {"include_usage": True}


@pytest.mark.rule("RCP-9")
@pytest.mark.parametrize("stream", [False, True])
def test_a_member_that_the_result_has_no_place_for_is_named_and_kept_in_the_message(
    stream: bool, worker: Worker, upstream: Upstream
) -> None:
    message = {"role": "assistant", "content": "so", "moon_phase": "full"}
    if stream:
        upstream.script("odd", chunks=[chunk(message), chunk({}, "stop"), DONE])
    else:
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        upstream.script("odd", body={"id": "a", "object": "chat.completion", "created": 1, "model": "odd", "choices": [choice]})
    result = worker.chat("openai/odd", stream=stream)

    assert result["receipt"]["kept"] == ["message.moon_phase"]
    assert "full" in json.dumps(result["message"])
