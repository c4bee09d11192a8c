"""The ordinary path: LiteLLM's `acompletion`, or its Router when there is a gateway config. Importing this file imports LiteLLM.

Owns every LiteLLM switch, every private thing of it that a call relies on (each marked PRIVATE and held by a canary test), and the
shape of its answers. Refuses to know the wire, deadlines, and how deltas add up.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import litellm
from litellm.caching.caching import InMemoryCache  # noqa: F401  # first use would import it on the loop
from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER  # PRIVATE: its queue is flushed at exit

from bridge_worker.completion import ChatRequest, Delta, ToolCallPiece
from bridge_worker.errors import BridgeError
from bridge_worker.models import LOGGERS, faults, mends  # noqa: F401  # importing the second mends LiteLLM
from bridge_worker.protocol import Usage

# One value for every call: a timeout that varies makes LiteLLM build a new client and connection pool each time. The deadlines of a
# request are the bridge's own and usually end it earlier.
REQUEST_TIMEOUT_SECONDS = 600.0
CLOSE_SECONDS = 1.0  # how long a provider's stream may take to close before the caller is told that it has not

# They ask a person to log in and block meanwhile, or load a model into this process.
_UNUSABLE_PROVIDERS = ("github_copilot", "chatgpt", "petals", "vllm")


class LiteLLM:
    """A `Model`. ``router_settings`` are the Router's keyword arguments, ``model_list`` among them.

    Without them any model is served by its LiteLLM name, with the key and base URL that LiteLLM finds in the environment.
    """

    def __init__(self, router_settings: Mapping[str, Any] | None = None) -> None:
        _quieten()
        self._router: Any = litellm.Router(**router_settings) if router_settings else None

    @property
    def version(self) -> str:
        return litellm_version()

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        self._check_model(request.model)
        streamed = False
        try:
            answer = await self._complete(request)  # cancelled here, LiteLLM's clients close their connection by themselves
            if not request.stream:
                yield _whole(answer, request.model)
                return
            request.upstream_open = True
            facts = Delta(provider=_provider(answer, request.model))
            try:
                async for chunk in answer:
                    delta = _piece(chunk, facts)
                    streamed = streamed or bool(delta.content or delta.reasoning or delta.tool_calls)
                    yield delta
            finally:
                request.upstream_open = not await _close(answer)
            yield _stream_end(answer, facts, streamed=streamed)
        except BridgeError:
            raise
        except Exception as error:
            raise faults.from_litellm(error, model=request.model, streamed=streamed) from error

    async def aclose(self) -> None:
        """Flushes LiteLLM's callbacks and closes its connections."""
        with suppress(TimeoutError):
            await asyncio.wait_for(GLOBAL_LOGGING_WORKER.flush(), 2)
        await GLOBAL_LOGGING_WORKER.stop()
        await litellm.close_litellm_async_clients()

    async def _complete(self, request: ChatRequest) -> Any:
        options = dict(request.options)
        if "metadata" in options:
            options["metadata"] = dict(options["metadata"])  # the Router writes into it
        if request.stream:
            options |= {"stream": True, "stream_options": {"include_usage": True}}
        # PRIVATE: else tools need the mcp package, and could be run here instead of by the agent.
        options["_skip_mcp_handler"] = True
        if self._router:
            return await self._router.acompletion(model=request.model, messages=request.messages, **options)
        return await litellm.acompletion(
            model=request.model, messages=request.messages, timeout=REQUEST_TIMEOUT_SECONDS, max_retries=0, **options
        )

    def _check_model(self, model: str) -> None:
        if self._router is not None:
            # The Router would serve a deployment by its id or LiteLLM name too. PRIVATE: pattern_router, which knows wildcards.
            if model not in self._router.get_model_names() and not self._router.pattern_router.route(model):
                raise BridgeError("model_not_found", f"there is no {model!r:.100} in the config's model_list", model=model)
        elif (provider := model.split("/")[0]) in _UNUSABLE_PROVIDERS:
            wrong = f"{provider} can't be used through the bridge: it would wait for a person, or load the model into it"
            raise BridgeError("model_not_found", wrong, model=model)


def litellm_version() -> str:
    from importlib.metadata import version  # 40 ms, so not on the way to the first answer

    return version("litellm")


def warm_up() -> None:
    """Does once, in the calling thread, what would else stall the loop for half a second at the first call."""

    async def first_calls() -> None:
        call: dict[str, Any] = {"model": "openai/warm-up", "messages": [{"role": "user", "content": "hi"}], "mock_response": "hi"}
        await litellm.acompletion(**call, _skip_mcp_handler=True)
        async for _ in await litellm.acompletion(**call, stream=True, _skip_mcp_handler=True):
            pass
        await GLOBAL_LOGGING_WORKER.flush()
        await GLOBAL_LOGGING_WORKER.stop()

    _quieten()
    from openai import AsyncOpenAI  # 500 modules

    _ = AsyncOpenAI(api_key="none").chat.completions
    with asyncio.Runner() as runner:
        runner.get_loop().set_default_executor(ThreadPoolExecutor(1))
        runner.run(first_calls())


def _quieten() -> None:
    """LiteLLM prints and logs to stdout by design. The descriptor is guarded all the same; this keeps the log readable."""
    litellm.suppress_debug_info = True
    litellm.set_verbose = False
    litellm.disable_hf_tokenizer_download = True  # a blocking download with retries, up to 47 s
    litellm.redact_messages_in_exceptions = True
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.CRITICAL)  # its lines hold prompts, keys and tracebacks; what matters of them is raised as well


async def _close(stream: Any) -> bool:
    """True when it is closed. In a task of its own, because a cancel that comes meanwhile must not leave it half done."""
    closing = asyncio.ensure_future(stream.aclose())
    done, _ = await asyncio.wait({closing}, timeout=CLOSE_SECONDS)
    return bool(done) and closing.exception() is None


def _whole(response: Any, asked: str) -> Delta:
    provider = _provider(response, asked)
    if not getattr(response, "choices", None):
        raise BridgeError("bad_upstream_response", "the provider answered without any choice; try again", provider=provider)
    choice = response.choices[0]
    delta = _delta(choice, choice.message)
    delta.id = response.id
    delta.provider = provider
    delta.model = response.model
    delta.usage = _usage(getattr(response, "usage", None))
    delta.cost_usd = _cost(response, delta)
    return delta


def _piece(chunk: Any, facts: Delta) -> Delta:
    """``facts`` gathers what the end of the stream is judged by."""
    delta = _delta(chunk.choices[0], chunk.choices[0].delta) if chunk.choices else Delta()
    delta.id = chunk.id
    facts.finish_reason = delta.finish_reason or facts.finish_reason
    facts.usage = _usage(getattr(chunk, "usage", None)) or facts.usage
    facts.model = chunk._hidden_params.get("provider_response_model") or facts.model or chunk.model
    return delta


def _stream_end(stream: Any, facts: Delta, *, streamed: bool) -> Delta:
    if facts.finish_reason is None:  # see mends: LiteLLM makes none up any more
        if streamed:
            wrong = "the provider's stream ended without a finish reason; the answer may be cut short"
            raise BridgeError("stream_interrupted", wrong, provider=facts.provider)
        raise BridgeError("bad_upstream_response", "the provider's stream held no answer; try again", provider=facts.provider)
    facts.cost_usd = _cost(stream, facts)
    return facts


def _delta(choice: Any, said: Any) -> Delta:
    """``said`` is a message or a delta of LiteLLM's, which have the same members."""
    return Delta(
        content=said.content,
        reasoning=getattr(said, "reasoning_content", None),
        tool_calls=[_tool_call_piece(call) for call in said.tool_calls or ()],
        thinking_blocks=list(getattr(said, "thinking_blocks", None) or ()),
        finish_reason=choice.finish_reason,
        logprobs=_logprobs(choice),
    )


def _tool_call_piece(call: Any) -> ToolCallPiece:
    function = call.function
    return ToolCallPiece(
        index=getattr(call, "index", None),
        id=call.id,
        name=function.name,
        arguments=function.arguments or "",
        provider_specific_fields=getattr(call, "provider_specific_fields", None),
    )


def _logprobs(choice: Any) -> list[Any] | None:
    logprobs = getattr(choice, "logprobs", None)
    if logprobs is None:
        return None
    content = logprobs.get("content") if isinstance(logprobs, dict) else getattr(logprobs, "content", None)
    return [token if isinstance(token, dict) else token.model_dump() for token in content or ()]


def _usage(usage: Any) -> Usage | None:
    """None where the provider said nothing: LiteLLM then has zeros."""
    if usage is None or not (usage.prompt_tokens or usage.completion_tokens):
        return None
    input_details = getattr(usage, "prompt_tokens_details", None)
    output_details = getattr(usage, "completion_tokens_details", None)
    return Usage(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        total_tokens=usage.total_tokens,
        cached_input_tokens=getattr(input_details, "cached_tokens", None),
        cache_write_tokens=getattr(input_details, "cache_write_tokens", None)
        or getattr(input_details, "cache_creation_tokens", None),
        reasoning_tokens=getattr(output_details, "reasoning_tokens", None),
    )


def _provider(response: Any, asked: str) -> str | None:
    hidden = getattr(response, "_hidden_params", None) or {}
    known = hidden.get("custom_llm_provider") or getattr(response, "custom_llm_provider", None)
    if known:
        return str(known)
    with suppress(Exception):  # a name of the Router's, which tells no provider
        return str(litellm.get_llm_provider(asked)[1])
    return None


def _cost(response: Any, delta: Delta) -> float | None:
    """From LiteLLM's price map and the provider's usage; the same for plain and streamed. None when either is unknown."""
    if delta.usage is None:
        return None
    hidden = getattr(response, "_hidden_params", None) or {}
    usage = litellm.Usage(
        prompt_tokens=delta.usage.input_tokens,
        completion_tokens=delta.usage.output_tokens,
        total_tokens=delta.usage.total_tokens,
        prompt_tokens_details={"cached_tokens": delta.usage.cached_input_tokens or 0},
        completion_tokens_details={"reasoning_tokens": delta.usage.reasoning_tokens or 0},
        cache_creation_input_tokens=delta.usage.cache_write_tokens or 0,
    )
    for name in (hidden.get("model_id"), hidden.get("litellm_model_name"), delta.model):
        with suppress(Exception):  # ModelNotMappedError, and whatever a price formula of a provider raises
            prices = litellm.cost_per_token(model=name, custom_llm_provider=delta.provider, usage_object=usage)
            return float(sum(prices))
    return None
