"""Whether anything is left in a worker after chats that fail, cancels at each stage and refused reloads, seen from outside.

    .venv-dev/bin/python -m benchmarks.leaks                       500 of each kind
    .venv-dev/bin/python -m benchmarks.leaks --chats 10000         as in docs/reliability.md

Owns the kinds and the samples: descriptors, threads and memory from /proc, connections from the provider's side, requests in flight
from ``status``. Refuses to judge memory of a single kind, which allocators give back late: it prints its slope.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.gateway_config import write
from tests.support.processes import processes, resources
from tests.support.upstream import Upstream
from tests.support.worker import Worker, wait_until

HELLO: list[Any] = [{"role": "user", "content": "hello"}]
_THREADS = 60  # of all processes: 32 of the engine's executor, and those of the worker, LiteLLM and aiohttp
WAVE = 20  # requests in flight at once
_STATUSES = (400, 401, 402, 403, 404, 413, 422, 429, 500, 503, 529)
FAILING: dict[str, dict[str, Any]] = {
    **{f"status {status}": {"model": f"openai/status-{status}"} for status in _STATUSES},
    "unreadable": {"model": "openai/garbage"},
    "broken off": {"model": "openai/reset-after-2", "stream": True},
    "timed out": {"model": "openai/hang", "deadlines": {"total_ms": 50}},
    "timed out in the stream": {"model": "openai/hang-after-2", "stream": True, "deadlines": {"total_ms": 100}},
    "invalid params": {"model": "openai/gpt-4o-mini", "nonsense": 1},
    "unknown model": {"model": "nobody/nothing"},
}
# Each is cancelled at once, when its headers have arrived, or within its stream.
CANCELLED: dict[str, dict[str, Any]] = {
    "cancelled at once": {"model": "openai/hang"},
    "cancelled after the headers": {"model": "openai/hang-after-headers"},
    "cancelled in the stream": {"model": "openai/endless", "stream": True},
}
RELOADS = "refused reloads"
_BROKEN = "model_list: 5\n"


class Sample(NamedTuple):
    descriptors: int
    threads: int
    connections: int  # that the provider sees
    in_flight: int
    kib: int


class Row(NamedTuple):
    kind: str
    count: int
    before: Sample
    after: Sample

    def left(self) -> dict[str, int]:
        """What there is more of than before; memory is judged over all kinds, and the executor makes threads up to its bound."""
        allowed = self.before._replace(threads=max(self.before.threads, _THREADS), kib=self.after.kib)
        pairs = zip(Sample._fields, allowed, self.after, strict=True)
        return {name: after - before for name, before, after in pairs if after > before}


@contextlib.contextmanager
def worker_and_upstream() -> Iterator[tuple[Worker, Upstream, Path]]:
    with Upstream() as upstream, tempfile.TemporaryDirectory() as folder:
        models = [
            {"model_name": "openai/*", "litellm_params": {"model": "openai/*", "api_base": upstream.base_url, "api_key": "sk-x"}}
        ]
        settings = {"disable_cooldowns": True, "num_retries": 0}
        config = write(Path(folder, "gateway.yaml"), {"model_list": models, "router_settings": settings})
        with Worker(f"--config={config}", env={"MALLOC_ARENA_MAX": "2"}) as worker:
            yield worker, upstream, config


def leaks(worker: Worker, upstream: Upstream, config: Path, count: int, only: str = "") -> Iterator[Row]:
    """A row for each kind that has ``only`` in its name. A first wave of all kinds loads what they need, and one before each row
    opens what is kept."""
    for kind, params in (FAILING | CANCELLED).items():
        _chats(worker, upstream, params, WAVE, cancelled=kind in CANCELLED)
    wait_until(_is_flat(worker), "the worker has loaded in the background what only some providers need", 30)
    for kind, params in (FAILING | CANCELLED).items():
        if only not in kind:
            continue
        cancelled = kind in CANCELLED
        _chats(worker, upstream, params, WAVE, cancelled=cancelled)
        before = sample(worker, upstream)
        _chats(worker, upstream, params, count, cancelled=cancelled)
        yield Row(kind, count, before, _settled(worker, upstream, before))
    if only not in RELOADS:
        return
    config.write_text(_BROKEN, encoding="utf-8")
    _reloads(worker, 2)
    before = sample(worker, upstream)
    _reloads(worker, count)
    yield Row(RELOADS, count, before, _settled(worker, upstream, before))


def _is_flat(worker: Worker) -> Callable[[], bool]:
    """Whether it has used no processor time since the last five calls."""
    used: list[int] = []

    def is_flat() -> bool:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a process or thread has just ended: no sample
            threads = [thread for pid in processes(worker) for thread in Path(f"/proc/{pid}/task").iterdir()]
            used.append(sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads))
        return len(used) > 5 and used[-1] == used[-6]

    return is_flat


def sample(worker: Worker, upstream: Upstream) -> Sample:
    """Of all processes of the worker."""
    in_flight = worker.call("status")["result"]["requests"]["in_flight"] - 1
    held = resources(worker)
    return Sample(held.descriptors, held.threads, upstream.connections, in_flight, held.kib)


def _settled(worker: Worker, upstream: Upstream, before: Sample) -> Sample:
    """The worker as it is once connections have closed, or after a bound."""
    with contextlib.suppress(AssertionError):  # the row has what is left
        wait_until(lambda: not Row("", 0, before, sample(worker, upstream)).left(), "as before", 5)
    return sample(worker, upstream)


def _chats(worker: Worker, upstream: Upstream, params: dict[str, Any], count: int, *, cancelled: bool) -> None:
    for _ in range(0, count, WAVE):
        worker.received.clear()
        reached = upstream.counts["hang-after-headers"] + WAVE
        ids = [worker.request("chat", params | {"messages": HELLO}) for _ in range(WAVE)]
        if cancelled:
            _wait_for_stage(worker, upstream, params, ids, reached)
            for id in ids:
                worker.notify("notifications/cancelled", {"requestId": id})
        for id in ids:
            assert "error" in worker.response(id), "a chat of this kind must fail"


def _wait_for_stage(worker: Worker, upstream: Upstream, params: dict[str, Any], ids: list[Any], reached: int) -> None:
    if params.get("stream"):
        for id in ids:
            worker.wait_for_delta(id)
    elif params["model"].endswith("headers"):
        upstream.wait_until(lambda: upstream.counts["hang-after-headers"] >= reached, 30)


def _reloads(worker: Worker, count: int) -> None:
    for _ in range(count):
        worker.received.clear()
        assert "error" in worker.call("config/reload")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--chats", type=int, default=500, help="of each kind")
    parser.add_argument("--only", default="", metavar="TEXT", help="kinds with this in their name")
    options = parser.parse_args()
    failed = 0
    with worker_and_upstream() as parts:
        for row in leaks(*parts, options.chats, options.only):
            failed += bool(row.left())
            slope = (row.after.kib - row.before.kib) / row.count
            print(f"{row.kind:28} {row.count:6} {slope:+8.3f} KiB each; left: {row.left() or 'nothing'}; {row.after}", flush=True)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
