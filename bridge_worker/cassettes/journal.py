"""Notes each exchange while it happens, and hands it to the writers of the cassettes.

Owns the tapes of a request and what of a finished exchange is recorded where. Refuses to know the form of a line (`entry`) and the
file (`writer`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from bridge_worker.cassettes import canonical
from bridge_worker.cassettes.writer import Writer
from bridge_worker.cassettes.writing_process import pack, pack_request
from bridge_worker.core.exchange import Tapes, tapes
from bridge_worker.core.ports import ChatRequest, EmbedRequest, RerankRequest
from bridge_worker.errors import BridgeError
from bridge_worker.telemetry.log import utc

# Without a response of a provider, the request did not reach a model: nothing of it can be replayed.
_NOT_RECORDED = frozenset(("overloaded", "shutting_down", "internal", "budget_exceeded", "cassette_miss", "invalid_request"))
CopyOf = Callable[[tuple[int, int]], bytes]


class Recording:
    """A `core.exchange.Journal`. ``new`` get what a model served; ``all`` also what a cassette served, copied by ``copy_of``."""

    def __init__(self, *, new: Sequence[Writer] = (), all: Sequence[Writer] = (), copy_of: CopyOf | None = None) -> None:
        self._new = (*new, *all)
        self._all = all
        self._copy_of = copy_of

    def chat(self, request: ChatRequest) -> RecordedExchange:
        return RecordedExchange(self, canonical.of_chat(request), request.received)

    def embed(self, request: EmbedRequest, received: float) -> RecordedExchange:
        return RecordedExchange(self, canonical.of_embed(request), received)

    def rerank(self, request: RerankRequest, received: float) -> RecordedExchange:
        return RecordedExchange(self, canonical.of_rerank(request), received)

    def count(self, model: str, messages: Any, tools: Any, received: float) -> RecordedExchange:
        return RecordedExchange(self, canonical.of_tokens(model, messages, tools), received)

    def finished(self, packed: bytes, replayed: tuple[int, int] | None) -> None:
        if replayed is None:
            for writer in self._new:
                writer.exchange(packed)
        elif self._copy_of is not None:
            for writer in self._all:
                writer.line(self._copy_of(replayed))

    def close(self) -> None:
        for writer in self._new:
            writer.close()


class RecordedExchange:
    """A `core.exchange.Exchange`. Its tapes are those of the running task from here on."""

    def __init__(self, journal: Recording, request: Mapping[str, Any], received: float) -> None:
        self._journal = journal
        self._received = received
        self._request = pack_request(request)  # now: LiteLLM writes into messages
        self._time = time.time()
        self._deltas: list[tuple[float, str | Mapping[str, Any]]] = []
        self._tapes = Tapes(received)
        self._token = tapes.set(self._tapes)

    def deltas(self, deltas: Sequence[str | Mapping[str, Any]]) -> None:
        ms = self._ms()
        self._deltas += [(ms, delta) for delta in deltas]

    def result(self, result: Mapping[str, Any] | BaseModel) -> None:
        self._end(result.model_dump() if isinstance(result, BaseModel) else result, None)

    def error(self, error: BridgeError) -> None:
        outcome = {"code": error.code, "message": error.message, "data": error.data()}
        self._end(outcome, error.kind)

    def _end(self, outcome: Mapping[str, Any], error_kind: str | None) -> None:
        tapes.reset(self._token)
        heard, replayed = self._tapes.list, self._tapes.replayed
        if error_kind not in _NOT_RECORDED or heard or replayed is not None:
            packed = pack(self._request, utc(self._time), self._ms(), heard, self._deltas, outcome, error_kind)
            self._journal.finished(packed, replayed)

    def _ms(self) -> float:
        return round((time.monotonic() - self._received) * 1000, 3)
