"""What is said of models without asking them: models/list, models/get, tokens/count, chat/check, status."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Spawn
from tests.support.upstream import Json, Upstream
from tests.support.worker import Worker

CONFIG = """
model_list:
  - model_name: small
    litellm_params: {model: openai/gpt-4o-mini, api_base: "%(url)s", api_key: sk-in-config-1}
  - model_name: mixed
    litellm_params: {model: openai/gpt-4o-mini, api_base: "%(url)s", api_key: sk-in-config-1}
  - model_name: mixed
    litellm_params: {model: anthropic/claude-sonnet-4-5, api_base: "%(url)s"}
  - model_name: priced
    litellm_params: {model: openai/of-our-own, api_base: "%(url)s", api_key: k, input_cost_per_token: 0.5}
    model_info: {max_input_tokens: 10, max_output_tokens: 3, supports_function_calling: false, output_cost_per_token: 2.0}
  - model_name: vectors
    litellm_params: {model: openai/text-embedding-3-small, api_base: "%(url)s", api_key: sk-in-config-1}
  - model_name: ranks
    litellm_params: {model: cohere/rerank-v3.5, api_base: "%(url)s", api_key: sk-in-config-1}
  - model_name: forgiving
    litellm_params: {model: openai/gpt-4o-mini, api_base: "%(url)s", api_key: sk-in-config-1, drop_params: true}
  - model_name: gemini/*
    litellm_params: {model: gemini/*, api_key: in-config-2}
  - model_name: mistral/*
    litellm_params: {model: mistral/*}
  - model_name: in-azure
    litellm_params: {model: azure/of-our-own, api_base: "%(url)s", api_key: k, api_version: v}
    model_info: {base_model: azure/gpt-4o}
"""
LOCAL = "local/smollm2"  # where its package is installed, as it is here
OFFLINE = ["offline/echo", "offline/embed", "offline/rerank", "offline/tools"]


@pytest.fixture(scope="module")
def provider() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def bare() -> Iterator[Worker]:
    """Without a config; OpenAI's key is there, and whatever it might ask of a host would come here."""
    with Upstream() as watch:
        keys = {"OPENAI_API_KEY": "sk-secret-123", "OPENAI_BASE_URL": watch.base_url, "OLLAMA_API_BASE": watch.base_url}
        with Worker(env=keys | dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY"), watch.base_url)) as worker:
            yield worker
        assert watch.requests == [], "something was asked of a host"


@pytest.fixture(scope="module")
def configured(provider: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    path.write_text(CONFIG % {"url": provider.base_url})
    with Worker("--config", str(path)) as worker:
        yield worker


def got(worker: Worker, model: str) -> Json:
    response = worker.call("models/get", {"model": model})
    assert "result" in response, response
    result: Json = response["result"]
    return result


def conversation(text: str = "hello world", **params: Any) -> Json:
    return {"messages": [{"role": "user", "content": text}], **params}


def pages(worker: Worker, **params: Any) -> Iterator[list[Json]]:
    cursor: str | None = None
    while True:
        result = worker.call("models/list", params | ({"cursor": cursor} if cursor else {}))["result"]
        yield result["models"]
        if (cursor := result["nextCursor"]) is None:
            return


# --- models/list --------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("MOD-1")
def test_without_a_config_the_offline_models_are_listed(bare: Worker) -> None:
    result = bare.call("models/list")["result"]
    assert [row["model"] for row in result["models"]] == [LOCAL, *OFFLINE]
    assert [row["mode"] for row in result["models"]] == ["chat", "chat", "embedding", "rerank", "chat"]
    assert result["nextCursor"] is None


@pytest.mark.rule("MOD-1", "MOD-6")
def test_with_a_config_its_names_are_listed_too(configured: Worker) -> None:
    rows = {row["model"]: row for row in configured.call("models/list")["result"]["models"]}
    assert list(rows) == sorted(
        [LOCAL, *OFFLINE, "small", "mixed", "priced", "vectors", "ranks", "forgiving", "gemini/*", "mistral/*", "in-azure"]
    )
    assert rows["small"] == {"model": "small", "provider": "openai", "mode": "chat", "key_present": True}
    assert rows["mixed"] == {"model": "mixed", "provider": None, "mode": "chat", "key_present": False}
    assert rows["vectors"]["mode"] == "embedding"


@pytest.mark.rule("MOD-2", "MOD-3")
def test_all_lists_each_model_with_a_configured_key_page_by_page(bare: Worker) -> None:
    found = list(pages(bare, all=True))
    assert [len(page) for page in found[:-1]] == [100] * (len(found) - 1)
    assert len(found) > 1
    rows = [row for page in found for row in page]
    names = [row["model"] for row in rows]
    assert names == sorted(set(names))
    assert {"openai/gpt-4o-mini", "openai/text-embedding-3-small", *OFFLINE} <= set(names)
    assert {row["provider"] for row in rows} == {"openai", "local", "offline", "text-completion-openai"}
    assert {row["key_present"] for row in rows if row["provider"] not in ("local", "offline")} == {True}


@pytest.mark.rule("MOD-2")
def test_all_lists_the_models_that_a_wildcard_of_the_config_matches(configured: Worker) -> None:
    names = {row["model"] for page in pages(configured, all=True) for row in page}
    assert "gemini/gemini-2.5-pro" in names
    assert "openai/gpt-4o" not in names
    assert not [name for name in names if name.startswith("mistral/") and "*" not in name], "there is no key for them"


@pytest.mark.rule("MOD-3")
@pytest.mark.parametrize("cursor", ["%%%", "aGk", "_w=="])
def test_a_cursor_that_was_never_given_is_refused(bare: Worker, cursor: str) -> None:
    error = bare.call("models/list", {"cursor": cursor})["error"]
    assert error["code"] == -32602
    assert "cursor" in error["message"]


# --- models/get ---------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("MOD-4", "MOD-8")
def test_limits_prices_and_abilities_of_a_known_model(bare: Worker) -> None:
    info = got(bare, "openai/gpt-4o-mini")
    assert info["limits"] == {"context_tokens": 128000, "output_tokens": 16384}
    assert info["prices"]["input_usd"] == pytest.approx(1.5e-7)
    assert info["prices"]["output_usd"] == pytest.approx(6e-7)
    assert info["prices"]["cached_input_usd"] == pytest.approx(7.5e-8)
    supports = info["supports"]
    assert [name for name, has in supports.items() if has is False] == ["reasoning", "audio_input", "audio_output"]
    assert None not in supports.values()
    assert "image" in info["modalities"]["input"]
    assert info["modalities"]["output"] == ["text"]
    assert {"tools", "temperature", "response_format"} <= set(info["parameters"])
    assert "thinking" not in info["parameters"]
    assert (info["provider"], info["mode"], info["key_present"]) == ("openai", "chat", True)
    assert info["deployments"] == ["openai/gpt-4o-mini"]


@pytest.mark.rule("MOD-4")
def test_a_date_of_deprecation_is_reported(bare: Worker) -> None:
    assert got(bare, "openai/ft:gpt-3.5-turbo")["deprecation_date"] == "2026-10-23"


@pytest.mark.rule("MOD-4", "MOD-8")
@pytest.mark.parametrize("model", ["openai/of-nobodys-making", "ollama/of-nobodys-making"])
def test_what_is_not_known_of_a_model_is_null(bare: Worker, model: str) -> None:
    info = got(bare, model)
    assert set(info["limits"].values()) | set(info["prices"].values()) | set(info["supports"].values()) == {None}
    assert info["modalities"] == {"input": None, "output": None}
    assert (info["mode"], info["deprecation_date"]) == (None, None)


@pytest.mark.rule("MOD-6")
@pytest.mark.parametrize(
    ("model", "present"),
    [
        ("openai/gpt-4o", True),
        ("anthropic/claude-sonnet-4-5", False),
        ("gemini/gemini-2.5-pro", False),
        ("cohere_chat/command-r-08-2024", False),
        ("bedrock/anthropic.claude-sonnet-4-5-20250929-v1:0", None),
        ("lm_studio/anything", None),
        ("offline/echo", None),
    ],
)
def test_whether_a_key_is_there(bare: Worker, model: str, present: bool | None) -> None:
    assert got(bare, model)["key_present"] is present


@pytest.mark.rule("MOD-6")
@pytest.mark.parametrize(
    ("variable", "model"),
    [("GOOGLE_API_KEY", "gemini/gemini-2.5-pro"), ("COHERE_API_KEY", "cohere_chat/x"), ("TOGETHERAI_API_KEY", "together_ai/x")],
)
def test_a_key_is_found_under_each_of_its_names(monkeypatch: pytest.MonkeyPatch, variable: str, model: str) -> None:
    from bridge_worker.backends.litellm.chat import LiteLLM
    from bridge_worker.backends.litellm.services import LiteLLMServices

    for name in [name for name in os.environ if name.endswith(("_KEY", "_TOKEN"))]:
        monkeypatch.delenv(name)
    catalog = LiteLLMServices(LiteLLM())
    assert catalog.describe(model).key_present is False
    monkeypatch.setenv("AZURE_AI_API_KEY", "of another provider")
    monkeypatch.setenv(variable, "secret")
    assert catalog.describe(model).key_present is True
    assert catalog.describe("azure/x").key_present is None


@pytest.mark.rule("MOD-5", "MOD-6")
def test_several_deployments_are_described_by_their_common_features_and_the_highest_price(configured: Worker) -> None:
    info = got(configured, "mixed")
    assert info["deployments"] == ["openai/gpt-4o-mini", "anthropic/claude-sonnet-4-5"]
    assert info["limits"] == {"context_tokens": 128000, "output_tokens": 16384}
    assert info["prices"]["input_usd"] == pytest.approx(3e-6)
    assert info["prices"]["cache_write_usd"] is None
    assert info["provider"] is None
    assert info["key_present"] is False
    assert info["supports"]["reasoning"] is False
    assert "seed" not in info["parameters"]


@pytest.mark.rule("MOD-5")
def test_the_configs_own_prices_and_limits_win(configured: Worker) -> None:
    info = got(configured, "priced")
    assert info["limits"] == {"context_tokens": 10, "output_tokens": 3}
    assert (info["prices"]["input_usd"], info["prices"]["output_usd"]) == (0.5, 2.0)
    assert info["supports"]["tools"] is False


@pytest.mark.rule("MOD-5")
def test_a_name_under_a_wildcard_of_the_config_is_that_model(configured: Worker) -> None:
    info = got(configured, "gemini/gemini-2.5-pro")
    assert info["deployments"] == ["gemini/gemini-2.5-pro"]
    assert info["limits"]["context_tokens"] == 1_048_576


@pytest.mark.rule("MOD-7")
@pytest.mark.parametrize("model", ["of-nobodys-making", "offline/nothing", "github_copilot/gpt-4o"])
@pytest.mark.parametrize("method", ["models/get", "tokens/count", "chat/check"])
def test_a_name_that_nothing_serves_is_not_found(bare: Worker, method: str, model: str) -> None:
    params = {"model": model} | ({} if method == "models/get" else conversation())
    assert bare.call(method, params)["error"]["data"]["kind"] == "model_not_found"


@pytest.mark.rule("MOD-7")
def test_with_a_config_only_its_names_are_found(configured: Worker) -> None:
    for method, params in (("models/get", {}), ("embed", {"input": "a"}), ("rerank", {"query": "q", "documents": ["a"]})):
        error = configured.call(method, {"model": "openai/gpt-4o-mini", **params})["error"]
        assert error["data"]["kind"] == "model_not_found"


@pytest.mark.rule("MOD-9")
@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("models/list", {}),
        ("models/get", {"model": "offline/echo"}),
        ("tokens/count", {"model": "offline/echo", **conversation()}),
        ("chat/check", {"model": "offline/echo", **conversation()}),
        ("status", {}),
    ],
)
def test_their_params_are_as_strict_as_those_of_a_chat(bare: Worker, method: str, params: Json) -> None:
    for member in ("api_key", "of_our_own_making"):
        error = bare.call(method, params | {member: "x"})["error"]
        assert error["code"] == -32602
        assert member in error["message"]


# --- tokens/count -------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("TOK-1")
@pytest.mark.parametrize(
    ("model", "tokenizer", "exact"),
    [
        ("openai/gpt-4o-mini", "o200k_base", True),
        ("openai/gpt-4.1", "o200k_base", True),
        ("gpt-3.5-turbo", "cl100k_base", True),
        ("openai/of-nobodys-making", "cl100k_base", False),
        ("anthropic/claude-sonnet-4-5", "cl100k_base", False),
        ("ollama/llama-3-8b", "cl100k_base", False),
    ],
)
def test_tokens_are_counted_and_the_tokenizer_is_named(bare: Worker, model: str, tokenizer: str, exact: bool) -> None:
    # 3 for the frame of a message, 1 for its role, 2 words, 3 for the answer's frame: OpenAI's published arithmetic
    expected = {"input_tokens": 9, "tokenizer": tokenizer, "exact": exact}
    assert bare.call("tokens/count", {"model": model, **conversation("hello world")})["result"] == expected


CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
WITH_A_CALL = [
    {"role": "user", "content": "hello"},
    {"role": "assistant", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "1", "content": "x"},
]
IMAGE = {"role": "user", "content": [{"type": "image_url", "image_url": "https://example.com/x.png"}]}
AUDIO = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
TOOL = {"type": "function", "function": {"name": "f", "description": "does nothing at all"}}


@pytest.mark.rule("TOK-1")
@pytest.mark.parametrize(
    "params",
    [{**conversation(), "tools": [TOOL]}, {"messages": WITH_A_CALL}, {"messages": [IMAGE]}],
    ids=["tools", "tool-calls", "image"],
)
def test_an_estimated_count_is_marked_as_an_estimate(bare: Worker, params: Json) -> None:
    result = bare.call("tokens/count", {"model": "openai/gpt-4o-mini", **params})["result"]
    assert result["exact"] is False
    assert result["input_tokens"] > 9


@pytest.mark.rule("TOK-3", "MOD-8")
def test_parts_without_a_count_are_omitted_and_their_text_counts(bare: Worker) -> None:
    text = {"type": "text", "text": "hello world"}
    file = {"type": "file", "file": {"file_id": "abc"}}
    params = {"model": "openai/gpt-4o-mini", "messages": [{"role": "user", "content": [text, AUDIO, file]}]}
    assert bare.call("tokens/count", params)["result"] == {"input_tokens": 9, "tokenizer": "o200k_base", "exact": False}


@pytest.mark.rule("TOK-1", "MOD-5")
def test_a_deployment_with_a_base_model_is_that_model(configured: Worker) -> None:
    assert got(configured, "in-azure")["limits"] == got(configured, "in-azure")["limits"] | {"context_tokens": 128000}
    counted = configured.call("tokens/count", {"model": "in-azure", **conversation("hello world")})["result"]
    assert counted == {"input_tokens": 9, "tokenizer": "o200k_base", "exact": True}


@pytest.mark.rule("TOK-2")
def test_words_are_the_tokens_of_an_offline_model(bare: Worker) -> None:
    expected = {"input_tokens": 3, "tokenizer": "words", "exact": True}
    assert bare.call("tokens/count", {"model": "offline/echo", **conversation("one two  three")})["result"] == expected
    assert bare.chat("offline/echo", "one two  three")["usage"]["input_tokens"] == 3


# --- chat/check ---------------------------------------------------------------------------------------------------------------


def check(worker: Worker, model: str, **params: Any) -> Json:
    response = worker.call("chat/check", {"model": model, **conversation(), **params})
    assert "result" in response, response
    result: Json = response["result"]
    return result


@pytest.mark.rule("CHK-1", "CHK-4")
def test_a_chat_that_would_work_is_ok_and_has_its_highest_cost(bare: Worker) -> None:
    result = check(bare, "openai/gpt-4o-mini", max_tokens=100, temperature=0.5)
    assert (result["ok"], result["gaps"], result["dropped"], result["key_present"]) == (True, [], [], True)
    assert (result["input_tokens"], result["exact"], result["max_output_tokens"]) == (9, True, 100)
    assert result["max_cost_usd"] == pytest.approx(9 * 1.5e-7 + 100 * 6e-7)


@pytest.mark.rule("CHK-4")
def test_without_a_limit_of_the_chat_the_models_counts(bare: Worker) -> None:
    result = check(bare, "openai/gpt-4o-mini")
    assert result["max_output_tokens"] == 16384
    assert result["max_cost_usd"] == pytest.approx(9 * 1.5e-7 + 16384 * 6e-7)


@pytest.mark.rule("CHK-4")
def test_a_higher_price_for_long_input_and_for_writing_the_cache_counts(bare: Worker) -> None:
    long = check(bare, "gemini/gemini-2.5-pro", max_tokens=1, messages=[{"role": "user", "content": "word " * 210_000}])
    assert long["input_tokens"] > 200_000
    assert long["max_cost_usd"] == pytest.approx(long["input_tokens"] * 2.5e-6 + 1.5e-5)
    cached = {"role": "user", "content": "hello world", "cache_control": {"type": "ephemeral"}}
    short = check(bare, "anthropic/claude-sonnet-4-5", max_tokens=1, messages=[cached])
    assert short["max_cost_usd"] == pytest.approx(short["input_tokens"] * 6e-6 + 1.5e-5)


@pytest.mark.rule("CHK-4")
def test_a_cost_that_is_not_known_is_null(bare: Worker) -> None:
    assert check(bare, "openai/of-nobodys-making", max_tokens=5)["max_cost_usd"] is None
    assert check(bare, "openai/gpt-4o-mini", messages=[IMAGE])["max_cost_usd"] is None
    assert check(bare, "offline/echo")["max_cost_usd"] == 0.0


A_SCHEMA = {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}}
WITH_AUDIO = [{"role": "user", "content": [{"type": "text", "text": "?"}, AUDIO]}]


@pytest.mark.rule("CHK-2")
@pytest.mark.parametrize(
    ("model", "params", "member"),
    [
        ("offline/echo", {"tools": [TOOL]}, "tools"),
        ("openai/gpt-4o-mini", {"thinking": {"type": "enabled"}}, "thinking"),
        ("openai/gpt-4o-mini", {"messages": WITH_AUDIO}, "messages[0].content[1]"),
        ("offline/echo", {"response_format": A_SCHEMA}, "response_format"),
        ("openai/text-embedding-3-small", {}, "model"),
        ("openai/gpt-4o-mini", conversation("word " * 130_000), "messages"),
    ],
    ids=["tools", "thinking", "audio", "schema", "embedding-model", "too-long"],
)
def test_a_gap_names_the_member_with_the_unsupported_value(bare: Worker, model: str, params: Json, member: str) -> None:
    result = check(bare, model, **params)
    assert result["ok"] is False
    assert member in [gap["member"] for gap in result["gaps"]]
    assert all(gap["reason"] for gap in result["gaps"])


@pytest.mark.rule("CHK-2")
def test_a_missing_key_is_not_ok(bare: Worker) -> None:
    result = check(bare, "anthropic/claude-sonnet-4-5")
    assert (result["ok"], result["key_present"], result["gaps"]) == (False, False, [])


@pytest.mark.rule("CHK-3")
def test_an_unsupported_param_is_a_gap_or_dropped_as_the_config_sets(configured: Worker, provider: Upstream) -> None:
    thinking = {"type": "disabled"}
    refused = check(configured, "small", thinking=thinking)
    assert [gap["member"] for gap in refused["gaps"]] == ["thinking"]
    assert refused["dropped"] == []
    dropped = check(configured, "forgiving", thinking=thinking)
    assert (dropped["ok"], dropped["gaps"], dropped["dropped"]) == (True, [], ["thinking"])
    # and so it is
    failed = configured.call("chat", {"model": "small", **conversation(), "thinking": thinking})
    assert failed["error"]["data"]["kind"] == "rejected_by_provider"
    configured.chat("forgiving", thinking=thinking)
    assert "thinking" not in provider.wait_for_request("gpt-4o-mini").body


@pytest.mark.rule("CHK-1")
def test_what_a_chat_refuses_its_check_refuses(bare: Worker) -> None:
    for wrong in ({"messages": []}, {"api_base": "https://example.com"}, {"provider_params": {"x": 1}}, {"temperature": "1"}):
        params = {"model": "openai/gpt-4o-mini", **conversation(), **wrong}
        checked, called = bare.call("chat/check", params)["error"], bare.call("chat", params)["error"]
        assert checked == called


# --- through the config ---------------------------------------------------------------------------------------------------------


@pytest.mark.rule("EMB-1", "RNK-1")
def test_the_configs_deployments_make_embeddings_and_rank(configured: Worker, provider: Upstream) -> None:
    row = {"object": "embedding", "index": 0, "embedding": [0.5]}
    usage = {"prompt_tokens": 1, "total_tokens": 1}
    provider.script("text-embedding-3-small", body={"object": "list", "data": [row], "model": "m", "usage": usage})
    result = configured.call("embed", {"model": "vectors", "input": "a"})["result"]
    assert (result["embeddings"], result["requested_model"], result["provider"]) == ([[0.5]], "vectors", "openai")
    assert provider.wait_for_request("text-embedding-3-small").headers["authorization"] == "Bearer sk-in-config-1"
    provider.script("rerank-v3.5", body={"id": "r", "results": [{"index": 0, "relevance_score": 0.5}], "meta": {}})
    result = configured.call("rerank", {"model": "ranks", "query": "q", "documents": ["a"]})["result"]
    assert result["results"] == [{"index": 0, "score": 0.5, "document": None}]
    assert (result["requested_model"], result["provider"], result["usage"]) == ("ranks", "cohere", None)


# --- status -------------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("STA-2")
def test_status_counts_requests(spawn: Spawn) -> None:
    worker = spawn()
    first = worker.call("status")["result"]
    assert first["engine"]["name"] == "litellm"
    assert first["requests"] == {"in_flight": 1, "total": 1, "outcomes": {}, "engines": {}}
    assert first["memory_bytes"] > 1_000_000
    worker.chat("offline/echo")
    worker.call("chat", {"model": "offline/nothing", **conversation()})
    worker.call("no/such/method")
    second = worker.call("status")["result"]
    outcomes = {"ok": 2, "model_not_found": 1, "method_not_found": 1}
    assert second["requests"] == {"in_flight": 1, "total": 5, "outcomes": outcomes, "engines": {"offline": 2}}
    assert second["uptime_ms"] > first["uptime_ms"]
    assert second["version"] == first["version"]


def test_memory_is_reported_where_the_system_has_no_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    from bridge_worker.system import resources

    monkeypatch.setattr(resources, "Path", lambda name: Path("/nowhere") / name)
    assert (resources.memory_bytes() or 0) > 1_000_000


@pytest.mark.rule("TOK-1")
def test_a_text_that_is_too_long_to_count_whole_is_an_estimate() -> None:
    from bridge_worker.backends.litellm import tokens

    count = tokens.count("gpt-4o", "openai", [{"role": "user", "content": "word " * 800_001}], None)
    assert count.exact is False
    assert count.input_tokens == pytest.approx(800_008, rel=0.02)
