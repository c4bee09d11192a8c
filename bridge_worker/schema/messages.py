"""The methods and notifications of the wire, with the pydantic models of their params and results.

Owns the set of them, from which the JSON Schema is generated; the other modules of the package own the types. Refuses to know how a
request is served.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from bridge_worker.schema.base import Empty, Meta
from bridge_worker.schema.budgets import BudgetsGetParams, BudgetsGetResult
from bridge_worker.schema.cassette import CASSETTE_LINES
from bridge_worker.schema.chat_request import ChatParams
from bridge_worker.schema.chat_result import ChatDelta, ChatResult
from bridge_worker.schema.credentials import CredentialsGetParams, CredentialsGetResult
from bridge_worker.schema.embed_rerank import EmbedParams, EmbedResult, RerankParams, RerankResult
from bridge_worker.schema.errors import Error
from bridge_worker.schema.fit import TokensFitParams, TokensFitResult
from bridge_worker.schema.lifecycle import (
    CancelledParams,
    CancelRequestParams,
    InitializeParams,
    InitializeResult,
    ReadyParams,
    ShutdownParams,
)
from bridge_worker.schema.mcp import (
    DiscoverResult,
    McpParams,
    ProgressParams,
    ToolsCallParams,
    ToolsCallResult,
    ToolsListParams,
    ToolsListResult,
)
from bridge_worker.schema.models import ChatCheck, ModelInfo, ModelsGetParams, ModelsListParams, ModelsListResult
from bridge_worker.schema.status import ConfigReloaded, NoParams, Status
from bridge_worker.schema.tasks import TaskBudget, TasksGetParams, TasksRaiseParams
from bridge_worker.schema.tokens import TokenCount, TokensCountParams


class Method(NamedTuple):
    params: type[BaseModel]
    result: type[BaseModel]


METHODS: Mapping[str, Method] = {
    "initialize": Method(InitializeParams, InitializeResult),
    "ping": Method(Empty, Empty),
    "shutdown": Method(ShutdownParams, Empty),
    "chat": Method(ChatParams, ChatResult),
    "chat/check": Method(ChatParams, ChatCheck),
    "models/list": Method(ModelsListParams, ModelsListResult),
    "models/get": Method(ModelsGetParams, ModelInfo),
    "tokens/count": Method(TokensCountParams, TokenCount),
    "tokens/fit": Method(TokensFitParams, TokensFitResult),
    "embed": Method(EmbedParams, EmbedResult),
    "rerank": Method(RerankParams, RerankResult),
    "budgets/get": Method(BudgetsGetParams, BudgetsGetResult),
    "tasks/get": Method(TasksGetParams, TaskBudget),
    "tasks/raise": Method(TasksRaiseParams, TaskBudget),
    "status": Method(NoParams, Status),
    "config/reload": Method(NoParams, ConfigReloaded),
    "server/discover": Method(McpParams, DiscoverResult),
    "tools/list": Method(ToolsListParams, ToolsListResult),
    "tools/call": Method(ToolsCallParams, ToolsCallResult),
}
METHODS_OF_CLIENT: Mapping[str, Method] = {"credentials/get": Method(CredentialsGetParams, CredentialsGetResult)}
NOTIFICATIONS_IN: Mapping[str, type[BaseModel]] = {
    "notifications/initialized": Empty,
    "notifications/cancelled": CancelledParams,
    "$/cancelRequest": CancelRequestParams,
}
NOTIFICATIONS_OUT: Mapping[str, type[BaseModel]] = {
    "notifications/ready": ReadyParams,
    "notifications/chat/delta": ChatDelta,
    "notifications/progress": ProgressParams,
}


def json_schema() -> dict[str, object]:
    """JSON Schema 2020-12 of the whole wire: ``methods``, ``methodsOfClient``, ``notifications`` and ``error``, each with
    references to ``$defs``; and of a line of a ``cassette``."""
    methods = (*METHODS.values(), *METHODS_OF_CLIENT.values())
    types = [type for method in methods for type in method]
    types += [*NOTIFICATIONS_IN.values(), *NOTIFICATIONS_OUT.values(), Error]
    types += [Meta, *CASSETTE_LINES]
    _, definitions = models_json_schema([(type, "validation") for type in dict.fromkeys(types)], title="omni-bridge/1")
    for method in METHODS.values():
        params = definitions["$defs"][method.params.__name__]
        params.setdefault("properties", {}).setdefault("_meta", {"anyOf": [{"$ref": "#/$defs/Meta"}, {"type": "null"}]})

    def ref(type: type[BaseModel]) -> dict[str, str]:
        return {"$ref": f"#/$defs/{type.__name__}"}

    def pairs(methods: Mapping[str, Method]) -> dict[str, dict[str, dict[str, str]]]:
        return {name: {"params": ref(method.params), "result": ref(method.result)} for name, method in methods.items()}

    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:omni-bridge:1",
        **definitions,
        "methods": pairs(METHODS),
        "methodsOfClient": pairs(METHODS_OF_CLIENT),
        "notifications": {
            "toBridge": {name: ref(type) for name, type in NOTIFICATIONS_IN.items()},
            "fromBridge": {name: ref(type) for name, type in NOTIFICATIONS_OUT.items()},
        },
        "error": ref(Error),
        "cassette": {"anyOf": [ref(type) for type in CASSETTE_LINES]},
    }
