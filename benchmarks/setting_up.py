"""What the suite needs on the machine: Python environments, the Rust load clients, a node package. Made once, kept.

Owns how each is made, and the reason where one can't be: a peer that is absent is reported as absent. Refuses to start anything.
Standard library only, for it runs before there is any environment.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
WORKER = [str(ROOT / "bin/omni-bridge"), "--stdio", "--max-in-flight", "1024"]
PYTHON = str(ROOT / ".venv/bin/python")
PROXY_PYTHON = str(ROOT / ".venv-proxy/bin/python")
PROXY = str(ROOT / ".venv-proxy/bin/litellm")
UPSTREAM, LOAD = (str(HERE / "rig/target/release" / name) for name in ("upstream", "load"))
GENAI = str(HERE / "peers/genai/target/release/genai-peer")
PORTKEY = HERE / "peers/portkey/node_modules/@portkey-ai/gateway/build/start-server.js"


class Absent(Exception):
    """Something can't be had on this machine; the text says why."""


def needed() -> None:
    """What there is no measurement without. Raises Absent."""
    _environment(".venv", "requirements.lock")
    _cargo(HERE / "rig")


def proxy_environment() -> None:
    _environment(".venv-proxy", "requirements-proxy.lock")


def genai() -> None:
    _cargo(HERE / "peers/genai")


def portkey() -> None:
    folder = HERE / "peers/portkey"
    if not PORTKEY.exists():
        _run("npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts", cwd=folder)
    if not shutil.which("node"):
        raise Absent("node is not on PATH")


def _environment(venv: str, lock: str) -> None:
    _run(sys.executable, "-I", str(ROOT / "bin/bootstrap.py"), "--venv", venv, "--lock", lock, cwd=ROOT)


def _cargo(folder: Path) -> None:
    _run("cargo", "build", "--quiet", "--release", cwd=folder)


def _run(*command: str, cwd: Path) -> None:
    """Quiet where all is there already. What a step prints goes to standard error."""
    if not shutil.which(command[0]):
        raise Absent(f"{command[0]} is not on PATH")
    done = subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False)
    if done.returncode:
        raise Absent(f"exit code {done.returncode} of {' '.join(map(str, command[:4]))}")
