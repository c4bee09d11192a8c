"""The licence texts of everything in a bundle, one file each.

Owns finding them: in a distribution's metadata, beside the interpreter, and where Debian puts those of its packages. A part whose
text is not found stops the build. Refuses to judge a licence.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

_TEXT = re.compile(r"(.*/)?(licen[cs]e|copying|notice|copyright|authors)[^/]*(/.*)?", re.IGNORECASE)
_TEXTS = Path(__file__).parent / "licences"
# Published without their text; what they say of themselves in their metadata or source.
_WITHOUT_TEXT = {"tokenizers": "Apache-2.0.txt"}


def of_distribution(distribution: importlib.metadata.Distribution) -> bytes:
    files = [file for file in distribution.files or [] if ".dist-info/" in file.as_posix() and _TEXT.fullmatch(file.as_posix())]
    texts = [Path(str(file.locate())).read_bytes() for file in sorted(files)]
    if not texts and (name := _WITHOUT_TEXT.get(distribution.name.lower())):
        texts = [(_TEXTS / name).read_bytes()]
    if not texts:
        raise ValueError(f"{distribution.name} has no licence text: add it to bundle/licences.py")
    return b"\n\n".join(texts)


def of_python() -> bytes:
    """CPython's, with those of what is compiled into it."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for text in (Path(sysconfig.get_path("stdlib"), "LICENSE.txt"), Path("/usr/share/doc", version, "copyright")):
        if text.is_file():
            return text.read_bytes()
    raise ValueError(f"{version} has no LICENSE.txt")


def of_package(owner: str) -> bytes:
    return Path("/usr/share/doc", owner.split()[0], "copyright").read_bytes()


def owner_of(library: Path) -> str:
    """The Debian package that brought it, and its version: ``libssl3 3.0.17-1``."""
    real = os.path.realpath(library)
    for path in (real, str(library), real.removeprefix("/usr")):  # where /lib is a link, either may be on the list
        if owner := _query("--search", path):
            package = owner.split(":")[0]
            return f"{package} {_query('--show', '--showformat=${Version}', package)}"
    raise ValueError(f"no package owns {library}, so its licence is not known")


def _query(*question: str) -> str:
    return subprocess.run(["dpkg-query", *question], capture_output=True, text=True, check=False).stdout.strip()
