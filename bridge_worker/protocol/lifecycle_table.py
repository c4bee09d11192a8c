"""The lifecycle of a session: (state, message) -> (action, next state). protocol.md prints this table.

Owns the states, the kinds of messages and the actions. Refuses to carry an action out: the session does.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum


class State(Enum):
    OPEN = "open"
    GREETED = "greeted"
    DRAINING = "draining"


class Input(Enum):
    INITIALIZE = "initialize"
    PING = "ping"
    SHUTDOWN = "shutdown"
    DISCOVER = "server/discover"
    REQUEST = "any other request"
    CANCELLED = "notifications/cancelled, $/cancelRequest"
    NOTIFICATION = "any other notification"


class Action(Enum):
    GREET = "answered with the version and limits"
    PONG = "answered {}"
    DISCOVER = "answered with the MCP revisions"
    START = "started"
    CANCEL = "the request it names is cancelled"
    IGNORE = "ignored"
    DRAIN = "answered {} once nothing is in flight"
    REFUSE_GREETED = "answered -32600: already initialized"
    REFUSE_DRAINING = "answered 1013 shutting_down"


# (state, input) -> (what happens, next state). protocol.md prints this table.
LIFECYCLE: Mapping[tuple[State, Input], tuple[Action, State]] = {
    (State.OPEN, Input.INITIALIZE): (Action.GREET, State.GREETED),
    (State.OPEN, Input.PING): (Action.PONG, State.OPEN),
    (State.OPEN, Input.SHUTDOWN): (Action.DRAIN, State.DRAINING),
    (State.OPEN, Input.DISCOVER): (Action.DISCOVER, State.OPEN),
    (State.OPEN, Input.REQUEST): (Action.START, State.OPEN),
    (State.OPEN, Input.CANCELLED): (Action.CANCEL, State.OPEN),
    (State.OPEN, Input.NOTIFICATION): (Action.IGNORE, State.OPEN),
    (State.GREETED, Input.INITIALIZE): (Action.REFUSE_GREETED, State.GREETED),
    (State.GREETED, Input.PING): (Action.PONG, State.GREETED),
    (State.GREETED, Input.SHUTDOWN): (Action.DRAIN, State.DRAINING),
    (State.GREETED, Input.DISCOVER): (Action.DISCOVER, State.GREETED),
    (State.GREETED, Input.REQUEST): (Action.START, State.GREETED),
    (State.GREETED, Input.CANCELLED): (Action.CANCEL, State.GREETED),
    (State.GREETED, Input.NOTIFICATION): (Action.IGNORE, State.GREETED),
    (State.DRAINING, Input.INITIALIZE): (Action.REFUSE_DRAINING, State.DRAINING),
    (State.DRAINING, Input.PING): (Action.PONG, State.DRAINING),
    (State.DRAINING, Input.SHUTDOWN): (Action.DRAIN, State.DRAINING),
    (State.DRAINING, Input.DISCOVER): (Action.REFUSE_DRAINING, State.DRAINING),
    (State.DRAINING, Input.REQUEST): (Action.REFUSE_DRAINING, State.DRAINING),
    (State.DRAINING, Input.CANCELLED): (Action.CANCEL, State.DRAINING),
    (State.DRAINING, Input.NOTIFICATION): (Action.IGNORE, State.DRAINING),
}
