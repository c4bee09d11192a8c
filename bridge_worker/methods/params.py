"""Validates params: refused names, sizes, schema, URLs, budget path. An error names the member.

Owns the order of these checks. Refuses to change a value: after validation the caller's own JSON is passed on, so that nothing is
lost or re-ordered.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from bridge_worker.budgets.limits import BUDGET, check_path
from bridge_worker.config.settings import Settings
from bridge_worker.errors import BridgeError
from bridge_worker.protocol.value_counter import MAX_VALUES, has_too_many_values
from bridge_worker.schema.chat_request import MAX_MESSAGES, ChatParams
from bridge_worker.schema.validation_errors import explain
from bridge_worker.security.refused_params import ParamsTooLarge, is_address, refused_member
from bridge_worker.security.schema_size import MAX_TOTAL_NODES, SchemaTooLarge, nodes_when_inlined
from bridge_worker.security.url_policy import UrlPolicy, faults

M = TypeVar("M", bound=BaseModel)
_STRICT = UrlPolicy()
_TEXT_ROLES = ("user", "assistant", "system", "developer")  # a message of theirs may be a text and nothing else


def validate(params: Mapping[str, Any], type: type[M], policy: UrlPolicy = _STRICT) -> M:
    """Raises BridgeError ``invalid_request`` that names the member. ``policy`` is the operator's policy for URLs in params."""
    try:
        if refused := refused_member(params):
            problem = f"{refused} is refused: it could send a key elsewhere, read a secret or run code"
            raise BridgeError("invalid_request", problem)
        if is_address(str(params.get("model"))):  # some of LiteLLM's providers accept an address there and send the key to it
            raise BridgeError("invalid_request", "model must be a name, not an address or a part of one")
        _check_schemas(params)
        validated = type.model_validate(params)
        _check_urls(params, policy)
        _check_arguments(params)
        if (budget := (params.get("metadata") or {}).get(BUDGET)) is not None:
            check_path(budget, f"metadata.{BUDGET}")
        return validated
    except ValidationError as error:
        raise BridgeError("invalid_request", explain(error, params)) from None
    except ParamsTooLarge as error:
        raise BridgeError("invalid_request", str(error)) from None
    except RecursionError:
        raise BridgeError("invalid_request", "the params are nested too deeply") from None


def validate_chat(params: Mapping[str, Any], policy: UrlPolicy = _STRICT) -> None:
    """`validate` for `ChatParams`, at a seventh of the cost of each message that is a role and a text, as most are."""
    messages = params.get("messages")
    if isinstance(messages, list) and 1 < len(messages) <= MAX_MESSAGES:
        others = [message for message in messages if not _is_text(message)]
        with suppress(BridgeError):  # it would name another position
            validate({**params, "messages": others or messages[:1]}, ChatParams, policy)
            return
    validate(params, ChatParams, policy)


def _is_text(message: Any) -> bool:
    """Whether ``message`` is a role with a text, which passes every check whatever the text is."""
    return (
        isinstance(message, dict)
        and len(message) == 2
        and isinstance(message.get("content"), str)
        and message.get("role") in _TEXT_ROLES
    )


def _check_schemas(params: Mapping[str, Any]) -> None:
    """Runs before a library reads a schema: some libraries inline every reference without a limit of the size."""
    if params.keys().isdisjoint(_WITH_SCHEMAS):
        return
    total = 0
    for place, schema in _schemas(params):
        try:
            total += nodes_when_inlined(schema)
        except SchemaTooLarge as error:
            raise BridgeError("invalid_request", f"{place}: {error}") from None
        if total > MAX_TOTAL_NODES:
            limit = f"the schemas up to here have more than {MAX_TOTAL_NODES:,} nodes when their references are inlined, the limit"
            raise BridgeError("invalid_request", f"{place}: {limit} for all schemas of a request")


_WITH_SCHEMAS = ("tools", "response_format", "provider_params")


def _schemas(params: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """(path, schema) of each member that a provider may read as a JSON Schema. Nothing is validated yet."""
    tools = params.get("tools")
    for index, tool in enumerate(tools if isinstance(tools, list) else ()):
        yield f"tools[{index}].function.parameters", _member(tool, "function", "parameters")
    yield "response_format.json_schema.schema", _member(params, "response_format", "json_schema", "schema")
    yield "provider_params", params.get("provider_params")


def _member(value: object, *names: str) -> object:
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _check_urls(params: Mapping[str, Any], policy: UrlPolicy) -> None:
    if fault := next(faults(params, policy), None):
        raise BridgeError("invalid_request", f"{fault[0]} can't be passed on: {fault[1]}")


def _check_arguments(params: Mapping[str, Any]) -> None:
    """Before LiteLLM decodes what a tool was called with, as some providers get it, on the loop."""
    for index, message in enumerate(params.get("messages") or ()):
        for position, call in enumerate(message.get("tool_calls") or ()):
            if has_too_many_values(call["function"]["arguments"]):
                place = f"messages[{index}].tool_calls[{position}].function.arguments"
                raise BridgeError("invalid_request", f"{place}: has more than {MAX_VALUES:,} JSON values, the limit")


def check_provider_params(params: Mapping[str, Any], settings: Settings) -> None:
    """Raises BridgeError ``invalid_request`` for a member of ``provider_params`` that the operator does not allow."""
    for name in params.get("provider_params") or {}:
        if name not in settings.provider_params:
            hint = "the operator allows such names in the config, under omni_bridge: provider_params"
            raise BridgeError("invalid_request", f"provider_params.{name} is not allowed here; {hint}")
