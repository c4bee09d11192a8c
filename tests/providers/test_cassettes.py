"""What one provider alone says, and gets back: each text file in ``cassettes/`` is one answer as its documentation has it.

It holds the answer whole and streamed, what the agent must get of it, and what the provider must get when the agent appends
``message`` for its next turn.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import WorkerFor
from tests.support.provider_formats import environment
from tests.support.upstream import Upstream
from tests.support.upstream_format import Request, Steps, http, stream
from tests.support.worker import Json, Worker

CASSETTES = sorted((Path(__file__).parents[1] / "cassettes").glob("*.txt"))
CUT = 13  # bytes of a stream at a time
TOOLS = [
    {
        "type": "function",
        "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
    }
]


def sections(path: Path) -> Mapping[str, str]:
    parts = re.split(r"^== (.*)\n", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


class Player(Upstream):
    """Answers with one cassette, streamed if ``stream``."""

    def insert(self, cassette: Mapping[str, str], streamed: bool) -> None:
        head, _, body = cassette["stream" if streamed else "plain"].partition("\n\n")
        self._headers = dict(line.split(": ", 1) for line in head.splitlines())
        self._body, self._streamed = body.encode(), streamed

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
    answers = [{"role": "tool", "tool_call_id": call["id"], "content": "21 degrees"} for call in calls]
    return [{"role": "user", "content": "hello"}, message, *(answers or [{"role": "user", "content": "and on"}])]


@pytest.mark.rule("RES-8", "RES-13", "RES-14", "RES-15", "RES-18")
@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("path", CASSETTES, ids=lambda path: path.stem)
def test_a_recorded_response_is_read_and_sent_back_unchanged(path: Path, streamed: bool, player: Player, worker: Worker) -> None:
    cassette = sections(path)
    asked = {"model": cassette["model"].strip(), "tools": TOOLS, "stream": streamed} | json.loads(cassette["params"])
    player.insert(cassette, streamed)

    response = worker.call("chat", asked | {"messages": [{"role": "user", "content": "hello"}]})

    assert "result" in response, response
    assert_has(response["result"], json.loads(cassette["result"]))

    again = worker.call("chat", asked | {"messages": next_turn(response["result"]["message"])})

    assert "result" in again, again
    sent = json.loads(player.requests[-1].raw)
    for line in cassette.get("next request has", "").splitlines():
        assert is_in(json.loads(line), sent), f"{line} is not in {json.dumps(sent, ensure_ascii=False)}"
    dropped = [change["param"] for change in again["result"]["receipt"]["dropped"]]
    assert dropped == cassette.get("next request drops", "").split()
