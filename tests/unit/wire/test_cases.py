"""Each case of tests/unit/wire/cases.py, plain, streamed, and streamed with other line ends."""

from __future__ import annotations

import pytest

from bridge_worker.backends.wire.ollama import Ollama
from tests.unit.wire.cases import CASES, Case
from tests.unit.wire.joined import check, plain, streamed


def _id(case: Case) -> str:
    return f"{case.make.__name__}: {case.name}"


def test_there_are_enough_cases_and_no_two_of_a_name() -> None:
    assert len(CASES) >= 40
    assert len({_id(case) for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", [case for case in CASES if case.body is not None], ids=_id)
def test_plain(case: Case) -> None:
    check(plain(case.make, case.body), case.expected)


@pytest.mark.parametrize("case", [case for case in CASES if case.data is not None], ids=_id)
def test_streamed(case: Case) -> None:
    assert case.data is not None
    whole = streamed(case.make, case.data)
    check(whole, case.expected)
    size = max(1, len(case.data) // 2000)
    assert streamed(case.make, case.data, range(0, len(case.data), size)).comparable() == whole.comparable()


@pytest.mark.parametrize("case", [case for case in CASES if case.data is not None and case.make is not Ollama], ids=_id)
def test_streamed_with_other_line_ends_and_comments(case: Case) -> None:
    assert case.data is not None
    whole = streamed(case.make, case.data)
    for data in (case.data.replace(b"\n", b"\r\n"), b": ping\n\n" + case.data.replace(b"\n\n", b"\n\n: ping\n\n")):
        if not case.data.startswith((b"{", b"<")):
            assert streamed(case.make, data).comparable() == whole.comparable()
