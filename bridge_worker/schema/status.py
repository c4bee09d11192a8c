"""Params and results of ``status`` and ``config/reload``.

Owns these types. Refuses to know how the numbers are counted and a config is reloaded.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bridge_worker.schema.base import Closed
from bridge_worker.schema.lifecycle import EngineState


class NoParams(Closed):
    pass


class RequestCounts(Closed):
    """Counts since the start: ``outcomes`` by "ok" and kind of error, ``engines`` by the chat path in the receipt."""

    in_flight: int  # this one included
    total: int
    outcomes: dict[str, int]
    engines: dict[str, int]


class RedisState(Closed):
    """``lost``: configured but unreachable. ``not_installed``: configured, but the package redis is missing."""

    state: Literal["none", "connecting", "connected", "lost", "not_installed"]
    since_ms: float | None  # time in this state


class Degraded(Closed):
    """``part`` of the bridge does not fit the installed LiteLLM because of ``reason``; ``effect`` is the consequence for chats."""

    part: str
    reason: str
    effect: str


class EngineProcess(Closed):
    """A "draining" engine ends when it has no request. ``requests`` counts those with a response; ``rss_mib`` its last report."""

    pid: int | None
    state: Literal["starting", "ready", "draining", "ending", "lost"]
    in_flight: int
    requests: int
    rss_mib: float | None


class Status(Closed):
    version: str
    uptime_ms: float
    requests: RequestCounts
    memory_bytes: int | None  # resident, of the worker, its template and its engine processes together
    engine: EngineState
    redis: RedisState
    degraded: list[Degraded] | None  # null until it is known
    engines: list[EngineProcess] = Field(default_factory=list)  # empty in a worker of one process
    violations: dict[str, int] = Field(default_factory=dict)  # invariants found broken, by name; {} in a worker without a fault


class ConfigReloaded(Closed):
    """Names of models, and of settings as the config has them. Settings in ``restart_needed`` change only at the next start."""

    models: list[str]
    added: list[str]
    removed: list[str]
    changed: list[str]
    settings: list[str]
    restart_needed: list[str]
    warnings: list[str]
