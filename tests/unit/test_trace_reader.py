"""The trace reader: requests are paired with their responses, and damaged files are reported by line."""

from __future__ import annotations

from typing import Any

import pytest

from bridge_worker.trace.reader import TraceError, read
from bridge_worker.trace.report import Trace, TracedRequest
from tests.support.trace_lines import cancel_of, delta_of, error_of, request_of, result_of, trace_file


def trace_of(data: bytes) -> Trace:
    return read(data.splitlines(keepends=True))


# ---- requests and answers are paired -------------------------------------------------------------------------------------------


def test_a_response_belongs_to_the_request_of_its_id_and_type() -> None:
    one, other, again = trace_of(
        trace_file(
            (0, "in", request_of(1)),
            (1, "in", request_of("1")),
            (2, "out", result_of("1")),
            (5, "out", result_of(1)),
            (6, "in", request_of(1)),
            (9, "out", error_of(1, "timeout")),
        )
    ).requests()
    assert [request.duration_ms for request in (one, other, again)] == [5, 1, 3]
    assert [request.outcome for request in (one, other, again)] == ["ok", "ok", "timeout"]


def test_a_second_request_of_an_id_in_flight_is_the_one_that_is_refused() -> None:
    first, second = trace_of(
        trace_file(
            (0, "in", request_of(1)), (1, "in", request_of(1)), (2, "out", error_of(1, "invalid_message")), (9, "out", result_of(1))
        )
    ).requests()
    assert [(request.outcome, request.end_ms) for request in (first, second)] == [("ok", 9), ("invalid_message", 2)]


def test_deltas_cancels_batches_and_progress_belong_to_their_requests() -> None:
    call = request_of(3, "tools/call", name="chat", arguments={"model": "x"}, _meta={"progressToken": "t"})
    progress = {
        "jsonrpc": "2.0",
        "method": "notifications/progress",
        "params": {"progressToken": "t", "progress": 1, "message": "a"},
    }
    batch, cancelled, tool = trace_of(
        trace_file(
            (0, "in", [request_of(1, stream=True), request_of(2)]),
            (1, "out", delta_of(1)),
            (2, "in", cancel_of(2)),
            (2, "in", cancel_of(9)),
            (3, "out", delta_of(1)),
            (4, "in", call),
            (5, "out", progress),
            (8, "out", [result_of(1), error_of(2, "cancelled")]),
        )
    ).requests()
    assert (batch.first_ms, batch.deltas, batch.end_ms, batch.stream) == (1, [1, 3], 8, True)
    assert (cancelled.cancel_ms, cancelled.outcome) == (2, "cancelled")
    assert (tool.tool, tool.model, tool.deltas, tool.outcome) == ("chat", "x", [5], "unanswered")


def test_usage_and_cost_are_those_of_the_response() -> None:
    receipt = {"served_model": "m-2026", "attempts": [{}, {}], "fallback": True, "engine": {"name": "litellm", "version": "1"}}
    used = result_of(1, usage={"input_tokens": 9, "output_tokens": 4}, cost_usd=0.5, provider="openai", receipt=receipt)
    mcp_error = {"code": 1003, "data": {"kind": "model_not_found"}}
    trace = trace_of(
        trace_file(
            (0, "in", request_of(1)),
            (1, "out", used),
            (2, "in", request_of(2, "tools/call", name="chat", arguments={"model": "m"})),
            (3, "out", result_of(2, isError=True, _meta={"omni-bridge/error": mcp_error})),
            (4, "in", request_of(3)),
            (5, "out", error_of(3, "cancelled", receipt=receipt)),
        )
    )
    request = next(trace.requests())
    assert (request.input_tokens, request.output_tokens, request.cost_usd, request.provider) == (9, 4, 0.5, "openai")
    assert (request.served_model, request.attempts, request.fallback, request.engine) == ("m-2026", 2, True, "litellm")
    (total,) = trace.totals()
    assert (total.model, total.requests, total.ok, total.failed, total.cancelled) == ("m", 3, 1, 1, 1)
    assert (total.input_tokens, total.output_tokens, total.cost_usd) == (9, 4, 0.5)


def test_workers_that_share_a_file_are_separate_runs() -> None:
    mixed = (
        trace_file((0, "in", request_of(1)), pid=1)
        + trace_file((0, "in", request_of(1)), pid=2)
        + trace_file((5, "out", result_of(1)), pid=1).split(b"\n", 1)[1]
    )
    runs = trace_of(mixed).runs
    assert [(run.pid, run.requests[0].outcome, run.ended) for run in runs] == [(1, "ok", False), (2, "unanswered", False)]


# ---- files that are cut, foreign or hostile ------------------------------------------------------------------------------------


@pytest.mark.parametrize("rest", [b'{"pid":7,"ti', b'{"pid":7,"ti\n' + trace_file((0, "in", request_of(2)))])
def test_a_half_line_is_forgiven_where_a_run_was_killed(rest: bytes) -> None:
    trace = trace_of(trace_file((0, "in", request_of(1))) + rest)
    assert next(trace.requests()).id == 1
    assert not trace.runs[0].ended


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"", 1),
        (b"\n\n", 1),
        (b"model_list: []\n", 1),
        (b"[]\n", 1),
        (b"\x00\xff\n", 1),
        (b'{"pid": 7, "ms": 1, "dir": "in"}\n', 1),
        (trace_file() + b"not json\n" + trace_file((0, "in", request_of(1))).split(b"\n", 1)[1], 2),
        (trace_file() + b"not json\n", 2),
        (trace_file() + b'{"pid":7,"ms":"soon","dir":"in","bytes":1}\n', 2),
        (trace_file() + b'{"pid":8,"ms":1,"dir":"in","bytes":1}\n', 2),
        (trace_file() + b'{"pid":7,"ms":1,"dir":"up"}\n', 2),
        (trace_file() + b'{"pid":[],"ms":1,"dir":"in"}\n', 2),
        (b'{"trace":2,"pid":7}\n', 1),
        (b'{"trace":1,"pid":"7"}\n', 1),
        (b"[" * 100_000 + b"\n", 1),
    ],
)
def test_a_damaged_or_foreign_file_is_reported_with_its_line(data: bytes, line: int) -> None:
    with pytest.raises(TraceError) as raised:
        trace_of(data)
    assert f"line {line}:" in str(raised.value) or (line == 1 and "line 1" in str(raised.value))


@pytest.mark.parametrize(
    "odd", [None, 5, "x", [], {}, {"data": 5}, {"usage": [], "receipt": "x", "cost_usd": "much", "provider": {}}]
)
def test_values_of_the_wrong_kind_are_left_out(odd: Any) -> None:
    broken = {"jsonrpc": "2.0", "id": 1, "method": "chat", "params": odd}
    (request,) = trace_of(
        trace_file(
            (0, "in", broken), (1, "out", delta_of(odd)), (2, "out", {"id": 1, "result": odd, "error": odd if odd != {} else None})
        )
    ).requests()
    assert isinstance(request, TracedRequest)
    assert request.cost_usd is None
    assert request.model is None
