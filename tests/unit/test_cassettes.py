"""A cassette's parts in memory: canonical form, masks, index, matching, and what a replay plays."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import time
import tracemalloc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_worker.cassettes.canonical import canonical, hash_of, of_chat
from bridge_worker.cassettes.cassette import Cassette
from bridge_worker.cassettes.entry import Exchanged, header_line, line_of
from bridge_worker.cassettes.masking import in_data_too
from bridge_worker.cassettes.matching import Matching, differences
from bridge_worker.cassettes.playback import RecordedBody
from bridge_worker.cassettes.player import Player
from bridge_worker.cassettes.replay import Replay
from bridge_worker.cassettes.writer import CassetteError, open_cassette
from bridge_worker.cassettes.writing_process import append
from bridge_worker.core.accumulator import WireDelta
from bridge_worker.core.chat_runner import run_chat
from bridge_worker.core.exchange import Piece, Tape
from bridge_worker.core.ports import Embeddings, EmbedRequest, Ranking, RerankRequest
from bridge_worker.core.receipt import Receipt
from bridge_worker.errors import BridgeError
from bridge_worker.schema.tokens import TokenCount
from bridge_worker.security.redaction import Redactor
from tests.support.data import Json
from tests.support.requests import chat_request

KEY = "sk-proj-Zx8Qw3Er5Ty7Ui9Op1As2Df4"
PASSWORD = "correct-horse-battery-7"
REDACT = Redactor({"OPENAI_API_KEY": KEY, "DB_PASSWORD": PASSWORD}).redact
VERSIONS: Mapping[str, str | None] = {"omni_bridge": "0.1.0", "litellm": "1"}
RESULT = {
    "content": "hello",
    "finish_reason": "stop",
    "receipt": {"attempts": [{"outcome": "ok", "status": None, "ms": 1.0, "model": "m", "provider": "openai", "deployment": None}]},
}


def request(text: str = "hi", **params: Any) -> Json:
    return {"method": "chat", "params": {"messages": [{"content": text, "role": "user"}], "model": "openai/m", **params}}


def with_role(role: str) -> Json:
    chat = request()
    chat["params"]["messages"][0]["role"] = role
    return chat


def sse(*texts: str) -> list[bytes]:
    chunks = [{"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]} for text in texts]
    last = {"id": "c1", "model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    return [b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in (*chunks, last)] + [b"data: [DONE]\n\n"]


def tape(reads: Sequence[bytes] = (), **members: Any) -> Tape:
    made = Tape(0.0, 0.0, 0, "openai_chat", {}, False, "m", "openai", 200, {"Content-Type": "text/event-stream"})
    made.pieces = [Piece(10.0 * at, data) for at, data in enumerate(reads, 1)]
    made.ended = True
    for name, value in members.items():
        setattr(made, name, value)
    return made


def done(chat: Json, *, tapes: Sequence[Tape] = (), deltas: Sequence[Any] = (), **outcome: Any) -> Exchanged:
    (name, value), *_ = (outcome or {"result": RESULT}).items()
    kind = value["data"]["kind"] if name == "error" else None
    texts = canonical(chat), "2026-11-27T12:00:00.000Z"
    return Exchanged("chat", *texts, list(tapes), [(1.0, delta) for delta in deltas], 2.0, json.dumps(value), kind)


def write(path: Path, *exchanges: Exchanged) -> str:
    path.write_bytes(header_line(version="t") + b"".join(line_of(each, VERSIONS, REDACT) for each in exchanges))
    return str(path)


# --- the canonical form ------------------------------------------------------------------------------------------------------


@pytest.mark.rule("CAS-17")
@pytest.mark.parametrize(
    ("value", "form"),
    [  # the numbers are RFC 8785's own examples
        (333333333.33333329, "333333333.3333333"),
        (1e30, "1e+30"),
        (4.50, "4.5"),
        (2e-3, "0.002"),
        (0.000000000000000000000000001, "1e-27"),
        (1.0, "1"),
        (-0.0, "0"),
        (1e21, "1e+21"),
        (1e20, "100000000000000000000"),
        (0.000001, "0.000001"),
        (5e-324, "5e-324"),
        (-1.5, "-1.5"),
        (True, "true"),
        ({"b": [None, 0.5], "a": {}}, '{"a":{},"b":[null,0.5]}'),
        ('€$\u000f\nA\'B"\\\\"/', '"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"'),
        ({"\ufb33": 1, "\U0001f600": 2, "\u20ac": 3, "1": 1e-7}, '{"1":1e-7,"€":3,"😀":2,"\ufb33":1}'),
    ],
)
def test_the_canonical_form_is_rfc_8785(value: Any, form: str) -> None:
    assert canonical(value) == form
    assert hash_of(form) == hashlib.sha256(form.encode()).hexdigest()


@pytest.mark.rule("CAS-16")
def test_the_request_has_what_a_provider_may_receive() -> None:
    params = {"model": "m", "messages": [{"role": "user", "content": None}], "temperature": None, "top_p": 1.0, "stream": False}
    more = {"metadata": {"run": "7"}, "deadlines": {"total_ms": 5}, "provider_params": {"top_k": 3}}
    chat = chat_request(params | more, time.monotonic())
    assert canonical(of_chat(chat)) == (
        '{"method":"chat","params":{"messages":[{"content":null,"role":"user"}],"model":"m","top_k":3,"top_p":1}}'
    )


# --- secrets -----------------------------------------------------------------------------------------------------------------


def planted(secret: str) -> dict[str, Exchanged]:
    """The secret in every place of an exchange."""
    half = len(secret) // 2
    parts = [secret[:half], secret[half:]]
    error = {"code": 1001, "message": f"the key {secret} is wrong", "data": {"kind": "authentication", "retryable": False}}
    call = {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": json.dumps({"key": secret})}}]}
    arguments = [{"tool_calls": [{"index": 0, "function": {"arguments": part}}]} for part in parts]
    body = json.dumps({"error": {"message": f"bad key {secret}"}}).encode()
    return {
        "a message": done(request(f"my key is {secret}")),
        "a tool's schema": done(request(tools=[{"type": "function", "function": {"name": "f", "description": secret}}])),
        "a member's name": done(request(tools=[{"parameters": {"properties": {secret: {}}}}])),
        "a URL's query": done(request(f"https://host.example/v1?key={secret}&x=1")),
        "a header in a text": done(request(f'{{"Authorization": "Bearer {secret}"}}')),
        "a response header": done(request(), tapes=[tape([], headers={"x-ratelimit-key": secret, "set-cookie": secret})]),
        "an error": done(request(), error=error),
        "an error's body": done(request(), tapes=[tape([body], status=401)], error=error),
        "a body cut within it": done(request(), tapes=[tape([body[: 30 + half], body[30 + half :]], status=401)], error=error),
        "a body that is not UTF-8": done(request(), tapes=[tape([b"\xff\x00" + secret.encode() + b"\xfe"])]),
        "a connection's failure": done(request(), tapes=[tape([], failure=f"proxy {secret} refused", ended=False)], error=error),
        "the response": done(request(), tapes=[tape(sse(f"it is {secret}"))], result=RESULT | {"content": f"it is {secret}"}),
        "a response in parts": done(
            request(), tapes=[tape(sse(*parts))], deltas=parts, result=RESULT | {"content": secret, "message": {"content": secret}}
        ),
        "a tool call": done(request(), deltas=[call], result=RESULT | {"tool_calls": call["tool_calls"]}),
        "arguments in parts": done(request(), deltas=arguments),
        "a partial response": done(
            request(),
            deltas=parts,
            error={"code": 1, "message": "", "data": {"kind": "timeout", "partial": {"content": secret, "tool_calls": []}}},
        ),
    }


PLACES = list(planted(KEY))


@pytest.mark.rule("CAS-2")
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("secret", [KEY, PASSWORD], ids=["key-shaped", "known"])
def test_a_secret_is_in_no_place_of_a_line_and_the_line_can_be_read(place: str, secret: str) -> None:
    line = line_of(planted(secret)[place], VERSIONS, REDACT)
    entry = json.loads(line)
    half = len(secret) // 2
    assert secret not in line.decode()
    assert not (secret[:half] in line.decode() and secret[half:] in line.decode()), "its parts are still there"
    assert "Zx8Qw3Er" not in str(entry)
    assert entry["hash"] == hash_of(canonical(entry["request"]))
    for attempt in entry["provider"] or ():
        assert "base64" not in attempt["body"]
        assert sum(length for _, length in attempt["reads"]) == len(attempt["body"].encode())


@pytest.mark.rule("CAS-2")
def test_an_unknown_key_is_masked_by_its_shape_and_the_request_still_finds_its_exchange(tmp_path: Path) -> None:
    unknown = "sk-ant-api03-Qm7Wn2Eb5Rv8Tc1Yx4Uz"
    path = write(tmp_path / "c", done(request(f"use {unknown}"), deltas=["ok"]))
    assert unknown not in Path(path).read_text()
    player = Player(Cassette(path), Matching(), Redactor({}).redact)
    assert player.find(request(f"use {unknown}")) is not None
    assert player.find(request("use another")) is None


@pytest.mark.rule("CAS-2")
@pytest.mark.parametrize("secret", [KEY, PASSWORD], ids=["key-shaped", "known"])
def test_a_secret_within_base64_or_escaped_letters_is_masked_and_the_request_still_finds_its_exchange(
    secret: str, tmp_path: Path
) -> None:
    redact = in_data_too(REDACT)
    image = base64.b64encode(f"PNG\x00 {secret} \x00".encode()).decode()
    chat = request("look")
    url = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}}
    file = {"type": "input_audio", "input_audio": {"data": image, "format": "wav"}}
    chat["params"]["messages"] = [{"role": "user", "content": [url, file]}]
    escaped = b'{"choices": [{"message": {"content": "' + "".join(f"\\u{ord(one):04x}" for one in secret).encode() + b'"}}]}'
    line = line_of(done(chat, tapes=[tape([escaped])]), VERSIONS, redact)
    assert image not in line.decode()
    assert json.loads(line)["provider"] is None
    path = tmp_path / "c"
    path.write_bytes(header_line(version="t") + line)
    assert Player(Cassette(str(path)), Matching(), redact).find(chat) is not None
    untouched = base64.b64encode(bytes(range(256)) * 40).decode()
    assert redact(f"data:image/png;base64,{untouched}") == f"data:image/png;base64,{untouched}"


# --- the file ----------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("CAS-1", "CAS-20")
def test_a_half_line_and_unknown_lines_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "c"
    write(path, done(request("one")), done(request("two")))
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"later": 1}\n' + whole.splitlines()[1][:200])
    cassette = Cassette(str(path))
    assert (len(cassette.index.exchanges), cassette.index.unread) == (2, 2)
    os.close(open_cassette(str(path), "--record"))  # a later run ends the half line
    assert path.read_bytes().endswith(b"\n")


@pytest.mark.rule("CAS-1", "CAS-4")
def test_a_half_line_of_another_process_is_ended_before_the_next_line(tmp_path: Path) -> None:
    path = tmp_path / "c"
    write(path, done(request("one")))
    line = path.read_bytes().splitlines()[1]
    fd = open_cassette(str(path), "--record")
    with path.open("ab") as killed:
        killed.write(line[:300])
    append(fd, line + b"\n")
    os.close(fd)
    assert path.read_bytes().splitlines()[1:] == [line, line[:300], line]
    cassette = Cassette(str(path))
    assert (len(cassette.index.exchanges), cassette.index.unread) == (2, 1)


@pytest.mark.parametrize("left", [1, 2, 3, 4, 40])
def test_a_last_line_that_was_cut_off_behind_any_character_is_passed_over(left: int, tmp_path: Path) -> None:
    path, lost = tmp_path / "c", tmp_path / "lost"
    write(path, done(request("one")), done(request("two")))
    whole = path.read_bytes()
    for end in (b"", b"\n"):  # as it is, and after a later run
        lost.write_bytes(whole[: -1 - left] + end)
        cassette = Cassette(str(lost))
        (entry,) = cassette.entries()
        assert (entry["request"], cassette.index.unread) == (json.loads(done(request("one")).canonical), 1)


@pytest.mark.rule("CAS-15", "CAS-20")
def test_a_line_that_was_edited_by_hand_is_found_by_its_request(tmp_path: Path) -> None:
    path = tmp_path / "c"
    write(path, done(request("one")))
    head, line = path.read_text().splitlines()
    assert [*json.loads(line)][:3] == ["exchange", "hash", "request"]
    edited = json.loads(line.replace("one", "edited"))
    path.write_text(f"{head}\n{json.dumps({'wire': edited.pop('wire'), 'new': 1, **edited}, indent=None)}\n")
    assert Player(Cassette(str(path)), Matching(), REDACT).find(request("edited")) is not None


@pytest.mark.parametrize("wire", [{}, {"result": None}, {"result": [1]}, {"error": {"code": 1}}])
def test_an_exchange_without_an_outcome_is_an_error_that_names_the_place(wire: Json, tmp_path: Path) -> None:
    path = tmp_path / "c"
    write(path, done(request("one")))
    head, line = path.read_text().splitlines()
    path.write_text(f"{head}\n{json.dumps(json.loads(line) | {'wire': wire})}\n")
    with pytest.raises(BridgeError, match="the exchange at byte 29 of the cassette can't be read") as caught:
        Player(Cassette(str(path)), Matching(), REDACT).find(request("one"))
    assert caught.value.kind == "cassette_miss"


@pytest.mark.rule("CAS-3", "CAS-20")
def test_a_file_that_is_not_a_cassette_or_a_newer_one_is_refused_and_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "c"
    for content in (b"notes\n", b'{"trace":1}\n'):
        path.write_bytes(content)
        with pytest.raises(CassetteError, match="is not a cassette"):
            open_cassette(str(path), "--record")
        with pytest.raises(CassetteError, match="is not a cassette"):
            Cassette(str(path))
        assert path.read_bytes() == content
    path.write_bytes(b'{"cassette":2}\n')
    with pytest.raises(CassetteError, match="newer"):
        Cassette(str(path))
    with pytest.raises(CassetteError, match="newer"):
        open_cassette(str(path), "--record")
    assert path.read_bytes() == b'{"cassette":2}\n'


# --- which exchange ----------------------------------------------------------------------------------------------------------


def player_of(tmp_path: Path, *exchanges: Exchanged, ignore: Sequence[str] = ()) -> Player:
    return Player(Cassette(write(tmp_path / "c", *exchanges)), Matching(ignore), REDACT)


@pytest.mark.rule("CAS-7")
def test_the_nth_same_request_gets_the_nth_exchange_and_then_the_last(tmp_path: Path) -> None:
    first, second = done(request(), deltas=["1"]), done(request(), deltas=["2"])
    player = player_of(tmp_path, first, done(request("other"), deltas=["3"]), second)
    found = [player.find(request()) for _ in range(4)]
    assert [entry and entry["wire"]["deltas"][0][1] for entry in found] == ["1", "2", "2", "2"]


@pytest.mark.rule("CAS-11")
@pytest.mark.parametrize(
    ("ignore", "recorded", "chat", "matches"),
    [
        ([], request("a"), request("b"), False),
        (["ids"], request("run 7f3c1d2e-1111-4222-8333-944455556666"), request("run 00000000-1111-4222-8333-944455556666"), True),
        (["ids"], request("call_8f3kd92m is done"), request("call_1a2b3c4d is done"), True),
        (["ids"], request("one"), request("two"), False),
        (["dates"], request("Today is 2026-11-27T12:00:01Z."), request("Today is 2027-01-02T03:04:05Z."), True),
        (["dates"], request("Today is Friday, November 27, 2026."), request("Today is Saturday, January 2, 2027."), True),
        (["dates"], request("at 1795780000"), request("at 1795790000"), True),
        (["dates"], request("at 12 apples"), request("at 13 apples"), False),
        (["temperature"], request(temperature=0.1), request(), True),
        (["messages.*.role"], request(), with_role("system"), True),
        (["seed", "ids"], request("call_8f3kd92m", seed=1), request("call_1a2b3c4d", seed=2), True),
    ],
)
def test_requests_match_except_for_what_is_ignored(
    ignore: list[str], recorded: Json, chat: Json, matches: bool, tmp_path: Path
) -> None:
    assert (player_of(tmp_path, done(recorded), ignore=ignore).find(chat) is not None) == matches


@pytest.mark.rule("CAS-8")
def test_a_miss_has_the_nearest_request_and_the_members_that_differ(tmp_path: Path) -> None:
    recorded = [request("the weather in Brno", temperature=1), request("a poem about snow", seed=1)]
    player = player_of(tmp_path, *map(done, recorded))
    error = player.miss(request("the weather in Oslo", temperature=1, top_p=1))
    assert error.extra["nearest"] == {
        "exchange": 1,
        "differs": ["params.messages.0.content", "params.top_p"],
        "request": recorded[0],
    }
    assert "exchange 1, differs in params.messages.0.content, params.top_p" in error.message
    assert player_of(tmp_path).miss(request()).extra == {"nearest": None}
    assert differences({"a": [1, {"b": 2}]}, {"a": [1, {"b": 3}, 4]}) == ["a.1.b", "a.2"]


# --- what is played ----------------------------------------------------------------------------------------------------------


def replay(tmp_path: Path, exchange: Exchanged, *, real: bool = False, deadline_ms: int = 5_000, **params: Any) -> Any:
    """(result or error, deltas)"""
    backends = Replay(player_of(tmp_path, exchange), in_real_time=real)
    sent: list[WireDelta] = []

    async def emit(deltas: list[WireDelta]) -> None:
        sent.extend(deltas)

    given = {**json.loads(exchange.canonical)["params"], "deadlines": {"total_ms": deadline_ms}, **params}
    chat = chat_request(given, time.monotonic())
    try:
        return asyncio.run(run_chat(chat, backends.chat_model, emit if chat.stream else None)), sent
    except BridgeError as error:
        return error, sent


@pytest.mark.rule("CAS-6", "CAS-18")
def test_bytes_go_through_the_decoder_in_the_recorded_reads(tmp_path: Path) -> None:
    data = b"".join(sse("žlu", "ť 🦜"))
    reads = [data[at : at + 7] for at in range(0, len(data), 7)]  # cuts within characters
    exchange = done(request(stream=True), tapes=[tape(reads)], result=RESULT | {"content": "žluť 🦜", "cost_usd": 0.5})
    result, sent = replay(tmp_path, exchange)
    assert (result["content"], sent, result["cost_usd"]) == ("žluť 🦜", ["žlu", "ť 🦜"], 0.5)
    assert result["receipt"]["engine"]["name"] == "cassette"
    assert result["receipt"]["attempts"] == RESULT["receipt"]["attempts"]  # type: ignore[index]


@pytest.mark.rule("CAS-6")
def test_a_connection_that_broke_breaks_again_and_a_status_is_an_error_again(tmp_path: Path) -> None:
    broken = tape(sse("one ")[:1], failure="the connection was reset", ended=False)
    wrong: Json = {"code": 1014, "message": "it broke", "data": {"kind": "stream_interrupted", "retryable": False, "status": None}}
    wrong["data"] |= {"retry_after_ms": None, "provider": "openai", "model": "m", "receipt": RESULT["receipt"]}
    error, sent = replay(tmp_path, done(request(stream=True), tapes=[broken], error=wrong))
    assert (error.kind, error.message, sent) == ("stream_interrupted", "it broke", ["one "])
    limited = tape([b'{"error": {"message": "slow down"}}'], status=429, headers={"retry-after": "2"})
    wrong = {**wrong, "data": {**wrong["data"], "kind": "authentication"}}  # today's decoder decides
    error, _ = replay(tmp_path, done(request(), tapes=[limited], error=wrong))
    assert (error.kind, error.retry_after_ms, error.status) == ("rate_limited", 2000, 429)


@pytest.mark.rule("CAS-10")
def test_what_was_cancelled_waits_for_a_deadline_after_the_recorded_deltas(tmp_path: Path) -> None:
    left = tape(sse("one ")[:1], ended=False)
    wrong: Json = {"code": -32800, "message": "cancelled", "data": {"kind": "cancelled", "retryable": False, "status": None}}
    wrong["data"] |= {"retry_after_ms": None, "provider": "openai", "model": "m", "receipt": RESULT["receipt"]}
    error, sent = replay(tmp_path, done(request(stream=True), tapes=[left], error=wrong), deadline_ms=60)
    assert (error.kind, error.extra["partial"]["content"], sent) == ("timeout", "one ", ["one "])


@pytest.mark.rule("CAS-10")
def test_the_recorded_pauses_are_repeated_when_that_is_set(tmp_path: Path) -> None:
    exchange = done(request(stream=True), tapes=[tape(sse("a", "b"))], result=RESULT)
    began = time.monotonic()
    replay(tmp_path, exchange, real=True)
    assert time.monotonic() - began >= 0.039  # the last of four reads, 10 ms apart


@pytest.mark.rule("CAS-6")
def test_without_bytes_the_deltas_are_played_with_every_member_of_the_message(tmp_path: Path) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    deltas: list[Any] = [
        {"reasoning_content": "hm"},
        "text",
        {"tool_calls": [{"index": 0, **call, "function": {"name": "f", "arguments": '{"a"'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]},
    ]
    message = {
        "role": "assistant",
        "content": "text",
        "tool_calls": [call],
        "thinking_blocks": [{"type": "redacted_thinking", "data": "x"}],
    }
    result = {
        **dict.fromkeys(("refusal", "annotations", "usage", "cost_usd", "cost_source", "price_map_date", "rate_limits", "id")),
        "content": "text",
        "reasoning": "hm",
        "tool_calls": [call],
        "finish_reason": "tool_calls",
        "message": message,
        "raw_finish_reason": "tool_use",
        "model": "m",
        "provider": "anthropic",
        "logprobs": None,
        "timing": {"queued_ms": 0},
        "receipt": {"attempts": [], "engine": {"name": "litellm", "version": "1"}},
    }
    for stream in (True, False):
        params = {"stream": True} if stream else {}
        played, sent = replay(tmp_path, done(request(**params), deltas=deltas if stream else (), result=result))
        assert not isinstance(played, BridgeError), played
        names = ("content", "reasoning", "tool_calls", "finish_reason", "raw_finish_reason", "model", "provider")
        assert {name: played[name] for name in names} == {name: result[name] for name in names}
        assert played["message"]["thinking_blocks"] == message["thinking_blocks"]
        assert sent == (deltas if stream else [])


@pytest.mark.rule("CAS-6", "CAS-12")
def test_embeddings_rankings_and_counts_are_played_as_results(tmp_path: Path) -> None:
    params = {
        "embed": {"model": "e", "input": ["a"]},
        "rerank": {"model": "r", "query": "q", "documents": ["a", "b"]},
        "tokens/count": {"model": "m", "messages": [{"role": "user", "content": "hi"}]},
    }
    common: Json = {
        "usage": None,
        "cost_usd": 0.25,
        "cost_source": "provider",
        "price_map_date": None,
        "model": "x",
        "provider": "p",
    }
    common["receipt"] = RESULT["receipt"]
    results: dict[str, Json] = {
        "embed": common | {"embeddings": ["AACAPwAAAEA="]},  # 1.0 and 2.0
        "rerank": common | {"results": [{"index": 1, "score": 0.5, "document": None}]},
        "tokens/count": {"input_tokens": 3, "tokenizer": "t", "exact": True},
    }
    exchanges = [
        Exchanged(
            method, canonical({"method": method, "params": params[method]}), "t", [], [], 1.0, json.dumps(results[method]), None
        )
        for method in params
    ]

    async def play() -> tuple[Embeddings, Ranking, TokenCount]:
        services = await Replay(player_of(tmp_path, *exchanges)).services("any")
        embeddings = await services.embed(EmbedRequest("e", ["a"], receipt))
        ranking = await services.rerank(RerankRequest("r", "q", ["a", "b"], Receipt("r")))
        return embeddings, ranking, services.count("m", params["tokens/count"]["messages"], None)  # type: ignore[arg-type]

    receipt = Receipt("e")
    embeddings, ranking, count = asyncio.run(play())
    assert (embeddings.vectors, ranking.scores, count.input_tokens) == ([[1.0, 2.0]], [(1, 0.5)], 3)
    assert embeddings.cost is not None
    assert (embeddings.cost.usd, receipt.engine and receipt.engine.name) == (0.25, "cassette")


@pytest.mark.rule("CAS-18")
@given(st.lists(st.binary(max_size=40), max_size=6))
def test_any_bytes_come_back_as_they_were_read(reads: list[bytes]) -> None:
    exchange = json.loads(line_of(done(request(), tapes=[tape(reads)]), VERSIONS, str))
    body = RecordedBody(exchange["provider"][0], None, in_real_time=False)

    async def read_all() -> list[bytes]:
        return [await body.read() for _ in reads]

    assert asyncio.run(read_all()) == reads


def test_a_request_is_found_whether_its_secret_was_known_at_the_recording_or_is_now(tmp_path: Path) -> None:
    path = tmp_path / "c"
    path.write_bytes(header_line() + line_of(done(request(PASSWORD)), VERSIONS, str))  # nothing was a secret then
    assert Player(Cassette(str(path)), Matching(), REDACT).find(request(PASSWORD)) is not None
    write(path, done(request(PASSWORD)))
    assert Player(Cassette(str(path)), Matching(), REDACT).find(request(PASSWORD)) is not None


@pytest.mark.rule("CAS-5")
def test_a_cassette_is_indexed_without_holding_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "c"
    line = line_of(done(request("x" * 100_000)), VERSIONS, str)
    path.write_bytes(header_line() + line * 200)  # 20 MB
    tracemalloc.start()
    cassette = Cassette(str(path))
    Player(cassette, Matching(), str)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(cassette.index.exchanges) == 200
    assert held < 1_000_000
