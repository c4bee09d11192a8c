"""What an event loop that serves requests needs at its start and its end, in the worker and in an engine process.

Owns the number of its threads and the time that closing may take. Refuses to know what is served.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

_EXECUTOR_THREADS = 32  # LiteLLM prepares each call in one; asyncio's own default is 6 on two cores, and one may hang in DNS
_CLOSE_SECONDS = 2.0  # what LiteLLM's callbacks get at the end


def set_executor() -> None:
    """Gives the running loop its threads."""
    executor = ThreadPoolExecutor(_EXECUTOR_THREADS, thread_name_prefix="executor")
    asyncio.get_running_loop().set_default_executor(executor)


async def close_in_time(aclose: Callable[[], Awaitable[None]]) -> None:
    """Whatever fails in it, or takes too long, does not hold up the end of the process."""
    with contextlib.suppress(Exception):
        await asyncio.wait_for(aclose(), _CLOSE_SECONDS)
