"""Gemini's function calls, whole or with arguments that arrive in parts, each with the path of what it adds to.

Owns the paths (the subset of JSONPath that names one value) and the object that grows along them. Refuses to know events.
"""

from __future__ import annotations

import json
import re
from typing import Any

from bridge_worker.backends.wire.gathered import Draft
from bridge_worker.backends.wire.json_values import Json, name_of, object_of, objects_of, text_of
from bridge_worker.core.deltas import ToolCallDelta

MAX_INDEX = 10_000  # of an array: a path may name any number
MAX_STEPS = 64
VALUES = ("stringValue", "numberValue", "boolValue", "nullValue")
_STEP = re.compile(r"""\.([^.\[\]'"]+)|\[(\d{1,9})\]|\[(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)")\]""")


class Calls:
    """The calls of one response. A call with ``willContinue`` is open until a part without it."""

    __slots__ = ("_args", "_open", "count")

    def __init__(self) -> None:
        self.count = 0
        self._open = False
        self._args: Json = {}

    def read(self, call: Json, signature: str | None, delta: Draft) -> None:
        """Reads one functionCall; the signature is its part's."""
        if not call and not self._open:
            return
        state: Json | None = {"thought_signature": signature} if signature else None
        name = text_of(call.get("name"))
        if name or not self._open:
            self.close(delta)
            delta.tool_calls.append(ToolCallDelta(self.count, name_of(call.get("id")), name, "", state))
            self.count += 1
            self._open = True
        elif state:
            delta.tool_calls.append(ToolCallDelta(self.count - 1, None, None, "", state))
        self._args |= object_of(call.get("args"))
        for part in objects_of(call.get("partialArgs")):
            _set(self._args, steps(part.get("jsonPath")), value_of(part))
        if call.get("willContinue") is not True:
            self.close(delta)

    def close(self, delta: Draft) -> None:
        """Ends the open call: its arguments are sent whole."""
        if self._open:
            arguments = json.dumps(_dense(self._args), ensure_ascii=False)
            delta.tool_calls.append(ToolCallDelta(self.count - 1, None, None, arguments))
        self._open, self._args = False, {}


def steps(path: Any) -> list[str | int]:
    """The members and positions that a path names: `$.a['b c'][0]`. Raises ValueError for any other path."""
    if not isinstance(path, str) or not path.startswith("$"):
        raise ValueError("not a path")
    found: list[str | int] = []
    at = 1
    while at < len(path):
        step = _STEP.match(path, at)
        if step is None or len(found) >= MAX_STEPS:
            raise ValueError("not a path of members and positions")
        at = step.end()
        dotted, position, single, double = step.groups()
        if position is None:
            quoted = single if single is not None else double
            found.append(dotted if dotted is not None else re.sub(r"\\(.)", r"\1", quoted))
        else:
            found.append(int(position))
            if found[-1] > MAX_INDEX:  # type: ignore[operator]  # just appended
                raise ValueError("an index too large")
    return found


def value_of(part: Json) -> Any:
    return next((None if name == "nullValue" else part[name] for name in VALUES if name in part), None)


def _set(root: Json, path: list[str | int], value: Any) -> None:
    """Sets the value; a text grows. Arrays are objects by position until `_dense`, so that a path can't allocate one."""
    if not path:
        return
    holder: Any = root
    for step in path[:-1]:
        inner = holder.get(step)
        if isinstance(inner, list):
            inner = holder[step] = dict(enumerate(inner))
        elif not isinstance(inner, dict):
            inner = holder[step] = {}
        holder = inner
    known = holder.get(path[-1])
    if isinstance(value, str) and isinstance(known, _Text):
        known.append(value)
    else:
        holder[path[-1]] = _Text([value]) if isinstance(value, str) else value


class _Text(list[str]):
    """A text that grows."""


def _dense(value: Any) -> Any:
    if isinstance(value, _Text):
        return "".join(value)
    if isinstance(value, dict):
        if value and all(isinstance(step, int) for step in value):
            return [_dense(value.get(position)) for position in range(max(value) + 1)]
        return {str(step): _dense(member) for step, member in value.items()}
    return [_dense(member) for member in value] if isinstance(value, list) else value
