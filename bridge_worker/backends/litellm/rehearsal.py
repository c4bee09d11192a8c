"""Rehearses at start each private part of LiteLLM that chats lean on. A failed rehearsal turns off one mode or one format.

Owns the list of these parts. The other modes and formats continue as they are; what is off is served by LiteLLM's own path, and the
log and each receipt report it. Refuses to send anything.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import litellm

from bridge_worker.backends.litellm import decoders, gate, router
from bridge_worker.backends.litellm.capture import SilentLogging, capture
from bridge_worker.backends.litellm.chat import LiteLLM
from bridge_worker.backends.litellm.decoders import Format

_NOWHERE = "http://127.0.0.1:1"
_KEY = {"api_key": "none"}
_AWS = {"aws_access_key_id": "none", "aws_secret_access_key": "none", "aws_region_name": "us-east-1"}
_MESSAGES = [{"role": "user", "content": "hello"}]
# Not Ollama: LiteLLM calls its server for facts about the model before it makes a request.
# Format -> the model that is captured for it, and what else its request needs.
FORMATS: Mapping[Format, tuple[str, dict[str, Any]]] = {
    decoders.OPENAI_CHAT: ("lm_studio/rehearsal", {"api_base": f"{_NOWHERE}/v1"}),
    decoders.OPENAI_RESPONSES: ("openai/responses/gpt-4.1", _KEY),
    decoders.ANTHROPIC: ("anthropic/claude-sonnet-4-5", _KEY),
    decoders.GEMINI: ("gemini/gemini-2.5-flash", _KEY),
    decoders.BEDROCK_CONVERSE: ("bedrock/converse/anthropic.claude-3-sonnet-20240229-v1:0", _AWS),
    decoders.BEDROCK_ANTHROPIC: ("bedrock/invoke/anthropic.claude-3-sonnet-20240229-v1:0", _AWS),
    decoders.COHERE: ("cohere_chat/command-r", _KEY),
}
_AHEAD = (decoders.OPENAI_CHAT,)  # rehearsed before the worker is ready; the others after it
# Methods of LiteLLM's `Logging` that the gate calls.
_LOG_METHODS = ("update_environment_variables", "pre_call", "dispatch_success_handlers", "async_failure_handler")

_results: dict[str, bool] = {}  # a reload need not rehearse again
_log = logging.getLogger(__name__)


def rehearse(model: LiteLLM) -> None:
    """What the first chat needs. Not for a thread that has an event loop."""
    for found in _AHEAD:
        _rehearse_format(found)
    if decoders.is_off(decoders.OPENAI_CHAT):
        model.use_own_path("LiteLLM's requests can't be captured")
    elif model.router is not None and not _passes("the gate under the Router", _rehearse_gate):
        model.use_own_path("LiteLLM's Router does not call through the bridge")


def rehearse_rest() -> None:
    """The formats that `rehearse` left out, which the first chat does not wait for."""
    for found in FORMATS:
        if found not in _AHEAD:
            _rehearse_format(found)


def _rehearse_format(found: Format) -> None:
    model, arguments = FORMATS[found]

    async def work() -> None:
        call = {
            "model": model,
            "messages": _MESSAGES,
            "timeout": 1.0,
            "max_retries": 0,
            "_skip_mcp_handler": True,
            "temperature": 0.5,
        }
        streamed = {"stream": True, "stream_options": {"include_usage": True}}
        for options in ({}, streamed):
            captured = await capture({**call, "messages": [dict(message) for message in _MESSAGES], **arguments, **options})
            body = json.loads(captured.body)
            if "hello" not in json.dumps(body) or "0.5" not in json.dumps(body):
                raise RuntimeError("the captured request does not contain the conversation and its parameter")
            if decoders.format_of(captured.provider, captured.url, body) is None:
                raise RuntimeError(f"the request goes to {captured.url.path}, of which no format is known")
        decoders.decoder_class(found)()

    if not _passes(f"the format {found.module}", work):
        decoders.switch_off(found)


async def _rehearse_gate() -> None:
    """A throw-away Router must call through the gate, and pass on the exception that is raised there."""
    missing = [name for name in _LOG_METHODS if not inspect.isroutine(getattr(SilentLogging, name, None))]
    if missing or not isinstance(gate.Stream, type) or not issubclass(gate.Stream, litellm.CustomStreamWrapper):
        raise RuntimeError(f"LiteLLM's Logging has no {', '.join(missing) or 'stream of the known class'}")
    settings: dict[str, Any] = {
        "model_list": [
            {"model_name": "rehearsal", "litellm_params": {"model": "lm_studio/rehearsal", "api_base": f"{_NOWHERE}/v1"}}
        ],
        "num_retries": 0,
    }
    made = router.make(settings, None)
    calls: list[Mapping[str, Any]] = []
    try:
        with gate.watched(calls.append):
            await made.acompletion(model="rehearsal", messages=_MESSAGES)
    except gate.Watched:
        pass
    finally:
        router.forget(made)
    if not calls or "model_info" not in calls[0]:
        raise RuntimeError("the Router called past the gate")


def _passes(what: str, work: Callable[[], Awaitable[None]]) -> bool:
    if what in _results:
        return _results[what]
    _results[what] = False

    async def run() -> None:
        await work()

    try:
        asyncio.run(run())
    except Exception as error:
        line = next(iter(str(error).splitlines()), "")
        _log.warning(
            "this LiteLLM fails the rehearsal of %s (%s: %.200s); its own path serves it", what, type(error).__name__, line
        )
        return False
    _results[what] = True
    return True
