"""Reads LiteLLM's price map as a file, because importing LiteLLM takes two seconds.

Owns the path of that file and the meaning of its keys. Refuses to import LiteLLM; a contract test compares these rows with
LiteLLM's own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bridge_worker.providers.facts import NOT_SERVED

# The map has no date, so this is the day on which the LiteLLM version with this map was published.
DATES = {"1.106.2": "2026-10-21", "1.110.2": "2026-11-20"}
DATE = DATES.get(version("litellm"))
MODES = ("chat", "completion", "responses", "embedding", "rerank")  # those that a method of the bridge can call

_FILE = "model_prices_and_context_window_backup.json"  # PRIVATE: the file that LiteLLM reads when it fetches no map
_FAMILIES = ("vertex_ai", "fireworks_ai")  # "vertex_ai-llama_models" is served as vertex_ai


def rows() -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(name with the provider, provider, facts) of each model that a method can call, without duplicates."""
    found: dict[str, tuple[str, Mapping[str, Any]]] = {}
    read = _read()
    for key, facts in read.items():
        owner = facts.get("litellm_provider")
        if facts.get("mode") not in MODES or not owner or owner in NOT_SERVED:
            continue
        provider = "bedrock" if owner == "bedrock_converse" else next((f for f in _FAMILIES if owner.startswith(f"{f}-")), owner)
        whole = key.startswith(f"{provider}/")
        name = key if whole else f"{provider}/{key}"
        if whole or name not in found:  # LiteLLM uses the row with the whole name
            found[name] = (provider, facts)
    yield from ((name, provider, facts) for name, (provider, facts) in found.items())


def _read() -> dict[str, dict[str, Any]]:
    spec = find_spec("litellm")  # find_spec does not import a top-level package
    if spec is None or not spec.submodule_search_locations:
        return {}
    read: dict[str, dict[str, Any]] = json.loads((Path(spec.submodule_search_locations[0]) / _FILE).read_text(encoding="utf-8"))
    return read
