"""One description of a response in each form that a provider sends it in, and the comparison of what is joined."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.unit.wire.joined import Joined, check, plain, streamed

Json = dict[str, Any]


@dataclass
class FormCase:
    """``body`` is plain; ``data`` streams, by the name of their form. Whatever is there must give ``expected``."""

    name: str
    make: type[Any]
    expected: Json
    body: Any = None
    data: dict[str, bytes] | None = None


def results(case: FormCase) -> Iterator[tuple[str, Joined]]:
    if case.body is not None:
        yield "plain", plain(case.make, case.body)
    for form, data in (case.data or {}).items():
        yield form, streamed(case.make, data)


def check_case(case: FormCase) -> None:
    """Each form gives what is expected, and all forms that succeed give the same."""
    joined = list(results(case))
    assert joined
    for form, one in joined:
        try:
            check(one, case.expected)
        except AssertionError as error:
            pytest.fail(f"{form}: {error}")
    if "kind" not in case.expected:
        for form, one in joined[1:]:
            assert one.comparable() == joined[0][1].comparable(), form


def check_cuts(case: FormCase) -> None:
    for data in (case.data or {}).values():
        whole = streamed(case.make, data).comparable()
        for size in {1, 7, max(1, len(data) // 50)} if len(data) < 6000 else {max(1, len(data) // 300)}:
            assert streamed(case.make, data, range(0, len(data), size)).comparable() == whole


def check_truncated(case: FormCase) -> None:
    """A stream cut off anywhere gives its beginning, and an error unless the provider had reported the finish."""
    for data in (case.data or {}).values():
        whole = streamed(case.make, data)
        for end in range(0, len(data), max(1, len(data) // 40)):
            short = streamed(case.make, data[:end])
            if short.error is None:
                assert short.end is not None
                assert short.end.raw_finish_reason == (whole.end and whole.end.raw_finish_reason)
            elif whole.error is None:
                assert short.kind in ("stream_interrupted", "bad_upstream_response")
                assert whole.content.startswith(short.content)
