"""Redis of a gateway config: of router_settings, else of the cache.

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
_ROUTER_SETTINGS = (*_TARGET, *_OTHERS, "cache_kwargs")  # of LiteLLM's Router; the last is for its Redis client alone


def find_redis(gateway: Gateway | None) -> RedisLink | None:
    """None where none is configured. Imports the package, where it is installed."""
    if gateway is None or gateway.router is None:
        return None
    settings = client_settings(gateway.router) or cache_settings(gateway.litellm)
    return RedisLink(settings) if settings else None


def without_redis(router_settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in router_settings.items() if name not in _ROUTER_SETTINGS}


def client_settings(router_settings: Mapping[str, Any]) -> dict[str, Any]:
    """Of LiteLLM's Redis client, ``url`` among them where the config has one; {} where it names no Redis."""
    if not any(router_settings.get(name) for name in _TARGET):
        return {}
    given = {name.removeprefix("redis_"): router_settings[name] for name in (*_TARGET, *_OTHERS) if router_settings.get(name)}
    target = {"url": given["url"]} if "url" in given else {"port": 6379, **given}
    return {**target, **(router_settings.get("cache_kwargs") or {})}


def cache_settings(litellm_settings: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """The same of a cache in Redis, which also holds what a Router without a Redis of its own shares."""
    params = litellm_settings.get("cache_params") or {}
    if litellm_settings.get("cache") not in (True, "true") or params.get("type", "redis") != "redis":
        return {}
    named = {name: value for name, value in params.items() if value is not None and is_client_option(name)}
    if not named.keys() & {"url", "host"}:  # then LiteLLM looks there
        variables = {name: environ.get(f"REDIS_{name.upper()}") for name in ("url", "host", "port", "username", "password")}
        named = {name: value for name, value in variables.items() if value} | named
    target = {"url"} & named.keys() or {"host"} & named.keys()
    if not target:
        return {}
    return named if "url" in target else {"port": 6379, **named}
