"""The canonical form of a request, and its hash, by which a request finds its recorded exchange.

Owns what of a request counts: what a provider may receive. Deadlines, metadata and ``_meta`` do not. The form is RFC 8785 (JSON
Canonicalization Scheme), so that another implementation computes the same hash. Refuses to know files and masks.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Any

from bridge_worker.protocol.framing import json_text

if TYPE_CHECKING:  # pydantic, which the process that writes and the start of a replay do without
    from bridge_worker.core.ports import ChatRequest, EmbedRequest, RerankRequest

_NOT_COUNTED = ("metadata", "deadlines")
_MAX_EXACT = 2**53  # a larger integer has no own double


def of_chat(request: ChatRequest) -> dict[str, Any]:
    params = {"model": request.model, "messages": request.messages, **request.options}
    return _request("chat", params | ({"stream": True} if request.stream else {}))


def of_embed(request: EmbedRequest) -> dict[str, Any]:
    return _request("embed", {"model": request.model, "input": request.input, **request.options})


def of_rerank(request: RerankRequest) -> dict[str, Any]:
    params = {"model": request.model, "query": request.query, "documents": request.documents}
    return _request("rerank", params | request.options)


def of_tokens(model: str, messages: Any, tools: Any) -> dict[str, Any]:
    return _request("tokens/count", {"model": model, "messages": messages, "tools": tools})


def _request(method: str, params: Mapping[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in params.items() if value is not None and name not in _NOT_COUNTED}
    return {"method": method, "params": given}


def hash_of(text: str) -> str:
    """``text`` is a canonical form."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def canonical(value: Any) -> str:
    """RFC 8785: members sorted, no space, the shortest form of each number."""
    is_plain = _Plainness()
    sorted_value = is_plain.sort(value)
    if is_plain.holds:
        return json_text(sorted_value)  # in C
    return "".join(_write(sorted_value))


class _Plainness:
    """Sorts members. ``holds`` becomes false at a number that Python writes in another form than RFC 8785."""

    def __init__(self) -> None:
        self.holds = True

    def sort(self, value: Any) -> Any:
        if isinstance(value, str):
            return value
        if isinstance(value, dict):
            names = sorted(value) if all(map(str.isascii, value)) else sorted(value, key=_utf16)
            return {name: member if type(member := value[name]) is str else self.sort(member) for name in names}
        if isinstance(value, (list, tuple)):  # a union of types would be made at each call
            return [self.sort(member) for member in value]
        if isinstance(value, (float, int)) and not isinstance(value, bool):
            self.holds = self.holds and (str(value) == number(value))
        return value


def _utf16(name: str) -> bytes:
    return name.encode("utf-16-be", "surrogatepass")


def number(value: float) -> str:
    """ECMAScript's form of a double. An integer that no double holds exactly keeps its digits."""
    if isinstance(value, int):
        return str(value) if abs(value) >= _MAX_EXACT else str(int(value))
    if not math.isfinite(value):
        raise ValueError("JSON has no NaN and no infinity")
    if value == 0:
        return "0"
    sign, magnitude = ("-", -value) if value < 0 else ("", value)
    mantissa, _, exponent = f"{magnitude!r}e".partition("e")
    whole, _, fraction = mantissa.partition(".")
    shift = int(exponent.rstrip("e") or 0)
    digits = (whole + (fraction if fraction != "0" else "")).lstrip("0")
    lead = len(whole) + shift if whole.strip("0") else shift - (len(fraction) - len(fraction.lstrip("0")))
    digits = digits.rstrip("0") or "0"
    return sign + _placed(digits, lead)


def _placed(digits: str, point: int) -> str:
    """``digits`` with the decimal point after ``point`` of them, as ECMAScript's Number::toString places it."""
    if len(digits) <= point <= 21:
        return digits + "0" * (point - len(digits))
    if 0 < point <= 21:
        return f"{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"0.{'0' * -point}{digits}"
    exponent = point - 1
    head = digits[0] + (f".{digits[1:]}" if digits[1:] else "")
    return f"{head}e{'+' if exponent > 0 else '-'}{abs(exponent)}"


def _write(value: Any) -> list[str]:
    if isinstance(value, dict):
        members = [f"{encode_basestring(name)}:{''.join(_write(member))}" for name, member in value.items()]
        return ["{", ",".join(members), "}"]
    if isinstance(value, list):
        return ["[", ",".join("".join(_write(member)) for member in value), "]"]
    if isinstance(value, float | int) and not isinstance(value, bool):
        return [number(value)]
    return [json_text(value)]
