"""The record of one request: its attempts, what of it was dropped, rewritten or added, and which backend served it.

Owns the plain objects that backends write into while a request runs. `schema.chat_result` has the same members as wire types.
Refuses to know how a receipt is sent.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(slots=True)
class Attempt:
    """One call to a provider: ``outcome`` is "ok" or an error's kind. ``deployment`` is its id in the gateway's config."""

    outcome: str
    status: int | None
    ms: float
    model: str | None
    provider: str | None
    deployment: str | None

    def wire(self) -> dict[str, Any]:
        return {
            "outcome": self.outcome,
            "status": self.status,
            "ms": self.ms,
            "model": self.model,
            "provider": self.provider,
            "deployment": self.deployment,
        }


@dataclass(slots=True, frozen=True)
class Change:
    """A part of the request that did not reach the provider as it was given; ``sent`` is what a rewritten value became."""

    param: str
    change: Literal["dropped", "rewritten"]
    sent: str | int | float | bool | None = None

    def wire(self) -> dict[str, Any]:
        return {"param": self.param, "change": self.change, "sent": self.sent}


@dataclass(slots=True, frozen=True)
class Addition:
    """A member of the provider's request that the caller did not give; ``sent`` is its value, null for an object or a list."""

    param: str
    sent: str | int | float | bool | None = None

    def wire(self) -> dict[str, Any]:
        return {"param": self.param, "sent": self.sent}


@dataclass(slots=True, frozen=True)
class EngineVersion:
    """The backend and the mode that served a request, and why that mode, where there was a choice."""

    name: str
    version: str | None
    reason: str | None = None

    def wire(self) -> dict[str, Any]:
        return {"name": self.name, "version": self.version, "reason": self.reason}


@dataclass(slots=True)
class Receipt:
    """``dropped`` and ``added`` are None where the request could not be seen on its path to the provider.

    ``kept`` names the members of the provider's response that the result has no member for; they are in the message to append.
    """

    requested_model: str
    served_model: str | None = None
    deployment: str | None = None
    attempts: list[Attempt] = field(default_factory=list)
    fallback: bool = False
    dropped: list[Change] | None = None
    added: list[Addition] | None = None
    kept: list[str] = field(default_factory=list)
    engine: EngineVersion | None = None
    cache: dict[str, Any] | None = None  # `schema.chat_result.CacheFacts`, with the member `cache` of a chat
    fit: dict[str, Any] | None = None  # `schema.fit.FitFacts`, with the member `fit` of a chat

    def wire(self) -> dict[str, Any]:
        wire = self._wire()
        optional = {"fit": self.fit, "cache": self.cache}
        return wire | {name: value for name, value in optional.items() if value is not None}

    def _wire(self) -> dict[str, Any]:
        return {
            "requested_model": self.requested_model,
            "served_model": self.served_model,
            "deployment": self.deployment,
            "attempts": [attempt.wire() for attempt in self.attempts],
            "fallback": self.fallback,
            "dropped": None if self.dropped is None else [change.wire() for change in self.dropped],
            "added": None if self.added is None else [addition.wire() for addition in self.added],
            "kept": self.kept,
            "engine": None if self.engine is None else self.engine.wire(),
        }
