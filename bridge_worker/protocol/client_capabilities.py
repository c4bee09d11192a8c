"""What a client declares in ``initialize`` that it can do for the worker.

Owns the reading of ``capabilities``; members of other names are the client's own. Refuses to know what the worker does with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bridge_worker.errors import BridgeError

DEFAULT_TIMEOUT_MS = 30_000
MAX_TIMEOUT_MS = 600_000


@dataclass(frozen=True, slots=True)
class CredentialsCapability:
    """The client responds to ``credentials/get``. ``providers``: for these only, None for each that needs a key."""

    providers: frozenset[str] | None = None
    timeout_ms: int = DEFAULT_TIMEOUT_MS


def credentials_capability(params: Mapping[str, object]) -> CredentialsCapability | None:
    """That of the params of ``initialize``. Raises BridgeError ``invalid_request``."""
    capabilities = params.get("capabilities")
    declared = capabilities.get("credentials") if isinstance(capabilities, dict) else None
    if declared is None:
        return None
    if not isinstance(declared, dict):
        raise BridgeError("invalid_request", "capabilities.credentials must be an object")
    providers, timeout_ms = declared.get("providers"), declared.get("timeout_ms")
    if providers is not None and not (isinstance(providers, list) and all(isinstance(name, str) for name in providers)):
        raise BridgeError("invalid_request", "capabilities.credentials.providers must be a list of provider names")
    if timeout_ms is not None and (type(timeout_ms) is not int or not 0 < timeout_ms <= MAX_TIMEOUT_MS):
        wrong = f"capabilities.credentials.timeout_ms must be an integer of 1 to {MAX_TIMEOUT_MS:,} milliseconds"
        raise BridgeError("invalid_request", wrong)
    return CredentialsCapability(None if providers is None else frozenset(providers), timeout_ms or DEFAULT_TIMEOUT_MS)
