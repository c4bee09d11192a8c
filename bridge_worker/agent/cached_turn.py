"""One turn with ``cache: "auto"``: the hint for the backend before it is sent, and the reason in the receipt afterwards.

Owns the order of these two. Refuses to know a provider.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bridge_worker.agent.prompt_cache import CacheMemory, StableTools, conversation_key
from bridge_worker.core.ports import CacheHint, ChatRequest


class TurnCache:
    """What the turns of a process share."""

    def __init__(self) -> None:
        self.memory = CacheMemory()
        self.tools = StableTools()


class CachedTurn:
    """Changes ``request``: its tools get the same order and bytes in each turn."""

    def __init__(self, shared: TurnCache, params: Mapping[str, Any], request: ChatRequest) -> None:
        self._memory = shared.memory
        self._request = request
        text = ""
        if tools := request.options.get("tools"):
            request.options["tools"], text = shared.tools.of(tools)
        self._key = conversation_key(request.messages, params.get("task"))
        self._tools = text
        request.cache = CacheHint(self._key, len(text))

    def finish(self, result: dict[str, Any]) -> None:
        target = (result["provider"], result["receipt"]["deployment"], self._request.model, result["model"] or self._request.model)
        turn = self._memory.turn_of(self._request.messages, self._tools)
        missed = self._memory.finish(self._key, turn, target, result["usage"])
        self._request.receipt.cache = result["receipt"]["cache"] = {"missed": missed}
