"""What an agent needs of a provider, as data: each feature is requested in each format, plain and streamed, by one assertion.

Owns the features, and of which format they can't be had and why. `docs/matrix.md` is made from this table, and
`tests/providers/test_fidelity.py` runs it: what "holds" has run, and a limit is asserted as well. Whoever has another engine
runs the same
cases on it. Refuses to know how a request is carried out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.support.provider_formats import FORMATS, Call, Completion, Format, Json, aws

MODES = ("plain", "streamed")
ALL = tuple(FORMATS)
OPENAI_LIKE = ("openai", "azure", "mistral", "vllm")
CLAUDE = ("anthropic", "bedrock converse", "bedrock invoke")
BINARY = ("bedrock converse", "bedrock invoke")
NO_SSE = (*BINARY, "ollama")
# No host ever has such a name (RFC 2606): a fetch of it for the provider gets nothing, and no request leaves this machine.
IMAGE_URL = "https://images.invalid/some/image.png"
AUDIO = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQAAAAA="
PDF = "data:application/pdf;base64,JVBERi0xLjQKMSAwIG9iago8PD4+CmVuZG9iagp0cmFpbGVyCjw8Pj4KJSVFT0YK"
PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


@dataclass(frozen=True)
class Seen:
    """What came of a case: ``result`` or ``error``, and the body that the provider got, as JSON."""

    wire: Format
    streamed: bool
    result: Json
    error: Json
    sent: Json

    @property
    def sent_text(self) -> str:
        return json.dumps(self.sent, ensure_ascii=False)


Check = Callable[[Seen], None]
Edit = Callable[[Format, list[bytes]], list[bytes]]


@dataclass(frozen=True)
class Feature:
    name: str
    completion: Completion
    check: Check
    params: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int = 200
    message: str = "It went wrong."  # in the provider's error
    error: Json | None = None  # the provider's error, where its shape matters
    edit: Edit | None = None  # of a stream's frames
    modes: Sequence[str] = MODES
    formats: Sequence[str] = ALL
    elsewhere: str = "–"  # what the matrix says where ``formats`` has none


class Case(NamedTuple):
    feature: Feature
    wire: Format
    mode: str

    @property
    def id(self) -> str:
        return f"{self.feature.name} - {self.wire.name} - {self.mode}".replace(" ", "_")

    @property
    def limit(self) -> Limit | None:
        limit = LIMITS.get((self.feature.name, self.wire.name))
        return limit if limit and self.mode in limit.modes else None

    def check(self, seen: Seen) -> None:
        """Where the provider lacks the feature, the agent learns it from an error or from the receipt."""
        if self.limit and self.limit.refused:
            assert seen.error["data"]["kind"] == "rejected_by_provider", seen
        elif self.limit and self.limit.dropped:
            assert not seen.error, seen.error
            assert self.limit.dropped in [change["param"] for change in seen.result["receipt"]["dropped"]]
        else:
            self.feature.check(seen)

    def params(self) -> Json:
        params: Json = {"model": self.wire.model, "messages": [{"role": "user", "content": "hello"}]}
        return params | dict(self.feature.params) | ({"stream": True} if self.mode == "streamed" else {})

    def frames(self) -> list[bytes]:
        frames = self.wire.events(self.feature.completion)
        return self.feature.edit(self.wire, frames) if self.feature.edit else frames


def cases() -> Iterator[Case]:
    for feature in FEATURES:
        for name in feature.formats:
            yield from (Case(feature, FORMATS[name], mode) for mode in feature.modes)


# --- what is asserted -----------------------------------------------------------------------------------------------------------


def returns(text: str | None, finish: str = "stop", **members: Any) -> Check:
    def check(seen: Seen) -> None:
        assert not seen.error, seen.error
        result = seen.result
        assert (result["content"], result["finish_reason"]) == (text, finish)
        assert {name: result[name] for name in members} == members
        assert result["receipt"]["attempts"][-1]["outcome"] == "ok"
        assert result["receipt"]["dropped"] == []

    return check


def calls(*wanted: Call, text: str | None = None) -> Check:
    def check(seen: Seen) -> None:
        assert not seen.error, seen.error
        result = seen.result
        got = [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in result["tool_calls"]]
        assert got == [(call.name, json.loads(call.arguments or "{}")) for call in wanted]
        ids = [call["id"] for call in result["tool_calls"]]
        assert len(set(ids)) == len(wanted)
        if seen.wire.name not in ("gemini", "ollama"):  # their calls have no ids; these are the bridge's or LiteLLM's
            assert ids == [call.id for call in wanted]
        assert (result["content"], result["finish_reason"]) == (text, "tool_calls")
        assert [call["id"] for call in result["message"]["tool_calls"]] == ids

    return check


def fails(kind: str, **members: Any) -> Check:
    def check(seen: Seen) -> None:
        assert seen.error, f"no error but {seen.result}"
        data = seen.error["data"]
        assert data["kind"] == kind, seen.error
        assert {name: data[name] for name in members} == members
        assert data["receipt"]["attempts"][-1]["outcome"] == kind

    return check


def arrives(*paths: Any) -> Check:
    """Each of ``paths`` is a list of texts of which one must stand in the provider's request."""

    def check(seen: Seen) -> None:
        assert not seen.error, seen.error
        for choices in paths:
            assert any(choice in seen.sent_text for choice in choices), f"none of {choices} in {seen.sent_text}"
        lost_strict = [] if '"strict"' in seen.sent_text else ["tools[0].function.strict"]
        assert [change["param"] for change in seen.result["receipt"]["dropped"]] in ([], lost_strict)

    return check


def refuses(member: str) -> Check:
    def check(seen: Seen) -> None:
        assert (seen.error["code"], seen.error["data"]["kind"]) == (-32602, "invalid_request")
        assert seen.error["message"].startswith(f"{member}: "), seen.error
        assert seen.sent == {}

    return check


def uses(**counts: int) -> Check:
    def check(seen: Seen) -> None:
        assert not seen.error, seen.error
        usage = seen.result["usage"]
        assert {name: usage[name] for name in counts} == counts

    return check


def has_no_usage(seen: Seen) -> None:
    assert not seen.error, seen.error
    reported = {name: seen.result[name] for name in ("usage", "cost_usd", "cost_source")}
    assert reported == {"usage": None, "cost_usd": None, "cost_source": None}


def has_a_price(seen: Seen) -> None:
    assert not seen.error, seen.error
    assert seen.result["cost_usd"] > 0
    assert (seen.result["cost_source"], len(seen.result["price_map_date"])) == ("price_map", len("2026-01-01"))


def thinks(seen: Seen) -> None:
    assert not seen.error, seen.error
    assert (seen.result["reasoning"], seen.result["content"]) == (THOUGHTS, "Done.")


def keeps_its_state(seen: Seen) -> None:
    """The turn before is what `result.message` was: its state must arrive as the provider sent it."""
    assert not seen.error, seen.error
    assert SIGNATURE in seen.sent_text, seen.sent_text
    assert seen.result["receipt"]["dropped"] == []


def drops_foreign_state(seen: Seen) -> None:
    assert not seen.error, seen.error
    assert SIGNATURE not in seen.sent_text
    assert "origin" not in seen.sent["messages"][1] if "messages" in seen.sent else True
    dropped = {change["param"] for change in seen.result["receipt"]["dropped"]}
    assert {"messages[1].thinking_blocks", "messages[1].reasoning_content"} <= dropped


def has_limits(seen: Seen) -> None:
    assert not seen.error, seen.error
    limits = seen.result["rate_limits"]
    assert (limits["requests_remaining"], limits["tokens_remaining"]) == (41, 3900)
    assert 0 <= limits["reset_ms"] <= 1_500


# --- the requests, and what the provider says -----------------------------------------------------------------------------------

TEXT = "Grüße aus Zürich ☃ 🏔 — «done».\n\tAnd\u2028on."
THOUGHTS = "First the ☃, then the rest."
SIGNATURE = "EqQBCkYIBxgCKkBb0th+byte/for+byte/ZWlnbmF0dXJlIHRlc3Q="
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city"]}
NESTED = {
    "type": "object",
    "properties": {
        "place": {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "tags": {"type": "array", "items": {"type": "string", "enum": ["sea_side", "alpine"]}},
            },
            "required": ["name", "tags"],
            "additionalProperties": False,
        }
    },
    "required": ["place"],
    "additionalProperties": False,
}


def tool(name: str = "get_weather", parameters: Json = WEATHER, **more: Any) -> Json:
    return {"type": "function", "function": {"name": name, "description": f"It is {name}", "parameters": parameters, **more}}


TOOLS = [tool(), tool("get_time")]
ONE = Call("call_aaaaaaaaa", "get_weather", '{"city":"Zürich ☃","days":3}')
TWO = Call("call_bbbbbbbbb", "get_time", '{"city":"\\"quoted\\", \\u00fc"}')
EMPTY = Call("call_ccccccccc", "get_time", "")
BROKEN = Call("call_ddddddddd", "get_weather", '{"city":"Zür')
ORIGIN = {"provider": "elsewhere", "model": "some-model"}


def user(content: Any) -> Json:
    return {"role": "user", "content": content}


def turn(*calls: Call, results: Sequence[Any]) -> list[Json]:
    made = [{"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}} for c in calls]
    assistant = {"role": "assistant", "content": None, "tool_calls": made}
    tool_messages = [
        {"role": "tool", "tool_call_id": call.id, "content": result} for call, result in zip(calls, results, strict=True)
    ]
    return [user("hello"), assistant, *tool_messages]


def thought(**origin: Any) -> list[Json]:
    """A conversation whose second message holds another model's thoughts."""
    block = {"type": "thinking", "thinking": THOUGHTS, "signature": SIGNATURE}
    assistant = {
        "role": "assistant",
        "content": "Done.",
        "reasoning_content": THOUGHTS,
        "thinking_blocks": [block],
        "origin": origin,
    }
    return [user("hello"), assistant, user("and on")]


def signed_call(**origin: Any) -> list[Json]:
    conversation = turn(ONE, results=["21 degrees"])
    conversation[1]["tool_calls"][0]["provider_specific_fields"] = {"thought_signature": SIGNATURE}
    conversation[1]["origin"] = origin
    return conversation


def reasoned(**origin: Any) -> list[Json]:
    item = {
        "type": "reasoning",
        "id": "rs_1",
        "encrypted_content": SIGNATURE,
        "summary": [{"type": "summary_text", "text": THOUGHTS}],
    }
    assistant = {"role": "assistant", "content": "Done.", "reasoning_items": [item], "origin": origin}
    return [user("hello"), assistant, user("and on")]


# --- faults: edits of a stream's frames -----------------------------------------------------------------------------------------


def cut_short(wire: Format, frames: list[bytes]) -> list[bytes]:
    return frames[:6]


def without_done(wire: Format, frames: list[bytes]) -> list[bytes]:
    return [frame for frame in frames if b"[DONE]" not in frame]


def with_comments(wire: Format, frames: list[bytes]) -> list[bytes]:
    return [part for frame in frames for part in (b": keep-alive\n\n", frame)]


def with_crlf(wire: Format, frames: list[bytes]) -> list[bytes]:
    return [frame.replace(b"\n", b"\r\n") for frame in frames]


def malformed(wire: Format, frames: list[bytes]) -> list[bytes]:
    bad = {"ollama": b'{"model": "served-mo\n'}.get(wire.name, b'data: {"type": "content_block_delta", "choi\n\n')
    if wire.stream_type.endswith("eventstream"):
        bad = aws({"contentBlockIndex": 0, "delta": "?"}, "contentBlockDelta")[:-4] + b"\0\0\0\0"  # a wrong checksum
    return [*frames[:5], bad, *frames[5:]]


# --- the table ------------------------------------------------------------------------------------------------------------------

LONG = "0123456789 ☃ and so on, line after line.\n" * 150
SCHEMA = {"type": "json_schema", "json_schema": {"name": "place", "schema": NESTED, "strict": True}}
JSON_TEXT = '{"place": {"name": "Zürich", "tags": ["alpine"]}}'
THINKS = Completion("Done.", THOUGHTS, SIGNATURE, usage=(20, 30, 0, 0, 12))
THINKING = ("openai", "vllm", "azure", "responses", "anthropic", "gemini", "bedrock converse", "bedrock invoke", "ollama", "cohere")
LIMIT_HEADERS = {
    "x-ratelimit-remaining-requests": "41",
    "x-ratelimit-remaining-tokens": "3900",
    "x-ratelimit-reset-requests": "1.5s",
    "x-ratelimit-reset-tokens": "6m0s",
}
ANTHROPIC_LIMIT_HEADERS = {
    "anthropic-ratelimit-requests-remaining": "41",
    "anthropic-ratelimit-tokens-remaining": "3900",
    "anthropic-ratelimit-requests-reset": "2026-01-01T00:00:00Z",
}
MANY = {"temperature": 0.25, "top_p": 0.75, "max_tokens": 77}

FEATURES: Sequence[Feature] = (
    Feature("text", Completion(TEXT), returns(TEXT)),
    Feature("empty content", Completion(""), returns(None)),
    Feature("very long output", Completion(LONG), returns(LONG)),
    Feature("one tool call", Completion(calls=[ONE], finish="tool_calls"), calls(ONE), {"tools": TOOLS}),
    Feature("parallel tool calls", Completion(calls=[ONE, TWO], finish="tool_calls"), calls(ONE, TWO), {"tools": TOOLS}),
    Feature(
        "a call and text",
        Completion("Let me see.", calls=[ONE], finish="tool_calls"),
        calls(ONE, text="Let me see."),
        {"tools": TOOLS},
    ),
    Feature("a call without arguments", Completion(calls=[EMPTY], finish="tool_calls"), calls(EMPTY), {"tools": TOOLS}),
    Feature(
        "arguments that are not JSON",
        Completion(calls=[BROKEN], finish="tool_calls"),
        fails("bad_upstream_response"),
        {"tools": TOOLS},
        formats=("openai", "azure", "mistral", "vllm", "responses", "cohere"),
        elsewhere="arguments are an object there",
    ),
    Feature(
        "streamed arguments that are not JSON",
        Completion(calls=[Call(BROKEN.id, BROKEN.name, "{}")], finish="tool_calls"),
        fails("bad_upstream_response"),
        {"tools": TOOLS},
        modes=("streamed",),
        edit=lambda wire, frames: [frame.replace(b'"{}"', b'"{\\"a"') for frame in frames],
        formats=("anthropic", "openai"),
        elsewhere="see above",
    ),
    Feature(
        "tool results",
        Completion("Fine."),
        arrives(["21 degrees"], ["it failed"]),
        {"messages": turn(ONE, TWO, results=["21 degrees", "it failed"]), "tools": TOOLS},
    ),
    Feature(
        "an image in a tool result",
        Completion("Fine."),
        arrives([PIXEL[-40:]]),
        {
            "messages": turn(ONE, results=[[{"type": "text", "text": "this"}, {"type": "image_url", "image_url": {"url": PIXEL}}]]),
            "tools": TOOLS,
        },
    ),
    Feature("tool_choice none", Completion("Fine."), arrives(["none", "NONE"]), {"tools": TOOLS, "tool_choice": "none"}),
    Feature(
        "tool_choice required",
        Completion("Fine."),
        arrives(["required", "any", "ANY", "REQUIRED"]),
        {"tools": TOOLS, "tool_choice": "required"},
    ),
    Feature(
        "tool_choice by name",
        Completion("Fine."),
        arrives(['"name": "get_time"', '"allowed_function_names": ["get_time"]', '"allowedFunctionNames": ["get_time"]']),
        {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "get_time"}}},
    ),
    Feature(
        "nested, strict tool schema",
        Completion("Fine."),
        arrives(["sea_side"], ["alpine"]),
        {"tools": [tool("find", NESTED, strict=True)]},
    ),
    Feature("JSON mode", Completion(JSON_TEXT), returns(JSON_TEXT), {"response_format": {"type": "json_object"}}),
    Feature("JSON Schema", Completion(JSON_TEXT), arrives(["sea_side"]), {"response_format": SCHEMA}),
    Feature("temperature, top_p, max_tokens", Completion("Fine."), arrives(["0.25"], ["0.75"], ["77"]), MANY),
    Feature(
        "stop", Completion("Fine."), arrives(["XYZZY"]), {"stop": ["XYZZY"]}, formats=tuple(n for n in ALL if n != "responses")
    ),
    Feature(
        "seed",
        Completion("Fine."),
        arrives(["4711"]),
        {"seed": 4711},
        formats=tuple(n for n in ALL if n not in (*CLAUDE, "responses")),
    ),
    Feature("reasoning", THINKS, thinks, formats=THINKING, elsewhere="not offered"),
    Feature(
        "reasoning tokens",
        THINKS,
        uses(reasoning_tokens=12),
        formats=("openai", "azure", "vllm", "responses", "gemini"),
        elsewhere="not offered",
    ),
    Feature(
        "signed thinking goes back",
        Completion("Fine."),
        keeps_its_state,
        {
            "messages": thought(provider="anthropic", model="claude-sonnet-4-5"),
            "thinking": {"type": "enabled", "budget_tokens": 1024},
            "max_tokens": 2048,
        },
        formats=CLAUDE,
        elsewhere="not offered",
    ),
    Feature(
        "a signed call goes back",
        Completion("Fine."),
        keeps_its_state,
        {"messages": signed_call(provider="gemini", model="gemini-2.5-flash"), "tools": TOOLS},
        formats=("gemini",),
        elsewhere="not offered",
    ),
    Feature(
        "encrypted reasoning goes back",
        Completion("Fine."),
        keeps_its_state,
        {"messages": reasoned(provider="openai", model="gpt-5")},
        formats=("responses",),
        elsewhere="not offered",
    ),
    Feature("another provider's state is dropped", Completion("Fine."), drops_foreign_state, {"messages": thought(**ORIGIN)}),
    Feature(
        "an image in",
        Completion("Fine."),
        arrives([PIXEL[-40:]]),
        {"messages": [user([{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": PIXEL}}])]},
    ),
    Feature(
        "an image by URL",
        Completion("Fine."),
        arrives([IMAGE_URL]),
        {"messages": [user([{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": IMAGE_URL}}])]},
    ),
    Feature(
        "sound in",
        Completion("Fine."),
        arrives([AUDIO]),
        {
            "messages": [
                user([{"type": "text", "text": "hear"}, {"type": "input_audio", "input_audio": {"data": AUDIO, "format": "wav"}}])
            ]
        },
    ),
    Feature(
        "a file in",
        Completion("Fine."),
        arrives([PDF[-40:]]),
        {
            "messages": [
                user([{"type": "text", "text": "read"}, {"type": "file", "file": {"file_data": PDF, "filename": "told.pdf"}}])
            ]
        },
    ),
    Feature("several choices are refused", Completion("Fine."), refuses("n"), {"n": 2}),
    Feature(
        "cached tokens",
        Completion("Fine.", usage=(1000, 10, 600, 0, 0)),
        uses(input_tokens=1000, cached_input_tokens=600, output_tokens=10),
        formats=("openai", "azure", "vllm", "mistral", "responses", "gemini", *CLAUDE),
        elsewhere="not offered",
    ),
    Feature(
        "tokens written to the cache",
        Completion("Fine.", usage=(1000, 10, 0, 600, 0)),
        uses(input_tokens=1000, cache_write_tokens=600),
        formats=CLAUDE,
        elsewhere="not offered",
    ),
    Feature(
        "cache_control",
        Completion("Fine."),
        arrives(["cache_control", "cachePoint"]),
        {"messages": [user([{"type": "text", "text": "long", "cache_control": {"type": "ephemeral"}}])]},
        formats=CLAUDE,
        elsewhere="not offered",
    ),
    Feature("finish reason length", Completion("cut", finish="length"), returns("cut", "length")),
    Feature(
        "finish reason content_filter",
        Completion("no", finish="content_filter"),
        returns("no", "content_filter"),
        formats=("openai", "azure", "vllm", "responses", "anthropic", "gemini", "bedrock converse", "bedrock invoke", "cohere"),
        elsewhere="not offered",
    ),
    Feature("usage", Completion("Fine."), uses(input_tokens=20, output_tokens=10, total_tokens=30)),
    Feature(
        "usage that is not reported is null",
        Completion("Fine.", usage=None),
        has_no_usage,
        formats=("openai", "azure", "vllm", "mistral", "responses", "anthropic", "bedrock invoke", "ollama"),
        elsewhere="always reported",
    ),
    Feature(
        "a price",
        Completion("Fine."),
        has_a_price,
        formats=tuple(name for name in ALL if name not in ("ollama", "vllm")),
        elsewhere="free of charge",
    ),
    Feature(
        "rate limits",
        Completion("Fine."),
        has_limits,
        headers=LIMIT_HEADERS,
        formats=("openai", "azure", "vllm", "mistral", "responses"),
        elsewhere="not offered",
    ),
    Feature(
        "rate limits, Anthropic's headers",
        Completion("Fine."),
        has_limits,
        headers=ANTHROPIC_LIMIT_HEADERS,
        formats=("anthropic",),
        elsewhere="not offered",
    ),
    Feature("a stream cut short", Completion(TEXT), fails("stream_interrupted"), edit=cut_short, modes=("streamed",)),
    Feature("a malformed event", Completion(TEXT), fails("stream_interrupted"), edit=malformed, modes=("streamed",)),
    Feature(
        "no [DONE]",
        Completion(TEXT),
        returns(TEXT),
        edit=without_done,
        modes=("streamed",),
        formats=OPENAI_LIKE,
        elsewhere="its streams have none",
    ),
    Feature(
        "keep-alive comments",
        Completion(TEXT),
        returns(TEXT),
        edit=with_comments,
        modes=("streamed",),
        formats=tuple(n for n in ALL if n not in NO_SSE),
        elsewhere="no SSE",
    ),
    Feature(
        "CRLF",
        Completion(TEXT),
        returns(TEXT),
        edit=with_crlf,
        modes=("streamed",),
        formats=tuple(n for n in ALL if n not in BINARY),
        elsewhere="no lines",
    ),
    *(
        Feature(f"status {status}", Completion(), fails(kind, status=status), status=status)
        for status, kind in {
            400: "rejected_by_provider",
            401: "authentication",
            402: "budget_exceeded",
            403: "permission",
            404: "model_not_found",
            413: "rejected_by_provider",
            422: "rejected_by_provider",
            429: "rate_limited",
            500: "provider_unavailable",
            503: "provider_unavailable",
            529: "provider_unavailable",
        }.items()
    ),
    Feature(
        "retry-after in seconds", Completion(), fails("rate_limited", retry_after_ms=7000), status=429, headers={"retry-after": "7"}
    ),
    Feature(
        "retry-after-ms", Completion(), fails("rate_limited", retry_after_ms=1500), status=429, headers={"retry-after-ms": "1500"}
    ),
    Feature(
        "retry-after as a date",
        Completion(),
        fails("rate_limited", retry_after_ms=30_000),
        status=429,
        headers={"date": "Thu, 01 Jan 2026 00:00:00 GMT", "retry-after": "Thu, 01 Jan 2026 00:00:30 GMT"},
    ),
    Feature(
        "advice in the error's words",
        Completion(),
        fails("rate_limited", retry_after_ms=1200),
        status=429,
        message="Rate limit reached. Please try again in 1.2s.",
    ),
    Feature(
        "x-ratelimit-reset-*",
        Completion(),
        fails("rate_limited", retry_after_ms=360_000),
        status=429,
        headers=LIMIT_HEADERS | {"x-ratelimit-remaining-tokens": "0"},
        formats=(*OPENAI_LIKE, "responses"),
        elsewhere="not offered",
    ),
    Feature(
        "Gemini's retryDelay",
        Completion(),
        fails("rate_limited", retry_after_ms=7000),
        status=429,
        error={
            "error": {
                "code": 429,
                "message": "You exceeded your current quota.",
                "status": "RESOURCE_EXHAUSTED",
                "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7s"}],
            }
        },
        formats=("gemini",),
        elsewhere="not offered",
    ),
)


class Limit(NamedTuple):
    """A cell that does not hold. The agent is ``refused`` (an error), or the receipt names what was ``dropped``; where it is told
    neither, the case is expected to fail, and the tests break when it no longer does."""

    why: str
    refused: bool = False
    dropped: str | None = None
    modes: Sequence[str] = MODES


_FETCHED = "LiteLLM fetches it itself; where it can't"
_SECOND_PART = "messages[0].content[1]"
_NO_CHOICE = "LiteLLM does not send it"
LIMITS: Mapping[tuple[str, str], Limit] = {
    **{(f"tool_choice {how}", "ollama"): Limit("not offered", dropped="tool_choice") for how in ("none", "required", "by name")},
    **{(f"tool_choice {how}", "cohere"): Limit(_NO_CHOICE, dropped="tool_choice") for how in ("none", "required", "by name")},
    ("tool_choice none", "bedrock converse"): Limit("not offered", refused=True),
    # An image that it can fetch arrives; the one here is of no host.
    **{
        ("an image by URL", name): Limit("LiteLLM fetches it itself; one that it can't get is", refused=True)
        for name in ("gemini", *BINARY)
    },
    **{("sound in", name): Limit("not offered", dropped=_SECOND_PART) for name in (*CLAUDE, "ollama")},
    ("sound in", "mistral"): Limit("LiteLLM does not send it", dropped=_SECOND_PART),
    ("a file in", "ollama"): Limit("not offered", refused=True),
    **{("JSON mode", name): Limit("not offered", dropped="response_format") for name in CLAUDE},
    ("JSON mode", "cohere"): Limit("LiteLLM refuses it", refused=True),
    ("JSON Schema", "cohere"): Limit("LiteLLM refuses it", refused=True),
}


def assert_joined_deltas_are_the_result(deltas: list[Json], result: Json, mode: str) -> None:
    if mode == "plain":
        assert deltas == []
        return
    pieces = [note["delta"] for note in deltas]
    assert ("".join(piece.get("content") or "" for piece in pieces) or None) == result["content"]
    assert ("".join(piece.get("reasoning_content") or "" for piece in pieces) or None) == result["reasoning"]
    arguments = [""] * len(result["tool_calls"])
    for piece in pieces:
        for call in piece.get("tool_calls", ()):
            arguments[call["index"]] += call["function"].get("arguments") or ""
    assert arguments == [call["function"]["arguments"] for call in result["tool_calls"]]
