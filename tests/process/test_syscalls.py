"""A system call that fails once in a real worker ends in every response, or in an exit code that says so.

A sample, in one process; `bin/simulate --syscalls` takes each call of a start, chats, a stream and a shutdown.
"""

from __future__ import annotations

import pytest

from tests.simulation import syscalls

pytestmark = pytest.mark.skipif(not syscalls.is_available(), reason="strace can't trace a process here")


@pytest.mark.parametrize(
    ("failure", "number", "exit_codes"),
    [("read", 200, {0, 1}), ("write", 4, {3}), ("open", 250, {0, 1}), ("socket", 1, {70}), ("clone", 1, {70}), ("clone", 3, {70})],
)
def test_a_failing_system_call_loses_no_response_silently(failure: str, number: int, exit_codes: set[int]) -> None:
    result = syscalls.run(failure, number, ["--engines=0"])
    assert result.injected, "the worker no longer makes this call: choose another one"
    assert not result.wrong, result.stderr
    assert result.exit_code in exit_codes, result.stderr
