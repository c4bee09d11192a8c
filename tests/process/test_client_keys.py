"""``credentials/get``: keys that the client has, with and without engines, for chats, embeddings and rankings."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import os
import shlex
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bridge_worker.backends.litellm.prepared_requests import PreparedRequests
from bridge_worker.core.credentials import CredentialsInUse, Wanted
from bridge_worker.errors import BridgeError
from bridge_worker.protocol.client_capabilities import CredentialsCapability, credentials_capability
from bridge_worker.runtime.client_credentials import ClientCredentials, _Malformed, read_result
from bridge_worker.runtime.client_requests import ClientRequests
from bridge_worker.schema.credentials import CredentialsGetResult
from bridge_worker.schema.lifecycle import InitializeParams
from bridge_worker.security.redaction import Redactor
from tests.conftest import Spawn, WorkerFor
from tests.support.agent_provider import THREE, ManyProviders, wire_of
from tests.support.data import HELLO, Json
from tests.support.pages import blocks
from tests.support.programs import program
from tests.support.provider_formats import FORMATS, Completion
from tests.support.upstream_format import Request, Steps, embeddings, http
from tests.support.worker import COMMAND, WAIT_SECONDS, ResponseError, Worker, clean_environment

GOOD = "client-key-0123456789"
REVOKED = "client-key-revoked-0001"
_HEADERS = {"openai": "authorization", "anthropic": "x-api-key", "gemini": "x-goog-api-key"}


class KeyedProviders(ManyProviders):
    """OpenAI, Anthropic and Gemini, which take each key but `REVOKED`, and quote that in their error."""

    def _reply_to(self, request: Request) -> Steps:
        if key_of(request) == REVOKED:
            status = 400 if wire_of(request) == "gemini" else 401  # as Google's API has it
            return http(FORMATS[wire_of(request)].error(status, f"API key not valid: {REVOKED}"), status)
        if request.path.endswith("/embeddings"):
            return http(embeddings([1.0]))
        if request.path.endswith("/rerank"):
            return http({"id": "r", "results": [{"index": 0, "relevance_score": 0.5}], "meta": {}})
        return super()._reply_to(request)


def key_of(request: Request) -> str | None:
    header = request.headers.get(_HEADERS[wire_of(request)], "")
    return header.removeprefix("Bearer ") or request.path.partition("key=")[2].partition("&")[0] or None


@pytest.fixture(scope="module")
def providers() -> Iterator[KeyedProviders]:
    with KeyedProviders() as providers:
        providers.completions = {wire: Completion(f"from {wire}") for wire in THREE}
        yield providers


@pytest.fixture(scope="module")
def direct(providers: KeyedProviders, worker_for: WorkerFor) -> Worker:
    return connected(worker_for("--engines", "0", env=bases(providers)))


@pytest.fixture(scope="module")
def engines(providers: KeyedProviders, worker_for: WorkerFor) -> Worker:
    return connected(worker_for("--engines", "2", env=bases(providers)))


@pytest.fixture(scope="module")
def configured(providers: KeyedProviders, worker_for: WorkerFor) -> Worker:
    """``model-1`` and so on are deployments at hosts of their own, for each a key; ``openai`` and so on one of each provider."""
    rows = [row(wire, FORMATS[wire].model) for wire in THREE]
    rows += [row(f"model-{n}", "openai/gpt-4o-mini", api_base=f"{providers.origin}/{n}/v1") for n in range(30)]
    rows += [row("with-key", "openai/gpt-4o-mini", api_base=f"{providers.origin}/with-key/v1", api_key="of-the-config-123")]
    rows += [row("unset", "openai/gpt-4o-mini", api_base=f"{providers.origin}/unset/v1", api_key="os.environ/NOT_SET_HERE")]
    rows += [row("embedding", "openai/text-embedding-3-small"), row("ranking", "cohere/rerank-v3.5", api_base=providers.origin)]
    return connected(worker_for("--engines", "1", config={"model_list": rows}, env=bases(providers)))


def row(name: str, model: str, **params: Any) -> Json:
    return {"model_name": name, "litellm_params": {"model": model, **params}}


def bases(providers: KeyedProviders) -> dict[str, str]:
    origin = providers.origin
    return {"OPENAI_BASE_URL": f"{origin}/v1", "ANTHROPIC_BASE_URL": origin, "GEMINI_API_BASE": f"{origin}/v1beta"}


def connected(worker: Worker, **capability: Any) -> Worker:
    worker.call("initialize", {"protocolVersion": "omni-bridge/1", "capabilities": {"credentials": capability}})
    return worker


@pytest.fixture(params=["direct", "engines", "configured"])
def worker(request: pytest.FixtureRequest, providers: KeyedProviders) -> Worker:
    worker: Worker = request.getfixturevalue(request.param)
    worker.received_requests.clear()
    providers.forget()
    return worker


_names = itertools.count()


@pytest.fixture
def fresh(configured: Worker, providers: KeyedProviders) -> tuple[Worker, str]:
    """A worker, and a model that it has no key for."""
    configured.received_requests.clear()
    providers.forget()
    return configured, f"model-{next(_names)}"


def model_of(worker: Worker, wire: str) -> str:
    return wire if "--config" in worker.flags else FORMATS[wire].model


def chat(worker: Worker, model: str, **params: Any) -> Json:
    return worker.call("chat", {"model": model, "messages": HELLO, **params})


def error_of(response: Json) -> Json:
    error: Json = response["error"]
    assert (error["code"], error["data"]["kind"]) == (1001, "authentication"), error
    return error


@pytest.mark.rule("CRD-1", "CRD-3")
@pytest.mark.parametrize("wire", THREE)
def test_the_client_gets_a_request_for_a_key(worker: Worker, providers: KeyedProviders, wire: str, streamed: bool) -> None:
    key = f"{GOOD}-{wire}-{streamed}"
    worker.respond = lambda _: {"api_key": key, "expires_in_seconds": 0}
    response = chat(worker, model_of(worker, wire), stream=streamed)
    assert response["result"]["content"] == f"from {wire}"
    (request,) = worker.received_requests
    assert request["method"] == "credentials/get"
    assert {name: request["params"][name] for name in ("provider", "reason")} == {"provider": wire, "reason": "missing"}
    assert [key_of(request) for request in providers.requests] == [key]


@pytest.mark.rule("CRD-1")
def test_a_key_of_the_config_or_the_environment_comes_first(configured: Worker, providers: KeyedProviders, spawn: Spawn) -> None:
    configured.received_requests.clear()
    assert "result" in chat(configured, "with-key")
    worker = connected(spawn(env=bases(providers) | {"OPENAI_API_KEY": "of-the-environment-123"}))
    assert "result" in chat(worker, "openai/gpt-4o-mini")
    assert [key_of(request) for request in providers.requests[-2:]] == ["of-the-config-123", "of-the-environment-123"]
    assert not configured.received_requests
    assert not worker.received_requests


@pytest.mark.rule("CRD-1")
def test_the_client_has_the_key_that_a_config_names_in_vain(configured: Worker, providers: KeyedProviders) -> None:
    configured.respond = lambda _: {"api_key": GOOD, "expires_in_seconds": 0}
    assert "result" in chat(configured, "unset")
    assert key_of(providers.requests[-1]) == GOOD
    configured.respond = refuse
    assert "no key for openai" in error_of(chat(configured, "unset"))["message"]


@pytest.mark.rule("CRD-2")
def test_the_client_may_name_the_host_where_the_operator_names_none(providers: KeyedProviders, spawn: Spawn) -> None:
    worker = connected(spawn())
    worker.respond = lambda _: {"api_key": GOOD, "base_url": f"{providers.origin}/of-the-client/v1"}
    assert "result" in chat(worker, "openai/gpt-4o-mini")
    assert providers.requests[-1].path == "/of-the-client/v1/chat/completions"
    assert "base_url" not in worker.received_requests[0]["params"]


@pytest.mark.rule("CRD-2")
def test_a_host_may_need_no_key(fresh: tuple[Worker, str], providers: KeyedProviders) -> None:
    worker, model = fresh
    worker.respond = lambda _: {"api_key": None}
    assert "result" in chat(worker, model)
    assert "result" in chat(worker, model)
    assert len(worker.received_requests) == 1


@pytest.mark.rule("CRD-3")
def test_a_key_is_cached_for_all_engines_until_it_expires(engines: Worker, providers: KeyedProviders) -> None:
    engines.received_requests.clear()
    results = iter([{"api_key": f"{GOOD}-0", "expires_in_seconds": 1.0}, {"api_key": f"{GOOD}-1", "expires_in_seconds": 0}])
    engines.respond = lambda _: next(results)
    chats = [engines.request("chat", {"model": "openai/gpt-4o-mini", "messages": HELLO}) for _ in range(8)]
    assert all("result" in engines.response(id) for id in chats)
    assert len(engines.received_requests) == 1
    while len(engines.received_requests) < 2:  # it expires, and the next chat asks again
        assert "result" in chat(engines, "openai/gpt-4o-mini")
    assert key_of(providers.requests[-1]) == f"{GOOD}-1"


@pytest.mark.rule("CRD-4")
def test_one_question_is_in_flight_however_many_requests_wait(fresh: tuple[Worker, str], providers: KeyedProviders) -> None:
    worker, model = fresh
    worker.respond = None
    chats = [worker.request("chat", {"model": model, "messages": HELLO}) for _ in range(6)]
    worker.wait_for(lambda message: message in worker.received_requests)
    worker.notify("notifications/cancelled", {"requestId": chats[0]})
    assert worker.response(chats[0])["error"]["data"]["kind"] == "cancelled"
    send_result(worker, {"api_key": GOOD})
    assert all("result" in worker.response(id) for id in chats[1:])
    assert len(worker.received_requests) == 1


@pytest.mark.rule("CRD-4")
@pytest.mark.parametrize("mode", ["direct", "configured"])
def test_the_last_cancel_cancels_the_question(mode: str, request: pytest.FixtureRequest, fresh: tuple[Worker, str]) -> None:
    worker: Worker = request.getfixturevalue(mode)
    model = fresh[1] if mode == "configured" else "gemini/gemini-flash-latest"
    worker.received_requests.clear()
    worker.respond = None
    chats = [worker.request("chat", {"model": model, "messages": HELLO}) for _ in range(2)]
    worker.wait_for(lambda message: message in worker.received_requests)
    for id in chats:
        worker.notify("notifications/cancelled", {"requestId": id})
        assert worker.response(id)["error"]["data"]["kind"] == "cancelled"
    note = worker.wait_for(lambda message: message_id(message) == worker.received_requests[0]["id"])
    assert isinstance(note, dict)
    assert note["method"] == "notifications/cancelled"
    send_result(worker, {"api_key": GOOD})  # too late: ignored
    assert "result" in worker.call("ping")
    assert len(worker.received_requests) == 1


def send_result(worker: Worker, result: Json) -> None:
    worker.send({"jsonrpc": "2.0", "id": worker.received_requests[-1]["id"], "result": result})


def message_id(message: Any) -> object:
    params = message.get("params") if isinstance(message, dict) else None
    return params.get("requestId") if isinstance(params, dict) else None


def refuse(_: Json) -> object:
    raise ResponseError("the user said no")


MALFORMED: list[tuple[object, str]] = [
    (None, "must be an object"),
    ([], "must be an object"),
    ({}, "it has no api_key"),
    ({"api_key": 7}, "api_key must be a text"),
    ({"api_key": " "}, "api_key must be a text"),
    ({"api_key": f"{GOOD}\nx-header: 1"}, "no HTTP header can hold"),
    ({"key": GOOD}, "unknown member"),
    ({"api_key": GOOD, "expires_in_seconds": "60"}, "expires_in_seconds"),
    ({"api_key": GOOD, "expires_in_seconds": -1}, "expires_in_seconds"),
    ({"api_key": GOOD, "base_url": "file:///etc/passwd"}, "base_url"),
    ({"aws_access_key_id": GOOD}, "belong together"),
]


@pytest.mark.rule("CRD-5")
@pytest.mark.parametrize(("result", "reason"), MALFORMED)
def test_a_malformed_result_is_an_error_that_names_what_is_wrong(
    fresh: tuple[Worker, str], providers: KeyedProviders, result: object, reason: str
) -> None:
    worker, model = fresh
    worker.respond = lambda _: result
    message = error_of(chat(worker, model))["message"]
    assert reason in message
    assert "malformed" in message
    assert GOOD not in message
    assert not providers.requests


@pytest.mark.rule("CRD-5")
@pytest.mark.parametrize("wire", THREE)
def test_a_denied_key_is_an_error_with_the_reason(worker: Worker, providers: KeyedProviders, wire: str, streamed: bool) -> None:
    worker.respond = refuse
    providers.forget()
    error = error_of(chat(worker, model_of(worker, wire), stream=streamed))
    assert "the user said no" in error["message"]
    assert error["data"]["provider"] == wire
    assert not providers.requests
    assert len(worker.received_requests) == 1


@pytest.mark.rule("CRD-5")
@pytest.mark.parametrize("mode", ["direct", "configured"])
def test_a_late_response_is_an_error_of_the_key_not_of_the_deadline(
    mode: str, request: pytest.FixtureRequest, fresh: tuple[Worker, str]
) -> None:
    worker: Worker = request.getfixturevalue(mode)
    worker.respond = None
    worker.wait_for(lambda message: isinstance(message, dict) and message.get("method") == "notifications/ready")
    model = fresh[1] if mode == "configured" else "gemini/gemini-flash-latest"
    response = chat(worker, model, deadlines={"total_ms": 400})
    assert "within the deadline" in error_of(response)["message"]


@pytest.mark.rule("CRD-5")
def test_a_response_after_the_capabilitys_own_limit_is_late(providers: KeyedProviders, spawn: Spawn) -> None:
    worker = connected(spawn(env=bases(providers)), timeout_ms=50)
    assert "within 50 ms" in error_of(chat(worker, "openai/gpt-4o-mini"))["message"]
    assert message_id(worker.received[-2]) == worker.received_requests[0]["id"]  # the question is cancelled
    worker.respond = lambda _: {"api_key": GOOD}
    assert "result" in chat(worker, "openai/gpt-4o-mini")


@pytest.mark.rule("CRD-5")
@pytest.mark.parametrize("flags", [("--engines", "0"), ("--engines", "1")])
def test_no_response_is_awaited_from_closed_input(providers: KeyedProviders, spawn: Spawn, flags: tuple[str, ...]) -> None:
    worker = connected(spawn(*flags, env=bases(providers)))
    id = worker.request("chat", {"model": "openai/gpt-4o-mini", "messages": HELLO})
    worker.wait_for(lambda message: message in worker.received_requests)
    worker.end_input()
    assert worker.exit_code() == 0
    assert "closed its end" in error_of(worker.response(id))["message"]


@pytest.mark.rule("CRD-6")
@pytest.mark.parametrize("wire", THREE)
def test_a_rejected_key_is_requested_again(worker: Worker, providers: KeyedProviders, wire: str, streamed: bool) -> None:
    results = iter([{"api_key": REVOKED, "expires_in_seconds": 3600}, {"api_key": GOOD, "expires_in_seconds": 0}])
    worker.respond = lambda _: next(results)
    error = error_of(chat(worker, model_of(worker, wire), stream=streamed))
    assert REVOKED not in json.dumps(error)
    assert "result" in chat(worker, model_of(worker, wire), stream=streamed)
    assert [request["params"]["reason"] for request in worker.received_requests] == ["missing", "rejected"]


@pytest.mark.rule("CRD-1", "CRD-6")
@pytest.mark.parametrize("mode", ["direct", "engines", "configured"])
def test_embeddings_and_rankings_request_keys_too(mode: str, request: pytest.FixtureRequest, providers: KeyedProviders) -> None:
    worker: Worker = request.getfixturevalue(mode)
    worker.received_requests.clear()
    worker.respond = lambda _: {"api_key": GOOD, "expires_in_seconds": 0, "base_url": f"{providers.origin}/v1"}
    is_configured = mode == "configured"
    embedding = {"model": "embedding" if is_configured else "openai/text-embedding-3-small", "input": "a"}
    assert worker.call("embed", embedding)["result"]["embeddings"] == [[1.0]]
    assert providers.requests[-1].headers["authorization"] == f"Bearer {GOOD}"
    ranking = {"model": "ranking" if is_configured else "cohere/rerank-v3.5", "query": "q", "documents": ["a"]}
    assert "result" in worker.call("rerank", ranking)
    assert "cohere" in [request["params"]["provider"] for request in worker.received_requests]
    results = iter([REVOKED, GOOD])
    worker.respond = lambda _: {"api_key": next(results), "expires_in_seconds": 60 * (2 - len(worker.received_requests))}
    worker.received_requests.clear()
    if is_configured:
        error_of(worker.call("embed", embedding))
        assert "result" in worker.call("embed", embedding)
        assert worker.received_requests[-1]["params"]["reason"] == "rejected"


@pytest.mark.rule("CRD-7")
@pytest.mark.parametrize("flags", [("--engines", "0"), ("--engines", "1")])
def test_a_key_is_in_no_log_error_trace_cassette_or_status(
    providers: KeyedProviders, spawn: Spawn, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    trace, cassette = tmp_path / "run.trace", tmp_path / "run.cassette"
    files = ("--trace", str(trace), "--trace-content", "full", "--record", str(cassette), "--log-level", "debug")
    worker = connected(spawn(*flags, *files, env=bases(providers)))
    results = iter([{"api_key": REVOKED, "expires_in_seconds": 0}, {"api_key": GOOD}, {"api_key": 7, "secret": GOOD}])
    worker.respond = lambda _: next(results)
    assert "not valid" in error_of(chat(worker, "openai/gpt-4o-mini"))["message"]
    providers.completions["openai"] = Completion(f"your key is {GOOD}")  # what models write is passed on, but not kept
    assert "result" in chat(worker, "openai/gpt-4o-mini")
    providers.completions["openai"] = Completion("from openai")
    error_of(chat(worker, "gemini/gemini-flash-latest"))
    worker.write(f'{{"jsonrpc":"2.0","id":"omni-bridge:9","result":{{"api_key":"{GOOD}"}}\n'.encode())  # not JSON
    worker.send({"jsonrpc": "2.0", "result": {"api_key": GOOD}})
    status = worker.call("status")
    worker.end_input()
    assert worker.exit_code() == 0
    texts = [json.dumps(status), worker.stderr, trace.read_text(), cassette.read_text()]
    texts += [json.dumps(message) for message in worker.received if isinstance(message, dict) and "error" in message]
    for text in texts:
        assert GOOD not in text
        assert REVOKED not in text
    assert '"method":"credentials/get"' in trace.read_text()
    assert "[not recorded]" in trace.read_text()


@pytest.mark.rule("CRD-8")
def test_only_a_client_with_the_capability_gets_requests_and_for_the_providers_that_it_names(
    providers: KeyedProviders, spawn: Spawn
) -> None:
    without = spawn(env=bases(providers))
    without.call("initialize", {"protocolVersion": "omni-bridge/1", "capabilities": {"roots": {}}})
    assert "result" in chat(without, "openai/gpt-4o-mini")  # the operator's own host may need none
    error_of(chat(without, "anthropic/claude-haiku-4-5"))
    worker = connected(spawn(env=bases(providers) | {"HOSTED_VLLM_API_BASE": f"{providers.origin}/v1"}), providers=["hosted_vllm"])
    worker.respond = lambda _: {"api_key": GOOD}
    assert "result" in chat(worker, "hosted_vllm/a")
    assert key_of(providers.requests[-1]) == GOOD
    error_of(chat(worker, "anthropic/claude-haiku-4-5"))
    assert [request["params"]["provider"] for request in worker.received_requests] == ["hosted_vllm"]
    assert not without.received_requests


@pytest.mark.parametrize(("page", "language"), [("docs/agents.md", "bash"), ("protocol.md", "py")])
def test_the_clients_of_the_pages_return_the_key(providers: KeyedProviders, tmp_path: Path, page: str, language: str) -> None:
    (block,) = [block for block in blocks(page) if "credentials/get" in block.text and block.language == language]
    for name, text in (("omni-bridge", f'exec {shlex.join(COMMAND)} "$@"'), ("secret-tool", f'[ "$3" = openai ] && echo {GOOD}')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    command = [program("bash"), "-c"] if language == "bash" else [sys.executable, "-c"]
    env = clean_environment() | bases(providers) | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([*command, block.text], capture_output=True, text=True, env=env, timeout=WAIT_SECONDS, check=False)
    assert "from openai" in done.stdout, done.stderr
    assert key_of(providers.requests[-1]) == GOOD


# --- without a process -----------------------------------------------------------------------------------------------------------

NAMES = ["api_key", "azure_ad_token", "api_version", "expires_in_seconds", "x"]
VALUES = st.none() | st.booleans() | st.floats(-5, 1e6) | st.text(max_size=3) | st.just(GOOD) | st.just({})


@pytest.mark.rule("CRD-2", "CRD-5")
@settings(deadline=None)
@given(st.fixed_dictionaries({}, optional=dict.fromkeys(NAMES, VALUES)))
def test_a_result_is_checked_by_hand_as_its_type_is(result: Json) -> None:
    """By hand it also has a key, and no text that a header can't hold."""
    try:
        params, _ = read_result(result)
    except _Malformed:
        pass
    else:
        CredentialsGetResult.model_validate(result)
        assert set(params.values()) <= set(map(str.strip, map(str, result.values())))
    if not is_valid(CredentialsGetResult, result):
        with pytest.raises(_Malformed):
            read_result(result)


def is_valid(type: Any, value: Json) -> bool:
    try:
        type.model_validate(value)
    except ValidationError:
        return False
    return True


RIGHT = [{}, {"providers": []}, {"providers": ["a"], "timeout_ms": 5}]
WRONG = [{"providers": "a"}, {"timeout_ms": 0}, {"timeout_ms": 1.5}, [], 1]


@pytest.mark.rule("CRD-8")
@pytest.mark.parametrize("capability", [*RIGHT, *WRONG])
def test_the_capability_is_checked_by_hand_as_its_type_is(capability: Any) -> None:
    params = {"protocolVersion": "omni-bridge/1", "capabilities": {"credentials": capability}}
    assert is_valid(InitializeParams, params) == (capability in RIGHT)
    if capability in RIGHT:
        assert credentials_capability(params) is not None
    else:
        with pytest.raises(BridgeError, match=r"capabilities\.credentials"):
            credentials_capability(params)


def client_with(respond: Callable[[Json], object], redactor: Redactor) -> ClientCredentials:
    """Answers at once."""
    credentials = ClientCredentials(redactor)

    def write(line: bytes) -> None:
        request = json.loads(line)
        response = {"jsonrpc": "2.0", "id": request["id"], "result": respond(request)}
        asyncio.get_running_loop().call_soon(client.take, response)

    client = ClientRequests(write)
    credentials.connect(client, CredentialsCapability())
    return credentials


@pytest.mark.rule("CRD-3", "CRD-7")
def test_an_expired_key_is_masked_until_no_request_uses_it_and_then_gone() -> None:
    async def main() -> None:
        redactor = Redactor({})
        source = client_with(lambda _: {"api_key": GOOD, "expires_in_seconds": 0.01}, redactor)
        use, templates = CredentialsInUse(source, redactor), PreparedRequests()
        ended = asyncio.Event()
        request = asyncio.create_task(ended.wait())
        credential = await use.get(Wanted("openai"), request, optional=False)
        assert credential is not None
        assert credential.params == {"api_key": GOOD}
        assert GOOD not in repr(credential)
        held = [weakref.ref(credential), weakref.ref(templates.of(credential))]
        del credential
        await until(lambda: not source._cached)
        assert GOOD not in redactor.redact(f"a key {GOOD}")
        assert None not in [one() for one in held]
        assert GOOD in redactor.without_held().redact(f"a key {GOOD}")  # a later engine does not get it
        ended.set()
        await request
        await until(lambda: not use._uses)
        assert redactor.redact(f"a key {GOOD}") == f"a key {GOOD}"
        del request
        await asyncio.sleep(0)
        gc.collect()
        assert [one() for one in held] == [None, None]

    asyncio.run(main())


async def until(is_so: Callable[[], bool]) -> None:
    while not is_so():  # noqa: ASYNC110  # a timer ends it
        await asyncio.sleep(0.001)
