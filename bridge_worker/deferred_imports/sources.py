"""Whether the installed sources of a package are those that its deferred imports were tested with.

Owns the digest of a package, of what its installer recorded of each file. Refuses to know what follows from it.
"""

from __future__ import annotations

import base64
import hashlib
from importlib.machinery import PathFinder
from pathlib import Path


class NoSourcesError(LookupError):
    """``path`` is the bytecode of the package itself."""

    def __init__(self, package: str, path: Path) -> None:
        super().__init__(f"{package} is installed without its sources and without rewritten modules")
        self.path = path


class Sources:
    def __init__(self, package: str) -> None:
        """``package`` may also be one module of a package, `package.module`. Raises NoSourcesError where it is bytecode alone, and
        LookupError without one record of an installer."""
        top, _, module = package.partition(".")
        spec = PathFinder.find_spec(top)
        if module and spec is not None:
            spec = PathFinder.find_spec(package, spec.submodule_search_locations)
        if spec is None or not spec.origin:
            raise LookupError(f"{package} is not installed")
        self.path = Path(spec.origin)
        if self.path.suffix != ".py":
            raise NoSourcesError(package, self.path)
        place = f"{top}/{module}.py," if module else f"{top}/"
        self._root = self.path.parent.parent
        records = list(self._root.glob(f"{top}-*.dist-info/RECORD"))
        if len(records) != 1:
            raise LookupError(f"{len(records)} records of {top} are installed")
        lines = records[0].read_text(encoding="utf-8").splitlines()
        self._lines = sorted(line for line in lines if line.startswith(place) and ".py," in line)

    def digest(self) -> str:
        return hashlib.sha256("\n".join(self._lines).encode()).hexdigest()

    def is_recorded(self, path: Path, content: bytes) -> bool:
        """Whether the file is as it was installed."""
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
        name = path.relative_to(self._root).as_posix()
        return any(line.startswith(f"{name},sha256={digest},") for line in self._lines)
