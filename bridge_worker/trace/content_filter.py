"""Removes message content that a trace must not contain.

Owns which strings are facts (a model's name, an error's kind) and which are content. Without content, a trace has only the length
of a content string. A member that is not listed here is content. Refuses to know what a secret is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from bridge_worker.protocol.envelope import is_response

# Members with a fact of the call as text. A text longer than _LONGEST_FACT is content, whatever its member's name.
_FACTS = frozenset(
    """
    jsonrpc id method requestId progressToken tool_call_id traceparent tracestate protocolVersion version supportedVersions
    supported requested model requested_model served_model provider deployment deployments role type name kind outcome finish_reason
    raw_finish_reason deadline cost_source price_map_date mode tokenizer format encoding_format reasoning_effort tool_choice
    param change dropped unsupported_parameters member resultType cacheScope
    """.split()
)
_RESPONSE = frozenset({"result", "error"})
_ENVELOPE = ("jsonrpc", "id", *_RESPONSE)
_LONGEST_FACT = 200
# Members with free content of a caller, a tool or a provider; their members' names are content too.
_OPAQUE = frozenset(
    """
    parameters schema inputSchema outputSchema metadata provider_params provider_specific_fields logit_bias logprobs embeddings
    reasoning_items annotations
    """.split()
)
_NAME = re.compile(r"[\w./:-]{1,64}")
_DEEPEST = 24  # the wire's own messages have 10 levels
_LONGEST_TEXT = 65_536  # characters; longer texts, such as an image in base64, are cut because they make a trace unreadable


def without_content(value: Any, mask: Callable[[str], str], name: str = "", depth: int = 0) -> Any:
    """Replaces each content text in ``value`` with its length. Keeps lists and numbers, and masks facts and member names."""
    if isinstance(value, str):
        return mask(value) if name in _FACTS and len(value) <= _LONGEST_FACT else f"[{len(value)} characters]"
    if not isinstance(value, (dict, list)):  # twice as fast as a union
        return value
    if name in _OPAQUE or depth > _DEEPEST:
        return f"[{len(value)} {'members' if isinstance(value, dict) else 'items'}]"
    if isinstance(value, list):
        return [without_content(member, mask, name, depth + 1) for member in value]
    is_message = "role" in value  # the name in a message is a user's name
    return {
        _member_name(member, mask): without_content(held, mask, "" if is_message and member == "name" else member, depth + 1)
        for member, held in value.items()
    }


def with_content(value: Any, depth: int = 0) -> Any:
    """Returns ``value`` with its content; very long texts are cut."""
    if isinstance(value, str):
        rest = len(value) - _LONGEST_TEXT
        return value if rest <= 0 else f"{value[:_LONGEST_TEXT]}[{rest} more characters]"
    if not isinstance(value, dict | list):
        return value
    if depth > _DEEPEST:
        return f"[{len(value)} {'members' if isinstance(value, dict) else 'items'}]"
    if isinstance(value, list):
        return [with_content(member, depth + 1) for member in value]
    return {name: with_content(held, depth + 1) for name, held in value.items()}


def without_keys(value: Any) -> Any:
    """Leaves of a client's response to the worker only its envelope: the result is a key."""
    if isinstance(value, list):
        return [without_keys(member) for member in value]
    is_other = isinstance(value, dict) and "method" not in value and not _RESPONSE.isdisjoint(value)
    if not is_response(value) and not is_other:
        return value
    return {name: held if name in ("jsonrpc", "id") else "[not recorded]" for name, held in value.items() if name in _ENVELOPE}


def _member_name(member: str, mask: Callable[[str], str]) -> str:
    return member if member in _FACTS else mask(member) if _NAME.fullmatch(member) else f"[a name of {len(member)} characters]"
