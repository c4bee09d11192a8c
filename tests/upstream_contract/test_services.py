"""What models/catalog.py, tokens.py and vectors.py take for granted of LiteLLM, held against the LiteLLM that is installed."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path

import litellm
import pytest
from litellm.litellm_core_utils.token_counter import openai_tokenizer_encoding_name

from bridge_worker.backends.litellm import services, tokens
from bridge_worker.providers import facts, key_variables

pytestmark = [
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince211"),
]

COUNT_OFFLINE = """
import sys
def audit(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        sys.exit(f"asked the network: {event} {arguments}")
sys.addaudithook(audit)
import bridge_worker.backends.litellm
from bridge_worker.backends.litellm import tokens
for model in ("gpt-4o", "gpt-3.5-turbo", "text-davinci-003", "davinci", "meta-llama/llama-3-8b"):
    tokens.count(model, "openai", [{"role": "user", "content": "hi"}], None)
    tokens.count(model, "ollama", [{"role": "user", "content": "hi"}], None)
import tiktoken
for name in tokens._SHIPPED:
    tiktoken.get_encoding(name)
"""


def test_the_tokenizers_that_we_use_are_shipped_and_no_other_is_fetched(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "CUSTOM_TIKTOKEN_CACHE_DIR"}
    done = subprocess.run(
        [sys.executable, "-I", "-c", COUNT_OFFLINE], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"correct _SHIPPED in backends/litellm/tokens.py: {done.stderr[-500:]}"


def test_the_encoding_has_the_reported_name() -> None:
    assert openai_tokenizer_encoding_name("gpt-4o") == "o200k_base", "correct count in backends/litellm/tokens.py"
    assert openai_tokenizer_encoding_name("of-nobodys-making") == "cl100k_base", "correct count in backends/litellm/tokens.py"


def test_the_counter_takes_what_we_give_it() -> None:
    given = {"model", "messages", "tools", "use_default_image_token_count"}
    assert given <= inspect.signature(litellm.token_counter).parameters.keys(), "correct backends/litellm/tokens.py"


def test_the_price_map_has_the_members_that_we_read() -> None:
    members = {key for row in litellm.model_cost.values() for key in row}
    read = {*services._SUPPORTS.values(), *services._INPUTS.values(), "supported_modalities", "supported_output_modalities"}
    read |= {"max_input_tokens", "max_output_tokens", "input_cost_per_token", "output_cost_per_token", "input_cost_per_query"}
    read |= {"cache_read_input_token_cost", "cache_creation_input_token_cost", "cache_creation_input_token_cost_above_1hr"}
    read |= {"input_cost_per_token_above_200k_tokens", "output_cost_per_reasoning_token", "deprecation_date", "mode"}
    assert read <= members, f"the price map has no {read - members} any more: correct backends/litellm/services.py"


def test_providers_have_the_names_that_we_use_and_a_check_of_their_keys() -> None:
    named = {*key_variables._KEY_OF, *key_variables._KEY_OF.values(), *key_variables._KEY_NAMES, *facts.KEY_MAY_BE_ELSEWHERE}
    assert named <= {str(getattr(name, "value", name)) for name in litellm.provider_list}, (
        "correct providers/key_variables.py or backends/litellm/services.py"
    )
    assert "missing_keys" in litellm.validate_environment("openai/model"), (
        "correct _key_in_environment in backends/litellm/services.py"
    )


def test_the_functions_of_the_catalogue_take_what_we_give_them() -> None:
    for function, given in (
        (litellm.get_llm_provider, {"model", "custom_llm_provider", "api_base"}),
        (litellm.get_supported_openai_params, {"model", "custom_llm_provider"}),
        (litellm.Router.get_model_list, {"model_name"}),
    ):
        assert given <= inspect.signature(function).parameters.keys(), f"correct backends/litellm/services.py: {function}"


@pytest.mark.parametrize("model", ["gpt-4", "gpt-4-turbo", "gpt-4o", "gpt-4o-mini", "gpt-4.1", "gpt-4.1-nano", "gpt-3.5-turbo"])
def test_what_counts_as_exact_is_a_model_that_litellm_counts_as_itself(model: str) -> None:
    assert model in litellm.open_ai_chat_completion_models, (
        "else it is counted as another: correct _PUBLISHED in backends/litellm/tokens.py"
    )
    assert tokens.count(model, "openai", [{"role": "user", "content": "hello world"}], None).model_dump() == {
        "input_tokens": 9,
        "tokenizer": "cl100k_base" if model in ("gpt-4", "gpt-4-turbo", "gpt-3.5-turbo") else "o200k_base",
        "exact": True,
    }


def test_a_dated_name_that_litellm_does_not_know_has_no_exact_count() -> None:
    assert tokens.count("gpt-4o-2099-01-01", "openai", [{"role": "user", "content": "hi"}], None).exact is False
