"""Annotations of functions that are evaluated when something reads them, as Python 3.14 does for all of them (PEP 649).

Owns the mapping that stands under a function's `__annotations__`. Refuses to know which annotations are deferred.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

MARK = "\0deferred:"  # before the text of an annotation that is not evaluated; no source has it in an annotation

F = TypeVar("F", bound=Callable[..., Any])


def defer_annotations(function: F) -> F:
    """A decorator, the first to be applied."""
    function.__annotations__ = DeferredAnnotations(function.__annotations__, function.__globals__)
    return function


class DeferredAnnotations(dict[str, Any]):
    """Raises ImportError where the import of a name fails, and NameError for a name that is nowhere, at each reading."""

    __slots__ = ("_namespace",)

    def __init__(self, annotations: dict[str, Any], namespace: dict[str, Any]) -> None:
        super().__init__(annotations)
        self._namespace = namespace

    def evaluated(self) -> dict[str, Any]:
        for name, value in super().items():
            if isinstance(value, str) and value.startswith(MARK):
                super().__setitem__(name, eval(value.removeprefix(MARK), self._namespace))  # noqa: S307  # a module's source
        return self

    def __getitem__(self, name: str) -> Any:
        return dict.__getitem__(self.evaluated(), name)

    def __iter__(self) -> Iterator[str]:
        """That it is defined makes `dict(annotations)` and `{**annotations}` read each item here."""
        return super().__iter__()

    def get(self, name: str, default: Any = None) -> Any:
        return dict.get(self.evaluated(), name, default)

    def items(self) -> Any:
        return dict.items(self.evaluated())

    def values(self) -> Any:
        return dict.values(self.evaluated())

    def copy(self) -> dict[str, Any]:
        return dict(self.items())

    def __eq__(self, other: object) -> bool:
        return dict.__eq__(self.evaluated(), other)

    def __repr__(self) -> str:
        return dict.__repr__(self.evaluated())

    def __reduce__(self) -> tuple[type, tuple[dict[str, Any]]]:
        return dict, (self.copy(),)

    __hash__ = None
