"""The interface of a decoder of one wire format, for a streamed and a plain response alike; the loop that event streams share.

Owns what a caller may rely on. Refuses to know a format.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from bridge_worker.backends.wire import provider_errors
from bridge_worker.backends.wire.json_values import parse
from bridge_worker.backends.wire.sse import Event, EventStream
from bridge_worker.core.deltas import Delta, End
from bridge_worker.errors import BridgeError


class Decoder(Protocol):
    """Decodes one response. A plain body and a stream go through the same tables, so that the two cannot disagree.

    `feed`, `flush` and `end` serve a stream, `whole` and `end` a plain response. Any cut of the bytes gives the same joined result.
    Each raises BridgeError only: ``bad_upstream_response``, ``stream_interrupted`` or the kind that the provider's error means. A
    message quotes at most 500 characters of what could not be read.

    An error behind deltas in the same read does not cost the deltas: they are returned, ``failure`` is set, and every later call
    raises it. A caller emits the deltas of a read, then raises ``failure``, then looks at ``done``. At the end of the bytes, or
    when ``done``, it calls `flush` once and then `end`.
    """

    failure: BridgeError | None  # found behind the deltas of the last read
    done: bool  # the provider's end marker has arrived: nothing of the response follows, the connection need not be read on

    def feed(self, data: bytes) -> list[Delta]:
        """The deltas that these bytes complete: one list for each read, possibly empty."""

    def flush(self) -> list[Delta]:
        """The deltas that only the end of the bytes completes (an unfinished line, a JSON body sent to a streamed request)."""

    def end(self) -> End:
        """The facts, after `flush` or `whole`. Raises ``stream_interrupted`` where the provider never reported a finish."""

    def whole(self, body: bytes) -> list[Delta]:
        """The deltas of a plain response's body."""

    @staticmethod
    def error(status: int, headers: Mapping[str, str], body: bytes) -> BridgeError:
        """The error that a response with an HTTP status other than 2xx means; ``body`` has been cut to 64 KiB by the reader."""


class Events(Protocol):
    """A framing: bytes in, events out, as `EventStream` documents it."""

    completed: list[Event]
    stray: bytearray

    def feed(self, data: bytes) -> list[Event]:
        """The events that these bytes complete."""

    def close(self) -> list[Event]:
        """The events that only the end of the bytes completes."""


class EventStreamDecoder:
    """The part that decoders of server-sent events share: reads, errors behind deltas, bodies that are not events, the end.

    A subclass implements `on_event`, `on_body` and `facts`. Its ``finished`` becomes true with the provider's finish reason.
    """

    __slots__ = ("_events", "_lost", "_unreadable", "done", "failure", "finished", "streamed")

    def __init__(self) -> None:
        self._events: Events = EventStream()
        self._unreadable = False
        self._lost: bytes | bytearray = b""  # the last bytes of a stream without an end, to be quoted
        self.failure: BridgeError | None = None
        self.done = False
        self.finished = False
        self.streamed = False  # at least one delta was made

    # -- for a subclass ------------------------------------------------------------------------------------------------------

    def on_event(self, name: str, data: bytes, out: list[Delta]) -> None:
        """Appends the deltas of one event to ``out``. Raises BridgeError, or ValueError for data that can't be read."""
        raise NotImplementedError

    def is_error(self, value: Any) -> bool:
        """Whether a whole body reports an error, and nothing else."""
        return provider_errors.error_in(value) is not None

    def on_body(self, value: Any, body: bytes | bytearray, out: list[Delta]) -> None:
        """Reads a whole body: a plain response, or JSON that was sent to a streamed request."""
        raise NotImplementedError

    def on_end(self, out: list[Delta]) -> None:
        """Appends what is known only when all was read: state that was gathered, text that was held back."""

    def facts(self) -> End:
        raise NotImplementedError

    # -- for the caller ------------------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> list[Delta]:
        self._raise_failure()
        out: list[Delta] = []
        if self.done:
            return out
        stream = self._events
        try:
            events = stream.feed(data)
        except BridgeError as error:
            self._decode(stream.completed, out)
            if not self.done:
                self.failure = self.failure or error
        else:
            if events:
                self._decode(events, out)
        if out:
            self.streamed = True
        else:
            self._raise_failure()
        return out

    def flush(self) -> list[Delta]:
        self._raise_failure()
        out: list[Delta] = []
        if not self.done:
            self._decode_rest(out)
        if self.failure is None:
            self.on_end(out)
            self.streamed = self.streamed or bool(out)
        if not out:
            self._raise_failure()
        return out

    def whole(self, body: bytes) -> list[Delta]:
        if body.lstrip()[:6].startswith((b"data:", b"event:")):  # a stream, although none was requested
            return [*self.feed(body), *self.flush()]
        out: list[Delta] = []
        try:
            value = parse(body)
        except ValueError:
            raise provider_errors.unreadable(body) from None
        try:
            self._body(value, body, out)
            self.on_end(out)
        except BridgeError as error:
            if not out:
                raise
            self.failure = error
        return out

    def end(self) -> End:
        self._raise_failure()
        if self.finished:
            return self.facts()
        if self.streamed or self._lost:
            raise provider_errors.interrupted(self._lost)
        raise BridgeError("bad_upstream_response", "the provider's stream held no response; try again")

    @staticmethod
    def error(status: int, headers: Mapping[str, str], body: bytes) -> BridgeError:
        return provider_errors.from_response(status, headers, body)

    def _raise_failure(self) -> None:
        if self.failure is not None:
            raise self.failure

    def _decode(self, events: list[tuple[str, bytes]], out: list[Delta]) -> None:
        for name, data in events:
            if self.done:
                return
            try:
                self.on_event(name, data, out)
            except BridgeError as error:
                self.failure = error
                return
            except UNREADABLE:
                self._unreadable = True
                self.failure = provider_errors.unreadable(data, "an event that can't be read")
                return

    def _decode_rest(self, out: list[Delta]) -> None:
        stream = self._events
        for name, data in stream.close():
            self._decode([(name, data)], out)
            if self._unreadable and (self.finished or self.streamed):
                # The last event was cut off: so was the stream, and what the provider wrote may have been right.
                self.failure, self._lost = None, data
            if self.failure is not None or self.done:
                return
        self.streamed = self.streamed or bool(out)
        if stream.stray and not self.finished:
            self._decode_stray(stream.stray, out)

    def _decode_stray(self, stray: bytearray, out: list[Delta]) -> None:
        """A body that is not a stream of events, or lines between events: JSON counts, other text is quoted."""
        try:
            value = parse(stray)
        except ValueError:
            self._lost = stray
            if not self.streamed:
                self.failure = provider_errors.unreadable(stray)
            return
        try:
            if self.streamed and provider_errors.error_in(value) is None:
                self._lost = stray
            else:
                self._body(value, stray, out)
        except BridgeError as error:
            self.failure = error

    def _body(self, value: Any, body: bytes | bytearray, out: list[Delta]) -> None:
        if self.is_error(value):
            raise provider_errors.from_value(value)
        try:
            self.on_body(value, body, out)
        except UNREADABLE:
            raise provider_errors.unreadable(body) from None


# What a value of a surprising type leads to in a decoder, besides the ValueError that it raises on purpose.
UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError, RecursionError)
