"""Prompt caching that an agent's turns hit: where the breakpoints belong, which bytes must be stable, and why a turn missed.

Owns the limits of providers on breakpoints and length, and the memory of each conversation's last turn. Refuses to know how a mark
is sent (`backends.litellm.cache_marks`).
"""

from __future__ import annotations

import hashlib
import json
import marshal
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MAX_BREAKPOINTS = 4  # Anthropic's and Bedrock's
MAX_TOOL_SETS = 64  # of a process; each may have 100 kB
MAX_CONVERSATIONS = 1_000  # the oldest is forgotten first
TTL_SECONDS = 300.0  # Anthropic's and Bedrock's default; OpenAI and Gemini keep a prefix for 5 to 10 minutes
_CHARACTERS_PER_TOKEN = 3  # as few as code has: a prefix is marked rather than not, because short ones are ignored
_DEFAULT_MINIMUM = 1_024
_MINIMUMS = (  # tokens of a prefix, by the model's name, as the providers' pages have them
    (re.compile(r"haiku-4-5|opus-4-[5-9]"), 4_096),
    (re.compile(r"haiku-3|3-haiku|3-5-haiku"), 2_048),
    (re.compile(r"gemini.*pro"), 4_096),
)

Message = dict[str, Any]
_SYSTEM = ("system", "developer")
_MARK = {"type": "ephemeral"}
_KEY_CHARACTERS = 4_096  # of the first message


def minimum_tokens(model: str) -> int:
    """The shortest prefix that is cached."""
    return next((tokens for pattern, tokens in _MINIMUMS if pattern.search(model)), _DEFAULT_MINIMUM)


# --- breakpoints ----------------------------------------------------------------------------------------------------------------


def mark(
    messages: list[Message], tools: list[Message] | None, model: str, tools_length: int
) -> tuple[list[Message], list[Message] | None]:
    """Both with breakpoints where an agent's turns repeat: the tools, the system, the end of the turn before, and the end.

    The caller's own breakpoints stay, and count. ``tools_length``: characters of the tools as JSON.
    """
    free = MAX_BREAKPOINTS - sum(map(_is_marked, tools or ()))
    least = minimum_tokens(model) * _CHARACTERS_PER_TOKEN
    lengths, total = [], tools_length
    for message in messages:
        content = message.get("content")
        if type(content) is str:
            total += len(content)
        elif content:
            total += sum(len(part.get("text") or "") for part in content)
            free -= sum("cache_control" in part for part in content)
        if len(message) > 2:  # than role and content
            for call in message.get("tool_calls") or ():
                total += len(call["function"]["arguments"])
            free -= "cache_control" in message
        lengths.append(total)
    places = [at for at in _places(messages) if lengths[at] >= least and _can_be_marked(messages[at])][: max(free, 0)]
    if places:
        messages = list(messages)
        for at in places:
            messages[at] = _marked(messages[at])
    if tools and len(places) < free and tools_length >= least and not _is_marked(tools[-1]):
        tools = [*tools[:-1], {**tools[-1], "cache_control": _MARK}]
    return messages, tools


def _is_marked(tool: Message) -> bool:
    return "cache_control" in tool or "cache_control" in tool["function"]


def _places(messages: Sequence[Message]) -> list[int]:
    """The most useful first: the end, the end of the request before, the last system message."""
    end, before = _last_input(messages, len(messages)), None
    if end is not None:
        output = next((at for at in range(end - 1, -1, -1) if messages[at]["role"] == "assistant"), None)
        before = None if output is None else _last_input(messages, output)
    systems = (at for at in range(len(messages) - 1, -1, -1) if messages[at]["role"] in _SYSTEM)
    system = 0 if messages[0]["role"] == "system" else next(systems, None)
    return [at for at in (end, before, system) if at is not None]


def _can_be_marked(message: Message) -> bool:
    """Anthropic and Bedrock refuse a breakpoint on a blank text."""
    content = message.get("content")
    if "cache_control" in message or not content:
        return False
    if isinstance(content, str):
        return not content.isspace()
    at = _last_markable(content)
    return at is not None and "cache_control" not in content[at]


def _last_markable(parts: Sequence[Message]) -> int | None:
    """A breakpoint on another kind of part does not arrive."""
    return next((at for at in range(len(parts) - 1, -1, -1) if _is_filled(parts[at])), None)


def _is_filled(part: Message) -> bool:
    return part.get("type") == "image_url" or (part.get("type") == "text" and bool(part["text"].strip()))


def _marked(message: Message) -> Message:
    """LiteLLM reads the breakpoint of a message where the content is a text or a tool's result, else those of its parts."""
    content = message["content"]
    if isinstance(content, str) or message["role"] == "tool":
        return {**message, "cache_control": _MARK}
    at = _last_markable(content)
    assert at is not None  # noqa: S101  # for mypy: it can be marked
    return {**message, "content": [*content[:at], {**content[at], "cache_control": _MARK}, *content[at + 1 :]]}


def _last_input(messages: Sequence[Message], before: int) -> int | None:
    """The last message before that which the model did not write."""
    return next((at for at in range(before - 1, -1, -1) if messages[at]["role"] in ("user", "tool")), None)


class StableTools:
    """The same tools in the same bytes: in the order of their names, and with the members in the order that was seen first."""

    def __init__(self) -> None:
        self._as_given: dict[bytes, tuple[list[Message], str]] = {}
        self._by_content: dict[str, tuple[list[Message], str]] = {}

    def of(self, tools: Sequence[Message]) -> tuple[list[Message], str]:
        """The tools to send, and their JSON. To order them takes 40 us, to recognise tools that were given before 5."""
        given = _bytes_of(tools)
        known = self._as_given.get(given)
        if known is None:
            ordered = sorted(tools, key=lambda tool: str(tool["function"]["name"]))
            content = json.dumps(ordered, sort_keys=True)
            _make_room(self._as_given)
            _make_room(self._by_content)
            known = self._by_content.setdefault(content, (ordered, json.dumps(ordered)))
            self._as_given[given] = known
        return known


def _bytes_of(value: Any) -> bytes:
    """Equal for equal JSON values with members in the same order; marshal takes a fifth of the time of JSON."""
    try:
        return marshal.dumps(value, 2)  # a later version has references, by identity
    except ValueError:  # a subclass of a JSON type, in a host's process
        return json.dumps(value).encode()


def _make_room(known: dict[Any, Any]) -> None:
    while len(known) >= MAX_TOOL_SETS:
        del known[next(iter(known))]


def conversation_key(messages: Sequence[Message], task: Mapping[str, Any] | None) -> str:
    """What all turns of a conversation have in common: the first message of the user, and the task."""
    first: Mapping[str, Any] = next((message for message in messages if message["role"] == "user"), {})
    content = first.get("content")
    text = content if isinstance(content, str) else json.dumps(content)
    name = f"{task['id'] if task else ''} {len(text)} {text[:_KEY_CHARACTERS]}"
    return f"omni-{hashlib.sha256(name.encode('utf-8', 'replace')).hexdigest()[:24]}"


# --- why a turn missed ----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Turn:
    """What a request's cached prefix depends on, as hashes."""

    tools: int
    system: int
    messages: list[int]
    target: tuple[object, ...] = ()
    at: float = 0.0


class CacheMemory:
    """The last turn of each conversation in this process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._turns: dict[str, Turn] = {}

    def turn_of(self, messages: Sequence[Message], tools: str) -> Turn:
        system: list[int] = []
        others: list[int] = []
        for message in messages:
            role, content = message["role"], message.get("content")
            plain = type(content) is str and (len(message) == 2 or "tool_calls" not in message)
            digest = hash((role, content)) if plain else _digest(message)
            (system if role in _SYSTEM else others).append(digest)
        return Turn(hash(tools), hash(tuple(system)), others)

    def finish(self, key: str, turn: Turn, target: tuple[object, ...], usage: Mapping[str, int | None] | None) -> str | None:
        """Remembers the turn. Returns why it read nothing from the cache; None where it did."""
        turn.target, turn.at = target, self._clock()
        before = self._turns.pop(key, None)
        while len(self._turns) >= MAX_CONVERSATIONS:
            del self._turns[next(iter(self._turns))]
        self._turns[key] = turn
        if usage is None or usage["input_tokens"] is None:
            return "the provider reports no usage"
        if usage["cached_input_tokens"]:
            return None
        if usage["input_tokens"] < minimum_tokens(str(target[-1])):
            return "too short"
        return "the first turn" if before is None else _difference(before, turn)


def _difference(before: Turn, turn: Turn) -> str:
    if before.target != turn.target:
        return "another model or deployment"
    if before.tools != turn.tools:
        return "the tools changed"
    if before.system != turn.system:
        return "the system message changed"
    if before.messages != turn.messages[: len(before.messages)]:
        return "an earlier message changed"
    if turn.at - before.at > TTL_SECONDS:
        return "expired"
    return "the provider did not find it"


def _digest(message: Mapping[str, Any]) -> int:
    """A hash of what a provider reads of it. `hash` of a text takes 0.1 us for 500 characters."""
    content = message.get("content")
    if type(content) is not str and content is not None:
        content = json.dumps(content)
    if message.get("tool_calls"):
        calls = [(call["id"], call["function"]["arguments"]) for call in message["tool_calls"]]
        return hash((message["role"], content, *calls))
    return hash((message["role"], content))
