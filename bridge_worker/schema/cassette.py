"""The lines of a cassette, as types: the header, a model, an exchange.

Owns the members that a reader may rely on; lines and members that are not here are ignored. Refuses to know how a line is made and
played.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from bridge_worker.schema.models import ModelInfo


class Open(BaseModel):
    """Members that a later version adds are ignored."""

    model_config = ConfigDict(extra="ignore")


class CassetteHeader(Open):
    """The first line."""

    cassette: Literal[1]
    version: str | None = None


class CassetteModel(Open):
    """What ``models/get`` returned for a model that was used."""

    model: str
    info: ModelInfo


class CanonicalRequest(Open):
    method: Literal["chat", "embed", "rerank", "tokens/count"]
    params: dict[str, Any]


class Base64(Open):
    base64: str


class ProviderResponse(Open):
    """One response of a provider, to the ``attempt``-th attempt of the receipt, from 0. ``format`` is "litellm" where
    LiteLLM reads it.

    ``end``: "whole", "cut" by ``failure``, or "left": not read to its end, because its end marker came first or the request was
    over. ``reads`` are pairs of milliseconds and bytes.
    """

    attempt: int = Field(ge=0)
    sent_ms: float
    model: str | None
    provider: str | None
    format: str
    renamed_tools: dict[str, str]
    schema_tool: bool
    status: int | None
    response_headers: dict[str, str]
    body: str | Base64
    reads: list[tuple[float, int]]
    end: Literal["whole", "cut", "left"]
    failure: str | None = None
    timed_out: bool | None = None


class WireError(Open):
    code: int
    message: str
    data: dict[str, Any]


class Wire(Open):
    """What the client got. A delta is a pair of milliseconds and a text, which is a delta of content, or an object."""

    deltas: list[tuple[float, str | dict[str, Any]]]
    result: dict[str, Any] | None = None
    error: WireError | None = None


class CassetteExchange(Open):
    exchange: Literal["chat", "embed", "rerank", "tokens/count"]
    hash: str = Field(pattern="^[0-9a-f]{64}$")
    request: CanonicalRequest
    time: str
    ms: float
    versions: dict[str, str | None]
    provider: list[ProviderResponse] | None
    why_no_bytes: str | None = None
    wire: Wire


CASSETTE_LINES = (CassetteHeader, CassetteModel, CassetteExchange)
