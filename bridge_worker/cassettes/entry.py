"""The line of one exchange: how it is written and read.

Owns the order of the members, by which a line is found without parsing it, and the form of bytes: text as text, base64 for what is
not UTF-8. Refuses to know files, and what a backend does with an entry.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from bridge_worker.cassettes.canonical import hash_of
from bridge_worker.cassettes.masking import IN_PARTS, Json, Redact, hides_secret, masked_entry
from bridge_worker.core.exchange import Tape
from bridge_worker.protocol.framing import encode, json_text

FORMAT = 1
HEADER = re.compile(rb'\{\s*"cassette"\s*:\s*(\d+)\s*[,}]')
# Before the request, so that an index reads the first hundred bytes of a line.
HEAD = re.compile(rb'\{"exchange":"([a-z/]+)","hash":"([0-9a-f]{64})","request":')
NOT_READ = "no provider's response was read: LiteLLM's cache, its request over another HTTP client, or a model of this machine"
# Response headers that decoders, rate limits and prices read. No other is kept: a cookie or an account may be in it.
_HEADERS = re.compile(
    r"content-type|retry-after(?:-ms)?|.*ratelimit.*|x-litellm-version|x-litellm-response-cost|x-should-retry|x-amzn-errortype",
    re.IGNORECASE,
)


@dataclass(slots=True)
class Exchanged:
    """What happened to one request, as it is handed to the writer. ``ms`` is since the request was received."""

    method: str
    canonical: str
    time: str
    tapes: list[Tape] = field(default_factory=list)
    deltas: list[tuple[float, Any]] = field(default_factory=list)
    ms: float = 0.0
    outcome: str = ""  # JSON: a result is changed after it was made, such as by the check of its tool calls
    error_kind: str | None = None


def line_of(done: Exchanged, versions: Mapping[str, str | None], redact: Redact) -> bytes:
    """The line of an exchange, masked, with its newline."""
    text = _line(done.method, hash_of(done.canonical), done.canonical, _rest(done, versions))
    if redact(text) == text and not _spells_secret(done, redact):
        return text.encode("utf-8", "backslashreplace") + b"\n"
    entry = masked_entry(json.loads(text), redact)
    if _hides_secret(done.tapes, redact):
        entry |= {"provider": None, "why_no_bytes": IN_PARTS}
    return entry_line(entry)


def entry_line(entry: Json) -> bytes:
    """The line of an entry that was read."""
    request = json_text(entry["request"])
    rest = {name: value for name, value in entry.items() if name not in ("exchange", "hash", "request")}
    return _line(entry["exchange"], entry["hash"], request, json_text(rest)).encode("utf-8", "backslashreplace") + b"\n"


def header_line(**members: object) -> bytes:
    return encode({"cassette": FORMAT, **members})


def _line(method: str, hash: str, canonical: str, rest: str) -> str:
    return f'{{"exchange":"{method}","hash":"{hash}","request":{canonical},{rest[1:]}'


def _rest(done: Exchanged, versions: Mapping[str, str | None]) -> str:
    provider = [_attempt(tape) for tape in done.tapes] or None
    members = {
        "time": done.time,
        "ms": done.ms,
        "versions": versions,
        "provider": provider,
        **({} if provider else {"why_no_bytes": NOT_READ}),
        "wire": {"deltas": [list(delta) for delta in done.deltas]},
    }
    name = "result" if done.error_kind is None else "error"
    head = json_text(members)[:-2]  # without the two ends of objects
    return f'{head},"{name}":{done.outcome}}}}}'


def _attempt(tape: Tape) -> Json:
    end = "whole" if tape.ended else "cut" if tape.failure is not None else "left"
    return {
        "attempt": tape.attempt,
        "sent_ms": round((tape.sent - tape.started) * 1000, 3),
        "model": tape.model,
        "provider": tape.provider,
        "format": tape.format,
        "renamed_tools": dict(tape.renamed),
        "schema_tool": tape.schema_tool,
        "status": tape.status,
        "response_headers": chosen_headers(tape.headers),
        "body": readable(b"".join(piece.data for piece in tape.pieces)),
        "reads": [[piece.ms, len(piece.data)] for piece in tape.pieces],
        "end": end,
        **({"failure": tape.failure, "timed_out": tape.timed_out} if tape.failure is not None else {}),
    }


def chosen_headers(headers: Mapping[str, str]) -> dict[str, str]:
    return {f"{name}".lower(): f"{value}" for name, value in headers.items() if _is_read(name)}


@lru_cache(512)
def _is_read(name: str) -> bool:
    return _HEADERS.fullmatch(name) is not None


def readable(data: bytes) -> str | dict[str, str]:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode("ascii")}


def raw(body: str | Mapping[str, str]) -> bytes:
    """The inverse of `readable`."""
    return body.encode("utf-8", "surrogatepass") if isinstance(body, str) else base64.b64decode(body["base64"])


def _spells_secret(done: Exchanged, redact: Redact) -> bool:
    """Whether texts that came in pieces are a secret together."""
    content = "".join(delta if isinstance(delta, str) else delta.get("content") or "" for _, delta in done.deltas)
    arguments = "".join(_arguments(delta for _, delta in done.deltas))
    return any(redact(text) != text for text in (content, arguments) if text) or _hides_secret(done.tapes, redact)


def _arguments(deltas: Iterable[Any]) -> Iterable[str]:
    for delta in deltas:
        if isinstance(delta, dict):
            yield delta.get("reasoning_content") or delta.get("refusal") or ""
            yield from (call.get("function", {}).get("arguments") or "" for call in delta.get("tool_calls") or ())


def _hides_secret(tapes: Sequence[Tape], redact: Redact) -> bool:
    return any(hides_secret(readable(b"".join(piece.data for piece in tape.pieces)), redact) for tape in tapes)
