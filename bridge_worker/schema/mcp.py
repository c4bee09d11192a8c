"""Params and results of MCP's methods: discovery, tools and progress.

Owns these types. Refuses to differ from MCP's own schema.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from bridge_worker.schema.base import Closed, Id, Name, Open, RequestId


class McpParams(Open):
    """MCP's revision 2026-07-28 has ``_meta`` in every request; earlier revisions have only ``progressToken`` in it."""

    meta: Annotated[dict[str, Any] | None, Field(alias="_meta")] = None


class ToolsListParams(McpParams):
    cursor: Id | None = None


class ToolsCallParams(McpParams):
    name: Name
    arguments: dict[str, Any] | None = None


class McpResult(Open):
    """``resultType`` and ``_meta`` are sent to a client of revision 2026-07-28."""

    resultType: Literal["complete"] | None = None
    meta: Annotated[dict[str, Any] | None, Field(alias="_meta")] = None


class DiscoverResult(McpResult):
    supportedVersions: list[str]
    capabilities: dict[str, Any]
    ttlMs: int
    cacheScope: Literal["public", "private"]


class McpTool(Closed):
    name: str
    title: str
    description: str
    inputSchema: dict[str, Any]
    outputSchema: dict[str, Any]
    annotations: dict[str, bool]


class ToolsListResult(McpResult):
    tools: list[McpTool]
    ttlMs: int | None = None
    cacheScope: Literal["public", "private"] | None = None


class TextContent(Closed):
    type: Literal["text"]
    text: str


class ToolsCallResult(McpResult):
    """``isError``: the tool failed; ``content`` has the reason, and ``_meta`` the whole error as ``omni-bridge/error``."""

    content: list[TextContent]
    structuredContent: dict[str, Any] | None = None
    isError: bool


class ProgressParams(Closed):
    """``message`` is a piece of the response's text, ``progress`` the number of pieces so far."""

    progressToken: RequestId
    progress: int
    message: str
