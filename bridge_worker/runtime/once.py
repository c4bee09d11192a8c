"""Requests with an ``idempotency_key``: one that is repeated joins the first in flight, or gets its result again.

Owns the results that are kept, in memory and in a journal, and the copies of a request's lines for those that join it. Refuses to
know what a request does: it is a `runtime.dispatch.Dispatch` in front of another. A request without a key costs one look-up here.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from bridge_worker.errors import BridgeError, cancelled_error
from bridge_worker.protocol.framing import encode
from bridge_worker.protocol.session import Encoded, Response, Start, error_response
from bridge_worker.runtime.dispatch import Cancel, Dispatch, Respond, response_of, run_in_task
from bridge_worker.runtime.notifier import Notifier

METHODS = ("chat", "embed", "rerank")
KEY = "idempotency_key"
MAX_KEY_CHARACTERS = 256  # `schema.base.Name`; a longer key is an error of the method
MAX_BYTES = 64 * 1024 * 1024  # of the results in memory; the oldest is forgotten first
MAX_RESULTS = 1_000
KEPT_SECONDS = 3_600.0

Name = tuple[str, str]  # method, key
_log = logging.getLogger("bridge_worker.requests")


@dataclass(frozen=True, slots=True)
class Kept:
    """A finished request. ``deltas`` are the lines of its stream, ``result`` its result, as they were sent."""

    fingerprint: str
    result: Any
    deltas: bytes
    at: float  # Unix time
    size: int


class Journal(Protocol):
    """Port: results that survive the process. Both block."""

    def load(self, name: Name) -> Kept | None: ...

    def store(self, name: Name, kept: Kept) -> None: ...


@dataclass(slots=True)
class _Running:
    fingerprint: str
    task: asyncio.Task[Response | Encoded]
    lines: list[bytes]
    followers: dict[object, Follower] = field(default_factory=dict)


class Once:
    """``clock`` returns Unix time."""

    def __init__(self, app: Dispatch, journal: Journal | None = None, clock: Callable[[], float] = time.time) -> None:
        self._app = app
        self._journal = journal
        self._clock = clock
        self._running: dict[Name, _Running] = {}
        self._kept: dict[Name, Kept] = {}
        self._bytes = 0

    def state(self) -> Mapping[str, object]:
        return self._app.state()

    async def ready(self) -> Mapping[str, object]:
        return await self._app.ready()

    def begin(self, start: Start, received: float, notify: Notifier, respond: Respond) -> Cancel:
        id, key = start.id, start.params.get(KEY)
        if not isinstance(key, str) or not 0 < len(key) <= MAX_KEY_CHARACTERS or start.method not in METHODS:
            return self._app.begin(start, received, notify, respond)
        work = self._dispatch_once((start.method, key), start, received, notify)
        return run_in_task(id, work, respond, lambda error: error_response(id, error))

    async def _dispatch_once(self, name: Name, start: Start, received: float, notify: Notifier) -> Response | Encoded:
        fingerprint = await asyncio.to_thread(_fingerprint, start.params)
        running = self._running.get(name)
        kept = None if running else await self._find(name)
        running = running or self._running.get(name)  # it may have begun in the meantime
        known = running or kept
        if known is not None and known.fingerprint != fingerprint:
            wrong = f"{KEY} was used with other params; a key belongs to one request, so use another key"
            return error_response(start.id, BridgeError("invalid_request", wrong))
        if running is not None:
            return await self._follow(running, start.id, notify, replays=True)
        if kept is not None:
            _log.info("request", extra={"fields": {"id": start.id, "method": start.method, "outcome": "repeated"}})
            return await _again(kept, start.id, notify)
        return await self._follow(self._begin(name, fingerprint, start, received), start.id, notify, replays=False)

    def _begin(self, name: Name, fingerprint: str, start: Start, received: float) -> _Running:
        lines: list[bytes] = []
        followers: dict[object, Follower] = {}
        work = self._run(name, fingerprint, start, received, Recorder(lines, followers))
        running = self._running[name] = _Running(fingerprint, asyncio.ensure_future(work), lines, followers)
        return running

    async def _run(self, name: Name, fingerprint: str, start: Start, received: float, recorder: Recorder) -> Response | Encoded:
        try:
            response = await response_of(self._app, start, received, recorder)  # type: ignore[arg-type]  # it has what is used
            value = json.loads(response) if isinstance(response, bytes) else response
            if "result" in value:  # an error is forgotten: the request may be made again
                await self._keep(name, fingerprint, value["result"], b"".join(recorder.recorded))
            return response
        finally:
            del self._running[name]

    async def _follow(self, running: _Running, id: str | int, notify: Notifier, *, replays: bool) -> Response | Encoded:
        """The response for ``id``. The last follower that is cancelled cancels the request; the others keep it running."""
        follower, token = Follower(id, notify, renames=replays), object()
        follower.relay(b"".join(running.lines))
        running.followers[token] = follower
        try:
            response = await asyncio.shield(running.task)
        except asyncio.CancelledError:
            del running.followers[token]
            if running.followers:
                return error_response(id, cancelled_error(upstream_closed=False))
            running.task.cancel()
            response = await running.task
        return _renamed(response, id) if replays else response

    async def _find(self, name: Name) -> Kept | None:
        kept = self._kept.get(name)
        if kept is not None and self._clock() - kept.at > KEPT_SECONDS:
            self._forget(name)
            kept = None
        if kept is None and self._journal is not None:
            kept = await asyncio.to_thread(self._journal.load, name)
        return kept

    async def _keep(self, name: Name, fingerprint: str, result: Any, deltas: bytes) -> None:
        """The journal has the result before the client has it."""
        kept = Kept(fingerprint, result, deltas, self._clock(), len(deltas) + len(encode(result)))
        if self._journal is not None:
            await asyncio.shield(asyncio.ensure_future(asyncio.to_thread(self._journal.store, name, kept)))
        self._forget(name)
        if kept.size > MAX_BYTES:
            return
        self._kept[name] = kept
        self._bytes += kept.size
        while self._bytes > MAX_BYTES or len(self._kept) > MAX_RESULTS:
            self._forget(next(iter(self._kept)))

    def _forget(self, name: Name) -> None:
        kept = self._kept.pop(name, None)
        self._bytes -= kept.size if kept else 0


class Follower:
    """Gets the lines of a request, under its own id when it ``renames``."""

    def __init__(self, id: str | int, notify: Notifier, *, renames: bool) -> None:
        self._id = id
        self._notify = notify
        self._renames = renames

    async def lines(self, lines: Iterable[bytes]) -> None:
        await self._notify.lines([self._own(line) for line in lines])

    def relay(self, lines: bytes) -> None:
        if lines:
            self._notify.relay(b"".join(map(self._own, lines.splitlines(keepends=True))))

    def _own(self, line: bytes) -> bytes:
        return _with_request_id(line, self._id) if self._renames else line


class Recorder:
    """A `Notifier` for the request itself: records its lines, and passes them on to all that follow it."""

    def __init__(self, recorded: list[bytes], followers: Mapping[object, Follower]) -> None:
        self.recorded = recorded
        self._followers = followers

    async def __call__(self, method: str, params: dict[str, Any]) -> None:
        await self.lines([encode({"jsonrpc": "2.0", "method": method, "params": params})])

    async def lines(self, lines: list[bytes]) -> None:
        self.recorded += lines
        for follower in list(self._followers.values()):
            await follower.lines(lines)

    def relay(self, lines: bytes) -> None:
        self.recorded.append(lines)
        for follower in self._followers.values():
            follower.relay(lines)


async def _again(kept: Kept, id: str | int, notify: Notifier) -> Response:
    for line in kept.deltas.splitlines(keepends=True):
        await notify.lines([_with_request_id(line, id)])
    return {"jsonrpc": "2.0", "id": id, "result": kept.result}


def _with_request_id(line: bytes, id: str | int) -> bytes:
    message = json.loads(line)
    if "requestId" in message["params"]:
        message["params"]["requestId"] = id
    return encode(message)


def _renamed(response: Response | Encoded, id: str | int) -> Response:
    value: dict[str, Any] = json.loads(response) if isinstance(response, bytes) else dict(response)
    return value | {"id": id}


def _fingerprint(params: Mapping[str, object]) -> str:
    """Of all that makes it the same request. ``_meta`` is about the call."""
    body = {name: value for name, value in params.items() if name not in (KEY, "_meta")}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()
