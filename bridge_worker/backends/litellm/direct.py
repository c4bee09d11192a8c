"""The second way to a provider: LiteLLM's provider classes under a thin loop of ours, for what has been proved to come out equal.

A call of LiteLLM's is three things: a prologue, which makes the provider's request and is all that knows providers; HTTP; and
around both logs, caches, callbacks, retries and copies, which take most of the time and of which nothing here has a use. So the
prologue is called as it is, with an HTTP client of ours and without the rest, and a stream is read from the provider's iterator
instead of through LiteLLM's wrapper of it.

Owns the choice, made before anything is sent, and the loop. Refuses to know a provider: the ways that a prologue may end in are all
there is of them here (PROVEN), and `tests/providers/test_direct_path.py` proves for each that it equals the ordinary path.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any, cast

import httpx
import litellm
from litellm.constants import LITELLM_MAX_STREAMING_DURATION_SECONDS
from litellm.litellm_core_utils.streaming_chunk_builder_utils import ChunkProcessor
from litellm.llms.openai.common_utils import OpenAIError
from litellm.types.utils import CallTypes, ModelResponseStream, StreamingChoices, all_litellm_params
from litellm.types.utils import Delta as LiteLLMDelta
from litellm.utils import exception_type

from bridge_worker.backends.litellm import exceptions, receipts, request_diff, responses
from bridge_worker.backends.litellm.chat import REQUEST_TIMEOUT_SECONDS, LiteLLM, close, litellm_version
from bridge_worker.backends.litellm.direct_http import Handler, handler
from bridge_worker.backends.litellm.prologue_cache import Plans
from bridge_worker.core.ports import ChatRequest, Delta
from bridge_worker.core.receipt import EngineVersion
from bridge_worker.errors import BridgeError

# For each provider the coroutine that its prologue ends in, plain and streamed. What ends elsewhere, in OpenAI's Responses say, or
# in a function of a newer LiteLLM, is for the ordinary path. Not here: litellm_proxy, whose streams LiteLLM gives a cost of its own
# that passes for the proxy's; huggingface and ollama, whose prologues wait for the network; azure, bedrock and vertex_ai.
_SHARED = frozenset({"BaseLLMHTTPHandler.async_completion", "BaseLLMHTTPHandler.acompletion_stream_function"})
PROVEN: Mapping[str, frozenset[str]] = {
    "anthropic": frozenset({"AnthropicChatCompletion.completion.<locals>.acompletion_dispatch"}),
    "gemini": frozenset({"VertexLLM.async_completion", "VertexLLM.async_streaming"}),
    **dict.fromkeys(("openai", "mistral", "hosted_vllm", "cohere_chat", "together_ai", "perplexity", "xai", "deepseek"), _SHARED),
    **dict.fromkeys(("openrouter", "fireworks_ai", "groq", "nvidia_nim", "cerebras", "lm_studio"), _SHARED),
}
# Settings of LiteLLM's that work in what is left out. Each is empty unless somebody has set it.
SETTINGS = (
    *("cache", "max_budget", "model_fallbacks", "num_retries", "num_retries_per_request", "credential_list", "modify_params"),
    *("pre_call_rules", "post_call_rules", "guardrail_name_config_map", "model_alias_map", "proxy_auth", "enable_preview_features"),
)
CALLBACKS = (
    *("callbacks", "input_callback", "success_callback", "failure_callback", "service_callback"),
    *("_async_input_callback", "_async_success_callback", "_async_failure_callback"),
)
_SAID = ("text", "tool_use", "usage", "provider_specific_fields")
_NO_LIMIT = 10**9  # as models/__init__.py sets it; an operator may have set less
_NOT_PLAIN = frozenset(all_litellm_params) - {"metadata"}  # what of provider_params LiteLLM does not simply send


class Direct:
    """A `Model` in front of the ordinary one, which serves what this one can't, or with ``only`` nothing."""

    def __init__(self, ordinary: LiteLLM, *, only: bool = False, remembers: bool = True) -> None:
        """``remembers``: what LiteLLM's prologue came to; not for a process whose LiteLLM others change under way."""
        self.engine = EngineVersion(name="litellm-direct", version=litellm_version())
        self._ordinary = ordinary
        self._only = only
        self._plans = Plans() if remembers else None

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        request.receipt.engine = self.engine
        self._ordinary.check_model(request.model)
        if self.may_serve(request):
            call = Call(request, self._plans)
            try:
                async with aclosing(call.deltas(handler())) as deltas:
                    async for delta in deltas:
                        yield delta
                return
            except _Unsent as unsent:
                if self._only and isinstance(unsent.__cause__, BridgeError):
                    raise unsent.__cause__ from None
                request.receipt.attempts.clear()
                request.receipt.dropped = None
        if self._only:
            wrong = "this model or its configuration needs LiteLLM's ordinary path: start the worker with --engine auto"
            raise BridgeError("model_not_found", wrong, model=request.model)
        async with aclosing(self._ordinary.chat(request)) as deltas:
            async for delta in deltas:
                yield delta

    async def aclose(self) -> None:
        await self._ordinary.aclose()

    def may_serve(self, request: ChatRequest) -> bool:
        """As far as it can be told before LiteLLM's prologue has run."""
        if self._ordinary.router is not None or not _NOT_PLAIN.isdisjoint(request.options):
            return False
        if litellm.REPEATED_STREAMING_CHUNK_LIMIT < _NO_LIMIT or LITELLM_MAX_STREAMING_DURATION_SECONDS is not None:
            return False
        return receipts.is_alone(CALLBACKS) and not any(getattr(litellm, name) for name in SETTINGS)


class _Unsent(Exception):
    """It came to nothing before a byte was sent; the cause says why, if it is for the caller."""


class Call:
    """One chat. LiteLLM takes it for its logging object: it asks for less than these."""

    def __init__(self, request: ChatRequest, plans: Plans | None = None) -> None:
        self._request, self._plans = request, plans
        self._record = receipts.Record(request.model, request.receipt, request_diff.asked_of(request), CallTypes.acompletion)
        self.sent = False
        self.response: httpx.Response | None = None
        # What LiteLLM looks for in its logging object.
        self.model_call_details: dict[str, Any] = {}
        self.optional_params: dict[str, Any] = {}
        self.stream_options = self.messages = self.dynamic_success_callbacks = None

    def update_environment_variables(self, **call: Any) -> None:
        self.model_call_details = call
        self.optional_params = call["optional_params"]

    def pre_call(self, input: Any, api_key: Any, additional_args: Mapping[str, Any]) -> None:
        self.sent = True  # or about to be
        self._record.sends(additional_args.get("complete_input_dict"))

    def post_call(self, *_: Any, **__: Any) -> None:
        """Nobody listens."""

    async def deltas(self, client: Handler) -> AsyncGenerator[Delta, None]:
        """Raises BridgeError, and _Unsent."""
        request, record, streamed = self._request, self._record, False
        try:
            answer = await self._answer(client)
            if not request.stream:
                delta = responses.whole(answer, record.target)
                record.end("ok")
                yield delta
                return
            request.upstream_open = True
            stream = _Stream(answer)
            try:
                async for chunk in stream:
                    delta = stream.piece(chunk)
                    streamed = streamed or bool(delta.content or delta.reasoning or delta.tool_calls)
                    yield delta
            finally:
                await self._let_go()
                request.upstream_open = not await close(answer)
            last = responses.stream_end(answer, stream.facts(), record.target, streamed=streamed)
            record.end("ok")
            yield last
        except _Unsent:
            raise
        except Exception as error:
            fault = exceptions.from_litellm(error, model=request.model, streamed=streamed)
            record.end(fault.kind, fault.status)
            if not self.sent:
                raise _Unsent from fault
            raise fault from error
        finally:
            record.end("cancelled")
            await self._let_go()

    async def _answer(self, client: Handler) -> Any:
        request, record = self._request, self._record
        kwargs: dict[str, Any] = {"model": request.model, "messages": request.messages, **request.options}
        kwargs = record.begin(kwargs) or kwargs
        ways = PROVEN.get(record.target.provider or "")
        if not ways:
            raise _Unsent
        if request.stream:
            kwargs |= {"stream": True, "stream_options": {"include_usage": True}}
        kwargs |= {"timeout": REQUEST_TIMEOUT_SECONDS, "max_retries": 0, "acompletion": True, "_skip_mcp_handler": True}
        key = self._plans.key(request) if self._plans and ways is _SHARED else None
        if self._plans and (plan := self._plans.find(key)):
            answer = plan.begin(kwargs["messages"], self, client)
        else:
            lesson = self._plans and self._plans.lesson(key, kwargs["messages"])
            answer = litellm.completion(**kwargs, litellm_logging_obj=self, client=client)
            if getattr(answer, "__qualname__", None) not in ways:
                if asyncio.iscoroutine(answer):
                    answer.close()
                raise _Unsent
            if lesson:
                lesson(answer, self.model_call_details)
        try:
            return await answer
        except Exception as error:
            raise exception_type(request.model, error, record.target.provider)  # noqa: B904  # it may be the same one

    async def _let_go(self) -> None:
        response, self.response = self.response, None
        if response is not None:
            await response.aclose()


class _Stream:
    """The provider's iterator in LiteLLM's wrapper, and what the end of it is judged by. The wrapper itself is not asked."""

    def __init__(self, wrapper: Any) -> None:
        self._wrapper = wrapper
        self._facts = Delta()
        self._told: list[ModelResponseStream] = []  # with usage
        self._id: str | None = None
        self._called = False

    async def __aiter__(self) -> AsyncIterator[ModelResponseStream]:
        wrapper = self._wrapper
        try:
            if wrapper.completion_stream is None:  # Gemini's is opened late
                await wrapper.fetch_stream()
            async for chunk in wrapper.completion_stream:
                if isinstance(chunk, ModelResponseStream):
                    yield chunk
                elif isinstance(chunk, dict):  # LiteLLM's older form; empty for what is not data
                    if any(chunk.get(name) for name in _SAID) or (chunk["is_finished"] and not self._facts.finish_reason):
                        yield self._of_older(chunk)
                    elif self._facts.finish_reason:
                        return
        except (httpx.ReadError, httpx.RemoteProtocolError) as error:
            if self._facts.finish_reason is None:
                raise self._mapped(error)  # noqa: B904  # it may be the same one
        except Exception as error:
            raise self._mapped(error)  # noqa: B904

    def piece(self, chunk: ModelResponseStream) -> Delta:
        if getattr(chunk, "usage", None) is not None:
            self._told.append(chunk.model_copy(update={"choices": []}))
            chunk.usage = None
        self._facts.model = chunk.model or self._facts.model
        return responses.piece(chunk, self._facts)

    def facts(self) -> Delta:
        facts = self._facts
        facts.model = facts.model or self._wrapper.model
        if self._told:
            last = self._told[-1]
            last.usage = ChunkProcessor(self._told, None).calculate_usage(self._told, model="", completion_output="")
            responses.piece(last, facts)
        return facts

    def _of_older(self, chunk: Mapping[str, Any]) -> ModelResponseStream:
        call, fields = chunk.get("tool_use"), chunk.get("provider_specific_fields")
        self._called = self._called or bool(call)
        delta = LiteLLMDelta(content=chunk["text"], tool_calls=[call] if call else None, provider_specific_fields=fields)
        reason = chunk["finish_reason"] if chunk["is_finished"] else None
        choice = StreamingChoices(delta=delta, finish_reason="tool_calls" if self._called and reason == "stop" else reason)
        made = ModelResponseStream(id=self._id, choices=[choice])
        self._id = made.id
        if usage := chunk.get("usage"):
            made.usage = litellm.Usage(**usage)
        return made

    def _mapped(self, error: Exception) -> Exception:
        """As the wrapper does it."""
        if isinstance(error, OpenAIError):
            return cast(Exception, error)
        return cast(Exception, exception_type(self._wrapper.model, error, self._wrapper.custom_llm_provider))
