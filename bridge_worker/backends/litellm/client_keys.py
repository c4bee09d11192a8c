"""Adds the client's key to a call that needs one, where neither the config nor the environment has it.

Owns what it means that a call has no key. Refuses to know how a key is requested (`core.credentials`).
"""

from __future__ import annotations

import asyncio
import functools
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import Any, TypeVar

import litellm
from litellm.llms.bedrock.base_aws_llm import BaseAWSLLM

from bridge_worker.backends.litellm import exceptions
from bridge_worker.backends.litellm.router_errors import fault_of, without_cooldown
from bridge_worker.backends.litellm.upstream import Target, target_of
from bridge_worker.core.credentials import Credential, CredentialsInUse, Wanted, secrets
from bridge_worker.core.ports import ChatRequest
from bridge_worker.errors import BridgeError
from bridge_worker.providers import key_variables
from bridge_worker.providers.facts import KEY_MAY_BE_ELSEWHERE, LOCAL_SERVICES, NO_DEFAULT_HOST, SERVICE_OF

T = TypeVar("T")

# Members of a call that are a key, or name one.
KEYS = ("api_key", "aws_access_key_id", "vertex_credentials", "azure_ad_token", "client_secret")
_NAMES_A_KEY = ("litellm_credential_name", "aws_profile_name", "aws_role_name", "aws_web_identity_token", "azure_ad_token_provider")
_OPTIONAL = frozenset({*KEY_MAY_BE_ELSEWHERE, *LOCAL_SERVICES, *SERVICE_OF, *NO_DEFAULT_HOST})
_OF_A_KEYLESS = frozenset({"local", "offline"})
_AWS = ("AWS_ACCESS_KEY_ID", "AWS_BEARER_TOKEN_BEDROCK", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE")
_CLOUD_VARIABLES = {  # by the first word of the provider's name
    "bedrock": _AWS,
    "sagemaker": _AWS,
    "vertex": ("GOOGLE_APPLICATION_CREDENTIALS", "VERTEXAI_CREDENTIALS"),
    "azure": ("AZURE_OPENAI_API_KEY", "AZURE_AD_TOKEN", "AZURE_CLIENT_SECRET"),
}
_BEFORE_THE_DEADLINE = 0.9  # of the time that is left: the error then names the key, not the deadline


class ClientKeys:
    """For one request, made in the task that makes its response. ``ends``: its first deadline, on `time.monotonic`."""

    def __init__(self, credentials: CredentialsInUse | None, ends: float | None) -> None:
        self._credentials = credentials
        self._ends = ends
        self._task = asyncio.current_task() if credentials is not None else None
        self._found: dict[Wanted, Credential | BridgeError | None] = {}
        self._is_clients = False  # the last call has no key but the client's
        self._last: Credential | None = None
        self._rejected: list[Credential] = []

    async def get(self, call: Mapping[str, Any], target: Target) -> Credential | None:
        """The client's key for ``call``, the keyword arguments of one deployment's call; None where it needs none, or the client
        has none. It is requested once in a chat, whatever the Router tries again.

        Raises BridgeError ``authentication``.
        """
        self._last, self._is_clients = None, False
        provider = target.provider
        if self._credentials is None or provider is None or not lacks_key(call, provider):
            return None
        wanted = Wanted(key_variables.owner(provider), _base_url(call, provider))
        if wanted not in self._found:
            try:
                self._found[wanted] = await self._request(self._credentials, wanted)
            except BridgeError as error:
                self._found[wanted] = error
        found = self._found[wanted]
        self._is_clients = found is not None
        if isinstance(found, BridgeError):
            raise BridgeError(found.kind, found.message, provider=provider)
        self._last = found
        return found

    def reject_last(self) -> None:
        """The provider has rejected what the last `get` returned."""
        if self._last is not None:
            self._rejected.append(self._last)

    def for_router(self, fault: BridgeError, target: Target) -> Exception | None:
        """The exception for the Router, where ``fault`` is about the client's key: the next request may have another, so the
        deployment must not cool down. None for any other fault."""
        return without_cooldown(fault, target) if self._is_clients and fault.kind == "authentication" else None

    async def drop_rejected(self) -> None:
        rejected, self._rejected = self._rejected, []
        for credential in rejected:
            if self._credentials is not None:
                await self._credentials.drop(credential)

    async def _request(self, credentials: CredentialsInUse, wanted: Wanted) -> Credential | None:
        seconds = None if self._ends is None else max(0.0, self._ends - time.monotonic()) * _BEFORE_THE_DEADLINE
        try:
            async with asyncio.timeout(seconds):
                return await credentials.get(wanted, self._task, optional=wanted.provider in _OPTIONAL)
        except TimeoutError:
            late = f"the client did not return a key for {wanted.provider} within the deadline of the request"
            raise BridgeError("authentication", late, provider=wanted.provider) from None


def for_chat(credentials: CredentialsInUse | None, request: ChatRequest) -> ClientKeys:
    limits = (request.deadlines.total_ms, request.deadlines.first_token_ms if request.stream else None)
    return ClientKeys(credentials, min((request.received + limit / 1000 for limit in limits if limit), default=None))


def lacks_key(call: Mapping[str, Any], provider: str) -> bool:
    """Whether neither ``call``, which has the config's members, nor the settings and the environment have a key."""
    if provider in _OF_A_KEYLESS or any(call.get(name) for name in (*KEYS, *_NAMES_A_KEY)):
        return False
    if getattr(litellm, "api_key", None) or getattr(litellm, f"{key_variables.owner(provider)}_key", None):
        return False
    if key_variables.variable(provider) or any(os.environ.get(name) for name in _CLOUD_VARIABLES.get(provider.split("_")[0], ())):
        return False
    return provider in _OPTIONAL or bool(litellm.validate_environment(f"{provider}/model")["missing_keys"])


def _base_url(call: Mapping[str, Any], provider: str) -> str | None:
    """The host that gets the key, where the config or the environment names one."""
    named = call.get("api_base") or call.get("base_url")
    names = [f"{stem}_{end}" for stem in {provider.upper(), key_variables.owner(provider).upper()} for end in _BASES]
    return str(named) if named else next((value for name in names if (value := os.environ.get(name))), None)


_BASES = ("API_BASE", "BASE_URL")

# ---- embeddings and reranking: the calls that the Router, or the bridge, makes of LiteLLM ----------------------------------------

_current: ContextVar[ClientKeys | None] = ContextVar("omni_bridge_client_keys", default=None)


async def with_keys(keys: ClientKeys, made: Awaitable[T]) -> T:
    """Awaits ``made``, in which LiteLLM's calls for embeddings and rankings get the client's key."""
    token = _current.set(keys)
    try:
        return await made
    except BridgeError as error:
        if error.kind == "authentication":
            keys.reject_last()
        raise
    finally:
        _current.reset(token)
        await keys.drop_rejected()


def install() -> None:
    """Puts both into LiteLLM, where the Router looks them up at each call. A second call changes nothing."""
    litellm.aembedding, litellm.arerank = aembedding, arerank


_embedding, _rerank = litellm.aembedding, litellm.arerank


@functools.wraps(_embedding)
async def aembedding(*args: Any, **kwargs: Any) -> Any:
    return await _call(_embedding, *args, **kwargs)


@functools.wraps(_rerank)
async def arerank(*args: Any, **kwargs: Any) -> Any:
    return await _call(_rerank, *args, **kwargs)


async def _call(made: Callable[..., Awaitable[Any]], *args: Any, **call: Any) -> Any:
    keys = _current.get()
    if keys is None or "model" not in call:
        return await made(*args, **call)
    target = target_of(call["model"], call.get("custom_llm_provider"), call.get("api_base"))
    try:
        credential = await keys.get(call, target)
        return await made(*args, **call if credential is None else {**call, **credential.params})
    except Exception as error:
        fault = fault_of(error) or exceptions.from_litellm(error, model=call["model"], streamed=False)
        raise keys.for_router(fault, target) or error from error


def forget(credential: Credential) -> None:
    """Removes what LiteLLM keeps with the key: clients of the OpenAI SDK, and AWS credentials. PRIVATE: both caches."""
    values = set(secrets(credential.params))
    for cache in (litellm.in_memory_llm_clients_cache, BaseAWSLLM._shared_iam_cache.in_memory_cache):
        for key, value in list(cache.cache_dict.items()):
            if values & {getattr(value, name, None) for name in ("api_key", "secret_key", "access_key")}:
                cache.delete_cache(key)
