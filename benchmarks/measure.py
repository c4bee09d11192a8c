"""The measurements: rounds in which every peer does the same, one after the other, and what a round finds.

Owns what is measured and for how long. Refuses to judge (`bars`) and to show (`report`, `plot`). A figure is one number a round;
peers are compared by the ratio of their figures of the same round, so that a machine that is slow for a minute is slow for both.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any, NamedTuple

from benchmarks.formats import FORMATS
from benchmarks.peer import FLOOR, PEERS, PLAIN, WORKER_NAME, Peer, Running, Upstream
from benchmarks.setting_up import PYTHON, WORKER, Absent

WORDS = 'The quick brown fox — ein schöner Fuchs — said "so what?" and went on.\n'
Log = Callable[[str], None]


class Plan(NamedTuple):
    """``box``: seconds that a load lasts at least. ``streams``: how many at a time."""

    rounds: int
    box: float
    starts: int
    streams: tuple[int, ...]
    cancels: int
    growth: bool
    lived: int  # chats, before the second look at memory


FULL = Plan(rounds=3, box=0.6, starts=5, streams=(1, 16), cancels=5, growth=True, lived=1000)
QUICK = Plan(rounds=1, box=0.25, starts=3, streams=(1, 16), cancels=2, growth=True, lived=200)
SMOKE = Plan(rounds=1, box=0.0, starts=1, streams=(1,), cancels=1, growth=False, lived=1)


def messages(size: int, count: int = 1) -> list[dict[str, str]]:
    """A conversation of ``count`` messages and about ``size`` bytes in all."""
    each = max(1, size // count // len(WORDS.encode()))
    return [{"role": "user" if at % 2 == 0 else "assistant", "content": f"{at}. " + WORDS * each} for at in range(count)]


class Figures:
    """By peer and name, a number a round; the peers that are absent, and what failed of the others, with the reason."""

    def __init__(self) -> None:
        self.of: dict[str, dict[str, list[float | None]]] = defaultdict(dict)
        self.absent: dict[str, str] = {}
        self.failed: dict[str, str] = {}

    def add(self, peer: str, name: str, value: float | None) -> None:
        self.of[peer].setdefault(name, []).append(value)

    def median(self, peer: str, name: str) -> float | None:
        values = [value for value in self.of.get(peer, {}).get(name, ()) if value is not None]
        return statistics.median(values) if values else None

    def ratio(self, name: str, peer: str, other: str) -> float | None:
        """The median of the rounds' ratios."""
        pairs = zip(self.of.get(peer, {}).get(name, ()), self.of.get(other, {}).get(name, ()), strict=False)
        ratios = [mine / theirs for mine, theirs in pairs if mine is not None and theirs]
        return statistics.median(ratios) if ratios else None


def measure(plan: Plan, peers: tuple[Peer, ...], log: Log) -> Figures:
    figures = Figures()
    present = []
    for peer in peers:
        try:
            peer.set_up()
            present.append(peer)
        except Absent as reason:
            figures.absent[peer.name] = str(reason)
            log(f"{peer.name} is absent: {reason}")
    with Upstream() as upstream:
        _starts(figures, plan, upstream)
        log(f"{plan.starts} starts measured")
        for number in range(plan.rounds):
            began = time.monotonic()
            order = present if number % 2 == 0 else present[::-1]
            with ExitStack() as stack:
                _round(figures, plan, upstream, order, stack)
            _own_part(figures, plan, upstream)
            _formats(figures, plan, upstream)
            log(f"round {number + 1} of {plan.rounds}: {time.monotonic() - began:.0f} s")
    return figures


# --- one round -----------------------------------------------------------------------------------------------------------------


def _round(figures: Figures, plan: Plan, upstream: Upstream, order: list[Peer], stack: ExitStack) -> None:
    running: list[Running] = []

    def each(action: Callable[[Running], None]) -> None:
        for one in list(running):
            try:
                action(one)
            except Absent as reason:
                figures.failed[one.peer.name] = str(reason)
                running.remove(one)

    for peer in order:
        try:
            one = Running(peer, upstream)
        except Absent as reason:
            figures.absent[peer.name] = str(reason)
            continue
        stack.callback(lambda one=one: figures.add(one.peer.name, "gone_ms", one.close() * 1000))
        running.append(one)
        figures.add(peer.name, "first_chat_s", one.first_chat_s)
        figures.add(peer.name, "memory_first_mib", one.memory_mib())
    each(lambda one: _idle(figures, one, plan))
    for in_flight in (1, 16, 64):
        each(lambda one, at=in_flight: _chats(figures, one, at, one.load(seconds=plan.box, count=at, in_flight=at)))
    each(lambda one: _loaded(figures, one, plan))
    for in_flight in plan.streams:
        each(lambda one, at=in_flight: _streams(figures, one, at, one.load(stream=True, seconds=plan.box, count=at, in_flight=at)))
    each(lambda one: _cancels(figures, one, upstream, plan.cancels))
    if plan.growth:
        _growth(figures, plan, each)
    for peer in order:  # a difference to the floor's figure of the same round
        _added(figures, peer.name)


def _idle(figures: Figures, one: Running, plan: Plan) -> None:
    one.messages(messages(1024))
    # Connections, caches, late imports and the requests of all deployments, which a long-lived process has behind it.
    one.load(count=60 if plan.box else 1, in_flight=4)
    one.load(stream=True, count=20 if plan.box else 1)
    figures.add(one.peer.name, "memory_idle_mib", one.memory_mib())


def _loaded(figures: Figures, one: Running, plan: Plan) -> None:
    one.load(count=max(1, plan.lived - one.chats), in_flight=min(16, plan.lived))
    figures.add(one.peer.name, "memory_loaded_mib", one.memory_mib())


def _chats(figures: Figures, one: Running, in_flight: int, load: dict[str, Any]) -> None:
    peer = one.peer.name
    latencies = sorted(load["latencies_us"])
    _note_failures(figures, peer, load)
    figures.add(peer, f"p50_ms_{in_flight}", _quantile(latencies, 0.5))
    figures.add(peer, f"p99_ms_{in_flight}", _quantile(latencies, 0.99))
    figures.add(peer, f"chats_a_second_{in_flight}", load["chats"] / load["seconds"])
    figures.add(peer, f"cpu_us_a_chat_{in_flight}", load["cpu_s"] / load["chats"] * 1e6 if load["chats"] else None)


def _streams(figures: Figures, one: Running, in_flight: int, load: dict[str, Any]) -> None:
    peer = one.peer.name
    _note_failures(figures, peer, load)
    figures.add(peer, f"chunks_a_second_{in_flight}", load["chunks"] / load["seconds"])
    figures.add(peer, f"cpu_us_a_chunk_{in_flight}", load["cpu_s"] / load["chunks"] * 1e6 if load["chunks"] else None)
    figures.add(peer, f"first_token_ms_{in_flight}", _quantile(sorted(load["first_us"]), 0.5))


def _cancels(figures: Figures, one: Running, upstream: Upstream, count: int) -> None:
    """The median time from a cancel to the end of the provider's connection."""
    _closed(upstream)  # forgets what is over
    cancelled = one.cancel(count)
    closed: list[int] = []
    for _ in range(200):
        closed += _closed(upstream)
        if len(closed) >= count:
            break
        time.sleep(0.01)
    taken = [(end - begin) / 1e6 for begin, end in zip(cancelled, closed, strict=False)]
    if len(taken) < count:
        figures.failed[one.peer.name] = f"{count - len(taken)} of {count} provider connections were open 2 s after their cancel"
    figures.add(one.peer.name, "cancel_ms", statistics.median(taken) if len(taken) == count else None)


def _closed(upstream: Upstream) -> list[int]:
    with urllib.request.urlopen(f"http://127.0.0.1:{upstream.port}/closed", timeout=10) as response:
        times: list[int] = json.load(response)
        return times


def _growth(figures: Figures, plan: Plan, each: Callable[[Callable[[Running], None]], None]) -> None:
    sizes = {"1kb": messages(1024), "100kb": messages(100 * 1024), "5mb": messages(5 * 1024 * 1024)}
    histories = {f"history_{count}": messages(200 * count, count) for count in (10, 100, 1000)}

    def measure_size(one: Running, name: str, conversation: list[dict[str, str]]) -> None:
        one.messages(conversation)
        if one.peer.name not in (PLAIN, WORKER_NAME, FLOOR):
            return
        one.load(count=1)
        load = one.load(count=5, seconds=plan.box / 4)
        _note_failures(figures, one.peer.name, load)
        figures.add(one.peer.name, f"p50_ms_{name}", _quantile(sorted(load["latencies_us"]), 0.5))
        figures.add(one.peer.name, f"cpu_us_{name}", load["cpu_s"] / load["chats"] * 1e6 if load["chats"] else None)

    for name, conversation in (sizes | histories).items():
        each(lambda one, name=name, conversation=conversation: measure_size(one, name, conversation))


def _added(figures: Figures, peer: str) -> None:
    """What a peer adds to the time of the provider itself."""
    for name in ("p50_ms_1", "p50_ms_16", "p50_ms_64", "p99_ms_1", "p99_ms_16", "p99_ms_64", "first_token_ms_1"):
        mine, floor = (figures.of.get(who, {}).get(name, [None])[-1] for who in (peer, FLOOR))
        figures.add(peer, f"added_{name}", mine - floor if mine is not None and floor is not None else None)


def _note_failures(figures: Figures, peer: str, load: dict[str, Any]) -> None:
    if load["failed"]:
        figures.failed[peer] = f"{load['failed']} chats failed: {str(load['error'])[:200]}"


def _quantile(ordered_us: list[int], part: float) -> float | None:
    return ordered_us[min(len(ordered_us) - 1, int(len(ordered_us) * part))] / 1000 if ordered_us else None


# --- the worker alone ----------------------------------------------------------------------------------------------------------


def _starts(figures: Figures, plan: Plan, upstream: Upstream) -> None:
    """Spawn to the `initialize` response, alternating with the least that a Python with asyncio can do.

    As README starts it. A setting, be it a flag, costs 0.1 s more: pydantic-settings is loaded for it.
    """
    env = dict(upstream.environment())
    hello = {"protocolVersion": "omni-bridge/1", "clientInfo": {"name": "benchmark", "version": "1"}}
    line = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}).encode() + b"\n"
    for warm in (False, *[True] * plan.starts):  # the first of each reads from the disk
        began = time.perf_counter()
        subprocess.run([PYTHON, "-c", "import asyncio"], check=True, env=env)
        bare = time.perf_counter() - began
        began = time.perf_counter()
        with subprocess.Popen(
            WORKER[:2], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env
        ) as worker:
            assert worker.stdin
            assert worker.stdout
            worker.stdin.write(line)
            worker.stdin.flush()
            worker.stdout.readline()
            initialized = time.perf_counter() - began
            worker.kill()
        if warm:
            figures.add(PLAIN, "bare_start_ms", bare * 1000)
            figures.add(WORKER_NAME, "initialize_ms", initialized * 1000)


def _formats(figures: Figures, plan: Plan, upstream: Upstream) -> None:
    """The worker with providers of other formats: processor time a chat, and streams."""
    worker = next(peer for peer in PEERS if peer.name == WORKER_NAME)
    one = Running(worker, upstream)
    one.messages(messages(1024))
    count = max(2, int(plan.box * 250))
    for name, model in (("openai", "openai/gpt-4o-mini"), *((each.name.lower(), each.model) for each in FORMATS)):
        one.load(count=max(2, count // 4), in_flight=2, model=model)
        load = one.load(count=count, in_flight=16, model=model)
        _note_failures(figures, WORKER_NAME, load)
        figures.add(WORKER_NAME, f"cpu_us_a_chat_{name}", load["cpu_s"] / load["chats"] * 1e6 if load["chats"] else None)
        one.load(stream=True, count=2, model=model)
        load = one.load(stream=True, seconds=plan.box, count=16, in_flight=16, model=model)
        _note_failures(figures, WORKER_NAME, load)
        figures.add(WORKER_NAME, f"chunks_a_second_{name}", load["chunks"] / load["seconds"])
        figures.add(WORKER_NAME, f"cpu_us_a_chunk_{name}", load["cpu_s"] / load["chunks"] * 1e6 if load["chunks"] else None)
    one.close()


# What the model itself does, which counts words, is no part of the bridge's.
_PARSE_AND_DUMP = """
import asyncio, json, sys, time
from bridge_worker.config.settings import DEFAULTS
from bridge_worker.methods.chat import chat_request
from bridge_worker.schema.chat_request import Deadlines
from bridge_worker.backends.offline.chat import Offline

line = sys.stdin.buffer.read()
DEADLINES = Deadlines(**DEFAULTS.deadlines)

async def chat(params):
    async for _ in Offline().chat(chat_request(params, 0.0, DEADLINES)):
        pass

def cpu(work):
    work()
    began = time.process_time()
    for _ in range(3):
        work()
    return (time.process_time() - began) / 3

params = json.loads(line)["params"]
loop = asyncio.new_event_loop()
print(cpu(lambda: json.dumps(json.loads(line), ensure_ascii=False)), cpu(lambda: loop.run_until_complete(chat(params))))
"""


def _own_part(figures: Figures, plan: Plan, upstream: Upstream) -> None:
    """The bridge without a model: one that repeats the last message, word by word when streamed."""
    peer = next(peer for peer in PEERS if peer.name == WORKER_NAME)
    one = Running(peer, upstream)  # whose first chat has waited for LiteLLM, so nothing loads beside what is measured
    with suppress(BrokenPipeError):
        count = max(10, int(plan.box * 1000))
        one.messages([{"role": "user", "content": "hello"}])
        one.load(count=count, model="offline/echo")
        load = one.load(count=count, model="offline/echo")
        figures.add(WORKER_NAME, "own_us_a_chat", load["cpu_s"] / load["chats"] * 1e6)
        one.messages([{"role": "user", "content": "word " * 1000}])
        streamed = one.load(stream=True, count=max(1, count // 40), model="offline/echo")
        whole = one.load(count=max(1, count // 40), model="offline/echo")
        of_deltas = streamed["cpu_s"] / streamed["chats"] - whole["cpu_s"] / whole["chats"]
        figures.add(WORKER_NAME, "own_us_a_delta", of_deltas / 1000 * 1e6)
        large = messages(5 * 1024 * 1024)
        one.messages(large)
        own = one.load(count=3, model="offline/echo")["cpu_s"] / 3
        request = {"jsonrpc": "2.0", "id": 1, "method": "chat", "params": {"model": "offline/echo", "messages": large}}
        line = json.dumps(request, ensure_ascii=False).encode()
        done = subprocess.run([PYTHON, "-c", _PARSE_AND_DUMP], input=line, capture_output=True, check=True)
        parse_and_dump, model = map(float, done.stdout.split())
        figures.add(WORKER_NAME, "own_5mb_ratio", (own - model) / parse_and_dump)
    one.close()
