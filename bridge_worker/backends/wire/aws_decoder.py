"""The part that decoders of services behind AWS share: the bytes of a stream choose its framing.

Owns the choice between AWS's frames and server-sent events or a plain body, made once, by the first byte. Refuses to know a format.
"""

from __future__ import annotations

from bridge_worker.backends.wire.aws_event_stream import AwsEvents, is_aws
from bridge_worker.backends.wire.decoder import EventStreamDecoder
from bridge_worker.core.deltas import Delta


class AwsDecoder(EventStreamDecoder):
    """An `EventStreamDecoder` for both framings: a service that streams in frames may still send JSON or HTML."""

    __slots__ = ("_begun",)

    def __init__(self) -> None:
        super().__init__()
        self._begun = False

    def feed(self, data: bytes) -> list[Delta]:
        if not self._begun and data:
            self._begun = True
            if is_aws(data):
                self._events = AwsEvents()
        return super().feed(data)

    def whole(self, body: bytes) -> list[Delta]:
        if is_aws(body):  # a stream, although none was requested
            return [*self.feed(body), *self.flush()]
        return super().whole(body)
