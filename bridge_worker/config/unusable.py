"""Decides what an unset environment variable means for a deployment: a member less, or a deployment that fails when it is used.

Owns the rule. A member that is only an option is left out, as in the gateway. A deployment without its key or host must not be
called with another key or at another host, which LiteLLM would do. It is left out when its group has others, and kept otherwise, so
that the group's fallbacks work and a request gets the reason. Refuses to know how that request fails.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bridge_worker.config.env_references import Missing, is_secret
from bridge_worker.providers import key_variables
from bridge_worker.providers.facts import KEY_MAY_BE_ELSEWHERE, LOCAL_SERVICES, NO_DEFAULT_HOST, SERVICE_OF

MARK = "omni_bridge_unusable"  # a member of model_info: why the deployment can't be used
_HOSTS = ("api_base", "base_url")
_KEY_IS_OPTIONAL = {*KEY_MAY_BE_ELSEWHERE, *LOCAL_SERVICES, *SERVICE_OF, *NO_DEFAULT_HOST}


def reason(params: Mapping[str, Any], unset: Mapping[str, Missing]) -> str | None:
    """The reason why a deployment with these ``params`` can't be used, or None. ``unset`` has its members that refer
    to what is not there."""
    for member, missing in unset.items():
        is_host = member in _HOSTS and not _is_the_providers_own(missing.variable or "", params)
        if is_host or (is_secret(member) and _needs_key(params)):
            return f"{member} {missing.problem}"
    return None


def is_unusable(model: Mapping[str, Any]) -> bool:
    return MARK in (model.get("model_info") or {})


def to_serve(models: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The deployments for LiteLLM's Router."""
    models = list(models)
    usable = {model["model_name"] for model in models if not is_unusable(model)}
    return [model for model in models if not is_unusable(model) or model["model_name"] not in usable]


def provider_of(params: Mapping[str, Any]) -> str:
    """The provider that the config names, or None for a bare name such as gpt-4o."""
    return str(params.get("custom_llm_provider") or str(params.get("model")).partition("/")[0])


def _is_the_providers_own(variable: str, params: Mapping[str, Any]) -> bool:
    """LiteLLM looks at OPENAI_API_BASE by itself, and without it at the provider's public host: the config means just that."""
    provider = provider_of(params).upper().replace("-", "_")
    stems = {provider, provider.removesuffix("_CHAT"), "OPENAI" if "/" not in str(params.get("model")) else provider}
    return any(variable.upper() == f"{stem}_{end}" for stem in stems for end in ("API_BASE", "BASE_URL", "API_BASE_URL"))


def _needs_key(params: Mapping[str, Any]) -> bool:
    """Whether the config must have a key: without one LiteLLM uses the environment's key, which is right only for the provider's
    own host."""
    provider = provider_of(params)
    if provider in _KEY_IS_OPTIONAL:
        return False
    return any(params.get(host) for host in _HOSTS) or key_variables.variable(provider) is None
