"""Counts the tokens of a conversation locally, with LiteLLM's counter and the tokenizers that it ships.

Owns which tokenizer that is and whether the count is what the provider will find. Refuses to download a tokenizer, or to fetch an
image to measure it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import litellm
from litellm.constants import TOKEN_COUNTER_MAX_EXACT_CHARS  # PRIVATE: longer texts are sampled
from litellm.litellm_core_utils.token_counter import openai_tokenizer_encoding_name  # PRIVATE: what token_counter will use

from bridge_worker.schema.tokens import TokenCount

_SHIPPED = ("cl100k_base", "o200k_base", "o200k_harmony", "p50k_base")  # PRIVATE: others tiktoken would download
_OF_OPENAI = ("openai", "azure", "text-completion-openai")
_TEXTS = ("text", "refusal", "thinking")
# Those for which OpenAI publishes how messages are framed, the same for text in all of them.
_PUBLISHED = re.compile(r"(chatgpt-4o|gpt-(3\.5-turbo|4|4o|4-turbo|4\.1))(-mini|-nano)?(-latest|-\d[\d-]*)?")


def count(
    model: str, provider: str, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None
) -> TokenCount:
    """``model`` without its provider. Blocks: 0.1 s and more for a long text."""
    name = model if provider in _OF_OPENAI else ""
    tokenizer = openai_tokenizer_encoding_name(name)
    if tokenizer not in _SHIPPED:
        name, tokenizer = "", "cl100k_base"
    counted = litellm.token_counter(
        model=name,
        messages=[_countable(message) for message in messages],
        tools=list(tools) if tools else None,
        use_default_image_token_count=True,  # else it fetches the image
    )
    known = name in litellm.open_ai_chat_completion_models  # another is counted as gpt-3.5-turbo
    exact = known and bool(_PUBLISHED.fullmatch(name)) and not tools and all(map(_is_short_text, messages))
    return TokenCount(input_tokens=counted, tokenizer=tokenizer, exact=exact)


def _countable(message: Mapping[str, Any]) -> dict[str, Any]:
    """The messages without audio and files, for which LiteLLM's counter raises. Text by another name is text."""
    content = message.get("content")
    counted = {name: message[name] for name in ("role", "name", "tool_calls", "tool_call_id") if message.get(name) is not None}
    if not isinstance(content, list):
        return {**counted, "content": content or ""}
    texts = [{"type": "text", "text": part[name]} for part in content for name in _TEXTS if name in part]
    return {**counted, "content": texts + [part for part in content if part["type"] == "image_url"]}


def _is_short_text(message: Mapping[str, Any]) -> bool:
    content = message.get("content")
    parts = content if isinstance(content, list) else [{"type": "text", "text": content or ""}]
    short = all(part["type"] == "text" and len(part["text"]) <= TOKEN_COUNTER_MAX_EXACT_CHARS for part in parts)
    return short and message["role"] in ("system", "user", "assistant") and not message.get("tool_calls")
