"""The attempts of an embedding or a reranking, by LiteLLM's hooks. Chats have theirs from `chat_call`.

Owns the one callback of the bridge's that LiteLLM knows, and fills a request's receipt from it. The hooks are public: before a
deployment is called, when its request is ready, after a deployment has failed. A context variable names the request; other calls
have none. Refuses to know what a change of a request means.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from contextvars import ContextVar
from types import TracebackType
from typing import Any

import litellm
from litellm.integrations.custom_logger import CustomLogger
from litellm.types.utils import CallTypes

from bridge_worker.backends.litellm import exceptions, request_diff
from bridge_worker.backends.litellm.upstream import Target, target_of
from bridge_worker.core.exchange import Tape, Tapes
from bridge_worker.core.receipt import Attempt, Receipt
from bridge_worker.errors import BridgeError

_current: ContextVar[Record | None] = ContextVar("omni_bridge_record", default=None)


class Record:
    """The record of one request. Its construction makes it the current record of the calling task."""

    def __init__(self, model: str, receipt: Receipt, expected: request_diff.ExpectedRequest, call_type: CallTypes) -> None:
        self.receipt = receipt
        self.call_type = call_type  # LiteLLM may make others during the call, such as an embedding for its cache
        self._started: float | None = None  # time.monotonic() of the current attempt
        self._body: Any = None
        self._is_sent = False  # LiteLLM has made the request of the attempt
        self._failed: list[tuple[TracebackType | None, BridgeError]] = []  # by where it was raised
        self._expected = expected
        self.target = _target({"model": model})  # until a deployment is called
        _current.set(self)

    def begin(self, call: Mapping[str, Any]) -> None:
        """A deployment is about to be called with these keyword arguments."""
        if self._started is not None and (error := sys.exception()):
            self.fail(error)  # a stream that broke before its first piece: this call is made while the Router handles that
        receipt = self.receipt
        self._started, self._is_sent = time.monotonic(), False
        self.target = _target(call)
        target = self.target
        # Whatever breaks it off without another word is a cancel.
        receipt.attempts.append(
            Attempt("cancelled", status=None, ms=0.0, model=target.model, provider=target.provider, deployment=target.deployment)
        )
        receipt.deployment = target.deployment
        receipt.fallback = receipt.fallback or bool(call.get("fallback_depth"))

    def sends(self, body: Any) -> None:
        self._body = body
        self._is_sent = True

    def tape(self, tapes: Tapes) -> Tape | None:
        """For what is requested now. Before LiteLLM has made the provider's request, that is a token of a cloud."""
        if self._started is None or not self._is_sent:
            return None
        return tapes.begin_unread(len(self.receipt.attempts) - 1, self.target.model, self.target.provider)

    def fail(self, error: BaseException) -> None:
        """``error`` ends the current attempt."""
        fault = exceptions.from_litellm(error, model=self.receipt.requested_model)
        self._failed.append((_origin(error), fault))
        self.end(fault.kind, fault.status)

    def fault(self, error: BaseException, *, streamed: bool = False) -> BridgeError:
        """The error of the request, which ``error`` ended.

        If it is the error of an attempt, this is its classification at that time: the Router raises it again while it handles
        errors of other attempts, so the chain no longer shows which status belongs to which. A hook gets copies, so the place where
        it was raised identifies it.
        """
        failed, self._failed = self._failed, []  # a traceback that is kept keeps all its frames
        origin = _origin(error)
        known = next((fault for one, fault in failed if one is origin and not streamed), None)
        return known or exceptions.from_litellm(error, model=self.receipt.requested_model, streamed=streamed)

    def end(self, outcome: str, status: int | None = None) -> None:
        """Ends the current attempt, if one is running."""
        if self._started is None:
            return
        attempt = self.receipt.attempts[-1]
        attempt.outcome, attempt.status = outcome, status
        attempt.ms = round((time.monotonic() - self._started) * 1000, 3)
        self._started = None
        if self._body is not None:
            with suppress(Exception):  # for a body of an unknown kind the receipt has null
                self.receipt.dropped = request_diff.changes(self._expected, self._body, [])
        self._body = None


class Watch(CustomLogger):  # type: ignore[misc]  # LiteLLM's types are not read
    async def async_pre_call_deployment_hook(self, kwargs: dict[str, Any], call_type: CallTypes | None) -> dict[str, Any] | None:
        record = _current.get()
        if record and call_type is record.call_type:
            record.begin(kwargs)
        return None

    def log_pre_api_call(self, model: str, messages: Any, kwargs: dict[str, Any]) -> None:
        if record := _current.get():
            record.sends((kwargs.get("additional_args") or {}).get("complete_input_dict"))

    async def async_post_call_failure_deployment_hook(
        self, request_data: Mapping[str, Any], exception: Exception, call_type: CallTypes | None, fallback_depth: int | None = None
    ) -> None:
        record = _current.get()
        if record and call_type is record.call_type:
            record.fail(exception)


def watch() -> None:
    """Starts to record attempts; a second call has no effect."""
    if not any(isinstance(callback, Watch) for callback in litellm.callbacks):
        litellm.callbacks.append(Watch())


def _origin(error: BaseException) -> TracebackType | None:
    origin = error.__traceback__
    while origin is not None and origin.tb_next is not None:
        origin = origin.tb_next
    return origin


def _target(call: Mapping[str, Any]) -> Target:
    deployment = (call.get("model_info") or {}).get("id")
    return target_of(call["model"], call.get("custom_llm_provider"), call.get("api_base"), deployment)
