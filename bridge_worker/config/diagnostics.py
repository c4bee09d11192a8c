"""Errors and warnings of a config: one type, gathered so that one run reports all of them, and rendered in one place.

Owns the form of a diagnostic and the search for the name that was meant. Refuses to know what a config is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

_LISTED = 12  # more names than this are no help on one line


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """``place`` is a file, line and member, or a flag or a variable. ``hint`` is what to do, or empty. ``strict``: a warning that
    `--check-config --strict` reports as an error."""

    place: str
    problem: str
    hint: str = ""
    strict: bool = False

    def __str__(self) -> str:
        """One line; a name in YAML may have several."""
        return " ".join(f"{': '.join(filter(None, (self.place, self.problem)))}{self.hint and f'; {self.hint}'}".split())


class ConfigError(Exception):
    """As text it is the first error, and the number of the others."""

    def __init__(self, *diagnostics: Diagnostic) -> None:
        self.diagnostics = diagnostics
        more = f" (and {len(diagnostics) - 1} more; --check-config lists all)" if len(diagnostics) > 1 else ""
        super().__init__(f"{diagnostics[0]}{more}")

    @property
    def mistakes(self) -> tuple[str, ...]:
        """A line for each."""
        return tuple(map(str, self.diagnostics))


@dataclass(slots=True)
class Report:
    """``ignored`` are names that only a server uses; `warnings` has one line for all of them.

    The rule: what the gateway serves is served, what it passes over is passed over with a warning, and `wrong` is for what would
    make a request wrong or unsafe, or what the gateway itself refuses.
    """

    mistakes: list[Diagnostic] = field(default_factory=list)
    notes: list[Diagnostic] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)

    def wrong(self, place: str, problem: str, hint: str = "") -> None:
        self.mistakes.append(Diagnostic(place, problem, hint))

    def note(self, place: str, problem: str, hint: str = "") -> None:
        self.notes.append(Diagnostic(place, problem, hint))

    def pass_over(self, place: str, problem: str, hint: str = "") -> None:
        """What has no effect, here as in the gateway, and was probably meant to have one."""
        self.notes.append(Diagnostic(place, problem, hint, strict=True))

    def warnings(self) -> tuple[Diagnostic, ...]:
        unused = Diagnostic("no effect in a worker, so ignored", ", ".join(dict.fromkeys(self.ignored)))
        return ((unused,) if self.ignored else ()) + tuple(self.notes)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The name that was probably meant."""
    import difflib  # not needed for a config without an error

    return next(iter(difflib.get_close_matches(name, sorted(known), n=1)), None)


def suggestion(name: str, known: Iterable[str]) -> str:
    """A hint: the name that was probably meant, or all known names."""
    known = sorted(known)
    if near := nearest(name, known):
        return f"did you mean {near}?"
    return f"there are: {', '.join(known)}" if len(known) <= _LISTED else "the gateway's documentation lists those that there are"
