"""Errors and warnings: one type, collected so that one run reports all of them, and rendered in one place.

Owns the form of a diagnostic and the suggestion of a similar name. Refuses to know what a config is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

_LISTED = 12  # more names than this make a line unreadable


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """``place`` is a file, line and member, or a flag or a variable. ``hint`` is what to do, or empty. ``strict``: a warning that
    `--check-config --strict` reports as an error."""

    place: str
    problem: str
    hint: str = ""
    strict: bool = False

    def __str__(self) -> str:
        """One line, also when a name in the YAML has line breaks."""
        return " ".join(f"{': '.join(filter(None, (self.place, self.problem)))}{self.hint and f'; {self.hint}'}".split())


class ConfigError(Exception):
    """Its text is the first error and the number of the others."""

    def __init__(self, *diagnostics: Diagnostic) -> None:
        self.diagnostics = diagnostics
        more = f" (and {len(diagnostics) - 1} more; --check-config lists all)" if len(diagnostics) > 1 else ""
        super().__init__(f"{diagnostics[0]}{more}")

    @property
    def lines(self) -> tuple[str, ...]:
        """One line for each error."""
        return tuple(map(str, self.diagnostics))


@dataclass(slots=True)
class Report:
    """``ignored`` are names that only a server uses; `warnings` has one line for all of them.

    The rule: what the gateway serves is served, what the gateway ignores is ignored with a warning (`pass_over`), and `error` is
    for a value that would make a request wrong or unsafe, or that the gateway rejects.
    """

    errors: list[Diagnostic] = field(default_factory=list)
    notes: list[Diagnostic] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)

    def error(self, place: str, problem: str, hint: str = "") -> None:
        self.errors.append(Diagnostic(place, problem, hint))

    def note(self, place: str, problem: str, hint: str = "") -> None:
        self.notes.append(Diagnostic(place, problem, hint))

    def pass_over(self, place: str, problem: str, hint: str = "") -> None:
        """Records a member without an effect, here and in the gateway, that was probably meant to have one."""
        self.notes.append(Diagnostic(place, problem, hint, strict=True))

    def warnings(self) -> tuple[Diagnostic, ...]:
        unused = Diagnostic("ignored, because it has no effect in a worker", ", ".join(dict.fromkeys(self.ignored)))
        return ((unused,) if self.ignored else ()) + tuple(self.notes)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most similar to ``name``, or None."""
    import difflib  # not needed for a config without an error

    return next(iter(difflib.get_close_matches(name, sorted(known), n=1)), None)


def suggestion(name: str, known: Iterable[str]) -> str:
    """A hint: the most similar name, or all known names."""
    known = sorted(known)
    if near := nearest(name, known):
        return f"did you mean {near}?"
    return f"known: {', '.join(known)}" if len(known) <= _LISTED else "the gateway's documentation lists the known names"
