"""Reads what a provider's headers report of its limits: requests and tokens left, and when the first window is full again.

Owns the headers' names (OpenAI's, which many providers use, and Anthropic's) and the forms of their times. Refuses to know what a
limit leads to.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_MAX_DIGITS = 18  # below 2**63
_MAX_LENGTH = 64  # of a date or a duration
_EPOCH = 1e9  # seconds; a larger number is a date

RateLimits = dict[str, int | None]


def rate_limits(headers: Iterable[tuple[str, str]]) -> RateLimits | None:
    """The members of `schema.chat_result.RateLimits`; None where no header reports any. LiteLLM prefixes most header names."""
    found = {name.lower().removeprefix("llm_provider-"): str(value) for name, value in headers if "ratelimit" in name.lower()}
    if not found:
        return None
    requests = found.get("x-ratelimit-remaining-requests") or found.get("anthropic-ratelimit-requests-remaining")
    tokens = found.get("x-ratelimit-remaining-tokens") or found.get("anthropic-ratelimit-tokens-remaining")
    resets = [_milliseconds(value) for name, value in found.items() if "-reset" in name]
    reset = min((each for each in resets if each is not None), default=None)
    limits = {"requests_remaining": _number(requests), "tokens_remaining": _number(tokens), "reset_ms": reset}
    return limits if any(value is not None for value in limits.values()) else None


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS else None


def _milliseconds(text: str) -> int | None:
    """None for what no provider means: infinity, or more digits than a date has."""
    if len(text) > _MAX_LENGTH:
        return None
    with suppress(OverflowError, ValueError):  # of round(): infinity and NaN
        return _read_milliseconds(text)
    return None


def _read_milliseconds(text: str) -> int | None:
    """OpenAI: "6m0s", "20ms"; Anthropic: a date; others: seconds, or the seconds of the epoch."""
    parts = _DURATION.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return round(sum(float(number) * _UNIT_MS[unit] for number, unit in parts))
    with suppress(ValueError):
        seconds = float(text)
        return max(0, round((seconds - time.time() if seconds > _EPOCH else seconds) * 1000))
    with suppress(ValueError):
        return max(0, round((datetime.fromisoformat(text).timestamp() - time.time()) * 1000))
    return None
