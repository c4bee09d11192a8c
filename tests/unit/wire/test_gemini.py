"""Gemini's generateContent: its tables, and the cases of `gemini_cases` in all three forms."""

from __future__ import annotations

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
from tests.unit.wire.gemini_cases import (
    CASES,
    END,
    HI,
    RICH,
    TEXT,
    array,
    body,
    both,
    case,
    chunk,
    error,
    forms,
    sse,
    stream_events,
)
from tests.unit.wire.joined import plain, streamed
from tests.unit.wire.three_forms import FormCase, Json, check_case, check_cuts, check_truncated, results

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


@pytest.mark.parametrize(
    "part",
    [
        {"functionCall": {"name": "f", "args": {}}},
        {"inlineData": {"mimeType": "image/png", "data": "QQ=="}},
        {"fileData": {"mimeType": "image/png", "fileUri": "https://x.example/a.png"}},
        {"executableCode": {"code": "1"}},
        {"text": "a"},
    ],
    ids=lambda part: next(iter(part)),
)
def test_a_reason_without_a_message_fails_no_response_with_any_content(part: Json) -> None:
    for _, joined in results(case("", {}, part, finish="OTHER")):
        assert joined.error is None
        assert joined.end is not None
        assert (joined.end.finish_reason, joined.end.raw_finish_reason) == (None, "OTHER")


def test_a_call_that_was_to_continue_ends_with_the_response() -> None:
    open_call = {"functionCall": {"name": "f", "args": {"a": 1}, "willContinue": True}}
    for _, joined in results(case("", {}, open_call)):
        assert [(call["name"], json.loads(call["arguments"])) for call in joined.calls] == [("f", {"a": 1})]


def test_the_signature_of_an_image_goes_back_to_the_provider() -> None:
    part = {"inlineData": {"mimeType": "image/png", "data": "QQ=="}, "thoughtSignature": "c2ln"}
    for _, joined in results(case("", {}, part)):
        assert (len(joined.images), joined.fields) == (1, {"thought_signatures": ["c2ln"]})


def test_a_text_of_another_type_in_mid_stream_is_an_error() -> None:
    joined = streamed(Gemini, sse(HI, HI, chunk({"text": 5}), END))
    assert (joined.kind, joined.content) == ("bad_upstream_response", "hihi")


def candidate(*parts: Any, **members: Any) -> Json:
    return {"content": {"parts": list(parts)}, **members}


@pytest.mark.parametrize(
    ("odd", "content"),
    [
        ([candidate(TEXT, index=1)], ""),
        ([candidate(TEXT, index=1), candidate({"text": "a"}, index=0)], "a"),
        ([candidate({"text": "a"}, {"text": "b"}, index=0)], "ab"),
        ([{"index": 0}], ""),
        ([candidate(index=0)], ""),
        ([candidate({"text": "a"})], "a"),
        (["x"], ""),
    ],
)
def test_each_event_in_mid_stream_is_read_as_at_its_beginning(odd: list[Any], content: str) -> None:
    """After the first event there is a short path for one text, which must change nothing."""
    joined = streamed(Gemini, sse(HI, {"candidates": odd}, HI, END))
    assert (joined.error, joined.content) == (None, f"hi{content}hi")


@pytest.mark.parametrize("part", ["x", None, 5])
def test_a_part_that_is_not_an_object_in_mid_stream_is_an_error(part: Any) -> None:
    assert streamed(Gemini, sse(HI, {"candidates": [candidate(part, index=0)]}, END)).kind == "bad_upstream_response"


def test_a_candidate_without_an_index_is_the_first() -> None:
    events = [{"candidates": [candidate({"text": text}, **index)]} for text, index in (("a", {}), ("b", {"index": 0}), ("c", {}))]
    assert streamed(Gemini, sse(*events, END)).content == "abc"


def test_the_signature_of_a_text_comes_before_that_of_a_thought() -> None:
    parts = ({"text": "a"}, {"thoughtSignature": "s"}, {"thought": True, "thoughtSignature": "t"})
    for _, joined in results(case("", {}, *parts)):
        assert joined.fields == {"thought_signatures": ["s", "t"]}


def test_what_follows_the_end_is_not_read() -> None:
    assert streamed(Gemini, sse(HI, END) + b"data: [DONE]\n\n" + sse(HI)).content == "hi"


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


def test_usage_has_every_number_and_null_where_the_provider_has_none() -> None:
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
    largest = b'{"a": "' + b"x" * 91 + b'"}'
    assert JsonArray().feed(b"[" + largest) == [("", largest)]
    assert not JsonArray().feed(b"[" + largest[:-1] + b" ")


# ---- any bytes -------------------------------------------------------------------------------------------------------------------


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
