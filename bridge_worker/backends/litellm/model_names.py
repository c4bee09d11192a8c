"""Maps the names that a gateway's config serves to the names that LiteLLM's Router gets.

Owns the gateway's rules for a requested name, in its order: ``completion_model``, ``model_alias_map``, then groups, aliases, names
under a wildcard (also without their provider), deployment ids, and a deployment's LiteLLM name where no wildcard is configured.
Refuses to choose a deployment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from bridge_worker.backends.litellm import router

MAX_KNOWN = 4096  # names looked up already


class Routed(NamedTuple):
    """``name``: what the Router is called with, and ``options`` the other keyword arguments. ``rows`` are the deployments."""

    name: str
    options: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]


class ModelNames:
    """The names of one Router; its deployments do not change."""

    def __init__(self, made: Any, aliases: Mapping[str, Any] | None = None, completion_model: str | None = None) -> None:
        self._router = made
        self._aliases = {name: str(target) for name, target in (aliases or {}).items()}
        self._completion_model = completion_model
        self._known: dict[str, Routed | None] = {}

    def find(self, requested: str, *, chat: bool = False) -> Routed | None:
        """None for a name that is not served."""
        name = self._completion_model if chat and self._completion_model else requested
        name = self._aliases.get(name, name)
        if name not in self._known:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[name] = self._look_up(name)
        return self._known[name]

    def aliases(self) -> list[str]:
        """Names of `model_alias_map` that are served."""
        return [name for name in self._aliases if self.find(name) is not None]

    def _look_up(self, name: str) -> Routed | None:
        if rows := router.deployments(self._router, name):
            return Routed(name, {}, rows)
        if row := router.deployment(self._router, name):
            return Routed(name, {}, [row])
        if router.has_wildcards(self._router):
            return None
        rows = [row for row in router.configured_deployments(self._router) if row["litellm_params"]["model"] == name]
        return Routed(name, {"specific_deployment": True}, rows) if rows else None
