"""Modules as bytecode, which is all that the bundle has of them: half of the size, and no look at a source's time at import.

Owns compiling in as many processes as there are cores. What it makes depends on the source and its path in the bundle alone: no
time, no folder of this machine. Refuses to know which files there are.
"""

from __future__ import annotations

import os
import py_compile
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

_AT_ONCE = 32  # files a task: starting a task costs as much as compiling a small file


def compiled(sources: Mapping[str, Path]) -> Iterator[tuple[str, bytes]]:
    """``a/b.pyc`` for each ``a/b.py``. What does not compile is left out: a template, or a test of a parser; nobody imports it."""
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for path, code in zip(sources, pool.map(_compile, sources, sources.values(), chunksize=_AT_ONCE), strict=True):
            if code is not None:
                yield path + "c", code


def _compile(path: str, source: Path) -> bytes | None:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(action="ignore"):
        made = Path(folder) / "module.pyc"
        mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
        try:
            py_compile.compile(str(source), str(made), path, doraise=True, invalidation_mode=mode)
        except (py_compile.PyCompileError, ValueError):
            return None
        return made.read_bytes()
