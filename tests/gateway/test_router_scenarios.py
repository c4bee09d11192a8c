"""What the Router does with the bridge's calls is what it does with LiteLLM's own: retries, cooldowns, fallbacks, limits, streams.

Each scenario runs three times in this process, each time with a new Router and a new provider: by LiteLLM's own path, in full mode
only, and with the lane. A scenario's log has the result of each chat and the requests that arrived, in order.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import litellm
import pytest

from bridge_worker.backends.litellm.chat import LiteLLM
from bridge_worker.backends.litellm.router import forget
from bridge_worker.config.gateway import Gateway
from bridge_worker.core.accumulator import WireDelta
from bridge_worker.core.chat_runner import run_chat
from bridge_worker.errors import BridgeError
from tests.support.requests import chat_request
from tests.support.upstream import DONE, USAGE, End, Upstream, chunk
from tests.support.worker import Json

# LiteLLM's types make pydantic warn.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning"),
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince211"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

Log = list[Any]
TOO_LONG = {
    "error": {
        "message": "This model's maximum context length is 4097 tokens.",
        "type": "invalid_request_error",
        "code": "context_length_exceeded",
    }
}
FILTERED = {"error": {"message": "content management policy", "type": "invalid_request_error", "code": "content_policy_violation"}}


class Bench:
    """One backend with its Router, and the provider behind it."""

    def __init__(self, mode: str, upstream: Upstream, models: list[Json], settings: Json) -> None:
        self.upstream = upstream
        self.mode = mode
        rows = [
            {
                "model_name": row["name"],
                "litellm_params": {
                    "model": f"openai/{row['model']}",
                    "api_key": "k" * 9,
                    "api_base": upstream.base_url,
                    **row.get("params", {}),
                },
                "model_info": {"id": row["model"]},
            }
            for row in models
        ]
        gateway = Gateway(router={"model_list": rows, "num_retries": 0, **settings}, places=("",) * len(rows))
        self.model = LiteLLM(gateway, engine="litellm" if mode == "own" else "auto")
        if mode == "full":
            self.model.close_lane("the test wants the Router to serve everything")

    async def chat(self, name: str, *, stream: bool) -> tuple[str, str]:
        """(outcome, content)"""

        async def find(_: str) -> LiteLLM:
            return self.model

        async def emit(_: list[WireDelta]) -> None:
            pass

        request = chat_request({"model": name, "messages": [{"role": "user", "content": "hi"}], "stream": stream}, time.monotonic())
        try:
            result = await run_chat(request, find, emit)
        except BridgeError as error:
            return error.kind, ""
        return "ok", result["content"]

    async def close(self) -> None:
        forget(self.model.router)
        await self.model.aclose()


def _deployment(upstream: Upstream, name: str, model: str, **params: Any) -> Json:
    litellm_params = {"model": f"openai/{model}", "api_key": "k" * 9, "api_base": upstream.base_url, **params}
    return {"model_name": name, "litellm_params": litellm_params, "model_info": {"id": model}}


async def times(bench: Bench, stream: bool, name: str, count: int) -> Log:
    log: Log = []
    for _ in range(count):
        before = len(bench.upstream.requests)
        outcome = await bench.chat(name, stream=stream)
        log.append((outcome, [request.model for request in bench.upstream.requests[before:]]))
        await asyncio.sleep(0)  # LiteLLM notes a failure in a task
    return log


def scenario(models: list[Json], settings: Json, *names: str, **scripts: Json) -> tuple[list[Json], Json, list[str], Json]:
    return models, settings, list(names), scripts


A, B, SPARE = {"name": "g", "model": "a"}, {"name": "g", "model": "b"}, {"name": "spare", "model": "spare"}
COOL = {"allowed_fails": 0, "cooldown_time": 60}
BACKED = {"fallbacks": [{"g": ["spare"]}], **COOL}
SCENARIOS = {
    "all well": scenario([A], {}, "g", "g", "g"),
    "503, then the fallback": scenario([A, SPARE], BACKED, "g", "g", a={"status": 503}),
    "429 cools down": scenario([A], COOL, "g", "g", a={"status": 429, "headers": {"retry-after": "30"}}),
    "401 cools down": scenario([A, SPARE], BACKED, "g", "g", a={"status": 401}),
    "403 does not": scenario([A], COOL, "g", "g", a={"status": 403}),
    "404, then the fallback": scenario([A, SPARE], BACKED, "g", "g", a={"status": 404}),
    "400 is not tried again": scenario([A], {**COOL, "num_retries": 2}, "g", "g", a={"status": 400}),
    "a full context has its own fallback": scenario(
        [A, SPARE],
        {"context_window_fallbacks": [{"g": ["spare"]}], **COOL},
        "g",
        "g",
        a={"status": 400, "body": TOO_LONG},
    ),
    "the content policy has its own fallback": scenario(
        [A, SPARE],
        {"content_policy_fallbacks": [{"g": ["spare"]}], **COOL},
        "g",
        "g",
        a={"status": 400, "body": FILTERED},
    ),
    "default fallbacks": scenario([A, SPARE], {"default_fallbacks": ["spare"], **COOL}, "g", "g", a={"status": 500}),
    "a fallback that fails too": scenario([A, SPARE], BACKED, "g", "g", a={"status": 503}, spare={"status": 500}),
    "least-busy": scenario([A], {"routing_strategy": "least-busy"}, "g", "g"),
    "usage-based-routing-v2 over its rpm": scenario(
        [{**A, "rpm": 2}], {"routing_strategy": "usage-based-routing-v2"}, "g", "g", "g"
    ),
    "latency-based-routing": scenario([A], {"routing_strategy": "latency-based-routing"}, "g", "g"),
    "simple-shuffle with limits": scenario([{**A, "rpm": 100, "tpm": 100_000}], {"enable_pre_call_checks": True}, "g", "g"),
    "429 is tried again": scenario([A], {**COOL, "num_retries": 1, "retry_after": 0}, "g", a={"status": 429}),
    "a stream that is cut after its first delta": scenario([A, SPARE], BACKED, "g", "g", a={"cut": "later", "status": 503}),
    "a stream that is cut before its first delta": scenario([A, SPARE], BACKED, "g", a={"cut": True, "status": 503}),
}


def play(mode: str, stream: bool, name: str) -> Log:
    models, settings, names, scripts = SCENARIOS[name]

    async def run(upstream: Upstream) -> Log:
        bench = Bench(mode, upstream, models, settings)
        try:
            return [entry for each in names for entry in await times(bench, stream, each, 1)]
        finally:
            await bench.close()

    callbacks = {each: list(getattr(litellm, each)) for each in ("callbacks", "success_callback", "failure_callback")}
    with Upstream() as upstream:
        for model in ("a", "b", "spare"):
            write_script(upstream, model, scripts.get(model) or {}, stream)
        try:
            return asyncio.run(run(upstream))
        finally:
            for each, known in callbacks.items():
                getattr(litellm, each)[:] = known


def write_script(upstream: Upstream, model: str, script: Json, stream: bool) -> None:
    if script.get("cut") == "later" and stream:
        upstream.script(model, chunks=[chunk({"role": "assistant", "content": "half"}), End.CLOSE])
    elif "cut" in script and stream:
        upstream.script(model, chunks=[End.CLOSE])
    elif script:
        body = script.get("body") or {"error": {"message": "no"}}
        upstream.script(model, status=script["status"], body=body, headers=script.get("headers", {}))
    elif stream:
        first = chunk({"role": "assistant", "content": f"by {model}"})
        upstream.script(model, chunks=[first, chunk({}, "stop"), {**chunk({}), "choices": [], "usage": USAGE}, DONE])
    else:
        choice = {"index": 0, "message": {"role": "assistant", "content": f"by {model}"}, "finish_reason": "stop"}
        body = {"id": "x", "object": "chat.completion", "created": 1, "model": model, "choices": [choice], "usage": USAGE}
        upstream.script(model, body=body)


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_router_does_the_same_with_the_bridges_calls(name: str, streamed: bool) -> None:
    expected = play("own", streamed, name)
    assert play("full", streamed, name) == expected
    assert play("lane", streamed, name) == expected
