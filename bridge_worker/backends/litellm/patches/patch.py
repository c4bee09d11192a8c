"""A correction of one function of LiteLLM or httpx: its reason, its evidence, its place, and how it is applied.

Owns the form of a patch and the record of what became of each. One that does not fit is logged and left out, and the others are
applied. Refuses to know any fault.
"""

from __future__ import annotations

import importlib
import inspect
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

_log = logging.getLogger(__name__)
_REASON_CHARACTERS = 200


class DoesNotFitError(Exception):
    """The installed version has no such function, or it takes other parameters."""


@dataclass
class Patch:
    """``places`` are ``module:attribute`` paths; the first that exists is used, since LiteLLM moves functions between releases.

    ``takes`` are the parameters that the original must have, so that the replacement can be called in its place. ``make`` gets the
    original and returns the replacement. ``has_fault`` gets the original and returns whether the fault still exists. A patch with
    ``since_gone`` corrects a function that later releases removed together with its fault.
    """

    name: str
    wrong: str
    evidence: str
    places: tuple[str, ...]
    takes: tuple[str, ...]
    make: Callable[[Any], Any]
    has_fault: Callable[[Any], bool]
    since_gone: bool = False
    original: Any = field(default=None, init=False)
    place: str | None = field(default=None, init=False)
    problem: str | None = field(default=None, init=False)  # why it was not applied

    def apply(self) -> None:
        """Repeating it changes nothing. Raises whatever goes wrong."""
        if self.place is not None:
            return
        found = self.find()
        if found is None:
            return
        place, owner, attribute, original = found
        taken = tuple(inspect.signature(original).parameters)
        if taken != self.takes:
            raise DoesNotFitError(f"{place} takes ({', '.join(taken)}) instead of ({', '.join(self.takes)})")
        made = self.make(original)
        is_static = isinstance(inspect.getattr_static(owner, attribute), staticmethod)
        setattr(owner, attribute, staticmethod(made) if is_static else made)
        self.place, self.original = place, original

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


def apply_each(patches: Iterable[Patch]) -> None:
    """One by one: what is wrong with one does not concern the others."""
    for patch in patches:
        try:
            patch.apply()
            patch.problem = None
        except Exception as error:
            patch.problem = f"{type(error).__name__}: {error}"[:_REASON_CHARACTERS]
            _log.warning("the patch %s does not fit this version of LiteLLM and is left out: %s", patch.name, patch.problem)


def left_out(patches: Iterable[Patch]) -> Iterator[str]:
    """The names of the patches that do not fit, with the reason."""
    yield from (f"{patch.name}: {patch.problem}" for patch in patches if patch.problem)
