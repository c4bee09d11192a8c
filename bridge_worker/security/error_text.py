"""Turns an error text into the message of a wire error: one line, bounded, without secrets, paths and tracebacks.

Owns the rules by which a provider message is taken out of the text that LiteLLM and the provider put around it. Refuses to know
where a text came from and how long a message may be.
"""

from __future__ import annotations

import ast
import json
import re
from typing import TypeVar

from bridge_worker.security.redaction import Redactor

_T = TypeVar("_T")

MAX_TEXT = 16_384  # characters of a text that are read; a provider's error page may have megabytes
_MAX_SECRET = 4_096  # a secret that the cut at MAX_TEXT has split is within this distance of it

_TAIL = re.compile(  # what LiteLLM puts behind the provider's sentence
    r"Traceback \(most recent call last|This looks like a bug in LiteLLM|LiteLLM: model group|Deployment Info|Received Model Group"
    r"|Available Model Group Fallbacks|Received Messages=|model=\S{1,200} con(?:text_window|tent_policy)_fallback| Error_str: "
    r"| LiteLLM Retried: | Original exception: | Passed model="
    r"|\. Handle with `litellm|\. File an issue if litellm|\. To drop these, set `litellm|, or set `litellm|; an admin can check"
)
_PREFIX = re.compile(  # "litellm.RateLimitError: RateLimitError: OpenAIException - ", also doubled
    r"\s*(?:(?:litellm\.)?[A-Z]\w{0,60}(?:Error|Exception|Timeout)|litellm\.Timeout|Timeout Error|LiteLLM)"
    r"(?: [A-Z]\w{0,60}){0,2}(?::| -)\s"
)
_HTML = re.compile(r"<!doctype html|<html[\s>]", re.IGNORECASE)
_TITLE = re.compile(r"<title[^<>]{0,200}>([^<]{1,200})", re.IGNORECASE)
_WINDOWS_WORD = r"[^\\/:*?\"'<>|\s]{1,100}"
_PATH = re.compile(
    r"(?<![\w.:/@+~-])(?:file://)?"  # not a URL's, and not again within one that is none
    r"(?:(?:~|/(?:home|Users|root|tmp|var|usr|opt|private|etc|nix|srv|mnt|Library|Applications))/[^\s\"'`<>|:,;)\]]*"
    r"|(?:/[\w.@+~-]+)+?\.py\b"
    rf"|[A-Za-z]:(?:\\{{1,2}}{_WINDOWS_WORD}(?:(?: {_WINDOWS_WORD}){{1,4}}(?=\\))?)+)"
)


def clean(text: str, redactor: Redactor, max_bytes: int) -> str:
    """``text`` as it may stand in an error message on the wire: one line without secrets, tracebacks and paths, in at most
    ``max_bytes`` of UTF-8."""
    cut = len(text) > MAX_TEXT
    text = redactor.redact(text[:MAX_TEXT])
    text = text[:-_MAX_SECRET] if cut else text
    text = _PATH.sub("[path]", sentence(text))
    return _shortened(redactor.redact(text), max_bytes)  # once more, because JSON was decoded


def sentence(text: str) -> str:
    """The provider's own sentence in ``text``, on one line: without what LiteLLM puts before and behind it, out of its JSON.

    Where the provider is a LiteLLM proxy, that JSON holds such a text again: all of it, so before the end is cut off.
    """
    text = _without_prefix(text)
    if text.startswith("{") and (inner := _json_at_start(text)):
        return sentence(inner)  # no deeper than quotes can be escaped, which doubles their length each time
    text = _without_prefix(_TAIL.split(text, maxsplit=1)[0])
    if text.startswith(("b'", 'b"')):  # a streamed body, which LiteLLM quotes as Python's repr
        text = _literal(text.rstrip("."), bytes, b"").decode("utf-8", "replace") or text[2:]
    return " ".join(_without_html(_json_message(text) or text).split()) or "no reason was given"


def _without_prefix(text: str) -> str:
    start = 0
    while prefix := _PREFIX.match(text, start):
        start = prefix.end()
    return text[start:].strip()


def _json_at_start(text: str) -> str | None:
    try:
        return _message_in(json.JSONDecoder().raw_decode(text)[0])
    except (ValueError, RecursionError):
        return None


def _json_message(text: str) -> str | None:
    """The innermost message of an error body within ``text``: JSON, or the repr of the same."""
    start = text.find("{")
    if start < 0:
        return None
    try:
        return _message_in(json.JSONDecoder().raw_decode(text, start)[0])
    except (ValueError, RecursionError):
        return _message_in(_literal(text[start : text.rfind("}") + 1], dict, {}))


def _literal(text: str, kind: type[_T], otherwise: _T) -> _T:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return otherwise
    return value if isinstance(value, kind) else otherwise


def _message_in(body: object) -> str | None:
    for _ in range(4):  # deep enough for {"error": {"message": ...}}
        if not isinstance(body, dict):
            break
        body = next((body[name] for name in ("error", "message", "detail", "error_description") if body.get(name)), None)
    return body if isinstance(body, str) else None


def _without_html(text: str) -> str:
    page = _HTML.search(text)
    if not page:
        return text
    title = _TITLE.search(text, page.start())
    return text[: page.start()] + (f'an HTML page "{title[1].strip()}"' if title else "an HTML page")


def _shortened(text: str, max_bytes: int) -> str:
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= max_bytes:
        return encoded.decode()
    return encoded[: max_bytes - 3].decode("utf-8", "ignore") + "…"
