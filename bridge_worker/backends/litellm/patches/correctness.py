"""Patches for faults of LiteLLM and httpx that would make a response wrong, each a `Patch` in `PATCHES`.

Owns every replacement of a function of LiteLLM or httpx. All are PRIVATE; bin/try-litellm checks each against a new version. A
patch makes LiteLLM report what the provider sent, or nothing. Refuses to decide when it is applied.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import litellm

from bridge_worker.backends.litellm.patches.patch import Patch

_NOTHING = {"text": "", "is_finished": False, "finish_reason": "", "usage": None, "index": 0, "tool_use": None}
_BUILDER = "litellm.litellm_core_utils.streaming_chunk_builder_utils"
_TESTS = "tests/upstream_contract/test_patches.py"
_MALFORMED = 'data: {"a'


def _source_has(*words: str) -> Callable[[Any], bool]:
    """A check for a fault that only a whole call would show: the code that causes it still exists."""
    return lambda original: all(word in inspect.getsource(original) for word in words)


def _finish_reason_of_the_provider(original: Any) -> Any:
    def finish_reason_handler(self: Any) -> Any:
        chunk = original(self)
        if not (self.received_finish_reason or self.intermittent_finish_reason):
            chunk.choices[0].finish_reason = None
        return chunk

    return finish_reason_handler


def _usage_of_the_provider(original: Any) -> Any:
    def calculate_usage(self: Any, chunks: Any, *arguments: Any, **options: Any) -> Any:
        reported = self._calculate_usage_per_chunk(chunks=chunks)
        if reported["prompt_tokens"] is None and reported["completion_tokens"] is None:
            return litellm.Usage()
        return original(self, chunks, *arguments, **options | {"reasoning_tokens": None})

    return calculate_usage


def _counts_usage(original: Any) -> bool:
    from litellm.litellm_core_utils.streaming_chunk_builder_utils import ChunkProcessor

    chunk = litellm.ModelResponseStream()
    processor = ChunkProcessor(chunks=[chunk], messages=[])
    call = {"chunks": [chunk], "model": "gpt-4o", "completion_output": "one two three", "messages": []}
    return bool(original(processor, **call).completion_tokens)


def _no_count(original: Any) -> Any:
    return lambda self, response: None


def _strict_line(original: Any) -> Any:
    def _handle_string_chunk(self: Any, str_line: str) -> Any:
        return _NOTHING if (event := _event(str_line)) is None else self.chunk_parser(chunk=event)

    return _handle_string_chunk


def _accepts_malformed(original: Any) -> bool:
    iterator = SimpleNamespace(chunk_parser=lambda chunk: chunk, chunk_type="valid_json", accumulated_json="")
    with suppress(ValueError):
        original(iterator, _MALFORMED)
        return True
    return False


def _event(line: str) -> dict[str, Any] | None:
    """The JSON object of a stream's line, be it an SSE event's or a line of JSON; None for a line without data."""
    text = (litellm.CustomStreamWrapper.strip_sse_data_from_chunk(line) or "").strip()
    if not line.startswith(("data:", "{")) or text in ("", "[DONE]"):
        return None
    event = json.loads(text)
    if not isinstance(event, dict):
        raise ValueError("an event of the stream is not an object")
    return event


def _ollama_model_info(original: Any) -> Any:
    known: dict[tuple[str, str | None], dict[str, Any]] = {}

    def get_runtime_model_info(self: Any, model: str, api_base: str | None = None, api_key: str | None = None) -> dict[str, Any]:
        key = (self._strip_ollama_model_prefix(model), api_base)
        if key not in known and not _in_loop():  # LiteLLM looks first in the thread that prepares the call
            known[key] = original(self, model, api_base, api_key)
        free = {"key": key[0], "litellm_provider": "ollama", "mode": "chat"}
        free |= dict.fromkeys(("input_cost_per_token", "output_cost_per_token"), 0.0)
        return known.get(key) or free | dict.fromkeys(("max_tokens", "max_input_tokens", "max_output_tokens"))

    return get_runtime_model_info


def _in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _ends_as_a_stream(original: Any) -> Any:
    from litellm.responses.streaming_iterator import BaseResponsesAPIStreamingIterator  # not at the top: its move costs this patch

    def _should_defer_streaming_cache_hit_callbacks(*, cached_result: Any) -> bool:
        return isinstance(cached_result, litellm.CustomStreamWrapper | BaseResponsesAPIStreamingIterator)

    return _should_defer_streaming_cache_hit_callbacks


class _LazyEncoding:
    """LiteLLM's tokenizer, loaded at its first use. LiteLLM passes it to readers of responses, which hardly ever use it."""

    def __init__(self, load: Callable[[], Any]) -> None:
        self._load = load

    def __getattr__(self, name: str) -> Any:
        return getattr(self._load(), name)


def _lazy_encoding(original: Any) -> Any:
    encoding = _LazyEncoding(original)
    return lambda: encoding


def _no_gateway(original: Any) -> Any:
    return lambda **_: None


def _no_price(original: Any) -> Any:
    return lambda usage, response, logging_obj: None


def _with_its_own_model(original: Any) -> Any:
    def _apply_fallback_hidden_params_to_item(fallback_item: Any, prepared_fallback_hidden_params: Any) -> None:
        model = (getattr(fallback_item, "_hidden_params", None) or {}).get("provider_response_model")
        original(fallback_item, prepared_fallback_hidden_params)
        if model:
            fallback_item._hidden_params["provider_response_model"] = model

    return _apply_fallback_hidden_params_to_item


def _renames_the_model(original: Any) -> bool:
    item = SimpleNamespace(_hidden_params={"provider_response_model": "of the provider"})
    original(item, ({"provider_response_model": "requested"}, {}))
    return bool(item._hidden_params.get("provider_response_model") != "of the provider")


def _flags_only(original: Any) -> Any:
    def remove_strict_from_schema(schema: Any) -> Any:
        if isinstance(schema, dict):
            if isinstance(schema.get("strict"), bool | None):
                schema.pop("strict", None)
            for member in schema.values():
                remove_strict_from_schema(member)
        elif isinstance(schema, list):
            for member in schema:
                remove_strict_from_schema(member)
        return schema

    return remove_strict_from_schema


def _removes_a_property(original: Any) -> bool:
    return "strict" not in original({"strict": {"type": "boolean"}})


def _value_as_bytes(original: Any) -> Any:
    def _normalize_header_value(value: str | bytes, encoding: str | None = None) -> bytes:
        try:
            made: bytes = original(value, encoding)
        except UnicodeEncodeError:  # aiohttp decodes with surrogates what is not UTF-8
            made = str(value).encode("utf-8", "surrogateescape")
        return made

    return _normalize_header_value


def _refuses_other_characters(original: Any) -> bool:
    with suppress(UnicodeEncodeError):
        original("ü")
        return False
    return True


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


def _splits_at_other_characters(original: Any) -> bool:
    return bool(original().decode("a\u2028b\n") != ["a\u2028b"])


_DISPATCHER_TAKES = (
    *("tools", "input", "model", "include", "instructions", "max_output_tokens", "prompt", "metadata", "parallel_tool_calls"),
    *("previous_response_id", "reasoning", "store", "background", "stream", "temperature", "text", "tool_choice", "top_p"),
    *("truncation", "user", "extra_headers", "extra_query", "extra_body", "timeout", "custom_llm_provider", "kwargs", "_is_async"),
    "skip_mcp_handler",
)

PATCHES = (
    Patch(
        name="finish reason",
        wrong='a stream that was cut short ends in "stop", like a complete one',
        evidence=f"{_TESTS}::test_a_cut_stream_has_no_finish_reason",
        places=("litellm:CustomStreamWrapper.finish_reason_handler",),
        takes=("self",),
        make=_finish_reason_of_the_provider,
        has_fault=_source_has("self.received_finish_reason", "self.intermittent_finish_reason", '"stop"'),
    ),
    Patch(
        name="usage",
        wrong="a stream without usage gets a count by LiteLLM's tokenizer, and one without reasoning tokens gets 0 of them",
        evidence="tests/providers/test_chat.py",
        places=(f"{_BUILDER}:ChunkProcessor.calculate_usage",),
        takes=("self", "chunks", "model", "completion_output", "messages", "reasoning_tokens", "count_prompt_tokens"),
        make=_usage_of_the_provider,
        has_fault=_counts_usage,
    ),
    Patch(
        name="reasoning count",
        wrong="the reasoning of each stream is tokenized, which may take a minute; the provider's number is in its usage",
        evidence=f"{_TESTS}::test_reasoning_is_not_tokenized",
        places=(f"{_BUILDER}:ChunkProcessor.count_reasoning_tokens",),
        takes=("self", "response"),
        make=_no_count,
        has_fault=_source_has("token_counter("),
    ),
    Patch(
        name="malformed events",
        wrong='a malformed event is skipped, and an event with "[DONE]" in its text ends the stream',
        evidence=f"{_TESTS}::test_a_malformed_event_raises_and_an_end_is_not_an_event",
        places=("litellm.llms.base_llm.base_model_iterator:BaseModelResponseIterator._handle_string_chunk",),
        takes=("self", "str_line"),
        make=_strict_line,
        has_fault=_accepts_malformed,
    ),
    Patch(
        name="ollama model info",
        wrong="each chat looks up its model at Ollama three times on the event loop, and a slow host stops every request",
        evidence=f"{_TESTS}::test_ollama_is_looked_up_in_a_thread_and_never_in_a_loop",
        places=("litellm.llms.ollama.common_utils:OllamaModelInfo.get_runtime_model_info",),
        takes=("self", "model", "api_base", "api_key"),
        make=_ollama_model_info,
        has_fault=lambda original: "cache" not in inspect.getsource(original),
    ),
    Patch(
        name="encoding",
        wrong="each process holds a tokenizer of 39 MiB, and the first call takes 0.13 s longer",
        evidence=f"{_TESTS}::test_the_tokenizer_is_loaded_at_its_first_use",
        places=("litellm.main:_get_encoding",),
        takes=(),
        make=_lazy_encoding,
        has_fault=_source_has("encoding"),
    ),
    Patch(
        name="stream price",
        wrong="the usage of a stream has LiteLLM's price as if the provider had sent it",
        evidence="tests/providers/test_chat.py",
        places=(f"{_BUILDER}:_stamp_streaming_usage_cost", "litellm.main:_stamp_streaming_usage_cost"),
        takes=("usage", "response", "logging_obj"),
        make=_no_price,
        has_fault=_source_has("cost"),
    ),
    Patch(
        name="model of a fallback",
        wrong="a stream that fell back before its first piece reports the requested name as the model that responded",
        evidence="tests/gateway/test_routing.py",
        places=("litellm:Router._apply_fallback_hidden_params_to_item",),
        takes=("fallback_item", "prepared_fallback_hidden_params"),
        make=_with_its_own_model,
        has_fault=_renames_the_model,
        since_gone=True,  # in 1.109
    ),
    Patch(
        name="responses without mcp",
        wrong="OpenAI's Responses API needs the mcp package, and its tools could run here instead of in the agent",
        evidence="tests/providers/test_chat.py",
        places=("litellm.responses.main:_responses_try_dispatch_mcp_gateway",),
        takes=_DISPATCHER_TAKES,
        make=_no_gateway,
        has_fault=_source_has("mcp"),
        waits=True,
    ),
    Patch(
        name="cache without fastapi",
        wrong="a response from the cache needs the gateway's packages, fastapi among them, and fails",
        evidence="tests/gateway/test_router.py",
        places=("litellm.caching.caching_handler:_should_defer_streaming_cache_hit_callbacks",),
        takes=("cached_result",),
        make=_ends_as_a_stream,
        has_fault=_source_has("import"),
        waits=True,
    ),
    Patch(
        name="properties named strict",
        wrong="a property that is called \"strict\" is taken out of a tool's schema, as if it were OpenAI's flag",
        evidence=f"{_TESTS}::test_a_property_named_strict_stays_in_a_schema",
        places=("litellm.utils:remove_strict_from_schema",),
        takes=("schema",),
        make=_flags_only,
        has_fault=_removes_a_property,
    ),
    Patch(
        name="header values",
        wrong="a response with a header value beyond ASCII is lost, and the error is about a codec",
        evidence="tests/providers/test_headers.py",
        places=("httpx._models:_normalize_header_value",),
        takes=("value", "encoding"),
        make=_value_as_bytes,
        has_fault=_refuses_other_characters,
    ),
    Patch(
        name="lines of httpx",
        wrong="httpx splits lines at U+2028 and six others, and the rest of such an event is lost",
        evidence=f"{_TESTS}::test_lines_end_where_events_end_however_the_text_is_cut",
        places=("httpx._models:LineDecoder",),
        takes=(),
        make=lambda original: SseLineDecoder,
        has_fault=_splits_at_other_characters,
    ),
)
