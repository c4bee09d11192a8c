"""Parts that are loaded in a thread and awaited in an event loop.

Owns the loading thread, the order of its steps, the garbage collector meanwhile, and how long a request waits for a part. Refuses
to know what a part is.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

from bridge_worker.errors import BridgeError, NotLoaded

HINT = "run omni-bridge doctor, correct the installation or the config, and restart the worker"
LOAD_SECONDS = 60.0  # LiteLLM takes 2-5 s; a disk that needs longer than this has another problem

T = TypeVar("T")
_log = logging.getLogger(__name__)


class Part(Generic[T]):
    """Loaded at most once, in whichever thread calls `load`, and awaited from any event loop.

    With ``on_demand`` the first `get` starts a thread for it; otherwise the owner calls `load`.
    """

    def __init__(self, name: str, load: Callable[[], T], *, on_demand: bool = False) -> None:
        self._name = name
        self._load = load
        self._on_demand = on_demand
        self._begun = threading.Lock()
        self._loaded: Future[T] = Future()
        self._since = time.monotonic()

    def load(self) -> None:
        """Never raises: the caller of `get` receives the error."""
        if not self._begun.acquire(blocking=False):
            return
        self._since = time.monotonic()
        try:
            self._loaded.set_result(self._load())
        except BaseException as error:  # SystemExit too, which an imported module may raise
            _log.critical("%s failed to load", self._name, exc_info=error)
            lines = str(error).strip().splitlines() or [""]
            reason = f"{self._name} could not be loaded ({type(error).__name__}: {lines[0]:.300})"
            self._loaded.set_exception(_Failed(reason))

    async def get(self) -> T:
        """Raises BridgeError ``internal`` when loading failed or takes longer than `LOAD_SECONDS`."""
        if not self._loaded.done():
            await self._wait()
        try:
            return self._loaded.result()
        except _Failed as error:
            raise NotLoaded(str(error), HINT) from None

    async def _wait(self) -> None:
        if self._on_demand and not self._begun.locked():
            threading.Thread(target=self.load, name="loading", daemon=True).start()
        loaded = asyncio.wrap_future(self._loaded)
        done, _ = await asyncio.wait({loaded}, timeout=self._since + LOAD_SECONDS - time.monotonic())
        if not done:
            raise BridgeError("internal", f"{self._name} is not loaded after {LOAD_SECONDS:.0f} s; restart the worker")
        loaded.exception()  # retrieved; `get` reads it from the part


class _Failed(Exception):
    pass


class Loader:
    """Runs ``steps`` in order in one thread, once."""

    def __init__(self, steps: Sequence[Callable[[], object]]) -> None:
        self._steps = steps

    def start(self) -> None:
        threading.Thread(target=self._run, name="loader", daemon=True).start()

    def _run(self) -> None:
        # A collection while modules are being made finds nothing and costs a fifth of the import.
        gc.disable()
        try:
            for step in self._steps:
                step()
        finally:
            gc.freeze()  # what was imported stays; no collection needs to look at it again
            # An error and its traceback are a reference cycle in the oldest generation by the time its chat ends: 50 objects for
            # each failed chat, which only a full collection frees. (20, 20) would run one after 20 million allocations, about 100
            # MiB too late. With the imported objects frozen, a full collection takes 10 ms.
            gc.set_threshold(50_000, 5, 2)
            gc.enable()
