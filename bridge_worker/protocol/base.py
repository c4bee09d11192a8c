"""What all wire types are made of.

Owns these types. Refuses to know any of them.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Closed(BaseModel):
    """Strict: a string is not a number, an unknown member is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, defer_build=True)


class Open(BaseModel):
    """What clients of other protocols add members to."""

    model_config = ConfigDict(extra="allow", strict=True, defer_build=True)


class Empty(Open):
    pass
