"""Spans without a collector: when they are exported, and the attributes that each carries."""

from __future__ import annotations

import sys

import pytest
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv._incubating.attributes.gen_ai_attributes import GenAiProviderNameValues

from bridge_worker.protocol.session import Start
from bridge_worker.providers.facts import OPENTELEMETRY_NAMES
from bridge_worker.security.redaction import Redactor
from bridge_worker.telemetry.otlp import from_environment
from bridge_worker.telemetry.spans import describe_span


@pytest.mark.rule("OTL-3")
@pytest.mark.parametrize("off", [{"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}])
def test_spans_can_be_switched_off(off: dict[str, str]) -> None:
    assert from_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"} | off) is None


@pytest.mark.rule("OTL-3")
def test_without_the_extra_there_is_one_warning_with_the_install_command(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    assert from_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}) is None
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "pip install 'omni-bridge[otel]'" in record.getMessage()


def test_another_protocol_is_reported(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    from_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
    assert "not as grpc" in caplog.records[0].getMessage()


def test_headers_for_the_collector_are_secrets() -> None:
    redact = Redactor({"OTEL_EXPORTER_OTLP_HEADERS": "x-team=hush-hush-4711,authorization=Basic%20aHVzaDpodXNo"}).redact
    assert redact("a hush-hush-4711 b aHVzaDpodXNo") == "a [redacted] b aHVzaDpodXNo"
    assert redact("Basic aHVzaDpodXNo Basic%20aHVzaDpodXNo") == "[redacted] [redacted]"


# ---- the conventions -----------------------------------------------------------------------------------------------------------


def test_each_attribute_is_one_of_the_conventions_or_our_own() -> None:
    known = {value for name, value in vars(gen_ai_attributes).items() if isinstance(value, str) and name.startswith("GEN_AI")}
    usage = {"input_tokens": 1, "output_tokens": 1, "cached_input_tokens": 1, "cache_write_tokens": 1, "reasoning_tokens": 1}
    receipt = {"served_model": "m", "attempts": [], "fallback": False}
    result = {
        "usage": usage,
        "receipt": receipt,
        "finish_reason": "stop",
        "timing": {"first_token_ms": 5},
        "id": "i",
        "cost_usd": 1.0,
    }
    options = dict.fromkeys(("temperature", "top_p", "frequency_penalty", "presence_penalty", "max_tokens", "seed", "stream"), 1)
    span = describe_span(Start(1, "chat", {"model": "m", **options}), {"result": result})
    assert span
    theirs = {name for name in span.attributes if name.startswith("gen_ai.")}
    newer = {"gen_ai.request.stream", "gen_ai.response.time_to_first_chunk", "gen_ai.usage.reasoning.output_tokens"}
    assert theirs - newer <= known
    assert set(span.attributes) - theirs == {
        "jsonrpc.request.id",
        "omni_bridge.cost_usd",
        "omni_bridge.attempts",
        "omni_bridge.fallback",
    }


def test_providers_have_the_conventions_names() -> None:
    named = {value.value for value in GenAiProviderNameValues}
    assert set(OPENTELEMETRY_NAMES.values()) <= named
