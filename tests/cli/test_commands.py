"""The commands without a terminal: pipes, exit codes, one line for each error, and JSON for scripts."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge_worker.cli import commands, doctor_checks, doctor_probes, worker_process
from bridge_worker.providers import price_map
from bridge_worker.providers.facts import FIRST_MODELS
from bridge_worker.schema.chat_result import ChatResult
from tests.support.programs import program
from tests.support.upstream import Upstream
from tests.support.worker import COMMAND, WAIT_SECONDS, run, wait_until

NAMES = [name for names in commands.COMMANDS.values() for name in names]
ECHO = ("-m", "offline/echo")


def provider(upstream: Upstream) -> dict[str, str]:
    return {"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": upstream.base_url}


def shell(line: str, env: dict[str, str] | None = None, input: bytes = b"") -> tuple[int, str, str]:
    """A line of a shell in which ``omni-bridge`` is this one."""
    return run("-c", f'omni-bridge() {{ {shlex.join(COMMAND)} "$@"; }}\n{line}', command=["bash"], env=env, input=input)


def config_file(folder: Path, text: str) -> str:
    file = folder / "config.yaml"
    file.write_text(text)
    return str(file)


@pytest.fixture
def gateway(tmp_path: Path) -> str:
    deployments = [("first", "one"), ("second", "two")]
    listed = [f"  - {{model_name: {name}, litellm_params: {{model: openai/{model}}}}}" for name, model in deployments]
    return config_file(tmp_path, "\n".join(["model_list:", *listed]))


# ---- chat ----------------------------------------------------------------------------------------------------------------------


def test_stdout_has_the_response_and_nothing_else() -> None:
    assert run("chat", *ECHO, "hello", "Grüße 漢") == (0, "hello Grüße 漢\n", "")


def test_text_from_a_pipe_is_the_prompt_or_is_added_below_it() -> None:
    assert run("chat", *ECHO, input=b"from a pipe\n") == (0, "from a pipe\n", "")
    assert run("chat", *ECHO, "About this:", input=b"a\nb\n") == (0, "About this:\n\na\nb\n", "")


def test_json_is_the_whole_result_on_one_line() -> None:
    code, out, err = run("chat", *ECHO, "--json", "hello")
    assert (code, err, out.count("\n")) == (0, "", 1)
    assert ChatResult.model_validate_json(out).content == "hello"


def test_text_is_utf8_in_a_c_locale() -> None:
    assert run("chat", *ECHO, "Grüße 漢", env={"LC_ALL": "C", "LANG": "C"}) == (0, "Grüße 漢\n", "")


def test_the_model_comes_from_the_flag_or_the_environment_or_the_config_or_the_key(upstream: Upstream, gateway: str) -> None:
    assert run("chat", "hi", env={"OMNI_BRIDGE_MODEL": "offline/echo"}) == (0, "hi\n", "")
    assert run("chat", "--config", gateway, "hi", env=provider(upstream))[0] == 0
    assert run("chat", "hi", env=provider(upstream))[0] == 0
    assert [request.model for request in upstream.requests] == ["one", "gpt-5.4-mini"]


def test_without_a_model_one_line_names_the_variables_and_the_command_to_run() -> None:
    code, out, err = run("chat", "hi")
    assert (code, out, err.count("\n")) == (2, "", 1)
    for word in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "llama.cpp is installed", "omni-bridge chat -m local/smollm2"):
        assert word in err


@pytest.mark.parametrize("variable", FIRST_MODELS)
def test_each_keys_first_model_is_a_chat_model_without_an_announced_end(variable: str) -> None:
    known = {name: facts for name, _, facts in price_map.rows()}
    facts = known[FIRST_MODELS[variable]]
    assert (facts["mode"], facts.get("deprecation_date")) == ("chat", None)


def test_a_reader_that_stops_reading_stops_the_cost_silently(upstream: Upstream) -> None:
    code, out, err = shell("omni-bridge chat -m openai/endless hello | head -c 20", env=provider(upstream))
    assert (code, len(out), err) == (0, 20, "")
    upstream.wait_for_request(model="endless").wait_closed(timeout=30)


# ---- errors --------------------------------------------------------------------------------------------------------------------

WRONG: dict[str, tuple[list[str], int, str]] = {
    "an unknown command": (["bogus"], 2, "see omni-bridge --help"),
    "an unknown option": (["chat", "--bogus"], 2, "see omni-bridge chat --help"),
    "a word instead of a number": (["chat", "--max-tokens", "none", "hi"], 2, "see omni-bridge chat --help"),
    "no prompt": (["chat", *ECHO], 2, "pass PROMPT"),
    "an unknown offline model": (["chat", "-m", "offline/none", "hi"], 2, "offline/echo"),
    "a config that does not exist": (["chat", "--config", "/nowhere", "hi"], 2, "--config"),
    "the same with a model": (["chat", "--config", "/nowhere", *ECHO, "hi"], 2, "--config"),
    "the same for models": (["models", "--config", "/nowhere"], 2, "--config"),
    "a prompt that is not UTF-8": (["chat", *ECHO, b"\xff".decode("utf-8", "surrogateescape")], 2, "UTF-8"),
    "a file that does not exist": (["tokens", "/nowhere"], 2, "does not exist"),
    "a folder": (["replay", "/"], 2, "is a directory"),
    "an empty recording": (["replay", "/dev/null"], 2, "accepted formats"),
    "an unknown shell": (["completion", "tcsh"], 2, "bash"),
    "a search that finds nothing": (["models", "no-such-name"], 1, "fewer words"),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_error_is_one_line_with_a_hint_and_an_exit_code(name: str) -> None:
    words, code, hint = WRONG[name]
    got, out, err = run(*words)
    assert (got, out) == (code, "")
    assert err.startswith("omni-bridge: "), err
    assert err.count("\n") == 1, err
    assert hint in err


def test_input_that_is_not_utf8_is_reported_with_its_position() -> None:
    code, out, err = run("chat", *ECHO, input=b"ab\xff")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "at byte 2" in err


def test_a_text_that_is_too_long_for_the_worker_is_an_error_and_no_silence() -> None:
    code, out, err = run("chat", *ECHO, input=b"x" * 3000, env={"OMNI_BRIDGE_MAX_MESSAGE_BYTES": "2000"})
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "2000" in err


def test_an_internal_error_of_a_command_is_one_line_with_the_address_for_reports(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(worker_process, "own_command", lambda: 1 / 0)
    assert commands._code_of(["replay", str(Path(__file__))]) == 70
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "ZeroDivisionError at test_commands.py" in err
    assert "report" in err


@pytest.mark.parametrize("line", ["omni-bridge schema | head -1", "omni-bridge models | head -1", "omni-bridge demo | head -3"])
def test_a_closed_pipe_is_silent(line: str) -> None:
    code, out, err = shell(f"{line}; exit ${{PIPESTATUS[0]}}")
    assert (code, err) == (0, "")
    assert out.count("\n") <= 3


# ---- help, versions, completion -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_each_command_has_help_that_fits_a_terminal(name: str) -> None:
    code, out, err = run(name, "--help", env={"COLUMNS": "80"})
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: omni-bridge {name}")
    assert max(map(len, out.splitlines())) <= 100


def test_the_list_of_commands_has_one_line_for_each() -> None:
    code, out, err = run("--help", env={"COLUMNS": "100"})
    assert (code, err) == (0, "")
    lines = {line.split()[0]: line for line in out.splitlines() if line.startswith("  ") and line.split()}
    assert [name for name in NAMES if name not in lines] == []
    assert [name for name in NAMES if "..." in lines[name]] == []


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_a_completion_script_is_one_that_its_shell_reads(name: str) -> None:
    code, out, err = run("completion", name)
    assert (code, err) == (0, "")
    assert "_OMNI_BRIDGE_COMPLETE" in out
    if shutil.which(name):
        subprocess.run([name, "-n"], input=out.encode(), check=True, timeout=WAIT_SECONDS)


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("omni-bridge do", "doctor"),
        ("omni-bridge chat --max", "--max-tokens"),
        ("omni-bridge chat -m openai/gpt-4o-m", "openai/gpt-4o-mini"),
    ],
)
def test_bash_completes_commands_flags_and_models(typed: str, offered: str) -> None:
    words = typed.split()
    complete = f"""eval "$(omni-bridge completion bash)"
COMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}
_omni_bridge_completion omni-bridge
printf '%s\\n' "${{COMPREPLY[@]}}" """
    # The script starts a program, which a function is not.
    program = f'cd "$(mktemp -d)"; printf \'#!/bin/sh\\nexec {shlex.join(COMMAND)} "$@"\\n\' >omni-bridge; chmod +x omni-bridge'
    code, out, err = run("-c", f"{program}; PATH=$PWD:$PATH\n{complete}", command=["bash"])
    assert (code, err) == (0, "")
    assert offered in out.splitlines()


# ---- models, tokens -----------------------------------------------------------------------------------------------------------


def test_models_are_searched_and_their_prices_are_a_millions() -> None:
    code, out, err = run("models", "openai/gpt-4o-MINI", "--json")
    assert (code, err) == (0, "")
    found = {row["model"]: row for row in json.loads(out)}
    assert all("openai/gpt-4o-mini" in name for name in found)
    row = found["openai/gpt-4o-mini"]
    assert (row["input_usd_per_million"], row["output_usd_per_million"]) == (0.15, 0.6)
    assert (row["context_tokens"], row["key_present"]) == (128000, None)
    assert {"tools", "vision"} <= set(row["can"])


def test_models_with_a_key_are_those_and_what_needs_none() -> None:
    code, out, err = run("models", "--key", "--json", env={"MISTRAL_API_KEY": "x"})
    assert (code, err) == (0, "")
    assert {row["provider"] for row in json.loads(out)} == {"mistral", "offline", "local"}


def test_a_table_in_a_pipe_is_plain_and_whole() -> None:
    code, out, err = run("models", "claude-haiku-4-5", "anthropic/", env={"ANTHROPIC_API_KEY": "x", "COLUMNS": "20"})
    assert (code, err) == (0, "")
    head, *rows = [line.split() for line in out.splitlines()]
    assert head[0] == "model"
    assert any(row[:6] == ["anthropic/claude-haiku-4-5", "chat", "1.00", "5.00", "200k", "yes"] for row in rows)
    assert "\x1b" not in out


def test_a_configs_models_are_its_own(gateway: str) -> None:
    code, out, err = run("models", "--config", gateway, "--json")
    assert (code, err) == (0, "")
    rows = {row["model"]: row for row in json.loads(out)}
    assert {"first", "second"} <= set(rows)
    assert rows["first"]["key_present"] is False
    assert not any(name.startswith("anthropic/") for name in rows)


def test_tokens_are_counted_in_a_file_a_pipe_and_a_text(tmp_path: Path) -> None:
    file = tmp_path / "text"
    file.write_text("one two three")
    assert run("tokens", *ECHO, str(file)) == (0, "3\n", "")
    assert run("tokens", *ECHO, input=b"one two") == (0, "2\n", "")
    code, out, err = run("tokens", *ECHO, "--json", "--text", "one two three")
    assert (code, err) == (0, "")
    assert json.loads(out) == {"model": "offline/echo", "input_tokens": 3, "tokenizer": "words", "exact": True}


# ---- replay -------------------------------------------------------------------------------------------------------------------


def test_lines_are_replayed_unchanged_and_both_directions_are_shown(tmp_path: Path) -> None:
    recorded = tmp_path / "recorded"
    request = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "chat",
        "params": {"model": "offline/echo", "messages": [{"role": "user", "content": "hi"}]},
    }
    recorded.write_text(json.dumps(request) + "\nno JSON\n")
    code, out, err = run("replay", str(recorded))
    assert (code, err) == (0, "")
    lines = [line.split(None, 2) for line in out.splitlines()]
    assert [line[2] for line in lines if line[1] == "-->"] == [json.dumps(request), "no JSON"]
    responses = {(message := json.loads(line[2]))["id"]: message for line in lines if line[1] == "<--"}
    assert responses[1]["result"]["content"] == "hi"
    assert responses[None]["error"]["code"] == -32700
    assert "2 lines to the worker, 2 from it" in out


def test_what_replay_printed_can_be_replayed_and_a_line_waits_for_what_it_waited_for(tmp_path: Path) -> None:
    message = {"role": "user", "content": "w " * 200_000}
    params = {"model": "offline/echo", "stream": True, "messages": [message]}
    chat = "> " + json.dumps({"jsonrpc": "2.0", "id": "a", "method": "chat", "params": params})
    delta = '< {"jsonrpc":"2.0","method":"notifications/chat/delta","params":{"requestId":"a","seq":0,"delta":{"content":"w"}}}'
    stop = '> {"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"a"}}'
    end = '< {"jsonrpc":"2.0","id":"a","error":{}}'
    after = '> {"jsonrpc":"2.0","id":2,"method":"ping"}'
    recorded = "\n".join([chat, delta, stop, end, after])
    printed = []
    for _ in range(2):
        code, recorded, err = run("replay", "-", input=recorded.encode())
        assert (code, err) == (0, "")
        printed.append([line.split(None, 2) for line in recorded.splitlines()[:-1]])
    for lines in printed:
        arrows = [line[1] for line in lines]
        assert arrows[0] == "-->"
        assert arrows[1] == "<--"  # the cancel waited for a delta
        assert '"kind":"cancelled"' in lines[-3][2]
        assert (lines[-2][1], lines[-1][2]) == ("-->", '{"jsonrpc":"2.0","id":2,"result":{}}')


def test_the_last_run_of_a_trace_can_be_replayed(tmp_path: Path) -> None:
    trace, ping = tmp_path / "trace", '{"jsonrpc":"2.0","id":1,"method":"ping"}'
    for lines in ('{"jsonrpc":"2.0","id":"old","method":"ping"}\n', f"{ping}\nno JSON\n"):
        assert run("--stdio", "--trace", str(trace), "--trace-content", "full", input=lines.encode())[0] == 0
    code, out, err = run("replay", "-", input=trace.read_bytes() + b'{"pid":2,"cut')
    assert (code, err) == (0, "")
    sent = [line.split(None, 2)[2] for line in out.splitlines() if "-->" in line]
    assert [json.loads(sent[0]), sent[1:]] == [json.loads(ping), ["no JSON"]]
    assert "old" not in out


def test_replay_can_show_a_message_over_many_lines_and_ends_with_the_workers_exit_code(tmp_path: Path) -> None:
    code, out, err = run("replay", "--indent", "-", input=b'{"jsonrpc":"2.0","id":1,"method":"shutdown"}\n{"late":1}\n')
    assert (code, err) == (0, "")
    assert '"method": "shutdown"\n' in out


# ---- doctor -------------------------------------------------------------------------------------------------------------------

Checks = dict[str, dict[str, Any]]


def doctor(*words: str, env: dict[str, str]) -> tuple[int, Checks]:
    code, out, err = run("doctor", "--json", *words, env=env)
    assert err == ""
    report = json.loads(out)
    assert report["ok"] is (code == 0)
    for check in report["checks"]:
        assert bool(check["hint"]) == (check["status"] in ("note", "problem")), check
    return code, {check["name"]: check for check in report["checks"]}


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[str]:
    """The URL of one."""
    socket = tmp_path / "redis"
    command = [program("redis-server"), "--port", "0", "--unixsocket", str(socket), "--save", ""]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    wait_until(socket.exists, "redis-server's socket")
    yield f"unix://{socket}"
    server.kill()
    server.wait()


def test_doctor_calls_each_configured_model_and_hints_at_a_fix_for_those_that_fail(
    upstream: Upstream, tmp_path: Path, redis: str
) -> None:
    names = {"good": "openai/one", "bad": "openai/status-401", "gone": "anthropic/claude-haiku-4-5", "odd": "nobody/knows"}
    listed = [f"  - {{model_name: {name}, litellm_params: {{model: {model}}}}}" for name, model in names.items()]
    config = config_file(tmp_path, "\n".join(["model_list:", *listed, f"router_settings: {{redis_url: '{redis}'}}"]))
    Path(config).chmod(0o666)
    code, found = doctor("--config", config, env=provider(upstream))
    assert code == 1
    assert {name: found[name]["status"] for name in names if name != "odd"} == {"good": "ok", "bad": "problem", "gone": "problem"}
    assert "model_list[3]: LiteLLM leaves it out" in found["worker's log"]["detail"]
    assert "ANTHROPIC_API_KEY" in found["gone"]["hint"]
    assert (found["stdout"]["status"], found["Redis"]["status"]) == ("ok", "ok")
    assert [check["hint"] for check in found.values() if "chmod" in check["hint"]] == [f"chmod go-w {config}"]
    assert len(upstream.requests) == 2


def test_doctor_calls_each_deployment_by_itself_and_a_fallback_proves_nothing(upstream: Upstream, tmp_path: Path) -> None:
    models = [("main", "status-401"), ("spare", "one"), ("shared", "one"), ("shared", "status-403")]
    listed = [f"  - {{model_name: {name}, litellm_params: {{model: openai/{model}}}}}" for name, model in models]
    rest = ["router_settings: {fallbacks: [{main: [spare]}]}", "litellm_settings: {default_fallbacks: [spare]}"]
    config = config_file(tmp_path, "\n".join(["model_list:", *listed, *rest]))
    Path(config).chmod(0o600)
    code, found = doctor("--config", config, env=provider(upstream))
    assert code == 1
    wanted = {"main": "problem", "spare": "ok", "shared [2] openai/one": "ok", "shared [3] openai/status-403": "problem"}
    assert {name: found[name]["status"] for name in wanted} == wanted


def test_doctor_without_a_config_lists_keys_by_name_only_and_a_table_without_problems() -> None:
    code, out, err = run("doctor", "--offline", env={"OPENAI_API_KEY": "sk-secret"})
    assert (code, err) == (0, "")
    assert "openai (OPENAI_API_KEY)" in out
    assert "sk-secret" not in out
    assert any(line.startswith("openai/gpt-5.4-mini") and "skipped" in line for line in out.splitlines())
    assert any(line.startswith("local/smollm2") and " ok " in line for line in out.splitlines())
    assert out.endswith("no problems found\n")


@pytest.mark.parametrize(("state", "hint"), [("lost", "start it"), ("not_installed", "omni-bridge[redis]")])
def test_an_unreachable_redis_is_a_problem_with_a_hint(state: str, hint: str) -> None:
    (check,) = doctor_checks.of_redis(state)
    assert check.status == "problem"
    assert hint in check.hint


def test_doctor_reports_an_error_in_the_config(tmp_path: Path) -> None:
    code, found = doctor("--config", config_file(tmp_path, "model_list: 7"), env={})
    assert (code, found["config"]["status"]) == (1, "problem")
    assert "model_list" in found["config"]["detail"]


def test_a_line_in_a_trace_that_is_not_a_record_is_named(tmp_path: Path) -> None:
    file = tmp_path / "trace"
    file.write_text('{"trace":1}\n[]\n{"pid":1}\n')
    code, out, err = run("replay", str(file))
    assert (code, out) == (2, "")
    assert "line 2 is not a trace record; accepted formats: omni-bridge replay --help" in err


def test_doctor_shows_the_last_log_line_of_a_worker_that_does_not_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(worker_process, "own_command", lambda: [sys.executable, "-c", "import sys; sys.exit('cannot start')"])
    assert commands._code_of(["doctor", "--json", "--offline"]) == 1
    found = {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert found["worker"]["status"] == "problem"
    assert found["worker"]["detail"] == "the worker ended without a response (exit code 1); its log is above: cannot start"


@pytest.mark.rule("TRC-9")
def test_doctor_reports_an_engine_process_that_was_lost() -> None:
    fields = {"pid": 4711, "how": "signal 11 (SIGSEGV)", "requests": 2}
    line = {"level": "error", "logger": "bridge_worker.engines.supervisor", "message": "an engine process is lost"} | fields
    (check,) = doctor_probes.of_log([json.dumps(line)])
    assert (check.name, check.status) == ("engines", "problem")
    assert check.detail == "process 4711 was lost (signal 11 (SIGSEGV)) with 2 requests"


def test_doctor_reports_a_line_on_stdout_that_is_not_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_process, "own_command", lambda: [sys.executable, "-c", "print('Provider List')"])
    with worker_process.Worker() as chatty:
        assert chatty.wait() == 0
    check = doctor_probes.of_stdout(chatty)
    assert (check.status, check.detail) == ("problem", "not only messages: Provider List")
    monkeypatch.setattr(worker_process, "own_command", lambda: [*COMMAND])
    with worker_process.Worker() as clean:
        clean.call("ping", {})
    assert doctor_probes.of_stdout(clean).status == "ok"
