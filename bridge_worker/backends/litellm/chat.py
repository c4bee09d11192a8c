"""The `ChatModel` of every provider: LiteLLM or its Router chooses the deployment and builds the request, the bridge sends it.

Owns the choice of the mode for each chat: direct (no config), lane, full (LiteLLM's callbacks and the Router hear of each call),
and LiteLLM's own path for what the bridge has no decoder for. Importing this file imports LiteLLM. Refuses to know the wire,
deadlines and a provider's format.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, suppress
from typing import Any

import litellm
from litellm.caching.caching import InMemoryCache  # noqa: F401  # first use would import it on the loop
from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER  # PRIVATE: its queue is flushed at exit

from bridge_worker.backends.litellm import client_keys, gate, local_deployment, pricing, responses, router, transport
from bridge_worker.backends.litellm.cache_marks import add_savings
from bridge_worker.backends.litellm.chat_call import ChatCall, NoDecoder
from bridge_worker.backends.litellm.gate import Piece
from bridge_worker.backends.litellm.gateway_config import Configured
from bridge_worker.backends.litellm.lane import Lane
from bridge_worker.backends.litellm.listeners import flush_callbacks, is_heard, reason_for_litellm
from bridge_worker.backends.litellm.model_names import ModelNames, Routed
from bridge_worker.backends.litellm.patches import hosts
from bridge_worker.backends.litellm.prepared_requests import PreparedRequests
from bridge_worker.backends.litellm.responses import StreamReader
from bridge_worker.backends.litellm.transport import REQUEST_TIMEOUT_SECONDS
from bridge_worker.backends.litellm.upstream import Upstream
from bridge_worker.backends.local.chat import Local
from bridge_worker.backends.reading import AttemptError
from bridge_worker.config.gateway import Gateway
from bridge_worker.core.credentials import CredentialsInUse
from bridge_worker.core.deltas import Delta
from bridge_worker.core.ports import ChatRequest, Facts
from bridge_worker.core.receipt import EngineVersion
from bridge_worker.errors import BridgeError
from bridge_worker.providers.facts import DEFAULT_LOCAL_SERVICES, UNUSABLE_PROVIDERS
from bridge_worker.system.versions import litellm_version

MAX_KNOWN = 1024  # names and reasons that are remembered


class LiteLLM:
    """A `ChatModel`, set up for ``gateway``; ``rejected`` names the parts that LiteLLM rejects.

    ``local`` are the models of this machine, which a deployment may name too; ``local_services`` the providers on this machine that
    a model's name may reach at their default address; ``credentials`` are the client's keys. Without a gateway's models any model
    is served by its LiteLLM name, with the key and base URL that LiteLLM finds in the environment. ``loop`` is the one it will be
    used in, None for the current one. ``remembers``: requests are kept as templates; not for a process in which other code changes
    LiteLLM.
    """

    def __init__(
        self,
        gateway: Gateway | None = None,
        local: Local | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
        *,
        engine: str = "auto",
        remembers: bool = True,
        local_services: frozenset[str] = DEFAULT_LOCAL_SERVICES,
        credentials: CredentialsInUse | None = None,
    ) -> None:
        pricing.forget()
        version = litellm_version()
        self.engine = EngineVersion(name="litellm", version=version)
        self._version = version
        if local is not None:
            local_deployment.register(local)
        configured = Configured(gateway or Gateway(), loop)
        self._router: Any = configured.router
        self.rejected = configured.rejected
        self._engines: dict[tuple[str, str | None], EngineVersion] = {}
        hosts.permit(local_services | hosts.named_in((gateway and gateway.router) or {}))
        self._prepared = PreparedRequests(remembers=remembers)
        self.credentials = credentials
        if credentials is not None:
            credentials.on_forget = client_keys.forget
        self._only = engine == "direct"
        self._own_path: str | None = "the worker was started with --engine litellm" if engine == "litellm" else None
        self._no_full: str | None = None
        names = None
        if gateway is not None and self._router is not None:
            names = ModelNames(self._router, gateway.litellm.get("model_alias_map"), gateway.completion_model)
        self.names: ModelNames | None = names
        self.lane = Lane(self._router, (gateway and gateway.router) or {}, is_heard) if self._router is not None else None

    def use_own_path(self, reason: str) -> None:
        """After a failed rehearsal: LiteLLM's own path serves everything."""
        self._own_path = reason

    def leave_out_full(self, reason: str) -> None:
        """Removes the full mode of a worker without a Router: LiteLLM's own path then serves chats with a callback, cache or
        budget."""
        self._no_full = reason

    def close_lane(self, reason: str) -> None:
        """The Router serves every chat of a config."""
        if self.lane is not None:
            self.lane.why_not = reason

    @property
    def router(self) -> Any:
        """The Router for calls other than chats; None without settings."""
        return self._router

    async def chat(self, request: ChatRequest) -> AsyncGenerator[list[Delta] | Facts, None]:
        request.receipt.engine = self.engine
        routed = self.route(request.model, chat=True)
        if routed is not None:
            request.model = routed.name
        call = ChatCall(request, self._prepared, client_keys.for_chat(self.credentials, request))
        try:
            upstream, deltas, response = await self._open(call, routed)
            self._sign(call)
            if upstream is not None:
                while deltas:
                    yield deltas
                    deltas = await upstream.read() if request.stream else []
                facts = call.facts or upstream.facts()
                call.end("ok")
                await call.close()
                yield add_savings(request, facts, call.target)
            elif not request.stream:
                deltas, facts = _plain(call, response)
                yield deltas
                yield add_savings(request, facts, call.target)
            else:
                async with aclosing(self._stream(call, response)) as steps:
                    async for step in steps:
                        yield step
        except AttemptError as failed:
            call.fail_attempt(failed.fault)
            raise failed.fault from failed
        except Exception as error:
            raise call.fail(error, streamed=call.has_streamed) from error
        finally:
            self._sign(call)
            call.end("cancelled")
            await call.close()
            await call.keys.drop_rejected()

    async def _stream(self, call: ChatCall, response: Any) -> AsyncGenerator[list[Delta] | Facts, None]:
        """The steps of a stream that came through LiteLLM: its own items, or the bridge's from under the Router."""
        request, reader = call.request, StreamReader()
        request.upstream_open = True
        last: Facts | None = None
        try:
            items = aiter(response)
            while (item := await call.within(_next(items))) is not None:
                if not isinstance(item, Piece):
                    yield reader.feed(item)
                elif item.facts is not None:
                    last = item.facts
                else:
                    reader.has_content = True
                    yield item.deltas
        finally:
            call.has_streamed = reader.has_content
            request.upstream_open = not await responses.close(response)
        last = last or reader.facts(response, call.target)
        call.end("ok")
        yield add_savings(request, last, call.target)

    async def _open(self, call: ChatCall, routed: Routed | None) -> tuple[Upstream | None, list[Delta], Any]:
        """(a response that is read here, its first deltas, a response of LiteLLM's or of the Router's)"""
        request = call.request
        if routed is not None:
            return await self._open_by_router(call, routed.options)
        arguments = {"model": request.model, "messages": request.messages, "timeout": REQUEST_TIMEOUT_SECONDS} | _options(request)
        if (reason := self._own_path or reason_for_litellm(request)) is not None:
            return None, [], await self._by_litellm(call, arguments, reason)
        if is_heard():
            if self._no_full is not None:
                return None, [], await self._by_litellm(call, arguments, self._no_full)
            call.mode, call.reason = "full", "a callback, a cache or a budget listens"
            return None, [], await gate.call_without_router(call, arguments)
        call.mode = "direct"
        target = self._prepared.target(request.model)
        reason = None
        try:
            key = (request.model, request.stream, call.options_key)
            ready = await call.prepare(key, arguments, target)
        except NoDecoder as no:  # LiteLLM is called below: what it raises must not have this as its context
            reason = str(no)
        except Exception as error:
            call.begin(target)
            raise call.fail(error) from error
        if reason is not None:
            return None, [], await self._by_litellm(call, arguments, reason)
        call.begin(ready.target)
        upstream = await call.open(ready)
        deltas = await (upstream.read() if request.stream else upstream.whole())
        return upstream, deltas, None

    async def _open_by_router(self, call: ChatCall, routed: Mapping[str, Any]) -> tuple[Upstream | None, list[Delta], Any]:
        request, lane, routing = call.request, self.lane, {}
        if self._own_path is None and lane is not None:
            call.on_failed, call.on_prepared = lane.mark_failed, lane.learner(call)
            call.reason = lane.reason_against(request)
            if call.reason is None:
                call.mode = "lane"
                opened = await lane.open(call)
                if opened is not None:
                    return *opened, None
                call.reason = "the first attempt failed" if call.pending else "the Router chooses a deployment's first call"
            routing = lane.routing(call)
        call.mode = "full"
        if self._own_path is not None:
            call.mode, call.reason = "litellm", self._own_path
            call.own_path = True
        options = _options(request) | routing | dict(routed)
        if request.stream:
            options |= {"stream": True, "stream_options": {"include_usage": True}}
        # PRIVATE, _skip_mcp_handler: else tools need the mcp package, and could be run here instead of by the agent.
        work = self._router.acompletion(model=request.model, messages=request.messages, **options, _skip_mcp_handler=True)
        return None, [], await call.within(work)

    async def _by_litellm(self, call: ChatCall, arguments: dict[str, Any], reason: str) -> Any:
        if self._only:
            wrong = "this model or its configuration needs LiteLLM's own path: start the worker with --engine auto"
            raise BridgeError("model_not_found", f"{wrong} ({reason})", model=call.request.model)
        call.mode, call.reason = "litellm", reason
        if call.request.stream:
            arguments |= {"stream": True, "stream_options": {"include_usage": True}}
        return await gate.call_litellm(call, arguments | {"max_retries": 0})

    def _sign(self, call: ChatCall) -> None:
        key = (call.mode, call.reason)
        engine = self._engines.get(key)
        if engine is None:
            name = f"litellm-{call.mode}" if call.mode not in ("", "litellm") else "litellm"
            engine = EngineVersion(name, self._version, call.reason)
            if len(self._engines) < MAX_KNOWN:
                self._engines[key] = engine
        call.request.receipt.engine = engine

    async def aclose(self) -> None:
        """Flushes LiteLLM's callbacks and closes its connections."""
        with suppress(TimeoutError):
            await asyncio.wait_for(GLOBAL_LOGGING_WORKER.flush(), 2)
        await GLOBAL_LOGGING_WORKER.stop()
        await flush_callbacks()
        await transport.aclose()
        await litellm.close_litellm_async_clients()

    def route(self, model: str, *, chat: bool = False) -> Routed | None:
        """The name that the Router gets for ``model``; None without a config. Raises BridgeError ``model_not_found`` for a name
        that no method serves."""
        if self.names is not None:
            if (routed := self.names.find(model, chat=chat)) is None:
                raise BridgeError("model_not_found", f"there is no {model!r:.100} in the config's model_list", model=model)
            return routed
        if (provider := model.split("/")[0]) in UNUSABLE_PROVIDERS:
            reason = UNUSABLE_PROVIDERS[provider]
            raise BridgeError("model_not_found", f"{provider} can't be used through the bridge: {reason}", model=model)
        hosts.base_url(provider)
        return None

    def alternatives(self, model: str) -> list[str]:
        """``model``, and what the Router may ask in its place, and in the place of that."""
        return router.with_fallbacks(self._router, model)


def _options(request: ChatRequest) -> dict[str, Any]:
    options = dict(request.options)
    if "metadata" in options:
        options["metadata"] = router.metadata(options["metadata"])
    return options


def _plain(call: ChatCall, response: Any) -> tuple[list[Delta], Facts]:
    """The bridge's own reading of a response, unless it came from a cache or a callback of the operator's changed it."""
    outcome = call.outcome
    if outcome is not None and outcome.response is response and outcome.text == response.choices[0].message.content:
        return outcome.deltas, outcome.facts
    return responses.whole(response, call.target)


async def _next(items: AsyncIterator[Any]) -> Any:
    return await anext(items, None)
