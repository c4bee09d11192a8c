"""LiteLLM as a gateway's config wants it: settings of its module, credentials, cache, callbacks, and the Router.

Owns what of a config is the whole process's; another config is another process's. Refuses to know YAML and the names that are
served: it gets a `config.gateway.Gateway`. Each step is one of the gateway's own, in its `ProxyConfig.load_config`.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any

import litellm
from litellm.models.credentials import CredentialItem
from litellm.types.router import RouterGeneralSettings
from litellm.utils import custom_llm_setup  # PRIVATE: makes a provider's name known

from bridge_worker.backends.litellm import callbacks as named_callbacks
from bridge_worker.backends.litellm import router, usage_limits
from bridge_worker.backends.litellm.callbacks import unserved
from bridge_worker.backends.litellm.router_redis import InMemoryUntilThen
from bridge_worker.config import unusable
from bridge_worker.config.diagnostics import Diagnostic
from bridge_worker.config.gateway import Gateway
from bridge_worker.config.gateway_keys import CALLBACKS
from bridge_worker.config.redis_settings import cache_settings, client_settings, without_redis
from bridge_worker.providers import facts

_OTHERWISE = {"cache", "cache_params", "custom_provider_map", "drop_params", "max_budget", *CALLBACKS}


class Configured:
    """LiteLLM, set up for ``gateway``, once in a process. ``rejected`` names the parts that LiteLLM rejects; the others are served.
    Raises LiteLLM's error for a Router that it can't make."""

    def __init__(self, gateway: Gateway, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.rejected: list[Diagnostic] = []
        self.router: Any = None
        self._router_settings = gateway.router or {}
        self._set_module(gateway)
        self._set_providers(gateway)
        self._set_cache(gateway.litellm)
        self.rejected += named_callbacks.add(gateway)
        self._set_router(gateway, loop)

    def _set_module(self, gateway: Gateway) -> None:
        wanted = {name: value for name, value in gateway.litellm.items() if name not in _OTHERWISE}
        if "drop_params" in gateway.litellm:
            wanted["drop_params"] = str(gateway.litellm["drop_params"]).strip().lower() == "true"
        if "max_budget" in gateway.litellm:
            wanted["max_budget"] = float(gateway.litellm["max_budget"])
        if "request_timeout" in wanted:
            wanted["request_timeout_explicitly_set"] = True  # PRIVATE: the gateway sets it, so that the Router keeps to it
        if gateway.callback_settings:
            wanted["callback_settings"] = gateway.callback_settings
        for name, value in wanted.items():
            setattr(litellm, name, value)
        litellm.credential_list = [CredentialItem.model_validate(credential) for credential in gateway.credentials]

    def _set_providers(self, gateway: Gateway) -> None:
        """Of `custom_provider_map`, besides the bridge's own."""
        entries, wrong = named_callbacks.providers(gateway)
        self.rejected += wrong
        if entries:
            litellm.custom_provider_map = [*entries, *litellm.custom_provider_map]
            custom_llm_setup()

    def _set_cache(self, settings: Mapping[str, Any]) -> None:
        if settings.get("cache") not in (True, "true"):
            return
        wanted = dict(settings.get("cache_params") or {})
        try:
            litellm.cache = litellm.Cache(**{"type": "redis"} | wanted | self._backend(settings))
        except Exception as error:
            problem = f"LiteLLM can't make this cache: {_line(error)}"
            self.rejected.append(unserved("litellm_settings.cache_params", problem))

    def _backend(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """An in-memory backend if `router_redis` adds the Redis later: a client made here blocks for 15 s if Redis is
        unreachable."""
        own = cache_settings(settings)
        shared = client_settings(self._router_settings) or own
        return {"_backend": InMemoryUntilThen()} if own and own == shared else {}  # PRIVATE: _backend

    def _set_router(self, gateway: Gateway, loop: asyncio.AbstractEventLoop | None) -> None:
        if gateway.router is None:
            return
        models = unusable.to_serve(gateway.router["model_list"])
        enforced = usage_limits.are_enforced(gateway.router)
        models = [usage_limits.with_room(model) for model in models] if enforced else models
        self.router = router.make(
            {"cache_responses": litellm.cache is not None}
            | without_redis(gateway.router)
            | {
                "model_list": models,
                "router_general_settings": RouterGeneralSettings(async_only_mode=True),
                "ignore_invalid_deployments": True,
            },
            loop,
        )
        if enforced:
            usage_limits.activate(self.router)
        _share_cache(self.router)
        self.rejected += [*_without_package(gateway), *_skipped(gateway, self.router, loop)]


def _share_cache(made: Any) -> None:
    """A cache in Redis also holds the Router's cooldowns and usage, unless the Router has a separate Redis."""
    backend = getattr(litellm.cache, "cache", None)
    if isinstance(backend, litellm.caching.caching.RedisCache):
        router.attach_redis(made, backend)


def _skipped(gateway: Gateway, made: Any, loop: asyncio.AbstractEventLoop | None) -> Iterator[Diagnostic]:
    """The deployments that LiteLLM has left out, each with LiteLLM's reason. It only logs them, with a traceback."""
    assert gateway.router is not None  # noqa: S101  # for mypy: there is a Router
    served = Counter(map(_pair, router.configured_deployments(made)))
    wanted = Counter(map(_pair, gateway.router["model_list"]))
    for model, place in zip(gateway.router["model_list"], gateway.places, strict=True):
        if unusable.is_unusable(model):  # a warning of the config has the reason
            continue
        if served[_pair(model)] < wanted[_pair(model)] and (reason := _refusal(model, loop)):
            yield unserved(place, f"LiteLLM leaves it out: {reason}")


def _without_package(gateway: Gateway) -> Iterator[Diagnostic]:
    """The deployments that need a package which is not installed. They stay: their group's fallbacks serve."""
    assert gateway.router is not None  # noqa: S101  # as above
    for model, place in zip(gateway.router["model_list"], gateway.places, strict=True):
        provider = unusable.provider_of(model["litellm_params"])
        package = facts.AZURE_IDENTITY if _signs_in(provider, model["litellm_params"]) else facts.PACKAGES.get(provider)
        if package is not None and not _is_installed(package.module):
            problem = f"{provider} needs the Python package {package.module}, which is not installed"
            yield unserved(place, problem, f"pip install '{package.install}'")


def _signs_in(provider: str, params: Mapping[str, Any]) -> bool:
    """Whether it is a deployment of Azure without a key or a token, for which LiteLLM signs in to Entra ID."""
    if provider not in ("azure", "azure_text") or any(params.get(name) for name in ("api_key", "azure_ad_token")):
        return False
    if os.environ.get("AZURE_API_KEY") or os.environ.get("AZURE_OPENAI_API_KEY"):
        return False
    application = ("tenant_id", "client_id", "client_secret")
    user = ("azure_username", "azure_password", "client_id")
    variables = {"azure_username": "AZURE_USERNAME", "azure_password": "AZURE_PASSWORD"}
    return bool(litellm.enable_azure_ad_token_refresh) or any(
        all(params.get(name) or os.environ.get(variables.get(name, f"AZURE_{name.upper()}")) for name in names)
        for names in (application, user)
    )


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of a package around it
        return False


def _pair(model: Mapping[str, Any]) -> tuple[str, str]:
    return str(model["model_name"]), str(model["litellm_params"]["model"])


def _refusal(model: Mapping[str, Any], loop: asyncio.AbstractEventLoop | None) -> str:
    try:
        router.forget(router.make({"model_list": [dict(model)]}, loop))
    except Exception as error:
        return _line(error)
    return ""


def _line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]
