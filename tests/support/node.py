"""npm packages for the tests, in tests/.node, which git ignores.

Owns their installation; tests/node/package.json pins them. Without node, npm and npm's registry the tests that use it fail, and say
so. Refuses to know the packages.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

_TESTS = Path(__file__).parents[1]
_WANTED = _TESTS / "node" / "package.json"
FOLDER = _TESTS / ".node"
_INSTALLED = FOLDER / "package.json"  # written last, so what is there is whole


def install() -> Path:
    """Once for a checkout and the pinned versions. Returns the folder."""
    if _INSTALLED.exists() and _INSTALLED.read_bytes() == _WANTED.read_bytes():
        return FOLDER
    npm = shutil.which("npm")
    assert npm, "these tests need node and npm on the PATH"
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    packages = [f"{name}@{version}" for name, version in json.loads(_WANTED.read_bytes())["dependencies"].items()]
    flags = ["--no-save", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(FOLDER)]
    command = [npm, "install", *flags, *packages]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"npm could not install {', '.join(packages)}: {done.stderr[-2000:]}"
    shutil.copyfile(_WANTED, _INSTALLED)
    return FOLDER


def run_program(name: str, *arguments: str, environment: dict[str, str], seconds: float) -> str:
    """Runs a program of tests/support beside the packages that it imports. Returns its output; fails the test with its errors."""
    program = install() / name
    shutil.copyfile(_TESTS / "support" / name, program)
    command = ["node", str(program), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
