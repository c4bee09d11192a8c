"""LiteLLM as a gateway's config wants it: settings of its module, credentials, cache, callbacks, and the Router.

Owns what of a config is the whole process's, and can be taken back when the rest of it turns out to be wrong. Refuses to know YAML
and the names that are served: it gets a `config.gateway.Gateway`. Each step is one of the gateway's own, in its
`ProxyConfig.load_config`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from importlib.util import find_spec
from typing import Any

import litellm
from litellm.models.credentials import CredentialItem
from litellm.router_strategy.base_routing_strategy import BaseRoutingStrategy
from litellm.types.router import RouterGeneralSettings

from bridge_worker.backends.litellm import router
from bridge_worker.backends.litellm.router_redis import InMemoryUntilThen
from bridge_worker.config import unusable
from bridge_worker.config.diagnostics import Diagnostic, suggestion
from bridge_worker.config.gateway import Gateway
from bridge_worker.config.gateway_keys import CALLBACKS
from bridge_worker.config.redis_settings import cache_settings, client_settings, without_redis

# Callbacks that need a package which LiteLLM does not bring, by its top module. A canary test holds the names against LiteLLM's.
_PACKAGES = {
    "agentops": "opentelemetry",
    "argilla": "argilla",
    "arize": "opentelemetry",
    "arize_phoenix": "opentelemetry",
    "azure_storage": "azure",
    "dynamodb": "boto3",
    "langfuse": "langfuse",
    "langfuse_otel": "opentelemetry",
    "langtrace": "opentelemetry",
    "levo": "opentelemetry",
    "logfire": "opentelemetry",
    "lunary": "lunary",
    "mlflow": "mlflow",
    "otel": "opentelemetry",
    "prometheus": "prometheus_client",
    "s3": "boto3",
    "sentry": "sentry_sdk",
    "signoz": "opentelemetry",
    "supabase": "supabase",
    "traceloop": "traceloop",
    "wandb": "wandb",
    "weave_otel": "opentelemetry",
}
# Callbacks of LiteLLM's older kind; LiteLLM has no list of these.
_OLDER_CALLBACKS = frozenset("athina dynamodb greenscale helicone lunary promptlayer s3 sentry supabase traceloop wandb".split())
_OTHERWISE = {"cache", "cache_params", "drop_params", "max_budget", *CALLBACKS}

_defaults: dict[str, Any] = {}  # of the module, before the first config changed them
_cache_params: Mapping[str, Any] | None = None
_log = logging.getLogger(__name__)


class Configured:
    """LiteLLM, set up for ``gateway``. ``rejected`` names the parts that LiteLLM rejects; the others are served."""

    def __init__(self, gateway: Gateway, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.rejected: list[Diagnostic] = []
        self.router: Any = None
        self._of_router: list[object] = []
        self._tasks: list[Future[Any]] = []
        self._router_settings = gateway.router or {}
        names = _defaults.keys() | gateway.litellm.keys() - _OTHERWISE | {"drop_params", "max_budget", "credential_list", "cache"}
        names |= {"callback_settings", "request_timeout_explicitly_set"}
        self._before = {name: getattr(litellm, name, None) for name in names}
        self._params_before = _cache_params
        try:
            self._set_module(gateway)
            self._set_cache(gateway.litellm)
            self.rejected += _add_callbacks(gateway)
            self._set_router(gateway, loop)
        except BaseException:
            self.take_back()
            raise

    def take_back(self) -> None:
        """Restores the state before, as far as LiteLLM allows: an active callback stays active."""
        global _cache_params
        _cache_params = self._params_before
        for name, value in self._before.items():
            setattr(litellm, name, value)
        self.discard()

    def discard(self) -> None:
        """LiteLLM forgets the Router."""
        if self.router is None:
            return
        router.forget(self.router)
        for callback in self._of_router:
            if isinstance(callback, BaseRoutingStrategy):
                callback.retire()  # it writes to Redis now and then
        for task in self._tasks:
            task.cancel()
        for callbacks in _callback_lists():  # what the Router's strategy has hung in there stays otherwise, and 30 are the most
            callbacks[:] = [callback for callback in callbacks if not any(callback is one for one in self._of_router)]
        self._of_router = []

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
        for name in wanted.keys() - _defaults.keys():
            _defaults[name] = getattr(litellm, name, None)
        for name, default in _defaults.items():  # what an earlier config set and this one does not, goes back
            setattr(litellm, name, wanted.get(name, default))
        litellm.credential_list = [CredentialItem.model_validate(credential) for credential in gateway.credentials]

    def _set_cache(self, settings: Mapping[str, Any]) -> None:
        """Keeps the cache if its params are the same, so that a reload does not empty it."""
        global _cache_params
        wanted = dict(settings.get("cache_params") or {}) if settings.get("cache") in (True, "true") else None
        if wanted == _cache_params:
            return
        litellm.cache = None
        if wanted is not None:
            try:
                litellm.cache = litellm.Cache(**{"type": "redis"} | wanted | self._backend(settings))
            except Exception as error:
                problem = f"LiteLLM can't make this cache: {_line(error)}"
                self.rejected.append(_unserved("litellm_settings.cache_params", problem))
        _cache_params = wanted

    def _backend(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """An in-memory backend if `router_redis` adds the Redis later: a client made here blocks for 15 s if Redis is
        unreachable."""
        own = cache_settings(settings)
        shared = client_settings(self._router_settings) or own
        return {"_backend": InMemoryUntilThen()} if own and own == shared else {}  # PRIVATE: _backend

    def _set_router(self, gateway: Gateway, loop: asyncio.AbstractEventLoop | None) -> None:
        if gateway.router is None:
            return
        before = [callback for callbacks in _callback_lists() for callback in callbacks]
        self.router = router.make(
            {"cache_responses": litellm.cache is not None}
            | without_redis(gateway.router)
            | {
                "model_list": unusable.to_serve(gateway.router["model_list"]),
                "router_general_settings": RouterGeneralSettings(async_only_mode=True),
                "ignore_invalid_deployments": True,
            },
            loop,
            self._tasks,
        )
        added = [
            callback for callbacks in _callback_lists() for callback in callbacks if not any(callback is one for one in before)
        ]
        self._of_router = [callback for callback in added if type(callback).__module__.startswith("litellm.router")]
        _share_cache(self.router)
        self.rejected += _skipped(gateway, self.router, loop)


def _callback_lists() -> list[list[Any]]:
    """The lists in which LiteLLM looks for callbacks; it also copies them between lists. PRIVATE: those with an underscore."""
    kinds = ("input", "success", "failure")
    names = ("callbacks", *(f"{kind}_callback" for kind in kinds), *(f"_async_{kind}_callback" for kind in kinds))
    return [getattr(litellm, name) for name in names]


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
            yield _unserved(place, f"LiteLLM leaves it out: {reason}")


def _pair(model: Mapping[str, Any]) -> tuple[str, str]:
    return str(model["model_name"]), str(model["litellm_params"]["model"])


def _refusal(model: Mapping[str, Any], loop: asyncio.AbstractEventLoop | None) -> str:
    try:
        router.forget(router.make({"model_list": [dict(model)]}, loop))
    except Exception as error:
        return _line(error)
    return ""


def _add_callbacks(gateway: Gateway) -> Iterator[Diagnostic]:
    """Returns what is wrong with them. One that is on stays on until the process ends: LiteLLM keeps copies of it in many lists."""
    known = {*litellm._known_custom_logger_compatible_callbacks, *_OLDER_CALLBACKS}  # PRIVATE: no other place lists them
    manager = litellm.logging_callback_manager
    add: Mapping[str, Callable[[str], None]] = {
        "callbacks": manager.add_litellm_callback,
        "success_callback": manager.add_litellm_success_callback,
        "failure_callback": manager.add_litellm_failure_callback,
    }
    for setting in CALLBACKS:
        for name in gateway.litellm.get(setting, ()):
            package = _PACKAGES.get(name)
            if name not in known:
                yield _unserved(f"litellm_settings.{setting}", f"unknown callback {name!r}", suggestion(name, known))
            elif package and find_spec(package) is None:
                yield _unserved(f"litellm_settings.{setting}", f"{name} needs the package {package}, which is not installed")
            else:
                add[setting](name)


def _unserved(place: str, problem: str, hint: str = "") -> Diagnostic:
    return Diagnostic(place, problem, hint, strict=True)


def _line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]
