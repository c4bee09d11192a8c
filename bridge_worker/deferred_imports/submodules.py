"""Owns which modules are in a folder. Refuses to import them."""

from __future__ import annotations

import os
from pathlib import Path


def modules_in(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        names = {entry.name.partition(".py")[0] for entry in entries if entry.is_dir() or entry.name.endswith((".py", ".pyc"))}
    return sorted(name for name in names - {"__init__", "__pycache__"} if name.isidentifier())
