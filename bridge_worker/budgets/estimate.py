"""Upper bound of the tokens and the cost of a request.

Owns the margin for another tokenizer and the choice of the most expensive deployment. Refuses to know accounts and limits.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bridge_worker.budgets.limits import Amount, nano_usd
from bridge_worker.core.ports import Expense, ModelServices
from bridge_worker.errors import BridgeError
from bridge_worker.schema.tokens import TokenCount

# A different tokenizer is up to a quarter off for plain text; the constant is for the tokens with which a provider frames messages.
_MARGIN, _FRAME_TOKENS = 1.25, 64
_CHARACTERS_PER_TOKEN = 3


@dataclass(slots=True)
class CostInputs:
    """The parts of a request that its price depends on. ``output_tokens`` is the caller's limit, 0 if no output is generated."""

    model: str
    total_ms: int
    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]] | None = None
    output_tokens: int | None = None
    streamed: bool = False
    ranks: bool = False


class Estimate:
    """The most that a request can use. Its construction blocks, raises BridgeError, and may load a local model."""

    def __init__(self, services: ModelServices, inputs: CostInputs) -> None:
        self._services = services
        self._inputs = inputs
        self._names = services.alternatives(inputs.model)
        self._writes_cache = '"cache_control"' in json.dumps([inputs.messages, inputs.tools])
        counted = self._count(inputs.messages, inputs.tools)
        self.input_tokens = counted.input_tokens if counted.exact else _with_margin(counted.input_tokens)
        self.output_tokens = self._most_output() if inputs.output_tokens is None else inputs.output_tokens

    def usd(self, output_tokens: int) -> float | None:
        """The price of the most expensive deployment that may serve the request; None when one has no price."""
        expense = Expense(self.input_tokens, output_tokens, self._writes_cache)
        prices = [self._price(name, expense) for name in self._names]
        known = [price for price in prices if price is not None]
        return max(known) if len(known) == len(prices) else None

    def was_sent(self, error: BridgeError) -> bool:
        """Whether a model got the request: the receipt has LiteLLM's attempts; local models have no attempts but do the work."""
        return has_attempts(error) or self._services.runs_here

    def of_failed(self, error: BridgeError, reserved: Amount) -> Amount:
        """A failed stream used its input and the content received so far. A failed plain call may have been charged in full."""
        if not self._inputs.streamed:
            return reserved
        partial: Any = error.extra.get("partial") or {}
        content = json.dumps([partial.get("content") or "", partial.get("tool_calls") or []], ensure_ascii=False)
        received = self._count([{"role": "assistant", "content": content}], None).input_tokens
        usd = self.usd(received)
        return Amount(reserved.nano_usd if usd is None else nano_usd(usd), self.input_tokens + received)

    def _count(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None) -> TokenCount:
        try:
            return self._services.count(self._inputs.model, messages, tools)
        except BridgeError as error:
            if error.kind != "cassette_miss":
                raise
            tokens = len(json.dumps([messages, tools])) // _CHARACTERS_PER_TOKEN  # a replay has no tokenizer
            return TokenCount(input_tokens=tokens, tokenizer="characters", exact=False)

    def _price(self, name: str, expense: Expense) -> float | None:
        per_query = self._services.describe(name).prices.query_usd if self._inputs.ranks else None
        return per_query if per_query is not None else self._services.cost_usd(name, expense)

    def _most_output(self) -> int:
        infos = [self._services.describe(name) for name in self._names]
        limits = [info.limits.output_tokens or info.limits.context_tokens for info in infos]
        if self._services.runs_here and None in limits:  # offline models repeat their input or fill in a schema
            return _with_margin(self.input_tokens)
        known = [limit for limit in limits if limit is not None]
        if len(known) < len(limits):
            problem = "has no known limit of output tokens, and a budget reserves the maximum"
            raise BridgeError("invalid_request", f"{self._inputs.model} {problem}; set max_tokens", model=self._inputs.model)
        return max(known)


def has_attempts(error: BridgeError) -> bool:
    receipt: Any = error.extra.get("receipt") or {}
    return bool(receipt.get("attempts"))


def _with_margin(tokens: int) -> int:
    return math.ceil(tokens * _MARGIN) + _FRAME_TOKENS
