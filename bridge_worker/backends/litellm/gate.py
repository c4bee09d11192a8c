"""The seam under LiteLLM's Router: the attribute `litellm.acompletion`, which both generations of Router look up at each call.

Owns what LiteLLM gets back from a deployment's call that the bridge serves: its own response objects, its exception classes, and,
through LiteLLM's own wrapper `litellm.client`, everything that a callback, a cache, a budget or a routing strategy listens to.
Calls that belong to no chat of the bridge are LiteLLM's own. Refuses to choose a deployment, to retry and to fall back.

PRIVATE, each rehearsed at start: `litellm.acompletion` as the Router's seam, `litellm.client`, four methods of LiteLLM's `Logging`,
`CustomStreamWrapper` as the class of a stream.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import datetime
from typing import Any

import litellm

from bridge_worker.backends.litellm import usage_limits
from bridge_worker.backends.litellm.cache_marks import with_cache
from bridge_worker.backends.litellm.capture import SilentLogging
from bridge_worker.backends.litellm.chat_call import ChatCall, NoDecoder, Outcome, Ready, current, request_key
from bridge_worker.backends.litellm.decoders import own_path_rehearsed
from bridge_worker.backends.litellm.listeners import needs_wrapper
from bridge_worker.backends.litellm.model_response import model_response
from bridge_worker.backends.litellm.pricing import model_usage
from bridge_worker.backends.litellm.provider_state import for_provider, without_thinking
from bridge_worker.backends.litellm.request_forms import rewrite_call
from bridge_worker.backends.litellm.router_errors import for_router, for_unusable, with_fault
from bridge_worker.backends.litellm.upstream import Target, Upstream
from bridge_worker.backends.reading import AttemptError
from bridge_worker.config import unusable
from bridge_worker.core.deltas import Delta
from bridge_worker.core.exchange import heard
from bridge_worker.core.ports import Facts
from bridge_worker.errors import BridgeError

_real = litellm.acompletion
_watcher: ContextVar[Callable[[Mapping[str, Any]], object] | None] = ContextVar("omni_bridge_watcher", default=None)


class Piece:
    """The deltas of one read, as an item of a stream of LiteLLM's. The last one has the facts, and ``usage`` for the Router."""

    __slots__ = ("__weakref__", "deltas", "facts", "usage")

    def __init__(self, deltas: list[Delta], facts: Facts | None = None) -> None:
        self.deltas = deltas
        self.facts = facts
        self.usage = model_usage(facts.end.usage) if facts is not None else None


class Stream(litellm.CustomStreamWrapper):  # type: ignore[misc]  # LiteLLM's types are not read
    """A stream of the bridge's that LiteLLM takes for its own. The Router passes its items on as they are."""

    def __init__(self, items: AsyncGenerator[Piece, None], target: Target, log: Any) -> None:
        super().__init__(completion_stream=items, model=target.model, custom_llm_provider=target.provider, logging_obj=log)
        self._items = items

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Piece:
        return await self._items.__anext__()

    async def aclose(self) -> None:
        await self._items.aclose()


def install() -> None:
    """Puts the gate into LiteLLM. A second call changes nothing."""
    if litellm.acompletion is not gate:
        litellm.acompletion = gate


async def gate(*args: Any, **kwargs: Any) -> Any:
    """`litellm.acompletion`."""
    call = current.get()
    if call is None or args or "messages" not in kwargs:
        if (see := _watcher.get()) is not None:
            see(kwargs)
            raise Watched
        return await _real(*args, **kwargs)
    return await _serve(call, kwargs)


class Watched(Exception):
    """Ends a call that `watched` has seen."""


@contextmanager
def watched(see: Callable[[Mapping[str, Any]], object]) -> Iterator[None]:
    """Within it the gate only reports the keyword arguments of calls, for the rehearsal at start."""
    token = _watcher.set(see)
    try:
        yield
    finally:
        _watcher.reset(token)


async def call_without_router(call: ChatCall, kwargs: dict[str, Any]) -> Any:
    """A call that LiteLLM's callbacks, cache and budget hear of, although no Router makes it."""
    return await call.within(_serve(call, kwargs))


async def call_litellm(call: ChatCall, kwargs: dict[str, Any]) -> Any:
    """One call by LiteLLM's own path: it sends, reads and maps errors by itself."""
    await own_path_rehearsed()
    target = call.target_of(kwargs)
    call.begin(target, fallback=bool(kwargs.get("fallback_depth")))
    messages, held_back = for_provider(kwargs["messages"], target.provider, target.model)
    kwargs, refused = without_thinking(kwargs, target.provider, target.model, messages)  # type: ignore[assignment]
    held_back += refused
    _, kwargs, messages = with_cache(call.request, None, kwargs, target, messages)  # type: ignore[assignment]
    if (credential := await call.keys.get(kwargs, target)) is not None:
        kwargs = {**kwargs, **credential.params}
    rewritten, lost = rewrite_call(kwargs, target.provider, target.model or "", names=False)
    held_back += lost
    receipt = call.request.receipt
    if receipt.dropped is not None or held_back:
        receipt.dropped = [*held_back, *(change for change in receipt.dropped or () if change not in held_back)]
    try:
        # PRIVATE, _skip_mcp_handler: else tools need the mcp package, and could be run here instead of by the agent.
        with heard(lambda tapes: tapes.begin_unread(len(receipt.attempts) - 1, target.model, target.provider)):
            response = await _real(**kwargs | rewritten | {"messages": messages, "_skip_mcp_handler": True})
    except Exception as error:
        fault = call.fail(error)
        raise call.keys.for_router(fault, target) or with_fault(error, fault) from error.__cause__
    if not call.request.stream:
        call.end("ok")
        await usage_limits.spend(target.deployment, getattr(getattr(response, "usage", None), "total_tokens", None))
    return response


async def _serve(call: ChatCall, kwargs: dict[str, Any]) -> Any:
    """One call of a deployment. What can't be prepared is raised where LiteLLM's callbacks and the Router's cooldowns hear it."""
    call.outcome = None
    info = kwargs.get("model_info") or {}
    if (why := info.get(unusable.MARK)) and not await _has_clients_key(call, kwargs):
        call.begin(call.target_of(kwargs), fallback=bool(kwargs.get("fallback_depth")))
        error = for_unusable(str(why), call.target)
        call.fail(error)
        raise error
    deployment = info.get("id")
    await usage_limits.admit(deployment, call.request.model)
    if call.own_path:
        return await call_litellm(call, kwargs)
    pending, call.pending = call.pending, None
    send = _heard if needs_wrapper() else acompletion
    if pending is not None and pending[0] == deployment:
        call.next = pending[1]
        return await send(**kwargs)
    try:
        call.next = await _prepare(call, kwargs)
    except NoDecoder as no:
        call.mode, call.reason = "litellm", str(no)
        return await call_litellm(call, kwargs)
    except Exception as error:
        call.begin(call.target_of(kwargs), fallback=bool(kwargs.get("fallback_depth")))
        fault = call.fail(error)
        call.next = call.keys.for_router(fault, call.target) or with_fault(error, fault)
    call.mode = "full"
    return await send(**kwargs)


async def _has_clients_key(call: ChatCall, kwargs: Mapping[str, Any]) -> bool:
    """Whether the client has the key of a deployment that has none, or an error instead, which `_prepare` raises again."""
    with suppress(BridgeError):
        return await call.keys.get(kwargs, call.target_of(kwargs)) is not None
    return True


async def _prepare(call: ChatCall, kwargs: Mapping[str, Any]) -> Ready:
    if litellm.credential_list and "litellm_credential_name" in kwargs:
        kwargs = dict(kwargs)
        litellm.utils.load_credentials_from_list(kwargs)
    target, key = call.target_of(kwargs), request_key(kwargs, stream=call.request.stream)
    ready = await call.prepare(key, kwargs, target)
    if call.on_prepared is not None and target.deployment is not None:
        call.on_prepared(key, kwargs, target)
    return ready


async def acompletion(**kwargs: Any) -> Any:
    """One attempt at one deployment. LiteLLM's wrapper goes by this function's name.

    Without the wrapper there is no log to write into: nothing listens, and LiteLLM's newer Routers count by themselves.
    """
    call = current.get()
    if call is None:
        return await _real(**kwargs)
    ready, call.next = call.next, None
    if isinstance(ready, Exception):
        raise ready
    if ready is None:  # LiteLLM's wrapper tries again by itself
        ready = await _prepare(call, kwargs)
    log = kwargs.get("litellm_logging_obj")
    call.begin(ready.target, fallback=bool(kwargs.get("fallback_depth")))
    if log is not None:
        _report_start(log, kwargs, ready)
    try:
        upstream = await call.open(ready)
        if call.request.stream:
            return await _stream(call, upstream, ready.target, log or SilentLogging(kwargs))
        deltas, facts = await upstream.whole(), upstream.facts()
    except AttemptError as failed:
        call.fail_attempt(failed.fault)
        await call.close()
        error = call.keys.for_router(failed.fault, ready.target) or for_router(failed, kwargs["model"], ready.target.provider)
        raise with_fault(error, failed.fault) from failed.fault
    except BaseException:
        await call.close()
        raise
    await call.close()
    call.end("ok")
    await usage_limits.spend(ready.target.deployment, _total(facts))
    response = model_response(deltas, facts, ready.target, upstream.headers)
    call.outcome = Outcome(deltas, facts, response, response.choices[0].message.content)
    return response


async def _stream(call: ChatCall, upstream: Upstream, target: Target, log: Any) -> Stream:
    """The first deltas are read here, inside the attempt: a failure before them is retried and falls back like a plain one."""
    first = await upstream.read()
    if not first:
        upstream.facts()  # raises for a stream without a response
    log.completion_start_time = datetime.now()
    return Stream(_pieces(call, upstream, first, target, log), target, log)


async def _pieces(call: ChatCall, upstream: Upstream, deltas: list[Delta], target: Target, log: Any) -> AsyncGenerator[Piece, None]:
    is_heard = not isinstance(log, SilentLogging)
    started, received = datetime.now(), list(deltas)
    try:
        while deltas:
            yield Piece(deltas)
            deltas = await upstream.read()
            if is_heard:
                received += deltas
        facts = upstream.facts()
        call.end("ok")
        await usage_limits.spend(target.deployment, _total(facts))
        if is_heard:
            response = model_response(received, facts, target, upstream.headers)
            await _cache(response, log)
            await log.dispatch_success_handlers(
                response,
                start_time=started,
                end_time=datetime.now(),
                cache_hit=False,
                prefer_async_handlers=True,
            )
        yield Piece([], facts)
    except AttemptError as failed:
        call.fail_attempt(failed.fault)
        error = call.keys.for_router(failed.fault, target) or for_router(failed, str(target.model), target.provider)
        with_fault(error, failed.fault)
        await log.async_failure_handler(error, "")
        raise error from failed.fault
    finally:
        await call.close()


_heard = litellm.client(acompletion)


def _total(facts: Facts) -> int:
    """Tokens of a response; 0 where the provider reports none."""
    usage = facts.end.usage
    return 0 if usage is None else usage.total_tokens or (usage.input_tokens or 0) + (usage.output_tokens or 0)


async def _cache(response: Any, log: Any) -> None:
    """LiteLLM's wrapper caches plain responses by itself; a stream's response only LiteLLM's own stream does."""
    handler = getattr(log, "llm_caching_handler", None)
    if litellm.cache is not None and handler is not None:
        with suppress(Exception):  # a cache that can't be written fails no chat, as with LiteLLM itself
            await handler.async_set_cache(result=response, original_function=acompletion, kwargs=handler.request_kwargs)


def _report_start(log: Any, kwargs: Mapping[str, Any], ready: Ready) -> None:
    """Notes in LiteLLM's log what its own call notes before it sends. ``metadata`` is the same object: the Router counts by it."""
    names = ("model_info", "api_base", "litellm_call_id", "litellm_metadata", "proxy_server_request")
    litellm_params = {"metadata": kwargs.get("metadata"), "acompletion": True} | {
        name: kwargs[name] for name in names if name in kwargs
    }
    target = ready.target
    log.update_environment_variables(
        litellm_params=litellm_params, optional_params={}, model=target.model, custom_llm_provider=target.provider
    )
    log.pre_call(
        input=kwargs["messages"],
        api_key="",
        additional_args={"complete_input_dict": ready.body.decode(errors="replace"), "api_base": str(ready.prepared.url)},
    )
