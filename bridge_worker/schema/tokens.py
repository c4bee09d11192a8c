"""Params and result of ``tokens/count``.

Owns these types. Refuses to know tokenizers.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from bridge_worker.schema.base import Closed, ListOf, ModelName
from bridge_worker.schema.chat_request import MAX_MESSAGES, MAX_TOOLS, ChatMessage, Tool


class TokensCountParams(Closed):
    model: ModelName
    messages: Annotated[ListOf[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    tools: Annotated[ListOf[Tool], Field(max_length=MAX_TOOLS)] | None = None


class TokenCount(Closed):
    """``exact``: the provider will count the same; otherwise an estimate with ``tokenizer``."""

    input_tokens: int
    tokenizer: str
    exact: bool
