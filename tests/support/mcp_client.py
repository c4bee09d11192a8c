"""A client made with the official MCP SDK: starts a worker, does what an MCP host does, and prints what it saw as one JSON object.

    .venv-mcp/bin/python tests/support/mcp_client.py MODE COMMAND...

MODE is the SDK's: ``legacy`` greets, ``2026-07-28`` does not, ``auto`` finds out. A program of its own, because the SDK must not be
where the worker's LiteLLM finds it.
"""

import json
import os
import sys
from typing import Any

import anyio
from mcp import Client, MCPError, StdioServerParameters

from tests.support.data import Json


def conversation(text: str, model: str = "offline/echo") -> Json:
    return {"model": model, "messages": [{"role": "user", "content": text}]}


async def main(mode: str, command: str, *arguments: str) -> Json:
    server = StdioServerParameters(command=command, args=list(arguments), env=dict(os.environ))
    async with Client(server, mode=mode) as client:
        tools = (await client.list_tools()).tools
        return {
            "revision": client.protocol_version,
            "server": client.server_info.name if client.server_info else None,
            "capabilities": client.server_capabilities.model_dump(exclude_none=True),
            "tools": [tool.name for tool in tools],
            "chat": await call(client, "chat", conversation("two words")),
            "count": await call(client, "count_tokens", conversation("two words")),
            "models": await call(client, "list_models", {}),
            "progress": await with_progress(client),
            "failed": await call(client, "chat", conversation("hello", "offline/nothing")),
            "unknown": await call(client, "no_such_tool", {}),
            "cancelled": await cancel_in_flight(client),
            "after": await call(client, "chat", conversation("still here")),
        }


async def call(client: Client, name: str, arguments: Json) -> Json:
    try:
        result = await client.call_tool(name, arguments)
    except MCPError as error:
        return {"code": error.code}
    return {"text": result.content[0].text, "structured": result.structured_content, "failed": result.is_error}


async def with_progress(client: Client) -> list[list[Any]]:
    seen: list[list[Any]] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        seen.append([progress, message])

    await client.call_tool("chat", conversation("these are four words"), progress_callback=note)
    return seen


async def cancel_in_flight(client: Client) -> bool:
    """A call of a model that never answers, cancelled once its provider has it: the SDK sends the worker a notification."""
    notified = anyio.Event()

    async def note(progress: float, total: float | None, message: str | None) -> None:
        notified.set()

    async with anyio.create_task_group() as group:
        group.start_soon(lambda: client.call_tool("chat", conversation("hello", "openai/hang-after-first"), progress_callback=note))
        await notified.wait()
        group.cancel_scope.cancel()
    return True


if __name__ == "__main__":
    sys.stdout.write(json.dumps(anyio.run(main, *sys.argv[1:])))
