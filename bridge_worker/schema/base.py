"""What all wire types are made of.

Owns these types. Refuses to know any of them.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Closed(BaseModel):
    """Strict: a string is not a number, an unknown member is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, defer_build=True)


class Open(BaseModel):
    """What clients of other protocols add members to."""

    model_config = ConfigDict(extra="allow", strict=True, defer_build=True)


class Empty(Open):
    pass


class Meta(Open):
    """About a call, not of it: MCP's own members, and where the call stands in the caller's trace (W3C Trace Context)."""

    traceparent: str | None = None
    tracestate: str | None = None


class WithMeta(Open):
    meta: Annotated[Meta | None, Field(alias="_meta")] = None
