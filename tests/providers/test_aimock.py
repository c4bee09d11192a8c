"""An agent's turn with a tool on every format that aimock speaks; its authors have read the providers' documentation themselves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import WorkerFor
from tests.support.aimock import Aimock
from tests.support.cases import TOOLS, assert_joined_deltas_are_the_result
from tests.support.provider_formats import FORMATS, environment
from tests.support.worker import Json, Worker

TEXT = "Grüße aus Zürich ☃ 🏔 — done."
# aimock's own limits: it streams Bedrock's invoke without the base64 that AWS has, and of Gemini's two spellings (function_call,
# functionCall) it reads only the one that LiteLLM does not write. Both are run in test_fidelity.
STREAMED = [name for name in FORMATS if name != "bedrock invoke"]
BACK = [name for name in STREAMED if name != "gemini"]


@pytest.fixture(scope="module")
def aimock() -> Iterator[Aimock]:
    with Aimock() as aimock:
        yield aimock


@pytest.fixture(scope="module")
def worker(aimock: Aimock, worker_for: WorkerFor) -> Worker:
    return worker_for(env=environment(aimock.origin))


def modes(names: list[str]) -> list[tuple[str, bool]]:
    return [(name, False) for name in FORMATS if name in (*names, "bedrock invoke")] + [(name, True) for name in names]


def chat(worker: Worker, name: str, streamed: bool, messages: list[Json], **params: object) -> Json:
    id = worker.request("chat", {"model": FORMATS[name].model, "messages": messages, "stream": streamed, **params})
    response = worker.response(id)
    assert "result" in response, response
    result: Json = response["result"]
    assert_joined_deltas_are_the_result(worker.deltas(id), result, "streamed" if streamed else "plain")
    return result


@pytest.mark.parametrize(("name", "streamed"), modes(STREAMED))
def test_aimock_is_heard(name: str, streamed: bool, worker: Worker) -> None:
    result = chat(worker, name, streamed, [{"role": "user", "content": "text"}])

    assert (result["content"], result["finish_reason"]) == (TEXT, "stop")


@pytest.mark.parametrize(("name", "streamed"), modes(BACK))
def test_aimock_understands_a_tools_result(name: str, streamed: bool, worker: Worker, aimock: Aimock) -> None:
    user = {"role": "user", "content": "one call"}
    called = chat(worker, name, streamed, [user], tools=TOOLS)
    call = called["tool_calls"][0]
    tool_message = {"role": "tool", "tool_call_id": call["id"], "content": "21 degrees"}

    result = chat(worker, name, streamed, [user, called["message"], tool_message], tools=TOOLS)

    assert result["content"] == "It is 21 degrees."
    understood = [(message["role"], message.get("content") or None) for message in aimock.last_request()["body"]["messages"]]
    assert [role for role, _ in understood] == ["user", "assistant", "tool"]
    assert "21 degrees" in str(understood[2][1])
