"""What one request exchanged with providers, and with the client: the seam at which both are recorded.

Owns the context variable by which a backend finds the tape of the running request; it is None unless something records. Refuses to
know a file and what is kept.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from bridge_worker.errors import BridgeError

if TYPE_CHECKING:  # pydantic, which the process that writes cassettes does without
    from bridge_worker.core.ports import ChatRequest, EmbedRequest, RerankRequest


class Piece(NamedTuple):
    """Bytes of one read, ``ms`` after the request was received."""

    ms: float
    data: bytes


@dataclass(slots=True)
class Tape:
    """One response of a provider as it was read. ``attempt`` is its position among the attempts of the receipt.

    ``failure`` is the reason why its connection failed. Neither ``ended`` nor a failure: it was not read to its end.
    """

    started: float  # time.monotonic(), when the request was received
    sent: float  # the same clock
    attempt: int
    format: str
    renamed: Mapping[str, str]
    schema_tool: bool
    model: str | None
    provider: str | None
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    pieces: list[Piece] = field(default_factory=list)
    ended: bool = False
    failure: str | None = None
    timed_out: bool = False

    def hear(self, data: bytes) -> None:
        if data:
            self.pieces.append(Piece(round((time.monotonic() - self.started) * 1000, 3), data))
        else:
            self.ended = True

    def fail(self, error: Exception) -> None:
        """``error`` is a `backends.reading.ConnectionFailed`."""
        self.failure, self.timed_out = str(error), bool(getattr(error, "timed_out", False))


# The format of responses that LiteLLM reads: embeddings, rankings, chats without a decoder of the bridge's.
READ_BY_LITELLM = "litellm"


class Recipe(Protocol):
    """A `backends.wire.formats.Recipe`."""

    @property
    def format(self) -> str: ...

    @property
    def renamed(self) -> Mapping[str, str]: ...

    @property
    def schema_tool(self) -> bool: ...


@dataclass(slots=True)
class Tapes:
    """The tapes of one request. ``replayed``: offset and length of the exchange of a cassette that served it, if one did."""

    started: float
    list: list[Tape] = field(default_factory=list)
    replayed: tuple[int, int] | None = None

    def begin(self, attempt: int, recipe: Recipe, model: str | None, provider: str | None) -> Tape:
        """The tape of a response that is requested now."""
        sent = time.monotonic()
        tape = Tape(self.started, sent, attempt, recipe.format, recipe.renamed, recipe.schema_tool, model, provider)
        self.list.append(tape)
        return tape

    def begin_unread(self, attempt: int, model: str | None, provider: str | None) -> Tape:
        """The tape of a response that LiteLLM reads. Its earlier requests of the attempt, such as for a token, are dropped."""
        self.list = [tape for tape in self.list if tape.attempt != attempt]
        tape = Tape(self.started, time.monotonic(), attempt, READ_BY_LITELLM, {}, schema_tool=False, model=model, provider=provider)
        self.list.append(tape)
        return tape


tapes: ContextVar[Tapes | None] = ContextVar("omni_bridge_tapes", default=None)
# Returns the tape of a response that LiteLLM is about to request, or None where it is not recorded.
next_tape: ContextVar[Callable[[], Tape | None] | None] = ContextVar("omni_bridge_next_tape", default=None)


@contextmanager
def heard(begin: Callable[[Tapes], Tape | None]) -> Iterator[None]:
    """Within it, what LiteLLM requests gets a tape of ``begin``. Not what its callbacks send later, in tasks that began here."""
    recorded = tapes.get()
    if recorded is None:
        yield
        return
    is_open = True
    token = next_tape.set(lambda: begin(recorded) if is_open else None)
    try:
        yield
    finally:
        is_open = False
        next_tape.reset(token)


class Exchange(Protocol):
    """One request that is being recorded. One of `result` and `error` ends it."""

    def deltas(self, deltas: Sequence[str | Mapping[str, Any]]) -> None:
        """Deltas that go to the client."""

    def result(self, result: Any) -> None:
        """``result`` is what the client gets, as a plain object or a pydantic model."""

    def error(self, error: BridgeError) -> None: ...


R = TypeVar("R")


async def noted(exchange: Exchange | None, work: Awaitable[R]) -> R:
    """Awaits ``work``, and notes how it ended."""
    if exchange is None:
        return await work
    try:
        result = await work
    except BridgeError as error:
        exchange.error(error)
        raise
    exchange.result(result)
    return result


class Journal(Protocol):
    """Port: takes note of each exchange with a model."""

    def chat(self, request: ChatRequest) -> Exchange: ...

    def embed(self, request: EmbedRequest, received: float) -> Exchange: ...

    def rerank(self, request: RerankRequest, received: float) -> Exchange: ...

    def count(self, model: str, messages: Any, tools: Any, received: float) -> Exchange: ...
