"""The rules of protocol.md that any conversation keeps, checked on what a client sends and receives.

Owns the count of responses, the deltas of each request and their order. Refuses to know what a request is for, and who runs it.
The names of what is broken are those of `bridge_worker.invariants`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

DELTA = "notifications/chat/delta"
_CANCELLED_ID: dict[Any, str] = {"notifications/cancelled": "requestId", "$/cancelRequest": "id"}
_FIRST_OF_SECOND = "is already in flight"  # of the error for a second request with the id of one in flight

Key = tuple[type, Any]


@dataclass(slots=True)
class _Stream:
    """Of the deltas since the last response with this id."""

    seq: int = 0
    content: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)


class Conversation:
    """Feed it both directions in the order in which the client sees them; `problems` collects (invariant, what was seen)."""

    def __init__(self) -> None:
        self.problems: list[tuple[str, str]] = []
        self.owed: Counter[Key] = Counter()
        self.response_counts: Counter[Key] = Counter()
        self.responses: dict[Key, list[Any]] = {}
        self.refused = 0  # responses with a null id
        self._may_be_silent: Counter[Key] = Counter()  # MCP-9, and what the worker may not have read before its end
        self._mcp_calls: set[Key] = set()
        self._is_ending = False
        self._open: set[Key] = set()  # `open_ids`
        self._streams: dict[Key, _Stream] = {}
        self._streamed: set[Key] = set()  # chats that are streamed, until their response
        self._first_in_batch: set[Key] = set()  # the first request with this id is in a batch whose array has not arrived

    def sent(self, value: object) -> None:
        """A line that the client has sent and the worker can read."""
        in_batch = isinstance(value, list)
        for message in value if isinstance(value, list) else [value]:
            if not isinstance(message, dict):
                continue
            if "id" in message:
                self._requested(message, in_batch)
            elif (name := _CANCELLED_ID.get(message.get("method"))) is not None:
                key = _key(message["params"][name])
                if key in self._mcp_calls:
                    self._may_be_silent[key] = 1
                    self._note_open(key)

    def _requested(self, message: dict[str, Any], in_batch: bool) -> None:
        key = _key(message["id"])
        if in_batch and self.response_counts[key] == self.owed[key]:
            self._first_in_batch.add(key)
        if (
            self.response_counts[key] == self.owed[key]
            and message.get("method") == "chat"
            and message["params"].get("stream") is True
        ):
            self._streamed.add(key)
        self.owed[key] += 1
        if message.get("method") == "tools/call":
            self._mcp_calls.add(key)
        if self._is_ending:
            self._may_be_silent[key] += 1
        self._is_ending |= message.get("method") == "shutdown"
        self._note_open(key)

    def received(self, line: bytes) -> list[Any]:
        """The messages of ``line``."""
        try:
            value = json.loads(line)
        except ValueError:
            self._broken("one_line", f"not a line of JSON: {line[:80]!r}")
            return []
        messages = value if isinstance(value, list) else [value]
        for message in messages:
            if "method" in message:
                self._notified(message)
            else:
                self._responded(message, isinstance(value, list))
        return messages

    def is_complete(self) -> bool:
        return not self._open

    def open_ids(self) -> Iterator[Any]:
        """Ids of requests that still need a response."""
        return (key[1] for key in self._open)

    def end(self, *, whole: bool) -> None:
        """``whole``: the worker had every chance to respond to all."""
        missing = list(self.open_ids())
        if whole and missing:
            self._broken("one_response", f"no response to {missing[:5]}")

    def _notified(self, message: Any) -> None:
        if message["method"] != DELTA:
            return
        params = message["params"]
        key = _key(params["requestId"])
        if self.response_counts[key] >= self.owed[key]:
            self._broken("nothing_after", f"a delta of {key[1]!r} after its response")
        stream = self._streams.setdefault(key, _Stream())
        if params["seq"] != stream.seq:
            self._broken("seq", f"{key[1]!r}: seq {params['seq']} instead of {stream.seq}")
        stream.seq = params["seq"] + 1
        stream.content.append(params["delta"].get("content") or "")
        stream.reasoning.append(params["delta"].get("reasoning_content") or "")

    def _responded(self, message: Any, in_batch: bool) -> None:
        if message["id"] is None:
            self.refused += 1
            return
        key = _key(message["id"])
        is_refusal = "error" in message and _FIRST_OF_SECOND in message["error"]["message"]
        if in_batch:
            self._first_in_batch.discard(key)
        elif key in self._first_in_batch and not is_refusal:
            self._broken("one_response", f"{key[1]!r} was taken a second time before the batch of the first was sent")
        self.response_counts[key] += 1
        self.responses.setdefault(key, []).append(message)
        self._note_open(key)
        if self.response_counts[key] > self.owed[key]:
            self._broken(
                "one_response", f"{self.response_counts[key]} responses to {self.owed[key]} requests with the id {key[1]!r}"
            )
        if is_refusal:
            return
        stream = self._streams.pop(key, None)
        if stream is None and key in self._streamed:
            stream = _Stream()  # a result without deltas must be empty
        self._streamed.discard(key)
        if stream is not None:
            self._compare(key, stream, message)

    def _note_open(self, key: Key) -> None:
        if self.response_counts[key] + self._may_be_silent[key] < self.owed[key]:
            self._open.add(key)
        else:
            self._open.discard(key)

    def _compare(self, key: Key, stream: _Stream, message: Any) -> None:
        joined = "".join(stream.content)
        if "result" in message:
            result = message["result"]
            if joined != (result.get("content") or "") or "".join(stream.reasoning) != (result.get("reasoning") or ""):
                self._broken(
                    "joined", f"{key[1]!r}: the deltas are {joined[:40]!r}, the result {str(result.get('content'))[:40]!r}"
                )
            return
        partial = (message["error"]["data"].get("partial") or {}).get("content") or ""
        if not joined.startswith(partial) and not partial.startswith(joined):
            self._broken("joined", f"{key[1]!r}: the deltas are {joined[:40]!r}, partial {partial[:40]!r}")

    def _broken(self, invariant: str, what: str) -> None:
        self.problems.append((invariant, what))


def _key(id: Any) -> Key:
    return type(id), id
