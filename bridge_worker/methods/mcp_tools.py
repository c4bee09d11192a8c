"""MCP's tools: some of the bridge's methods, in the form in which an MCP client lists and calls them.

Owns their names, descriptions and schemas, and the turning of a result or an error into MCP's content. Refuses to know how a method
does its work, and JSON-RPC. What goes wrong inside a tool is told in its result, where a model can read it; only a call of no tool,
a cancel and a fault of the bridge are errors.
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
from bridge_worker.schema.services import ModelsListParams, ModelsListResult, TokenCount, TokensCountParams

Run = Callable[[RequestContext, Params], Awaitable[BaseModel]]
Chat = Callable[[Params, float, Emit | None], Awaitable[Params]]

_ERROR = "omni-bridge/error"  # in `_meta`: beside the text of a failed tool, for a program
_NOT_A_TOOLS_OWN = ("cancelled", "internal")
_OUTLINED = ("type", "minLength", "minItems")
_DESCRIBED = {
    "messages": "As in OpenAI's chat completions: objects with role (system, user, assistant, tool) and content.",
    "tools": "As in OpenAI's chat completions: objects with type 'function' and function (name, description, parameters).",
    "response_format": "As in OpenAI's chat completions: type is text, json_object or json_schema.",
    "all": "Each model whose provider's key is there, not only those of the config.",
    "cursor": "nextCursor of the page before.",
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
        "Asks a language model of any provider and returns its answer, its tool calls, its usage and its cost.",
        ChatParams,
        ChatResult,
        {"readOnlyHint": True, "openWorldHint": True},
    ),
    "count_tokens": _Tool(
        "Count tokens",
        "Counts the input tokens that a conversation has for a model, without asking its provider.",
        TokensCountParams,
        TokenCount,
        _READS_ONLY,
    ),
    "list_models": _Tool(
        "List models",
        "Lists the models that can be asked; with all, each model whose provider's key is there.",
        ModelsListParams,
        ModelsListResult,
        _READS_ONLY,
    ),
}


class Tools:
    """The methods ``tools/list`` and ``tools/call``, over the functions that do the work."""

    def __init__(self, chat: Chat, count_tokens: Run, list_models: Run, cleaned: Callable[[BridgeError], BridgeError]) -> None:
        self._chat = chat
        self._run = {"count_tokens": count_tokens, "list_models": list_models}
        self._cleaned = cleaned

    async def list(self, call: RequestContext, params: Params) -> dict[str, Any]:
        mcp_envelope.check_envelope(params)
        if validate(_without_meta(params), ToolsListParams).cursor is not None:
            raise BridgeError("invalid_request", "cursor: there is one page of tools")
        return mcp_envelope.result(params, {"tools": _listed()}, lasting=True)

    async def call(self, call: RequestContext, params: Params) -> dict[str, Any]:
        mcp_envelope.check_envelope(params)
        asked = _checked(params)
        if asked.name not in _TOOLS:
            raise BridgeError("invalid_request", f"there is no tool {asked.name!r:.100}; there are: {', '.join(_TOOLS)}")
        arguments = asked.arguments or {}
        model = arguments.get("model")
        call.log |= {"tool": asked.name, "model": model if isinstance(model, str) else None}
        try:
            if asked.name == "chat":
                result = await self._call_chat(call, arguments, _progress_token(asked.meta or {}))
            else:
                result = (await self._run[asked.name](call, arguments)).model_dump()
        except BridgeError as error:
            if error.kind in _NOT_A_TOOLS_OWN:
                raise
            call.log["error"] = error.kind
            return mcp_envelope.result(params, _failed(self._cleaned(error)))
        return mcp_envelope.result(params, _succeeded(result))

    async def _call_chat(self, call: RequestContext, arguments: Params, token: str | int | None) -> Params:
        """With a progress token the answer is streamed, and each piece of its text is told as progress."""
        if "stream" in arguments:
            raise BridgeError("invalid_request", "stream: no such member; a progressToken in _meta asks for the text as it comes")
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


def _checked(params: Params) -> ToolsCallParams:
    """The envelope's members; the tool's arguments are checked as its method's params are."""
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
    """Anything that is not a token asks for no progress. Raises BridgeError for one that is too long to be repeated."""
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
    """The members of ``model`` with their types, and no deeper.

    A host gives these schemas to its model in every prompt and pays for each byte; the params are validated by the whole schema.
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
