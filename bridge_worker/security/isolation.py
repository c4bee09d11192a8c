"""Restarts the process as ``python -I``, so that only installed code can be imported.

Owns the restart with ``-I``, which leaves out the working directory, ``PYTHON*`` variables and the user's own site-packages.
bin/omni-bridge starts isolated; this is for ``omni-bridge`` as pip installs it and ``python -m bridge_worker``.
Refuses to undo earlier imports: a module in the working directory that ``python -m`` itself has imported, has run.
"""

from __future__ import annotations

import os
import site
import sys
from pathlib import Path

# CPython's variables make it load other code; some count in isolation too, such as __PYVENV_LAUNCHER__ on macOS.
INTERPRETER_VARIABLES = ("PYTHON", "_PYTHON", "__PYVENV_LAUNCHER__")

_ROOT = str(Path(__file__).resolve().parents[2])


def isolate() -> bool:
    """Does not return when it restarts the process: same pid, same descriptors. False when it can't be isolated."""
    if sys.flags.isolated or getattr(sys, "frozen", False):
        return True
    if not sys.executable or sys.platform == "win32" or _ROOT not in _own_paths():  # Windows' exec would be another process
        return False
    os.environ.setdefault("MALLOC_ARENA_MAX", "2")  # glibc reads it at start; see bin/omni-bridge
    command = [sys.executable, "-I", "-X", "utf8", "-m", "bridge_worker", *sys.argv[1:]]
    variables = {name: value for name, value in os.environ.items() if not name.startswith(INTERPRETER_VARIABLES)}
    return os.execve(sys.executable, command, variables)  # noqa: S606  # the same interpreter, no shell


def _own_paths() -> set[str]:
    """The paths from which modules are also imported in isolated mode."""
    paths = sys.path if sys.flags.safe_path else sys.path[1:]  # else the first is the working directory or the script's
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep) if not sys.flags.ignore_environment else []
    given += [site.getusersitepackages()]
    foreign = {os.path.abspath(path) for path in given if path}
    return {os.path.abspath(path) for path in paths} - foreign
