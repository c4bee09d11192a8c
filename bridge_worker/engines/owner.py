"""The limits of engines, and the port to what owns the requests.

Owns both types. Refuses to know processes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from bridge_worker.engines.handle import EngineHandle
from bridge_worker.protocol.link_frames import Frame


@dataclass(frozen=True, slots=True)
class Limits:
    """``max_mib`` and ``max_requests`` of one engine, after which it is replaced; 0 for none. ``closing_seconds`` is the longest
    that its end may take."""

    engines: int = 1
    hang_seconds: float = 5.0
    max_mib: float = 0
    max_requests: int = 0
    closing_seconds: float = 2.0


class Owner(Protocol):
    """The pool. ``on_opened`` is called when the engine without LiteLLM takes requests, ``on_lost`` once a process has ended, or
    does not end; ``on_failing`` when none can be started."""

    def on_frame(self, engine: EngineHandle, frame: Frame) -> None: ...

    def on_opened(self) -> None: ...

    def on_ready(self, engine: EngineHandle) -> None: ...

    def on_lost(self, engine: EngineHandle) -> None: ...

    def on_failing(self) -> None: ...
