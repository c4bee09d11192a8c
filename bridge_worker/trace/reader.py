"""Parses a trace file and pairs each request with its response, with times.

Owns the pairing of requests, deltas, cancels and responses, by run and id. Refuses to trust the file: it may be cut, foreign, or
crafted to inject content into a page or a terminal. What is not of the expected type is left out. Sans-IO: lines in,
`report.Trace` out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, TypeGuard

from bridge_worker.trace.report import EngineLost, Id, Run, Trace, TracedRequest

FORMAT = 1
_DELTAS = ("notifications/chat/delta", "notifications/progress")
_LONGEST_NAME = 200
_SHOWN = ("time", "ms", "dir", "bytes", "message", "fault", "text", "omitted")


class TraceError(Exception):
    """The file is not a trace or is damaged; one line with the line's number."""


def read(lines: Iterable[bytes]) -> Trace:
    """Raises TraceError. A killed run may leave half a line: it is ignored at the end and before the first line of the next run."""
    trace, readers = Trace([]), dict[int, _Reader]()
    fault: TraceError | None = None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        value = _json_object(line)
        if "trace" in value:
            run = _run(value, number)
            trace.runs.append(run)
            readers[run.pid] = _Reader(run)
            fault = None
        elif fault:
            raise fault
        elif not trace.runs:
            raise TraceError(f"line {number}: not a trace file; omni-bridge --stdio --trace FILE writes one")
        elif not _is_pid(pid := value.get("pid")) or pid not in readers or not readers[pid].take(value):
            fault = TraceError(f"line {number}: not a trace record; the file is damaged there")
            if not line.endswith(b"\n"):
                break  # the last line of the file is cut
    else:
        if fault:
            raise fault
    if not trace.runs:
        raise TraceError("line 1: the file is empty")
    return trace


def _run(header: dict[str, Any], number: int) -> Run:
    if header["trace"] != FORMAT:
        problem = f"the trace's format is {header['trace']!r:.20}, but this omni-bridge reads {FORMAT}; use a newer omni-bridge"
        raise TraceError(f"line {number}: {problem}")
    pid, time, version, content = (header.get(name) for name in ("pid", "time", "version", "content"))
    if not _is_pid(pid) or not isinstance(time, str) or not isinstance(version, str) or content not in ("none", "full"):
        raise TraceError(f"line {number}: the first line of a run must have pid, time, version and content")
    return Run(pid, time[:40], version[:40], content)


class _Reader:
    """The messages of one run, in order."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._open: dict[tuple[type, Id], list[TracedRequest]] = {}  # 1 and "1" are two ids
        self._tokens: dict[tuple[type, Id], TracedRequest] = {}  # of MCP's progress

    def take(self, line: dict[str, Any]) -> bool:
        """False if ``line`` is not a trace record."""
        ms = line.get("ms")
        if not _is_number(ms):
            return False
        self._run.end_ms = max(self._run.end_ms, ms)
        if line.get("end") is True:
            self._run.ended = True
            return True
        if "lost" in line:
            self._run.lost += _count(_in(line, "lost", "messages")) or 0
            return True
        if "engine_lost" in line:
            return self._engine_lost(line, ms)
        if line.get("dir") not in ("in", "out"):
            return False
        position = len(self._run.messages)
        self._run.messages.append({name: line[name] for name in _SHOWN if name in line})
        self._run.unread += line["dir"] == "in" and "message" not in line
        message = line.get("message")
        for member in message if isinstance(message, list) else [message]:
            if isinstance(member, dict):
                request = self._received(member, ms) if line["dir"] == "in" else self._sent(member, ms)
                if request:
                    request.messages.append(position)
        return True

    def _engine_lost(self, line: dict[str, Any], ms: float) -> bool:
        pid, how, requests = (_in(line, "engine_lost", name) for name in ("pid", "how", "requests"))
        if not _is_pid(pid) or not isinstance(how, str) or not _is_pid(requests):
            return False
        self._run.engines_lost.append(EngineLost(ms, pid, how[:_LONGEST_NAME], requests))
        return True

    def _received(self, message: dict[str, Any], ms: float) -> TracedRequest | None:
        method = message.get("method")
        if not isinstance(method, str):
            return None
        if method in ("notifications/cancelled", "$/cancelRequest"):
            named = "requestId" if method == "notifications/cancelled" else "id"
            return self._cancelled(_id(_in(message, "params", named)), ms)
        if "id" not in message:
            return None
        request = _new_request(message, method[:_LONGEST_NAME], ms)
        self._run.requests.append(request)
        if request.id is not None:
            self._open.setdefault((type(request.id), request.id), []).append(request)
        token = _id(_in(message, "params", "_meta", "progressToken"))
        if token is not None:
            self._tokens[type(token), token] = request
        return request

    def _cancelled(self, id: Id | None, ms: float) -> TracedRequest | None:
        request = self._first(id)
        if request and request.cancel_ms is None:
            request.cancel_ms = ms
        return request

    def _sent(self, message: dict[str, Any], ms: float) -> TracedRequest | None:
        if message.get("method") in _DELTAS:
            return self._delta(message, ms)
        id = _id(message.get("id"))
        request = self._responded(id, _in(message, "error", "data", "kind"))
        if request:
            request.end_ms = ms
            _conclude(request, message)
        return request

    def _delta(self, message: dict[str, Any], ms: float) -> TracedRequest | None:
        token = _id(_in(message, "params", "progressToken"))
        request = self._first(_id(_in(message, "params", "requestId"))) if token is None else self._tokens.get((type(token), token))
        if request:
            request.first_ms = ms if request.first_ms is None else request.first_ms
            request.deltas.append(ms)
        return request

    def _first(self, id: Id | None) -> TracedRequest | None:
        waiting = self._open.get((type(id), id)) if id is not None else None
        return waiting[0] if waiting else None

    def _responded(self, id: Id | None, kind: object) -> TracedRequest | None:
        """The request that a response with ``id`` ends. A second request with an id in flight is rejected; the first continues."""
        waiting = self._open.get((type(id), id), []) if id is not None else []
        if not waiting:
            return None
        return waiting.pop() if kind == "invalid_message" and len(waiting) > 1 else waiting.pop(0)


def _new_request(message: dict[str, Any], method: str, ms: float) -> TracedRequest:
    params = message.get("params")
    request = TracedRequest(_id(message["id"]), method, ms)
    if method == "tools/call":
        request.tool = _name(_in(params, "name"))
        params = _in(params, "arguments")
    request.model = _name(_in(params, "model"))
    request.stream = _in(params, "stream") is True
    return request


def _conclude(request: TracedRequest, message: dict[str, Any]) -> None:
    """Copies the facts of the response to ``request``. The result of an MCP tool has them in ``structuredContent``."""
    result, error = message.get("result"), message.get("error")
    if request.method == "tools/call" and isinstance(result, dict):
        error = _in(result, "_meta", "omni-bridge/error")
        result = result.get("structuredContent")
    about = _in(error, "data") if error is not None else result
    request.outcome = (_name(_in(error, "data", "kind")) or "error") if error is not None else "ok"
    request.provider = _name(_in(about, "provider"))
    request.input_tokens = _count(_in(about, "usage", "input_tokens"))
    request.output_tokens = _count(_in(about, "usage", "output_tokens"))
    cost = _in(about, "cost_usd")
    request.cost_usd = float(cost) if _is_number(cost) else None
    receipt = _in(about, "receipt")
    request.served_model = _name(_in(receipt, "served_model"))
    request.engine = _name(_in(receipt, "engine", "name"))
    attempts = _in(receipt, "attempts")
    request.attempts = len(attempts) if isinstance(attempts, list) else 0
    request.fallback = _in(receipt, "fallback") is True


def _json_object(line: bytes) -> dict[str, Any]:
    """The line as an object; {} if it is not one."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _is_pid(value: Any) -> TypeGuard[int]:
    return type(value) is int


def _in(value: Any, *path: str) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _id(value: Any) -> Id | None:
    return value if isinstance(value, str | int) and not isinstance(value, bool) else None


def _name(value: Any) -> str | None:
    return value[:_LONGEST_NAME] if isinstance(value, str) else None


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15
