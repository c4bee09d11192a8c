"""The dispatch port over engine processes: requests go to a pool, and what must always get a response gets it here.

Owns ``status``, the request counters and the budget accounts of all engines. Refuses to run a provider's or LiteLLM's code: it
imports the standard library and light modules of the bridge only.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from bridge_worker import invariants
from bridge_worker.config.diff import OF_THE_SERVER, changes
from bridge_worker.config.settings import Settings
from bridge_worker.config.source import Config, Source
from bridge_worker.core.credentials import CredentialSource
from bridge_worker.engines.handle import EngineHandle, OnLog, reason_against
from bridge_worker.engines.owner import Limits
from bridge_worker.engines.pool import EnginePool, Output
from bridge_worker.engines.requests import Outcome
from bridge_worker.engines.supervisor import Supervisor
from bridge_worker.engines.template_process import EngineStarter, TemplateProcess, spawn_template
from bridge_worker.errors import NO_SUCH_MEMBER, BridgeError
from bridge_worker.protocol.framing import encode
from bridge_worker.protocol.link_frames import Kind
from bridge_worker.protocol.session import Start, error_response, response
from bridge_worker.runtime.dispatch import Cancel, Respond, run_in_task
from bridge_worker.runtime.engine_process import PROGRAM, Setup, encode_setup
from bridge_worker.runtime.event_loop import closing_seconds
from bridge_worker.runtime.notifier import DELTA_QUEUE_BYTES, Notifier
from bridge_worker.runtime.reload import NO_CONFIG, Reloads, mistakes_of, refused, shown
from bridge_worker.runtime.shared_state import SharedStateService
from bridge_worker.security.redaction import Redactor
from bridge_worker.system.resources import memory_bytes
from bridge_worker.telemetry.request_counters import RequestCounters
from bridge_worker.version import __version__

_TRACE_CONTEXT = ("traceparent", "tracestate")
_log = logging.getLogger("bridge_worker.requests")


class PooledApp:
    """A template process was forked from this process while it had one thread. ``on_log`` gets each line of the processes' logs."""

    def __init__(
        self,
        config: Config,
        source: Source,
        redactor: Redactor,
        starter: EngineStarter,
        on_log: OnLog,
        credentials: CredentialSource,
        *,
        preload_local: bool,
    ) -> None:
        self._config = config
        self._source = source
        self._environment = config.environment
        self._redactor = redactor
        self._starter = starter
        self._on_log = on_log
        self._preload_local = preload_local
        self._preloaded_for: Config | None = None
        self._degraded: list[object] | None = None  # as it was last known
        self._counters = RequestCounters()
        self._shared = SharedStateService(self._push, credentials)
        self._pool: EnginePool | None = None
        self._supervisor: Supervisor | None = None
        self.reloads = Reloads(self._reload_once)
        self.on_loss: Callable[[Mapping[str, object]], None] = lambda _: None  # gets pid, how and requests of each lost engine
        self._own = {"status": self._status, "config/reload": self._reload}

    def start(self, output: Output) -> None:
        """Call it once, in the loop that serves. ``output`` is what the client reads."""
        limits = _limits_of(self._config.settings)
        self._pool = EnginePool(output, DELTA_QUEUE_BYTES, self._default_total_ms, self._serve_call, self._engine_lost)
        setup = functools.partial(self._setup, config=self._config)
        self._supervisor = Supervisor(self._pool, limits, self._starter, _spawn, setup, self._on_log)
        self._pool.start(self._supervisor)

    async def aclose(self) -> None:
        if self._supervisor:
            await self._supervisor.close()

    # The dispatch port.

    def state(self) -> Mapping[str, object]:
        engine: Mapping[str, object] | None = self._loaded().get("engine")
        return engine or {"name": "litellm", "version": None, "ready": False}

    def begin(self, start: Start, received: float, notify: Notifier, respond: Respond) -> Cancel:
        self._counters.begin()
        id, method = start.id, start.method

        def done(outcome: Outcome) -> None:
            self._counters.end(outcome.outcome, outcome.chat_path)
            if not outcome.by_engine:
                ms = round((time.monotonic() - received) * 1000, 3)
                _log.info("request", extra={"fields": {"id": id, "method": method, "outcome": outcome.outcome, "ms": ms}})
            respond(outcome.line)

        if method in self._own:
            return run_in_task(id, self._run_own(start), done, functools.partial(_failed, start))
        return self._pool_of().begin(start, received, notify, done)

    async def ready(self) -> Mapping[str, object]:
        loaded = await self._pool_of().wait_loaded()
        if "failed" in loaded:
            raise BridgeError("internal", str(loaded["failed"]))
        return {"engine": loaded["engine"], "warmMs": self._pool_of().loaded_ms}

    # What this process does itself.

    async def _run_own(self, start: Start) -> Outcome:
        _check_no_params(start.params)
        return Outcome("ok", None, encode(response(start.id, await self._own[start.method]())), by_engine=False)

    async def _status(self) -> dict[str, object]:
        """The members of `schema.status.Status`."""
        engines = self._supervisor.engines if self._supervisor else []
        template = self._supervisor.template.pid if self._supervisor else None
        own, forks = memory_bytes(), memory_bytes(template) if template else None
        return {
            "version": __version__,
            "uptime_ms": self._counters.uptime_ms,
            "requests": self._counters.requests(),
            "memory_bytes": None if own is None else own + (forks or 0) + sum(engine.memory_bytes for engine in engines),
            "engine": dict(self.state()),
            "redis": self._reported("redis") or {"state": "none", "since_ms": None},
            "degraded": self._find_degraded(),
            "engines": [engine.row() for engine in engines],
            "violations": invariants.violations(engine.report.get("violations") for engine in engines),
        }

    def _reported(self, name: str) -> object:
        """As the newest engine that knows it has it; None until one has reported it."""
        reports = [engine.report.get(name) for engine in (self._supervisor.engines if self._supervisor else [])]
        return next((value for value in reversed(reports) if value is not None), None)

    def _find_degraded(self) -> list[object] | None:
        """Of each engine what it has rehearsed, and of the template process all that does not depend on a config."""
        if self._supervisor is not None:
            reports = [engine.report.get("degraded") for engine in self._supervisor.engines]
            template = self._supervisor.template
            if template.rehearsed is not None or (not template.forks and any(rows is not None for rows in reports)):
                rows = {row["part"]: row for rows in (template.rehearsed, *reports) for row in rows or ()}
                self._degraded = list(rows.values())
        return self._degraded

    # A reload: engines with the new config take over, and those with the old one end when they have no request.

    async def _reload(self) -> dict[str, object]:
        if not self._source.path:
            raise BridgeError("invalid_request", NO_CONFIG)
        return await self.reloads.reload()

    async def _reload_once(self) -> tuple[Config, dict[str, Any]]:
        await self._pool_of().first_result.wait()
        if self._pool_of().loaded is None:
            raise BridgeError("internal", "no engine process could be started; the log has the reason, run omni-bridge doctor")
        old = self._config
        try:
            new = await asyncio.to_thread(self._source.load)
            for secret in new.secrets:
                self._redactor.add(secret)
            kept = {name: getattr(old.settings, name) for name in OF_THE_SERVER}
            config = replace(new, settings=replace(new.settings, **kept))
        except Exception as error:
            raise refused(self._source, mistakes_of(self._source, error), self._redactor) from error
        try:
            engine = await self._supervisor_of().start_generation(functools.partial(self._setup, config=config))
        except OSError as error:
            raise refused(self._source, (f"an engine process with it could not be started: {error}",), self._redactor) from error
        if reason := reason_against(engine):
            raise refused(self._source, (f"{self._source.path}: LiteLLM does not take it: {reason}",), self._redactor)
        self._config = config
        self._supervisor_of().limits = _limits_of(config.settings)
        result = changes(old, new)
        warnings = [*result["warnings"], *(engine.loaded or {}).get("unserved", ())]
        return config, result | {"warnings": [shown(line, self._source, self._redactor) for line in warnings]}

    # What engines need of it.

    def _setup(self, early: bool, config: Config) -> bytes:
        is_first = not early and self._preloaded_for is not config  # the oldest engine, which serves the local models
        if is_first:
            self._preloaded_for = config
        setup = Setup(
            config,
            self._source,
            self._environment,
            self._redactor,
            preload_local=is_first and self._preload_local,
            preload_rest=not self._starter.forks,  # it takes 40 MiB, and a template process has it rehearsed for all engines
            early=early,
        )
        return encode_setup(setup)

    def _default_total_ms(self) -> int:
        return self._config.settings.deadline_total_ms

    async def _serve_call(self, engine: EngineHandle, call: Mapping[str, Any]) -> object:
        return await self._shared.serve(engine.key, call)

    def _push(self, key: int, body: bytes) -> None:
        for engine in self._pool_of().engines():
            if engine.key == key:
                engine.link.send(Kind.PUSH, 0, body)

    async def _engine_lost(self, engine: EngineHandle) -> None:
        if engine.loss is not None:
            self.on_loss(engine.loss)
        await self._shared.engine_lost(engine.key)

    def _pool_of(self) -> EnginePool:
        assert self._pool is not None  # noqa: S101  # for mypy: `start` has made it
        return self._pool

    def _supervisor_of(self) -> Supervisor:
        assert self._supervisor is not None  # noqa: S101  # as above
        return self._supervisor

    def _loaded(self) -> Mapping[str, Any]:
        return self._pool.loaded if self._pool and self._pool.loaded else {}


def _limits_of(settings: Settings) -> Limits:
    return Limits(
        settings.engines,
        settings.engine_hang_seconds,
        settings.engine_max_mib or 0,
        settings.engine_max_requests or 0,
        closing_seconds(settings),
    )


def _failed(start: Start, error: BridgeError) -> Outcome:
    return Outcome(error.kind, None, encode(error_response(start.id, error)), by_engine=False)


def _spawn() -> TemplateProcess:
    return spawn_template(PROGRAM)


def _check_no_params(params: Mapping[str, object]) -> None:
    """Raises BridgeError ``invalid_request``. ``_meta`` is about the call, as in MCP."""
    for name in params:
        if name != "_meta":
            raise BridgeError("invalid_request", f"{name:.256}: {NO_SUCH_MEMBER}")
    meta = params.get("_meta")
    if meta is not None and not isinstance(meta, dict):
        raise BridgeError("invalid_request", "_meta: must be an object")
    for name in _TRACE_CONTEXT:
        if isinstance(meta, dict) and meta.get(name) is not None and not isinstance(meta[name], str):
            raise BridgeError("invalid_request", f"_meta.{name}: must be a text")
