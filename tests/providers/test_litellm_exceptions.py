"""Every kind of error is reached through LiteLLM, from an HTTP answer or a broken socket, never from a made-up exception."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import struct
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from email.utils import formatdate
from typing import Any

# isort: split
import litellm
import pytest
from aiohttp import web
from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER

from bridge_worker.backends.litellm.exceptions import from_litellm
from bridge_worker.errors import KINDS, MAX_MESSAGE_BYTES, BridgeError
from bridge_worker.security.error_text import clean
from bridge_worker.security.redaction import Redactor

litellm.suppress_debug_info = True
litellm.redact_messages_in_exceptions = True

# A warning of LiteLLM's or pydantic's, made an error, would be another fault than the one that a test is about.
pytestmark = pytest.mark.filterwarnings("ignore")

# OpenAI's format has two paths in LiteLLM: its own HTTP handler, which backends.litellm switches on, and the OpenAI SDK.
PROVIDERS = {
    "openai": ("openai/some-model", "/v1"),
    "azure": ("azure/some-model", ""),
    "anthropic": ("anthropic/some-model", ""),
    "gemini": ("gemini/some-model", "/v1beta/models/some-model"),
}
KEY = "abc-a-key-of-no-known-shape-1234567890"
Reply = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Upstream:
    """A server that gives one reply to every request, and the loop in which it and LiteLLM's calls run."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner()
        self.reply: Reply = reply_with(200)
        self.url = self.runner.run(self._listen())

    async def _listen(self) -> str:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._reply)
        self._site = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1)
        await self._site.setup()
        await web.TCPSite(self._site, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{self._site.addresses[0][1]}"

    async def _reply(self, request: web.Request) -> web.StreamResponse:
        await request.read()
        return await self.reply(request)

    def close(self) -> None:
        async def all_of_it() -> None:
            with contextlib.suppress(RuntimeError):  # it may still hold tasks of another test file's loop, which has ended
                await GLOBAL_LOGGING_WORKER.stop()
            await litellm.close_litellm_async_clients()
            await self._site.cleanup()

        self.runner.run(all_of_it())
        self.runner.close()


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    upstream = Upstream()
    yield upstream
    upstream.close()


# ---- what an upstream does -------------------------------------------------------------------------------------------------


def reply_with(status: int, body: Any = None, headers: dict[str, str] | None = None) -> Reply:
    async def reply(_: web.Request) -> web.StreamResponse:
        text = body if isinstance(body, str) else json.dumps(body)
        return web.Response(text=text, status=status, headers=headers, content_type="application/json")

    return reply


def refuses(status: int, message: str = "the provider's own words", headers: dict[str, str] | None = None) -> Reply:
    """The members of all three formats at once."""
    error = {"message": message, "type": "overloaded_error" if status == 529 else "some_error", "code": status, "status": "SOME"}
    return reply_with(status, {"type": "error", "error": error}, headers)


async def page(_: web.Request) -> web.StreamResponse:
    return web.Response(text="<!DOCTYPE html>\n<html><title>Please log in</title><body>...</body></html>", content_type="text/html")


async def hangs(_: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def resets(request: web.Request) -> web.StreamResponse:
    abort(request)
    return await hangs(request)


async def closes(request: web.Request) -> web.StreamResponse:
    assert request.transport
    request.transport.close()
    return await hangs(request)


def abort(request: web.Request) -> None:
    assert request.transport
    request.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.transport.abort()


def event(data: Any, name: str = "") -> bytes:
    return (f"event: {name}\n" if name else "").encode() + b"data: " + json.dumps(data).encode() + b"\n\n"


def delta(text: str) -> dict[str, bytes]:
    """The start of a stream in each format."""
    usage = {"input_tokens": 1, "output_tokens": 1}
    message = {"id": "m", "type": "message", "role": "assistant", "content": [], "model": "m", "usage": usage}
    chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    openai = event({**chunk, "choices": [{"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": None}]})
    anthropic = (
        event({"type": "message_start", "message": message}, "message_start")
        + event({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}, "content_block_start")
        + event({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}, "content_block_delta")
    )
    gemini = event({"candidates": [{"content": {"role": "model", "parts": [{"text": text}]}, "index": 0}]})
    return {"openai": openai, "azure": openai, "anthropic": anthropic, "gemini": gemini}


def streams(*parts: bytes, then: Reply | None = None) -> Reply:
    async def reply(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for part in filter(None, parts):
            await response.write(part)
        return await then(request) if then else response

    return reply


# ---- asking ----------------------------------------------------------------------------------------------------------------


def fault(
    upstream: Upstream, provider: str, reply: Reply, *, stream: bool = False, **options: Any
) -> tuple[BridgeError, list[str]]:
    """What a call ends in, and the text that came before."""
    upstream.reply = reply
    model, path = PROVIDERS[provider]
    call = {"model": model, "api_base": upstream.url + path, "api_key": KEY, "messages": [{"role": "user", "content": "hi"}]}
    call |= {"_skip_mcp_handler": True, "max_retries": 0, "num_retries": 0, "timeout": 20, "stream": stream}
    call |= ({"api_version": "2024-10-21"} if provider == "azure" else {}) | options
    texts: list[str] = []

    async def error() -> BaseException:
        try:
            async with asyncio.timeout(30):  # ends a hang that no fault has ended
                response = await litellm.acompletion(**call)
                if stream:
                    async for chunk in response:
                        texts.extend(choice.delta.content for choice in chunk.choices if choice.delta.content)
        except Exception as error:
            return error
        finally:
            with suppress(UnboundLocalError, AttributeError):
                await response.aclose()
        raise AssertionError(f"{provider} gave an answer: {response} {texts}")

    return from_litellm(upstream.runner.run(error()), model=call["model"], streamed=bool(texts)), texts


def cleaned(error: BridgeError) -> str:
    message = clean(error.message, Redactor({"SOME_KEY": KEY}), MAX_MESSAGE_BYTES)
    assert not any(word in message.lower() for word in ("litellm", "traceback", "site-packages", "exception -"))
    return message


each_provider = pytest.mark.parametrize("provider", PROVIDERS)
plain_and_streamed = pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])

STATUSES = {
    400: "rejected_by_provider",
    401: "authentication",
    402: "budget_exceeded",
    403: "permission",
    404: "model_not_found",
    408: "timeout",
    409: "rejected_by_provider",
    413: "rejected_by_provider",
    422: "rejected_by_provider",
    429: "rate_limited",
    500: "provider_unavailable",
    502: "provider_unavailable",
    503: "provider_unavailable",
    504: "timeout",
    529: "provider_unavailable",
}


@pytest.mark.parametrize("status", STATUSES)
@plain_and_streamed
@each_provider
def test_an_http_error_keeps_its_status_and_the_providers_words(
    upstream: Upstream, provider: str, stream: bool, status: int
) -> None:
    error, _ = fault(upstream, provider, refuses(status, f"the provider's own words about {KEY}"), stream=stream)
    assert (error.kind, error.status) == (STATUSES[status], status)
    assert (error.provider, error.model) == (provider, PROVIDERS[provider][0])
    assert cleaned(error).startswith("the provider's own words about [redacted]")
    assert error.extra == ({"deadline": "provider"} if error.kind == "timeout" else {})


SOCKET_FAULTS: dict[str, tuple[Reply, dict[str, Any], str, str]] = {
    "refused": (
        hangs,
        {"api_base": "http://127.0.0.1:1/v1"},
        "provider_unavailable",
        "could not be reached: the connection was refused",
    ),
    "no such host": (hangs, {"api_base": "http://no-such-host.invalid/v1"}, "provider_unavailable", "its host name was not found"),
    "no TLS there": (hangs, {"tls": True}, "provider_unavailable", "could not be reached: TLS could not be agreed on"),
    "reset": (resets, {}, "provider_unavailable", "could not be reached: the connection was reset"),
    "closed": (closes, {}, "provider_unavailable", "could not be reached: it closed the connection"),
    "hung": (hangs, {"timeout": 0.3}, "timeout", "did not respond in time"),
}


@pytest.mark.parametrize("name", SOCKET_FAULTS)
@plain_and_streamed
@each_provider
def test_without_an_http_response_the_status_is_null(upstream: Upstream, provider: str, stream: bool, name: str) -> None:
    if (provider, stream, name) == ("gemini", True, "hung"):
        pytest.skip("LiteLLM has no timeout for Gemini's streams; the bridge's own deadline ends them")
    reply, options, kind, message = SOCKET_FAULTS[name]
    if options.get("tls"):
        options = {"api_base": upstream.url.replace("http", "https") + PROVIDERS[provider][1]}
    error, _ = fault(upstream, provider, reply, stream=stream, **options)
    assert (error.kind, error.status, error.provider) == (kind, None, provider)
    assert error.retryable
    assert cleaned(error).endswith(message)
    assert error.extra == ({"deadline": "provider"} if kind == "timeout" else {})


BAD_REPLIES: dict[str, Reply] = {
    "a page": page,
    "cut JSON": reply_with(200, '{"id": "x", "choices": [{"mess'),
    "a list": reply_with(200, [1, 2]),
    "an empty object": reply_with(200, {}),
    "nothing": reply_with(200, ""),
    "other members": reply_with(200, {"choices": None, "content": None, "candidates": None}),
}


@pytest.mark.parametrize("name", BAD_REPLIES)
@each_provider
def test_a_response_that_is_not_a_completion_is_a_bad_upstream_response(upstream: Upstream, provider: str, name: str) -> None:
    error, _ = fault(upstream, provider, BAD_REPLIES[name])
    assert (error.kind, error.status, error.provider) == ("bad_upstream_response", None, provider)
    assert cleaned(error).startswith(f"{provider} sent an unusable response")
    assert "<" not in cleaned(error)


def test_an_error_within_a_response_with_200_has_the_kind_of_its_code(upstream: Upstream) -> None:
    error, _ = fault(upstream, "openai", reply_with(200, {"error": {"message": "no capacity", "code": 429}}))
    assert (error.kind, error.status, error.message) == ("rate_limited", None, "no capacity")


def test_an_error_within_a_response_with_200_and_without_a_code_is_a_bad_upstream_response(upstream: Upstream) -> None:
    error, _ = fault(upstream, "anthropic", reply_with(200, {"error": {"message": "no capacity"}}))
    assert (error.kind, error.status) == ("bad_upstream_response", None)
    assert cleaned(error) == "anthropic sent an unusable response: no capacity"


# ---- streams ---------------------------------------------------------------------------------------------------------------

ERROR_EVENTS = {
    "openai": event({"error": {"message": "no capacity", "type": "server_error", "code": 500}}),
    "azure": event({"error": {"message": "no capacity", "type": "server_error", "code": 500}}),
    "anthropic": event({"type": "error", "error": {"type": "overloaded_error", "message": "no capacity"}}, "error"),
    "gemini": event({"error": {"code": 503, "message": "no capacity", "status": "UNAVAILABLE"}}),
}
BREAKS: dict[str, tuple[Callable[[str], Reply], dict[str, Any], str, str]] = {
    "a reset": (lambda _: resets, {}, "provider_unavailable", "could not be reached: the connection "),
    "a close": (lambda _: closes, {}, "provider_unavailable", "could not be reached: the connection broke"),
    "a stall": (lambda _: hangs, {"timeout": 0.3}, "timeout", "did not respond in time"),
    "an error event": (lambda provider: streams(ERROR_EVENTS[provider]), {}, "provider_unavailable", "no capacity"),
}


def broken_stream(provider: str, name: str, start: bytes) -> Reply:
    if name == "an error event":
        return streams(start, ERROR_EVENTS[provider])
    return streams(start, then=BREAKS[name][0](provider))


# LiteLLM does not time out on Gemini's streams; the bridge's own deadline ends them.
breaks = pytest.mark.parametrize(
    ("provider", "name"),
    [(provider, name) for provider in PROVIDERS for name in BREAKS if (provider, name) != ("gemini", "a stall")],
)


@breaks
def test_after_the_first_delta_an_upstream_fault_is_stream_interrupted(upstream: Upstream, provider: str, name: str) -> None:
    reply = broken_stream(provider, name, delta("Hel")[provider])
    error, texts = fault(upstream, provider, reply, stream=True, **BREAKS[name][1])
    assert texts == ["Hel"]
    assert (error.kind, error.status, error.retry_after_ms) == ("stream_interrupted", None, None)
    assert cleaned(error).startswith("the stream broke off: ")
    assert BREAKS[name][3] in cleaned(error)


@breaks
def test_before_the_first_delta_it_has_the_kind_of_its_cause(upstream: Upstream, provider: str, name: str) -> None:
    reply = broken_stream(provider, name, b"")
    error, texts = fault(upstream, provider, reply, stream=True, **BREAKS[name][1])
    assert texts == []
    assert (error.kind, error.status) == (BREAKS[name][2], None)
    assert BREAKS[name][3] in cleaned(error)


# LiteLLM passes over cut JSON in Anthropic's and Gemini's streams.
@pytest.mark.parametrize(
    ("provider", "event"),
    [(provider, b"data: [1]\n\n") for provider in PROVIDERS]
    + [(provider, b'data: {"brok\n\n') for provider in ("openai", "azure")],
)
def test_an_event_that_is_none_interrupts_a_stream(upstream: Upstream, provider: str, event: bytes) -> None:
    error, _ = fault(upstream, provider, streams(delta("Hel")[provider], event), stream=True)
    assert error.kind == "stream_interrupted"
    assert cleaned(error).startswith(f"the stream broke off: {provider} sent an unusable response")


def test_an_error_that_the_caller_can_correct_keeps_its_kind_within_a_stream(upstream: Upstream) -> None:
    too_long = event({"error": {"message": "This model's maximum context length is 8192 tokens", "code": 400}})
    error, _ = fault(upstream, "openai", streams(delta("Hel")["openai"], too_long), stream=True)
    assert error.kind == "context_length_exceeded"


# ---- what the provider says in words -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("provider", "message", "kind"),
    [
        ("openai", "This model's maximum context length is 8192 tokens. However, you requested 9000.", "context_length_exceeded"),
        ("anthropic", "prompt is too long: 210000 tokens > 200000 maximum", "context_length_exceeded"),
        (
            "gemini",
            "The input token count (1100000) exceeds the maximum number of tokens allowed (1048576).",
            "context_length_exceeded",
        ),
        ("gemini", "API key not valid. Please pass a valid API key.", "authentication"),
    ],
)
def test_a_400_with_details_has_its_own_kind(upstream: Upstream, provider: str, message: str, kind: str) -> None:
    error, _ = fault(upstream, provider, refuses(400, message))
    assert (error.kind, error.status) == (kind, 400)
    assert cleaned(error).startswith(message)


def test_a_content_policy_has_a_separate_kind(upstream: Upstream) -> None:
    body = {"error": {"message": "Your request was rejected", "type": "invalid_request_error", "code": "content_policy_violation"}}
    error, _ = fault(upstream, "openai", reply_with(400, body))
    assert (error.kind, error.status, cleaned(error)) == ("content_policy", 400, "Your request was rejected")


def test_a_page_of_a_gateway_is_reduced_to_its_title(upstream: Upstream) -> None:
    error, _ = fault(
        upstream, "anthropic", reply_with(502, "<html><head><title>502 Bad Gateway</title></head></html>"), stream=True
    )
    assert cleaned(error) == 'an HTML page "502 Bad Gateway"'


# ---- when to try again -------------------------------------------------------------------------------------------------------

RESETS = {"x-ratelimit-reset-requests": "1.5s", "x-ratelimit-reset-tokens": "6m0s"}
ADVICE: dict[str, tuple[dict[str, str], str, int | None]] = {
    "seconds": ({"retry-after": "7"}, "", 7000),
    "parts of a second": ({"retry-after": "0.25"}, "", 250),
    "milliseconds": ({"retry-after-ms": "1234", "retry-after": "2"}, "", 1234),
    "a date": ({"retry-after": formatdate(1_800_000_030, usegmt=True), "date": formatdate(1_800_000_000, usegmt=True)}, "", 30_000),
    "a date in the past": ({"retry-after": formatdate(time.time() - 60, usegmt=True)}, "", 0),
    "nonsense": ({"retry-after": "soon"}, "", None),
    "a date as a number": ({"retry-after": "1800000000"}, "", None),
    "OpenAI's words": ({}, "Limit 3. Please try again in 1.2s. Visit the site.", 1200),
    "Groq's words": ({}, "Please try again in 7m12.5s. Need more?", 432_500),
    "Azure's words": ({}, "Please retry after 26 seconds.", 26_000),
    "milliseconds in words": ({}, "Please try again in 150ms.", 150),
    "a header before words": ({"retry-after": "3"}, "try again in 9s", 3000),
    "OpenAI's limits": ({**RESETS}, "", 1500),
    "OpenAI's limits, one used up": ({**RESETS, "x-ratelimit-remaining-tokens": "0"}, "", 360_000),
    "none": ({}, "slow down", None),
}


@pytest.mark.parametrize("name", ADVICE)
@plain_and_streamed
@each_provider
def test_retry_after_is_the_providers_advice(upstream: Upstream, provider: str, stream: bool, name: str) -> None:
    headers, words, expected = ADVICE[name]
    error, _ = fault(upstream, provider, refuses(429, words or "no", headers), stream=stream)
    assert (error.kind, error.retry_after_ms) == ("rate_limited", expected)


@plain_and_streamed
def test_geminis_retry_after_is_read_from_the_body(upstream: Upstream, stream: bool) -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7s"}]
    body = {"error": {"code": 429, "message": "Quota exceeded", "status": "RESOURCE_EXHAUSTED", "details": details}}
    error, _ = fault(upstream, "gemini", reply_with(429, body), stream=stream)
    assert (error.kind, error.retry_after_ms, cleaned(error)) == ("rate_limited", 7000, "Quota exceeded")


def test_a_503_can_have_a_retry_after_too(upstream: Upstream) -> None:
    error, _ = fault(upstream, "openai", refuses(503, headers={"retry-after": "5"}))
    assert (error.kind, error.retry_after_ms) == ("provider_unavailable", 5000)


def test_no_retry_is_advised_where_it_is_of_no_use(upstream: Upstream) -> None:
    error, _ = fault(upstream, "openai", refuses(401, headers={"retry-after": "5"}))
    assert error.retry_after_ms is None


# ---- before any provider gets a request ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "variable"),
    [
        ("openai/m", "OPENAI_API_KEY"),
        ("anthropic/m", "ANTHROPIC_API_KEY"),
        ("gemini/m", "GEMINI_API_KEY"),
        ("azure/m", "AZURE_OPENAI_API_KEY"),
        ("fireworks_ai/m", "FIREWORKS_API_KEY"),
    ],
)
@plain_and_streamed
def test_a_missing_key_is_named(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch, model: str, variable: str, stream: bool
) -> None:
    for name in ("OPENAI", "ANTHROPIC", "GEMINI", "GOOGLE", "AZURE_OPENAI", "AZURE", "FIREWORKS"):
        monkeypatch.delenv(f"{name}_API_KEY", raising=False)
    unreachable = "http://127.0.0.1:1"  # openai/ through LiteLLM's own handler asks without a key
    if model == "openai/m":
        error, _ = fault(upstream, "openai", refuses(401), stream=stream, api_key=None)
        assert error.message == f"the provider's own words ({variable} is not set in the environment)"
    else:
        error, _ = fault(upstream, "azure", hangs, stream=stream, model=model, api_key=None, api_base=unreachable)
        assert error.message == f"no key for {error.provider}: set {variable} in the environment"
    assert error.kind == "authentication"


def test_a_configured_key_is_not_called_missing(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    error, _ = fault(upstream, "openai", refuses(401))
    assert cleaned(error) == "the provider's own words"


@pytest.mark.parametrize("model", ["no-such-provider/m", "no-such-model"])
def test_an_unknown_provider_is_model_not_found(upstream: Upstream, model: str) -> None:
    error, _ = fault(upstream, "openai", hangs, model=model)
    assert (error.kind, error.status, error.provider) == ("model_not_found", None, None)
    assert model in error.message


def tool_call(arguments: str) -> list[dict[str, Any]]:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    return [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "y"},
    ]


IMAGE = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/picture.png"}}]}


@pytest.mark.parametrize(
    ("provider", "options"),
    [
        ("anthropic", {"model": "anthropic/claude-3-haiku-20240307", "logprobs": True}),
        ("anthropic", {"messages": tool_call("{not JSON")}),
        ("gemini", {"messages": tool_call("{not JSON")}),
        ("anthropic", {"messages": []}),
        ("gemini", {"messages": [IMAGE]}),
        ("anthropic", {"messages": [IMAGE]}),
        ("openai", {"messages": None}),
        ("openai", {"messages": ["no message"]}),
    ],
)
def test_a_param_that_litellm_can_not_send_is_rejected(upstream: Upstream, provider: str, options: dict[str, Any]) -> None:
    error, _ = fault(upstream, provider, hangs, **options)
    assert (error.kind, error.status) == ("rejected_by_provider", None)
    assert cleaned(error) != "no reason was given"


def test_a_missing_package_is_named(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("google.auth")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "google.auth", None)  # the import system's own way to say that there is none
    error, _ = fault(
        upstream, "openai", hangs, model="vertex_ai/gemini-2.5-pro", vertex_project="p", vertex_location="l", api_base=None
    )
    assert error.kind == "model_not_found"
    missing = r"this model needs the Python package google(\.auth(\.\w+)*)?, which is not installed here"
    assert re.fullmatch(missing + r"; pip install 'omni-bridge\[vertex\]'", error.message)


def test_a_budget_that_is_used_up(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(litellm, "max_budget", 0.01)
    monkeypatch.setattr(litellm, "_current_cost", 1.0)
    error, _ = fault(upstream, "openai", hangs)
    assert (error.kind, error.status) == ("budget_exceeded", None)  # LiteLLM's own error has 422


# ---- the Router --------------------------------------------------------------------------------------------------------------


class TestRouter:
    def call(
        self, upstream: Upstream, model: str, reply: Reply, times: int = 1, deployments: int = 1, **settings: Any
    ) -> BridgeError:
        """The error of the last of some calls to the group ``a``."""
        upstream.reply = reply
        deployment = {"model": "openai/some-model", "api_base": f"{upstream.url}/v1", "api_key": KEY, "max_retries": 0}
        deployment |= settings.pop("deployment", {})
        elsewhere = {**deployment, "api_base": "http://127.0.0.1:1/v1"}
        models = [{"model_name": "a", "litellm_params": deployment}] * deployments + [
            {"model_name": "b", "litellm_params": elsewhere}
        ]
        models = [row | {"model_info": {"id": f"d{number}"}} for number, row in enumerate(models)]

        async def all_calls() -> BaseException | None:
            router = litellm.Router(model_list=models, num_retries=0, **settings)
            raised = None
            for _ in range(times):
                try:
                    await router.acompletion(model=model, messages=[{"role": "user", "content": "hi"}], _skip_mcp_handler=True)
                except Exception as error:
                    raised = error
            router.retire()
            return raised

        raised = upstream.runner.run(all_calls())
        assert raised
        return from_litellm(raised, model=model)

    def test_a_cooldown_is_rate_limited_until_it_is_over(self, upstream: Upstream) -> None:
        """LiteLLM 1.110 still calls the only deployment of a group after a 429, so this group has two."""
        reply = refuses(429, headers={"retry-after": "7"})
        error = self.call(upstream, "a", reply, times=3, deployments=2, allowed_fails=0)
        assert (error.kind, error.status, error.retry_after_ms) == ("rate_limited", None, 7000)
        assert cleaned(error) == "every deployment of a is cooling down or at its limit; try again later"

    def test_a_separate_limit_is_rate_limited(self, upstream: Upstream) -> None:
        deployment = {"rpm": 1}
        error = self.call(
            upstream, "a", refuses(500), 2, routing_strategy="usage-based-routing-v2", deployment=deployment, disable_cooldowns=True
        )
        assert (error.kind, error.status) == ("rate_limited", None)
        assert "cooling down or at its limit" in error.message

    def test_an_unknown_model_is_model_not_found(self, upstream: Upstream) -> None:
        error = self.call(upstream, "zzz", hangs)
        assert (error.kind, error.status, error.provider, error.model) == ("model_not_found", None, None, "zzz")

    def test_the_words_of_the_router_are_cut_off(self, upstream: Upstream) -> None:
        error = self.call(upstream, "a", refuses(401), fallbacks=[{"a": ["b"]}])
        assert (error.kind, error.status, error.provider) == ("authentication", 401, "openai")
        assert cleaned(error).startswith("the provider's own words")
        assert "allback" not in cleaned(error)

    def test_a_refused_connection_has_no_status(self, upstream: Upstream) -> None:
        error = self.call(upstream, "b", hangs)
        assert (error.kind, error.status, error.provider) == ("provider_unavailable", None, "openai")


# ---- the rest ----------------------------------------------------------------------------------------------------------------


def test_an_error_of_the_bridge_passes_unchanged() -> None:
    error = BridgeError("timeout", "late", extra={"deadline": "total_ms"})
    assert from_litellm(error, model="m", streamed=True) is error


@pytest.mark.parametrize("streamed", [False, True])
def test_whatever_else_is_internal_and_bland(streamed: bool) -> None:
    error = from_litellm(KeyError("secret detail"), model="m", streamed=streamed)
    assert (error.kind, error.message) == ("internal", "an internal error; the log has the details")


@pytest.mark.parametrize("streamed", [False, True])
def test_a_cancel_is_not_an_error_of_the_upstream(streamed: bool) -> None:
    assert from_litellm(asyncio.CancelledError(), model="m", streamed=streamed).kind == "cancelled"


def test_causes_that_go_round_in_a_circle_come_to_an_end() -> None:
    first, second = ValueError("1"), ValueError("2")
    first.__cause__, second.__cause__ = second, first
    assert from_litellm(first, model="m").kind == "internal"


def test_every_kind_of_the_tables_is_in_the_error_table() -> None:
    from bridge_worker.backends.litellm import exceptions

    tables = [exceptions._BY_STATUS, exceptions._READINGS, exceptions._CAUSES, exceptions._BY_FUNCTION, exceptions._BY_SENTENCE]
    kinds = {kind for table in tables for kind in table.values()} | exceptions._INTERRUPTIONS
    assert kinds <= KINDS.keys()


def test_every_class_of_litellm_in_the_tables_exists() -> None:
    from litellm.litellm_core_utils import url_utils
    from litellm.types import router

    from bridge_worker.backends.litellm import exceptions

    homes = (litellm.exceptions, router, url_utils)
    for name in {*exceptions._READINGS, *exceptions._CAUSES}:
        package, _, class_name = name.partition(".")
        if package == "litellm":
            assert any(hasattr(home, class_name) for home in homes), f"{name} in faults.py is gone from LiteLLM"
