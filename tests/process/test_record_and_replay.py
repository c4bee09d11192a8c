"""A real worker records what a provider sends; another one, without LiteLLM and network, replays it."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from jsonschema import Draft202012Validator

from bridge_worker.cassettes.cassette import Cassette
from bridge_worker.schema.messages import json_schema
from tests.conftest import Spawn
from tests.support import without_litellm
from tests.support.data import ROOT, Json, tool
from tests.support.upstream import Upstream
from tests.support.upstream_format import DONE, SMALL, End, Gate, embeddings
from tests.support.worker import COMMAND, WAIT_SECONDS, Worker, clean_environment, wait_until

KEY = "sk-proj-Zx8Qw3Er5Ty7Ui9Op1As2Df4"
TOOL = tool("weather", {"type": "object", "properties": {"city": {}}})
OFFLINE = {"model": "offline/echo", "messages": [{"role": "user", "content": "hello there"}]}


class Seen(NamedTuple):
    """What a client got: the deltas, and the result or the error."""

    deltas: list[Json]
    outcome: Json


def messages(text: str) -> list[Json]:
    return [{"role": "user", "content": text}]


# A request of each kind, with the model that the upstream's scripts know.
REQUESTS: dict[str, tuple[str, Json]] = {
    "streamed": ("chat", {"model": "openai/gpt-4o-mini", "messages": messages("streamed"), "stream": True, "temperature": 1.0}),
    "plain": ("chat", {"model": "openai/gpt-4o-mini", "messages": messages("plain")}),
    "tools": ("chat", {"model": "openai/two-calls", "messages": messages("call"), "stream": True, "tools": [TOOL]}),
    "limited": ("chat", {"model": "openai/limited", "messages": messages("limited")}),
    "cut": ("chat", {"model": "openai/cut", "messages": messages("cut"), "stream": True}),
    "broken": ("chat", {"model": "openai/broken", "messages": messages("broken"), "stream": True}),
    "late": ("chat", {"model": "openai/hung", "messages": messages("late"), "stream": True, "deadlines": {"idle_ms": 200}}),
    "embed": ("embed", {"model": f"openai/{SMALL}", "input": ["one", "two"]}),
    "rerank": ("rerank", {"model": "cohere/ranker", "query": "two", "documents": ["one", "two"]}),
    "refused": ("embed", {"model": "openai/limited", "input": ["one"]}),
    "tokens": ("tokens/count", {"model": "openai/gpt-4o-mini", "messages": messages("how many")}),
    "offline": ("chat", {**OFFLINE, "stream": True}),
    "named": ("tokens/count", {"model": f"openai/{KEY}", "messages": messages("a key for a model's name")}),
    "unknown": ("chat", {"model": "nosuchprovider/m", "messages": messages("x")}),
}


def chunk(**delta: Any) -> Json:
    return {"id": "c1", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}


def script(upstream: Upstream, cut: Gate) -> None:
    """``cut`` holds the second piece of that stream, so that its first one is read alone."""
    end = {"id": "c1", "model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}
    calls = [
        chunk(tool_calls=[{"index": at, "type": "function", "function": {"name": "weather", "arguments": '{"city":"Brno"}'}}])
        for at in (0, 1)  # without ids: the bridge makes them up
    ]
    upstream.script("two-calls", chunks=[*calls, end, DONE])
    upstream.script("limited", status=429, headers={"retry-after": "7"}, body={"error": {"message": f"slow down, {KEY}"}})
    scores = [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.125}]
    upstream.script(SMALL, body=embeddings([0.25, 2.0], [0.5, 1.0]))
    upstream.script("ranker", body={"id": "r1", "results": scores, "meta": {"billed_units": {"search_units": 1}}})
    upstream.script("cut", chunks=[chunk(content="half "), cut, chunk(content="a sentence"), End.RESET])
    upstream.script("broken", chunks=[chunk(content="half "), b"data: {broken\n\n", DONE])
    upstream.script("hung", chunks=[chunk(content="then nothing"), End.HANG])


def send(worker: Worker, name: str, gate: Gate | None = None) -> Seen:
    method, params = REQUESTS[name]
    id = worker.request(method, params)
    if gate:
        worker.wait_for_delta(id)
        gate.set()
    response = worker.response(id)
    deltas = [delta["delta"] for delta in worker.deltas(id)]
    return Seen(deltas, response.get("result") or response["error"])


class Tape(NamedTuple):
    path: Path
    seen: dict[str, Seen]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Tape:
    """A cassette with an exchange for each of REQUESTS, in their order."""
    path = tmp_path_factory.mktemp("cassette") / "run.cassette"
    cut = Gate()
    with Upstream() as upstream:
        script(upstream, cut)
        env = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": upstream.base_url}
        env |= {"COHERE_API_KEY": KEY, "COHERE_API_BASE": upstream.base_url}
        with Worker("--record", str(path), env=env) as worker:
            seen = {name: send(worker, name, cut if name == "cut" else None) for name in REQUESTS}
            worker.end_input()
            assert worker.exit_code() == 0
    return Tape(path, seen)


@pytest.fixture(scope="module")
def isolated(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """The command of a worker without LiteLLM, and without network where the system permits that."""
    command = without_litellm.command(tmp_path_factory.mktemp("packages"))
    unshare = shutil.which("unshare")
    if unshare and subprocess.run([unshare, "-rn", "true"], check=False, capture_output=True).returncode == 0:
        return (unshare, "-rn", *command)
    return command


Start = Callable[..., Worker]


@pytest.fixture
def start(isolated: tuple[str, ...]) -> Iterator[Start]:
    with ExitStack() as stack:
        yield lambda *flags, **env: stack.enter_context(Worker(*flags, env=env, command=isolated))


def comparable(seen: Seen) -> Seen:
    """Without what measures this run."""
    outcome = json.loads(json.dumps(seen.outcome))
    outcome.pop("timing", None)
    receipt = outcome.get("receipt") or outcome.get("data", {}).get("receipt") or {}
    receipt.pop("engine", None)
    return Seen(seen.deltas, outcome)


def lines(path: Path) -> list[Json]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def exchanges(path: Path) -> list[Json]:
    return [line for line in lines(path) if "exchange" in line]


# --- the replay --------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("CAS-5", "CAS-6")
def test_a_worker_without_litellm_key_and_network_gives_the_same_deltas_results_and_errors(recorded: Tape, start: Start) -> None:
    worker = start("--replay", str(recorded.path))
    for name in REQUESTS:
        assert comparable(send(worker, name)) == comparable(recorded.seen[name]), name
    engine = send(worker, "plain").outcome["receipt"]["engine"]
    assert (engine["name"], engine["reason"]) == ("cassette", f"recorded with litellm-direct {_litellm()}")
    assert worker.call("status")["result"]["engine"]["name"] == "cassette"
    assert "Traceback" not in worker.stderr


def _litellm() -> str:
    from importlib.metadata import version

    return version("litellm")


@pytest.mark.rule("CAS-5")
def test_a_replay_is_ready_and_knows_the_models_of_the_recording(recorded: Tape, start: Start) -> None:
    worker = start("--replay", str(recorded.path))
    worker.call("initialize", {"protocolVersion": "omni-bridge/1"})
    ready = worker.wait_for(lambda message: isinstance(message, dict) and message.get("method") == "notifications/ready")
    assert isinstance(ready, dict)
    assert ready["params"]["engine"]["name"] == "cassette"
    assert "openai/gpt-4o-mini" in [row["model"] for row in worker.call("models/list")["result"]["models"]]
    assert worker.call("models/get", {"model": "openai/gpt-4o-mini"})["result"]["prices"]["input_usd"] > 0


@pytest.mark.rule("CAS-8")
def test_a_request_that_was_not_recorded_is_an_error_with_the_nearest(recorded: Tape, start: Start) -> None:
    worker = start("--replay", str(recorded.path))
    error = worker.call("chat", {"model": "openai/gpt-4o-mini", "messages": messages("plane")})["error"]
    assert (error["code"], error["data"]["kind"], error["data"]["retryable"]) == (1016, "cassette_miss", False)
    assert error["data"]["nearest"]["differs"] == ["params.messages.0.content"]
    assert error["data"]["nearest"]["request"]["params"]["messages"] == messages("plain")
    for method in ("embed", "tokens/count"):
        params = {"input": "x"} if method == "embed" else {"messages": messages("x")}
        assert worker.call(method, {"model": "openai/other", **params})["error"]["code"] == 1016


@pytest.mark.rule("CAS-12")
def test_cancel_deadlines_and_budgets_work_in_a_replay(recorded: Tape, start: Start) -> None:
    budgets = json.dumps([{"path": "run", "max_usd": 1.0}])
    worker = start("--replay", str(recorded.path), "--budgets", budgets, "--replay-timing", "real")
    plain = REQUESTS["plain"][1] | {"metadata": {"budget": "run"}, "max_tokens": None}
    result = worker.call("chat", plain)["result"]
    (budget,) = worker.call("budgets/get", {"path": "run"})["result"]["budgets"]
    assert budget["used_usd"] == pytest.approx(result["cost_usd"])
    assert worker.call("chat", REQUESTS["plain"][1] | {"deadlines": {"total_ms": 1}})["error"]["data"]["kind"] == "timeout"


@pytest.mark.rule("CAS-10", "CAS-12")
def test_a_cancelled_exchange_is_cancelled_again(recorded: Tape, start: Start, tmp_path: Path) -> None:
    path = tmp_path / "cancelled"
    late = next(line for line in exchanges(recorded.path) if line["request"]["params"]["model"] == "openai/hung")
    late["wire"]["error"] |= {"code": -32800}
    late["wire"]["error"]["data"] |= {"kind": "cancelled", "retryable": False}
    path.write_text(json.dumps({"cassette": 1}) + "\n" + json.dumps(late) + "\n")
    worker = start("--replay", str(path))
    id = worker.request("chat", REQUESTS["late"][1] | {"deadlines": {"idle_ms": 60_000}})
    worker.wait_for_delta(id)
    worker.notify("notifications/cancelled", {"requestId": id})
    error = worker.response(id)["error"]
    assert (error["code"], error["data"]["upstream_closed"], error["data"]["partial"]["content"]) == (-32800, True, "then nothing")


@pytest.mark.rule("CAS-13")
def test_a_replay_that_records_keeps_what_the_run_uses(recorded: Tape, start: Start, tmp_path: Path) -> None:
    used = tmp_path / "used"
    worker = start("--replay", str(recorded.path), "--record", str(used))
    for name in ("tokens", "plain"):
        send(worker, name)
    worker.end_input()
    assert worker.exit_code() == 0
    by_hash = {line["hash"]: line for line in exchanges(recorded.path)}
    kept = exchanges(used)
    assert [line["exchange"] for line in kept] == ["tokens/count", "chat"]
    assert all(by_hash[line["hash"]] == line for line in kept)


@pytest.mark.rule("CAS-14")
@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (("--replay-miss", "record"), "--replay-miss has no effect without a cassette"),
        (("--match-ignore", "ids"), "--match-ignore has no effect without a cassette"),
        (("--replay", "/nonexistent"), "--replay /nonexistent: No such file"),
        (("--match-ignore", "a b"), "is neither ids, dates nor the path of a member"),
    ],
)
def test_settings_without_an_effect_and_missing_files_end_the_start(flags: tuple[str, ...], problem: str) -> None:
    command = [*COMMAND, "--stdio", *flags]
    ended = subprocess.run(command, input=b"", capture_output=True, env=clean_environment(), timeout=60, check=False)
    assert ended.returncode == 2
    assert problem in ended.stderr.decode()


@pytest.mark.rule("CAS-14")
def test_a_replay_needs_no_engine_processes(recorded: Tape, start: Start) -> None:
    worker = start("--replay", str(recorded.path), "--engines", "2")
    assert comparable(send(worker, "plain")) == comparable(recorded.seen["plain"])
    assert worker.call("status")["result"]["engines"] == []
    assert "--engines has no effect with --replay" in worker.stderr


# --- the recording -----------------------------------------------------------------------------------------------------------


@pytest.mark.rule("CAS-1", "CAS-15", "CAS-18", "CAS-19")
def test_each_exchange_is_a_line_with_bytes_and_what_the_client_got(recorded: Tape) -> None:
    found = exchanges(recorded.path)
    assert [line["exchange"] for line in found] == [method for method, _ in REQUESTS.values()]
    by_name = dict(zip(REQUESTS, found, strict=True))
    for name, line in by_name.items():
        outcome = recorded.seen[name].outcome
        assert line["wire"].get("result", line["wire"].get("error")) == json.loads(json.dumps(outcome).replace(KEY, "[redacted]"))
        assert [{"content": d} if isinstance(d, str) else d for _, d in line["wire"]["deltas"]] == recorded.seen[name].deltas
    streamed = by_name["streamed"]["provider"][0]
    assert (streamed["format"], streamed["status"], streamed["end"]) == (
        "openai_chat",
        200,
        "left",
    )  # the end marker came before the end
    assert streamed["body"].startswith("data: {")
    cut = by_name["cut"]["provider"][0]
    assert len(cut["reads"]) > 1
    assert (by_name["limited"]["provider"][0]["status"], cut["end"]) == (429, "cut")
    assert (by_name["tokens"]["provider"], by_name["offline"]["provider"]) == (None, None)
    assert "no provider's response was read" in by_name["tokens"]["why_no_bytes"]
    assert recorded.path.stat().st_mode & 0o077 == 0


@pytest.mark.rule("CAS-18")
def test_embeddings_and_rankings_have_their_bytes_status_headers_and_timing(recorded: Tape) -> None:
    by_name = dict(zip(REQUESTS, exchanges(recorded.path), strict=True))
    for name, model, status in (("embed", SMALL, 200), ("rerank", "ranker", 200), ("refused", "limited", 429)):
        (response,) = by_name[name]["provider"]
        assert (response["format"], response["model"], response["status"], response["end"]) == ("litellm", model, status, "whole")
        assert "content-type" in response["response_headers"]
        assert sum(length for _, length in response["reads"]) == len(response["body"].encode())
        assert 0 < response["sent_ms"] <= response["reads"][0][0] <= by_name[name]["ms"]
    assert json.loads(by_name["rerank"]["provider"][0]["body"])["results"][1]["relevance_score"] == 0.125
    assert by_name["refused"]["provider"][0]["response_headers"]["retry-after"] == "7"


@pytest.mark.rule("CAS-21")
def test_verify_reads_embeddings_and_rankings_with_todays_litellm(recorded: Tape, tmp_path: Path) -> None:
    changed = []
    for line in exchanges(recorded.path):
        if line["exchange"] in ("embed", "rerank"):
            body = line["provider"][0]["body"]
            line["provider"][0]["body"] = body.replace("0.125", "0.25").replace("[0.", "[1.")
            line["provider"][0]["status"] += 1 if line["provider"][0]["status"] == 429 else 0
            changed.append(line)
    path = tmp_path / "both"
    path.write_text(recorded.path.read_text(encoding="utf-8") + "".join(json.dumps(line) + "\n" for line in changed))
    command = [*COMMAND, "cassette", "verify", "--json", str(path)]
    ended = subprocess.run(command, capture_output=True, env=clean_environment(), timeout=60, check=False)
    rows = json.loads(ended.stdout)
    outcomes = [row["outcome"] for row in rows]
    assert (ended.returncode, len(changed)) == (1, 3)
    assert [row["members"][0][0] for row in rows[-3:]] == ["embeddings.0.0", "results.1.1", "error.kind"]
    assert set(outcomes[:-3]) == {"same", "no bytes"}
    assert [name for name, outcome in zip(REQUESTS, outcomes, strict=False) if outcome == "no bytes"] == [
        "tokens",
        "offline",
        "named",
        "unknown",
    ]


@pytest.mark.rule("CAS-6", "CAS-18")
def test_a_chat_that_litellm_reads_has_its_bytes_and_is_played_from_its_deltas(
    spawn: Spawn, start: Start, upstream: Upstream, tmp_path: Path
) -> None:
    path = tmp_path / "run.cassette"
    env = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": upstream.base_url}
    worker = spawn("--record", str(path), "--engine", "litellm", env=env)
    seen = {name: send(worker, name) for name in ("streamed", "plain")}
    worker.end_input()
    assert worker.exit_code() == 0
    for line in exchanges(path):
        (response,) = line["provider"]
        assert (response["format"], response["status"]) == ("litellm", 200)
        assert response["body"].startswith("data: {" if line["request"]["params"].get("stream") else "{")
    replay = start("--replay", str(path))
    for name, outcome in seen.items():
        assert comparable(send(replay, name)) == comparable(outcome)


@pytest.mark.rule("CAS-15")
def test_each_line_fits_the_json_schema_of_the_format(recorded: Tape) -> None:
    whole = json_schema()
    validator = Draft202012Validator({**whole["cassette"], "$defs": whole["$defs"]})  # type: ignore[dict-item]
    for line in lines(recorded.path):
        validator.validate(line)
    assert not validator.is_valid({"exchange": "chat", "hash": "0", "request": {}, "wire": {}})


@pytest.mark.rule("CAS-2")
def test_the_key_is_nowhere_in_the_file(recorded: Tape) -> None:
    text = recorded.path.read_text(encoding="utf-8")
    assert KEY not in text
    assert KEY[8:] not in text
    assert "slow down, [redacted]" in text
    assert "uthorization" not in text


@pytest.mark.rule("CAS-1")
def test_a_killed_worker_leaves_whole_lines_and_the_next_run_appends(spawn: Spawn, tmp_path: Path) -> None:
    path = tmp_path / "run.cassette"
    worker = spawn("--record", str(path))
    while not path.exists() or len(lines_that_parse(path)) < 20:  # ends with the condition: each chat adds a line
        worker.call("chat", OFFLINE)
    ended = os.pidfd_open(the_writer(worker, path))
    worker.process.send_signal(signal.SIGKILL)
    worker.process.wait()
    assert select.select([ended], [], [], WAIT_SECONDS)[0]  # it writes what it got before the worker was killed
    os.close(ended)
    whole = path.read_bytes()
    path.write_bytes(whole + whole.splitlines()[-1][:100])
    before = len(lines_that_parse(path))
    again = spawn("--record", str(path))
    again.call("chat", OFFLINE)
    again.end_input()
    assert again.exit_code() == 0
    assert len(lines_that_parse(path)) == before + 2  # the chat and its model


def the_writer(worker: Worker, path: Path) -> int:
    """The process that writes for the engine with LiteLLM. Another ends with the first engine; while one starts, two have the file
    open."""
    worker.call("models/list")
    found: list[set[str]] = [set()]

    def is_one() -> bool:
        found[0] = writing_to(path)
        return len(found[0]) == 1

    wait_until(is_one, "one process has the file open")
    return int(found[0].pop())


def writing_to(path: Path) -> set[str]:
    """Processes that have the file open."""
    found = set()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if os.readlink(link) == str(path):
                found.add(link.parts[2])
    return found


def lines_that_parse(path: Path) -> list[Json]:
    found = []
    for line in path.read_bytes().splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


@pytest.mark.rule("CAS-3")
def test_a_file_that_is_not_a_cassette_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("mine\n")
    command = [*COMMAND, "--stdio", "--record", str(path)]
    ended = subprocess.run(command, input=b"", capture_output=True, env=clean_environment(), timeout=60, check=False)
    assert (ended.returncode, path.read_text()) == (2, "mine\n")
    assert "not a cassette" in ended.stderr.decode()


@pytest.mark.rule("CAS-4", "CAS-9")
def test_engines_record_into_one_file_and_a_miss_is_recorded(spawn: Spawn, tmp_path: Path) -> None:
    path = tmp_path / "run.cassette"
    worker = spawn("--record", str(path), "--engines", "2")
    worker.call("chat", OFFLINE)
    worker.end_input()
    assert worker.exit_code() == 0
    assert len(exchanges(path)) == 1
    other = {"model": "offline/echo", "messages": messages("not there")}
    replay = spawn("--replay", str(path), "--replay-miss", "record")
    assert replay.call("chat", OFFLINE)["result"]["receipt"]["engine"]["name"] == "cassette"
    assert replay.call("chat", other)["result"]["receipt"]["engine"]["name"] == "offline"
    replay.end_input()
    assert replay.exit_code() == 0
    assert [line["request"]["params"]["messages"][0]["content"] for line in exchanges(path)] == ["hello there", "not there"]


@pytest.mark.rule("CAS-1", "CAS-4")
def test_engines_that_are_killed_amid_long_lines_leave_whole_lines_that_do_not_mix(spawn: Spawn, tmp_path: Path) -> None:
    """Each line has 2 MB; each engine has its own process that writes, and both are killed while they write."""
    path = tmp_path / "run.cassette"
    worker = spawn("--record", str(path), "--engines", "2")
    worker.call("models/list")
    wait_until(lambda: len(worker.call("status")["result"]["engines"]) == 2, "both engines are there")
    texts = [letter * 1_000_000 for letter in "abcdefghijkl"]

    def send_all() -> list[int]:
        return [worker.request("chat", {"model": "offline/echo", "messages": messages(text)}) for text in texts]

    for id in send_all():
        assert "result" in worker.response(id)
    wait_until(lambda: len(exchanges_of(path)) == len(texts), "the first round is written")
    second = send_all()
    wait_until(lambda: len(exchanges_of(path)) > len(texts), "a second round has begun to be written")
    for pid in [*(row["pid"] for row in worker.call("status")["result"]["engines"]), *writing_to(path)]:
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    for id in second:
        worker.response(id)  # a result or `engine_lost`
    worker.call("chat", OFFLINE)
    worker.end_input()
    assert worker.exit_code() == 0
    whole = exchanges_of(path)
    for line in whole:
        text = line["request"]["params"]["messages"][0]["content"]
        assert text in texts or text == OFFLINE["messages"][0]["content"]
        assert line["wire"]["result"]["content"] == text
    first = Counter(line["request"]["params"]["messages"][0]["content"][0] for line in whole)
    assert all(first[text[0]] >= 1 for text in texts)
    cassette = Cassette(str(path))
    assert len(cassette.index.exchanges) == len(whole)
    assert cassette.index.unread == len(path.read_bytes().splitlines()) - len(lines_that_parse(path))


def exchanges_of(path: Path) -> list[Json]:
    return [line for line in lines_that_parse(path) if "exchange" in line]


@pytest.mark.rule("CAS-1")
def test_a_worker_exits_after_the_last_line_is_written(spawn: Spawn, tmp_path: Path) -> None:
    path = tmp_path / "run.cassette"
    worker = spawn("--record", str(path))
    worker.call("chat", OFFLINE)
    writer = the_writer(worker, path)
    os.kill(writer, signal.SIGSTOP)  # a machine that is too busy for it
    for _ in range(5):
        worker.call("chat", OFFLINE)
    ended = os.pidfd_open(worker.process.pid)
    worker.end_input()
    assert not select.select([ended], [], [], 3)[0]  # LiteLLM's callbacks get two seconds
    os.close(ended)
    os.kill(writer, signal.SIGCONT)
    assert worker.exit_code() == 0
    assert len(exchanges(path)) == 6


@pytest.mark.rule("CAS-1")
def test_when_the_writing_process_is_killed_the_worker_serves_on_and_reports_it(spawn: Spawn, tmp_path: Path) -> None:
    path = tmp_path / "run.cassette"
    worker = spawn("--record", str(path))
    worker.call("chat", OFFLINE)
    os.kill(the_writer(worker, path), signal.SIGKILL)
    while "recording has stopped" not in worker.stderr:
        assert "result" in worker.call("chat", OFFLINE)
    worker.end_input()
    assert worker.exit_code() == 0


def test_the_start_of_a_replay_and_the_process_that_writes_load_no_pydantic() -> None:
    code = "import sys; from bridge_worker.cassettes import checks, writing_process; print('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout == "False\n"
