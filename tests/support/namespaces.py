"""Machines for a test of many: network namespaces of this one, each with its own loopback and an address on a common wire.

Owns the namespaces, and takes them away again. Refuses to reach anything outside of them: there is no route.
"""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import threading
from contextlib import suppress
from typing import Self

from tests.support.programs import program

_NETWORK = "10.213.45"  # in namespaces of our own only
_NEW_NETWORK = 0x40000000  # CLONE_NEWNET


class NotPermitted(Exception):
    """Making namespaces is for root, and not in each container."""


class Hosts:
    """``count`` machines, from 0. Raises NotPermitted."""

    def __init__(self, count: int) -> None:
        self._ip = program("ip", "iproute2")
        tag = f"ob{os.getpid()}"
        self._names = [f"{tag}-{number}" for number in range(count)]
        self._wire = f"{tag}-wire"
        try:
            self._make()
        except NotPermitted:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def address(self, number: int) -> str:
        return f"{_NETWORK}.{number + 1}"

    def command(self, number: int) -> tuple[str, ...]:
        """To be put before a program that shall run there; it keeps its process id."""
        return (self._ip, "netns", "exec", self._names[number])

    def listener(self, number: int) -> socket.socket:
        """A socket that listens there and is served here."""
        made: list[socket.socket] = []

        def listen() -> None:
            with open(f"/run/netns/{self._names[number]}") as namespace:  # of this thread alone, which ends
                assert ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _NEW_NETWORK) == 0
            made.append(socket.create_server((self.address(number), 0), backlog=4096))

        thread = threading.Thread(target=listen)
        thread.start()
        thread.join()
        return made[0]

    def close(self) -> None:
        with suppress(NotPermitted):
            for name in (*self._names, self._wire):
                self._run("netns", "del", name)

    def _make(self) -> None:
        """The wire is a bridge in a namespace of its own, so that nothing of it is seen on the machine itself."""
        self._run("netns", "add", self._wire)
        self._run("-n", self._wire, "link", "add", "wire", "type", "bridge")
        self._run("-n", self._wire, "link", "set", "wire", "up")
        for number, name in enumerate(self._names):
            self._run("netns", "add", name)
            self._run("-n", name, "link", "add", "eth0", "type", "veth", "peer", "name", f"port{number}", "netns", self._wire)
            self._run("-n", self._wire, "link", "set", f"port{number}", "master", "wire", "up")
            self._run("-n", name, "address", "add", f"{self.address(number)}/24", "dev", "eth0")
            for link in ("lo", "eth0"):
                self._run("-n", name, "link", "set", link, "up")

    def _run(self, *arguments: str) -> None:
        done = subprocess.run([self._ip, *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            raise NotPermitted(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
