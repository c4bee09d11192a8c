"""What is wrong with a config, and what is worth a word: gathered, so that all of it can be told at once.

Owns how a mistake reads. Refuses to know what a config is; it is told each place as text.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

_LISTED = 12  # more names than this are no help on one line


class ConfigError(Exception):
    """``mistakes``: one line each, which names the place and the remedy. As text it is the first, and how many more there are."""

    def __init__(self, *mistakes: str) -> None:
        self.mistakes = mistakes
        more = f" (and {len(mistakes) - 1} more; --check-config tells them all)" if len(mistakes) > 1 else ""
        super().__init__(mistakes[0] + more)


@dataclass(slots=True)
class Report:
    """``ignored`` are names of what has no effect in a worker; `warnings` says them in one line."""

    mistakes: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)

    def wrong(self, place: str, what: str) -> None:
        self.mistakes.append(_line(place, what))

    def note(self, place: str, what: str) -> None:
        self.notes.append(_line(place, what))

    def warnings(self) -> tuple[str, ...]:
        unused = f"no effect in a worker, so ignored: {', '.join(dict.fromkeys(self.ignored))}"
        return ((unused,) if self.ignored else ()) + tuple(self.notes)


def _line(place: str, what: str) -> str:
    return " ".join(f"{place}: {what}".split())  # a name in YAML may be of several lines


def suggestion(name: str, known: Iterable[str]) -> str:
    """The name that was probably meant, or all that there are."""
    import difflib  # not on the way of a config without a mistake

    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"did you mean {near[0]}?"
    return f"there are: {', '.join(known)}" if len(known) <= _LISTED else "the gateway's documentation lists those that there are"
