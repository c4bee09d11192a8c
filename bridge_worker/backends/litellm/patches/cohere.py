"""Cohere's answers (API version 2), read as Cohere documents them. LiteLLM takes a stream's `event:` line for JSON and looks for
calls, citations and the end where they are not; of a whole answer it loses the finish reason, and the text beside a call.

Owns the reading, and that LiteLLM uses it (PRIVATE, held by a canary). Refuses to know HTTP: LiteLLM reads the lines.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from litellm.llms.cohere.chat.v2_transformation import CohereV2ChatConfig
from litellm.llms.cohere.common_utils import CohereV2ModelResponseIterator

_FINISH_REASONS = {
    "COMPLETE": "stop",
    "STOP_SEQUENCE": "stop",
    "MAX_TOKENS": "length",
    "TOOL_CALL": "tool_calls",
    "ERROR_TOXIC": "content_filter",
}


def chunk_of(event: Mapping[str, Any]) -> dict[str, Any]:
    """LiteLLM's generic chunk of one event. Raises ValueError where Cohere says that it failed."""
    chunk: dict[str, Any] = {"text": "", "tool_use": None, "is_finished": False, "finish_reason": "", "usage": None, "index": 0}
    delta = event.get("delta") or {}
    message = delta.get("message") or {}
    match event.get("type"):
        case "content-start" | "content-delta":
            content = message.get("content") or {}
            chunk["text"] = content.get("text") or ""
            if thinking := content.get("thinking"):
                chunk["provider_specific_fields"] = {"thinking": thinking}
        case "tool-call-start" | "tool-call-delta":
            chunk["tool_use"] = _call(message.get("tool_calls") or {}, event.get("index") or 0)
        case "citation-start":
            cited = CohereV2ChatConfig()._translate_citations_to_openai_annotations([message.get("citations") or {}])
            chunk["provider_specific_fields"] = {"citations": cited}
        case "message-end":
            reason = delta.get("finish_reason")
            if delta.get("error") or reason == "ERROR":
                raise ValueError(f"Cohere ended the stream with an error: {delta.get('error')}")
            chunk |= {"is_finished": True, "finish_reason": _FINISH_REASONS.get(str(reason), "stop"), "usage": _usage(delta)}
    return chunk


def _call(call: Mapping[str, Any], index: int) -> dict[str, Any]:
    function = call.get("function") or {}
    said = {"name": function.get("name"), "arguments": function.get("arguments") or ""}
    return {"id": call.get("id"), "type": "function", "index": index, "function": said}


def _usage(delta: Mapping[str, Any]) -> dict[str, int] | None:
    tokens = (delta.get("usage") or {}).get("tokens")
    if not tokens:
        return None
    asked, answered = int(tokens.get("input_tokens") or 0), int(tokens.get("output_tokens") or 0)
    return {"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": asked + answered}


def _read_line(self: Any, chunk: str | bytes) -> dict[str, Any]:
    line = chunk.decode() if isinstance(chunk, bytes) else chunk
    if not line.startswith("data:"):
        return chunk_of({})
    data = line.removeprefix("data:").strip()
    event = {} if data in ("", "[DONE]") else json.loads(data)
    if not isinstance(event, dict):
        raise ValueError("an event of the stream is not an object")
    return chunk_of(event)


def _read_whole(self: Any, model: str, raw_response: Any, model_response: Any, *arguments: Any, **options: Any) -> Any:
    answer = _read_by_litellm(self, model, raw_response, model_response, *arguments, **options)
    body = raw_response.json()
    choice = answer.choices[0]
    parts = body["message"].get("content") or ()
    choice.message.content = "".join(part.get("text") or "" for part in parts) or None
    if thinking := "".join(part.get("thinking") or "" for part in parts):
        choice.message.reasoning_content = thinking
    choice.finish_reason = _FINISH_REASONS.get(body.get("finish_reason"), "stop")
    return answer


_read_by_litellm = CohereV2ChatConfig.transform_response
CohereV2ChatConfig.transform_response = _read_whole
CohereV2ModelResponseIterator.convert_str_chunk_to_generic_chunk = _read_line
