"""Drops and shortens messages of a history until it fits a number of input tokens.

Owns the order: a strategy drops turns or shortens tool results first, the oldest first. A tool call and its results stay together,
and system messages and the last turn of the user are never dropped. Refuses to know a tokenizer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bridge_worker.core.ports import ModelServices
from bridge_worker.errors import BridgeError
from bridge_worker.schema.tokens import TokenCount

DEFAULT_STRATEGY = "oldest_tool_results"
KEPT_CHARACTERS = 200  # of a tool result that is shortened
_OTHER_TOKENIZER = 1.25  # a count that is not exact is up to a quarter off, so that much of the model's own limit stays free
_MAX_COUNTS = 16  # of the whole history

Message = dict[str, Any]
Count = Callable[[Sequence[Message]], TokenCount]


@dataclass(slots=True)
class Fitted:
    """``changes`` has a row for each message that was dropped or shortened, by its index before."""

    messages: list[Message]
    changes: list[dict[str, Any]]
    count: TokenCount
    limit: int

    def facts(self) -> dict[str, Any]:
        return {
            "dropped": self.changes,
            "input_tokens": self.count.input_tokens,
            "max_input_tokens": self.limit,
            "tokenizer": self.count.tokenizer,
            "exact": self.count.exact,
        }


def fit_to_model(
    services: ModelServices,
    model: str,
    messages: list[Message],
    tools: Sequence[Message] | None,
    strategy: str,
    limit: int | None,
    output_tokens: int = 0,
) -> Fitted:
    """Where ``limit`` is None it is the model's own, less ``output_tokens``. Blocks. Raises BridgeError."""

    def count(some: Sequence[Message]) -> TokenCount:
        return services.count(model, some, tools)

    whole = count(messages)
    if limit is None:
        context = services.describe(model).limits.context_tokens
        if context is None:
            raise BridgeError("invalid_request", f"the input limit of {model:.100} is not known; set max_input_tokens", model=model)
        limit = int(max(context - output_tokens, 0) / (1 if whole.exact else _OTHER_TOKENIZER))
    if whole.input_tokens <= limit:
        return Fitted(messages, [], whole, limit)
    return _History(messages, count, lambda some: services.count(model, some, None)).reduce(whole, limit, strategy, model)


class _History:
    def __init__(self, messages: list[Message], count: Count, count_without_tools: Count) -> None:
        self._given = messages
        self._count = count
        empty: Message = {"role": "user", "content": ""}
        self._count_without_tools = count_without_tools
        # What a count has besides its messages, such as the start of the response.
        self._frame = 2 * count_without_tools([empty]).input_tokens - count_without_tools([empty, empty]).input_tokens
        self._messages: list[Message | None] = list(messages)
        self._changes: dict[int, dict[str, Any]] = {}
        turns = list(_turns(messages))
        self._old_turns, last = turns[:-1], turns[-1] if turns else []
        latest = next((at for at in reversed(range(len(messages))) if messages[at]["role"] == "assistant"), 0)
        self._old_results = [
            at for turn in (*self._old_turns, last) for at in turn if messages[at]["role"] == "tool" and at < latest
        ]

    def reduce(self, whole: TokenCount, limit: int, strategy: str, model: str) -> Fitted:
        steps = self._steps(strategy)
        excess = whole.input_tokens - limit
        for round_of_counts in range(_MAX_COUNTS):
            aim = excess * 2**round_of_counts  # where the sum of messages is not the count of the whole, it is soon enough
            while aim > 0 and (saved := next(steps, None)) is not None:
                aim -= saved
            kept = [message for message in self._messages if message is not None]
            whole = self._count(kept)
            excess = whole.input_tokens - limit
            if excess <= 0:
                return Fitted(kept, [self._changes[at] for at in sorted(self._changes)], whole, limit)
        least = f"the messages that are never dropped have {whole.input_tokens} tokens, and the limit is {limit}"
        raise BridgeError("context_length_exceeded", f"the history can't be made to fit: {least}", model=model)

    def _steps(self, strategy: str) -> Iterator[int]:
        """Each step drops a turn or shortens a result, and yields the tokens that it saves."""
        passes = [self._shorten_results(), self._drop_turns()]
        for one in passes if strategy == "oldest_tool_results" else reversed(passes):
            yield from one

    def _drop_turns(self) -> Iterator[int]:
        for turn in self._old_turns:
            saved = 0
            for at in turn:
                message = self._messages[at]
                assert message is not None  # noqa: S101  # for mypy: a turn is dropped once
                tokens = self._weight(message)
                self._messages[at] = None
                self._note(at, "dropped", tokens)
                saved += tokens
            yield saved

    def _shorten_results(self) -> Iterator[int]:
        for at in self._old_results:
            message = self._messages[at]
            if message is None:
                continue
            shorter = _shortened(message)
            if shorter is None:
                continue
            saved = self._weight(message) - self._weight(shorter)
            if saved > 0:
                self._messages[at] = shorter
                self._note(at, "shortened", saved)
                yield saved

    def _weight(self, message: Message) -> int:
        return max(self._count_without_tools([message]).input_tokens - self._frame, 0)

    def _note(self, at: int, change: str, tokens: int) -> None:
        known = self._changes.get(at, {}).get("tokens", 0)
        self._changes[at] = {"index": at, "role": self._given[at]["role"], "change": change, "tokens": known + tokens}


def _turns(messages: Sequence[Message]) -> Iterator[list[int]]:
    """The indexes of each turn: messages of the user and what follows them. System messages belong to none."""
    turn: list[int] = []
    was_user = False
    for at, message in enumerate(messages):
        if message["role"] in ("system", "developer"):
            continue
        is_user = message["role"] == "user"
        if is_user and not was_user and turn:
            yield turn
            turn = []
        turn.append(at)
        was_user = is_user
    if turn:
        yield turn


def _shortened(message: Message) -> Message | None:
    """None where the result is short already, or not text."""
    content = message["content"]
    if not isinstance(content, str):
        if not all(part.get("type") == "text" for part in content):
            return None
        content = "".join(part["text"] for part in content)
    if len(content) <= 2 * KEPT_CHARACTERS:
        return None
    note = f"[{len(content) - KEPT_CHARACTERS} more characters of this earlier result were left out]"
    return {**message, "content": f"{content[:KEPT_CHARACTERS]}\n{note}"}
