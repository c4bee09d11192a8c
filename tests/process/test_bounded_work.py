"""Inputs of a caller and a provider whose work could grow without bound. While each is carried out, the worker goes on responding.

One row an input. While it runs, a `ping` is sent every 20 ms, and the slowest response must stay below the bound.
"""

from __future__ import annotations

import base64
import gzip
import itertools
import json
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.upstream import DONE, End, Step, Upstream, chunk, sse
from tests.support.worker import Json, Worker, wait_until_loaded

KEY = "sk-secret-123"
PING_SECONDS = 0.02
BOUND_SECONDS = 0.25
BOUND_OF_50_MB_SECONDS = 0.5
SHARED = 1.5  # processor time is longer where others use the same cores and caches
STALLED_SECONDS = 10.0  # on the clock, whatever else the machine does: a worker that waits for something uses no processor
MEMORY_ABOVE_INPUT = 64 * 1024 * 1024
HELLO: list[Json] = [{"role": "user", "content": "hello"}]
CHAT: Json = {"model": "openai/good", "messages": HELLO}
MB = 1_000_000
SPACES = b" " * MB
TURNS: list[Json] = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hello"}]
ALTERNATIVES: Json = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^(?!.*foo)(([a-z])+.)+[A-Z]([a-z])+$"}}}
for _ in range(6):
    ALTERNATIVES = {"anyOf": [ALTERNATIVES, {"not": ALTERNATIVES}, {"oneOf": [ALTERNATIVES, {}]}]}
ANY = "any"  # which of the kinds, or a result, is for others to decide; an internal error is none of them
NO_SUCH_PATH = "model_not_found"  # the stand-in knows OpenAI's paths only: the request was made and sent


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


def png(width: int, height: int) -> str:
    """A header that claims so many pixels, and none of them."""
    data = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x06\x00\x00\x00"
    return "data:image/png;base64," + base64.b64encode(data).decode()


def with_image(url: str, method: str = "chat", **params: Any) -> Callable[[], bytes]:
    messages = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url, "detail": "high"}}]}]
    return lambda: request(method, {"model": "openai/gpt-4o", "messages": messages} | params)


def calling(arguments: str, model: str) -> Callable[[], bytes]:
    """The conversation's last turn but one called a tool with ``arguments``, which some providers get as an object."""
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    turn = [{"role": "assistant", "content": None, "tool_calls": [call]}, {"role": "tool", "tool_call_id": "c", "content": "x"}]
    return chat(model=model, messages=[*HELLO, *turn])


def chosen(schema: Json) -> Callable[[], bytes]:
    """For the offline model that makes an example of the schema."""
    return chat(model="offline/tools", tools=[tool({"type": "object", "properties": {"a": schema}, "required": ["a"]})])


def meta(value: Any) -> Callable[[], bytes]:
    return lambda: request("chat", CHAT | {"_meta": value})


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 20 * MB}}
TRANSFORMED = ("anthropic/claude-sonnet-4-5", "gemini/gemini-2.5-flash", "bedrock/anthropic.claude-v2", "cohere/command-r")
PROVIDER_OF = {model: model.partition("/")[0] for model in TRANSFORMED}
BOMBED = [
    (model, where, member)
    for model in ("gemini/gemini-2.5-flash", "bedrock/anthropic.claude-v2", "anthropic/claude-sonnet-4-5", "openai/good")
    for where in ("tools", "response_format")
    for member in ("$defs", "definitions")
]
FROM_CALLER: dict[str, Row] = (
    {
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
        "10000-messages-cached": Row(chat(messages=HELLO * 10_000, cache="auto", idempotency_key="k"), None),
        "10000-messages-made-to-fit": Row(
            lambda: request("tokens/fit", {"model": "openai/good", "messages": TURNS * 5_000, "max_input_tokens": 100}), None
        ),
        "a-schema-of-alternatives": Row(
            chat(model="openai/tools", tools=[tool(ALTERNATIVES)], repair="json", ensure={"attempts": 2}), ANY
        ),
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
        "deep-meta": Row(meta(nested(900)), "invalid_request"),
        "wide-meta": Row(meta({f"m{number}": number for number in range(100_000)}), "invalid_request"),
        "long-meta": Row(meta({"traceparent": "0" * 10 * MB}), "invalid_request"),
        "long-metadata": Row(chat(model="openai/brief", metadata={f"m{number}": "x" * 10_000 for number in range(900)}), None),
        "wide-metadata": Row(chat(metadata={f"m{number}": "x" for number in range(50_000)}), "invalid_request"),
        "stops-that-look-like-expressions": Row(chat(model="openai/brief", stop=["(a+)+$" * 600] * 900), None),
        "a-number-beyond-a-double": Row(lambda: request("ping", {"x": 0}).replace(b": 0}", b": 1e400}"), "parse_error"),
        "an-integer-of-4000-digits": Row(chat(max_tokens=10**4_000), "invalid_request"),
        "an-integer-of-5000-digits": Row(
            lambda: request("ping", {"x": 0}).replace(b": 0}", b": " + b"9" * 5_000 + b"}"), "parse_error"
        ),
        "nul-and-surrogates": Row(chat(model="openai/brief", messages=[{"role": "user", "content": "\x00\ud800" * MB}]), None),
        "10-mb-of-spaces-counted": Row(letters("tokens/count", " " * 10 * MB), None),
        "10-mb-of-line-ends-counted": Row(letters("tokens/count", "\n" * 10 * MB), None),
        "10-mb-of-marks-counted": Row(letters("tokens/count", "e\u0301" * 3 * MB), None),
        "an-image-of-billions-counted": Row(with_image(png(2**31 - 1, 2**31 - 1), "tokens/count"), None),
        "an-image-of-nothing-counted": Row(with_image(png(0, 0), "tokens/count"), None),
        "20-mb-image-counted": Row(with_image("data:image/jpeg;base64," + "/9j/" + "A" * 20 * MB, "tokens/count"), None),
        "20-mb-image-checked": Row(with_image("data:image/jpeg;base64," + "/9j/" + "A" * 20 * MB, "chat/check"), None),
        "an-example-of-a-billion-items": Row(
            chosen({"type": "array", "minItems": 10**9, "items": {"type": "string"}}), "rejected_by_provider"
        ),
        "an-example-of-a-billion-letters": Row(chosen({"type": "string", "minLength": 10**9}), "rejected_by_provider"),
        "an-example-of-an-evil-pattern": Row(chosen({"type": "string", "pattern": "^(a+)+$", "minLength": 64}), None),
        "10000-texts-to-embed": Row(lambda: request("embed", {"model": "offline/embed", "input": ["x" * 1_000] * 10_000}), None),
        "10000-documents-to-rank": Row(
            lambda: request("rerank", {"model": "offline/rerank", "query": "x " * 1_000, "documents": ["x y " * 250] * 10_000}),
            None,
        ),
    }
    | {
        f"{name}-{PROVIDER_OF[model]}": Row(line, kind, 2 * BOUND_SECONDS if "10-mb" in name else BOUND_SECONDS)
        for model in TRANSFORMED
        for name, line, kind in (
            ("10000-messages", chat(model=model, messages=HELLO * 10_000), NO_SUCH_PATH),
            ("20-mb-image", chat(model=model, messages=[{"role": "user", "content": [IMAGE]}]), NO_SUCH_PATH),
            ("1000-tools", chat(model=model, tools=[tool({"type": "object", "properties": {}})] * 1_000), NO_SUCH_PATH),
            ("arguments-of-3-mb", calling("[" + "[]," * MB + "1]", model), "invalid_request"),
            ("arguments-of-10-mb-of-text", calling(json.dumps({"a": ",[" * 5 * MB}), model), NO_SUCH_PATH),
            ("deep-arguments", calling("[" * 100_000, model), ANY),
            ("arguments-beyond-a-double", calling('{"a": 1e400, "b": NaN}', model), ANY),
        )
    }
    | {
        f"schema-{model.partition('/')[0]}-{where}-{member}": Row(
            chat(model=model, **({"tools": [tool(bomb(member))]} if where == "tools" else {where: in_format(bomb(member))})),
            "invalid_request",
        )
        for model, where, member in BOMBED
    }
)


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
    """One worker for all rows: what a row leaves behind, the next one finds. One process, where work on the loop holds up pings."""
    keys = {f"{name}_API_KEY": KEY for name in ("GEMINI", "ANTHROPIC", "COHERE")}
    keys |= {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": KEY, "AWS_REGION_NAME": "eu-west-1"}
    bases = ("OPENAI_BASE_URL", "COHERE_API_BASE", "ANTHROPIC_BASE_URL", "GEMINI_API_BASE", "AWS_BEDROCK_RUNTIME_ENDPOINT")
    hosts = dict.fromkeys(bases, provider.base_url)
    with Worker("--engines=0", env=keys | hosts | {"OPENAI_API_KEY": KEY}) as worker:
        worker.chat("openai/good")  # LiteLLM is imported and warm
        worker.chat("openai/brief")
        worker.call("tokens/count", {"model": "openai/gpt-4o", "messages": HELLO})  # the tokenizer is loaded, 60 MB
        wait_until_loaded(worker)
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
    assert kind == row.kind or (row.kind == ANY and kind != "internal"), str(response)[:2_000]
    assert kind is None or len(json.dumps(response["error"] | {"data": response["error"]["data"] | {"partial": None}})) < 8_000
    assert pings.slowest < SHARED * row.bound
    assert pings.slowest_on_the_clock < STALLED_SECONDS
    assert memory(worker) - before < 4 * (len(line) + taken) + MEMORY_ABOVE_INPUT
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


@cache
def packed_gigabyte(window: int) -> bytes:
    """A JSON text of 1 GB that does not end, in 1 MB. ``window``: zlib's, which names the format too."""
    packer = zlib.compressobj(wbits=window, strategy=zlib.Z_RLE)  # as small as the default's, in a third of its time
    return b"".join([packer.compress(b'{"a":"'), *(packer.compress(SPACES) for _ in range(1_000)), packer.flush()])


def gzip_bomb(upstream: Upstream, model: str) -> int:
    return body(upstream, model, packed_gigabyte(zlib.MAX_WBITS + 16), content_encoding="gzip")


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


def whole(**changes: Any) -> Json:
    message = {"role": "assistant", "content": "yes"}
    return {"id": "1", "model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]} | changes


def raw(upstream: Upstream, model: str, *steps: Step) -> int:
    """Everything that the provider sends."""
    upstream.script(model, raw=steps)
    return sum(len(step) for step in steps if isinstance(step, bytes))


def head(*lines: str, status: str = "200 OK") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", "content-type: application/json", *lines, "", ""]).encode()


def body(upstream: Upstream, model: str, data: bytes, **headers: str) -> int:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    upstream.script(model, body=data, headers={"content-type": "application/json"} | named)
    return len(data)


def events(upstream: Upstream, model: str, *steps: Json | Step) -> int:
    """A stream of these, and of a good end."""
    upstream.script(model, chunks=[*steps, chunk({}, "stop"), DONE])
    return sum(len(step if isinstance(step, bytes) else json.dumps(step)) for step in steps if isinstance(step, bytes | dict))


def many_values(upstream: Upstream, model: str) -> int:
    return body(upstream, model, b'{"a":[' + b"[]," * 13 * MB + b"1]," + json.dumps(whole()).encode()[1:])


def many_values_in_an_event(upstream: Upstream, model: str) -> int:
    last = json.dumps(chunk({"content": "x"})).encode()[1:]
    return events(upstream, model, b'data: {"a":[' + b"[]," * 3 * MB + b"1]," + last + b"\n\n")


def deep_json(upstream: Upstream, model: str) -> int:
    return body(upstream, model, b'{"choices":' + b"[" * MB)


def comments(upstream: Upstream, model: str) -> int:
    return events(upstream, model, *[b": keep-alive\n\n" * 100] * 1_000, chunk({"content": "x"}))


def empty_lines(upstream: Upstream, model: str) -> int:
    return events(upstream, model, *[b"\n" * 10_000] * 100, chunk({"content": "x"}))


def endless_comments(upstream: Upstream, model: str) -> int:
    return events(upstream, model, chunk({"content": "x"}), *[b": " + b"x" * MB + b"\n\n"] * 200, End.CLOSE)


def single_bytes(upstream: Upstream, model: str) -> int:
    data = b"".join(b"data: " + json.dumps(chunk({"content": "x"})).encode() + b"\n\n" for _ in range(100))
    ending = b"data: " + json.dumps(chunk({}, "stop")).encode() + b"\n\ndata: [DONE]\n\n"
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in data + ending)
    begin = head("transfer-encoding: chunked").replace(b"application/json", b"text/event-stream")
    return raw(upstream, model, begin, chunks, b"0\r\n\r\n")


def many_calls(upstream: Upstream, model: str) -> int:
    function = {"name": "f", "arguments": "{}"}
    calls = [chunk({"tool_calls": [{"index": n, "id": f"c{n}", "type": "function", "function": function}]}) for n in range(100_000)]
    return events(upstream, model, *[b"".join(map(sse, calls[at : at + 100])) for at in range(0, len(calls), 100)])


def large_index(upstream: Upstream, model: str) -> int:
    call = {"index": 10**15, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    return events(upstream, model, chunk({"tool_calls": [call]}))


def growing(upstream: Upstream, model: str, delta: Json, choice: Json | None = None) -> int:
    """The same in 50,000 deltas: to merge all of it again for each costs the square."""
    piece = chunk(delta)
    piece["choices"][0] |= choice or {}
    return events(upstream, model, *[sse(piece) * 100] * 500)


def growing_annotations(upstream: Upstream, model: str) -> int:
    cited = {"type": "url_citation", "url_citation": {"url": "https://a.example"}}
    return growing(upstream, model, {"content": "x", "annotations": [cited]})


def growing_state(upstream: Upstream, model: str) -> int:
    details = [{"type": "reasoning.text", "text": "x", "index": 0}]
    return growing(upstream, model, {"content": "x", "reasoning_details": details, "provider_specific_fields": {"a": ["x"]}})


def growing_logprobs(upstream: Upstream, model: str) -> int:
    token = {"token": "x", "logprob": -0.1, "top_logprobs": []}
    return growing(upstream, model, {"content": "x"}, {"logprobs": {"content": [token]}})


def nested_gzip(upstream: Upstream, model: str) -> int:
    return body(upstream, model, gzip.compress(gzip.compress(b" " * 100 * MB)), content_encoding="gzip, gzip")


def deflate_bomb(upstream: Upstream, model: str) -> int:
    return body(upstream, model, packed_gigabyte(zlib.MAX_WBITS), content_encoding="deflate")


def brotli(upstream: Upstream, model: str) -> int:
    return body(upstream, model, b"\x8b\x02\x80" * 1_000, content_encoding="br")


def zstd(upstream: Upstream, model: str) -> int:
    return body(upstream, model, b"\x28\xb5\x2f\xfd" * 1_000, content_encoding="zstd")


def interim(upstream: Upstream, model: str) -> int:
    data = json.dumps(whole()).encode()
    hints = b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" * 100
    return raw(upstream, model, *[hints] * 1_000, head(f"content-length: {len(data)}"), data)


def endless_headers(upstream: Upstream, model: str) -> int:
    return raw(upstream, model, b"HTTP/1.1 200 OK\r\n", *[b"x-a: b\r\n" * 10_000] * 1_000)


def endless_header(upstream: Upstream, model: str) -> int:
    return raw(upstream, model, b"HTTP/1.1 200 OK\r\nx-a: ", *[b"b" * MB] * 100)


def endless_status(upstream: Upstream, model: str) -> int:
    return raw(upstream, model, b"HTTP/1.1 200 ", *[b"b" * MB] * 100)


def too_long_length(upstream: Upstream, model: str) -> int:
    return raw(upstream, model, head("content-length: 10000000"), json.dumps(whole()).encode(), End.CLOSE)


def huge_length(upstream: Upstream, model: str) -> int:
    return raw(upstream, model, head(f"content-length: {'9' * 5_000}"), json.dumps(whole()).encode(), End.CLOSE)


def endless_extension(upstream: Upstream, model: str) -> int:
    return raw(upstream, model, head("transfer-encoding: chunked"), b"5;", *[b"a" * MB] * 100, End.CLOSE)


def huge_chunk(upstream: Upstream, model: str) -> int:
    return raw(upstream, model, head("transfer-encoding: chunked"), b"1000000000000000\r\n", *[b" " * MB] * 100, End.CLOSE)


def endless_trailers(upstream: Upstream, model: str) -> int:
    data = json.dumps(whole()).encode()
    whole_chunk = b"%x\r\n%b\r\n0\r\n" % (len(data), data)
    return raw(upstream, model, head("transfer-encoding: chunked"), whole_chunk, *[b"x-a: b\r\n" * 10_000] * 1_000)


def no_http(upstream: Upstream, model: str) -> int:
    return raw(upstream, model, b"\x16\x03\x01" * 1_000, End.CLOSE)


FROM_PROVIDER: dict[str, tuple[Callable[[Upstream, str], int], bool, str | None]] = {
    "4-mb-error": (big_error, False, "rejected_by_provider"),
    "4-mb-error-of-a-stream": (big_error, True, "rejected_by_provider"),
    "1-mb-that-unpacks-to-1-gb": (gzip_bomb, False, "bad_upstream_response"),
    "a-line-that-does-not-end": (endless_line, True, "stream_interrupted"),
    "a-line-of-10-mb": (long_line, True, None),
    "200000-pieces": (many_pieces, True, None),
    "40-mb-of-empty-lists": (many_values, False, ANY),
    "10-mb-of-empty-lists-in-an-event": (many_values_in_an_event, True, ANY),
    "deep-json": (deep_json, False, "bad_upstream_response"),
    "100000-comments": (comments, True, None),
    "1000000-empty-lines": (empty_lines, True, None),
    "comments-without-end": (endless_comments, True, ANY),
    "a-byte-a-chunk": (single_bytes, True, None),
    "100000-calls": (many_calls, True, ANY),
    "a-call-with-a-large-index": (large_index, True, None),
    "growing-annotations": (growing_annotations, True, None),
    "growing-state": (growing_state, True, None),
    "growing-logprobs": (growing_logprobs, True, None),
    "nested-gzip": (nested_gzip, False, "bad_upstream_response"),
    "deflate-that-unpacks-to-1-gb": (deflate_bomb, False, "bad_upstream_response"),
    "br": (brotli, False, "bad_upstream_response"),
    "zstd": (zstd, False, "bad_upstream_response"),
    "100000-interim-responses": (interim, False, None),
    "headers-without-end": (endless_headers, False, ANY),
    "a-header-without-end": (endless_header, False, ANY),
    "a-status-line-without-end": (endless_status, False, ANY),
    "a-content-length-that-is-too-long": (too_long_length, False, ANY),
    "a-content-length-of-5000-digits": (huge_length, False, ANY),
    "a-chunk-extension-without-end": (endless_extension, False, ANY),
    "a-chunk-of-2-to-the-60": (huge_chunk, False, ANY),
    "trailers-without-end": (endless_trailers, False, ANY),
    "no-http": (no_http, False, ANY),
    "100000-pieces-of-arguments": (many_argument_pieces, True, None),
}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.rule("BND-6", "BND-9")
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
