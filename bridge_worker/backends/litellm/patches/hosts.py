"""Patches that keep a request, and the key in it, at the provider's own host. It patches LiteLLM and httpx.

Owns four rules. A provider without a default host needs a base URL from the operator. A service on this machine needs the
operator's permission. A redirect to another origin is not followed when the request carries a key or a conversation. No chat
template is fetched from a model hub. Refuses to know which providers these are: `providers/facts.py` has the tables.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Mapping
from typing import Any

import httpx
import litellm
from litellm.litellm_core_utils.prompt_templates import huggingface_template_handler as _hub

from bridge_worker.errors import BridgeError
from bridge_worker.providers.facts import DEFAULT_LOCAL_SERVICES, LOCAL_SERVICES, NO_DEFAULT_HOST, SERVICE_OF, Endpoint

_main: Any = importlib.import_module("litellm.main")
_rerank: Any = importlib.import_module("litellm.rerank_api.main")
_find_provider = _main.get_llm_provider
_rank = _rerank.rerank
_redirect = httpx._client.BaseClient._build_redirect_request

_NO_KEY = "none"  # a text, because without one LiteLLM and the openai package take OPENAI_API_KEY
_KEY_NAME = re.compile(r"(?i)authorization|cookie|.*(?:key|token|secret|signature|credential).*|x-amz-.*|ocp-apim-.*")
_DEFAULT_PORTS = {"http": 80, "https": 443}

_permitted: frozenset[str] = DEFAULT_LOCAL_SERVICES


def permit(services: frozenset[str]) -> frozenset[str]:
    """From now on requests may go to these services at their default address. Returns the services permitted so far."""
    global _permitted
    before, _permitted = _permitted, services
    return before


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

    Raises BridgeError ``model_not_found``, which names the variable for it.
    """
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


def _find_provider_with_host(*arguments: Any, **named: Any) -> tuple[str, str, str | None, str | None]:
    """Without it a provider that has no base URL falls back to OpenAI's host, with its own key or OPENAI_API_KEY."""
    model, provider, key, base = _find_provider(*arguments, **named)
    given = named.get("api_base") or (arguments[2] if len(arguments) > 2 else None)
    if endpoint(provider) is not None:
        base = base_url(provider, given) or base
        key = _key(provider, named.get("api_key") or key)
    return model, provider, key, base


def _rank_at_its_host(
    model: str, query: str, documents: Any, custom_llm_provider: Any = None, *arguments: Any, **named: Any
) -> Any:
    """Without it a rerank falls back in the same manner; litellm_proxy's goes to Cohere's host."""
    _, provider, _, _ = _find_provider(model=model, custom_llm_provider=custom_llm_provider, api_base=named.get("api_base"))
    if endpoint(provider) is not None:
        named["api_base"] = base_url(provider, named.get("api_base"))
        named["api_key"] = _key(provider, named.get("api_key"))
    return _rank(model, query, documents, custom_llm_provider, *arguments, **named)


def _not_fetched(hf_model_name: str) -> dict[str, str]:
    """Without it a model name such as ``replicate/OWNER/NAME`` has a chat template fetched from a hub and rendered here."""
    return {"status": "failure"}


async def _not_fetched_either(hf_model_name: str) -> dict[str, str]:
    """The same, for LiteLLM's asynchronous callers."""
    return {"status": "failure"}


def _redirect_within_origin(self: Any, request: httpx.Request, response: httpx.Response) -> httpx.Request:
    """Without it a redirect takes the conversation and each key but ``Authorization`` to any host, plain HTTP included."""
    following = _redirect(self, request, response)
    if _origin(following.url) != _origin(request.url) and _is_confidential(request):
        target = f"{following.url.scheme}://{following.url.host:.100}"
        raise BridgeError(
            "bad_upstream_response",
            f"the provider's host {request.url.host} redirects to {target}, which is not followed because the request carries "
            "a key or a conversation; correct the provider's base URL",
            status=response.status_code,
        )
    return following


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port or _DEFAULT_PORTS.get(url.scheme)


def _is_confidential(request: httpx.Request) -> bool:
    """Or a conversation: what is sent with a method other than GET."""
    named = (*request.headers.keys(), *request.url.params.keys())
    return request.method not in ("GET", "HEAD") or any(_KEY_NAME.fullmatch(name) for name in named)


def install() -> None:
    """Replaces the functions of LiteLLM and httpx. Repeating it changes nothing."""
    _main.get_llm_provider = _find_provider_with_host
    _rerank.rerank = _rank_at_its_host
    for name in ("get_tokenizer_config", "_get_tokenizer_config", "get_chat_template_file", "_get_chat_template_file"):
        if hasattr(_hub, name):
            setattr(_hub, name, _not_fetched)
    for name in ("aget_tokenizer_config", "_aget_tokenizer_config", "aget_chat_template_file", "_aget_chat_template_file"):
        if hasattr(_hub, name):
            setattr(_hub, name, _not_fetched_either)
    httpx._client.BaseClient._build_redirect_request = _redirect_within_origin  # type: ignore[method-assign]
