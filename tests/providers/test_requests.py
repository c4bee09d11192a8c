"""The request that the bridge sends is the one that LiteLLM's own call sends, for each provider, parameter and conversation.

Each request is sent three times: by LiteLLM's own path; by the bridge, which captures it; and by the bridge again, for another
conversation, which may come from a template.
"""

from __future__ import annotations

import asyncio
import copy
import json
import time
from collections.abc import Coroutine, Iterator
from typing import Any, NamedTuple, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge_worker.backends.litellm.chat import LiteLLM
from bridge_worker.core.chat_runner import run_chat
from bridge_worker.errors import BridgeError
from tests.support import vertex
from tests.support.cases import TOOLS
from tests.support.provider_formats import FORMATS, environment
from tests.support.requests import chat_request
from tests.support.upstream import Upstream
from tests.support.upstream_format import Request, Steps, http
from tests.support.worker import Json

# LiteLLM's types make pydantic warn.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning"),
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince211"),
]

T = TypeVar("T")
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
    "azure_ai/mistral-large": "AZURE_AI",
    "databricks/dbrx": "DATABRICKS",
    "litellm_proxy/gpt-4o": "LITELLM_PROXY",
    "github/gpt-4o": "GITHUB",
    "watsonx/ibm/granite-3-8b-instruct": "WATSONX",
}
# The other families: under another host or another credential than their format's usual one, or without a decoder.
OTHERS = ["azure/responses/gpt-4.1", vertex.VertexGemini.model, vertex.VertexClaude.model]
OWN_PATH = ["ollama/llama3.1"]
MODELS = [*(wire.model for wire in FORMATS.values()), "openai/gpt-5.1", "openai/o3-mini", *LIKE_OPENAI, *OTHERS]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}
PARAMS: list[Json] = [
    {},
    {"temperature": 0.5, "top_p": 0.5},
    {"max_tokens": 77},
    {"max_completion_tokens": 77},
    {"stop": "END"},
    {"stop": ["END", "STOP"]},
    {"seed": 7},
    {"tools": TOOLS},
    {"tools": TOOLS, "tool_choice": "required"},
    {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "get_time"}}},
    {"tools": TOOLS, "parallel_tool_calls": False},
    {"response_format": {"type": "json_object"}},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}}},
    {"reasoning_effort": "low"},
    {"frequency_penalty": 0.5, "presence_penalty": 0.25},
    {"logprobs": True, "top_logprobs": 2},
    {"user": "someone"},
    {"logit_bias": {"50256": -100}},
]
# Differ from call to call, or name the HTTP library's version.
NOT_COMPARED = {"content-length", "authorization", "x-amz-date", "host", "user-agent", "connection", "accept-encoding"}
SIGNED = ("bedrock/",)


class Refuses(Upstream):
    """A provider that refuses every request: what is compared has arrived then."""

    def _reply_to(self, request: Request) -> Steps:
        return http(b'{"error": {"message": "no", "type": "invalid_request_error"}}', 400)


class Sent(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    key: str
    body: Any


class Bench:
    """Two backends in one loop: ``own`` sends by LiteLLM's own path, ``ours`` by the bridge."""

    def __init__(self, upstream: Upstream, runner: asyncio.Runner) -> None:
        self._upstream = upstream
        self._runner = runner
        self.own, self.ours = LiteLLM(engine="litellm"), LiteLLM()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    def sent(self, model: LiteLLM, params: Json) -> list[Sent] | str:
        """What arrived, or the kind of an error that was found before anything was sent."""
        before = len(self._upstream.requests)
        kind = self._runner.run(_chat(model, params))
        made = [request for request in self._upstream.requests[before:] if request.method == "POST"]
        return [_sent(request, params["model"]) for request in made] if made else kind


def _sent(request: Request, model: str) -> Sent:
    headers = {name.lower(): value for name, value in request.headers.items()}
    key = "" if model.startswith(SIGNED) else headers.get("authorization", "")
    kept = {name: value for name, value in headers.items() if name not in NOT_COMPARED and not name.startswith("x-stainless")}
    return Sent(request.method, request.path, kept, key, json.loads(request.raw))


async def _chat(model: LiteLLM, params: Json) -> str:
    return (await _refused(model, params)).kind


async def _refused(model: LiteLLM, params: Json) -> BridgeError:
    async def find(name: str) -> LiteLLM:
        return model

    with pytest.raises(BridgeError) as raised:
        await run_chat(chat_request(copy.deepcopy(params), time.monotonic()), find)
    return raised.value


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with Refuses() as upstream, pytest.MonkeyPatch.context() as patch, asyncio.Runner() as runner:
        origin = upstream.base_url.removesuffix("/v1")
        for name, value in environment(origin).items():
            patch.setenv(name, value)
        for prefix in LIKE_OPENAI.values():
            patch.setenv(f"{prefix}_API_KEY", f"key-of-{prefix}")
            patch.setenv(f"{prefix}_API_BASE", f"{origin}/v1")
        patch.setenv("WATSONX_TOKEN", "token-of-watsonx")
        patch.setenv("WATSONX_PROJECT_ID", "p1")
        bench = Bench(upstream, runner)
        with vertex.credentials(origin):
            yield bench
        runner.run(bench.ours.aclose())


FIRST = [{"role": "user", "content": "hello"}]
SECOND = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "which city?"},
    {"role": "assistant", "content": "Brno 🦜"},
    {"role": "user", "content": "why?"},
]


@pytest.mark.parametrize("model", MODELS)
def test_each_parameter_goes_out_as_by_litellm_itself(model: str, bench: Bench, streamed: bool) -> None:
    for params in PARAMS:
        for messages in (FIRST, SECOND, [*SECOND, {"role": "assistant", "content": "it rains"}, {"role": "user", "content": "ok"}]):
            chat = {"model": model, "messages": messages, "stream": streamed, **params}
            assert bench.sent(bench.ours, chat) == bench.sent(bench.own, chat), params


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
IMAGE = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


@st.composite
def conversations(draw: st.DrawFn) -> list[Json]:
    messages: list[Json] = []
    for _ in range(draw(st.integers(0, 5))):
        kind = draw(st.sampled_from(["system", "developer", "user", "assistant", "call", "image", "blank"]))
        text, call = draw(words), draw(calls)
        if kind == "call":
            messages += [
                {"role": "assistant", "content": draw(st.sampled_from([None, "", text])), "tool_calls": [call]},
                {"role": "tool", "tool_call_id": call["id"], "content": text},
            ]
        elif kind == "image":
            parts = [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": IMAGE}}]
            messages.append({"role": "user", "content": parts})
        elif kind == "blank":
            messages.append({"role": "user", "content": draw(st.sampled_from(["", " ", "\n"]))})
        else:
            messages.append({"role": kind, "content": text})
    return [*messages, {"role": "user", "content": "and?"}]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(MODELS), conversations(), st.booleans())
def test_any_conversation_goes_out_as_by_litellm_itself(bench: Bench, model: str, messages: list[Json], stream: bool) -> None:
    chat = {"model": model, "messages": messages, "stream": stream, "tools": TOOLS}
    expected = bench.sent(bench.own, chat)
    assert bench.sent(bench.ours, chat) == expected
    assert bench.sent(bench.ours, chat) == expected


@pytest.mark.parametrize("model", MODELS)
def test_the_bridge_sends_to_every_provider_of_these(model: str, bench: Bench, streamed: bool) -> None:
    error = bench.run(_refused(bench.ours, {"model": model, "messages": FIRST, "stream": streamed}))
    receipt: Any = error.extra["receipt"]
    assert (receipt["engine"]["name"], error.kind) == ("litellm-direct", "rejected_by_provider"), receipt["engine"]["reason"]


@pytest.mark.parametrize("model", OWN_PATH)
def test_a_format_without_a_decoder_goes_by_litellms_own_path(model: str, bench: Bench, streamed: bool) -> None:
    chat = {"model": model, "messages": FIRST, "stream": streamed}
    assert bench.sent(bench.ours, chat) == bench.sent(bench.own, chat)
    receipt: Any = bench.run(_refused(bench.ours, chat)).extra["receipt"]
    assert receipt["engine"]["name"] == "litellm"
