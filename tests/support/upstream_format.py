"""What the stand-in for a provider says: OpenAI's chat completions format, well or as badly as a test asks for.

Owns the replies and nothing of how they are sent. A reply is a list of steps: bytes to write, or a ``Gate``, a ``Pause`` or an
``End``, so that every fault is an edit of a good reply. The *model name* of a request selects it (``BEHAVIOURS``). Refuses to know
the server beside it, the bridge and LiteLLM: it imports the standard library only.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from enum import Enum
from http.client import responses as HTTP_PHRASES
from typing import Any

from tests.support.data import Json

# ---- steps: what a reply is made of ------------------------------------------------------------------------------------------


class Gate:
    """Holds a reply until the test calls ``set``; ``wait_reached`` proves that the reply has come this far and stands here."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reached = threading.Event()
        self._open = False
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    def set(self) -> None:
        with self._lock:
            self._open = True
            waiting, self._waiting = self._waiting, []
            for loop, event in waiting:
                loop.call_soon_threadsafe(event.set)

    def wait_reached(self, timeout: float = 5) -> None:
        if not self._reached.wait(timeout):
            raise TimeoutError(f"no reply came to the gate within {timeout} s")

    async def passed(self) -> None:
        mine = (asyncio.get_running_loop(), asyncio.Event())
        with self._lock:
            if self._open:
                mine[1].set()
            self._waiting.append(mine)
        self._reached.set()
        try:
            await mine[1].wait()
        finally:
            with self._lock:
                self._waiting = [other for other in self._waiting if other is not mine]


@dataclass(frozen=True)
class Pause:
    seconds: float


class End(Enum):
    """How a reply ends when it does not end well. Without one, the connection is kept for the next request."""

    CLOSE = "FIN, after what was written"
    RESET = "RST; a client that has not read yet may lose what was written"
    HANG = "nothing more, until the client closes"


Step = bytes | Gate | Pause | End
Steps = Iterable[Step]

# ---- what the server saw -----------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Request:
    """A received request and what became of its reply. Times are ``time.monotonic()``; header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    raw: bytes
    nth: int = 1  # among the requests for the same model, from 1
    received_at: float = field(default_factory=time.monotonic)
    closed_at: float | None = None
    sent: int = 0  # writes that the socket has taken
    replied: threading.Event = field(default_factory=threading.Event)  # the whole reply was written
    closed_by_client: threading.Event = field(default_factory=threading.Event)  # ... or the client closed before that
    stalled: threading.Event = field(default_factory=threading.Event)  # set while the client reads slower than the server writes

    def __post_init__(self) -> None:
        try:
            body = json.loads(self.raw)
        except ValueError:
            body = None
        self.body: Json = body if isinstance(body, dict) else {}

    @property
    def model(self) -> str:
        return str(self.body.get("model"))

    @property
    def id(self) -> str:
        """The reply's `id` and its x-request-id: no two requests have the same."""
        return f"chatcmpl-{self.model}-{self.nth}"

    def wait_closed(self, timeout: float = 5) -> float:
        """Returns when (monotonic) the client closed the connection while the server was still holding the reply open."""
        if not self.closed_by_client.wait(timeout):
            raise TimeoutError(f"the client left the request for {self.model!r} open (replied: {self.replied.is_set()})")
        assert self.closed_at is not None
        return self.closed_at


# ---- HTTP --------------------------------------------------------------------------------------------------------------------

LAST_CHUNK = b"0\r\n\r\n"


def head(status: int, headers: Mapping[str, str]) -> bytes:
    fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} {HTTP_PHRASES.get(status, '')}\r\n{fields}\r\n".encode("latin-1")


def json_bytes(value: Json) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def http(body: bytes | Json, status: int = 200, headers: Mapping[str, str] | None = None) -> list[Step]:
    """A whole reply: the head and two halves of the body, each written on its own."""
    data = body if isinstance(body, bytes) else json_bytes(body)
    usual = {"content-type": "application/json", "content-length": str(len(data))}
    return [head(status, usual | dict(headers or {})), data[: len(data) // 2], data[len(data) // 2 :]]


def stream(frames: Steps, headers: Mapping[str, str] | None = None, status: int = 200) -> Iterator[Step]:
    """A chunked reply of server-sent events: each frame is one HTTP chunk, steps of other kinds stay where they are."""
    kind = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache", "transfer-encoding": "chunked"}
    yield head(status, kind | dict(headers or {}))
    for frame in frames:
        yield (b"%x\r\n%b\r\n" % (len(frame), frame) if isinstance(frame, bytes) else frame)
    yield LAST_CHUNK


def torn(steps: Steps) -> Iterator[Step]:
    """Writes that end inside a UTF-8 character or a line. The pause makes it likely that the reader wakes up in between."""
    for step in steps:
        if isinstance(step, bytes) and (at := re.search(rb"(?<=[\xc2-\xf4])|(?<=dat)a: \[DONE", step)):
            yield from (step[: at.start()], Pause(0.001), step[at.start() :])
        else:
            yield step


# ---- OpenAI's format ---------------------------------------------------------------------------------------------------------

USAGE: Json = {
    "prompt_tokens": 9,
    "completion_tokens": 12,
    "total_tokens": 21,
    "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
}
THINKING_USAGE: Json = USAGE | {"completion_tokens_details": {"reasoning_tokens": 5, "audio_tokens": 0}}
THOUGHTS = "The user asks – so I think: “why not?”"


@dataclass(frozen=True)
class Completion:
    """What the model says, before it is put into either wire form. A call without an id has none on the wire."""

    text: str | None = None
    calls: tuple[Json, ...] = ()  # OpenAI's tool call with the `index` that a stream gives it
    reasoning: str | None = None
    finish_reason: str = "stop"

    @property
    def usage(self) -> Json:
        return THINKING_USAGE if self.reasoning else USAGE


def reply_text(heard: str) -> str:
    """The text that answers a user's (or a tool's) message: recognisable, several words, characters of 2, 3 and 4 bytes."""
    return f"Upstream heard: “{heard}” – žádný problém 🦜"


def words(text: str) -> list[str]:
    return re.findall(r"\S*\s+|\S+", text)


def completion_body(request: Request, completion: Completion) -> Json:
    message: Json = {"role": "assistant", "content": completion.text, "refusal": None, "annotations": []}
    if completion.reasoning:
        message["reasoning_content"] = completion.reasoning
    if completion.calls:
        message["tool_calls"] = [{k: v for k, v in call.items() if k != "index"} for call in completion.calls]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": completion.finish_reason}
    return envelope("chat.completion", request.model, request.id) | {"choices": [choice], "usage": completion.usage}


def envelope(kind: str, model: str, id: str) -> Json:
    made = {"id": id, "object": kind, "created": 1_767_225_600, "model": f"{model}-2026-01-01"}
    return made | {"service_tier": "default", "system_fingerprint": "fp_upstream"}


def chunk(delta: Json, finish_reason: str | None = None, model: str = "scripted", id: str = "chatcmpl-scripted") -> Json:
    """One payload of a stream; what a script's ``chunks`` are usually made of."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return envelope("chat.completion.chunk", model, id) | {"choices": [choice]}


def sse(payload: Json) -> bytes:
    return b"data: " + json_bytes(payload) + b"\n\n"


DONE = b"data: [DONE]\n\n"


def deltas(completion: Completion) -> Iterator[Json]:
    """The role, the thoughts, the text, then the calls' arguments in small pieces, taken in turn from each call."""
    yield {"role": "assistant", "content": "" if completion.text is not None else None, "refusal": None}
    yield from ({"reasoning_content": piece} for piece in words(completion.reasoning or ""))
    yield from ({"content": piece} for piece in words(completion.text or ""))
    for call in completion.calls:
        yield {"tool_calls": [call | {"function": call["function"] | {"arguments": ""}}]}
    pieces = [pieces_of(call) for call in completion.calls]
    yield from filter(None, itertools.chain.from_iterable(itertools.zip_longest(*pieces)))


def pieces_of(call: Json) -> list[Json]:
    pieces = re.findall(r"(?s).{1,6}", call["function"]["arguments"])
    return [{"tool_calls": [{"index": call["index"], "function": {"arguments": piece}}]} for piece in pieces]


def frames(request: Request, completion: Completion) -> list[bytes]:
    """The answer's server-sent events: [role, piece, ..., finish_reason, (usage), DONE]."""
    payloads = [chunk(delta, None, request.model, request.id) for delta in deltas(completion)]
    payloads.append(chunk({}, completion.finish_reason, request.model, request.id))
    if (request.body.get("stream_options") or {}).get("include_usage"):
        payloads = [payload | {"usage": None} for payload in payloads]
        payloads.append(payloads[-1] | {"choices": [], "usage": completion.usage})
    return [*map(sse, payloads), DONE]


def chat(request: Request, completion: Completion) -> Steps:
    if request.body.get("stream"):
        return stream(frames(request, completion), headers_of(request))
    return http(completion_body(request, completion), headers=headers_of(request))


def headers_of(request: Request) -> Mapping[str, str]:
    return {"x-request-id": request.id, "openai-processing-ms": "3", "x-ratelimit-remaining-requests": "99"}


# ---- good answers ------------------------------------------------------------------------------------------------------------


def text_of(message: Json) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def ordinary(request: Request) -> Completion:
    """Calls the first tool, if there are tools and no result has come since the user's message; else repeats the last text."""
    heard = [message for message in request.body["messages"] if message.get("role") in ("user", "tool")]
    last = heard[-1] if heard else {}
    if request.body.get("tools") and request.body.get("tool_choice") != "none" and last.get("role") != "tool":
        return calling(call_of(request, 0))
    return Completion(reply_text(text_of(last)))


def calling(*calls: Json, text: str | None = None) -> Completion:
    return Completion(text, calls, finish_reason="tool_calls")


def call_of(request: Request, index: int, **function: str) -> Json:
    """A call of the request's tool number ``index`` (of the last one, if there are fewer) that satisfies its schema."""
    tool = request.body["tools"][: index + 1][-1]["function"]
    arguments = json.dumps(example_of(tool.get("parameters") or {"type": "object"}), ensure_ascii=False)
    made = {"name": tool["name"], "arguments": arguments} | function
    return {"index": index, "id": f"call_up{index}", "type": "function", "function": made}


def example_of(schema: Json) -> Any:
    if "enum" in schema:
        return schema["enum"][0]
    if schema.get("type") == "object":
        return {name: example_of(inner) for name, inner in schema.get("properties", {}).items()}
    return {"integer": 7, "number": 1.5, "boolean": True, "array": [], "null": None}.get(str(schema.get("type")), "Zürich ☃")


Calls = Callable[[Request], Completion]

CALLS: Mapping[str, Calls] = {  # what a model says in place of the ordinary call; afterwards it answers as usual
    "tools-parallel": lambda r: calling(call_of(r, 0), call_of(r, 1)),
    "tools-bad-json": lambda r: calling(call_of(r, 0, arguments='{"city": "Zür')),
    "tools-empty-args": lambda r: calling(call_of(r, 0, arguments="")),
    "tools-index-jump": lambda r: calling(call_of(r, 0), call_of(r, 1) | {"index": 5}),
    "tools-no-id": lambda r: calling({k: v for k, v in call_of(r, 0).items() if k != "id"}),
    "tools-with-text": lambda r: calling(call_of(r, 0), text="Let me look that up…"),
}

COMPLETIONS: Mapping[str, Callable[..., Completion]] = {  # other good answers; `n` is the number at the end of the name
    "reasoning": lambda r: replace(ordinary(r), reasoning=THOUGHTS),
    "finish-length": lambda r: replace(ordinary(r), finish_reason="length"),
    "finish-content-filter": lambda r: Completion("", finish_reason="content_filter"),
    "huge": lambda r, n=50: Completion("x" * (n << 20)),  # n MiB in one piece
    "repeat": lambda r, n=120: Completion("––––– " * n),  # like a ruled line; LiteLLM counts pieces of more than 2 characters
    "chunks": lambda r, n=5000: Completion("".join(f"{i} " for i in range(n))),
}

# ---- faults ------------------------------------------------------------------------------------------------------------------

ERRORS: Mapping[int, tuple[str, str | None, str]] = {  # OpenAI's error object: type, code, message
    400: ("invalid_request_error", None, "Invalid value for 'temperature'."),
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided: {key}. You can find your API key at the site."),
    402: ("insufficient_quota", "insufficient_credits", "This request requires more credits."),
    403: ("invalid_request_error", "permission_denied", "The project of this key has no access to the model."),
    404: ("invalid_request_error", "model_not_found", "The model `{model}` does not exist or you do not have access to it."),
    408: ("timeout", None, "The request timed out."),
    413: ("invalid_request_error", "request_too_large", "The request is too large."),
    422: ("invalid_request_error", None, "Unprocessable: messages.0.content is not valid."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached for {model}. Please try again later."),
    529: ("overloaded_error", None, "Overloaded"),
}
TOO_LONG = ("context_length_exceeded", "This model's maximum context length is 8192 tokens. Your messages resulted in 9000.")
POLICY = ("content_policy_violation", "Your request was rejected as a result of our safety system.")
OUT_OF_CREDIT = ("insufficient_quota", "You exceeded your current quota, please check your plan and billing details.")


def error_body(status: int, code: str | None = None, message: str | None = None) -> Json:
    kind, usual_code, usual = ERRORS.get(status, ("server_error", None, "The server had an error while processing your request."))
    return {"error": {"message": message or usual, "type": kind, "param": None, "code": code or usual_code}}


def error(request: Request, status: int, code: str | None = None, message: str | None = None, **headers: str) -> Steps:
    body = error_body(status, code, message)
    key = request.headers.get("authorization", "").removeprefix("Bearer ")
    body["error"]["message"] = body["error"]["message"].replace("{key}", key).replace("{model}", request.model)
    return http(body, status, {"x-request-id": request.id} | {name.replace("_", "-"): value for name, value in headers.items()})


def html(status: int) -> Steps:
    page = f"<html><head><title>{status}</title></head><body><h1>nginx says {status}</h1></body></html>"
    return http(page.encode(), status, {"content-type": "text/html; charset=utf-8"})


def too_short(request: Request, missing: int) -> Steps:
    body = json_bytes(completion_body(request, ordinary(request)))
    return [*http(body, headers={"content-length": str(len(body) + missing)}), End.CLOSE]


def slowly(request: Request, milliseconds: int) -> Steps:
    return itertools.chain.from_iterable((Pause(milliseconds / 1000), step) for step in chat(request, ordinary(request)))


def endless(request: Request) -> Steps:
    return stream(sse(chunk({"content": f"{i} "}, None, request.model, request.id)) for i in itertools.count())


def empty_choices(request: Request) -> Steps:
    plain = completion_body(request, Completion()) | {"choices": []}
    return stream([sse(plain | {"object": "chat.completion.chunk"}), DONE]) if request.body.get("stream") else http(plain)


# Faults inside a stream: `f` is the good stream's frames, `f[: 1 + n]` its role and n pieces of text. An End stands after a short
# pause, as clients throw away what they have buffered when the connection breaks; a script with a Gate leaves nothing to time.
# To a plain request the ending happens in the middle of the body; where there is no ending, the response is whole.
LET_IT_READ = Pause(0.05)
STREAM_FAULTS: Mapping[str, Callable[[list[bytes], int], Steps]] = {
    "reset-after": lambda f, n: [*f[: 1 + n], LET_IT_READ, End.RESET],
    "cut": lambda f, n: [*f[: 1 + n], LET_IT_READ, End.CLOSE],  # FIN inside the chunked body
    "hang-after": lambda f, n: [*f[: 1 + n], End.HANG],
    "truncated": lambda f, n: f[: 1 + n],  # ends well as HTTP, but without finish_reason and [DONE]
    "no-done": lambda f, n: f[:-1],
    "bad-chunk": lambda f, n: [*f[: 1 + n], b'data: {"id": "chatcmpl-up", "choices": [{"ind\n\n', *f[1 + n :]],
    "stream-error": lambda f, n: [*f[: 1 + n], sse(error_body(500))] if n else [sse(error_body(500))],
    "comments": lambda f, n: [part for frame in f for part in (b": PROCESSING\n\n", frame)],
    "crlf": lambda f, n: [frame.replace(b"\n", b"\r\n") for frame in f],
}

FAULTS: Mapping[str, Callable[..., Steps]] = {
    "status": lambda r, n=500: error(r, n),
    "context-length": lambda r: error(r, 400, *TOO_LONG),
    "content-policy": lambda r: error(r, 400, *POLICY),
    "quota": lambda r: error(r, 429, *OUT_OF_CREDIT),
    "retry-after": lambda r, n=2: error(r, 429, retry_after=str(n)),
    "retry-after-ms": lambda r, n=1500: error(r, 429, retry_after_ms=str(n)),
    "retry-after-date": lambda r, n=30: error(r, 429, retry_after=formatdate(time.time() + n, usegmt=True)),
    "flaky": lambda r, n=1: error(r, 503) if r.nth <= n else chat(r, ordinary(r)),  # fails n times, then works
    "html": lambda r, n=502: html(n),
    "garbage": lambda r: http(b'{"id": "chatcmpl-up", "choi'),
    "empty-choices": empty_choices,
    "empty-body": lambda r: http(b""),
    "reset": lambda r: [End.RESET],
    "close": lambda r: [End.CLOSE],
    "hang": lambda r: [End.HANG],
    "hang-after-headers": lambda r: [*itertools.islice(chat(r, ordinary(r)), 1), End.HANG],
    "slow": lambda r, n=50: slowly(r, n),  # so many ms before the headers and before each piece
    "too-short": lambda r, n=100: too_short(r, n),  # the body is n bytes shorter than its content-length
    "endless": endless,
}


def faulty_stream(request: Request, edit: Callable[[list[bytes], int], Steps], n: int = 1) -> Steps:
    edited = list(edit(frames(request, ordinary(request)), n))
    if request.body.get("stream"):
        return stream(edited, headers_of(request))
    whole = http(completion_body(request, ordinary(request)))
    return [*whole[:2], edited[-1]] if isinstance(edited[-1], End) else whole


def in_place_of_the_call(request: Request, calls: Calls) -> Steps:
    usual = ordinary(request)
    return chat(request, calls(request) if usual.calls else usual)


BEHAVIOURS: Mapping[str, Callable[..., Steps]] = {  # (request, the number at the end of the name, if it has one) -> the reply
    **{name: lambda r, *n, of=of: chat(r, of(r, *n)) for name, of in COMPLETIONS.items()},
    **{name: lambda r, calls=calls: in_place_of_the_call(r, calls) for name, calls in CALLS.items()},
    **{name: lambda r, *n, edit=edit: faulty_stream(r, edit, *n) for name, edit in STREAM_FAULTS.items()},
    **FAULTS,
}


def reply_to(request: Request) -> Steps:
    """The table's reply, `slow-50ms` being `slow` with 50; the ordinary answer, torn in awkward places, to any other name."""
    if fault := refusal_of(request):
        return fault
    if request.model in BEHAVIOURS:
        return BEHAVIOURS[request.model](request)
    name, _, number = request.model.removesuffix("ms").rpartition("-")
    if name in BEHAVIOURS and number.isdigit():
        return BEHAVIOURS[name](request, int(number))
    return torn(chat(request, ordinary(request)))


def refusal_of(request: Request) -> Steps | None:
    """What OpenAI itself would refuse, so that a test of the worker can't pass with a request that is worth nothing."""
    messages = request.body.get("messages")
    if (request.method, request.path) != ("POST", "/v1/chat/completions"):
        return error(request, 404, "unknown_url", f"Unknown request URL: {request.method} {request.path}.")
    if not request.headers.get("authorization", "").startswith("Bearer "):
        return error(request, 401, message="You didn't provide an API key.")
    if "model" not in request.body or not isinstance(messages, list) or not messages:
        return error(request, 400, message="Not JSON, or without `model` or `messages`.")
    called = {call.get("id") for message in messages for call in message.get("tool_calls") or ()}
    if any(message.get("role") == "tool" and message.get("tool_call_id") not in called for message in messages):
        return error(request, 400, message="A message with role 'tool' must answer a preceding message with 'tool_calls'.")
    return None


SMALL = "text-embedding-3-small"


def embeddings(*vectors: Any, tokens: int | None = 8, model: str = SMALL) -> Json:
    """As OpenAI sends them, the last one first: only `index` says what belongs to which input."""
    rows = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    usage = {} if tokens is None else {"usage": {"prompt_tokens": tokens, "total_tokens": tokens}}
    return {"object": "list", "data": rows[::-1], "model": model, **usage}
