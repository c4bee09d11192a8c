"""Deltas of a backend out of the deltas and the result that a client got; and the ids of tool calls that the bridge had made up.

Owns the conversion back from the bridge's own wire. Refuses to know bytes and pauses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from bridge_worker.core.deltas import Delta, ToolCallDelta

_MESSAGE = ("provider_specific_fields", "reasoning_items", "audio")  # members of a message that no delta has


def deltas_of(wire: Mapping[str, Any]) -> Iterator[tuple[float | None, list[Delta]]]:
    """(ms since the request was received, deltas); the last has what the client got with the result only."""
    result: Mapping[str, Any] = wire.get("result") or {}
    message = result.get("message") or {}
    state = {call["id"]: call.get("provider_specific_fields") for call in message.get("tool_calls") or ()}
    for ms, delta in wire.get("deltas") or ():
        yield ms, [_delta(delta, state)]
    last = Delta(
        thinking_blocks=message.get("thinking_blocks"),
        annotations=result.get("annotations"),
        images=message.get("images"),
        message={name: message[name] for name in _MESSAGE if message.get(name)} or None,
        logprobs=(result.get("logprobs") or {}).get("content"),
    )
    if not wire.get("deltas"):
        last.content, last.reasoning, last.refusal = result.get("content"), result.get("reasoning"), result.get("refusal")
        calls = [{"index": at, **call} for at, call in enumerate(result.get("tool_calls") or ())]
        last.tool_calls = [_call(call, state) for call in calls] or None
    if last != Delta():
        yield None, [last]


def _delta(delta: str | Mapping[str, Any], state: Mapping[str, Any]) -> Delta:
    if isinstance(delta, str):
        return Delta(content=delta)
    calls = [_call(call, state) for call in delta.get("tool_calls") or ()]
    return Delta(delta.get("content"), delta.get("reasoning_content"), calls or None, refusal=delta.get("refusal"))


def _call(call: Mapping[str, Any], state: Mapping[str, Any]) -> ToolCallDelta:
    function, id = call.get("function") or {}, call.get("id")
    return ToolCallDelta(call["index"], id, function.get("name"), function.get("arguments") or "", state.get(id or ""))


def with_recorded_ids(calls: Sequence[Mapping[str, Any]]) -> Callable[[list[Delta]], list[Delta]]:
    """Gives a tool call without an id, or with one that another has, the id that the bridge made up when it was recorded."""
    if not calls:
        return lambda deltas: deltas
    begun, taken = iter(calls), set[str]()

    def restore(deltas: list[Delta]) -> list[Delta]:
        for delta in deltas:
            for piece in delta.tool_calls or ():
                if piece.name:
                    recorded = next(begun, None)
                    if recorded is not None and (piece.id is None or piece.id in taken):
                        piece.id = recorded["id"]
                    taken.add(piece.id or "")
        return deltas

    return restore
