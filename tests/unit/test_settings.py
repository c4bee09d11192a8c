"""The bridge's own settings: flags over variables over the file over defaults, checked, and printed with where each was said."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bridge_worker.budgets.limits import Budgets, Limit
from bridge_worker.config.fault_cards import Do, FaultCard, Match
from bridge_worker.config.render import render_config
from bridge_worker.config.settings import DEFAULTS, FLAGS, SETTINGS, Settings, flag, variable
from bridge_worker.config.settings_validation import READERS
from bridge_worker.config.source import ConfigError, Source, load_config
from bridge_worker.schema.chat_request import Deadlines
from bridge_worker.security.url_policy import UrlPolicy

Write = Callable[[str], str]

# Of each setting that is a flag: what is said as text, what it then is, and what the file says instead.
EXAMPLES: dict[str, tuple[str, Any, str]] = {
    "max_message_bytes": ("5000", 5000, "11"),
    "max_in_flight": ("7", 7, "11"),
    "grace_seconds": ("0.5", 0.5, "11"),
    "deadline_total_ms": ("1000", 1000, "11"),
    "deadline_first_token_ms": ("900", 900, "11"),
    "deadline_idle_ms": ("800", 800, "11"),
    "provider_params": ("top_k, safety_settings", frozenset({"top_k", "safety_settings"}), "[other]"),
    "local_services": ("llamafile, xinference", frozenset({"llamafile", "xinference"}), "[ollama]"),
    "image_policy": ('{"schemes": ["data"]}', UrlPolicy(("data",)), "{allowed_hosts: [other]}"),
    "budgets": (
        '[{"path": "*", "max_usd": 2.5, "window": "1d"}]',
        Budgets((Limit(("*",), 2_500_000_000, None, 86_400),)),
        "[{path: other, max_tokens: 11}]",
    ),
    "faults": (
        '[{"do": {"status": 429}}]',
        (FaultCard(Match(), Do(status=429), name="card 1: status"),),
        "[{do: {empty: true}}]",
    ),
    "engine": ("litellm", "litellm", "direct"),
    "engines": ("3", 3, "11"),
    "engine_hang_seconds": ("2.5", 2.5, "11"),
    "engine_max_mib": ("900", 900, "11"),
    "engine_max_requests": ("5000", 5000, "11"),
    "log_level": ("info", "info", "error"),
    "log_format": ("text", "text", "json"),
    "trace": ("trace.jsonl", "trace.jsonl", "other.jsonl"),
    "trace_content": ("full", "full", "none"),
    "idempotency_journal": ("results.db", "results.db", "other.db"),
    "record": ("run.cassette", "run.cassette", "other"),
    "replay": ("run.cassette", "run.cassette", "other"),
    "replay_miss": ("record", "record", "error"),
    "replay_timing": ("real", "real", "none"),
    "match_ignore": ("ids, messages.*.name", frozenset({"ids", "messages.*.name"}), "[dates]"),
}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(section: str) -> str:
        path = tmp_path / "config.yaml"
        path.write_text(f"omni_bridge: {{{section}}}")
        path.chmod(0o600)
        return str(path)

    return write


def settings(path: str | None = None, **flags: str) -> Settings:
    return load_config(path, flags).settings


def test_each_setting_that_is_a_flag_has_its_example_here() -> None:
    assert set(EXAMPLES) == set(FLAGS), "add it to EXAMPLES"
    assert set(SETTINGS) - set(FLAGS) == {"local"}
    assert READERS.keys() <= SETTINGS.keys()


@pytest.mark.rule("CFG-4")
@pytest.mark.parametrize("name", FLAGS)
def test_a_flag_wins_over_a_variable_and_that_over_the_file_and_that_over_the_default(
    name: str, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, value, written = EXAMPLES[name]
    path = write(f"{name}: {written}")
    of_the_file = getattr(settings(path), name)
    assert of_the_file != value
    monkeypatch.setenv(variable(name), text)
    assert getattr(settings(path), name) == value
    monkeypatch.setenv(variable(name), "no such value")
    assert getattr(settings(path, **{name: text}), name) == value
    monkeypatch.setenv(variable(name), "")  # as good as none
    assert getattr(settings(path), name) == of_the_file
    assert getattr(settings(), name) == getattr(DEFAULTS, name) != value


def test_a_list_is_names_between_commas_or_json(write: Write) -> None:
    assert settings(provider_params='["a", "b"]').provider_params == settings(provider_params="a,b").provider_params == {"a", "b"}
    assert settings(write("provider_params: [a, b]")).provider_params == {"a", "b"}


def test_a_null_in_the_file_is_the_default(write: Write) -> None:
    assert settings(write("max_in_flight: null, deadline_first_token_ms: null")) == DEFAULTS


def test_the_defaults_are_as_valid_as_configured_values(write: Write) -> None:
    plain = {name: value for name in SETTINGS if isinstance(value := getattr(DEFAULTS, name), int | float | str)}
    assert settings(write(", ".join(f"{name}: {value}" for name, value in plain.items()))) == DEFAULTS
    Deadlines(**DEFAULTS.deadlines)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("max_in_flight: 0", ":1: omni_bridge.max_in_flight: must be at least 1"),
        ("max_in_flight: 1.5", "must be a whole number"),
        ("max_in_flight: many", "must be a whole number"),
        ("max_in_flight: true", "must be a whole number"),
        ("max_in_flight: [1]", "must be a whole number"),
        ("grace_seconds: .inf", "must be a number"),
        ("grace_seconds: -1", "must be at least 0"),
        ("grace_seconds: soon", "must be a number"),
        ("deadline_first_token_ms: 0", "must be at least 1"),
        ("log_level: loud", "must be one of: debug, info, warning, error"),
        ("engine: rust", "must be one of: auto, direct, litellm"),
        ("provider_params: 5", "must be a list of names"),
        ("local_services: [olama]", "'olama' is unknown; known: docker_model_runner,"),
        ("trace: 5", "must be a text"),
        ("image_policy: {schemes: [http]}", "omni_bridge.image_policy: schemes must be"),
        ("image_policy: no", "must be a mapping"),
        ("local: {a: {file: none.gguf}}", "config.yaml:1: omni_bridge.local.a: "),
        ("loglevel: info", "omni_bridge.loglevel: is not a setting; did you mean log_level?"),
    ],
)
def test_a_wrong_value_in_the_file_names_its_line(write: Write, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(text))
    assert words in str(caught.value)


def test_a_wrong_flag_or_variable_names_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable("grace_seconds"), "soon")
    monkeypatch.setenv(variable("image_policy"), "data")
    with pytest.raises(ConfigError) as caught:
        load_config(None, {"max_in_flight": "0"})
    assert set(caught.value.lines) == {
        "--max-in-flight: must be at least 1",
        "OMNI_BRIDGE_GRACE_SECONDS: must be a number",
        "OMNI_BRIDGE_IMAGE_POLICY: must be a mapping; in a flag or a variable, JSON",
    }


# ---- printed ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("CFG-9")
def test_each_setting_and_member_is_printed_with_its_source_and_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        """
model_list:
- model_name: fast
  litellm_params:
    model: openai/gpt-4o-mini
    api_key: os.environ/A_TEST_KEY
    aws_secret_access_key: literal-secret-1
router_settings: {redis_url: "redis://:hunter22@cache:6379", redis_password: literal-secret-2}
credential_list: [{credential_name: c, credential_values: {api_base: sk-literal-secret-3333}}]
general_settings: {master_key: literal-secret-4}
environment_variables: {SOME_TOKEN: literal-secret-5, COPY: os.environ/A_TEST_KEY}
omni_bridge:
  max_in_flight: 9
  provider_params: [top_k]
"""
    )
    path.chmod(0o600)
    monkeypatch.setenv("A_TEST_KEY", "the-value-of-the-variable")
    monkeypatch.setenv(variable("log_level"), "info")
    text = render_config(Source(str(path), {"grace_seconds": "4"}).load())
    shown = {re.sub(r" +# ", " # ", line.strip()) for line in text.splitlines()}
    assert {
        f"max_in_flight: 9 # {path}:13",
        "grace_seconds: 4.0 # --grace-seconds",
        "log_level: info # OMNI_BRIDGE_LOG_LEVEL",
        "log_format: json # default",
        f"api_key: os.environ/A_TEST_KEY # {path}:6",
        f"model: openai/gpt-4o-mini # {path}:5",
        f"COPY: os.environ/A_TEST_KEY # {path}:11",
    } <= shown
    for secret in ("literal-secret", "hunter22", "the-value-of-the-variable"):
        assert secret not in text


def test_what_is_printed_could_be_a_config_again(write: Write, tmp_path: Path) -> None:
    first = load_config(write("max_in_flight: 9, image_policy: {allowed_hosts: ['1.2.3.4:5']}, log_level: info"))
    again = tmp_path / "again.yaml"
    again.write_text(render_config(first))
    again.chmod(0o600)
    assert load_config(str(again)).settings == first.settings


def test_a_flag_and_a_variable_are_the_settings_name() -> None:
    assert (flag("max_in_flight"), variable("max_in_flight")) == ("--max-in-flight", "OMNI_BRIDGE_MAX_IN_FLIGHT")
