"""Undoes in a response what LiteLLM rewrote in its request: a schema that became a tool, and names of tools that it replaced.

Owns the comparison of the tools that the caller gave with those in the captured body, and a decoder around the format's own.
Refuses to know a format.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from bridge_worker.backends.wire.decoder import Decoder
from bridge_worker.core.deltas import Delta, End, ToolCallDelta
from bridge_worker.errors import BridgeError

SCHEMA_TOOL = "json_tool_call"  # LiteLLM's name for the tool that stands for a response_format


def rewritten(options: Mapping[str, Any], body: Mapping[str, Any]) -> tuple[dict[str, str], bool]:
    """The tools that LiteLLM renamed, by their names in ``body``, and whether it made a tool of a schema."""
    given = list(_names(options.get("tools")))
    sent = list(_sent_names(body))
    schema = SCHEMA_TOOL in sent and SCHEMA_TOOL not in given
    sent = [name for name in sent if name != SCHEMA_TOOL or not schema]
    renamed = {there: here for here, there in zip(given, sent, strict=False) if here != there} if len(given) == len(sent) else {}
    return renamed, schema


def restoring(decoder: Decoder, renamed: Mapping[str, str], *, schema: bool) -> Decoder:
    """A decoder around ``decoder`` that undoes both."""
    return cast(Decoder, _Restoring(decoder, renamed, schema=schema))


class _Restoring:
    """`Decoder`, around another one."""

    def __init__(self, inner: Decoder, renamed: Mapping[str, str], *, schema: bool) -> None:
        self._inner = inner
        self._renamed = renamed
        self._schema = schema
        self._of_schema: set[Any] = set()  # the calls of the schema's tool, by index or id
        self._was_called = False  # another tool
        self._made_content = False

    @property
    def done(self) -> bool:
        return self._inner.done

    @property
    def failure(self) -> BridgeError | None:
        return self._inner.failure

    def feed(self, data: bytes) -> list[Delta]:
        return self._restored(self._inner.feed(data))

    def flush(self) -> list[Delta]:
        return self._restored(self._inner.flush())

    def whole(self, body: bytes) -> list[Delta]:
        return self._restored(self._inner.whole(body))

    def end(self) -> End:
        end = self._inner.end()
        if self._made_content and not self._was_called and end.finish_reason == "tool_calls":
            end.finish_reason = "stop"
        return end

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> BridgeError:
        return self._inner.error(status, headers, body)

    def _restored(self, deltas: list[Delta]) -> list[Delta]:
        for delta in deltas:
            if delta.tool_calls:
                self._restore(delta, delta.tool_calls)
        return deltas

    def _restore(self, delta: Delta, calls: Sequence[ToolCallDelta]) -> None:
        kept: list[ToolCallDelta] = []
        for call in calls:
            key = call.index if call.index is not None else call.id
            if self._schema and call.name == SCHEMA_TOOL:
                self._of_schema.add(key)
            if key in self._of_schema and call.name in (SCHEMA_TOOL, None, ""):
                delta.content = (delta.content or "") + call.arguments
                self._made_content = True
                continue
            if call.name:
                call.name = self._renamed.get(call.name, call.name)
                self._was_called = True
            kept.append(call)
        delta.tool_calls = kept or None


def _names(tools: Any) -> Iterator[str]:
    for tool in tools or ():
        function = tool.get("function") if isinstance(tool, dict) else None
        if isinstance(function, dict) and isinstance(function.get("name"), str):
            yield function["name"]


def _sent_names(body: Mapping[str, Any]) -> Iterator[str]:
    """The names of the tools in a provider's body, in any of the forms that formats have for them."""
    config = body.get("toolConfig")
    tools = body.get("tools") or (config.get("tools") if isinstance(config, dict) else None)
    for tool in tools if isinstance(tools, list) else ():
        declared = tool.get("functionDeclarations") or tool.get("function_declarations") if isinstance(tool, dict) else None
        for each in declared if isinstance(declared, list) else [tool]:
            function = next((each[name] for name in ("function", "toolSpec") if isinstance(each.get(name), dict)), each)
            if isinstance(function.get("name"), str):
                yield function["name"]
