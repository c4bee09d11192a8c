"""Python's JSON decoder with the bridge's rules: UTF-8, no member twice, finite numbers. What the bridge's own is compared with."""

from __future__ import annotations

import json
import math
from typing import Any


def decode(line: bytes) -> Any:
    """Raises ValueError, or RecursionError for a value that is nested too deep."""
    return json.loads(line.decode("utf-8"), object_pairs_hook=_unique, parse_float=_finite, parse_constant=_refused)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError
    return dict(pairs)


def _finite(text: str) -> float:
    if not math.isfinite(float(text)):
        raise ValueError
    return float(text)


def _refused(_: str) -> None:
    raise ValueError
