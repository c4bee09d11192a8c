"""Writes a config in which each deployment is a model by itself, so that ``omni-bridge doctor`` can call it without a fallback.

Owns what of a config hides that a deployment does not work: fallbacks, retries, aliases and names that several deployments share.
Refuses to change anything else, and to resolve a reference: the file that is written has no more secrets than the config's own.
"""

from __future__ import annotations

import copy
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from bridge_worker.config.source import Config

_HIDE = ("fallbacks", "default_fallbacks", "context_window_fallbacks", "content_policy_fallbacks", "model_group_alias")
_MODULE = (*_HIDE, "model_alias_map", "callbacks", "success_callback", "failure_callback", "cache", "num_retries")


def is_needed(config: Config) -> bool:
    """Whether a model of this config may be served although one of its deployments does not work."""
    tree = config.document.tree if config.document else {}
    names = Counter(str(model.get("model_name")) for model in _models(tree))
    sections = (tree.get("router_settings") or {}, tree.get("litellm_settings") or {})
    return max(names.values(), default=0) > 1 or any(section.get(name) for section in sections for name in _HIDE)


def write(config: Config, folder: str) -> str:
    """The path of the file, in ``folder``, with copies of the operator's own code."""
    assert config.document is not None  # noqa: S101  # for mypy: `is_needed` is true
    tree = copy.deepcopy(config.document.tree)
    models = _models(tree)
    several = Counter(str(model["model_name"]) for model in models)
    for position, model in enumerate(models):
        name = str(model["model_name"])
        if several[name] > 1 and "*" not in name:
            model["model_name"] = f"{name} [{position}] {model['litellm_params']['model']}"
    router = {name: value for name, value in (tree.get("router_settings") or {}).items() if name not in _HIDE}
    tree["router_settings"] = router | {"num_retries": 0}
    tree["litellm_settings"] = {name: value for name, value in (tree.get("litellm_settings") or {}).items() if name not in _MODULE}
    tree.get("general_settings", {}).pop("completion_model", None)
    path = Path(folder, "deployments.yaml")
    path.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    path.chmod(0o600)
    for code in Path(config.document.path).parent.glob("*.py"):
        shutil.copy2(code, folder)
    return str(path)


def _models(tree: dict[str, Any]) -> list[dict[str, Any]]:
    """The deployments that the config's checks accept."""
    listed = tree.get("model_list") or []
    return [model for model in listed if isinstance(model, dict) and isinstance(model.get("litellm_params"), dict)]
