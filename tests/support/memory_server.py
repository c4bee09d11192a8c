"""A server without a process: its pipe, its model and the clock are in memory, so that a test decides what happens next.

Owns `MemoryPipe` (the second `protocol.transport.Transport`) with a client that reads as slowly as a test wants,
`ScriptedModel`, whose every step a test takes, and `TimelessLoop`, in which waiting takes no time and waiting for nothing is an
error. Methods, session and framing are the real ones. `Client.check` holds what is true of every conversation.
"""

from __future__ import annotations

import asyncio
import functools
import json
import selectors
from collections import Counter, defaultdict, deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Mapping
from typing import Any, Self

from bridge_worker.backends.local.chat import Local
from bridge_worker.backends.offline.services import OfflineServices
from bridge_worker.backends.registry import Backend, Registry
from bridge_worker.budgets.spending import Spending
from bridge_worker.config.settings import DEFAULTS
from bridge_worker.core.deltas import Delta, End
from bridge_worker.core.ports import ChatModel, ChatRequest, Facts, ModelServices, Notify
from bridge_worker.errors import BridgeError
from bridge_worker.methods.dispatcher import Dispatcher
from bridge_worker.methods.status import GetStatus
from bridge_worker.methods.table import method_table
from bridge_worker.protocol.session import Response, Start
from bridge_worker.runtime.dispatch import RunsInTasks
from bridge_worker.runtime.server import Server
from bridge_worker.security.redaction import Redactor
from bridge_worker.system.redis_connection import no_redis
from bridge_worker.telemetry.request_counters import RequestCounters
from tests.support.data import Json

DELTA = "notifications/chat/delta"


class TimelessLoop(asyncio.SelectorEventLoop):
    """Its clock moves when nothing else can happen, and then at once to the next timer. For code without threads and sockets."""

    def __init__(self) -> None:
        self._skipping = _SkippingSelector()
        super().__init__(self._skipping)

    def time(self) -> float:
        return self._skipping.now


class _SkippingSelector(selectors.DefaultSelector):
    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise AssertionError("everything waits, and nothing is left that could happen")
        if not ready:
            self.now += timeout or 0
        return ready


def timeless(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Runs a coroutine test in a `TimelessLoop`."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        with asyncio.Runner(loop_factory=TimelessLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run


async def quiet() -> None:
    """Returns when nothing more happens by itself: in a `TimelessLoop` the clock moves only then."""
    await asyncio.sleep(0.001)


class Changes:
    """Something to wait on for conditions over plain attributes."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def notify(self) -> None:
        self._changed.set()

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()


class MemoryPipe:
    """`Transport`. The other end belongs to a client, who reads at once unless a test stops it."""

    def __init__(self) -> None:
        self.changes = Changes()
        self.lines: list[bytes] = []  # that the client has read
        self.most_queued = 0
        self.unread_input: deque[bytes] = deque()
        self._written: deque[bytes] = deque()
        self._queued = 0
        self._input_ended = False
        self._reads = True
        self._broken = False

    # The client's end.

    def feed(self, data: bytes) -> None:
        assert data
        assert not self._input_ended
        self.unread_input.append(data)
        self.changes.notify()

    def end_input(self) -> None:
        self._input_ended = True
        self.changes.notify()

    def stop_reading(self) -> None:
        self._reads = False

    def read_on(self, messages: int | None = None) -> None:
        """Takes so many of the messages that wait, or all of them, those to come as well."""
        self._reads = messages is None
        for _ in range(len(self._written) if messages is None else min(messages, len(self._written))):
            self._queued -= len(self._written[0])
            self.lines.append(self._written.popleft())
        self.changes.notify()

    def break_off(self) -> None:
        self._broken = True
        self.changes.notify()

    def forget(self) -> None:
        self.lines.clear()
        self._written.clear()
        self._queued = 0

    # The server's end.

    async def read(self) -> bytes:
        await self.changes.wait_until(lambda: bool(self.unread_input) or self._input_ended)
        return self.unread_input.popleft() if self.unread_input else b""

    def write(self, data: bytes) -> None:
        assert data.endswith(b"\n")
        assert data.count(b"\n") == 1
        if self._broken:
            return
        if self._reads:
            self.lines.append(data)
        else:
            self._written.append(data)
            self._queued += len(data)
            self.most_queued = max(self.most_queued, self._queued)
        self.changes.notify()

    def queued(self) -> int:
        return self._queued

    async def drained(self, limit: int) -> None:
        await self.changes.wait_until(lambda: self._broken or self.queued() <= limit)

    async def broken(self) -> None:
        await self.changes.wait_until(lambda: self._broken)


class ScriptedChat:
    """One chat at the model. Nothing comes out of it but what a test puts in."""

    def __init__(self, request: ChatRequest, *, stubborn: bool) -> None:
        self.request = request
        self.changes = Changes()
        self.cancels = 0
        self.closed = False
        self.taken = 0  # deltas that were taken
        self._stubborn = stubborn
        self._steps: asyncio.Queue[Delta | Facts | Exception | None] = asyncio.Queue()

    def emit(self, *words: str) -> None:
        for word in words:
            self._steps.put_nowait(Delta(content=word))

    def fail(self, error: Exception) -> None:
        self._steps.put_nowait(error)

    def finish(self) -> None:
        self._steps.put_nowait(Facts(End("stop", "stop", model="scripted"), provider="memory"))
        self._steps.put_nowait(None)

    def put(self, delta: Delta) -> None:
        self._steps.put_nowait(delta)

    def relent(self) -> None:
        """It obeys its next cancel."""
        self._stubborn = False

    async def run(self) -> AsyncGenerator[list[Delta] | Facts, None]:
        self.request.upstream_open = True
        try:
            while (step := await self._next()) is not None:
                if isinstance(step, Exception):
                    raise step
                yield [step] if isinstance(step, Delta) else step
                self.taken += 1
                self.changes.notify()
        finally:
            self.request.upstream_open = False
            self.closed = True
            self.changes.notify()

    async def _next(self) -> Delta | Facts | Exception | None:
        while True:
            try:
                return await self._steps.get()
            except asyncio.CancelledError:
                self.cancels += 1
                self.changes.notify()
                if not self._stubborn:
                    raise


class ScriptedModel:
    """A `ChatModel`. A chat is found by the text of its first message; the model "stubborn" ignores a cancel."""

    def __init__(self) -> None:
        self.chats: dict[str, ScriptedChat] = {}
        self.changes = Changes()

    def chat(self, request: ChatRequest) -> AsyncGenerator[list[Delta] | Facts, None]:
        chat = ScriptedChat(request, stubborn=request.model == "stubborn")
        self.chats[request.messages[0]["content"]] = chat
        self.changes.notify()
        return chat.run()

    async def started(self, text: str) -> ScriptedChat:
        await self.changes.wait_until(lambda: text in self.chats)
        return self.chats[text]


class ScriptedEngine(RunsInTasks):
    """A `runtime.dispatch.Dispatch` that is loaded when a test says so; by default it is, and warm."""

    def __init__(
        self,
        model: ChatModel,
        *,
        loaded: bool = True,
        warm: bool = True,
        configured: bool = True,
        dispatcher: Dispatcher | None = None,
    ) -> None:
        self.loaded, self.warm = asyncio.Event(), asyncio.Event()
        if loaded:
            self.loaded.set()
        if warm:
            self.warm.set()
        self.error: BridgeError | None = None
        self.services: ModelServices = OfflineServices()
        self._model = model
        self._dispatcher = dispatcher or self._make_dispatcher(configured)

    def state(self) -> Mapping[str, object]:
        return {"name": "litellm", "version": "1.0", "ready": self.warm.is_set() and not self.error}

    async def dispatch(self, start: Start, received: float, notify: Notify) -> Response:
        await self.loaded.wait()
        return await self._dispatcher.dispatch(start, received, notify)

    async def ready(self) -> Mapping[str, object]:
        await self.warm.wait()
        if self.error:
            raise self.error
        return {"engine": self.state(), "warmMs": 12.5}

    def _make_dispatcher(self, configured: bool) -> Dispatcher:
        redactor, counters = Redactor({}), RequestCounters()
        backends = Registry(Local(), self._backend, lambda: configured)
        status = GetStatus(counters, self.state, no_redis, list)
        methods = method_table(backends, lambda: DEFAULTS, Spending(), redactor, status, self._reload)
        return Dispatcher(methods, redactor, counters)

    async def _backend(self) -> Backend:
        await self.ready()
        return Backend(self._model, self.services)

    async def _reload(self) -> Json:
        raise BridgeError("invalid_request", "no config to reload")


class Client:
    """A running server and the client's end of its pipe. Leaving it ends the input, waits for the server and checks it all."""

    def __init__(
        self,
        *,
        loaded: bool = True,
        warm: bool = True,
        configured: bool = True,
        dispatcher: Dispatcher | None = None,
        **options: Any,
    ) -> None:
        self.pipe = MemoryPipe()
        self.model = ScriptedModel()
        self.engine = ScriptedEngine(self.model, loaded=loaded, warm=warm, configured=configured, dispatcher=dispatcher)
        self.server = Server(self.pipe, self.engine, **options)
        self.sent: list[int | str] = []  # ids of requests, in order
        self.running = asyncio.create_task(self.server.run())
        self._received: list[Any] = []
        self._responses: list[Json] = []
        self._by_id: defaultdict[tuple[type, object], list[Json]] = defaultdict(list)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, failed: object, *_: object) -> None:
        if failed:
            self.running.cancel()
            for chat in self.model.chats.values():
                chat.relent()
            return
        self.pipe.read_on()
        self.pipe.end_input()
        await self.running
        self.check()

    # What the client sends.

    def send(self, *messages: object) -> None:
        """All in one piece, as one read finds them."""
        for message in messages:
            members = message if isinstance(message, list) else [message]
            self.sent += [member["id"] for member in members if "id" in member]
        self.pipe.feed(b"".join(json.dumps(message).encode() + b"\n" for message in messages))

    def chat(self, id: int | str, *, stream: bool = False, model: str = "scripted", **params: Any) -> None:
        self.send(chat_message(id, stream=stream, model=model, **params))

    def cancel(self, id: object) -> None:
        self.send(cancel_message(id))

    async def begin(self, id: int | str, **params: Any) -> ScriptedChat:
        """Sends a chat and returns its far end, once it is there."""
        self.chat(id, **params)
        return await self.model.started(str(id))

    # What it receives.

    @property
    def received(self) -> list[Any]:
        """Every line's value, in order."""
        new = [json.loads(line) for line in self.pipe.lines[len(self._received) :]]
        self._received += new
        for message in (member for line in new for member in (line if isinstance(line, list) else [line])):
            if "method" not in message:
                self._responses.append(message)
                self._by_id[_key(message["id"])].append(message)
        return self._received

    def responses(self) -> list[Json]:
        """In order, batches taken apart."""
        return self._responses if self.received else []

    def deltas(self, id: int | str) -> list[Json]:
        notes = [line["params"] for line in self.received if isinstance(line, dict) and line.get("method") == DELTA]
        return [note for note in notes if _key(note["requestId"]) == _key(id)]

    def responses_to(self, id: int | str) -> list[Json]:
        return self._by_id[_key(id)] if self.received else []

    def forget(self) -> None:
        """All that was sent and received so far is of no interest to what follows, nor to the check at the end."""
        self.pipe.forget()
        for seen in (self._received, self._responses, self._by_id, self.sent):
            seen.clear()

    async def response(self, id: int | str) -> Json:
        """The response to ``id``, past or to come."""
        await self.pipe.changes.wait_until(lambda: bool(self.responses_to(id)))
        return self.responses_to(id)[0]

    async def kind(self, id: int | str) -> str:
        """The response's kind of error; fails the test if it is a result."""
        kind: str = (await self.response(id))["error"]["data"]["kind"]
        return kind

    def check(self, *, is_allowed: Callable[[int], bool] = lambda times: times == 1) -> None:
        """What holds for every conversation: one response a request, its deltas before it and without gaps, and nothing else."""
        counts = {key: len(found) for key, found in self._by_id.items()} if self.received else {}
        refused = counts.pop(_key(None), 0)
        assert refused == len(
            [found for found in self.responses() if found["id"] is None and found["error"]["code"] in (-32700, -32600)]
        )
        for id in self.sent:
            assert is_allowed(counts.pop(_key(id), 0)), f"request {id!r} has {self.responses_to(id)}"
        assert not any(counts.values()), "a response without a request"
        for message in self._check_deltas():
            assert message["method"] == "notifications/ready", message

    def _check_deltas(self) -> Iterator[Json]:
        """Yields the notifications that are no deltas."""
        done: set[tuple[type, object]] = set()
        deltas: Counter[tuple[type, object]] = Counter()
        for line in self.received:
            for message in line if isinstance(line, list) else [line]:
                if "method" not in message:
                    done.add(_key(message["id"]))
                elif message["method"] != DELTA:
                    yield message
                else:
                    key = _key(message["params"]["requestId"])
                    assert key not in done, f"a delta after the response: {message}"
                    assert message["params"]["seq"] == deltas[key], message
                    deltas[key] += 1


def request(id: int | str, method: str, params: Json | None = None) -> Json:
    return {"jsonrpc": "2.0", "id": id, "method": method, "params": params or {}}


def chat_message(id: int | str, *, stream: bool = False, model: str = "scripted", **params: Any) -> Json:
    """The first message's text is the id, by which the model's end is found."""
    messages = [{"role": "user", "content": str(id)}]
    return request(id, "chat", {"model": model, "messages": messages, "stream": stream, **params})


def cancel_message(id: object) -> Json:
    return {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}}


def _key(id: object) -> tuple[type, object]:
    """1, "1" and True are three."""
    return type(id), id
