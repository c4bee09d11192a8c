"""BridgeErrors out of what providers send: HTTP responses, error objects in events and bodies, and bytes that can't be read.

Owns the shapes in which providers report an error: an object, a string, a list, under a dozen names. The tables are in
`error_tables`. Refuses to know a stream: whether content was sent before the error is the caller's business. Texts are cut before
any regular expression sees them.

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
from bridge_worker.backends.wire.error_tables import MAX_TEXT, kind_of
from bridge_worker.backends.wire.json_values import MAX_QUOTE, objects_of, parse
from bridge_worker.errors import KINDS, BridgeError

MAX_BODY_BYTES = 65_536  # of an error's body that are looked at

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


def _error(value: Any, status: int | None, headers: Mapping[str, str], *, empty: bool) -> BridgeError:
    codes = list(islice(_codes(value, _MAX_DEPTH), _MAX_MEMBERS))
    codes += [headers[name] for name in ("x-amzn-errortype", "x-amzn-ErrorType") if name in headers]
    texts = list(dict.fromkeys(islice(_texts(value, _MAX_DEPTH), _MAX_MEMBERS)))
    text = _joined(texts)
    kind = kind_of(status, codes, text, empty=empty)
    wait = None
    if KINDS[kind].retryable:
        advice = f"{text} {_retry_delay(value)}" if kind == "rate_limited" else None
        wait = retry_after.wait_ms({**headers, **_headers_in(value)}, advice, seconds=None)
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
