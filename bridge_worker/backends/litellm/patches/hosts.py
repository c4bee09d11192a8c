"""Patches that keep a request, and the key in it, at the provider's own host. `redirects` has those of redirects.

Owns three rules. A provider without a default host needs a base URL from the operator. A service on this machine needs the
operator's permission. No chat template is fetched from a model hub. Refuses to know which providers these are:
`providers/facts.py` has the tables.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Mapping
from typing import Any

import litellm

from bridge_worker.backends.litellm.patches.patch import EVERY_PROVIDER, MORE, Patch
from bridge_worker.errors import BridgeError
from bridge_worker.providers.facts import (
    DEFAULT_LOCAL_SERVICES,
    HUB_TEMPLATES,
    LOCAL_SERVICES,
    NO_DEFAULT_HOST,
    SERVICE_OF,
    Endpoint,
)
from bridge_worker.system.versions import litellm_version

_TESTS = "tests/upstream_contract/test_hosts.py"
_HUB = "litellm.litellm_core_utils.prompt_templates.huggingface_template_handler"
_NO_KEY = "none"  # a text, because without one LiteLLM and the openai package take OPENAI_API_KEY

_permitted: frozenset[str] = DEFAULT_LOCAL_SERVICES
_refused: Mapping[str, str] = {}  # provider -> the patch that is missing


def permit(services: frozenset[str]) -> None:
    """Permits requests to the default address of these services, and of no others."""
    global _permitted
    _permitted = services


def refuse(providers: Mapping[str, str]) -> None:
    """Refuses requests to these providers; the values are the names of the patches that they would need."""
    global _refused
    _refused = providers


def check_provider(provider: str) -> None:
    """Raises BridgeError ``model_not_found`` for a provider that needs a security patch which does not fit."""
    if (patch := _refused.get(provider)) is not None:
        wrong = f"{provider} is refused: the security patch {patch} does not fit LiteLLM {litellm_version()}"
        raise BridgeError("model_not_found", f"{wrong}; install the version of LiteLLM that omni-bridge pins", provider=provider)


def named_in(router: Mapping[str, Any]) -> frozenset[str]:
    """The providers that the config's deployments name: the operator has permitted them by it. A deployment ``*`` names none."""
    given = [deployment["litellm_params"] for deployment in router.get("model_list", ())]
    named = [params.get("custom_llm_provider") or str(params["model"]).partition("/")[0] for params in given]
    return frozenset(SERVICE_OF.get(provider, provider) for provider in named)


def endpoint(provider: str) -> Endpoint | None:
    """None for a provider with a public host."""
    return NO_DEFAULT_HOST.get(provider) or LOCAL_SERVICES.get(SERVICE_OF.get(provider, provider))


def base_url(provider: str, given: str | None = None) -> str | None:
    """The base URL of a provider that has no public host; None for the others. ``given`` is that of a deployment.

    Raises BridgeError ``model_not_found``, which names the variable for it, and for a provider that is refused.
    """
    check_provider(provider)
    needed = endpoint(provider)
    if needed is None:
        return None
    set_by_operator = given or litellm.api_base or next(filter(None, map(os.environ.get, needed.variables)), None)
    service = SERVICE_OF.get(provider, provider)
    if set_by_operator or (needed.default and service in _permitted):
        return set_by_operator or needed.default
    variable = needed.variables[0]
    if needed.default is None:
        wrong = (
            f"{provider} has no default host: set {variable} to its base URL in the worker's environment, or api_base in the config"
        )
    else:
        wrong = (
            f"{provider} is a service on the worker's machine and is not permitted: set {variable} to its base URL in the worker's "
            f"environment, or name {service} in omni_bridge: local_services"
        )
    raise BridgeError("model_not_found", wrong, provider=provider)


def _key(provider: str, given: str | None) -> str:
    needed = endpoint(provider)
    return given or (needed and os.environ.get(needed.key)) or _NO_KEY


def _with_host(original: Any) -> Any:
    def get_llm_provider(*arguments: Any, **named: Any) -> tuple[str, str, str | None, str | None]:
        model, provider, key, base = original(*arguments, **named)
        given = named.get("api_base") or (arguments[2] if len(arguments) > 2 else None)
        check_provider(provider)
        if endpoint(provider) is not None:
            base = base_url(provider, given) or base
            key = _key(provider, named.get("api_key") or key)
        return model, provider, key, base

    return get_llm_provider


def _finds_no_host(original: Any) -> bool:
    """Then LiteLLM takes OpenAI's. With the base URL's variable set nothing can be seen."""
    return any(not original(model=f"{provider}/x")[3] for provider in NO_DEFAULT_HOST)


def _rank_at_its_host(original: Any) -> Any:
    def rerank(model: str, query: str, documents: Any, custom_llm_provider: Any = None, *arguments: Any, **named: Any) -> Any:
        _, provider, _, _ = litellm.get_llm_provider(
            model=model, custom_llm_provider=custom_llm_provider, api_base=named.get("api_base")
        )
        check_provider(provider)
        if endpoint(provider) is not None:
            named["api_base"] = base_url(provider, named.get("api_base"))
            named["api_key"] = _key(provider, named.get("api_key"))
        return original(model, query, documents, custom_llm_provider, *arguments, **named)

    return rerank


def _ranks_elsewhere(original: Any) -> bool:
    """The proxy's branch takes Cohere's host where no base URL is given."""
    source = inspect.getsource(inspect.unwrap(original))
    return bool(re.search(r"LITELLM_PROXY", source) and "https://api.cohere.com" in source)


def _not_fetched(original: Any) -> Any:
    def not_fetched(hf_model_name: str) -> dict[str, str]:
        return {"status": "failure"}

    async def not_fetched_either(hf_model_name: str) -> dict[str, str]:
        return {"status": "failure"}

    return not_fetched_either if inspect.iscoroutinefunction(original) else not_fetched


def _fetches(original: Any) -> bool:
    return "huggingface.co" in inspect.getsource(original)


PATCHES = (
    Patch(
        name="provider hosts",
        wrong="a provider that has no base URL falls back to OpenAI's host, with its own key or OPENAI_API_KEY",
        evidence=f"{_TESTS}::test_no_provider_contacts_openai_a_model_hub_or_this_machine_unless_it_is_that",
        places=("litellm.main:get_llm_provider",),
        takes=("model", "custom_llm_provider", "api_base", "api_key", MORE),
        make=_with_host,
        has_fault=_finds_no_host,
        protects=EVERY_PROVIDER,
        keeps_elsewhere="the others look up names and prices, for which a provider needs no base URL",
    ),
    Patch(
        name="rerank hosts",
        wrong="a rerank of a provider that has no base URL falls back to OpenAI's or Cohere's host",
        evidence=f"{_TESTS}::test_no_provider_contacts_openai_a_model_hub_or_this_machine_unless_it_is_that",
        places=("litellm.rerank_api.main:rerank",),
        takes=("model", "query", "documents", "custom_llm_provider", MORE),
        make=_rank_at_its_host,
        has_fault=_ranks_elsewhere,
        protects=EVERY_PROVIDER,
        keeps_elsewhere="litellm.rerank is for callers without a loop; the bridge and the Router call arerank, which looks here",
    ),
    *(
        Patch(
            name=f"hub templates: {name}",
            wrong="a model name such as replicate/OWNER/NAME has a chat template fetched from a model hub and rendered here",
            evidence=f"{_TESTS}::test_no_provider_contacts_openai_a_model_hub_or_this_machine_unless_it_is_that",
            places=(f"{_HUB}:{name}",),
            takes=("hf_model_name",),
            make=_not_fetched,
            has_fault=_fetches,
            protects=HUB_TEMPLATES,
        )
        for name in ("get_tokenizer_config", "aget_tokenizer_config", "get_chat_template_file", "aget_chat_template_file")
    ),
)
