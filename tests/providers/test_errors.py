"""Each kind of error, reached from a real HTTP answer or a broken socket, as the caller of the real process sees it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bridge_worker.errors import KINDS, MAX_MESSAGE_BYTES
from bridge_worker.schema.errors import Error
from tests.conftest import WorkerFor
from tests.support.data import HELLO, KEY, tool
from tests.support.upstream import End, Gate, Json, Upstream, chunk, reply_text, sse
from tests.support.upstream_format import words
from tests.support.worker import Worker, wait_until

WORDS = words(reply_text("Grüße 🦜"))
TOOLS = [tool("weather")]
OURS = (r"Traceback", r"\.py\b", r"site-packages", r"litellm", r"0x[0-9a-f]{6}")  # shows a caller only our implementation

Fail = Callable[..., Json]


@pytest.fixture(scope="module")
def worker(upstream: Upstream, worker_for: WorkerFor) -> Worker:
    refused = {"DEEPSEEK_API_KEY": KEY, "DEEPSEEK_API_BASE": upstream.refused_url}
    anthropic = {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": upstream.base_url.removesuffix("/v1")}
    env = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": upstream.base_url, **refused, **anthropic}
    return worker_for("--log-level=info", env=env)


@pytest.fixture
def fail(worker: Worker, streamed: bool) -> Fail:
    """One chat's error; what is true of every error has been checked."""

    def chat(model: str, **params: Any) -> Json:
        return failed(worker, {"model": model, "messages": HELLO, "stream": streamed, **params})

    return chat


def failed(worker: Worker, params: Json, gate: Gate | None = None, deltas: int = 1) -> Json:
    """``gate`` is opened when so many deltas have come: a client may lose what it has not read when its connection breaks."""
    id = worker.request("chat", params)
    if gate:
        last = {"requestId": id, "seq": deltas - 1}
        worker.wait_for(lambda m: isinstance(m, dict) and last.items() <= m.get("params", {}).items())
        gate.set()
    response = worker.response(id)
    assert "error" in response, response
    error: Json = response["error"]
    Error.model_validate(error)
    data = error["data"]
    assert (error["code"], data["retryable"]) == KINDS[data["kind"]][:2]
    assert len(error["message"].encode()) <= MAX_MESSAGE_BYTES
    assert KEY not in json.dumps(error)
    for pattern in OURS:
        assert not re.search(pattern, error["message"], re.IGNORECASE), error["message"]
    sent = "".join(note["delta"].get("content", "") for note in worker.deltas(id)) or None
    assert sent == data.get("partial", {"content": sent})["content"]
    assert sent is None or "partial" in data
    log_line = log_of(worker, id)
    assert (log_line["outcome"], log_line["model"], log_line["stream"]) == (
        data["kind"],
        params["model"],
        params.get("stream", False),
    )
    assert KEY not in json.dumps(log_line)
    return error


def log_of(worker: Worker, id: int | str) -> Json:
    """The one line of the log about a request."""

    def lines() -> list[Json]:
        written = [json.loads(line) for line in worker.stderr.splitlines(keepends=True) if line.endswith("\n")]
        return [line for line in written if line.get("id") == id and line["message"] == "request"]

    wait_until(lambda: bool(lines()), f"a log line of request {id}")
    (line,) = lines()
    return line


# ---- what the provider answers -----------------------------------------------------------------------------------------------


@pytest.mark.rule("ERR-1", "ERR-2", "ERR-5", "LOG-2")
@pytest.mark.parametrize(
    ("model", "kind", "status", "part"),
    [
        ("status-400", "rejected_by_provider", 400, "Invalid value for 'temperature'."),
        ("status-401", "authentication", 401, "Incorrect API key provided"),
        ("status-402", "budget_exceeded", 402, "This request requires more credits."),
        ("status-403", "permission", 403, "The project of this key has no access to the model."),
        ("status-404", "model_not_found", 404, "The model `status-404` does not exist"),
        ("status-408", "timeout", 408, "The request timed out."),
        ("status-413", "rejected_by_provider", 413, "The request is too large."),
        ("status-418", "rejected_by_provider", 418, "The server had an error"),
        ("status-422", "rejected_by_provider", 422, "messages.0.content is not valid"),
        ("status-429", "rate_limited", 429, "Rate limit reached for status-429"),
        ("quota", "budget_exceeded", 429, "You exceeded your current quota"),
        ("status-500", "provider_unavailable", 500, "The server had an error"),
        ("status-502", "provider_unavailable", 502, "The server had an error"),
        ("status-503", "provider_unavailable", 503, "The server had an error"),
        ("status-504", "timeout", 504, "The server had an error"),
        ("status-529", "provider_unavailable", 529, "Overloaded"),
        ("context-length", "context_length_exceeded", 400, "maximum context length is 8192 tokens"),
        ("content-policy", "content_policy", 400, "rejected as a result of our safety system"),
        ("html-502", "provider_unavailable", 502, "502"),
        ("html-404", "model_not_found", 404, "404"),
    ],
)
def test_an_error_response_has_the_kind_of_its_status(fail: Fail, model: str, kind: str, status: int, part: str) -> None:
    error = fail(f"openai/{model}")
    data = error["data"]
    assert (data["kind"], data["status"]) == (kind, status)
    assert (data["provider"], data["model"]) == ("openai", f"openai/{model}")
    assert part in error["message"]
    assert "<" not in error["message"]


@pytest.mark.rule("ERR-4")
@pytest.mark.parametrize(
    ("model", "low", "high"),
    [
        ("retry-after-7", 7000, 7000),
        ("retry-after-ms-1500", 1500, 1500),
        ("retry-after-date-30", 1, 30_000),
        ("status-429", None, None),
        ("status-503", None, None),
    ],
)
def test_the_providers_retry_after_is_reported(fail: Fail, model: str, low: int | None, high: int | None) -> None:
    wait = fail(f"openai/{model}")["data"]["retry_after_ms"]
    assert wait is None if low is None or high is None else low <= wait <= high


@pytest.mark.rule("ERR-3")
def test_one_failure_is_one_request(fail: Fail, upstream: Upstream) -> None:
    """The bridge retries nothing by itself: the agent gets the error, and decides."""
    before = upstream.counts["status-503"]
    fail("openai/status-503")
    assert upstream.counts["status-503"] == before + 1


@pytest.mark.parametrize("model", ["garbage", "html-200", "empty-body", "empty-choices"])
def test_a_malformed_response_is_a_bad_upstream_response(fail: Fail, model: str) -> None:
    data = fail(f"openai/{model}")["data"]
    assert (data["kind"], data["provider"], data["model"]) == ("bad_upstream_response", "openai", f"openai/{model}")


@pytest.mark.parametrize(
    "body",
    [
        {"object": "chat.completion", "choices": None},
        {"object": "chat.completion"},
        {"choices": "none"},
        [],
        "busy",
        None,
    ],
    ids=json.dumps,
)
def test_json_that_is_not_a_completion_is_a_bad_upstream_response(
    fail: Fail, upstream: Upstream, streamed: bool, body: Any
) -> None:
    model = f"no-answer-{len(upstream.requests)}"
    data = json.dumps(body).encode()
    if streamed:
        upstream.script(model, chunks=[b"data: " + data + b"\n\n", b"data: [DONE]\n\n"])
    else:
        upstream.script(model, body=data)
    assert fail(f"openai/{model}")["data"]["kind"] == "bad_upstream_response"


@pytest.mark.rule("RES-4")
def test_tool_arguments_that_are_not_json_are_a_bad_upstream_response(fail: Fail, streamed: bool) -> None:
    error = fail("openai/tools-bad-json", tools=TOOLS)
    assert (error["data"]["kind"], error["data"]["provider"]) == ("bad_upstream_response", "openai")
    assert "weather" in error["message"]
    (call,) = error["data"]["partial"]["tool_calls"]
    assert call["function"] == {"name": "weather", "arguments": '{"city": "Zür'}


@pytest.mark.rule("ERR-6")
@pytest.mark.parametrize("status", [200, 500])
def test_a_body_of_50_mb_makes_a_short_message(fail: Fail, upstream: Upstream, status: int) -> None:
    model = f"enormous-{status}"
    upstream.script(model, body=b'{"error": {"message": "' + b"Because. " * (50 << 20 // 9) + b'"', status=status)
    data = fail(f"openai/{model}")["data"]
    assert data["kind"] == ("provider_unavailable" if status == 500 else "bad_upstream_response")


# ---- no answer ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["openai/reset", "openai/close", "deepseek/refused"])
def test_a_connection_that_fails_is_provider_unavailable(fail: Fail, model: str) -> None:
    data = fail(model)["data"]
    assert (data["kind"], data["status"]) == ("provider_unavailable", None)
    assert (data["provider"], data["model"]) == (model.split("/")[0], model)


@pytest.mark.parametrize("model", ["too-short", "reset-after-1", "cut-1"])
def test_a_plain_response_that_breaks_off_is_provider_unavailable(worker: Worker, model: str) -> None:
    data = failed(worker, {"model": f"openai/{model}", "messages": HELLO})["data"]
    assert (data["kind"], data["provider"]) == ("provider_unavailable", "openai")


@pytest.mark.rule("CHT-10")
@pytest.mark.parametrize("model", ["nobody/any", "no-such-model", "nobody/openai/gpt-4o-mini"])
def test_a_model_of_no_provider_is_not_found(fail: Fail, upstream: Upstream, model: str) -> None:
    before = len(upstream.requests)
    error = fail(model)
    assert (error["data"]["kind"], error["data"]["status"]) == ("model_not_found", None)
    assert len(upstream.requests) == before


def test_a_parameter_that_the_model_does_not_support_is_rejected(fail: Fail) -> None:
    error = fail("openai/any", thinking={"type": "enabled", "budget_tokens": 1024})
    assert (error["data"]["kind"], error["data"]["status"]) == ("rejected_by_provider", None)
    assert "thinking" in error["message"]


@pytest.mark.rule("CHT-10")
@pytest.mark.parametrize(
    ("provider", "variable"), [("openai", "OPENAI_API_KEY"), ("anthropic", "ANTHROPIC_API_KEY"), ("deepseek", "DEEPSEEK_API_KEY")]
)
def test_without_a_key_the_variable_is_named(
    keyless: Worker, upstream: Upstream, streamed: bool, provider: str, variable: str
) -> None:
    before = len(upstream.requests)
    error = failed(keyless, {"model": f"{provider}/any", "messages": HELLO, "stream": streamed})
    assert (error["data"]["kind"], error["data"]["provider"]) == ("authentication", provider)
    assert variable in error["message"]
    assert len(upstream.requests) == before or upstream.requests[-1].headers.get("authorization", "") == ""


@pytest.fixture(scope="module")
def keyless(upstream: Upstream) -> Iterator[Worker]:
    variables = ("OPENAI_BASE_URL", "ANTHROPIC_BASE_URL", "DEEPSEEK_API_BASE")
    with Worker("--log-level=info", env=dict.fromkeys(variables, upstream.base_url)) as worker:
        yield worker


# ---- streams that break off --------------------------------------------------------------------------------------------------


@pytest.mark.rule("STR-8")
@pytest.mark.parametrize("model", ["truncated", "bad-chunk", "stream-error"])
def test_a_stream_that_fails_keeps_the_content_received_so_far(worker: Worker, model: str) -> None:
    check_interrupted(failed(worker, {"model": f"openai/{model}-2", "messages": HELLO, "stream": True}), f"openai/{model}-2")


@pytest.mark.rule("STR-8")
@pytest.mark.parametrize("ending", [End.RESET, End.CLOSE], ids=["reset", "closed"])
def test_a_stream_with_a_broken_connection_keeps_the_received_content(worker: Worker, upstream: Upstream, ending: End) -> None:
    gate, model = Gate(), f"breaks-{ending.name}"
    upstream.script(model, chunks=[*(chunk({"content": word}) for word in WORDS[:2]), gate, ending])
    error = failed(worker, {"model": f"openai/{model}", "messages": HELLO, "stream": True}, gate, deltas=2)
    check_interrupted(error, f"openai/{model}")


def check_interrupted(error: Json, model: str) -> None:
    data = error["data"]
    assert (data["kind"], data["provider"], data["model"]) == ("stream_interrupted", "openai", model)
    assert data["partial"] == {"content": "".join(WORDS[:2]), "tool_calls": []}


@pytest.mark.rule("STR-8")
def test_a_stream_that_breaks_off_in_a_call_keeps_the_piece(worker: Worker, upstream: Upstream) -> None:
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"ci'}}
    upstream.script("half-a-call", chunks=[chunk({"content": "So: "}), chunk({"tool_calls": [call]})])
    data = failed(worker, {"model": "openai/half-a-call", "messages": HELLO, "stream": True, "tools": TOOLS})["data"]
    assert (data["kind"], data["partial"]["content"]) == ("stream_interrupted", "So: ")
    (kept,) = data["partial"]["tool_calls"]
    assert (kept["id"], kept["function"]) == ("call_1", {"name": "weather", "arguments": '{"ci'})


@pytest.mark.rule("STR-9")
@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("reset-after-0", "provider_unavailable"),
        ("cut-0", "provider_unavailable"),
        ("truncated-0", "bad_upstream_response"),
        ("bad-chunk-0", "bad_upstream_response"),
        ("stream-error-0", "provider_unavailable"),
    ],
)
def test_a_stream_that_breaks_before_any_text_can_be_tried_again(worker: Worker, model: str, kind: str) -> None:
    data = failed(worker, {"model": f"openai/{model}", "messages": HELLO, "stream": True})["data"]
    assert (data["kind"], data["retryable"]) == (kind, True)


@pytest.mark.rule("STR-9")
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"message": "Overloaded", "code": 503}, "provider_unavailable"),
        ({"message": "Slow down", "code": 429}, "rate_limited"),
    ],
    ids=["503", "429"],
)
def test_an_error_in_a_stream_with_status_200_is_that_error(worker: Worker, upstream: Upstream, error: Json, kind: str) -> None:
    model = f"error-in-200-{kind}"
    upstream.script(model, chunks=[sse({"error": error})])
    streamed = failed(worker, {"model": f"openai/{model}", "messages": HELLO, "stream": True})
    assert streamed["data"]["kind"] == kind
    assert error["message"] in streamed["message"]


# ---- another provider's format -----------------------------------------------------------------------------------------------


@pytest.mark.rule("ERR-1", "ERR-2")
@pytest.mark.parametrize(
    ("status", "type", "kind"),
    [
        (401, "authentication_error", "authentication"),
        (403, "permission_error", "permission"),
        (404, "not_found_error", "model_not_found"),
        (413, "request_too_large", "rejected_by_provider"),
        (429, "rate_limit_error", "rate_limited"),
        (500, "api_error", "provider_unavailable"),
        (503, "api_error", "provider_unavailable"),
        (529, "overloaded_error", "provider_unavailable"),
    ],
)
def test_anthropics_errors_have_the_kind_of_their_type(fail: Fail, upstream: Upstream, status: int, type: str, kind: str) -> None:
    model = f"claude-{status}"
    body = {"type": "error", "error": {"type": type, "message": "This is the reason."}}
    upstream.script(model, status=status, body=body, headers={"retry-after": "3"})
    error = fail(f"anthropic/{model}")
    data = error["data"]
    assert (data["kind"], data["status"], data["provider"]) == (kind, status, "anthropic")
    assert data["retry_after_ms"] == (3000 if data["retryable"] else None)
    assert "This is the reason." in error["message"]


def anthropic_stream(*events: Json) -> list[bytes]:
    usage = {"input_tokens": 5, "output_tokens": 1}
    start = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": [],
        "stop_reason": None,
        "usage": usage,
    }
    first = [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    ]
    return [b"event: %b\n%b" % (event["type"].encode(), sse(event)) for event in [*first, *events]]


@pytest.mark.rule("STR-8")
@pytest.mark.parametrize(
    "ending",
    [
        [],
        [b'event: content_block_delta\ndata: {"type": "content_bl\n\n', *anthropic_stream({"type": "message_stop"})[-1:]],
        anthropic_stream({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})[-1:],
        [End.RESET],
    ],
    ids=["truncated", "malformed", "error", "reset"],
)
def test_anthropics_stream_that_breaks_off_keeps_what_came(worker: Worker, upstream: Upstream, ending: list[Any]) -> None:
    model = f"claude-breaks-{len(upstream.requests)}"
    event = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "I was"}}
    gate = Gate()
    upstream.script(model, chunks=[*anthropic_stream(event), gate, *ending])
    data = failed(worker, {"model": f"anthropic/{model}", "messages": HELLO, "stream": True}, gate)["data"]
    assert (data["kind"], data["partial"]["content"], data["provider"]) == ("stream_interrupted", "I was", "anthropic")


# ---- deadlines ---------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("DLN-4", "DLN-5")
@pytest.mark.parametrize(
    ("model", "streamed", "deadline", "has_words"),
    [
        ("hang", False, "total_ms", 0),
        ("hang", True, "total_ms", 0),
        ("hang-after-headers", False, "total_ms", 0),
        ("hang", True, "first_token_ms", 0),
        ("hang-after-headers", True, "first_token_ms", 0),
        ("hang-after-0", True, "first_token_ms", 0),
        ("hang-after-1", True, "idle_ms", 1),
        ("hang-after-1", True, "total_ms", 1),
    ],
)
def test_a_deadline_ends_the_wait_and_closes_the_connection(
    worker: Worker, upstream: Upstream, model: str, streamed: bool, deadline: str, has_words: int
) -> None:
    worker.chat("openai/slow-1ms", stream=streamed)  # the first chat of a format is slow: it must not take the deadline's time
    params = {"model": f"openai/{model}", "messages": HELLO, "stream": streamed, "deadlines": {deadline: 400}}
    error = failed(worker, params)
    data = error["data"]
    assert (data["kind"], data["deadline"], data["status"]) == ("timeout", deadline, None)
    on_a_slow_machine = {None} if deadline == "total_ms" else set()  # it may pass before the word has come
    assert data["partial"]["content"] in {WORDS[0] if has_words else None} | on_a_slow_machine
    assert f"{deadline} = 400 ms" in error["message"]
    upstream.requests[-1].wait_closed()


@pytest.mark.rule("DLN-1", "DLN-5")
def test_a_slow_drip_is_ended_by_the_total_deadline_only(worker: Worker, upstream: Upstream) -> None:
    worker.chat("openai/slow-1ms", stream=True)
    params = {"model": "openai/slow-50ms", "messages": HELLO, "stream": True}
    data = failed(worker, params | {"deadlines": {"total_ms": 300, "first_token_ms": 60_000, "idle_ms": 60_000}})["data"]
    assert (data["kind"], data["deadline"]) == ("timeout", "total_ms")
    upstream.requests[-1].wait_closed()
    assert worker.chat("openai/slow-1ms", stream=True, deadlines={"idle_ms": 60_000})["finish_reason"] == "stop"


@pytest.mark.rule("ERR-9")
def test_a_deadline_is_for_its_own_request(worker: Worker, upstream: Upstream) -> None:
    gate = Gate()
    upstream.script("patient", before=gate, chunks=[chunk({"content": "here"}, "stop")])
    other = worker.request("chat", {"model": "openai/patient", "messages": HELLO, "stream": True})
    gate.wait_reached()
    failed(worker, {"model": "openai/hang", "messages": HELLO, "deadlines": {"total_ms": 100}})
    gate.set()
    assert worker.response(other)["result"]["content"] == "here"


# ---- afterwards --------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("LOG-3", "LOG-4")
def test_the_log_never_holds_the_key_or_chat_content(worker: Worker) -> None:
    """Last in this file on purpose: the log of every failure above is there."""
    failed(worker, {"model": "openai/status-401", "messages": [{"role": "user", "content": "my private question"}]})
    assert KEY not in worker.stderr
    assert "my private question" not in worker.stderr
    assert "Grüße" not in worker.stderr
    assert worker.chat("openai/well")["finish_reason"] == "stop"  # and after them all it works


@pytest.mark.rule("ERR-5", "ERR-6")
@pytest.mark.parametrize(
    ("raw", "left"),
    [
        (f"Incorrect API key provided: {KEY}. Try another.", "Try another"),
        (f"Authorization: Bearer {KEY}", "Authorization"),
        ("No such model.\nTraceback (most recent call last):\n  File '/srv/app/main.py', line 7", "No such model."),
        ("can't open /home/someone/.config/gateway/keys.json", "can't open"),
        ("wrong " * 10_000, "wrong wrong"),
    ],
)
def test_a_providers_message_is_cleaned_before_it_is_sent(worker: Worker, upstream: Upstream, raw: str, left: str) -> None:
    model = f"says-{hash(raw)}"
    upstream.script(model, body={"error": {"message": raw}}, status=400)
    error = worker.call("chat", {"model": f"openai/{model}", "messages": [{"role": "user", "content": "hi"}]})["error"]
    assert left in error["message"]
    assert not [secret for secret in (KEY, "Traceback", "/srv", "/home/someone") if secret in error["message"]]
    assert len(error["message"].encode()) <= 2048
