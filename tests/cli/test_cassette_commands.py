"""The commands for cassettes, on files and with a real agent program; the report of doctor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bridge_worker.cassettes.canonical import canonical, hash_of
from tests.support.data import Json
from tests.support.worker import COMMAND, clean_environment

KEY = "sk-proj-Zx8Qw3Er5Ty7Ui9Op1As2Df4"
# An agent: it makes the chats that its arguments name, on a worker that inherits its environment.
AGENT = """
import json, subprocess, sys
lines = [{"jsonrpc": "2.0", "id": text, "method": "chat", "params": {"model": "offline/echo",
          "messages": [{"role": "user", "content": text}]}} for text in sys.argv[1:]]
command = json.loads(COMMAND) + ["--stdio"]
done = subprocess.run(command, input="".join(json.dumps(line) + "\\n" for line in lines).encode(), capture_output=True)
sys.stdout.write(done.stdout.decode())
sys.exit(done.returncode or any("error" in json.loads(line) for line in done.stdout.splitlines()))
"""


def run(*arguments: str, env: dict[str, str] | None = None) -> tuple[int, str, str]:
    environment = clean_environment() | (env or {})
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, env=environment, timeout=120, check=False)
    return done.returncode, done.stdout, done.stderr


def attempt(*texts: str, format: str = "openai_chat") -> Json:
    chunks = [{"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]} for text in texts]
    last = {"id": "c1", "model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in (*chunks, last)) + "data: [DONE]\n\n"
    known: Json = {"attempt": 0, "sent_ms": 1.0, "model": "m", "provider": "openai", "format": format, "renamed_tools": {}}
    known |= {"schema_tool": False, "status": 200, "response_headers": {}, "end": "whole"}
    return known | {"body": body, "reads": [[2.0, len(body.encode())]]}


def exchange(text: str, *pieces: str, cost: float = 0.5, **members: Any) -> Json:
    request = {"method": "chat", "params": {"messages": [{"content": text, "role": "user"}], "model": "openai/m", "stream": True}}
    content = "".join(pieces)
    nothing = ("reasoning", "refusal", "annotations", "usage", "cost_source", "price_map_date", "rate_limits", "logprobs")
    result: Json = dict.fromkeys(nothing) | {"content": content, "tool_calls": [], "finish_reason": "stop", "cost_usd": cost}
    attempts = [{"outcome": "ok", "status": None, "ms": 1.0, "model": "m", "provider": "openai", "deployment": None}]
    result |= {"raw_finish_reason": "stop", "message": {"role": "assistant", "content": content}, "model": "m", "id": "c1"}
    result |= {"requested_model": "openai/m", "provider": "openai", "timing": {"queued_ms": 0}}
    result |= {"receipt": {"attempts": attempts, "engine": {"name": "litellm-direct", "version": "1"}}}
    about = {"exchange": "chat", "hash": hash_of(canonical(request)), "request": request, "time": "2026-11-27T12:00:00.000Z"}
    wire = {"deltas": [[2.0, piece] for piece in pieces], "result": result}
    return about | {"ms": 3.0, "versions": {}, "provider": [attempt(*pieces)], "wire": wire} | members


def write(path: Path, *exchanges: Json) -> str:
    path.write_text("".join(json.dumps(line) + "\n" for line in ({"cassette": 1}, *exchanges)), encoding="utf-8")
    return str(path)


def test_show_has_a_row_for_each_exchange(tmp_path: Path) -> None:
    file = write(tmp_path / "c", exchange("one", "a", "b"), exchange("\x1b[2Jtwo", "c"))
    code, out, _ = run("cassette", "show", file)
    assert code == 0
    assert [line.split()[:5] for line in out.splitlines()[1:]] == [
        [number, "chat", "stream", "openai/m", "ok"] for number in ("1", "2")
    ]
    rows = json.loads(run("cassette", "show", file, "--json")[1])
    assert [(row["deltas"], row["cost_usd"], row["formats"]) for row in rows] == [
        (2, 0.5, ["openai_chat"]),
        (1, 0.5, ["openai_chat"]),
    ]


def test_diff_has_what_changed_between_two_runs(tmp_path: Path) -> None:
    a = write(tmp_path / "a", exchange("same", "x"), exchange("prompt", "old"), exchange("gone", "y"))
    b = write(tmp_path / "b", exchange("same", "x", cost=0.25), exchange("another prompt", "new"))
    code, out, _ = run("cassette", "diff", a, b, "--json")
    changes = json.loads(out)
    assert code == 1
    assert changes[0]["members"] == [{"member": "cost_usd", "a": 0.5, "b": 0.25}]
    assert [row["member"] for row in changes[1]["members"]] == ["request.params.messages.0.content", "content"]
    assert (changes[2]["a"], changes[2]["b"]) == (3, None)
    shown = run("cassette", "diff", a, b)[1]
    assert 'A "prompt"\n' in shown
    assert "only in A" in shown
    assert run("cassette", "diff", a, a)[:2] == (0, "no differences\n")


@pytest.mark.rule("CAS-21")
def test_verify_finds_what_todays_decoder_makes_otherwise(tmp_path: Path) -> None:
    good, without = exchange("one", "a", "b"), exchange("two", "c", provider=None)
    assert run("cassette", "verify", write(tmp_path / "good", good, without))[:2] == (0, "1 same, 0 differs, 1 no bytes\n")
    changed = exchange("one", "a", "b")
    changed["wire"]["result"]["content"] = "ab and more"
    forged = exchange("three", "d", hash="0" * 64)
    code, out, _ = run("cassette", "verify", write(tmp_path / "changed", changed, forged))
    assert code == 1
    assert '1 result.content: recorded "ab and more", now "ab"' in out
    assert "2 hash: recorded" in out
    code, _, err = run("cassette", "verify", write(tmp_path / "bad", exchange("x", "y", wire={"deltas": []})))
    assert (code, "an exchange can't be read" in err) == (2, True)


def test_scrub_masks_again_and_the_file_stays_a_cassette(tmp_path: Path) -> None:
    secret = "hunter2-but-much-longer"
    file = write(tmp_path / "c", exchange(f"my key is {KEY}", f"so {secret}"), exchange("other", "fine"))
    code, out, _ = run("cassette", "scrub", file, "--secret", "MINE", env={"MINE": secret})
    assert (code, out) == (0, f"{file}: 1 of 2 exchanges changed\n")
    text = Path(file).read_text()
    assert KEY not in text
    assert secret not in text
    assert "[redacted]" in text
    assert run("cassette", "verify", file)[0] == 0
    assert run("cassette", "scrub", file, "--secret", "NOT_SET")[0] == 2


@pytest.mark.rule("CAS-21")
def test_trim_keeps_what_an_agent_uses_and_a_failing_agent_changes_nothing(tmp_path: Path) -> None:
    agent = tmp_path / "agent.py"
    agent.write_text(AGENT.replace("COMMAND", repr(json.dumps(list(COMMAND)))))
    program = [sys.executable, str(agent)]
    file = tmp_path / "run.cassette"
    subprocess.run([*program, "one", "two", "three"], env=clean_environment() | {"OMNI_BRIDGE_RECORD": str(file)}, check=True)
    before = file.read_bytes()
    code, _, err = run("cassette", "trim", str(file), "--", *program, "not recorded")
    assert (code, file.read_bytes()) == (1, before)
    assert "was not changed" in err
    assert run("cassette", "trim", str(file), "--", sys.executable, "-c", "")[0] == 1  # it starts no worker
    code, out, err = run("cassette", "trim", str(file), "--", *program, "three", "one")
    assert code == 0, err
    assert out.endswith(f"{file}: 2 of 3 exchanges\n")
    rows = json.loads(run("cassette", "show", str(file), "--json")[1])
    assert len(rows) == 2
    replayed = subprocess.run([*program, "one", "three"], env=clean_environment() | {"OMNI_BRIDGE_REPLAY": str(file)}, check=False)
    assert replayed.returncode == 0


def test_a_file_that_is_not_a_cassette_is_an_error_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("hello\n")
    for command in ("show", "verify", "scrub"):
        code, _, err = run("cassette", command, str(tmp_path / "notes"))
        assert (code, "not a cassette" in err) == (2, True)


@pytest.mark.rule("CAS-22")
def test_the_report_of_doctor_is_a_cassette_without_keys_and_paths(tmp_path: Path) -> None:
    config = tmp_path / "gateway.yaml"
    config.write_text(
        "model_list:\n- model_name: m\n  litellm_params: {model: openai/m, api_key: plain-secret-of-mine-1, api_base: http://127.0.0.1:9}\n"
    )
    config.chmod(0o600)
    recorded = write(tmp_path / "c", exchange(f"my key is {KEY}", "fine"))
    report = tmp_path / "report"
    env = {"OPENAI_API_KEY": KEY, "HOME": str(tmp_path)}
    code, _, err = run("doctor", "--offline", "--config", str(config), "--report", str(report), "--cassette", recorded, env=env)
    assert code in (0, 1), err
    text = report.read_text()
    for secret in (KEY, "plain-secret-of-mine-1", str(tmp_path)):
        assert secret not in text
    header = json.loads(text.splitlines()[0])
    assert header["report"]["versions"]["litellm"]
    assert any("model_name: m" in line for line in header["report"]["config"])
    assert "omni-bridge" in [check["name"] for check in header["report"]["checks"]]
    assert report.stat().st_mode & 0o077 == 0
    assert run("cassette", "verify", str(report))[:2] == (0, "1 same, 0 differs, 0 no bytes\n")
    assert os.listdir(tmp_path).count("report") == 1
