"""The same core as a Python function, for a Python gateway or for Rust that embeds Python: no process, no pipe.

Owns one engine for the calling process, and for `chat` a thread with an event loop, because LiteLLM's connections belong to the
loop that opened them. Refuses to touch the host's descriptors, signals and logging: those are its own.
"""

from __future__ import annotations

import asyncio
import functools
import os
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from bridge_worker.config.settings import DEFAULTS
from bridge_worker.core.accumulator import WireDelta
from bridge_worker.core.chat_runner import Emit
from bridge_worker.errors import BridgeError
from bridge_worker.methods.dispatcher import Methods
from bridge_worker.protocol.framing import Message, decode, encode
from bridge_worker.schema.chat_result import ChatResult
from bridge_worker.security.redaction import Redactor

__all__ = ["BridgeError", "ChatResult", "achat", "chat"]

OnDelta = Callable[[dict[str, Any]], Awaitable[None]]


async def achat(
    messages: Sequence[Mapping[str, Any]],
    model: str,
    tools: Sequence[Mapping[str, Any]] | None = None,
    *,
    on_delta: OnDelta | None = None,
    **params: Any,
) -> ChatResult:
    """One chat. ``params`` are those of the method ``chat``; with ``stream=True``, ``on_delta`` is awaited for each delta.

    Raises BridgeError: what a caller of the process gets as ``error``. Cancelling the task closes the upstream connection.
    """
    asked = {"model": model, "messages": list(messages), **({"tools": list(tools)} if tools else {}), **params}
    methods = _methods()
    try:
        return ChatResult.model_validate(
            await methods.chat(_as_json(asked), time.monotonic(), None if on_delta is None else _emit(on_delta))
        )
    except BridgeError as error:
        if error.kind == "cancelled":
            raise asyncio.CancelledError from error  # what asyncio expects of a cancelled task
        raise methods.cleaned(error) from None


def chat(
    messages: Sequence[Mapping[str, Any]], model: str, tools: Sequence[Mapping[str, Any]] | None = None, **params: Any
) -> ChatResult:
    """`achat` for code that has no event loop. Thread-safe; the calls of several threads run side by side."""
    return asyncio.run_coroutine_threadsafe(achat(messages, model, tools, **params), _loop()).result()


def _emit(on_delta: OnDelta) -> Emit:
    async def emit(deltas: list[WireDelta]) -> None:
        for delta in deltas:
            await on_delta({"content": delta} if isinstance(delta, str) else delta)

    return emit


def _as_json(asked: dict[str, Any]) -> dict[str, Any]:
    """A copy, as it would have come over the wire: LiteLLM writes into what it is given."""
    try:
        message = decode(encode(asked))
    except (TypeError, ValueError) as error:
        raise BridgeError("invalid_request", f"the params have no JSON form: {error}") from None
    if not isinstance(message, Message) or not isinstance(message.value, dict):
        raise BridgeError("invalid_request", "the params have no JSON form")
    return message.value


@functools.cache
def _methods() -> Methods:
    return Methods(
        _find_engine_model,
        DEFAULTS,
        Redactor(os.environ),
        find_services=_find_services,
        engine_state=dict,  # only `chat` is offered here
        configured=False,
    )


async def _find_services() -> Any:
    raise BridgeError("internal", "a process that imports the bridge has only chat")


async def _find_engine_model(name: str) -> Any:
    return await asyncio.to_thread(_engine_model)


@functools.cache
def _engine_model() -> Any:
    from bridge_worker.backends.litellm.chat import LiteLLM  # 2 s, which a chat with an offline model need not pay
    from bridge_worker.backends.litellm.rehearsal import rehearse

    model = LiteLLM(remembers=False)  # the host may set LiteLLM up otherwise at any time
    rehearse(model)
    return model


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="omni-bridge", daemon=True).start()
    return loop
