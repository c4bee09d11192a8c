"""The table of methods: each name and the object that serves it.

Owns the names, and ``_meta``, which belongs to a call and to no method. Refuses to know JSON-RPC and what makes the ports.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from pydantic import BaseModel

from bridge_worker.budgets.spending import Spending
from bridge_worker.config.settings import Settings
from bridge_worker.core.exchange import Journal
from bridge_worker.core.ports import Backends, Params, RequestContext
from bridge_worker.methods.budgets import GetBudgets
from bridge_worker.methods.chat import Chat
from bridge_worker.methods.chat_check import CheckChat
from bridge_worker.methods.config import ReloadConfig
from bridge_worker.methods.dispatcher import Method, clean_error
from bridge_worker.methods.embed_rerank import EmbedRerank
from bridge_worker.methods.mcp_tools import Tools
from bridge_worker.methods.models import Models
from bridge_worker.methods.params import validate
from bridge_worker.methods.status import GetStatus
from bridge_worker.methods.tasks import TaskMethods
from bridge_worker.methods.tokens import CountTokens
from bridge_worker.schema.base import WithMeta
from bridge_worker.security.redaction import Redactor


def method_table(
    backends: Backends,
    settings: Callable[[], Settings],
    spending: Spending,
    redactor: Redactor,
    status: GetStatus,
    reload: Callable[[], Awaitable[dict[str, Any]]],
    journal: Journal | None = None,
    before_count: Callable[[str], Awaitable[None]] | None = None,
) -> dict[str, Method]:
    """Every method that the session does not serve itself. ``settings`` returns those that are active now. ``journal`` notes each
    exchange with a model. ``before_count`` gets the model of each token count, and may raise BridgeError."""
    chat, models = Chat(backends, settings, spending, journal), Models(backends)
    count_tokens = CountTokens(backends, settings, journal, before_count)
    vectors, tasks = EmbedRerank(backends, settings, spending, journal), TaskMethods(spending)
    tools = Tools(chat.run, count_tokens, models.list, lambda error: clean_error(error, redactor))
    methods: dict[str, Method] = {
        "chat": chat,
        "chat/check": CheckChat(backends, settings),
        "models/list": models.list,
        "models/get": models.get,
        "tokens/count": count_tokens,
        "tokens/fit": count_tokens.fit,
        "embed": vectors.embed,
        "rerank": vectors.rerank,
        "budgets/get": GetBudgets(spending),
        "tasks/get": tasks.get,
        "tasks/raise": tasks.raise_limits,
        "status": status,
        "config/reload": ReloadConfig(reload),
    }
    of_mcp: dict[str, Method] = {"tools/list": tools.list, "tools/call": tools.call}  # these read ``_meta`` themselves
    return {name: _without_meta(method) for name, method in methods.items()} | of_mcp


def _without_meta(method: Method) -> Method:
    """Validates and removes ``_meta``: as in MCP, it is metadata of the call, which no method and no provider gets."""

    async def call(context: RequestContext, params: Params) -> BaseModel | dict[str, Any]:
        meta = params.pop("_meta", None)
        if meta is not None:
            validate({"_meta": meta}, WithMeta)
        return await method(context, params)

    return call
