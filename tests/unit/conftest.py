"""Holds the layer's promise: a unit test starts no process, opens no connection and does not import LiteLLM."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

# Interpreter events that a unit test must not cause. A socket pair, which each event loop makes, is not among them.
PROCESSES = {"subprocess.Popen", "os.fork", "os.posix_spawn", "os.exec", "os.system"}
FORBIDDEN = PROCESSES | {"socket.bind", "socket.connect", "socket.getaddrinfo"}
EXEMPT = {"test_architecture.py"}  # it imports each part of the package in a separate interpreter, to see what comes with it

_running: list[str] = []  # the unit test that runs now, if one does
_events: list[str] = []


def _audit(event: str, args: tuple[object, ...]) -> None:
    if _running and (event in FORBIDDEN or (event == "import" and args[0] == "litellm")):
        _events.append(f"{event} {args[0]}")


sys.addaudithook(_audit)  # can't be removed; without a running unit test it does nothing


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    if item.path.name not in EXEMPT:
        _events.clear()
        _running.append(item.name)
    yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Fails a test that leaves memory. No fixture does this: for 4,000 tests one costs a second of CPU, a hook almost nothing."""
    yield
    _running.clear()
    assert not _events, f"a unit test must not do this; move the test to another layer: {_events}"
