"""Leaves out of the message to append what the next request's checks would refuse.

Owns which parts of a message are left out as one. The default policy for URLs counts here; the operator's may be narrower.
Refuses to know the checks: `security` has them.
"""

from __future__ import annotations

from typing import Any

from bridge_worker.security.refused_params import ParamsTooLarge, refused_member
from bridge_worker.security.url_policy import UrlPolicy, faults

_POLICY = UrlPolicy()
_LISTS = ("annotations", "reasoning_items", "images")
_STATE = "provider_specific_fields"
_MAX_MEMBERS = 5_000  # a longer list is left out whole: to check 50,000 URLs takes half a second, and the result has them


def leave_out_refused(message: dict[str, Any]) -> list[str]:
    """Changes ``message``, and returns the paths of what it lacks now."""
    left_out: list[str] = []
    for name in _LISTS:
        if name in message and (len(message[name]) > _MAX_MEMBERS or _is_refused({name: message[name]})):
            _leave_out_of_list(message, name, left_out)
    _leave_out_of_state(message, "message", left_out)
    for at, call in enumerate(message.get("tool_calls", ())):
        _leave_out_of_state(call, f"message.tool_calls[{at}]", left_out)
    return left_out


def _leave_out_of_list(message: dict[str, Any], name: str, left_out: list[str]) -> None:
    if len(message[name]) > _MAX_MEMBERS:
        left_out.append(f"message.{name}")
        del message[name]
        return
    refused = {at for at, member in enumerate(message[name]) if _is_refused({name: [member]})}
    left_out += [f"message.{name}[{at}]" for at in sorted(refused)]
    _put(message, name, [member for at, member in enumerate(message[name]) if at not in refused])


def _leave_out_of_state(owner: dict[str, Any], place: str, left_out: list[str]) -> None:
    if isinstance(owner.get(_STATE), dict):
        refused = {name for name, value in owner[_STATE].items() if _is_refused({_STATE: {name: value}})}
        left_out += [f"{place}.{_STATE}.{name:.256}" for name in sorted(refused)]
        _put(owner, _STATE, {name: value for name, value in owner[_STATE].items() if name not in refused})


def _put(owner: dict[str, Any], name: str, value: Any) -> None:
    if value:
        owner[name] = value
    else:
        del owner[name]


def _is_refused(message: dict[str, Any]) -> bool:
    params = {"messages": [message]}
    try:
        return refused_member(params) is not None or next(faults(params, _POLICY), None) is not None
    except ParamsTooLarge:
        return True
