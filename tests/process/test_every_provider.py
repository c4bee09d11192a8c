"""Each provider's own host is hostile: it redirects elsewhere, sends what can't be read, or is silent.

`EveryHost` is all of them, so what LiteLLM does for any provider is tried, and not only the formats that the bridge reads itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from typing import Any

import litellm
import pytest

from tests.support.every_host import ELSEWHERE, KEY, EveryHost, http_reply
from tests.support.worker import Json, Worker, wait_until

PROVIDERS = sorted({str(getattr(provider, "value", provider)) for provider in litellm.provider_list} - {"local"})
HELLO: list[Json] = [{"role": "user", "content": "a conversation"}]
CALLS: dict[str, tuple[str, Json]] = {
    "chat": ("chat", {"messages": HELLO}),
    "stream": ("chat", {"messages": HELLO, "stream": True}),
    "embed": ("embed", {"input": ["a conversation"]}),
    "rerank": ("rerank", {"query": "a conversation", "documents": ["y"]}),
}
# All of them take minutes: EVERY_PROVIDER=1 bin/test tests/process/test_every_provider.py
SAMPLE = PROVIDERS if os.environ.get("EVERY_PROVIDER") else PROVIDERS[::4]
DEADLINES = {"total_ms": 20_000}
FEWEST = {"chat": 90, "stream": 90, "embed": 30, "rerank": 12}  # providers whose host is reached; fewer would prove nothing
ODD = {
    "list": b"[]",
    "null": b"null",
    "html": b"<html>no</html>",
    "nan": b'{"choices":NaN,"data":NaN,"results":NaN,"usage":NaN}',
    "deep": b'{"choices":' + b"[" * 100_000,
    "digits": b'{"id":' + b"9" * 5_000 + b"}",
    "error": b'{"error":{"message":{"a":[]},"code":[1]}}',
    "nulls": b'{"choices":[null],"data":[null],"results":[null],"output":[null],"candidates":[null]}',
    "texts": b'{"choices":"x","data":"x","results":"x","output":"x","candidates":"x","content":5,"message":7,"usage":"x"}',
}


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EveryHost]:
    with EveryHost(tmp_path_factory.mktemp("hosts")) as hosts:
        yield hosts


@pytest.fixture(scope="module")
def worker(hosts: EveryHost) -> Iterator[Worker]:
    with Worker(env=hosts.environment(PROVIDERS)) as worker:
        worker.chat("offline/echo")
        yield worker


def request(call: str, provider: str) -> tuple[str, Json]:
    method, params = CALLS[call]
    return method, {"model": f"{provider}/m", "deadlines": DEADLINES, **params}


@pytest.mark.rule("SEC-16")
@pytest.mark.parametrize("call", CALLS)
def test_no_request_with_a_key_or_a_conversation_follows_a_redirect(hosts: EveryHost, worker: Worker, call: str) -> None:
    hosts.reply = lambda host: http_reply(b"{}", "307 Moved", Location=f"https://{ELSEWHERE}/moved")
    reached, followed = set(), []
    for provider in PROVIDERS:
        hosts.received.clear()
        response = worker.call(*request(call, provider))
        assert "error" in response, response
        reached |= {provider for _ in hosts.received[:1]}
        followed += [(provider, text) for host, text in hosts.received if host == ELSEWHERE and is_confidential(text)]
    assert followed == []
    assert len(reached) >= FEWEST[call], reached


def is_confidential(text: str) -> bool:
    return KEY in text or "a conversation" in text or "authorization" in text.lower() or text.startswith("POST")


@pytest.mark.rule("ERR-11")
@pytest.mark.parametrize("call", CALLS)
def test_no_response_of_any_provider_is_an_internal_error(hosts: EveryHost, worker: Worker, call: str) -> None:
    wrong: list[Any] = []
    for provider in SAMPLE:
        for name, body in ODD.items():
            hosts.received.clear()
            hosts.reply = lambda host, body=body: http_reply(body)  # type: ignore[misc]
            response = worker.call(*request(call, provider))
            if "error" in response and response["error"]["data"]["kind"] == "internal":
                wrong.append((provider, name))
            if not hosts.received:
                break  # it gets no request, whatever it would send
    assert wrong == []


@pytest.mark.rule("BND-8")
@pytest.mark.parametrize("call", CALLS)
def test_a_silent_provider_holds_up_no_other_request(hosts: EveryHost, worker: Worker, call: str) -> None:
    """LiteLLM fetches some tokens with clients that block: never on the loop, or the ping would get no response at all."""
    hosts.reply = lambda host: None
    for provider in PROVIDERS:
        hosts.received.clear()
        seen = len(worker.received)
        id = worker.request(*request(call, provider))
        wait_until(partial(is_called_or_over, hosts, worker, id, seen), f"{provider} is called")
        worker.call("ping")
        worker.notify("notifications/cancelled", {"requestId": id})
        worker.response(id)
        hosts.release()


def is_called_or_over(hosts: EveryHost, worker: Worker, id: int | str, seen: int) -> bool:
    return bool(hosts.received) or any(isinstance(message, dict) and message.get("id") == id for message in worker.received[seen:])
