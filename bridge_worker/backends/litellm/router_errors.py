"""Turns an error of an attempt into the LiteLLM exception for which the Router reacts correctly.

Owns the table from the bridge's kinds to LiteLLM's exception classes. The Router looks at nothing else: the class decides whether
it retries, cools a deployment down, and which list of fallbacks it uses. Both generations of Router read ``retry-after`` from
``litellm_response_headers``. Refuses to know what the Router does then.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx
import litellm

from bridge_worker.backends.litellm.upstream import Target
from bridge_worker.backends.reading import AttemptError
from bridge_worker.errors import BridgeError

_CLASSES: Mapping[str, str] = {
    "authentication": "AuthenticationError",
    "permission": "PermissionDeniedError",
    "model_not_found": "NotFoundError",
    "rejected_by_provider": "BadRequestError",
    "context_length_exceeded": "ContextWindowExceededError",
    "content_policy": "ContentPolicyViolationError",
    "timeout": "Timeout",
    "rate_limited": "RateLimitError",
    "budget_exceeded": "RateLimitError",  # a used-up balance of one key: another deployment may have one
    "provider_unavailable": "InternalServerError",
    "bad_upstream_response": "InternalServerError",
    "stream_interrupted": "APIConnectionError",
}
_WITHOUT_RESPONSE = ("Timeout", "APIConnectionError")
_SERVICE_UNAVAILABLE = 503


def for_router(failed: AttemptError, model: str, provider: str | None) -> Exception:
    """The exception to raise in a deployment's call. `fault_of` finds the bridge's own error in it again."""
    fault = failed.fault
    name = "APIConnectionError" if failed.is_connection and fault.kind != "timeout" else _CLASSES.get(fault.kind)
    if name is None:
        made: Any = Exception(fault.message)
    else:
        if name == "InternalServerError" and fault.status == _SERVICE_UNAVAILABLE:
            name = "ServiceUnavailableError"
        arguments: dict[str, Any] = {"message": fault.message, "model": model, "llm_provider": provider or ""}
        if name not in _WITHOUT_RESPONSE:
            request = httpx.Request("POST", "https://provider")
            arguments["response"] = httpx.Response(fault.status or 500, headers=dict(failed.headers), request=request)
        made = getattr(litellm, name)(**arguments)
    made.litellm_response_headers = httpx.Headers(dict(failed.headers))
    return with_fault(made, fault)


def for_unusable(why: str, target: Target) -> Exception:
    """The exception to raise for a deployment without its key or host: the next request gets the same reason."""
    return without_cooldown(
        BridgeError("authentication", f"this deployment can't be used: {why}", provider=target.provider), target
    )


def without_cooldown(fault: BridgeError, target: Target) -> Exception:
    """After a bad request the Router uses the fallbacks, and cools nothing down."""
    return with_fault(litellm.BadRequestError(fault.message, llm_provider=target.provider or "", model=str(target.model)), fault)


def with_fault(error: Exception, fault: BridgeError) -> Exception:
    error.bridge_fault = fault  # type: ignore[attr-defined]
    return error


def fault_of(error: BaseException | None) -> BridgeError | None:
    """The bridge's error that ``error``, as the Router raised it, stands for. Its own causes come first, then what it wraps."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(fault := getattr(error, "bridge_fault", None), BridgeError):
            return fault
        if isinstance(error, BridgeError):
            return error
        error = getattr(error, "original_exception", None)
    return None
