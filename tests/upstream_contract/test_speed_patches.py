"""The ways around LiteLLM's own code give what that code gives, for every chunk; and they are taken, or they would be of no use."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import litellm
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from litellm.integrations.custom_logger import CustomLogger
from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER
from litellm.llms.openai.chat.gpt_transformation import OpenAIChatCompletionStreamingHandler

from bridge_worker.backends.litellm.chat import LiteLLM  # as the worker has it: with its callback and its mends
from bridge_worker.backends.litellm.patches import speed
from tests.support.worker import WAIT_SECONDS

pytestmark = [  # LiteLLM's own, when its types are built at first use
    pytest.mark.filterwarnings("ignore:.*`ReadOnly` qualifier:UserWarning"),
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince211"),
]

TEXT = {"content": "a word"}
CALL = {"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{"}}]}


@pytest.fixture(scope="module", autouse=True)
def model() -> LiteLLM:
    return LiteLLM()


def stream(**options: Any) -> Any:
    """A wrapper as LiteLLM makes it, before its first chunk."""
    asked: dict[str, Any] = {"model": "openai/gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}
    return litellm.completion(**asked, mock_response="hi", stream=True, **options)


def chunk(choices: list[dict[str, Any]], **facts: Any) -> Any:
    body = {"id": "chatcmpl-1", "created": 5, "model": "gpt-4o-mini-2024-07-18", "choices": choices, **facts}
    return OpenAIChatCompletionStreamingHandler(streaming_response=iter(()), sync_stream=True).chunk_parser(body)


def choice(delta: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"index": 0, "delta": dict(delta), "finish_reason": None, **more}


def seen(wrapper: Any, make: Any, said: Any) -> Any:
    """What a caller, a callback or the next chunk could see of it."""
    try:
        made = make(wrapper, said)
    except Exception as error:
        return type(error)
    state = {name: getattr(wrapper, name) for name in ("response_id", "system_fingerprint", "created", "sent_first_chunk", "model")}
    state |= {"ended": wrapper.received_finish_reason, "last": wrapper.intermittent_finish_reason}
    state["answered"] = wrapper._provider_response_model
    if made is None:
        return state
    state["created"] = state["created"] is not None  # the moment of the first chunk, of either wrapper its own
    hidden = {name: value for name, value in made._hidden_params.items() if name != "created_at"}
    body = made.model_dump() | {"created": made.created == wrapper.created}
    return state, hidden, body, [made.choices and type(made.choices[0]).__name__, sorted(made.model_fields_set)]


DELTAS = st.fixed_dictionaries(
    {},
    optional={
        "content": st.sampled_from(["", " ", "word", "</s>", "ünï", None]),
        "role": st.sampled_from(["assistant", None]),
        "reasoning_content": st.sampled_from(["", "hmm", None]),
        "refusal": st.sampled_from(["no", None]),
        "tool_calls": st.sampled_from([None, CALL["tool_calls"]]),
        "annotations": st.sampled_from([None, [], [{"type": "url_citation"}]]),
        "provider_specific_fields": st.sampled_from([None, {"x": 1}]),
        "unknown": st.sampled_from([None, 1]),
    },
)
CHOICES = st.builds(
    lambda delta, more: choice(delta, **more),
    DELTAS,
    st.fixed_dictionaries(
        {},
        optional={
            "finish_reason": st.sampled_from([None, None, None, "stop", "length"]),
            "logprobs": st.sampled_from([None, {"content": []}]),
            "index": st.sampled_from([0, 1]),
            "unknown": st.just(1),
        },
    ),
)
CHUNKS = st.tuples(
    st.one_of(st.lists(CHOICES, min_size=1, max_size=1), st.lists(CHOICES, max_size=2)),
    st.fixed_dictionaries(
        {},
        optional={
            "id": st.sampled_from(["chatcmpl-1", "chatcmpl-2", ""]),
            "model": st.sampled_from(["other", "", None]),
            "service_tier": st.just("default"),
            "system_fingerprint": st.just("fp"),
            "usage": st.sampled_from([None, {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}]),
        },
    ),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(CHUNKS, min_size=1, max_size=6))
def test_a_chunk_is_made_as_litellm_makes_it(chunks: list[tuple[list[dict[str, Any]], dict[str, Any]]]) -> None:
    theirs, ours = stream(), stream()
    opening = ([choice({"role": "assistant", "content": ""})], {})
    for choices, facts in [opening, *chunks]:
        made = [chunk([choice | {"delta": dict(choice["delta"])} for choice in choices], **facts) for _ in (theirs, ours)]
        assert seen(ours, speed.make_chunk, made[0]) == seen(theirs, speed._make_chunk, made[1])


def test_text_in_mid_stream_takes_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else LiteLLM has changed its chunks, and every stream takes twice the time."""
    wrapper = stream()
    wrapper.chunk_creator(chunk([choice({"role": "assistant", "content": ""})]))
    monkeypatch.setattr(speed, "_make_chunk", lambda *_: pytest.fail("the long way"))
    for delta in (TEXT, {"reasoning_content": "hmm"}, TEXT | {"role": "assistant", "refusal": None}):
        assert wrapper.chunk_creator(chunk([choice(delta)], usage=None, service_tier="default")) is not None


@pytest.mark.parametrize(
    "said",
    [choice(CALL), choice(TEXT, finish_reason="stop"), choice(TEXT, logprobs={"content": []}), choice(TEXT | {"refusal": "no"})],
    ids=["a call", "an end", "logprobs", "a refusal"],
)
def test_all_else_is_left_to_litellm(said: dict[str, Any]) -> None:
    wrapper = stream()
    wrapper.chunk_creator(chunk([choice({"role": "assistant", "content": ""})]))
    assert not speed._is_text_in_mid_stream(wrapper, chunk([said]))


# --- prices and logs -----------------------------------------------------------------------------------------------------------


class Listener(CustomLogger):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.heard: list[Any] = []
        self.told: asyncio.Event | None = None

    async def async_log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        self.heard.append(kwargs["standard_logging_object"])
        if self.told:
            self.told.set()


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = Listener()
    litellm.callbacks.append(listener)
    yield listener
    for callbacks in (litellm.callbacks, litellm.success_callback, litellm._async_success_callback, litellm.failure_callback):
        while listener in callbacks:
            callbacks.remove(listener)
    while listener in litellm._async_failure_callback:
        litellm._async_failure_callback.remove(listener)


async def answer(listener: Listener | None = None, **options: Any) -> Any:
    """``listener`` is waited for."""
    if listener:
        listener.told = asyncio.Event()
    asked: dict[str, Any] = {"model": "openai/gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}
    result = await litellm.acompletion(**asked, mock_response="hi", _skip_mcp_handler=True, **options)
    if options.get("stream"):
        async for _ in result:
            pass
    if listener and listener.told:
        await asyncio.wait_for(listener.told.wait(), WAIT_SECONDS)
    await GLOBAL_LOGGING_WORKER.flush()
    await GLOBAL_LOGGING_WORKER.stop()
    return result


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
def test_who_listens_hears_of_every_answer_and_its_price(listener: Listener, streamed: bool) -> None:
    asyncio.run(answer(listener, stream=streamed))
    assert len(listener.heard) == 1
    assert streamed or listener.heard[0]["response_cost"] > 0  # a mock stream tells no usage


def test_an_answer_that_nobody_listens_to_is_neither_priced_nor_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("callbacks", "success_callback", "_async_success_callback", "service_callback"):  # whatever other tests have left
        monkeypatch.setattr(litellm, name, [one for one in getattr(litellm, name) if isinstance(one, speed.Unheard)])
    monkeypatch.setattr(speed, "_price_answer", lambda *_, **__: pytest.fail("priced"))
    monkeypatch.setattr(speed, "_log_success", lambda *_, **__: pytest.fail("logged"))
    assert asyncio.run(answer())._hidden_params["response_cost"] is None


def test_a_budget_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(litellm, "max_budget", 1.0)
    assert asyncio.run(answer())._hidden_params["response_cost"] > 0


def test_an_embedding_is_priced_as_ever() -> None:
    result = asyncio.run(litellm.aembedding(model="openai/text-embedding-3-small", input=["hi"], mock_response=[0.1]))
    assert result._hidden_params["response_cost"] is not None
