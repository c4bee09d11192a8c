"""The short form of tests/fuzz/campaign.py, and all that was ever found, once more."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from tests.fuzz.campaign import CHUNK, check, hostile, lines, start_worker, valid
from tests.support.worker import Worker

LINES = 6_000


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[Worker]:
    with start_worker() as worker:
        yield worker


@pytest.mark.rule("RPC-1", "FRM-6")
@pytest.mark.parametrize("line", hostile(), ids=lambda line: repr(line[:40]))
def test_a_hostile_line_gets_the_right_error_and_the_next_line_works(fuzzed: Worker, line: bytes) -> None:
    check(fuzzed, [line])


def test_the_valid_corpus_is_valid(fuzzed: Worker) -> None:
    """Else the mutations would all be of what is refused at once."""
    fuzzed.received.clear()
    for number, message in enumerate(valid()):
        if isinstance(message, dict) and message.get("id") and "method" in message:
            response = fuzzed.response(fuzzed.request(message["method"], message.get("params"), f"valid-{number}"))
            error = response.get("error", {}).get("data", {}).get("kind")
            assert error in (None, "provider_unavailable", "rejected_by_provider", "invalid_message"), (message, response)


@pytest.mark.rule("RPC-1")
@pytest.mark.parametrize("seed", [1])
def test_a_campaign_finds_nothing(fuzzed: Worker, seed: int) -> None:
    made = lines(seed)
    for _ in range(LINES // CHUNK):
        check(fuzzed, list(itertools.islice(made, CHUNK)))
