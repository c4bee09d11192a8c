"""What a gateway's config does to LiteLLM's module, which there is one of in a process."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bridge_worker.backends.litellm import gateway_config, router
from bridge_worker.backends.litellm.gateway_config import Configured
from bridge_worker.config.source import load_config

litellm: Any = gateway_config.litellm
MODELS = "model_list: [{model_name: a, litellm_params: {model: openai/a, api_key: k}}]\n"


@pytest.fixture
def configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Configured]:
    """For one config; the next test has LiteLLM's module as it was."""
    for name, value in list(vars(litellm).items()):
        if isinstance(value, bool | int | float | str | list | None) and not name.startswith("__"):
            monkeypatch.setattr(litellm, name, copy.copy(value))

    def configure(rest: str) -> Configured:
        path = tmp_path / "config.yaml"
        path.write_text(MODELS + rest)
        path.chmod(0o600)
        gateway = load_config(str(path)).gateway
        assert gateway is not None
        return Configured(gateway)

    return configure


def test_settings_of_the_module_are_set(configure: Any) -> None:
    made = configure("litellm_settings: {drop_params: 'True', num_retries: 5, request_timeout: 33, max_budget: 7}")
    assert (litellm.drop_params, litellm.num_retries, litellm.request_timeout, litellm.max_budget) == (True, 5, 33, 7.0)
    assert litellm.request_timeout_explicitly_set
    assert (made.router.num_retries, made.router.timeout) == (5, 33)


def test_a_cache_is_made_and_the_router_uses_it(configure: Any) -> None:
    made = configure("litellm_settings: {cache: true, cache_params: {type: local, ttl: 5}}")
    assert litellm.cache.ttl == 5
    assert made.router.settings().cache_responses is True


def test_a_cache_that_is_off_is_not_made(configure: Any) -> None:
    configure("litellm_settings: {cache: false, cache_params: {type: local}}")
    assert litellm.cache is None


def test_a_cache_that_can_not_be_created_is_a_warning_and_the_models_are_served(configure: Any) -> None:
    made = configure("litellm_settings: {cache: true, cache_params: {type: disk, disk_cache_dir: /dev/null/none}}")
    assert "litellm_settings.cache_params: LiteLLM can't make this cache" in str(made.rejected[0])
    assert router.names(made.router) == ["a"]


@pytest.mark.parametrize("name", ["langfsue", "langfuse"])
def test_an_unknown_callback_is_a_warning(configure: Any, name: str) -> None:
    (diagnostic,) = configure(f"litellm_settings: {{success_callback: [{name}]}}").rejected
    assert diagnostic.place.endswith("config.yaml:2: litellm_settings.success_callback")
    assert name not in litellm.success_callback


def test_a_callback_by_name_is_on(configure: Any) -> None:
    assert configure("litellm_settings: {callbacks: [anthropic_cache_control_hook]}").rejected == []
    assert "anthropic_cache_control_hook" in litellm.callbacks
    litellm.callbacks.remove("anthropic_cache_control_hook")
