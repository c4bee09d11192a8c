"""Gives LiteLLM arguments that the provider takes instead of the caller's: names of tools, and schemas in Gemini's forms.

Owns which form a schema needs, and JSON Schema as Gemini reads it: without ``const`` and ``allOf``, and with nothing next to a
reference. Refuses to send anything.

Source: ai.google.dev/gemini-api/docs/structured-output.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any

from bridge_worker.backends.litellm import tool_names
from bridge_worker.backends.litellm.gemini_schema import parameters, response
from bridge_worker.backends.litellm.schema_merge import Json, merged, target
from bridge_worker.core.receipt import Change

_READS_JSON_SCHEMA = re.compile(r"gemini-(?:[2-9]|[1-9]\d+)[.-]")  # as LiteLLM decides it


def rewrite_call(call: Mapping[str, Any], provider: str | None, model: str, *, names: bool = True) -> tuple[Json, list[Change]]:
    """The members of a call's keyword arguments that the provider needs in another form, and what that changed or lost.

    ``names``: False where LiteLLM reads the response, which would have names that the caller did not give.
    """
    rule = tool_names.rule_of(provider, model) if names else None
    made, changes = tool_names.renamed_options(call, rule) if rule is not None else ({}, [])
    if _is_gemini(provider, model):
        made |= _for_gemini({**call, **made}, model, changes)
    return made, changes


def _for_gemini(call: Mapping[str, Any], model: str, changes: list[Change]) -> Json:
    made: Json = {}
    if tools := call.get("tools"):
        made["tools"] = [_tool(tool, f"tools[{at}]", changes) for at, tool in enumerate(tools)]
    format = call.get("response_format")
    described = format.get("json_schema") if isinstance(format, dict) else None
    if isinstance(described, dict) and isinstance(schema := described.get("schema"), dict):
        place = "response_format.json_schema.schema"
        reads = _READS_JSON_SCHEMA.search(model.lower()) is not None
        sent = json_schema(schema) if reads else response(schema, place, changes)
        made["response_format"] = {**call["response_format"], "json_schema": {**described, "schema": sent}}
    return made


def _is_gemini(provider: str | None, model: str) -> bool:
    return provider == "gemini" or (provider in ("vertex_ai", "vertex_ai_beta") and "gemini" in model)


def _tool(tool: Any, place: str, changes: list[Change]) -> Any:
    function = tool.get("function") if isinstance(tool, dict) else None
    schema = function.get("parameters") if isinstance(function, dict) else None
    if not isinstance(schema, dict) or not schema:
        return tool
    return {**tool, "function": {**tool["function"], "parameters": parameters(schema, f"{place}.function.parameters", changes)}}


def json_schema(schema: Json) -> Json:
    """``schema`` with ``enum`` instead of ``const`` and ``allOf`` merged. A reference stays, but nothing else next to it."""
    made: Json = _json_schema(schema, schema, ())
    return made


def _json_schema(schema: Any, root: Json, seen: tuple[str, ...]) -> Any:
    """``seen`` are the references that were replaced around ``schema``; they are not replaced again."""
    if isinstance(schema, list):
        return [_json_schema(member, root, seen) for member in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: _members(name, value, root, seen) for name, value in schema.items()}
    if "const" in made and "enum" not in made:
        made["enum"] = [made.pop("const")]
    combined = made.get("allOf")
    parts = combined if isinstance(combined, list) and all(isinstance(part, dict) for part in combined) else []
    rest = {name: value for name, value in made.items() if name != "allOf"} if parts else made
    if not parts and not ("$ref" in rest and any(name[:1] != "$" for name in rest)):
        return made
    lost: list[str] = []
    whole = merged(copy.deepcopy([_dereferenced(part, root, seen) for part in (*parts, rest)]), lost.append)
    return made if lost or "$ref" in whole else whole


def _dereferenced(schema: Json, root: Json, seen: tuple[str, ...]) -> Json:
    """``schema`` with its own reference replaced, not those within it."""
    reference = schema.get("$ref")
    found = target(reference, root) if isinstance(reference, str) and reference not in seen else None
    if not isinstance(reference, str) or not isinstance(found, dict):
        return schema
    rest = {name: value for name, value in schema.items() if name != "$ref"}
    made = _json_schema(found, root, (*seen, reference))
    return {**_dereferenced(made, root, (*seen, reference)), **rest}


def _members(name: str, value: Any, root: Json, seen: tuple[str, ...]) -> Any:
    """A member's schemas; names of properties and values are a caller's own."""
    if name in ("properties", "$defs", "definitions", "patternProperties") and isinstance(value, dict):
        return {key: {} if member is True else _json_schema(member, root, seen) for key, member in value.items()}
    return value if name in ("enum", "const", "default", "examples", "required") else _json_schema(value, root, seen)
