"""MCP's tools: some of the bridge's methods, in the form in which an MCP client lists and calls them.

Owns their names, descriptions and schemas, and the conversion of a result or an error into MCP's content. Refuses to know how a
method is served, and JSON-RPC. An error inside a tool is in the tool's result, where a model can read it. Only an unknown tool, a
cancel and an internal error of the bridge are JSON-RPC errors.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from pydantic import BaseModel

from bridge_worker.core.accumulator import WireDelta
from bridge_worker.core.chat_runner import Emit
from bridge_worker.core.ports import Params, RequestContext
from bridge_worker.errors import BridgeError
from bridge_worker.methods.params import validate
from bridge_worker.protocol import mcp_envelope
from bridge_worker.protocol.framing import MAX_ID_LENGTH, is_id
from bridge_worker.schema.chat_request import ChatParams
from bridge_worker.schema.chat_result import ChatResult
from bridge_worker.schema.mcp import McpTool, TextContent, ToolsCallParams, ToolsCallResult, ToolsListParams
from bridge_worker.schema.models import ModelsListParams, ModelsListResult
from bridge_worker.schema.tokens import TokenCount, TokensCountParams

Run = Callable[[RequestContext, Params], Awaitable[BaseModel]]
Chat = Callable[[Params, float, Emit | None], Awaitable[Params]]

_ERROR = "omni-bridge/error"  # in `_meta`: the whole error for a program, besides the text of a failed tool
_JSONRPC_ERRORS = ("cancelled", "internal")  # kinds that are not put into a tool's result
_OUTLINED = ("type", "minLength", "minItems")
_DESCRIBED = {
    "messages": "As in OpenAI's chat completions: objects with role (system, user, assistant, tool) and content.",
    "tools": "As in OpenAI's chat completions: objects with type 'function' and function (name, description, parameters).",
    "response_format": "As in OpenAI's chat completions: type is text, json_object or json_schema.",
    "all": "All models with a configured API key, not only those of the config.",
    "cursor": "nextCursor of the previous page.",
}
_READS_ONLY = {"readOnlyHint": True, "openWorldHint": False}


class _Tool(NamedTuple):
    title: str
    description: str
    params: type[BaseModel]
    result: type[BaseModel]
    annotations: dict[str, bool]


_TOOLS = {
    "chat": _Tool(
        "Chat with a model",
        "Sends a chat to a language model of any provider and returns its response, tool calls, usage and cost.",
        ChatParams,
        ChatResult,
        {"readOnlyHint": True, "openWorldHint": True},
    ),
    "count_tokens": _Tool(
        "Count tokens",
        "Counts the input tokens of a conversation for a model, without calling its provider.",
        TokensCountParams,
        TokenCount,
        _READS_ONLY,
    ),
    "list_models": _Tool(
        "List models",
        "Lists the available models; with all, every model with a configured API key.",
        ModelsListParams,
        ModelsListResult,
        _READS_ONLY,
    ),
}


class Tools:
    """The methods ``tools/list`` and ``tools/call``, over the functions that serve the tools. ``clean`` makes an error fit for
    the wire."""

    def __init__(self, chat: Chat, count_tokens: Run, list_models: Run, clean: Callable[[BridgeError], BridgeError]) -> None:
        self._chat = chat
        self._run = {"count_tokens": count_tokens, "list_models": list_models}
        self._clean = clean

    async def list(self, call: RequestContext, params: Params) -> dict[str, Any]:
        mcp_envelope.check_envelope(params)
        if validate(_without_meta(params), ToolsListParams).cursor is not None:
            raise BridgeError("invalid_request", "cursor: the tools have one page; leave cursor out")
        return mcp_envelope.result(params, {"tools": _listed()}, lasting=True)

    async def call(self, call: RequestContext, params: Params) -> dict[str, Any]:
        mcp_envelope.check_envelope(params)
        valid = _validate(params)
        if valid.name not in _TOOLS:
            raise BridgeError("invalid_request", f"tool {valid.name!r:.100} does not exist; known: {', '.join(_TOOLS)}")
        arguments = valid.arguments or {}
        model = arguments.get("model")
        call.log |= {"tool": valid.name, "model": model if isinstance(model, str) else None}
        try:
            if valid.name == "chat":
                result = await self._call_chat(call, arguments, _progress_token(valid.meta or {}))
            else:
                result = (await self._run[valid.name](call, arguments)).model_dump()
        except BridgeError as error:
            if error.kind in _JSONRPC_ERRORS:
                raise
            call.log["error"] = error.kind
            return mcp_envelope.result(params, _failed(self._clean(error)))
        return mcp_envelope.result(params, _succeeded(result))

    async def _call_chat(self, call: RequestContext, arguments: Params, token: str | int | None) -> Params:
        """Runs a chat; with a progress token it is streamed, and each piece of its text is sent as a progress notification."""
        if "stream" in arguments:
            raise BridgeError("invalid_request", "stream: unknown member; a progressToken in _meta streams the text")
        if token is None:
            return await self._chat(arguments, call.received, None)
        pieces = 0

        async def report(deltas: list[WireDelta]) -> None:
            nonlocal pieces
            for delta in deltas:
                if text := delta if isinstance(delta, str) else delta.get("content"):
                    pieces += 1
                    progress = {"progressToken": token, "progress": pieces, "message": text}
                    await call.notify("notifications/progress", progress)

        return await self._chat({**arguments, "stream": True}, call.received, report)


def _validate(params: Params) -> ToolsCallParams:
    """Validates the envelope's members; the tool's method validates the arguments."""
    arguments = params.get("arguments")
    call = validate({name: value for name, value in _without_meta(params).items() if name != "arguments"}, ToolsCallParams)
    if not isinstance(arguments, dict | None):
        raise BridgeError("invalid_request", "arguments: must be an object")
    return call.model_copy(update={"arguments": arguments, "meta": params.get("_meta")})


def _without_meta(params: Params) -> Params:
    """Names are data in ``_meta``. Raises BridgeError where it is not an object."""
    if not isinstance(params.get("_meta"), dict | None):
        raise BridgeError("invalid_request", "_meta: must be an object")
    return {name: value for name, value in params.items() if name != "_meta"}


def _progress_token(meta: Params) -> str | int | None:
    """The token, or None for a value that is not a token. Raises BridgeError for a token that is too long to be repeated."""
    token = meta.get("progressToken")
    if is_id(token):
        return token
    if isinstance(token, str | int) and not isinstance(token, bool):
        raise BridgeError("invalid_request", f"_meta.progressToken: must have at most {MAX_ID_LENGTH:,} characters")
    return None


@functools.cache
def _listed() -> list[dict[str, Any]]:
    return [
        McpTool(
            name=name,
            title=tool.title,
            description=tool.description,
            inputSchema=_outline_of(tool.params, without=("stream",)),
            outputSchema=_outline_of(tool.result),
            annotations=tool.annotations,
        ).model_dump()
        for name, tool in _TOOLS.items()
    ]


def _outline_of(model: type[BaseModel], without: tuple[str, ...] = ()) -> dict[str, Any]:
    """The members of ``model`` with their types, without nested members.

    A host sends these schemas to its model in every prompt and pays for each byte. The params are validated with the whole schema.
    """
    schema = model.model_json_schema()
    definitions = schema.get("$defs", {})
    members = {name: _outline(member, definitions) for name, member in schema["properties"].items() if name not in without}
    for name in _DESCRIBED.keys() & members.keys():
        members[name]["description"] = _DESCRIBED[name]
    outline = {"type": "object", "properties": members, "additionalProperties": False}
    return outline | ({"required": schema["required"]} if "required" in schema else {})


def _outline(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    alternatives = schema.get("anyOf") or schema.get("oneOf")
    if alternatives is None:
        return {name: schema[name] for name in _OUTLINED if name in schema}
    outlines = [_outline(alternative, definitions) for alternative in alternatives]
    types = list(dict.fromkeys(outline["type"] for outline in outlines))
    return {"type": types[0] if len(types) == 1 else types}


def _succeeded(structured: Params) -> dict[str, Any]:
    text = structured.get("content") or json.dumps(structured, ensure_ascii=False)
    return _content(text, structuredContent=structured, isError=False)


def _failed(error: BridgeError) -> dict[str, Any]:
    whole = {"code": error.code, "message": error.message, "data": error.data()}
    return _content(error.message, isError=True, _meta={_ERROR: whole})


def _content(text: str, **members: Any) -> dict[str, Any]:
    content = [TextContent(type="text", text=text).model_dump()]
    return ToolsCallResult.model_validate({"content": content, **members}).model_dump(by_alias=True, exclude_unset=True)
