"""Whether the account of chats comes out even while engines are killed at random.

    .venv-dev/bin/python -m benchmarks.losses                 10,000 chats
    .venv-dev/bin/python -m benchmarks.losses --chats 500 --seed 7

Owns the chats, the kills and the account: each chat has one response, the provider has received each as often as its response says,
and the budget holds what was settled and nothing reserved. tests/process/test_engines.py runs a short form of it.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from typing import Any, NamedTuple

from tests.support.request_ledger import Ledger, outcome
from tests.support.upstream import Upstream
from tests.support.worker import Worker, wait_until

BUDGETS = ("--budgets", '[{"path": "account", "max_tokens": 1000000000}]')
WAVE = 20  # chats in flight
_MODELS = ("openai/gpt-4o-mini", "openai/slow-30")  # the second responds slowly, so that kills meet it while it is sent
_SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT)


class Account(NamedTuple):
    outcomes: Counter[str]
    kills: int
    sent: Counter[str]  # `sent_upstream` of the lost ones
    arrived: int
    spent: int  # tokens

    def text(self) -> str:
        return (
            f"{self.outcomes.total()} chats, {self.kills} engines killed: {dict(self.outcomes)}; lost with sent_upstream "
            f"{dict(self.sent)}; {self.arrived} arrived at the provider; {self.spent} tokens spent, 0 reserved"
        )


def run(worker: Worker, upstream: Upstream, chats: int, seed: int, pause: float = 0.3) -> Account:
    """``worker`` has two engines and `BUDGETS`; ``upstream`` is its provider. ``pause`` is the mean of seconds between two kills.
    Raises AssertionError for an account that is not even."""
    wait_until(lambda: len(_ready(worker, Ledger(worker))) == 2, "both engines are ready", 180)
    rng = random.Random(seed)
    held = _held(worker, upstream)
    upstream.forget()
    before, done = _budget(worker)["used_tokens"], threading.Event()
    kills = [0]
    ledger, texts = Ledger(worker), {}
    killer = threading.Thread(target=_kill, args=(worker, ledger, done, random.Random(seed), pause, kills))
    killer.start()
    try:
        for number in range(chats):
            if number % (WAVE // 2) == 0:
                ledger.wait_for_less_than(WAVE // 2)
            text = f"chat {number:08}"
            params = {"model": rng.choice(_MODELS), "messages": [{"role": "user", "content": text}], "max_tokens": 10}
            stream = {"stream": True} if rng.random() < 0.3 else {}
            id = worker.request("chat", params | stream | {"metadata": {"budget": "account"}})
            texts[ledger.owe(id)] = text
    finally:
        done.set()
        killer.join()
    ledger.check()
    wait_until(lambda: _budget(worker)["reserved_tokens"] == 0, "nothing is reserved")
    responses = {texts[id]: responses[0] for id, responses in ledger.responses.items() if id in texts}
    outcomes = Counter(map(outcome, responses.values()))
    arrived = Counter(request.body["messages"][0]["content"] for request in upstream.requests)
    sent = _check_sent(responses, arrived)
    spent = _budget(worker)["used_tokens"] - before
    _check_spent(responses, sent, spent, held)
    return Account(outcomes, kills[0], sent, arrived.total(), spent)


def _check_sent(responses: dict[str, Any], arrived: Counter[str]) -> Counter[str]:
    """Each chat arrived as often as its response says. A request that was begun may not have arrived."""
    sent: Counter[str] = Counter()
    for text, response in responses.items():
        if "result" in response:
            assert arrived[text] == 1, (text, arrived[text])
            continue
        data = response["error"]["data"]
        assert data["kind"] == "engine_lost", response
        sent[str(data["sent_upstream"])] += 1
        most = 0 if data["sent_upstream"] is False else 1
        assert arrived[text] <= most, (response, arrived[text])
    return sent


def _check_spent(responses: dict[str, Any], sent: Counter[str], spent: int, held: int) -> None:
    """What was settled: the usage of each response, and of a lost chat what it had reserved, or its usage if the engine was lost
    between its settlement and its response."""
    usage = [response["result"]["usage"]["total_tokens"] for response in responses.values() if "result" in response]
    lost, each = sent.total(), usage[0]
    assert set(usage) == {each}
    pairs = ((reserved, settled) for reserved in range(lost + 1) for settled in range(lost + 1 - reserved))
    least = sent["True"]
    assert any(
        least <= reserved + settled and spent == sum(usage) + reserved * held + settled * each for reserved, settled in pairs
    ), (spent, sum(usage), sent, held)


def _held(worker: Worker, upstream: Upstream) -> int:
    """Tokens that a chat of the same form reserves."""
    before = upstream.counts["hang"]
    params = {"model": "openai/hang", "messages": [{"role": "user", "content": "chat 00000000"}], "max_tokens": 10}
    id = worker.request("chat", params | {"metadata": {"budget": "account"}})
    upstream.wait_for_request(model="hang", nth=before + 1, timeout=60)
    held: int = _budget(worker)["reserved_tokens"]
    worker.notify("notifications/cancelled", {"requestId": id})
    assert outcome(worker.response(id)) == "cancelled"
    return held


def _budget(worker: Worker) -> dict[str, int]:
    while "result" not in (response := worker.call("budgets/get", {"path": "account"})):
        assert outcome(response) == "engine_lost", response  # its own engine was killed
    row: dict[str, int] = response["result"]["budgets"][0]
    return row


def _ready(worker: Worker, ledger: Ledger) -> list[int]:
    rows = worker.response(ledger.owe(worker.request("status")))["result"]["engines"]
    return [row["pid"] for row in rows if row["state"] == "ready"]


def _kill(worker: Worker, ledger: Ledger, done: threading.Event, rng: random.Random, pause: float, kills: list[int]) -> None:
    while not done.wait(rng.expovariate(1 / pause)):
        if pids := _ready(worker, ledger):
            with suppress(ProcessLookupError):
                os.kill(rng.choice(pids), rng.choice(_SIGNALS))
                kills[0] += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--chats", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pause", type=float, default=0.5, help="mean seconds between two kills")
    options = parser.parse_args()
    began = time.monotonic()
    with Upstream() as upstream:
        env = {"OPENAI_API_KEY": "sk-secret-123", "OPENAI_BASE_URL": upstream.base_url}
        with Worker("--engines", "2", "--log-level", "error", *BUDGETS, env=env) as worker:
            account = run(worker, upstream, options.chats, options.seed, options.pause)
    print(f"{account.text()}; {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
