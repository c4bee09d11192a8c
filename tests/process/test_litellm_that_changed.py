"""A LiteLLM in which one function has changed: the worker loses what leaned on it, and nothing else."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from tests.conftest import Spawn
from tests.support.data import KEY
from tests.support.upstream import Upstream
from tests.support.worker import WAIT_SECONDS, Json, Worker, wait_until

# A worker whose LiteLLM has another function at one place: `change` gets the original.
PROGRAM = """
import importlib, sys
from bridge_worker.backends.litellm import setup
setup.set_environment()
setup.name_a_temporary_folder()
owner = importlib.import_module({module!r})
*path, name = {path!r}.split(".")
for step in path:
    owner = getattr(owner, step)
original = getattr(owner, name)
{change}
setattr(owner, name, changed)
from bridge_worker.cli.main import main
sys.argv = ["omni-bridge", *sys.argv[1:]]
sys.exit(main())
"""
ONE_MORE_PARAMETER = """
def changed(*arguments, added=None, **named):
    return original(*arguments, **named)
"""
BUILDER = "litellm.litellm_core_utils.streaming_chunk_builder_utils"
HUB = "litellm.litellm_core_utils.prompt_templates.huggingface_template_handler"

MESSAGES = [{"role": "user", "content": "hi"}]

Changed = Callable[..., Worker]


@pytest.fixture
def changed(spawn: Spawn, upstream: Upstream) -> Changed:
    def start(place: str, change: str = ONE_MORE_PARAMETER, *flags: str) -> Worker:
        module, _, path = place.partition(":")
        program = PROGRAM.format(module=module, path=path, change=change)
        command = (sys.executable, "-I", "-X", "utf8", "-c", program)
        env = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": upstream.base_url, "REPLICATE_API_KEY": KEY}
        env |= {"GEMINI_API_KEY": KEY, "GEMINI_API_BASE": f"{upstream.base_url}/v1beta"}
        return spawn(*flags, command=command, env=env)

    return start


def degraded(worker: Worker) -> list[Json]:
    """Waits until the worker has tried all of its parts."""
    rows: list[list[Json] | None] = []

    def is_known() -> bool:
        rows.append(worker.call("status")["result"]["degraded"])
        return rows[-1] is not None

    wait_until(is_known, "the worker has tried its parts", WAIT_SECONDS)
    return rows[-1] or []


@pytest.mark.rule("STA-5")
def test_nothing_is_degraded_on_the_pinned_version(worker: Worker) -> None:
    assert degraded(worker) == []


@pytest.mark.rule("STA-5")
def test_a_patch_that_does_not_fit_costs_exactly_that_patch(changed: Changed) -> None:
    worker = changed(f"{BUILDER}:_stamp_streaming_usage_cost")
    for streamed in (False, True):
        assert worker.chat("openai/gpt-4o-mini", stream=streamed)["receipt"]["engine"]["name"] == "litellm-direct"
    (row,) = degraded(worker)
    assert row["part"] == "patch stream price"
    assert "takes (arguments, added, named) instead of (usage, response, logging_obj)" in row["reason"]
    assert row["effect"] == "the usage of a stream has LiteLLM's price as if the provider had sent it"
    assert worker.stderr.count("does not fit this version of LiteLLM") == 1
    assert worker.stderr.count("the patch stream price does not fit") == 1


@pytest.mark.rule("STA-5", "SEC-15")
def test_a_security_patch_that_does_not_fit_refuses_the_providers_that_need_it(changed: Changed) -> None:
    worker = changed(f"{HUB}:get_tokenizer_config")
    for model in ("replicate/owner/name", "sagemaker/name"):
        refused = worker.call("chat", {"model": model, "messages": [{"role": "user", "content": "hi"}]})["error"]
        assert refused["data"]["kind"] == "model_not_found"
        assert "the security patch hub templates: get_tokenizer_config does not fit LiteLLM" in refused["message"]
    assert worker.chat("openai/gpt-4o-mini")["content"]
    row, *refused_with_it = degraded(worker)
    assert row["part"] == "patch hub templates: get_tokenizer_config"
    assert "replicate" in row["effect"]
    assert {other["part"] for other in refused_with_it} == {"format bedrock_converse", "format bedrock_anthropic"}


@pytest.mark.rule("STA-5", "SEC-13")
def test_without_a_patch_that_protects_every_key_litellm_serves_nothing(changed: Changed, upstream: Upstream) -> None:
    worker = changed("httpx._client:BaseClient._build_redirect_request")
    refused = worker.call("chat", {"model": "openai/gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]})["error"]
    assert refused["data"]["kind"] == "internal"
    assert "is not safe to use: the security patch redirects does not fit it" in refused["message"]
    assert worker.chat("offline/echo", "hello")["content"] == "hello"
    (row,) = degraded(worker)
    assert row["part"] == "patch redirects"
    assert row["effect"].startswith("LiteLLM serves nothing")
    assert upstream.requests == []


GEMINI_MOVED = """
def changed(*arguments, **named):
    header, url = original(*arguments, **named)
    return header, url.replace("enerateContent", "akeContent")
"""


@pytest.mark.rule("STA-5")
def test_a_format_that_fails_its_self_test_is_off_and_the_others_are_not(changed: Changed) -> None:
    worker = changed("litellm.llms.vertex_ai.vertex_llm_base:VertexBase._get_token_and_url", GEMINI_MOVED)
    (row,) = degraded(worker)
    assert row["part"] == "format gemini"
    assert "akeContent, which is not known as this format's" in row["reason"]
    assert worker.chat("openai/gpt-4o-mini")["receipt"]["engine"]["name"] == "litellm-direct"
    assert worker.stderr.count("degraded: format gemini (") == 1


@pytest.mark.rule("STA-5")
def test_each_of_several_engines_tries_a_format_before_its_first_chat(changed: Changed) -> None:
    """A separate process tries all formats ahead, each engine those that it needs."""
    place = "litellm.llms.vertex_ai.vertex_llm_base:VertexBase._get_token_and_url"
    worker = changed(place, GEMINI_MOVED, "--engines", "2")
    wait_until(lambda: [row["state"] for row in worker.call("status")["result"]["engines"]] == ["ready"] * 2, "both are ready")
    (row,) = degraded(worker)
    assert row["part"] == "format gemini"
    assert worker.stderr.count("degraded: format gemini (") == 1
    failed = "this LiteLLM fails the rehearsal of the format gemini"
    assert failed not in worker.stderr
    chats = [worker.request("chat", {"model": "gemini/gemini-2.5-flash", "messages": MESSAGES}) for _ in range(2)]
    for chat in chats:
        assert worker.response(chat)["error"]["data"]["kind"]
    wait_until(lambda: worker.stderr.count(failed) == 2, "the second engine has tried it too")
