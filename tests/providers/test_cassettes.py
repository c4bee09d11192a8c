"""What one provider alone sends, and gets back: each file in ``cassettes/`` is a case.

A file dropped there is decoded and compared with what it recorded: a user's report (`omni-bridge doctor --report`) as it is.
Those of the suite are responses as a provider's documentation has them, plain and streamed; ``next_request`` of a line names what
the provider must get when the agent appends ``message`` for its next turn, and such a line is also played over HTTP.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from bridge_worker.cassettes.cassette import Cassette
from bridge_worker.cassettes.entry import raw
from bridge_worker.cassettes.verification import verify
from bridge_worker.schema.chat_request import ChatParams
from bridge_worker.schema.messages import json_schema
from tests.conftest import WorkerFor
from tests.support.provider_formats import environment
from tests.support.upstream import Upstream
from tests.support.upstream_format import Request, Steps, http, stream
from tests.support.worker import Json, Worker

FILES = sorted((Path(__file__).parents[1] / "cassettes").glob("*.cassette"))
NOT_COMPARED = ("timing", "receipt", "requested_model")
CUT = 13  # bytes of a stream at a time


def lines(path: Path) -> list[Json]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


PLAYED = [
    pytest.param(line, id=f"{path.stem}-{'streamed' if line['request']['params'].get('stream') else 'plain'}")
    for path in FILES
    for line in lines(path)
    if "next_request" in line
]


@pytest.mark.rule("CAS-15", "CAS-21")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_todays_decoders_make_of_a_file_what_it_recorded(path: Path) -> None:
    whole = json_schema()
    validator = Draft202012Validator({**whole["cassette"], "$defs": whole["$defs"]})  # type: ignore[dict-item]
    for line in lines(path):
        validator.validate(line)
    verdicts = list(verify(Cassette(str(path))))
    assert verdicts
    assert [verdict for verdict in verdicts if verdict.outcome == "differs"] == []


class Player(Upstream):
    """Sends the bytes of one exchange."""

    def insert(self, exchange: Json) -> None:
        (attempt,) = exchange["provider"]
        self._headers, self._body = attempt["response_headers"], raw(attempt["body"])
        self._streamed = exchange["request"]["params"].get("stream")

    def _reply_to(self, request: Request) -> Steps:
        if not self._streamed:
            return http(self._body, headers=self._headers)
        return stream([self._body[at : at + CUT] for at in range(0, len(self._body), CUT)], self._headers)


@pytest.fixture(scope="module")
def player() -> Iterator[Player]:
    with Player() as player:
        yield player


@pytest.fixture(scope="module")
def worker(player: Player, worker_for: WorkerFor) -> Worker:
    """Any model by its LiteLLM name, and the parameters that audio needs."""
    any_model = {"model_name": "*", "litellm_params": {"model": "*"}}
    config = {"model_list": [any_model], "omni_bridge": {"provider_params": ["modalities", "audio"]}}
    return worker_for(config=config, env=environment(player.base_url.removesuffix("/v1")))


def assert_has(got: Any, wanted: Any, path: str = "result") -> None:
    """Each member of ``wanted`` is in ``got``, at any depth."""
    if isinstance(wanted, dict):
        assert isinstance(got, dict), f"{path} is {got}"
        for name, member in wanted.items():
            assert name in got, f"{path} has no {name}: {got}"
            assert_has(got[name], member, f"{path}.{name}")
    elif isinstance(wanted, list):
        assert len(got or ()) == len(wanted), f"{path} is {got}"
        for index, member in enumerate(wanted):
            assert_has(got[index], member, f"{path}[{index}]")
    elif path.endswith(".arguments"):
        assert json.loads(got) == json.loads(wanted)
    else:
        assert got == wanted, f"{path} is {got!r}"


def subtrees(value: Any) -> Iterator[Any]:
    yield value
    for member in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from subtrees(member)


def is_in(wanted: Any, body: Json) -> bool:
    def has(got: Any) -> bool:
        try:
            assert_has(got, wanted)
        except AssertionError:
            return False
        return True

    return any(has(subtree) for subtree in subtrees(body))


def next_turn(message: Json) -> list[Json]:
    calls = message.get("tool_calls") or ()
    tool_messages = [{"role": "tool", "tool_call_id": call["id"], "content": "21 degrees"} for call in calls]
    return [{"role": "user", "content": "hello"}, message, *(tool_messages or [{"role": "user", "content": "and on"}])]


def without_ids(result: Json) -> Json:
    """The bridge makes up the id of a call that a provider sends without one."""
    text = re.sub(r"call_[0-9a-f]{24}", "call_", json.dumps(result))
    return {name: value for name, value in json.loads(text).items() if name not in NOT_COMPARED}


def as_params(canonical: Json) -> Json:
    """Params of a chat; a canonical request has the provider's own among the others."""
    own = {name: value for name, value in canonical.items() if name not in ChatParams.model_fields}
    return {name: value for name, value in canonical.items() if name not in own} | ({"provider_params": own} if own else {})


@pytest.mark.rule("RES-8", "RES-13", "RES-14", "RES-15", "RES-18")
@pytest.mark.parametrize("exchange", PLAYED)
def test_a_recorded_response_is_read_and_sent_back_unchanged(exchange: Json, player: Player, worker: Worker) -> None:
    params = as_params(exchange["request"]["params"])
    player.insert(exchange)

    response = worker.call("chat", params)

    assert "result" in response, response
    assert without_ids(response["result"]) == without_ids(exchange["wire"]["result"])

    again = worker.call("chat", params | {"messages": next_turn(response["result"]["message"])})

    assert "result" in again, again
    sent = json.loads(player.requests[-1].raw)
    for part in exchange["next_request"]["has"]:
        assert is_in(part, sent), f"{part} is not in {json.dumps(sent, ensure_ascii=False)}"
    dropped = [change["param"] for change in again["result"]["receipt"]["dropped"]]
    assert dropped == exchange["next_request"]["drops"]
