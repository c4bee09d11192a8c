"""Turns an exception of LiteLLM into a `BridgeError`.

Owns the classification: the kind, the status and the message. It reads an exception and its causes from the outside in, and the
first one that is evidence decides. LiteLLM's own status is not evidence: a refused connection has 500, a 413 of Anthropic 400, a
529 of Anthropic 500, an unreadable response of Gemini 422. Refuses to know what happens next: no retry, no fallback, no log. A
message may still contain a key; it is cleaned before it leaves the process.
"""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import httpx
import litellm
import openai

from bridge_worker.backends.wire import retry_after
from bridge_worker.errors import KINDS, BridgeError
from bridge_worker.security.error_text import MAX_TEXT, sentence

_BY_STATUS = {
    400: "rejected_by_provider",
    401: "authentication",
    402: "budget_exceeded",
    403: "permission",
    404: "model_not_found",
    408: "timeout",
    429: "rate_limited",
    504: "timeout",
}  # any other 4xx is rejected_by_provider, 5xx is provider_unavailable, and an error with 2xx or 3xx is a bad_upstream_response

# LiteLLM's classes for a response that are more specific than its status, which is further in. Here and below, classes are named by
# package and class, so that the package need not be installed. A row also covers derived classes.
_READINGS = {
    "litellm.ContextWindowExceededError": "context_length_exceeded",
    "litellm.ContentPolicyViolationError": "content_policy",
    "litellm.AuthenticationError": "authentication",  # Gemini responds to a wrong key with 400
    "litellm.PermissionDeniedError": "permission",
    "litellm.NotFoundError": "model_not_found",
    "litellm.RateLimitError": "rate_limited",  # also Bedrock's throttling, a 400, and an rpm limit of the Router
    "litellm.Timeout": "timeout",
    "litellm.BadGatewayError": "provider_unavailable",  # also code 502 in the body of a 200, as OpenRouter sends it
    "litellm.ServiceUnavailableError": "provider_unavailable",
}
# The causes of these do not contain the provider's response: they are an earlier call, or the reason of this error.
_CAUSES = {
    "litellm.RouterRateLimitError": "rate_limited",  # a ValueError: every deployment is cooling down
    "litellm.RouterRateLimitErrorBasic": "rate_limited",
    "litellm.BudgetExceededError": "budget_exceeded",
    "litellm.UnsupportedParamsError": "rejected_by_provider",
    "litellm.SSRFError": "rejected_by_provider",  # LiteLLM fetches no image from an address of a private network
    "litellm.ImageFetchError": "rejected_by_provider",  # the status further in is that of the image's host
    "litellm.LiteLLMUnknownProvider": "model_not_found",
    "openai.APIResponseValidationError": "bad_upstream_response",
    "httpx.TimeoutException": "timeout",
    "httpx.DecodingError": "bad_upstream_response",
    "httpx.RequestError": "provider_unavailable",
    "aiohttp.ServerTimeoutError": "timeout",
    "aiohttp.ClientError": "provider_unavailable",
    "botocore.ParserError": "bad_upstream_response",  # a frame of AWS's event stream
    "json.JSONDecodeError": "bad_upstream_response",
    "pydantic_core.ValidationError": "bad_upstream_response",
    "builtins.UnicodeDecodeError": "bad_upstream_response",
    "builtins.ModuleNotFoundError": "model_not_found",  # an optional dependency of LiteLLM: this worker can't serve such models
    "asyncio.CancelledError": "cancelled",
    "builtins.TimeoutError": "timeout",
    "builtins.ConnectionError": "provider_unavailable",
    "socket.gaierror": "provider_unavailable",
    "ssl.SSLError": "provider_unavailable",
}
# PRIVATE: LiteLLM's functions that write a request or read a response. An exception in one of them, such as KeyError, is about
# that.
_BY_FUNCTION = {
    "transform_request": "rejected_by_provider",
    "async_transform_request": "rejected_by_provider",
    "async_transform_request_body": "rejected_by_provider",
    "validate_and_fix_openai_messages": "rejected_by_provider",
    "transform_response": "bad_upstream_response",
    "_transform_response": "bad_upstream_response",
    "_transform_google_generate_content_to_openai_model_response": "bad_upstream_response",
    "convert_to_model_response_object": "bad_upstream_response",
    "parse_body": "bad_upstream_response",
    "chunk_parser": "bad_upstream_response",
    "_dispatch_provider_chunk": "bad_upstream_response",
    "_event": "bad_upstream_response",  # the bridge's own, in patches/correctness.py
}
# PRIVATE: sentences of LiteLLM and the OpenAI SDK, for classes that do not name the reason.
_BY_SENTENCE = {
    r"[Mm]issing (?:credentials|[\w ]{0,20}(?i:api[ _]key))|API_KEY is (?:not set|required)": "authentication",
    r"(?i:api[ _]key) is required|Missing \w{1,30} (?:JWT key|Tenant ID)": "authentication",
    r"(?:api_base|base_url|API base) (?:is required|not set|must be)|Missing (?:api_base|base_url)": "model_not_found",
    r"Unsupported provider: ": "rejected_by_provider",  # for reranking
    r"no healthy deployments|LLM Provider NOT provided": "model_not_found",
    r"response from LLM endpoint|provider returned .{0,30}'choices'|response from Azure|'model_dump'": "bad_upstream_response",
    r"closed the responses stream before any terminal event": "bad_upstream_response",
    r"^No deployments available - crossed budget": "budget_exceeded",
    r"^Not allowed to access model due to tags": "permission",
}
# PRIVATE: sentences of a LiteLLM proxy that is the provider; its status and class are less specific.
_BY_PROXY = {
    r"litellm\.ContextWindowExceededError": "context_length_exceeded",
    r"litellm\.ContentPolicyViolationError": "content_policy",
    r"Invalid model name passed in model=|There are no healthy deployments for this model": "model_not_found",
    r"No connected db\.": "authentication",  # it looks up every key that is not the master key
    r"Budget has been exceeded! Current cost": "budget_exceeded",
}
# After the first delta these become `stream_interrupted`. The other kinds name what the caller has to correct, streamed or not.
_INTERRUPTIONS = {"rejected_by_provider", "rate_limited", "timeout", "provider_unavailable", "bad_upstream_response"}

_UNREACHABLE = {
    "builtins.ConnectionRefusedError": "the connection was refused",
    "builtins.ConnectionResetError": "the connection was reset",
    "socket.gaierror": "its host name was not found",
    "ssl.SSLError": "TLS could not be agreed on",
    "aiohttp.ServerDisconnectedError": "it closed the connection",
    "httpx.TransportError": "the connection broke",
}
_NO_PROVIDERS = {"litellm-httpx-handler", "vertex_ai_beta"}  # parts of LiteLLM; it also uses the latter for Gemini's streams
_KEY_NAME = re.compile(r"\b[A-Z][A-Z0-9]{0,30}(?:_[A-Z0-9]{1,30}){0,4}_(?:KEY|TOKEN)\b")


_LITELLM = f"{os.sep}litellm{os.sep}"
_OURS = f"{os.sep}bridge_worker{os.sep}"
_READS = re.compile(r"response|chunk|stream|__anext__|post_call")  # names of functions that read a response

# ---- the classification ----------------------------------------------------------------------------------------------------


class _Finding(NamedTuple):
    kind: str
    cause: BaseException  # the evidence
    response: httpx.Response | None = None  # the provider's response, if one arrived


def from_litellm(error: BaseException, *, model: str | None, streamed: bool = False) -> BridgeError:
    """``model`` is the requested name; ``streamed``: a delta has been sent. A `BridgeError` is returned unchanged.

    ``status`` is that of the provider's HTTP response, never a number that LiteLLM filled in. ``retry_after_ms`` is the advice of
    the provider or of the Router.
    """
    chain = list(_chain(error))
    if ours := _of_the_bridge(chain):
        return ours
    found = _find(chain)
    provider = _provider(chain, model)
    kind, message = found.kind, _message(found, chain, provider, model)
    extra: dict[str, object] = {"deadline": "provider"} if kind == "timeout" else {}
    if streamed and kind in _INTERRUPTIONS:
        kind, message, extra = "stream_interrupted", f"the stream broke off: {message}", {}
    retry_after_ms = _retry_after_ms(chain, found) if KINDS[kind].retryable else None
    status = None if found.response is None else found.response.status_code
    return BridgeError(kind, message, retry_after_ms, provider, model, status, extra)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """``error`` and its causes, also those hidden by ``from None``, with which the OpenAI SDK hides the HTTP response."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        # PRIVATE: MidStreamFallbackError wraps whatever a stream raises
        original = getattr(error, "original_exception", None)
        if original is None:
            yield error
        # The Router raises the original *from* its wrapper: a circle, and what came before is the wrapper's context.
        error = original if original is not None and id(original) not in seen else error.__cause__ or error.__context__


def _of_the_bridge(chain: list[BaseException]) -> BridgeError | None:
    """An error of the bridge's own, as of a local model behind the Router; not one that led to an error of the Router's."""
    for link in chain:
        if isinstance(link, BridgeError):
            return link
        if _named(_CAUSES, link):
            return None
    return None


def _find(chain: list[BaseException]) -> _Finding:
    reading = None
    for link in chain:
        if isinstance(link, httpx.HTTPStatusError):
            kind = _match(_BY_PROXY, chain[0]) or reading or _by_status(link.response.status_code)
            return _Finding(kind, link, link.response)
        cause = _named(_CAUSES, link) or _in_stream(link) or _by_function(link)
        if cause:
            return _Finding(reading or cause, link)
        reading = reading or _named(_READINGS, link)
    return _Finding(reading or _match(_BY_SENTENCE, chain[0]) or _by_claim(chain), chain[0])


def _by_status(status: int) -> str:
    if status < 400:
        return "bad_upstream_response"
    return _BY_STATUS.get(status, "rejected_by_provider" if status < 500 else "provider_unavailable")


def _named(table: Mapping[str, str], error: BaseException) -> str | None:
    names = (f"{base.__module__.partition('.')[0]}.{base.__name__}" for base in type(error).__mro__)
    return next((table[name] for name in names if name in table), None)


def _in_stream(error: BaseException) -> str | None:
    """An error event, as the OpenAI SDK raises it. What has a status is of a derived class, and so are all errors of LiteLLM."""
    return "provider_unavailable" if type(error) is openai.APIError else None


def _by_function(error: BaseException) -> str | None:
    if hasattr(error, "status_code"):  # LiteLLM raised it with a status, which is better evidence than the function
        return None
    names = (frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__))
    return next((_BY_FUNCTION[name] for name in names if name in _BY_FUNCTION), None)


def _match(sentences: Mapping[str, str], error: BaseException) -> str | None:
    return next((kind for pattern, kind in sentences.items() if re.search(pattern, str(error)[:MAX_TEXT])), None)


def _by_claim(chain: list[BaseException]) -> str:
    """The kind of LiteLLM's status, if no other evidence exists: for an error event in a stream, or a check before the call."""
    for link in chain:
        status = getattr(link, "status_code", None)
        if type(link) is litellm.APIConnectionError or status is None:  # the former has 500 for all that LiteLLM can't map
            continue
        return _by_status(status) if isinstance(status, int) else "bad_upstream_response"  # an error's code that is a list
    return _by_origin(chain[-1])


def _by_origin(error: BaseException) -> str:
    """An exception that begins in LiteLLM, or in what it calls, is about the request or the response. One that begins in the bridge
    is a fault of the bridge."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if not frames or not any(_LITELLM in frame.f_code.co_filename for frame in frames):
        return "internal"
    if _OURS in frames[-1].f_code.co_filename:
        return "internal"
    read = any(_READS.search(frame.f_code.co_name) for frame in frames)
    return "bad_upstream_response" if read else "rejected_by_provider"


# ---- the message -----------------------------------------------------------------------------------------------------------


def _provider(chain: list[BaseException], model: str | None) -> str | None:
    """LiteLLM's name of the provider; if the error names a part of LiteLLM instead, the prefix of the model's name."""
    names = (getattr(link, "llm_provider", None) for link in chain)
    prefix = (model or "").partition("/")[0]
    return next((name for name in names if name and name not in _NO_PROVIDERS), prefix if prefix in litellm.provider_list else None)


def _message(found: _Finding, chain: list[BaseException], provider: str | None, model: str | None) -> str:
    who, message = provider or "the provider", sentence(str(chain[0])[:MAX_TEXT])
    if found.kind == "authentication":
        return about_key(message, provider, responded=found.response is not None)
    if found.response is not None:
        return message
    if found.kind == "provider_unavailable":
        reason = _unreachable(found.cause)
        return f"{who} could not be reached: {reason}" if reason else message
    if found.kind == "rate_limited":
        return message if provider else f"every deployment of {model} is cooling down or at its limit; try again later"
    if isinstance(found.cause, ModuleNotFoundError):
        return f"this model needs the Python package {found.cause.name}, which is not installed here"
    if found.kind == "rejected_by_provider" and _is_accident(found.cause):
        return f"no request for {who} can be made of this; check the model's name and the params"
    accident = type(found.cause).__module__ == "builtins"  # "'list' object has no attribute 'get'" is for the log
    ours = {
        "model_not_found": f"no provider or deployment serves the model {model}; models/list has the available ones",
        "timeout": f"{who} did not respond in time",
        "bad_upstream_response": f"{who} sent an unusable response" + ("" if accident else f": {message}"),
        "cancelled": "cancelled before it was finished",
        "internal": "an internal error; the log has the details",
    }
    return ours.get(found.kind, message)


def _is_accident(error: BaseException) -> bool:
    """Whether it is an error of the interpreter; its text is only for the log."""
    return isinstance(error, AttributeError | TypeError | LookupError)


def about_key(message: str, provider: str | None, *, responded: bool) -> str:
    """``message`` with the variable that has no key, if one is missing. ``responded``: the provider rejected the request itself."""
    missing = _KEY_NAME.findall(message)[:1] or (provider and litellm.validate_environment(f"{provider}/any")["missing_keys"])
    if not missing:
        return message
    names = " and ".join(missing)
    if responded:
        return f"{message} ({names} is not set in the environment)"
    return f"no key for {provider}: set {names} in the environment"


def _unreachable(cause: BaseException) -> str | None:
    """The innermost reason: httpx's error contains aiohttp's, which contains the system's."""
    reasons = [reason for link in _chain(cause) if (reason := _named(_UNREACHABLE, link))]
    return reasons[-1] if reasons else None


def _retry_after_ms(chain: list[BaseException], found: _Finding) -> int | None:
    # PRIVATE: RouterRateLimitError's seconds; the headers of a response that is not among the causes, or that the Router made
    # itself
    by_router = getattr(getattr(chain[0], "response", None), "headers", None)
    headers = (
        found.response.headers if found.response is not None else getattr(chain[0], "litellm_response_headers", None) or by_router
    )
    text = str(chain[0])[:MAX_TEXT] if found.kind == "rate_limited" else None
    return retry_after.wait_ms(headers or {}, text, seconds=getattr(found.cause, "cooldown_time", None))
