"""Fault cards: which requests meet which fault. The config's section `omni_bridge: faults`, or the file of ``--faults``.

Owns the members of a card, their checks, and the error kind that a card leads to. Refuses to cause a fault: `cassettes.faults`
does.
"""

from __future__ import annotations

import fnmatch
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from bridge_worker.errors import KINDS, MemberError

_SECTION = "omni_bridge.faults"
METHODS = ("chat", "embed", "rerank", "tokens/count")
FINISH_REASONS = ("stop", "length", "tool_calls", "content_filter")
# The kinds that an HTTP status leads to; the decoders' own table decides, and a test compares the two.
_BY_STATUS = {
    400: "rejected_by_provider",
    401: "authentication",
    402: "budget_exceeded",
    403: "permission",
    404: "model_not_found",
    408: "timeout",
    413: "rejected_by_provider",
    422: "rejected_by_provider",
    429: "rate_limited",
    504: "timeout",
}
# What a card may do: one of these. The others change it.
_ANYWHERE = ("status", "stall_ms", "cut", "broken_json", "engine_lost")
_OF_CHATS = ("error_event", "trickle_ms", "finish_reason", "tool_arguments", "empty")
ACTIONS = _ANYWHERE + _OF_CHATS
# Types of an error event, as providers send them, and their kind before content.
ERROR_EVENTS = {
    "overloaded_error": "provider_unavailable",
    "server_error": "provider_unavailable",
    "rate_limit_error": "rate_limited",
}
_POSITIONED = ("stall_ms", "cut", "broken_json", "error_event", "engine_lost")


@dataclass(frozen=True, slots=True)
class Match:
    """Which requests: ``model`` is a pattern with ``*``. ``nth``, ``every`` and ``chance`` count the requests of these."""

    model: str = "*"
    method: str = "chat"
    stream: bool | None = None
    nth: tuple[int, ...] = ()
    every: int | None = None
    chance: float | None = None
    seed: int = 0

    def fits(self, method: str, model: str, *, stream: bool) -> bool:
        return (
            method == self.method
            and fnmatch.fnmatchcase(model, self.model)
            and (self.stream is None or self.stream == (stream and method == "chat"))
        )

    def is_due(self, count: int) -> bool:
        """Whether the request is met, as the ``count``-th that fits, from 1."""
        if self.nth:
            return count in self.nth
        if self.every is not None:
            return count % self.every == 0
        if self.chance is not None:
            return random.Random(f"{self.seed}:{count}").random() < self.chance  # noqa: S311  # repeatable, not secret
        return True


@dataclass(frozen=True, slots=True)
class Do:
    """What happens. ``after_deltas`` and ``after_bytes`` are a position in the response; without one it is before the first delta.

    ``retry_after`` is in seconds, as in the header.
    """

    status: int | None = None
    retry_after: float | None = None
    message: str | None = None
    stall_ms: int | None = None
    cut: bool = False
    broken_json: bool = False
    error_event: str | None = None
    trickle_ms: int | None = None
    finish_reason: str | None = None
    tool_arguments: str | None = None
    empty: bool = False
    engine_lost: bool = False
    after_deltas: int = 0
    after_bytes: int = 0

    @property
    def action(self) -> str:
        return next(name for name in ACTIONS if getattr(self, name) not in (None, False))

    @property
    def is_amid(self) -> bool:
        """Whether content precedes the fault."""
        return bool(self.after_deltas or self.after_bytes)


@dataclass(frozen=True, slots=True)
class FaultCard:
    """``sees`` is the error kind that the agent should see, "ok" for a result; None where the card does not name it."""

    match: Match
    do: Do
    sees: str | None = None
    name: str = ""

    @property
    def key(self) -> str:
        """Equal for cards that are counted as one."""
        return repr((self.match, self.do))


def kinds_of(match: Match, do: Do) -> tuple[str, ...]:
    """What an agent can see of a card."""
    action = do.action
    if action == "status":
        status = do.status or 0
        return (_BY_STATUS.get(status, "provider_unavailable" if status >= 500 else "rejected_by_provider"),)
    if action == "stall_ms":
        return ("ok",) if match.method == "tokens/count" else ("timeout", "ok")  # as the agent's deadlines decide
    if action == "engine_lost":
        return ("engine_lost",)
    if action in ("cut", "broken_json", "error_event"):
        if do.is_amid and match.stream:
            return ("stream_interrupted",)
        early = {
            "cut": ("provider_unavailable",),
            "broken_json": ("bad_upstream_response",),
            "error_event": (ERROR_EVENTS.get(do.error_event or "", ""),),
        }[action]
        return ("stream_interrupted", *early) if do.is_amid else early
    if action == "tool_arguments":
        return ("ok",) if _is_json(do.tool_arguments or "") else ("bad_upstream_response", "ok")  # ok: a request without tools
    return ("ok",)


def read_fault_cards(value: Any, folder: Path) -> tuple[FaultCard, ...]:
    """The cards of a list, or of the YAML or JSON file that a text names, relative to ``folder``. Raises MemberError."""
    if isinstance(value, str):
        value = _of_file(value, folder)
    if not isinstance(value, list):
        raise MemberError(_SECTION, "must be a list of cards, or a file with one")
    return tuple(_card(f"{_SECTION}[{position}]", card, position) for position, card in enumerate(value))


def _of_file(name: str, folder: Path) -> Any:
    path = folder / Path(name).expanduser()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise MemberError(_SECTION, f"{name} can't be read: {reason}") from None
    import yaml  # only a worker with a file of cards needs it here

    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise MemberError(_SECTION, f"{name} is not YAML{where}") from None
    if isinstance(tree, dict):
        inner = tree.get("omni_bridge")
        return (inner if isinstance(inner, dict) else tree).get("faults")
    return tree


def _card(place: str, card: Any, position: int) -> FaultCard:
    members = _members(place, card, ("match", "do", "sees", "name"))
    if "do" not in members:
        raise MemberError(f"{place}.do", f"is missing: one of {', '.join(ACTIONS)}")
    match, do = _match(f"{place}.match", members.get("match") or {}), _do(f"{place}.do", members["do"])
    if match.method != "chat" and do.action in _OF_CHATS:
        raise MemberError(f"{place}.do.{do.action}", f"is for chats, and the card's method is {match.method}")
    if match.method != "chat" and do.is_amid:
        raise MemberError(f"{place}.do", f"after_deltas and after_bytes are for chats, and the card's method is {match.method}")
    sees = _text(f"{place}.sees", members.get("sees"))
    if sees is not None:
        _check_sees(place, sees, match, do)
    return FaultCard(match, do, sees, _text(f"{place}.name", members.get("name")) or f"card {position + 1}: {do.action}")


def _check_sees(place: str, sees: str, match: Match, do: Do) -> None:
    if sees != "ok" and sees not in KINDS:
        raise MemberError(f"{place}.sees", f"{sees!r:.60} is no error kind; protocol.md lists them, and ok is a result")
    possible = kinds_of(match, do)
    if sees not in possible:
        raise MemberError(f"{place}.sees", f"an agent sees {' or '.join(possible)} of this card, not {sees}")


def _match(place: str, value: Any) -> Match:
    given = _members(place, value, [one.name for one in fields(Match)])
    nth = given.get("nth")
    counts = tuple(nth) if isinstance(nth, list) else () if nth is None else (nth,)
    for count in counts:
        _count(f"{place}.nth", count, 1)
    if sum(name in given for name in ("nth", "every", "chance")) > 1:
        raise MemberError(place, "has more than one of nth, every and chance")
    method = _text(f"{place}.method", given.get("method")) or "chat"
    if method not in METHODS:
        raise MemberError(f"{place}.method", f"must be one of: {', '.join(METHODS)}")
    if method != "chat" and "stream" in given:
        raise MemberError(f"{place}.stream", f"is for chats, and the card's method is {method}")
    chance = given.get("chance")
    if chance is not None and (isinstance(chance, bool) or not isinstance(chance, int | float) or not 0 <= chance <= 1):
        raise MemberError(f"{place}.chance", "must be a number from 0 to 1")
    return Match(
        model=_text(f"{place}.model", given.get("model")) or "*",
        method=method,
        stream=_flag(f"{place}.stream", given["stream"]) if "stream" in given else None,
        nth=counts,
        every=_count(f"{place}.every", given["every"], 1) if "every" in given else None,
        chance=chance,
        seed=_count(f"{place}.seed", given.get("seed", 0), 0),
    )


def _do(place: str, value: Any) -> Do:
    given = _members(place, value, [one.name for one in fields(Do)])
    for name in ("status", "stall_ms", "trickle_ms", "after_deltas", "after_bytes"):
        if name in given:
            _count(f"{place}.{name}", given[name], 1)
    for name in ("cut", "broken_json", "empty", "engine_lost"):
        if name in given and not _flag(f"{place}.{name}", given[name]):
            raise MemberError(f"{place}.{name}", "must be true where it is given")
    if isinstance(arguments := given.get("tool_arguments"), dict | list):
        given["tool_arguments"] = json.dumps(arguments)
    for name in ("message", "error_event", "finish_reason", "tool_arguments"):
        _text(f"{place}.{name}", given.get(name), may_be_empty=name == "tool_arguments")
    wait = given.get("retry_after")
    if wait is not None and (isinstance(wait, bool) or not isinstance(wait, int | float) or not 0 <= wait < 1e6):
        raise MemberError(f"{place}.retry_after", "must be a number of seconds")
    actions = [name for name in ACTIONS if name in given]
    if len(actions) != 1:
        raise MemberError(place, f"must have exactly one of {', '.join(ACTIONS)}; it has {', '.join(actions) or 'none'}")
    _check_do(place, given, actions[0])
    return Do(**given)


def _check_do(place: str, given: Mapping[str, Any], action: str) -> None:
    if action == "status" and not 400 <= given["status"] <= 599:
        raise MemberError(f"{place}.status", "must be an HTTP status from 400 to 599")
    if action == "error_event" and given["error_event"] not in ERROR_EVENTS:
        raise MemberError(f"{place}.error_event", f"must be one of: {', '.join(ERROR_EVENTS)}")
    if action == "finish_reason" and given["finish_reason"] not in FINISH_REASONS:
        raise MemberError(f"{place}.finish_reason", f"must be one of: {', '.join(FINISH_REASONS)}")
    if "retry_after" in given and action != "status":
        raise MemberError(f"{place}.retry_after", "goes with status")
    if "message" in given and action not in ("status", "error_event"):
        raise MemberError(f"{place}.message", "goes with status or error_event")
    for name in ("after_deltas", "after_bytes"):
        if name in given and action not in _POSITIONED:
            raise MemberError(f"{place}.{name}", f"goes with one of {', '.join(_POSITIONED)}")
    if "after_deltas" in given and "after_bytes" in given:
        raise MemberError(place, "has both after_deltas and after_bytes")


def _members(place: str, value: Any, known: Sequence[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise MemberError(place, f"must be a mapping with: {', '.join(known)}")
    if unknown := sorted(map(str, value.keys() - set(known))):
        raise MemberError(f"{place}.{unknown[0]}", f"is not a member; known: {', '.join(known)}")
    return {name: member for name, member in value.items() if member is not None}


def _count(place: str, value: Any, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 2**31:
        raise MemberError(place, f"must be a whole number, at least {least}")
    return value


def _flag(place: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise MemberError(place, "must be true or false")
    return value


def _text(place: str, value: Any, *, may_be_empty: bool = False) -> str | None:
    if value is not None and not (isinstance(value, str) and (value or may_be_empty)):
        raise MemberError(place, "must be a text")
    return value


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
