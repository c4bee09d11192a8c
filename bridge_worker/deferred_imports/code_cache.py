"""Rewritten modules, kept on the disk as bytecode is.

Owns the file of each and when it is valid: of the same sources (size and time of each, as CPython does) and the same version of the
hook and of Python. Refuses to know what is in it besides code and a table.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import sys
from collections.abc import Iterable, Iterator
from importlib.util import MAGIC_NUMBER, cache_from_source
from pathlib import Path

from bridge_worker.deferred_imports.rewriting import Rewritten

VERSION = 6  # of what `rewriting` makes

_Stamp = tuple[str, int, int]


def is_useful(source: str) -> bool:
    """Whether the next process will find what this one rewrites, or this one finds what another has rewritten: rewriting takes
    longer than loading all."""
    if load(source) is not None:
        return True
    return not sys.dont_write_bytecode and any(_is_writable(Path(path)) for path in _places(source))


def _is_writable(path: Path) -> bool:
    folder = next(parent for parent in path.parents if parent.exists())
    return folder.is_dir() and os.access(folder, os.W_OK)


def load(source: str) -> Rewritten | None:
    """Called for each module: without `pathlib` it takes half the time."""
    for path in _places(source):
        try:
            with open(path, "rb", buffering=0) as file:
                if not _is_trusted(file.fileno(), source):
                    continue
                content = file.readall()
            magic, stamps, code, table, used, submodules, late = marshal.loads(content)  # noqa: S302  # written by `store`, as bytecode is
        except (OSError, ValueError, EOFError, TypeError):
            continue
        if magic == MAGIC_NUMBER and all(_stamp(name) == (name, *rest) for name, *rest in stamps):
            return Rewritten(code, table, used, submodules, late)
    return None


def _is_trusted(file: int, source: str) -> bool:
    """Whether the file is of this user, of root, or of the owner of the sources: its content is run."""
    if not hasattr(os, "geteuid"):
        return True
    owner = os.fstat(file).st_uid
    return owner in (os.geteuid(), 0) or owner == os.stat(source).st_uid


def store(source: str, others: Iterable[Path], rewritten: Rewritten) -> None:
    """``others`` are the files that the table depends on besides."""
    content = content_of(rewritten, tuple(_stamp(path) for path in sorted({source, *map(str, others)})))
    for path in _places(source):
        with contextlib.suppress(OSError):
            _write(Path(path), content)
            return


def content_of(rewritten: Rewritten, stamps: tuple[_Stamp | None, ...] = ()) -> bytes:
    """Without ``stamps`` it is always valid, as bytecode without a source is."""
    kept = (rewritten.code, rewritten.table, rewritten.builtins, rewritten.submodules, rewritten.late)
    return marshal.dumps((MAGIC_NUMBER, stamps, *kept))


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.replace(path)


def _stamp(path: str) -> _Stamp | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return path, status.st_size, status.st_mtime_ns


def place_of(source: str) -> str:
    """``source`` may be bytecode too."""
    return cache_from_source(source, optimization=f"deferred{VERSION}")


def _places(source: str) -> Iterator[str]:
    """In the folder of the bytecode, and where that folder cannot be written to, in the user's cache."""
    own = place_of(source)
    yield own
    folder = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    yield str(Path(folder, "omni-bridge", "deferred_imports", *Path(own).parts[1:]))
