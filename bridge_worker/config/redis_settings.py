"""Finds the Redis of a gateway config: in router_settings, or in the settings of the cache.

Owns the members of both sections that describe the connection. Refuses to connect.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bridge_worker.config.gateway import Gateway
from bridge_worker.system.redis_connection import RedisLink, is_client_option

_TARGET = ("redis_url", "redis_host")
_OTHERS = ("redis_port", "redis_password", "redis_db")
_ROUTER_SETTINGS = (*_TARGET, *_OTHERS, "cache_kwargs")  # of LiteLLM's Router; the last is only for its Redis client


def find_redis(gateway: Gateway | None) -> RedisLink | None:
    """The connection, or None if no Redis is configured. Imports the package redis if it is installed."""
    if gateway is None or gateway.router is None:
        return None
    settings = client_settings(gateway.router) or cache_settings(gateway.litellm)
    return RedisLink(settings) if settings else None


def without_redis(router_settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in router_settings.items() if name not in _ROUTER_SETTINGS}


def client_settings(router_settings: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of LiteLLM's Redis client, with ``url`` if the config has one; {} if it names no Redis."""
    if not any(router_settings.get(name) for name in _TARGET):
        return {}
    given = {name.removeprefix("redis_"): router_settings[name] for name in (*_TARGET, *_OTHERS) if router_settings.get(name)}
    target = {"url": given["url"]} if "url" in given else {"port": 6379, **given}
    return {**target, **(router_settings.get("cache_kwargs") or {})}


def cache_settings(litellm_settings: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """The client arguments of a cache in Redis, where a Router without a separate Redis shares its state."""
    params = litellm_settings.get("cache_params") or {}
    if litellm_settings.get("cache") not in (True, "true") or params.get("type", "redis") != "redis":
        return {}
    named = {name: value for name, value in params.items() if value is not None and is_client_option(name)}
    if not named.keys() & {"url", "host"}:  # LiteLLM then uses these variables
        variables = {name: environ.get(f"REDIS_{name.upper()}") for name in ("url", "host", "port", "username", "password")}
        named = {name: value for name, value in variables.items() if value} | named
    target = {"url"} & named.keys() or {"host"} & named.keys()
    if not target:
        return {}
    return named if "url" in target else {"port": 6379, **named}
