"""JSON as providers send it, and values of it that may be anything.

Owns tolerance: NaN, infinities and numbers beyond a double become None, invalid UTF-8 becomes replacement characters. Refuses to
know a format.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

from bridge_worker.errors import BridgeError
from bridge_worker.protocol.value_counter import has_too_many_values

Json = dict[str, Any]
MAX_VALUES = 1_000_000  # of one message: 0.3 s to decode; 4,000 tokens with 20 log probabilities each have 640,000
MAX_QUOTE = 500  # characters of an unreadable response that an error quotes

_MAX_COUNT = 2**53  # a token count beyond it is not one


def parse(data: bytes | bytearray) -> Any:
    """The value. Raises ValueError for what is not JSON: also for nesting too deep and integers of thousands of digits; BridgeError
    ``bad_upstream_response`` for more than `MAX_VALUES` values, because their decoding would block the loop."""
    if len(data) > MAX_VALUES and has_too_many_values(data, MAX_VALUES):
        raise BridgeError("bad_upstream_response", f"the provider sent more than {MAX_VALUES:,} JSON values in one message")
    text = data.decode("utf-8", "replace")
    try:
        value, end = _SCAN(text, 0)
        return value if end == len(text) else _DECODE(text)
    except StopIteration:  # white space at the start, or not JSON
        pass
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None
    try:
        return _DECODE(text)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def _none(name: str) -> None:
    """NaN, Infinity and -Infinity, which the bridge's own wire cannot carry."""


# Built once: json.loads() with options makes a decoder at every call (8 us). The scanner without decode()'s two searches for white
# space saves 0.5 us of 3.
_DECODER = json.JSONDecoder(parse_constant=_none, parse_float=_finite)
_DECODE = _DECODER.decode
_SCAN = _DECODER.scan_once  # type: ignore[attr-defined]  # the stubs lack it


def text_of(value: Any) -> str | None:
    """``value`` if it is a string with content."""
    return value if isinstance(value, str) and value else None


def name_of(value: Any) -> str | None:
    """An id or a name: a string, or a number that stands for one."""
    if isinstance(value, str):
        return value or None
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _MAX_COUNT else None


def object_of(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def objects_of(value: Any) -> Iterator[Json]:
    """The objects in a list; anything else is skipped."""
    if isinstance(value, list):
        for member in value:
            if isinstance(member, dict):
                yield member


def count_of(value: Any) -> int | None:
    """A number of tokens."""
    if value is None or (type(value) is int and 0 <= value < _MAX_COUNT):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _MAX_COUNT:
        return None
    return int(value) if int(value) == value else None


def amount_of(value: Any) -> float | None:
    """An amount of money, which some providers send as a string."""
    if isinstance(value, bool) or not isinstance(value, int | float | str) or (isinstance(value, str) and len(value) > 40):
        return None
    try:
        amount = float(value)
    except (ValueError, OverflowError):
        return None
    return amount if math.isfinite(amount) and amount >= 0 else None


def first(*values: Any) -> Any:
    """The first value that is not None."""
    for value in values:
        if value is not None:
            return value
    return None
