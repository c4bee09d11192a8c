"""Error kinds of the providers' statuses, codes and wordings; shared by all decoders.

Owns the tables and the shapes in which providers report an error: an object, a string, a list, under a dozen names. A code or type
that names the error decides, then the words of a full context, then the HTTP status, then other words. Refuses to know a stream:
whether content was sent before the error is the caller's business. Texts are cut before any regular expression sees them.

For decoders:

- `from_response(status, headers, body)`: an HTTP status other than 2xx.
- `from_value(value)`: an error object or event in a stream or in a 200 body, already parsed.
- `error_in(value)`: whether a parsed JSON value reports an error, by its members; the part to pass to `from_value`, else None.
- `unreadable(data)`: a ``bad_upstream_response`` that quotes up to 500 characters of ``data``.
- `interrupted(data)`: a ``stream_interrupted`` for a stream without its end; quotes what came instead of it, if anything did.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from bridge_worker.backends.wire import retry_after
from bridge_worker.backends.wire.json_values import MAX_QUOTE, objects_of, parse
from bridge_worker.errors import KINDS, BridgeError

MAX_BODY_BYTES = 65_536  # of an error's body that are looked at
MAX_TEXT = 16_384  # characters of an error that regular expressions search

BY_STATUS = {
    400: "rejected_by_provider",
    401: "authentication",
    402: "budget_exceeded",
    403: "permission",
    404: "model_not_found",
    408: "timeout",
    429: "rate_limited",
    504: "timeout",
    524: "timeout",  # Cloudflare: the provider's own server did not respond in time
}  # any other 4xx is rejected_by_provider, 5xx is provider_unavailable, and an error with 2xx or 3xx is a bad_upstream_response

# Codes and types that name the error, in lower case without separators. They count more than the status: Groq sends a full context
# as 400, OpenAI a used-up quota as 429, Gemini a wrong key as 400.
BY_CODE = {
    # a full context
    "contextlengthexceeded": "context_length_exceeded",  # OpenAI, Azure, Groq, xAI
    "exceedcontextsizeerror": "context_length_exceeded",  # llama.cpp
    "contextwindowexceeded": "context_length_exceeded",
    "contextwindowexceedederror": "context_length_exceeded",  # LiteLLM's proxy
    "modelcontextwindowexceeded": "context_length_exceeded",
    "contextwindowoverflow": "context_length_exceeded",
    "contextlengtherror": "context_length_exceeded",
    "contextoverflow": "context_length_exceeded",
    "maxcontextlengthexceeded": "context_length_exceeded",
    "stringabovemaxlength": "context_length_exceeded",  # OpenAI: one text alone is longer than it accepts
    "inputtoolong": "context_length_exceeded",
    "prompttoolong": "context_length_exceeded",
    "tokenlimitexceeded": "context_length_exceeded",
    "tokenslimitexceeded": "context_length_exceeded",
    "inputlengthexceeded": "context_length_exceeded",
    # content policy
    "contentfilter": "content_policy",  # Azure
    "contentpolicyviolation": "content_policy",
    "contentpolicyviolationerror": "content_policy",
    "contentpolicy": "content_policy",
    "responsibleaipolicyviolation": "content_policy",  # Azure, innererror
    "datainspectionfailed": "content_policy",  # DashScope
    "moderationblocked": "content_policy",
    "moderationerror": "content_policy",
    "imagecontentpolicyviolation": "content_policy",  # OpenAI Responses
    "invalidprompt": "content_policy",  # OpenAI Responses: reasoning models reject a prompt against the usage policy
    "cyberpolicy": "content_policy",
    "safetycheckfailed": "content_policy",
    "guardrailintervened": "content_policy",
    # a used-up balance, which waiting does not fill
    "insufficientquota": "budget_exceeded",
    "billinghardlimitreached": "budget_exceeded",
    "billingnotactive": "budget_exceeded",
    "billingerror": "budget_exceeded",  # Anthropic
    "insufficientbalance": "budget_exceeded",
    "insufficientcredits": "budget_exceeded",
    "insufficientfunds": "budget_exceeded",
    "paymentrequired": "budget_exceeded",
    "arrearage": "budget_exceeded",  # DashScope
    "budgetexceeded": "budget_exceeded",  # LiteLLM's proxy
    "creditbalancetoolow": "budget_exceeded",
    "exceededcurrentquotaerror": "budget_exceeded",  # Moonshot
    # rate limits
    "ratelimitexceeded": "rate_limited",
    "ratelimiterror": "rate_limited",
    "ratelimitreachederror": "rate_limited",
    "ratelimited": "rate_limited",
    "ratelimit": "rate_limited",
    "tokens": "rate_limited",  # OpenAI's and Groq's type of a limit on tokens per minute
    "requests": "rate_limited",
    "toomanyrequests": "rate_limited",
    "toomanyrequestsexception": "rate_limited",
    "throttling": "rate_limited",
    "throttlingexception": "rate_limited",
    "throttlingratequota": "rate_limited",
    "throttlingallocationquota": "rate_limited",
    "servicequotaexceededexception": "rate_limited",
    "resourceexhausted": "rate_limited",  # Google
    "queueexceeded": "rate_limited",  # Cerebras
    "slowdown": "rate_limited",
    # overloaded or broken
    "overloadederror": "provider_unavailable",  # Anthropic
    "overloaded": "provider_unavailable",
    "engineoverloadederror": "provider_unavailable",  # Moonshot
    "serverisoverloaded": "provider_unavailable",  # OpenAI Responses
    "serveroverloaded": "provider_unavailable",
    "serviceunavailable": "provider_unavailable",
    "serviceunavailableexception": "provider_unavailable",
    "serviceunavailableerror": "provider_unavailable",
    "modelnotreadyexception": "provider_unavailable",
    "modelerrorexception": "provider_unavailable",
    "modelstreamerrorexception": "provider_unavailable",
    "internalserverexception": "provider_unavailable",
    "internalfailure": "provider_unavailable",
    "vectorstoretimeout": "provider_unavailable",
    "unavailable": "provider_unavailable",  # Google
    "nohealthyupstream": "provider_unavailable",
    # time
    "timeout": "timeout",
    "timeouterror": "timeout",
    "requesttimeout": "timeout",
    "modeltimeoutexception": "timeout",
    "deadlineexceeded": "timeout",  # Google
    # who may do what
    "invalidapikey": "authentication",
    "apikeyinvalid": "authentication",  # Google, in details[].reason
    "authenticationerror": "authentication",
    "unauthenticated": "authentication",
    "unauthorized": "authentication",
    "unrecognizedclientexception": "authentication",
    "invalidclienttokenid": "authentication",
    "expiredtoken": "authentication",
    "expiredtokenexception": "authentication",
    "invalidsignatureexception": "authentication",
    "incompletesignature": "authentication",
    "missingauthenticationtoken": "authentication",
    "accountdeactivated": "authentication",
    "permissionerror": "permission",
    "permissiondenied": "permission",
    "accessdenied": "permission",
    "accessdeniedexception": "permission",
    "modelaccessdenied": "permission",
    "unsupportedcountryregionterritory": "permission",
    # models
    "modelnotfound": "model_not_found",
    "deploymentnotfound": "model_not_found",
    "notfounderror": "model_not_found",
    "resourcenotfoundexception": "model_not_found",
    "unknownmodel": "model_not_found",
    "invalidmodel": "model_not_found",
    "modeldecommissioned": "model_not_found",  # Groq
    "modelnotexist": "model_not_found",
    # the request, or the model's own output
    "requesttoolarge": "rejected_by_provider",  # Anthropic: bytes, not tokens
    "validationexception": "rejected_by_provider",
    "tooluseerror": "rejected_by_provider",
    "tooluseunsupported": "rejected_by_provider",
    "jsonvalidatefailed": "bad_upstream_response",  # Groq: the model's text did not fit the schema
    "toolusefailed": "bad_upstream_response",  # Groq: the model's tool call could not be read
    "invalidoutput": "bad_upstream_response",
}
# Codes and types that say little: they count only where no HTTP status says more.
BY_VAGUE_CODE = {
    "invalidrequesterror": "rejected_by_provider",
    "invalidrequest": "rejected_by_provider",
    "invalidrequestbody": "rejected_by_provider",
    "invalidargument": "rejected_by_provider",
    "invalidparameter": "rejected_by_provider",
    "invalidimage": "rejected_by_provider",
    "invalidvalue": "rejected_by_provider",
    "unsupportedparameter": "rejected_by_provider",
    "unsupportedvalue": "rejected_by_provider",
    "unprocessableentity": "rejected_by_provider",
    "failedprecondition": "rejected_by_provider",
    "outofrange": "rejected_by_provider",
    "badrequest": "rejected_by_provider",
    "badrequesterror": "rejected_by_provider",
    "validationerror": "rejected_by_provider",
    "notfound": "model_not_found",
    "forbidden": "permission",
    "apierror": "provider_unavailable",
    "servererror": "provider_unavailable",
    "internalservererror": "provider_unavailable",
    "internalerror": "provider_unavailable",
    "internal": "provider_unavailable",
    "upstreamerror": "provider_unavailable",
    "providererror": "provider_unavailable",
    "badgateway": "provider_unavailable",
    "aborted": "provider_unavailable",
    "unknown": "provider_unavailable",
}

# Wordings of a full context, in lower case. Every pattern is linear: bounded gaps only.
CONTEXT_WORDINGS = {
    "OpenAI, vLLM, DeepSeek, OpenRouter, Mistral, Azure": r"maximum context length",
    "OpenAI Responses": r"exceeds? (?:the|this|your|the model's|this model's|model's) context (?:window|length)",
    "OpenAI, older": r"reduce (?:the length of )?(?:the|your) (?:messages|prompt)",
    "OpenAI, one text": r"string too long\. expected a string with maximum length",
    "Anthropic, Bedrock, Fireworks, Ollama": r"prompt (?:is )?too long",
    "Anthropic, with max_tokens": r"exceed context limit",
    "Gemini, Vertex": r"input token count.{0,60}exceeds the maximum",
    "Vertex, older": r"input token count is \d{1,12} but model only supports up to",
    "xAI": r"maximum prompt length is \d",
    "llama.cpp": r"available context size",
    "LM Studio": r"context size has been exceeded|greater than the context length|when context the overflows",
    "Ollama": r"exceed(?:s|ed)? (?:the |max )?context length",
    "Bedrock": r"input is too long|too many input tokens",
    "Bedrock, Titan": r"expected maxlength: \d",
    "Cohere, AI21, Bedrock": r"too many tokens",
    "Mistral": r"too large for model with \d",
    "Perplexity": r"length of all messages is too long",
    "Poolside": r"maximum allowed input length",
    "SGLang": r"longer than the model's context",
    "vLLM's engine": r"longer than the maximum model length",
    "llama-cpp-python": r"exceed context window of \d",
    "Hugging Face TGI": r"`inputs`.{0,60}must (?:have less than|be <=)|tokens \+ `max_new_tokens` must be",
    "GitHub Copilot": r"prompt token count of \d{1,12} exceeds the limit",
    "Moonshot": r"exceeded model token limit",
    "MiniMax": r"context window exceeds limit",
    "Zhipu": r"prompt exceeds max(?:imum)? length|tokens in request more than max tokens",
    "DashScope": r"range of input length should be",
    "watsonx": r"number of input tokens \d{1,12} cannot exceed",
    "Databricks": r"exceeds? (?:the )?(?:maximum )?(?:token limit|input length)|token limit (?:was |is )?exceeded",
    "gateways": r"context[ _](?:length|window)(?:[ _](?:was|is|has been))?[ _](?:exceeded|overflow|full)|contextwindowexceeded",
}
# A limit of tokens a minute has nearly the same words.
_NOT_CONTEXT = re.compile(
    r"per[ -]?(?:minute|min\b|hour|day|second)|\b[tr]p[mdh]\b|rate.?limit|throttl|please wait|quota|concurren"
)
_CONTEXT = re.compile("|".join(CONTEXT_WORDINGS.values()))

# Other words, where the code says nothing. The first match counts.
WORDINGS = {
    r"content management policy|content policy|content[ _]filter(?:ed|ing)?\b|usage polic|safety system|flagged (?:as|by|for|in)": (
        "content_policy"
    ),
    r"input.{0,40}(?:inappropriate|moderation)|moderation.{0,40}(?:flagged|blocked)|data_inspection_failed": "content_policy",
    r"credit balance is too low|insufficient (?:credit|balance|fund|quota)|requires more credits|used all available credits": (
        "budget_exceeded"
    ),
    r"budget has been exceeded|billing (?:hard )?limit|exceeded your (?:monthly|included) (?:spending|credits)": "budget_exceeded",
    r"invalid (?:api[ -]?key|x-api-key|authentication)|incorrect api key|api key not valid|api key expired": "authentication",
    r"api[ _]key (?:is )?(?:invalid|missing|required|not found)|no auth credentials": "authentication",
    r"rate.?limit|too many requests|throttl|requests per minute|tokens per minute": "rate_limited",
    r"model.{0,120}(?:does not exist|not found|is not a valid model|is not supported for)|no endpoints found": "model_not_found",
    r"overloaded|at capacity|no healthy upstream|upstream connect error|temporarily unavailable": "provider_unavailable",
}
_WORDS = [(re.compile(pattern), kind) for pattern, kind in WORDINGS.items()]
# Kinds of a status that words may correct. 401, 402, 404 and 5xx say enough; so does a 429 but for a used-up balance.
_CORRECTABLE = {
    "rejected_by_provider": frozenset({"content_policy", "budget_exceeded", "authentication", "model_not_found", "rate_limited"}),
    "permission": frozenset({"content_policy", "budget_exceeded"}),
    "rate_limited": frozenset({"budget_exceeded"}),
}

_HTML = re.compile(r"<!doctype html|<html[\s>]", re.IGNORECASE)
_TITLE = re.compile(r"<title[^<>]{0,200}>([^<]{1,200})", re.IGNORECASE)

_CODE_MEMBERS = ("code", "type", "status", "reason", "error_type", "error_code", "__type", "errorCode")
_TEXT_MEMBERS = ("message", "Message", "error", "detail", "error_description", "error_msg", "msg", "status_msg", "title")
_INNER_MEMBERS = (
    "error",
    "errors",
    "innererror",
    "inner_error",
    "details",
    "detail",
    "metadata",
    "base_resp",
    "message",
    "response",
)
_MAX_DEPTH = 8
_MAX_MEMBERS = 16  # of a list or of codes


# ---- the errors --------------------------------------------------------------------------------------------------------------


def from_response(status: int, headers: Mapping[str, str], body: bytes) -> BridgeError:
    """The error that an HTTP response means. ``body`` is its first 64 KiB."""
    body = body[:MAX_BODY_BYTES]
    try:
        value = parse(body)
    except ValueError:  # HTML, plain text, or cut off
        value = body.decode("utf-8", "replace").strip()
    return _error(value, status, headers, empty=not body.strip())


def from_value(value: Any, headers: Mapping[str, str] | None = None) -> BridgeError:
    """The error that a JSON value in a stream, or in a body with status 200, reports."""
    return _error(value, None, headers or {}, empty=False)


def error_in(value: Any) -> Any:
    """The part of a JSON value that reports an error; None for a value that doesn't."""
    if isinstance(value, list):
        return next((value for member in islice(objects_of(value), _MAX_MEMBERS) if error_in(member) is not None), None)
    if not isinstance(value, dict):
        return None
    if value.get("error") or value.get("errors"):
        return value
    if value.get("type") == "error" or value.get("object") == "error" or value.get("status") == "error":
        return value
    reply = value.get("base_resp")  # MiniMax; 0 is success
    if isinstance(reply, dict) and reply.get("status_code"):
        return value
    if value.get("choices") or value.get("candidates") or value.get("output") or value.get("content"):
        return None
    has_text = any(isinstance(value.get(name), str) for name in ("message", "Message", "detail", "error_msg", "msg"))
    return value if has_text or isinstance(value.get("detail"), list) else None


def unreadable(data: bytes | bytearray | str, what: str = "a response that can't be read") -> BridgeError:
    """``bad_upstream_response`` for bytes that the decoder can't use."""
    return BridgeError("bad_upstream_response", f"the provider sent {what}: {quote(data)}")


def interrupted(data: bytes | bytearray | str = b"") -> BridgeError:
    """``stream_interrupted`` for a stream that ended before the provider reported that it had finished."""
    wrong = "the provider's stream ended without a finish reason; the response may be cut short"
    return BridgeError("stream_interrupted", f"{wrong}. It ended with: {quote(data)}" if data else wrong)


def quote(data: bytes | bytearray | str) -> str:
    """Up to 500 characters on one line; of an HTML page its title."""
    text = data[:MAX_TEXT] if isinstance(data, str) else data[:MAX_TEXT].decode("utf-8", "replace")
    if page := _HTML.search(text):
        title = _TITLE.search(text, page.start())
        return f'an HTML page "{" ".join(title[1].split())}"' if title else "an HTML page"
    text = " ".join(text.split()) or "nothing"
    return text if len(text) <= MAX_QUOTE else text[: MAX_QUOTE - 1] + "…"


# ---- the classification ------------------------------------------------------------------------------------------------------


def kind_of(status: int | None, codes: list[str], text: str, *, empty: bool = False) -> str:
    """The kind of an error: by ``codes`` first, then the words of a full context, then the status, then other words.

    ``status`` is the HTTP status, None in a stream or a 200; ``codes`` are the provider's, in any spelling. A number among them
    that is an HTTP status counts as one where there is none.
    """
    plain = [_plain(code) for code in codes]
    claimed = next((int(code) for code in plain if code.isdecimal() and len(code) == 3 and "400" <= code <= "599"), None)
    by_code = next((BY_CODE[code] for code in plain if code in BY_CODE), None)
    if by_code in ("context_length_exceeded", "content_policy"):
        return by_code
    words = text[:MAX_TEXT].lower()
    is_limit = status == 429 or claimed == 429 or by_code == "rate_limited"
    if not is_limit and _CONTEXT.search(words) and not _NOT_CONTEXT.search(words):
        return "context_length_exceeded"
    if by_code:
        return by_code
    by_status = _by_status(status if status is not None and status >= 400 else claimed)
    if by_status is None:
        by_status = next((BY_VAGUE_CODE[code] for code in plain if code in BY_VAGUE_CODE), None)
    by_words = next((kind for pattern, kind in _WORDS if pattern.search(words)), None)
    if by_words and (by_status is None or by_words in _CORRECTABLE.get(by_status, ())):
        return by_words
    if status == 413 and empty:  # Cerebras: a full context, without a word
        return "context_length_exceeded"
    if by_status:
        return by_status
    return "bad_upstream_response" if status is not None else "provider_unavailable"


def _by_status(status: int | None) -> str | None:
    if status is None:
        return None
    return BY_STATUS.get(status, "rejected_by_provider" if status < 500 else "provider_unavailable")


def _plain(code: str) -> str:
    """A code without what spellings differ by; AWS puts a namespace before "#" and an address behind ":"."""
    code = code.rpartition("#")[2].partition(":")[0] if "#" in code or ":" in code else code
    return re.sub(r"[^a-z0-9]+", "", code.lower())


def _error(value: Any, status: int | None, headers: Mapping[str, str], *, empty: bool) -> BridgeError:
    codes = list(islice(_codes(value, _MAX_DEPTH), _MAX_MEMBERS))
    codes += [headers[name] for name in ("x-amzn-errortype", "x-amzn-ErrorType") if name in headers]
    texts = list(dict.fromkeys(islice(_texts(value, _MAX_DEPTH), _MAX_MEMBERS)))
    text = _joined(texts)
    kind = kind_of(status, codes, text, empty=empty)
    wait = None
    if KINDS[kind].retryable:
        told = f"{text} {_retry_delay(value)}" if kind == "rate_limited" else None
        wait = retry_after.wait_ms({**headers, **_headers_in(value)}, told, seconds=None)
    extra: dict[str, object] = {"deadline": "provider"} if kind == "timeout" else {}
    return BridgeError(kind, _message(text, codes, status), wait, status=status, extra=extra)


def _joined(texts: list[str]) -> str:
    """One text of sentences."""
    ended = [text if text.endswith((".", "!", "?", ":")) else f"{text}." for text in texts[:-1]]
    return " ".join([*ended, *texts[-1:]])[:MAX_TEXT]


def _message(text: str, codes: list[str], status: int | None) -> str:
    if text:
        return quote(text) if _HTML.search(text) else " ".join(text.split())
    if codes:
        return f"the provider reported the error {' '.join(codes)[:MAX_QUOTE]} without a message"
    return f"the provider responded with HTTP status {status} and no message" if status else "the provider reported an error"


# ---- the shapes --------------------------------------------------------------------------------------------------------------


def _codes(value: Any, depth: int) -> Iterator[str]:
    """Codes from the outside in, of each level before what is within it."""
    if depth and isinstance(value, list):
        for member in value[:_MAX_MEMBERS]:
            yield from _codes(member, depth - 1)
    if not depth or not isinstance(value, dict):
        return
    for name in _CODE_MEMBERS:
        code = value.get(name)
        if isinstance(code, str) and code:
            yield code[:200]
        elif isinstance(code, int) and not isinstance(code, bool) and 0 <= code < 2**31:
            yield str(code)
    for name in _INNER_MEMBERS:
        inner = value.get(name)
        if isinstance(inner, dict | list):
            yield from _codes(inner, depth - 1)
    if isinstance(raw := value.get("raw"), str):  # OpenRouter: the body of the provider behind it
        yield from _codes(_inner_json(raw), depth - 1)


def _texts(value: Any, depth: int) -> Iterator[str]:
    """The provider's sentences: its message first, then what is within it, and the text of the model that an error is about."""
    if isinstance(value, str):
        inner = _inner_json(value)
        if inner is None:
            yield from [value.strip()] if value.strip() else []
        else:
            yield from _texts(inner, depth - 1)
    elif depth and isinstance(value, list):
        for member in value[:_MAX_MEMBERS]:
            yield from _texts(member, depth - 1)
    elif depth and isinstance(value, dict):
        yield from _texts_of_object(value, depth)


def _texts_of_object(value: dict[str, Any], depth: int) -> Iterator[str]:
    text = next((value[name] for name in _TEXT_MEMBERS if isinstance(value.get(name), str) and value[name].strip()), None)
    inner = [value[name] for name in _INNER_MEMBERS if isinstance(value.get(name), dict | list)]
    if text is not None and "error" in value and text == value["error"] and isinstance(value.get("message"), str):
        text = value["message"]
    if text is not None:
        yield from _texts(text, depth)
    for member in inner:
        yield from _texts(member, depth - 1)
    if isinstance(raw := value.get("raw"), str):
        yield from _texts(raw[:MAX_TEXT], depth - 1)
    if isinstance(failed := value.get("failed_generation"), str) and failed.strip():  # Groq
        yield f"the model wrote: {failed.strip()[:MAX_QUOTE]}"


def _inner_json(text: str) -> Any:
    """The JSON that some providers put into a string."""
    text = text.strip()[:MAX_BODY_BYTES]
    if not text.startswith(("{", "[")):
        return None
    try:
        return parse(text.encode("utf-8", "replace"))
    except ValueError:
        return None


def _retry_delay(value: Any) -> str:
    """Google's RetryInfo, as the words that `retry_after` reads."""
    value = next(objects_of(value), None) if isinstance(value, list) else value
    error = value.get("error") if isinstance(value, dict) else None
    details = error.get("details") if isinstance(error, dict) else None
    delays = [detail.get("retryDelay") for detail in objects_of(details)]
    return next((f"retry in {delay[:40]}" for delay in delays if isinstance(delay, str)), "")


def _headers_in(value: Any) -> dict[str, str]:
    """Headers of the provider behind OpenRouter."""
    for name in ("error", "metadata", "headers"):
        value = value.get(name) if isinstance(value, dict) else None
    return {name: text[:200] for name, text in value.items() if isinstance(text, str)} if isinstance(value, dict) else {}
