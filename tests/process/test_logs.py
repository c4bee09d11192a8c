"""The log: a line each, never content, never a secret, and never in anybody's way."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.conftest import Spawn
from tests.support.upstream import Upstream
from tests.support.worker import run

MARKER = "Zebra-4711"  # what was said
SECRET = "sk-very-secret-0815"
USER = [{"role": "user", "content": f"tell me of {MARKER}"}]


# ---- one line a request --------------------------------------------------------------------------------------------------------


def log_lines(*requests: dict[str, Any], format: str = "json", level: str = "info") -> list[str]:
    """The log of a process that got this request."""
    lines = [{"jsonrpc": "2.0", "id": n, "method": "chat", **request} for n, request in enumerate(requests)]
    input = "".join(json.dumps(line) + "\n" for line in lines).encode()
    code, _, stderr = run("--stdio", f"--log-level={level}", f"--log-format={format}", input=input, env={"SOME_API_KEY": SECRET})
    assert code == 0
    assert not stderr or stderr.endswith("\n")
    return stderr.split("\n")[:-1]  # and not where str.splitlines does: U+2028 may stand in JSON


def chat(model: Any = "offline/echo", **params: Any) -> dict[str, Any]:
    return {"params": {"model": model, "messages": USER, **params}}


@pytest.mark.rule("LOG-1", "LOG-2")
def test_a_chat_is_one_line_with_what_it_cost() -> None:
    lines = log_lines(chat(stream=True))
    assert len(lines) == 1, lines
    line = lines[0]
    members = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", members.pop("time"))
    assert members.pop("ms") >= 0
    assert members == {
        "level": "info",
        "logger": "bridge_worker.requests",
        "message": "request",
        "id": 0,
        "method": "chat",
        "outcome": "ok",
        "model": "offline/echo",
        "stream": True,
        "provider": "offline",
        "input_tokens": 4,
        "output_tokens": 4,
        "cost_usd": 0.0,
    }


@pytest.mark.rule("LOG-2")
@pytest.mark.parametrize(
    ("request_", "outcome"),
    [
        (chat("offline/none"), "model_not_found"),
        (chat(colour="red"), "invalid_request"),
        ({"params": {}}, "invalid_request"),
    ],
    ids=["no such model", "unknown member", "no params"],
)
def test_a_chat_that_fails_is_one_line_too(request_: dict[str, Any], outcome: str) -> None:
    (line,) = log_lines(request_)
    members = json.loads(line)
    assert (members["id"], members["method"], members["outcome"]) == (0, "chat", outcome)
    assert {"model", "stream", "provider", "ms"} <= set(members)


@pytest.mark.rule("LOG-2")
def test_a_method_that_does_not_exist_is_one_line_and_the_lifecycle_none() -> None:
    lines = log_lines(
        {"method": "no/such"}, {"method": "ping"}, {"method": "initialize", "params": {"protocolVersion": "2025-06-18"}}
    )
    assert [json.loads(line)["outcome"] for line in lines] == ["method_not_found"]


@pytest.mark.rule("LOG-2")
@pytest.mark.parametrize("format", ["json", "text"])
def test_each_request_is_one_line_whatever_its_names_hold(format: str) -> None:
    hostile = 'offline/none\n2026-01-01T00:00:00.000Z error forged: {"level":"error"}\r\x85\u2028\x1b[31m'
    lines = log_lines(chat(hostile), {"method": hostile}, {"id": hostile, **chat()}, format=format)
    assert len(lines) == 3
    assert all("forged" not in line or line.index("forged") > line.index("request") for line in lines)
    assert "\x1b" not in "".join(lines)


@pytest.mark.rule("LOG-1")
def test_the_text_format_is_text_with_the_same_facts() -> None:
    (line,) = log_lines(chat(), format="text")
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z info bridge_worker\.requests: request id=0 method=chat ", line)
    assert {"outcome=ok", "model=offline/echo", "stream=False", "provider=offline", "input_tokens=4"} <= set(line.split())


@pytest.mark.rule("LOG-1")
def test_nothing_is_logged_of_ordinary_work_by_default() -> None:
    assert log_lines(chat(), chat("offline/none"), chat(colour="red"), level="warning") == []


# ---- never content, never a secret ---------------------------------------------------------------------------------------------

TEXT_EVERYWHERE = [
    chat(),
    chat(stream=True),
    chat("offline/none"),
    chat(messages=[{"role": "user", "content": [{"type": "text", "text": MARKER}]}]),
    chat(messages=[{"role": "user", "content": {"text": MARKER}}]),
    chat(messages=[{"role": MARKER, "content": MARKER}]),
    chat(messages=MARKER),
    chat(model=[MARKER]),
    chat(model={"name": MARKER}),
    chat(stream=MARKER),
    chat(stop=[MARKER], user=MARKER, metadata={"x": MARKER}),
    chat("offline/tools", tools=[{"type": "function", "function": {"name": "f", "description": MARKER}}]),
    chat("offline/tools", tools=[{"type": MARKER}]),
    chat(**{MARKER: MARKER}),
    {"params": [MARKER]},
    {"method": "no/such", "params": {"said": MARKER}},
]


@pytest.mark.rule("LOG-3")
@pytest.mark.parametrize("format", ["json", "text"])
def test_no_chat_content_is_logged(format: str) -> None:
    lines = log_lines(*TEXT_EVERYWHERE, format=format)
    assert len(lines) == len(TEXT_EVERYWHERE) - 1  # params that are an array never reach a method
    assert [line for line in lines if MARKER in line] == []


@pytest.mark.rule("LOG-4")
@pytest.mark.parametrize("format", ["json", "text"])
def test_secrets_are_masked_in_every_member(format: str) -> None:
    hidden = [
        chat(f"offline/{SECRET}"),
        {"id": f"key {SECRET}", **chat()},
        {"method": f"{SECRET}/x"},
        chat({"key": SECRET}),
        chat([SECRET]),
    ]
    lines = log_lines(*hidden, format=format)
    assert len(lines) == len(hidden)
    assert SECRET not in "\n".join(lines)


@pytest.mark.rule("LOG-3", "LOG-2")
def test_at_info_litellm_adds_nothing_to_the_line_a_request(upstream: Upstream, spawn: Spawn) -> None:
    worker = spawn("--log-level=info", env={"OPENAI_API_KEY": SECRET, "OPENAI_BASE_URL": upstream.base_url})
    for model, stream in (
        ("openai/gpt-4o-mini", False),
        ("openai/gpt-4o-mini", True),
        ("openai/status-401", False),
        ("nobody/x", False),
    ):
        worker.call("chat", {"model": model, "messages": USER, "stream": stream})
    worker.end_input()
    assert worker.exit_code() == 0
    lines = [json.loads(line) for line in worker.stderr.splitlines()]
    assert [line["logger"] for line in lines] == ["bridge_worker.requests"] * 4, worker.stderr
    assert [line["outcome"] for line in lines[:3]] == ["ok", "ok", "authentication"]
    assert MARKER not in worker.stderr
    assert SECRET not in worker.stderr


@pytest.mark.rule("LOG-3", "LOG-4")
def test_at_debug_litellm_logs_neither_keys_nor_chat_content(upstream: Upstream, spawn: Spawn) -> None:
    worker = spawn("--log-level=debug", env={"OPENAI_API_KEY": SECRET, "OPENAI_BASE_URL": upstream.base_url})
    for model in ("openai/gpt-4o-mini", "openai/status-401", "openai/garbage", "nobody/x"):
        worker.call("chat", {"model": model, "messages": USER})
    worker.end_input()
    assert worker.exit_code() == 0
    lines = [json.loads(line) for line in worker.stderr.splitlines()]
    assert len([line for line in lines if line["message"] == "request"]) == 4
    assert "debug" in {line["level"] for line in lines}
    assert SECRET not in worker.stderr
    assert MARKER not in worker.stderr
