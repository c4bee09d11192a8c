"""Notes each exchange while it happens, and hands it to the writers of the cassettes.

Owns the tapes of a request and what of a finished exchange is recorded where. Refuses to know the form of a line (`entry`) and the
file (`writer`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from pydantic import BaseModel

from bridge_worker.cassettes import canonical
from bridge_worker.cassettes.entry import Exchanged, line_of
from bridge_worker.cassettes.masking import Redact
from bridge_worker.cassettes.writer import Writer
from bridge_worker.core.exchange import Tapes, tapes
from bridge_worker.core.ports import ChatRequest, EmbedRequest, RerankRequest
from bridge_worker.errors import BridgeError
from bridge_worker.protocol.framing import encode
from bridge_worker.telemetry.log import utc
from bridge_worker.version import __version__

# The request did not reach a model, or the worker ended: nothing of it can be replayed.
_NOT_RECORDED = frozenset(("overloaded", "shutting_down", "internal", "budget_exceeded", "cassette_miss", "invalid_request"))
CopyOf = Callable[[tuple[int, int]], bytes]


class Recording:
    """A `core.exchange.Journal`. ``new`` get what a model served; ``all`` also what a cassette served, copied by ``copy_of``."""

    def __init__(
        self, redact: Redact, *, new: Sequence[Writer] = (), all: Sequence[Writer] = (), copy_of: CopyOf | None = None
    ) -> None:
        self._redact = redact
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

    def finished(self, done: Exchanged, replayed: tuple[int, int] | None) -> None:
        if replayed is not None:
            self._copy(replayed)
        elif done.error_kind not in _NOT_RECORDED:
            for writer in self._new:
                writer.put(done.size, lambda: line_of(done, versions(), self._redact))

    def _copy(self, replayed: tuple[int, int]) -> None:
        for writer in self._all:
            if copy_of := self._copy_of:
                writer.put(1_000, lambda: copy_of(replayed))

    def close(self) -> None:
        for writer in self._new:
            writer.close()


class RecordedExchange:
    """A `core.exchange.Exchange`. Its tapes are those of the running task from here on."""

    def __init__(self, journal: Recording, request: Mapping[str, Any], received: float) -> None:
        self._journal = journal
        self._received = received
        self._done = Exchanged(request["method"], canonical.canonical(request), utc(time.time()))
        self._tapes = Tapes(received)
        self._token = tapes.set(self._tapes)

    def deltas(self, deltas: Sequence[str | Mapping[str, Any]]) -> None:
        ms = self._ms()
        self._done.deltas += [(ms, delta) for delta in deltas]

    def result(self, result: Mapping[str, Any] | BaseModel) -> None:
        self._done.outcome = _json(result.model_dump() if isinstance(result, BaseModel) else result)
        self._end()

    def error(self, error: BridgeError) -> None:
        self._done.outcome = _json({"code": error.code, "message": error.message, "data": error.data()})
        self._done.error_kind = error.kind
        self._end()

    def _end(self) -> None:
        tapes.reset(self._token)
        self._done.ms = self._ms()
        self._done.tapes = self._tapes.list
        self._journal.finished(self._done, self._tapes.replayed)

    def _ms(self) -> float:
        return round((time.monotonic() - self._received) * 1000, 3)


def _json(value: object) -> str:
    return encode(value)[:-1].decode("utf-8", "surrogatepass")


@lru_cache(1)
def versions() -> dict[str, str | None]:
    """Of the bridge and LiteLLM; the look-up takes 40 ms, in the writer's thread."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        litellm: str | None = version("litellm")
    except PackageNotFoundError:
        litellm = None
    return {"omni_bridge": __version__, "litellm": litellm}
