"""Decides which members of a config may be shown: in `--print-config`, and in whatever else repeats a config's value.

Owns the list of members that are known to be harmless. Any other may hold a secret, whatever its name is: a header, the URL of a
webhook, the environment of a tool. Its text is masked, and registered as a secret so that no log line, error or trace has it.
Refuses to mask anything itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from bridge_worker.config.env_references import REFERENCES, is_secret
from bridge_worker.config.gateway_keys import CALLBACKS, LITELLM_KINDS, NUMBERS, PARAMS, ROUTER

_KEYS = frozenset("api_key aws_access_key_id aws_secret_access_key aws_session_token vertex_credentials".split())
_PRICES = frozenset(
    """
    input_cost_per_token output_cost_per_token input_cost_per_second output_cost_per_second input_cost_per_query
    input_cost_per_image cache_read_input_token_cost cache_creation_input_token_cost
    """.split()
)
_MORE_PARAMS = frozenset(
    """
    base_model stop seed n reasoning_effort stream mode frequency_penalty presence_penalty max_completion_tokens parallel_tool_calls
    response_format modify_params watsonx_region_name aws_bedrock_runtime_endpoint dimensions encoding_format
    """.split()
)
_PARAMS = (PARAMS | NUMBERS | _PRICES | _MORE_PARAMS) - _KEYS - {"extra_headers", "extra_body", "mock_response"}
_INFO = _PRICES | frozenset(
    """
    id mode base_model max_tokens max_input_tokens max_output_tokens litellm_provider supported_modalities
    supported_output_modalities access_groups tier
    """.split()
)
_ROUTER = ROUTER.keys() - {"redis_password", "redis_url", "cache_kwargs", "default_litellm_params", "routing_strategy_args"}
_LITELLM = (LITELLM_KINDS.keys() - {"cache_params"}) | {
    *CALLBACKS,
    "vertex_project",
    "vertex_location",
    "project",
    "budget_duration",
}
_CACHE = frozenset("type host port ttl namespace mode supported_call_types db similarity_threshold".split())
# The path of members, without positions in lists, up to the one that is in the set.
_SHOWN: dict[tuple[str, ...], frozenset[str]] = {
    (): frozenset({"include"}),
    ("model_list",): frozenset({"model_name"}),
    ("model_list", "litellm_params"): _PARAMS,
    ("model_list", "model_info"): _INFO,
    ("router_settings",): frozenset(_ROUTER),
    ("router_settings", "default_litellm_params"): _PARAMS,
    ("litellm_settings",): frozenset(_LITELLM),
    ("litellm_settings", "cache_params"): _CACHE,
    ("general_settings",): frozenset({"completion_model", "user_url_allowed_hosts", "provider_url_destination_allowed_hosts"}),
    ("credential_list",): frozenset({"credential_name"}),
}


def is_shown(*steps: object) -> bool:
    """Whether the value at this path of members is known to be harmless."""
    names = [str(step) for step in steps if not isinstance(step, int)]
    for at, name in enumerate(names):
        if name in _SHOWN.get(tuple(names[:at]), ()):
            return not any(map(is_secret, names[at + 1 :]))
    return False


def hidden_texts(tree: Any) -> Iterator[str]:
    """The texts of a config that must not be shown: those at a member that is not known to be harmless, and nowhere else.

    Of a URL also the parts behind its host: one is a webhook's key.
    """
    shown, hidden = set[str](), set[str]()
    for steps, text in _texts(tree, ()):
        (shown if is_shown(*steps) or steps[0] == "omni_bridge" else hidden).add(text)
    hidden |= {part for text in hidden if "://" in text for part in re.split(r"[/?&=#]", text.partition("://")[2])[1:]}
    return (text for text in hidden - shown if not text.startswith(REFERENCES))


def _texts(value: Any, steps: tuple[object, ...]) -> Iterator[tuple[tuple[object, ...], str]]:
    if isinstance(value, dict):
        for name, member in value.items():
            yield from _texts(member, (*steps, name))
    elif isinstance(value, list):
        for position, item in enumerate(value):
            yield from _texts(item, (*steps, position))
    elif isinstance(value, str) and steps:
        yield steps, value
