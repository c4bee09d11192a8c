"""What LiteLLM raised becomes a `BridgeError`.

Owns the classification: which kind, which status, when to try again, and the sentence for a person. An exception and its causes are
read from the outside in; the first one that is evidence decides. LiteLLM's own status is not evidence: a refused connection has 500, a
413 of Anthropic 400, a 529 of Anthropic 500, an unreadable answer of Gemini 422. Refuses to know what happens next: no retry, no
fallback, no log. The message may still hold a key; it is cleaned where it leaves the process.
"""

from __future__ import annotations

import math
import re
import time
import traceback
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import NamedTuple

import httpx
import litellm
import openai

from bridge_worker.errors import KINDS, BridgeError
from bridge_worker.redact import sentence

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

# LiteLLM's reading of an answer that knows more than the status does. The status itself is further in. Named by package and class, so
# that nothing has to be installed or imported to be recognised; a base class stands for what is derived from it.
_READINGS = {
    "litellm.ContextWindowExceededError": "context_length_exceeded",  # all that a 400 says
    "litellm.ContentPolicyViolationError": "content_policy",
    "litellm.AuthenticationError": "authentication",  # Gemini's answer to a wrong key is a 400
    "litellm.PermissionDeniedError": "permission",
    "litellm.NotFoundError": "model_not_found",
    "litellm.RateLimitError": "rate_limited",  # also Bedrock's throttling, a 400, and an rpm limit of the Router
    "litellm.Timeout": "timeout",
    "litellm.BadGatewayError": "provider_unavailable",  # also an error with code 502 in an answer with 200, as OpenRouter sends it
    "litellm.ServiceUnavailableError": "provider_unavailable",
}
# Evidence that no answer of the provider is further in: what follows, if anything, is another call or the cause of this.
_CAUSES = {
    "litellm.RouterRateLimitError": "rate_limited",  # a ValueError: every deployment is cooling down
    "litellm.RouterRateLimitErrorBasic": "rate_limited",
    "litellm.BudgetExceededError": "budget_exceeded",
    "litellm.UnsupportedParamsError": "rejected_by_provider",
    "litellm.ImageFetchError": "rejected_by_provider",  # the status further in is that of the image's host
    "litellm.LiteLLMUnknownProvider": "model_not_found",
    "litellm.APIResponseValidationError": "bad_upstream_response",
    "openai.APIResponseValidationError": "bad_upstream_response",
    "httpx.TimeoutException": "timeout",
    "httpx.TransportError": "provider_unavailable",
    "httpx.DecodingError": "bad_upstream_response",
    "httpx.RequestError": "provider_unavailable",
    "aiohttp.ServerTimeoutError": "timeout",
    "aiohttp.ClientError": "provider_unavailable",
    "botocore.NoCredentialsError": "authentication",
    "google.DefaultCredentialsError": "authentication",
    "builtins.ModuleNotFoundError": "internal",  # an optional dependency of LiteLLM
    "json.JSONDecodeError": "bad_upstream_response",
    "pydantic_core.ValidationError": "bad_upstream_response",
    "builtins.UnicodeDecodeError": "bad_upstream_response",
    "builtins.TimeoutError": "timeout",
    "builtins.ConnectionError": "provider_unavailable",
    "socket.gaierror": "provider_unavailable",
    "ssl.SSLError": "provider_unavailable",
}
# PRIVATE: LiteLLM's functions that read an answer or write a request. Whatever fails within them is about that, be it a KeyError.
_BY_FUNCTION = {
    "transform_request": "rejected_by_provider",
    "async_transform_request": "rejected_by_provider",
    "async_transform_request_body": "rejected_by_provider",
    "validate_and_fix_openai_messages": "rejected_by_provider",
    "transform_response": "bad_upstream_response",
    "_transform_google_generate_content_to_openai_model_response": "bad_upstream_response",
    "convert_to_model_response_object": "bad_upstream_response",
    "chunk_parser": "bad_upstream_response",
}
# PRIVATE: sentences of LiteLLM and the OpenAI SDK, where the class says only that something went wrong.
_BY_SENTENCE = (
    (re.compile(r"missing (?:credentials|[\w ]{0,20}api[ _]key)|api_key is (?:not set|required)", re.IGNORECASE), "authentication"),
    (re.compile(r"no healthy deployments|LLM Provider NOT provided"), "model_not_found"),
    (re.compile(r"invalid response from LLM endpoint|provider returned .{0,30}'choices'"), "bad_upstream_response"),
)
# After the first delta these mean that the stream broke off. The others say what to do next, streamed or not.
_INTERRUPTIONS = {"rejected_by_provider", "rate_limited", "timeout", "provider_unavailable", "bad_upstream_response"}

_UNREACHABLE = {
    "builtins.ConnectionRefusedError": "the connection was refused",
    "builtins.ConnectionResetError": "the connection was reset",
    "socket.gaierror": "its host name was not found",
    "ssl.SSLError": "TLS could not be agreed on",
    "aiohttp.ServerDisconnectedError": "it closed the connection",
    "builtins.Exception": "the connection broke",
}


_MAX_TEXT = 65_536  # characters of an error that are searched
_NO_PROVIDERS = {"litellm-httpx-handler", "vertex_ai_beta"}  # the latter for Gemini too, when it streams
_KEY_NAME = re.compile(r"\b[A-Z][A-Z0-9]{0,30}(?:_[A-Z0-9]{1,30}){0,4}_(?:KEY|TOKEN)\b")
_UNIT_MS = {"ms": 1, "": 1_000, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?) ?(ms|[smhd]?)")
_ADVICE = re.compile(  # OpenAI, Groq: "Please try again in 1.2s"; Azure: "retry after 26 seconds"; Gemini: "retryDelay": "7s"
    r"(?i:try again in|retry (?:in|after)|retryDelay\W{1,5})\s{0,2}((?:\d{1,9}(?:\.\d{1,9})? ?(?:ms|[smhd])[a-z]{0,6} ?){1,4})"
)
_MAX_WAIT_MS = 7 * 86_400_000  # more than any limit's window: then the number is a date, or nonsense


class _Finding(NamedTuple):
    kind: str
    cause: BaseException  # the evidence
    response: httpx.Response | None = None  # the provider's answer, where there was one


def from_litellm(error: BaseException, *, model: str | None, streamed: bool = False) -> BridgeError:
    """``model`` is the name that the caller asked for; ``streamed``: a delta has been sent. A `BridgeError` is returned as it is.

    ``status`` is what the provider's HTTP answer had, never a number that LiteLLM filled in. ``retry_after_ms`` is the provider's or the
    Router's advice.
    """
    if isinstance(error, BridgeError):
        return error
    chain = list(_chain(error))
    found = _find(chain)
    provider = _provider(chain, model)
    message = _message(found, chain, provider, model)
    extra: dict[str, object] = {"deadline": "provider"} if found.kind == "timeout" else {}
    kind = found.kind
    if streamed and kind in _INTERRUPTIONS:
        kind, message, extra = "stream_interrupted", f"the stream broke off: {message}", {}
    retry_after_ms = _retry_after_ms(chain, found) if KINDS[kind].retryable else None
    status = found.response.status_code if found.response is not None else None
    return BridgeError(kind, message, retry_after_ms, provider, model, status, extra)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """``error`` and what led to it. Also where ``from None`` hides it: the OpenAI SDK hides the HTTP status so."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        original = getattr(
            error, "original_exception", None
        )  # PRIVATE: of MidStreamFallbackError, which wraps whatever a stream raises
        if original is None:
            yield error
        error = original or error.__cause__ or error.__context__


def _find(chain: list[BaseException]) -> _Finding:
    reading = None
    for link in chain:
        if isinstance(link, httpx.HTTPStatusError):
            return _Finding(reading or _by_status(link.response.status_code), link, link.response)
        cause = _named(_CAUSES, link) or _in_stream(link) or _by_function(link)
        if cause:
            return _Finding(reading or cause, link)
        reading = reading or _named(_READINGS, link)
    return _Finding(reading or _by_sentence(chain[0]) or _by_claim(chain), chain[0])


def _by_status(status: int) -> str:
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status < 400:
        return "bad_upstream_response"
    return "rejected_by_provider" if status < 500 else "provider_unavailable"


def _named(table: Mapping[str, str], error: BaseException) -> str | None:
    names = (f"{base.__module__.partition('.')[0]}.{base.__name__}" for base in type(error).__mro__)
    return next((table[name] for name in names if name in table), None)


def _in_stream(error: BaseException) -> str | None:
    """An error event of a provider that the OpenAI SDK reads; the SDK's errors with a status are subclasses, and so are LiteLLM's."""
    return "provider_unavailable" if type(error) is openai.APIError else None


def _by_function(error: BaseException) -> str | None:
    if hasattr(error, "status_code"):  # not an accident: LiteLLM says something by it
        return None
    names = (frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__))
    return next((_BY_FUNCTION[name] for name in names if name in _BY_FUNCTION), None)


def _by_sentence(error: BaseException) -> str | None:
    text = str(error)[:_MAX_TEXT]
    return next((kind for pattern, kind in _BY_SENTENCE if pattern.search(text)), None)


def _by_claim(chain: list[BaseException]) -> str:
    """By the status that LiteLLM gives, where nothing speaks for or against it: an error event in a stream, a check before the call."""
    for link in chain:
        status = getattr(link, "status_code", None)
        if (
            isinstance(status, int) and type(link) is not litellm.APIConnectionError
        ):  # that one has 500 for whatever LiteLLM can't map
            return _by_status(status)
    return "internal"


def _provider(chain: list[BaseException], model: str | None) -> str | None:
    """LiteLLM's name for it. Some of its errors have the name of a part of LiteLLM instead; then what the model's name begins with."""
    names = (getattr(link, "llm_provider", None) for link in chain)
    prefix = (model or "").partition("/")[0]
    known = prefix if prefix in litellm.provider_list else None
    return next((name for name in names if name and name not in _NO_PROVIDERS), known)


def _message(found: _Finding, chain: list[BaseException], provider: str | None, model: str | None) -> str:
    who, said = provider or "the provider", sentence(str(chain[0])[:_MAX_TEXT])
    if found.kind == "authentication":
        return _about_key(said, provider, answered=found.response is not None)
    if found.response is not None:
        return said
    match found.kind:
        case "internal" if isinstance(found.cause, ModuleNotFoundError):
            return f"this model needs the Python package {found.cause.name}, which is not installed here"
        case "internal":
            return "an internal error; the log has the whole of it"
        case "model_not_found":
            return f"there is no provider or deployment for the model {model}; models/list has those there are"
        case "rate_limited" if hasattr(found.cause, "cooldown_time") or provider is None:
            return f"every deployment of {model} is cooling down or at its limit; try again later"
        case "timeout":
            return f"{who} did not answer in time"
        case "provider_unavailable" if found.cause is not chain[0]:
            return f"{who} could not be reached: {_unreachable(found.cause)}"
        case "bad_upstream_response":
            return f"{who} sent an answer that can't be used: {said}"
    return said


def _about_key(said: str, provider: str | None, *, answered: bool) -> str:
    missing = _KEY_NAME.findall(said)[:1] or (provider and litellm.validate_environment(f"{provider}/any")["missing_keys"])
    if not missing:
        return said
    names = " and ".join(missing)
    return (
        f"{said} ({names} is not set in the environment)" if answered else f"no key for {provider}: set {names} in the environment"
    )


def _unreachable(cause: BaseException) -> str:
    reasons = [_named(_UNREACHABLE, link) for link in _chain(cause)]
    return next(reason for reason in reversed(reasons) if reason)


def _retry_after_ms(chain: list[BaseException], found: _Finding) -> int | None:
    headers = found.response.headers if found.response is not None else getattr(chain[0], "litellm_response_headers", None) or {}
    cooldown = getattr(found.cause, "cooldown_time", None)  # seconds, of RouterRateLimitError
    advice = [
        None if cooldown is None else cooldown * 1000,
        _number(headers.get("retry-after-ms")),
        _seconds_or_date(headers),
    ]
    if found.kind == "rate_limited":
        in_words = _ADVICE.search(str(chain[0])[:_MAX_TEXT])
        advice += [_duration(in_words[1]) if in_words else None, _limit_reset(headers)]
    wait = next((wait for wait in advice if wait is not None and wait <= _MAX_WAIT_MS), None)
    return None if wait is None else max(0, math.ceil(wait))


def _seconds_or_date(headers: Mapping[str, str]) -> float | None:
    value = headers.get("retry-after", "")
    seconds = _number(value)
    if seconds is not None:
        return seconds * 1000
    at, now = _date(value), _date(headers.get("date", ""))  # by the provider's clock, if it has one
    return None if at is None else (at - (now or time.time())) * 1000


def _limit_reset(headers: Mapping[str, str]) -> float | None:
    """OpenAI's x-ratelimit-reset-requests and -tokens: when the limit that is used up is whole again; else the sooner one."""
    waits = {limit: _duration(headers.get(f"x-ratelimit-reset-{limit}", "")) for limit in ("requests", "tokens")}
    known = {limit: wait for limit, wait in waits.items() if wait is not None}
    used_up = [wait for limit, wait in known.items() if headers.get(f"x-ratelimit-remaining-{limit}") == "0"]
    return max(used_up, default=None) or min(known.values(), default=None)


def _duration(text: str) -> float | None:
    """Milliseconds of "6m0s", "1.2s", "20 seconds" or "7", which is seconds."""
    parts = _DURATION.findall(text)
    return sum(float(number) * _UNIT_MS[unit] for number, unit in parts) if parts else None


def _number(text: str | None) -> float | None:
    return float(text) if text and re.fullmatch(r"\d{1,15}(?:\.\d{1,9})?", text) else None


def _date(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None
