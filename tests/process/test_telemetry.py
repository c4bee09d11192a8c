"""Spans: what they say, whose children they are, and that a collector is in nobody's way."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.conftest import Spawn
from tests.support.otlp_collector import Collector, Span
from tests.support.upstream import Upstream
from tests.support.worker import Json, Worker, run

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT_ID = "00f067aa0ba902b7"
PARENT = {"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-01", "tracestate": "vendor=abc"}
TEXT = "Zebra-4711"
CLIENT = 3  # SPAN_KIND_CLIENT


class Scene(NamedTuple):
    collector: Collector
    upstream: Upstream
    worker: Worker


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    """One worker, whose spans come at once."""
    with Collector() as collector, Upstream() as upstream:
        env = {
            "OPENAI_API_KEY": "sk-secret-123",
            "OPENAI_BASE_URL": upstream.base_url,
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_EXPORTER_OTLP_HEADERS": "api-key=hush-hush-4711",
            "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
            "OTEL_BSP_SCHEDULE_DELAY": "20",
        }
        with Worker(env=env) as worker:
            yield Scene(collector, upstream, worker)


def chat(model: str, **params: Any) -> Json:
    return {"model": model, "messages": [{"role": "user", "content": TEXT}], **params}


def span_of(scene: Scene, id: object) -> Span:
    return scene.collector.wait_for(lambda span: span.attributes.get("jsonrpc.request.id") == str(id))


@pytest.mark.rule("OTL-1", "OTL-2")
def test_a_chat_is_a_span_below_the_callers(scene: Scene, streamed: bool) -> None:
    params = chat("openai/gpt-4o", stream=streamed, temperature=1, max_tokens=50, seed=7, stop=[TEXT], _meta=PARENT)
    before = time.time_ns()
    result = scene.worker.response(id := scene.worker.request("chat", params))["result"]
    span = span_of(scene, id)
    assert (span.name, span.kind, span.status) == ("chat openai/gpt-4o", CLIENT, "unset")
    assert (span.trace_id, span.parent_id, span.trace_state) == (TRACE_ID, PARENT_ID, "vendor=abc")
    assert before <= span.start <= span.end <= time.time_ns()
    first = span.attributes.pop("gen_ai.response.time_to_first_chunk", None)
    assert (first is not None) is streamed
    assert span.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "openai/gpt-4o",
        "gen_ai.request.temperature": 1.0,
        "gen_ai.request.max_tokens": 50,
        "gen_ai.request.seed": 7,
        "gen_ai.request.stream": streamed,
        "gen_ai.response.model": result["model"],
        "gen_ai.response.id": result["id"],
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": result["usage"]["input_tokens"],
        "gen_ai.usage.output_tokens": result["usage"]["output_tokens"],
        "gen_ai.usage.cache_read.input_tokens": result["usage"]["cached_input_tokens"],
        "gen_ai.usage.reasoning.output_tokens": result["usage"]["reasoning_tokens"],
        "jsonrpc.request.id": str(id),
        "omni_bridge.cost_usd": result["cost_usd"],
        "omni_bridge.attempts": 1,
        "omni_bridge.fallback": False,
    }
    assert span.resource["service.name"] == "omni-bridge"
    assert span.resource["deployment.environment.name"] == "test"
    assert scene.collector.headers[-1]["api-key"] == "hush-hush-4711"


@pytest.mark.rule("OTL-2")
def test_nothing_of_the_callers_trace_goes_to_the_provider(scene: Scene) -> None:
    scene.worker.response(scene.worker.request("chat", chat("openai/private", _meta=PARENT)))
    request = scene.upstream.wait_for_request("private")
    assert TRACE_ID not in str(request.headers)
    assert TRACE_ID.encode() not in request.raw
    assert b"_meta" not in request.raw


@pytest.mark.rule("OTL-1")
@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("openai/status-429", "rate_limited"),
        ("openai/status-402", "budget_exceeded"),
        ("openai/status-500", "provider_unavailable"),
        ("offline/none", "model_not_found"),
    ],
)
def test_a_failed_request_has_the_error_in_its_span(scene: Scene, model: str, kind: str, streamed: bool) -> None:
    response = scene.worker.response(id := scene.worker.request("chat", chat(model, stream=streamed)))
    assert response["error"]["data"]["kind"] == kind
    span = span_of(scene, id)
    assert (span.status, span.attributes["error.type"]) == ("error", kind)
    assert span.attributes["gen_ai.request.model"] == model
    assert span.parent_id == ""


@pytest.mark.rule("OTL-1")
def test_a_cancel_is_recorded_and_is_not_an_error(scene: Scene) -> None:
    id = scene.worker.request("chat", chat("openai/hang", stream=True, _meta=PARENT))
    scene.upstream.wait_for_request("hang", timeout=30)
    scene.worker.notify("notifications/cancelled", {"requestId": id})
    scene.worker.response(id)
    span = span_of(scene, id)
    assert (span.status, span.attributes["error.type"]) == ("unset", "cancelled")
    assert span.parent_id == PARENT_ID


@pytest.mark.rule("OTL-1")
def test_a_confused_caller_leaves_no_word_in_a_span(scene: Scene) -> None:
    invalid = {"model": f"offline/{TEXT}?", "messages": TEXT, "temperature": TEXT}
    for params, kind in ((invalid, "invalid_request"), (chat(f"offline/{TEXT * 40}"), "model_not_found")):
        scene.worker.response(id := scene.worker.request("chat", params))
        span = span_of(scene, id)
        assert (span.name, span.attributes["error.type"]) == ("chat", kind)
        assert "gen_ai.request.model" not in span.attributes


@pytest.mark.rule("OTL-1")
@pytest.mark.parametrize(
    ("method", "params", "operation"),
    [
        ("embed", {"model": "offline/embed", "input": TEXT}, "embeddings"),
        ("rerank", {"model": "offline/rerank", "query": TEXT, "documents": [TEXT]}, "rerank"),
        ("tools/call", {"name": "chat", "arguments": chat("offline/echo")}, "chat"),
        ("tools/call", {"name": "chat", "arguments": chat("offline/none")}, "chat"),
    ],
)
def test_so_are_embeddings_rankings_and_the_chats_of_an_mcp_client(scene: Scene, method: str, params: Json, operation: str) -> None:
    id = scene.worker.request(method, params | {"_meta": PARENT})
    scene.worker.response(id)
    span = span_of(scene, id)
    model = params.get("model") or params["arguments"]["model"]
    assert (span.name, span.parent_id) == (f"{operation} {model}", PARENT_ID)
    assert span.attributes["gen_ai.provider.name"] == ("omni-bridge" if model == "offline/none" else "offline")
    assert span.attributes.get("error.type") == ("model_not_found" if model == "offline/none" else None)


@pytest.mark.rule("OTL-1")
def test_no_content_and_no_key_was_sent(scene: Scene) -> None:
    """Last of those that share the worker."""
    assert len(scene.collector.spans) > 10
    assert TEXT.encode() not in scene.collector.raw
    assert b"sk-secret" not in scene.collector.raw
    assert not scene.worker.stderr


# ---- the caller's `_meta` ------------------------------------------------------------------------------------------------------


@pytest.mark.rule("RPC-13")
@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("chat", chat("offline/echo")),
        ("chat/check", chat("offline/echo")),
        ("models/list", {}),
        ("models/get", {"model": "offline/echo"}),
        ("tokens/count", chat("offline/echo")),
        ("embed", {"model": "offline/embed", "input": "a"}),
        ("rerank", {"model": "offline/rerank", "query": "a", "documents": ["b"]}),
        ("status", {}),
        ("ping", {}),
        ("tools/list", {}),
    ],
)
def test_each_method_takes_a_meta(scene: Scene, method: str, params: Json) -> None:
    for meta in (PARENT | {"vendor/own": {"a": 1}}, {}, None, {"traceparent": "nonsense"}):
        if method == "tools/list" and meta is None:
            continue
        assert "result" in scene.worker.call(method, params | {"_meta": meta})


@pytest.mark.rule("RPC-13")
@pytest.mark.parametrize("meta", [5, "x", [], {"traceparent": 7}, {"api_key": "x"}, {"deep": [{"api_base": "x"}]}])
def test_a_meta_that_is_none_is_refused(scene: Scene, meta: object) -> None:
    error = scene.worker.call("chat", chat("offline/echo", _meta=meta))["error"]
    assert error["code"] == -32602
    assert "_meta" in error["message"]


@pytest.mark.rule("OTL-2")
def test_a_trace_that_cant_be_read_is_left_out(scene: Scene) -> None:
    id = scene.worker.request("chat", chat("offline/echo", _meta={"traceparent": f"00-{'0' * 32}-{PARENT_ID}-01"}))
    scene.worker.response(id)
    assert span_of(scene, id).parent_id == ""


# ---- in nobody's way -----------------------------------------------------------------------------------------------------------

ONE = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "chat", "params": chat("offline/echo")}).encode() + b"\n"


@pytest.mark.rule("OTL-4")
def test_what_is_left_is_sent_at_the_end() -> None:
    with Collector() as collector:
        env = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{collector.url}/own/path", "OTEL_SERVICE_NAME": "my-agent"}
        code, out, log = run("--stdio", input=ONE, env=env)
        assert (code, out.count("\n"), log) == (0, 1, "")
        (span,) = collector.spans
        assert span.resource["service.name"] == "my-agent"
        assert collector.headers[0]["path"] == "/own/path"


@pytest.mark.rule("OTL-4")
def test_a_collector_that_is_down_is_one_line_of_the_log_and_holds_nothing_up(spawn: Spawn, upstream: Upstream) -> None:
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": upstream.refused_url, "OTEL_BSP_SCHEDULE_DELAY": "10", "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    worker = spawn(env=env)
    for _ in range(20):
        worker.chat("offline/echo")
    worker.end_input()
    assert worker.exit_code() == 0
    assert worker.stderr.count("\n") <= 2  # one of each engine process: the first, without LiteLLM, and the next
    assert not worker.stderr or "spans are lost" in worker.stderr


@pytest.mark.rule("OTL-4")
def test_a_collector_that_never_responds_does_not_delay_the_exit() -> None:
    with Collector() as collector:
        collector.held.clear()
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_EXPORTER_OTLP_TIMEOUT": "600"}
        code, _, _ = run("--stdio", input=ONE, env=env)  # which fails the test after half a minute
        assert code == 0


@pytest.mark.rule("OTL-3")
def test_without_the_variable_nothing_of_opentelemetry_is_loaded() -> None:
    code = (
        "import sys, bridge_worker.methods.dispatcher, bridge_worker.telemetry.otlp as t; assert t.from_environment({}) is None;"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    )
    subprocess.run([sys.executable, "-I", "-c", code], check=True)
