"""Notes how far the running request is, for a process that outlives this one.

Owns the context variable with the function that takes the note. Refuses to know who reads it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar

from bridge_worker.protocol.link_frames import Progress

__all__ = ["Progress", "note_progress", "on_progress"]

_note: ContextVar[Callable[[int], object] | None] = ContextVar("omni_bridge_progress", default=None)


def on_progress(note: Callable[[int], object]) -> None:
    """``note`` is called for the request of this task and of those that it starts."""
    _note.set(note)


def note_progress(progress: Progress) -> None:
    if (note := _note.get()) is not None:
        note(progress)
