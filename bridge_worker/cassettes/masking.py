"""Masks an exchange before it is written: known secrets, key-shaped text, and secrets that arrived in parts.

Owns the proof that a line has no secret that its parts spell together. Refuses to know which texts are secrets: ``redact`` does.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from typing import Any

from bridge_worker.cassettes.canonical import canonical, hash_of
from bridge_worker.security.redaction import REDACTED

Redact = Callable[[str], str]
Json = dict[str, Any]

# Not any text in the alphabet of base64: to search for those takes longer than all else.
_MARKS_OF_DATA = ("base64,", 'data"')
_DATA = re.compile(r"""(base64,|data\\?": ?\\?")([A-Za-z0-9+/]{24,})""")
_ESCAPE = re.compile(r"\\u00([2-7][0-9a-fA-F])")

IN_PARTS = "a secret arrived in parts; the provider's bytes were left out"


def in_data_too(redact: Redact) -> Redact:
    """``redact``, which also looks into the base64 of data URLs and files. One that has a secret goes whole."""

    def masked_data(found: re.Match[str]) -> str:
        text = base64.b64decode(found[2] + "=" * (-len(found[2]) % 4)).decode("ascii", "replace")
        return found[0] if redact(text) == text else found[1] + REDACTED

    def redact_all(text: str) -> str:
        text = redact(text)
        return _DATA.sub(masked_data, text) if any(mark in text for mark in _MARKS_OF_DATA) else text

    return redact_all


def hides_secret(body: str | Mapping[str, str], redact: Redact) -> bool:
    """Whether a body has a secret in a spelling that can't be masked there: in base64, or with escapes for letters."""
    if not isinstance(body, str):
        text = base64.b64decode(body["base64"]).decode("latin-1")
    elif "\\u00" in body:
        text = _ESCAPE.sub(lambda found: chr(int(found[1], 16)), body)
    else:
        return False
    return redact(text) != text


def masked_entry(entry: Json, redact: Redact) -> Json:
    """``entry`` without secrets, with the hash of its masked request."""
    request = masked_value(entry["request"], redact)
    entry = entry | {"request": request, "hash": hash_of(canonical(request))}
    entry = _without_spelled_secrets(entry, redact)
    entry = {name: value if name in ("request", "hash") else masked_value(value, redact) for name, value in entry.items()}
    return entry | ({"provider": [_with_reads(attempt) for attempt in entry["provider"]]} if entry.get("provider") else {})


def masked_value(value: Any, redact: Redact) -> Any:
    """Each text of ``value`` masked; of a member, where its name and text together look like a credential, the text."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, list):
        return [masked_value(member, redact) for member in value]
    if isinstance(value, dict):
        return {redact(name): _masked_member(name, member, redact) for name, member in value.items()}
    return value


def _masked_member(name: str, member: Any, redact: Redact) -> Any:
    """``{"api_key": "..."}`` is a credential by its name; alone, its text may be any word."""
    if not isinstance(member, str):
        return masked_value(member, redact)
    masked = redact(member)
    head = f'"{name}": "'
    shown = redact(f'{head}{masked}"')
    return masked if shown == f'{head}{masked}"' else shown.removeprefix(head).removesuffix('"')


def _without_spelled_secrets(entry: Json, redact: Redact) -> Json:
    """Deltas get texts in pieces, of which each may be harmless."""
    wire = entry["wire"]
    if wire.get("deltas") and any(redact(text) != text for text in _texts(wire)):
        return entry | {"wire": wire | {"deltas": _one_delta(wire)}, "provider": None, "why_no_bytes": IN_PARTS}
    return entry


def _with_reads(attempt: Json) -> Json:
    """A masked body has other lengths: it is read as one."""
    body, reads = attempt.get("body"), attempt.get("reads")
    if not isinstance(body, str) or not reads:
        return attempt
    size = len(body.encode("utf-8", "surrogatepass"))
    return attempt if size == sum(length for _, length in reads) else attempt | {"reads": [[reads[-1][0], size]]}


def _texts(wire: Mapping[str, Any]) -> list[str]:
    """The texts that the deltas add up to."""
    content, reasoning, arguments = "", "", ""
    for _, delta in wire.get("deltas") or ():
        if isinstance(delta, str):
            content += delta
            continue
        content += delta.get("content") or ""
        reasoning += delta.get("reasoning_content") or delta.get("refusal") or ""
        arguments += "".join(call.get("function", {}).get("arguments") or "" for call in delta.get("tool_calls") or ())
    return [content, reasoning, arguments]


def _one_delta(wire: Mapping[str, Any]) -> list[list[Any]]:
    """The whole response as one delta, which is masked like any text."""
    source: Mapping[str, Any] = wire.get("result") or ((wire.get("error") or {}).get("data") or {}).get("partial") or {}
    delta = {"content": source.get("content"), "reasoning_content": source.get("reasoning"), "refusal": source.get("refusal")}
    calls = [{"index": at, **call} for at, call in enumerate(source.get("tool_calls") or ())]
    shown = {name: value for name, value in delta.items() if value} | ({"tool_calls": calls} if calls else {})
    return [[wire["deltas"][-1][0], shown]] if shown else []
