"""Whether params may be carried out, and if not, which member is at fault and what to do about it.

Owns the names that keep a half-trusted caller's params from reaching a key, a host or code, and the words in which pydantic's
findings are told. Refuses to change a value: params are validated and then the caller's own JSON is passed on, so that nothing is
lost or re-ordered on the way.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from bridge_worker.budgets.limits import BUDGET, check_path
from bridge_worker.errors import BridgeError
from bridge_worker.security import url_policy

M = TypeVar("M", bound=BaseModel)

# Members that could send a key to another host, read a file or a variable, run code, or fake an answer. LiteLLM takes them all as
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
    r"(?:aws|azure_ad|vertex|oci|gcs|s3|sagemaker|mock|litellm|user_api_key|_litellm|_websearch|_code_interpreter)_\w*"
    r"|(?:arize|braintrust|dd|humanloop|langfuse|langsmith|lunary|newrelic|posthog|signoz|slack|wandb|weave)_\w*"  # callbacks
    r"|anthropic[_-](?:disable|federation|identity|issuer|keycloak|organization|service|workspace)[\w-]*|openai_(?:identity|service)\w*"
    r"|\w*cost_per_\w*|\w*_token_cost\w*|\w*uplift_multiplier\w*"  # prices
    r"|\w*(?:api_key|api_base|api_url|base_url|endpoint_url|webhook_url|token_file|_oauth|_host|credentials?)"
)
# What LiteLLM keeps in metadata for itself: it trusts what it finds there, and breaks on what it has not written.
_RESERVED_METADATA = re.compile(
    r"_.*|user_api_key.*|litellm.*|requester_.*|routing_.*|attempted_.*|applied_.*|standard_logging_.*|request_retry_count|max_retries"
    r"|model_info|model_group|deployment|previous_models|hidden_params|raw_request|used_client_oauth_token|error_information"
    r"|guardrails|client_disconnected|cold_storage_object_key"
)
# A model's name ends up in a URL of its provider; what would leave its place there is no part of a name.
_NOT_IN_NAMES = re.compile(r"[\x00-\x1f\x7f\\?#%]|://|(?:^|/)\.{1,2}(?:/|$)")
_LONGEST_NAME = 128
# Below these a name is data: the members of a JSON Schema.
_SCHEMAS = re.compile(r"tools\[\d+\]\.function\.parameters|response_format\.json_schema\.schema")
_TOLD = 3  # faults a message names; the rest are counted


def validate(params: Mapping[str, Any], type: type[M]) -> M:
    """Raises BridgeError ``invalid_request`` that names the member at fault."""
    try:
        if refused := next(_refused(params, ""), None):
            wrong = f"{refused} is refused: it could send a key elsewhere, read a secret or run code"
            raise BridgeError("invalid_request", wrong)
        if _NOT_IN_NAMES.search(str(params.get("model"))):  # some of LiteLLM's providers take an address there, and send it the key
            raise BridgeError("invalid_request", "model must be a name, not an address or a part of one")
        validated = type.model_validate(params)
        _check_urls(params)
        if (budget := (params.get("metadata") or {}).get(BUDGET)) is not None:
            check_path(budget, f"metadata.{BUDGET}")
        return validated
    except ValidationError as error:
        raise BridgeError("invalid_request", _explain(error, params)) from None
    except RecursionError:
        raise BridgeError("invalid_request", "the params are nested too deeply") from None


def is_refused(name: str) -> bool:
    return len(name) < _LONGEST_NAME and _is_refused(name)


@functools.lru_cache(4096)  # the same few names stand in each of a thousand messages
def _is_refused(name: str) -> bool:
    return name in REFUSED or _REFUSED_SHAPES.fullmatch(name) is not None


def _check_urls(params: Mapping[str, Any]) -> None:
    if fault := next(url_policy.faults(params.get("messages")), None):
        raise BridgeError("invalid_request", f"{fault[0]} can't be passed on: {fault[1]}")


def _refused(value: object, path: str) -> Iterator[str]:
    if isinstance(value, dict):
        for name, member in value.items():
            place = f"{path}.{name}".lstrip(".")
            if is_refused(name) or (path == "metadata" and _RESERVED_METADATA.fullmatch(name)):
                yield place
            elif not isinstance(member, str) and not _SCHEMAS.fullmatch(place):
                yield from _refused(member, place)
    elif isinstance(value, list):
        for position, member in enumerate(value):
            yield from _refused(member, f"{path}[{position}]")


def _explain(error: ValidationError, params: object) -> str:
    """The first faults, each with the path that the caller would write."""
    reasons: dict[str, dict[str, None]] = {}
    for fault in error.errors(include_url=False, include_context=False, include_input=False):
        reasons.setdefault(_path(fault["loc"], params, fault["type"]), {})[_reason(fault["type"], fault["msg"])] = None
    # Of a union every branch complains; the branch that was meant is the one that got furthest.
    paths = [path for path in reasons if not any(other.startswith((f"{path}.", f"{path}[")) for other in reasons)]
    told = "; ".join(f"{path}: {' or '.join(reasons[path])}" for path in paths[:_TOLD])
    return f"{told} (and {len(paths) - _TOLD} more)" if len(paths) > _TOLD else told


def _path(location: tuple[int | str, ...], value: object, type: str) -> str:
    """pydantic's location without the names of union branches, which are no part of the caller's JSON."""
    path = ""
    for index, step in enumerate(location):
        last = index == len(location) - 1
        if isinstance(step, int):
            path += f"[{step}]"
            value = value[step] if isinstance(value, list) and step < len(value) else None
        elif isinstance(value, dict) and _is_member(location[: index + 1], value, last, type):
            path += f".{step}"
            value = value.get(step)
    return path.lstrip(".") or "params"


def _is_member(location: tuple[int | str, ...], value: dict[str, Any], last: bool, type: str) -> bool:
    """Not so for the tag of a union, which stands behind the index of a message or part."""
    step = location[-1]
    behind_index = len(location) > 1 and isinstance(location[-2], int)
    is_tag = behind_index and not last and step != "function" and step in (value.get("type"), value.get("role"))
    return not is_tag and (step in value or (last and type == "missing"))


def _reason(type: str, message: str) -> str:
    match type:
        case "extra_forbidden":
            return "no such member; see protocol.md for those there are"
        case "missing":
            return "is missing"
        case "string_pattern_mismatch":
            return "must be a data: or https: URL (or, for file_id, an id)"
        case "union_tag_not_found":
            return 'needs a "role" (a message) or a "type" (a part)'
        case "union_tag_invalid":
            return "there is no such role or type"
        case "model_type" | "model_attributes_type" | "dict_type":
            return "must be an object"
        case _:
            return message[:1].lower() + message[1:]
