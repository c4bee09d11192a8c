"""The real process: how it starts, how it ends, and what its surroundings may do to it.

Most of it needs no LiteLLM; there its import is held up (`Held`), which also is how a request stays in flight without a provider.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

import tests.support.worker
from bridge_worker.version import __version__
from tests.conftest import Spawn
from tests.support.data import HELLO_ASCII as HELLO
from tests.support.processes import HOLD_LITELLM, chat, descendants, kind, line, script
from tests.support.upstream import Gate, Upstream, reply_text
from tests.support.worker import COMMAND, WAIT_SECONDS, Worker, clean_environment, run, wait_until, wait_until_loaded

INITIALIZE = {"protocolVersion": "omni-bridge/1", "clientInfo": {"name": "test", "version": "1"}, "capabilities": {}}

# Has a chat with offline/echo call a function that never returns, in a thread.
BLOCK_A_THREAD = """
import asyncio, threading
from bridge_worker.backends.offline.chat import Offline

async def chat(self, request):
    await asyncio.to_thread(threading.Event().wait)
    yield

Offline.chat = chat
from bridge_worker.cli.main import main
main()
"""

# A parent that starts a worker on the descriptors that it was given, prints its pid and waits to be killed.
PARENT = """
import json, os, subprocess, sys
source, sink, command = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
worker = subprocess.Popen(command, stdin=source, stdout=sink, stderr=subprocess.DEVNULL)
print(worker.pid, flush=True)
sys.stdin.read()
"""


def through_shell(setting: str, command: Sequence[str] = COMMAND) -> tuple[str, ...]:
    """The command after something that only a shell can say, such as a redirection."""
    return ("sh", "-c", f'{setting} exec "$@"' if setting.startswith("cd ") else f'exec "$@" {setting}', "sh", *command)


@pytest.fixture
def spawn_as(spawn: Spawn, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Worker]:
    """Starts a worker by another command than the usual one."""

    def start(command: Sequence[str], *flags: str, **options: Any) -> Worker:
        monkeypatch.setattr(tests.support.worker, "COMMAND", tuple(command))
        return spawn(*flags, **options)

    return start


class Held:
    """A worker whose import of LiteLLM waits for `release`; until then a chat with ``openai/...`` is in flight."""

    def __init__(self, spawn_as: Callable[..., Worker], folder: Path) -> None:
        self.spawn_as = spawn_as
        self._folder = folder
        self.fifo = folder / "fifo"
        os.mkfifo(self.fifo)
        self.environment = {"TEST_FIFO": str(self.fifo)}
        self.command = script(folder / "hold.py", HOLD_LITELLM)

    def start(self, *flags: str, env: dict[str, str] | None = None, **options: Any) -> Worker:
        return self.spawn_as(self.command, *flags, env=self.environment | (env or {}), **options)

    def release(self, verdict: str) -> None:
        """Returns when the import was waiting and has its verdict."""
        with open(wait_for_fd(self.fifo), "w") as fifo:
            fifo.write(verdict)


def wait_for_fd(fifo: Path) -> int:
    opened: list[int] = []

    def open_it() -> bool:
        with suppress(OSError):  # ENXIO: nobody reads yet
            opened.append(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
        return bool(opened)

    wait_until(open_it, "the import came to the FIFO")
    return opened[0]


@pytest.fixture
def held(spawn_as: Callable[..., Worker], tmp_path: Path) -> Held:
    return Held(spawn_as, tmp_path)


def wait_until_it_refuses(worker: Worker) -> None:
    """Returns when the worker has noticed that it is to end."""
    wait_until(lambda: kind(worker.call("chat", {"model": "offline/echo", "messages": HELLO})) == "shutting_down", "shutting_down")


# ---- the end of input --------------------------------------------------------------------------------------------------------


@pytest.mark.rule("LIF-15", "EXT-1", "SEC-2")
def test_the_end_of_input_waits_for_the_provider_and_exits_0(worker: Worker, upstream: Upstream) -> None:
    """Also, because this worker has done all that a worker does: it has no port, and no child but the template and the engine."""
    gate = Gate()
    upstream.script(
        "held",
        body={"choices": [{"index": 0, "message": {"role": "assistant", "content": "late"}, "finish_reason": "stop"}]},
        before=gate,
    )
    worker.chat("openai/gpt-4o-mini")
    id = chat(worker, "openai/held")
    gate.wait_reached(WAIT_SECONDS)
    wait_until_loaded(worker)
    wait_until(lambda: len(descendants(worker.process.pid)) == 2, "the engine of the start has ended")
    assert [listening(pid) for pid in (worker.process.pid, *descendants(worker.process.pid))] == [[], [], []]
    worker.end_input()
    gate.set()
    assert worker.exit_code() == 0
    assert worker.response(id)["result"]["content"] == "late"


def listening(pid: int) -> list[str]:
    """The listening TCP sockets of a process, and its datagram ones, which listen as soon as they are bound."""
    inodes = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            inodes |= set(re.findall(r"socket:\[(\d+)\]", os.readlink(fd)))
    rows = [
        row.split()
        for name in ("tcp", "tcp6", "udp", "udp6")
        for row in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]
    ]
    return [row[1] for row in rows if row[9] in inodes and row[3] in ("0A", "07")]


@pytest.mark.rule("LIF-15", "EXT-1")
def test_an_empty_input_exits_0_silently() -> None:
    assert run("--stdio") == (0, "", "")


@pytest.mark.rule("LIF-1", "LIF-15", "FRM-3")
def test_a_line_in_and_a_line_out_is_all_it_takes() -> None:
    code, stdout, stderr = run("--stdio", input=line(1, "chat", model="offline/echo", messages=HELLO).rstrip())
    assert (code, stderr) == (0, "")
    assert json.loads(stdout)["result"]["content"] == "hello"


@pytest.mark.rule("LIF-15")
def test_files_in_place_of_pipes_work(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"".join(line(id, "ping") for id in range(1000)))
    command = through_shell(f'<"{tmp_path}/in" >"{tmp_path}/out"')
    assert run("--stdio", command=command) == (0, "", "")
    assert [json.loads(row)["id"] for row in (tmp_path / "out").read_text().splitlines()] == list(range(1000))


@pytest.mark.parametrize(
    ("closed", "code", "responses"),
    [("0<&-", 0, 0), ("1>&-", 3, 0), ("2>&-", 0, 1), ("0<&- 1>&- 2>&-", 3, 0)],
    ids=["0", "1", "2", "all"],
)
def test_descriptors_that_are_closed_from_the_start(closed: str, code: int, responses: int) -> None:
    status, stdout, stderr = run("--stdio", input=line(1, "ping"), command=through_shell(closed))
    assert (status, stdout.count("\n"), stderr) == (code, responses, "")


@pytest.mark.rule("LIF-11")
def test_shutdown_is_the_last_line_and_exits_0(held: Held) -> None:
    worker = held.start()
    id = chat(worker)
    shutdown = worker.request("shutdown", {"mode": "cancel"})
    assert worker.exit_code() == 0
    assert kind(worker.response(id)) == "cancelled"
    assert worker.received[-1] == {"jsonrpc": "2.0", "id": shutdown, "result": {}}


def test_a_thread_that_never_returns_does_not_keep_the_process(spawn_as: Callable[..., Worker], tmp_path: Path) -> None:
    worker = spawn_as(script(tmp_path / "block.py", BLOCK_A_THREAD))
    id = chat(worker, "offline/echo")
    worker.request("shutdown", {"mode": "cancel"})
    assert worker.exit_code() == 0
    assert kind(worker.response(id)) == "cancelled"


# ---- signals -----------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("EXT-5", "LIF-14", "EXT-1")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_refuses_new_requests_and_finishes_those_in_flight(held: Held, name: str) -> None:
    worker = held.start("--grace-seconds=3600")
    id = chat(worker)
    worker.call("ping")
    worker.process.send_signal(getattr(signal, name))
    wait_until_it_refuses(worker)
    assert worker.call("ping")["result"] == {}
    held.release("no")
    assert kind(worker.response(id)) == "internal"  # the answer that was to come, not "cancelled"
    assert worker.exit_code() == 0


@pytest.mark.rule("EXT-5")
@pytest.mark.parametrize("signals", [("SIGTERM", "SIGTERM"), ("SIGINT", "SIGTERM")])
def test_a_second_signal_cancels_immediately_and_all_get_a_response(held: Held, signals: tuple[str, str]) -> None:
    worker = held.start("--grace-seconds=3600")
    ids = [chat(worker, stream=stream) for stream in (True, False, True)]
    worker.call("ping")
    worker.process.send_signal(getattr(signal, signals[0]))
    wait_until_it_refuses(worker)
    worker.process.send_signal(getattr(signal, signals[1]))
    assert worker.exit_code() == 0
    assert [kind(worker.response(id)) for id in ids] == ["cancelled"] * 3


@pytest.mark.rule("EXT-5")
def test_without_grace_one_signal_is_enough(held: Held) -> None:
    worker = held.start("--grace-seconds=0")
    id = chat(worker)
    worker.call("ping")
    worker.process.send_signal(signal.SIGTERM)
    assert worker.exit_code() == 0
    assert kind(worker.response(id)) == "cancelled"


@pytest.mark.rule("FRM-1", "RPC-1", "EXT-5")
def test_signals_in_the_middle_of_streams_leave_no_half_line_and_no_request_unanswered(held: Held) -> None:
    worker = held.start()
    messages = [{"role": "user", "content": "word " * 20_000}]
    ids = [worker.request("chat", {"model": "offline/echo", "messages": messages, "stream": True}) for _ in range(4)]
    worker.wait_for_delta(ids[0])
    worker.process.send_signal(signal.SIGTERM)
    worker.process.send_signal(signal.SIGINT)
    assert worker.exit_code() == 0
    for id in ids:  # each line was JSON, or the reading thread would have failed this test
        response = worker.response(id)
        assert "result" in response or kind(response) == "cancelled"
        assert [delta["seq"] for delta in worker.deltas(id)] == list(range(len(worker.deltas(id))))


@pytest.mark.rule("RPC-1")
def test_a_worker_that_was_stopped_and_continued_serves_again(held: Held) -> None:
    worker = held.start()
    worker.call("ping")
    worker.process.send_signal(signal.SIGSTOP)
    ids = [worker.request("chat", {"model": "offline/echo", "messages": HELLO, "stream": True}) for _ in range(3)]
    worker.process.send_signal(signal.SIGCONT)
    assert all("result" in worker.response(id) for id in ids)


# ---- nobody is left ------------------------------------------------------------------------------------------------------------


class Orphan:
    """A worker whose parent is a process of its own; the test holds the far ends of its pipes, as a grandchild might."""

    def __init__(self, stack: ExitStack, command: Sequence[str], env: dict[str, str]) -> None:
        source, self.to_worker = os.pipe()
        self.from_worker, sink = os.pipe()
        fds = (source, sink, self.to_worker, self.from_worker)
        self.parent = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-I", "-c", PARENT, str(source), str(sink), *command, "--stdio"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=clean_environment() | env,
                pass_fds=fds,  # the far ends too: they are the parent's own, and end with it unless the test keeps its copies
            )
        )
        stack.callback(self.parent.kill)
        assert self.parent.stdout
        self.pid = int(self.parent.stdout.readline())
        self.pidfd = os.pidfd_open(self.pid)
        stack.callback(self._kill)
        os.close(source)
        os.close(sink)

    def let_go(self) -> None:
        for name in ("to_worker", "from_worker"):
            if getattr(self, name) >= 0:
                os.close(getattr(self, name))
                setattr(self, name, -1)

    def ended(self) -> bool:
        """Waits for the worker's end; it can be seen though it is nobody's child any more."""
        return bool(select.select([self.pidfd], [], [], WAIT_SECONDS)[0])

    def _kill(self) -> None:
        self.let_go()
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        os.close(self.pidfd)


@pytest.fixture
def orphan() -> Iterator[Callable[..., Orphan]]:
    with ExitStack() as stack:
        yield lambda command, env: Orphan(stack, command, env)


@pytest.mark.rule("EXT-3")
def test_a_killed_parent_ends_the_worker_and_its_call_though_the_pipe_is_held(
    upstream: Upstream, orphan: Callable[..., Orphan]
) -> None:
    worker = orphan(COMMAND, {"OPENAI_API_KEY": "sk-secret-123", "OPENAI_BASE_URL": upstream.base_url})
    os.write(worker.to_worker, line(1, "chat", model="openai/hang-after", messages=HELLO, stream=True))
    request = upstream.wait_for_request(model="hang-after", timeout=WAIT_SECONDS)
    worker.parent.kill()
    request.wait_closed(WAIT_SECONDS)
    assert worker.ended()


@pytest.mark.rule("EXT-3")
@pytest.mark.parametrize("held_too", [False, True], ids=["the-pipe-too", "the-pipe-is-held"])
def test_a_killed_parent_ends_a_worker_that_still_imports(held: Held, orphan: Callable[..., Orphan], held_too: bool) -> None:
    worker = orphan(held.command, held.environment)
    os.write(worker.to_worker, line(1, "chat", model="openai/x", messages=HELLO) + line(2, "ping"))
    assert select.select([worker.from_worker], [], [], WAIT_SECONDS)[0]
    assert json.loads(os.read(worker.from_worker, 1000))["id"] == 2
    if not held_too:
        worker.let_go()
    worker.parent.kill()
    assert worker.ended()


@pytest.mark.rule("LIF-16", "EXT-3")
def test_the_end_of_the_process_that_initialize_names_ends_the_worker(held: Held) -> None:
    with subprocess.Popen([sys.executable, "-I", "-c", "input()"], stdin=subprocess.PIPE) as client:
        worker = held.start()
        assert "result" in worker.call("initialize", INITIALIZE | {"processId": client.pid})
        chat(worker)
        client.kill()
        assert worker.exit_code() == 3


@pytest.mark.rule("EXT-3")
def test_a_closed_output_ends_the_worker_and_its_call(upstream: Upstream, spawn: Spawn) -> None:
    ours, theirs = os.pipe()
    worker = spawn(env={"OPENAI_API_KEY": "sk-secret-123", "OPENAI_BASE_URL": upstream.base_url}, stdout=theirs)
    os.close(theirs)
    chat(worker, "openai/hang")
    request = upstream.wait_for_request(model="hang", timeout=WAIT_SECONDS)
    os.close(ours)
    request.wait_closed(WAIT_SECONDS)
    assert worker.exit_code() == 3


@pytest.mark.rule("EXT-3")
def test_a_closed_output_ends_an_idle_worker(held: Held) -> None:
    ours, theirs = os.pipe()
    worker = held.start(stdout=theirs)
    os.close(theirs)
    worker.request("ping")
    os.read(ours, 1000)
    os.close(ours)
    assert worker.exit_code() == 3


# ---- stderr --------------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("LOG-5")
@pytest.mark.parametrize("level", ["info", "debug"])
@pytest.mark.parametrize("stderr", ["2>/dev/full", "2>&-", '2<>"$TEST_FIFO"'], ids=["full-disk", "closed", "never-read"])
def test_a_useless_stderr_holds_nothing_up(held: Held, stderr: str, level: str) -> None:
    fifo = held.fifo.with_name("stderr")
    os.mkfifo(fifo)
    worker = held.spawn_as(
        through_shell(stderr.replace("$TEST_FIFO", str(fifo)), held.command),
        f"--log-level={level}",
        "--max-in-flight=600",
        env=held.environment,
    )
    worker.write(b"".join(line(id, "chat", model="offline/echo", messages=HELLO) for id in range(600)))  # 150 KB of log
    assert all("result" in worker.response(id) for id in range(600))
    worker.end_input()
    assert worker.exit_code() == 0


# ---- flags, variables, config ----------------------------------------------------------------------------------------------------

BAD_FLAGS = [
    ["nonsense"],
    ["--nonsense"],
    ["--stdio", "extra"],
    ["--stdio", "--max-in-flight", "0"],
    ["--stdio", "--max-in-flight", "many"],
    ["--stdio", "--max-message-bytes=-1"],
    ["--stdio", "--grace-seconds=-1"],
    ["--stdio", "--grace-seconds=inf"],
    ["--stdio", "--grace-seconds=nan"],
    ["--stdio", "--log-level", "loud"],
    ["--stdio", "--log-level", "in\nfo"],
    ["--stdio", "--log-format"],
    ["--stdio", "--config", "/no/such/file.yaml"],
    ["--stdio", "--config", "/"],
]


@pytest.mark.rule("EXT-2")
@pytest.mark.parametrize("flags", BAD_FLAGS, ids=" ".join)
def test_bad_flags_exit_2_with_one_line(flags: list[str]) -> None:
    check_usage_error(*run(*flags, input=line(1, "ping")))


@pytest.mark.rule("EXT-2", "CFG-2")
@pytest.mark.parametrize("text", ["model_list: [", "- 1", "model_list: 7", "model_list: [{model_name: a}]", "\x00"], ids=repr)
def test_a_bad_config_exits_2_with_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    _, _, stderr = result = run("--stdio", "--config", str(path), input=line(1, "ping"))
    check_usage_error(*result)
    assert str(path) in stderr


@pytest.mark.rule("EXT-2")
@pytest.mark.parametrize(
    ("name", "value"), [("LOG_LEVEL", "loud"), ("MAX_IN_FLIGHT", "x"), ("CONFIG", "/no/such/file.yaml"), ("GRACE_SECONDS", "-1")]
)
def test_a_bad_variable_exits_2_with_one_line(name: str, value: str) -> None:
    check_usage_error(*run("--stdio", input=line(1, "ping"), env={f"OMNI_BRIDGE_{name}": value}))


@pytest.mark.rule("EXT-2")
def test_a_usage_error_without_a_stderr_still_exits_2() -> None:
    assert run("--nonsense", command=through_shell("2>&-")) == (2, "", "")


def check_usage_error(code: int, stdout: str, stderr: str) -> None:
    assert (code, stdout) == (2, "")
    assert stderr.startswith("omni-bridge: ")
    assert stderr.count("\n") == 1
    assert stderr.endswith("\n")
    assert "Traceback" not in stderr


def test_a_variable_sets_what_a_flag_sets_and_the_flag_wins() -> None:
    def limits(*flags: str) -> dict[str, int]:
        env = {"OMNI_BRIDGE_MAX_IN_FLIGHT": "7", "OMNI_BRIDGE_MAX_MESSAGE_BYTES": "5000"}
        code, stdout, _ = run("--stdio", *flags, input=line(1, "initialize", **INITIALIZE), env=env)
        assert code == 0
        found: dict[str, int] = json.loads(stdout)["result"]["limits"]
        return found

    assert limits() == {"maxInFlight": 7, "maxMessageBytes": 5000}
    assert limits("--max-in-flight", "9") == {"maxInFlight": 9, "maxMessageBytes": 5000}


@pytest.mark.rule("LOG-2")
@pytest.mark.parametrize(("flags", "lines"), [([], 1), (["--log-level=error"], 0)])
def test_the_log_level_can_be_a_variable_too(flags: list[str], lines: int) -> None:
    input = line(1, "chat", model="offline/echo", messages=HELLO)
    code, _, stderr = run("--stdio", *flags, input=input, env={"OMNI_BRIDGE_LOG_LEVEL": "info"})
    assert code == 0
    assert stderr.count("\n") == lines


def test_help_and_version_go_to_stdout() -> None:
    code, stdout, stderr = run("--version")
    assert (code, stderr) == (0, "")
    assert re.fullmatch(rf"omni-bridge {__version__} \(LiteLLM \d+\.\d+\.\d+, price map of \d{{4}}-\d\d-\d\d\)\n", stdout)
    code, stdout, stderr = run("--help")
    assert (code, stderr) == (0, "")
    for flag in ("--stdio", "schema", "demo", "--config", "--max-in-flight", "--grace-seconds", "--log-level", "OMNI_BRIDGE_"):
        assert flag in stdout


def test_a_bare_command_prints_the_usage_and_exits_2() -> None:
    code, stdout, stderr = run()
    assert (code, stdout) == (2, "")
    assert "Use models:" in stderr
    assert "--stdio" in stderr


@pytest.mark.rule("VER-1")
def test_the_schema_is_printed_and_nothing_else() -> None:
    code, stdout, stderr = run("schema")
    assert (code, stderr) == (0, "")
    assert "ChatParams" in json.loads(stdout)["$defs"]


# ---- surroundings ----------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("SEC-1", "SEC-3")
def test_the_working_directory_has_no_influence(spawn_as: Callable[..., Worker], upstream: Upstream, tmp_path: Path) -> None:
    for name in ("litellm", "bridge_worker", "asyncio"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('hijacked')")
    for name in ("json.py", "logging.py", "sitecustomize.py", "usercustomize.py", "httpx.py"):
        (tmp_path / name).write_text("raise SystemExit('hijacked')")
    (tmp_path / ".env").write_text("OPENAI_API_KEY=sk-of-another\nOMNI_BRIDGE_LOG_LEVEL=loud\n")
    (tmp_path / "config.yaml").write_text("model_list: 7")
    worker = spawn_as(through_shell(f'cd "{tmp_path}" &&'), env={"OPENAI_BASE_URL": upstream.base_url, "PYTHONPATH": str(tmp_path)})
    assert worker.chat("offline/echo")["content"] == "hello"
    error = worker.response(chat(worker, "openai/gpt-4o-mini"))
    assert kind(error) == "authentication", error
    assert all("sk-of-another" not in str(request.headers) for request in upstream.requests)


# ---- before LiteLLM --------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("LIF-2", "LIF-10", "OFF-1", "ERR-10")
def test_what_needs_no_litellm_works_while_its_import_hangs_and_after_it_has_failed(held: Held) -> None:
    worker = held.start()
    waiting = chat(worker)
    for _ in range(2):
        assert worker.call("ping")["result"] == {}
        assert worker.chat("offline/echo")["content"] == "hello"
        tools = [{"type": "function", "function": {"name": "f"}}]
        assert worker.chat("offline/tools", tools=tools)["tool_calls"][0]["function"]["name"] == "f"
        if waiting:
            assert worker.call("initialize", INITIALIZE)["result"]["engine"]["ready"] is False
            held.release("no room for it")
            assert kind(worker.response(waiting)) == "internal"
            waiting = 0
    error = worker.response(chat(worker))["error"]
    assert error["data"]["kind"] == "internal"
    assert "LiteLLM" in error["message"]
    assert "no room for it" in error["message"]
    assert not [
        message for message in worker.received if isinstance(message, dict) and message.get("method") == "notifications/ready"
    ]


@pytest.mark.rule("LIF-8", "LIF-9")
def test_a_chat_received_before_litellm_is_loaded_is_served_afterwards(held: Held, upstream: Upstream) -> None:
    worker = held.start(env={"OPENAI_API_KEY": "sk-secret-123", "OPENAI_BASE_URL": upstream.base_url})
    worker.call("initialize", INITIALIZE)
    id = chat(worker, "openai/gpt-4o-mini")
    assert worker.call("ping")["result"] == {}
    assert len(worker.received) == 2
    held.release("go")
    assert worker.response(id)["result"]["content"] == reply_text("hello")
    ready = worker.wait_for(lambda message: isinstance(message, dict) and message.get("method") == "notifications/ready")
    assert isinstance(ready, dict)
    assert ready["params"]["engine"]["ready"] is True
    assert ready["params"]["engine"]["version"]
    assert ready["params"]["warmMs"] > 0


@pytest.mark.rule("LIF-15")
@pytest.mark.parametrize("ending", ["end of input", "SIGTERM"])
def test_an_import_that_hangs_does_not_keep_an_idle_worker(held: Held, ending: str) -> None:
    worker = held.start()
    worker.call("ping")
    if ending == "SIGTERM":
        worker.process.terminate()
    else:
        worker.end_input()
    assert worker.exit_code() == 0


def test_5_mb_pass_through_a_process_in_both_directions(held: Held) -> None:
    worker = held.start()
    text = "Žluťoučký kůň 🦜 " * (5 * 1024 * 1024 // 28)
    assert worker.chat("offline/echo", text)["content"] == text


@pytest.mark.rule("EXT-4", "ERR-7")
def test_a_fault_of_the_bridge_itself_ends_with_70_and_a_log_line() -> None:
    program = (
        "from bridge_worker.cli import main as cli\nfrom bridge_worker.runtime import startup as serve\n"
        "async def run(self): raise RuntimeError('unheard of')\n"
        "serve.Server.run = run\n"
        "cli.main(['--stdio'])"
    )
    code, printed, log = run(command=(sys.executable, "-I", "-c", program))
    assert (code, printed) == (70, "")
    assert "unheard of" in json.loads(log.splitlines()[-1])["exception"]


@pytest.mark.rule("CFG-3")
def test_sections_of_the_config_without_effect_are_named_in_one_warning(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        "model_list: [{model_name: a, litellm_params: {model: openai/a}}]\n"
        "general_settings: {master_key: sk-1}\nlitellm_settings: {json_logs: true}\n"
    )
    code, _, log = run("--stdio", "--config", str(config))
    (line,) = [json.loads(line) for line in log.splitlines()]
    assert (code, line["level"]) == (0, "warning")
    assert "litellm_settings.json_logs, general_settings.master_key" in line["message"]


def test_a_gateways_config_without_settings_of_the_worker_loads_no_pydantic(tmp_path: Path) -> None:
    """The client's first response is not delayed by an import that this config does not need."""
    model = "model_list: [{model_name: fast, litellm_params: {model: openai/gpt-4o-mini}}]\n"
    imports = "import sys; from bridge_worker.config.source import load_config"
    code = f"{imports}; load_config(sys.argv[1]); print('pydantic' in sys.modules)"
    file = tmp_path / "config.yaml"
    for content, loaded in ((model, "False"), (model + "omni_bridge: {max_in_flight: 5}", "True")):
        file.write_text(content)
        command = [sys.executable, "-I", "-c", code, str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=clean_environment())
        assert done.stdout.strip() == loaded
