"""A correction of one function of LiteLLM or httpx: its reason, its evidence, its place, and how it is applied.

Owns the form of a patch and the record of what became of each. One that does not fit is logged and left out, and the others are
applied. Refuses to know any fault.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

EVERY_PROVIDER = frozenset({"*"})
MORE = "..."  # the last of `Patch.takes`: the original may take more than these

_log = logging.getLogger(__name__)
_REASON_CHARACTERS = 200


class DoesNotFitError(Exception):
    """The installed version has no such function, or it takes other parameters."""


@dataclass
class Patch:
    """``places`` are ``module:attribute`` paths; the first that exists is used, since LiteLLM moves functions between releases.

    ``takes`` are the parameters that the original must have, so that the replacement can be called in its place. ``make`` gets the
    original and returns the replacement. ``has_fault`` gets the original and returns whether the fault still exists. A patch with
    ``since_gone`` corrects a function that later releases removed together with its fault. ``protects`` are the providers with
    requests or keys that would go astray without the patch: they are refused while it is left out. ``keeps_elsewhere`` is the
    reason why modules that have imported the function by name keep the original; they get the replacement otherwise. One that
    ``waits`` is applied when its module is loaded, which is slow and which few chats do.
    """

    name: str
    wrong: str
    evidence: str
    places: tuple[str, ...]
    takes: tuple[str, ...]
    make: Callable[[Any], Any]
    has_fault: Callable[[Any], bool]
    since_gone: bool = False
    protects: frozenset[str] = frozenset()
    keeps_elsewhere: str = ""
    waits: bool = False
    original: Any = field(default=None, init=False)
    place: str | None = field(default=None, init=False)
    problem: str | None = field(default=None, init=False)  # why it was not applied

    @property
    def is_of_router(self) -> bool:
        """Such a patch is applied before a Router is made: to look at that class loads it."""
        return self.places[0].startswith("litellm:Router.")

    def apply(self) -> None:
        """Repeating it changes nothing. Raises whatever goes wrong; then nothing was replaced."""
        if self.place is not None:
            return
        found = self.find()
        if found is None or self.place is not None:  # the import of its module has applied it
            return
        place, owner, attribute, original = found
        if not self._fits(taken := _parameters(original)):
            raise DoesNotFitError(f"{place} takes ({', '.join(taken)}) instead of ({', '.join(self.takes)})")
        made = self.make(original)
        is_static = isinstance(inspect.getattr_static(owner, attribute), staticmethod)
        setattr(owner, attribute, staticmethod(made) if is_static else made)
        if inspect.ismodule(owner) and not self.keeps_elsewhere:
            _replace_elsewhere(owner, attribute, original, made)
        self.place, self.original = place, original

    def _fits(self, taken: tuple[str, ...]) -> bool:
        if self.takes[-1:] == (MORE,):
            return taken[: len(self.takes) - 1] == self.takes[:-1]
        return taken == self.takes

    def find(self) -> tuple[str, Any, str, Any] | None:
        """The place, its owner, the attribute and the original. None where the function was removed with its fault."""
        missing: list[str] = []
        for place in self.places:
            module, _, path = place.partition(":")
            *outer, attribute = path.split(".")
            try:
                owner: Any = importlib.import_module(module)
                for name in outer:
                    owner = getattr(owner, name)
                return place, owner, attribute, getattr(owner, attribute)
            except (ImportError, AttributeError) as error:
                missing.append(f"{place}: {error}")
        if self.since_gone:
            return None
        raise DoesNotFitError("; ".join(missing))

    def is_needed(self) -> bool:
        """Whether the installed version still has the fault. Raises whatever goes wrong."""
        if self.place is not None:
            return self.has_fault(self.original)
        found = self.find()
        return found is not None and self.has_fault(found[-1])


def _parameters(function: Any) -> tuple[str, ...]:
    """The names. `inspect.signature` also evaluates the annotations, for which LiteLLM loads modules."""
    plain = inspect.unwrap(function)
    if not inspect.isfunction(plain) or hasattr(plain, "__signature__"):
        return tuple(inspect.signature(function).parameters)
    given, positional = inspect.getargs(plain.__code__), plain.__code__.co_argcount
    names = (*given.args[:positional], given.varargs, *given.args[positional:], given.varkw)
    return tuple(name for name in names if name)


def _replace_elsewhere(owner: Any, name: str, original: Any, made: Any) -> None:
    """Replaces the other names of the function in its module, and those that ``from ... import name`` has made. Later imports find
    the replacement."""
    for alias in [alias for alias, value in vars(owner).items() if value is original]:
        setattr(owner, alias, made)
    for module in list(sys.modules.values()):
        if getattr(module, "__dict__", {}).get(name) is original:
            setattr(module, name, made)


def apply_each(patches: Iterable[Patch]) -> None:
    """One by one: what is wrong with one does not concern the others."""
    for patch in patches:
        try:
            patch.apply()
            patch.problem = None
        except Exception as error:
            patch.problem = f"{type(error).__name__}: {error}"[:_REASON_CHARACTERS]
            _log.warning(
                "the patch %s does not fit this version of LiteLLM and is left out (%s); effect: %s",
                patch.name,
                patch.problem,
                effect_without(patch),
            )


def left_out(patches: Iterable[Patch]) -> Iterator[Patch]:
    """The patches that do not fit."""
    yield from (patch for patch in patches if patch.problem)


def effect_without(patch: Patch) -> str:
    """The behaviour of a worker without the patch, in one line."""
    if patch.protects == EVERY_PROVIDER:
        return f"LiteLLM serves nothing, because without the patch {patch.wrong}"
    if patch.protects:
        return f"{', '.join(sorted(patch.protects))}: refused, because without the patch {patch.wrong}"
    return patch.wrong
