"""Inputs of a caller and a provider whose work could grow without bound. While each is carried out, the worker goes on responding.

One row an input. While it runs, a `ping` is sent every 20 ms, and the slowest response must stay below the bound.
"""

from __future__ import annotations

import gzip
import itertools
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.upstream import DONE, Upstream, chunk
from tests.support.worker import Json, Worker

KEY = "sk-secret-123"
PING_SECONDS = 0.02
BOUND_SECONDS = 0.25
BOUND_OF_50_MB_SECONDS = 0.5
SHARED = 1.5  # processor time is longer where others use the same cores and caches
STALLED_SECONDS = 10.0  # on the clock, whatever else the machine does: a worker that waits for something uses no processor
MEMORY_BESIDE_INPUT = 64 * 1024 * 1024
HELLO: list[Json] = [{"role": "user", "content": "hello"}]
CHAT: Json = {"model": "openai/good", "messages": HELLO}
MB = 1_000_000


class Row(NamedTuple):
    """``line``: what the caller sends, with the id "x". ``kind``: of the error that it ends in; None for a result."""

    line: Callable[[], bytes]
    kind: str | None
    bound: float = BOUND_SECONDS


def request(method: str, params: Json) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": "x", "method": method, "params": params}).encode() + b"\n"


def chat(method: str = "chat", **params: Any) -> Callable[[], bytes]:
    return lambda: request(method, CHAT | params)


def tool(schema: Json) -> Json:
    return {"type": "function", "function": {"name": "f", "parameters": schema}}


def bomb(member: str = "$defs", levels: int = 8, width: int = 10) -> Json:
    """3 kB that become ``width ** levels`` nodes."""

    def level(number: int) -> Json:
        return {"type": "object", "properties": {f"p{n}": {"$ref": f"#/{member}/L{number + 1}"} for n in range(width)}}

    definitions = {f"L{number}": level(number) for number in range(levels - 1)} | {f"L{levels - 1}": {"type": "string"}}
    return {"type": "object", member: definitions, "properties": {"a": {"$ref": f"#/{member}/L0"}}}


def in_format(schema: Json) -> Json:
    return {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}


def nested(depth: int) -> Any:
    return json.loads('{"a":' * depth + "1" + "}" * depth)


def letters(method: str, text: str = "a" * 10 * MB) -> Callable[[], bytes]:
    return lambda: request(method, {"model": "openai/gpt-4o", "messages": [{"role": "user", "content": text}]})


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 20 * MB}}
BOMBED = [
    (model, where, member)
    for model in ("gemini/gemini-2.5-flash", "bedrock/anthropic.claude-v2", "anthropic/claude-sonnet-4-5", "openai/good")
    for where in ("tools", "response_format")
    for member in ("$defs", "definitions")
]
FROM_CALLER: dict[str, Row] = {
    "5000-unknown-members": Row(chat(**{f"m{number}": 1 for number in range(5000)}), "invalid_request"),
    "900-unknown-members": Row(chat(**{f"m{number}": 1 for number in range(900)}), "invalid_request"),
    "8000-wrong-messages": Row(chat(messages=[{"role": "user", "x": 1}] * 8000), "invalid_request"),
    "8000-wrong-parts": Row(chat(messages=[{"role": "user", "content": [{"type": "text", "x": 1}] * 8000}]), "invalid_request"),
    "8000-wrong-calls": Row(chat(messages=[{"role": "assistant", "tool_calls": [{"x": 1}] * 8000}]), "invalid_request"),
    "10000-wrong-stops": Row(chat(stop=[1] * 10_000), "invalid_request"),
    "10000-stops": Row(chat(stop=["x"] * 10_000), "invalid_request"),
    "wrong-biases": Row(chat(logit_bias={str(number): "a" for number in range(10_000)}), "invalid_request"),
    "a-name-of-dots": Row(chat(**{"a." * 500_000: {"b." * 500_000: 1}}), "invalid_request"),
    "deep-params": Row(chat(provider_params=nested(900)), "invalid_request"),
    "deep-line": Row(
        lambda: b'{"jsonrpc":"2.0","id":"x","method":"chat","params":' + b"[" * 5_000 + b"]" * 5_000 + b"}\n", "parse_error"
    ),
    "10000-tools": Row(chat(tools=[tool({"type": "object", "properties": {}})] * 10_000), "invalid_request"),
    "100000-messages": Row(chat(messages=HELLO * 100_000), "invalid_message"),
    "10000-messages": Row(chat(messages=HELLO * 10_000), None),
    "10-mb-of-a-letter-counted": Row(letters("tokens/count"), None),
    "10-mb-of-a-letter-checked": Row(letters("chat/check"), None),
    "10-mb-of-words-counted": Row(letters("tokens/count", "some words " * 900_000), None),
    "20-mb-image": Row(chat(model="openai/brief", messages=[{"role": "user", "content": [IMAGE]}]), None),
    "10-mb-of-empty-lists": Row(lambda: b"[" + b"[]," * 3_333_333 + b"[]]\n", "invalid_message"),
    "batch-of-200000": Row(lambda: b"[" + b'{"jsonrpc":"2.0","method":"ping"},' * 200_000 + b"1]\n", "invalid_message"),
    "batch-of-20000": Row(lambda: b"[" + b'{"jsonrpc":"2.0","method":"ping"},' * 20_000 + b"1]\n", "invalid_message"),
    "50-mb-message": Row(
        chat(model="openai/brief", messages=[{"role": "user", "content": "word " * 10 * MB}]), None, BOUND_OF_50_MB_SECONDS
    ),
    "name-of-1-mb": Row(chat(model="openai/" + "a" * MB), "invalid_request"),
    "id-of-1-mb": Row(lambda: request("ping", {}).replace(b'"x"', b'"' + b"x" * MB + b'"'), "invalid_message"),
} | {
    f"schema-{model.partition('/')[0]}-{where}-{member}": Row(
        chat(model=model, **({"tools": [tool(bomb(member))]} if where == "tools" else {where: in_format(bomb(member))})),
        "invalid_request",
    )
    for model, where, member in BOMBED
}


class Pings:
    """Sends a ping every 20 ms. ``slowest`` is the longest wait for one, as far as the worker was at work during it.

    The wait on the clock says as much about the other processes of this machine: what the worker is answerable for is no more than
    the processor time that it used meanwhile.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.slowest = 0.0
        self.slowest_on_the_clock = 0.0

    def __enter__(self) -> Pings:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        for number in itertools.count():
            sent, used = time.monotonic(), processor_seconds(self._worker)
            self._worker.response(self._worker.request("ping", id=f"ping-{number}-{sent}"))
            waited = time.monotonic() - sent
            self.slowest = max(self.slowest, min(waited, processor_seconds(self._worker) - used))
            self.slowest_on_the_clock = max(self.slowest_on_the_clock, waited)
            if self._ended.wait(max(0.0, PING_SECONDS - waited)):
                return


def processor_seconds(worker: Worker) -> float:
    """Of all threads that there are."""
    used = 0
    for thread in Path(f"/proc/{worker.process.pid}/task").iterdir():
        with suppress(OSError):  # it has ended
            used += int((thread / "schedstat").read_text().split()[0])
    return used / 1e9


def memory(worker: Worker) -> int:
    """The most that the process has had resident."""
    status = Path(f"/proc/{worker.process.pid}/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def reset_memory(worker: Worker) -> int:
    Path(f"/proc/{worker.process.pid}/clear_refs").write_text("5")
    return memory(worker)


@pytest.fixture(scope="module")
def provider() -> Iterator[Upstream]:
    message = {"role": "assistant", "content": "yes"}
    with Upstream() as upstream:
        upstream.script(
            "brief", body={"id": "1", "model": "brief", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
        )
        yield upstream


@pytest.fixture(scope="module")
def busy(provider: Upstream) -> Iterator[Worker]:
    """One worker for all rows: what a row leaves behind, the next one finds."""
    keys = {f"{name}_API_KEY": KEY for name in ("GEMINI", "ANTHROPIC", "COHERE")}
    keys |= {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": KEY, "AWS_REGION_NAME": "eu-west-1"}
    hosts = {"OPENAI_BASE_URL": provider.base_url, "COHERE_API_BASE": provider.base_url}
    with Worker(env=keys | hosts | {"OPENAI_API_KEY": KEY}) as worker:
        worker.chat("openai/good")  # LiteLLM is imported and warm
        worker.chat("openai/brief")
        worker.call("tokens/count", {"model": "openai/gpt-4o", "messages": HELLO})  # the tokenizer is loaded, 60 MB
        yield worker


def check(worker: Worker, row: Row, *, taken: int = 0) -> None:
    """Sends the row's line and waits for what it ends in. ``taken``: bytes that the provider sends."""
    line, seen = row.line(), len(worker.received)
    before = reset_memory(worker)
    with Pings(worker) as pings:
        worker.write(line)
        response = worker.wait_for(lambda message: is_response(message) and message in worker.received[seen:])
    assert isinstance(response, dict)
    kind = response["error"]["data"]["kind"] if "error" in response else None
    assert kind == row.kind, str(response)[:2_000]
    assert len(json.dumps(response)) < 8_000 or kind is None
    assert pings.slowest < SHARED * row.bound
    assert pings.slowest_on_the_clock < STALLED_SECONDS
    assert memory(worker) - before < 4 * (len(line) + taken) + MEMORY_BESIDE_INPUT
    assert worker.chat("openai/good")["content"]


def is_response(message: Json | list[Json]) -> bool:
    return isinstance(message, dict) and message.get("id", "") in ("x", None)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.rule("BND-1", "BND-3", "BND-4", "BND-5")
@pytest.mark.parametrize("name", FROM_CALLER)
def test_no_input_of_a_caller_makes_the_worker_deaf(busy: Worker, name: str) -> None:
    check(busy, FROM_CALLER[name])


def big_error(upstream: Upstream, model: str) -> int:
    body = json.dumps({"error": {"message": "sk-abc api_key: " * 250_000}}).encode()
    upstream.script(model, body=body, status=400)
    return len(body)


def gzip_bomb(upstream: Upstream, model: str) -> int:
    body = gzip.compress(b'{"a":"' + b" " * 1_000 * MB)
    upstream.script(model, body=body, headers={"content-encoding": "gzip", "content-type": "application/json"})
    return len(body)


def endless_line(upstream: Upstream, model: str) -> int:
    upstream.script(model, chunks=[chunk({"content": "x"}), *[b"z" * MB] * 100])
    return 16 * MB


def long_line(upstream: Upstream, model: str) -> int:
    upstream.script(model, chunks=[chunk({"content": "y" * 10 * MB}), chunk({}, "stop"), DONE])
    return 10 * MB


def many_pieces(upstream: Upstream, model: str) -> int:
    pieces = b"".join(b"data: " + json.dumps(chunk({"content": "x"})).encode() + b"\n\n" for _ in range(100))
    upstream.script(model, chunks=[*[pieces] * 2_000, chunk({}, "stop"), DONE])
    return 2_000 * len(pieces)


def many_argument_pieces(upstream: Upstream, model: str) -> int:
    def piece(**call: Any) -> Json:
        return chunk({"tool_calls": [{"index": 0, **call}]})

    first = piece(id="c", type="function", function={"name": "f", "arguments": '{"a":"'})
    pieces = b"".join(b"data: " + json.dumps(piece(function={"arguments": "x"})).encode() + b"\n\n" for _ in range(100))
    last = piece(function={"arguments": '"}'})
    upstream.script(model, chunks=[first, *[pieces] * 1_000, last, chunk({}, "tool_calls"), DONE])
    return 1_000 * len(pieces)


FROM_PROVIDER: dict[str, tuple[Callable[[Upstream, str], int], bool, str | None]] = {
    "4-mb-error": (big_error, False, "rejected_by_provider"),
    "4-mb-error-of-a-stream": (big_error, True, "rejected_by_provider"),
    "1-mb-that-unpacks-to-1-gb": (gzip_bomb, False, "bad_upstream_response"),
    "a-line-that-does-not-end": (endless_line, True, "stream_interrupted"),
    "a-line-of-10-mb": (long_line, True, None),
    "200000-pieces": (many_pieces, True, None),
    "100000-pieces-of-arguments": (many_argument_pieces, True, None),
}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.rule("BND-6")
@pytest.mark.parametrize("name", FROM_PROVIDER)
def test_no_response_of_a_provider_makes_the_worker_deaf(busy: Worker, provider: Upstream, name: str) -> None:
    script, stream, kind = FROM_PROVIDER[name]
    taken = script(provider, name)
    check(busy, Row(chat(model=f"openai/{name}", stream=stream), kind), taken=taken)


@pytest.mark.rule("BND-6")
@pytest.mark.parametrize("name", ["4-mb-error", "1-mb-that-unpacks-to-1-gb"])
@pytest.mark.parametrize("method", ["embed", "rerank"])
def test_no_response_of_another_method_makes_the_worker_deaf(busy: Worker, provider: Upstream, name: str, method: str) -> None:
    script, _, kind = FROM_PROVIDER[name]
    model = f"{method}-{name}"
    taken = script(provider, model)
    texts = {"input": "x", "model": f"openai/{model}"}
    documents = {"query": "x", "documents": ["y"], "model": f"cohere/{model}"}
    check(busy, Row(lambda: request(method, texts if method == "embed" else documents), kind), taken=taken)
