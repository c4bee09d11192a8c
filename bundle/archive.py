"""A folder as a ``.tar.gz`` that depends on its contents alone, and checksums.

Owns order, times, owners and modes. Refuses to know what the files are.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

# For every file, unless the variable says otherwise: what reproducible-builds.org asks for. 1980 is the oldest that zip files know.
TIME = int(os.environ.get("SOURCE_DATE_EPOCH", 315_532_800))


def settle(root: Path) -> None:
    """Gives every file of ``root`` its time, and the mode that anybody may read it."""
    for path in [*root.rglob("*"), root]:
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        os.utime(path, (TIME, TIME), follow_symlinks=False)


def checksums(root: Path, files: Iterable[Path]) -> str:
    """As ``sha256sum --check`` reads them."""
    lines = (f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.relative_to(root)}\n" for file in files)
    return "".join(lines)


def pack(root: Path, target: Path) -> None:
    with (
        target.open("wb") as raw,
        gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as packed,  # 9: 2 % less, and twice as long
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for path in [root, *sorted(root.rglob("*"))]:
            archive.add(path, path.relative_to(root.parent).as_posix(), recursive=False, filter=_anonymous)


def files_in(root: Path) -> Iterator[Path]:
    return (path for path in sorted(root.rglob("*")) if path.is_file())


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime = TIME
    return entry
