"""The guard of this layer, tests/unit/conftest.py, notices what it forbids."""

from __future__ import annotations

import socket
import subprocess
import sys

from tests.unit import conftest


def test_a_started_process_is_noticed() -> None:
    subprocess.run([sys.executable, "-I", "-c", ""], check=True)
    assert [event.split()[0] for event in conftest._events] == ["subprocess.Popen"]
    conftest._events.clear()


def test_a_listening_socket_is_noticed() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
    assert [event.split()[0] for event in conftest._events] == ["socket.bind"]
    conftest._events.clear()
