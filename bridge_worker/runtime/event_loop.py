"""What an event loop that serves requests needs at its start and its end, in the worker and in an engine process.

Owns the number of its threads and the time that closing may take. Refuses to know what is served.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

from bridge_worker.config.settings import Settings

_EXECUTOR_THREADS = 32  # LiteLLM prepares each call in one; asyncio's own default is 6 on two cores, and one may hang in DNS
_CLOSE_SECONDS = 2.0  # what LiteLLM's callbacks get at the end
_RECORDING_SECONDS = 8.0  # for the lines of a cassette, which a busy machine takes long to write


def set_executor() -> None:
    """Gives the running loop its threads."""
    executor = ThreadPoolExecutor(_EXECUTOR_THREADS, thread_name_prefix="executor")
    asyncio.get_running_loop().set_default_executor(executor)


def closing_seconds(settings: Settings) -> float:
    """The longest that a process may take to end."""
    return _CLOSE_SECONDS + (_RECORDING_SECONDS if settings.is_recorded else 0.0)


async def close_in_time(aclose: Callable[[], Awaitable[object]], seconds: float = _CLOSE_SECONDS) -> None:
    """Whatever fails in it, or takes too long, does not hold up the end of the process."""
    with contextlib.suppress(Exception):
        await asyncio.wait_for(aclose(), seconds)
