"""Error table of the bridge: every kind, its JSON-RPC code, and whether the client may retry the same call.

Owns the vocabulary that leaves the process in ``error.data``. Refuses to know where an error came from: LiteLLM's exceptions are
converted in ``backends/litellm/``, pydantic's in ``methods``. Imports the standard library only, so that the first response is sent
before any heavy import.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

MAX_MESSAGE_BYTES = 2048  # UTF-8; a longer message is cut, such as a provider's HTML error page


MAX_NAME_LENGTH = 256  # characters of a model's name that an error or a receipt repeats


class Kind(NamedTuple):
    """A row of the table.

    ``code`` is JSON-RPC's ``error.code``: the standard ones keep their meaning; the bridge's codes are positive,
    outside the range -32768..-32000 that JSON-RPC reserves. ``retryable``: whether the identical request may succeed later.
    """

    code: int
    retryable: bool
    when: str


KINDS: Mapping[str, Kind] = {
    "parse_error": Kind(-32700, False, "the line is not JSON, not UTF-8, or nested too deeply"),
    "invalid_message": Kind(-32600, False, "JSON, but not a JSON-RPC 2.0 request; a line over the limit; an id already in flight"),
    "method_not_found": Kind(-32601, False, "the method does not exist"),
    "invalid_request": Kind(-32602, False, "the params do not fit the method: a missing, unknown or refused member"),
    "unsupported_version": Kind(-32022, False, "MCP: `_meta` names a revision that is not served; `supported` has those that are"),
    "internal": Kind(-32603, False, "an error in the bridge itself; the log has the traceback"),
    "authentication": Kind(1001, False, "401 from the provider, or no API key is configured"),
    "permission": Kind(1002, False, "403 from the provider"),
    "model_not_found": Kind(1003, False, "404 from the provider, an unknown provider, or an unknown deployment"),
    "rejected_by_provider": Kind(1004, False, "400, 413 or 422 from the provider, or a parameter that it does not support"),
    "context_length_exceeded": Kind(1005, False, "the conversation is longer than the model's context"),
    "content_policy": Kind(1006, False, "the provider's content policy refused the request"),
    "rate_limited": Kind(1007, True, "429, a cooldown or a usage limit; `retry_after_ms` is the provider's value"),
    "budget_exceeded": Kind(1008, False, "402 from the provider, or a budget of the config is used up"),
    "timeout": Kind(1009, True, "a deadline of the request or of the provider, 408 or 504; `deadline` names it"),
    "provider_unavailable": Kind(1010, True, "refused, reset, DNS, 5xx or 529"),
    "bad_upstream_response": Kind(1011, True, "empty choices, a malformed body, or tool arguments that are not JSON"),
    "overloaded": Kind(1012, True, "more requests in flight here than `limits.maxInFlight`"),
    "shutting_down": Kind(1013, True, "the worker is about to exit; use another one"),
    "stream_interrupted": Kind(
        1014, False, "the upstream broke off after the first delta; `partial` has the content received so far"
    ),
    "engine_lost": Kind(
        1015, True, "the engine process of the request crashed or hung; `sent_upstream` and `partial` have what is known of it"
    ),
    "cassette_miss": Kind(1016, False, "the replayed cassette does not have the request; `nearest` has the most similar one"),
    "cancelled": Kind(-32800, False, "the caller cancelled it"),
}


NO_SUCH_MEMBER = "unknown member; protocol.md lists the members"
INTERNAL_MESSAGE = "internal error in the bridge; the worker's log on stderr has the traceback under this request's id"


class MemberError(ValueError):
    """A member of a settings mapping has a wrong value. ``member`` is its path, such as "omni_bridge.local.llama.file"."""

    def __init__(self, member: str, problem: str) -> None:
        self.member, self.problem = member, problem
        super().__init__(f"{member}: {problem}")


@dataclass(slots=True, eq=False)
class BridgeError(Exception):
    """An error in the form that the client receives. ``message`` is one sentence for the user, with the next step.

    ``retry_after_ms`` is milliseconds from now, ``status`` the provider's HTTP status, ``extra`` the members of this kind only
    (``partial``, ``deadline``, ``upstream_closed``, ``supported``, ``nearest``). The message is cleaned and cut where it leaves
    the process, not here.
    """

    kind: str
    message: str
    retry_after_ms: int | None = None
    provider: str | None = None
    model: str | None = None
    status: int | None = None
    extra: dict[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.message

    @property
    def code(self) -> int:
        return KINDS[self.kind].code

    @property
    def retryable(self) -> bool:
        return bool(self.extra.get("retryable", KINDS[self.kind].retryable))

    def data(self) -> dict[str, object]:
        """``error.data`` on the wire: always these six members, then the members of the kind."""
        return {
            "kind": self.kind,
            "retryable": self.retryable,
            "retry_after_ms": self.retry_after_ms,
            "provider": self.provider,
            "model": self.model and self.model[:MAX_NAME_LENGTH],
            "status": self.status,
            **self.extra,
        }


class NotLoaded(BridgeError):
    """``problem`` is the message without its next step, for a message that has another."""

    def __init__(self, problem: str, hint: str) -> None:
        super().__init__("internal", f"{problem}; {hint}")
        self.problem = problem


def cancelled_error(*, upstream_closed: bool) -> BridgeError:
    """The error of a cancelled request without received content. ``upstream_closed``: its connection to the provider is closed."""
    extra: dict[str, object] = {"upstream_closed": upstream_closed, "partial": {"content": None, "tool_calls": []}}
    return BridgeError("cancelled", "cancelled before it was finished", extra=extra)
