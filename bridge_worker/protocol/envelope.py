"""The envelope of a JSON-RPC 2.0 message: its id, method and params.

Owns what makes a JSON value a message. Refuses to know which methods there are.
"""

from __future__ import annotations

from bridge_worker.errors import BridgeError
from bridge_worker.protocol.framing import MAX_ID_LENGTH, is_id

WORKER_ID = "omni-bridge:"  # how the ids of the worker's own requests begin


def is_response(value: object) -> bool:
    """Whether it is the client's response to a request of the worker's, well-formed or not."""
    if not isinstance(value, dict) or "method" in value:
        return False
    id = value.get("id")
    return isinstance(id, str) and id.startswith(WORKER_ID)


def readable_id(value: object) -> str | int | None:
    id = value.get("id") if isinstance(value, dict) else None
    return id if is_id(id) else None


def check_envelope(value: object, id: str | int | None) -> tuple[str, dict[str, object]] | None:
    """(method, params) of a request or notification; None for a response to no request of the worker's. ``id`` is `readable_id`."""
    if not isinstance(value, dict):
        raise BridgeError("invalid_message", "a message must be a JSON object, or an array of them")
    if value.get("jsonrpc") != "2.0":
        raise BridgeError("invalid_message", 'a message must have "jsonrpc": "2.0"')
    if "method" not in value and ("result" in value or "error" in value):
        return None
    if id is None and "id" in value:
        raise BridgeError(
            "invalid_message",
            f"an id must be a string or an integer of at most {MAX_ID_LENGTH:,} characters; leave it out for a notification",
        )
    method, params = value.get("method"), value.get("params", {})
    if not isinstance(method, str):
        raise BridgeError("invalid_message", "a request must have a method, a string")
    if params == [] or params is None:
        params = {}
    if isinstance(params, list):
        raise BridgeError("invalid_request", "params must be an object: every parameter here has a name")
    if not isinstance(params, dict):
        raise BridgeError("invalid_message", "params must be an object")
    return method, params
