"""Resolves references `os.keyring/NAME` and `command/PROGRAM ARGUMENTS` in a config: secrets from where the operator keeps them.

Owns how each is read: without a shell, within bounds, with nothing of what a program writes to its standard error. A reference is
read when the config is: at the start and at a reload. Refuses to know which member a value is for.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence

from bridge_worker.system.child_processes import OUTLIVES

KEYRING, COMMAND = "os.keyring/", "command/"
PREFIXES = (KEYRING, COMMAND)
SECONDS = 10.0
_MAX_BYTES = 64 * 1024
UNREAD = "not-read-by-this-command"  # instead of a value, where nothing may be run

# Runs the program in a separate process: the server process of engines collects the exit codes of all its children.
_RUNNER = """
import json, subprocess, sys
from subprocess import DEVNULL, PIPE
try:
    program = subprocess.Popen(sys.argv[3:], stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL)
except OSError as error:
    print(json.dumps({"problem": f"can't be run ({error.strerror})"}))
else:
    text = program.stdout.read(int(sys.argv[2]) + 1)
    too_long = len(text) > int(sys.argv[2])
    if too_long:
        program.kill()
    print(json.dumps({"text": text.decode("utf-8", "replace"), "too_long": too_long, "code": program.wait()}))
"""


class Unreadable(Exception):
    """Why a reference has no value; the message is the rest of a sentence about the member."""


class SecretReferences:
    """Reads each reference once. ``runs``: otherwise programs are only looked for, and a value is `UNREAD`. ``refused``: why none
    may be read."""

    def __init__(self, *, runs: bool, refused: str | None = None) -> None:
        self._runs = runs
        self._refused = refused
        self._found: dict[str, str | Unreadable] = {}

    def get(self, reference: str) -> str:
        """Raises Unreadable."""
        if reference not in self._found:
            try:
                self._found[reference] = self._read(reference)
            except Unreadable as error:
                self._found[reference] = error
        found = self._found[reference]
        if isinstance(found, Unreadable):
            raise found
        return found

    def values(self) -> list[str]:
        """All that was read."""
        return [value for value in self._found.values() if isinstance(value, str) and value != UNREAD]

    def _read(self, reference: str) -> str:
        if self._refused is not None:
            raise Unreadable(self._refused)
        arguments = _of_keyring(reference.removeprefix(KEYRING)) if reference.startswith(KEYRING) else _of_command(reference)
        program = shutil.which(arguments[0])
        if program is None:
            raise Unreadable(f"runs {arguments[0]}, which is not on PATH")
        return _output([program, *arguments[1:]], arguments[0]) if self._runs else UNREAD


def _of_keyring(name: str) -> list[str]:
    """The system's own tool for its keyring."""
    if not name:
        raise Unreadable(f"{KEYRING} is without a name")
    if sys.platform == "darwin":
        return ["security", "find-generic-password", "-w", "-s", name]
    if shutil.which("secret-tool") is None:
        raise Unreadable("needs secret-tool, which is not on PATH; install libsecret-tools (apt) or libsecret (dnf, pacman)")
    return ["secret-tool", "lookup", "service", name]


def _of_command(reference: str) -> list[str]:
    try:
        arguments = shlex.split(reference.removeprefix(COMMAND))
    except ValueError as error:
        raise Unreadable(f"has a command that can't be split into arguments ({error})") from None
    if not arguments:
        raise Unreadable(f"{COMMAND} is without a program")
    return arguments


def _output(arguments: Sequence[str], name: str) -> str:
    runner = [sys.executable, "-I", "-S", "-c", _RUNNER, OUTLIVES, str(_MAX_BYTES), *arguments]
    process = subprocess.Popen(  # noqa: S603  # the operator's config names it
        runner, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        written, _ = process.communicate(timeout=SECONDS)
        outcome = json.loads(written)
    except subprocess.TimeoutExpired:
        _kill_group(process)
        raise Unreadable(f"runs {name}, which did not end within {SECONDS:.0f} s") from None
    except ValueError:
        raise Unreadable(f"runs {name}, which could not be watched") from None
    if "problem" in outcome:
        raise Unreadable(f"runs {name}, which {outcome['problem']}")
    if outcome["too_long"]:
        raise Unreadable(f"runs {name}, which wrote more than {_MAX_BYTES // 1024} KiB")
    if outcome["code"] != 0:
        raise Unreadable(f"runs {name}, which ended with exit code {outcome['code']}")
    text: str = outcome["text"].removesuffix("\n").removesuffix("\r")
    if not text.strip():
        raise Unreadable(f"runs {name}, which wrote nothing")
    return text


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """With whatever the program has started."""
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
