"""The sequence diagram of a run: client, worker and what befell the processes, with the virtual time.

Owns the layout. Refuses to know what is right.
"""

from __future__ import annotations

from tests.simulation.simulate import Outcome

_WIDTH = 100
_ARROWS = {">": "client ──▶ worker", "<": "client ◀── worker", "!": "        ✱        "}


def diagram(outcome: Outcome) -> str:
    rows = [
        f"{(when - 1000) * 1000:10.3f} ms  {_ARROWS[direction]}  {_short(text)}" for when, direction, text in outcome.transcript
    ]
    return "\n".join([*rows, *(f"{'':>13}  ✗ {name}: {what}" for name, what in outcome.problems)])


def _short(text: str) -> str:
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 40]} … {text[-36:]}"
