"""A key and a request go to the provider's own host: base URLs, permission for services on this machine, redirects."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import pytest

from bridge_worker.providers.facts import DEFAULT_LOCAL_SERVICES, LOCAL_SERVICES, NO_DEFAULT_HOST
from tests.conftest import Spawn
from tests.support.data import HELLO_ASCII as HELLO
from tests.support.gateway_config import write
from tests.support.upstream import Upstream
from tests.support.worker import Json, Worker

OPENAI_KEY = "sk-of-openai-0123456789"
OWN_KEY = "sk-of-the-provider-0123456789"
PARAMS: dict[str, Json] = {
    "chat": {"messages": HELLO},
    "embed": {"input": ["hello"]},
    "rerank": {"query": "hello", "documents": ["one", "two"]},
}
KEYS = {endpoint.key: OWN_KEY for endpoint in (NO_DEFAULT_HOST | LOCAL_SERVICES).values()}
CHATS = ("auto", "litellm")  # both paths of a chat


class Recorder:
    """An HTTP server that replies to each POST with ``status`` and ``location``, and keeps path and headers of what came."""

    def __init__(self, location: str | None = None, status: int = 307) -> None:
        self.received: list[tuple[str, str]] = []
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"] or 0))
                recorder.received.append((self.path, str(self.headers)))
                moved = recorder.location is not None and not self.path.endswith("/moved")
                self.send_response(status if moved else 500)
                if moved:
                    self.send_header("Location", str(recorder.location))
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            do_GET = do_POST

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        self.location = location
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def error_of(worker: Worker, method: str, model: str) -> Json:
    response = worker.call(method, {"model": model, **PARAMS[method]})
    assert "error" in response, response
    error: Json = response["error"]
    return error


# ---- base URLs and services on this machine --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nowhere() -> Iterator[Recorder]:
    """A proxy for everything: what reaches it went somewhere."""
    with Recorder() as recorder:
        yield recorder


@pytest.fixture(scope="module", params=CHATS)
def keyed(request: pytest.FixtureRequest, nowhere: Recorder) -> Iterator[Worker]:
    """A worker with all keys, OpenAI's too, and no base URL."""
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY"), nowhere.url)
    with Worker(f"--engine={request.param}", env=KEYS | proxies | {"OPENAI_API_KEY": OPENAI_KEY}) as worker:
        yield worker


@pytest.mark.rule("SEC-13")
@pytest.mark.parametrize("method", PARAMS)
@pytest.mark.parametrize("provider", NO_DEFAULT_HOST)
def test_a_provider_without_a_base_url_is_an_error_that_names_the_variable(
    keyed: Worker, nowhere: Recorder, provider: str, method: str
) -> None:
    for model in (f"{provider}/x", f"{provider}/owner/name"):
        error = error_of(keyed, method, model)
        assert error["data"]["kind"] == "model_not_found", error
        assert NO_DEFAULT_HOST[provider].variables[0] in error["message"], error
    assert nowhere.received == []


@pytest.mark.rule("SEC-14")
@pytest.mark.parametrize("method", PARAMS)
@pytest.mark.parametrize("provider", sorted(set(LOCAL_SERVICES) - DEFAULT_LOCAL_SERVICES))
def test_a_service_on_this_machine_needs_permission(keyed: Worker, nowhere: Recorder, provider: str, method: str) -> None:
    error = error_of(keyed, method, f"{provider}/x")
    assert error["data"]["kind"] == "model_not_found", error
    assert LOCAL_SERVICES[provider].variables[0] in error["message"], error
    assert "local_services" in error["message"], error
    assert nowhere.received == []


@pytest.mark.rule("SEC-14")
def test_ollama_and_lm_studio_have_their_known_addresses(nowhere: Recorder, spawn: Spawn) -> None:
    worker = spawn(env={"HTTP_PROXY": nowhere.url, "OPENAI_API_KEY": OPENAI_KEY})
    for model, address in (
        ("ollama/x", "http://localhost:11434/"),
        ("ollama_chat/x", "http://localhost:11434/"),
        ("lm_studio/x", "http://localhost:1234/v1/"),
    ):
        nowhere.received.clear()
        error_of(worker, "chat", model)
        assert nowhere.received, model
        assert {path.startswith(address) for path, _ in nowhere.received} == {True}, nowhere.received
        assert OPENAI_KEY not in str(nowhere.received)
    nowhere.received.clear()


@pytest.mark.rule("SEC-14")
def test_no_services_permitted_are_none(nowhere: Recorder, spawn: Spawn) -> None:
    worker = spawn("--local-services=[]", env={"HTTP_PROXY": nowhere.url})
    for method in ("chat", "embed"):
        for model in ("ollama/x", "ollama_chat/x", "lm_studio/x"):
            assert error_of(worker, method, model)["data"]["kind"] == "model_not_found"
    assert nowhere.received == []


@pytest.mark.rule("SEC-14")
def test_a_service_that_is_named_is_permitted(nowhere: Recorder, spawn: Spawn) -> None:
    worker = spawn(env={"HTTP_PROXY": nowhere.url, "OMNI_BRIDGE_LOCAL_SERVICES": "llamafile"})
    error_of(worker, "chat", "llamafile/x")
    assert nowhere.received.pop()[0].startswith("http://127.0.0.1:8080/")
    nowhere.received.clear()
    assert error_of(worker, "chat", "ollama/x")["data"]["kind"] == "model_not_found"
    assert nowhere.received == []


@pytest.fixture(scope="module")
def based() -> Iterator[tuple[Worker, Recorder]]:
    """A worker with all base URLs, and no key but those of others."""
    with Recorder() as recorder:
        bases = {endpoint.variables[0]: recorder.url for endpoint in (NO_DEFAULT_HOST | LOCAL_SERVICES).values()}
        del bases["OPENAI_BASE_URL"]
        with Worker(env=bases | {"OPENAI_API_KEY": OPENAI_KEY, "COHERE_API_KEY": OPENAI_KEY}) as worker:
            yield worker, recorder


@pytest.mark.rule("SEC-13")
@pytest.mark.parametrize("provider", sorted(set(NO_DEFAULT_HOST | LOCAL_SERVICES) - {"custom_openai"}))
def test_the_base_url_is_taken_and_openais_key_is_not_sent_there(based: tuple[Worker, Recorder], provider: str) -> None:
    worker, recorder = based
    recorder.received.clear()
    for method in PARAMS:
        error_of(worker, method, f"{provider}/x")
    assert recorder.received, "nothing was sent"
    assert OPENAI_KEY not in str(recorder.received)


@pytest.mark.rule("SEC-14")
def test_a_deployment_of_the_config_permits_its_provider_and_a_wildcard_none(
    tmp_path: Path, nowhere: Recorder, spawn: Spawn
) -> None:
    config = {
        "model_list": [
            {"model_name": "mine", "litellm_params": {"model": "llamafile/x"}},
            {"model_name": "lost", "litellm_params": {"model": "hosted_vllm/x", "api_key": OWN_KEY}},
            {"model_name": "there", "litellm_params": {"model": "hosted_vllm/x", "api_base": "http://vllm.example/v1"}},
            {"model_name": "*", "litellm_params": {"model": "*"}},
        ]
    }
    worker = spawn(
        "--config",
        write(tmp_path / "config.yaml", config),
        env={"HTTP_PROXY": nowhere.url, "OPENAI_API_KEY": OPENAI_KEY},
    )
    nowhere.received.clear()
    error = error_of(worker, "chat", "lost")
    assert error["data"]["kind"] == "model_not_found", error
    assert "HOSTED_VLLM_API_BASE" in error["message"]
    for model in ("xinference/x", "langflow/x", "litellm_proxy/x"):
        for method in PARAMS:
            assert error_of(worker, method, model)["data"]["kind"] == "model_not_found"
    assert nowhere.received == []
    error_of(worker, "chat", "there")
    assert nowhere.received.pop()[0] == "http://vllm.example/v1/chat/completions"
    error_of(worker, "chat", "mine")
    assert nowhere.received.pop()[0].startswith("http://127.0.0.1:8080/")
    nowhere.received.clear()


# ---- redirects -----------------------------------------------------------------------------------------------------------------

# (method, model, the variable of its base URL, the variable of its key): LiteLLM's own clients, and the OpenAI SDK's for Azure.
REDIRECTED = [
    ("chat", "openai/x", "OPENAI_BASE_URL", "OPENAI_API_KEY"),
    ("chat", "openai/responses/x", "OPENAI_BASE_URL", "OPENAI_API_KEY"),
    ("chat", "anthropic/x", "ANTHROPIC_API_BASE", "ANTHROPIC_API_KEY"),
    ("chat", "gemini/x", "GEMINI_API_BASE", "GEMINI_API_KEY"),
    ("chat", "azure/x", "AZURE_API_BASE", "AZURE_API_KEY"),
    ("chat", "azure_ai/x", "AZURE_AI_API_BASE", "AZURE_AI_API_KEY"),
    ("chat", "deepseek/x", "DEEPSEEK_API_BASE", "DEEPSEEK_API_KEY"),
    ("chat", "cohere/x", "COHERE_API_BASE", "COHERE_API_KEY"),
    ("chat", "ollama_chat/x", "OLLAMA_API_BASE", "OLLAMA_API_KEY"),
    ("embed", "openai/x", "OPENAI_BASE_URL", "OPENAI_API_KEY"),
    ("embed", "azure/x", "AZURE_API_BASE", "AZURE_API_KEY"),
    ("embed", "gemini/x", "GEMINI_API_BASE", "GEMINI_API_KEY"),
    ("embed", "ollama/x", "OLLAMA_API_BASE", "OLLAMA_API_KEY"),
    ("rerank", "azure_ai/x", "AZURE_AI_API_BASE", "AZURE_AI_API_KEY"),
    ("rerank", "hosted_vllm/x", "HOSTED_VLLM_API_BASE", "HOSTED_VLLM_API_KEY"),
]


@pytest.fixture(scope="module")
def target() -> Iterator[Recorder]:
    with Recorder() as recorder:
        yield recorder


@pytest.fixture(scope="module")
def redirecting(target: Recorder) -> Iterator[Recorder]:
    with Recorder() as recorder:
        yield recorder


@pytest.fixture(scope="module", params=CHATS)
def redirected(request: pytest.FixtureRequest, redirecting: Recorder) -> Iterator[Worker]:
    env = {"AZURE_API_VERSION": "2024-10-21"}
    for _, _, base, key in REDIRECTED:
        env |= {base: redirecting.url, key: OWN_KEY}
    with Worker(f"--engine={request.param}", env=env) as worker:
        yield worker


@pytest.mark.rule("SEC-16")
@pytest.mark.parametrize(
    ("method", "model", "streamed"),
    [(*row[:2], streamed) for row in REDIRECTED for streamed in (False, True) if row[0] == "chat" or not streamed],
)
def test_a_redirect_to_another_origin_is_an_error(
    redirected: Worker, redirecting: Recorder, target: Recorder, method: str, model: str, streamed: bool
) -> None:
    redirecting.location = f"{target.url}/moved"
    redirecting.received.clear()
    params: dict[str, Any] = {"model": model, **PARAMS[method]} | ({"stream": True} if streamed else {})
    error = redirected.call(method, params)["error"]
    assert len(redirecting.received) >= 1, "the redirect was never met"
    assert target.received == [], error
    assert error["data"]["kind"] == "bad_upstream_response", error
    assert "redirect" in error["message"], error
    assert "base URL" in error["message"], error
    assert OWN_KEY not in json.dumps(error)


@pytest.mark.rule("SEC-16")
@pytest.mark.parametrize("where", ["http://localhost:{port}/moved", "https://127.0.0.1:{port}/moved", "//localhost:{port}/moved"])
def test_another_name_or_scheme_of_the_same_machine_is_another_origin(
    redirected: Worker, redirecting: Recorder, where: str
) -> None:
    redirecting.location = where.format(port=redirecting.port)
    redirecting.received.clear()
    error = error_of(redirected, "chat", "anthropic/x")
    assert error["data"]["kind"] == "bad_upstream_response", error
    assert not [path for path, _ in redirecting.received if path.endswith("/moved")]


@pytest.mark.rule("SEC-16")
def test_a_redirect_within_the_origin_is_followed_by_litellms_clients(redirected: Worker, redirecting: Recorder) -> None:
    redirecting.location = "/moved"
    redirecting.received.clear()
    error_of(redirected, "embed", "openai/x")
    path, headers = redirecting.received[-1]
    assert path == "/moved"
    assert OWN_KEY in headers


# ---- URLs outside of the content -------------------------------------------------------------------------------------------------


@pytest.mark.rule("SEC-7")
@pytest.mark.parametrize(
    "member",
    [
        {"images": [{"type": "image_url", "image_url": {"url": "https://127.0.0.1/x"}}]},
        {"images": [{"type": "image_url", "image_url": "https://169.254.169.254/latest"}]},
        {"reasoning_items": [{"type": "message", "content": [{"type": "input_image", "image_url": "https://10.0.0.1/x"}]}]},
        {"provider_specific_fields": {"source": {"type": "url", "url": "http://localhost/x"}}},
        {"provider_specific_fields": {"fileData": {"fileUri": "file:///etc/passwd"}}},
        {"annotations": [{"type": "url_citation", "url_citation": {"url": "http://192.168.0.1/x", "title": "x"}}]},
        {
            "tool_calls": [
                {
                    "id": "1",
                    "type": "function",
                    "function": {"name": "f", "arguments": "{}"},
                    "provider_specific_fields": {"image_url": "https://[::1]/"},
                }
            ]
        },
    ],
    ids=lambda member: next(iter(member)),
)
def test_a_url_elsewhere_in_a_message_goes_through_the_policy(keyed: Worker, nowhere: Recorder, member: Json) -> None:
    assistant = {"role": "assistant", "content": "x", **member}
    error = keyed.call("chat", {"model": "openai/x", "messages": [*HELLO, assistant, *HELLO]})["error"]
    assert error["data"]["kind"] == "invalid_request", error
    assert f"messages[1].{next(iter(member))}" in error["message"], error
    assert nowhere.received == []


@pytest.mark.rule("SEC-7")
def test_a_citation_of_a_public_page_is_passed_on(upstream: Upstream, spawn: Spawn) -> None:
    worker = spawn(env={"OPENAI_API_KEY": OPENAI_KEY, "OPENAI_BASE_URL": upstream.base_url})
    cited = {"type": "url_citation", "url_citation": {"url": "http://example.com/x", "title": "x"}}
    assistant = {
        "role": "assistant",
        "content": "x",
        "annotations": [cited],
        "provider_specific_fields": {"url": "https://example.com"},
    }
    response = worker.call("chat", {"model": "openai/echo", "messages": [*HELLO, assistant, *HELLO]})
    assert "result" in response, response


@pytest.mark.rule("SEC-7")
@pytest.mark.parametrize(
    "text",
    ["gs://bucket/image.png", " S3://bucket/a b.mp4", "file:///etc/passwd", "http://169.254.169.254/latest", "https://10.0.0.1/x "],
)
@pytest.mark.parametrize(
    ("method", "place", "member"),
    [
        ("embed", "input", lambda text: {"input": text}),
        ("embed", "input[1]", lambda text: {"input": ["x", text]}),
        ("rerank", "query", lambda text: {"query": text, "documents": ["x"]}),
        ("rerank", "documents[1]", lambda text: {"query": "x", "documents": ["x", text]}),
    ],
    ids=["input", "inputs", "query", "documents"],
)
def test_an_address_as_a_text_to_embed_or_rank_goes_through_the_policy(
    keyed: Worker, nowhere: Recorder, method: str, place: str, member: Callable[[str], Json], text: str
) -> None:
    error = keyed.call(method, {"model": "cohere/x", **member(text)})["error"]
    assert error["data"]["kind"] == "invalid_request", error
    assert error["message"].startswith(place), error
    assert nowhere.received == []


@pytest.mark.rule("SEC-7")
@pytest.mark.parametrize(
    "text", ["see http://10.0.0.1/x", "https://example.com/page", "note: gs://bucket", "http://10.0.0.1 is mine"]
)
def test_a_text_with_an_address_in_it_is_text(spawn: Spawn, text: str) -> None:
    response = spawn().call("embed", {"model": "offline/embed", "input": [text]})
    assert "result" in response, response
