"""Texts by key that the server process keeps for all engines, each until it expires.

Owns both sides of the calls. Refuses to know what a text is: the responses of LiteLLM's cache, in their JSON.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from bridge_worker.engines.copies import Call

GET, SET = "texts/get", "texts/set"


class KeptTexts:
    """An engine's side."""

    def __init__(self, call: Call) -> None:
        self._call = call

    async def get(self, key: str) -> str | None:
        found: str | None = await self._call(GET, {"key": key})
        return found

    async def set(self, key: str, text: str, seconds: float, most: int) -> None:
        """Keeps ``most`` texts at most; those that expire first make room."""
        await self._call(SET, {"key": key, "text": text, "seconds": seconds, "most": most})


class TextsService:
    """The server process's side."""

    def __init__(self) -> None:
        self._texts: dict[str, tuple[float, str]] = {}

    async def serve(self, call: Mapping[str, Any]) -> str | None:
        now, key = time.monotonic(), call["key"]
        if call["name"] == GET:
            expires, text = self._texts.get(key, (0.0, None))
            return text if expires > now else None
        self._texts[key] = (now + call["seconds"], call["text"])
        if len(self._texts) > call["most"]:
            self._texts = {key: kept for key, kept in self._texts.items() if kept[0] > now}
        while len(self._texts) > call["most"]:
            del self._texts[min(self._texts, key=lambda key: self._texts[key][0])]
        return None
