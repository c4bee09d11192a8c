"""Adds to one deployment's request what makes its provider cache the prompt, and prices what that saved.

Owns which provider needs what: breakpoints (Claude at Anthropic, Bedrock and Vertex AI), a key (OpenAI, also at Azure), nothing
(Gemini and others, which cache by themselves). Refuses to know where breakpoints belong (`agent.prompt_cache`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bridge_worker.agent.prompt_cache import mark
from bridge_worker.backends.litellm.pricing import price
from bridge_worker.backends.litellm.upstream import Target
from bridge_worker.core.ports import ChatRequest, Facts

_CLAUDE_HOSTS = ("anthropic", "bedrock", "bedrock_converse", "vertex_ai")
# Azure's dated API versions, and models of others that it hosts, refuse a prompt_cache_key as an unknown argument.
_AZURE_VERSIONS = ("v1", "preview", "latest")
_OPENAIS = re.compile(r"(?:^|[/_-])(?:gpt|chatgpt|o\d)(?:[._-]|\d|$)", re.IGNORECASE)

Prepared = tuple[Any, Mapping[str, Any], list[dict[str, Any]]]


def with_cache(request: ChatRequest, key: Any, call: Mapping[str, Any], target: Target, messages: list[dict[str, Any]]) -> Prepared:
    """(the key of the prepared request, the call, the messages), changed where the provider needs it."""
    hint = request.cache
    if hint is None:
        return key, call, messages
    if target.provider == "openai" or _is_openais_at_azure(call, target):
        return (key, hint.key), {**call, "prompt_cache_key": hint.key}, messages
    if target.provider in _CLAUDE_HOSTS and "claude" in (target.model or ""):
        tools = call.get("tools")
        messages, marked = mark(messages, tools, target.model or "", hint.tools_length)
        if marked is not tools:
            return (key, "marked tools"), {**call, "tools": marked}, messages
    return key, call, messages


def _is_openais_at_azure(call: Mapping[str, Any], target: Target) -> bool:
    """A deployment of Azure has any name; ``base_model`` is the config's."""
    if target.provider != "azure":
        return False
    version = call.get("api_version") or os.environ.get("AZURE_API_VERSION")
    model = call.get("base_model") or (call.get("model_info") or {}).get("base_model") or target.model or ""
    return version in _AZURE_VERSIONS and _OPENAIS.search(str(model)) is not None


def add_savings(request: ChatRequest, facts: Facts, target: Target) -> Facts:
    """``saved_usd``: the price of the same tokens without a cache, less their price. Negative where writing cost more than reading
    saved."""
    usage = facts.end.usage
    if request.cache is None or usage is None:
        return facts
    without = replace(usage, cached_input_tokens=0, cache_write_tokens=0)
    models = (target.model, facts.end.model)
    plain, cached = (price(one, provider=target.provider, deployment=target.deployment, models=models) for one in (without, usage))
    if plain is not None and cached is not None:
        facts.saved_usd = plain.usd - cached.usd
    return facts
