"""Names of members and models that are refused in params.

Owns the names that could send a key to another host, read a secret or run code. Refuses to know which method the params are for.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping

# Members that could send a key to another host, read a file or a variable, run code, or fake a response. LiteLLM takes them all as
# keyword arguments (its proxy bans the same); here they are refused at any depth but inside a JSON Schema, where a name is data.
REFUSED = frozenset(
    """
    api_base base_url api_key api_version api_type organization extra_headers headers extra_body extra_query default_headers
    custom_llm_provider model_list fallbacks context_window_fallbacks content_policy_fallbacks callbacks success_callback
    failure_callback input_callback logger_fn litellm_credential_name litellm_params litellm_metadata litellm_logging_obj
    litellm_call_id proxy_server_request client http_client ssl_verify mock_response mock_tool_calls mock_delay mock_timeout
    mock_testing_fallbacks mock_testing_context_fallbacks mock_testing_content_policy_fallbacks mock_testing_rate_limit_error
    caching cache input_cost_per_token output_cost_per_token input_cost_per_second output_cost_per_second server_url
    aws_access_key_id aws_secret_access_key aws_session_token aws_region_name aws_session_name aws_profile_name aws_role_name
    aws_web_identity_token aws_sts_endpoint aws_external_id aws_bedrock_runtime_endpoint vertex_project vertex_location
    vertex_credentials vertex_ai_project vertex_ai_location vertex_ai_credentials azure_ad_token azure_ad_token_provider
    azure_username azure_password azure_scope tenant_id client_id client_secret token hf_model_name oci_key oci_key_file oci_signer
    agentcore_runtime_session_id bedrock_tags deployment_url fireworks_forward_user_id nvcf_function_id rust tiered_pricing
    output_vector_size turn_off_message_logging use_ssl workspace_id no-log secret_fields shared_session retry_policy num_retries
    max_retries timeout request_timeout stream_timeout force_timeout prompt_id prompt_variables custom_prompt_dict guardrails
    auto_router_config auto_router_config_path model_alias_map provider_specific_header use_litellm_proxy silent_model
    user_config allowed_model_region drop_params additional_drop_params allowed_openai_params _skip_mcp_handler
    """.split()
)
# The same by what they are called: LiteLLM has hundreds, and gains some with every release.
_REFUSED_SHAPES = re.compile(
    r"(?:aws|azure_ad|vertex|oci|gcs|s3|sagemaker|github_copilot|riva|mock|litellm|user_api_key|_litellm|_websearch|_code_interpreter)_\w*"
    r"|(?:arize|braintrust|dd|humanloop|langfuse|langsmith|lunary|newrelic|posthog|signoz|slack|wandb|weave)_\w*"  # callbacks
    r"|anthropic[_-](?:disable|federation|identity|issuer|keycloak|organization|service|workspace)[\w-]*|openai_(?:identity|service)\w*"
    r"|\w*cost_per_\w*|\w*_token_cost\w*|\w*uplift_multiplier\w*"  # prices
    r"|\w*(?:api_key|api_base|api_url|base_url|endpoint_url|webhook_url|token_file|_oauth|_host|credentials?)"
)
# A member that has one of these words names a host, a secret, a file or code, whatever LiteLLM calls it in its next release.
# "tokens" is a number of them. The rule is for parameters only: below `_DATA` the names are a provider's or the caller's data.
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_REFUSED_WORDS = frozenset(
    "host hosts hostname key keys token secret secrets endpoint endpoints file files filename callback callbacks credential "
    "credentials password passwd url urls uri proxy proxies webhook".split()
)
_HARMLESS = frozenset({"idempotency_key", "prompt_cache_key", "first_token_ms"})  # members of the wire's own types
_DATA = ("messages", "metadata", "documents", "input", "arguments")
# What LiteLLM keeps in metadata for itself: it trusts what it finds there, and breaks on what it has not written.
_RESERVED_METADATA = re.compile(
    r"_.*|user_api_key.*|litellm.*|requester_.*|routing_.*|attempted_.*|applied_.*|standard_logging_.*|request_retry_count|max_retries"
    r"|model_info|model_group|deployment|previous_models|hidden_params|raw_request|used_client_oauth_token|error_information"
    r"|guardrails|client_disconnected|cold_storage_object_key"
)
# A model's name ends up in a URL of its provider; what would leave its place there is no part of a name.
_NOT_IN_NAMES = re.compile(r"[\x00-\x1f\x7f\\?#%]|://|(?:^|/)\.{1,2}(?:/|$)")
_LONGEST_NAME = 128
# Within these a name is data: the members of a JSON Schema.
_SCHEMAS = (("tools", "[]", "function", "parameters"), ("response_format", "json_schema", "schema"))
_NESTED = (dict, list)
MAX_DEPTH = 64
MAX_MEMBERS = 1_000  # of one object: more than any provider's API has, and each one that is wrong costs an error


class ParamsTooLarge(ValueError):
    """The message names the limit."""


def is_address(model: str) -> bool:
    """Whether a model's name has parts of a URL or of a path."""
    return _NOT_IN_NAMES.search(model) is not None


def is_refused(name: str) -> bool:
    """Whether ``name`` is refused as the name of a parameter."""
    return len(name) < _LONGEST_NAME and (_is_listed(name) or _has_refused_word(name))


def _is_refused_in_data(name: str) -> bool:
    return len(name) < _LONGEST_NAME and _is_listed(name)


@functools.lru_cache(4096)  # the same few names occur in each of a thousand messages
def _is_listed(name: str) -> bool:
    return name in REFUSED or _REFUSED_SHAPES.fullmatch(name) is not None


@functools.lru_cache(4096)
def _has_refused_word(name: str) -> bool:
    return name not in _HARMLESS and not _REFUSED_WORDS.isdisjoint(word.lower() for word in _WORD.findall(name))


def refused_member(params: Mapping[str, object]) -> str | None:
    """The path of the first member that is refused, at any depth outside a JSON Schema.

    Raises ParamsTooLarge for an object with more members, or for more levels, than the limits.
    """
    found = _find(params, ())
    return None if found is None else _path(found)


def _find(value: object, kind: tuple[str, ...]) -> list[str | int] | None:
    """The steps to the member, the last one first. ``kind`` is the path to ``value`` without positions."""
    if isinstance(value, dict):
        return None if kind in _SCHEMAS else _find_in_object(value, kind)
    if isinstance(value, list):
        below = _below(kind, "[]")
        for position, member in enumerate(value):
            if isinstance(member, _NESTED) and (steps := _find(member, below)) is not None:
                steps.append(position)
                return steps
    return None


def _find_in_object(value: dict[str, object], kind: tuple[str, ...]) -> list[str | int] | None:
    if len(value) > MAX_MEMBERS:
        raise ParamsTooLarge(f"an object of the params has {len(value):,} members; the limit is {MAX_MEMBERS:,}")
    is_refused_here = _is_refused_in_data if kind[:1] and kind[0] in _DATA else is_refused
    for name, member in value.items():
        if is_refused_here(name) or (kind == ("metadata",) and _RESERVED_METADATA.fullmatch(name)):
            if kind == () and name == "cache" and member in (None, "auto"):
                continue  # the bridge's own member, which LiteLLM does not get
            return [name]
        if isinstance(member, _NESTED) and (steps := _find(member, _below(kind, name))) is not None:
            steps.append(name)
            return steps
    return None


def _below(kind: tuple[str, ...], step: str) -> tuple[str, ...]:
    if len(kind) >= MAX_DEPTH:
        raise ParamsTooLarge(f"the params are nested too deeply: the limit is {MAX_DEPTH} levels")
    return (*kind, step)


def _path(steps: list[str | int]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step:.256}" for step in reversed(steps)).removeprefix(".")
