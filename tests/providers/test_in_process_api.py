"""`bridge_worker.chat` and `achat`: the method as a function, in a process that is somebody else's."""

from __future__ import annotations

import asyncio
import copy
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest

from bridge_worker import BridgeError, ChatResult, achat, chat
from bridge_worker.errors import KINDS
from tests.support.data import HELLO, KEY
from tests.support.upstream import Gate, Json, Upstream, chunk, reply_text
from tests.support.upstream_format import words
from tests.support.worker import WAIT_SECONDS, clean_environment

REPLY = reply_text("Grüße 🦜")
TOOLS = [
    {
        "type": "function",
        "function": {"name": "weather", "parameters": {"type": "object", "properties": {"days": {"type": "integer"}}}},
    }
]

# LiteLLM's types make pydantic warn, which no default filter shows; as errors these warnings would be faults of its streams.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince211"),
]


@pytest.fixture(scope="module", autouse=True)
def upstream() -> Iterator[Upstream]:
    with Upstream() as upstream, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", KEY)
        patch.setenv("OPENAI_BASE_URL", upstream.base_url)
        yield upstream


class Deltas(list[Json]):
    """An ``on_delta`` that keeps them."""

    async def __call__(self, delta: Json) -> None:
        self.append(delta)


# ---- what it returns ---------------------------------------------------------------------------------------------------------


@pytest.mark.rule("API-1")
def test_chat_returns_the_result() -> None:
    result = chat(HELLO, "openai/gpt-4o-mini")
    assert isinstance(result, ChatResult)
    assert (result.content, result.finish_reason, result.provider) == (REPLY, "stop", "openai")
    assert result.usage is not None
    assert result.usage.total_tokens == 21
    assert result.cost_usd is not None


@pytest.mark.rule("API-1")
def test_achat_takes_the_params_of_the_method(upstream: Upstream) -> None:
    asyncio.run(achat(HELLO, "openai/with-params", temperature=0.5, stop=["END"], deadlines={"total_ms": 60_000}))
    assert upstream.requests[-1].body == {"model": "with-params", "messages": HELLO, "temperature": 0.5, "stop": ["END"]}


@pytest.mark.rule("API-3")
def test_achat_hands_out_the_deltas_of_a_stream() -> None:
    deltas = Deltas()
    result = asyncio.run(achat(HELLO, "openai/streamed", stream=True, on_delta=deltas))
    assert [delta["content"] for delta in deltas] == words(REPLY)
    assert result.content == REPLY


@pytest.mark.rule("API-3")
def test_a_stream_waits_for_on_delta(upstream: Upstream) -> None:
    async def main() -> int:
        opened = asyncio.Event()

        async def on_delta(_: Json) -> None:
            await opened.wait()

        task = asyncio.create_task(achat(HELLO, "openai/endless", stream=True, on_delta=on_delta))
        request = await asyncio.to_thread(upstream.wait_for_request, "endless", 1, WAIT_SECONDS)
        stalled = await asyncio.to_thread(request.stalled.wait, WAIT_SECONDS)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.to_thread(request.wait_closed)
        return stalled

    assert asyncio.run(main())


def test_a_stream_without_on_delta_is_a_whole_result() -> None:
    assert chat(HELLO, "openai/streamed", stream=True).content == REPLY


def test_an_agents_turn_goes_round() -> None:
    first = chat(HELLO, "openai/turn", TOOLS)
    assert first.finish_reason == "tool_calls"
    tool_message = {"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": "snow"}
    assert chat([*HELLO, first.message, tool_message], "openai/turn", TOOLS).content == reply_text("snow")


def test_offline_models_are_there_too() -> None:
    assert chat([{"role": "user", "content": "here"}], "offline/echo").content == "here"


@pytest.mark.parametrize("model", ["openai/untouched", "offline/tools"])
def test_what_the_caller_gave_is_not_touched(model: str) -> None:
    messages = (
        *HELLO,
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "user", "content": [{"type": "text", "text": "x"}]},
    )
    given: Json = {"tools": TOOLS, "metadata": {"a": "b"}, "stop": ["x"], "response_format": {"type": "json_object"}}
    before = copy.deepcopy((messages, given))
    chat(messages, model, **given)
    assert (messages, given) == before


# ---- what it raises ----------------------------------------------------------------------------------------------------------


@pytest.mark.rule("API-2")
@pytest.mark.parametrize(
    ("model", "kind", "status"),
    [
        ("openai/status-401", "authentication", 401),
        ("openai/retry-after-7", "rate_limited", 429),
        ("openai/empty-choices", "bad_upstream_response", None),
        ("nobody/any", "model_not_found", None),
        ("offline/nobody", "model_not_found", None),
    ],
)
def test_an_error_is_what_the_wire_would_have(model: str, kind: str, status: int | None) -> None:
    with pytest.raises(BridgeError) as raised:
        chat(HELLO, model)
    error = raised.value
    assert (error.kind, error.status, error.model) == (kind, status, model)
    assert (error.code, error.retryable) == KINDS[kind][:2]
    assert error.data()["kind"] == kind
    assert KEY not in str(error)


@pytest.mark.rule("API-1", "API-2")
@pytest.mark.parametrize(
    ("params", "named"),
    [
        ({"api_base": "https://example.com"}, "api_base"),
        ({"temprature": 1}, "temprature"),
        ({"temperature": float("nan")}, "JSON"),
        ({"stop": object()}, "JSON"),
        ({"provider_params": {"top_k": 1}}, "provider_params.top_k"),
    ],
)
def test_the_checks_are_those_of_the_method(upstream: Upstream, params: Json, named: str) -> None:
    before = len(upstream.requests)
    with pytest.raises(BridgeError, match=named) as raised:
        chat(HELLO, "openai/any", **params)
    assert raised.value.kind == "invalid_request"
    assert len(upstream.requests) == before


def test_messages_that_are_not_messages_are_an_error() -> None:
    for messages in ([], [{"role": "nobody", "content": "x"}], [{"role": "user"}]):
        with pytest.raises(BridgeError, match="messages"):
            chat(messages, "openai/any")


def test_an_on_delta_that_raises_ends_the_stream(upstream: Upstream) -> None:
    async def on_delta(_: Json) -> None:
        raise LookupError("the host's own")

    with pytest.raises(LookupError, match="the host's own"):
        asyncio.run(achat(HELLO, "openai/hang-after-1", stream=True, on_delta=on_delta))
    upstream.wait_for_request(model="hang-after-1").wait_closed()


# ---- cancelling --------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("API-4")
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_cancelling_the_task_closes_the_connection(upstream: Upstream, stream: bool) -> None:
    gate = Gate()
    model = f"to-cancel-{stream}"
    upstream.script(model, chunks=[chunk({"content": "a"}), gate])

    async def main() -> bool:
        task = asyncio.create_task(achat(HELLO, f"openai/{model}", stream=stream, on_delta=Deltas()))
        await asyncio.to_thread(gate.wait_reached, WAIT_SECONDS)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(upstream.wait_for_request(model=model).wait_closed)
        return task.cancelled()

    assert asyncio.run(main())


@pytest.mark.rule("API-4")
def test_the_hosts_own_timeout_works(upstream: Upstream) -> None:
    async def main() -> None:
        async with asyncio.timeout(0.3):
            await achat(HELLO, "openai/hang")

    with pytest.raises(TimeoutError):
        asyncio.run(main())
    upstream.wait_for_request(model="hang").wait_closed()


# ---- threads and loops -------------------------------------------------------------------------------------------------------


@pytest.mark.rule("API-5")
def test_calls_of_several_threads_run_side_by_side(upstream: Upstream) -> None:
    gate = Gate()
    upstream.script("together", before=gate, body=chunk({}) | {"object": "chat.completion", "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "all"}, "finish_reason": "stop"}
    ]})  # fmt: skip
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(chat, HELLO, "openai/together") for _ in range(8)]
        upstream.wait_until(lambda: upstream.counts["together"] == 8, timeout=WAIT_SECONDS)
        gate.set()
        assert [call.result().content for call in calls] == ["all"] * 8


@pytest.mark.rule("API-5")
def test_chat_works_in_a_thread_that_runs_a_loop() -> None:
    async def main() -> Any:
        return chat(HELLO, "openai/within-a-loop").content

    assert asyncio.run(main()) == REPLY


def test_achats_of_one_loop_run_side_by_side() -> None:
    async def main() -> list[Any]:
        conversations = [[{"role": "user", "content": f"I am {i}"}] for i in range(20)]
        return [result.content for result in await asyncio.gather(*(achat(one, "openai/gathered") for one in conversations))]

    assert asyncio.run(main()) == [reply_text(f"I am {i}") for i in range(20)]


def test_each_loop_gets_its_own_connections() -> None:
    for _ in range(3):
        assert asyncio.run(achat(HELLO, "openai/new-loop")).content == REPLY


# ---- the host ----------------------------------------------------------------------------------------------------------------

HOST = """
import asyncio, json, logging, os, signal, sys, threading
logging.basicConfig(level=logging.DEBUG, filename=sys.argv[1])
def state():
    return [
        [(os.fstat(fd).st_dev, os.fstat(fd).st_ino) for fd in (0, 1, 2)],
        [str(signal.getsignal(number)) for number in sorted(signal.valid_signals())],
        [id(stream) for stream in (sys.stdin, sys.stdout, sys.stderr, sys.__stdout__)],
        [id(handler) for handler in logging.getLogger().handlers], logging.getLogger().level, logging.raiseExceptions,
        id(sys.excepthook), id(threading.excepthook), os.getcwd(), os.umask(0o022),
    ]
os.umask(0o022)
before = state()
from bridge_worker import BridgeError, achat, chat
messages = [{"role": "user", "content": "a private word"}]
said = [chat(messages, "openai/host").content]
said.append(asyncio.run(achat(messages, "openai/host", stream=True)).content)
for model in ("openai/status-401", "nobody/any", "openai/reset"):
    try:
        chat(messages, model)
    except BridgeError as error:
        said.append(error.kind)
assert state() == before, (before, state())
print(json.dumps(said))
"""


class Host(NamedTuple):
    process: subprocess.CompletedProcess[str]
    log: str


@pytest.fixture(scope="module")
def host(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Host:
    """A fresh process that logs all there is, to a file."""
    log = tmp_path_factory.mktemp("host") / "log"
    command = [sys.executable, "-I", "-X", "utf8", "-c", HOST, str(log)]
    env = clean_environment() | {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": upstream.base_url}
    done = subprocess.run(command, env=env, capture_output=True, text=True, encoding="utf-8", timeout=60, check=False)
    return Host(done, log.read_text(encoding="utf-8"))


@pytest.mark.rule("API-6")
def test_a_host_is_left_as_it_was(host: Host) -> None:
    assert host.process.returncode == 0, host.process.stderr
    expected = [reply_text("a private word")] * 2 + ["authentication", "model_not_found", "provider_unavailable"]
    assert json.loads(host.process.stdout.splitlines()[-1]) == expected


@pytest.mark.rule("API-6")
def test_nothing_is_printed_into_a_host(host: Host) -> None:
    assert host.process.stdout.splitlines()[:-1] == []
    assert host.process.stderr == ""


def test_neither_a_key_nor_chat_content_is_in_the_log_of_a_host(host: Host) -> None:
    assert KEY not in host.log
    assert "a private word" not in host.log


def test_the_package_can_be_imported_without_litellm() -> None:
    code = "import sys, bridge_worker; from bridge_worker import chat, BridgeError; print('litellm' in sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "False\n"


def test_a_name_that_the_package_does_not_have_is_an_attribute_error() -> None:
    import bridge_worker

    assert all(hasattr(bridge_worker, name) for name in bridge_worker.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = bridge_worker.no_such_name


@pytest.mark.rule("OFF-1")
def test_an_offline_chat_imports_no_litellm() -> None:
    program = (
        "import sys, bridge_worker\n"
        "bridge_worker.chat([{'role': 'user', 'content': 'hi'}], 'offline/echo')\n"
        "print('litellm' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, timeout=WAIT_SECONDS, check=False)
    assert (done.stdout, done.stderr) == ("False\n", "")
