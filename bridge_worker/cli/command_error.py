"""The error that ends a command: a diagnostic (problem and hint) on one line, and an exit code.

Owns the hints and the codes: 1 for an error during the call, 2 for one that the user has to correct. Refuses tracebacks.
"""

from __future__ import annotations

from typing import Any

import click

from bridge_worker.cli.terminal import printable
from bridge_worker.config.diagnostics import Diagnostic

CONVERT_HINT = "convert it with iconv"
_CORRECTED_BY_THE_USER = {"invalid_request", "invalid_message", "model_not_found", "authentication"}
_HINTS = {
    "model_not_found": "omni-bridge models SEARCH lists names",
    "authentication": "omni-bridge doctor lists the keys that are set",
    "permission": "use another key or another model",
    "context_length_exceeded": "shorten the prompt, or use a model with a longer context",
    "rate_limited": "wait and try again",
    "overloaded": "wait and try again",
    "timeout": "try again",
    "provider_unavailable": "try again, or check the network with omni-bridge doctor",
    "stream_interrupted": "try again",
    "engine_lost": "try again",
    "budget_exceeded": "raise the limit at the provider or in the config",
}


class CommandError(click.ClickException):
    """``diagnostic`` has the parts; `message` is its one line. ``final``: an interactive chat can't continue after it."""

    def __init__(self, problem: str, exit_code: int = 1, *, hint: str = "", final: bool = True) -> None:
        self.diagnostic = Diagnostic("", printable(problem), printable(hint))
        super().__init__(str(self.diagnostic))
        self.exit_code = exit_code  # type: ignore[misc]  # click wants a class for each code
        self.final = final


class WorkerReportedError(CommandError):
    """The worker ended with exit code 2 and has printed the reason itself: nothing is printed again."""

    def __init__(self) -> None:
        super().__init__("the worker has printed the reason", 2)


def hint_for_kind(kind: str) -> str:
    return _HINTS.get(kind, "")


def from_wire_error(error: dict[str, Any]) -> CommandError:
    """The error of a response, with the hint for its kind."""
    kind = error.get("data", {}).get("kind", "internal")
    code = 2 if kind in _CORRECTED_BY_THE_USER else 1
    return CommandError(str(error["message"]).rstrip(". "), code, hint=hint_for_kind(kind), final=False)
