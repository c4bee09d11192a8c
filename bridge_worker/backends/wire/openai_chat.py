"""Decoder of OpenAI's chat completions, as OpenAI and all that copy it send them.

Owns the members of this format and their variants at Azure, OpenRouter, Groq, Mistral, Together, DeepSeek, xAI, Perplexity, vLLM,
SGLang, LM Studio, llama.cpp, Ollama's /v1 and LiteLLM's proxy. Each set is a table: finish words, members of the event, the choice
and the message, kinds of content parts. A member in no table is kept in the message and named. Refuses to know which provider
responds: a variant is recognised by its shape.
"""

from __future__ import annotations

from typing import Any

from bridge_worker.backends.wire import provider_errors
from bridge_worker.backends.wire.decoder import EventStreamDecoder
from bridge_worker.backends.wire.gathered import Draft
from bridge_worker.backends.wire.json_values import Json, first, name_of, object_of, objects_of, parse, text_of
from bridge_worker.backends.wire.openai_message import MessageReader
from bridge_worker.backends.wire.openai_usage import cost_of, usage_of
from bridge_worker.backends.wire.repeated_events import RepeatedEvents
from bridge_worker.core.deltas import Delta, End, ToolCallDelta
from bridge_worker.errors import BridgeError

# In lower case. A word that is not here leaves finish_reason None.
FINISH = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
    "function_call": "tool_calls",
    "tool_call": "tool_calls",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "max_output_tokens": "length",
    "max_new_tokens": "length",
    "model_length": "length",  # Mistral: the context is full
    "model_context_window_exceeded": "length",  # Zhipu
    "eos": "stop",  # Together
    "eos_token": "stop",  # Hugging Face
    "stop_sequence": "stop",
    "stop_str": "stop",
    "end_turn": "stop",
    "complete": "stop",
    "completed": "stop",
    "refusal": "content_filter",
    "safety": "content_filter",
    "recitation": "content_filter",
    "sensitive": "content_filter",  # Zhipu
    "prohibited_content": "content_filter",
    "blocklist": "content_filter",
    "guardrail_intervened": "content_filter",
}
# These words report that the response broke off: an error, with the text so far as its partial.
FINISH_ERRORS = {
    "error": "provider_unavailable",
    "network_error": "provider_unavailable",  # Zhipu
    "insufficient_system_resource": "provider_unavailable",  # DeepSeek
    "server_error": "provider_unavailable",
    "timeout": "timeout",
    "malformed_function_call": "bad_upstream_response",  # Gemini behind a gateway
}
_NO_FINISH = ("", "null", "none")

# Members of an event or body: how the response was made, nothing of what it is.
ENVELOPE_IGNORED = frozenset(
    """id model object created choices usage error system_fingerprint service_tier obfuscation provider type timings time_info stats
    x_groq prompt_token_ids prompt_logprobs kv_transfer_params metadata request_id warnings p""".split()
)
# A choice's members besides these and delta, message, text are kept.
CHOICE_IGNORED = frozenset(
    ("index", "delta", "message", "finish_reason", "native_finish_reason", "logprobs", "error", "seed", "text", "usage")
)
_DONE = b"[DONE]"


class OpenAIChat(EventStreamDecoder):
    """Decodes one response."""

    __slots__ = ("_broken", "_choice_shape", "_event_shape", "_facts", "_first", "_reader", "_repeated", "_usage")

    def __init__(self) -> None:
        super().__init__()
        self._facts = End()
        self._first: Any = None  # the index of the one choice that counts
        self._usage: Json = {}
        self._broken: BridgeError | None = None  # what a finish word reports
        self._reader = MessageReader()
        self._repeated = RepeatedEvents("content")
        # The members of an event and its choice that were last found to be quiet: a next event of the same shape is plain text.
        self._event_shape: tuple[str, ...] = ("choices",)  # an empty event must not fit it
        self._choice_shape: tuple[str, ...] = ("",)

    def on_event(self, name: str, data: bytes, out: list[Delta]) -> None:
        if text := self._repeated.text(data):
            out.append(Delta(text))
            return
        if data == _DONE:
            self.done = True
            return
        try:
            event = parse(data)
        except ValueError:
            if data.strip() == _DONE:
                self.done = True
                return
            if name == "error":
                raise provider_errors.from_value(data.decode("utf-8", "replace")) from None
            raise
        if type(event) is dict and tuple(event) == self._event_shape:
            choices = event["choices"]
            if choices and len(choices) == 1 and type(choice := choices[0]) is dict and tuple(choice) == self._choice_shape:
                quiet = not (choice.get("finish_reason") or choice.get("logprobs") or event.get("usage"))
                quiet = quiet and choice.get("index") == self._first
                if quiet and type(delta := choice["delta"]) is dict and self._reader.think.decided and _add_plain(delta, out):
                    if text := delta.get("content"):
                        self._repeated.learn(data, text)
                    return
        self._any_event(name, event, out)

    def is_error(self, value: Any) -> bool:
        """An error in a value with choices is read after them, so that their text is not lost."""
        return not object_of(value).get("choices") and super().is_error(value)

    def on_body(self, value: Any, body: bytes | bytearray, out: list[Delta]) -> None:
        choices = value["choices"]
        if not choices or not isinstance(choices[0], dict):
            raise BridgeError("bad_upstream_response", f"the provider responded without any choice: {provider_errors.quote(body)}")
        self.finished = True  # a plain response is whole, even without a finish reason
        self._read(value, out, plain=True)

    def on_end(self, out: list[Delta]) -> None:
        self._reader.end(out)

    def facts(self) -> End:
        facts = self._facts
        facts.usage = usage_of(self._usage)
        facts.cost_usd = cost_of(self._usage)
        facts.kept = list(self._reader.gathered.kept)
        return facts

    # -- an event ------------------------------------------------------------------------------------------------------------

    def _any_event(self, name: str, event: Any, out: list[Delta]) -> None:
        if event is None or event == {}:  # a ping
            return
        if name == "error" or not isinstance(event, dict):
            raise provider_errors.from_value(event) if name == "error" or provider_errors.error_in(event) else ValueError
        if not event.get("choices") and not event.get("usage") and provider_errors.error_in(event) is not None:
            raise provider_errors.from_value(event)
        self._read(event, out)

    def _read(self, event: Json, out: list[Delta], *, plain: bool = False) -> None:
        facts = self._facts
        facts.id = facts.id or name_of(event.get("id"))
        facts.model = facts.model or text_of(event.get("model"))
        groq = object_of(event.get("x_groq"))
        self._count(groq.get("usage"))
        self._count(event.get("usage"))
        quiet = self._read_envelope(event)
        choices = event.get("choices")
        errors = [event.get("error"), groq.get("error")]
        for choice in objects_of(choices):
            errors.append(choice.get("error"))
            index = choice.get("index")
            if self._first is None:
                self._first = index
            if index is None or index == self._first:
                quiet = self._read_choice(choice, out, plain=plain) and quiet
        for error in errors:
            if error:
                raise provider_errors.from_value({"error": error})
        if self._broken is not None:
            raise self._broken
        if quiet and isinstance(choices, list) and len(choices) == 1 and isinstance(choices[0], dict) and "delta" in choices[0]:
            self._event_shape, self._choice_shape = tuple(event), tuple(choices[0])

    def _count(self, usage: Any) -> None:
        """The last usage counts, unless it has only zeros."""
        if isinstance(usage, dict) and (not self._usage or any(usage.values())):
            self._usage = usage

    def _read_envelope(self, event: Json) -> bool:
        """Whether none of its members has to be kept."""
        unknown = event.keys() - ENVELOPE_IGNORED
        for name in sorted(unknown):
            value = event[name]
            if name == "citations":
                self._reader.cite(value)
            if name in ("prompt_filter_results", "prompt_annotations"):  # Azure, before the text
                self._reader.gathered.put(f"response.{name}", "prompt_filter_results", value)
            else:
                self._reader.gathered.put(f"response.{name}", name, value)
        return not unknown

    def _read_choice(self, choice: Json, out: list[Delta], *, plain: bool) -> bool:
        """Whether it is quiet: nothing of it has to be kept."""
        # Some send both: Perplexity an empty delta in a plain response, others the text so far as a message in each event.
        message = first(choice.get("message"), choice.get("delta")) if plain else first(choice.get("delta"), choice.get("message"))
        text = choice.get("text")  # a completion's text, from servers that mix the two
        if message is None and isinstance(text, str):
            message = {"content": text}
        delta = Draft()
        if isinstance(message, dict):
            self._reader.read(message, delta)
        elif message is None or isinstance(message, str):
            self._reader.split(message or "", delta)
        else:
            raise ValueError("the message is not an object")
        self._count(choice.get("usage"))  # Moonshot
        delta.logprobs += self._logprobs(choice.get("logprobs"))
        delta.emit(out)
        unknown = choice.keys() - CHOICE_IGNORED
        for name in sorted(unknown):
            self._reader.gathered.put(f"choice.{name}", name, choice[name])
        if (word := choice.get("finish_reason")) is not None:
            self._finish(word, choice.get("native_finish_reason"))
        return not unknown

    def _finish(self, word: Any, native: Any) -> None:
        word = name_of(word) or ""
        plain = word.lower()
        if plain in _NO_FINISH:
            return
        facts = self._facts
        facts.raw_finish_reason = text_of(native) or word
        facts.finish_reason = FINISH.get(plain)
        if plain in FINISH_ERRORS:
            broke_off = f"the provider broke the response off: finish_reason {facts.raw_finish_reason}"
            self._broken = BridgeError(FINISH_ERRORS[plain], broke_off, extra=_DEADLINE if plain == "timeout" else {})
        self.finished = True

    def _logprobs(self, logprobs: Any) -> list[Any]:
        if not isinstance(logprobs, dict):
            return []
        self._reader.gathered.keep("choice.logprobs.refusal", "refusal_logprobs", logprobs.get("refusal"))
        tokens, numbers = logprobs.get("tokens"), logprobs.get("token_logprobs")
        if isinstance(tokens, list) and isinstance(numbers, list):  # Together, in the older form
            return [{"token": token, "logprob": number} for token, number in zip(tokens, numbers, strict=False)]
        return list(objects_of(logprobs.get("content")))


def _add_plain(delta: Json, out: list[Delta]) -> bool:
    """The commonest deltas without the work for all others: one text, or a piece of a call's arguments. False for any other."""
    rest = [name for name, value in delta.items() if value is not None and value != "" and name != "role"]
    if len(rest) != 1:
        return not rest
    name = rest[0]
    value = delta[name]
    if type(value) is str:
        if name == "content":
            out.append(Delta(value))
            return True
        if name in ("reasoning_content", "reasoning"):
            out.append(Delta(None, value))
            return True
    elif name == "tool_calls" and type(value) is list and len(value) == 1 and type(call := value[0]) is dict:
        function = call.get("function")
        if call.keys() == _PIECE and type(function) is dict and function.keys() == _ARGUMENTS and type(call["index"]) is int:
            arguments = function["arguments"]
            if type(arguments) is str:
                out.append(Delta(None, None, [ToolCallDelta(call["index"], None, None, arguments)]))
                return True
    return False


_PIECE, _ARGUMENTS = {"index", "function"}, {"arguments"}
_DEADLINE: dict[str, object] = {"deadline": "provider"}
