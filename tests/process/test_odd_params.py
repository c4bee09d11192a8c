"""Each member of each method's params with each odd value: a result or an error other than -32603, and nothing long comes back."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.data import KEY
from tests.support.provider_formats import FORMATS, environment
from tests.support.upstream import Upstream
from tests.support.worker import Json, Worker

PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
SCHEMA: Json = {"type": "object", "properties": {"a": {"type": "string"}}}
CALL: Json = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": "b"}'}}
CHAT: Json = {
    "model": "offline/tools",
    "messages": [
        {"role": "system", "content": "be brief", "name": "s"},
        {"role": "user", "content": [{"type": "text", "text": "hello"}, {"type": "image_url", "image_url": {"url": PIXEL}}]},
        {
            "role": "assistant",
            "content": "so",
            "tool_calls": [CALL],
            "reasoning_content": "hm",
            "origin": {"provider": "x", "model": "y"},
        },
        {"role": "tool", "tool_call_id": "c1", "content": "done", "name": "f"},
        {"role": "user", "content": "and?"},
    ],
    "tools": [{"type": "function", "function": {"name": "f", "description": "d", "parameters": SCHEMA, "strict": True}}],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "temperature": 0.5,
    "top_p": 0.5,
    "max_tokens": 10,
    "stop": ["x"],
    "seed": 1,
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, "strict": True}},
    "reasoning_effort": "low",
    "thinking": {"type": "enabled", "budget_tokens": 1024},
    "frequency_penalty": 0.1,
    "presence_penalty": 0.1,
    "logit_bias": {"1": 1.0},
    "logprobs": True,
    "top_logprobs": 1,
    "user": "u",
    "metadata": {"budget": "a/b", "k": "v"},
    "deadlines": {"total_ms": 20_000, "first_token_ms": 20_000, "idle_ms": 20_000},
    "provider_params": {},
    "_meta": {"traceparent": "00-" + "1" * 32 + "-" + "1" * 16 + "-01", "tracestate": "a=b", "progressToken": "t"},
}
METHODS: dict[str, Json] = {
    "chat": CHAT,
    "chat/check": CHAT,
    "tokens/count": {name: CHAT[name] for name in ("model", "messages", "tools")},
    "models/list": {"all": False, "cursor": "b2ZmbGluZS9lY2hv"},
    "models/get": {"model": "offline/echo"},
    "embed": {
        "model": "offline/embed",
        "input": ["x"],
        "encoding_format": "float",
        "dimensions": 8,
        "user": "u",
        "metadata": {"k": "v"},
        "deadlines": {"total_ms": 20_000},
    },
    "rerank": {"model": "offline/rerank", "query": "x", "documents": ["y"], "top_n": 1, "return_documents": True},
    "budgets/get": {"path": "a/b"},
    "status": {},
    "server/discover": {
        "_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
    },
    "tools/list": {"cursor": None, "_meta": {}},
    "tools/call": {
        "name": "chat",
        "arguments": {"model": "offline/echo", "messages": CHAT["messages"][:2]},
        "_meta": {"progressToken": "t"},
    },
}
LONG = "x" * 20_000
ODD: list[Any] = [
    None,
    True,
    -1,
    0,
    10**4_000,
    -(10**4_000),
    2**63,
    1.5,
    1e308,
    "",
    LONG,
    "\ud800",
    "\x00",
    "../x\n",
    [],
    [[]],
    {},
    {LONG: 1},
    {"\ud800": None},
    json.loads("[" * 70 + "]" * 70),
]
MOST = 12_000  # characters of an error


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, member in members:
        yield from paths(member, (*path, name))


def mutated(params: Json, path: tuple[Any, ...], value: Any) -> Json:
    params = copy.deepcopy(params)
    place: Any = params
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return params


def faults(worker: Worker, method: str, params: Json) -> Iterator[str]:
    """Sends each mutation; what is wrong with a response."""
    cases = [(path, value) for path in paths(params) for value in ODD]
    for number, (path, value) in enumerate(cases):
        request = {"jsonrpc": "2.0", "id": f"{method} {number}", "method": method, "params": mutated(params, path, value)}
        worker.write(json.dumps(request).encode() + b"\n")  # a surrogate is an escape
    for number, (path, value) in enumerate(cases):
        error = worker.response(f"{method} {number}").get("error")
        if error is None:
            continue
        what = f"{method} {'.'.join(map(str, path))[:200]} = {value!r:.60}: {str(error)[:300]}"
        if error["data"]["kind"] == "internal":
            yield what
        if len(json.dumps(error)) > MOST:
            yield f"long: {what}"


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    """``--log-level info``: a line of the log is made of each request."""
    with (
        Upstream() as upstream,
        Worker("--max-in-flight", "10000", "--log-level", "info", env=environment(upstream.base_url.removesuffix("/v1"))) as worker,
    ):
        worker.chat("offline/echo")
        for name in ("None", *(format.model.partition("/")[2] for format in FORMATS.values())):
            upstream.script(name, body={"error": {"message": "no"}}, status=400)  # what is sent matters, not the response
        yield worker


@pytest.mark.rule("ERR-11", "BND-3")
@pytest.mark.parametrize("method", METHODS)
def test_no_odd_param_is_an_internal_error_or_comes_back_whole(worker: Worker, method: str) -> None:
    logged = len(worker.stderr)
    assert list(faults(worker, method, METHODS[method])) == []
    lines = worker.stderr[logged:].splitlines()
    assert all(len(line) < MOST for line in lines), next(line[:1_000] for line in lines if len(line) >= MOST)
    assert KEY not in worker.stderr


@pytest.mark.rule("ERR-11")
@pytest.mark.parametrize("format", FORMATS)
def test_no_odd_param_breaks_what_is_made_for_a_provider(worker: Worker, format: str) -> None:
    """Without the members that validation refuses for each model, and those that few providers have."""
    kept = {name: CHAT[name] for name in ("messages", "tools", "temperature", "max_tokens", "stop", "seed", "user", "deadlines")}
    assert list(faults(worker, "chat", kept | {"model": FORMATS[format].model})) == []
