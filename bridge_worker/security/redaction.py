"""Takes secrets out of text that leaves the process: error messages and log lines.

Owns what counts as a secret, every spelling in which one may turn up, and what an error message looks like on the wire. Refuses to
know where a text came from, which keys a config has (it is told, by `Redactor.add`) and how long a message may be. Every pattern is
linear in the text, whatever a provider sends: what repeats without bound is followed by nothing that could fail, and what can start
inside a failed match is bounded.
"""

from __future__ import annotations

import ast
import base64
import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import TypeVar
from urllib.parse import quote, quote_plus, unquote

REDACTED = "[redacted]"

_T = TypeVar("_T")

# Shorter than any provider's key and than the shortest password that is accepted nowadays. "true" and "1234" are all over honest
# text: to mask them would spoil it, and the holes would show what the value is.
_MIN_SECRET = 8
# Placeholder keys of local servers ("not-needed", "lm-studio"), regions ("us-east-1"), modes: words, when short, are no keys.
_WORDS = re.compile(r"[a-z]+(?:[-_.][a-z]+)*(?:-\d)?|[A-Z]+(?:_[A-Z]+)*")
_MAX_WORDS = 16

_SECRET_NAME = re.compile(
    r"(?!.*_(?:FILE|PATH|BUNDLE|REGION|PROFILE)$)"
    r"(?:AWS_|.*(?:KEYS?(?:_ID|_?\d+)?$|TOKEN|SECRET|PASSW|PASSPHRASE|CREDENTIAL|AUTH$|_PAT$|_DSN$))",
    re.IGNORECASE,
)
_HEADERS_NAME = re.compile(r"OTEL_EXPORTER_OTLP_(?:[A-Z]+_)?HEADERS")  # name=value,name=value, URL-encoded

# How the keys of a provider start, by what follows. Each is an alternative that begins with a literal, before any look-behind: the
# regex engine then passes over it at 2 ns a character instead of 30.
_KEY_STARTS = {
    r"[\w*-]{10,}": ("sk-", "csk-", "pk-", "pplx-", "xai-", "nvapi-", "glpat-", "xoxb-", "xoxp-"),  # OpenAI, Anthropic, xAI, ...
    r"[A-Za-z0-9*][\w*]{15,}": ("sk_", "gsk_", "hf_", "r8_", "fw_", "tgp_v1_", "jina_", "ghp_", "gho_", "ghs_", "github_pat_"),
    r"[\w.-]{16,}": ("AIza", "ya29."),  # Google
    r"[A-Z0-9]{12,}": ("AKIA", "ASIA"),  # AWS
    r"[\w-]{8,500}\.[\w.-]+": ("eyJ",),  # JSON Web Tokens
}
_CHARACTER = r"[^\s\"'`,;&\\[]"
# "Bearer authentication" is prose: a credential has a digit or is long.
_CREDENTIAL = rf"(?=[^\s\d\"'`,;&\\[]{{0,40}}\d|{_CHARACTER}{{20}}){_CHARACTER}{{8,}}"
_QUOTE = r"""\\?["']"""
_IS = (  # header: value, "name": "value", name='value', (b'header', b'value')
    rf"(?:(?:{_QUOTE})?[ \t]{{0,4}}[:=][ \t]{{0,4}}b?(?:{_QUOTE})?|{_QUOTE}, ?b?{_QUOTE})"
    rf"(?:(?i:bearer|basic)[ \t]{{1,4}}(){_CHARACTER}{{8,}}|(){_CREDENTIAL})"
)
# An empty group ends what stays readable: in "Authorization: Bearer xyz" all but the last word.
_SHAPES = re.compile(
    "|".join(
        [rf"{key[0]}(?<![A-Za-z0-9_].){re.escape(key[1:])}{rest}" for rest, keys in _KEY_STARTS.items() for key in keys]
        + [
            rf"[Bb](?<![A-Za-z0-9_].)(?i:earer|asic)[ \t]{{1,4}}(){_CREDENTIAL}",
            rf"[Aa](?i:pi[_-]?key|uthorization){_IS}",
            rf"[AaRrSs](?i:ccess|uth|efresh|ession|ecurity)(?i:[_-]?token){_IS}",
            rf"[SsPp](?i:ecret|ecret[_-]key|ecret[_-]?access[_-]?key|assword|asswd){_IS}",
            rf"[Aa](?i:pi key)(?: provided)?:?[ \t]{{1,4}}(){_CREDENTIAL}",
            r"[?&](?:key|token|sig|signature|code|X-Amz-[A-Za-z-]{1,30})=()[^&\s\"'<>#[]+",
            r"://()[^\s/@:\"'[]{0,128}:[^\s/@\"'[]{1,256}@",  # user:password@ in a URL
            # Without its end the rest of the text goes: no cut block is shown, and a thousand starts cost no more than one.
            r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----(?s:.*?-----END [A-Z ]{0,30}PRIVATE KEY-----|.*)",
        ]
    )
)


class Redactor:
    """Masks the values it knows, in every spelling, and whatever looks like a key.

    It knows the values of environment variables whose names say "credential", those of headers for OpenTelemetry's collector, and
    what it is told by `add`.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._spellings: tuple[str, ...] = ()
        for name, value in environ.items():
            if _SECRET_NAME.match(name):
                self.add(value)
            elif _HEADERS_NAME.fullmatch(name):
                for header in value.split(","):
                    self.add(unquote(header.partition("=")[2]))

    def add(self, value: str) -> None:
        """``value`` is a secret from now on, unless it is too short or too ordinary to be one."""
        value = value.strip()
        if len(value) < _MIN_SECRET or value in REDACTED or (len(value) < _MAX_WORDS and _WORDS.fullmatch(value)):
            return
        self._spellings = tuple(sorted({*self._spellings, *_spellings(value)}, key=len, reverse=True))

    def redact(self, text: str) -> str:
        # Known values first: a shape that starts earlier could cover the first half of one and leave the second. By plain search,
        # 50 ns a spelling: a regex of 200 alternatives tries each of them at each character.
        for spelling in self._spellings:
            if spelling in text:
                text = text.replace(spelling, REDACTED)
        return _SHAPES.sub(_mask, text)


def _mask(match: re.Match[str]) -> str:
    kept = match.end(match.lastindex) - match.start() if match.lastindex else 0
    return match[0][:kept] + REDACTED


def _spellings(value: str) -> Iterator[str]:
    quoted = json.dumps(value)[1:-1]
    yield from (value, quoted, json.dumps(quoted)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1])
    raw = value.encode("utf-8", "surrogateescape")  # as os.environ has it
    for encoded in (quote(raw, safe=""), quote(raw), quote_plus(raw)):
        yield from (encoded, re.sub("%..", lambda match: match[0].lower(), encoded))
    for before in range(3):  # base64 encodes three bytes together: what a value becomes depends on where it starts
        whole = base64.b64encode(b"\0" * before + raw).decode()
        own = whole[(before * 8 + 5) // 6 : (before + len(raw)) * 8 // 6]  # without the characters that its neighbours share
        yield from (own, own.replace("+", "-").replace("/", "_"))


# ---- error messages --------------------------------------------------------------------------------------------------------

_MAX_INPUT = 65_536  # characters of a text that are looked at; a provider's error page may have megabytes
_MAX_SECRET = 4_096  # a secret that the cut at _MAX_INPUT has split is within this distance of it

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
    cut = len(text) > _MAX_INPUT
    text = redactor.redact(text[:_MAX_INPUT])
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
