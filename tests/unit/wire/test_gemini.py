"""Gemini's generateContent: its tables, and cases from public reports, plain, as events and as a JSON array in pieces."""

from __future__ import annotations

import base64
import json
import time
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_worker.backends.wire import gemini
from bridge_worker.backends.wire.gemini import Gemini
from bridge_worker.backends.wire.gemini_calls import steps
from bridge_worker.backends.wire.gemini_facts import usage_of
from bridge_worker.backends.wire.json_array import JsonArray
from bridge_worker.core.deltas import TokenUsage
from bridge_worker.errors import KINDS, BridgeError
from tests.unit.wire.joined import plain, streamed
from tests.unit.wire.three_forms import FormCase, Json, check_case, check_cuts, check_hostile, check_truncated, results

USAGE = {"promptTokenCount": 3, "candidatesTokenCount": 2, "totalTokenCount": 5}


def body(*parts: Any, finish: Any = "STOP", candidate: Json | None = None, **more: Any) -> Json:
    one = {"content": {"role": "model", "parts": list(parts)}, "finishReason": finish, "index": 0, **(candidate or {})}
    return {"candidates": [one], "usageMetadata": USAGE, "modelVersion": "gemini", "responseId": "r1", **more}


def pieces(part: Any) -> list[Any]:
    """A part as a stream sends it: a text in two, its signature with the second."""
    text = part.get("text") if isinstance(part, dict) else None
    if not isinstance(text, str) or len(text) < 2:
        return [part]
    unsigned = {name: value for name, value in part.items() if name != "thoughtSignature"}
    return [{**unsigned, "text": text[: len(text) // 2]}, {**part, "text": text[len(text) // 2 :]}]


def stream_events(whole: Any) -> list[Any]:
    """The events of a body: a part each, and what belongs to the end with the last."""
    try:
        candidate = whole["candidates"][0]
        parts = [piece for part in candidate["content"]["parts"] for piece in pieces(part)]
    except (TypeError, KeyError, IndexError):
        return [whole]
    envelope = {name: whole[name] for name in ("usageMetadata", "modelVersion", "responseId") if name in whole}
    index = {"index": candidate["index"]} if "index" in candidate else {}
    events = [{"candidates": [{"content": {"role": "model", "parts": [part]}, **index}], **envelope} for part in parts]
    end = {**whole, "candidates": [{**candidate, "content": {"role": "model", "parts": [{"text": ""}]}}]}
    return [*events, end]


def sse(*values: Any) -> bytes:
    return "".join(f"data: {json.dumps(value)}\r\n\r\n" for value in values).encode()


def array(*values: Any) -> bytes:
    return json.dumps(list(values), indent=2).encode()


def forms(*events: Any) -> dict[str, bytes]:
    return {"events": sse(*events), "array": array(*events)}


def case(name: str, expected: Json, *parts: Any, **more: Any) -> FormCase:
    whole = body(*parts, **more)
    return FormCase(name, Gemini, expected, whole, forms(*stream_events(whole)))


def stream_case(name: str, expected: Json, *events: Any) -> FormCase:
    return FormCase(name, Gemini, expected, data=forms(*events))


def both(name: str, expected: Json, whole: Any) -> FormCase:
    return FormCase(name, Gemini, expected, whole, forms(whole))


def call(arguments: str, name: str = "f", id: str | None = None, index: int = 0, fields: Json | None = None) -> Json:
    return {"index": index, "id": id, "name": name, "arguments": arguments, "fields": fields or {}}


def chunk(*parts: Any, **candidate: Any) -> Json:
    return {"candidates": [{"content": {"role": "model", "parts": list(parts)}, "index": 0, **candidate}]}


def calling(**function: Any) -> Json:
    return chunk({"functionCall": function})


def arg(path: str, **value: Any) -> Json:
    return {"jsonPath": path, **value}


TEXT = {"text": "hello"}
THOUGHT = {"text": "let me see", "thought": True}
SIGNED = {"text": "hello", "thoughtSignature": "U0lHTkVE+/=="}
CALL = {"functionCall": {"name": "f", "args": {"a": 1}}}
SIGNED_CALL = {**CALL, "thoughtSignature": "Q0FMTA=="}
CALL_STATE = {"thought_signature": "Q0FMTA=="}
CODE = {"executableCode": {"language": "PYTHON", "code": "print(1)"}}
RAN = {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1\n"}}
IMAGE = {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}
SERVED = {"toolCall": {"toolType": "GOOGLE_SEARCH", "id": "s1", "args": {"q": 1}}, "thoughtSignature": "Q1M="}
SERVED_RESULT = {"toolResponse": {"toolType": "GOOGLE_SEARCH", "id": "s1", "response": {"r": 1}}, "thoughtSignature": "UlM="}
INVOCATION = {
    "tool_type": "GOOGLE_SEARCH",
    "id": "s1",
    "args": {"q": 1},
    "thought_signature": "Q1M=",
    "response": {"r": 1},
    "response_thought_signature": "UlM=",
}
GROUNDING = {
    "webSearchQueries": ["q"],
    "groundingChunks": [{"web": {"uri": "https://x.example", "title": "X"}}, {"web": {"uri": "https://y.example"}}],
    "groundingSupports": [{"segment": {"startIndex": 2, "endIndex": 5, "text": "ll"}, "groundingChunkIndices": [1, 7]}],
}
RATINGS = [{"category": "HARM_CATEGORY_HARASSMENT", "probability": "NEGLIGIBLE"}]
HI = chunk({"text": "hi"})
END = chunk({"text": ""}, finishReason="STOP")
HTML = b"<html><head><title>Error 502 (Server Error)!!1</title></head></html>"


def error(status: str, code: int = 429, message: str = "the words", **more: Any) -> Json:
    return {"error": {"code": code, "message": message, "status": status, **more}}


CASES = [
    case(
        "text", {"content": "hello", "finish_reason": "stop", "usage": (3, 2, 5), "id": "r1", "model": "gemini", "kept": []}, TEXT
    ),
    case("several texts", {"content": "hellohello"}, TEXT, TEXT),
    case("thoughts are reasoning", {"reasoning": "let me see", "content": "hello", "kept": []}, THOUGHT, TEXT),
    case(
        "a signature on the text",
        {"content": "hello", "fields": {"thought_signatures": ["U0lHTkVE+/=="]}, "kept": ["message.parts.thoughtSignature"]},
        SIGNED,
    ),
    case(
        "a signature in a last part without text",
        {"content": "hello", "fields": {"thought_signatures": ["TEFTVA=="]}},
        TEXT,
        {"text": "", "thoughtSignature": "TEFTVA=="},
    ),
    case(
        "a signature in a part of its own",
        {"content": "hello", "fields": {"thought_signatures": ["T1dO"]}},
        TEXT,
        {"thoughtSignature": "T1dO"},
    ),
    case(
        "a signature and no text at all",
        {"content": "", "message": {"content": "", "provider_specific_fields": {"thought_signatures": ["T1dO"]}}},
        {"text": "", "thoughtSignature": "T1dO"},
    ),
    case(
        "the last text's signature is first, a thought's behind it",
        {"fields": {"thought_signatures": ["TEFTVA==", "Rk9SRQ==", "VEhPVUdIVA=="]}},
        {**THOUGHT, "thoughtSignature": "VEhPVUdIVA=="},
        {"text": "a", "thoughtSignature": "Rk9SRQ=="},
        {"text": "b", "thoughtSignature": "TEFTVA=="},
    ),
    case("a call", {"calls": [call('{"a": 1}')], "finish_reason": "tool_calls", "raw_finish_reason": "STOP", "kept": []}, CALL),
    case(
        "a call's signature stays with the call",
        {"calls": [call('{"a": 1}', fields=CALL_STATE), call('{"a": 1}', index=1)], "message": {}},
        SIGNED_CALL,
        CALL,
    ),
    case(
        "a call's id, and a text before it",
        {"content": "hello", "calls": [call('{"ü": "é"}', id="c1")]},
        TEXT,
        {"functionCall": {"name": "f", "id": "c1", "args": {"ü": "é"}}},
    ),
    case("a call without arguments", {"calls": [call("{}")]}, {"functionCall": {"name": "f"}}),
    case("arguments null", {"calls": [call("{}")]}, {"functionCall": {"name": "f", "args": None}}),
    case(
        "tools that the provider runs are not the caller's",
        {
            "calls": [],
            "content": "hello",
            "finish_reason": "stop",
            "fields": {"server_side_tool_invocations": [INVOCATION]},
            "kept": ["message.parts.toolCall"],
        },
        SERVED,
        SERVED_RESULT,
        TEXT,
    ),
    case(
        "code that the provider runs",
        {
            "content": "hello",
            "fields": {"parts": [CODE, RAN]},
            "kept": ["message.parts.executableCode", "message.parts.codeExecutionResult"],
        },
        CODE,
        RAN,
        TEXT,
    ),
    case(
        "an image",
        {"images": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}], "content": "hello", "kept": []},
        IMAGE,
        TEXT,
    ),
    case(
        "an image at a URL, and a file elsewhere",
        {
            "images": [{"type": "image_url", "image_url": {"url": "https://x.example/i"}}],
            "fields": {"parts": [{"fileData": {"mimeType": "image/png", "fileUri": "gs://b/i"}}]},
        },
        {"fileData": {"mimeType": "image/png", "fileUri": "https://x.example/i"}},
        {"fileData": {"mimeType": "image/png", "fileUri": "gs://b/i"}},
    ),
    case(
        "audio in parts with their own padding",
        {"audio": {"data": base64.b64encode(b"abcd").decode(), "format": "L16;codec=pcm;rate=24000"}},
        {"inlineData": {"mimeType": "audio/L16;codec=pcm;rate=24000", "data": base64.b64encode(b"ab").decode()}},
        {"inlineData": {"mimeType": "audio/L16;codec=pcm;rate=24000", "data": base64.b64encode(b"cd").decode()}},
    ),
    case(
        "data of another kind",
        {"fields": {"parts": [{"inlineData": {"mimeType": "video/mp4", "data": "AAAA"}}]}},
        {"inlineData": {"mimeType": "video/mp4", "data": "AAAA"}},
    ),
    case(
        "sources, with positions in characters",
        {
            "annotations": [
                {"type": "url_citation", "url_citation": {"url": "https://y.example", "start_index": 1, "end_index": 4}}
            ],
            "fields": {"grounding_metadata": GROUNDING},
            "kept": ["candidate.groundingMetadata"],
        },
        {"text": "éllo"},
        candidate={"groundingMetadata": GROUNDING},
    ),
    case(
        "sources without supports",
        {"annotations": [{"type": "url_citation", "url_citation": {"url": "https://x.example", "title": "X"}}]},
        TEXT,
        candidate={"groundingMetadata": {"groundingChunks": GROUNDING["groundingChunks"][:1]}},
    ),
    case(
        "a recitation's sources",
        {"annotations": [{"type": "citation", "uri": "u", "startIndex": 1}], "kept": []},
        TEXT,
        candidate={"citationMetadata": {"citationSources": [{"uri": "u", "startIndex": 1}]}},
    ),
    case(
        "URL context",
        {"fields": {"url_context_metadata": {"urlMetadata": [1]}}},
        TEXT,
        candidate={"urlContextMetadata": {"urlMetadata": [1]}},
    ),
    case(
        "log probabilities",
        {
            "logprobs": [{"token": "a", "logprob": -0.1, "top_logprobs": [{"token": "b", "logprob": -2.5}]}],
            "fields": {"avg_logprobs": -0.1},
        },
        TEXT,
        candidate={
            "avgLogprobs": -0.1,
            "logprobsResult": {
                "chosenCandidates": [{"token": "a", "tokenId": 1, "logProbability": -0.1}],
                "topCandidates": [{"candidates": [{"token": "b", "logProbability": -2.5}]}],
            },
        },
    ),
    case("safety ratings of an ordinary response", {"content": "hello", "kept": []}, TEXT, candidate={"safetyRatings": RATINGS}),
    case(
        "ratings that blocked it",
        {"finish_reason": "content_filter", "fields": {"safety_ratings": [{**RATINGS[0], "blocked": True}]}},
        TEXT,
        finish="SAFETY",
        candidate={"safetyRatings": [*RATINGS, {**RATINGS[0], "blocked": True}]},
    ),
    case(
        "a recitation, with its text",
        {"content": "hello", "finish_reason": "content_filter", "fields": {"finish_message": "m"}},
        TEXT,
        finish="RECITATION",
        candidate={"finishMessage": "m"},
    ),
    both(
        "a malformed call, with the text",
        {"kind": "bad_upstream_response", "text": "MALFORMED_FUNCTION_CALL: Malformed function call: print(f"},
        {
            "candidates": [
                {"finishReason": "MALFORMED_FUNCTION_CALL", "finishMessage": "Malformed function call: print(f", "index": 0}
            ],
            "usageMetadata": USAGE,
        },
    ),
    case(
        "a malformed call behind text",
        {"kind": "bad_upstream_response", "content": "hello"},
        TEXT,
        finish="MALFORMED_FUNCTION_CALL",
    ),
    both(
        "a refused prompt",
        {"kind": "content_policy", "text": "PROHIBITED_CONTENT"},
        {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": USAGE},
    ),
    both(
        "a refused prompt, with words",
        {"kind": "content_policy", "text": "SAFETY: not this"},
        {"promptFeedback": {"blockReason": "SAFETY", "blockReasonMessage": "not this"}},
    ),
    case("feedback without a block", {"content": "hello", "kept": []}, TEXT, promptFeedback={"safetyRatings": RATINGS}),
    both(
        "a candidate without content",
        {"content": "", "finish_reason": "length", "usage": (3, 2, 5)},
        {"candidates": [{"finishReason": "MAX_TOKENS", "index": 0}], "usageMetadata": USAGE},
    ),
    both(
        "content without parts",
        {"content": "", "finish_reason": "stop"},
        {"candidates": [{"content": {"role": "model"}, "finishReason": "STOP"}]},
    ),
    both(
        "an empty response for another reason",
        {"kind": "bad_upstream_response", "text": "OTHER"},
        {"candidates": [{"finishReason": "OTHER"}]},
    ),
    case(
        "a response broken off for another reason",
        {"content": "hello", "finish_reason": None, "raw_finish_reason": "OTHER"},
        TEXT,
        finish="OTHER",
    ),
    both(
        "other candidates are left out",
        {"content": "a", "finish_reason": "stop"},
        {
            "candidates": [
                {"content": {"parts": [{"text": "a"}]}, "index": 0, "finishReason": "STOP"},
                {"content": {"parts": [{"text": "b"}]}, "index": 1, "finishReason": "SAFETY"},
            ]
        },
    ),
    case(
        "a part of an unknown kind",
        {"content": "hello", "fields": {"parts": [{"hologram": {"x": 1}}]}, "kept": ["message.parts.hologram"]},
        {"hologram": {"x": 1}},
        TEXT,
    ),
    case(
        "cached tokens are within the prompt, thoughts beside the candidates",
        {"usage": (100, 7, 107)},
        TEXT,
        usageMetadata={
            "promptTokenCount": 100,
            "cachedContentTokenCount": 90,
            "candidatesTokenCount": 2,
            "thoughtsTokenCount": 5,
            "totalTokenCount": 107,
        },
    ),
    case("no usage", {"usage": None}, TEXT, usageMetadata=None),
    stream_case(
        "arguments in parts",
        {
            "calls": [call('{"city": "Boston", "n": [1, true, null], "o": {"a b": "x"}}', id="c1", fields=CALL_STATE)],
            "finish_reason": "tool_calls",
        },
        chunk({"functionCall": {"name": "f", "id": "c1", "willContinue": True}, "thoughtSignature": "Q0FMTA=="}),
        calling(partialArgs=[arg("$.city", stringValue="Bos", willContinue=True)], willContinue=True),
        calling(
            partialArgs=[arg("$.city", stringValue="ton"), arg("$.n[0]", numberValue=1), arg("$.n[1]", boolValue=True)],
            willContinue=True,
        ),
        calling(partialArgs=[arg("$.n[2]", nullValue="NULL_VALUE"), arg("$.o['a b']", stringValue="x")], willContinue=True),
        calling(),
        END,
    ),
    stream_case(
        "two calls in parts, the first without its end",
        {"calls": [call('{"a": "x"}'), call("{}", name="g", index=1)]},
        calling(name="f", partialArgs=[arg("$.a", stringValue="x")], willContinue=True),
        calling(name="g"),
        END,
    ),
    stream_case(
        "a path that names no value",
        {"kind": "bad_upstream_response"},
        calling(name="f", partialArgs=[arg("$..a", stringValue="x")]),
        END,
    ),
    stream_case(
        "a finish reason without content",
        {"content": "hi", "finish_reason": "stop"},
        HI,
        {"candidates": [{"finishReason": "STOP", "index": 0}]},
    ),
    stream_case(
        "a finish reason in each event",
        {"content": "hihi", "finish_reason": "stop"},
        *[chunk({"text": "hi"}, finishReason="STOP")] * 2,
    ),
    stream_case("usage in an event without candidates", {"content": "hi", "usage": (3, 2, 5)}, HI, END, {"usageMetadata": USAGE}),
    stream_case(
        "usage in parts",
        {"usage": (3, 2, 5)},
        {**HI, "usageMetadata": {"promptTokenCount": 3}},
        {**END, "usageMetadata": {"candidatesTokenCount": 2, "totalTokenCount": 5}},
    ),
    stream_case(
        "an error in mid-stream", {"kind": "rate_limited", "content": "hi", "text": "the words"}, HI, error("RESOURCE_EXHAUSTED")
    ),
    stream_case("cut off", {"kind": "stream_interrupted", "content": "hi"}, HI),
    stream_case(
        "the prompt is refused in mid-stream",
        {"kind": "content_policy", "content": "hi"},
        HI,
        {"promptFeedback": {"blockReason": "SAFETY"}},
    ),
    FormCase(
        "an error in mid-stream that is not an event",
        Gemini,
        {"kind": "provider_unavailable", "content": "hi", "text": "the words"},
        data={"events": sse(HI) + json.dumps(error("UNAVAILABLE", 503), indent=2).encode()},
    ),
    FormCase(
        "an error in a 200",
        Gemini,
        {"kind": "provider_unavailable", "text": "the words"},
        error("UNAVAILABLE", 503),
        {"json": json.dumps(error("UNAVAILABLE", 503)).encode(), **forms(error("UNAVAILABLE", 503))},
    ),
    FormCase(
        "an error in a list",
        Gemini,
        {"kind": "authentication"},
        [error("UNAUTHENTICATED", 401)],
        {"array": array(error("UNAUTHENTICATED", 401))},
    ),
    FormCase(
        "JSON instead of a stream",
        Gemini,
        {"content": "hello", "finish_reason": "stop"},
        body(TEXT),
        {"json": json.dumps(body(TEXT), indent=1).encode()},
    ),
    FormCase("a list instead of a body", Gemini, {"content": "hihi", "finish_reason": "stop"}, [HI, HI, END]),
    FormCase("an array without an end", Gemini, {"content": "hi", "finish_reason": "stop"}, data={"array": array(HI, END)[:-1]}),
    FormCase(
        "an array cut off in an object",
        Gemini,
        {"kind": "stream_interrupted", "content": "hi"},
        data={"array": array(HI, END)[:-60]},
    ),
    FormCase("an empty array", Gemini, {"kind": "bad_upstream_response"}, [], {"array": b"[]"}),
    FormCase("an array of no objects", Gemini, {"kind": "bad_upstream_response"}, [1, "a"], {"array": b'[1, "a"]'}),
    FormCase(
        "no candidates",
        Gemini,
        {"kind": "bad_upstream_response"},
        {"candidates": [], "usageMetadata": USAGE},
        forms({"candidates": [], "usageMetadata": USAGE}),
    ),
    FormCase("HTML with status 200", Gemini, {"kind": "bad_upstream_response", "text": "Error 502"}, HTML, {"html": HTML}),
    FormCase("an empty body", Gemini, {"kind": "bad_upstream_response"}, b"", {"empty": b""}),
    FormCase(
        "an event that is not JSON", Gemini, {"kind": "bad_upstream_response", "text": "oops"}, data={"events": b"data: oops\n\n"}
    ),
    FormCase(
        "a byte-order mark", Gemini, {"content": "hi"}, data={form: b"\xef\xbb\xbf" + data for form, data in forms(HI, END).items()}
    ),
    FormCase("a gateway's last line", Gemini, {"content": "hi"}, data={"events": sse(HI, END) + b"data: [DONE]\n\n"}),
]
IDS = [one.name for one in CASES]


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_case(case: FormCase) -> None:
    check_case(case)


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_any_cut_gives_the_same(case: FormCase) -> None:
    check_cuts(case)


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_a_stream_that_ends_early(case: FormCase) -> None:
    check_truncated(case)


# ---- tables ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("word", "reason"), gemini.FINISH.items())
def test_each_finish_reason(word: str, reason: str | None) -> None:
    assert reason in {"stop", "length", "content_filter", None}
    for _, joined in results(case(word, {}, TEXT, finish=word)):
        assert joined.end is not None
        assert (joined.end.finish_reason, joined.end.raw_finish_reason) == (reason, word)


@pytest.mark.parametrize("word", [word for word, reason in gemini.FINISH.items() if reason is None])
def test_each_reason_without_a_message_is_an_error_without_content(word: str) -> None:
    for _, joined in results(both(word, {}, {"candidates": [{"finishReason": word, "finishMessage": "m"}]})):
        assert joined.error is not None
        assert (joined.kind, joined.error.message.endswith(f"{word}: m")) == ("bad_upstream_response", True)


@pytest.mark.parametrize(("word", "kind"), gemini.FINISH_ERRORS.items())
def test_each_word_of_a_broken_response_is_an_error(word: str, kind: str) -> None:
    for _, joined in results(case(word, {}, TEXT, finish=word, candidate={"finishMessage": "m"})):
        assert joined.error is not None
        assert (joined.kind, joined.content, joined.error.message.endswith(f"{word}: m")) == (kind, "hello", True)


@pytest.mark.parametrize("word", ["TIRED", "stop", "x" * 1000])
def test_an_unknown_finish_reason_is_never_stop(word: str) -> None:
    for _, joined in results(case(word, {}, TEXT, finish=word)):
        assert joined.end is not None
        assert (joined.end.finish_reason, joined.end.raw_finish_reason) == (None, word)


@pytest.mark.parametrize("word", [None, "", "FINISH_REASON_UNSPECIFIED"])
def test_no_finish_reason_is_not_the_end(word: Any) -> None:
    assert streamed(Gemini, sse(chunk(TEXT, finishReason=word))).kind == "stream_interrupted"


@pytest.mark.parametrize("reason", "SAFETY OTHER BLOCKLIST PROHIBITED_CONTENT IMAGE_SAFETY MODEL_ARMOR JAILBREAK NEW".split())
def test_each_block_reason_is_a_refusal(reason: str) -> None:
    for _, joined in results(both(reason, {}, {"promptFeedback": {"blockReason": reason}})):
        assert joined.error is not None
        assert (joined.kind, joined.error.retryable, reason in joined.error.message) == ("content_policy", False, True)


@pytest.mark.parametrize(
    ("status", "code", "kind", "retryable"),
    [
        ("RESOURCE_EXHAUSTED", 429, "rate_limited", True),
        ("UNAVAILABLE", 503, "provider_unavailable", True),
        ("INTERNAL", 500, "provider_unavailable", True),
        ("ABORTED", 409, "provider_unavailable", True),
        ("UNKNOWN", 500, "provider_unavailable", True),
        ("DEADLINE_EXCEEDED", 504, "timeout", True),
        ("CANCELLED", 499, "rejected_by_provider", False),
        ("INVALID_ARGUMENT", 400, "rejected_by_provider", False),
        ("FAILED_PRECONDITION", 400, "rejected_by_provider", False),
        ("OUT_OF_RANGE", 400, "rejected_by_provider", False),
        ("UNAUTHENTICATED", 401, "authentication", False),
        ("PERMISSION_DENIED", 403, "permission", False),
        ("NOT_FOUND", 404, "model_not_found", False),
    ],
)
def test_each_status_of_google_has_its_kind(status: str, code: int, kind: str, retryable: bool) -> None:
    whole = error(status, code)
    found = [Gemini.error(code, {}, json.dumps(one).encode()) for one in (whole, [whole])]
    found += [joined.error for _, joined in results(both(status, {}, whole)) if joined.error]
    assert len(found) == 5
    if code == 409:  # the HTTP status decides there
        found = found[2:]
        kind, retryable = found[0].kind, found[0].retryable
    assert {(one.kind, one.retryable, one.message) for one in found} == {(kind, retryable, "the words")}


def test_a_wrong_key_and_a_full_context_are_their_own_kinds() -> None:
    key = error("INVALID_ARGUMENT", 400, "API key not valid.", details=[{"@type": "t", "reason": "API_KEY_INVALID"}])
    full = error("INVALID_ARGUMENT", 400, "The input token count (1100000) exceeds the maximum number of tokens allowed (1048576).")
    for value, kind in ((key, "authentication"), (full, "context_length_exceeded")):
        assert Gemini.error(400, {}, json.dumps([value]).encode()).kind == kind
        assert all(joined.kind == kind for _, joined in results(both("", {}, value)))


def test_google_advises_when_to_retry() -> None:
    info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7.5s"}
    value = error("RESOURCE_EXHAUSTED", details=[{"@type": "type.googleapis.com/google.rpc.QuotaFailure"}, info])
    for one in (value, [value]):
        assert Gemini.error(429, {}, json.dumps(one).encode()).retry_after_ms == 7500
    joined = streamed(Gemini, sse(HI, value))
    assert joined.error is not None
    assert joined.error.retry_after_ms == 7500


def test_usage_has_every_number_and_null_where_there_is_none() -> None:
    usage = {
        "promptTokenCount": 100,
        "cachedContentTokenCount": 90,
        "candidatesTokenCount": 2,
        "thoughtsTokenCount": 5,
        "totalTokenCount": 107,
    }
    assert usage_of(usage) == TokenUsage(100, 7, 107, 90, None, 5)
    assert usage_of({**usage, "candidatesTokenCount": 7}) == TokenUsage(100, 7, 107, 90, None, 5)  # thoughts within
    assert usage_of({**usage, "toolUsePromptTokenCount": 10, "totalTokenCount": 117}) == TokenUsage(110, 7, 117, 90, None, 5)
    assert usage_of({"promptTokenCount": 3, "totalTokenCount": 3}) == TokenUsage(3, None, 3)
    assert usage_of({"promptTokenCount": 3, "thoughtsTokenCount": 5, "totalTokenCount": 8}) == TokenUsage(3, 5, 8, None, None, 5)
    assert usage_of({"promptTokenCount": "3", "candidatesTokenCount": 2**70}) is None


ALL_CASES = json.dumps([[case.body for case in CASES if not isinstance(case.body, bytes)], repr([case.data for case in CASES])])


@pytest.mark.parametrize("name", sorted({*gemini.PARTS, *gemini.CANDIDATE} - {"functionResponse", "tokenCount"}))
def test_each_row_is_in_a_case(name: str) -> None:
    assert name in ALL_CASES


@pytest.mark.parametrize("kind", gemini.PARTS)
def test_no_kind_of_part_is_lost(kind: str) -> None:
    values: Json = {"text": "t", "functionCall": {"name": "f"}, "inlineData": {"mimeType": "image/png", "data": "AA=="}}
    for _, joined in results(case(kind, {}, {kind: values.get(kind, {"id": "i", "x": 1})})):
        assert joined.content or joined.calls or joined.images or joined.fields
        assert joined.end is not None
        assert bool(joined.end.kept) == (kind not in values)


@pytest.mark.parametrize("value", ["text", 5, {"a": 1}, [1, 2]])
def test_what_no_table_has_is_kept_and_named(value: Any) -> None:
    for where, whole in (("response", body(TEXT, surprise=value)), ("candidate", body(TEXT, candidate={"surprise": value}))):
        for _, joined in results(both("", {}, whole)):
            assert joined.fields == {"surprise": value}
            assert joined.end is not None
            assert joined.end.kept == [f"{where}.surprise"]


# ---- pieces ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("$", []),
        ("$.a", ["a"]),
        ("$.a.b[0].c", ["a", "b", 0, "c"]),
        ("$['a b']['c']", ["a b", "c"]),
        ('$["a"][12]', ["a", 12]),
        (r"$['it\'s']", ["it's"]),
        ("$.ü-x", ["ü-x"]),
    ],
)
def test_paths(path: str, found: list[Any]) -> None:
    assert steps(path) == found


@pytest.mark.parametrize(
    "path", ["", "a", "$a", "$..a", "$[*]", "$[1:2]", "$[?(@.a)]", "$[-1]", "$[99999]", "$.a[", "$" + ".a" * 100, None, 5]
)
def test_paths_that_name_no_value(path: Any) -> None:
    with pytest.raises(ValueError, match=r"path|index"):
        steps(path)


@given(
    values=st.lists(
        st.dictionaries(st.text(max_size=8), st.text(max_size=8) | st.lists(st.text(max_size=4), max_size=3), max_size=3),
        max_size=5,
    ),
    data=st.data(),
)
def test_any_cut_of_an_array_gives_its_objects(values: list[Any], data: st.DataObject) -> None:
    text = json.dumps(values, ensure_ascii=data.draw(st.booleans()), indent=data.draw(st.sampled_from([None, 1]))).encode()
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=10))
    stream = JsonArray()
    events = [event for start, stop in pairwise([0, *sorted(cuts), len(text)]) for event in stream.feed(text[start:stop])]
    assert [json.loads(found) for _, found in events] == values
    assert (stream.close(), stream.stray) == ([], bytearray())


def test_an_array_in_small_reads_takes_linear_time() -> None:
    def seconds(count: int) -> float:
        data = array(*[chunk({"text": "x" * 50 + '\\"'})] * count, END)
        began = time.process_time()
        assert streamed(Gemini, data, range(0, len(data), 100)).error is None
        return time.process_time() - began

    small, large = min(seconds(300) for _ in range(3)), seconds(3000)
    assert large < 30 * small + 0.1


def test_an_object_over_the_limit_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge_worker.backends.wire.json_array.MAX_EVENT_BYTES", 100)
    for data in (b'[{"a": "' + b"x" * 100 + b'"}]', b'[{"a": "' + b"x" * 100):
        with pytest.raises(BridgeError, match="more than 100 bytes"):
            JsonArray().feed(data)


# ---- any bytes -------------------------------------------------------------------------------------------------------------------

RICH = body(
    {**THOUGHT, "thoughtSignature": "eA=="},
    SIGNED,
    IMAGE,
    SERVED,
    SERVED_RESULT,
    CODE,
    SIGNED_CALL,
    {"functionCall": {"name": "g", "partialArgs": [arg("$.a[0].b", stringValue="x")], "willContinue": False}},
    candidate={"groundingMetadata": GROUNDING, "safetyRatings": RATINGS, "logprobsResult": {"chosenCandidates": [{"token": "a"}]}},
)


def test_hostile_values_in_every_place() -> None:
    check_hostile(Gemini, RICH, lambda changed: sse(*stream_events(changed)))


def test_hostile_values_in_every_event() -> None:
    check_hostile(Gemini, stream_events(RICH), lambda changed: json.dumps(changed).encode())


@given(data=st.binary(max_size=300), form=st.sampled_from(["events", "array", "bytes"]), at=st.integers(0, 2000))
def test_any_bytes_give_a_result_or_an_error(data: bytes, form: str, at: int) -> None:
    good = forms(*stream_events(RICH)).get(form, b"")
    joined = streamed(Gemini, good[:at] + data + good[at:], [len(good[:at])])
    assert joined.error is None or joined.kind in KINDS
    joined = plain(Gemini, data)
    assert joined.error is None or joined.kind in KINDS


@given(cuts=st.lists(st.integers(0, 5000), max_size=40), form=st.sampled_from(["events", "array"]))
def test_random_cuts(cuts: list[int], form: str) -> None:
    data = forms(*stream_events(RICH))[form]
    whole = streamed(Gemini, data)
    assert whole.error is None
    assert streamed(Gemini, data, [cut for cut in cuts if cut < len(data)]).comparable() == whole.comparable()


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 50_000, '{"a":' * 500 + "1" + "}" * 500, "1e999", '"\\ud83d"'])
def test_hostile_json(value: str) -> None:
    for text in (
        '{"candidates":[{"content":{"parts":[{"text":%s},{"functionCall":{"name":"f","args":%s}}]}}]}',
        '{"candidates":[{"content":{"parts":[{"x":%s}]},"finishReason":%s}]}',
        '{"candidates":[{"groundingMetadata":%s,"avgLogprobs":%s}],"usageMetadata":{}}',
        '{"error":{"message":%s,"details":%s}}',
    ):
        data = (text % (value, value)).encode()
        found = [plain(Gemini, data), streamed(Gemini, b"data: " + data + b"\n\n"), streamed(Gemini, b"[" + data + b"]")]
        assert all(joined.error is None or joined.kind in KINDS for joined in found)
