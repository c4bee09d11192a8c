"""Removes message content that a trace must not contain.

Owns which strings are facts (a model's name, an error's kind) and which are what somebody said. Without content, of the latter only
the length is kept; what is new on the wire counts as said until it is listed here. Refuses to know what a secret is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

# Members whose text is a fact of the call. A longer text than any of these has is no fact, whatever it is called.
_FACTS = frozenset(
    """
    jsonrpc id method requestId progressToken tool_call_id traceparent tracestate protocolVersion version supportedVersions
    supported requested model requested_model served_model provider deployment deployments role type name kind outcome finish_reason
    raw_finish_reason deadline cost_source price_map_date mode tokenizer format encoding_format reasoning_effort tool_choice
    param change dropped unsupported_parameters member resultType cacheScope
    """.split()
)
_LONGEST_FACT = 200
# Members that hold whatever a caller, a tool or a provider puts there, under names of their own.
_OPAQUE = frozenset(
    """
    parameters schema inputSchema outputSchema metadata provider_params provider_specific_fields logit_bias logprobs embeddings
    reasoning_items annotations
    """.split()
)
_NAME = re.compile(r"[\w./:-]{1,64}")
_DEEPEST = 24  # the wire's own messages have 10 levels
_LONGEST_TEXT = 65_536  # of a text that is kept: an image in base64 helps nobody who reads a trace


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
    speaker = "role" in value  # of a message: its name is a person's
    return {
        _named(member, mask): without_content(held, mask, "" if speaker and member == "name" else member, depth + 1)
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


def _named(member: str, mask: Callable[[str], str]) -> str:
    return member if member in _FACTS else mask(member) if _NAME.fullmatch(member) else f"[a name of {len(member)} characters]"
