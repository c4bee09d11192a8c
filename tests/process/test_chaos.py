"""Hundreds of requests of every kind, against a provider with every fault, through one real process: each gets one response.

Seeded, so that what was found can be run again; longer by hand:

    CHAOS_SEEDS=1000-1049 CHAOS_REQUESTS=2000 bin/test tests/process/test_chaos.py
"""

from __future__ import annotations

import json
import os
import random

import pytest

from tests.conftest import WorkerFor
from tests.support.data import tool
from tests.support.processes import children
from tests.support.request_ledger import Ledger
from tests.support.upstream import Upstream
from tests.support.worker import WAIT_SECONDS, Json, Worker, wait_until

FIRST, _, LAST = os.environ.get("CHAOS_SEEDS", "1").partition("-")
SEEDS = range(int(FIRST), int(LAST or FIRST) + 1)
REQUESTS = int(os.environ.get("CHAOS_REQUESTS", "300"))
IN_FLIGHT = 48

GOOD = [
    "gpt-4o-mini",
    "reasoning",
    "chunks-200",
    "repeat",
    "no-done",
    "comments",
    "crlf",
    "slow-5ms",
    "finish-length",
    "tools-parallel",
]
FAULTY = [
    *("status-400", "status-401", "status-403", "status-404", "status-429", "status-500", "status-503", "status-529"),
    *("retry-after-7", "retry-after-date", "quota", "context-length", "content-policy", "html", "garbage", "empty-choices"),
    *("empty-body", "reset", "close", "too-short", "reset-after-2", "cut-2", "truncated-2", "bad-chunk-1", "stream-error"),
    *("tools-bad-json", "tools-empty-args", "tools-no-id", "huge-2"),
]
ENDLESS = ["hang", "hang-after-2", "hang-after-headers", "endless", "slow-400ms"]  # these end by a deadline or a cancel only
TOOLS = [tool(name, {"type": "object", "properties": {}}) for name in "fg"]
LINES = [  # each gets a response with id null, or none
    b"\n",
    b"{\n",
    b"\xff\xfe\n",
    b"[]\n",
    b'"x"\n',
    b'{"jsonrpc":"2.0","id":null,"method":"ping"}\n',
    b'{"jsonrpc":"2.0","method":"chat","params":{}}\n',
    b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"nobody"}}\n',
    b"[" * 100_000 + b"\n",
]


@pytest.fixture(scope="module")
def chaotic(upstream: Upstream, worker_for: WorkerFor) -> Worker:
    env = {"OPENAI_API_KEY": "sk-secret-123", "OPENAI_BASE_URL": upstream.base_url}
    return worker_for(f"--max-in-flight={IN_FLIGHT}", env=env)


class Caller:
    """Makes up requests and what is done to them, all from one seed."""

    def __init__(self, seed: int, worker: Worker) -> None:
        self._random = random.Random(seed)
        self._worker = worker
        self._seed = seed
        self._made = 0
        self.ledger = Ledger(worker)

    def run(self) -> None:
        while self._made < REQUESTS:
            match self._random.choices(["single", "batch", "line", "cancel", "again"], [60, 8, 6, 22, 4])[0]:
                case "single":
                    self._worker.send(self._request())
                case "batch":
                    self._worker.send([self._request() for _ in range(self._random.randint(1, 6))])
                case "line":
                    self._worker.write(self._random.choice(LINES))
                case "cancel" if open := self.ledger.open:
                    self._cancel(self._random.choice(open))
                case "again" if self.ledger.responses:  # an id that is free again may be used again, but is then owed twice
                    self._cancel(self._random.choice(list(self.ledger.responses)))
            if self._random.random() < 0.9:  # and now and then more than fits
                self.ledger.wait_for_less_than(IN_FLIGHT)

    def cancel_the_rest(self) -> None:
        for id in self.ledger.open:
            self._cancel(id)

    def _cancel(self, id: int | str) -> None:
        self._worker.notify("notifications/cancelled", {"requestId": id})

    def _request(self) -> Json:
        self._made += 1
        number = self._seed * 1_000_000 + self._made
        id = self.ledger.owe(self._random.choice([number, f"id-{number} ☃"]))
        method = self._random.choices(["chat", "ping", "no/such", "initialize"], [90, 7, 2, 1])[0]
        return {"jsonrpc": "2.0", "id": id, "method": method, "params": self._params() if method == "chat" else {}}

    def _params(self) -> Json:
        kind = self._random.choices([GOOD, FAULTY, ENDLESS, ["offline"]], [40, 35, 15, 10])[0]
        name = self._random.choice(kind)
        params: Json = {"model": f"openai/{name}", "messages": [{"role": "user", "content": "hello " * self._random.randint(1, 9)}]}
        if name == "offline":
            params["model"] = self._random.choice(["offline/echo", "offline/tools"])
        if self._random.random() < 0.6:
            params["stream"] = True
        if self._random.random() < 0.3 or "tools" in params["model"]:
            params["tools"] = TOOLS
        if kind is ENDLESS or self._random.random() < 0.1:
            name = self._random.choice(["total_ms", "idle_ms"] if name == "hang-after-2" and params.get("stream") else ["total_ms"])
            params["deadlines"] = {name: self._random.randint(1, 600)}
        if self._random.random() < 0.03:
            params[self._random.choice(["api_base", "nonsense", "n"])] = "x"
        return params


@pytest.mark.rule("RPC-1", "STR-2", "STR-5", "STR-6", "CAN-1")
@pytest.mark.parametrize("seed", SEEDS)
def test_every_request_gets_one_response_whatever_happens(chaotic: Worker, upstream: Upstream, seed: int) -> None:
    caller = Caller(seed, chaotic)
    caller.run()
    caller.cancel_the_rest()
    outcomes = caller.ledger.check()
    assert outcomes["internal"] == 0, [a for [a] in caller.ledger.responses.values() if "internal" in json.dumps(a)][:3]
    for kind in ("ok", "cancelled", "timeout", "invalid_request", "provider_unavailable", "rate_limited", "stream_interrupted"):
        assert outcomes[kind], f"the run never came to {kind}: {outcomes}"
    held = [request for request in upstream.requests if request.model in ENDLESS]
    for request in held:  # a cancelled or late call costs nothing any more
        wait_until(lambda request=request: request.closed_by_client.is_set() or request.replied.is_set(), f"{request.id} closed")


@pytest.mark.rule("LIF-15", "EXT-1")
def test_after_all_that_it_has_nothing_left_and_ends_well(chaotic: Worker, upstream: Upstream) -> None:
    assert chaotic.call("ping")["result"] == {}
    assert chaotic.chat("openai/gpt-4o-mini")["content"]
    assert len(children(chaotic.process.pid)) == 2  # the template and the engine
    chaotic.end_input()
    assert chaotic.exit_code() == 0
    upstream.wait_until(lambda: upstream.connections == 0, WAIT_SECONDS)
    assert "Traceback" not in chaotic.stderr, chaotic.stderr[-3000:]


@pytest.mark.rule("EXT-1", "EXT-5", "LIF-11")
@pytest.mark.parametrize("ending", ["sigterm", "shutdown"])
def test_chaos_that_is_ended_from_outside_gets_its_responses_too(upstream: Upstream, ending: str) -> None:
    env = {"OPENAI_API_KEY": "sk-secret-123", "OPENAI_BASE_URL": upstream.base_url}
    with Worker("--grace-seconds=0.2", env=env) as worker:
        worker.chat("openai/gpt-4o-mini")
        ledger = Ledger(worker)
        for number, model in enumerate([*GOOD, *ENDLESS, *FAULTY[:10], *ENDLESS]):
            id = ledger.owe(f"{ending}-{number}")
            params = {"model": f"openai/{model}", "messages": [{"role": "user", "content": "x"}], "stream": bool(number % 2)}
            worker.request("chat", params, id)
        ledger.wait_for_less_than(16)
        if ending == "sigterm":
            worker.process.terminate()
        else:
            ledger.owe(worker.request("shutdown", {"mode": "cancel"}, "bye"))
        assert worker.exit_code() == 0
        ledger.check()
    upstream.wait_until(lambda: upstream.connections == 0, WAIT_SECONDS)
