"""What a half-trusted caller may try: each way from a param to another host, a file, a variable, a callback, a credential or code.

Every attempt names a canary: a socket of this test's own that nobody may ever connect to. All go through the real process.
"""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import json
import re
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import pytest

import tests.support.worker
from bridge_worker.schema.chat_request import ChatParams
from bridge_worker.security.refused_params import is_refused
from bridge_worker.security.url_policy import UrlPolicy
from tests.conftest import Spawn
from tests.support.data import HELLO_ASCII as HELLO
from tests.support.upstream import DONE, Upstream, chunk
from tests.support.worker import Json, Worker

KEY = "sk-Zx9/Qw+7\"y'-secret-0123456789"  # with characters that every encoding writes differently
FILE_SECRET = "the-secret-in-a-file-4711"
PARAMETERS = {"type": "object", "properties": {}}


class Canary:
    """Listens on all addresses of this machine and counts who connects."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        self.port: int = self._socket.getsockname()[1]
        self.visitors: list[Any] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _listen(self) -> None:
        while True:
            try:
                connection, address = self._socket.accept()
            except OSError:
                return
            self.visitors.append(address)
            connection.close()


@pytest.fixture(scope="module")
def canary() -> Iterator[Canary]:
    with Canary() as canary:
        yield canary


@pytest.fixture(scope="module")
def provider() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def secret_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "secret"
    path.write_text(FILE_SECRET)
    return path


@pytest.fixture(scope="module")
def victim(provider: Upstream) -> Iterator[Worker]:
    """A worker with keys for many providers; only ``openai/`` has a host, the others would go where an attempt leads them."""
    names = ("ANTHROPIC", "GEMINI", "HUGGINGFACE", "REPLICATE", "BASETEN", "AZURE", "DEEPSEEK", "OPENROUTER", "COHERE", "GROQ")
    keys = {f"{name}_API_KEY": KEY for name in names}
    env = keys | {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": provider.base_url, "GEMINI_API_BASE": provider.base_url}
    env |= {"AWS_ACCESS_KEY_ID": "AKIA0123456789ABCDEF", "AWS_SECRET_ACCESS_KEY": KEY, "AWS_REGION_NAME": "eu-west-1"}
    with Worker("--log-level=debug", env=env) as worker:
        yield worker


@pytest.fixture
def check_nothing_leaked(victim: Worker, canary: Canary, provider: Upstream) -> Iterator[None]:
    first = len(victim.received)
    yield
    assert canary.visitors == []
    output = json.dumps(victim.received[first:]) + victim.stderr
    assert KEY not in output
    assert FILE_SECRET not in output
    assert "Traceback" not in json.dumps(victim.received[first:])
    assert all(FILE_SECRET not in request.raw.decode() for request in provider.requests)


def attempt(worker: Worker, params: Json) -> Json:
    """The error that a chat with these ends in."""
    response = worker.call("chat", {"model": "openai/gpt-4o-mini", "messages": HELLO} | params)
    assert "error" in response, f"it went through: {params}"
    error: Json = response["error"]
    return error


# ---- params ------------------------------------------------------------------------------------------------------------------

HOSTS = dict.fromkeys(("api_base", "base_url", "server_url", "aws_sts_endpoint", "langfuse_host"), "http://127.0.0.1:CANARY/v1")
ROUTES: Json = HOSTS | {
    "api_key": "os.environ/AWS_SECRET_ACCESS_KEY",
    "extra_headers": {"x": "y"},
    "headers": {"authorization": "Bearer x"},
    "extra_body": {"api_base": "http://127.0.0.1:CANARY"},
    "custom_llm_provider": "openai_like",
    "fallbacks": [{"model": "openai/x", "api_base": "http://127.0.0.1:CANARY"}],
    "model_list": [{"model_name": "gpt-4o-mini", "litellm_params": {"model": "openai/x", "api_base": "http://127.0.0.1:CANARY"}}],
    "user_config": {"model_list": []},
    "callbacks": ["http://127.0.0.1:CANARY"],
    "success_callback": ["webhook"],
    "logger_fn": "os.system",
    "litellm_credential_name": "default",
    "litellm_params": {"api_base": "http://127.0.0.1:CANARY"},
    "vertex_credentials": "FILE",
    "aws_web_identity_token": "oidc/file/FILE",
    "azure_ad_token": "oidc/env_path/HOME",
    "oci_key_file": "FILE",
    "mock_response": "done",
    "mock_tool_calls": [],
    "slack_webhook_url": "http://127.0.0.1:CANARY",
    "prompt_id": "FILE",
    "input_cost_per_token": 0,
    "use_litellm_proxy": True,
    "_skip_mcp_handler": False,
}


def placed(value: object, canary: Canary, file: Path) -> Any:
    """With the canary's port and a real file's path in it."""
    return json.loads(json.dumps(value).replace("CANARY", str(canary.port)).replace("FILE", str(file)))


def in_message(name: str, value: object) -> Json:
    return {"messages": [HELLO[0] | {name: value}]}


def in_part(name: str, value: object) -> Json:
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "x", name: value}]}]}


def in_opaque_state(name: str, value: object) -> Json:
    assistant = {"role": "assistant", "content": "x", "provider_specific_fields": {"a": {name: value}}}
    return {"messages": [*HELLO, assistant, *HELLO]}


def in_tool(name: str, value: object) -> Json:
    return {"tools": [{"type": "function", "function": {"name": "f", "parameters": PARAMETERS, name: value}}]}


PLACES = {
    "top": lambda name, value: {name: value},
    "provider_params": lambda name, value: {"provider_params": {name: value}},
    "nested": lambda name, value: {"provider_params": {"options": [{name: value}]}},
    "message": in_message,
    "part": in_part,
    "opaque-state": in_opaque_state,
    "tool": in_tool,
    "metadata": lambda name, value: {"metadata": {name: json.dumps(value)}},
    "response_format": lambda name, value: {"response_format": {"type": "json_object", name: value}},
}


@pytest.mark.rule("SEC-5", "CHT-3")
@pytest.mark.usefixtures("check_nothing_leaked")
@pytest.mark.parametrize("place", PLACES)
def test_no_param_reaches_a_host_a_file_a_key_or_code(victim: Worker, canary: Canary, secret_file: Path, place: str) -> None:
    for name, value in ROUTES.items():
        error = attempt(victim, PLACES[place](name, placed(value, canary, secret_file)))
        assert error["data"]["kind"] == "invalid_request", (name, error)
        assert name in error["message"], error


def sources(*patterns: str) -> Iterator[str]:
    found = importlib.util.find_spec("litellm")
    assert found
    assert found.origin
    for pattern in patterns:
        for path in Path(found.origin).parent.glob(pattern):
            yield path.read_text(encoding="utf-8")


@pytest.mark.rule("SEC-5")
@pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince211")
def test_what_litellms_own_gateway_refuses_of_a_caller_is_refused() -> None:
    """Its list grows with each release; this reads the installed one."""
    from litellm.litellm_core_utils.initialize_dynamic_callback_params import _supported_callback_params
    from litellm.types.utils import CustomPricingLiteLLMParams

    (source,) = sources("proxy/auth/auth_utils.py")  # not to be imported without the gateway's own dependencies
    banned = re.search(r"_BANNED_REQUEST_BODY_PARAMS\b.*?= \((.*?)\n\)", source, re.DOTALL)
    assert banned, "LiteLLM keeps its list elsewhere now; read it there"
    names = (
        set(re.findall(r'"([\w-]+)",', banned[1])) | set(_supported_callback_params) | set(CustomPricingLiteLLMParams.model_fields)
    )
    assert len(names) > 50, "LiteLLM keeps its lists elsewhere now; read them there"
    assert [name for name in sorted(names) if not is_refused(name)] == [], "give them a place in validation.py"


@pytest.mark.rule("SEC-5")
@pytest.mark.usefixtures("check_nothing_leaked")
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_no_key_of_metadata_that_litellm_reads_does_anything(victim: Worker, canary: Canary, stream: bool) -> None:
    """Each is refused, or leaves the request as it was: LiteLLM keeps its own notes there and trusts them."""
    read = r'metadata(?:_\w+)?(?:\.get\(|\[|\.pop\()\s*"(\w[\w-]*)"'
    texts = sources("*.py", "litellm_core_utils/**/*.py", "router_utils/**/*.py", "router_strategy/**/*.py", "llms/**/*.py")
    names = sorted({name for text in texts for name in re.findall(read, text)})
    assert len(names) > 80, "LiteLLM reads metadata in another way now"
    value = f"http://127.0.0.1:{canary.port}"
    ids = [
        victim.request("chat", {"model": "openai/m", "messages": HELLO, "metadata": {name: value}, "stream": stream})
        for name in names
    ]
    for name, id in zip(names, ids, strict=True):
        response = victim.response(id)
        assert "result" in response or response["error"]["data"]["kind"] == "invalid_request", (name, response)


# ---- model names -------------------------------------------------------------------------------------------------------------

NAMES = [
    "huggingface/http://127.0.0.1:CANARY/x",
    "oobabooga/http://127.0.0.1:CANARY",
    "openai/http://127.0.0.1:CANARY/v1",
    "http://127.0.0.1:CANARY/v1",
    "../../etc/passwd",
    "openai/../../admin",
    "openai/./x",
    "replicate/../../v1/account",
    "openai/x?api_base=http:127.0.0.1",
    "azure/x#@127.0.0.1:CANARY",
    "openai/x%2f..%2fy",
    "openai/x\r\nHost: 127.0.0.1",
    "openai/x\\..\\y",
    "\x00",
]
UNSERVED = [  # well-formed names of what may not run here, or would go to a host that the name contains
    "/etc/passwd",
    "github_copilot/gpt-4o",
    "chatgpt/gpt-5",
    "petals/x",
    "vllm/x",
    "bedrock/arn:aws:bedrock:127.0.0.1:CANARY/x:1:custom/y",
    "os.environ/AWS_SECRET_ACCESS_KEY",
    "custom/x",
    "a2a/x",
    "langfuse/x",
    "dotprompt/x",
]


@pytest.mark.rule("SEC-6")
@pytest.mark.usefixtures("check_nothing_leaked")
@pytest.mark.parametrize("name", NAMES)
def test_a_models_name_is_not_used_as_an_address(victim: Worker, canary: Canary, name: str) -> None:
    error = attempt(victim, {"model": name.replace("CANARY", str(canary.port))})
    assert error["data"]["kind"] == "invalid_request"
    assert "model" in error["message"]


@pytest.mark.rule("SEC-6")
@pytest.mark.usefixtures("check_nothing_leaked")
@pytest.mark.parametrize("name", UNSERVED)
def test_a_name_that_is_not_served_goes_nowhere(victim: Worker, canary: Canary, provider: Upstream, name: str) -> None:
    before = len(provider.requests)
    error = attempt(victim, {"model": name.replace("CANARY", str(canary.port))})
    kinds = ("model_not_found", "invalid_request", "rejected_by_provider", "authentication", "provider_unavailable", "internal")
    assert error["data"]["kind"] in kinds, error
    assert len(provider.requests) == before


# ---- images and files ----------------------------------------------------------------------------------------------------------

URLS = [
    "http://example.com/x.png",
    "file:///etc/passwd",
    "/etc/passwd",
    "ftp://example.com/x",
    "gs://bucket/x",
    "s3://bucket/x",
    "https://127.0.0.1:CANARY/x",
    "https://localhost:CANARY/x",
    "https://LOCALHOST.:CANARY/x",
    "https://x.localhost/x",
    "https://[::1]:CANARY/x",
    "https://[::ffff:127.0.0.1]:CANARY/x",
    "https://[64:ff9b::7f00:1]/x",
    "https://[2002:7f00:1::]/x",
    "https://[fe80::1%25eth0]/x",
    "https://[fd00::1]/x",
    "https://2130706433:CANARY/x",
    "https://0x7f000001:CANARY/x",
    "https://0177.0.0.1:CANARY/x",
    "https://127.1:CANARY/x",
    "https://0/x",
    "https://169.254.169.254/latest/meta-data/iam",
    "https://168.63.129.16/x",
    "https://100.100.100.200/x",
    "https://10.0.0.1/x",
    "https://172.16.0.1/x",
    "https://192.168.0.1/x",
    "https://224.0.0.1/x",
    "https://metadata.google.internal/x",
    "https://printer.local/x",
    "https://intranet/x",
    "https://user:secret@example.com/x",
    "https://example.com@127.0.0.1:CANARY/x",
    "https://example.com\\@127.0.0.1:CANARY/x",
    "https://example.com:CANARY:80/x",
    "https://127。0。0。1:CANARY/x",
    "https://ⓛocalhost:CANARY/x",
    "https://exa\tmple.com/x",
    "https://%6c%6f%63alhost/x",
    "https:///x",
    "https://",
    "https:127.0.0.1:CANARY/x",
    " https://example.com/x",
    "https://example.com/" + "x" * 10_000,
]
PARTS = {
    "image": lambda url: {"type": "image_url", "image_url": {"url": url}},
    "image-short": lambda url: {"type": "image_url", "image_url": url},
    "file-data": lambda url: {"type": "file", "file": {"file_data": url}},
    "file-id": lambda url: {"type": "file", "file": {"file_id": url}},
    "audio": lambda url: {"type": "input_audio", "input_audio": {"data": url, "format": "mp3"}},
}


@pytest.mark.rule("SEC-7", "CHT-7")
@pytest.mark.usefixtures("check_nothing_leaked")
@pytest.mark.parametrize("part", PARTS)
def test_a_url_that_is_not_public_https_is_refused(victim: Worker, canary: Canary, part: str) -> None:
    for url in URLS:
        if part == "audio" and re.fullmatch("[/a-z]+", url):
            continue  # that is base64 too, and is sent as such
        content = [PARTS[part](url.replace("CANARY", str(canary.port)))]
        error = attempt(victim, {"messages": [{"role": "user", "content": content}]})
        assert error["data"]["kind"] == "invalid_request", (url, error)
        assert "messages[0]" in error["message"], (url, error)


@pytest.mark.rule("SEC-7")
def test_public_and_inline_urls_are_passed_on(victim: Worker, provider: Upstream) -> None:
    image = "data:image/png;base64,iVBORw0KGgo="
    for url in (image, "https://example.com/x.png?a=1&b=%20#c", "https://8.8.8.8:8443/x", "https://[2606:4700::1111]/x"):
        content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "what is it?"}]
        response = victim.call("chat", {"model": "openai/sees", "messages": [{"role": "user", "content": content}]})
        assert "result" in response, response
        sent = provider.wait_for_request(model="sees", nth=provider.counts["sees"])
        assert sent.body["messages"][0]["content"][0]["image_url"]["url"] == url


# A resolver that has been turned against us: there is no name server here that could be.
TURNED_RESOLVER = """
import socket
resolve = socket.getaddrinfo

def turned(host, *rest, **more):
    return resolve("127.0.0.1" if host == "images.example.com" else host, *rest, **more)

socket.getaddrinfo = turned
from bridge_worker.cli.main import main
main()
"""


@pytest.mark.rule("SEC-7")
def test_a_public_name_of_a_private_address_is_not_fetched(
    provider: Upstream, canary: Canary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spawn: Spawn
) -> None:
    """Gemini wants the bytes, so LiteLLM fetches them."""
    (tmp_path / "turned.py").write_text(TURNED_RESOLVER)
    monkeypatch.setattr(tests.support.worker, "COMMAND", (sys.executable, "-I", "-X", "utf8", str(tmp_path / "turned.py")))
    worker = spawn(env={"GEMINI_API_KEY": KEY, "GEMINI_API_BASE": provider.base_url})
    content = [{"type": "image_url", "image_url": {"url": f"https://images.example.com:{canary.port}/x.png"}}]
    error = attempt(worker, {"model": "gemini/gemini-2.0-flash", "messages": [{"role": "user", "content": content}]})
    assert error["data"]["kind"] == "rejected_by_provider", error
    assert canary.visitors == []


@pytest.mark.rule("SEC-7")
@pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince211")
def test_litellm_checks_where_a_redirect_leads(canary: Canary) -> None:
    """What `async_safe_get`, with which LiteLLM fetches images and files, is relied on for; against LiteLLM's own code."""
    import httpx
    from litellm.litellm_core_utils.url_utils import SSRFError, async_safe_get

    to_canary = httpx.Response(302, headers={"location": f"http://127.0.0.1:{canary.port}/"})

    async def fetch() -> None:
        async with httpx.AsyncClient(transport=httpx.MockTransport(lambda _: to_canary)) as client:
            await async_safe_get(client, "https://8.8.8.8/x.png")

    with pytest.raises(SSRFError):
        asyncio.run(fetch())
    assert canary.visitors == []


@pytest.mark.rule("SEC-7")
def test_the_policy_can_be_narrowed_and_hosts_allowed() -> None:
    inline = UrlPolicy.from_settings({"schemes": ["data"]})
    assert inline.fault("https://example.com/x") is not None
    assert inline.fault("data:text/plain,x") is None
    allowed = UrlPolicy.from_settings({"allowed_hosts": ["Images.Corp", "10.0.0.7:8443", "[fd00::1]"]})
    for url in ("https://images.corp/x", "https://images.corp:8443/x", "https://10.0.0.7:8443/x", "https://[fd00::1]/x"):
        assert allowed.fault(url) is None, url
    assert allowed.fault("https://10.0.0.7/x") is not None
    assert allowed.fault("https://other.corp.internal/x") is not None
    for wrong in (
        {"scheme": []},
        {"schemes": ["http"]},
        {"schemes": "data"},
        {"allowed_hosts": "x"},
        {"allowed_hosts": [1]},
        [],
        7,
    ):
        with pytest.raises(ValueError, match=r"schemes|allowed_hosts"):
            UrlPolicy.from_settings(wrong)


# ---- what stays data -----------------------------------------------------------------------------------------------------------


@pytest.mark.rule("SEC-5")
@pytest.mark.usefixtures("check_nothing_leaked")
@pytest.mark.parametrize("model", ["openai/data", "anthropic/claude-x", "gemini/gemini-2.0-flash", "offline/tools"])
def test_references_in_a_schema_and_addresses_in_a_text_are_not_followed(
    victim: Worker, canary: Canary, secret_file: Path, model: str
) -> None:
    """Data for the provider, whatever it looks like; the canary and the file say whether anybody looked there."""
    address = f"http://127.0.0.1:{canary.port}/schema.json"
    schema = {
        "type": "object",
        "properties": {
            "a": {"$ref": address},
            "b": {"$ref": f"file://{secret_file}"},
            "api_base": {"type": "string", "default": address},
        },
        "$schema": address,
        "$id": address,
    }
    tools = [{"type": "function", "function": {"name": "f", "description": address, "parameters": schema}}]
    text = f"{address} file://{secret_file} os.environ/AWS_SECRET_ACCESS_KEY {{{{ 7*7 }}}} ${{HOME}}"
    params: Json = {"model": model, "messages": [{"role": "user", "content": text}], "tools": tools, "user": address}
    response = victim.call("chat", params | {"deadlines": {"total_ms": 5000}})
    assert "result" in response or response["error"]["data"]["kind"] != "internal", response


@pytest.mark.rule("SEC-5")
@pytest.mark.usefixtures("check_nothing_leaked")
@pytest.mark.parametrize("type", ["mcp", "web_search", "computer_use", "code_interpreter", "file_search", "custom", "retrieval"])
def test_only_functions_are_tools(victim: Worker, canary: Canary, type: str) -> None:
    tool = {"type": type, "server_url": f"http://127.0.0.1:{canary.port}", "name": "x"}
    assert attempt(victim, {"tools": [tool]})["data"]["kind"] == "invalid_request"


def test_every_member_of_the_params_is_one_that_was_thought_of() -> None:
    """A new member of `chat` must be put into this list, and into the attempts above if it can lead anywhere."""
    known = """
        model messages tools tool_choice parallel_tool_calls stream temperature top_p max_tokens max_completion_tokens stop seed
        response_format reasoning_effort thinking frequency_penalty presence_penalty logit_bias logprobs top_logprobs user metadata
        deadlines provider_params task fit idempotency_key repair ensure cache
    """
    assert set(ChatParams.model_fields) <= {
        *known.split(),
        "modalities",
        "audio",
        "prediction",
        "verbosity",
        "service_tier",
        "dry_run",
    }


# ---- secrets that come back ------------------------------------------------------------------------------------------------------

SPELLINGS = {
    "plain": KEY,
    "quoted": json.dumps(KEY),
    "repr": repr(KEY),
    "base64": base64.b64encode(KEY.encode()).decode(),
    "base64-within": base64.b64encode(f"x{KEY}y".encode()).decode(),
    "url": quote(KEY, safe=""),
    "url-lower": re.sub("%..", lambda match: match[0].lower(), quote(KEY, safe="")),
    "header": f"Authorization: Bearer {KEY}",
    "twice-quoted": json.dumps(json.dumps(KEY)),
}


def without_any_spelling(text: str) -> bool:
    inner = base64.b64encode(KEY.encode()).decode()[4:-8]
    return not any(part in text for part in (KEY[3:-3], json.dumps(KEY)[4:-4], quote(KEY, safe="")[6:-6], inner))


@pytest.mark.rule("SEC-8", "LOG-4")
@pytest.mark.usefixtures("check_nothing_leaked")
@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_a_key_that_a_provider_repeats_in_an_error_is_masked(
    victim: Worker, provider: Upstream, spelling: str, stream: bool
) -> None:
    body = {"error": {"message": f"Incorrect API key provided: {SPELLINGS[spelling]} is wrong.", "type": "x", "code": "y"}}
    model = f"echo-{spelling}-{stream}"
    provider.script(model, status=401, body=body)
    error = attempt(victim, {"model": f"openai/{model}", "stream": stream})
    assert error["data"]["kind"] == "authentication"
    assert without_any_spelling(json.dumps(error)), error
    assert without_any_spelling(victim.stderr)


@pytest.mark.rule("SEC-8")
@pytest.mark.usefixtures("check_nothing_leaked")
def test_a_key_in_a_broken_streams_error_is_masked_though_it_comes_in_pieces(victim: Worker, provider: Upstream) -> None:
    """The bytes of the error event are cut within the key; LiteLLM puts them together, and the whole message is cleaned."""
    event = b"data: " + json.dumps({"error": {"message": f"the key {KEY} was revoked", "code": 500}}).encode() + b"\n\n"
    cut = event.index(b"Qw") + 1
    provider.script("echo-cut", chunks=[chunk({"role": "assistant", "content": "Hel"}), event[:cut], event[cut:], DONE])
    error = attempt(victim, {"model": "openai/echo-cut", "stream": True})
    assert error["data"]["kind"] == "stream_interrupted"
    assert without_any_spelling(json.dumps(error)), error


@pytest.mark.rule("SEC-9")
def test_model_output_is_passed_on_unread(victim: Worker, provider: Upstream) -> None:
    """The promise ends here, and protocol.md says so: content is the provider's, in pieces of its own, and is never altered."""
    pieces = [chunk({"role": "assistant", "content": KEY[:9]}), chunk({"content": KEY[9:]}), chunk({}, "stop"), DONE]
    provider.script("says-key", chunks=pieces)
    response = victim.call("chat", {"model": "openai/says-key", "messages": HELLO, "stream": True})
    assert response["result"]["content"] == KEY
    assert without_any_spelling(victim.stderr)
    victim.received.clear()  # so that the other tests' search for the key does not find this one


@pytest.mark.rule("SEC-8")
@pytest.mark.usefixtures("check_nothing_leaked")
def test_an_error_holds_nothing_of_another_request(victim: Worker, provider: Upstream) -> None:
    ids = []
    for number in range(20):
        messages = [{"role": "user", "content": f"private thought {number:03d}"}]
        ids.append(victim.request("chat", {"model": "openai/status-500", "messages": messages, "stream": bool(number % 2)}))
    for number, id in enumerate(ids):
        error = victim.response(id)["error"]
        assert "private thought" not in json.dumps(error), (number, error)
    assert "private thought" not in victim.stderr
