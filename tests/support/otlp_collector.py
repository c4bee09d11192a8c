"""An OpenTelemetry collector: a real HTTP server that reads OTLP's protobuf.

Owns a socket on 127.0.0.1 and the spans that came. Refuses to know what they should say.
"""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.worker import WAIT_SECONDS


@dataclass
class Span:
    """``status``: "unset", "ok" or "error". Times are in nanoseconds."""

    name: str
    kind: int
    attributes: dict[str, Any]
    status: str
    trace_id: str
    parent_id: str
    trace_state: str
    start: int
    end: int
    resource: dict[str, Any]


class Collector:
    """``headers``: of each request. ``status``: what it answers with; ``held``: it answers once this is set."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.headers: list[dict[str, str]] = []
        self.raw = b""
        self.status = 200
        self.held = threading.Event()
        self.held.set()
        self._changed = threading.Condition()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.held.set()
        self._server.shutdown()
        self._server.server_close()

    def wait_for(self, wanted: Callable[[Span], bool]) -> Span:
        """The first span, past or to come, that is ``wanted``."""

        def found() -> Span | None:
            return next((span for span in self.spans if wanted(span)), None)

        with self._changed:
            self._changed.wait_for(found, WAIT_SECONDS)
            span = found()
            assert span, f"no such span came; there are {self.spans[-3:]}"
            return span

    def wait_for_requests(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.headers) >= count, WAIT_SECONDS)

    def _took(self, path: str, headers: dict[str, str], data: bytes) -> None:
        with self._changed:
            self.headers.append(headers | {"path": path})
            self.raw += data
            if self.status == 200:
                self.spans += spans_of(data)
            self._changed.notify_all()

    def _handler(collector) -> type[BaseHTTPRequestHandler]:  # "self" is the request's
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers["content-length"]))
                data = gzip.decompress(data) if self.headers.get("content-encoding") == "gzip" else data
                collector._took(self.path, {name.lower(): value for name, value in self.headers.items()}, data)
                collector.held.wait(WAIT_SECONDS)
                self.send_response(collector.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Not on the test's own stderr."""

        return Handler


def spans_of(data: bytes) -> list[Span]:
    request = ExportTraceServiceRequest.FromString(data)
    return [
        Span(
            name=span.name,
            kind=span.kind,
            attributes=_attributes(span.attributes),
            status=("unset", "ok", "error")[span.status.code],
            trace_id=span.trace_id.hex(),
            parent_id=span.parent_span_id.hex(),
            trace_state=span.trace_state,
            start=span.start_time_unix_nano,
            end=span.end_time_unix_nano,
            resource=_attributes(of_resource.resource.attributes),
        )
        for of_resource in request.resource_spans
        for scope in of_resource.scope_spans
        for span in scope.spans
    ]


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    return [_value(member) for member in value.array_value.values] if kind == "array_value" else getattr(value, kind)
