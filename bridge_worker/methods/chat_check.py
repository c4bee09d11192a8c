"""The method ``chat/check``: predicts whether a chat would work, and the most that it could cost.

Owns the comparison of params with the facts about the model. Refuses to call a provider.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping

from bridge_worker.config.settings import Settings
from bridge_worker.core.ports import Backends, Expense, Params, RequestContext
from bridge_worker.methods.params import check_provider_params, validate
from bridge_worker.schema.chat_request import OF_THE_BRIDGE, ChatParams
from bridge_worker.schema.models import CapabilityGap, ChatCheck, ModelInfo
from bridge_worker.schema.tokens import TokenCount

# Members of ChatParams that need no ability of the model.
_NO_OPTIONS = {"model", "messages", "stream", "metadata"} | OF_THE_BRIDGE
_PARTS = {"image_url": "vision", "input_audio": "audio_input", "file": "pdf_input"}


class CheckChat:
    def __init__(self, backends: Backends, settings: Callable[[], Settings]) -> None:
        self._backends = backends
        self._settings = settings

    async def __call__(self, context: RequestContext, params: Params) -> ChatCheck:
        valid = validate(params, ChatParams, self._settings().image_policy)
        check_provider_params(params, self._settings())
        services = await self._backends.services(valid.model)
        info = await asyncio.to_thread(services.describe, valid.model)
        count = await asyncio.to_thread(services.count, valid.model, params["messages"], params.get("tools"))
        limit = valid.max_completion_tokens or valid.max_tokens or info.limits.output_tokens
        without = _without_effect(params, info)
        drops = info.unsupported_parameters == "dropped"
        gaps = [*_gaps(params, info), *_too_long(count, info)]
        named = {gap.member for gap in gaps}
        gaps += [_refused(name) for name in without if name not in named and not drops]
        expense = Expense(count.input_tokens, limit, _writes_cache(params))
        countable = not any(_media(params))  # the cost of an image is not in the count
        return ChatCheck(
            ok=not gaps and info.key_present is not False,
            requested_model=valid.model,
            deployments=info.deployments,
            provider=info.provider,
            key_present=info.key_present,
            gaps=gaps,
            dropped=without if drops else [],
            **count.model_dump(),
            max_output_tokens=limit,
            max_cost_usd=await asyncio.to_thread(services.cost_usd, valid.model, expense) if countable else None,
        )


def _without_effect(params: Params, info: ModelInfo) -> list[str]:
    """The options of the request that the model does not support."""
    if info.parameters is None:
        return []
    given = (name for name in ChatParams.model_fields if name not in _NO_OPTIONS and params.get(name) is not None)
    return [name for name in given if name not in info.parameters]


def _refused(name: str) -> CapabilityGap:
    return CapabilityGap(member=name, reason="the model does not have this parameter, and the chat would be rejected; leave it out")


def _gaps(params: Params, info: ModelInfo) -> Iterator[CapabilityGap]:
    supports = info.supports.model_dump()
    if info.mode not in (None, "chat", "completion", "responses"):
        yield CapabilityGap(member="model", reason=f"it is a model for {info.mode}, not for chat")
    if params.get("tools") and supports["tools"] is False:
        yield CapabilityGap(member="tools", reason="the model calls no tools")
    if (params.get("response_format") or {}).get("type") == "json_schema" and supports["json_schema"] is False:
        yield CapabilityGap(member="response_format", reason="the model does not follow a JSON Schema")
    if (params.get("thinking") or {}).get("type") in ("enabled", "adaptive") and supports["reasoning"] is False:
        yield CapabilityGap(member="thinking", reason="the model does not reason")
    for member, type in _media(params):
        if supports[_PARTS[type]] is False:
            yield CapabilityGap(member=member, reason=f"the model does not accept {type}")


def _media(params: Params) -> Iterator[tuple[str, str]]:
    """(member, type) of each part that is not text."""
    for at, message in enumerate(params["messages"]):
        content = message.get("content")
        for position, part in enumerate(content if isinstance(content, list) else ()):
            if part["type"] in _PARTS:
                yield f"messages[{at}].content[{position}]", part["type"]


def _too_long(count: TokenCount, info: ModelInfo) -> Iterator[CapabilityGap]:
    limit = info.limits.context_tokens
    if limit is not None and count.input_tokens > limit:
        yield CapabilityGap(member="messages", reason=f"{count.input_tokens} tokens are more than the model's {limit}")


def _writes_cache(value: object) -> bool:
    """Whether a part is marked for the provider's prompt cache; writing to it costs more than reading."""
    if isinstance(value, Mapping):
        return bool(value.get("cache_control")) or any(map(_writes_cache, value.values()))
    return isinstance(value, list) and any(map(_writes_cache, value))
