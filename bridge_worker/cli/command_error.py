"""How a command fails: one line that says what is wrong and what to do about it, and an exit code.

Owns the words and the codes: 1 for what went wrong on the way, 2 for what the caller has to mend. Refuses tracebacks.
"""

from __future__ import annotations

from typing import Any

import click

from bridge_worker.cli.terminal import printable

_SETTLED_BY_CALLER = {"invalid_request", "invalid_message", "model_not_found", "authentication"}
_REMEDIES = {
    "model_not_found": "omni-bridge models SEARCH lists names",
    "authentication": "look at the key in the provider's variable; omni-bridge doctor says which are set",
    "permission": "the key is not allowed to do this; use another key or another model",
    "context_length_exceeded": "say less, or take a model with a longer context",
    "rate_limited": "wait and try again",
    "overloaded": "wait and try again",
    "timeout": "try again",
    "provider_unavailable": "try again, or look at the network with omni-bridge doctor",
    "stream_interrupted": "try again",
    "engine_lost": "try again",
    "budget_exceeded": "the provider's account or the config's budget is used up",
}


_SAYS_WHAT_TO_DO = ("; ", ": set ")


class Problem(click.ClickException):
    """The message is one line, whatever it was made of."""

    def __init__(self, message: str, exit_code: int = 1, *, final: bool = True) -> None:
        """``final``: nothing more can be asked."""
        super().__init__(printable(" ".join(message.split())))
        self.exit_code = exit_code  # type: ignore[misc]  # click's way is a class each
        self.final = final


def remedy_for(kind: str) -> str | None:
    return _REMEDIES.get(kind)


def of_answer(error: dict[str, Any]) -> Problem:
    """An error that came over the wire, as a person should read it."""
    kind = error.get("data", {}).get("kind", "internal")
    message = str(error["message"]).rstrip(". ").replace("models/list has", "omni-bridge models has")  # the method, as a command
    remedy = None if any(sign in message for sign in _SAYS_WHAT_TO_DO) else remedy_for(kind)
    return Problem(f"{message}; {remedy}" if remedy else message, 2 if kind in _SETTLED_BY_CALLER else 1, final=False)
