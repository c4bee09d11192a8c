"""Reload of the config, for SIGHUP and ``config/reload``: one at a time, and the old one stays where the new one is refused.

Owns the environment between two configs, the log lines, and the errors that a client gets. Refuses to know what a config starts.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from bridge_worker.config.source import Config, ConfigError, Source
from bridge_worker.errors import BridgeError
from bridge_worker.security.error_text import clean
from bridge_worker.security.redaction import Redactor

_MISTAKE_BYTES = 500  # of one; a config that is all wrong has hundreds
_MISTAKES = 50
NO_CONFIG = "no config to reload: the worker was started without --config"
NO_ENGINES = "a worker without engine processes can't reload its config: restart it, or start it with --engines 1"
_log = logging.getLogger(__name__)


class Reloads:
    """Reloads, one at a time. ``reload_once`` returns the new config, which is active then, and the result; it raises BridgeError
    when the old one stays."""

    def __init__(self, reload_once: Callable[[], Awaitable[tuple[Config, dict[str, Any]]]]) -> None:
        self._reload_once = reload_once
        self._one_at_a_time = asyncio.Lock()
        self._running: set[asyncio.Task[dict[str, Any]]] = set()

    async def reload(self) -> dict[str, Any]:
        """The result of ``config/reload``. Raises BridgeError ``invalid_request`` with all errors; then the old config stays
        active.

        A cancel ends the waiting, not the reload: half of one would be neither the old config nor the new.
        """
        return await asyncio.shield(self.reload_soon())

    def reload_soon(self) -> asyncio.Task[dict[str, Any]]:
        """Starts `reload`. The log reports its outcome, for a signal has no response."""
        task = asyncio.get_running_loop().create_task(self._reload())
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[dict[str, Any]]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved: it is logged, and in the response if there is one

    async def _reload(self) -> dict[str, Any]:
        async with self._one_at_a_time:
            config, result = await self._reload_once()
        _log.info("the config was reloaded", extra={"fields": {name: result[name] for name in ("added", "removed", "changed")}})
        for warning in config.warnings:
            _log.warning("the config: %s", warning)
        return result


def set_environment(source: Source, old: Mapping[str, str], new: Mapping[str, str]) -> None:
    """A variable that only the old config had set is again what it was at the start."""
    for name in old.keys() - new.keys():
        if name in source.environ:
            os.environ[name] = source.environ[name]
        else:
            os.environ.pop(name, None)
    os.environ.update(new)


def mistakes_of(source: Source, error: Exception) -> tuple[str, ...]:
    """Why a config is not taken, a line for each reason."""
    lines = str(error).strip().splitlines() or [""]
    unknown = (f"{source.path}: LiteLLM does not take it: {type(error).__name__}: {lines[0]:.300}",)
    return error.lines if isinstance(error, ConfigError) else unknown


def refused(source: Source, mistakes: tuple[str, ...], redactor: Redactor) -> BridgeError:
    """The error of `config/reload`, which is logged too."""
    lines = [shown(mistake, source, redactor) for mistake in mistakes[:_MISTAKES]]
    message = f"the config is wrong, so the old one goes on: {lines[0]}" + (f" (and {len(mistakes) - 1} more)" if lines[1:] else "")
    _log.error("the config was not reloaded", extra={"fields": {"mistakes": lines}})
    return BridgeError("invalid_request", message, extra={"mistakes": lines})


def shown(line: str, source: Source, redactor: Redactor) -> str:
    """A file is named without its folder: no response shows a path of this machine."""
    folder = os.path.dirname(source.path or "")
    return clean(line.replace(folder + os.sep, "") if folder else line, redactor, _MISTAKE_BYTES)
