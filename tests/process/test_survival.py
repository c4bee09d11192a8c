"""What test_process.py leaves open of life and death: signals nobody thinks of, forks, clocks that jump, threads that end."""

from __future__ import annotations

import ast
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import bridge_worker
import tests.support.worker
from tests.conftest import Spawn
from tests.support.processes import HOLD_LITELLM, chat, descendants, kind, script
from tests.support.upstream import Upstream
from tests.support.worker import WAIT_SECONDS, Worker, wait_until

# The model forks, as a library may, and its child lives on with whatever descriptors it has been left.
FORK = """
import os, time
from bridge_worker.core.deltas import Delta, End
from bridge_worker.core.ports import Facts
from bridge_worker.backends.offline.chat import Offline

async def chat(self, request):
    child = os.fork()
    if not child:
        for fd in range(3, 64):  # what a careless library might write to, having found it open
            try:
                os.write(fd, b"NOT A MESSAGE")
            except OSError:
                pass
        os.closerange(0, 3)  # stderr is everybody's
        time.sleep(3600)
        os._exit(0)
    yield [Delta(content=str(child))]
    yield Facts(End("stop", "stop"))

Offline.chat = chat
from bridge_worker.cli.main import main
main()
"""

# The wall clock goes back and forth by a day, with every look at it.
JUMPING_CLOCK = """
import itertools, time
clock, jumps = time.time, itertools.cycle([86_400, -86_400, 0, 3_600 * 24 * 365])
time.time = lambda: clock() + next(jumps)
from bridge_worker.cli.main import main
main()
"""

IMPATIENT = HOLD_LITELLM.replace(
    "from bridge_worker.cli.main", "import bridge_worker.engines.pool as e; e.START_SECONDS = 5\nfrom bridge_worker.cli.main"
)


@pytest.fixture
def spawn_script(spawn: Spawn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Worker]:
    def start(text: str, *flags: str, **options: Any) -> Worker:
        monkeypatch.setattr(tests.support.worker, "COMMAND", script(tmp_path / "started.py", text))
        return spawn(*flags, **options)

    return start


@pytest.mark.rule("RPC-1")
@pytest.mark.parametrize("name", ["SIGPIPE", "SIGCHLD", "SIGWINCH", "SIGURG"])
def test_a_signal_that_means_nothing_here_changes_nothing(spawn: Spawn, name: str) -> None:
    worker = spawn()
    worker.call("ping")
    worker.process.send_signal(getattr(signal, name))
    assert worker.chat("offline/echo")["content"] == "hello"


@pytest.mark.rule("EXT-3")
def test_the_end_of_the_thread_that_started_it_is_not_the_end_of_its_parent() -> None:
    """PR_SET_PDEATHSIG would be sent now."""
    started: list[Worker] = []
    thread = threading.Thread(target=lambda: started.append(Worker()))
    thread.start()
    thread.join()
    (worker,) = started
    with worker:
        assert worker.call("ping")["result"] == {}
        assert worker.chat("offline/echo")["content"] == "hello"
        worker.end_input()
        assert worker.exit_code() == 0


@pytest.mark.rule("SEC-4", "EXT-1")
@pytest.mark.parametrize("engines", [0, 1])
def test_a_forked_child_holds_no_pipe_and_can_write_to_none(spawn_script: Callable[..., Worker], engines: int) -> None:
    """Else the agent would wait for the end of output for as long as the child lives. An engine's child ends with the worker."""
    worker = spawn_script(FORK, f"--engines={engines}")
    children = [int(worker.chat("offline/echo")["content"]) for _ in range(2)]
    try:
        worker.end_input()
        assert worker.exit_code() == 0
        assert worker.ended, "the output is still open, in a child"
        for child in children:
            if engines:
                wait_until(lambda pid=child: not Path(f"/proc/{pid}").exists(), "the child has ended")
            else:
                os.kill(child, 0)  # which lives
    finally:
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)


@pytest.mark.rule("DLN-1")
def test_a_wall_clock_that_jumps_ends_no_chat_and_spares_none(spawn_script: Callable[..., Worker], upstream: Upstream) -> None:
    worker = spawn_script(JUMPING_CLOCK, env={"OPENAI_API_KEY": "sk-secret-123", "OPENAI_BASE_URL": upstream.base_url})
    patient = {"deadlines": {"total_ms": 60_000, "first_token_ms": 50_000, "idle_ms": 50_000}}
    for stream in (False, True):
        result = worker.chat("openai/slow-5ms", stream=stream, **patient)
        assert 0 <= result["timing"]["queued_ms"] <= result["timing"]["total_ms"] < WAIT_SECONDS * 1000
        error = worker.response(chat(worker, "openai/hang-after-2", stream=stream, deadlines={"total_ms": 300}))["error"]
        assert (error["data"]["kind"], error["data"]["deadline"]) == ("timeout", "total_ms")
    worker.end_input()
    assert worker.exit_code() == 0


def test_no_deadline_looks_at_the_wall_clock() -> None:
    """These may: the log, a trace, a cassette and a span, which have the time of an event; the minute of rpm and tpm, which all
    workers share; results that a file keeps beyond this process; and what reads a date that a provider sent."""
    events = {"log.py", "recorder.py", "journal.py", "otlp.py", "gate.py", "capture.py"}
    allowed = {*events, "retry_after.py", "rate_limits.py", "usage_counts.py", "once_journal.py"}
    package = Path(bridge_worker.__file__).parent
    wall = {"time", "time_ns", "localtime", "ctime", "now", "utcnow", "today"}
    for path in package.rglob("*.py"):
        calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        named = {(f.value.id, f.attr) for f in calls if isinstance(f, ast.Attribute) and isinstance(f.value, ast.Name)}
        used = {f"{module}.{name}" for module, name in named if module in ("time", "datetime", "date") and name in wall}
        assert not used or path.name in allowed, f"{path.name} uses {used}; durations are time.monotonic()'s"


@pytest.mark.rule("LIF-2", "ERR-10")
def test_an_import_that_never_ends_is_an_error_of_each_chat_and_of_nothing_else(
    spawn_script: Callable[..., Worker], tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "fifo")
    worker = spawn_script(IMPATIENT, env={"TEST_FIFO": str(tmp_path / "fifo")})
    for _ in range(2):
        error = worker.response(chat(worker))
        assert kind(error) == "internal"
        assert "LiteLLM is not loaded after" in error["error"]["message"]
        assert worker.call("ping")["result"] == {}
        assert worker.chat("offline/echo")["content"] == "hello"
    worker.end_input()
    assert worker.exit_code() == 0


@pytest.mark.rule("EXT-3")
def test_it_leaves_neither_zombie_nor_orphan_when_it_is_killed_itself(upstream: Upstream, spawn: Spawn) -> None:
    worker = spawn(env={"OPENAI_API_KEY": "sk-secret-123", "OPENAI_BASE_URL": upstream.base_url})
    ids = [chat(worker, "openai/hang-after-1", stream=True) for _ in range(3)]
    for id in ids:
        worker.wait_for_delta(id)
    processes = descendants(worker.process.pid)
    worker.process.kill()
    assert worker.exit_code() == -signal.SIGKILL
    upstream.wait_until(lambda: upstream.connections == 0, WAIT_SECONDS)
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in processes), "its processes have ended")
    assert worker.received, "each line was whole, or reading it would have failed"
