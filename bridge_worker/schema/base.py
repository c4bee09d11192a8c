"""Base classes and common types of the wire types.

Owns these. Refuses to know a wire type that uses them.
"""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field

# Strings that a caller sends. Each is limited, because errors, receipts, log lines and URLs repeat them.
Name = Annotated[str, Field(max_length=256)]
Id = Annotated[str, Field(max_length=4096)]  # an id of a provider, sent back to it; some contain a signature
ModelName = Annotated[str, Field(min_length=1, max_length=1024)]  # an ARN of AWS may have 1,011
IdempotencyKey = Annotated[str, Field(min_length=1, max_length=256)]
# Beyond these neither a price nor a deadline can be computed, and no provider has such a number.
Count = Annotated[int, Field(ge=0, le=2**53)]
PositiveCount = Annotated[int, Field(gt=0, le=2**53)]
Milliseconds = Annotated[int, Field(gt=0, le=2**53)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**64)]
RequestId = Annotated[str, Field(max_length=1024)] | int  # `protocol.framing.MAX_ID_LENGTH`, which needs no pydantic
T = TypeVar("T")
# A list with a validation that ends at its first member with an error: a thousand wrong members cost no more than one.
ListOf = Annotated[list[T], Field(fail_fast=True)]


class Closed(BaseModel):
    """Strict: a string is not a number, an unknown member is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, defer_build=True)


class Open(BaseModel):
    """Allows further members, because clients of other protocols add some."""

    model_config = ConfigDict(extra="allow", strict=True, defer_build=True)


class Empty(Open):
    pass


class Meta(Open):
    """Metadata of a call: MCP's own members, and the parent span in the caller's trace (W3C Trace Context)."""

    traceparent: Name | None = None
    tracestate: Id | None = None


class WithMeta(Open):
    meta: Annotated[Meta | None, Field(alias="_meta")] = None
