"""Gemini's generateContent: cases from public reports, plain, as events and as a JSON array in pieces."""

from __future__ import annotations

import base64
import json
from typing import Any

from bridge_worker.backends.wire.gemini import Gemini
from tests.unit.wire.three_forms import FormCase, Json

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

# A response with a part of each kind.
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
