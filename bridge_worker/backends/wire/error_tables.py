"""Error kinds of the providers' statuses, codes and wordings; shared by all decoders.

Owns the tables and their order: a code or type that names the error decides, then the words of a full context, then the HTTP
status, then other words. Refuses to know the shapes in which errors arrive: `provider_errors` has those.
"""

from __future__ import annotations

import re

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
    "nodbconnection": "authentication",  # LiteLLM's proxy without a database: any key but its master key
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
# General codes and types: they count only if the HTTP status is not more specific.
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

# Other wordings, for errors without a specific code. The first match counts.
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
    r"invalid model name passed in model=|no healthy deployments for this model": "model_not_found",  # LiteLLM's proxy
    r"overloaded|at capacity|no healthy upstream|upstream connect error|temporarily unavailable": "provider_unavailable",
}
_WORDS = [(re.compile(pattern), kind) for pattern, kind in WORDINGS.items()]
# Kinds of a status that a wording may correct. 401, 402, 404 and 5xx are specific enough; so is a 429, except for a used-up
# balance.
_CORRECTABLE = {
    "rejected_by_provider": frozenset({"content_policy", "budget_exceeded", "authentication", "model_not_found", "rate_limited"}),
    "permission": frozenset({"content_policy", "budget_exceeded"}),
    "rate_limited": frozenset({"budget_exceeded"}),
}


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
    if status == 413 and empty:  # Cerebras: a full context, with an empty body
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
