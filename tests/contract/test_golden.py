"""The recorded conversations of ``tests/golden/``, each with the real process: the wire as every client may rely on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from bridge_worker.protocol.envelope import is_response
from bridge_worker.schema import messages
from tests.conftest import Spawn
from tests.support.transcripts import Transcript, difference, parse, play

GOLDEN = Path(__file__).parents[1] / "golden"
TRANSCRIPTS = {path.name: parse(path.read_text(encoding="utf-8")) for path in sorted(GOLDEN.glob("*.transcript"))}
SCHEMA: Any = messages.json_schema()
ALL_METHODS = {**SCHEMA["methods"], **SCHEMA["methodsOfClient"]}
# The conversations of each released version are kept; one that is equal to today's is played above.
_TEXTS = {path.name: path.read_text(encoding="utf-8") for path in GOLDEN.glob("*.transcript")}
_EARLIER = {
    f"{path.parent.name}/{path.name}": path.read_text(encoding="utf-8")
    for path in sorted(GOLDEN.parent.glob("transcripts/*/*.transcript"))
}
KEPT = {name: parse(text) for name, text in _EARLIER.items() if text != _TEXTS.get(name.partition("/")[2])}


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_the_worker_speaks_as_recorded(name: str, spawn: Spawn) -> None:
    transcript = TRANSCRIPTS[name]
    play(transcript, spawn(*transcript.flags))


@pytest.mark.parametrize("name", KEPT)
def test_a_worker_responds_to_the_conversations_of_earlier_versions_with_additions_only(name: str, spawn: Spawn) -> None:
    transcript = KEPT[name]
    play(transcript, spawn(*transcript.flags), additions=True)


def test_a_kept_conversation_allows_further_members_and_no_other_change() -> None:
    assert difference({"a": [{"b": 1}]}, {"a": [{"b": 1, "new": 2}]}, additions=True) is None
    assert difference({"a": [{"b": 1}]}, {"a": [{"new": 2}]}, additions=True) == "a[0] lacks 'b'"
    assert difference({"a": 1}, {"a": 2, "new": 3}, additions=True) == "a is 2, not 1"


@pytest.mark.parametrize("method", [*ALL_METHODS, *messages.NOTIFICATIONS_IN, *messages.NOTIFICATIONS_OUT])
def test_every_method_and_notification_is_in_some_transcript(method: str) -> None:
    recorded = {message.get("method") for transcript in TRANSCRIPTS.values() for message in transcript.messages()}
    assert method in recorded, f"no transcript has {method}: record it in tests/golden/"


@pytest.mark.parametrize("method", ALL_METHODS)
def test_every_method_has_a_recorded_result(method: str) -> None:
    recorded = {
        request["method"]
        for transcript in TRANSCRIPTS.values()
        for request, response in exchanges(transcript)
        if "result" in response
    }
    assert method in recorded, f"no transcript has a result of {method}: record it in tests/golden/"


@pytest.mark.rule("VER-2")
@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_recorded_messages_fit_the_schema(name: str) -> None:
    transcript = TRANSCRIPTS[name]
    for message in transcript.messages():
        if (method := message.get("method")) in messages.NOTIFICATIONS_OUT:
            assert_fits(message["params"], SCHEMA["notifications"]["fromBridge"][method])
        if "error" in message and not is_response(message):  # the client's own errors have no data
            assert_fits(message["error"], SCHEMA["error"])
    for request, response in exchanges(transcript):
        if "result" in response:
            assert_fits(request.get("params") or {}, ALL_METHODS[request["method"]]["params"])
            assert_fits(response["result"], ALL_METHODS[request["method"]]["result"])


def test_a_difference_is_reported_with_its_path() -> None:
    assert difference({"a": [{"b": "«number»"}]}, {"a": [{"b": "1"}]}) == "a[0].b is no number"
    assert difference({"a": 1}, {"a": True}) == "a is True, not 1"
    assert difference({"a": 1, "b": "«any»"}, {"a": 1}) == "the object lacks 'b'"
    assert difference({"a": 1}, {"a": 1, "b": 2}) == "the object has the unexpected 'b'"
    assert difference([1], [1, 2]) is not None
    assert difference({"a": ["«any»", "«string»", "«number»"]}, {"a": [None, "x", 0.5]}) is None


def exchanges(transcript: Transcript) -> list[tuple[Any, Any]]:
    """(request, response) by id; a response that a wildcard stands for is left out."""
    requests = {json.dumps(message["id"]): message for message in transcript.messages() if "method" in message and "id" in message}
    responses = [message for message in transcript.messages() if "method" not in message and message.get("id") is not None]
    pairs = [(requests.get(json.dumps(response["id"])), response) for response in responses]
    return [(request, response) for request, response in pairs if request and response.get("result") != "«any»"]


def assert_fits(value: Any, schema: Any) -> None:
    """Wildcards fit anything: what stands behind them is checked by the run."""
    validator = Draft202012Validator({**SCHEMA, **schema})
    wrong = [error for error in validator.iter_errors(value) if error.instance not in ("«any»", "«number»", "«string»")]
    assert not wrong, f"{wrong[0].json_path}: {wrong[0].message}"
