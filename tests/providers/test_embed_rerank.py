"""`embed` and `rerank` against a provider on a real socket, on the paths that OpenAI and Cohere have for them."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator

import pytest

from tests.conftest import WorkerFor
from tests.support.upstream import Gate, Json, Upstream
from tests.support.upstream_format import SMALL, embeddings
from tests.support.worker import Worker

MARK = "sk-secret-123"


@pytest.fixture(scope="module")
def provider() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def worker(provider: Upstream, worker_for: WorkerFor) -> Worker:
    keys = {"OPENAI_API_KEY": MARK, "COHERE_API_KEY": "co-secret-456"}
    return worker_for(env=keys | {"OPENAI_BASE_URL": provider.base_url, "COHERE_API_BASE": provider.base_url})


def in_base64(*numbers: float) -> str:
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


def error_of(response: Json) -> tuple[int, str]:
    return response["error"]["code"], response["error"]["data"]["kind"]


@pytest.mark.rule("EMB-1", "EMB-3")
def test_each_input_has_its_embedding_in_order_with_usage_and_cost(provider: Upstream, worker: Worker) -> None:
    provider.script(SMALL, body=embeddings([0.25, 2.0], [0.5, 1.0]))
    result = worker.call("embed", {"model": f"openai/{SMALL}", "input": ["a", "b"], "dimensions": 2, "user": "someone"})["result"]
    assert result["embeddings"] == [[0.25, 2.0], [0.5, 1.0]]
    assert (result["usage"]["input_tokens"], result["usage"]["total_tokens"], result["usage"]["output_tokens"]) == (8, 8, None)
    assert result["cost_usd"] == pytest.approx(8 * 2e-8)
    assert (result["model"], result["requested_model"], result["provider"]) == (SMALL, f"openai/{SMALL}", "openai")
    request = provider.requests[-1]
    assert request.path == "/v1/embeddings"
    assert request.headers["authorization"] == f"Bearer {MARK}"
    assert {name: request.body[name] for name in ("input", "dimensions", "user")} == {
        "input": ["a", "b"],
        "dimensions": 2,
        "user": "someone",
    }


@pytest.mark.rule("EMB-1")
def test_a_single_input_is_a_list_of_one(provider: Upstream, worker: Worker) -> None:
    provider.script("single", body=embeddings([1.0]))
    assert worker.call("embed", {"model": "openai/single", "input": "a"})["result"]["embeddings"] == [[1.0]]


@pytest.mark.rule("EMB-2")
@pytest.mark.parametrize("sent", ["numbers", "base64"])
@pytest.mark.parametrize("requested", ["float", "base64", None])
def test_the_encoding_is_the_requested_one_whatever_the_provider_sends(
    provider: Upstream, worker: Worker, sent: str, requested: str | None
) -> None:
    model = f"encoded-{sent}-{requested}"
    provider.script(model, body=embeddings([0.5, -3.0] if sent == "numbers" else in_base64(0.5, -3.0)))
    params = {"model": f"openai/{model}", "input": "a"} | ({"encoding_format": requested} if requested else {})
    (embedding,) = worker.call("embed", params)["result"]["embeddings"]
    assert embedding == (in_base64(0.5, -3.0) if requested == "base64" else [0.5, -3.0])


@pytest.mark.rule("EMB-3")
def test_usage_and_cost_that_are_not_known_are_null(provider: Upstream, worker: Worker) -> None:
    provider.script("unpriced", body=embeddings([1.0], model="unpriced"))
    result = worker.call("embed", {"model": "openai/unpriced", "input": "a"})["result"]
    assert result["usage"]["input_tokens"] == 8
    assert result["cost_usd"] is None
    provider.script("uncounted", body=embeddings([1.0], tokens=0))
    result = worker.call("embed", {"model": "openai/uncounted", "input": "a"})["result"]
    assert (result["usage"], result["cost_usd"]) == (None, None)


@pytest.mark.rule("EMB-4")
@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("too-few", embeddings([1.0])),
        ("too-many", embeddings([1.0], [1.0], [1.0])),
        ("no-numbers", embeddings(["a"], [1.0])),
        ("no-base64", embeddings("%%%", [1.0])),
        ("half-a-float", embeddings("AAA=", [1.0])),
        ("empty", embeddings([], [1.0])),
        ("not-finite", embeddings(in_base64(float("nan")), [1.0])),
        ("nothing", {}),
    ],
)
def test_a_response_without_embeddings_is_a_bad_upstream_response(
    provider: Upstream, worker: Worker, name: str, body: Json
) -> None:
    provider.script(name, body=body)
    assert error_of(worker.call("embed", {"model": f"openai/{name}", "input": ["a", "b"]})) == (1011, "bad_upstream_response")


@pytest.mark.rule("EMB-5", "RNK-4")
@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, "authentication"), (404, "model_not_found"), (400, "rejected_by_provider"), (429, "rate_limited")],
)
@pytest.mark.parametrize("method", ["embed", "rerank"])
def test_a_refusal_is_reported_like_that_of_a_chat_and_not_retried(
    provider: Upstream, worker: Worker, method: str, status: int, kind: str
) -> None:
    model = f"{method}-{status}"
    body = {"error": {"message": f"no, {MARK}", "type": "x", "code": "x"}, "message": f"no, {MARK}"}
    provider.script(model, status=status, headers={"retry-after": "7"}, body=body)
    response = worker.call(method, params_of(method, model))
    assert response["error"]["data"]["kind"] == kind
    assert response["error"]["data"]["status"] == status
    assert (response["error"]["data"]["retry_after_ms"] == 7000) == (status == 429)
    assert MARK not in response["error"]["message"]
    assert provider.counts[model] == 1


@pytest.mark.rule("EMB-5", "RNK-4", "STA-2")
@pytest.mark.parametrize("method", ["embed", "rerank"])
def test_a_cancel_closes_the_connection_before_the_response(provider: Upstream, worker: Worker, method: str) -> None:
    model = f"held-{method}"
    provider.script(model, body={}, before=Gate())
    id = worker.request(method, params_of(method, model))
    held = provider.wait_for_request(model, timeout=30)
    before = worker.call("status")["result"]["requests"]
    worker.notify("notifications/cancelled", {"requestId": id})
    response = worker.response(id)
    assert error_of(response) == (-32800, "cancelled")
    assert response["error"]["data"]["upstream_closed"] is True
    held.wait_closed(timeout=30)
    after = worker.call("status")["result"]["requests"]
    assert (before["in_flight"], after["in_flight"]) == (2, 1)
    assert after["outcomes"]["cancelled"] == before["outcomes"].get("cancelled", 0) + 1


@pytest.mark.rule("EMB-5", "RNK-4")
@pytest.mark.parametrize("method", ["embed", "rerank"])
def test_a_deadline_ends_it_and_is_named(provider: Upstream, worker: Worker, method: str) -> None:
    model = f"late-{method}"
    provider.script(model, body={}, before=Gate())
    response = worker.call(method, params_of(method, model) | {"deadlines": {"total_ms": 50}})
    assert error_of(response) == (1009, "timeout")
    assert response["error"]["data"]["deadline"] == "total_ms"


def params_of(method: str, model: str) -> Json:
    if method == "embed":
        return {"model": f"openai/{model}", "input": "a"}
    return {"model": f"cohere/{model}", "query": "a", "documents": ["b"]}


@pytest.mark.rule("EMB-6", "RNK-5")
@pytest.mark.parametrize("method", ["embed", "rerank"])
@pytest.mark.parametrize("member", ["api_base", "temperature"])
def test_params_are_as_strict_as_those_of_a_chat(worker: Worker, method: str, member: str) -> None:
    response = worker.call(method, params_of(method, "any") | {member: "https://example.com"})
    assert error_of(response) == (-32602, "invalid_request")
    assert member in response["error"]["message"]
    response = worker.call(method, params_of(method, "any") | {"provider_params": {"input_type": "x"}})
    assert "provider_params.input_type" in response["error"]["message"]


def ranking(*scores: tuple[int, float]) -> Json:
    results = [{"index": index, "relevance_score": score} for index, score in scores]
    return {"id": "r", "results": results, "meta": {"billed_units": {"search_units": 1}, "tokens": {"input_tokens": 12}}}


@pytest.mark.rule("RNK-1", "RNK-2")
def test_documents_come_back_the_most_relevant_first(provider: Upstream, worker: Worker) -> None:
    provider.script("rerank-v3.5", body=ranking((0, 0.1), (2, 0.9), (1, 0.4)))
    params = {"model": "cohere/rerank-v3.5", "query": "fox", "documents": ["a", "b", "c"], "top_n": 2}
    result = worker.call("rerank", params)["result"]
    assert result["results"] == [
        {"index": 2, "score": 0.9, "document": None},
        {"index": 1, "score": 0.4, "document": None},
    ]
    assert result["usage"]["input_tokens"] == 12
    assert result["cost_usd"] == 0.002
    assert (result["model"], result["requested_model"], result["provider"]) == ("rerank-v3.5", "cohere/rerank-v3.5", "cohere")
    request = provider.requests[-1]
    assert request.path.endswith("/rerank")
    assert {name: request.body[name] for name in ("query", "documents", "top_n")} == {
        "query": "fox",
        "documents": ["a", "b", "c"],
        "top_n": 2,
    }


@pytest.mark.rule("RNK-2")
def test_documents_are_returned_when_they_were_requested(provider: Upstream, worker: Worker) -> None:
    provider.script("with-documents", body=ranking((1, 0.5), (0, 0.2)))
    params = {"model": "cohere/with-documents", "query": "q", "documents": ["a", "b"], "return_documents": True}
    assert [row["document"] for row in worker.call("rerank", params)["result"]["results"]] == ["b", "a"]


@pytest.mark.rule("RNK-3")
@pytest.mark.parametrize(
    ("name", "scores"), [("beyond", [(5, 0.5)]), ("twice", [(0, 0.5), (0, 0.4)]), ("none", []), ("negative", [(-1, 0.5)])]
)
def test_a_ranking_of_other_documents_is_a_bad_upstream_response(
    provider: Upstream, worker: Worker, name: str, scores: list[tuple[int, float]]
) -> None:
    provider.script(name, body=ranking(*scores))
    response = worker.call("rerank", {"model": f"cohere/{name}", "query": "q", "documents": ["a", "b"]})
    assert error_of(response) == (1011, "bad_upstream_response")


@pytest.mark.rule("EMB-5", "RNK-4")
def test_a_model_with_an_interactive_login_is_refused(worker: Worker) -> None:
    for method in ("embed", "rerank"):
        params = params_of(method, "any") | {"model": "github_copilot/any"}
        assert error_of(worker.call(method, params)) == (1003, "model_not_found")
