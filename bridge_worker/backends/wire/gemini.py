"""Decoder of Gemini's generateContent, from AI Studio and Vertex AI: a JSON body, server-sent events, or a JSON array in pieces.

Owns the tables of parts, candidate members, finish and block reasons, and where LiteLLM looks for thought signatures when the
message comes back: in each tool call, and first in ``thought_signatures`` for the text. Refuses to know who hosts the model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bridge_worker.backends.wire import provider_errors
from bridge_worker.backends.wire.decoder import EventStreamDecoder
from bridge_worker.backends.wire.gathered import Draft, Gathered, image_of, joined_base64
from bridge_worker.backends.wire.gemini_calls import Calls
from bridge_worker.backends.wire.gemini_facts import annotations_of, citations_of, logprobs_of, usage_of
from bridge_worker.backends.wire.json_array import JsonArray
from bridge_worker.backends.wire.json_values import Json, name_of, object_of, objects_of, parse, text_of
from bridge_worker.core.deltas import Delta, End
from bridge_worker.errors import BridgeError

# None: no finish reason of the bridge's fits; with an empty response it is an error.
FINISH: dict[str, str | None] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "CONTINUATION": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "LANGUAGE": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "MODEL_ARMOR": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "IMAGE_PROHIBITED_CONTENT": "content_filter",
    "IMAGE_RECITATION": "content_filter",
    "ESCALATION": "content_filter",
    "OTHER": None,
    "IMAGE_OTHER": None,
    "NO_IMAGE": None,
}
# The model's own output could not be used.
FINISH_ERRORS = {
    "MALFORMED_FUNCTION_CALL": "bad_upstream_response",
    "UNEXPECTED_TOOL_CALL": "bad_upstream_response",
    "TOO_MANY_TOOL_CALLS": "bad_upstream_response",
    "MALFORMED_RESPONSE": "bad_upstream_response",
    "MISSING_THOUGHT_SIGNATURE": "rejected_by_provider",
}
_NO_FINISH = ("", "FINISH_REASON_UNSPECIFIED")
# Members of an event: how the response was made, nothing of what it is.
ENVELOPE_IGNORED = frozenset(
    "candidates usageMetadata modelVersion responseId createTime promptFeedback error sdkHttpResponse modelStatus".split()
)
_PART_MEMBERS = frozenset(("text", "thought", "thoughtSignature"))
_BOM, _BLANKS = b"\xef\xbb\xbf", b" \t\r\n"


class Gemini(EventStreamDecoder):
    """Decodes one response."""

    __slots__ = (
        "_audio",
        "_audio_format",
        "_before",
        "_begun",
        "_calls",
        "_facts",
        "_filled",
        "_finish_message",
        "_first",
        "_gathered",
        "_grounding",
        "_served",
        "_signatures",
        "_texts",
        "_usage",
    )

    def __init__(self) -> None:
        super().__init__()
        self._begun, self._before = False, b""  # the array or the events; bytes before these, without blanks
        self._facts = End()
        self._first: Any = None  # the index of the one candidate that counts
        self._calls = Calls()
        self._gathered = Gathered()
        self._usage: Json = {}
        self._texts: list[str] = []  # of the content; citations count its bytes
        self._filled = False  # anything but signatures arrived
        self._signatures: tuple[list[str], list[str]] = ([], [])  # of texts, of thoughts and other parts
        self._served: dict[str, Json] = {}  # tools that the provider ran, by id
        self._grounding: Json = {}
        self._audio: list[str] = []
        self._audio_format = ""
        self._finish_message: str | None = None

    def feed(self, data: bytes) -> list[Delta]:
        if not self._begun:
            head = data.lstrip(_BOM + _BLANKS)
            before = data[: len(data) - len(head)].translate(None, _BLANKS)
            self._before = (self._before + before)[: len(_BOM) + 1]
            self._begun = bool(head)
            if head[:1] == b"[" and self._before in (b"", _BOM):
                self._events = JsonArray()
                data = head
        return super().feed(data)

    def on_event(self, name: str, data: bytes, out: list[Delta]) -> None:
        if data.strip() == b"[DONE]":  # from gateways
            self.done = True
            return
        event = parse(data)
        if name == "error":
            raise provider_errors.from_value(event)
        self._read(event, out)

    def is_error(self, value: Any) -> bool:
        return not object_of(value).get("candidates") and "promptFeedback" not in object_of(value) and super().is_error(value)

    def on_body(self, value: Any, body: bytes | bytearray, out: list[Delta]) -> None:
        for event in value if isinstance(value, list) else [value]:
            self._read(event, out)
        if self._first is None:
            raise BridgeError(
                "bad_upstream_response", f"the provider responded without any candidate: {provider_errors.quote(body)}"
            )
        self.finished = True

    def on_end(self, out: list[Delta]) -> None:
        delta = Draft()
        if self.finished:
            self._calls.close(delta)
        delta.annotations += annotations_of(self._grounding, "".join(self._texts) if self._grounding else "")
        self._add_state(delta)
        delta.emit(out)

    def facts(self) -> End:
        facts = self._facts
        word = facts.raw_finish_reason
        if not self._filled and word and word in FINISH and FINISH[word] is None:
            raise BridgeError("bad_upstream_response", self._broken_off(word))
        if facts.finish_reason == "stop" and self._calls.count:
            facts.finish_reason = "tool_calls"
        facts.usage = usage_of(self._usage)
        facts.kept = list(self._gathered.kept)
        return facts

    # -- an event ------------------------------------------------------------------------------------------------------------

    def _read(self, event: Any, out: list[Delta]) -> None:
        if not isinstance(event, dict):
            raise ValueError("the event is not an object")
        candidates = event.get("candidates")
        if not candidates and provider_errors.error_in(event) is not None:
            raise provider_errors.from_value(event)
        if usage := event.get("usageMetadata"):
            self._usage = {**self._usage, **object_of(usage)}
        if candidates:
            if self._add_plain(candidates, out):
                return
            self._read_candidates(candidates, out)
        self._read_envelope(event)
        if event.get("error"):
            raise provider_errors.from_value(event)

    def _add_plain(self, candidates: Any, out: list[Delta]) -> bool:
        """The commonest event, one piece of text, without the work for all others. False for any other."""
        if self._first is None or len(candidates) != 1 or type(candidate := candidates[0]) is not dict:
            return False
        if (
            not candidate.keys() <= _PLAIN
            or candidate.get("index", 0) != self._first
            or type(content := candidate.get("content")) is not dict
        ):
            return False
        parts = content.get("parts")
        if type(parts) is not list or len(parts) != 1 or type(part := parts[0]) is not dict or part.keys() != _ONLY_TEXT:
            return False
        text = part["text"]
        if type(text) is not str:
            return False
        if text:
            self._texts.append(text)
            out.append(Delta(text))
            self._filled = True
        return True

    def _read_candidates(self, candidates: Any, out: list[Delta]) -> None:
        for candidate in objects_of(candidates):
            index = candidate.get("index", 0)
            if self._first is None:
                self._first = index
            if index == self._first:
                delta = Draft()
                try:
                    self._candidate(candidate, delta)
                finally:
                    delta.emit(out)

    def _read_envelope(self, event: Json) -> None:
        facts = self._facts
        facts.id = facts.id or name_of(event.get("responseId"))
        facts.model = facts.model or text_of(event.get("modelVersion"))
        for name in event.keys() - ENVELOPE_IGNORED:
            self._gathered.put(f"response.{name}", name, event[name])
        feedback = object_of(event.get("promptFeedback"))
        if reason := text_of(feedback.get("blockReason")):
            words = text_of(feedback.get("blockReasonMessage"))
            refused = f"the provider refused the prompt: blockReason {reason[:200]}"
            # Whatever the reason, the prompt was refused by a policy.
            raise BridgeError("content_policy", f"{refused}: {provider_errors.quote(words)}" if words else refused)

    def _candidate(self, candidate: Json, delta: Draft) -> None:
        content = candidate.get("content")
        if content is not None and not isinstance(content, dict):
            raise ValueError("the content is not an object")
        parts = object_of(content).get("parts")
        if parts is not None and not isinstance(parts, list):
            raise ValueError("the parts are not a list")
        for part in parts or ():
            self._part(part, delta)
        for name in candidate.keys() - {"content", "finishReason", "finishMessage", "index"}:
            if read := CANDIDATE.get(name):
                read(self, candidate[name], delta)
            elif name not in CANDIDATE:
                self._gathered.put(f"candidate.{name[:80]}", name, candidate[name])
        self._finish(candidate)

    def _finish(self, candidate: Json) -> None:
        message = text_of(candidate.get("finishMessage"))
        word = text_of(candidate.get("finishReason")) or ""
        self._finish_message = message or self._finish_message
        if word in _NO_FINISH:
            return
        self._facts.raw_finish_reason = word
        self._facts.finish_reason = FINISH.get(word)
        self.finished = True
        if word in FINISH_ERRORS:
            raise BridgeError(FINISH_ERRORS[word], self._broken_off(word))
        self._gathered.put("candidate.finishMessage", "finish_message", message)

    def _broken_off(self, word: str) -> str:
        broken = f"the provider broke the response off: finishReason {word}"
        return f"{broken}: {provider_errors.quote(self._finish_message)}" if self._finish_message else broken

    # -- parts ---------------------------------------------------------------------------------------------------------------

    def _part(self, part: Any, delta: Draft) -> None:
        if not isinstance(part, dict):
            raise ValueError("the part is not an object")
        signature = text_of(part.get("thoughtSignature"))
        kinds = [kind for kind in PARTS if part.get(kind) is not None]
        for kind in kinds:
            PARTS[kind](self, part, signature, delta)
        if not kinds and signature:  # a signature alone belongs to what was before it
            self._signatures[part.get("thought") is True].append(signature)
        rest = {
            name: value for name, value in part.items() if name not in _PART_MEMBERS and name not in PARTS and value is not None
        }
        for name in rest:
            self._gathered.kept[f"message.parts.{name[:80]}"] = None
        if rest:
            self._gathered.keep(f"message.parts.{next(iter(rest))[:80]}", "parts", [part if not kinds else rest])

    def _text(self, part: Json, signature: str | None, delta: Draft) -> None:
        text = part["text"]
        if not isinstance(text, str):
            raise ValueError("the text is not a text")
        thought = part.get("thought") is True
        if text and thought:
            delta.reasoning.append(text)
        elif text:
            delta.content.append(text)
            self._texts.append(text)
        self._filled = self._filled or bool(text)
        if signature:
            self._signatures[thought].append(signature)

    def _call(self, part: Json, signature: str | None, delta: Draft) -> None:
        call = part["functionCall"]
        if not isinstance(call, dict):
            raise ValueError("the function call is not an object")
        self._filled = True
        self._calls.read(call, signature, delta)

    def _blob(self, part: Json, signature: str | None, delta: Draft) -> None:
        blob = object_of(part["inlineData"])
        kind, data = text_of(blob.get("mimeType")) or "", text_of(blob.get("data"))
        self._filled = True
        if signature:
            self._signatures[1].append(signature)
        if data and (image := image_of(kind, data)):
            delta.images.append(image)
        elif data and kind.startswith("audio/"):
            self._audio_format = self._audio_format or kind.removeprefix("audio/")
            self._audio.append(data)
        else:
            self._gathered.keep("message.parts.inlineData", "parts", [part])

    def _file(self, part: Json, signature: str | None, delta: Draft) -> None:
        file = object_of(part["fileData"])
        uri = text_of(file.get("fileUri")) or ""
        self._filled = True
        if uri.startswith("https://") and uri.isascii() and str(file.get("mimeType")).startswith("image/"):
            delta.images.append({"type": "image_url", "image_url": {"url": uri}})
        else:
            self._gathered.keep("message.parts.fileData", "parts", [part])

    def _keep_part(self, part: Json, signature: str | None, delta: Draft) -> None:
        """Code that the provider ran, and its result: LiteLLM has no place for them in a request."""
        self._filled = True
        kind = next(kind for kind in _KEPT if kind in part)
        self._gathered.keep(f"message.parts.{kind}", "parts", [part])

    def _served_call(self, part: Json, signature: str | None, delta: Draft) -> None:
        """Keeps the call in the shape from which LiteLLM makes a toolCall and a toolResponse again."""
        call = object_of(part["toolCall"])
        served = self._served_of(call)
        served["args"] = call.get("args")
        if signature:
            served["thought_signature"] = signature

    def _served_response(self, part: Json, signature: str | None, delta: Draft) -> None:
        response = object_of(part["toolResponse"])
        served = self._served_of(response)
        served["response"] = response.get("response")
        if signature:
            served["response_thought_signature"] = signature

    def _served_of(self, call: Json) -> Json:
        self._gathered.kept["message.parts.toolCall"] = None
        served = self._served.setdefault(str(call.get("id")), {"tool_type": None, "id": call.get("id"), "args": None})
        served["tool_type"] = call.get("toolType") or served["tool_type"]
        return served

    # -- the candidate's other members -----------------------------------------------------------------------------------------

    def _safety(self, value: Any, delta: Draft) -> None:
        """Ratings come with each event; those that blocked the response are kept."""
        blocked = [rating for rating in objects_of(value) if rating.get("blocked")]
        self._gathered.put("candidate.safetyRatings", "safety_ratings", blocked)

    def _ground(self, value: Any, delta: Draft) -> None:
        """Parts of it come in different events; lists are whole in each."""
        known = {name: member for name, member in object_of(value).items() if member}
        self._grounding = {**self._grounding, **known}
        self._gathered.put("candidate.groundingMetadata", "grounding_metadata", self._grounding)

    def _cite(self, value: Any, delta: Draft) -> None:
        delta.annotations += citations_of(object_of(value))

    def _url_context(self, value: Any, delta: Draft) -> None:
        self._gathered.put("candidate.urlContextMetadata", "url_context_metadata", value)

    def _logprobs(self, value: Any, delta: Draft) -> None:
        delta.logprobs += logprobs_of(object_of(value))

    def _avg_logprobs(self, value: Any, delta: Draft) -> None:
        self._gathered.put("candidate.avgLogprobs", "avg_logprobs", value)

    # -- the end -------------------------------------------------------------------------------------------------------------

    def _add_state(self, delta: Draft) -> None:
        """LiteLLM puts the first of ``thought_signatures`` on the text: the last that a text had, for Gemini signs a turn's end.

        It does so for a text that is a string, so that a message with nothing but a signature has the text "".
        """
        of_text, of_others = self._signatures
        if signatures := [*reversed(of_text), *of_others]:
            self._gathered.put("message.parts.thoughtSignature", "thought_signatures", signatures)
        if self._served:
            self._gathered.fields["server_side_tool_invocations"] = list(self._served.values())
        delta.message = self._gathered.message()
        if of_text and not self._texts:
            delta.message["content"] = ""
        if self._audio:
            delta.message["audio"] = {"data": joined_base64(self._audio), "format": self._audio_format}


_PLAIN = frozenset(("content", "index", "safetyRatings", "tokenCount"))
_ONLY_TEXT = {"text"}
_KEPT = ("executableCode", "codeExecutionResult", "functionResponse")
# Kinds of parts, by their member. Any other part is kept whole.
PARTS: dict[str, Callable[[Gemini, Json, str | None, Draft], None]] = {
    "text": Gemini._text,
    "functionCall": Gemini._call,
    "inlineData": Gemini._blob,
    "fileData": Gemini._file,
    "executableCode": Gemini._keep_part,
    "codeExecutionResult": Gemini._keep_part,
    "functionResponse": Gemini._keep_part,
    "toolCall": Gemini._served_call,
    "toolResponse": Gemini._served_response,
}
# Members of a candidate besides its content and finish; None: how it was made. Any other is kept.
CANDIDATE: dict[str, Callable[[Gemini, Any, Draft], None] | None] = {
    "safetyRatings": Gemini._safety,
    "groundingMetadata": Gemini._ground,
    "citationMetadata": Gemini._cite,
    "urlContextMetadata": Gemini._url_context,
    "logprobsResult": Gemini._logprobs,
    "avgLogprobs": Gemini._avg_logprobs,
    "tokenCount": None,
}
