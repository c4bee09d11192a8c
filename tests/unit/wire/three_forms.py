"""One description of a response in each form that a provider sends it in, and the comparison of what is joined."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from bridge_worker.errors import KINDS
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


HOSTILE = [None, True, 0, -1, 1.5, 2**70, "", "x", "\ud83d", [], [[]], [None], {}, {"a": None}, {"type": []}, [{"type": {}}]]


def mutations(value: Any) -> Iterator[Any]:
    """``value`` with each of its parts replaced by each hostile value, or removed."""
    if isinstance(value, dict):
        for name, member in value.items():
            yield {other: kept for other, kept in value.items() if other != name}
            yield from ({**value, name: hostile} for hostile in HOSTILE)
            yield from ({**value, name: changed} for changed in mutations(member))
    elif isinstance(value, list):
        for at, member in enumerate(value):
            yield [*value[:at], *value[at + 1 :]]
            yield from ([*value[:at], hostile, *value[at + 1 :]] for hostile in HOSTILE)
            yield from ([*value[:at], changed, *value[at + 1 :]] for changed in mutations(member))


def check_hostile(make: type[Any], body: Any, stream: Callable[[Any], bytes]) -> None:
    """Every mutation of a body and of its stream gives a result or a BridgeError; anything else escapes and fails the test."""
    for changed in mutations(body):
        for one in (plain(make, json.dumps(changed).encode()), streamed(make, stream(changed))):
            assert one.error is None or one.kind in KINDS
