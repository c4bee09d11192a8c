"""The lines of a trace file, written by hand: what the reader and the command of a trace are tested with."""

from __future__ import annotations

import json
from typing import Any

from tests.support.worker import Json

HEADER = {"trace": 1, "pid": 7, "time": "2026-11-22T10:00:00.000Z", "version": "0.1.0", "content": "none"}


def trace_file(*entries: tuple[float, str, Any], pid: int = 7) -> bytes:
    """The lines of a run: (ms, "in" or "out", message)."""
    lines = [HEADER | {"pid": pid}]
    lines += [
        {"pid": pid, "time": "-", "ms": ms, "dir": direction, "bytes": len(json.dumps(m)) + 1, "message": m}
        for ms, direction, m in entries
    ]
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def request_of(id: object, method: str = "chat", **params: Any) -> Json:
    return {"jsonrpc": "2.0", "id": id, "method": method, "params": {"model": "m"} | params}


def result_of(id: object, **result: Any) -> Json:
    return {"jsonrpc": "2.0", "id": id, "result": result}


def error_of(id: object, kind: str, **data: Any) -> Json:
    return {"jsonrpc": "2.0", "id": id, "error": {"code": 1, "message": "no", "data": {"kind": kind, **data}}}


def delta_of(id: object) -> Json:
    return {
        "jsonrpc": "2.0",
        "method": "notifications/chat/delta",
        "params": {"requestId": id, "seq": 0, "delta": {"content": "[1 characters]"}},
    }


def cancel_of(id: object) -> Json:
    return {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}}
