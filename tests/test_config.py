"""The gateway's YAML file: what is served of it, and one readable line for each fault in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bridge_worker.config import Config, ConfigError, load_config

Write = Callable[[str | bytes], str]

MODEL = "model_list: [{model_name: fast, litellm_params: {model: openai/gpt-4o-mini}}]\n"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(content: str | bytes) -> str:
        path = tmp_path / "config.yaml"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return write


@pytest.mark.parametrize("path", [None, ""])
def test_without_a_file_every_model_is_served(path: str | None) -> None:
    assert load_config(path) == Config(router=None, provider_params=frozenset(), secrets=(), ignored=())


@pytest.mark.rule("CFG-1")
def test_a_gateways_file_is_read_and_its_references_to_the_environment_are_resolved(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_TEST_KEY", "sk-from-the-environment")
    config = load_config(
        write(
            """
model_list:
  - model_name: fast
    litellm_params:
      model: openai/gpt-4o-mini
      api_key: os.environ/A_TEST_KEY
      rpm: 10
    model_info: {id: one, tags: [os.environ/A_TEST_KEY, plain]}
  - model_name: fast
    litellm_params: {model: azure/gpt, api_key: sk-in-the-file, api_base: "https://example.com"}
router_settings:
  routing_strategy: simple-shuffle
  num_retries: 2
litellm_settings: {drop_params: true}
general_settings: {master_key: sk-1234}
omni_bridge:
  provider_params: [top_k, safety_settings]
"""
        )
    )
    assert config.router is not None
    assert config.router["routing_strategy"] == "simple-shuffle"
    assert config.router["num_retries"] == 2
    first, second = config.router["model_list"]
    assert first["litellm_params"] == {"model": "openai/gpt-4o-mini", "api_key": "sk-from-the-environment", "rpm": 10}
    assert first["model_info"]["tags"] == ["sk-from-the-environment", "plain"]
    assert second["litellm_params"]["api_base"] == "https://example.com"
    assert config.provider_params == {"top_k", "safety_settings"}


@pytest.mark.rule("LOG-4")
def test_the_keys_of_the_file_are_told_as_secrets_and_nothing_else_is(write: Write) -> None:
    params = "{model: m, api_key: sk-1, aws_secret_access_key: s-2, azure_ad_token: t-3, api_base: 'https://example.com', rpm: 5}"
    config = load_config(write(f"model_list: [{{model_name: a, litellm_params: {params}}}]"))
    assert set(config.secrets) == {"sk-1", "s-2", "t-3"}


def test_the_routers_timeout_is_that_of_a_single_call_unless_the_file_says_otherwise(write: Write) -> None:
    assert load_config(write(MODEL)).router["timeout"] == 600.0  # type: ignore[index]
    assert load_config(write(MODEL + "router_settings: {timeout: 30}")).router["timeout"] == 30  # type: ignore[index]


@pytest.mark.rule("CFG-3")
def test_sections_that_are_not_served_are_listed(write: Write) -> None:
    assert load_config(write(MODEL + "litellm_settings: {}\ngeneral_settings: {}\n")).ignored == (
        "general_settings",
        "litellm_settings",
    )


def test_an_empty_section_is_none(write: Write) -> None:
    assert load_config(write(MODEL + "router_settings:\nomni_bridge:\n")) == load_config(write(MODEL))


MODELS = "model_list: [{model_name: a, litellm_params: {model: m}}, %s]"


@pytest.mark.rule("CFG-2")
@pytest.mark.parametrize(
    ("content", "place"),
    [
        pytest.param("", "must be a mapping", id="an empty file"),
        pytest.param("- a\n- b\n", "must be a mapping", id="a list"),
        pytest.param("just text", "must be a mapping", id="text"),
        pytest.param("model_list: [\n  {a: 1,\n", ":3:1: not YAML", id="YAML that does not end"),
        pytest.param("a: b: c\n", ":1:5: not YAML", id="YAML with a colon too many"),
        pytest.param("a: \x01\n", "not YAML", id="a control character"),
        pytest.param("a: !!python/object:os.system {}\n", ":1:4: not YAML", id="a tag that would run code"),
        pytest.param("model_list:\n- model_name: 2026-02-31\n", "not YAML", id="a date that there is not"),
        pytest.param(b"a: \xff\n", "not UTF-8 at byte 3", id="not UTF-8"),
        pytest.param("router_settings: {}", "model_list must be", id="no model_list"),
        pytest.param("model_list: []", "model_list must be", id="an empty model_list"),
        pytest.param("model_list: {a: 1}", "model_list must be", id="a model_list that is a mapping"),
        pytest.param(MODELS % "5", "model_list[1]: must be a mapping", id="a deployment that is a number"),
        pytest.param(MODELS % "{}", "model_list[1]: model_name", id="a deployment without a name"),
        pytest.param(MODELS % "{model_name: 5}", "model_list[1]: model_name", id="a name that is a number"),
        pytest.param(MODELS % "{model_name: b}", "model_list[1]: litellm_params.model", id="no litellm_params"),
        pytest.param(
            MODELS % "{model_name: b, litellm_params: [m]}", "model_list[1]: litellm_params.model", id="litellm_params is a list"
        ),
        pytest.param(
            MODELS % "{model_name: b, litellm_params: {api_key: k}}", "model_list[1]: litellm_params.model", id="no model"
        ),
        pytest.param(
            MODELS % "{model_name: b, litellm_params: {model: m, api_key: os.environ/NO_SUCH_VARIABLE}}",
            "model_list[1].litellm_params.api_key: refers to the environment variable NO_SUCH_VARIABLE",
            id="a variable that is not set",
        ),
        pytest.param(MODEL + "router_settings: [a]", "router_settings must be a mapping", id="router_settings is a list"),
        pytest.param(
            MODEL + "router_settings: {redis_password: os.environ/NO_SUCH_VARIABLE}", "redis_password", id="a variable there"
        ),
        pytest.param(MODEL + "omni_bridge: yes", "omni_bridge must be a mapping", id="omni_bridge is no mapping"),
        pytest.param(MODEL + "omni_bridge: {provider_parms: [a]}", "omni_bridge.provider_parms", id="a misspelt setting"),
        pytest.param(MODEL + "omni_bridge: {provider_params: top_k}", "omni_bridge.provider_params", id="a string for a list"),
        pytest.param(MODEL + "omni_bridge: {provider_params: 5}", "omni_bridge.provider_params", id="a number for a list"),
        pytest.param(MODEL + "omni_bridge: {provider_params: [{a: 1}]}", "omni_bridge.provider_params", id="a mapping for a name"),
    ],
)
def test_a_fault_is_one_line_that_names_the_file_and_the_place(write: Write, content: str | bytes, place: str) -> None:
    path = write(content)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    message = str(caught.value)
    assert message.startswith(path)
    assert place in message
    assert "\n" not in message


@pytest.mark.rule("CFG-2")
def test_a_file_that_can_not_be_read_says_why(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none.yaml", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigError, match=reason):
            load_config(str(path))


def test_a_section_whose_name_is_no_text_does_no_harm(write: Write) -> None:
    assert load_config(write(MODEL + "1: a\nzzz: b\n")).ignored == ("1", "zzz")


def test_a_fault_shows_no_key(write: Write) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(MODELS % "{model_name: b, litellm_params: {api_key: sk-secret}}"))
    assert "sk-secret" not in str(caught.value)
