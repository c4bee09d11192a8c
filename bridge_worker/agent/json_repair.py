"""Corrects what a model writes around and into JSON by habit: code fences, text around it, trailing commas, a missing end.

Owns what counts as mechanical: no value is guessed. A text that is cut off keeps its complete members, and the last string as far
as it came. Refuses to know a schema.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

MAX_CHARACTERS = 1024 * 1024  # a longer text is not repaired
_FENCE = re.compile(r"```[A-Za-z0-9_+-]*[ \t]*\r?\n")
_TOKEN = re.compile(r'[ \t\r\n]+|"(?:[^"\\]|\\.)*"|[{}\[\],:]|"|[^ \t\r\n{}\[\],:"]+', re.DOTALL)
_HALF_PAIR = r"\\u[dD][89abAB][0-9a-fA-F]{2}(?:\\(?:u[0-9a-fA-F]{0,3})?)?"
_ESCAPE_CUT = re.compile(rf"(?<!\\)(?:\\\\)*({_HALF_PAIR}|\\(?:u[0-9a-fA-F]{{0,3}})?)\Z")
_PYTHON = {"True": "true", "False": "false", "None": "null"}
_CLOSING = {"{": "}", "[": "]"}


class Repaired(NamedTuple):
    """``changes`` names what was done; ``cut``: the text ended too early."""

    text: str
    changes: list[str]
    cut: bool


def repair(text: str, *, was_cut: bool) -> Repaired | None:
    """JSON made of ``text``, None where more than its form is wrong. ``was_cut``: the response ended at its limit of tokens."""
    if len(text) > MAX_CHARACTERS:
        return None
    changes: list[str] = []
    body = _without_fence(text.strip(), changes)
    body = _without_prose(body, changes)
    if is_json(body):
        return Repaired(body, changes, cut=False)
    tokens = _Tokens(body)
    if tokens.dropped_commas:
        changes.append("trailing commas were removed")
    if tokens.replaced_words:
        changes.append("Python's True, False and None became JSON's")
    if (cut := tokens.is_open) and not tokens.close(was_cut=was_cut):
        return None
    if cut:
        changes.append("the missing end was added")
    repaired = _reencoded("".join(tokens.written), changes)
    return None if repaired is None else Repaired(repaired, changes, cut)


def is_json(text: str) -> bool:
    try:
        json.loads(text, parse_constant=_not_json)
    except (ValueError, RecursionError):
        return False
    return True


def _reencoded(text: str, changes: list[str]) -> str | None:
    """Line breaks within a string are escaped: the one thing that a lenient parser accepts and a strict one does not."""
    if is_json(text):
        return text
    try:
        value: Any = json.loads(text, strict=False, parse_constant=_not_json)
    except (ValueError, RecursionError):
        return None
    changes.append("control characters within strings were escaped")
    return json.dumps(value, ensure_ascii=False)


def _not_json(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _without_fence(text: str, changes: list[str]) -> str:
    found = _FENCE.search(text) if "```" in text and text[:1] not in ("{", "[") else None
    if found is None:
        return text
    changes.append("the code fence was removed")
    return text[found.end() : _end_of_fence(text, found.end())].strip()


def _end_of_fence(text: str, start: int) -> int:
    """Where the fence closes that opens before ``start``. A fence within a string, such as code that a model writes, is text."""
    for token in _TOKEN.finditer(text, start):
        if token[0].startswith("```"):
            return token.start()
        if token[0] == '"':  # this string does not end
            break
    end = text.find("```", start)
    return len(text) if end < 0 else end


def _without_prose(text: str, changes: list[str]) -> str:
    """From the first bracket to the end of its value. Text behind it that has a bracket too may be a second value: it is kept."""
    starts = [at for at in (text.find("{"), text.find("[")) if at >= 0]
    if not starts:
        return text
    start, end = min(starts), len(text)
    try:
        _, end = json.JSONDecoder(parse_constant=_not_json).raw_decode(text, start)
    except (ValueError, RecursionError):
        last = max(text.rfind("}"), text.rfind("]")) + 1
        end = last if start and last > start else end
    if (start == 0 and end == len(text)) or "{" in text[end:] or "[" in text[end:]:
        return text
    changes.append("the text around the JSON was removed")
    return text[start:end]


class _Tokens:
    """A text in tokens, without its trailing commas. ``is_open``: an object, an array or a string does not end."""

    def __init__(self, text: str) -> None:
        self.written: list[str] = []
        self.dropped_commas = self.replaced_words = False
        self._open: list[str] = []
        self._string: int | None = None  # where the string that does not end begins
        for token in _TOKEN.finditer(text):
            if token[0] == '"':
                self._string = token.start()
                self._tail = text[token.start() :]
                break
            self._add(token[0])

    @property
    def is_open(self) -> bool:
        return bool(self._open) or self._string is not None

    def _add(self, token: str) -> None:
        if token in ("{", "["):
            self._open.append(token)
        elif token in ("}", "]"):
            self._drop_comma()
            if self._open and _CLOSING[self._open[-1]] == token:
                self._open.pop()
        elif token in _PYTHON:
            self.replaced_words = True
            token = _PYTHON[token]
        self.written.append(token)

    def _drop_comma(self) -> None:
        at = self._last()
        if at is not None and self.written[at] == ",":
            del self.written[at:]
            self.dropped_commas = True

    def close(self, *, was_cut: bool) -> bool:
        """Adds the missing end. False where more than the end may be wrong: the text did not end at a limit, and ends within a
        value."""
        if not was_cut and (self._string is not None or self._is_within_member()):
            return False
        if self._string is not None:
            tail = _ESCAPE_CUT.sub(lambda cut: cut[0][: -len(cut[1])], self._tail)
            self.written.append(tail + '"')
            if self._is_key():
                self._drop_member()
        elif was_cut and self._is_within_member():
            self._drop_member()
        self._drop_comma()
        self.written += [_CLOSING[opening] for opening in reversed(self._open)]
        return True

    def _is_within_member(self) -> bool:
        """Whether the last token is not the end of a complete member: a number may go on, a key has no value yet."""
        at = self._last()
        if at is None or self.written[at] in ("{", "[", "}", "]"):
            return at is None
        last = self.written[at]
        return last == ":" or (last[0] != '"' and last != ",") or (last[0] == '"' and self._is_key())

    def _is_key(self) -> bool:
        """Whether the last string is at the place of a key."""
        at = self._last()
        before = None if at is None else self._last(at)
        return bool(self._open) and self._open[-1] == "{" and (before is None or self.written[before] in (",", "{"))

    def _drop_member(self) -> None:
        """Removes the last member as far as it came: its value, colon and key, or an item."""
        while (at := self._last()) is not None and self.written[at] not in (",", "{", "["):
            del self.written[at:]

    def _last(self, before: int | None = None) -> int | None:
        """The position of the last token that is not white space."""
        at = len(self.written) if before is None else before
        while at > 0 and self.written[at - 1].isspace():
            at -= 1
        return at - 1 if at > 0 else None
