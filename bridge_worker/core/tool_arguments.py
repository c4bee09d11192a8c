"""The least that a tool call must have: a name, and arguments that are JSON.

Owns the errors of a call without them. Refuses to know the tools of a request: `agent.response_check` does.
"""

from __future__ import annotations

import json

from bridge_worker.errors import BridgeError


def check_name(name: str) -> None:
    """Raises BridgeError ``bad_upstream_response``."""
    if not name:
        raise BridgeError("bad_upstream_response", "the model called a tool without naming it; try again")


def check_arguments(name: str, arguments: str, *, was_cut: bool) -> None:
    """Raises BridgeError ``bad_upstream_response``. ``was_cut``: the response ended at its limit of tokens."""
    try:
        json.loads(arguments, parse_constant=_not_json)
    except (ValueError, RecursionError) as error:
        advice = "the response ended at its limit of tokens; raise max_tokens" if was_cut else "try again"
        wrong = f"the model called {name} with arguments that are not JSON ({error}); {advice}"
        raise BridgeError("bad_upstream_response", wrong) from None


def _not_json(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
