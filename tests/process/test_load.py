"""Many, long and slow: what a worker bears, and in how much memory. `pytest -s` shows figures; asserted is the structure."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import pytest

import tests.support.worker
from bridge_worker.core.chat_runner import run_chat
from bridge_worker.core.deltas import Delta, End
from bridge_worker.core.ports import ChatRequest, Facts
from bridge_worker.errors import BridgeError
from tests.conftest import Spawn
from tests.support.data import HELLO_ASCII as HELLO
from tests.support.processes import HOLD_LITELLM, processes, script
from tests.support.request_ledger import Ledger, outcome
from tests.support.requests import chat_request
from tests.support.upstream import Gate, Upstream, chunk
from tests.support.worker import WAIT_SECONDS, Json, Worker, wait_until

MIB = 1 << 20
LONG_LINE_GIB = int(os.environ.get("LOAD_LINE_GIB", "2"))  # 10 by hand: 4 s on an idle machine
SLACK_MIB = 64  # what garbage may amount to before it is collected; what is measured would be hundreds


def figure(text: str) -> None:
    sys.stdout.write(f"\n{text}")


def ping(worker: Worker, ledger: Ledger) -> float:
    """Milliseconds until its response."""
    began = time.perf_counter()
    id = ledger.owe(worker.request("ping"))
    assert worker.response(id)["result"] == {}
    return (time.perf_counter() - began) * 1000


def resident(worker: Worker, what: str = "VmRSS") -> float:
    """MiB of real memory of its processes; VmHWM is the most that it ever was."""
    texts = [Path(f"/proc/{pid}/status").read_text() for pid in processes(worker)]
    return sum(int(text.split(f"{what}:")[1].split()[0]) for text in texts) / 1024


@pytest.fixture(scope="module")
def provider() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def loaded(provider: Upstream) -> Iterator[Worker]:
    """For 1,000 chats at once, and with LiteLLM warm, so that growth is that of the work."""
    env = {"OPENAI_API_KEY": "sk-secret-123", "OPENAI_BASE_URL": provider.base_url}
    with Worker("--max-in-flight=1000", env=env) as worker:
        worker.chat("openai/gpt-4o-mini")
        yield worker


@pytest.mark.rule("ERR-8")
def test_a_thousand_concurrent_chats_complete_and_one_more_is_refused_immediately(loaded: Worker, provider: Upstream) -> None:
    gate = Gate()
    body = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "late"}, "finish_reason": "stop"}]}
    provider.script("held", body=body, before=gate)
    ledger = Ledger(loaded)
    ids = [ledger.owe(loaded.request("chat", {"model": "openai/held", "messages": HELLO})) for _ in range(1000)]
    provider.wait_until(lambda: provider.counts["held"] == 1000, 2 * WAIT_SECONDS)
    before = resident(loaded)
    refused = [ledger.owe(loaded.request("chat", {"model": "openai/held", "messages": HELLO})) for _ in range(5000)]
    waited = ping(loaded, ledger)
    figure(f"1,000 in flight: {before:.0f} MiB; 5,000 refused and a ping after them: {waited:.0f} ms")
    assert set(ledger.open) == set(ids), "a refusal waited"
    assert {outcome(ledger.responses[id][0]) for id in refused} == {"overloaded"}
    assert resident(loaded) < before + SLACK_MIB
    assert provider.counts["held"] == 1000, "a refused chat went to the provider all the same"
    gate.set()
    assert ledger.check() == {"overloaded": 5000, "ok": 1001}
    assert all(ledger.responses[id][0]["result"]["content"] == "late" for id in ids)
    loaded.received.clear()  # so that later waits have less to look through


def test_a_burst_of_100000_pings_gets_responses_in_order_without_growth(loaded: Worker) -> None:
    count, first = 100_000, 1_000_000
    before = resident(loaded)
    start = len(loaded.received)
    began = time.monotonic()
    loaded.write(b"".join(b'{"jsonrpc":"2.0","id":%d,"method":"ping"}\n' % id for id in range(first, first + count)))
    wait_until(lambda: len(loaded.received) >= start + count, "all pings answered")
    figure(f"100,000 pings: {time.monotonic() - began:.1f} s, {resident(loaded) - before:+.0f} MiB")
    assert [m["id"] for m in loaded.received[start:] if isinstance(m, dict)] == list(range(first, first + count))
    loaded.received.clear()
    assert resident(loaded) < before + SLACK_MIB


def test_a_message_of_50_mb_works_where_the_limit_allows_it(loaded: Worker, provider: Upstream) -> None:
    text = "x" * (50 * MIB)
    messages = [{"role": "system", "content": text}, *HELLO]
    assert loaded.chat("offline/echo", messages=messages)["content"] == "hello"
    loaded.chat("openai/large", messages=messages)
    request = provider.wait_for_request(model="large")
    assert request.body["messages"][0]["content"] == text
    figure(f"after 50 MB twice: {resident(loaded):.0f} MiB, at most {resident(loaded, 'VmHWM'):.0f} MiB")


@pytest.mark.rule("FRM-5")
def test_a_line_of_gigabytes_is_refused_in_bounded_memory(spawn: Spawn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With LiteLLM's import held up, so that all growth is the line's."""
    os.mkfifo(tmp_path / "fifo")
    monkeypatch.setattr(tests.support.worker, "COMMAND", script(tmp_path / "hold.py", HOLD_LITELLM))
    worker = spawn("--max-message-bytes=1000000", env={"TEST_FIFO": str(tmp_path / "fifo")})
    worker.chat("offline/echo")
    before = resident(worker, "VmHWM")
    piece = b"x" * MIB
    began = time.monotonic()
    assert worker.process.stdin
    for _ in range(LONG_LINE_GIB * 1024):
        worker.process.stdin.write(piece)
    worker.write(b"\n")
    refused = worker.response(None)
    growth = resident(worker, "VmHWM") - before
    figure(f"{LONG_LINE_GIB} GiB: {time.monotonic() - began:.1f} s, {growth:+.1f} MiB at most")
    assert growth < 16
    assert refused["error"]["code"] == -32600
    assert worker.call("ping")["result"] == {}


def test_one_large_or_slow_request_holds_up_no_ping(loaded: Worker, provider: Upstream) -> None:
    """At most a ping waits while a large line is read and validated; it never waits for the request that is in it."""
    large = [{"role": "system", "content": "x" * (5 * MIB)}, *HELLO]
    kinds: dict[str, Json] = {
        "5 MB asked": {"model": "openai/gpt-4o-mini", "messages": large},
        "20 MB answered": {"model": "openai/huge-20", "messages": HELLO},
        "a stream of 1,000": {"model": "openai/chunks-1000", "messages": HELLO, "stream": True},
        "slow": {"model": "openai/slow-20ms", "messages": HELLO, "stream": True},
    }
    for kind, params in kinds.items():
        delays = []
        for _ in range(2):
            loaded.received.clear()
            ledger = Ledger(loaded)
            ledger.owe(loaded.request("chat", params))
            while ledger.open:
                delays.append(ping(loaded, ledger))
            assert set(ledger.check()) == {"ok"}
        assert len(delays) > 3, "the pings waited for the chat"
        figure(f"{kind}: ping median {statistics.median(delays):.2f} ms, slowest {max(delays):.1f} ms of {len(delays)}")


class NeverWaits:
    """A model whose whole answer is there already: nothing in it makes the loop turn."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.taken = 0
        self.began = asyncio.Event()

    async def chat(self, request: ChatRequest) -> AsyncGenerator[list[Delta] | Facts, None]:
        for _ in range(self._count):
            self.taken += 1
            self.began.set()
            yield [Delta(content="x")]
        yield Facts(End("stop", "stop"))


async def drive(model: NeverWaits) -> asyncio.Task[Any]:
    async def find(_: str) -> NeverWaits:
        return model

    request = chat_request({"model": "m", "messages": HELLO, "stream": True}, time.monotonic())
    return asyncio.create_task(run_chat(request, find))


def test_a_stream_that_arrives_in_one_piece_leaves_others_their_turn() -> None:
    async def others_turns() -> int:
        chat, turns = await drive(NeverWaits(20_000)), 0
        while not chat.done():
            turns += 1
            await asyncio.sleep(0)
        assert len((await chat)["content"]) == 20_000
        return turns

    assert asyncio.run(others_turns()) > 10  # 2 without `_Turn`: before it and after it


@pytest.mark.rule("CAN-1")
def test_a_stream_that_arrives_in_one_piece_can_be_cancelled() -> None:
    async def cancelled() -> int:
        model = NeverWaits(1_000_000_000)
        chat = await drive(model)
        await model.began.wait()
        chat.cancel()
        with pytest.raises(BridgeError, match="cancelled"):
            await chat
        return model.taken

    assert asyncio.run(cancelled()) < 1_000_000_000


@pytest.mark.rule("STR-10", "CAN-1")
def test_a_slow_reader_slows_the_provider_and_costs_no_memory(provider: Upstream, spawn: Spawn) -> None:
    """Nobody reads while two long streams are under way; then everything comes: pings and the answers of the cancelled."""
    ours, theirs = os.pipe()
    env = {"OPENAI_API_KEY": "sk-secret-123", "OPENAI_BASE_URL": provider.base_url}
    worker = spawn(env=env, stdout=theirs)
    os.close(theirs)
    provider.script("much", chunks=[chunk({"content": "x" * 20_000})] * 2000)  # 40 MB: more than all buffers on the way
    first = [worker.request("chat", {"model": "openai/much", "messages": HELLO, "stream": True}) for _ in range(2)]
    requests = [provider.wait_for_request(model="much", nth=nth, timeout=WAIT_SECONDS) for nth in (1, 2)]
    for request in requests:
        assert request.stalled.wait(WAIT_SECONDS), "the provider was never slowed down"
    before = resident(worker)
    sent = [request.sent for request in requests]
    short = worker.request("chat", {"model": "offline/echo", "messages": HELLO})
    ping = worker.request("ping")
    for id in first:
        worker.notify("notifications/cancelled", {"requestId": id})
    for request in requests:  # stopping costs no reading either
        request.wait_closed(WAIT_SECONDS)
    assert resident(worker) < before + SLACK_MIB
    assert all(request.sent < 2000 for request in requests)
    worker.end_input()
    with open(ours, "rb") as pipe:
        messages = [json.loads(line) for line in pipe]
    responses = {message["id"]: message for message in messages if "method" not in message}
    assert set(responses) == {*first, short, ping}
    assert all(responses[id]["error"]["data"]["kind"] == "cancelled" for id in first)
    assert worker.exit_code() == 0
    figure(f"a reader that does not read: {before:.0f} MiB, {sum(sent)} pieces taken from the provider")
