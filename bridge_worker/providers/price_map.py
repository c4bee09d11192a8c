"""LiteLLM's price map as the file that it is: what a person asks of it need not wait two seconds for LiteLLM's import.

Owns where that file lies and what its keys mean. Refuses to import LiteLLM; a canary test holds what is read here against what
LiteLLM itself says.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# The map has no date of its own: the day on which the version that it came with was published.
DATES = {"1.106.2": "2026-10-21", "1.110.2": "2026-11-20"}
DATE = DATES.get(version("litellm"))
MODES = ("chat", "completion", "responses", "embedding", "rerank")  # those that some method here can call

_FILE = "model_prices_and_context_window_backup.json"  # PRIVATE: what LiteLLM reads when it fetches nothing
# Providers of whom LiteLLM knows prices only, or which ask a person to log in.
_NOT_SERVED = frozenset(
    "github_copilot chatgpt inferenceapis anyscale coralbricks scaledown openinfer microsoft_365_copilot".split()
)
_FAMILIES = ("vertex_ai", "fireworks_ai")  # "vertex_ai-llama_models" is served as vertex_ai


def rows() -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(name with the provider, provider, facts) of each model that can be called through some method, without doubles."""
    found: dict[str, tuple[str, Mapping[str, Any]]] = {}
    read = _read()
    for key, facts in read.items():
        owner = facts.get("litellm_provider")
        if facts.get("mode") not in MODES or not owner or owner in _NOT_SERVED:
            continue
        provider = "bedrock" if owner == "bedrock_converse" else next((f for f in _FAMILIES if owner.startswith(f"{f}-")), owner)
        whole = key.startswith(f"{provider}/")
        name = key if whole else f"{provider}/{key}"
        if whole or name not in found:  # the row under the whole name is the one that LiteLLM takes
            found[name] = (provider, facts)
    yield from ((name, provider, facts) for name, (provider, facts) in found.items())


def _read() -> dict[str, dict[str, Any]]:
    spec = find_spec("litellm")  # of a top-level package, which this does not import
    if spec is None or not spec.submodule_search_locations:
        return {}
    read: dict[str, dict[str, Any]] = json.loads((Path(spec.submodule_search_locations[0]) / _FILE).read_text(encoding="utf-8"))
    return read
