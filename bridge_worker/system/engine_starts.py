"""How engine processes are started on this system.

Owns the one decision by platform. Refuses to start a process.
"""

from __future__ import annotations

import os
import socket
import sys

TEST_VARIABLE = "OMNI_BRIDGE_ENGINES_BY"  # spawn: on Linux too, so that tests run what macOS does


def can_be_started() -> bool:
    """Whether a process can pass descriptors to another: not on Windows."""
    return hasattr(socket, "send_fds") and sys.platform != "win32"


def are_forked() -> bool:
    """Else they are spawned. Apple's libraries, which Python's HTTP and DNS functions call, do not work in a forked process."""
    return sys.platform == "linux" and os.environ.get(TEST_VARIABLE) != "spawn"
