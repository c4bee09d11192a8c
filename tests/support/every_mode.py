"""One provider behind the bridge in each of its modes, in this process: direct, lane and full.

Owns the backends, one for each mode and model, and a server that sends the bytes that a test gives it. A chat in the lane is taught
first, by a good response to the same options. Refuses to know what a response means.
"""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pytest

from bridge_worker.backends.litellm.chat import LiteLLM
from bridge_worker.backends.litellm.router import forget
from bridge_worker.config.gateway import Gateway
from bridge_worker.core.accumulator import WireDelta
from bridge_worker.core.chat_runner import run_chat
from bridge_worker.errors import BridgeError
from tests.support.provider_formats import FORMATS, Completion, Format, environment, line
from tests.support.requests import chat_request
from tests.support.upstream import Upstream
from tests.support.upstream_format import Request, Steps, http, stream
from tests.support.worker import Json

# LiteLLM's types make pydantic warn. For a test module's ``pytestmark``.
IGNORED_WARNINGS = [
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning"),
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince211"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
MODES = ("direct", "lane", "full")
HI = [{"role": "user", "content": "hi"}]
_GROUPS = 40  # of one Router; each chat in the lane has its own, because a failure closes it
_GOOD = Completion("taught")
_READ = 4096  # bytes of a stream that are sent at a time


class Reply(NamedTuple):
    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = {}
    frames: Sequence[bytes] | None = None  # of a stream


class Provider(Upstream):
    """Sends the replies of ``play`` in order, the last one for good."""

    def play(self, *replies: Reply) -> None:
        self._replies = list(replies)

    def _reply_to(self, request: Request) -> Steps:
        if request.path.endswith(("/api/show", "/api/tags")):
            return http(b"{}")
        reply = self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]
        if reply.frames is not None:
            return stream(list(reply.frames), reply.headers, reply.status)
        return http(reply.body, reply.status, reply.headers)

    @property
    def origin(self) -> str:
        return self.base_url.removesuffix("/v1")


class Outcome(NamedTuple):
    """``result`` or ``error`` is empty. ``sent`` are the bodies that the provider got, the one that taught the lane left out."""

    result: Json
    error: Json
    sent: list[Request]
    engine: Json

    @property
    def kind(self) -> str | None:
        kind: str | None = self.error.get("kind")
        return kind


def reply(wire: Format, completion: Completion = _GOOD, *, streamed: bool) -> Reply:
    """A good response in the provider's format."""
    if streamed:
        return Reply(headers={"content-type": wire.stream_type}, frames=wire.events(completion))
    return Reply(line(wire.whole(completion)))


def raw(wire: Format, data: Any, *, streamed: bool) -> Reply:
    """``data`` as it is: a body as JSON or bytes, or the bytes of a stream."""
    data = data if isinstance(data, bytes) else line(data)
    if streamed:
        frames = [data[at : at + _READ] for at in range(0, len(data), _READ)]
        return Reply(headers={"content-type": wire.stream_type}, frames=frames)
    return Reply(data)


class EveryMode:
    """The bridge in one mode. ``close`` must be called in the loop's runner."""

    def __init__(self, mode: str, provider: Provider, runner: asyncio.Runner) -> None:
        self.mode = mode
        self._provider = provider
        self._runner = runner
        self._direct = LiteLLM()
        self._routed: dict[str, tuple[LiteLLM, list[str]]] = {}
        self._used: list[LiteLLM] = []

    def chat(self, wire: Format, *replies: Reply, streamed: bool, **params: Any) -> Outcome:
        """One chat, to which the provider sends ``replies``."""
        params = {"messages": HI, "stream": streamed, **params}
        model, backend = wire.model, self._direct
        if self.mode != "direct":
            backend, names = self._group(params.pop("model", wire.model))
            model = names.pop()
        params = {"model": model, **params}
        if self.mode == "lane":
            self._provider.play(reply(wire, streamed=streamed))
            self._runner.run(self._chat(backend, params | {"messages": HI}))
        self._provider.play(*replies)
        before = len(self._provider.requests)
        result, error, engine = self._runner.run(self._chat(backend, params))
        self._check_mode(engine, error)
        sent = [request for request in self._provider.requests[before:] if request.method == "POST"]
        return Outcome(result, error, [request for request in sent if not request.path.endswith("/api/show")], engine)

    def _check_mode(self, engine: Json, error: Json) -> None:
        """A failure in the lane, before anything was sent on, is the Router's to judge."""
        handed_over = self.mode == "lane" and bool(error) and engine["reason"] == "the first attempt failed"
        assert engine["name"] == ("litellm-full" if handed_over else f"litellm-{self.mode}"), engine

    def _group(self, model: str) -> tuple[LiteLLM, list[str]]:
        known = self._routed.get(model)
        if known is not None and known[1]:
            return known
        names = [f"group-{at}" for at in range(_GROUPS)]
        rows = [{"model_name": name, "litellm_params": {"model": model}, "model_info": {"id": f"{model}-{name}"}} for name in names]
        made = LiteLLM(Gateway(router={"model_list": rows, "num_retries": 0}, places=("",) * len(rows)))
        if self.mode == "full":
            made.close_lane("the test wants the Router to serve everything")
        self._used.append(made)
        self._routed[model] = made, names
        return made, names

    async def _chat(self, backend: LiteLLM, params: Json) -> tuple[Json, Json, Json]:
        async def find(_: str) -> LiteLLM:
            return backend

        async def emit(_: list[WireDelta]) -> None:
            pass

        request = chat_request(copy.deepcopy(params), time.monotonic())
        try:
            result = await run_chat(request, find, emit)
        except BridgeError as error:
            wire = {"message": error.message, **error.data()}
            return {}, wire, wire["receipt"]["engine"]
        return result, {}, result["receipt"]["engine"]

    def close(self) -> None:
        for made in self._used:
            forget(made.router)
        self._runner.run(self._direct.aclose())


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with Provider() as provider, pytest.MonkeyPatch.context() as patch:
        for name, value in environment(provider.origin).items():
            patch.setenv(name, value)
        yield provider


@pytest.fixture(scope="module", params=MODES)
def bridge(request: pytest.FixtureRequest, provider: Provider) -> Iterator[EveryMode]:
    """The tests of a module in each mode. A test module imports it together with `provider`, which it needs."""
    with asyncio.Runner() as runner:
        bridge = EveryMode(request.param, provider, runner)
        yield bridge
        bridge.close()


def wire(name: str) -> Format:
    return FORMATS[name]
