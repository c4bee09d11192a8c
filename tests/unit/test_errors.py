"""The error table: closed, without doubles, and the same as the contract's."""

from __future__ import annotations

import pytest

from bridge_worker.errors import KINDS, BridgeError

# The contract's table. A kind is added here, in errors.py and in protocol.md, and then never changes its code.
CONTRACT = {
    "parse_error": (-32700, False),
    "invalid_message": (-32600, False),
    "method_not_found": (-32601, False),
    "invalid_request": (-32602, False),
    "unsupported_version": (-32022, False),
    "internal": (-32603, False),
    "authentication": (1001, False),
    "permission": (1002, False),
    "model_not_found": (1003, False),
    "rejected_by_provider": (1004, False),
    "context_length_exceeded": (1005, False),
    "content_policy": (1006, False),
    "rate_limited": (1007, True),
    "budget_exceeded": (1008, False),
    "timeout": (1009, True),
    "provider_unavailable": (1010, True),
    "bad_upstream_response": (1011, True),
    "overloaded": (1012, True),
    "shutting_down": (1013, True),
    "stream_interrupted": (1014, False),
    "engine_lost": (1015, True),
    "cassette_miss": (1016, False),
    "cancelled": (-32800, False),
}


@pytest.mark.rule("ERR-2")
def test_code_kind_and_retryable_go_together_as_in_the_contract() -> None:
    assert {name: (kind.code, kind.retryable) for name, kind in KINDS.items()} == CONTRACT


def test_no_two_kinds_share_a_code() -> None:
    assert len({kind.code for kind in KINDS.values()}) == len(KINDS)


def test_no_kind_of_the_bridges_own_meets_the_range_that_json_rpc_reserves() -> None:
    standard = {-32700, -32600, -32601, -32602, -32603, -32022}  # the last is MCP's
    assert not {kind.code for kind in KINDS.values() if -32768 <= kind.code <= -32000} - standard


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_is_described_in_one_line_that_fits_a_table(name: str) -> None:
    when = KINDS[name].when
    assert when == when.strip() != ""
    assert "|" not in when
    assert "\n" not in when


@pytest.mark.rule("ERR-1")
@pytest.mark.parametrize("kind", KINDS)
def test_data_always_has_the_six_members(kind: str) -> None:
    error = BridgeError(kind, "what happened")
    code, retryable = CONTRACT[kind]
    assert (error.code, error.retryable) == (code, retryable)
    assert error.data() == {
        "kind": kind,
        "retryable": retryable,
        "retry_after_ms": None,
        "provider": None,
        "model": None,
        "status": None,
    }


def test_data_has_what_is_known_and_what_only_this_kind_has() -> None:
    error = BridgeError("rate_limited", "slow down", 1500, "openai", "gpt", 429, {"deadline": "total_ms"})
    assert error.data() == {
        "kind": "rate_limited",
        "retryable": True,
        "retry_after_ms": 1500,
        "provider": "openai",
        "model": "gpt",
        "status": 429,
        "deadline": "total_ms",
    }


def test_two_errors_do_not_share_what_is_added_to_one() -> None:
    first, second = BridgeError("internal", "a"), BridgeError("internal", "b")
    first.extra["partial"] = {}
    assert second.extra == {}


def test_an_error_is_an_exception_that_reads_as_its_message() -> None:
    with pytest.raises(BridgeError, match=r"^try again$") as caught:
        raise BridgeError("internal", "try again")
    assert str(caught.value) == "try again"


@pytest.mark.rule("BND-7")
def test_a_long_name_of_a_model_is_cut_in_an_error() -> None:
    assert BridgeError("model_not_found", "there is none", model="m" * 1_000).data()["model"] == "m" * 256
    assert BridgeError("model_not_found", "there is none").data()["model"] is None
