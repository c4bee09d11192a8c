"""Params and results of ``models/list``, ``models/get`` and ``chat/check``.

Owns these types. Refuses to know how the facts of a model are found.
"""

from __future__ import annotations

from typing import Literal

from bridge_worker.schema.base import Closed, Id, ModelName


class ModelsListParams(Closed):
    """``all``: also each known model with a configured key of its provider. ``cursor``: a result's ``nextCursor``."""

    all: bool | None = None
    cursor: Id | None = None


class ModelSummary(Closed):
    """``key_present`` is null if no key is needed, or if its source can't be checked, such as a cloud role."""

    model: str
    provider: str | None
    mode: str | None  # chat, embedding, rerank, ...
    key_present: bool | None


class ModelsListResult(Closed):
    models: list[ModelSummary]
    nextCursor: str | None  # null on the last page


class ModelsGetParams(Closed):
    model: ModelName


class ModelLimits(Closed):
    """Tokens; ``context_tokens`` is the longest input."""

    context_tokens: int | None
    output_tokens: int | None


class ModelPrices(Closed):
    """US dollars per token; ``query_usd`` per query, for a model with that price."""

    input_usd: float | None
    output_usd: float | None
    cached_input_usd: float | None
    cache_write_usd: float | None
    query_usd: float | None


class ModelModalities(Closed):
    input: list[str] | None
    output: list[str] | None


class ModelSupport(Closed):
    """Null if it is unknown."""

    tools: bool | None
    parallel_tool_calls: bool | None
    tool_choice: bool | None
    json_schema: bool | None
    reasoning: bool | None
    vision: bool | None
    audio_input: bool | None
    audio_output: bool | None
    pdf_input: bool | None
    prompt_caching: bool | None


class ModelInfo(ModelSummary):
    """Facts; for a name with several deployments those that all have in common, and the highest prices. Null if unknown."""

    deployments: list[str]  # the names of LiteLLM that serve this name
    limits: ModelLimits
    prices: ModelPrices
    modalities: ModelModalities
    supports: ModelSupport
    parameters: list[str] | None  # members of `chat` that have an effect
    unsupported_parameters: Literal["rejected", "dropped"]  # the treatment of the other members
    deprecation_date: str | None


class CapabilityGap(Closed):
    """``member`` of the params needs an ability that the model does not have."""

    member: str
    reason: str


class ChatCheck(Closed):
    """``ok`` is false if the chat is certain to fail. Null if unknown."""

    ok: bool
    requested_model: str
    deployments: list[str]
    provider: str | None
    key_present: bool | None
    gaps: list[CapabilityGap]
    dropped: list[str]  # params that would have no effect
    input_tokens: int
    tokenizer: str
    exact: bool
    max_output_tokens: int | None
    max_cost_usd: float | None
