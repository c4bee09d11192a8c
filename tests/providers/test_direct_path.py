"""The direct engine against the ordinary path: the same request arrives, and the same comes of it.

Every case of the fidelity matrix, every fault of the stand-in, generated conversations, cancels and slow readers go both ways, in
this process. A provider is in the engine's list because it is in `WIRES` here, and the list has no other.
"""

from __future__ import annotations

import asyncio
import copy
import json
import re
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from typing import Any, NamedTuple

import litellm
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from litellm.integrations.custom_logger import CustomLogger
from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler

from bridge_worker.backends.litellm import direct, path_selection, prologue_cache
from bridge_worker.backends.litellm.chat import LiteLLM
from bridge_worker.core.chat_runner import chat_request, run_chat
from bridge_worker.errors import BridgeError
from tests.conftest import Spawn
from tests.providers.test_fidelity import Provider
from tests.support.cases import TOOLS, WEATHER, Case, cases, tool
from tests.support.provider_formats import FORMATS, Format, OpenAI, environment
from tests.support.upstream import BEHAVIOURS, DONE, USAGE, Gate, Upstream, chunk
from tests.support.worker import WAIT_SECONDS, Json

# LiteLLM's types make pydantic warn.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*`ReadOnly` qualifier:UserWarning"),
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning"),
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince211"),
]

SPOKEN = ("openai", "mistral", "vllm", "anthropic", "gemini", "cohere")  # of tests.support.provider_formats
# Model -> the beginning of the names of its key and base URL. They speak OpenAI's format.
LIKE_OPENAI = {
    "together_ai/meta-llama/Llama-3.3-70B-Instruct-Turbo": "TOGETHER_AI",
    "perplexity/sonar": "PERPLEXITY",
    "xai/grok-3": "XAI",
    "deepseek/deepseek-chat": "DEEPSEEK",
    "openrouter/openai/gpt-4o": "OPENROUTER",
    "fireworks_ai/accounts/fireworks/models/llama-v3p1-8b-instruct": "FIREWORKS",
    "groq/llama-3.3-70b-versatile": "GROQ",
    "nvidia_nim/meta/llama3-70b-instruct": "NVIDIA_NIM",
    "cerebras/llama3.1-70b": "CEREBRAS",
    "lm_studio/qwen": "LM_STUDIO",
}


def like_openai(model: str) -> Format:
    wire = OpenAI()
    wire.name, wire.model = model.partition("/")[0], model  # type: ignore[misc]  # of this one
    return wire


WIRES = [*(FORMATS[name] for name in SPOKEN), *map(like_openai, LIKE_OPENAI)]
PROVIDERS = {litellm.get_llm_provider(wire.model)[1] for wire in WIRES}


def all_cases() -> Iterator[Case]:
    known = [case for case in cases() if case.wire.name in SPOKEN]
    yield from known
    for wire in WIRES[len(SPOKEN) :]:
        # Nothing in a long answer is a provider's own, and it takes half a second.
        yield from (case._replace(wire=wire) for case in known if case.wire.name == "openai" and "long" not in case.feature.name)


# --- both ways ------------------------------------------------------------------------------------------------------------------


class Outcome(NamedTuple):
    """``told`` is the result or error without what no two answers have in common; ``sent`` what arrived at the provider."""

    told: Json
    deltas: list[Json]
    sent: list[tuple[str, str, Json, bytes]]
    engine: str


class Both:
    """One ordinary path, one direct engine, and the loop that both run in."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self._runner = runner
        self.ordinary = LiteLLM()
        self.direct = direct.Direct(self.ordinary, remembers=False)
        self.remembering = direct.Direct(self.ordinary)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self._runner.run(work)

    def ask(self, upstream: Upstream, params: Json) -> tuple[Outcome, Outcome]:
        ordinary, ours = (self.run(outcome(model, upstream, params)) for model in (self.ordinary, self.direct))
        return ordinary, ours

    def once_more(self, upstream: Upstream, params: Json) -> Outcome:
        """By what LiteLLM's prologue came to for another conversation with the same options."""
        self.run(chat(self.remembering, params | {"messages": [{"role": "user", "content": "something else"}]}))
        again: Outcome = self.run(outcome(self.remembering, upstream, params))
        return again

    def assert_equal(self, upstream: Upstream, params: Json, *, unsent: bool | None = False) -> Outcome:
        """``unsent``: it fails before anything is sent, and the ordinary path says so; None: either."""
        ordinary, ours = self.ask(upstream, params)
        assert ours[:3] == ordinary[:3]
        assert ordinary.engine == "litellm"
        assert self.once_more(upstream, params) == ours
        if unsent is not None:
            assert ours.engine == ("litellm" if unsent else "litellm-direct")
        return ours


async def outcome(model: Any, upstream: Upstream, params: Json) -> Outcome:
    before = len(upstream.requests)
    told, deltas = await chat(model, params)
    receipt = told["receipt"]
    if told.get("retry_after_ms"):  # from a date: it depends on when it is read
        told["retry_after_ms"] = round(told["retry_after_ms"], -4)
    engine = receipt.pop("engine")["name"]
    for attempt in receipt["attempts"]:
        del attempt["ms"]
    told.pop("timing", None)
    sent = [(request.method, request.path, dict(request.headers), request.raw) for request in upstream.requests[before:]]
    return Outcome(without_ids(told), without_ids(deltas), sent, engine)


async def chat(model: Any, params: Json, on_delta: Callable[[Json], Awaitable[None]] | None = None) -> tuple[Json, list[Json]]:
    deltas: list[Json] = []

    async def emit(delta: Json) -> None:
        deltas.append(delta)
        if on_delta:
            await on_delta(delta)

    async def find(name: str) -> Any:
        return model

    try:
        result = await run_chat(chat_request(copy.deepcopy(params), time.monotonic()), find, emit)
    except BridgeError as error:
        facts = {name: getattr(error, name) for name in ("kind", "message", "retry_after_ms", "provider", "model", "status")}
        return facts | error.extra, deltas
    return result.model_dump(), deltas


def without_ids(told: Any) -> Any:
    """LiteLLM makes up ids where a provider has none, and the stand-in counts its answers. The first is 0, the second 1."""
    ids: dict[str, str] = {}
    text = json.dumps(told)
    pattern = r"((?:chatcmpl-|call_|\")[0-9a-f]{8}-?[0-9a-f-]{16,27}|chatcmpl-[\w-]+-\d+)(?=\")"
    return json.loads(re.sub(pattern, lambda found: ids.setdefault(found[0], f"{found[0][:1]}#{len(ids)}"), text))


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with Provider() as provider:
        yield provider


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def both(provider: Provider) -> Iterator[Both]:
    with pytest.MonkeyPatch.context() as patch, asyncio.Runner() as runner:
        for name, value in environment(provider.origin).items():
            patch.setenv(name, value)
        for prefix in LIKE_OPENAI.values():
            patch.setenv(f"{prefix}_API_KEY", f"key-of-{prefix}")
            patch.setenv(f"{prefix}_API_BASE", f"{provider.origin}/v1")
        patch.setattr(litellm, "callbacks", [])
        patch.setattr(litellm, "REPEATED_STREAMING_CHUNK_LIMIT", 10**9)  # as in a worker, where it is read at LiteLLM's import
        both = Both(runner)
        yield both
        runner.run(both.direct.aclose())


@pytest.fixture
def openai(both: Both, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> Upstream:
    """OpenAI is the stand-in whose model names say what it does."""
    monkeypatch.setenv("OPENAI_BASE_URL", upstream.base_url)
    return upstream


def asked(model: str, **params: Any) -> Json:
    return {"model": model, "messages": [{"role": "user", "content": "hello"}], **params}


# --- proved equal ---------------------------------------------------------------------------------------------------------------

# What fails before anything is sent: LiteLLM says what the provider has no parameter for, or can't fetch an image for it.
NO_TOOLS = {"perplexity", "fireworks_ai"}


@pytest.mark.rule("RCP-5")
@pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in all_cases()])
def test_a_case_of_the_matrix_comes_out_equal(case: Case, both: Both, provider: Provider) -> None:
    provider.play(case)
    ordinary, ours = both.ask(provider, case.params())

    assert ours[:3] == ordinary[:3]
    assert ours.engine == ("litellm-direct" if ours.sent else "litellm")
    if case.wire.name in SPOKEN:  # the others have it with generated conversations
        assert both.once_more(provider, case.params()) == ours


def test_the_proven_list_is_what_was_proved() -> None:
    assert set(direct.PROVEN) == PROVIDERS, "a provider enters PROVEN in models/direct.py by entering WIRES here, and passing"


QUIET = {"hang", "hang-after-headers", "hang-after"}
# No faults, or, the last, one that asks how often it was asked.
OTHERS = {"endless", "slow", "huge", "chunks", "flaky"}


@pytest.mark.parametrize("name", sorted(set(BEHAVIOURS) - QUIET - OTHERS))
def test_every_fault_comes_out_equal(name: str, both: Both, openai: Upstream, streamed: bool) -> None:
    model = f"openai/{name}-502" if name == "status" else f"openai/{name}"
    tools = {"tools": TOOLS} if name.startswith("tools-") else {}
    both.assert_equal(openai, asked(model, stream=streamed, **tools))


@pytest.mark.parametrize("name", sorted(QUIET))
def test_silence_ends_in_the_same_deadline(name: str, both: Both, openai: Upstream, streamed: bool) -> None:
    if name == "hang-after" and not streamed:
        return
    deadlines = {"total_ms": 300, "idle_ms": 200}
    ordinary, ours = both.ask(openai, asked(f"openai/{name}", stream=streamed, deadlines=deadlines))

    assert ours[:3] == ordinary[:3]
    assert (ours.told["kind"], ours.engine) == ("timeout", "litellm-direct")
    for nth in (-1, -2):
        openai.requests[nth].wait_closed(WAIT_SECONDS)


def test_nobody_there_comes_out_equal(both: Both, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, streamed: bool) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", upstream.refused_url)
    ours = both.assert_equal(upstream, asked("openai/gpt-4o-mini", stream=streamed))
    assert ours.told["kind"] == "provider_unavailable"


def test_a_missing_key_is_told_by_the_ordinary_path(
    both: Both, openai: Upstream, monkeypatch: pytest.MonkeyPatch, streamed: bool
) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    ours = both.assert_equal(openai, asked("anthropic/claude-sonnet-4-5", stream=streamed), unsent=True)
    assert (ours.told["kind"], ours.sent) == ("authentication", [])


def test_what_a_litellm_proxy_tells_of_cost_comes_out_equal(both: Both, openai: Upstream) -> None:
    """Of a stream's cost a proxy tells nothing, and the ordinary path takes LiteLLM's own figure for the proxy's; see PROVEN."""
    told = {"x-litellm-version": "1.106.2", "x-litellm-response-cost": "0.125", "x-ratelimit-remaining-requests": "7"}
    choice = {"index": 0, "message": {"role": "assistant", "content": "so"}, "finish_reason": "stop"}
    said = {"id": "a", "object": "chat.completion", "created": 1, "model": "gpt-4o", "usage": USAGE, "choices": [choice]}
    openai.script("told", body=said, headers=told)
    ours = both.assert_equal(openai, asked("openai/told"))
    assert ours.told["rate_limits"]["requests_remaining"] == 7
    assert (ours.told["cost_usd"], ours.told["cost_source"]) == (0.125, "provider")


@pytest.mark.parametrize("status", [302, 307])
def test_a_redirect_is_followed_as_ever(status: int, both: Both, openai: Upstream) -> None:
    model = f"moved-{status}"
    openai.script(model, status=status, headers={"location": f"{openai.base_url}/chat/completions?moved"}, body={})
    ordinary, ours = both.ask(openai, asked(f"openai/{model}"))
    assert (ours.told, ours.engine) == (ordinary.told, "litellm-direct")


@pytest.mark.parametrize("events", [["error"], [None, "error"], ["odd_reason"]])
def test_odd_finish_reasons_come_out_equal(events: list[str | None], both: Both, openai: Upstream) -> None:
    model = f"odd-{len(openai.requests)}"
    chunks = [chunk({"role": "assistant", "content": "so"}), *(chunk({}, reason) for reason in events), DONE]
    openai.script(model, chunks=chunks)
    both.assert_equal(openai, asked(f"openai/{model}", stream=True))


# --- generated conversations and params -----------------------------------------------------------------------------------------

words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)
calls = st.builds(
    lambda number, city: {
        "id": f"call_{number}",
        "type": "function",
        "function": {"name": "get_weather", "arguments": json.dumps({"city": city})},
    },
    st.integers(0, 99),
    words,
)


def turns(made: Sequence[tuple[str, str, Json]]) -> list[Json]:
    messages: list[Json] = []
    for kind, text, call in made:
        if kind == "call":
            messages.append({"role": "assistant", "content": text, "tool_calls": [call]})
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": text})
        else:
            messages.append({"role": kind, "content": text if kind != "user" else [{"type": "text", "text": text}]})
    return [*messages, {"role": "user", "content": "and?"}]


conversations = st.lists(
    st.tuples(st.sampled_from(["system", "developer", "user", "assistant", "call"]), words, calls), max_size=5
).map(turns)
params_of_a_chat = st.fixed_dictionaries(
    {},
    optional={
        "tools": st.sampled_from([TOOLS, [tool("find", WEATHER, strict=True)]]),
        "tool_choice": st.sampled_from(["none", "auto", "required", {"type": "function", "function": {"name": "get_time"}}]),
        "parallel_tool_calls": st.booleans(),
        "temperature": st.sampled_from([0, 0.0, 0.3, 1, 2.0]),
        "top_p": st.sampled_from([0.1, 1]),
        "max_tokens": st.integers(1, 5000),
        "max_completion_tokens": st.integers(1, 5000),
        "stop": st.one_of(words, st.lists(words, min_size=1, max_size=3)),
        "seed": st.integers(0, 99),
        "response_format": st.sampled_from([{"type": "text"}, {"type": "json_object"}]),
        "reasoning_effort": st.sampled_from(["none", "minimal", "low", "high"]),
        "thinking": st.sampled_from([{"type": "enabled", "budget_tokens": 1024}, {"type": "disabled"}]),
        "frequency_penalty": st.sampled_from([0.5, -1]),
        "presence_penalty": st.sampled_from([0.5, -1]),
        "logit_bias": st.just({"50256": -100}),
        "logprobs": st.booleans(),
        "top_logprobs": st.integers(0, 3),
        "user": words,
        "metadata": st.dictionaries(words, words, max_size=2),
    },
)
ASKED = ("openai/gpt-4o-mini", "openai/gpt-5.1", "openai/o3-mini", *(wire.model for wire in WIRES[1:]))


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(ASKED), conversations, params_of_a_chat, st.booleans())
def test_any_conversation_and_params_come_out_equal(
    both: Both, provider: Provider, model: str, messages: list[Json], params: Json, stream: bool
) -> None:
    mode = "streamed" if stream else "plain"
    wire = next((wire for wire in WIRES if wire.model == model), WIRES[0])
    plain = next(case for case in cases() if (case.feature.name, case.wire.name, case.mode) == ("text", "openai", mode))
    provider.play(plain._replace(wire=wire))
    both.assert_equal(provider, {"model": model, "messages": messages, **params, "stream": stream}, unsent=None)


# --- what is remembered ---------------------------------------------------------------------------------------------------------


def test_the_prologue_runs_once_for_the_same_options(both: Both, openai: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = direct.Direct(both.ordinary)
    first, second = asked("openai/gpt-4o-mini", temperature=0.5), asked("openai/gpt-4o-mini", temperature=0.5)
    second["messages"] = [{"role": "developer", "content": "be brief"}, *second["messages"]]
    expected = both.run(outcome(both.direct, openai, second))
    both.run(outcome(engine, openai, first))
    monkeypatch.setattr(litellm, "completion", None)
    assert both.run(outcome(engine, openai, second)) == expected


@pytest.mark.parametrize(("name", "value"), [("OPENAI_API_KEY", "sk-another-key"), ("OPENAI_ORGANIZATION", "org-1")])
def test_another_environment_is_heeded_at_once(
    name: str, value: str, both: Both, openai: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    both.run(chat(both.remembering, asked("openai/gpt-4o-mini")))
    monkeypatch.setenv(name, value)
    both.assert_equal(openai, asked("openai/gpt-4o-mini"))
    ours = both.run(outcome(both.remembering, openai, asked("openai/gpt-4o-mini")))
    assert name != "OPENAI_API_KEY" or ours.sent[0][2]["authorization"] == f"Bearer {value}"


def test_no_more_is_remembered_than_so_much(both: Both, openai: Upstream) -> None:
    memory = prologue_cache.Plans()
    for number in range(prologue_cache.MAX_PLANS + 3):
        request = chat_request(asked("openai/gpt-4o-mini", seed=number), time.monotonic())
        lesson = memory.lesson(memory.key(request), request.messages)
        assert lesson
        lesson(None, {})  # nothing that could be learnt
    assert len(memory._plans) == prologue_cache.MAX_PLANS


def test_a_file_goes_through_the_prologue(both: Both) -> None:
    part = {"type": "file", "file": {"file_id": "file-1"}}
    request = chat_request(asked("openai/gpt-4o-mini") | {"messages": [{"role": "user", "content": [part]}]}, time.monotonic())
    assert prologue_cache.Plans().key(request) is None


# --- time, cancels and connections ----------------------------------------------------------------------------------------------


def test_a_cancel_closes_the_connection_and_says_so(both: Both, openai: Upstream, streamed: bool) -> None:
    async def cancelled(model: Any) -> Json:
        started = asyncio.Event()

        async def on_delta(_: Json) -> None:
            started.set()

        task = asyncio.ensure_future(chat(model, asked(f"openai/{'endless' if streamed else 'hang'}", stream=streamed), on_delta))
        if streamed:
            await started.wait()
        else:
            await asyncio.to_thread(openai.wait_until, lambda: not openai.requests[-1].answered.is_set(), WAIT_SECONDS)
        task.cancel()
        told, _ = await task
        await asyncio.to_thread(openai.requests[-1].wait_closed, WAIT_SECONDS)
        return {name: told[name] for name in ("kind", "upstream_closed")}

    expected = {"kind": "cancelled", "upstream_closed": True}
    assert [both.run(cancelled(model)) for model in (both.ordinary, both.direct)] == [expected, expected]


def test_a_slow_reader_slows_the_provider(both: Both, openai: Upstream) -> None:
    async def stalls() -> None:
        async def never(_: Json) -> None:
            await asyncio.Event().wait()

        before = len(openai.requests)
        task = asyncio.ensure_future(chat(both.direct, asked("openai/endless", stream=True), never))
        await asyncio.to_thread(openai.wait_until, lambda: len(openai.requests) > before, WAIT_SECONDS)
        assert await asyncio.to_thread(openai.requests[-1].stalled.wait, WAIT_SECONDS)
        task.cancel()
        await task
        await asyncio.to_thread(openai.requests[-1].wait_closed, WAIT_SECONDS)

    both.run(stalls())


def test_a_delta_comes_before_the_provider_sends_the_next(both: Both, openai: Upstream) -> None:
    gates = [Gate(), Gate()]
    said = [chunk({"role": "assistant", "content": "one"}), gates[0], chunk({"content": "two"}), gates[1], chunk({}, "stop"), DONE]
    openai.script("gated", chunks=said)
    opened = iter(gates)

    async def on_delta(_: Json) -> None:
        next(opened).set()  # the provider waits for it

    told, deltas = both.run(chat(both.direct, asked("openai/gated", stream=True), on_delta))
    assert [delta["content"] for delta in deltas] == ["one", "two"]
    assert told["content"] == "onetwo"


def test_connections_are_kept(both: Both, openai: Upstream) -> None:
    both.run(chat(both.direct, asked("openai/gpt-4o-mini")))
    held = openai.connections
    for _ in range(5):
        both.run(chat(both.direct, asked("openai/gpt-4o-mini")))
    assert openai.connections == held


# --- who serves -----------------------------------------------------------------------------------------------------------------


class Listener(CustomLogger):  # type: ignore[misc]  # LiteLLM's types are not read
    """Somebody who wants to hear of each call."""


@pytest.mark.parametrize("name", direct.SETTINGS)
def test_what_a_setting_of_litellm_does_is_left_to_the_ordinary_path(
    name: str, both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = chat_request(asked("openai/gpt-4o-mini"), time.monotonic())
    assert both.direct.may_serve(request)
    monkeypatch.setattr(litellm, name, ["something"])
    assert not both.direct.may_serve(request)


@pytest.mark.parametrize("name", direct.CALLBACKS)
def test_somebody_who_listens_is_served_by_the_ordinary_path(name: str, both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(litellm, name, [*getattr(litellm, name), Listener()])
    assert not both.direct.may_serve(chat_request(asked("openai/gpt-4o-mini"), time.monotonic()))


@pytest.mark.parametrize("name", ["num_retries", "caching", "api_base", "mock_response"])
def test_a_provider_param_that_is_litellms_own_is_left_to_the_ordinary_path(name: str, both: Both) -> None:
    request = chat_request(asked("openai/gpt-4o-mini", provider_params={name: 1}), time.monotonic())
    assert not both.direct.may_serve(request)


def test_a_provider_param_that_is_sent_goes_direct(both: Both, openai: Upstream) -> None:
    ours = both.assert_equal(openai, asked("openai/gpt-4o-mini", provider_params={"top_k": 7}))
    assert b'"top_k": 7' in ours.sent[0][3]


@pytest.mark.parametrize("model", ["azure/gpt-4o-mini", "ollama_chat/llama3.1", "openai/responses/gpt-4.1"])
def test_other_ways_through_litellm_are_the_ordinary_paths(model: str, both: Both, provider: Provider) -> None:
    wire = next(wire for wire in FORMATS.values() if wire.model == model)
    provider.play(next(case for case in cases() if case.wire is wire))
    both.assert_equal(provider, asked(model), unsent=True)


def test_with_direct_alone_the_rest_is_an_error(both: Both, provider: Provider) -> None:
    told = both.run(outcome(direct.Direct(both.ordinary, only=True), provider, asked("azure/gpt-4o-mini")))
    assert (told.told["kind"], told.sent) == ("model_not_found", [])
    assert "--engine auto" in told.told["message"]


@pytest.mark.rule("RCP-5", "STA-4")
def test_a_worker_says_which_engine_served(spawn: Spawn, upstream: Upstream) -> None:
    key = {"OPENAI_API_KEY": "sk-secret-123", "OPENAI_BASE_URL": upstream.base_url}
    worker = spawn("--engine", "direct", env=key)
    assert worker.chat("openai/gpt-4o-mini")["receipt"]["engine"]["name"] == "litellm-direct"
    assert worker.chat("offline/echo")["receipt"]["engine"]["name"] == "offline"
    refused = worker.call("chat", asked("openai/responses/gpt-4.1"))
    assert refused["error"]["data"]["kind"] == "model_not_found"
    assert worker.call("status")["result"]["requests"]["engines"] == {"litellm-direct": 2, "offline": 1}


# --- a LiteLLM that has changed -------------------------------------------------------------------------------------------------


def changed_wrapper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(AsyncHTTPHandler.post, "__wrapped__")
    for name in ("direct", "direct_http"):
        monkeypatch.delitem(sys.modules, f"bridge_worker.backends.litellm.{name}")


def changed_completion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(litellm, "completion", lambda *, model, messages: None)


def changed_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct, "PROVEN", {"openai": frozenset({"SomethingElse.async_completion"})})


@pytest.mark.parametrize("change", [changed_wrapper, changed_completion, changed_way])
def test_a_litellm_that_has_changed_is_served_by_the_ordinary_path(
    change: Callable[[pytest.MonkeyPatch], None], both: Both, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    change(monkeypatch)
    chosen: list[Any] = []
    thread = threading.Thread(target=lambda: chosen.append(path_selection.chosen(both.ordinary)))  # as the engine does
    thread.start()
    thread.join()
    assert chosen == [both.ordinary]
    assert "its ordinary path serves everything" in caplog.text
    failed = both.run(asyncio.to_thread(direct_alone_fails, both.ordinary))
    assert failed


def direct_alone_fails(ordinary: LiteLLM) -> bool:
    try:
        path_selection.chosen(ordinary, "direct")
    except Exception:
        return True
    return False


def test_the_litellm_that_is_installed_is_known(both: Both) -> None:
    assert isinstance(both.run(asyncio.to_thread(path_selection.chosen, both.ordinary)), direct.Direct)
    assert both.run(asyncio.to_thread(path_selection.chosen, both.ordinary, "litellm")) is both.ordinary


def test_what_breaks_before_anything_is_sent_is_served_by_the_ordinary_path(
    both: Both, openai: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(direct.Call, "update_environment_variables")  # as if LiteLLM asked its logging object for something new
    told = both.run(outcome(both.direct, openai, asked("openai/gpt-4o-mini")))
    assert (told.engine, len(told.sent), len(told.told["receipt"]["attempts"])) == ("litellm", 1, 1)
