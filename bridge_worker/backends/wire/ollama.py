"""Decoder of Ollama's native chat: a JSON object a line.

Owns the members of an object, the reasons to stop, and the error line that may come in the middle of a stream with status 200.
Refuses to know Ollama's OpenAI-compatible interface: that is `openai_chat`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bridge_worker.backends.wire import provider_errors
from bridge_worker.backends.wire.decoder import UNREADABLE
from bridge_worker.backends.wire.gathered import Draft, Gathered, tool_call
from bridge_worker.backends.wire.json_values import Json, count_of, objects_of, parse, text_of
from bridge_worker.backends.wire.sse import MAX_EVENT_BYTES
from bridge_worker.backends.wire.think_tags import ThinkSplitter
from bridge_worker.core.deltas import Delta, End, TokenUsage
from bridge_worker.errors import BridgeError

FINISH = {"stop": "stop", "length": "length", "tool_calls": "tool_calls"}
# Reasons that report no text of the model: the model was loaded or unloaded by an empty request.
FINISH_ERRORS = {"load": "bad_upstream_response", "unload": "bad_upstream_response", "error": "provider_unavailable"}
ENVELOPE_IGNORED = frozenset(
    """model created_at message done done_reason error total_duration load_duration prompt_eval_count prompt_eval_duration
    eval_count eval_duration prompt_eval_cached_count remote_model remote_host context response thinking""".split()
)
_MESSAGE_MEMBERS = frozenset(("role", "content", "thinking", "tool_calls", "images", "tool_name", "logprobs"))


class Ollama:
    """Decodes one response."""

    __slots__ = ("_calls", "_facts", "_finished", "_gathered", "_rest", "_streamed", "_think", "done", "failure")

    def __init__(self) -> None:
        self._rest = bytearray()
        self._think = ThinkSplitter()
        self._gathered = Gathered()
        self._facts = End()
        self._calls = 0
        self._finished = self._streamed = False
        self.done = False
        self.failure: BridgeError | None = None

    def feed(self, data: bytes) -> list[Delta]:
        self._raise_failure()
        if self.done:
            return []
        lines = data.split(b"\n")
        last = lines.pop()
        out: list[Delta] = []
        if lines:
            lines[0] = bytes(self._rest) + lines[0]
            self._rest = bytearray(last)
            for line in lines:
                self._line(line, out)
        else:
            self._rest += last
        if len(self._rest) > MAX_EVENT_BYTES and self.failure is None:
            self.failure = _too_large()
        return self._returned(out)

    def flush(self) -> list[Delta]:
        self._raise_failure()
        out: list[Delta] = []
        rest, self._rest = bytes(self._rest), bytearray()
        if not self.done:
            try:
                parse(rest)
            except ValueError:  # cut off; `end` reports that
                if rest.strip() and not self._streamed:
                    raise provider_errors.unreadable(rest) from None
            else:
                self._line(rest, out)
        self._end_text(out)
        return self._returned(out)

    def whole(self, body: bytes) -> list[Delta]:
        """A body of several lines is a stream, although none was requested."""
        out: list[Delta] = []
        try:
            value = parse(body)
        except ValueError:
            lines = body.split(b"\n")
        else:
            lines = []
            self._object(value, body, out)
        for line in lines:
            self._line(line, out)
        self._end_text(out)
        return self._returned(out)

    def end(self) -> End:
        self._raise_failure()
        if not self._finished:
            if self._streamed:
                raise provider_errors.interrupted()
            raise BridgeError("bad_upstream_response", "the provider's stream held no response; try again")
        self._facts.kept = list(self._gathered.kept)
        return self._facts

    @staticmethod
    def error(status: int, headers: Mapping[str, str], body: bytes) -> BridgeError:
        return provider_errors.from_response(status, headers, body)

    def _raise_failure(self) -> None:
        if self.failure is not None:
            raise self.failure

    def _returned(self, out: list[Delta]) -> list[Delta]:
        if out:
            self._streamed = True
        else:
            self._raise_failure()
        return out

    def _line(self, line: bytes, out: list[Delta]) -> None:
        if self.failure is not None or self.done or not line.strip():
            return
        if len(line) > MAX_EVENT_BYTES:
            self.failure = _too_large()
            return
        try:
            value = parse(line)
        except ValueError:
            self.failure = provider_errors.unreadable(line, "a line that can't be read")
            return
        self._object(value, line, out)

    def _object(self, value: Any, line: bytes, out: list[Delta]) -> None:
        try:
            self._read(value, out)
        except BridgeError as error:
            self.failure = error
        except UNREADABLE:
            self.failure = provider_errors.unreadable(line, "a line that can't be read")

    def _read(self, value: Any, out: list[Delta]) -> None:
        if not isinstance(value, dict):
            raise ValueError("not an object")
        if value.get("error") or ("message" not in value and provider_errors.error_in(value) is not None):
            raise provider_errors.from_value(value)
        if "message" not in value and isinstance(value.get("response"), str):  # of /api/generate
            value = {**value, "message": {"content": value["response"], "thinking": value.get("thinking")}}
        if "message" not in value and "done" not in value:
            raise ValueError("neither a message nor the end")
        self._facts.model = self._facts.model or text_of(value.get("model"))
        message = value.get("message")
        if isinstance(message, dict):
            self._message(message, value, out)
        elif message is not None:
            raise ValueError("the message is not an object")
        for name in value.keys() - ENVELOPE_IGNORED - {"logprobs"}:
            self._gathered.put(f"response.{name}", name, value[name])
        if value.get("done") or value.get("done_reason"):  # newer back ends leave `done` out
            self._finish(value)

    def _message(self, message: Json, event: Json, out: list[Delta]) -> None:
        delta = Draft()
        if thinking := text_of(message.get("thinking")):
            delta.reasoning.append(thinking)
            self._add(delta, *self._think.close())
        if content := text_of(message.get("content")):
            self._add(delta, *self._think.feed(content))
        elif isinstance(message.get("content"), list | dict):
            raise ValueError("the content is not a text")
        calls = message.get("tool_calls")
        for call in objects_of(calls):
            part = tool_call(call, self._gathered)
            if part is not None:
                # Whole calls, each in one object; Ollama's own index starts again with each object.
                part.index, self._calls = self._calls, self._calls + 1
                delta.tool_calls.append(part)
        images = message.get("images")
        if isinstance(images, list):
            urls = [f"data:image/png;base64,{image}" for image in images if isinstance(image, str)]
            delta.images += ({"type": "image_url", "image_url": {"url": url}} for url in urls)
        logprobs = event.get("logprobs") or message.get("logprobs")
        delta.logprobs += objects_of(logprobs)
        for name in message.keys() - _MESSAGE_MEMBERS:
            self._gathered.keep(f"message.{name}", name, message[name])
        delta.emit(out)

    def _finish(self, value: Json) -> None:
        facts = self._facts
        word = text_of(value.get("done_reason"))
        facts.raw_finish_reason = word
        # Versions before 0.3 send no reason. There the model stopped by itself, or reached a limit that is not reported.
        facts.finish_reason = FINISH.get(word) if word else None
        given, taken = count_of(value.get("prompt_eval_count")), count_of(value.get("eval_count"))
        total = given + taken if given is not None and taken is not None else None
        if given or taken:
            cached = count_of(value.get("prompt_eval_cached_count"))
            facts.usage = TokenUsage(input_tokens=given, output_tokens=taken, total_tokens=total, cached_input_tokens=cached)
        if word in FINISH_ERRORS:
            raise BridgeError(FINISH_ERRORS[word], f"the provider sent no text of the model, and the reason {word}")
        self._finished = self.done = True

    def _add(self, delta: Draft, reasoning: str, content: str) -> None:
        if reasoning:
            delta.reasoning.append(reasoning)
        if content:
            delta.content.append(content)

    def _end_text(self, out: list[Delta]) -> None:
        last = Draft()
        last.message = self._gathered.message()
        self._add(last, *self._think.close())
        last.emit(out)


def _too_large() -> BridgeError:
    return BridgeError("bad_upstream_response", f"the provider sent a line of more than {MAX_EVENT_BYTES} bytes; try again")
