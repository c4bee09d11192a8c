"""Chats as Python functions over the same core, for a Python gateway or for Rust that embeds Python: no process, no pipe.

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

from bridge_worker.config.source import Config
from bridge_worker.core.accumulator import WireDelta
from bridge_worker.core.chat_runner import Emit
from bridge_worker.errors import BridgeError
from bridge_worker.methods.chat import Chat
from bridge_worker.methods.dispatcher import clean_error
from bridge_worker.protocol.framing import Message, decode, encode
from bridge_worker.runtime.app import App
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
    whole = {"model": model, "messages": list(messages), **({"tools": list(tools)} if tools else {}), **params}
    try:
        emit = None if on_delta is None else _emit(on_delta)
        return ChatResult.model_validate(await _chat().run(_as_json(whole), time.monotonic(), emit))
    except BridgeError as error:
        if error.kind == "cancelled":
            raise asyncio.CancelledError from error  # what asyncio expects of a cancelled task
        raise clean_error(error, _redactor()) from None


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


def _as_json(params: dict[str, Any]) -> dict[str, Any]:
    """A copy, as it would have come over the wire: LiteLLM writes into what it is given."""
    try:
        message = decode(encode(params))
    except (TypeError, ValueError) as error:
        raise BridgeError("invalid_request", f"the params have no JSON form: {error}") from None
    if not isinstance(message, Message) or not isinstance(message.value, dict):
        raise BridgeError("invalid_request", "the params have no JSON form")
    return message.value


@functools.cache
def _redactor() -> Redactor:
    return Redactor(os.environ)


@functools.cache
def _chat() -> Chat:
    return App(Config(), _redactor(), embedded=True).chat()


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="omni-bridge", daemon=True).start()
    return loop
