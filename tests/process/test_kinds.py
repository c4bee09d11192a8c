"""-32603 is a fault of the bridge and of nothing else: whatever a model's name, a missing key or a provider's response is like."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import litellm
import pytest

from tests.support.provider_hosts import _SETTINGS
from tests.support.upstream import Upstream
from tests.support.worker import Json, Worker

PROVIDERS = [str(getattr(provider, "value", provider)) for provider in litellm.provider_list]
HELLO: list[Json] = [{"role": "user", "content": "hello"}]
KEY = "sk-0123456789abcdef"
NAMES = ("{}/m", "{}", "{}/", "{}/a/b c/ü", "{}/" + "y" * 1_000, "{}/" + "y" * 10_000)
DEADLINES = {"total_ms": 20_000}


@pytest.fixture
def nowhere() -> Iterator[dict[str, str]]:
    """Variables of a proxy that refuses each connection, so that no request leaves this machine."""
    with socket.socket() as refusing:
        refusing.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{refusing.getsockname()[1]}"
        yield dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), address)


def error_of(worker: Worker, method: str, params: Json) -> Json:
    response = worker.call(method, params | {"deadlines": DEADLINES})
    assert "error" in response, f"it went through: {params}"
    error: Json = response["error"]
    return error


@pytest.mark.rule("ERR-11")
@pytest.mark.parametrize("with_key", [False, True], ids=["no-key", "only-its-key"])
def test_no_name_of_a_provider_and_a_model_is_an_internal_error(nowhere: dict[str, str], with_key: bool) -> None:
    keys = {f"{provider.upper()}_API_KEY": KEY for provider in PROVIDERS} | _SETTINGS if with_key else {}
    wrong = []
    with Worker(env=nowhere | keys) as worker:
        for provider in PROVIDERS:
            calls = [("chat", {"model": name.format(provider), "messages": HELLO}) for name in NAMES]
            calls.append(("embed", {"model": f"{provider}/m", "input": "x"}))
            calls.append(("rerank", {"model": f"{provider}/m", "query": "x", "documents": ["y"]}))
            for method, params in calls:
                error = error_of(worker, method, params)
                if error["data"]["kind"] == "internal" or nowhere["HTTP_PROXY"].removeprefix("http://") in error["message"]:
                    wrong.append((method, params["model"][:60], error["message"]))
    assert wrong == []


@pytest.mark.rule("ERR-11")
def test_without_a_key_openai_gets_no_request(nowhere: dict[str, str]) -> None:
    with Worker(env=nowhere) as worker:
        error = error_of(worker, "chat", {"model": "openai/gpt-4o-mini", "messages": HELLO})
    assert (error["code"], error["data"]["kind"]) == (1001, "authentication")
    assert "OPENAI_API_KEY" in error["message"]


@pytest.mark.rule("ERR-11")
@pytest.mark.parametrize(("method", "reason"), [("embed", "embeddings"), ("rerank", "reranking")])
def test_a_provider_without_the_method_is_named(nowhere: dict[str, str], method: str, reason: str) -> None:
    params = {"input": "x"} if method == "embed" else {"query": "x", "documents": ["y"]}
    with Worker(env=nowhere | {"ANTHROPIC_API_KEY": KEY}) as worker:
        error = error_of(worker, method, {"model": "anthropic/m", **params})
    assert (error["code"], error["message"]) == (1004, f"anthropic has no {reason} here")


def reply(**changes: Any) -> Json:
    message = {"role": "assistant", "content": "fine", **changes.pop("message", {})}
    choice = {"index": 0, "message": message, "finish_reason": "stop", **changes.pop("choice", {})}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage, **changes}


def logprobs(value: object) -> Json:
    return {"choice": {"logprobs": {"content": [{"token": "a", "logprob": value, "bytes": [1], "top_logprobs": []}]}}}


ODD: dict[str, Json] = {
    "integer-id": reply(id=7),
    "null-id": reply(id=None),
    "list-id": reply(id=[1]),
    "content-list": reply(message={"content": [{"type": "text", "text": "fine"}]}),
    "content-number": reply(message={"content": 5}),
    "content-object": reply(message={"content": {"a": 1}}),
    "reasoning-list": reply(message={"reasoning_content": ["x"]}),
    "reasoning-number": reply(message={"reasoning_content": 5}),
    "annotations-text": reply(message={"annotations": "x"}),
    "annotations-object": reply(message={"annotations": {"a": 1}}),
    "annotations-numbers": reply(message={"annotations": [1]}),
    "logprob-nan": reply(**logprobs(float("nan"))),
    "logprob-infinity": reply(**logprobs(float("-inf"))),
    "logprobs-text": reply(choice={"logprobs": "x"}),
    "usage-text": reply(usage="x"),
    "usage-nan": reply(usage={"prompt_tokens": float("nan"), "completion_tokens": 1, "total_tokens": 1}),
    "model-number": reply(model=5),
    "tool-calls-text": reply(message={"tool_calls": "x"}),
    "tool-calls-empty-objects": reply(message={"tool_calls": [{}]}),
    "no-choices": {"id": "1"},
    "choices-text": reply(choices="x"),
    "a-list": [reply()],  # type: ignore[dict-item]
    "a-number": 5,  # type: ignore[dict-item]
}
HEADERS = ("inf", "9" * 5_000, "-1", "nan", "1e999", "")


@pytest.fixture(scope="module")
def provider() -> Iterator[Upstream]:
    with Upstream() as upstream:
        for name, body in ODD.items():
            upstream.script(name, body=json.dumps(body).encode())
        for number, value in enumerate(HEADERS):
            names = ("x-ratelimit-remaining-tokens", "x-ratelimit-remaining-requests", "x-ratelimit-reset-tokens", "retry-after")
            headers = dict.fromkeys(names, value)
            upstream.script(f"header-{number}", body=reply(), headers=headers)
            upstream.script(f"refused-{number}", body={"error": {"message": "slow down"}}, status=429, headers=headers)
        yield upstream


@pytest.fixture(scope="module", params=["auto", "litellm"])
def engine(request: pytest.FixtureRequest, provider: Upstream) -> Iterator[Worker]:
    env = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": provider.base_url}
    flags = ["--engine", request.param] if request.param != "auto" else []
    with Worker(*flags, env=env) as worker:
        yield worker


@pytest.mark.rule("ERR-11")
@pytest.mark.parametrize("name", ODD)
def test_an_odd_response_is_a_result_or_a_bad_response(engine: Worker, name: str) -> None:
    response = engine.call("chat", {"model": f"openai/{name}", "messages": HELLO, "logprobs": True})
    assert "result" in response or response["error"]["code"] == 1011, response


@pytest.mark.rule("ERR-11")
@pytest.mark.parametrize("number", range(len(HEADERS)))
def test_an_odd_header_spoils_no_result_and_no_error(engine: Worker, number: int) -> None:
    result = engine.call("chat", {"model": f"openai/header-{number}", "messages": HELLO})
    assert "result" in result, f"{result}\n{engine.stderr[-3000:]}"
    assert result["result"]["content"] == "fine"
    error = engine.call("chat", {"model": f"openai/refused-{number}", "messages": HELLO})["error"]
    assert error["code"] == 1007
