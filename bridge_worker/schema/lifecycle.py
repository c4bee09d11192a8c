"""Params and results of the session's begin and end, with MCP's names.

Owns these types. Refuses to know the order of messages: that is the table in ``protocol/lifecycle_table.py``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from bridge_worker.schema.base import Closed, Name, Open, RequestId
from bridge_worker.schema.credentials import ClientCapabilities


class InitializeParams(Open):
    """Uses MCP's names. ``processId``: the worker exits when that process has exited."""

    protocolVersion: Name
    processId: Annotated[int, Field(gt=0, lt=2**31)] | None = None
    capabilities: ClientCapabilities | None = None


class Limits(Closed):
    maxMessageBytes: int
    maxInFlight: int


class EngineState(Closed):
    """``version`` is null until it is known, ``ready`` is false until LiteLLM is imported and warm."""

    name: str
    version: str | None
    ready: bool


class ServerInfo(Closed):
    name: str
    version: str


class InitializeResult(Closed):
    protocolVersion: str
    serverInfo: ServerInfo
    capabilities: dict[str, Any]
    limits: Limits
    engine: EngineState


class ShutdownParams(Open):
    mode: Literal["drain", "cancel"] = "drain"


class CancelledParams(Open):
    requestId: RequestId
    reason: str | None = None


class CancelRequestParams(Open):
    """`$/cancelRequest`, as clients of LSP and ACP send it: the same as ``notifications/cancelled``."""

    id: RequestId


class ReadyParams(Closed):
    engine: EngineState
    warmMs: float
