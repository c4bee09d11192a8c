"""Decides which recorded request a request equals, and which comes nearest.

Owns what ``--match-ignore`` names: identifiers and dates by their patterns, and members by their path. Refuses to know files.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from bridge_worker.cassettes.canonical import canonical, hash_of
from bridge_worker.cassettes.masking import Redact, masked_value

PATTERNS: Mapping[str, str] = {
    "ids": (
        r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b"  # UUID
        r"|\b[0-9A-HJKMNP-TV-Z]{26}\b"  # ULID
        r"|\b(?=[0-9a-f]{0,40}\d)[0-9a-f]{16,64}\b"  # hexadecimal
        r"|\b[A-Za-z]{2,12}[_-](?=[A-Za-z_-]{0,40}\d)[A-Za-z0-9_-]{6,64}\b"  # call_1a2b3c4d, toolu_01..., chatcmpl-...
    ),
    "dates": (
        r"\b\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:[.,]\d{1,9})?)?(?: ?(?:Z|UTC|GMT|[+-]\d{2}:?\d{2}))?)?"
        r"|\b(?:(?:Mon|Tues?|Wed(?:nes)?|Thu(?:rs)?|Fri|Sat(?:ur)?|Sun)(?:day)?,? )?"
        r"(?:\d{1,2}(?:st|nd|rd|th)? )?(?:Jan|Feb|Mar|Apr|May|June?|July?|Aug|Sept?|Oct|Nov|Dec)[a-z]{0,6}\.?"
        r"(?: \d{1,2}(?:st|nd|rd|th)?,?)? \d{4}(?:,? (?:at )?\d{1,2}:\d{2}(?::\d{2})?(?: ?(?:[AaPp][Mm]|Z|UTC|GMT))?)?"
        r"|\b\d{1,2}[/.]\d{1,2}[/.]\d{4}\b"
        r"|\b\d{1,2}:\d{2}(?::\d{2}(?:\.\d{1,9})?)?(?: ?[AaPp][Mm])?\b"
        r"|\b1[5-9]\d{8}(?:\d{3})?\b"  # seconds or milliseconds of the epoch, 2017 to 2033
    ),
}
_DIGIT = re.compile(r"\d")
_MAX_DIFFERENCES = 20
_MAX_COMPARED = 4_000  # characters of a text, in the search for the nearest request


class Matching:
    """``ignored`` are names of `PATTERNS` and paths such as ``temperature`` or ``messages.*.name``."""

    def __init__(self, ignored: Iterable[str] = ()) -> None:
        self._patterns = [re.compile(PATTERNS[name]) for name in sorted(ignored) if name in PATTERNS]
        self._paths = [name.split(".") for name in ignored if name not in PATTERNS]

    @property
    def is_exact(self) -> bool:
        """Whether the hash of a recorded request is its key."""
        return not self._patterns and not self._paths

    def keys(self, request: Mapping[str, Any], redact: Redact) -> Iterator[str]:
        """The keys that a request may have in a cassette: as it came, and masked, if it has what is a secret here."""
        text = canonical(request)
        yield hash_of(text) if self.is_exact else self.recorded_key(request)
        if redact(text) != text:  # the search for secrets takes as long as the rest
            yield self.recorded_key(masked_value(request, redact))

    def recorded_key(self, request: Mapping[str, Any]) -> str:
        """The key of a request that is in the file, which is masked."""
        return hash_of(canonical(self.reduced(request)))

    def reduced(self, request: Mapping[str, Any]) -> Any:
        """``request`` without what is ignored."""
        reduced = _replaced(request, self._patterns)
        for path in self._paths:
            _remove(reduced["params"], path)
        return reduced


def _replaced(value: Any, patterns: list[re.Pattern[str]]) -> Any:
    if isinstance(value, str):
        return "\n".join(_replaced_in(line, patterns) for line in value.split("\n"))
    if isinstance(value, list):
        return [_replaced(member, patterns) for member in value]
    if isinstance(value, dict):
        return {name: _replaced(member, patterns) for name, member in value.items()}
    return value


def _replaced_in(line: str, patterns: list[re.Pattern[str]]) -> str:
    if _DIGIT.search(line):  # no identifier and no date is without one; this look is a hundred times as fast
        for pattern in patterns:
            line = pattern.sub("«»", line)
    return line


def _remove(value: Any, path: list[str]) -> None:
    name, *rest = path
    if isinstance(value, list):
        chosen = value if name == "*" else [value[int(name)]] if name.isdecimal() and int(name) < len(value) else []
        for member in chosen:
            if rest:
                _remove(member, rest)
    elif isinstance(value, dict):
        for key in list(value) if name == "*" else [name] if name in value else []:
            if rest:
                _remove(value[key], rest)
            else:
                del value[key]


def differences(wanted: Any, recorded: Any) -> list[str]:
    """The paths of the members that differ, at most `_MAX_DIFFERENCES`."""
    found: list[str] = []
    for path in _differing(wanted, recorded, ""):
        if len(found) == _MAX_DIFFERENCES:
            break
        found.append(path)
    return found


def _differing(left: Any, right: Any, path: str) -> Iterator[str]:
    if isinstance(left, dict) and isinstance(right, dict):
        for name in sorted(left.keys() | right.keys()):
            inner = f"{path}.{name}" if path else name
            if name not in left or name not in right:
                yield inner
            else:
                yield from _differing(left[name], right[name], inner)
    elif isinstance(left, list) and isinstance(right, list):
        for at in range(max(len(left), len(right))):
            inner = f"{path}.{at}" if path else str(at)
            if at >= len(left) or at >= len(right):
                yield inner
            else:
                yield from _differing(left[at], right[at], inner)
    elif canonical(left) != canonical(right):
        yield path


def distance(wanted: Mapping[str, Any], recorded: Mapping[str, Any]) -> float:
    """How far apart two requests of a method are: 0 for equal ones. Texts count by what they have in common."""
    return sum(_distance(*pair) for pair in _pairs(wanted, recorded))


def _pairs(left: Any, right: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(left, dict) and isinstance(right, dict):
        for name in left.keys() | right.keys():
            yield from _pairs(left.get(name), right.get(name))
    elif isinstance(left, list) and isinstance(right, list):
        for at in range(max(len(left), len(right))):
            yield from _pairs(left[at] if at < len(left) else None, right[at] if at < len(right) else None)
    else:
        yield left, right


def _distance(left: Any, right: Any) -> float:
    if left == right:
        return 0.0
    if isinstance(left, str) and isinstance(right, str):
        return 1.0 - difflib.SequenceMatcher(None, left[:_MAX_COMPARED], right[:_MAX_COMPARED]).quick_ratio() / 2
    return 1.0
