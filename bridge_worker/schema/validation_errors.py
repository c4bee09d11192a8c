"""Turns pydantic validation errors into one line: "path: reason".

Owns the path that the caller would write and the sentence for each kind of error. Refuses to know which method the params are for.
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from bridge_worker.errors import NO_SUCH_MEMBER

_LISTED = 3  # errors in a message; the rest are counted
_MAX_NAME = 256  # characters of a member's name that a message repeats


def explain(error: ValidationError, params: object) -> str:
    """The first errors, each with the path that the caller would write."""
    reasons: dict[str, dict[str, None]] = {}
    for detail in error.errors(include_url=False, include_context=False, include_input=False):
        reasons.setdefault(_path(detail["loc"], params, detail["type"]), {})[_reason(detail["type"], detail["msg"])] = None
    # pydantic reports an error for every branch of a union. Keep the deepest path.
    prefixes = {path[:end] for path in reasons for end, character in enumerate(path) if character in ".["}
    paths = [path for path in reasons if path not in prefixes]
    listed = "; ".join(f"{path}: {' or '.join(reasons[path])}" for path in paths[:_LISTED])
    return f"{listed} (and {len(paths) - _LISTED} more)" if len(paths) > _LISTED else listed


def _path(location: tuple[int | str, ...], value: object, type: str) -> str:
    """pydantic's location without the names of union branches, which are not in the caller's JSON."""
    path = ""
    for index, step in enumerate(location):
        last = index == len(location) - 1
        if isinstance(step, int):
            path += f"[{step}]"
            value = value[step] if isinstance(value, list) and step < len(value) else None
        elif isinstance(value, dict) and _is_member(location[: index + 1], value, last, type):
            path += f".{step:.{_MAX_NAME}}"
            value = value.get(step)
    return path.lstrip(".") or "params"


def _is_member(location: tuple[int | str, ...], value: dict[str, Any], last: bool, type: str) -> bool:
    """False for the tag of a union, which pydantic puts after the index of a message or part."""
    step = location[-1]
    behind_index = len(location) > 1 and isinstance(location[-2], int)
    is_tag = behind_index and not last and step != "function" and step in (value.get("type"), value.get("role"))
    return not is_tag and (step in value or (last and type == "missing"))


def _reason(type: str, message: str) -> str:
    match type:
        case "extra_forbidden":
            return NO_SUCH_MEMBER
        case "missing":
            return "is missing"
        case "string_pattern_mismatch":
            return "must be a data: or https: URL (or, for file_id, an id)"
        case "union_tag_not_found":
            return 'needs a "role" (a message) or a "type" (a part)'
        case "union_tag_invalid":
            return "unknown role or type"
        case "string_too_long" | "too_long":
            return f"is too long: {message[:1].lower()}{message[1:].replace(' after validation', '')}"
        case "model_type" | "model_attributes_type" | "dict_type":
            return "must be an object"
        case _:
            return message[:1].lower() + message[1:]
