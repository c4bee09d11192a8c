"""The methods that need more than the session: validate, call, dump. THE boundary where an exception becomes an error on the wire.

Owns jsonrpcserver, which binds a request to its function, and `chat`; the others are in `queries` (beside chat) and `tools` (of
MCP). Refuses to know bytes, tasks and the lifecycle. No exception leaves `Methods.dispatch`: a `BridgeError` is sent cleaned,
anything else is logged whole and sent bare as ``internal``.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

from jsonrpcserver import Error, Result, Success
from jsonrpcserver.async_dispatcher import dispatch_request
from jsonrpcserver.dispatcher import to_response
from jsonrpcserver.request import Request
from jsonrpcserver.response import to_serializable_one
from pydantic import BaseModel

from bridge_worker.backends.local.chat import Local
from bridge_worker.backends.local.services import LocalServices
from bridge_worker.backends.offline.chat import PREFIX as OFFLINE
from bridge_worker.backends.offline.chat import Offline
from bridge_worker.budgets.limits import check_path
from bridge_worker.budgets.spending import Spending, asked_of
from bridge_worker.config.local_models import PREFIX as LOCAL
from bridge_worker.config.settings import Settings
from bridge_worker.core.accumulator import WireDelta
from bridge_worker.core.chat_runner import Emit, Find, chat_request, run_chat
from bridge_worker.core.ports import Notify, RequestContext
from bridge_worker.errors import MAX_MESSAGE_BYTES, BridgeError
from bridge_worker.methods.mcp_tools import Tools
from bridge_worker.methods.models import FindServices, InForce, Queries, cancelled
from bridge_worker.methods.params import validate
from bridge_worker.protocol.framing import DeltaLines
from bridge_worker.protocol.session import Response, Start
from bridge_worker.schema.base import WithMeta
from bridge_worker.schema.budgets import Budget
from bridge_worker.schema.chat_request import ChatParams, Deadlines
from bridge_worker.schema.lifecycle import EngineState
from bridge_worker.schema.services import (
    BudgetsGetParams,
    BudgetsGetResult,
    ConfigReloaded,
    NoParams,
    RedisState,
    RequestCounts,
    Status,
)
from bridge_worker.security.error_text import clean
from bridge_worker.security.redaction import Redactor
from bridge_worker.system.redis_connection import no_redis
from bridge_worker.system.resources import memory_bytes
from bridge_worker.telemetry.otlp import Telemetry
from bridge_worker.telemetry.request_counters import RequestCounters
from bridge_worker.version import __version__

Params = dict[str, Any]
Method = Callable[[RequestContext, Params], Awaitable[object]]

_log = logging.getLogger("bridge_worker.requests")


class Methods:
    """``find_engine_model`` and ``find_services`` find what serves every name that is neither ``offline/...`` nor
    ``local/...``.

    ``configured``: the names are those of a gateway config.
    """

    def __init__(
        self,
        find_engine_model: Find,
        settings: Settings,
        redactor: Redactor,
        *,
        find_services: FindServices,
        engine_state: Callable[[], Mapping[str, object]],
        configured: bool,
        local: Local | None = None,
        reload: Callable[[], Awaitable[dict[str, Any]]] | None = None,
        telemetry: Telemetry | None = None,
        spending: Spending | None = None,
        redis_state: Callable[[], Mapping[str, object]] = no_redis,
    ) -> None:
        self._telemetry = telemetry
        self._find_engine_model = find_engine_model
        self._in_force = InForce(settings, configured)
        self._redactor = redactor
        self._engine_state = engine_state
        self._offline = Offline()
        self._local = local or Local()
        self._counters = RequestCounters()
        self._reload = reload
        self._spending = spending or Spending()
        self._redis_state = redis_state
        self._queries = queries = Queries(
            find_services, LocalServices(self._local), self._check_provider_params, lambda: self._in_force, self._spending
        )
        tools = Tools(self.chat, queries.tokens_count, queries.models_list, self.cleaned)
        own: dict[str, Method] = {
            "chat": self._chat,
            "chat/check": _of_params(queries.chat_check),
            "models/list": _of_params(queries.models_list),
            "models/get": _of_params(queries.models_get),
            "tokens/count": _of_params(queries.tokens_count),
            "embed": _with_clock(queries.embed),
            "rerank": _with_clock(queries.rerank),
            "budgets/get": _of_params(self._budgets_get),
            "status": _of_params(self._status),
            "config/reload": _of_params(self._config_reload),
        }
        methods = {name: _without_meta(method) for name, method in own.items()}
        methods |= {"tools/list": tools.list, "tools/call": tools.call}
        self._methods = _Table({name: self._bound(method) for name, method in methods.items()})

    async def dispatch(self, start: Start, received: float, notify: Notify) -> Response:
        """The whole JSON-RPC response to ``start``. A cancelled task gets its response too, and ends."""
        call = RequestContext(start.id, received, notify, {"id": start.id, "method": start.method})
        self._counters.begin()
        request = Request(start.method, start.params, start.id)
        _, result = await dispatch_request(self._methods, call, request)
        call.log["ms"] = round((time.monotonic() - received) * 1000, 3)
        self._counters.end(str(call.log["outcome"]), call.engine)
        _log.info("request", extra={"fields": call.log})
        response = {"jsonrpc": "2.0", "id": start.id} | cast(Response, to_serializable_one(to_response(request, result)))
        if self._telemetry:
            self._telemetry.record(start, received, response)
        return response  # the id early, as in all others

    def put_in_force(self, settings: Settings, *, configured: bool) -> None:
        """From the next request on."""
        self._in_force = InForce(settings, configured)
        self._spending.budgets = settings.budgets

    async def chat(self, params: Params, received: float, emit: Emit | None) -> Params:
        """Validates and runs one chat. Raises BridgeError."""
        validate(params, ChatParams)
        self._check_provider_params(params)
        request = chat_request(params, received, Deadlines(**self._in_force.settings.deadlines))
        bill = self._spending.bill(params.get("metadata"), asked_of(request))

        async def find(name: str) -> Any:
            model = await self._find(name)
            await bill.reserve(self._queries.services)
            return model

        return await bill.charge(run_chat(request, find, emit if request.stream else None))

    def cleaned(self, error: BridgeError) -> BridgeError:
        """As it may leave the process: no key, no traceback, no path, no more than 2 KB."""
        error.message = clean(error.message, self._redactor, MAX_MESSAGE_BYTES)
        return error

    async def _find(self, name: str) -> Any:
        if name.startswith(OFFLINE):
            return self._offline
        return self._local if name.startswith(LOCAL) else await self._find_engine_model(name)

    def _check_provider_params(self, params: Params) -> None:
        for name in params.get("provider_params") or {}:
            if name not in self._in_force.settings.provider_params:
                hint = "the operator allows such names in the config, under omni_bridge: provider_params"
                raise BridgeError("invalid_request", f"provider_params.{name} is not allowed here; {hint}")

    async def _chat(self, call: RequestContext, params: Params) -> Params:
        deltas = DeltaLines(call.id)

        async def notify_deltas(wire: list[WireDelta]) -> None:
            await call.notify.lines(deltas.encode(wire))

        call.log |= {"model": _named(params), "stream": params.get("stream") is True}
        result = await self.chat(params, call.received, notify_deltas)
        usage = result["usage"] or {}
        call.log |= {
            "provider": result["provider"],
            "input_tokens": usage.get("input_tokens"),
            "output_tokens": usage.get("output_tokens"),
            "cost_usd": result["cost_usd"],
        }
        return result

    async def _budgets_get(self, params: Params) -> BudgetsGetResult:
        path = validate(params, BudgetsGetParams).path
        if path is not None:
            check_path(path, "path")
        return BudgetsGetResult(budgets=[Budget(**one.wire()) for one in await self._spending.standings(path)])

    async def _status(self, params: Params) -> Status:
        validate(params, NoParams)
        return Status(
            version=__version__,
            uptime_ms=self._counters.uptime_ms,
            requests=RequestCounts.model_validate(self._counters.requests()),
            memory_bytes=memory_bytes(),
            engine=EngineState.model_validate(self._engine_state()),
            redis=RedisState.model_validate(self._redis_state()),
        )

    async def _config_reload(self, params: Params) -> ConfigReloaded:
        validate(params, NoParams)
        if self._reload is None:
            raise BridgeError("invalid_request", "there is no config to reload here")
        return ConfigReloaded.model_validate(await self._reload())

    def _bound(self, method: Method) -> Callable[..., Awaitable[Result]]:
        async def call_method(call: RequestContext, /, **params: Any) -> Result:
            try:
                result = await method(call, params)
                call.log["outcome"] = "ok"
                call.engine = _engine(result)
                return Success(result)
            except asyncio.CancelledError:  # what asks a provider says it itself; nothing else has anything open
                return self._failed(call, cancelled())
            except BridgeError as error:
                return self._failed(call, error)
            except Exception as error:
                wrapped = BridgeError("internal", "the bridge failed at this request; its log says where")
                wrapped.__cause__ = error
                return self._failed(call, wrapped)

        # jsonrpcserver asks at each request; to find it out anew takes 20 us.
        call_method.__signature__ = inspect.signature(call_method)  # type: ignore[attr-defined]
        return call_method

    def _failed(self, call: RequestContext, error: BridgeError) -> Result:
        if error.kind == "internal":
            _log.error("a method failed", exc_info=error, extra={"fields": {"id": call.id}})
        call.log |= {"outcome": error.kind, "provider": error.provider, "status": error.status}
        call.engine = _engine(error.extra)
        return Error(error.code, self.cleaned(error).message, error.data())


def _engine(told: object) -> str | None:
    """What a receipt, if there is one, says of who carried the request out."""
    receipt = told.get("receipt") if isinstance(told, dict) else None
    return receipt["engine"]["name"] if receipt and receipt["engine"] else None


def _named(params: Params) -> str | None:
    """For the log, before anything was validated: a confused caller may have put anything there."""
    model = params.get("model")
    return model if isinstance(model, str) else None


def _without_meta(method: Method) -> Method:
    """``_meta`` is about the call, as in MCP, and no method's own: no provider is sent it."""

    async def checked(call: RequestContext, params: Params) -> object:
        meta = params.pop("_meta", None)
        if meta is not None:
            validate({"_meta": meta}, WithMeta)
        return await method(call, params)

    return checked


def _of_params(work: Callable[[Params], Awaitable[BaseModel]]) -> Method:
    async def method(call: RequestContext, params: Params) -> Params:
        call.log["model"] = _named(params)
        return (await work(params)).model_dump()

    return method


def _with_clock(work: Callable[[Params, float], Awaitable[BaseModel]]) -> Method:
    async def method(call: RequestContext, params: Params) -> Params:
        call.log["model"] = _named(params)
        return (await work(params, call.received)).model_dump()

    return method


class _Table(dict[str, Callable[..., Awaitable[Result]]]):
    """A missing method is a function that says so, so that this error takes the same way out as any other."""

    def __missing__(self, name: str) -> Callable[..., Awaitable[Result]]:
        async def no_such_method(call: RequestContext, /, **params: Any) -> Result:
            call.log["outcome"] = "method_not_found"
            known = ", ".join(["initialize", "ping", "shutdown", "server/discover", *self])
            error = BridgeError("method_not_found", f"there is no method {name!r:.100}; there are: {known}")
            return Error(error.code, error.message, error.data())

        return no_such_method
