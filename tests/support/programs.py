"""Programs that a test starts and no Python package brings. Under .ci/run they must be there; elsewhere a test may skip."""

from __future__ import annotations

import os
import shutil

import pytest


def program(name: str, package: str | None = None) -> str:
    """The path of ``name``, which Debian's ``package`` brings. Under CI a missing one fails the test."""
    if path := shutil.which(name):
        return path
    missing = f"{name} is not installed: apt-get install {package or name}"
    if os.environ.get("CI"):
        pytest.fail(missing)
    pytest.skip(missing)
