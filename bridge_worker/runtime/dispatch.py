"""The dispatch port: what a server gives its requests to.

Owns the port and the two forms of a request: a call that reports its response, and a coroutine that returns it. Refuses to know
what a request does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Protocol, TypeVar

from bridge_worker.errors import INTERNAL_MESSAGE, BridgeError, cancelled_error
from bridge_worker.protocol.session import Encoded, Id, Response, Start, error_response
from bridge_worker.runtime.notifier import Notifier

Respond = Callable[[Response | Encoded], None]
Cancel = Callable[[], object]
T = TypeVar("T")

_log = logging.getLogger(__name__)


class Dispatch(Protocol):
    """Whatever runs requests, in this process or in another."""

    def state(self) -> Mapping[str, object]:
        """``engine`` in the result of ``initialize``."""

    def begin(self, start: Start, received: float, notify: Notifier, respond: Respond) -> Cancel:
        """Calls ``respond`` once, with the whole response, perhaps before it returns. What it returns cancels the request; the
        response still comes. No coroutine: a task for each request is a quarter of what a chat costs the server process."""

    async def ready(self) -> Mapping[str, object]:
        """The params of ``notifications/ready``, once LiteLLM is loaded. Raises BridgeError when it can't be."""


class RunsInTasks:
    """The port's `begin` for requests that are coroutines."""

    async def dispatch(self, start: Start, received: float, notify: Notifier) -> Response | Encoded:
        """Returns the whole response, also when its task is cancelled. Raises BridgeError only."""
        raise NotImplementedError

    def begin(self, start: Start, received: float, notify: Notifier, respond: Respond) -> Cancel:
        id = start.id
        return run_in_task(id, self.dispatch(start, received, notify), respond, lambda error: error_response(id, error))


def run_in_task(
    id: Id, work: Coroutine[object, object, T], done: Callable[[T], None], failed: Callable[[BridgeError], T]
) -> Callable[[], object]:
    """Calls ``done`` with what ``work`` returns, or with what ``failed`` makes of its error. The result cancels the task."""

    def ended(task: asyncio.Task[T]) -> None:
        if task.cancelled():  # perhaps before it began: the cancel was read with the request
            done(failed(cancelled_error(upstream_closed=True)))
        elif (error := task.exception()) is None:
            done(task.result())
        elif isinstance(error, BridgeError):
            done(failed(error))
        else:
            _log.error("dispatching failed", exc_info=error, extra={"fields": {"id": id}})
            done(failed(BridgeError("internal", INTERNAL_MESSAGE)))

    task = asyncio.create_task(work)
    task.add_done_callback(ended)
    return task.cancel


async def response_of(app: Dispatch, start: Start, received: float, notify: Notifier) -> Response | Encoded:
    """The response, for a task. A cancel of the task cancels the request, and the task gets its response too."""
    loop, responses = asyncio.get_running_loop(), list[Response | Encoded]()
    arrived = loop.create_future()

    def respond(response: Response | Encoded) -> None:
        responses.append(response)
        if not arrived.done():
            arrived.set_result(None)

    cancel = app.begin(start, received, notify, respond)
    while not responses:
        try:
            await arrived
        except asyncio.CancelledError:
            arrived = loop.create_future()
            cancel()
    return responses[0]
