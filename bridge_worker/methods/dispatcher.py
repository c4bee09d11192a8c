"""Dispatches a request to its method. THE boundary where an exception becomes an error on the wire.

Owns jsonrpcserver, which calls a request's function and makes its response, the log line of a request and its counters. Refuses to
know bytes, tasks, the lifecycle, and what a method does. No exception leaves `Dispatcher.dispatch`: a `BridgeError` is cleaned and
sent, anything else is logged whole and sent bare as ``internal``.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec, module_from_spec
from typing import Any, cast

from pydantic import BaseModel

from bridge_worker.core.ports import Notify, Params, RequestContext
from bridge_worker.errors import INTERNAL_MESSAGE, MAX_MESSAGE_BYTES, BridgeError, cancelled_error
from bridge_worker.protocol.session import Response, Start
from bridge_worker.security.error_text import clean
from bridge_worker.security.redaction import Redactor
from bridge_worker.telemetry.otlp import Telemetry
from bridge_worker.telemetry.request_counters import RequestCounters


@contextmanager
def _submodules_alone(package: str) -> Iterator[None]:
    """Imports of submodules do not run the package's own code: that of jsonrpcserver loads jsonschema and an HTTP server, a third
    of the time to the first response of a replay. `protocol.session` has validated what is dispatched."""
    if package in sys.modules or (spec := find_spec(package)) is None:
        yield
        return
    sys.modules[package] = module_from_spec(spec)
    try:
        yield
    finally:
        del sys.modules[package]  # other code gets the whole package


with _submodules_alone("jsonrpcserver"):
    from jsonrpcserver.async_dispatcher import call
    from jsonrpcserver.dispatcher import to_response
    from jsonrpcserver.request import Request
    from jsonrpcserver.response import to_serializable_one
    from jsonrpcserver.result import Error, Result, Success

Method = Callable[[RequestContext, Params], Awaitable[BaseModel | dict[str, Any]]]

_log = logging.getLogger("bridge_worker.requests")


class Dispatcher:
    """``methods`` is `methods.table.method_table`."""

    def __init__(
        self, methods: Mapping[str, Method], redactor: Redactor, counters: RequestCounters, telemetry: Telemetry | None = None
    ) -> None:
        self._redactor = redactor
        self._counters = counters
        self._telemetry = telemetry
        self._methods = _Table({name: self._bind(method) for name, method in methods.items()})

    async def dispatch(self, start: Start, received: float, notify: Notify) -> Response:
        """The whole JSON-RPC response to ``start``. A cancelled task gets its response too, and ends."""
        context = RequestContext(start.id, received, notify, {"id": start.id, "method": start.method})
        self._counters.begin()
        request = Request(start.method, start.params, start.id)
        # Not `dispatch_request`: it compares each call with the function's signature, which takes 20 us and always succeeds here.
        result = await call(request, context, self._methods[start.method])
        context.log["ms"] = round((time.monotonic() - received) * 1000, 3)
        self._counters.end(str(context.log["outcome"]), context.engine)
        _log.info("request", extra={"fields": context.log})
        response = {"jsonrpc": "2.0", "id": start.id} | cast(Response, to_serializable_one(to_response(request, result)))
        if self._telemetry:
            self._telemetry.record(start, received, response)
        return response

    def _bind(self, method: Method) -> Callable[..., Awaitable[Result]]:
        async def call_method(context: RequestContext, /, **params: Any) -> Result:
            context.log["model"] = _model_name(params)
            try:
                result = await method(context, params)
                body = result.model_dump() if isinstance(result, BaseModel) else result
                context.log["outcome"] = "ok"
                context.engine = _engine(body)
                return Success(body)
            except asyncio.CancelledError:  # a method that calls a provider raises BridgeError; no other has anything open
                return self._failed(context, cancelled_error(upstream_closed=True))
            except BridgeError as error:
                return self._failed(context, error)
            except Exception as error:
                wrapped = BridgeError("internal", INTERNAL_MESSAGE)
                wrapped.__cause__ = error
                return self._failed(context, wrapped)

        return call_method

    def _failed(self, context: RequestContext, error: BridgeError) -> Result:
        if error.kind == "internal":
            _log.error("a method failed", exc_info=error, extra={"fields": {"id": context.id}})
        context.log |= {"outcome": error.kind, "provider": error.provider, "status": error.status}
        context.engine = _engine(error.extra)
        return Error(error.code, clean_error(error, self._redactor).message, error.data())


def clean_error(error: BridgeError, redactor: Redactor) -> BridgeError:
    """``error`` as it may leave the process: no key, no traceback, no path, no more than 2 KB."""
    error.message = clean(error.message, redactor, MAX_MESSAGE_BYTES)
    return error


def _engine(body: Mapping[str, Any]) -> str | None:
    """The chat path in the receipt, if there is one."""
    receipt = body.get("receipt")
    return receipt["engine"]["name"] if receipt and receipt["engine"] else None


def _model_name(params: Params) -> str | None:
    """The model in params that are not validated yet, for the log."""
    model = params.get("model")
    return model if isinstance(model, str) else None


class _Table(dict[str, Callable[..., Awaitable[Result]]]):
    """A missing method is a function that returns the error, so that it is logged and counted like any other."""

    def __missing__(self, name: str) -> Callable[..., Awaitable[Result]]:
        async def no_such_method(context: RequestContext, /, **params: Any) -> Result:
            context.log["outcome"] = "method_not_found"
            known = ", ".join(["initialize", "ping", "shutdown", "server/discover", *self])
            error = BridgeError("method_not_found", f"method {name!r:.100} does not exist; known: {known}")
            return Error(error.code, error.message, error.data())

        return no_such_method
