"""What the bridge takes for granted of LiteLLM though nobody promised it, held against the LiteLLM that is installed.

After an upgrade these fail first, and say which file of ours to correct. Nothing here calls a provider.
"""

from __future__ import annotations

import ast
import asyncio
import importlib
import importlib.metadata
import inspect
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import litellm
import pytest
from litellm.integrations.custom_logger import CustomLogger
from packaging.requirements import Requirement

from bridge_worker.backends.litellm import chat as ours
from bridge_worker.backends.litellm import exceptions, receipts, responses, services, setup
from bridge_worker.backends.litellm.model_names import ModelNames
from bridge_worker.backends.litellm.patches import hosts
from bridge_worker.config.gateway import Gateway
from bridge_worker.providers import price_map
from bridge_worker.providers.facts import UNUSABLE_PROVIDERS
from bridge_worker.system.versions import litellm_version
from tests.support.worker import clean_environment

# LiteLLM's types make pydantic warn, which no default filter shows.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince211"),
]

PROJECT = Path(__file__).parents[2]
INSTALLED = Path(litellm.__file__).parent


def source_of(path: str) -> str:
    """A file of LiteLLM's, by its path in the package, or of another package beside it."""
    file = INSTALLED / path if (INSTALLED / path).exists() else INSTALLED.parent / path
    assert file.exists(), f"LiteLLM has no {path} any more; see its user in this file and correct it"
    return file.read_text(encoding="utf-8")


# ---- the version ---------------------------------------------------------------------------------------------------------------


def test_the_installed_version_is_in_the_declared_range_and_the_locked_one() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (wanted,) = [one for one in map(Requirement, project["dependencies"]) if one.name == "litellm"]
    installed = importlib.metadata.version("litellm")
    assert installed in wanted.specifier, "run these tests with the range's LiteLLM, or correct the range in pyproject.toml"
    lock = (PROJECT / "requirements.lock").read_text(encoding="utf-8")
    assert re.search(rf"^litellm=={re.escape(installed)}\b", lock, re.MULTILINE), "requirements.lock has another; run bin/lock"
    assert litellm_version() == installed


# ---- the environment -----------------------------------------------------------------------------------------------------------

READ_BY = {  # environment variable -> the file that reads it
    "LITELLM_MODE": "__init__.py",
    "LITELLM_LOCAL_MODEL_COST_MAP": "litellm_core_utils/get_model_cost_map.py",
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "anthropic_beta_headers_manager.py",
    "LITELLM_DISABLE_BUG_REPORT_LINK": "litellm_core_utils/bug_report.py",
    "HF_HUB_OFFLINE": "huggingface_hub/constants.py",
    "REPEATED_STREAMING_CHUNK_LIMIT": "constants.py",
    "AIOHTTP_CONNECTOR_LIMIT": "constants.py",
    "DEFAULT_MAX_RETRIES": "constants.py",
    "AIOHTTP_CONNECTOR_LIMIT_PER_HOST": "constants.py",
    "EXPERIMENTAL_OPENAI_BASE_LLM_HTTP_HANDLER": "main.py",
    "JSON_LOGS": "_logging.py",
    "LITELLM_PRINT_STANDARD_LOGGING_PAYLOAD": "litellm_core_utils/litellm_logging.py",
    "LITELLM_LOG": "_logging.py",
}


def test_each_variable_that_we_set_or_remove_is_in_the_table() -> None:
    assert READ_BY.keys() == {*setup.ENVIRONMENT, *setup.REMOVED}, "add it to READ_BY here"


@pytest.mark.parametrize("name", READ_BY)
def test_a_variable_is_still_read(name: str) -> None:
    assert f'"{name}"' in source_of(READ_BY[name]), (
        f"LiteLLM does not read {name} there any more: correct bridge_worker/backends/litellm/setup.py"
    )


IMPORT = """
import json, os, sys
events = []
def audit(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        events.append([event, str(arguments)])
    if event == "open" and str(arguments[0]).endswith(".env"):
        events.append([event, str(arguments[0])])
sys.addaudithook(audit)
from bridge_worker.backends.litellm import setup
from bridge_worker.security.url_policy import UrlPolicy
setup.prepare(UrlPolicy())
import bridge_worker.backends.litellm.warm_up as ours
ours.warm_up()
import litellm
from litellm import constants
names = ("REPEATED_STREAMING_CHUNK_LIMIT", "AIOHTTP_CONNECTOR_LIMIT", "AIOHTTP_CONNECTOR_LIMIT_PER_HOST")
report = {"events": events, "constants": {name: getattr(constants, name) for name in names}}
report["hook"] = sys.excepthook is sys.__excepthook__
report["removed"] = [name for name in ("JSON_LOGS", "LITELLM_LOG") if name not in os.environ]
sys.stderr.write(json.dumps(report))
sys.stderr.flush()
os._exit(0)
"""


@pytest.fixture(scope="module")
def fresh_import(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """A process that imports and warms LiteLLM as the worker does, in a folder with a .env file."""
    folder = tmp_path_factory.mktemp("import")
    (folder / ".env").write_text("STRAY=1\n", encoding="utf-8")
    set_by_us = {*setup.ENVIRONMENT}
    env = {name: value for name, value in clean_environment().items() if name not in set_by_us}
    env |= {"JSON_LOGS": "true", "LITELLM_LOG": "nonsense"}
    return subprocess.run(
        [sys.executable, "-I", "-X", "utf8", "-c", IMPORT],
        env=env,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_import_and_warm_up_use_no_network_and_read_no_dotenv(fresh_import: subprocess.CompletedProcess[str]) -> None:
    assert fresh_import.returncode == 0, fresh_import.stderr
    report = json.loads(fresh_import.stderr)
    assert report["events"] == [], "switch it off in backends/litellm/setup.py"
    assert report["removed"] == ["JSON_LOGS", "LITELLM_LOG"]
    assert report["hook"], "LiteLLM has replaced sys.excepthook: see REMOVED in backends/litellm/setup.py"


def test_import_and_warm_up_print_nothing(fresh_import: subprocess.CompletedProcess[str]) -> None:
    assert fresh_import.stdout == "", "see SWITCHES and LOGGERS in backends/litellm/setup.py"


def test_the_limits_are_those_that_we_set(fresh_import: subprocess.CompletedProcess[str]) -> None:
    for name, value in json.loads(fresh_import.stderr)["constants"].items():
        assert str(value) == setup.ENVIRONMENT[name], (
            f"{name} is not read at import any more: see ENVIRONMENT in backends/litellm/setup.py"
        )


# ---- what models/litellm.py relies on ------------------------------------------------------------------------------------------


def test_each_flag_that_we_set_exists() -> None:
    """A flag that LiteLLM has renamed would be set for nobody."""
    tree = ast.parse(source_of("__init__.py"))
    assigned = {ast.unparse(node.target) for node in tree.body if isinstance(node, ast.AnnAssign)}
    assigned |= {ast.unparse(target) for node in tree.body if isinstance(node, ast.Assign) for target in node.targets}
    assigned |= {alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    for name in (*setup.SWITCHES, "user_url_allowed_hosts"):
        assert name in assigned, f"litellm.{name} does not exist any more: correct SWITCHES in backends/litellm/setup.py"


def test_its_loggers_have_the_names_that_we_silence() -> None:
    logging = importlib.import_module("litellm._logging")
    names = {logging.verbose_logger.name, logging.verbose_router_logger.name, logging.verbose_proxy_logger.name}
    assert names == {"LiteLLM", "LiteLLM Router", "LiteLLM Proxy"}, "correct backends/litellm/chat.py"


def test_the_providers_that_we_refuse_are_its_names() -> None:
    for name in UNUSABLE_PROVIDERS:
        assert name in litellm.provider_list, f"{name} has another name now: correct providers/facts.py"


def test_tools_need_no_mcp_package_with_the_private_argument() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    call: dict[str, Any] = {
        "model": "openai/any",
        "messages": [{"role": "user", "content": "x"}],
        "tools": [tool],
        "mock_response": "hi",
    }
    response = asyncio.run(litellm.acompletion(**call, _skip_mcp_handler=True))
    assert response.choices[0].message.content == "hi", "_skip_mcp_handler: correct LiteLLM._complete in backends/litellm/chat.py"


@pytest.mark.parametrize(
    ("what", "parameters"),
    [
        (lambda: ours.GLOBAL_LOGGING_WORKER.flush, []),
        (lambda: ours.GLOBAL_LOGGING_WORKER.stop, []),
        (lambda: litellm.close_litellm_async_clients, []),
        (lambda: litellm.CustomStreamWrapper.aclose, ["self"]),
        (lambda: litellm.cost_per_token, ["model", "custom_llm_provider", "usage_object"]),
        (lambda: litellm.get_llm_provider, ["model"]),
        (lambda: litellm.validate_environment, ["model"]),
    ],
    ids=[
        "flush", "stop", "close clients", "aclose", "cost_per_token", "get_llm_provider",
        "validate_environment",
    ],
)  # fmt: skip
def test_a_function_takes_what_we_give_it(what: Callable[[], Callable[..., Any]], parameters: list[str]) -> None:
    signature = inspect.signature(what())
    assert set(parameters) <= signature.parameters.keys(), "its caller is in bridge_worker/models/"
    required = [
        name for name, one in signature.parameters.items() if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD
    ]
    assert set(required) <= set(parameters), "its caller is in bridge_worker/models/"


def test_the_router_lists_its_wildcards() -> None:
    params = {"model": "openai/*", "api_key": "k"}
    router = litellm.Router(
        model_list=[{"model_name": "team/*", "litellm_params": params}, {"model_name": "one", "litellm_params": params}]
    )
    wrong = "correct backends/litellm/router.py"
    names = ModelNames(router)
    assert names.find("team/any") is not None, wrong
    assert names.find("other/any") is None, wrong
    assert set(ours.router.names(router)) == {"team/*", "one"}, wrong
    assert [row["litellm_params"]["model"] for row in ours.router.deployments(router, "one")] == ["openai/*"], wrong
    assert len(ours.router.deployments(router)) == len(ours.router.configured_deployments(router)) == 2, wrong
    assert ours.router.store(router).redis_cache is None, wrong
    ours.router.forget(router)


def test_the_bridge_uses_no_member_of_the_router_that_is_deprecated() -> None:
    """LiteLLM counts the uses of each, by modules that are not its own."""
    deprecated = importlib.import_module("litellm.router_deprecated")
    before = dict(deprecated.DEPRECATED_ROUTER_MEMBER_USES)
    test_the_router_lists_its_wildcards()
    row = {"model_name": "one", "litellm_params": {"model": "openai/a", "api_key": "k"}}
    served = ours.LiteLLM(Gateway(router={"model_list": [row]}, places=["here"]))
    services.LiteLLMServices(served).names(every=False)
    ours.router.forget(served.router)
    assert dict(deprecated.DEPRECATED_ROUTER_MEMBER_USES) == before, "correct backends/litellm/router.py"


def test_a_model_names_its_provider() -> None:
    assert litellm.get_llm_provider("anthropic/claude")[1] == "anthropic", "correct _provider in backends/litellm/chat.py"


def test_a_chunk_has_its_hidden_params() -> None:
    params = litellm.ModelResponseStream()._hidden_params
    assert params.get("provider_response_model") is None, "correct _piece in backends/litellm/chat.py"
    assert "provider_response_model" in source_of("litellm_core_utils/streaming_handler.py")


# ---- what models/faults.py relies on -------------------------------------------------------------------------------------------

SOME_MODULES = {  # where a package keeps the classes that faults.py names
    "litellm": ("litellm.exceptions", "litellm.types.router", "litellm.litellm_core_utils.url_utils"),
    "openai": ("openai",),
    "httpx": ("httpx",),
    "aiohttp": ("aiohttp",),
    "asyncio": ("asyncio",),
    "json": ("json",),
    "pydantic_core": ("pydantic_core",),
    "builtins": ("builtins",),
    "socket": ("socket",),
    "ssl": ("ssl",),
}
OPTIONAL = {"botocore", "google"}  # not installed with LiteLLM; a name there can't be checked here
NAMES = sorted({*exceptions._READINGS, *exceptions._CAUSES, *exceptions._UNREACHABLE})


@pytest.mark.parametrize("name", [name for name in NAMES if name.partition(".")[0] not in OPTIONAL])
def test_an_exception_exists_under_its_name(name: str) -> None:
    package, _, short = name.partition(".")
    found = [getattr(importlib.import_module(module), short, None) for module in SOME_MODULES[package]]
    (exception,) = [one for one in found if one is not None] or [None]
    wrong = f"{name} is gone or moved: correct backends/litellm/exceptions.py"
    assert isinstance(exception, type), wrong
    assert issubclass(exception, BaseException), wrong
    assert (exception.__module__.partition(".")[0], exception.__name__) == (package, short), wrong


HAS_FUNCTION = {  # name in faults._BY_FUNCTION -> a file of LiteLLM's that defines it
    "parse_body": "llms/vertex_ai/gemini/long_decode.py",
    "transform_request": "llms/base_llm/chat/transformation.py",
    "async_transform_request": "llms/base_llm/chat/transformation.py",
    "async_transform_request_body": "llms/vertex_ai/gemini/transformation.py",
    "validate_and_fix_openai_messages": "utils.py",
    "transform_response": "llms/base_llm/chat/transformation.py",
    "_transform_response": "llms/openai_like/chat/transformation.py",
    "_transform_google_generate_content_to_openai_model_response": "llms/vertex_ai/gemini/vertex_and_google_ai_studio_gemini.py",
    "convert_to_model_response_object": "litellm_core_utils/llm_response_utils/convert_dict_to_response.py",
    "chunk_parser": "llms/base_llm/base_model_iterator.py",
    "_dispatch_provider_chunk": "litellm_core_utils/streaming_handler.py",
}


def test_each_function_that_faults_names_is_in_the_table() -> None:
    known = set(HAS_FUNCTION) | {"_event"}  # ours, in models/patches.py
    assert set(exceptions._BY_FUNCTION) <= known, "add it to HAS_FUNCTION here"


@pytest.mark.parametrize("name", HAS_FUNCTION)
def test_a_function_in_a_traceback_exists_under_its_name(name: str) -> None:
    assert re.search(rf"\bdef {name}\(", source_of(HAS_FUNCTION[name])), f"{name} is gone: correct backends/litellm/exceptions.py"


GEMINI = "llms/vertex_ai/gemini/vertex_and_google_ai_studio_gemini.py"
READS_RESPONSES = "litellm_core_utils/llm_response_utils/convert_dict_to_response.py"


@pytest.mark.parametrize(
    ("path", "text", "kind"),
    [
        ("litellm_core_utils/get_llm_provider_logic.py", "LLM Provider NOT provided", "model_not_found"),
        ("llms/openai/openai.py", "invalid response from LLM endpoint", "bad_upstream_response"),
        ("responses/streaming_iterator.py", "closed the responses stream before any terminal event", "bad_upstream_response"),
        (READS_RESPONSES, "provider returned a response with no 'choices'", "bad_upstream_response"),
        ("llms/anthropic/common_utils.py", "Missing Anthropic API Key", "authentication"),
    ],
    ids=["no provider", "no response", "cut short", "no choices", "no key"],
)
def test_a_sentence_is_still_in_litellm(path: str, text: str, kind: str) -> None:
    assert text in source_of(path), "correct _BY_SENTENCE in backends/litellm/exceptions.py"
    assert exceptions._match(exceptions._BY_SENTENCE, Exception(text)) == kind


def test_retry_advice_is_where_faults_looks_for_it() -> None:
    assert '"litellm_response_headers"' in source_of("litellm_core_utils/exception_mapping_utils.py"), (
        "correct _retry_after_ms in backends/litellm/exceptions.py"
    )
    router = importlib.import_module("litellm.types.router")
    for name in ("RouterRateLimitError", "RouterRateLimitErrorBasic"):
        assert "self.cooldown_time" in inspect.getsource(getattr(router, name)) or name.endswith("Basic"), (
            "correct _retry_after_ms in backends/litellm/exceptions.py"
        )


def test_a_broken_streams_error_holds_the_first_one() -> None:
    broken = importlib.import_module("litellm.exceptions").MidStreamFallbackError
    assert "original_exception" in inspect.signature(broken).parameters, "correct _chain in backends/litellm/exceptions.py"


def test_missing_keys_are_reported_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GROQ_API_KEY", raising=False)
    assert litellm.validate_environment("groq/any")["missing_keys"] == ["GROQ_API_KEY"], (
        "correct _about_key in backends/litellm/exceptions.py"
    )


# ---- what models/attempts.py and models/answers.py stand on ----------------------------------------------------------------------


def test_the_hooks_that_report_attempts_are_called() -> None:
    wrong = "correct backends/litellm/receipts.py"
    hooks = {
        "async_pre_call_deployment_hook": "utils.py",
        "async_post_call_failure_deployment_hook": "utils.py",
        "log_pre_api_call": "litellm_core_utils/litellm_logging.py",
    }
    for hook, path in hooks.items():
        assert f"callback.{hook}(" in source_of(path), wrong
        ours_takes, theirs = (list(inspect.signature(getattr(kind, hook)).parameters) for kind in (receipts.Watch, CustomLogger))
        assert ours_takes == theirs, wrong
    assert '"complete_input_dict": data' in source_of("llms/custom_httpx/llm_http_handler.py"), wrong


def test_the_price_maps_date_is_known() -> None:
    installed = importlib.metadata.version("litellm")
    assert installed in price_map.DATES, "add the day on which this version was published, in models/price_map.py"


def test_the_price_map_file_equals_litellms() -> None:
    """But for a name that LiteLLM takes for another provider's."""
    wrong = "correct bridge_worker/providers/price_map.py"
    catalogue = services.LiteLLMServices(ours.LiteLLM())
    others = []
    listed = list(price_map.rows())
    assert len(listed) > 3000, wrong
    for name, provider, facts in listed:
        if hosts.endpoint(name.partition("/")[0]):  # it needs a base URL, or a permission, before it is served
            continue
        info = catalogue.describe(name)  # it is served by that name
        prices = (info.prices.input_usd, info.prices.output_usd, info.limits.context_tokens, info.mode)
        expected = tuple(facts.get(key) for key in ("input_cost_per_token", "output_cost_per_token", "max_input_tokens", "mode"))
        if not (info.provider or "").startswith(provider) or prices != expected:
            others.append(name)
    assert others == ["azure/mistral-large-latest"], wrong


def test_geminis_signature_is_still_hidden_in_an_id() -> None:
    separator = f'THOUGHT_SIGNATURE_SEPARATOR: Final = "{responses._SIGNED_ID}"'
    assert separator in source_of("litellm_core_utils/prompt_templates/factory.py"), "correct _SIGNED_ID in models/answers.py"


def test_a_provider_of_ours_is_known_to_litellm_once_it_is_set_up() -> None:
    """`local_provider` relies on the map's shape, on the function behind it, and on prices that are 0 being no unknown ones."""
    from bridge_worker.backends.litellm.local_deployment import register
    from bridge_worker.backends.local.chat import Local

    register(Local())
    register(Local())  # the second takes the first one's place
    assert [entry["provider"] for entry in litellm.custom_provider_map].count("local") == 1
    assert litellm.get_llm_provider("local/smollm2")[:2] == ("smollm2", "local")
    assert litellm.cost_per_token(model="local/smollm2", custom_llm_provider="local", prompt_tokens=5, completion_tokens=5) == (
        0.0,
        0.0,
    )
