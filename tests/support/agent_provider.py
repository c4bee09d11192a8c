"""A provider that gives the answers of a test one after the other, in OpenAI's, Anthropic's or Gemini's format.

Owns which answer is next. Refuses to know the bridge.
"""

from __future__ import annotations

import json

from tests.support.data import Json
from tests.support.provider_formats import FORMATS, Call, Completion, Format, line
from tests.support.upstream import Upstream
from tests.support.upstream_format import Request, Steps, http, stream

THREE = ("openai", "anthropic", "gemini")


class AgentProvider(Upstream):
    """``completions`` are given in turn, the last for good."""

    def play(self, wire: str, *completions: Completion) -> None:
        self.forget()
        self._wire, self._completions = FORMATS[wire], list(completions)

    @property
    def model(self) -> str:
        return self._wire.model

    @property
    def origin(self) -> str:
        return self.base_url.removesuffix("/v1")

    def sent(self) -> list[Json]:
        """The bodies of the requests, in order."""
        return [json.loads(request.raw) for request in self.requests]

    def _reply_to(self, request: Request) -> Steps:
        wire: Format = self._wire
        completion = self._completions.pop(0) if len(self._completions) > 1 else self._completions[0]
        if json.loads(request.raw).get("stream") or "stream" in request.path:
            return stream(wire.events(completion), {"content-type": wire.stream_type})
        return http(line(wire.whole(completion)))


def calling(arguments: str, name: str = "weather", finish: str = "tool_calls") -> Completion:
    return Completion(calls=[Call("call_1", name, arguments)], finish=finish)


class ManyProviders(Upstream):
    """OpenAI, Anthropic and Gemini at one address. Those in ``down`` respond with 500; the others give their answer."""

    def __init__(self) -> None:
        super().__init__()
        self.completions: dict[str, Completion] = {}
        self.down: set[str] = set()

    @property
    def origin(self) -> str:
        return self.base_url.removesuffix("/v1")

    def last_sent(self, wire: str) -> Json:
        return next(request.body for request in reversed(self.requests) if wire_of(request) == wire)

    def _reply_to(self, request: Request) -> Steps:
        name = wire_of(request)
        wire = FORMATS[name]
        if name in self.down:
            return http(wire.error(500, "down"), 500)
        if request.body.get("stream") or "stream" in request.path:
            return stream(wire.events(self.completions[name]), {"content-type": wire.stream_type})
        return http(line(wire.whole(self.completions[name])))


def wire_of(request: Request) -> str:
    if "/messages" in request.path:
        return "anthropic"
    return "gemini" if "enerateContent" in request.path else "openai"
