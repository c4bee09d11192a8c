"""Takes secrets out of text that leaves the process: error messages and log lines.

Owns what counts as a secret and every spelling in which one may turn up. Refuses to know where a text came from and which keys a
config has (`Redactor.add` receives them). Every pattern is linear in the text, whatever a provider sends: what repeats unbounded
is followed by nothing that could fail, and what can start inside a failed match is bounded.
"""

from __future__ import annotations

import base64
import functools
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from urllib.parse import quote, quote_plus, unquote

REDACTED = "[redacted]"

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

# How the keys of a provider start, by what follows.
_KEY_STARTS = {
    r"[\w*-]{10,}": ("sk-", "csk-", "pk-", "pplx-", "xai-", "nvapi-", "glpat-", "xoxb-", "xoxp-"),  # OpenAI, Anthropic, xAI, ...
    r"[A-Za-z0-9*][\w*]{15,}": ("sk_", "gsk_", "hf_", "r8_", "fw_", "tgp_v1_", "jina_", "ghp_", "gho_", "ghs_", "github_pat_"),
    r"[\w.-]{16,}": ("AIza", "ya29."),  # Google
    r"[A-Z0-9]{12,}": ("AKIA", "ASIA"),  # AWS
    r"[\w-]{8,500}\.[\w.-]+": ("eyJ",),  # JSON Web Tokens
}


def _key_shape(start: str, rest: str) -> str:
    return rf"{start[0]}(?<![A-Za-z0-9_].){re.escape(start[1:])}{rest}"


_CHARACTER = r"[^\s\"'`,;&\\[]"
# "Bearer authentication" is prose: a credential has a digit or is long.
_CREDENTIAL = rf"(?=[^\s\d\"'`,;&\\[]{{0,40}}\d|{_CHARACTER}{{20}}){_CHARACTER}{{8,}}"
_QUOTE = r"""\\?["']"""
_IS = (  # header: value, "name": "value", name='value', (b'header', b'value')
    rf"(?:(?:{_QUOTE})?[ \t]{{0,4}}[:=][ \t]{{0,4}}b?(?:{_QUOTE})?|{_QUOTE}, ?b?{_QUOTE})"
    rf"(?:(?i:bearer|basic)[ \t]{{1,4}}(){_CHARACTER}{{8,}}|(){_CREDENTIAL})"
)
# Each shape by a text in lower case that is in whatever it matches. Most texts have none of these texts, and to search for all
# takes a quarter of the time of the regular expressions. An empty group ends what stays readable: in "Authorization: Bearer xyz"
# all but the last word. Each shape begins with a literal, before any look-behind: the regex engine then passes over it at 2 ns a
# character instead of 30.
_SHAPES: tuple[tuple[str, str], ...] = (
    *((key.lower(), _key_shape(key, rest)) for rest, keys in _KEY_STARTS.items() for key in keys),
    *((scheme, rf"[Bb](?<![A-Za-z0-9_].)(?i:{scheme[1:]})[ \t]{{1,4}}(){_CREDENTIAL}") for scheme in ("bearer", "basic")),
    *((f"api{dash}key", rf"[Aa](?i:pi{dash}key){_IS}") for dash in ("_", "-", "")),
    ("authorization", rf"[Aa](?i:uthorization){_IS}"),
    *(
        (name, rf"[{name[0].upper()}{name[0]}](?i:{name[1:]}[_-]?token){_IS}")
        for name in ("access", "auth", "refresh", "session", "security")
    ),
    ("secret", rf"[Ss](?i:ecret|ecret[_-]key|ecret[_-]?access[_-]?key){_IS}"),
    *((name, rf"[Pp](?i:{name[1:]}){_IS}") for name in ("password", "passwd")),
    ("api key", rf"[Aa](?i:pi key)(?: provided)?:?[ \t]{{1,4}}(){_CREDENTIAL}"),
    *((mark, rf"[{mark}](?:key|token|sig|signature|code|X-Amz-[A-Za-z-]{{1,30}})=()[^&\s\"'<>#[]+") for mark in "?&"),
    ("://", r"://()[^\s/@:\"'[]{0,128}:[^\s/@\"'[]{1,256}@"),  # user:password@ in a URL
    # Without its end the rest of the text goes: no cut block is shown, and a thousand starts cost no more than one.
    (
        "private key-----",
        r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----(?s:.*?-----END [A-Z ]{0,30}PRIVATE KEY-----|.*)",
    ),
)
_MARKS = tuple(dict.fromkeys(mark for mark, _ in _SHAPES))
_FEW = 2


def _of_last(last: str) -> tuple[Callable[[str], object], tuple[str, ...]]:
    marks = tuple(mark for mark in _MARKS if mark.endswith(last))
    ends = {size: "|".join(sorted({re.escape(mark[-4:]) for mark in marks if len(mark[-4:]) == size})) for size in (3, 4)}
    return re.compile(f"{last}(?:(?<={ends[3]})|(?<={ends[4]}))").search, marks


def _with(part: str) -> tuple[Callable[[str], object], tuple[str, ...]]:
    return re.compile(part).search, tuple(mark for mark in _MARKS if part in mark and mark[-1] not in "-_")


# (search for what all marks of a group have, the marks): each search for a mark takes 0.7 ns a character, and half of the marks
# end with one of two characters, which are found sooner.
_GROUPS = (*map(_of_last, "-_"), *map(_with, ("api", "auth", "passw")))
_ALONE = tuple(mark for mark in _MARKS if not any(mark in marks for _, marks in _GROUPS))


def _marks_in(lower: str) -> tuple[str, ...]:
    marks = [mark for search, marks in _GROUPS if search(lower) for mark in marks if mark in lower]
    return (*marks, *(mark for mark in _ALONE if mark in lower))


_FOLDED = "\u0131\u0130\u017f\u212a"  # a regular expression takes them for i, s and k, and `lower` keeps some


@functools.cache
def _pattern(marks: tuple[str, ...]) -> re.Pattern[str]:
    """``marks`` are at most `_FEW` or all: a text of a provider's may not have a pattern compiled for it alone."""
    return re.compile("|".join(shape for mark, shape in _SHAPES if mark in marks))


class Redactor:
    """Masks the values it knows, in every spelling, and whatever looks like a key.

    It knows the values of environment variables with a name for credentials, those of headers for OpenTelemetry's collector, and
    the values passed to `add` and `hold`.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._lasting: frozenset[str] = frozenset()
        self._held: Counter[str] = Counter()
        self._spellings: tuple[str, ...] = ()
        for name, value in environ.items():
            if _SECRET_NAME.match(name):
                self.add(value)
            elif _HEADERS_NAME.fullmatch(name):
                for header in value.split(","):
                    self.add(unquote(header.partition("=")[2]))

    def add(self, value: str) -> None:
        """``value`` is a secret from now on, unless it is too short or too ordinary to be one."""
        if _is_secret(value := value.strip()):
            self._lasting |= {*_spellings(value)}
            self._arrange()

    def hold(self, values: Iterable[str]) -> None:
        """``values`` are secrets until `release` is called as often with them."""
        self._held.update(values)
        self._arrange()

    def release(self, values: Iterable[str]) -> None:
        self._held -= Counter(values)
        self._arrange()

    def _arrange(self) -> None:
        held = (spelling for value in self._held if _is_secret(value.strip()) for spelling in _spellings(value.strip()))
        self._spellings = tuple(sorted(self._lasting.union(held), key=len, reverse=True))

    def without_held(self) -> Redactor:
        """For a process that would never hear of `release`."""
        copied = Redactor({})
        copied._lasting = self._lasting
        copied._arrange()
        return copied

    @property
    def known(self) -> object:
        """Another object whenever a secret was added or released."""
        return self._spellings

    def redact(self, text: str) -> str:
        # Known values first: a shape that starts earlier could cover the first half of one and leave the second. By plain search,
        # 50 ns a spelling: a regex of 200 alternatives tries each of them at each character.
        for spelling in self._spellings:
            if spelling in text:
                text = text.replace(spelling, REDACTED)
        lower = text.lower()
        is_plain = text.isascii() or not any(letter in text for letter in _FOLDED)
        marks = _marks_in(lower) if is_plain else _MARKS
        return _pattern(marks if len(marks) <= _FEW else _MARKS).sub(_mask, text) if marks else text


def _is_secret(value: str) -> bool:
    return len(value) >= _MIN_SECRET and value not in REDACTED and not (len(value) < _MAX_WORDS and _WORDS.fullmatch(value))


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
