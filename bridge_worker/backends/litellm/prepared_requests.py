"""Keeps what LiteLLM made of a model and its options, so that the next conversation with them needs no call of LiteLLM.

Owns templates, learned by example. A captured body that contains the messages exactly as they were passed becomes a head and a
tail around them. A body in which LiteLLM rewrote the messages is made by the provider class's own `transform_request`, where that
was seen to equal the capture. Both hold only for conversations of shapes that were seen to be treated so; any other conversation is
captured, and teaches its shapes. Refuses to send anything, and to know a provider.
"""

from __future__ import annotations

import json
import os
import pickle
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import httpx
from litellm.types.utils import LlmProviders
from litellm.utils import ProviderConfigManager

from bridge_worker.backends.litellm.capture import CapturedRequest
from bridge_worker.backends.litellm.transport import Destination
from bridge_worker.backends.litellm.upstream import Target, target_of
from bridge_worker.backends.wire.formats import Recipe
from bridge_worker.core.credentials import Credential
from bridge_worker.core.receipt import Change

MAX_PREPARED = 512  # templates that are kept; the oldest is forgotten first
MAX_LEARNED_BYTES = 1024 * 1024  # to learn from a body copies it several times, and a small one teaches the same
MAX_SHAPES = 4096  # of one template

Messages = Sequence[Mapping[str, Any]]
_SIGNED = "AWS4-HMAC"  # a signature covers the body, so each request needs its own
_CREDENTIALS = ("authorization", "api-key", "x-api-key", "x-goog-api-key")
_OF_THE_CLIENT = ("max_retries", "stream", "stream_options")  # parameters that LiteLLM's HTTP handlers consume
_CONVERSATION = ("messages", "system", "contents", "input", "prompt")
_MIN_SECRET = 8  # characters; LiteLLM fills in shorter words where a server needs no key
_SHORT_ID = 40  # OpenAI takes ids up to here; what is longer may be rewritten
_URL_HEAD = 24  # characters of a URL that show its scheme and its media type


Rewritten = tuple[Mapping[str, Any], list[Change]]
NOT_REWRITTEN: Rewritten = ({}, [])


class PreparedRequest:
    """The request of one model with one set of options, plain or streamed. ``model`` and ``provider`` are LiteLLM's names.

    `body` is exact for every conversation that it returns bytes for. ``settings`` is the body without the conversation; ``notes``
    has the facts for a chat's receipt, by the chat's options. ``rewritten`` are the arguments that LiteLLM got instead of the
    caller's, and what that lost.
    """

    __slots__ = (
        *("_head", "_shapes", "_tail", "_transform", "decoder", "destination", "headers", "model", "notes", "provider"),
        *("rewritten", "settings"),
        "url",
    )

    def __init__(self, captured: CapturedRequest, decoder: Recipe, rewritten: Rewritten = NOT_REWRITTEN) -> None:
        self.rewritten = rewritten
        self.url: httpx.URL = captured.url
        self.headers = {**captured.headers, "accept-encoding": "identity"}
        self.destination = Destination(captured.url, self.headers)
        self.model = captured.model
        self.provider = captured.provider
        self.decoder = decoder
        self.settings: dict[str, Any] = {}
        self.notes: dict[str, tuple[list[Any], list[Any]]] = {}
        self._head = self._tail = b""
        self._transform: _Transform | None = None
        self._shapes: set[Any] = set()

    def body(self, messages: Messages) -> bytes | None:
        """The body for ``messages``; None when LiteLLM must make it."""
        known = self._shapes
        for shape in shapes(messages):
            if shape not in known:
                return None
        if self._head:
            return b"".join((self._head, json.dumps(messages).encode(), self._tail))
        return self._transform.body(messages) if self._transform is not None else None

    def learn(self, captured: CapturedRequest, messages: Messages) -> None:
        """Adds the shapes of ``messages``, if the captured request is the one that this template would make."""
        if len(self._shapes) >= MAX_SHAPES or len(captured.body) > MAX_LEARNED_BYTES or not self._is_reusable(captured):
            return
        body = json.loads(captured.body)
        if not isinstance(body, dict):
            return
        self.settings = self.settings or {name: value for name, value in body.items() if name not in _CONVERSATION}
        if not self._head and self._transform is None:
            self._learn_form(captured, body, messages)
        if self._makes(body, messages):
            self._shapes.update(shapes(messages))

    def _is_reusable(self, captured: CapturedRequest) -> bool:
        """Whether a later request has the same URL and headers, and its credential does not expire: it is of the environment or the
        config."""
        same = captured.url == self.url and {**captured.headers, "accept-encoding": "identity"} == self.headers
        return same and not captured.headers.get("authorization", "").startswith(_SIGNED) and _has_fixed_credential(captured)

    def _learn_form(self, captured: CapturedRequest, body: dict[str, Any], messages: Messages) -> None:
        if body.get("messages") == messages:
            mark = json.dumps(uuid.uuid4().hex)
            parts = json.dumps({**body, "messages": json.loads(mark)}).split(mark)
            if len(parts) == 2:
                self._head, self._tail = (part.encode() for part in parts)
            return
        try:
            self._transform = _Transform(captured, body, messages)
        except Exception:  # a provider class without the function, or with other arguments: each chat is captured
            self._transform = None

    def _makes(self, body: dict[str, Any], messages: Messages) -> bool:
        if self._head:
            return bool(json.loads(b"".join((self._head, json.dumps(messages).encode(), self._tail))) == body)
        try:
            return self._transform is not None and bool(json.loads(self._transform.body(messages)) == body)
        except Exception:
            return False


class PreparedRequests:
    """The templates of a process, by `key`. A change of the environment forgets all: LiteLLM reads keys and URLs from it."""

    def __init__(self, *, remembers: bool = True) -> None:
        """``remembers``: False where each request is to be captured."""
        self._remembers = remembers
        self._targets: dict[tuple[str | None, ...], Target] = {}
        self._prepared: dict[Any, PreparedRequest] = {}
        self._environment: Mapping[Any, Any] = {}
        self._with_key: WeakKeyDictionary[Credential, PreparedRequests] = WeakKeyDictionary()

    def of(self, credential: Credential | None) -> PreparedRequests:
        """Those with this key of the client's, as long as the key is kept. None: this."""
        if credential is None:
            return self
        return self._with_key.setdefault(credential, PreparedRequests(remembers=self._remembers))

    def find(self, key: Any) -> PreparedRequest | None:
        environment = os.environ._data  # type: ignore[attr-defined]  # PRIVATE, CPython: a comparison takes a microsecond
        if environment != self._environment:
            self._environment = dict(environment)
            self._prepared.clear()
        return self._prepared.get(key)

    def target(self, *names: str | None) -> Target:
        """`target_of` these names, which takes LiteLLM 30 us to find."""
        found = self._targets.get(names)
        if found is None:
            if len(self._targets) >= MAX_PREPARED:
                self._targets.clear()
            found = self._targets[names] = target_of(*names)
        return found

    def store(self, key: Any, prepared: PreparedRequest) -> None:
        if not self._remembers:
            return
        while len(self._prepared) >= MAX_PREPARED:
            del self._prepared[next(iter(self._prepared))]
        self._prepared[key] = prepared

    def clear(self) -> None:
        self._prepared.clear()

    def __len__(self) -> int:
        return len(self._prepared)


class _Transform:
    """The provider class's own conversion of the messages, and the members that LiteLLM adds to the body after it."""

    def __init__(self, captured: CapturedRequest, body: dict[str, Any], messages: Messages) -> None:
        self._config: Any = ProviderConfigManager.get_provider_chat_config(captured.model, LlmProviders(captured.provider))
        self._model = captured.model
        params = {name: value for name, value in captured.optional_params.items() if name not in _OF_THE_CLIENT}
        self._params = pickle.dumps((params, _plain(captured.litellm_params), captured.headers))
        self._extra: dict[str, Any] = {}
        made = json.loads(self.body(messages))
        self._extra = {name: value for name, value in body.items() if name not in _CONVERSATION and made.get(name) != value}

    def body(self, messages: Messages) -> bytes:
        optional_params, litellm_params, headers = pickle.loads(self._params)  # noqa: S301  # our own bytes; LiteLLM writes into them
        copied = pickle.loads(pickle.dumps(list(messages)))  # noqa: S301
        made = self._config.transform_request(
            model=self._model,
            messages=copied,
            optional_params=optional_params,
            litellm_params=litellm_params,
            headers=headers,
        )
        return json.dumps({**made, **self._extra}).encode()


def shapes(messages: Messages) -> Iterator[Any]:
    """The traits of a conversation by which LiteLLM may treat it otherwise: roles in order, members, their kinds, blank texts."""
    before = ""
    for message in messages:
        role = message.get("role")
        content = message.get("content")
        kind: Any = ("blank" if not content or content.isspace() else "text") if type(content) is str else _kind(content)
        if len(message) == 2:
            yield (before, role, kind)
        else:
            others = tuple(sorted((name, _kind(value, name)) for name, value in message.items() if name not in ("role", "content")))
            yield (before, role, kind, others)
        before = str(role)
    yield (before, "end")


def _kind(value: Any, name: str = "") -> Any:
    if isinstance(value, str):
        return _text_kind(value, name)
    if isinstance(value, dict):
        return tuple(sorted((key, repr(_kind(member, key))) for key, member in value.items()))
    if isinstance(value, list):
        return ("list", *sorted({repr(_kind(member, name)) for member in value}))
    return repr(value) if isinstance(value, bool) or value is None else type(value).__name__


def _text_kind(text: str, name: str) -> Any:
    """Texts that select a treatment count by their value, URLs by scheme and media type, others by being blank or too long."""
    if name in ("type", "format", "detail", "ttl"):
        return ("value", text[:64])
    if name in ("url", "image_url", "file_data", "data", "file_id"):
        return ("url", text[:_URL_HEAD].partition(";" if text.startswith("data:") else "/")[0])
    if name in ("id", "tool_call_id"):
        return ("id", len(text) > _SHORT_ID)
    if name == "arguments":
        return ("arguments", text.strip() in ("", "{}", "null"))
    return "blank" if not text.strip() else "text"


def _has_fixed_credential(captured: CapturedRequest) -> bool:
    """A token that LiteLLM fetched expires; a key of the environment, or of the deployment, does not."""
    known = {value for value in os.environ.values() if len(value) >= _MIN_SECRET}
    known |= {text for text in _texts(captured.litellm_params) if len(text) >= _MIN_SECRET}
    for name in _CREDENTIALS:
        value = captured.headers.get(name, "").removeprefix("Bearer ").strip()
        if len(value) >= _MIN_SECRET and not any(secret in value for secret in known):
            return False
    return True


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for member in value.values():
            yield from _texts(member)


def _plain(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that can be copied; LiteLLM also puts clients and callbacks there."""
    return {name: value for name, value in params.items() if isinstance(value, str | int | float | bool | dict | list | None)}
