"""Compares two configs: what a reload changes, and what it leaves until the next start.

Owns the comparison. Refuses to load LiteLLM and to set anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bridge_worker.config.settings import SECTION, SETTINGS
from bridge_worker.config.source import Config

# Settings of the process that reads the pipe. Engines that are started with a new config have all others.
OF_THE_SERVER = frozenset(
    """
    max_message_bytes max_in_flight grace_seconds engines log_level log_format trace trace_content idempotency_journal record
    replay replay_miss replay_timing match_ignore
    """.split()
)


def changes(old: Config, new: Config) -> dict[str, Any]:
    """The result of `config/reload`. ``new`` is as it was read."""
    before, after = _deployments(old), _deployments(new)
    differing = [f"{SECTION}.{name}" for name in SETTINGS if getattr(old.settings, name) != getattr(new.settings, name)]
    settings = differing + list(_differing(old, new))
    restart = [name for name in settings if name.removeprefix(f"{SECTION}.") in OF_THE_SERVER]
    return {
        "models": sorted(after.keys() | _aliases(new)),
        "added": sorted(after.keys() - before.keys()),
        "removed": sorted(before.keys() - after.keys()),
        "changed": sorted(name for name in after.keys() & before.keys() if after[name] != before[name]),
        "settings": [name for name in settings if name not in restart],
        "restart_needed": restart,
        "warnings": list(new.warnings),
    }


def _deployments(config: Config) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for model in (config.gateway.router or {}).get("model_list", ()) if config.gateway else ():
        found.setdefault(model["model_name"], []).append(model)
    return found


def _aliases(config: Config) -> set[str]:
    if config.gateway is None:
        return set()
    of_router, of_module = ((config.gateway.router or {}).get("model_group_alias"), config.gateway.litellm.get("model_alias_map"))
    return {str(name) for aliases in (of_router, of_module) for name in (aliases if isinstance(aliases, dict) else ())}


def _differing(old: Config, new: Config) -> Iterator[str]:
    """Names of settings in the gateway's sections."""
    before, after = _settings(old), _settings(new)
    return (name for name in sorted(before.keys() | after.keys()) if before.get(name) != after.get(name))


def _settings(config: Config) -> dict[str, Any]:
    gateway = config.gateway
    if gateway is None:
        return {}
    found = {f"router_settings.{name}": value for name, value in (gateway.router or {}).items() if name != "model_list"}
    found |= {f"litellm_settings.{name}": value for name, value in gateway.litellm.items()}
    found |= {f"environment_variables.{name}": value for name, value in config.environment.items()}
    return found | {"credential_list": gateway.credentials, "callback_settings": gateway.callback_settings}
