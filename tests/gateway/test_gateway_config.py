"""What a gateway's config does to LiteLLM's module, which there is one of in a process, and that it goes away again."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge_worker.backends.litellm import gateway_config, router
from bridge_worker.backends.litellm.gateway_config import Configured
from bridge_worker.config.source import load_config

litellm: Any = gateway_config.litellm
pytestmark = pytest.mark.filterwarnings("ignore:.*ReadOnly")  # pydantic's, at LiteLLM's types, when a Router is made first
MODELS = "model_list: [{model_name: a, litellm_params: {model: openai/a, api_key: k}}]\n"


@pytest.fixture
def configure(tmp_path: Path) -> Iterator[Any]:
    made: list[Configured] = []

    def configure(rest: str = "") -> Configured:
        path = tmp_path / "config.yaml"
        path.write_text(MODELS + rest)
        path.chmod(0o600)
        gateway = load_config(str(path)).gateway
        assert gateway is not None
        made.append(Configured(gateway))
        return made[-1]

    yield configure
    configure()  # nothing of a test stays for the next one
    for one in made:
        one.discard()


def callbacks() -> list[int]:
    return [len(each) for each in gateway_config._callback_lists()]


def test_settings_of_the_module_are_set_and_restored_when_a_config_no_longer_sets_them(configure: Any) -> None:
    configure()
    before = (litellm.drop_params, litellm.num_retries, litellm.request_timeout, litellm.request_timeout_explicitly_set)
    first = configure("litellm_settings: {drop_params: 'True', num_retries: 5, request_timeout: 33, max_budget: 7}")
    assert (litellm.drop_params, litellm.num_retries, litellm.request_timeout, litellm.max_budget) == (True, 5, 33, 7.0)
    assert (first.router.num_retries, first.router.timeout) == (5, 33)
    configure()
    after = (litellm.drop_params, litellm.num_retries, litellm.request_timeout, litellm.request_timeout_explicitly_set)
    assert after == before
    assert litellm.max_budget == 0


def test_a_config_that_is_not_served_after_all_is_taken_back(configure: Any) -> None:
    credentials = "credential_list: [{credential_name: %s, credential_values: {}}]\n"
    configure("litellm_settings: {num_retries: 5, cache: true, cache_params: {type: local}}\n" + credentials % "first")
    cache, level = litellm.cache, callbacks()
    configure("litellm_settings: {num_retries: 6, modify_params: true}\n" + credentials % "second").take_back()
    assert (litellm.num_retries, litellm.modify_params, litellm.cache) == (5, False, cache)
    assert [credential.credential_name for credential in litellm.credential_list] == ["first"]
    assert callbacks() == level


def test_a_cache_stays_as_long_as_its_params_do(configure: Any) -> None:
    said = "litellm_settings: {cache: true, cache_params: {type: local}}"
    configure(said)
    first = litellm.cache
    assert configure(said).router.settings().cache_responses is True
    assert litellm.cache is first
    configure("litellm_settings: {cache: true, cache_params: {type: local, ttl: 5}}")
    assert litellm.cache not in (first, None)
    configure("litellm_settings: {cache: false, cache_params: {type: local}}")
    assert litellm.cache is None


def test_a_cache_that_can_not_be_created_is_a_warning_and_the_models_are_served(configure: Any) -> None:
    made = configure("litellm_settings: {cache: true, cache_params: {type: disk, disk_cache_dir: /dev/null/none}}")
    assert "litellm_settings.cache_params: LiteLLM can't make this cache" in str(made.rejected[0])
    assert router.names(made.router) == ["a"]


@pytest.mark.parametrize("strategy", ["simple-shuffle", "least-busy", "latency-based-routing"])
def test_a_router_that_is_gone_leaves_nothing_behind(configure: Any, strategy: str) -> None:
    level = callbacks()
    routers = []
    for _ in range(35):  # LiteLLM takes 30 callbacks, and then no more
        made = configure(f"router_settings: {{routing_strategy: {strategy}, optional_pre_call_checks: [prompt_caching]}}")
        routers.append(weakref.ref(made.router))
        made.discard()
        made.router = None
        assert callbacks() == level
    del made
    gc.collect()
    assert sum(router() is not None for router in routers) <= 1


@pytest.mark.parametrize(
    "settings",
    [
        "routing_strategy: usage-based-routing-v2",
        "provider_budget_config: {openai: {budget_limit: 1.0, time_period: 1d}}",
    ],
)
def test_what_a_router_does_now_and_then_ends_with_it(tmp_path: Path, settings: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"{MODELS}router_settings: {{{settings}}}")
    gateway = load_config(str(path)).gateway
    assert gateway is not None

    async def made_and_discarded() -> tuple[int, set[asyncio.Task[Any]]]:
        made = await asyncio.to_thread(Configured, gateway, asyncio.get_running_loop())
        await asyncio.sleep(0)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        made.discard()
        await asyncio.wait(others)
        return len(others), asyncio.all_tasks() - {asyncio.current_task()}

    begun, left = asyncio.run(made_and_discarded())
    assert (begun > 0, left) == (True, set())


@pytest.mark.parametrize("name", ["langfsue", "langfuse"])
def test_an_unknown_callback_is_a_warning(configure: Any, name: str) -> None:
    (diagnostic,) = configure(f"litellm_settings: {{success_callback: [{name}]}}").rejected
    assert diagnostic.place == "litellm_settings.success_callback"
    assert name not in litellm.success_callback


def test_a_callback_by_name_is_on(configure: Any) -> None:
    assert configure("litellm_settings: {callbacks: [anthropic_cache_control_hook]}").rejected == []
    assert "anthropic_cache_control_hook" in litellm.callbacks
    litellm.callbacks.remove("anthropic_cache_control_hook")
