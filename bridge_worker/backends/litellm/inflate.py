"""Decompresses a response's body in bounded steps.

Owns the limits: a provider may compress although it was not invited to, and a small body may be a large one. Refuses to read.
"""

from __future__ import annotations

import zlib

from bridge_worker.errors import BridgeError

_MAX_INFLATED_BYTES = 16 * 1024 * 1024  # ... unless what arrived is a 50th of it at least
_MAX_RATIO = 50  # JSON is compressed to a tenth; a thousandth is a bomb
_INFLATED_BYTES = 256 * 1024  # at most so much of a compressed stream is decompressed at a time


class Inflate:
    """One body. All raise BridgeError ``bad_upstream_response``."""

    def __init__(self, encoding: str) -> None:
        if encoding not in ("gzip", "x-gzip", "deflate"):
            raise BridgeError("bad_upstream_response", f"the provider's response has the content-encoding {encoding!r:.40}")
        self._engine = zlib.decompressobj(zlib.MAX_WBITS | 32)
        self._received = 0
        self._inflated = 0

    def feed(self, data: bytes) -> bytes:
        self._received += len(data)
        return self._step(self._engine.unconsumed_tail + data)

    def pending(self) -> bytes:
        return self._step(self._engine.unconsumed_tail) if self._engine.unconsumed_tail else b""

    def _step(self, data: bytes) -> bytes:
        try:
            inflated = self._engine.decompress(data, _INFLATED_BYTES)
        except zlib.error as error:
            raise BridgeError("bad_upstream_response", f"the provider's compressed response can't be read ({error})") from error
        self._inflated += len(inflated)
        if self._inflated > max(_MAX_INFLATED_BYTES, _MAX_RATIO * self._received):
            wrong = f"the provider's compressed response is more than {_MAX_RATIO} times as long when it is decompressed"
            raise BridgeError("bad_upstream_response", wrong)
        return inflated
