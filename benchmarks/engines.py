"""What engine processes cost and gain: the figures of several engines, of a lost and of a hung one, each against its bar.

    .venv-dev/bin/python -m benchmarks.engines                    some four minutes, on a machine that does nothing else
    .venv-dev/bin/python -m benchmarks.engines --only hung        those with the word in their name
    .venv-dev/bin/python -m benchmarks.engines --rounds 1 --scale 0.2    quickly: to see that it works

Owns the scenarios and the bars. A ratio is of two figures of one round, and what is printed is the median of the rounds; a worst
case (ping p100) is that of all rounds. Needs what `run.py` has set up. Exit code 0 when it has measured, whatever the bars say.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import scenarios
from benchmarks.formats import BEDROCK, GEMINI
from benchmarks.measure import messages
from benchmarks.peer import Peer, Running, Upstream, processor_seconds
from benchmarks.scenarios import Bar
from benchmarks.setting_up import LOAD, WORKER
from tests.support.upstream import Upstream as Provider
from tests.support.worker import Worker, wait_until

HELLO: list[Any] = [{"role": "user", "content": "hello"}]
ONE, HANGS = "openai/one", "openai/hang"


class Context(NamedTuple):
    """``scale`` multiplies the number of chats."""

    upstream: Upstream  # in Rust, for loads
    provider: Provider  # in Python, which also hangs
    scale: float

    def count(self, usual: int, least: int = 2) -> int:
        return max(least, int(usual * self.scale))


Figure = Callable[[Context], dict[str, float]]


# --- loads, by the client in Rust --------------------------------------------------------------------------------------------


@contextmanager
def running(context: Context, engines: int) -> Iterator[Running]:
    """A worker with so many engines, 0 for one process, after its first chats. Its engines are all ready."""
    peer = Peer(f"{engines} engines", "", lambda *_: [LOAD, "pipe", *WORKER, "--engines", str(engines)])
    one = Running(peer, context.upstream)
    try:
        wanted = 1 + engines if engines else 1  # the template too
        wait_until(lambda: len(one.pids()) > wanted - 1, "the engines are started")
        one.settle()
        one.messages(messages(1024))
        yield one
    finally:
        with suppress(BrokenPipeError):
            one.close()


def load(one: Running, **wanted: Any) -> dict[str, Any]:
    """The client's figures, with ``server_s``: the processor time of the first process alone."""
    before = processor_seconds(one.pid)
    done = one.load(**wanted)
    if done["failed"]:
        raise SystemExit(f"{done['failed']} chats failed: {str(done['error'])[:300]}")
    return done | {"server_s": processor_seconds(one.pid) - before}


def hop(context: Context) -> dict[str, float]:
    with running(context, 1) as one:
        load(one, count=context.count(300), in_flight=64)
        chats = load(one, count=context.count(3000), in_flight=64)
        load(one, stream=True, count=64, in_flight=64)
        streams = load(one, stream=True, count=context.count(320, 64), in_flight=64)
    return {
        "hop: CPU of the server process a chat, 64 in flight": chats["server_s"] / chats["chats"] * 1e6,
        "hop: CPU of the server process a delta, 64 in flight": streams["server_s"] / streams["chunks"] * 1e6,
    }


def one_at_a_time(context: Context) -> dict[str, float]:
    """The two take turns, 50 chats each."""
    with running(context, 0) as none, running(context, 1) as one:
        latencies: dict[int, list[int]] = {0: [], 1: []}
        for each in (none, one):
            load(each, count=context.count(100))
        for _ in range(context.count(12)):
            for number, each in enumerate((none, one)):
                latencies[number] += load(each, count=50)["latencies_us"]
    return {"p50, one chat at a time, beyond one process": statistics.median(latencies[1]) - statistics.median(latencies[0])}


def two_engines(context: Context) -> dict[str, float]:
    with running(context, 1) as one, running(context, 2) as two:
        rates: dict[str, list[float]] = {}
        for name, model, count in (("Gemini", GEMINI.model, 600), ("Bedrock", BEDROCK.model, 400), ("OpenAI", None, 2000)):
            chosen = {"model": model} if model else {}
            for each in (one, two):
                load(each, count=context.count(128, 64), in_flight=64, **chosen)
            done = [load(each, count=context.count(count, 64), in_flight=64, **chosen) for each in (one, two)]
            rates[name] = [each["chats"] / each["seconds"] for each in done]
            rates[f"{name} cpu"] = [each["cpu_s"] / each["chats"] for each in done]
    return {
        "2 engines against 1, 64 in flight: chats a second, Gemini": rates["Gemini"][1] / rates["Gemini"][0],
        "2 engines against 1, 64 in flight: chats a second, Bedrock": rates["Bedrock"][1] / rates["Bedrock"][0],
        "2 engines against 1, 64 in flight: CPU of all processes a chat": rates["OpenAI cpu"][1] / rates["OpenAI cpu"][0],
    }


def memory(context: Context) -> dict[str, float]:
    with running(context, 4) as four:
        load(four, count=context.count(400, 64), in_flight=64)
        return {"memory (PSS of all processes), 4 engines after 100 chats each": four.memory_mib()}


# --- a worker, by its lines --------------------------------------------------------------------------------------------------


@contextmanager
def worker(context: Context, engines: int, *flags: str, env: Mapping[str, str] | None = None) -> Iterator[Worker]:
    usual = {"OPENAI_API_KEY": "sk-benchmark", "OPENAI_BASE_URL": context.provider.base_url, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    with Worker("--engines", str(engines), *flags, env=usual | dict(env or {})) as started:
        wait_until(lambda: len(states(started)) == engines and set(states(started)) == {"ready"}, "the engines are ready", 120)
        yield started


def states(one: Worker) -> list[str]:
    return [row["state"] for row in rows(one)]


def rows(one: Worker) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = one.call("status")["result"]["engines"]
    return found


def timed(work: Callable[[], object]) -> float:
    """Milliseconds."""
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


def chat(one: Worker, text: str = "hello", model: str = ONE) -> None:
    one.chat(model, text)


def ready(context: Context) -> dict[str, float]:
    """From the first engine that is ready to the fourth."""
    env = {"OPENAI_API_KEY": "sk-benchmark", "OPENAI_BASE_URL": context.provider.base_url}
    with Worker("--engines", "4", env=env) as one:
        wait_until(lambda: "ready" in states(one), "the first engine is ready", 120)
        took = timed(lambda: wait_until(lambda: states(one).count("ready") == 4, "all engines are ready"))
    return {"4 engines ready after the first is": took / 1000}


def starts(context: Context) -> dict[str, float]:
    """With one engine against one process: the two take turns."""
    env = {"OPENAI_API_KEY": "sk-benchmark", "OPENAI_BASE_URL": context.provider.base_url}
    took: dict[str, list[list[float]]] = {"initialize": [[], []], "first chat": [[], []]}
    for _ in range(context.count(5)):
        for number in (0, 1):
            began = time.perf_counter()
            with Worker("--engines", str(number), env=env) as one:
                one.call("initialize", {"protocolVersion": "omni-bridge/1"})
                took["initialize"][number].append(time.perf_counter() - began)
                chat(one)
                took["first chat"][number].append(time.perf_counter() - began)
    return {f"{name}, 1 engine against one process": statistics.median(b) / statistics.median(a) for name, (a, b) in took.items()}


def killed(context: Context) -> dict[str, float]:
    beyond = []
    with worker(context, 1) as one:
        usual = statistics.median(timed(lambda: chat(one)) for _ in range(context.count(20)))
        for _ in range(context.count(10)):
            wait_until(lambda: states(one) == ["ready"], "an engine is ready")
            os.kill(rows(one)[0]["pid"], signal.SIGKILL)
            beyond.append(timed(lambda: served(one)) - usual)
    return {"kill -9 of an engine to the next answered chat, beyond the chat": statistics.median(beyond)}


def served(one: Worker) -> None:
    """Until a chat gets its result; one that the lost engine had read gets an error first."""
    while "error" in one.call("chat", {"model": ONE, "messages": HELLO}):
        pass


# A callback of the operator's, which every chat of a config with it calls.
_HOSTILE = """
import ctypes, re
from litellm.integrations.custom_logger import CustomLogger

class Hostile(CustomLogger):
    def log_pre_api_call(self, model, messages, kwargs):
        text = str(messages)
        if "hold the GIL" in text:
            re.match(r"(a+)+$", "a" * 64 + "b")  # a loop in C
        if "much memory" in text:
            malloc = ctypes.PyDLL(None).malloc  # which keeps the GIL
            malloc.restype = ctypes.c_void_p
            malloc(ctypes.c_size_t(10 << 30))

hostile = Hostile()
"""


def hung(context: Context) -> dict[str, float]:
    """Pings, and chats of the other engine, while one engine hangs; against the same with it busy but well. The engine is not
    killed during the measurement."""
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="omni-bridge-bench-") as folder:
        Path(folder, "hostile.py").write_text(_HOSTILE)
        config = {
            "model_list": [
                {
                    "model_name": "openai/*",
                    "litellm_params": {"model": "openai/*", "api_base": context.provider.base_url, "api_key": "sk-benchmark"},
                }
            ],
            "litellm_settings": {"callbacks": ["hostile.hostile"]},
        }
        file = Path(folder, "gateway.json")
        file.write_text(json.dumps(config))  # YAML enough
        for name, hang in (("SIGSTOP", None), ("a C loop holding the GIL", "hold the GIL"), ("10 GB of malloc", "much memory")):
            with worker(context, 2, "--config", str(file), "--engine-hang-seconds", "30") as one:
                for _ in range(4):
                    ids = [one.request("chat", {"model": ONE, "messages": HELLO}) for _ in range(2)]
                    for id in ids:  # each engine has its first chats behind it
                        one.response(id)
                before = context.provider.counts["hang"]
                one.request("chat", {"model": HANGS, "messages": HELLO})
                context.provider.wait_for_request(model="hang", nth=before + 1, timeout=30)
                (pid,) = [row["pid"] for row in rows(one) if row["in_flight"]]
                well = pings_and_chats(one, context)
                if hang is None:
                    os.kill(pid, signal.SIGSTOP)
                else:
                    other = one.request("chat", {"model": HANGS, "messages": HELLO})  # so that the next one goes to the same engine
                    one.request("chat", {"model": ONE, "messages": [{"role": "user", "content": hang}]})
                    one.notify("notifications/cancelled", {"requestId": other})
                    one.response(other)
                ill = pings_and_chats(one, context)
            figures[f"hung engine ({name}): ping p100"] = max(ill[0])
            figures[f"hung engine ({name}): the other engine's chats, p99"] = quantile(ill[1], 0.99) / quantile(well[1], 0.99)
    return figures


def pings_and_chats(one: Worker, context: Context) -> tuple[list[float], list[float]]:
    """Milliseconds of each."""
    pings, chats = [], []
    for _ in range(context.count(300, 20)):
        chats.append(timed(lambda: chat(one)))
        pings.append(timed(lambda: one.call("ping")))
    return pings, chats


def large(context: Context) -> dict[str, float]:
    """Chats of the other engine, 4 in flight, around a message of 50 MB."""
    text = "x" * (50 << 20)
    params = {"model": ONE, "messages": [{"role": "user", "content": text}]}
    line = json.dumps({"jsonrpc": "2.0", "id": "large %d", "method": "chat", "params": params}).encode()
    took: list[float] = []
    with worker(context, 2, env={"OPENAI_BASE_URL": context.upstream.base_url}) as one:  # the other provider would repeat the text
        done = threading.Event()

        def others() -> None:
            while not done.is_set():
                took.append(timed(lambda: chat(one)))

        for _ in range(4):
            chat(one)
        threads = [threading.Thread(target=others) for _ in range(4)]
        sender = threading.Lock()
        usual = one.write

        def write(data: bytes) -> None:
            with sender:
                usual(data)

        one.write = write  # type: ignore[method-assign]  # several threads write
        for thread in threads:
            thread.start()
        for number in range(context.count(3)):
            one.write(line % number + b"\n")
            one.response(f"large {number}")
        done.set()
        for thread in threads:
            thread.join()
    return {"a 50 MB message: other requests' p99, 2 engines": quantile(took, 0.99)}


# --- reading -----------------------------------------------------------------------------------------------------------------


def quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


FIGURES: dict[str, Figure] = {
    "hop": hop,
    "one at a time": one_at_a_time,
    "two engines": two_engines,
    "memory": memory,
    "ready": ready,
    "starts": starts,
    "killed": killed,
    "hung": hung,
    "large": large,
}
_HUNG = ("SIGSTOP", "a C loop holding the GIL", "10 GB of malloc")
BARS = (
    Bar("hop: CPU of the server process a chat, 64 in flight", 40, "us"),
    Bar("hop: CPU of the server process a delta, 64 in flight", 2.5, "us"),
    Bar("p50, one chat at a time, beyond one process", 80, "us"),
    Bar("2 engines against 1, 64 in flight: chats a second, Gemini", 1.4, "x", at_least=True),
    Bar("2 engines against 1, 64 in flight: chats a second, Bedrock", 1.4, "x", at_least=True),
    Bar("2 engines against 1, 64 in flight: CPU of all processes a chat", 1.1, "x"),
    Bar("memory (PSS of all processes), 4 engines after 100 chats each", 400, "MiB"),
    Bar("4 engines ready after the first is", 0.3, "s"),
    Bar("initialize, 1 engine against one process", 1.0, "x"),
    Bar("first chat, 1 engine against one process", 1.0, "x"),
    Bar("kill -9 of an engine to the next answered chat, beyond the chat", 150, "ms"),
    *(Bar(f"hung engine ({name}): ping p100", 50, "ms", worst=True) for name in _HUNG),
    *(Bar(f"hung engine ({name}): the other engine's chats, p99", 1.2, "x") for name in _HUNG),
    Bar("a 50 MB message: other requests' p99, 2 engines", 250, "ms"),
)


@contextmanager
def _prepared(scale: float) -> Iterator[Context]:
    with Upstream() as upstream, Provider() as provider:
        yield Context(upstream, provider, scale)


def main(arguments: Sequence[str] | None = None) -> int:
    return scenarios.run(arguments, __doc__, FIGURES, BARS, _prepared)


if __name__ == "__main__":
    sys.exit(main())
