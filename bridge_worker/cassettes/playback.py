"""Plays one recorded chat: its bytes through the decoder of their format, or its deltas where no bytes were recorded.

Owns the pauses, what follows the last recorded byte, and the receipt of a replayed chat. Refuses to know files, and which exchange
is played.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from bridge_worker.backends.reading import AttemptError, ConnectionFailed, Reading, connection_fault, status_fault
from bridge_worker.backends.wire.formats import FORMATS, decoder_of
from bridge_worker.cassettes.entry import raw
from bridge_worker.cassettes.recorded_deltas import deltas_of, with_recorded_ids
from bridge_worker.core.deltas import Delta, End, TokenUsage
from bridge_worker.core.exchange import READ_BY_LITELLM
from bridge_worker.core.ports import ChatRequest, Facts
from bridge_worker.core.receipt import Addition, Attempt, Change, EngineVersion, Receipt
from bridge_worker.errors import KINDS, BridgeError
from bridge_worker.version import __version__

Entry = Mapping[str, Any]
_OF_EVERY_ERROR = ("kind", "retryable", "retry_after_ms", "provider", "model", "status", "receipt", "partial")


class _RecordedEnd(Exception):
    """What came of the request, where no byte follows. No `BridgeError`: nothing that reads bytes may take it for theirs."""


class RecordedBody:
    """A `backends.reading.Body`."""

    def __init__(self, attempt: Mapping[str, Any], outcome: BridgeError | None, *, in_real_time: bool) -> None:
        self.status: int = attempt["status"]
        self.headers: Mapping[str, str] = attempt["response_headers"]
        self._attempt = attempt
        self._outcome = outcome
        self._in_real_time = in_real_time
        self._began = time.monotonic()
        self._data = raw(attempt["body"])
        self._at = 0
        self._reads = iter(attempt["reads"])

    async def read(self) -> bytes:
        read = next(self._reads, None)
        if read is None:
            return await self._end()
        ms, length = read
        if self._in_real_time:
            await asyncio.sleep(self._began + (ms - self._attempt["sent_ms"]) / 1000 - time.monotonic())
        start, self._at = self._at, self._at + length
        return self._data[start : self._at]

    async def _end(self) -> bytes:
        end = self._attempt["end"]
        if end == "cut":
            raise ConnectionFailed(self._attempt["failure"], timed_out=self._attempt["timed_out"])
        if end == "whole" or self._outcome is None:
            return b""
        await never_or(self._outcome)
        return b""

    async def finish(self) -> None:
        """There is no connection to keep."""


async def never_or(outcome: BridgeError) -> None:
    """The client had cancelled, so the rest is not known: waits for its cancel or deadline. Raises any other outcome."""
    if outcome.kind == "cancelled":
        await asyncio.Event().wait()
    raise _RecordedEnd from outcome


async def play(entry: Entry, request: ChatRequest, *, in_real_time: bool) -> AsyncGenerator[list[Delta] | Facts, None]:
    """Yields as a `core.ports.ChatModel` does. Raises BridgeError."""
    wire = entry["wire"]
    outcome = None if "result" in wire else recorded_error(wire["error"])
    restore_receipt(request.receipt, entry)
    last = (entry.get("provider") or [None])[-1]
    is_of_outcome = last is not None and last["attempt"] == len(request.receipt.attempts) - 1
    try:
        if last is None or not is_of_outcome or last["format"] == READ_BY_LITELLM:
            async with aclosing(_play_deltas(wire, request, outcome, in_real_time=in_real_time)) as steps:
                async for step in steps:
                    yield step
            return
        provider = request.provider = last["provider"]
        reading = await _reading(last, provider, outcome, in_real_time=in_real_time)
        ids = with_recorded_ids(_tool_calls(wire))
        if entry["request"]["params"].get("stream"):
            while deltas := await reading.read():
                yield ids(deltas)
        else:
            yield ids(await reading.whole())
        end = reading.end()
        if end.model is not None and provider is not None:
            end.model = end.model.removeprefix(f"{provider}/")
        yield _facts(end, wire.get("result") or {}, provider)
    except _RecordedEnd:
        assert outcome is not None  # noqa: S101  # for mypy
        raise outcome from None
    except AttemptError as failed:
        raise _as_recorded(failed.fault, outcome) from None


async def _reading(attempt: Mapping[str, Any], provider: str | None, outcome: BridgeError | None, *, in_real_time: bool) -> Reading:
    """The recorded response, to be read from its start. Raises AttemptError where it has no content to read."""
    if attempt["status"] is None:
        failure = ConnectionFailed(attempt.get("failure") or "", timed_out=bool(attempt.get("timed_out")))
        if "failure" in attempt:
            raise AttemptError(connection_fault(failure, provider))
        await never_or(outcome or BridgeError("internal", "the exchange has no response"))
    if attempt["format"] not in FORMATS:
        problem = f"the cassette has bytes of the format {attempt['format']!r:.60}, which this omni-bridge does not know"
        raise BridgeError("bad_upstream_response", f"{problem}; update it")
    decoder = decoder_of(attempt["format"], attempt["renamed_tools"], schema_tool=attempt["schema_tool"])
    body = RecordedBody(attempt, outcome, in_real_time=in_real_time)
    if not 200 <= body.status < 300:
        raise AttemptError(await status_fault(body, decoder, provider))
    return Reading(body, decoder, provider)


async def _play_deltas(
    wire: Mapping[str, Any], request: ChatRequest, outcome: BridgeError | None, *, in_real_time: bool
) -> AsyncGenerator[list[Delta] | Facts, None]:
    result = wire.get("result")
    request.provider = (result or wire["error"]["data"]).get("provider")
    began, timing = time.monotonic(), (result or {}).get("timing") or {}
    for ms, deltas in deltas_of(wire):
        if in_real_time and ms is not None:
            await asyncio.sleep(began + (ms - (timing.get("queued_ms") or 0)) / 1000 - time.monotonic())
        yield deltas
    if result is None:
        await never_or(outcome or BridgeError("internal", "the exchange has no outcome"))
        return
    usage = TokenUsage(**result["usage"]) if result["usage"] else None
    kept = list(_recorded_receipt(wire).get("kept") or ())
    reason = result["finish_reason"]
    end = End(reason, result["raw_finish_reason"], usage, result["id"], result["model"], kept=kept)
    yield _facts(end, result, result["provider"])


def _facts(end: End, result: Mapping[str, Any], provider: str | None) -> Facts:
    given = result.get
    return Facts(end, provider, given("cost_usd"), given("cost_source"), given("price_map_date"), given("rate_limits"))


def restore_receipt(receipt: Receipt, entry: Entry) -> None:
    """The receipt of the recorded request; its engine is the cassette, and ``reason`` names the one that was recorded."""
    recorded = _recorded_receipt(entry["wire"])
    receipt.attempts = [Attempt(**attempt) for attempt in recorded.get("attempts") or ()]
    dropped, added = recorded.get("dropped"), recorded.get("added")
    receipt.dropped = None if dropped is None else [Change(**change) for change in dropped]
    receipt.added = None if added is None else [Addition(**addition) for addition in added]
    receipt.deployment = recorded.get("deployment")
    receipt.fallback = bool(recorded.get("fallback"))
    engine = recorded.get("engine") or {}
    of = f"recorded with {engine.get('name') or 'an unknown engine'} {engine.get('version') or ''}".rstrip()
    receipt.engine = EngineVersion("cassette", __version__, of)


def _recorded_receipt(wire: Mapping[str, Any]) -> Mapping[str, Any]:
    source: Mapping[str, Any] = wire.get("result") or wire["error"]["data"]
    return source.get("receipt") or {}


def _tool_calls(wire: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    source = wire.get("result") or wire["error"]["data"].get("partial") or {}
    return source.get("tool_calls") or ()


def recorded_error(error: Mapping[str, Any]) -> BridgeError:
    """``error`` is the JSON-RPC error that was sent."""
    data = error["data"]
    kind = data["kind"] if data["kind"] in KINDS else "internal"
    extra = {name: value for name, value in data.items() if name not in _OF_EVERY_ERROR}
    if data["retryable"] != KINDS[kind].retryable:
        extra["retryable"] = data["retryable"]
    return BridgeError(kind, error["message"], data["retry_after_ms"], data["provider"], data["model"], data["status"], extra)


def _as_recorded(fault: BridgeError, outcome: BridgeError | None) -> BridgeError:
    """What today's decoder makes of the bytes; where the kind is the recorded one, the rest is too."""
    return outcome if outcome is not None and outcome.kind == fault.kind else fault
