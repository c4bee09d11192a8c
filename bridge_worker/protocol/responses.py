"""Responses as lines.

Owns what is sent instead of a response that has no JSON form. Refuses to know where a response comes from.
"""

from __future__ import annotations

from collections.abc import Callable

from bridge_worker.errors import BridgeError
from bridge_worker.protocol.framing import encode
from bridge_worker.protocol.session import Encoded, Response, error_response


def encode_response(value: Response | Encoded | list[Response | Encoded], on_failure: Callable[[], object]) -> bytes:
    """As one line. ``on_failure`` is called, within the exception's handler, for a response that has no JSON form; an error is
    sent instead."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, list):  # the members that can be sent are sent
        return b"[" + b",".join(encode_response(member, on_failure).rstrip(b"\n") for member in value) + b"]\n"
    try:
        return encode(value)
    except (ValueError, TypeError, RecursionError):
        on_failure()
    id = value["id"]
    return encode(
        error_response(id if isinstance(id, str | int) else None, BridgeError("internal", "the response has no JSON form"))
    )
