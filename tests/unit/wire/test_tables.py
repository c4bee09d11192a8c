"""The closed tables of the decoders: each row does what it says, and what is in no table is kept and named."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest

from bridge_worker.backends.wire import cohere, error_tables, ollama, openai_chat, openai_message, openai_responses
from bridge_worker.backends.wire.json_values import parse
from bridge_worker.backends.wire.provider_errors import from_response, from_value, interrupted, quote, unreadable
from bridge_worker.errors import KINDS
from tests.unit.wire.cases import COHERE, OLLAMA, RESPONSES, chunk, cohere_end, cohere_message, lines, message, response
from tests.unit.wire.cases import line as ollama_line
from tests.unit.wire.joined import events, plain, streamed
from tests.unit.wire.wordings import WORDINGS

REASONS = {"stop", "length", "tool_calls", "content_filter"}


# ---- finish words ------------------------------------------------------------------------------------------------------------


def finish_of(format: str, word: str) -> list[Any]:
    """The joined results of a plain and a streamed response that end with ``word``."""
    if format == "openai_chat":
        make: Any = openai_chat.OpenAIChat
        return [plain(make, message(word, content="x")), streamed(make, events(chunk({"content": "x"}), chunk({}, word)))]
    if format == "openai_responses":
        make = openai_responses.OpenAIResponses
        status, details = ("completed", None) if word == "completed" else ("incomplete", {"reason": word})
        whole = response(status, incomplete_details=details)
        return [plain(make, whole), streamed(make, events({"type": f"response.{status}", "response": whole}, done=False))]
    if format == "ollama":
        make = ollama.Ollama
        return [plain(make, ollama_line(True, word, content="x")), streamed(make, lines(ollama_line(True, word, content="x")))]
    make = cohere.Cohere
    return [plain(make, cohere_message(word)), streamed(make, events(cohere_end(word), done=False))]


TABLES: dict[str, Any] = {"openai_chat": openai_chat, "openai_responses": openai_responses, "ollama": ollama, "cohere": cohere}
FINISHES = [(name, word, reason) for name, module in TABLES.items() for word, reason in module.FINISH.items()]
ERRORS = [(name, word, kind) for name in ("openai_chat", "ollama", "cohere") for word, kind in TABLES[name].FINISH_ERRORS.items()]


@pytest.mark.parametrize(("format", "word", "reason"), FINISHES)
def test_each_finish_word_has_its_reason(format: str, word: str, reason: str) -> None:
    assert reason in REASONS
    for joined in finish_of(format, word):
        assert joined.error is None
        assert (joined.end.finish_reason, joined.end.raw_finish_reason) == (reason, word)


@pytest.mark.parametrize(("format", "word", "kind"), ERRORS)
def test_each_word_of_a_broken_response_is_an_error(format: str, word: str, kind: str) -> None:
    for joined in finish_of(format, word):
        assert joined.kind == kind
        assert word in joined.error.message


@pytest.mark.parametrize("format", TABLES)
@pytest.mark.parametrize("word", ["tired", "STOPPED?", "other", "x" * 1000])
def test_an_unknown_finish_word_is_never_stop(format: str, word: str) -> None:
    for joined in finish_of(format, word):
        assert (joined.end.finish_reason, joined.end.raw_finish_reason) == (None, word)


@pytest.mark.parametrize("status", openai_responses.STATUS_ERRORS)
def test_each_status_that_is_not_an_end_is_an_error(status: str) -> None:
    assert plain(openai_responses.OpenAIResponses, response(status)).kind == openai_responses.STATUS_ERRORS[status]


# ---- members, parts, events, items -----------------------------------------------------------------------------------------------

CASES_OF_ALL = " ".join(f"{json.dumps(case.body, default=repr)} {case.data!r}" for case in RESPONSES + COHERE + OLLAMA)


@pytest.mark.parametrize("name", sorted(openai_message.MEMBERS))
def test_each_member_of_a_message_is_read_and_not_named(name: str) -> None:
    values: dict[str, Any] = {
        "refusal": "no",
        "tool_calls": [{"id": "t", "function": {"name": "f", "arguments": "{}"}}],
        "function_call": {"name": "f", "arguments": "{}"},
        "annotations": [{"type": "x"}],
        "images": [{"type": "image_url", "image_url": {"url": "data:,"}}],
        "audio": {"id": "a"},
        "reasoning_details": [{"type": "reasoning.text", "text": "t"}],
        "thinking_blocks": [{"type": "thinking", "thinking": "t", "signature": "s"}, {"type": "redacted_thinking", "data": "d"}],
        "reasoning_items": [{"type": "reasoning"}],
        "provider_specific_fields": {"thought_signatures": ["s"]},
    }
    empty = plain(openai_chat.OpenAIChat, message()).comparable()
    for joined in (
        plain(openai_chat.OpenAIChat, message(**{name: values[name]})),
        streamed(openai_chat.OpenAIChat, events(chunk({name: values[name]}), chunk({}, "stop"))),
    ):
        assert joined.error is None
        assert joined.comparable() != empty
        named = {"reasoning_details", "provider_specific_fields"}
        assert joined.end is not None
        assert bool(joined.end.kept) == (name in named)


@pytest.mark.parametrize("kind", sorted(openai_message.PARTS))
def test_each_kind_of_part_is_read(kind: str) -> None:
    part = {"type": kind, "text": "t", "thinking": "t", "refusal": "t", "image_url": {"url": "data:,"}, "reference_ids": [1]}
    for joined in (
        plain(openai_chat.OpenAIChat, message(content=[part])),
        streamed(openai_chat.OpenAIChat, events(chunk({"content": [part]}), chunk({}, "stop"))),
    ):
        assert joined.content or joined.reasoning or joined.refusal or joined.images or joined.annotations
        assert joined.end is not None
        assert not joined.end.kept


@pytest.mark.parametrize("name", ["surprise", "x" * 300])
@pytest.mark.parametrize("value", ["text", 5, True, {"a": 1}, [1, 2]])
def test_what_no_table_has_is_kept_and_named(name: str, value: Any) -> None:
    for where, whole, pieces in (
        ("message", message(**{name: value}), chunk({name: value})),
        ("choice", message(choice={name: value}), {"choices": [{"index": 0, "delta": {}, name: value}]}),
        ("response", message(top={name: value}), {**chunk({}), name: value}),
    ):
        for joined in (
            plain(openai_chat.OpenAIChat, whole),
            streamed(openai_chat.OpenAIChat, events(pieces, chunk({}, "stop"))),
        ):
            assert joined.fields == {name: value}
            assert joined.end is not None
            assert joined.end.kept == [f"{where}.{name}"]


@pytest.mark.parametrize("kind", [kind for kind, read in openai_responses.EVENTS.items() if read is None])
def test_an_event_that_repeats_others_changes_nothing(kind: str) -> None:
    last = {"type": "response.completed", "response": response()}
    event = {"type": kind, "output_index": 0, "delta": "x", "item": {}, "part": {}}
    with_it, without = (streamed(openai_responses.OpenAIResponses, events(*first, last, done=False)) for first in ([event], []))
    assert with_it.comparable() == without.comparable()


@pytest.mark.parametrize(
    "table", [openai_responses.EVENTS, openai_responses.ITEMS, cohere.EVENTS], ids=["events", "items", "cohere"]
)
def test_each_row_that_is_read_is_in_a_case(table: dict[str, Any]) -> None:
    untested = {kind for kind, read in table.items() if read is not None and f'"{kind}"' not in CASES_OF_ALL}
    same = {kind for kind in untested if any(table[kind] is table[other] for other in table.keys() - untested)}
    assert untested - same <= {"response.audio.delta", "response.audio.transcript.delta"}  # in the test below


def test_audio_of_the_responses_api_is_joined() -> None:
    parts = [{"type": "response.audio.delta", "delta": "AA"}, {"type": "response.audio.transcript.delta", "delta": "he"}]
    parts += [{"type": "response.audio.transcript.delta", "delta": "y"}, {"type": "response.completed", "response": response()}]
    joined = streamed(openai_responses.OpenAIResponses, events(*parts, done=False))
    assert joined.message["audio"] == {"data": "AA", "transcript": "hey"}


def test_ollama_cases_cover_each_finish_word() -> None:
    text = " ".join(json.dumps(case.body, default=repr) for case in OLLAMA)
    assert all(f'"{word}"' in text for word in ("stop", "length", "load"))


# ---- errors ----------------------------------------------------------------------------------------------------------------------

CONTEXT_CODES = [code for code, kind in error_tables.BY_CODE.items() if kind == "context_length_exceeded"]


def test_there_are_at_least_22_wordings() -> None:
    assert len(WORDINGS) >= 22


@pytest.mark.parametrize("text", WORDINGS)
def test_a_full_context_by_its_words(text: str) -> None:
    bodies = [
        {"error": {"message": text, "type": "invalid_request_error"}},
        {"error": text},
        {"message": text},
        {"type": "error", "error": {"type": "invalid_request_error", "message": text}},
        {"detail": text},
        {
            "error": {
                "message": "Provider returned error",
                "code": 400,
                "metadata": {"raw": json.dumps({"error": {"message": text}})},
            }
        },
    ]
    for body in bodies:
        for status in (400, 413, 422, 500):
            assert from_response(status, {}, json.dumps(body).encode()).kind == "context_length_exceeded", body
        assert from_value(body).kind == "context_length_exceeded", body


def test_each_wording_of_the_table_is_used() -> None:
    for name, pattern in error_tables.CONTEXT_WORDINGS.items():
        assert any(re.search(pattern, text.lower()) for text in WORDINGS), name


@pytest.mark.parametrize("code", CONTEXT_CODES)
@pytest.mark.parametrize("member", ["code", "type"])
def test_a_full_context_by_its_code_whatever_the_words(code: str, member: str) -> None:
    body = {"error": {"message": "no", member: code.upper()}}
    assert from_response(400, {}, json.dumps(body).encode()).kind == "context_length_exceeded"
    assert from_value(body).kind == "context_length_exceeded"


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (429, "Too many tokens per minute"),
        (429, "Request too large: limit 30000 tokens per min (TPM)"),
        (400, "Too many tokens, please wait before trying again."),
        (400, "max_tokens is too large: 100000. This model supports at most 4096 completion tokens"),
        (400, "messages is too long? no: messages must not be empty"),
    ],
)
def test_words_near_a_full_context_are_not_one(status: int, text: str) -> None:
    assert from_response(status, {}, json.dumps({"error": {"message": text}}).encode()).kind != "context_length_exceeded"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *error_tables.BY_STATUS.items(),
        (418, "rejected_by_provider"),
        (503, "provider_unavailable"),
        (529, "provider_unavailable"),
        (302, "bad_upstream_response"),
    ],
)
@pytest.mark.parametrize("body", [b"", b"{}", b"null", b"<html>", b"\xff\xfe", b'{"error":{}}', b"[]"])
def test_each_status_has_its_kind(status: int, kind: str, body: bytes) -> None:
    error = from_response(status, {}, body)
    assert error.kind == ("context_length_exceeded" if status == 413 and not body else kind)
    assert error.status == status
    assert error.message
    assert error.extra == ({"deadline": "provider"} if kind == "timeout" else {})


@pytest.mark.parametrize("table", ["BY_CODE", "BY_VAGUE_CODE"])
def test_each_code_has_its_kind(table: str) -> None:
    for code, kind in getattr(error_tables, table).items():
        assert kind in KINDS
        assert from_value({"error": {"type": code}}).kind == kind, code
    assert not set(error_tables.BY_CODE) & set(error_tables.BY_VAGUE_CODE)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (
            401,
            {"error": {"message": "Incorrect API key provided", "type": "invalid_request_error", "code": "invalid_api_key"}},
            "authentication",
        ),
        (400, {"error": {"message": "No connected db.", "type": "no_db_connection", "code": "400"}}, "authentication"),
        (
            400,
            {
                "error": {
                    "message": "litellm.BadRequestError: You passed in model=x. There are no healthy deployments for this model"
                }
            },
            "model_not_found",
        ),
        (400, {"error": {"message": "chat: Invalid model name passed in model=x. Call `/v1/models`"}}, "model_not_found"),
        (
            400,
            {
                "error": {
                    "code": 400,
                    "message": "API key not valid",
                    "status": "INVALID_ARGUMENT",
                    "details": [{"reason": "API_KEY_INVALID"}],
                }
            },
            "authentication",
        ),
        (
            429,
            {"error": {"message": "You exceeded your current quota", "type": "insufficient_quota", "code": "insufficient_quota"}},
            "budget_exceeded",
        ),
        (
            400,
            {
                "type": "error",
                "error": {"type": "invalid_request_error", "message": "Your credit balance is too low to access the API"},
            },
            "budget_exceeded",
        ),
        (429, {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "quota"}}, "rate_limited"),
        (
            400,
            {"error": {"code": "content_filter", "message": "x", "innererror": {"code": "ResponsibleAIPolicyViolation"}}},
            "content_policy",
        ),
        (
            403,
            {"error": {"code": 403, "message": "input was flagged by moderation", "metadata": {"reasons": ["x"]}}},
            "content_policy",
        ),
        (400, {"error": {"code": "tool_use_failed", "message": "Failed", "failed_generation": "<f>"}}, "bad_upstream_response"),
        (400, {"__type": "com.amazon.coral#ThrottlingException", "message": "slow"}, "rate_limited"),
        (404, {"error": {"code": "DeploymentNotFound", "message": "x"}}, "model_not_found"),
        (400, {"error": {"message": "The model `x` does not exist"}}, "model_not_found"),
        (422, {"detail": [{"loc": ["body"], "msg": "field required", "type": "missing"}]}, "rejected_by_provider"),
        (403, {"code": "x", "error": "You have used all available credits"}, "budget_exceeded"),
        (500, {"error": {"message": "maximum batch", "type": "server_error"}}, "provider_unavailable"),
        (200, {"error": {"message": "slow", "code": 429}}, "rate_limited"),
        (200, {"base_resp": {"status_code": 1004, "status_msg": "invalid api key"}}, "authentication"),
    ],
)
def test_codes_words_and_status_in_their_order(status: int, body: Any, kind: str) -> None:
    assert from_response(status, {}, json.dumps(body).encode()).kind == kind


def test_the_failed_text_of_a_tool_call_is_quoted() -> None:
    body = {"error": {"code": "tool_use_failed", "message": "Failed to call a function.", "failed_generation": "<function=f{"}}
    assert "<function=f{" in from_response(400, {}, json.dumps(body).encode()).message


@pytest.mark.parametrize(
    ("headers", "body", "wait"),
    [
        ({"retry-after": "3"}, {"error": {"message": "x"}}, 3000),
        ({"Retry-After-Ms": "250"}, {"error": {"message": "x"}}, 250),
        ({}, {"error": {"message": "Please try again in 1.5s"}}, 1500),
        ({}, {"error": {"message": "x", "details": [{"retryDelay": "7s"}]}}, 7000),
        ({}, [{"error": {"message": "x", "details": [{"retryDelay": "7s"}]}}], 7000),
        ({}, {"error": {"message": "x", "metadata": {"headers": {"Retry-After": "2"}}}}, 2000),
        ({}, {"error": {"message": "x"}}, None),
    ],
)
def test_advice_to_wait(headers: dict[str, str], body: Any, wait: int | None) -> None:
    assert from_response(429, headers, json.dumps(body).encode()).retry_after_ms == wait
    assert from_response(400, headers, json.dumps(body).encode()).retry_after_ms is None


def test_quotes_are_cut_and_html_is_its_title() -> None:
    assert len(quote("x" * 100_000)) <= 500
    assert len(unreadable(b"x" * 100_000).message) < 600
    assert interrupted(b"x" * 100_000).kind == "stream_interrupted"
    assert quote(b"<html><title> Not \n here</title>") == 'an HTML page "Not here"'


@pytest.mark.parametrize(
    "body", [b"a " * 40_000, b"input token count " * 8_000, b"<title" * 20_000, b'{"error":' * 9_000, b"[" * 65_536]
)
def test_a_huge_error_body_takes_no_time(body: bytes) -> None:
    began = time.process_time()
    assert from_response(400, {}, body).kind
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize(
    ("text", "value"), [("NaN", None), ("-Infinity", None), ("1e999", None), (" [1.5] ", [1.5]), ('"\\ud800"', "\ud800")]
)
def test_json_that_python_takes_and_the_wire_does_not(text: str, value: Any) -> None:
    assert parse(text.encode()) == value


@pytest.mark.parametrize("data", [b"", b"{", b"1 2", b"[" * 100_000, b"9" * 5_000, b'{"a": ' * 50_000, b"[1]x", b"\x00"])
def test_a_text_that_is_not_json_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # any: json's own, or that of a number too long
        parse(data)
