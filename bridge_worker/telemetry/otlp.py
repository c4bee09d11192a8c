"""Exports spans to an OpenTelemetry collector when OTEL_EXPORTER_OTLP_ENDPOINT or ..._TRACES_ENDPOINT is set.

Owns OpenTelemetry's SDK, with a private tracer provider, so that no library sends spans through it. Refuses to delay or fail a
request: a collector that is down costs spans and one log line. `spans` owns the content of a span.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from bridge_worker.protocol.session import Response, Start
from bridge_worker.telemetry.spans import describe_span
from bridge_worker.version import __version__

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

FLUSH_SECONDS = 1.5  # for the last export; the process waits two seconds for everything that it closes
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")

_log = logging.getLogger(__name__)


class Telemetry(Protocol):
    def record(self, start: Start, received: float, response: Response) -> None:
        """``received`` is the request's arrival by time.monotonic(); the request ends now."""

    async def aclose(self) -> None:
        """Sends the remaining spans, in at most `FLUSH_SECONDS`."""


def from_environment(environ: Mapping[str, str]) -> Telemetry | None:
    """None if no endpoint is set, or if OpenTelemetry can't start, which the log reports."""
    wanted = any(environ.get(name) for name in _ENDPOINTS)
    disabled = environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none"
    if not wanted or disabled:
        return None
    protocol = next((environ[name] for name in _PROTOCOLS if environ.get(name)), "http/protobuf")
    if protocol != "http/protobuf":
        _log.warning("spans are sent as http/protobuf, not as %s: correct OTEL_EXPORTER_OTLP_PROTOCOL and the port", protocol)
    try:
        return _Spans()
    except ImportError as error:
        _log.warning("no spans are sent, although an OTLP endpoint is set: %s; pip install 'omni-bridge[otel]'", error)
    except Exception:
        _log.warning("no spans are sent: OpenTelemetry does not start with these OTEL_ variables", exc_info=True)
    return None


class _Spans:
    def __init__(self) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(_quiet(OTLPSpanExporter())))
        self._tracer = self._provider.get_tracer("omni-bridge", __version__)
        self._parents = TraceContextTextMapPropagator()
        # OpenTelemetry logs a line at each failed export; the bridge logs one.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)

    def record(self, start: Start, received: float, response: Response) -> None:
        try:
            self._record(start, received, response)
        except Exception:  # the response must still be sent
            _log.exception("a span could not be recorded")

    def _record(self, start: Start, received: float, response: Response) -> None:
        from opentelemetry.context import Context
        from opentelemetry.trace import SpanKind, Status, StatusCode

        description = describe_span(start, response)
        if description is None:
            return
        end = time.time_ns()
        span = self._tracer.start_span(
            description.name,
            # An empty context: otherwise an invalid parent would be replaced by the current context.
            context=self._parents.extract(description.parent, Context()),
            kind=SpanKind.CLIENT,
            attributes=description.attributes,
            start_time=end - int((time.monotonic() - received) * 1e9),
        )
        if description.failed:
            span.set_status(Status(StatusCode.ERROR))
        span.end(end)

    async def aclose(self) -> None:
        async with asyncio.timeout(FLUSH_SECONDS):
            await asyncio.to_thread(self._provider.force_flush)


def _resource() -> Resource:
    """The resource from the OTEL_ variables, with the bridge's name and version if they set no service name."""
    from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource

    given = Resource.create()
    named = not str(given.attributes.get(SERVICE_NAME, "")).startswith("unknown_service")
    ours = Resource({SERVICE_NAME: "omni-bridge", SERVICE_VERSION: __version__})
    return given if named else given.merge(ours)


def _quiet(exporter: SpanExporter) -> SpanExporter:
    """Wraps ``exporter``: logs one line when exports begin to fail, and one when they work again."""
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

    class Quiet(SpanExporter):
        failing = False

        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            try:
                result = exporter.export(spans)
            except Exception:
                result = SpanExportResult.FAILURE
            failed = result is not SpanExportResult.SUCCESS
            if failed and not self.failing:
                _log.warning("spans are lost: the OTLP endpoint is unreachable or rejects them; serving continues")
            if self.failing and not failed:
                _log.warning("spans are sent again")
            self.failing = failed
            return result

        def shutdown(self) -> None:
            exporter.shutdown()

        def force_flush(self, timeout_millis: int = 30_000) -> bool:
            return exporter.force_flush(timeout_millis)

    return Quiet()
