"""A gateway's config, as tests write it: deployments that a stand-in for a provider answers for.

Owns the shape of a deployment and the file. Refuses to know who reads it: the worker, or a LiteLLM proxy.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tests.support.upstream import Json, Upstream

KEY = "sk-deployment-4711"


def deployment(upstream: Upstream, name: str, model: str, info: Json | None = None, **params: Any) -> Json:
    """One whose id is "NAME/MODEL". ``model`` says what the stand-in does, see tests/support/upstream_format.py."""
    usual = {"model": f"openai/{model}", "api_base": upstream.base_url, "api_key": KEY}
    return {"model_name": name, "litellm_params": usual | params, "model_info": {"id": f"{name}/{model}"} | (info or {})}


def write(path: Path, config: Json) -> Path:
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def attempts(receipt: Json) -> list[tuple[str, str]]:
    """(deployment, outcome) of each, in order."""
    return [(attempt["deployment"], attempt["outcome"]) for attempt in receipt["attempts"]]
