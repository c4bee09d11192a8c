"""Models that run on this machine, by llama.cpp: ``local/NAME``. They need no key and no network, and cost nothing.

Owns the translation between OpenAI's wire format and llama.cpp's server, and the process of each model, started by the first
request for it. Refuses to know how a process is run (`llama_process`) and everything of llama.cpp but its JSON (`llama_server`).
Imports, starts and reads nothing of llama.cpp before the first request for a ``local/`` model.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from bridge_worker.backends.local.llama_process import LlamaCall, LlamaProcess
from bridge_worker.config.local_models import DEFAULT, PREFIX, LocalModel, packaged_file
from bridge_worker.core.deltas import Delta, End, TokenUsage, ToolCallDelta
from bridge_worker.core.ports import ChatRequest, Facts
from bridge_worker.core.receipt import Change, EngineVersion
from bridge_worker.errors import BridgeError

PROVIDER = "local"
INSTALL = "start it once as bin/omni-bridge --stdio --local, which installs it, or see the README"

_UNSUPPORTED = ("reasoning_effort", "thinking")  # llama.cpp has no such switch that every template knows
_FOR_PROVIDERS = ("user", "metadata")  # a local model has no use for them
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """``context_tokens`` holds a request and its completion together; ``embed`` and ``tools`` are capabilities besides chat."""

    context_tokens: int
    parameters: int
    dimensions: int
    tools: bool
    embed: bool


@dataclass(frozen=True, slots=True)
class LocalEmbeddings:
    vectors: list[list[float]]
    input_tokens: int
    version: str  # llama.cpp's


class Local:
    """A `ChatModel`. ``models`` are the config's, by name; ``smollm2`` needs no config where its package is installed."""

    def __init__(self, models: Mapping[str, LocalModel] | None = None) -> None:
        self._models = {DEFAULT: LocalModel(), **(models or {})}
        self._configured = frozenset(models or {})
        self._processes: dict[str, LlamaProcess] = {}
        self._starting = threading.Lock()

    def names(self) -> dict[str, bool]:
        """The models with an existing file, and whether they are for embeddings."""
        return {PREFIX + name: model.embed for name, model in self._models.items() if model.file or packaged_file()}

    async def chat(self, request: ChatRequest) -> AsyncGenerator[list[Delta] | Facts, None]:
        process = await self._process(request.model)
        facts = await process.facts()
        request.receipt.engine = EngineVersion(name="llama.cpp", version=facts["version"])
        request.receipt.added = []
        request.provider = PROVIDER
        request.receipt.dropped = [Change(param=name, change="dropped") for name in _FOR_PROVIDERS if name in request.options]
        body = _chat_body(request.model, request.messages, request.options, facts["tools"])
        end = End(model=request.model)
        started = False
        async with _llama_call(process, "chat", body, request) as call:
            try:
                async for chunk in call:
                    delta = _delta(chunk, end)
                    started = started or bool(delta.content or delta.reasoning or delta.tool_calls)
                    yield [delta]  # a plain chat's too, so that a cancel can report the content received so far
            except BridgeError as error:
                if started and request.stream and error.kind == "provider_unavailable":
                    error.kind = "stream_interrupted"
                raise
        if end.finish_reason is None:
            raise BridgeError("bad_upstream_response", "llama.cpp ended without a finish reason; try again", provider=PROVIDER)
        yield Facts(end, PROVIDER, cost_usd=0.0, cost_source="provider")

    async def count_tokens(
        self, model: str, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None = None
    ) -> int:
        """Returns exactly a chat's ``usage.input_tokens``, by the model's own template and tokenizer.

        Tools do not count where the template does not support them.
        """
        process = await self._process(model)
        knows_tools = (await process.facts())["tools"]
        body = _chat_body(model, messages, {"tools": list(tools)} if tools and knows_tools else {}, knows_tools)
        return int((await _only_chunk(process, "count", body))["input_tokens"])

    async def embed(self, model: str, inputs: Sequence[str], options: Mapping[str, Any] | None = None) -> LocalEmbeddings:
        process = await self._process(model)
        if not self._models[model.removeprefix(PREFIX)].embed:
            message = f"{model} is not set up for embeddings; set embed: true for it in the config, under omni_bridge.local"
            raise BridgeError("rejected_by_provider", message, provider=PROVIDER)
        facts = await process.facts()
        if (options or {}).get("dimensions", facts["dimensions"]) != facts["dimensions"]:
            message = f"{model} makes vectors of {facts['dimensions']} dimensions only; leave dimensions out"
            raise BridgeError("rejected_by_provider", message, provider=PROVIDER)
        reply = await _only_chunk(process, "embed", {"input": list(inputs)})
        vectors = [row["embedding"] for row in sorted(reply["data"], key=lambda row: row["index"])]
        return LocalEmbeddings(vectors, reply["usage"]["prompt_tokens"], facts["version"])

    async def limits(self, model: str) -> Limits:
        """Loads the model: its limits are not known before."""
        facts = await (await self._process(model)).facts()
        embed = self._models[model.removeprefix(PREFIX)].embed
        return Limits(facts["context_tokens"], facts["parameters"], facts["dimensions"], facts["tools"], embed)

    async def preload(self) -> None:
        """Loads the config's models, or else the packaged one. A model that cannot be loaded is logged."""
        for name in sorted(self._configured) or [DEFAULT]:
            try:
                await (await self._process(PREFIX + name)).facts()
            except BridgeError as error:
                _log.error("a local model cannot be loaded", extra={"fields": {"model": PREFIX + name, "why": error.message}})

    def close(self) -> None:
        """Ends the processes. They end with this one too."""
        for process in self._processes.values():
            process.stop()

    async def _process(self, model: str) -> LlamaProcess:
        name = model.removeprefix(PREFIX)
        if name not in self._models:
            known = ", ".join(PREFIX + known for known in self._models)
            hint = "add others to the config, under omni_bridge.local"
            raise BridgeError("model_not_found", f"unknown local model {model!r:.100}; known: {known}; {hint}")
        with self._starting:  # tokens are counted in another thread
            process = self._processes.get(name)
            if process is None or not process.alive:
                process = self._processes[name] = _start(model, self._models[name])
        return process


def _start(name: str, model: LocalModel) -> LlamaProcess:
    file = model.file or packaged_file()
    if file is None:
        raise BridgeError("model_not_found", f"{name} needs llama.cpp and its weights, which are not installed: {INSTALL}")
    started = time.monotonic()
    settings = {
        "file": str(file),
        "context_tokens": model.context_tokens,
        "slots": model.slots,
        "threads": model.threads or max(1, _cores() // 2),  # half is left to the agent; with all of them a busy machine stalls
        "chat_template": model.chat_template,
        "embed": model.embed,
    }
    process = LlamaProcess(name, settings)
    _log.info(
        "loading a local model", extra={"fields": {"model": name, "mb": file.stat().st_size // 1_000_000, "pid": process.pid}}
    )
    loading = asyncio.ensure_future(process.facts())
    loading.add_done_callback(lambda done: _loaded(name, started, done))
    return process


def _loaded(name: str, started: float, done: asyncio.Future[dict[str, Any]]) -> None:
    if not done.cancelled() and done.exception() is None:  # else the waiting request gets the error
        _log.info("a local model is loaded", extra={"fields": {"model": name, "ms": round((time.monotonic() - started) * 1000)}})


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@asynccontextmanager
async def _llama_call(
    process: LlamaProcess, work: str, body: Mapping[str, Any], request: ChatRequest | None = None
) -> AsyncIterator[LlamaCall]:
    """Leaving the block early stops the work; until that is confirmed, the request counts as open upstream."""
    call = process.start_call(work, body)
    if request:
        request.upstream_open = True
    try:
        yield call
    finally:
        closed = await call.close()
        if request:
            request.upstream_open = not closed


async def _only_chunk(process: LlamaProcess, work: str, body: Mapping[str, Any]) -> dict[str, Any]:
    last: dict[str, Any] = {}
    async with _llama_call(process, work, body) as call:
        async for chunk in call:
            last = _check_chunk(chunk)
    return last


def _chat_body(model: str, messages: Sequence[Mapping[str, Any]], options: Mapping[str, Any], knows_tools: bool) -> dict[str, Any]:
    for name in _UNSUPPORTED:
        if name in options:
            raise BridgeError("rejected_by_provider", f"{name} is not supported by local models; leave it out", provider=PROVIDER)
    body = {name: value for name, value in options.items() if name not in ("max_completion_tokens", *_FOR_PROVIDERS)}
    body["messages"] = list(messages)
    if "max_completion_tokens" in options:
        body["max_tokens"] = options["max_completion_tokens"]
    if body.get("tools") and not knows_tools:  # llama.cpp would leave them out of the prompt silently
        message = f"the chat template of {model} does not support tools; leave them out, or set a chat_template that does"
        raise BridgeError("rejected_by_provider", message, provider=PROVIDER)
    if isinstance(choice := body.get("tool_choice"), dict):  # llama.cpp supports the strings only
        wanted = choice["function"]["name"]
        body["tools"] = [tool for tool in body.get("tools") or () if tool["function"]["name"] == wanted]
        body["tool_choice"] = "required"
        if not body["tools"]:
            raise BridgeError("rejected_by_provider", f"tool_choice names {wanted!r:.100}, which is not among the tools")
    # With progress it sends chunks during a long prompt too, and can be stopped there.
    return body | {"stream": True, "stream_options": {"include_usage": True}, "return_progress": True}


def _check_chunk(chunk: dict[str, Any]) -> dict[str, Any]:
    """Returns ``chunk``. Raises BridgeError when it is an error."""
    if (error := chunk.get("error")) is None:
        return chunk
    if error.get("type") == "exceed_context_size_error":
        message = f"{error['n_prompt_tokens']} tokens are more than the model's context of {error['n_ctx']}"
        advice = "shorten the conversation, or raise context_tokens in the config, under omni_bridge.local"
        raise BridgeError("context_length_exceeded", f"{message}; {advice}", provider=PROVIDER)
    kind = "provider_unavailable" if error.get("type") == "unavailable_error" else "rejected_by_provider"
    raise BridgeError(kind, f"llama.cpp: {error.get('message')}", provider=PROVIDER)


def _delta(chunk: dict[str, Any], end: End) -> Delta:
    """Adds the facts of ``chunk`` to ``end``."""
    _check_chunk(chunk)
    if usage := chunk.get("usage"):
        end.usage = _usage(usage)
    if not chunk.get("choices"):
        return Delta()
    choice = chunk["choices"][0]
    end.finish_reason = end.raw_finish_reason = choice.get("finish_reason") or end.finish_reason
    end.id = chunk.get("id") or end.id
    part = choice["delta"]
    return Delta(
        content=part.get("content"),
        reasoning=part.get("reasoning_content"),
        tool_calls=[_tool_call_piece(call) for call in part.get("tool_calls") or ()] or None,
        logprobs=(choice.get("logprobs") or {}).get("content"),
    )


def _tool_call_piece(call: Mapping[str, Any]) -> ToolCallDelta:
    function = call.get("function") or {}
    return ToolCallDelta(call.get("index"), call.get("id"), function.get("name"), function.get("arguments") or "")


def _usage(usage: Mapping[str, Any]) -> TokenUsage:
    return TokenUsage(
        input_tokens=usage["prompt_tokens"],
        output_tokens=usage["completion_tokens"],
        total_tokens=usage["total_tokens"],
        cached_input_tokens=(usage.get("prompt_tokens_details") or {}).get("cached_tokens"),
    )
