"""The interface of a decoder of one wire format, for a streamed and a plain response alike.

Owns what the decoders have in common. Refuses to know LiteLLM, connections, clocks and tasks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from bridge_worker.core.deltas import Delta, End
from bridge_worker.errors import BridgeError


class Decoder(Protocol):
    """Decodes one response. A plain body and a stream go through the same tables, so that the two cannot disagree.

    `feed` and `end` serve a stream, `whole` and `end` a plain response. Any cut of the bytes gives the same joined result. Each
    raises BridgeError only (``bad_upstream_response``, ``stream_interrupted`` or the kind that the provider's error means), and a
    message quotes at most 500 characters of what could not be read.
    """

    def feed(self, data: bytes) -> list[Delta]:
        """The deltas that these bytes complete: one list for each read, possibly empty."""

    def flush(self) -> list[Delta]:
        """The deltas that only the end of the bytes completes (an unfinished line, a JSON body sent to a streamed request)."""

    def end(self) -> End:
        """The facts, after `flush` or `whole`. Raises ``stream_interrupted`` where the provider never said that it had finished."""

    def whole(self, body: bytes) -> list[Delta]:
        """The deltas of a plain response's body."""

    @staticmethod
    def error(status: int, headers: Mapping[str, str], body: bytes) -> BridgeError:
        """The error that a response with an HTTP status other than 2xx means; ``body`` has been cut to 64 KiB by the reader."""
