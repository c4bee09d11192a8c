"""Params and results of ``embed`` and ``rerank``.

Owns these types. Refuses to know what serves them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from bridge_worker.schema.base import Closed, Id, IdempotencyKey, ListOf, Milliseconds, ModelName, Name, PositiveCount
from bridge_worker.schema.chat_result import CostSource, Receipt, Usage
from bridge_worker.schema.tasks import Task

MAX_TEXTS = 10_000  # of one `embed` or `rerank`


class TotalDeadline(Closed):
    """Milliseconds from the arrival of the request. Null is the default, 600,000."""

    total_ms: Milliseconds | None = None


class EmbedParams(Closed):
    model: ModelName
    input: (
        Annotated[str, Field(min_length=1)]
        | Annotated[ListOf[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=MAX_TEXTS)]
    )
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: PositiveCount | None = None
    user: Id | None = None
    metadata: dict[Name, str] | None = None
    deadlines: TotalDeadline | None = None
    provider_params: dict[str, Any] | None = None
    task: Task | None = None
    idempotency_key: IdempotencyKey | None = None


class EmbedResult(Closed):
    """One embedding for each input, in order; with ``base64`` the little-endian 32-bit floats of each."""

    embeddings: list[list[float] | str]
    usage: Usage | None
    cost_usd: float | None
    cost_source: CostSource | None
    price_map_date: str | None
    model: str | None
    requested_model: str
    provider: str | None
    receipt: Receipt


class RerankParams(Closed):
    model: ModelName
    query: Annotated[str, Field(min_length=1)]
    documents: Annotated[ListOf[str], Field(min_length=1, max_length=MAX_TEXTS)]
    top_n: PositiveCount | None = None
    return_documents: bool | None = None
    metadata: dict[Name, str] | None = None
    deadlines: TotalDeadline | None = None
    provider_params: dict[str, Any] | None = None
    task: Task | None = None
    idempotency_key: IdempotencyKey | None = None


class RankedDocument(Closed):
    """``index`` into the request's documents; ``document`` is null unless the request has ``return_documents``."""

    index: int
    score: float
    document: str | None


class RerankResult(Closed):
    """``results`` are sorted: the most relevant document is first."""

    results: list[RankedDocument]
    usage: Usage | None
    cost_usd: float | None
    cost_source: CostSource | None
    price_map_date: str | None
    model: str | None
    requested_model: str
    provider: str | None
    receipt: Receipt
