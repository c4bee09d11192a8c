"""The lifecycle of a session: (state, message) -> (action, next state). protocol.md prints this table.

Owns the states, the kinds of messages and the actions. Refuses to carry an action out: the session does.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, StrEnum


class State(StrEnum):
    OPEN = "open"
    INITIALIZED = "initialized"
    DRAINING = "draining"


class Input(StrEnum):
    INITIALIZE = "initialize"
    PING = "ping"
    SHUTDOWN = "shutdown"
    DISCOVER = "server/discover"
    REQUEST = "any other request"
    CANCELLED = "notifications/cancelled, $/cancelRequest"
    NOTIFICATION = "any other notification"


class Action(Enum):
    INITIALIZE = "gets the version and limits"
    PONG = "gets {}"
    DISCOVER = "gets the MCP revisions"
    START = "started"
    CANCEL = "cancels the request with that id"
    IGNORE = "ignored"
    DRAIN = "gets {} when no request is in flight"
    REFUSE_INITIALIZED = "gets error -32600: already initialized"
    REFUSE_DRAINING = "gets error 1013 shutting_down"


# (state, input) -> (action, next state).
LIFECYCLE: Mapping[tuple[State, Input], tuple[Action, State]] = {
    (State.OPEN, Input.INITIALIZE): (Action.INITIALIZE, State.INITIALIZED),
    (State.OPEN, Input.PING): (Action.PONG, State.OPEN),
    (State.OPEN, Input.SHUTDOWN): (Action.DRAIN, State.DRAINING),
    (State.OPEN, Input.DISCOVER): (Action.DISCOVER, State.OPEN),
    (State.OPEN, Input.REQUEST): (Action.START, State.OPEN),
    (State.OPEN, Input.CANCELLED): (Action.CANCEL, State.OPEN),
    (State.OPEN, Input.NOTIFICATION): (Action.IGNORE, State.OPEN),
    (State.INITIALIZED, Input.INITIALIZE): (Action.REFUSE_INITIALIZED, State.INITIALIZED),
    (State.INITIALIZED, Input.PING): (Action.PONG, State.INITIALIZED),
    (State.INITIALIZED, Input.SHUTDOWN): (Action.DRAIN, State.DRAINING),
    (State.INITIALIZED, Input.DISCOVER): (Action.DISCOVER, State.INITIALIZED),
    (State.INITIALIZED, Input.REQUEST): (Action.START, State.INITIALIZED),
    (State.INITIALIZED, Input.CANCELLED): (Action.CANCEL, State.INITIALIZED),
    (State.INITIALIZED, Input.NOTIFICATION): (Action.IGNORE, State.INITIALIZED),
    (State.DRAINING, Input.INITIALIZE): (Action.REFUSE_DRAINING, State.DRAINING),
    (State.DRAINING, Input.PING): (Action.PONG, State.DRAINING),
    (State.DRAINING, Input.SHUTDOWN): (Action.DRAIN, State.DRAINING),
    (State.DRAINING, Input.DISCOVER): (Action.REFUSE_DRAINING, State.DRAINING),
    (State.DRAINING, Input.REQUEST): (Action.REFUSE_DRAINING, State.DRAINING),
    (State.DRAINING, Input.CANCELLED): (Action.CANCEL, State.DRAINING),
    (State.DRAINING, Input.NOTIFICATION): (Action.IGNORE, State.DRAINING),
}
