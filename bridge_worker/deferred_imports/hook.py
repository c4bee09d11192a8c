"""Finds the modules of the named packages and runs them with deferred names.

Owns the finder and the loader, and which packages and modules are loaded as usual. Refuses to know what the packages are for.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib.machinery import ModuleSpec, NamespaceLoader, PathFinder, SourceFileLoader, SourcelessFileLoader
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from bridge_worker.deferred_imports import code_cache
from bridge_worker.deferred_imports.namespace import DeferredNames, run
from bridge_worker.deferred_imports.rewriting import Rewritten
from bridge_worker.deferred_imports.sources import NoSourcesError, Sources
from bridge_worker.deferred_imports.submodules import modules_in

if TYPE_CHECKING:
    from bridge_worker.deferred_imports.star_names import PackageSources

PYTHONS = ((3, 11), (3, 12), (3, 13))  # 3.14 evaluates annotations late itself, 3.15 has lazy imports

_NONE: Mapping[str, Collection[str]] = {}
_waiting: dict[str, list[Callable[[], None]]] = {}  # by module
_log = logging.getLogger(__name__)


def install(
    packages: Mapping[str, str],
    usual: Collection[str] = (),
    constants: Mapping[str, Collection[str]] = _NONE,
    types: Collection[str] = (),
) -> None:
    """Defers the imports of modules of ``packages``, name -> the digest of `Sources`; `package.module` is one module. Modules
    of ``usual`` are loaded as usual, and so is a package with another digest, which is logged. ``constants``: module -> names that
    it computes when they are used. ``types``: packages with modules that make each class when it is used. To change either needs
    another `code_cache.VERSION`. Repeating it changes nothing. Call it before the packages are imported."""
    if sys.implementation.name != "cpython" or sys.version_info[:2] not in PYTHONS:
        _log.warning("deferred imports were not tested with this Python: all of %s is loaded at the start", " and ".join(packages))
        return
    for package, digest in packages.items():
        if any(isinstance(finder, DeferringFinder) and finder.package == package for finder in sys.meta_path):
            continue
        try:
            sources = _tested_sources(package, digest)
        except NoSourcesError as reason:  # no operator can change it
            _log.info("%s: all of %s is loaded at the start", reason, package)
            continue
        except LookupError as reason:
            level = logging.INFO if "." in package else logging.WARNING  # one module is milliseconds
            _log.log(level, "%s: all of %s is loaded at the start, which takes longer", reason, package)
            continue
        sys.meta_path.insert(0, DeferringFinder(package, sources, usual, constants, types))


def when_loaded(module: str, act: Callable[[], None]) -> None:
    """Calls ``act`` at the end of the module's import; now where the module is loaded or its package is not deferred."""
    is_deferred = any(isinstance(finder, DeferringFinder) and finder.has(module) for finder in sys.meta_path)
    if is_deferred and module not in sys.modules:
        _waiting.setdefault(module, []).append(act)
    else:
        act()


def _act_on(module: ModuleType) -> None:
    for act in _waiting.pop(module.__name__, ()):
        act()


def _tested_sources(package: str, digest: str) -> Sources | None:
    """None for a package of bytecode alone, which was shipped with its rewritten modules. Raises LookupError."""
    try:
        sources = Sources(package)
    except NoSourcesError as reason:
        if code_cache.load(str(reason.path)) is None:
            raise
        return None
    if sources.digest() != digest:
        raise LookupError(f"the sources of {package} are not those that deferred imports were tested with")
    if not code_cache.is_useful(str(sources.path)):
        raise LookupError(f"no folder for the rewritten modules of {package} can be written to; set XDG_CACHE_HOME")
    return sources


class DeferringFinder:
    def __init__(
        self,
        package: str,
        sources: Sources | None,
        usual: Collection[str],
        constants: Mapping[str, Collection[str]],
        types: Collection[str],
    ) -> None:
        self.package = package
        self._sources = sources
        self._usual = frozenset(usual)
        self._constants = constants
        self._types = tuple(f"{package}." for package in types)
        self._star_names: PackageSources | None = None

    def has(self, module: str) -> bool:
        return module == self.package or module.startswith(f"{self.package}.")

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if not self.has(name) or name in self._usual:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is None:
            return None
        if spec.loader is None and spec.submodule_search_locations is not None:
            spec.loader = FolderLoader(name, spec.submodule_search_locations, PathFinder.find_spec)
        elif type(spec.loader) is SourceFileLoader:
            spec.loader = DeferringLoader(name, spec.loader.path, self)
        elif type(spec.loader) is SourcelessFileLoader:
            spec.loader = ShippedLoader(name, spec.loader.path)
        return spec

    def rewrite(self, module: str, path: Path) -> Rewritten | None:
        """None where the file was changed after it was installed."""
        from bridge_worker.deferred_imports.rewriting import rewrite
        from bridge_worker.deferred_imports.star_names import PackageSources

        source = path.read_bytes()
        if self._sources is None or not self._sources.is_recorded(path, source):
            _log.warning("%s was changed after it was installed: what it imports is loaded with it", module)
            return None
        if self._star_names is None:
            root = path.parents[module.count(".") + (path.name == "__init__.py")]
            self._star_names = PackageSources(root, self.package)
        constants, types = self._constants.get(module, ()), f"{module}.".startswith(self._types)
        rewritten = rewrite(source, str(path), module, self._star_names.of(module, path), constants, types=types)
        if not sys.dont_write_bytecode:
            code_cache.store(str(path), self._star_names.read(), rewritten)
        return rewritten


class FolderLoader(NamespaceLoader):
    """For a folder without `__init__.py`. Its modules are attributes, as they are once something has imported them."""

    def exec_module(self, module: ModuleType) -> None:
        module.__file__ = None
        submodules = {name: f"{module.__name__}.{name}" for folder in module.__path__ for name in modules_in(Path(folder))}
        vars(module)["__getattr__"] = DeferredNames(module, {}, submodules).attribute


class DeferringLoader(SourceFileLoader):
    def __init__(self, name: str, path: str, finder: DeferringFinder) -> None:
        super().__init__(name, path)
        self._finder = finder

    def exec_module(self, module: ModuleType) -> None:
        rewritten = code_cache.load(self.path) or self._finder.rewrite(module.__name__, Path(self.path))
        if rewritten is None:
            super().exec_module(module)
        else:
            run(module, rewritten)
        _act_on(module)


class ShippedLoader(SourcelessFileLoader):
    """For bytecode without a source. A module that no rewritten one was shipped for is loaded as usual."""

    def exec_module(self, module: ModuleType) -> None:
        rewritten = code_cache.load(self.path)
        if rewritten is None:
            super().exec_module(module)
        else:
            run(module, rewritten)
        _act_on(module)
