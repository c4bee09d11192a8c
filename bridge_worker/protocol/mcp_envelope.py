"""MCP envelope of messages, by revision: versions, capabilities, `server/discover`, `_meta` of requests and results.

Owns the names that MCP reserves. Refuses to know what a tool does, and imports nothing heavy: a client of either era gets its
response before any heavy import. MCP's first era starts with the handshake ``initialize``; from revision 2026-07-28 on it is gone,
and each request carries its revision in ``_meta`` instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bridge_worker.errors import MAX_NAME_LENGTH, BridgeError
from bridge_worker.version import __version__

HANDSHAKE_REVISIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
ENVELOPE_REVISIONS = ("2026-07-28",)
CAPABILITIES: Mapping[str, object] = {"tools": {}}
SERVER_INFO: Mapping[str, object] = {"name": "omni-bridge", "version": __version__}

_PREFIX = "io.modelcontextprotocol/"
_REVISION = _PREFIX + "protocolVersion"
_CLIENT_CAPABILITIES = _PREFIX + "clientCapabilities"
_LASTING = {"ttlMs": 3_600_000, "cacheScope": "public"}  # tools and capabilities are the same for as long as a process lives


def has_envelope(params: Mapping[str, Any]) -> bool:
    """Whether ``params`` are of a revision without a handshake."""
    meta = params.get("_meta")
    return isinstance(meta, dict) and _REVISION in meta


def check_envelope(params: Mapping[str, Any]) -> None:
    """Raises BridgeError for a ``_meta`` with an unsupported revision or without the client's capabilities."""
    if not has_envelope(params):
        return
    meta = params["_meta"]
    revision = meta[_REVISION]
    if not isinstance(revision, str):
        raise BridgeError("invalid_request", f"_meta.{_REVISION} must be a string")
    if not isinstance(meta.get(_CLIENT_CAPABILITIES), dict):
        raise BridgeError("invalid_request", f"_meta.{_CLIENT_CAPABILITIES} must be an object; {{}} will do")
    if revision not in ENVELOPE_REVISIONS:
        message = f"MCP's revision {revision!r:.100} is not supported in _meta; supported: {', '.join(ENVELOPE_REVISIONS)}"
        supported = {"supported": [*ENVELOPE_REVISIONS, *HANDSHAKE_REVISIONS], "requested": revision[:MAX_NAME_LENGTH]}
        raise BridgeError("unsupported_version", message, extra=dict(supported))


def result(params: Mapping[str, Any], members: Mapping[str, Any], *, lasting: bool = False) -> dict[str, Any]:
    """Wraps ``members`` as a result for the revision of ``params``. ``lasting``: the client may cache it."""
    if not has_envelope(params):
        return dict(members)
    meta = {**members.get("_meta", {}), _PREFIX + "serverInfo": SERVER_INFO}
    return {**members, **(_LASTING if lasting else {}), "resultType": "complete", "_meta": meta}


def discover_result(params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the result of ``server/discover``. Raises BridgeError as `check_envelope` does."""
    check_envelope(params)
    versions = [*ENVELOPE_REVISIONS, *HANDSHAKE_REVISIONS]
    meta = {_PREFIX + "serverInfo": SERVER_INFO}
    return {"supportedVersions": versions, "capabilities": CAPABILITIES, **_LASTING, "resultType": "complete", "_meta": meta}
