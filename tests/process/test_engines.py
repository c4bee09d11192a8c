"""A worker with engine processes: what it does when one of its processes is killed, stopped or grows."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import pytest

from benchmarks import losses
from bridge_worker.system.child_processes import processor_times
from bridge_worker.system.engine_starts import TEST_VARIABLE
from tests.conftest import Spawn
from tests.support.data import HELLO, Json
from tests.support.gateway_config import deployment, write
from tests.support.processes import children, descendants
from tests.support.upstream import Upstream
from tests.support.upstream_format import embeddings
from tests.support.worker import COMMAND, Worker, run, wait_until, wait_until_loaded

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="engine processes need Linux")


HANG_SECONDS = "3"  # a busy machine must not look like a hung engine


def engines(worker: Worker, state: str = "ready") -> list[int]:
    """Process ids of the engines in that state."""
    rows = worker.call("status")["result"]["engines"]
    return [row["pid"] for row in rows if row["state"] == state]


def wait_for_engines(worker: Worker, count: int) -> list[int]:
    wait_until(lambda: len(engines(worker)) == count, f"{count} engines are ready", seconds=180)
    return engines(worker)


def others(worker: Worker) -> set[int]:
    """Its processes that are not engines, nor their children."""
    rows = worker.call("status")["result"]["engines"]
    return children(worker.process.pid) - {row["pid"] for row in rows}


def template(worker: Worker) -> int:
    (pid,) = others(worker)
    return pid


def time_used(pid: int) -> float:
    """Seconds of processor time."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def is_gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"


def error_of(response: Json) -> Json:
    assert "error" in response, response
    data: Json = response["error"]["data"]
    return data


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def workers(upstream: Upstream) -> Iterator[Callable[..., Worker]]:
    """Workers by their flags, each started once: what a test does to an engine is over when its successor is ready."""
    with ExitStack() as stack:

        @cache
        def start(*flags: str) -> Worker:
            env = {"OPENAI_API_KEY": "sk-secret-123", "OPENAI_BASE_URL": upstream.base_url}
            return stack.enter_context(Worker("--engine-hang-seconds", HANG_SECONDS, "--engines", *flags, env=env))

        def ready(*flags: str) -> Worker:
            worker = start(*flags)
            wait_for_engines(worker, int(flags[0]))
            return worker

        yield ready


@pytest.fixture
def one(workers: Callable[..., Worker]) -> Worker:
    """A worker with one engine, which is ready."""
    return workers("1")


@pytest.fixture
def two(workers: Callable[..., Worker]) -> Worker:
    return workers("2", *losses.BUDGETS)


@pytest.fixture
def own(upstream: Upstream, spawn: Spawn) -> Callable[..., Worker]:
    """Starts a worker that a test may end."""

    def start(count: int, *flags: str) -> Worker:
        env = {"OPENAI_API_KEY": "sk-secret-123", "OPENAI_BASE_URL": upstream.base_url}
        worker = spawn("--engines", str(count), *flags, env=env)
        wait_for_engines(worker, count)
        return worker

    return start


def start_stream(worker: Worker, model: str = "openai/hang-after-1") -> int | str:
    id = worker.request("chat", {"model": model, "messages": [{"role": "user", "content": "hello"}], "stream": True})
    worker.wait_for_delta(id)
    return id


def start_chat(worker: Worker, upstream: Upstream) -> int | str:
    """A chat that has reached the provider, which does not respond."""
    return start_hanging(worker, upstream, {})


def start_hanging(worker: Worker, upstream: Upstream, params: Json) -> int | str:
    before = upstream.counts["hang"]
    messages = [{"role": "user", "content": "hello"}]
    id = worker.request("chat", {"model": "openai/hang", "messages": messages, **params})
    upstream.wait_for_request(model="hang", nth=before + 1, timeout=60)
    return id


# --- serving -----------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("ENG-1", "LIF-2", "OFF-1")
def test_initialize_and_offline_chats_do_not_wait_for_litellm(spawn: Spawn) -> None:
    worker = spawn("--engines", "1", command=COMMAND)
    result = worker.call("initialize", {"protocolVersion": "omni-bridge/1"})["result"]
    assert result["engine"] == {"name": "litellm", "version": None, "ready": False}
    assert worker.chat("offline/echo", "at once")["content"] == "at once"
    assert worker.call("ping")["result"] == {}
    ready = worker.wait_for(lambda message: isinstance(message, dict) and message.get("method") == "notifications/ready")
    assert isinstance(ready, dict)
    assert ready["params"]["engine"]["ready"] is True
    assert ready["params"]["warmMs"] > 0


@pytest.mark.rule("LIF-9")
def test_a_chat_that_arrives_before_litellm_is_loaded_waits_for_an_engine_that_has_it(upstream: Upstream, spawn: Spawn) -> None:
    env = {"OPENAI_API_KEY": "sk-secret-123", "OPENAI_BASE_URL": upstream.base_url}
    worker = spawn("--engines", "1", env=env, command=COMMAND)
    assert worker.chat("openai/gpt-4o")["content"]
    wait_until(lambda: len(descendants(worker.process.pid)) == 2, "the engine of the start has ended, and another one has LiteLLM")


def test_the_engine_of_the_start_ends_once_another_has_litellm(one: Worker) -> None:
    wait_until(lambda: len(descendants(one.process.pid)) == 2, "the template and one engine are left")


def test_chats_plain_and_streamed_and_their_order(one: Worker) -> None:
    assert one.chat("openai/gpt-4o", "hello")["content"]
    id = one.request("chat", {"model": "openai/gpt-4o", "messages": [{"role": "user", "content": "hello"}], "stream": True})
    content = one.response(id)["result"]["content"]
    deltas = one.deltas(id)
    assert [delta["seq"] for delta in deltas] == list(range(len(deltas)))
    assert "".join(delta["delta"].get("content", "") for delta in deltas) == content
    assert one.received.index(one.response(id)) == len(one.received) - 1


def test_a_batch_gets_one_array(one: Worker) -> None:
    one.send(
        [{"jsonrpc": "2.0", "id": "a", "method": "ping"}, chat_message("b", "offline/echo"), chat_message("c", "offline/echo")]
    )
    batch = one.wait_for(lambda message: isinstance(message, list))
    assert sorted(member["id"] for member in batch) == ["a", "b", "c"]


def chat_message(id: str, model: str) -> Json:
    params = {"model": model, "messages": [{"role": "user", "content": "hello"}]}
    return {"jsonrpc": "2.0", "id": id, "method": "chat", "params": params}


@pytest.mark.rule("STA-9")
def test_status_lists_the_engines_and_counts_all_requests(two: Worker) -> None:
    before = two.call("status")["result"]
    for _ in range(4):
        two.chat("openai/gpt-4o")
    wait_until(lambda: all(row["rss_mib"] for row in two.call("status")["result"]["engines"]), "the engines have reported")
    status = two.call("status")["result"]
    assert [row["state"] for row in status["engines"]] == ["ready", "ready"]
    assert sum(row["requests"] for row in status["engines"]) == sum(row["requests"] for row in before["engines"]) + 4
    assert status["requests"]["outcomes"]["ok"] >= 5
    assert sum(status["requests"]["engines"].values()) == sum(before["requests"]["engines"].values()) + 4
    assert status["requests"]["in_flight"] == 1


def test_the_least_busy_engine_gets_the_next_request(two: Worker, upstream: Upstream) -> None:
    ids = [start_chat(two, upstream) for _ in range(4)]
    rows = two.call("status")["result"]["engines"]
    assert [row["in_flight"] for row in rows] == [2, 2]
    for id in ids:
        two.notify("notifications/cancelled", {"requestId": id})
        assert error_of(two.response(id))["upstream_closed"] is True


def test_a_worker_of_one_process_has_no_engines(own: Callable[..., Worker]) -> None:
    worker = own(0)
    assert worker.call("status")["result"]["engines"] == []
    assert descendants(worker.process.pid) == set()


def test_a_process_that_waits_for_a_processor_is_known_from_one_that_hangs() -> None:
    """A busy machine must not look like a hung engine."""
    processor = {min(os.sched_getaffinity(0))}
    loop = f"import os; os.sched_setaffinity(0, {processor}); print(flush=True)\nwhile True: pass"
    with ExitStack() as stack:
        busy = [stack.enter_context(Popen([sys.executable, "-c", loop], stdout=PIPE)) for _ in range(2)]
        for process in busy:
            stack.callback(process.kill)
        wait_until(lambda: all(processor_times(process.pid)[1] > 0.2 for process in busy), "each waits for the other")
        os.kill(busy[0].pid, signal.SIGSTOP)
        wait_until(lambda: Path(f"/proc/{busy[0].pid}/stat").read_text().rpartition(")")[2].split()[0] == "T", "it is stopped")
        before, other = processor_times(busy[0].pid), time_used(busy[1].pid)
        wait_until(lambda: time_used(busy[1].pid) > other + 0.1, "the other one continues")
        assert processor_times(busy[0].pid) == before


@pytest.mark.parametrize("value", ["-1", "many", "65", "1.5"])
def test_a_wrong_number_of_engines_is_an_error(value: str) -> None:
    code, out, err = run("--stdio", "--engines", value)
    assert (code, out) == (2, "")
    assert "--engines" in err
    assert "auto" in err


# --- losing an engine --------------------------------------------------------------------------------------------------------


@pytest.mark.rule("ENG-2", "ENG-3", "ERR-9")
def test_a_killed_engines_requests_get_engine_lost_and_the_next_chat_works(one: Worker, upstream: Upstream) -> None:
    chat, stream = start_chat(one, upstream), start_stream(one)
    (pid,) = engines(one)
    os.kill(pid, signal.SIGKILL)
    data = error_of(one.response(chat))
    assert one.response(chat)["error"]["code"] == 1015
    assert (data["kind"], data["retryable"], data["sent_upstream"]) == ("engine_lost", True, True)
    assert data["partial"] == {"content": None, "tool_calls": []}
    streamed = error_of(one.response(stream))
    assert (streamed["retryable"], streamed["sent_upstream"]) == (False, True)
    assert streamed["partial"]["content"] == "".join(delta["delta"]["content"] for delta in one.deltas(stream))
    assert one.chat("openai/gpt-4o")["content"]
    assert engines(one) != [pid]
    outcomes = one.call("status")["result"]["requests"]["outcomes"]
    assert outcomes["engine_lost"] >= 2


@pytest.mark.rule("ENG-2")
def test_the_other_engines_requests_continue(two: Worker, upstream: Upstream) -> None:
    first, second = start_chat(two, upstream), start_chat(two, upstream)
    victim, other = engines(two)
    os.kill(victim, signal.SIGKILL)
    lost = two.wait_for(lambda message: isinstance(message, dict) and message.get("id") in (first, second))
    assert isinstance(lost, dict)
    assert error_of(lost)["kind"] == "engine_lost"
    (remaining,) = {first, second} - {lost["id"]}
    assert other in engines(two)
    two.notify("notifications/cancelled", {"requestId": remaining})
    assert error_of(two.response(remaining))["kind"] == "cancelled"


@pytest.mark.rule("ENG-4", "CAN-1")
def test_a_cancel_that_meets_the_end_of_its_engine_is_still_a_cancel(one: Worker) -> None:
    stream = start_stream(one)
    (pid,) = engines(one)
    os.kill(pid, signal.SIGSTOP)
    one.notify("notifications/cancelled", {"requestId": stream})
    one.call("ping")  # the cancel was read before it
    os.kill(pid, signal.SIGKILL)
    data = error_of(one.response(stream))
    assert (data["kind"], data["upstream_closed"]) == ("cancelled", True)
    assert data["partial"]["content"]


@pytest.mark.rule("ENG-1")
def test_while_its_engine_is_stopped_a_cancel_gets_its_response_within_two_seconds(one: Worker) -> None:
    stream = start_stream(one)
    (pid,) = engines(one)
    os.kill(pid, signal.SIGSTOP)
    one.notify("notifications/cancelled", {"requestId": stream})
    data = error_of(one.response(stream))
    assert data["kind"] == "cancelled"


@pytest.mark.rule("ENG-5", "ENG-2", "ENG-1")
def test_a_hung_engine_is_killed_and_its_requests_get_engine_lost(one: Worker, upstream: Upstream) -> None:
    worker = one
    chat = start_chat(worker, upstream)
    (pid,) = engines(worker)
    os.kill(pid, signal.SIGSTOP)
    assert worker.call("ping")["result"] == {}
    assert worker.call("status")["result"]["engines"]
    data = error_of(worker.response(chat))
    assert (data["kind"], data["sent_upstream"]) == ("engine_lost", True)
    wait_until(lambda: is_gone(pid), "the hung engine is killed")
    assert worker.chat("openai/gpt-4o")["content"]
    assert "hangs" in worker.stderr


def test_a_request_that_a_dead_engine_never_read_is_run_by_another(one: Worker, upstream: Upstream) -> None:
    worker = one
    lost = lost_of(worker)
    (pid,) = engines(worker)
    os.kill(pid, signal.SIGSTOP)  # it reads nothing from here on
    assert worker.chat("openai/gpt-4o")["content"]
    assert lost_of(worker) == lost


@pytest.mark.rule("ENG-1")
def test_a_deadline_passes_also_while_its_engine_is_stopped(one: Worker, upstream: Upstream) -> None:
    (pid,) = engines(one)
    id = start_hanging(one, upstream, {"deadlines": {"total_ms": 500}})
    os.kill(pid, signal.SIGSTOP)
    data = error_of(one.response(id))
    assert (data["kind"], data["deadline"]) == ("timeout", "total_ms")
    os.kill(pid, signal.SIGCONT)


def test_a_segmentation_fault_is_reported_with_its_signal(one: Worker) -> None:
    (pid,) = engines(one)
    os.kill(pid, signal.SIGSEGV)
    wait_until(lambda: "SIGSEGV" in one.stderr, "the log names the signal")
    assert one.chat("openai/gpt-4o")["content"]


# --- the template process ----------------------------------------------------------------------------------------------------


def test_engines_outlive_the_template_and_another_one_is_started(one: Worker, upstream: Upstream) -> None:
    pid, (engine,) = template(one), engines(one)
    stream = start_stream(one)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: is_gone(pid), "the template is gone")
    assert one.chat("openai/gpt-4o")["content"]
    assert engines(one) == [engine]
    one.notify("notifications/cancelled", {"requestId": stream})
    assert error_of(one.response(stream))["kind"] == "cancelled"
    wait_until(lambda: len(children(one.process.pid)) == 2, "another template has been started")
    os.kill(engine, signal.SIGKILL)
    assert one.chat("openai/gpt-4o")["content"]  # by an engine of the new template


def test_a_template_that_is_stopped_is_replaced_when_it_is_needed(one: Worker, upstream: Upstream) -> None:
    worker = one
    pid, (engine,) = template(worker), engines(worker)
    os.kill(pid, signal.SIGSTOP)
    os.kill(engine, signal.SIGKILL)
    assert worker.chat("openai/gpt-4o")["content"]
    assert is_gone(pid)


# --- the self-test, in a separate process --------------------------------------------------------------------------------------


def rehearsing(worker: Worker) -> set[int]:
    """Process ids; the template has no other child for more than a moment."""
    return {pid for pid in children(template(worker)) if not is_gone(pid)}


@pytest.fixture
def rehearses(own: Callable[..., Worker]) -> tuple[Worker, int]:
    """A worker whose self-test is stopped, and that process."""
    worker = own(1)
    (engine,) = wait_for_engines(worker, 1)
    wait_until(lambda: bool(rehearsing(worker)), "the template rehearses")
    (pid,) = rehearsing(worker)
    os.kill(pid, signal.SIGSTOP)
    assert engines(worker) == [engine]
    return worker, pid


@pytest.mark.rule("STA-5")
def test_a_self_test_that_ends_early_is_reported_and_chats_do_not_depend_on_it(rehearses: tuple[Worker, int]) -> None:
    worker, pid = rehearses
    assert worker.call("status")["result"]["degraded"] is None
    os.kill(pid, signal.SIGKILL)
    wait_until_loaded(worker)
    (row,) = worker.call("status")["result"]["degraded"]
    assert (row["part"], row["reason"]) == ("self-test", "its process ended with -9")
    assert worker.chat("openai/gpt-4o")["content"]
    assert is_gone(pid)


def test_the_template_forks_engines_during_the_self_test_and_the_end_does_not_wait_for_it(rehearses: tuple[Worker, int]) -> None:
    worker, pid = rehearses
    (engine,) = engines(worker)
    os.kill(engine, signal.SIGKILL)
    assert worker.chat("openai/gpt-4o")["content"]
    worker.end_input()
    assert worker.exit_code() == 0
    wait_until(lambda: is_gone(pid), "the self-test has ended with its template")


def test_an_engine_loads_what_embeddings_need_when_one_is_requested(spawn: Spawn, upstream: Upstream) -> None:
    upstream.script("vectors", body=embeddings([1.0, 2.0]))
    env = {"OPENAI_API_KEY": "sk-secret-123", "OPENAI_BASE_URL": upstream.base_url}
    worker = spawn(command=COMMAND, env=env)  # not forked from a process that has loaded it
    wait_until_loaded(worker)
    (engine,) = engines(worker)
    before = resident_bytes(engine)
    assert worker.call("embed", {"model": "openai/vectors", "input": "hello"})["result"]["embeddings"] == [[1.0, 2.0]]
    assert resident_bytes(engine) - before > 2**20 * 10
    wait_until(lambda: not rehearsing(worker), "no process is left of the self-test")


# --- growing -----------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("ENG-6")
def test_an_engine_is_replaced_after_so_many_requests_and_none_fails(own: Callable[..., Worker]) -> None:
    worker = own(1, "--engine-max-requests", "10")
    (first,) = engines(worker)
    stream = start_stream(worker)
    for _ in range(40):
        assert worker.chat("offline/echo")["content"] == "hello"
    wait_until(lambda: first not in engines(worker), "it is replaced")
    assert engines(worker, "draining") == [first]  # it has the stream
    worker.notify("notifications/cancelled", {"requestId": stream})
    assert error_of(worker.response(stream))["kind"] == "cancelled"
    wait_until(lambda: is_gone(first), "it ends once it has no request")
    assert worker.call("status")["result"]["requests"]["outcomes"].keys() <= {"ok", "cancelled"}


@pytest.mark.rule("ENG-6")
def test_an_engine_is_replaced_when_it_has_too_much_memory(own: Callable[..., Worker]) -> None:
    worker = own(1, "--engine-max-mib", "1")
    (first,) = engines(worker)
    wait_until(lambda: is_gone(first), "it is replaced")
    assert worker.chat("openai/gpt-4o")["content"]
    assert "MiB once it is loaded; raise --engine-max-mib" in worker.stderr  # so the next one is replaced too, and so on


# --- the end -----------------------------------------------------------------------------------------------------------------


def end_of_input(worker: Worker) -> None:
    worker.end_input()


def terminate(worker: Worker) -> None:
    worker.process.send_signal(signal.SIGTERM)


def kill(worker: Worker) -> None:
    worker.process.kill()


@pytest.mark.rule("ENG-7")
@pytest.mark.parametrize("stopped", [False, True], ids=["running", "stopped"])
@pytest.mark.parametrize("end", [end_of_input, terminate, kill])
def test_no_process_is_left_whatever_ended_the_worker(
    own: Callable[..., Worker], end: Callable[[Worker], Any], stopped: bool
) -> None:
    two = own(2)
    pids = descendants(two.process.pid)
    assert len(pids) >= 3
    if stopped:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
    end(two)
    two.process.wait(30)
    wait_until(lambda: all(map(is_gone, pids)), "all processes have ended")


def test_the_end_of_input_waits_for_requests_in_flight(own: Callable[..., Worker]) -> None:
    one = own(1)
    id = one.request("chat", {"model": "openai/slow", "messages": [{"role": "user", "content": "hello"}]})
    one.end_input()
    assert one.exit_code() == 0
    assert one.response(id)["id"] == id


def test_no_descriptor_and_no_zombie_is_left_after_many_losses(one: Worker) -> None:
    def descriptors() -> int:
        return len(os.listdir(f"/proc/{one.process.pid}/fd"))

    wait_until(lambda: len(descendants(one.process.pid)) == 2, "the early engine has ended")
    before = descriptors()
    for _ in range(10):
        (pid,) = wait_for_engines(one, 1)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda pid=pid: not Path(f"/proc/{pid}").exists(), "it is reaped")  # type: ignore[misc]
    wait_for_engines(one, 1)
    wait_until(lambda: descriptors() == before, "no descriptor is left")


def lost_of(worker: Worker) -> int:
    """Requests that the worker counts as lost with their engine."""
    count: int = worker.call("status")["result"]["requests"]["outcomes"].get("engine_lost", 0)
    return count


# --- an account that comes out even ------------------------------------------------------------------------------------------


@pytest.mark.rule("INV-2")
def test_the_account_of_chats_and_money_is_even_while_engines_are_killed_at_random(two: Worker, upstream: Upstream) -> None:
    """benchmarks/losses.py does the same with 10,000 chats."""
    account = losses.run(two, upstream, chats=300, seed=1)
    assert account.outcomes.total() == 300
    assert account.kills


# --- models of this machine --------------------------------------------------------------------------------------------------


@pytest.mark.rule("ENG-11")
def test_a_local_model_is_in_memory_once_for_all_engines(two: Worker) -> None:
    params = {"model": "local/smollm2", "messages": [{"role": "user", "content": "Say hi."}], "max_tokens": 2}
    for id in [two.request("chat", params) for _ in range(3)]:
        assert "result" in two.response(id), two.response(id)
    children = descendants(two.process.pid)
    (llama,) = [pid for pid in children if "llama_server" in Path(f"/proc/{pid}/cmdline").read_text()]
    parent = int(Path(f"/proc/{llama}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(parent, signal.SIGKILL)
    wait_until(lambda: is_gone(llama), "it ends with its engine")
    wait_for_engines(two, 2)


# --- budgets -----------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("ENG-8", "BUD-1")
def test_a_budget_is_one_for_all_engines(own: Callable[..., Worker], upstream: Upstream) -> None:
    worker = own(2, "--budgets", '[{"path": "team", "max_tokens": 100000}]')
    for _ in range(4):
        worker.chat("openai/gpt-4o", metadata={"budget": "team"}, max_tokens=10)
    (row,) = worker.call("budgets/get", {"path": "team"})["result"]["budgets"]
    used = row["used_tokens"]
    assert used > 0
    assert row["reserved_tokens"] == 0
    id = start_hanging(worker, upstream, {"max_tokens": 1000, "metadata": {"budget": "team"}})
    (row,) = worker.call("budgets/get", {"path": "team"})["result"]["budgets"]
    reserved = row["reserved_tokens"]
    assert reserved > 1000
    for pid in engines(worker):
        os.kill(pid, signal.SIGKILL)
    assert error_of(worker.response(id))["kind"] == "engine_lost"
    (row,) = worker.call("budgets/get", {"path": "team"})["result"]["budgets"]
    assert (row["used_tokens"], row["reserved_tokens"]) == (used + reserved, 0)


# --- where forking is not safe -------------------------------------------------------------------------------------------------


@pytest.mark.rule("ENG-2", "ENG-7", "ENG-9")
def test_engines_that_are_spawned_serve_are_replaced_reload_and_end(upstream: Upstream, spawn: Spawn, tmp_path: Path) -> None:
    """As on macOS."""
    file = write(tmp_path / "gateway.yaml", {"model_list": [deployment(upstream, "first", "one")]})
    worker = spawn("--config", str(file), env={TEST_VARIABLE: "spawn"})
    assert worker.chat("offline/echo")["content"] == "hello"
    assert worker.chat("first")["content"]
    (engine,) = wait_for_engines(worker, 1)
    assert others(worker) == set(), "there is no template"
    stream = worker.request("chat", {"model": "first", "messages": HELLO, "stream": True})
    os.kill(engine, signal.SIGKILL)
    response = worker.response(stream)
    assert "result" in response or response["error"]["data"]["kind"] == "engine_lost"
    assert worker.chat("first")["content"]
    write(file, {"model_list": [deployment(upstream, "second", "one")]})
    assert worker.call("config/reload")["result"]["added"] == ["second"]
    assert worker.chat("second")["content"]
    processes = descendants(worker.process.pid)
    worker.process.kill()
    wait_until(lambda: all(map(is_gone, processes)), "no engine is left")


def test_a_fault_in_a_long_string_is_found_by_the_engine(two: Worker) -> None:
    """The server process reads an outline of the line."""
    request = {"jsonrpc": "2.0", "id": "long", "method": "chat", "params": {"model": "openai/one", "messages": []}}
    for number, fault in enumerate((b"\\x", b"\xff", b"\x01"), start=1):
        text = b"x" * (2 << 20) + fault
        two.write(
            json.dumps({**request, "id": number}).encode().replace(b"[]", b'[{"role":"user","content":"' + text + b'"}]') + b"\n"
        )

        def unreadable() -> list[Json]:
            return [message for message in two.received if isinstance(message, dict) and message.get("id", 0) is None]

        wait_until(lambda number=number: len(unreadable()) == number, "the line has a response")  # type: ignore[misc]
        assert error_of(unreadable()[-1])["kind"] == "parse_error"
    assert [row["in_flight"] for row in two.call("status")["result"]["engines"]] == [0, 0]


def test_requests_go_to_the_engine_without_a_long_one(two: Worker) -> None:
    texts = ["x" * (1 << 20), "hello", "hello", "hello"]
    chats = [two.request("chat", {"model": "openai/hang", "messages": [{"role": "user", "content": text}]}) for text in texts]

    def in_flight() -> list[int]:
        return sorted(row["in_flight"] for row in two.call("status")["result"]["engines"])

    wait_until(lambda: in_flight() == [1, 3], "the engine with the long chat gets no other")
    for chat in chats:
        two.notify("notifications/cancelled", {"requestId": chat})
        two.response(chat)


def test_the_memory_of_a_worker_is_that_of_all_its_processes(one: Worker) -> None:
    result = one.call("status")["result"]
    of_engines = sum(row["rss_mib"] for row in result["engines"]) * 2**20
    by_system = sum(resident_bytes(pid) for pid in (one.process.pid, template(one)))
    assert abs(result["memory_bytes"] - of_engines - by_system) < by_system / 10
