"""A provider in Anthropic's format that caches prompts by Anthropic's rules, as its page on prompt caching has them.

Owns the rules: the prefix is tools, system, messages; at most 4 breakpoints; a prefix below 1,024 tokens is not cached; each
breakpoint is looked up at its block and the 20 blocks before it; an entry lives for 5 minutes from its last use. Refuses
to know the bridge.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from tests.support.data import Json
from tests.support.provider_formats import FORMATS, Completion, line
from tests.support.upstream import Upstream
from tests.support.upstream_format import Request, Steps, http, stream

MINIMUM, MAX_BREAKPOINTS, LOOKBACK, TTL = 1_024, 4, 20, 300.0
CHARACTERS_PER_TOKEN = 4


class CachingProvider(Upstream):
    """``now`` is the clock of the cache, in seconds: a test moves it. ``usages`` are those that were reported, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.completions: list[Completion] = []
        self.usages: list[tuple[int, int, int]] = []  # (input with cached tokens, read, written)
        self._cache: dict[str, float] = {}

    @property
    def origin(self) -> str:
        return self.base_url.removesuffix("/v1")

    def begin(self) -> None:
        self.forget()
        self._cache.clear()
        self.usages.clear()
        self.now = 0.0

    def _reply_to(self, request: Request) -> Steps:
        wire, body = FORMATS["anthropic"], request.body
        blocks = list(blocks_of(body))
        marked = [at for at, block in enumerate(blocks) if "cache_control" in block]
        if len(marked) > MAX_BREAKPOINTS:
            message = f"A maximum of 4 blocks with cache_control may be provided. Found {len(marked)}."
            return http(wire.error(400, message), 400)
        total, read, written = self._count(blocks, marked)
        self.usages.append((total, read, written))
        completion = self.completions.pop(0) if len(self.completions) > 1 else self.completions[0]
        completion = Completion(
            completion.text, calls=completion.calls, finish=completion.finish, usage=(total, 20, read, written, 0)
        )
        if body.get("stream"):
            return stream(wire.events(completion), {"content-type": wire.stream_type})
        return http(line(wire.whole(completion)))

    def _count(self, blocks: list[Json], marked: list[int]) -> tuple[int, int, int]:
        prefixes: list[tuple[str, int]] = []
        digest, characters = hashlib.sha256(), 0
        for block in blocks:
            text = json.dumps(without_marks(block))
            digest.update(text.encode())
            characters += len(text)
            prefixes.append((digest.hexdigest(), characters // CHARACTERS_PER_TOKEN))
        live = {key for key, expires in self._cache.items() if expires > self.now}
        looked_up = [at for end in marked for at in range(max(end - LOOKBACK, 0), end + 1)]
        read = max((prefixes[at][1] for at in looked_up if prefixes[at][0] in live), default=0)
        long_enough = [at for at in marked if prefixes[at][1] >= MINIMUM]
        for at in long_enough:
            self._cache[prefixes[at][0]] = self.now + TTL
        written = max([prefixes[at][1] for at in long_enough] or [read]) - read
        return prefixes[-1][1], read, max(written, 0)


def blocks_of(body: Json) -> Any:
    """The blocks of the prefix, in Anthropic's order; a text that is not in a list is one block."""
    yield from body.get("tools") or ()
    system = body.get("system") or ()
    yield from [{"type": "text", "text": system}] if isinstance(system, str) else system
    for message in body["messages"]:
        content = message["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        yield from ({"role": message["role"], **block} for block in blocks)


def without_marks(block: Json) -> Json:
    return {name: value for name, value in block.items() if name != "cache_control"}
