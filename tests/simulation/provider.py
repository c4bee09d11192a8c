"""The virtual part of an engine: its loading, and a provider whose every step a script decides. Methods, budgets and core are real.

Owns scripts, connections to the provider and prices. Refuses to know the wire and the client.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bridge_worker.backends.local.chat import Local
from bridge_worker.backends.registry import Backend, Registry
from bridge_worker.budgets.spending import Spending
from bridge_worker.config.source import Config
from bridge_worker.core.deltas import Delta, End, TokenUsage, ToolCallDelta
from bridge_worker.core.ports import ChatRequest, Cost, Embeddings, EmbedRequest, Expense, Facts, Ranking, RerankRequest
from bridge_worker.core.progress import Progress, note_progress
from bridge_worker.core.receipt import Attempt
from bridge_worker.engines.engine import HandBack
from bridge_worker.errors import BridgeError
from bridge_worker.methods.dispatcher import Dispatcher
from bridge_worker.methods.status import GetStatus
from bridge_worker.methods.table import method_table
from bridge_worker.runtime.dispatch import RunsInTasks
from bridge_worker.runtime.shared_state import SharedState
from bridge_worker.schema.models import ModelInfo, ModelSummary
from bridge_worker.schema.tokens import TokenCount
from bridge_worker.security.redaction import Redactor
from bridge_worker.system.redis_connection import no_redis
from bridge_worker.telemetry.request_counters import RequestCounters
from tests.simulation.kernel import Process, ProcessExit
from tests.simulation.schedules import Script

if TYPE_CHECKING:
    from tests.simulation.machine import Machine

INPUT_TOKENS, RECEIVED_TOKENS = 10, 5
NANO_A_TOKEN = 1000
_REDACTOR = Redactor({})
_LOCAL = Local({})


class SimApp(RunsInTasks):
    """As `runtime.app.App`, in an engine process or in a worker of one process."""

    def __init__(
        self,
        machine: Machine,
        process: Process,
        config: Config,
        shared: SharedState | None,
        *,
        early: bool = False,
    ) -> None:
        self.machine = machine
        self.process = process
        self.config = config
        self.spending = Spending(lambda: config.settings.budgets, shared and shared.budgets, shared and shared.tasks)
        self._early = early
        self._backend_of_provider = Backend(Provider(self), PRICES)  # type: ignore[arg-type]
        self._loaded = asyncio.Event()
        self._failed: str | None = None
        counters = RequestCounters()
        registry = Registry(_LOCAL, self._backend, lambda: True, only_offline=early)
        status = GetStatus(counters, self.state, no_redis, list)
        methods = method_table(registry, lambda: config.settings, self.spending, _REDACTOR, status, self._reload)
        self._dispatcher = Dispatcher(methods, _REDACTOR, counters)

    def start(self, output: object = None) -> None:
        if not self._early:
            plan = self.machine.plan
            self._failed = plan.load_failure(self.config)
            seconds = 0.02 if plan.engines else plan.load_seconds
            asyncio.get_running_loop().call_later(seconds, self._finish_loading)

    def state(self) -> Mapping[str, object]:
        return {"name": "litellm", "version": "1.0", "ready": self._loaded.is_set()}

    async def dispatch(self, start: Any, received: float, notify: Any) -> Any:
        return await self._dispatcher.dispatch(start, received, notify)

    async def ready(self) -> Mapping[str, object]:
        if self._early:
            return {}
        await self._loaded.wait()
        if self._failed:
            raise BridgeError("internal", self._failed)
        return {"engine": self.state(), "warmMs": 1.0}

    def unserved(self) -> list[str]:
        return []

    async def aclose(self) -> None: ...

    def _finish_loading(self) -> None:
        if self._failed == "crash":
            raise ProcessExit(-signal.SIGSEGV)
        self._loaded.set()

    async def _backend(self) -> Backend:
        if self._early:
            raise HandBack
        await self.ready()
        return self._backend_of_provider

    async def _reload(self) -> dict[str, Any]:
        raise BridgeError("invalid_request", "no config to reload")


class Connection:
    """To the provider. It closes with its process."""

    def __init__(self, app: SimApp, key: str) -> None:
        self._app, self._key, self._is_open = app, key, True
        app.machine.connections[key] = app.machine.connections.get(key, 0) + 1
        app.process.open.add(self)

    def close(self) -> None:
        self._app.process.open.discard(self)
        self.process_ended()

    def process_ended(self) -> None:
        if self._is_open:
            self._is_open = False
            self._app.machine.connections[self._key] -= 1


class Provider:
    """A `ChatModel`: the text of the first message is the key of the chat's script."""

    def __init__(self, app: SimApp) -> None:
        self._app = app

    async def chat(self, request: ChatRequest) -> AsyncGenerator[list[Delta] | Facts, None]:
        key = request.messages[0]["content"]
        script = self._app.machine.plan.scripts[key]
        note_progress(Progress.SENT)
        attempt = Attempt("ok", None, 0.0, request.model, "sim", None)
        request.receipt.attempts.append(attempt)
        connection = Connection(self._app, key)
        request.upstream_open = True
        words = 0
        try:
            await _wait(script.latency, script)
            for step, argument in script.steps:
                match step:
                    case "wait":
                        await _wait(argument, script)
                    case "text":
                        words += 1
                        yield [Delta(content=argument)]
                    case "burst":
                        words += 1
                        yield [Delta(content=argument), Delta(reasoning="r"), Delta(content=argument)]
                    case "call":
                        yield [Delta(tool_calls=[ToolCallDelta(0, "c1", "f", "")])]
                        yield [Delta(tool_calls=[ToolCallDelta(0, None, None, argument)])]
                    case "fail":
                        attempt.outcome = argument
                        raise BridgeError(argument, "the provider failed")
                    case "break":
                        raise RuntimeError("expected")
                    case "crash" if self._app.machine.plan.engines:
                        self._app.process.end(-signal.SIGSEGV)
                    case "block" if self._app.machine.plan.engines:
                        self._app.process.hang(argument)
                        await asyncio.sleep(0)
            usage = TokenUsage(INPUT_TOKENS, words, INPUT_TOKENS + words)
            cost = (INPUT_TOKENS + words) * NANO_A_TOKEN / 1e9
            yield Facts(End("stop", "stop", usage, model="sim"), provider="sim", cost_usd=cost, cost_source="provider")
        finally:
            request.upstream_open = False
            connection.close()


async def _wait(seconds: float, script: Script) -> None:
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        if script.deaf_seconds:
            await asyncio.sleep(script.deaf_seconds)
            if script.is_stubborn:
                return
        raise


class _Prices:
    """`ModelServices`: every model costs the same."""

    runs_here = False

    def names(self, *, every: bool) -> list[ModelSummary]:
        return []

    def describe(self, model: str) -> ModelInfo:
        raise NotImplementedError

    def count(self, model: str, messages: Sequence[Mapping[str, Any]], tools: Any) -> TokenCount:
        received = messages[0].get("role") == "assistant"
        return _RECEIVED if received else _COUNTED

    def cost_usd(self, model: str, expense: Expense) -> float | None:
        return (expense.input_tokens + (expense.output_tokens or 0)) * NANO_A_TOKEN / 1e9

    def alternatives(self, model: str) -> list[str]:
        return [model]

    async def embed(self, request: EmbedRequest) -> Embeddings:
        return Embeddings([[0.5] for _ in request.input], None, Cost(0.0, "provider"), request.model, "sim")

    async def rerank(self, request: RerankRequest) -> Ranking:
        raise NotImplementedError


_COUNTED = TokenCount(input_tokens=INPUT_TOKENS, tokenizer="sim", exact=True)
_RECEIVED = TokenCount(input_tokens=RECEIVED_TOKENS, tokenizer="sim", exact=True)
PRICES: Any = _Prices()
