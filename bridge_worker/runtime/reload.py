"""Reload of the config, for SIGHUP and ``config/reload``: read, build, activate, or keep the old one.

Owns the environment between two configs, the order of a reload, and the error that a client gets. Refuses to know what is built
from a config.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Generic, TypeVar

from bridge_worker.config.diff import changes, merged
from bridge_worker.config.source import Config, ConfigError, Source
from bridge_worker.errors import BridgeError
from bridge_worker.security.error_text import clean
from bridge_worker.security.redaction import Redactor

_MISTAKE_BYTES = 500  # of one; a config that is all wrong has hundreds
_MISTAKES = 50
NO_CONFIG = "no config to reload: the worker was started without --config"

T = TypeVar("T")
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


class InPlace(Generic[T]):
    """One reload in a process that goes on with the new config.

    ``current`` returns the active config. ``is_loaded`` returns when the start is over. ``build`` runs in a thread and raises when
    the new config can't be served; ``activate`` makes what it returned active, from the next request on.
    """

    def __init__(
        self,
        source: Source,
        redactor: Redactor,
        *,
        current: Callable[[], Config],
        is_loaded: Callable[[], Awaitable[None]],
        build: Callable[[Config], T],
        activate: Callable[[T], None],
    ) -> None:
        self._source = source
        self._redactor = redactor
        self._current = current
        self._is_loaded = is_loaded
        self._build = build
        self._activate = activate

    async def reload_once(self) -> tuple[Config, dict[str, Any]]:
        """The new config and the result of ``config/reload``. Raises BridgeError."""
        await self._is_loaded()
        config, built = await asyncio.to_thread(self._read_and_build)
        result = changes(self._current(), config)
        result["warnings"] = self.shown(result["warnings"])
        self._activate(built)
        return config, result

    def shown(self, lines: Iterable[object]) -> list[str]:
        """Warnings as a client may see them."""
        return [shown(str(line), self._source, self._redactor) for line in lines]

    def _read_and_build(self) -> tuple[Config, T]:
        """The config as it was read, and what was built from it. On an error everything is as it was."""
        old = self._current()
        try:
            config = self._source.load()
            for secret in config.secrets:
                self._redactor.add(secret)
            set_environment(self._source, old.environment, config.environment)
            try:
                return config, self._build(replace(config, settings=merged(old.settings, config.settings)))
            except BaseException:
                set_environment(self._source, config.environment, old.environment)
                raise
        except Exception as error:
            raise refused(self._source, mistakes_of(self._source, error), self._redactor) from error


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
