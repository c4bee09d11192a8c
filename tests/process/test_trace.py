"""A trace has every message both ways, no secret, no more of the content than the setting allows, and delays nothing."""

from __future__ import annotations

import json
import os
import resource
import signal
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Spawn
from tests.support.worker import COMMAND, Json, clean_environment, run, wait_until

SECRET = "sk-very-secret-0815"
TEXT = "Zebra-4711"


def read(file: Path) -> list[Json]:
    """The lines of a trace, each of them JSON."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n")[:-1]]


def messages(file: Path, direction: str) -> list[Any]:
    return [line.get("message") for line in read(file) if line.get("dir") == direction]


def chat(id: object = 1, text: str = TEXT, **params: Any) -> Json:
    body = {"model": "offline/echo", "messages": [{"role": "user", "content": text}], **params}
    return {"jsonrpc": "2.0", "id": id, "method": "chat", "params": body}


def traced(file: Path, *sent: object, flags: tuple[str, ...] = (), env: dict[str, str] | None = None) -> list[Json]:
    """What a process that was sent these lines wrote to stdout."""
    data = b"".join(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in sent)
    code, out, _ = run("--stdio", f"--trace={file}", *flags, input=data, env=env)
    assert code == 0
    return [json.loads(line) for line in out.splitlines()]


@pytest.mark.rule("TRC-9")
def test_a_lost_engine_is_a_line_of_the_trace_and_of_its_table(spawn: Spawn, tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl"
    worker = spawn("--engines", "1", "--trace", str(file))
    wait_until(lambda: any(row["pid"] for row in worker.call("status")["result"]["engines"]), "the first engine is started")
    pid = worker.call("status")["result"]["engines"][0]["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: "engine_lost" in file.read_text(), "the trace has it")
    (lost,) = [line["engine_lost"] for line in read(file) if "engine_lost" in line]
    assert lost == {"pid": pid, "how": "signal 9 (SIGKILL)", "requests": 0}
    code, out, _ = run("trace", str(file))
    assert code == 0
    assert f"engine process {pid} lost (signal 9 (SIGKILL)) with 0 requests" in out
    (traced_run,) = json.loads(run("trace", "--json", str(file))[1])["runs"]
    assert [one["pid"] for one in traced_run["engines_lost"]] == [pid]


# ---- every message -------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("TRC-1")
def test_every_message_is_there_in_order_with_its_times_and_length(tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl"
    sent = [chat(stream=True), {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}}]
    received = traced(file, *sent, flags=("--trace-content=full",))
    first, *others, last = read(file)
    assert (first["trace"], first["content"]) == (1, "full")
    assert last["end"] is True
    assert {line["pid"] for line in read(file)} == {first["pid"]}
    assert messages(file, "in") == sent
    assert messages(file, "out") == received
    assert [line["bytes"] for line in others if line["dir"] == "in"] == [len(json.dumps(message)) + 1 for message in sent]
    assert [line["ms"] for line in others] == sorted(line["ms"] for line in others)
    assert all(line["time"].endswith("Z") for line in others)


@pytest.mark.rule("TRC-1")
def test_an_unreadable_line_is_recorded_too(tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl"
    long = b'{"long":"' + b"x" * 5_000 + b'"}\n'
    traced(
        file,
        b"no json\n",
        b"\n",
        b'\xff"\n',
        long,
        b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]',
        flags=("--max-message-bytes=4000",),
    )
    seen = [line for line in read(file) if line.get("dir") == "in"]
    assert [line["bytes"] for line in seen] == [8, 3, len(long), 42]
    assert ["fault" in line for line in seen] == [True, True, False, False]
    assert "text" not in seen[0]
    assert seen[3]["message"] == [{"jsonrpc": "2.0", "id": 1, "method": "ping"}]
    errors = [message["error"]["data"]["kind"] for message in messages(file, "out") if isinstance(message, dict)]
    assert errors == ["parse_error", "parse_error", "invalid_message"]


# ---- content and secrets -------------------------------------------------------------------------------------------------------


@pytest.mark.rule("TRC-2")
def test_without_content_the_trace_holds_no_chat_content(tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl"
    tool = {
        "type": "function",
        "function": {"name": "find", "description": TEXT, "parameters": {"properties": {TEXT: {"enum": [TEXT]}}}},
    }
    odd = {"jsonrpc": "2.0", "id": TEXT * 40, "method": "chat", "params": {f"{TEXT} and more": TEXT, "model": TEXT * 30}}
    parts = [{"role": "user", "name": TEXT, "content": [{"type": "text", "text": TEXT}]}]
    traced(
        file,
        chat(stream=True, stop=TEXT, user=TEXT, metadata={TEXT: TEXT}, deadlines={"total_ms": 60_000}),
        chat(
            2, messages=[*parts, {"role": "assistant", "content": None, "reasoning_content": TEXT, "refusal": TEXT}], tools=[tool]
        ),
        chat(
            3,
            model="offline/tools",
            tools=[{"type": "function", "function": {"name": "say", "parameters": {"const": {"word": TEXT}}}}],
        ),
        {"jsonrpc": "2.0", "id": 4, "method": "embed", "params": {"model": "offline/embed", "input": [TEXT]}},
        {"jsonrpc": "2.0", "id": 5, "method": "rerank", "params": {"model": "offline/rerank", "query": TEXT, "documents": [TEXT]}},
        {"jsonrpc": "2.0", "id": 6, "method": "tools/call", "params": {"name": "chat", "arguments": chat()["params"]}},
        odd,
        f'"{TEXT}"\n{TEXT}\n'.encode(),
    )
    text = file.read_text()
    assert TEXT not in text
    params = messages(file, "in")[0]["params"]
    assert params["model"] == "offline/echo"
    assert params["messages"] == [{"role": "user", "content": f"[{len(TEXT)} characters]"}]
    assert params["deadlines"] == {"total_ms": 60_000}
    tool_call = next(m["result"]["tool_calls"][0] for m in messages(file, "out") if m.get("id") == 3)
    assert tool_call["function"] == {"name": "say", "arguments": f"[{len(json.dumps({'word': TEXT}))} characters]"}


@pytest.mark.rule("TRC-2")
@pytest.mark.parametrize("content", ["none", "full"])
def test_no_secret_is_in_a_trace(tmp_path: Path, content: str) -> None:
    file = tmp_path / "trace.jsonl"
    unknown = "AIza" + "S" * 35
    pem = "-----BEGIN RSA PRIVATE KEY-----\\nMII" + "E" * 40
    model = {"jsonrpc": "2.0", "id": SECRET, "method": SECRET, "params": {"model": f"offline/{SECRET}", "messages": []}}
    texts = [chat(1, f"{SECRET} {unknown}"), chat(2, f'?key=hunter2-hunter2"{pem}'), chat(3, stream=True, user=unknown)]
    named = [chat(4, metadata={"password": "hunter2-hunter2"})]
    traced(
        file,
        model,
        *texts,
        *named,
        f"no json {SECRET} {pem}\n".encode(),
        env={"SOME_API_KEY": SECRET},
        flags=(f"--trace-content={content}",),
    )
    text = file.read_text()
    for secret in (SECRET, unknown, "E" * 40, "hunter2"):
        assert secret not in text
    assert len(read(file)) > 8  # each line is still JSON
    assert all("omitted" not in line for line in read(file))
    assert "[redacted]" in text


# ---- the file ------------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("TRC-3")
def test_a_trace_is_for_its_user_only_and_a_second_run_is_appended(tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl"
    traced(file, chat())
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    before = file.read_bytes()
    code, _, _ = run("--stdio", input=b"", env={"OMNI_BRIDGE_TRACE": str(file), "OMNI_BRIDGE_TRACE_CONTENT": "full"})
    assert code == 0
    assert file.read_bytes().startswith(before)
    assert [line["content"] for line in read(file) if "trace" in line] == ["none", "full"]


@pytest.mark.rule("TRC-3")
def test_a_half_line_of_a_killed_worker_does_not_spoil_the_next_run(tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl"
    traced(file, chat())
    with file.open("ab") as torn:
        torn.write(b'{"pid":1,"ti')
    traced(file, chat())
    assert sum(line.startswith('{"trace"') for line in file.read_text().splitlines()) == 2


@pytest.mark.rule("TRC-3")
def test_what_others_may_read_is_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl"
    file.touch(0o644)
    file.chmod(0o644)
    _, _, log = run("--stdio", f"--trace={file}")
    assert "others may read the trace" in log


def another_file(folder: Path) -> str:
    file = folder / "config.yaml"
    file.write_text("model_list: []\n")
    return str(file)


@pytest.mark.rule("TRC-4")
def test_the_process_reports_a_bad_trace_file_before_it_reads_a_line(tmp_path: Path) -> None:
    file = another_file(tmp_path)
    code, out, log = run("--stdio", f"--trace={file}", input=b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n')
    assert (code, out) == (2, "")
    assert log.startswith("omni-bridge: --trace")
    assert log.count("\n") == 1
    assert Path(file).read_text() == "model_list: []\n"


@pytest.mark.rule("TRC-5")
def test_a_full_disk_ends_the_trace_and_not_the_serving(tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl"

    def small_disk() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then a write beyond the limit is EFBIG
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # an engine's board takes 64 KiB

    lines = b"".join(json.dumps(chat(id, "word " * 100, stream=True)).encode() + b"\n" for id in range(20))
    done = subprocess.run(
        [*COMMAND, "--stdio", f"--trace={file}"],
        input=lines,
        capture_output=True,
        preexec_fn=small_disk,
        env=clean_environment(),
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    assert sum("result" in json.loads(line) for line in done.stdout.splitlines()) == 20
    assert done.stderr.decode().count("tracing has stopped, serving continues: File too large") == 1
    assert file.stat().st_size <= 100_000


@pytest.mark.rule("TRC-5")
def test_a_killed_worker_leaves_what_it_had_written(tmp_path: Path, spawn: Spawn) -> None:
    file = tmp_path / "trace.jsonl"
    worker = spawn("--trace", str(file))
    worker.chat("offline/echo")
    wait_until(lambda: b'"result"' in file.read_bytes(), "the answer is in the trace")
    worker.process.kill()
    worker.process.wait()
    assert messages(file, "out")[-1]["result"]["model"] == "offline/echo"
    assert "end" not in read(file)[-1]


@pytest.mark.rule("TRC-6")
def test_without_the_flag_nothing_of_it_is_loaded() -> None:
    code = "import sys, bridge_worker.cli.main; assert not [name for name in sys.modules if name.startswith('bridge_worker.trace')]"
    subprocess.run([*COMMAND[:-2], "-c", code], check=True)
