"""Rehearses at start each private part of LiteLLM that chats lean on. A failed rehearsal turns off one mode or one format.

Owns the list of these parts. The other modes and formats continue as they are; what is off is served by LiteLLM's own path, and the
log and each receipt report it. Refuses to send anything.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import logging
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import litellm
from litellm.litellm_core_utils.litellm_logging import Logging

from bridge_worker.backends.litellm import decoders, gate, router
from bridge_worker.backends.litellm.capture import capture
from bridge_worker.backends.litellm.chat import LiteLLM
from bridge_worker.backends.litellm.listeners import needs_wrapper
from bridge_worker.backends.litellm.patches import table
from bridge_worker.backends.litellm.warm_up import warm_up_openai
from bridge_worker.backends.wire import formats
from bridge_worker.backends.wire.formats import Format

_NOWHERE = "http://127.0.0.1:1"  # nothing listens there: where the capture fails, no provider is called
_AWS = {
    "aws_access_key_id": "none",
    "aws_secret_access_key": "none",
    "aws_region_name": "us-east-1",
    "aws_bedrock_runtime_endpoint": _NOWHERE,
}
_MESSAGES = [{"role": "user", "content": "hello"}]


def _at(base: str) -> dict[str, Any]:
    return {"api_key": "none", "api_base": _NOWHERE + base}


# Not Ollama: LiteLLM looks the model up at its server on this machine before it makes a request.
# Format -> the model that is captured for it, and what else its request needs.
FORMATS: Mapping[Format, tuple[str, dict[str, Any]]] = {
    formats.OPENAI_CHAT: ("lm_studio/rehearsal", _at("/v1")),
    formats.OPENAI_RESPONSES: ("openai/responses/gpt-4.1", _at("/v1")),
    formats.ANTHROPIC: ("anthropic/claude-sonnet-4-5", _at("")),
    formats.GEMINI: ("gemini/gemini-2.5-flash", _at("/v1beta/models/gemini-2.5-flash")),
    formats.BEDROCK_CONVERSE: ("bedrock/converse/anthropic.claude-3-sonnet-20240229-v1:0", _AWS),
    formats.BEDROCK_ANTHROPIC: ("bedrock/invoke/anthropic.claude-3-sonnet-20240229-v1:0", _AWS),
    formats.COHERE: ("cohere_chat/command-r", _at("/v2/chat")),
}
_AHEAD = (formats.OPENAI_CHAT,)  # rehearsed before the worker is ready; the others after it
_WRAPPER, _ROUTER, _LANE = "mode full", "gate under the Router", "mode lane"
_EFFECTS = {
    _WRAPPER: "LiteLLM's own path serves chats that a callback, a cache or a budget listens to, and all of a config",
    _ROUTER: "LiteLLM's own path serves the chats of a config",
    _LANE: "the Router serves every chat of a config",
}
_IDS = ("rehearsal-1", "rehearsal-2")  # of deployments
_REASON_CHARACTERS = 200
# Methods of LiteLLM's `Logging` that the gate calls.
_LOG_METHODS = ("update_environment_variables", "pre_call", "dispatch_success_handlers", "async_failure_handler")
_PICKS = 8  # calls of the rehearsal of `_router_weights`; at random they would be right once in 256 times

_results: dict[str, str] = {}  # why each rehearsal failed, "" where it passed; a process that is forked rehearses the others
_one_at_a_time = threading.Lock()  # of a thread that loads ahead and those of chats
_log = logging.getLogger(__name__)


def rehearse(model: LiteLLM, *, is_wrapped: bool = True) -> None:
    """Prepares what the first chat needs. Do not call it in a thread with an event loop.

    ``is_wrapped``: something will listen to calls, such as a host's code. Where nothing does, `rehearse_rest` has the wrapper,
    which loads a tenth of the modules. The formats that are left out are rehearsed before the first chat that needs one, at the
    latest.
    """
    for found in FORMATS:
        if found not in _AHEAD:
            decoders.rehearse_before_use(found, functools.partial(_rehearse_format, found))
    decoders.rehearse_before_use(None, functools.partial(_rehearse_own_path, model))
    for found in _AHEAD:
        _rehearse_format(found)
    if any(map(decoders.is_off, _AHEAD)):
        rehearse_rest(model)  # the others may fail for the same reason, and a chat must not find it out
    if is_wrapped or needs_wrapper() or _WRAPPER in _results:
        _require_wrapper(model)
    if model.router is None:
        return
    if not _passes(_ROUTER, _rehearse_router):
        model.use_own_path("LiteLLM's Router does not call through the bridge")
    elif not _passes(_LANE, _rehearse_lane):
        model.close_lane("LiteLLM's Router does not take the lane's failures")


def _require_wrapper(model: LiteLLM) -> None:
    if _passes(_WRAPPER, _rehearse_wrapper):
        return
    reason = "LiteLLM's wrapper does not call the bridge"
    model.leave_out_full(reason)
    if model.router is not None:
        model.use_own_path(reason)


def degraded() -> list[dict[str, str]]:
    """The rows of ``status`` about rehearsals."""
    effect = "LiteLLM's own path serves it"
    return [{"part": part, "reason": reason, "effect": _EFFECTS.get(part, effect)} for part, reason in _results.items() if reason]


def rehearse_rest(model: LiteLLM) -> None:
    """What `rehearse` left out, which the first chat does not wait for."""
    _rehearse_own_path(model)
    for found in FORMATS:
        if found not in _AHEAD:
            _rehearse_format(found)


def _rehearse_own_path(model: LiteLLM) -> None:
    with suppress(Exception):  # the first call that needs the package gets the error
        warm_up_openai()
    table.install_rest()
    _require_wrapper(model)


def rehearse_without_threads() -> Iterator[None]:
    """The same, in steps, but the formats for which LiteLLM starts a thread: it does to sign a request for AWS."""
    table.install_rest()
    yield
    for found, (_, arguments) in FORMATS.items():
        if arguments is not _AWS:
            _rehearse_format(found)
            yield
    _passes(_WRAPPER, _rehearse_wrapper)


def _rehearse_format(found: Format) -> None:
    model, arguments = FORMATS[found]

    async def work() -> None:
        for options in ({}, {"stream": True, "stream_options": {"include_usage": True}}):
            await _capture(found, {"model": model, **arguments, **options})
        formats.decoder_class(found)()

    if not _passes(f"format {found.name}", work):
        decoders.switch_off(found)


async def _capture(found: Format, call: Mapping[str, Any]) -> None:
    messages = [dict(message) for message in _MESSAGES]
    common = {"messages": messages, "timeout": 1.0, "max_retries": 0, "_skip_mcp_handler": True, "temperature": 0.5}
    try:
        captured = await capture({**common, **call})
    except Exception:
        decoders.switch_capture_off(found)  # it would be sent twice
        raise
    body = json.loads(captured.body)
    if "hello" not in json.dumps(body) or "0.5" not in json.dumps(body):
        raise RuntimeError("the captured request does not contain the conversation and its parameter")
    if decoders.format_of(captured.provider, captured.url, body) != found:
        raise RuntimeError(f"the request goes to {captured.url.path}, which is not known as this format's")


async def _rehearse_wrapper() -> None:
    """`litellm.client` must call what it wraps, give it LiteLLM's log, and return what it returned."""
    missing = [name for name in _LOG_METHODS if not inspect.isroutine(getattr(Logging, name, None))]
    if missing or not issubclass(gate.Stream, litellm.CustomStreamWrapper):
        raise RuntimeError(f"LiteLLM's Logging has no {', '.join(missing) or 'stream of the known class'}")
    logs: list[object] = []

    async def acompletion(**call: Any) -> Any:
        logs.append(call.get("litellm_logging_obj"))
        raise _Ended

    with suppress(_Ended):
        await litellm.client(acompletion)(model="lm_studio/rehearsal", messages=_MESSAGES)
    if len(logs) != 1 or not isinstance(logs[0], Logging):
        raise RuntimeError("litellm.client does not call what it wraps, or does not pass on its log")


class _Ended(BaseException):
    """A `BaseException`, so that no callback, cache or budget of the operator is called for a rehearsal."""


async def _rehearse_router() -> None:
    """A throw-away Router must call through the gate, and pass on the exception that is raised there."""
    if "model_info" not in (await _calls_of_router({}))[0]:
        raise RuntimeError("the Router called past the gate")


async def _rehearse_lane() -> None:
    """``_router_weights`` must name the deployment that a Router picks first."""
    wanted = [_IDS[at % len(_IDS)] for at in range(_PICKS)]
    calls = await _calls_of_router(*({"_router_weights": {"rehearsal": {id: 1.0}}} for id in wanted))
    if [(call.get("model_info") or {}).get("id") for call in calls] != wanted:
        raise RuntimeError("the Router does not pick the deployment that _router_weights names")


async def _calls_of_router(*requests: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The keyword arguments with which a throw-away Router calls a deployment for each; {} if the call passed the gate."""
    rows = [
        {"model_name": "rehearsal", "litellm_params": {"model": "lm_studio/rehearsal", **_at("/v1")}, "model_info": {"id": id}}
        for id in _IDS
    ]
    made = router.make({"model_list": rows, "num_retries": 0}, None)
    calls: list[Mapping[str, Any]] = []
    try:
        for request in requests:
            seen: list[Mapping[str, Any]] = []
            with gate.watched(seen.append), suppress(gate.Watched):
                await made.acompletion(model="rehearsal", messages=_MESSAGES, **request)
            calls.append(seen[0] if seen else {})
    finally:
        router.forget(made)
    return calls


def _passes(what: str, work: Callable[[], Awaitable[None]]) -> bool:
    with _one_at_a_time:
        return _passes_now(what, work)


def _passes_now(what: str, work: Callable[[], Awaitable[None]]) -> bool:
    if what in _results:
        return not _results[what]
    _results[what] = "it was broken off"

    async def run() -> None:
        await work()

    try:
        asyncio.run(run())
    except Exception as error:
        line = next(iter(str(error).splitlines()), "")
        _results[what] = f"{type(error).__name__}: {line}"[:_REASON_CHARACTERS]
        _log.warning("this LiteLLM fails the rehearsal of the %s (%s); its own path serves it", what, _results[what])
        return False
    _results[what] = ""
    return True
