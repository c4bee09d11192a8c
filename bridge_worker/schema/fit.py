"""Params and result of ``tokens/fit``, and the facts in the receipt of a chat with ``fit``.

Owns these types. Refuses to know tokenizers.
"""

from __future__ import annotations

from typing import Any, Literal

from bridge_worker.schema.base import Closed
from bridge_worker.schema.chat_request import Fit
from bridge_worker.schema.tokens import TokenCount, TokensCountParams


class TokensFitParams(TokensCountParams, Fit):
    pass


class FitChange(Closed):
    """A message that was dropped or shortened: its index before, and the tokens that this saved."""

    index: int
    role: str
    change: Literal["dropped", "shortened"]
    tokens: int


class FitFacts(TokenCount):
    """What was done to a history, and its tokens afterwards."""

    dropped: list[FitChange]
    max_input_tokens: int


class TokensFitResult(FitFacts):
    messages: list[dict[str, Any]]
