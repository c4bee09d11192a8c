"""What an MCP client of either era sees: discovery, tools, progress, silence after a cancel."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from bridge_worker.protocol.session import MCP_VERSIONS, PROTOCOL_VERSION, Cancel, Send, Session, Start, response
from tests.support.upstream import Json, Upstream
from tests.support.worker import Worker, wait_until

REVISION = "io.modelcontextprotocol/protocolVersion"
CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
SERVER = "io.modelcontextprotocol/serverInfo"
ENVELOPE = {REVISION: "2026-07-28", CAPABILITIES: {}}


@pytest.fixture(scope="module")
def provider() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def worker(provider: Upstream) -> Iterator[Worker]:
    """Of no era: nobody has greeted it."""
    with Worker(env={"OPENAI_API_KEY": "sk-secret-123", "OPENAI_BASE_URL": provider.base_url}) as worker:
        yield worker


@pytest.fixture(scope="module")
def initialized(provider: Upstream) -> Iterator[Worker]:
    """Of the era that greets."""
    with Worker(env={"OPENAI_API_KEY": "sk-secret-123", "OPENAI_BASE_URL": provider.base_url}) as worker:
        worker.call(
            "initialize", {"protocolVersion": "2025-11-25", "clientInfo": {"name": "t", "version": "1"}, "capabilities": {}}
        )
        yield worker


def conversation(text: str = "two words", model: str = "offline/echo", **params: Any) -> Json:
    return {"model": model, "messages": [{"role": "user", "content": text}], **params}


def call(name: str, arguments: Json, **meta: Any) -> Json:
    return {"name": name, "arguments": arguments} | ({"_meta": meta} if meta else {})


def tools(worker: Worker) -> dict[str, Json]:
    return {tool["name"]: tool for tool in worker.call("tools/list")["result"]["tools"]}


def progress(worker: Worker, token: int | str) -> list[Json]:
    notes = [m["params"] for m in worker.received if isinstance(m, dict) and m.get("method") == "notifications/progress"]
    return [note for note in notes if note["progressToken"] == token]


# --- the envelope -------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("MCP-1")
@pytest.mark.parametrize(
    ("version", "capabilities"),
    [*((version, {"tools": {}}) for version in MCP_VERSIONS), (PROTOCOL_VERSION, {}), ("2026-07-28", {"tools": {}})],
)
def test_an_mcp_client_receives_the_tools_capability(version: str, capabilities: Json) -> None:
    (sent, _) = session().receive(request("initialize", {"protocolVersion": version}))
    assert isinstance(sent, Send)
    assert sent.value["result"]["capabilities"] == capabilities  # type: ignore[call-overload, index]


@pytest.mark.rule("MCP-2")
@pytest.mark.parametrize("params", [{"_meta": ENVELOPE}, {}])
def test_discover_returns_the_revisions_in_one_request(params: Json) -> None:
    (sent,) = session().receive(request("server/discover", params))
    assert isinstance(sent, Send)
    result: Any = sent.value["result"]  # type: ignore[call-overload]
    assert result["supportedVersions"] == ["2026-07-28", *MCP_VERSIONS]
    assert result["capabilities"] == {"tools": {}}
    assert (result["resultType"], result["cacheScope"]) == ("complete", "public")
    assert result["_meta"][SERVER]["name"] == "omni-bridge"


@pytest.mark.rule("MCP-2")
def test_a_client_may_initialize_after_it_has_discovered_the_revisions() -> None:
    one = session()
    one.receive(request("server/discover", {"_meta": ENVELOPE}))
    (sent, _) = one.receive(request("initialize", {"protocolVersion": "2025-11-25"}, id=2))
    assert isinstance(sent, Send)
    assert "result" in sent.value


@pytest.mark.rule("MCP-3")
@pytest.mark.parametrize(("method", "params"), [("tools/list", {}), ("tools/call", call("list_models", {}))])
def test_results_have_what_their_revision_wants_and_no_more(worker: Worker, method: str, params: Json) -> None:
    old = worker.call(method, params)["result"]
    assert {"resultType", "_meta", "ttlMs", "cacheScope"} & set(old) == set()
    new = worker.call(method, params | {"_meta": ENVELOPE})["result"]
    assert new["resultType"] == "complete"
    assert new["_meta"][SERVER]["name"] == "omni-bridge"
    assert ({"ttlMs", "cacheScope"} <= set(new)) == (method == "tools/list")


@pytest.mark.rule("MCP-4")
@pytest.mark.parametrize("method", ["server/discover", "tools/list", "tools/call"])
def test_another_revision_is_refused_with_those_that_there_are(worker: Worker, method: str) -> None:
    params = call("list_models", {}) | {"_meta": ENVELOPE | {REVISION: "2031-01-01"}}
    error = worker.call(method, params)["error"]
    assert (error["code"], error["data"]["kind"]) == (-32022, "unsupported_version")
    assert error["data"]["requested"] == "2031-01-01"
    assert "2026-07-28" in error["data"]["supported"]


@pytest.mark.rule("MCP-4")
@pytest.mark.parametrize("method", ["server/discover", "tools/list", "tools/call"])
@pytest.mark.parametrize("wrong", [{REVISION: "2026-07-28"}, ENVELOPE | {REVISION: 20260728}, ENVELOPE | {CAPABILITIES: []}])
def test_an_incomplete_envelope_is_refused(worker: Worker, method: str, wrong: Json) -> None:
    error = worker.call(method, call("list_models", {}) | {"_meta": wrong})["error"]
    assert error["code"] == -32602
    assert "_meta" in error["message"]


# --- tools --------------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("MCP-5")
def test_three_tools_are_listed_with_their_schemas(worker: Worker) -> None:
    listed = tools(worker)
    assert len(json.dumps(worker.call("tools/list"), separators=(",", ":"))) < 6_000
    assert list(listed) == ["chat", "count_tokens", "list_models"]
    for tool in listed.values():
        for schema in (tool["inputSchema"], tool["outputSchema"]):
            Draft202012Validator.check_schema(schema)
            assert schema["type"] == "object"
        assert tool["description"]
    assert "stream" not in listed["chat"]["inputSchema"]["properties"]
    assert worker.call("tools/list", {"cursor": "2"})["error"]["code"] == -32602


@pytest.mark.rule("MCP-6")
@pytest.mark.parametrize(
    ("name", "arguments", "text"),
    [
        ("chat", conversation("two words"), "two words"),
        ("chat", conversation(model="offline/tools", tools=[{"type": "function", "function": {"name": "f"}}]), None),
        ("count_tokens", conversation("two words"), None),
        ("list_models", {}, None),
    ],
)
def test_a_result_is_structured_by_the_tools_schema_and_repeated_as_text(
    worker: Worker, name: str, arguments: Json, text: str | None
) -> None:
    tool = tools(worker)[name]
    Draft202012Validator(tool["inputSchema"]).validate(arguments)
    result = worker.call("tools/call", call(name, arguments))["result"]
    assert result["isError"] is False
    Draft202012Validator(tool["outputSchema"]).validate(result["structuredContent"])
    (content,) = result["content"]
    assert content["type"] == "text"
    assert content["text"] == text if text else json.loads(content["text"]) == result["structuredContent"]


@pytest.mark.rule("MCP-6")
def test_a_tool_is_the_method_of_that_work(worker: Worker) -> None:
    structured = worker.call("tools/call", call("count_tokens", conversation()))["result"]["structuredContent"]
    assert structured == worker.call("tokens/count", conversation())["result"]
    structured = worker.call("tools/call", call("list_models", {}))["result"]["structuredContent"]
    assert structured == worker.call("models/list")["result"]


@pytest.mark.rule("MCP-7")
@pytest.mark.parametrize(
    ("name", "arguments", "kind"),
    [
        ("chat", conversation(model="offline/nothing"), "model_not_found"),
        ("chat", {"model": "offline/echo"}, "invalid_request"),
        ("chat", conversation(api_base="https://example.com"), "invalid_request"),
        ("chat", conversation(stream=True), "invalid_request"),
        ("chat", conversation(model="openai/status-429"), "rate_limited"),
        ("count_tokens", {}, "invalid_request"),
        ("list_models", {"cursor": "%"}, "invalid_request"),
    ],
)
def test_an_error_in_a_tool_is_in_the_content_that_a_model_reads(
    worker: Worker, provider: Upstream, name: str, arguments: Json, kind: str
) -> None:
    provider.script("status-429", status=429, headers={"retry-after": "2"}, body={"error": {"message": "no: sk-secret-123"}})
    result = worker.call("tools/call", call(name, arguments))["result"]
    assert result["isError"] is True
    assert "structuredContent" not in result
    error = result["_meta"]["omni-bridge/error"]
    assert error["data"]["kind"] == kind
    assert result["content"] == [{"type": "text", "text": error["message"]}]
    assert "sk-secret-123" not in error["message"]


@pytest.mark.rule("MCP-7")
@pytest.mark.parametrize(
    "params",
    [
        {"name": "rm", "arguments": {}},
        {"arguments": {}},
        {"name": "chat", "arguments": []},
        {"name": "chat", "arguments": {}, "_meta": 1},
        {"name": 1},
    ],
)
def test_a_call_that_is_none_is_an_error(worker: Worker, params: Json) -> None:
    assert worker.call("tools/call", params)["error"]["code"] == -32602


@pytest.mark.rule("MCP-8")
@pytest.mark.parametrize("token", ["a", 0, "7", 7])
def test_with_a_progress_token_the_text_is_streamed_as_progress(worker: Worker, token: int | str) -> None:
    params = call("chat", conversation("these are four words"), progressToken=token)
    result = worker.call("tools/call", params)["result"]
    notes = [note for note in progress(worker, token) if type(note["progressToken"]) is type(token)]
    assert [note["progress"] for note in notes] == [1, 2, 3, 4]
    assert "".join(note["message"] for note in notes) == result["content"][0]["text"] == "these are four words"


@pytest.mark.rule("MCP-8")
@pytest.mark.parametrize("meta", [{}, {"progressToken": None}, {"progressToken": True}])
def test_without_a_token_no_progress_is_sent(worker: Worker, meta: Json) -> None:
    seen = len(worker.received)
    worker.call("tools/call", call("chat", conversation(), **meta))
    assert [
        m for m in worker.received[seen:] if isinstance(m, dict) and "method" in m and m["method"] != "notifications/ready"
    ] == []


# --- silence ------------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("MCP-9")
@pytest.mark.parametrize("era", ["initialized", "enveloped"])
@pytest.mark.parametrize("meta", [{}, {"progressToken": "t"}], ids=["plain", "streamed"])
def test_a_cancelled_call_is_closed_upstream_and_gets_no_response(
    initialized: Worker, worker: Worker, provider: Upstream, era: str, meta: Json
) -> None:
    client = initialized if era == "initialized" else worker
    params = call("chat", conversation(model="openai/hang"), **meta, **(ENVELOPE if era == "enveloped" else {}))
    nth = provider.counts["hang"] + 1
    id = client.request("tools/call", params, id=f"{era}-{bool(meta)}")
    held = provider.wait_for_request("hang", nth=nth, timeout=30)
    client.notify("notifications/cancelled", {"requestId": id, "reason": "no longer needed"})
    held.wait_closed(timeout=30)
    wait_until(lambda: client.call("status")["result"]["requests"]["in_flight"] == 1, "the cancelled call has ended")
    assert [m for m in client.received if isinstance(m, dict) and m.get("id") == id] == []
    assert "result" in client.call("tools/call", call("list_models", {}))


@pytest.mark.rule("MCP-9")
def test_the_call_of_a_client_that_does_not_speak_mcp_gets_a_response(worker: Worker, provider: Upstream) -> None:
    nth = provider.counts["hang"] + 1
    id = worker.request("tools/call", call("chat", conversation(model="openai/hang")))
    provider.wait_for_request("hang", nth=nth, timeout=30)
    worker.notify("notifications/cancelled", {"requestId": id})
    assert worker.response(id)["error"]["data"]["kind"] == "cancelled"


def session() -> Session:
    return Session(lambda: {"name": "litellm", "version": None, "ready": False}, max_message_bytes=1000)


def request(method: str, params: Json | None = None, id: int | str = 1) -> Json:
    return {"jsonrpc": "2.0", "id": id, "method": method, "params": params or {}}


def cancelled(id: int | str) -> Json:
    return {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}}


def of_mcp() -> Session:
    one = session()
    one.receive(request("initialize", {"protocolVersion": "2025-11-25"}, id="greeting"))
    return one


@pytest.mark.rule("MCP-9", "RPC-1")
def test_the_cancelled_calls_id_is_free_again_after_its_response_would_have_been_sent() -> None:
    one = of_mcp()
    (start,) = one.receive(request("tools/call"))
    assert start == Start(1, "tools/call", {})
    assert one.receive(cancelled(1)) == [Cancel(1)]
    assert one.in_flight == 1
    assert one.receive(request("tools/call")) != [start]  # the id is still in flight
    assert one.respond(1, response(1, "late")) == []
    assert one.in_flight == 0
    assert one.receive(request("tools/call")) == [start]
    assert one.respond(1, response(1, {})) == [Send(response(1, {}))]


@pytest.mark.rule("MCP-9", "CAN-1")
@pytest.mark.parametrize("method", ["chat", "tools/list", "models/list"])
def test_only_a_tools_call_falls_silent(method: str) -> None:
    one = of_mcp()
    one.receive(request(method))
    one.receive(cancelled(1))
    assert one.respond(1, response(1, {})) == [Send(response(1, {}))]


@pytest.mark.rule("MCP-9", "LIF-12")
def test_a_call_that_its_client_has_not_cancelled_gets_its_response_at_the_end() -> None:
    one = of_mcp()
    one.receive(request("tools/call"))
    one.drain()
    assert one.respond(1, response(1, {})) == [Send(response(1, {}))]


@pytest.mark.rule("MCP-9", "BAT-1", "BAT-2")
def test_a_silent_call_has_no_place_in_its_batch() -> None:
    one = of_mcp()
    one.receive([request("tools/call", id=1), request("tools/call", id=2)])
    one.receive(cancelled(1))
    assert one.respond(2, response(2, {})) == []
    assert one.respond(1, response(1, {})) == [Send([response(2, {})])]
    one.receive([request("tools/call", id=3)])
    one.receive(cancelled(3))
    assert one.respond(3, response(3, {})) == []


@pytest.mark.rule("MCP-9")
@pytest.mark.parametrize("meta", [{}, None, 5, {"io.modelcontextprotocol": "2026-07-28"}])
def test_a_meta_without_a_revision_makes_no_mcp_client(meta: object) -> None:
    one = session()
    one.receive(request("tools/call", {"_meta": meta}))
    one.receive(cancelled(1))
    assert one.respond(1, response(1, {})) == [Send(response(1, {}))]
