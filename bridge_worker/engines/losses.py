"""The error for a request of a lost engine.

Owns the error and what is known of the request: whether it was sent to a provider, and the content of its deltas. Refuses to know
why an engine is lost.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bridge_worker.errors import BridgeError
from bridge_worker.protocol.link_frames import Progress

_DELTA = "notifications/chat/delta"


def was_sent(progress: int) -> bool | None:
    """None: not known. ``progress`` is what the engine's board has."""
    return {Progress.PLACED: False, Progress.RECEIVED: False, Progress.SENT: True}.get(Progress(progress))


def engine_lost(how: str, sent: bool | None, deltas: Sequence[bytes]) -> BridgeError:
    """``deltas`` are those that were relayed. Retryable unless there are any: to repeat the request would show them twice."""
    advice = "" if deltas else ", so try again"
    message = f"the engine process of this request ended ({how}); another one takes its place{advice}"
    extra: dict[str, object] = {"retryable": not deltas, "sent_upstream": sent, "partial": partial_of(deltas)}
    return BridgeError("engine_lost", message, extra=extra)


def partial_of(deltas: Iterable[bytes]) -> dict[str, Any]:
    """The content and tool calls of the deltas that were relayed, each element one or more lines; as in other errors."""
    content: list[str] = []
    calls: dict[int, dict[str, Any]] = {}
    for lines in deltas:
        for line in lines.splitlines():
            message = json.loads(line)
            if message["method"] == _DELTA:
                _add(message["params"]["delta"], content, calls)
    return {"content": "".join(content) or None, "tool_calls": list(calls.values())}


def _add(delta: Mapping[str, Any], content: list[str], calls: dict[int, dict[str, Any]]) -> None:
    content.append(delta.get("content") or "")
    for piece in delta.get("tool_calls") or ():
        function = piece["function"]
        call = calls.setdefault(piece["index"], {"id": None, "type": "function", "function": {"name": None, "arguments": ""}})
        call["id"] = call["id"] or piece.get("id")
        call["function"]["name"] = call["function"]["name"] or function.get("name")
        call["function"]["arguments"] += function.get("arguments") or ""
