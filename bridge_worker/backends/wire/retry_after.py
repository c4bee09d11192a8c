"""Reads the advice of a provider, or of LiteLLM's Router, when to try again.

Owns the reading of such advice: in headers of several names, as a number, a duration or a date, or in the error's sentence. Refuses
to know what went wrong.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

_PASSED_ON = "llm_provider-"  # prefix of the headers that a LiteLLM proxy passes on from its provider
_MAX_WAIT_MS = 7 * 86_400_000  # longer than any limit's window: a larger number is a date or invalid
_UNIT_MS = {"ms": 1, "": 1_000, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?) ?(ms|[smhd]?)")
_ADVICE = re.compile(  # OpenAI, Groq: "Please try again in 7m1.2s"; Azure: "retry after 26 seconds"; Gemini: "retryDelay": "7s"
    r"(?i:try again in|retry (?:in|after)|retryDelay\W{1,5})\s{0,2}((?:\d{1,9}(?:\.\d{1,9})? ?(?:ms|[smhd])[a-z]{0,6} ?){1,4})"
)


def wait_ms(headers: Mapping[str, str], text: str | None, *, seconds: float | None) -> int | None:
    """The first advice found: ``seconds`` of the Router, a header, and for a rate limit the words of its ``text``."""
    headers = {name.lower().removeprefix(_PASSED_ON): value for name, value in headers.items()}
    advice = [seconds and seconds * 1000, _number(headers.get("retry-after-ms")), _seconds_or_date(headers)]
    if text is not None:
        in_words = _ADVICE.search(text)
        advice += [_duration(in_words[1]) if in_words else None, _limit_reset(headers)]
    wait = next((wait for wait in advice if wait is not None and wait <= _MAX_WAIT_MS), None)
    return None if wait is None else max(0, math.ceil(wait))


def _seconds_or_date(headers: Mapping[str, str]) -> float | None:
    value = headers.get("retry-after", "")
    if (seconds := _number(value)) is not None:
        return seconds * 1000
    at, now = _date(value), _date(headers.get("date", ""))  # by the provider's clock, if it has one
    return None if at is None else (at - (now or time.time())) * 1000


def _limit_reset(headers: Mapping[str, str]) -> float | None:
    """OpenAI's x-ratelimit-reset-requests and -tokens: when the limit that is used up is whole again; else the sooner one."""
    waits = {limit: _duration(headers.get(f"x-ratelimit-reset-{limit}", "")) for limit in ("requests", "tokens")}
    known = {limit: wait for limit, wait in waits.items() if wait is not None}
    used_up = [wait for limit, wait in known.items() if headers.get(f"x-ratelimit-remaining-{limit}") == "0"]
    return max(used_up) if used_up else min(known.values(), default=None)


def _duration(text: str) -> float | None:
    """Milliseconds of "6m0s", "1.2s", "20 seconds" or "7", which is seconds."""
    parts = _DURATION.findall(text)
    return sum(float(number) * _UNIT_MS[unit] for number, unit in parts) if parts else None


def _number(text: str | None) -> float | None:
    return float(text) if text and re.fullmatch(r"\d{1,15}(?:\.\d{1,9})?", text) else None


def _date(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None
