"""The names that `from module import *` brings, and where each is defined, read from the sources of a package.

Owns following a name through the import statements of a package. Refuses to import a module.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from importlib.util import resolve_name
from pathlib import Path

from bridge_worker.deferred_imports.bindings import ATTRIBUTE, MODULE, Source, at_module_level, bindings, import_sources, star
from bridge_worker.deferred_imports.rewriting import Origin
from bridge_worker.deferred_imports.submodules import modules_in


@dataclass(frozen=True)
class _Summary:
    """``names`` has each name's sources, None for one that the module makes itself. ``offered`` is `__all__`; None without it."""

    path: Path
    is_package: bool
    names: dict[str, list[Source | None]]
    stars: tuple[tuple[str, int], ...]
    offered: tuple[str, ...] | None
    is_known: bool


class PackageSources:
    """``root`` is the folder that contains the package ``top``."""

    def __init__(self, root: Path, top: str) -> None:
        self._root = root
        self._top = top
        self._summaries: dict[str, _Summary | None] = {}
        self._read: set[Path] = set()

    def of(self, module: str, path: Path) -> ModuleStars:
        self._read.clear()
        return ModuleStars(self, module, path)

    def read(self) -> set[Path]:
        """The files that were read since the last `of`, or would have been."""
        return set(self._read)

    def names(self, module: str, importers: frozenset[str] = frozenset()) -> frozenset[str] | None:
        """What a star takes of the module. None where that cannot be known without running it."""
        summary = self.summary(module)
        if summary is None or not summary.is_known:
            return None
        if summary.offered is not None:
            return frozenset(summary.offered)
        names = set(summary.names)
        for target in self._targets(module, summary, importers):
            brought = self.names(target, importers | {module})
            if brought is None:
                return None
            names |= brought
        return frozenset(name for name in names if not name.startswith("_"))

    def origin(self, module: str, name: str) -> Origin:
        """Where the object is made that the name means in that module, as far as import statements show it."""
        return self.follow(module, name, frozenset()) or (module, name)

    def source_origin(self, module: str, source: Source) -> Origin:
        return self._follow_source(module, source, frozenset()) or (self.absolute(module, source[0], source[2]), source[1])

    def follow(self, module: str, name: str, seen: frozenset[Origin]) -> Origin | None:
        """None where the statements lead in a circle, back to one of ``seen``."""
        if (module, name) in seen:
            return None
        summary = self.summary(module)
        if summary is None:
            return module, name
        sources = summary.names.get(name)
        if sources is None:
            return self._follow_stars(module, name, summary, seen | {(module, name)})
        first = sources[0]
        if first is None or any(source != first for source in sources):
            return module, name
        return self._follow_source(module, first, seen | {(module, name)})

    def _follow_source(self, module: str, source: Source, seen: frozenset[Origin]) -> Origin | None:
        target, attribute, level, kind = source
        if kind == ATTRIBUTE:
            return self.follow(self.absolute(module, target, level), attribute, seen)
        return (target if kind == MODULE else target.partition(".")[0]), ""

    def _follow_stars(self, module: str, name: str, summary: _Summary, seen: frozenset[Origin]) -> Origin | None:
        found = False
        for target in self._targets(module, summary, frozenset()):
            if name in (self.names(target, frozenset({module})) or ()):
                found = True
                if (origin := self.follow(target, name, seen)) is not None:
                    return origin
        if found:
            return None
        return (f"{module}.{name}", "") if self.summary(f"{module}.{name}") else (module, name)

    def folder(self, package: str) -> Path:
        return self._root.joinpath(*package.split("."))

    def absolute(self, importer: str, module: str, level: int) -> str:
        if not level:
            return module
        summary = self.summary(importer)
        package = importer if summary is not None and summary.is_package else importer.rpartition(".")[0]
        return resolve_name("." * level + module, package)

    def summary(self, module: str) -> _Summary | None:
        if module not in self._summaries:
            self._summaries[module] = self._summarize(module)
        summary = self._summaries[module]
        if summary is not None:
            self._read.add(summary.path)
        return summary

    def _targets(self, module: str, summary: _Summary, importers: frozenset[str]) -> list[str]:
        targets = (self.absolute(module, *star) for star in reversed(summary.stars))
        return [target for target in targets if target != module and target not in importers]

    def _summarize(self, module: str) -> _Summary | None:
        if module.partition(".")[0] != self._top:
            return None
        base = self.folder(module)
        for path, is_package in ((base / "__init__.py", True), (base.with_name(f"{base.name}.py"), False)):
            if path.is_file():
                return _summarize(ast.parse(path.read_bytes()), path, is_package)
        return None


class ModuleStars:
    """The `Stars` of one module."""

    def __init__(self, sources: PackageSources, module: str, path: Path) -> None:
        self._sources = sources
        self._module = module
        self._path = path
        self._packages: list[str] = []

    def names(self, module: str, level: int) -> dict[str, Origin] | None:
        target = self._sources.absolute(self._module, module, level)
        names = self._sources.names(target)
        if names is None:
            return None
        summary = self._sources.summary(target)
        if summary and summary.is_package and summary.offered is None:
            self._packages.append(target)
        # What leads back to this module is what it had when that module was loaded: its own.
        own = {name: (self._module, name) for name in names}
        return {name: self._sources.follow(target, name, frozenset({own[name]})) or own[name] for name in names}

    def origin(self, source: Source) -> Origin:
        return self._sources.source_origin(self._module, source)

    def submodules(self) -> dict[str, str]:
        """Those of the package itself, and of each package that it takes everything of, submodules that are loaded among it."""
        found: dict[str, str] = {}
        if self._path.name == "__init__.py":
            found = {name: f"{self._module}.{name}" for name in modules_in(self._path.parent)}
        for package in self._packages:
            for name in modules_in(self._sources.folder(package)):
                if not name.startswith("_"):
                    found.setdefault(name, f"{package}.{name}")
        return found


def _summarize(tree: ast.Module, path: Path, is_package: bool) -> _Summary:
    names: dict[str, list[Source | None]] = {}
    stars: list[tuple[str, int]] = []
    for node in at_module_level(tree):
        if (target := star(node)) is not None:
            stars.append(target)
    for node in tree.body:
        for name, source in _sources(node):
            names.setdefault(name, []).append(source)
    for node in at_module_level(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Del):
            names.pop(node.id, None)
    offered = _literal_all(tree) if "__all__" in names else None
    return _Summary(path, is_package, names, tuple(stars), offered, is_known=offered is not None or "__all__" not in names)


def _sources(statement: ast.stmt) -> list[tuple[str, Source | None]]:
    if star(statement):
        return []
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return list(import_sources(statement).items())
    return [(name, None) for name, _ in bindings(statement)]


def _literal_all(tree: ast.Module) -> tuple[str, ...] | None:
    """None unless one statement sets it to a list of constants."""
    values = [node for node in at_module_level(tree) if isinstance(node, ast.Name) and node.id == "__all__"]
    statements = [node for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign) and "__all__" in dict(bindings(node))]
    if len(values) != 1 or len(statements) != 1 or statements[0].value is None:
        return None
    try:
        return tuple(ast.literal_eval(statements[0].value))
    except (ValueError, TypeError):
        return None
