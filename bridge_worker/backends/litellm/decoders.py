"""Selects the decoder of a response by the request that was captured: the provider, its URL and the body.

Owns the table of formats that the bridge reads by itself, and the list of providers that LiteLLM calls by httpx, so that a request
can be captured without anything being sent. A model outside of the table is served by LiteLLM's own path. Refuses to know how a
format is decoded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import litellm

from bridge_worker.backends.wire.formats import (
    ANTHROPIC,
    BEDROCK_ANTHROPIC,
    BEDROCK_CONVERSE,
    COHERE,
    GEMINI,
    OLLAMA,
    OPENAI_CHAT,
    OPENAI_RESPONSES,
    Format,
    Recipe,
)
from bridge_worker.backends.wire.restoring import rewritten
from bridge_worker.core.ports import ChatRequest

# Ends of the URL's path, in order; the first that fits decides. None: any provider.
_BY_PATH: tuple[tuple[str, frozenset[str] | None, Format], ...] = (
    ("/chat/completions", None, OPENAI_CHAT),
    ("/responses", None, OPENAI_RESPONSES),
    ("/v1/messages", None, ANTHROPIC),
    (":rawPredict", frozenset({"vertex_ai"}), ANTHROPIC),
    (":streamRawPredict", frozenset({"vertex_ai"}), ANTHROPIC),
    (":generateContent", None, GEMINI),
    (":streamGenerateContent", None, GEMINI),
    ("/converse", frozenset({"bedrock"}), BEDROCK_CONVERSE),
    ("/converse-stream", frozenset({"bedrock"}), BEDROCK_CONVERSE),
    ("/invoke", frozenset({"bedrock"}), BEDROCK_ANTHROPIC),
    ("/invoke-with-response-stream", frozenset({"bedrock"}), BEDROCK_ANTHROPIC),
    ("/api/chat", frozenset({"ollama_chat"}), OLLAMA),
    ("/v2/chat", frozenset({"cohere", "cohere_chat"}), COHERE),
    ("/ml/v1/text/chat", frozenset({"watsonx"}), OPENAI_CHAT),
    ("/ml/v1/text/chat_stream", frozenset({"watsonx"}), OPENAI_CHAT),
)
# They call by httpx, and LiteLLM reads their responses as the format of `_BY_PATH`; proved in tests/providers/test_requests.py.
_PROVIDERS = frozenset(
    """
    openai azure openrouter groq mistral deepseek xai together_ai fireworks_ai perplexity nvidia_nim cerebras hosted_vllm lm_studio
    azure_ai github anthropic gemini vertex_ai bedrock cohere cohere_chat ollama_chat huggingface databricks watsonx litellm_proxy
    custom_openai sambanova deepinfra dashscope moonshot nebius novita featherless_ai hyperbolic lambda_ai llamafile meta_llama
    nscale volcengine zai docker_model_runner baseten friendliai v0 vercel_ai_gateway cometapi aiml heroku
    """.split()
)
# Of a provider that has several kinds of models: the words of which one is in the name of a model that is called so.
_MODELS: Mapping[str, tuple[str, ...]] = {"vertex_ai": ("gemini", "claude"), "bedrock": ("converse", "anthropic", "claude", "nova")}
# Providers that use this format for every request; those of `_PROVIDERS` that are in no row have OpenAI's.
_ONLY: Mapping[Format, frozenset[str]] = {
    ANTHROPIC: frozenset({"anthropic"}),
    GEMINI: frozenset({"gemini", "vertex_ai"}),
    BEDROCK_CONVERSE: frozenset({"bedrock"}),
    BEDROCK_ANTHROPIC: frozenset({"bedrock"}),
    COHERE: frozenset({"cohere", "cohere_chat"}),
    OLLAMA: frozenset({"ollama_chat"}),
    OPENAI_RESPONSES: frozenset(),
}
_off: set[Format] = set()
_not_captured: set[str] = set()  # providers
# Of the formats that have not been rehearsed in this process; None: of LiteLLM's own path.
_rehearsals: dict[Format | None, Callable[[], None]] = {}


def may_capture(model: str, provider: str) -> bool:
    """Whether LiteLLM would call this provider by httpx. A provider that runs here, or calls by another client, is not tried."""
    if provider not in _PROVIDERS or provider in _not_captured or provider in litellm._custom_providers or _is_registered(provider):
        return False
    words = _MODELS.get(provider)
    return words is None or any(word in model for word in words)


def format_of(provider: str, url: httpx.URL, body: Mapping[str, Any]) -> Format | None:
    """None where the bridge has no decoder."""
    path = url.path
    for end, providers, found in _BY_PATH:
        if path.endswith(end) and (providers is None or provider in providers):
            if end.startswith("/invoke") and "anthropic_version" not in body:
                return None
            return None if found in _off else found
    return None


def is_off(found: Format) -> bool:
    return found in _off


def switch_off(found: Format) -> None:
    """After a failed rehearsal: LiteLLM's own path serves this format."""
    _off.add(found)


def switch_capture_off(found: Format) -> None:
    """After a rehearsal that could not capture: a request of these providers might be sent, and then be sent again."""
    _not_captured.update(_ONLY.get(found, _PROVIDERS.difference(*_ONLY.values())))


def rehearse_before_use(found: Format | None, rehearse: Callable[[], None]) -> None:
    """``found`` is None for LiteLLM's own path."""
    _rehearsals[found] = rehearse


async def rehearsed(provider: str) -> None:
    """Returns when the formats of ``provider`` are rehearsed, which is done in a thread, for it also imports what they need, and
    without the context of the chat."""
    for found in [each for each in _rehearsals if each is not None and provider in _ONLY[each]]:
        await _rehearse_now(found)


async def own_path_rehearsed() -> None:
    """The same before a call by LiteLLM's own path, which needs the openai package for Azure, embeddings and some others."""
    await _rehearse_now(None)


async def _rehearse_now(found: Format | None) -> None:
    if rehearse := _rehearsals.get(found):
        await asyncio.get_running_loop().run_in_executor(None, rehearse)
        _rehearsals.pop(found, None)


def _is_registered(provider: str) -> bool:
    return any(row["provider"] == provider for row in litellm.custom_provider_map)


def decoder_for(found: Format, request: ChatRequest, body: Mapping[str, Any]) -> Recipe:
    """Makes a decoder for each response to a request like ``request``, of which LiteLLM made ``body``."""
    renamed, schema = rewritten(request.options, body)
    return Recipe(found.name, renamed, schema)
