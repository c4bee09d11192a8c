"""Models that run on this machine, by llama.cpp: ``local/NAME``. They need no key and no network, and cost nothing.

Owns the words between OpenAI's wire format and llama.cpp's server, and which process serves which name: one a model, started by
the first request for it. Refuses to know how a process is run (`local_process`) and everything of llama.cpp but its JSON
(`local_engine`). Nothing of it is imported, started or read from disk before a ``local/`` model is asked for.
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

from bridge_worker.backends.local.llama_process import Answer, EngineProcess
from bridge_worker.config.local_models import DEFAULT, PREFIX, LocalModel, packaged_file
from bridge_worker.core.deltas import Delta, End, TokenUsage, ToolCallDelta
from bridge_worker.core.ports import ChatRequest, Facts
from bridge_worker.core.receipt import Change, EngineVersion
from bridge_worker.errors import BridgeError

PROVIDER = "local"
INSTALL = "start it once as bin/omni-bridge --stdio --local, which installs it, or see the README"

_UNSUPPORTED = ("reasoning_effort", "thinking")  # llama.cpp has no such switch that every template knows
_FOR_PROVIDERS = ("user", "metadata")  # nobody here could use them
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """``context_tokens`` is what a request and its answer share; ``embed`` and ``tools`` say what the model can beside chat."""

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
    """A `Model`. ``models`` are the config's, by name; ``smollm2`` is there without one, if its package is."""

    def __init__(self, models: Mapping[str, LocalModel] | None = None) -> None:
        self._models = {DEFAULT: LocalModel(), **(models or {})}
        self._configured = frozenset(models or {})
        self._engines: dict[str, EngineProcess] = {}
        self._starting = threading.Lock()

    def names(self) -> dict[str, bool]:
        """Those that a file is there for, and whether they are for embeddings."""
        return {PREFIX + name: model.embed for name, model in self._models.items() if model.file or packaged_file()}

    async def chat(self, request: ChatRequest) -> AsyncGenerator[list[Delta] | Facts, None]:
        engine = await self._engine(request.model)
        known = await engine.facts()
        request.receipt.engine = EngineVersion(name="llama.cpp", version=known["version"])
        request.receipt.added = []
        request.provider = PROVIDER
        request.receipt.dropped = [Change(param=name, change="dropped") for name in _FOR_PROVIDERS if name in request.options]
        body = _chat_body(request.model, request.messages, request.options, known["tools"])
        end = End(model=request.model)
        started = False
        async with _asked(engine, "chat", body, request) as answer:
            try:
                async for chunk in answer:
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
        """Exactly what a chat's ``usage.input_tokens`` would be: the model's own template and tokenizer count.

        Tools count for nothing where the template does not know them.
        """
        engine = await self._engine(model)
        knows_tools = (await engine.facts())["tools"]
        body = _chat_body(model, messages, {"tools": list(tools)} if tools and knows_tools else {}, knows_tools)
        return int((await _only_chunk(engine, "count", body))["input_tokens"])

    async def embed(self, model: str, inputs: Sequence[str], options: Mapping[str, Any] | None = None) -> LocalEmbeddings:
        engine = await self._engine(model)
        if not self._models[model.removeprefix(PREFIX)].embed:
            wrong = f"{model} is not set up for embeddings; say embed: true for it in the config, under omni_bridge.local"
            raise BridgeError("rejected_by_provider", wrong, provider=PROVIDER)
        known = await engine.facts()
        if (options or {}).get("dimensions", known["dimensions"]) != known["dimensions"]:
            wrong = f"{model} makes vectors of {known['dimensions']} dimensions and no others; leave dimensions out"
            raise BridgeError("rejected_by_provider", wrong, provider=PROVIDER)
        reply = await _only_chunk(engine, "embed", {"input": list(inputs)})
        vectors = [row["embedding"] for row in sorted(reply["data"], key=lambda row: row["index"])]
        return LocalEmbeddings(vectors, reply["usage"]["prompt_tokens"], known["version"])

    async def limits(self, model: str) -> Limits:
        """Loads the model, for only then they are known."""
        facts = await (await self._engine(model)).facts()
        embed = self._models[model.removeprefix(PREFIX)].embed
        return Limits(facts["context_tokens"], facts["parameters"], facts["dimensions"], facts["tools"], embed)

    async def preload(self) -> None:
        """Loads what the config names, or else the packaged model. What can't be loaded is logged."""
        for name in sorted(self._configured) or [DEFAULT]:
            try:
                await (await self._engine(PREFIX + name)).facts()
            except BridgeError as error:
                _log.error("a local model can't be loaded", extra={"fields": {"model": PREFIX + name, "why": error.message}})

    def close(self) -> None:
        """Ends the processes. They would end with this one, too."""
        for engine in self._engines.values():
            engine.stop()

    async def _engine(self, model: str) -> EngineProcess:
        name = model.removeprefix(PREFIX)
        if name not in self._models:
            known = ", ".join(PREFIX + known for known in self._models)
            hint = "others are named in the config, under omni_bridge.local"
            raise BridgeError("model_not_found", f"there is no {model!r:.100} on this machine; there is {known}, and {hint}")
        with self._starting:  # whoever counts tokens asks from another thread
            engine = self._engines.get(name)
            if engine is None or not engine.alive:
                engine = self._engines[name] = _start(model, self._models[name])
        return engine


def _start(name: str, model: LocalModel) -> EngineProcess:
    file = model.file or packaged_file()
    if file is None:
        raise BridgeError("model_not_found", f"{name} needs llama.cpp and its weights, which are not installed: {INSTALL}")
    started = time.monotonic()
    settings = {
        "file": str(file),
        "context_tokens": model.context_tokens,
        "slots": model.slots,
        "threads": model.threads or max(1, _cores() // 2),  # the other half is the agent's; with all of them a busy machine stalls
        "chat_template": model.chat_template,
        "embed": model.embed,
    }
    engine = EngineProcess(name, settings)
    _log.info("loading a local model", extra={"fields": {"model": name, "mb": file.stat().st_size // 1_000_000, "pid": engine.pid}})
    loading = asyncio.ensure_future(engine.facts())
    loading.add_done_callback(lambda done: _loaded(name, started, done))
    return engine


def _loaded(name: str, started: float, done: asyncio.Future[dict[str, Any]]) -> None:
    if not done.cancelled() and done.exception() is None:  # else whoever asked gets the error
        _log.info("a local model is loaded", extra={"fields": {"model": name, "ms": round((time.monotonic() - started) * 1000)}})


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@asynccontextmanager
async def _asked(
    engine: EngineProcess, work: str, body: Mapping[str, Any], request: ChatRequest | None = None
) -> AsyncIterator[Answer]:
    """Leaving it early stops the work; until that is confirmed, the request counts as open upstream."""
    answer = engine.ask(work, body)
    if request:
        request.upstream_open = True
    try:
        yield answer
    finally:
        closed = await answer.close()
        if request:
            request.upstream_open = not closed


async def _only_chunk(engine: EngineProcess, work: str, body: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    async with _asked(engine, work, body) as answer:
        async for chunk in answer:
            found = _checked(chunk)
    return found


def _chat_body(model: str, messages: Sequence[Mapping[str, Any]], options: Mapping[str, Any], knows_tools: bool) -> dict[str, Any]:
    for name in _UNSUPPORTED:
        if name in options:
            raise BridgeError("rejected_by_provider", f"{name} is not supported by local models; leave it out", provider=PROVIDER)
    body = {name: value for name, value in options.items() if name not in ("max_completion_tokens", *_FOR_PROVIDERS)}
    body["messages"] = list(messages)
    if "max_completion_tokens" in options:
        body["max_tokens"] = options["max_completion_tokens"]
    if body.get("tools") and not knows_tools:  # llama.cpp would leave them out of the prompt without a word
        wrong = f"the chat template of {model} knows no tools; leave them out, or give the model a template that does"
        raise BridgeError("rejected_by_provider", wrong, provider=PROVIDER)
    if isinstance(choice := body.get("tool_choice"), dict):  # llama.cpp knows the words only
        wanted = choice["function"]["name"]
        body["tools"] = [tool for tool in body.get("tools") or () if tool["function"]["name"] == wanted]
        body["tool_choice"] = "required"
        if not body["tools"]:
            raise BridgeError("rejected_by_provider", f"tool_choice names {wanted!r:.100}, which is not among the tools")
    # With progress it speaks up during a long prompt as well, and can be stopped there.
    return body | {"stream": True, "stream_options": {"include_usage": True}, "return_progress": True}


def _checked(chunk: dict[str, Any]) -> dict[str, Any]:
    """Raises BridgeError for a chunk that is an error."""
    if (error := chunk.get("error")) is None:
        return chunk
    if error.get("type") == "exceed_context_size_error":
        wrong = f"{error['n_prompt_tokens']} tokens are more than the model's context of {error['n_ctx']}"
        advice = "shorten the conversation, or raise context_tokens in the config, under omni_bridge.local"
        raise BridgeError("context_length_exceeded", f"{wrong}; {advice}", provider=PROVIDER)
    kind = "provider_unavailable" if error.get("type") == "unavailable_error" else "rejected_by_provider"
    raise BridgeError(kind, f"llama.cpp: {error.get('message')}", provider=PROVIDER)


def _delta(chunk: dict[str, Any], end: End) -> Delta:
    """Adds the facts of ``chunk`` to ``end``."""
    _checked(chunk)
    if usage := chunk.get("usage"):
        end.usage = _usage(usage)
    if not chunk.get("choices"):
        return Delta()
    choice = chunk["choices"][0]
    end.finish_reason = end.raw_finish_reason = choice.get("finish_reason") or end.finish_reason
    end.id = chunk.get("id") or end.id
    said = choice["delta"]
    return Delta(
        content=said.get("content"),
        reasoning=said.get("reasoning_content"),
        tool_calls=[_tool_call_piece(call) for call in said.get("tool_calls") or ()] or None,
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
