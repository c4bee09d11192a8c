"""What servers really send, through the worker: plain and streamed, without a config and behind the Router.

The decoders have their cases in ``tests/unit/wire``; these prove that no mode changes an outcome.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.data import KEY
from tests.support.upstream import DONE, USAGE, End, Upstream, chunk
from tests.support.worker import Json, Worker

HI = [{"role": "user", "content": "hi"}]


class Asker:
    """A worker and the name by which it reaches a scripted model."""

    def __init__(self, worker: Worker, upstream: Upstream, prefix: str) -> None:
        self.worker = worker
        self.upstream = upstream
        self._prefix = prefix
        self._count = 0

    def __call__(self, stream: bool, *, message: Json | None = None, chunks: list[Any] | None = None, **script: Any) -> Json:
        """The result of one chat, or its error; the provider's choice is ``message``, or ``script`` says what else it sends."""
        self._count += 1
        model = f"{self._prefix}-{self._count}"
        if stream and chunks is not None:
            self.upstream.script(model, chunks=chunks)
        elif message is not None:
            finish = message.pop("finish_reason", "stop")
            choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
            body = {"id": "x", "object": "chat.completion", "created": 1, "model": model, "choices": [choice], "usage": USAGE}
            self.upstream.script(model, body=body)
        else:
            self.upstream.script(model, **script)
        response = self.worker.call("chat", {"model": f"openai/{model}", "messages": HI, "stream": stream})
        made: Json = response["result"] if "result" in response else response["error"]
        return made


@pytest.fixture(scope="module", params=["no config", "config"])
def chat(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asker]:
    with Upstream() as upstream:
        flags: list[str] = []
        if request.param == "config":
            path = tmp_path_factory.mktemp("kinds") / "config.yaml"
            params = {"model": "openai/*", "api_key": KEY, "api_base": upstream.base_url}
            config = {"model_list": [{"model_name": "openai/*", "litellm_params": params}], "router_settings": {"num_retries": 0}}
            path.write_text(json.dumps(config), encoding="utf-8")
            path.chmod(0o600)
            flags = ["--config", str(path)]
        env = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": upstream.base_url}
        with Worker(*flags, env=env) as worker:
            yield Asker(worker, upstream, "kind")


def test_a_null_delta_and_choices_without_content_lose_nothing(chat: Asker, streamed: bool) -> None:
    nulls = [{**chunk({}), "choices": [{"index": 0, "delta": None, "finish_reason": None}]}, {**chunk({}), "choices": None}]
    chunks = [
        chunk({"role": "assistant", "content": "so"}),
        *nulls,
        chunk({}, "stop"),
        {**chunk({}), "choices": [], "usage": USAGE},
        DONE,
    ]
    result = chat(streamed, message={"content": "so"}, chunks=chunks)
    assert (result["content"], result["usage"]["total_tokens"]) == ("so", USAGE["total_tokens"])


def test_content_as_parts_is_text(chat: Asker, streamed: bool) -> None:
    parts = [{"type": "text", "text": "so "}, {"type": "text", "text": "far"}]
    result = chat(
        streamed, message={"content": parts}, chunks=[chunk({"role": "assistant", "content": parts}), chunk({}, "stop"), DONE]
    )
    assert result["content"] == "so far"


def test_a_finish_reason_that_reports_an_error_is_one(chat: Asker, streamed: bool) -> None:
    chunks = [chunk({"role": "assistant", "content": "so"}), chunk({}, "error"), DONE]
    data = chat(streamed, message={"content": "so", "finish_reason": "error"}, chunks=chunks)["data"]
    assert data["kind"] == ("stream_interrupted" if streamed else "provider_unavailable")
    assert data["partial"]["content"] == "so"


def test_an_error_in_mid_stream_has_the_text_so_far(chat: Asker) -> None:
    error = {"error": {"code": 502, "message": "the upstream is gone"}, "choices": []}
    data = chat(True, chunks=[chunk({"role": "assistant", "content": "half"}), error, DONE])["data"]
    assert (data["kind"], data["partial"]["content"]) == ("stream_interrupted", "half")


@pytest.mark.parametrize("body", [b"<html>Bad gateway</html>", b"", b"[]", b'{"choices": []}'])
def test_a_good_status_with_something_else_is_a_bad_response(chat: Asker, streamed: bool, body: bytes) -> None:
    error = chat(streamed, body=body)
    assert error["data"]["kind"] == "bad_upstream_response"
    assert ("an HTML page" if body.startswith(b"<") else body.decode()) in error["message"]


def test_a_json_error_as_the_response_to_a_stream_is_that_error(chat: Asker, streamed: bool) -> None:
    error = chat(streamed, body={"error": {"message": "slow down", "type": "rate_limit_error", "code": "rate_limit_exceeded"}})
    assert (error["data"]["kind"], error["data"]["retryable"]) == ("rate_limited", True)


def test_a_failed_tool_call_of_groqs_comes_with_its_text(chat: Asker, streamed: bool) -> None:
    failed = {"message": "Failed to call a function.", "code": "tool_use_failed", "failed_generation": "<function=f>{oops"}
    error = chat(streamed, status=400, body={"error": failed})
    assert "<function=f>{oops" in error["message"]


@pytest.mark.parametrize(
    "error",
    [
        {"message": "This model's maximum context length is 8192 tokens", "code": "context_length_exceeded"},
        {"message": "the request exceeds the available context size", "type": "exceed_context_size_error"},
        {"message": "prompt is too long: 200001 tokens > 200000 maximum", "type": "invalid_request_error"},
    ],
)
def test_a_full_context_has_its_kind(chat: Asker, streamed: bool, error: Json) -> None:
    assert chat(streamed, status=400, body={"error": error})["data"]["kind"] == "context_length_exceeded"


def test_thoughts_in_tags_are_reasoning(chat: Asker, streamed: bool) -> None:
    text = "<think>hm</think>so"
    chunks = [
        *(chunk({"role": "assistant", "content": text[at : at + 3]}) for at in range(0, len(text), 3)),
        chunk({}, "stop"),
        DONE,
    ]
    result = chat(streamed, message={"content": text}, chunks=chunks)
    assert (result["reasoning"], result["content"]) == ("hm", "so")


def test_a_stream_that_is_cut_is_interrupted(chat: Asker) -> None:
    data = chat(True, chunks=[chunk({"role": "assistant", "content": "half"}), End.CLOSE])["data"]
    assert (data["kind"], data["partial"]["content"]) == ("stream_interrupted", "half")


def test_a_full_context_falls_back_as_the_config_sets(tmp_path: Path, streamed: bool) -> None:
    with Upstream() as upstream:
        full = {"error": {"message": "too many tokens", "code": "context_length_exceeded"}}
        upstream.script("small", status=400, body=full)
        rows = [
            {"model_name": name, "litellm_params": {"model": f"openai/{name}", "api_key": KEY, "api_base": upstream.base_url}}
            for name in ("small", "gpt-4o-mini")
        ]
        config = {
            "model_list": rows,
            "router_settings": {"context_window_fallbacks": [{"small": ["gpt-4o-mini"]}], "num_retries": 0},
        }
        path = tmp_path / "config.yaml"
        path.write_text(json.dumps(config), encoding="utf-8")
        path.chmod(0o600)
        with Worker("--config", str(path)) as worker:
            for _ in range(3):  # by the Router, and by the lane that hands over to it
                receipt = worker.chat("small", stream=streamed)["receipt"]
                assert [attempt["outcome"] for attempt in receipt["attempts"]] == ["context_length_exceeded", "ok"]
                assert receipt["fallback"] is True


def test_reasoning_details_of_openrouter_go_back_as_they_came(streamed: bool) -> None:
    details = [{"type": "reasoning.encrypted", "data": "b3BhcXVlLXNpZ25hdHVyZQ==", "id": "r1", "format": "x-v1", "index": 0}]
    with Upstream() as upstream:
        env = {"OPENROUTER_API_KEY": KEY, "OPENROUTER_API_BASE": upstream.base_url}
        assistant = {"role": "assistant", "content": "so", "reasoning": "hm", "reasoning_details": details}
        if streamed:
            upstream.script("x/y", chunks=[chunk(assistant), chunk({}, "stop"), DONE])
        else:
            choice = {"index": 0, "message": assistant, "finish_reason": "stop"}
            upstream.script("x/y", body={"id": "a", "object": "chat.completion", "created": 1, "model": "x/y", "choices": [choice]})
        with Worker(env=env) as worker:
            message = worker.chat("openrouter/x/y", stream=streamed)["message"]
            messages = [*HI, message, {"role": "user", "content": "and?"}]
            worker.call("chat", {"model": "openrouter/x/y", "messages": messages, "stream": streamed})
        sent = upstream.requests[-1].body["messages"][1]
        assert sent["reasoning_details"] == details
        assert "provider_specific_fields" not in sent
