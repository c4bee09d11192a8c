"""One chat of the bridge while LiteLLM, or its Router, chooses what is called: its attempts, its requests, its response.

Owns the context variable by which the gate under the Router finds the chat that a call belongs to, the receipt's attempts, and the
preparing of a provider's request. Refuses to know who chooses.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeVar

import litellm

from bridge_worker.backends.litellm import cache_marks, decoders, exceptions, provider_state, request_diff, tool_names
from bridge_worker.backends.litellm.capture import CapturedRequest, NothingSent, capture
from bridge_worker.backends.litellm.client_keys import ClientKeys
from bridge_worker.backends.litellm.prepared_requests import PreparedRequest, PreparedRequests
from bridge_worker.backends.litellm.request_forms import rewrite_call
from bridge_worker.backends.litellm.router_errors import fault_of
from bridge_worker.backends.litellm.transport import REQUEST_TIMEOUT_SECONDS
from bridge_worker.backends.litellm.upstream import Target, Upstream, open_upstream
from bridge_worker.core.deltas import Delta
from bridge_worker.core.exchange import tapes
from bridge_worker.core.ports import ChatRequest, Facts
from bridge_worker.core.receipt import Attempt, Change
from bridge_worker.errors import BridgeError

T = TypeVar("T")
MAX_NOTES = 64  # of one template: sets of options that lead to the same request

OnPrepared = Callable[[Any, Mapping[str, Any], Target], None]

current: ContextVar[ChatCall | None] = ContextVar("omni_bridge_chat", default=None)

# Keyword arguments of a deployment's call without an effect on the provider's request: for logs, callbacks and the Router itself.
_CREDENTIALS = ("authorization", "x-api-key", "api-key")
_NOT_OF_THE_REQUEST = frozenset(
    """
    attempted_targets caching client cooldown_time fallback_depth fallbacks litellm_call_id litellm_logging_obj litellm_metadata
    litellm_parent_otel_span litellm_router litellm_trace_id max_fallbacks max_retries messages metadata model_group model_info
    num_retries original_function proxy_server_request router_general_settings rpm specific_deployment stream_options tpm weight
    """.split()
)


class NoDecoder(Exception):
    """The bridge does not read this format; ``captured`` is the request that LiteLLM would send, if that is known."""

    def __init__(self, reason: str, captured: CapturedRequest | None = None) -> None:
        super().__init__(reason)
        self.captured = captured


class Ready(NamedTuple):
    """A request that can be sent. ``timeout``: seconds of silence."""

    prepared: PreparedRequest
    body: bytes
    target: Target
    timeout: float


class Outcome(NamedTuple):
    """A plain response, and the object that LiteLLM has for it."""

    deltas: list[Delta]
    facts: Facts
    response: Any
    text: str | None


class ChatCall:
    def __init__(self, request: ChatRequest, prepared: PreparedRequests, keys: ClientKeys) -> None:
        self.request = request
        self.keys = keys
        self.pending: tuple[str, Exception] | None = None  # a deployment that has failed already, and the error for the Router
        self.preferred: str | None = None  # the deployment that the Router should call, so that the lane learns its request
        self.on_prepared: OnPrepared | None = None  # the lane learns what the Router calls
        self.on_failed: Callable[[str, BridgeError], None] | None = None  # and what fails
        self.upstream: Upstream | None = None
        self.facts: Facts | None = None  # of a plain chat that was read in the lane
        self.has_streamed = False  # content of a stream that came through LiteLLM
        self.own_path = False  # LiteLLM serves every call of this chat
        self.outcome: Outcome | None = None  # of a plain chat, as it was returned to LiteLLM
        self.next: Ready | Exception | None = None  # what the call that LiteLLM's wrapper is about to make will send, or raise
        self.mode = ""
        self.reason: str | None = None
        self.target = Target(request.model, None)
        self._prepared = prepared
        self._expected: request_diff.ExpectedRequest | None = None
        self._started: float | None = None
        self.options_key = json.dumps(request.options) if request.options else ""

    # ---- the receipt -------------------------------------------------------------------------------------------------------

    def begin(self, target: Target, *, fallback: bool = False) -> None:
        """An attempt begins. Whatever ends it without another word is a cancel."""
        receipt = self.request.receipt
        if self._started is not None and (error := sys.exception()):
            self.fail(error)  # a stream of LiteLLM's that broke before its first chunk: the Router calls another deployment
        self._started = time.monotonic()
        self.target = target
        self.request.provider = target.provider
        receipt.attempts.append(Attempt("cancelled", None, 0.0, target.model, target.provider, target.deployment))
        receipt.deployment = target.deployment
        receipt.fallback = receipt.fallback or fallback

    def fail(self, error: BaseException, *, streamed: bool = False) -> BridgeError:
        """Ends the attempt with an exception of LiteLLM's, and returns what it means."""
        fault = fault_of(error) or exceptions.from_litellm(error, model=self.request.model, streamed=streamed)
        self.fail_attempt(fault)
        return fault

    def fail_attempt(self, fault: BridgeError) -> None:
        """Ends the current attempt, if one is running."""
        if self._started is not None and self.on_failed is not None and self.target.deployment is not None:
            self.on_failed(self.target.deployment, fault)
        if fault.kind == "authentication":
            self.keys.reject_last()
        self.end(fault.kind, fault.status)

    def end(self, outcome: str, status: int | None = None) -> None:
        """Ends the current attempt, if one is running."""
        if self._started is None:
            return
        attempt = self.request.receipt.attempts[-1]
        attempt.outcome, attempt.status = outcome, status
        attempt.ms = round((time.monotonic() - self._started) * 1000, 3)
        self._started = None

    # ---- the request -------------------------------------------------------------------------------------------------------

    async def prepare(self, key: Any, call: Mapping[str, Any], target: Target) -> Ready:
        """The provider's request for ``call``, the keyword arguments of one deployment's call.

        Raises NoDecoder, and what LiteLLM raises before it would send.
        """
        messages, held_back = provider_state.for_provider(call["messages"], target.provider, target.model)
        rule = tool_names.rule_of(target.provider, target.model or "")
        if rule is not None and any("tool_calls" in message for message in messages):
            messages = tool_names.renamed_messages(messages, rule)
        call, refused = provider_state.without_thinking(call, target.provider, target.model, messages)
        if refused:
            key, held_back = (key, "without thinking"), held_back + refused
        key, call, messages = cache_marks.with_cache(self.request, key, call, target, messages)
        templates = self._prepared
        prepared = templates.find(key)
        if prepared is None and (credential := await self.keys.get(call, target)) is not None:
            templates, call = templates.of(credential), {**call, **credential.params}
            prepared = templates.find(key)
        if prepared is not None and (body := prepared.body(messages)) is not None:
            self._note_known(prepared, held_back)
        else:
            prepared, body = await self._capture(templates, key, prepared, call, target, messages, held_back)
        timeout = call.get("timeout")
        if call.get("stream") and call.get("stream_timeout") is not None:  # LiteLLM 1.110's Router passes both
            timeout = call["stream_timeout"]
        seconds = float(timeout) if isinstance(timeout, int | float | str) else REQUEST_TIMEOUT_SECONDS
        return Ready(prepared, body, Target(target.model, target.provider or prepared.provider, target.deployment), seconds)

    async def _capture(
        self,
        templates: PreparedRequests,
        key: Any,
        known: PreparedRequest | None,
        call: Mapping[str, Any],
        target: Target,
        messages: list[dict[str, Any]],
        held_back: list[Change],
    ) -> tuple[PreparedRequest, bytes]:
        await decoders.rehearsed(target.provider or "")
        if not decoders.may_capture(str(call["model"]), target.provider or ""):
            raise NoDecoder(f"LiteLLM's requests to {target.provider} can't be captured")
        arguments = {name: value for name, value in call.items() if name not in _NOT_OF_THE_REQUEST and name[:1] != "_"}
        rewritten, lost = known.rewritten if known is not None else rewrite_call(call, target.provider, target.model or "")
        arguments |= {**rewritten, "messages": _copied(messages), "max_retries": 0, "_skip_mcp_handler": True}
        if self.request.stream:
            arguments |= {"stream": True, "stream_options": {"include_usage": True}}
        try:
            captured = await capture(arguments)
        except NothingSent as error:
            raise NoDecoder(str(error)) from error
        if _has_no_key(captured, call.get("api_base")):
            raise BridgeError(
                "authentication", exceptions.about_key("", captured.provider, responded=False), provider=captured.provider
            )
        body = json.loads(captured.body)
        is_invented = self._diff(body, held_back + lost)
        found = decoders.format_of(captured.provider, captured.url, body)
        if found is None:
            raise NoDecoder(f"the bridge has no decoder for the responses of {captured.provider} at {captured.url.path}", captured)
        if known is None or known.url != captured.url:
            try:
                decoder = decoders.decoder_for(found, self.request, body)
            except ImportError as error:
                decoders.switch_off(found)
                raise NoDecoder(f"the decoder of {found.module} can't be loaded ({error})", captured) from error
            known = PreparedRequest(captured, decoder, (rewritten, lost))
            templates.store(key, known)
        if not is_invented:  # a template would repeat the text, and no receipt would name it
            known.learn(captured, messages)
        return known, captured.body

    def _note_known(self, prepared: PreparedRequest, held_back: list[Change]) -> None:
        """Notes the receipt's facts for a body from a template, which has the messages unchanged and the same rest for the same
        options."""
        notes = prepared.notes.get(self.options_key)
        if notes is None:
            expected = request_diff.ExpectedRequest(self.request.options, [], marked=False)
            notes = request_diff.changes(expected, prepared.settings, []), request_diff.additions(expected, prepared.settings)
            if len(prepared.notes) < MAX_NOTES:
                prepared.notes[self.options_key] = notes
        receipt = self.request.receipt
        receipt.dropped = [*held_back, *prepared.rewritten[1], *(change for change in notes[0] if change not in held_back)]
        receipt.added = notes[1]

    def _diff(self, body: Any, held_back: list[Change]) -> bool:
        """Notes what of the caller's request is not in ``body``, and what is there that the caller did not give.

        True where the conversation has text that LiteLLM wrote.
        """
        if self._expected is None:
            self._expected = request_diff.expected_request(self.request)
        with suppress(Exception):  # a body of an unknown form: the receipt then has null
            dropped = held_back + request_diff.changes(self._expected, body, held_back)
            self.request.receipt.dropped = dropped
            invented = request_diff.invented(self._expected, body)
            self.request.receipt.added = request_diff.additions(self._expected, body) + invented
            return bool(invented)
        return False

    def target_of(self, call: Mapping[str, Any]) -> Target:
        """The target that ``call``, the keyword arguments of one deployment's call, names."""
        deployment = (call.get("model_info") or {}).get("id")
        return self._prepared.target(call["model"], call.get("custom_llm_provider"), call.get("api_base"), deployment)

    # ---- the response ------------------------------------------------------------------------------------------------------

    async def open(self, ready: Ready) -> Upstream:
        """Sends the request. Raises AttemptError."""
        prepared = ready.prepared
        recorded, target = tapes.get(), ready.target
        attempt = len(self.request.receipt.attempts) - 1
        tape = None if recorded is None else recorded.begin(attempt, prepared.decoder, target.model, target.provider)
        upstream = await open_upstream(prepared.decoder, prepared.destination, ready.body, ready.timeout, target, tape)
        self.upstream = upstream
        self.request.upstream_open = True
        return upstream

    async def close(self) -> None:
        """Closes the response that is open, if there is one."""
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            self.request.upstream_open = not await upstream.aclose()

    async def within(self, work: Awaitable[T]) -> T:
        """Awaits ``work`` as a part of this chat. Only then may the gate take a call of LiteLLM for one of it."""
        token = current.set(self)
        try:
            return await work
        finally:
            current.reset(token)


def request_key(call: Mapping[str, Any], *, stream: bool) -> Any:
    """Equal for calls with requests that differ only in the messages."""
    members = ((name, value) for name, value in call.items() if name not in _NOT_OF_THE_REQUEST and name[:1] != "_")
    return (stream, *sorted((name, repr(value) if isinstance(value, _SCALARS) else _as_text(value)) for name, value in members))


_SCALARS = (str, int, float, bool, type(None))


def _as_text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=repr)


def _copied(value: Any) -> Any:
    """LiteLLM writes into messages. Their texts, which may be long, are shared."""
    if isinstance(value, dict):
        return {name: _copied(each) for name, each in value.items()}
    return [_copied(each) for each in value] if isinstance(value, list) else value


def _has_no_key(captured: CapturedRequest, api_base: object) -> bool:
    """Whether LiteLLM found no key and would ask the provider's own host without one. Another host may need none."""
    provider = captured.provider.upper()
    if api_base or any(os.environ.get(f"{provider}_{name}") for name in ("API_BASE", "BASE_URL")):
        return False
    credentials = [captured.headers[name] for name in _CREDENTIALS if name in captured.headers]
    if not credentials and captured.provider != "openai":  # it may be in another header, or in the URL
        return False
    empty = all(credential.removeprefix("Bearer").strip() in ("", "None") for credential in credentials)
    return empty and bool(litellm.validate_environment(f"{captured.provider}/any")["missing_keys"])
