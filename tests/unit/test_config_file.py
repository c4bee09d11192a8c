"""The gateway's YAML file: what is served of it, and one readable line for each mistake in it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge_worker.config import gateway_keys
from bridge_worker.config.gateway import Gateway
from bridge_worker.config.render import render_config
from bridge_worker.config.settings import DEFAULTS
from bridge_worker.config.source import Config, ConfigError, load_config
from bridge_worker.security.redaction import Redactor

Write = Callable[..., str]

MODEL = "model_list: [{model_name: fast, litellm_params: {model: openai/gpt-4o-mini}}]\n"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(content: str | bytes, name: str = "config.yaml") -> str:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(0o600)
        return str(path)

    return write


def gateway(path: str) -> Gateway:
    found = load_config(path).gateway
    assert found is not None
    return found


def router(path: str) -> dict[str, Any]:
    found = gateway(path).router
    assert found is not None
    return found


def errors_in(path: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value).startswith(caught.value.lines[0])
    assert not any("\n" in line for line in caught.value.lines)
    return caught.value.lines


@pytest.mark.parametrize("path", [None, ""])
def test_without_a_file_every_model_is_served(path: str | None) -> None:
    assert load_config(path) == Config()
    assert not load_config(path).configured


@pytest.mark.rule("CFG-1")
def test_a_gateways_file_is_read_and_its_references_to_the_environment_are_resolved(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_TEST_KEY", "sk-from-the-environment")
    monkeypatch.setenv("A_TEST_FLAG", "True")
    path = write(
        """
model_list:
  - model_name: fast
    litellm_params:
      model: openai/gpt-4o-mini
      api_key: os.environ/A_TEST_KEY
      rpm: 10
      drop_params: os.environ/A_TEST_FLAG
    model_info: {id: one, tags: [os.environ/A_TEST_KEY, plain], owner: {mail: os.environ/A_TEST_KEY}}
  - model_name: fast
    litellm_params: {model: azure/gpt, api_key: sk-in-the-file, api_base: "https://example.com"}
router_settings:
  routing_strategy: simple-shuffle
  num_retries: 2
litellm_settings: {drop_params: true, headers: {x-team: os.environ/A_TEST_KEY}}
general_settings: {master_key: os.environ/NO_SUCH_VARIABLE}
credential_list: [{credential_name: c, credential_values: {api_key: os.environ/A_TEST_KEY}}]
omni_bridge:
  provider_params: [top_k, safety_settings]
"""
    )
    assert load_config(path).settings.provider_params == {"top_k", "safety_settings"}
    found = gateway(path)
    assert found.router is not None
    assert found.router["routing_strategy"] == "simple-shuffle"
    assert found.router["num_retries"] == 2
    first, second = found.router["model_list"]
    params = {"model": "openai/gpt-4o-mini", "api_key": "sk-from-the-environment", "rpm": 10, "drop_params": True}
    assert first["litellm_params"] == params
    assert first["model_info"]["owner"] == {"mail": "sk-from-the-environment"}
    assert second["litellm_params"]["api_base"] == "https://example.com"
    assert found.litellm == {"drop_params": True, "headers": {"x-team": "sk-from-the-environment"}}
    assert found.credentials[0]["credential_values"] == {"api_key": "sk-from-the-environment"}


def test_a_reference_stays_as_it_is_written_where_the_gateway_leaves_it(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_TEST_KEY", "sk-from-the-environment")
    params = "{model: m, anthropic_issuer_signing_key_ref: os.environ/NOT_SET, tags: [os.environ/A_TEST_KEY]}"
    path = write(f"model_list: [{{model_name: a, litellm_params: {params}}}]")
    found = router(path)["model_list"][0]["litellm_params"]
    assert found["anthropic_issuer_signing_key_ref"] == "os.environ/NOT_SET"
    assert found["tags"] == ["os.environ/A_TEST_KEY"]
    assert "a reference in a list is not resolved" in load_config(path).warnings[0]


@pytest.mark.rule("LOG-4")
def test_the_keys_of_the_file_are_registered_as_secrets_and_nothing_else_is(write: Write) -> None:
    params = "{model: m, api_key: sk-1, aws_secret_access_key: s-2, azure_ad_token: t-3, api_base: 'https://example.com', rpm: 5}"
    rest = """
router_settings: {redis_password: r-4}
litellm_settings: {openai_key: o-5, cache_params: {password: c-6, host: localhost}}
credential_list: [{credential_name: c, credential_values: {api_key: v-7}}]
environment_variables: {SOME_KEY: e-8, SOME_PLACE: here}
"""
    config = load_config(write(f"model_list: [{{model_name: a, litellm_params: {params}}}]{rest}"))
    assert set(config.secrets) >= {"sk-1", "s-2", "t-3", "r-4", "o-5", "c-6", "v-7", "e-8"}
    assert not {"localhost", "https://example.com", "m", "a"} & set(config.secrets)


@pytest.mark.rule("CFG-9", "LOG-4")
@pytest.mark.parametrize(
    "content",
    [
        "model_list: [{model_name: b, litellm_params: {model: m, extra_headers: {x-team: PLACE}}}]",
        "model_list: [{model_name: b, litellm_params: {model: m, extra_body: {deep: [{er: PLACE}]}}}]",
        "model_list: [{model_name: b, litellm_params: {model: m, some_new_param: PLACE}}]",
        "model_list: [{model_name: b, litellm_params: {model: m}, model_info: {note: PLACE}}]",
        "model_list: []\nlitellm_settings: {headers: {x: PLACE}}",
        "model_list: []\nlitellm_settings: {generic_logger_headers: PLACE}",
        "model_list: []\ngeneral_settings: {alert_to_webhook_url: {budget_alerts: 'https://hooks.example/PLACE'}}",
        "model_list: []\ngeneral_settings: {pass_through_endpoints: [{path: /a, headers: {Authorization: PLACE}}]}",
        "model_list: []\nmcp_servers: {a: {command: npx, env: {ANYTHING: PLACE}, url: 'https://mcp.example/PLACE'}}",
        "model_list: []\nenvironment_variables: {ANYTHING: PLACE}",
        "model_list: []\nrouter_settings: {cache_kwargs: {x: PLACE}, default_litellm_params: {extra_headers: {x: PLACE}}}",
        "model_list: []\nrouter_settings: {fallbacks: [{a: [{model: a, api_key: PLACE}]}]}",
        "model_list: []\nours: {deep: [PLACE]}",
    ],
)
def test_a_text_is_masked_unless_its_member_is_known_to_be_harmless(write: Write, content: str) -> None:
    secret = "Zebra7crossing9plain"
    config = load_config(write(content.replace("PLACE", secret)))
    assert secret not in render_config(config)
    redactor = Redactor()
    for known in config.secrets:
        redactor.add(known)
    assert secret not in redactor.redact(f"an echo of {secret}, https://hooks.example/{secret} and https://mcp.example/{secret}")


def test_what_the_reader_of_a_config_needs_is_render_config(write: Write) -> None:
    params = "{model: openai/gpt-4o, api_base: 'https://host/v1', api_version: 2024-10-21, max_tokens: 5, tags: [eu]}"
    text = render_config(load_config(write(f"model_list: [{{model_name: a, litellm_params: {params}, model_info: {{id: one}}}}]")))
    for shown in ("openai/gpt-4o", "https://host/v1", "2024-10-21", "max_tokens: 5", "eu", "id: one"):
        assert shown in text


def test_the_routers_timeout_is_that_of_a_single_call_unless_the_file_sets_another(write: Write) -> None:
    assert router(write(MODEL))["timeout"] == 600.0
    assert router(write(MODEL + "router_settings: {timeout: 30}"))["timeout"] == 30
    assert "timeout" not in router(write(MODEL + "litellm_settings: {request_timeout: 20}"))  # the Router has it from there


@pytest.mark.rule("CFG-3")
def test_what_only_a_server_needs_is_named_in_one_warning(write: Write) -> None:
    path = write(
        MODEL
        + """
general_settings: {master_key: sk-1, database_url: postgres}
guardrails: []
litellm_settings: {json_logs: true, callbacks: [prometheus]}
router_settings: {debug_level: DEBUG}
"""
    )
    (warning,) = load_config(path).warnings
    for name in ("general_settings.master_key", "guardrails", "litellm_settings.json_logs", "callbacks.prometheus", "debug_level"):
        assert name in warning
    assert "sk-1" not in warning


def test_an_empty_section_is_none(write: Write) -> None:
    assert gateway(write(MODEL + "router_settings:\nomni_bridge:\n")) == gateway(write(MODEL))


def test_a_file_may_have_the_bridges_settings_only(write: Write) -> None:
    config = load_config(write("omni_bridge: {max_in_flight: 7}"))
    assert config.settings.max_in_flight == 7
    assert not config.configured


def test_hosts_that_the_gateway_lets_urls_name_are_open_to_callers_too(write: Write) -> None:
    config = load_config(write(MODEL + "general_settings: {user_url_allowed_hosts: [Images.internal], user_url_validation: false}"))
    assert config.settings.image_policy.allowed_hosts == {"images.internal"}
    assert "can't be switched off" in config.warnings[0]


# ---- include and environment_variables -------------------------------------------------------------------------------------------


@pytest.mark.rule("CFG-6")
def test_included_files_are_merged_as_the_gateway_does(write: Write) -> None:
    entry = "{model_name: %s, litellm_params: {model: openai/%s}}"
    write(f"include: [deeper.yaml]\nmodel_list: [{entry % ('b', 'b')}]\nrouter_settings: {{num_retries: 1}}", "parts/models.yaml")
    write(f"model_list: [{entry % ('c', 'c')}]", "parts/deeper.yaml")
    path = write(
        f"include: [parts/models.yaml]\nmodel_list: [{entry % ('a', 'a')}]\nrouter_settings: {{timeout: 5, num_retries: 9}}"
    )
    found = router(path)
    assert [model["model_name"] for model in found["model_list"]] == ["a", "b", "c"]
    assert found["num_retries"] == 1
    assert found["timeout"] == 600.0  # the later mapping takes the place of the first


@pytest.mark.rule("CFG-6")
def test_a_file_that_includes_itself_is_read_once_and_reported(write: Write) -> None:
    write("include: [config.yaml]\nlitellm_settings: {num_retries: 1}", "other.yaml")
    config = load_config(write(MODEL + "include: [other.yaml]\n"))
    assert len(config.gateway.router["model_list"]) == 1  # type: ignore[union-attr,index]
    assert "other.yaml:1: include: config.yaml was read already" in config.warnings[0]


@pytest.mark.rule("CFG-6")
def test_errors_of_included_files_name_these_files(write: Write) -> None:
    write("model_list: [{model_name: b}]\nlitellm_settings: [", "broken.yaml")
    write("model_list:\n- model_name: b\n", "wrong.yaml")
    found = errors_in(write(MODEL + "include: [none.yaml, broken.yaml, wrong.yaml]\n"))
    assert "config.yaml:2: include: " in found[0]
    assert "none.yaml: can't be read: No such file" in found[0]
    assert "broken.yaml:2:20: not YAML" in found[1]
    assert "wrong.yaml:2: model_list[1]: litellm_params.model is missing" in found[2]


@pytest.mark.rule("CFG-7")
def test_a_config_may_set_variables_but_not_those_that_the_gateway_blocks(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_TEST_KEY", "sk-from-the-environment")
    path = write(
        """
model_list:
  - {model_name: a, litellm_params: {model: openai/a, api_key: os.environ/OF_THE_FILE}}
  - {model_name: b, litellm_params: {model: openai/b, api_key: os.environ/A_TEST_KEY}}
environment_variables:
  OF_THE_FILE: sk-of-the-file
  A_TEST_KEY: sk-another
  REFERRED: os.environ/A_TEST_KEY
  A_NUMBER: 5
  LD_PRELOAD: /tmp/evil.so
  litellm_enable_mcp_stdio: true
  OMNI_BRIDGE_LOG_LEVEL: debug
"""
    )
    config = load_config(path)
    assert config.environment == {
        "OF_THE_FILE": "sk-of-the-file",
        "A_TEST_KEY": "sk-another",
        "REFERRED": "sk-from-the-environment",
        "A_NUMBER": "5",
    }
    keys = [model["litellm_params"]["api_key"] for model in router(path)["model_list"]]
    assert keys == ["sk-of-the-file", "sk-from-the-environment"]  # what the gateway finds in the environment wins
    assert "OF_THE_FILE" not in os.environ  # reading changes nothing
    assert len([warning for warning in config.warnings if "can't be set by a config" in warning]) == 3


# ---- errors ----------------------------------------------------------------------------------------------------------------------

MODELS = "model_list: [{model_name: a, litellm_params: {model: m}}, %s]"


@pytest.mark.rule("CFG-2", "CFG-5")
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
        pytest.param(b"a: \xff\n", "not UTF-8 at byte 3", id="not UTF-8"),
        pytest.param("router_settings: {}", "model_list is missing", id="no model_list"),
        pytest.param("model_list: {a: 1}", "model_list: must be", id="a model_list that is a mapping"),
        pytest.param(MODELS % "5", "model_list[1]: must be a mapping", id="a deployment that is a number"),
        pytest.param(MODELS % "{}", "model_list[1]: model_name", id="a deployment without a name"),
        pytest.param(MODELS % "{model_name: b}", "model_list[1]: litellm_params.model", id="no litellm_params"),
        pytest.param(
            MODELS % "{model_name: b, litellm_params: [m]}", "model_list[1]: litellm_params.model", id="litellm_params is a list"
        ),
        pytest.param(
            MODELS % "{model_name: b, litellm_params: {api_key: k}}", "model_list[1]: litellm_params.model", id="no model"
        ),
        pytest.param(MODEL + "router_settings: [a]", "router_settings: must be a mapping", id="router_settings is a list"),
        pytest.param(MODEL + "router_settings: {health_check_interval: 1}", "belongs in general_settings", id="a misplaced one"),
        pytest.param(MODEL + "router_settings: {num_retries: many}", "num_retries: must be a whole number", id="no number"),
        pytest.param(
            MODEL + "router_settings: {num_retries: true}", "num_retries: must be a whole number", id="a flag for a number"
        ),
        pytest.param(MODEL + "router_settings: {timeout: soon}", "timeout: must be a number", id="no seconds"),
        pytest.param(MODEL + "router_settings: {enable_pre_call_checks: 5}", "must be true or false", id="no flag"),
        pytest.param(MODEL + "router_settings: {fallbacks: {a: [b]}}", "fallbacks: must be a list", id="no list"),
        pytest.param(MODEL + "router_settings: {retry_policy: 3}", "retry_policy: must be a mapping", id="no mapping"),
        pytest.param(MODEL + "router_settings: {redis_host: 3}", "redis_host: must be a text", id="no text"),
        pytest.param(
            MODEL + "router_settings: {routing_strategy: least-bussy}", "did you mean least-busy?", id="a misspelt strategy"
        ),
        pytest.param(MODEL + "router_settings: {routing_strategy: []}", "is not a routing strategy", id="a list for a strategy"),
        pytest.param(MODEL + "router_settings: {fallbacks: [fast]}", "fallbacks[0]: must be a mapping of one", id="no fallback"),
        pytest.param(MODEL + "router_settings: {fallbacks: [{fast: [5]}]}", "must be a model_name", id="a target that is a number"),
        pytest.param(MODEL + "litellm_settings: {callbacks: [{a: b}]}", "callbacks[0]: must be the name", id="a callback"),
        pytest.param(MODEL + "credential_list: {a: b}", "credential_list: must be a list", id="credentials"),
        pytest.param(MODEL + "credential_list: [{a: b}]", "credential_list[0]: must be a mapping with", id="a credential"),
        pytest.param(
            MODEL + "credential_list: [{credential_name: b}]", "credential_list[0]: credential_values is missing", id="an empty one"
        ),
        pytest.param(MODEL + "environment_variables: [a]", "environment_variables: must be a mapping", id="variables"),
        pytest.param(MODEL + "include: other.yaml", ":2: include: must be a list", id="include is not a list"),
        pytest.param(MODEL + "include: [5]", ":2: include: must be a list", id="include of a number"),
        pytest.param("a: &a {b: *a}\n", "look for an alias that contains itself", id="an alias that contains itself"),
        pytest.param(MODEL + "omni_bridge: yes", "omni_bridge: must be a mapping", id="omni_bridge is not a mapping"),
        pytest.param(MODEL + "omni_bridge: {provider_parms: [a]}", "omni_bridge.provider_parms", id="a misspelt setting"),
        pytest.param(MODEL + "omni_bridge: {provider_params: 5}", "omni_bridge.provider_params", id="a number for a list"),
        pytest.param(MODEL + "omni_bridge: {provider_params: [{a: 1}]}", "omni_bridge.provider_params", id="a mapping for a name"),
    ],
)
def test_an_error_is_one_line_that_names_the_file_and_the_location(write: Write, content: str | bytes, place: str) -> None:
    path = write(content)
    message = errors_in(path)[0]
    assert message.startswith(path)
    assert place in message


PASSED_OVER = [
    pytest.param("model_list: []", "model_list: is empty", id="an empty model_list"),
    pytest.param(
        MODELS % "{model_name: 5, litellm_params: {model: m}}",
        "model_list[1].model_name: is a number; it is served as '5'",
        id="a name that is a number",
    ),
    pytest.param(
        MODELS % "{model_name: b, litellm_params: {model: m, api_key: os.environ/NO_SUCH_VARIABLE}}",
        "model_list[1].litellm_params.api_key: refers to the environment variable NO_SUCH_VARIABLE",
        id="a variable that is not set",
    ),
    pytest.param(MODEL + "router_settings: {redis_password: os.environ/NO_SUCH_VARIABLE}", "redis_password", id="a variable there"),
    pytest.param(MODEL + "1: a\n", ":2: [1]: is not a section", id="a section with a name that is not a text"),
    pytest.param(
        MODEL + "modellist: []\n",
        ":2: modellist: is not a section that the gateway or a worker reads; did you mean model_list?",
        id="a section",
    ),
    pytest.param(
        MODEL + "router_settings:\n  num_retry: 1", ":3: router_settings.num_retry: is not", id="a misspelt Router setting"
    ),
    pytest.param(
        MODEL + "router_settings: {fallbacks: [{fast: [slwo]}]}",
        "fallbacks[0].fast: 'slwo' is not in model_list",
        id="an unknown target",
    ),
    pytest.param(
        MODEL + "router_settings: {fallbacks: [{fats: [fast]}]}",
        "fallbacks[0].fats: 'fats' is not in model_list",
        id="an unknown source",
    ),
    pytest.param(
        MODEL + "litellm_settings: {context_window_fallbacks: [{fast: [big]}]}",
        "litellm_settings.context_window_fallbacks[0].fast: 'big' is not in model_list",
        id="an unknown target for long contexts",
    ),
    pytest.param(
        MODEL + "litellm_settings: {default_fallbacks: [big]}",
        "default_fallbacks[0]: 'big' is not in model_list",
        id="an unknown default",
    ),
    pytest.param(
        MODEL + "router_settings: {model_group_alias: {a: {model: big, hidden: true}}}",
        "model_group_alias.a: 'big' is not in model_list",
        id="an alias of nothing",
    ),
    pytest.param(MODEL + "litellm_settings: {drop_parms: true}", "did you mean drop_params?", id="a misspelt LiteLLM setting"),
    pytest.param(
        MODELS % "{model_name: b, litellm_params: {model: m, litellm_credential_name: c}}",
        "litellm_credential_name: 'c' is not in credential_list",
        id="an unknown credential",
    ),
    pytest.param(MODEL + "environment_variables: {a=b: 1}", "a=b: is not set: a variable's name", id="a variable's name"),
    pytest.param(
        MODEL + "environment_variables: {a: [1]}",
        "environment_variables.a: is not set: a variable's value",
        id="a variable's value",
    ),
    pytest.param(
        MODEL + "environment_variables: {a: os.environ/NO_SUCH_VARIABLE}",
        ":2: environment_variables.a: refers to the environment variable NO_SUCH_VARIABLE",
        id="a variable that has no value",
    ),
    pytest.param(
        MODEL + "omni_bridge: {log_level: info}\nomni_bridge: {}\n", ":3: omni_bridge: is also in line 2", id="a section twice"
    ),
    pytest.param(
        MODEL + "router_settings: {fallbacks: [{fast: fast}]}", "fallbacks[0].fast: is a name; it is read as a list", id="a target"
    ),
    pytest.param(
        MODEL + "router_settings: {model_group_alias: {a: [fast, slow]}}",
        "model_group_alias.a: is not served",
        id="an alias of two",
    ),
    pytest.param(
        MODELS % "{model_name: b, litellm_params: {model: m, api_key: '${A_KEY}'}}",
        "api_key: has ${...}, which nothing replaces; write os.environ/NAME",
        id="a shell's variable",
    ),
    pytest.param(
        MODEL + "litellm_settings: {timezone: UTC, telemetry: false}", "timezone: is not a setting of LiteLLM", id="a timezone"
    ),
    pytest.param(MODEL + "our_own: {a: 1}", "our_own: is not a section", id="a section of the operator's own"),
    pytest.param(MODEL + "environment_variables: {A: null}", "environment_variables.A: is not set", id="a null variable"),
]


@pytest.mark.rule("CFG-5")
@pytest.mark.parametrize(("content", "warning"), PASSED_OVER)
def test_what_the_gateway_passes_over_is_a_warning_with_its_place_that_strict_makes_an_error(
    write: Write, content: str, warning: str
) -> None:
    path = write(content)
    config = load_config(path)
    (note,) = (note for note in config.notes if warning in str(note))
    assert str(note).startswith(path)
    assert note.strict


def test_a_key_that_is_not_set_makes_only_that_deployment_fail_and_never_brings_another_key(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-openai")
    unset = "os.environ/NOT_SET"
    path = write(
        f"""
model_list:
- {{model_name: own host, litellm_params: {{model: openai/a, api_key: {unset}, api_base: "http://own"}}}}
- {{model_name: lost host, litellm_params: {{model: openai/a, api_key: k, api_base: {unset}}}}}
- {{model_name: no key, litellm_params: {{model: groq/a, api_key: {unset}}}}}
- {{model_name: of a credential, litellm_params: {{model: groq/a, litellm_credential_name: c}}}}
- {{model_name: the provider's key, litellm_params: {{model: openai/a, api_key: {unset}}}}}
- {{model_name: the provider's host, litellm_params: {{model: openai/a, api_key: k, api_base: os.environ/OPENAI_API_BASE}}}}
- {{model_name: a role, litellm_params: {{model: bedrock/a, aws_session_token: {unset}}}}}
- {{model_name: needs none, litellm_params: {{model: ollama/a, api_key: {unset}, api_base: "http://own"}}}}
- {{model_name: an option, litellm_params: {{model: openai/a, api_key: k, organization: {unset}}}}}
credential_list: [{{credential_name: c, credential_values: {{api_key: {unset}}}}}]
"""
    )
    models = router(path)["model_list"]
    unusable = {model["model_name"]: model.get("model_info", {}).get("omni_bridge_unusable") for model in models}
    assert {name for name, why in unusable.items() if why} == {"own host", "lost host", "no key", "of a credential"}
    assert unusable["no key"] == "api_key refers to the environment variable NOT_SET, which is not set"
    assert not any(value is None for model in models for value in model["litellm_params"].values())


def test_numbers_that_are_texts_count_as_numbers(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETRIES", "4")
    params = "{model: m, weight: '3', rpm: ' 5', timeout: '2.5', user: '7'}"
    path = write(f"model_list: [{{model_name: a, litellm_params: {params}}}]\nrouter_settings: {{num_retries: os.environ/RETRIES}}")
    assert router(path)["num_retries"] == 4
    params = router(path)["model_list"][0]["litellm_params"]
    assert params == {"model": "m", "weight": 3, "rpm": 5, "timeout": 2.5, "user": "7"}


def test_an_unquoted_date_is_the_text_that_it_is_written_as(write: Write) -> None:
    params = "{model: azure/a, api_version: 2024-10-21}"
    path = write(f"\ufeffmodel_list: [{{model_name: 2026-02-31, litellm_params: {params}}}]")
    (model,) = router(path)["model_list"]
    assert (model["model_name"], model["litellm_params"]["api_version"]) == ("2026-02-31", "2024-10-21")


def test_a_config_in_a_bucket_is_named_as_what_it_is(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "a config in a bucket is not read; copy it to a file" in errors_in("s3://bucket/config.yaml")[0]
    assert "a config in a bucket is not read" in errors_in(write(MODEL + "include: ['s3://bucket/more.yaml']"))[0]
    monkeypatch.setenv("LITELLM_CONFIG_BUCKET_NAME", "our-bucket")
    (note,) = load_config(write(MODEL)).notes
    assert str(note).startswith("LITELLM_CONFIG_BUCKET_NAME: a gateway would read its config from the bucket our-bucket")


def test_of_a_member_that_is_there_twice_the_last_one_counts(write: Write) -> None:
    assert router(write(MODEL + "router_settings: {num_retries: 1, num_retries: 2}"))["num_retries"] == 2


def test_an_alias_that_names_no_model_is_left_out_and_the_others_are_served(write: Write) -> None:
    path = write(MODEL + "router_settings: {model_group_alias: {a: fast, b: [fast], c: none, d: {model: fast, hidden: true}}}")
    assert router(path)["model_group_alias"] == {"a": "fast", "d": {"model": "fast", "hidden": True}}


@pytest.mark.rule("CFG-2")
def test_the_error_of_an_unreadable_file_has_the_reason(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none.yaml", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigError, match=reason):
            load_config(str(path))


def test_a_fault_shows_no_key(write: Write) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(MODELS % "{model_name: b, litellm_params: {api_key: sk-secret}}"))
    assert "sk-secret" not in str(caught.value)


@pytest.mark.rule("CFG-5")
def test_a_fallback_may_name_a_wildcards_model_an_alias_an_id_or_a_name_without_its_provider(write: Write) -> None:
    path = write(
        """
model_list:
  - {model_name: openai/*, litellm_params: {model: openai/*}}
  - {model_name: fast, litellm_params: {model: openai/x}, model_info: {id: one}}
  - {model_name: gemini/pro, litellm_params: {model: gemini/pro}}
router_settings:
  model_group_alias: {quick: fast}
  fallbacks: [{gpt-4o: [one, quick]}, {"*": [openai/gpt-4o]}, {pro: [{model: fast, temperature: 0}]}, {anthropic/fast: [fast]}]
  default_fallbacks: [fast]
"""
    )
    assert len(router(path)["fallbacks"]) == 4


def test_anchors_have_a_separate_section(write: Write) -> None:
    path = write("x-shared: &shared {api_key: k}\nmodel_list: [{model_name: a, litellm_params: {<<: *shared, model: openai/a}}]\n")
    assert router(path)["model_list"][0]["litellm_params"] == {"api_key": "k", "model": "openai/a"}


def test_members_that_are_probably_misspelt_or_misplaced_in_a_deployment_are_a_warning(write: Write) -> None:
    path = write("model_list: [{model_name: a, rpm: 5, litellm_params: {model: openai/a, api_kee: k, top_k: 5, effort: high}}]")
    assert sorted(warning.partition("model_list[0]")[2] for warning in load_config(path).warnings) == [
        ".litellm_params.api_kee: is passed to the provider unchanged; did you mean api_key?",
        ".rpm: has no effect here; belongs in litellm_params",
    ]


def test_all_errors_are_reported_in_one_run(write: Write) -> None:
    found = errors_in(
        write(
            MODEL + "a: 1\nrouter_settings: {timeout: b}\nlitellm_settings: {fallbacks: c}\nomni_bridge: {d: 1, max_in_flight: 0}\n"
        )
    )
    assert len(found) == 4
    assert {line.split(": ")[0].rpartition(":")[2] for line in found} == {"3", "4", "5"}


NAMES = sorted(
    gateway_keys.SECTIONS
    | gateway_keys.ROUTER.keys()
    | gateway_keys.PARAMS
    | gateway_keys.DEPLOYMENT
    | {"max_in_flight", "image_policy", "*", "a\nb"}
)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["a", "os.environ/HOME", "a/*"]) | st.dates()
TREES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4))


@pytest.mark.rule("CFG-2")
@given(st.fixed_dictionaries({}, optional=dict.fromkeys(sorted(gateway_keys.SECTIONS), TREES)))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_file_is_a_config_or_has_errors_of_one_line(write: Write, tree: dict[str, Any]) -> None:
    path = write(yaml.safe_dump(tree))
    lines: tuple[str, ...] = ()
    try:
        assert render_config(load_config(path))
    except ConfigError as error:
        lines = error.lines
    assert not any("\n" in line for line in lines)


@pytest.mark.parametrize("setting", [*gateway_keys.CALLBACKS, *gateway_keys.OF_COMPLETION, "cache", "max_budget"])
def test_what_works_in_litellms_own_completion_needs_it(setting: str) -> None:
    assert Config(gateway=Gateway(litellm={setting: 1})).needs_completion
    assert not Config(gateway=Gateway(litellm={setting: None, "drop_params": True})).needs_completion
    assert Config(settings=replace(DEFAULTS, engine="litellm")).needs_completion
