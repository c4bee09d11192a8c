"""Patches for faults of LiteLLM and httpx that would make a response wrong.

Owns every replacement of a function of LiteLLM or httpx; all are PRIVATE, and tests/upstream_contract/test_litellm.py fails
when an upgrade changes what they rely on. Refuses to add anything of ours: a patch makes LiteLLM report what the provider sent, or
nothing.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import re
from typing import Any

import httpx
import litellm
from litellm.litellm_core_utils.streaming_chunk_builder_utils import ChunkProcessor
from litellm.llms.base_llm.base_model_iterator import BaseModelResponseIterator
from litellm.llms.ollama.common_utils import OllamaModelInfo
from litellm.llms.vertex_ai.gemini.vertex_and_google_ai_studio_gemini import ModelResponseIterator as GeminiIterator
from litellm.llms.vertex_ai.gemini.vertex_and_google_ai_studio_gemini import VertexGeminiConfig
from litellm.responses.streaming_iterator import BaseResponsesAPIStreamingIterator

_main: Any = importlib.import_module("litellm.main")
_responses: Any = importlib.import_module("litellm.responses.main")  # a function of LiteLLM's hides the module
_caching: Any = importlib.import_module("litellm.caching.caching_handler")
_builder: Any = importlib.import_module("litellm.litellm_core_utils.streaming_chunk_builder_utils")
_stamps = _builder if hasattr(_builder, "_stamp_streaming_usage_cost") else _main  # it has moved in LiteLLM 1.109
_NOTHING = {"text": "", "is_finished": False, "finish_reason": "", "usage": None, "index": 0, "tool_use": None}

_made_up_finish = litellm.CustomStreamWrapper.finish_reason_handler
_counted_usage = ChunkProcessor.calculate_usage
_ask_ollama = OllamaModelInfo.get_runtime_model_info
_made_up_choice = VertexGeminiConfig._create_streaming_choice
_withhold = VertexGeminiConfig._handle_content_policy_violation
_adopt = getattr(litellm.Router, "_apply_fallback_hidden_params_to_item", None)  # gone since LiteLLM 1.109, and the need with it
_load_encoding = _main._get_encoding
_stamped_cost = _stamps._stamp_streaming_usage_cost
_known_to_ollama: dict[tuple[str, str | None], dict[str, Any]] = {}


def _finish_reason_of_the_provider(self: Any) -> Any:
    """Without it a stream that was cut short ends in "stop", like a whole one."""
    chunk = _made_up_finish(self)
    if not (self.received_finish_reason or self.intermittent_finish_reason):
        chunk.choices[0].finish_reason = None
    return chunk


def _usage_of_the_provider(self: Any, chunks: Any, *arguments: Any, **options: Any) -> Any:
    """Without it a stream without usage gets a count by LiteLLM's tokenizer, and one without reasoning tokens gets 0 of them."""
    reported = self._calculate_usage_per_chunk(chunks=chunks)
    if reported["prompt_tokens"] is None and reported["completion_tokens"] is None:
        return litellm.Usage()
    return _counted_usage(self, chunks, *arguments, **options | {"reasoning_tokens": None})


def _what_gemini_filtered(self: Any, model_response: Any, completion_response: Any) -> Any:
    """Without it what was said until then is withheld, and the answer fails when no usage is told."""
    answer = _withhold(self, model_response, {"usageMetadata": {}, **completion_response})
    parts = (completion_response["candidates"][0].get("content") or {}).get("parts") or ()
    said, thought = ("".join(part.get("text", "") for part in parts if bool(part.get("thought")) is kind) for kind in (False, True))
    answer.choices[0].message.content = said or None
    if thought:
        answer.choices[0].message.reasoning_content = thought
    return answer


def _no_count(self: Any, response: Any) -> None:
    """Without it the reasoning of each stream is tokenised anew, which may take a minute; the provider's number is in its usage."""


def _strict_line(self: Any, str_line: str) -> Any:
    """Without it a malformed event is passed over, and an event whose text has "[DONE]" in it ends the stream."""
    return _NOTHING if (event := _event(str_line)) is None else self.chunk_parser(chunk=event)


def _event(line: str) -> dict[str, Any] | None:
    """What a line of a stream holds, be it an SSE event's or a line of JSON; None for what is no data."""
    text = (litellm.CustomStreamWrapper.strip_sse_data_from_chunk(line) or "").strip()
    if not line.startswith(("data:", "{")) or text in ("", "[DONE]"):
        return None
    event = json.loads(text)
    if not isinstance(event, dict):
        raise ValueError("an event of the stream is not an object")
    return event


def _ollama_model_info(self: Any, model: str, api_base: str | None = None, api_key: str | None = None) -> dict[str, Any]:
    """Without it each chat asks Ollama about its model three times in the loop's thread, and a slow host stops every request."""
    key = (self._strip_ollama_model_prefix(model), api_base)
    if key not in _known_to_ollama and not _in_loop():  # LiteLLM asks first in the thread that prepares the call
        _known_to_ollama[key] = _ask_ollama(self, model, api_base, api_key)
    free = {"key": key[0], "litellm_provider": "ollama", "mode": "chat", "input_cost_per_token": 0.0, "output_cost_per_token": 0.0}
    return _known_to_ollama.get(key) or free | dict.fromkeys(("max_tokens", "max_input_tokens", "max_output_tokens"))


def _in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _strict_gemini(self: Any, chunk: str) -> Any:
    """Without it a malformed event ends the stream as if it were whole, and so does a comment, which is no event at all."""
    return None if (event := _event(chunk)) is None else self.chunk_parser(chunk=event)


def _gemini_choice(**said: Any) -> Any:
    """Without it each event of a stream ends it with "stop"."""
    choice = _made_up_choice(**said)
    if not said["candidate"].get("finishReason"):
        choice.finish_reason = None
    return choice


def _ends_as_a_stream(*, cached_result: Any) -> bool:
    """Without it an answer from the cache needs the gateway's packages, fastapi among them, and fails."""
    return isinstance(cached_result, litellm.CustomStreamWrapper | BaseResponsesAPIStreamingIterator)


class _LazyEncoding:
    """LiteLLM's tokenizer, loaded when it is first used. LiteLLM passes it to readers of responses, which hardly ever use it.

    Without it each process holds 39 MiB more, and the first call takes 0.13 s longer.
    """

    def __getattr__(self, name: str) -> Any:
        return getattr(_load_encoding(), name)


_ENCODING = _LazyEncoding()


def _lazy_encoding() -> _LazyEncoding:
    return _ENCODING


def _no_gateway(**_: Any) -> None:
    """Without it OpenAI's Responses API needs the mcp package, and its tools could be run here instead of by the agent."""


def _no_price_of_its_own(usage: Any, response: Any, logging_obj: Any) -> None:
    """Without it a stream's usage has LiteLLM's price as if the provider had told it."""


def _with_its_own_model(fallback_item: Any, prepared_fallback_hidden_params: Any) -> None:
    """Without it a stream that fell back before its first piece tells the name that was asked for as the model that answered."""
    answered_by = (getattr(fallback_item, "_hidden_params", None) or {}).get("provider_response_model")
    assert _adopt is not None  # noqa: S101  # for mypy: it is replaced only then
    _adopt(fallback_item, prepared_fallback_hidden_params)
    if answered_by:
        fallback_item._hidden_params["provider_response_model"] = answered_by


class SseLineDecoder:
    """Lines as server-sent events have them: ended by LF, CRLF or CR.

    httpx also splits at U+2028 and six others, which JSON text may hold as they are; the rest of such an event is then lost.
    """

    _END = re.compile(r"\r\n|\n|\r")

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._after_cr = False

    def decode(self, text: str) -> list[str]:
        if not text:
            return []
        if self._after_cr and text.startswith("\n"):
            text = text[1:]
        self._after_cr = text.endswith("\r")
        first, *rest = self._END.split(text)
        self._parts.append(first)
        if not rest:
            return []
        lines = ["".join(self._parts), *rest[:-1]]
        self._parts = [rest[-1]]
        return lines

    def flush(self) -> list[str]:
        last, self._parts = "".join(self._parts), []
        return [last] if last else []


def install() -> None:
    """Replaces the functions of LiteLLM and httpx. Repeating it changes nothing."""
    _caching._should_defer_streaming_cache_hit_callbacks = _ends_as_a_stream
    _main._get_encoding = _lazy_encoding
    _stamps._stamp_streaming_usage_cost = _no_price_of_its_own
    if _adopt is not None:
        litellm.Router._apply_fallback_hidden_params_to_item = staticmethod(_with_its_own_model)
    _responses._responses_try_dispatch_mcp_gateway = _no_gateway
    litellm.CustomStreamWrapper.finish_reason_handler = _finish_reason_of_the_provider
    ChunkProcessor.calculate_usage = _usage_of_the_provider
    ChunkProcessor.count_reasoning_tokens = _no_count
    GeminiIterator._common_chunk_parsing_logic = _strict_gemini
    VertexGeminiConfig._create_streaming_choice = staticmethod(_gemini_choice)
    VertexGeminiConfig._handle_content_policy_violation = _what_gemini_filtered
    BaseModelResponseIterator._handle_string_chunk = _strict_line
    OllamaModelInfo.get_runtime_model_info = _ollama_model_info
    httpx._models.LineDecoder = SseLineDecoder  # type: ignore[attr-defined,assignment]
