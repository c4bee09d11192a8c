"""A worker that reads its config again while it serves, with the real process; and what only LiteLLM finds wrong in a config."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.data import HELLO
from tests.support.gateway_config import KEY, deployment, write
from tests.support.upstream import DONE, Gate, Json, Upstream, chunk
from tests.support.worker import Worker, run, wait_until

SECRET = "a-secret-of-the-second-config-4711"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reload") / "gateway.yaml"


@pytest.fixture(scope="module")
def started(upstream: Upstream, path: Path) -> Iterator[Worker]:
    config = first(upstream)
    config["model_list"].append(unusable("none", "no-such-provider/at-the-start"))
    write(path, config)
    path.chmod(0o600)
    with Worker("--config", str(path), "--log-level=info") as worker:
        yield worker


@pytest.fixture
def worker(started: Worker, upstream: Upstream, path: Path) -> Worker:
    """With the first config active, whatever the test before did."""
    write(path, first(upstream))
    reload(started)
    return started


def first(upstream: Upstream) -> Json:
    return {
        "model_list": [
            deployment(upstream, "stays", "one"),
            deployment(upstream, "goes", "one"),
            deployment(upstream, "held", "held"),
        ],
        "router_settings": {"num_retries": 0},
        "omni_bridge": {"provider_params": ["top_k"], "max_in_flight": 50},
    }


def unusable(name: str, model: str) -> Json:
    return {"model_name": name, "litellm_params": {"model": model, "api_key": SECRET}}


def reload(worker: Worker, **params: Any) -> Json:
    response = worker.call("config/reload", params)
    assert "result" in response, response
    result: Json = response["result"]
    return result


def fails(worker: Worker, model: str, **params: Any) -> str:
    kind: str = worker.call("chat", {"model": model, "messages": HELLO, **params})["error"]["data"]["kind"]
    return kind


@pytest.mark.rule("CFG-10")
def test_a_deployment_that_litellm_can_not_take_is_an_error_on_the_log_and_the_others_are_served(started: Worker) -> None:
    assert started.chat("stays")["model"] == "one-2026-01-01"
    wait_until(lambda: "model_list[3]: LiteLLM leaves it out" in started.stderr, "the log names it")


@pytest.mark.rule("RLD-1", "RLD-4")
def test_a_reload_reports_the_changes_and_serves_the_next_request(worker: Worker, upstream: Upstream, path: Path) -> None:
    config = first(upstream)
    config["model_list"][1] = deployment(upstream, "new", "two", api_key=SECRET)
    config["model_list"][0] = deployment(upstream, "stays", "two")
    config["router_settings"]["num_retries"] = 1
    config["litellm_settings"] = {"drop_params": True}
    config["general_settings"] = {"master_key": "of no use"}
    config["omni_bridge"] = {"provider_params": ["seed"], "deadline_total_ms": 5000, "max_in_flight": 9}
    write(path, config)
    assert reload(worker) == {
        "models": ["held", "new", "stays"],
        "added": ["new"],
        "removed": ["goes"],
        "changed": ["stays"],
        "settings": [
            "omni_bridge.deadline_total_ms",
            "omni_bridge.provider_params",
            "litellm_settings.drop_params",
            "router_settings.num_retries",
        ],
        "restart_needed": ["omni_bridge.max_in_flight"],
        "warnings": ["ignored, because it has no effect in a worker: general_settings.master_key"],
    }
    assert worker.chat("new")["model"] == worker.chat("stays")["model"] == "two-2026-01-01"
    assert fails(worker, "goes") == "model_not_found"
    assert fails(worker, "stays", provider_params={"top_k": 5}) == "invalid_request"
    assert SECRET in upstream.requests[-2].headers["authorization"]


@pytest.mark.rule("RLD-2")
def test_a_request_in_flight_ends_on_the_old_config(worker: Worker, upstream: Upstream, path: Path) -> None:
    gate = Gate()
    upstream.script("held", chunks=[chunk({"content": "a"}), gate, chunk({"content": "b"}, "stop"), DONE])
    id = worker.request("chat", {"model": "held", "messages": HELLO, "stream": True})
    worker.wait_for_delta(id)
    config = first(upstream)
    config["model_list"] = [deployment(upstream, "stays", "one")]
    write(path, config)
    assert reload(worker)["removed"] == ["goes", "held"]
    assert fails(worker, "held") == "model_not_found"
    gate.set()
    assert worker.response(id)["result"]["content"] == "ab"


@pytest.mark.rule("RLD-3", "LOG-4", "SEC-8")
def test_a_wrong_config_is_refused_with_all_errors_and_the_old_one_stays_active(
    worker: Worker, upstream: Upstream, path: Path
) -> None:
    config = first(upstream) | {"litellm_settings": {"drop_params": True}}
    config["model_list"].append(unusable("new", "openai/x"))
    config["router_settings"] = {"num_retries": "many", "fallbacks": {"stays": ["goes"]}}
    wrong = ["router_settings.fallbacks", "router_settings.num_retries"]
    write(path, config)
    error = worker.call("config/reload")["error"]
    assert (error["code"], error["data"]["kind"]) == (-32602, "invalid_request")
    mistakes = error["data"]["mistakes"]
    assert len(mistakes) == 2
    assert all(place in mistake for place, mistake in zip(wrong, mistakes, strict=True))
    assert all(mistake.startswith("gateway.yaml:") for mistake in mistakes)
    assert mistakes[0] in error["message"]
    assert str(path.parent) not in json.dumps(error)
    assert SECRET not in json.dumps(error) + worker.stderr
    assert worker.chat("goes")["model"] == "one-2026-01-01"
    assert reload_first(worker, upstream, path)["settings"] == []  # nothing of the wrong one stayed


@pytest.mark.rule("RLD-3")
def test_a_router_that_litellm_can_not_make_is_refused_and_the_old_config_stays_active(
    worker: Worker, upstream: Upstream, path: Path
) -> None:
    policy = {"model_group_retry_policy": {"stays": {"TimeoutErrorRetries": "x"}}, "routing_groups": [{"nonsense": 1}]}
    write(path, first(upstream) | {"router_settings": policy})
    error = worker.call("config/reload")["error"]
    assert "LiteLLM does not take it" in error["data"]["mistakes"][0]
    assert worker.chat("goes")["model"] == "one-2026-01-01"


@pytest.mark.rule("CFG-8", "CFG-10")
def test_a_reload_takes_the_file_that_the_worker_started_with(started: Worker, upstream: Upstream, path: Path) -> None:
    config = first(upstream) | {"litellm_settings": {"callbacks": ["prometheus"]}, "ours": {}}
    config["model_list"].append(unusable("none", "no-such-provider/at-the-start"))
    write(path, config)
    warnings = reload(started)["warnings"]
    assert any("ours: is not a section" in warning for warning in warnings)
    assert any("model_list[3]: LiteLLM leaves it out" in warning for warning in warnings)
    assert any("prometheus" in warning for warning in warnings)
    assert started.chat("stays")["model"] == "one-2026-01-01"
    assert SECRET not in json.dumps(warnings) + started.stderr
    assert str(path.parent) not in json.dumps(warnings)


@pytest.mark.rule("CFG-1")
def test_a_deployment_without_its_key_fails_alone_and_its_fallback_serves(worker: Worker, upstream: Upstream, path: Path) -> None:
    config = first(upstream)
    config["model_list"] += [
        deployment(upstream, "keyless", "one", api_key="os.environ/NO_SUCH_VARIABLE_4711"),
        deployment(upstream, "caught", "one", api_key="os.environ/NO_SUCH_VARIABLE_4711"),
        deployment(upstream, "shared", "one", {"id": "dead"}, api_key="os.environ/NO_SUCH_VARIABLE_4711"),
        deployment(upstream, "shared", "one", {"id": "alive"}),
    ]
    config["router_settings"] |= {"fallbacks": [{"caught": ["stays"]}], "num_retries": 1}
    write(path, config)
    assert "NO_SUCH_VARIABLE_4711, which is not set" in " ".join(reload(worker)["warnings"])
    before = len(upstream.requests)
    for stream in (False, True):
        error = worker.call("chat", {"model": "keyless", "messages": HELLO, "stream": stream})["error"]
        assert (error["data"]["kind"], error["data"]["status"]) == ("authentication", None)
        assert "NO_SUCH_VARIABLE_4711, which is not set" in error["message"]
    assert len(upstream.requests) == before
    assert worker.chat("caught")["receipt"]["fallback"] is True
    assert {worker.chat("shared")["receipt"]["deployment"] for _ in range(8)} == {"alive"}
    assert "result" in worker.call("chat", {"model": "stays", "messages": HELLO})


def reload_first(worker: Worker, upstream: Upstream, path: Path) -> Json:
    write(path, first(upstream))
    return reload(worker)


@pytest.mark.rule("RLD-5")
def test_a_reload_takes_no_params(worker: Worker) -> None:
    error = worker.call("config/reload", {"path": "/etc/passwd"})["error"]
    assert (error["code"], error["message"].partition(":")[0]) == (-32602, "path")


@pytest.mark.rule("RLD-6")
def test_a_hangup_signal_reloads_too_and_the_log_reports_the_result(worker: Worker, upstream: Upstream, path: Path) -> None:
    config = first(upstream)
    config["model_list"].append(deployment(upstream, "of-the-signal", "one"))
    write(path, config)
    worker.process.send_signal(signal.SIGHUP)
    wait_until(lambda: '"added": ["of-the-signal"]' in worker.stderr, "the log tells of the reload")
    assert worker.chat("of-the-signal")["model"] == "one-2026-01-01"
    path.write_text("model_list: [")
    worker.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "not YAML" in worker.stderr, "the log tells why not")
    assert worker.chat("of-the-signal")["model"] == "one-2026-01-01"


@pytest.mark.rule("CFG-1", "CFG-6", "CFG-7", "RES-16")
def test_the_settings_of_a_gateways_config_reach_the_provider(worker: Worker, upstream: Upstream, path: Path) -> None:
    key = {"model": "openai/one", "api_base": upstream.base_url}
    config = first(upstream) | {
        "include": ["more.yaml"],
        "credential_list": [{"credential_name": "shared", "credential_values": {"api_key": "the-key-of-the-credential"}}],
        "environment_variables": {"KEY_OF_THE_FILE": "the-key-of-the-variable"},
        "litellm_settings": {"cache": True, "cache_params": {"type": "local"}, "drop_params": True},
    }
    config["model_list"] += [
        {"model_name": "by-credential", "litellm_params": {**key, "litellm_credential_name": "shared"}},
        {"model_name": "by-variable", "litellm_params": {**key, "api_key": "os.environ/KEY_OF_THE_FILE"}},
    ]
    config["router_settings"]["model_group_alias"] = {"alias": "by-variable"}
    write(path.parent / "more.yaml", {"model_list": [deployment(upstream, "any/*", "*")]})
    (path.parent / "more.yaml").chmod(0o600)
    write(path, config)
    assert reload(worker)["warnings"] == []

    def key_of(model: str, text: str) -> str:
        assert worker.chat(model, text)["provider"] == "openai"
        return upstream.requests[-1].headers["authorization"].removeprefix("Bearer ")

    assert key_of("by-credential", "1") == "the-key-of-the-credential"
    assert key_of("by-variable", "2") == "the-key-of-the-variable"
    assert key_of("alias", "3") == "the-key-of-the-variable"
    assert (key_of("any/thing", "4"), upstream.requests[-1].model) == (KEY, "thing")
    before = len(upstream.requests)
    for stream in (False, True):
        paid, free = (worker.chat("by-variable", f"cached {stream}", stream=stream) for _ in range(2))
        assert (free["content"], free["usage"]["output_tokens"]) == (paid["content"], paid["usage"]["output_tokens"])
        assert (free["cost_usd"], free["cost_source"], paid["cost_source"] != "cache") == (0.0, "cache", True)
    assert len(upstream.requests) == before + 2
    assert reload(worker)["settings"] == []
    worker.chat("by-variable", "cached False")
    assert len(upstream.requests) == before + 2  # a reload does not empty it


def test_simultaneous_reloads_all_get_a_response_and_leave_nothing_behind(worker: Worker) -> None:
    ids = [worker.request("config/reload") for _ in range(5)]
    chats = [worker.request("chat", {"model": "stays", "messages": HELLO}) for _ in range(5)]
    assert all("result" in worker.response(id) for id in [*ids, *chats])


# ---- what only LiteLLM finds -----------------------------------------------------------------------------------------------------


@pytest.mark.rule("CFG-8")
def test_check_config_reports_every_error_also_those_that_only_litellm_finds(upstream: Upstream, tmp_path: Path) -> None:
    config = first(upstream)
    config["model_list"].append(unusable("new", "no-such-provider/x"))
    config |= {
        "litellm_settings": {"drop_parms": True, "callbacks": ["langfsue", "langfuse"]},
        "general_settings": {"master_key": "k"},
    }
    path = write(tmp_path / "gateway.yaml", config)
    path.chmod(0o600)
    code, out, err = run("--check-config", "--config", str(path))
    assert (code, out) == (0, f"{path}: OK (4 models, 4 deployments, 1 of them not served)\n")
    *_, unknown, callback, package, left_out = lines = err.splitlines()
    assert len(lines) == 5
    assert all(line.startswith("omni-bridge: warning: ") for line in lines)
    assert "warning: ignored, because it has no effect in a worker: general_settings.master_key" in lines[0]
    assert "litellm_settings.drop_parms: is not a setting of LiteLLM; did you mean drop_params?" in unknown
    assert "unknown callback 'langfsue'; did you mean langfuse" in callback
    assert "langfuse needs the package langfuse" in package
    assert "model_list[3]: LiteLLM leaves it out: " in left_out
    assert SECRET not in err
    code, out, strict = run("--check-config", "--strict", "--config", str(path))
    assert (code, out) == (2, "")
    assert sorted(line.replace("warning: ", "") for line in lines) == sorted(
        line.replace("warning: ", "") for line in strict.splitlines()
    )
    assert ["warning: " in line for line in strict.splitlines()].count(True) == 1  # what only a server needs is no error


@pytest.mark.rule("CFG-8")
def test_check_config_reports_a_config_without_errors(upstream: Upstream, tmp_path: Path) -> None:
    budgets = {"provider_budget_config": {"openai": {"budget_limit": 1.0, "time_period": "1d"}}}
    limits = {"router_settings": {"routing_strategy": "usage-based-routing-v2", **budgets}}
    path = write(tmp_path / "gateway.yaml", first(upstream) | limits)
    path.chmod(0o600)
    code, out, err = run("--check-config", "--config", str(path))
    assert (code, err) == (0, "")
    assert out == f"{path}: OK (3 models, 3 deployments)\n"


@pytest.mark.rule("CFG-9")
def test_print_config_prints_and_exits(upstream: Upstream, tmp_path: Path) -> None:
    path = write(tmp_path / "gateway.yaml", first(upstream))
    code, out, err = run("--print-config", "--config", str(path), "--log-level=debug")
    assert (code, err) == (0, "")
    assert "model_name: goes" in out
    assert "# --log-level" in out
