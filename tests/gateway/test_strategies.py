"""How LiteLLM's Router chooses, with the model in this process: each strategy is a Router of its own, and a worker takes 2.5 s."""

from __future__ import annotations

import asyncio
import time
import typing
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from litellm.types.router import RoutingStrategy, RoutingStrategyName

from bridge_worker.backends.litellm.chat import LiteLLM
from bridge_worker.backends.litellm.router import forget
from bridge_worker.config.gateway import Gateway
from bridge_worker.config.gateway_keys import STRATEGIES
from bridge_worker.core.chat_runner import run_chat
from bridge_worker.errors import BridgeError
from bridge_worker.schema.chat_result import ChatResult
from tests.support.gateway_config import attempts, deployment
from tests.support.requests import chat_request
from tests.support.upstream import Gate, Json, Upstream, chunk

Chat = Callable[..., Awaitable[ChatResult]]
# A Router takes it too, and then refuses each call: it chooses nothing. What is meant are budgets, beside any strategy.
NO_STRATEGY = "provider-budget-routing"

# LiteLLM's types make pydantic warn, which no default filter shows.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince211"),
]


def routed(scenario: Callable[[Chat], Awaitable[None]], models: list[Json], **settings: Any) -> None:
    """Runs ``scenario`` against a Router that was made in a thread, as the worker makes it."""

    async def run() -> None:
        places = tuple(f"model_list[{position}]" for position in range(len(models)))
        gateway = Gateway({"model_list": models, "num_retries": 0, "timeout": 60, **settings}, places=places)
        model = await asyncio.to_thread(LiteLLM, gateway, None, asyncio.get_running_loop())

        async def find(_: str) -> LiteLLM:
            return model

        async def chat(name: str, *, stream: bool = False, text: str = "hello", **params: Any) -> ChatResult:
            messages = [{"role": "user", "content": text}]
            request = {"model": name, "messages": messages, "stream": stream, **params}
            return ChatResult.model_validate(await run_chat(chat_request(request, time.monotonic()), find))

        try:
            async with asyncio.timeout(60):
                await scenario(chat)
        finally:
            await model.aclose()
            forget(model.router)

    asyncio.run(run())


def three(upstream: Upstream, name: str) -> list[Json]:
    return [deployment(upstream, name, f"{name}-{nth}") for nth in range(3)]


async def refusal(pending: Awaitable[ChatResult]) -> BridgeError:
    with pytest.raises(BridgeError) as raised:
        await pending
    return raised.value


def test_the_strategies_of_a_config_are_those_of_the_router() -> None:
    of_litellm = {*typing.get_args(RoutingStrategyName), *(strategy.value for strategy in RoutingStrategy)}
    assert of_litellm - {NO_STRATEGY} == STRATEGIES


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_each_strategy_of_the_router_starts_and_serves(upstream: Upstream, strategy: str) -> None:
    async def scenario(chat: Chat) -> None:
        for stream in (False, True, False):
            result = await chat(strategy, stream=stream)
            (attempt,) = result.receipt.attempts
            assert (attempt.outcome, attempt.deployment) == ("ok", result.receipt.deployment)
            assert attempt.model in {f"{strategy}-{nth}" for nth in range(3)}

    routed(scenario, three(upstream, strategy), routing_strategy=strategy)


def test_the_least_busy_of_three_is_called(upstream: Upstream) -> None:
    """By what is in flight, not by chance: three chats that are held are on three deployments."""
    models = three(upstream, "busy")
    gates = [Gate() for _ in models]
    for nth, gate in enumerate(gates):
        upstream.script(f"busy-{nth}", chunks=[chunk({"content": "x"}), gate, chunk({}, "stop")])

    async def scenario(chat: Chat) -> None:
        held = []
        for nth in range(6):
            held.append(asyncio.create_task(chat("busy", stream=True)))
            await asyncio.to_thread(upstream.wait_until, lambda: sum(upstream.counts[f"busy-{n}"] for n in range(3)) > nth, 30)  # noqa: B023
        assert [upstream.counts[f"busy-{nth}"] for nth in range(3)] == [2, 2, 2]
        for gate in gates:
            gate.set()
        assert {(await chat).content for chat in held} == {"x"}

    routed(scenario, models, routing_strategy="least-busy")


def test_the_cheapest_of_three_is_called(upstream: Upstream) -> None:
    prices = (3.0, 1.0, 2.0)
    models = [
        deployment(upstream, "priced", f"priced-{nth}", input_cost_per_token=price, output_cost_per_token=price)
        for nth, price in enumerate(prices)
    ]

    async def scenario(chat: Chat) -> None:
        served = {(await chat("priced")).receipt.deployment for _ in range(5)}
        assert served == {"priced/priced-1"}

    routed(scenario, models, routing_strategy="cost-based-routing")


@pytest.mark.parametrize(
    "settings",
    [{"routing_strategy": "usage-based-routing-v2"}, {"optional_pre_call_checks": ["enforce_model_rate_limits"]}],
    ids=str,
)
def test_a_request_over_an_rpm_limit_gets_a_retry_after(upstream: Upstream, settings: Json) -> None:
    name = f"limited-{settings.get('routing_strategy')}"
    models = [deployment(upstream, name, name, rpm=1)]

    async def scenario(chat: Chat) -> None:
        outcomes: list[BridgeError] = []
        while not outcomes:  # a minute may end in between
            assert (await chat(name)).receipt.attempts[0].outcome == "ok"
            try:
                await chat(name)
            except BridgeError as error:
                outcomes.append(error)
        (error,) = outcomes
        assert error.kind == "rate_limited"
        assert 0 < (error.retry_after_ms or 0) <= 60_000
        assert error.data()["receipt"]["attempts"] == []

    routed(scenario, models, **settings)


@pytest.mark.rule("CFG-13")
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize(
    "settings",
    [{"routing_strategy": "usage-based-routing-v2"}, {"optional_pre_call_checks": ["enforce_model_rate_limits"]}],
    ids=["strategy", "check"],
)
def test_an_rpm_limit_is_exact_one_after_the_other_and_together(upstream: Upstream, settings: Json, stream: bool) -> None:
    models = [
        deployment(upstream, f"{pace}-{stream}-{len(str(settings))}", f"{pace}-{stream}", rpm=3) for pace in ("slow", "burst")
    ]

    async def scenario(chat: Chat) -> None:
        slow, burst = (model["model_name"] for model in models)

        async def passes(work: Callable[[], Awaitable[list[Any]]]) -> int:
            while True:  # LiteLLM's minute is the clock's: what was sent in two is sent again
                minute = time.time() // 60
                results = await work()
                if time.time() // 60 == minute:
                    return sum(not isinstance(result, BaseException) for result in results)

        async def one_after_the_other() -> list[Any]:
            return [(await asyncio.gather(chat(slow, stream=stream), return_exceptions=True))[0] for _ in range(6)]

        async def at_once() -> list[Any]:
            return list(await asyncio.gather(*(chat(burst, stream=stream) for _ in range(12)), return_exceptions=True))

        assert (await passes(one_after_the_other), await passes(at_once)) == (3, 3)

    routed(scenario, models, num_retries=0, **settings)


@pytest.mark.rule("CFG-13")
def test_a_tpm_limit_is_over_when_the_tokens_of_the_minute_are(upstream: Upstream) -> None:
    models = [deployment(upstream, "tokens", "tokens", tpm=1)]

    async def scenario(chat: Chat) -> None:
        minute = 0.0
        while time.time() // 60 != minute:
            minute = time.time() // 60
            assert (await chat("tokens")).receipt.attempts[0].outcome == "ok"
            error = await refusal(chat("tokens"))
        assert error.kind == "rate_limited"

    routed(scenario, models, num_retries=0, optional_pre_call_checks=["enforce_model_rate_limits"])


def test_default_fallbacks_are_for_every_model(upstream: Upstream) -> None:
    models = [deployment(upstream, "down", "status-500"), deployment(upstream, "also-down", "status-502"), *three(upstream, "up")]

    async def scenario(chat: Chat) -> None:
        for name in ("down", "also-down"):
            result = await chat(name)
            assert result.receipt.fallback
            assert (result.model or "").startswith("up-")

    routed(scenario, models, default_fallbacks=["up"])


def test_what_no_deployment_has_room_for_is_refused_before_it_is_sent(upstream: Upstream) -> None:
    models = [deployment(upstream, "small", "small", {"max_input_tokens": 5})]

    async def scenario(chat: Chat) -> None:
        error = await refusal(chat("small", text="word " * 200))
        assert (error.kind, error.data()["receipt"]["attempts"]) == ("context_length_exceeded", [])
        assert upstream.counts["small"] == 0

    routed(scenario, models, enable_pre_call_checks=True)


def test_a_retry_policy_is_by_kind(upstream: Upstream) -> None:
    models = [deployment(upstream, "limited", "retry-after-1"), deployment(upstream, "broken", "status-500")]

    async def scenario(chat: Chat) -> None:
        for name, times in (("limited", 2), ("broken", 1)):
            error = await refusal(chat(name))
            assert len(attempts(error.data()["receipt"])) == times

    routed(scenario, models, retry_policy={"RateLimitErrorRetries": 1, "InternalServerErrorRetries": 0})


def test_a_providers_budget_that_is_spent_refuses_before_it_is_sent(upstream: Upstream) -> None:
    models = [deployment(upstream, "spent", "spent", input_cost_per_token=1.0, output_cost_per_token=1.0)]

    async def scenario(chat: Chat) -> None:
        async def until_it_is_counted() -> ChatResult:  # LiteLLM does that in a task after the answer
            while True:
                await chat("spent")

        error = await refusal(until_it_is_counted())
        assert (error.kind, error.retry_after_ms, error.data()["receipt"]["attempts"]) == ("budget_exceeded", None, [])

    budgets = {"openai": {"budget_limit": 1e-9, "time_period": "1d"}}
    routed(scenario, models, provider_budget_config=budgets)
