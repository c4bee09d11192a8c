"""The builtins of a module with deferred names: a name that the module lacks is imported when it is used.

Owns resolving a name, once, whichever thread or module needs it. Refuses to know how a module's table was made.

CPython looks for a name in the module's namespace, then in the mapping under ``__builtins__`` there, and calls ``__missing__`` of a
subclass of dict (3.11 to 3.13). A resolved name is put into the namespace, where it is found at the usual speed.
"""

from __future__ import annotations

import atexit
import builtins
import sys
from collections.abc import Callable
from importlib import _bootstrap, import_module
from importlib.util import resolve_name
from threading import get_ident
from types import CodeType, ModuleType
from typing import Any

from bridge_worker.deferred_imports.annotations import defer_annotations
from bridge_worker.deferred_imports.bindings import LATE, MODULE, STAR, TOP, Source
from bridge_worker.deferred_imports.rewriting import ANNOTATIONS, WRAP_GETATTR, Rewritten, Table

_BUILTINS = vars(builtins)
_import = builtins.__import__
_MISSING = object()
# One thread at a time loads modules for deferred names: two that begin in different places of a circle of modules would else get
# modules that are half loaded. It is one of importlib's locks, because those find a deadlock with the locks of modules.
_lock = _bootstrap._ModuleLock("bridge_worker.deferred_imports")  # type: ignore[attr-defined]


_changing: set[int] = set()  # threads within acquire() or release(), which Python 3.11 does not let a finalizer enter again


class _Locked:
    """Without the lock where it is held already, in a finalizer that runs within its acquire(), and to end a deadlock."""

    def __enter__(self) -> None:
        self._held = False
        thread = get_ident()
        if _lock.owner == thread or thread in _changing:
            return
        _changing.add(thread)
        try:
            _lock.acquire()
            self._held = True
        except _bootstrap._DeadlockError:  # type: ignore[attr-defined]
            pass
        finally:
            _changing.discard(thread)

    def __exit__(self, *_: object) -> None:
        if self._held:
            thread = get_ident()
            _changing.add(thread)
            _lock.release()
            _changing.discard(thread)


def locked_import(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
    """`__import__` of modules with deferred names, for statements in functions: the lock is taken before a module's own."""
    if not level and name in sys.modules and not _is_being_loaded(name):
        return _import(name, globals, locals, fromlist, level)
    with _Locked():
        return _import(name, globals, locals, fromlist, level)


def _is_being_loaded(name: str) -> bool:
    return getattr(getattr(sys.modules[name], "__spec__", None), "_initializing", False)


_made: list[tuple[DeferredNames, tuple[str, ...]]] = []


@atexit.register
def _prepare_for_finalizers() -> None:
    """They run when modules are being cleared, which no import survives: they find the names of all that is loaded, and builtins,
    which are not cleared before."""
    for names, copied in _made:
        names.update(_BUILTINS)
        for name in copied:
            if names.namespace.get(name) is _BUILTINS[name]:
                del names.namespace[name]
        for name in names.table.keys() - names.namespace.keys():
            if (value := names.loaded(name)) is not _MISSING:
                names.namespace[name] = value
        if "." not in names.module and names.module in sys.modules:
            # Modules are cleared from the last of this mapping to the first: what a package holds goes before its modules do.
            sys.modules[names.module] = sys.modules.pop(names.module)
    _made.clear()


def run(module: ModuleType, rewritten: Rewritten) -> None:
    """Runs the module's code in its namespace."""
    namespace = vars(module)
    if rewritten.table or rewritten.submodules:
        names = DeferredNames(module, rewritten.table, rewritten.submodules, rewritten.late)
        namespace.update({name: _BUILTINS[name] for name in rewritten.builtins})
        _made.append((names, rewritten.builtins))
        namespace.update(__builtins__=names, __getattr__=names.attribute, __dir__=names.all_names)
        if not rewritten.table.keys().isdisjoint(rewritten.submodules):
            module.__class__ = PackageWithDeferredNames
    exec(rewritten.code, namespace)  # noqa: S102  # as importlib does


class DeferredNames(dict[str, Any]):
    """``table`` has the names, ``submodules`` what a package has besides: `litellm.llms.openai` works without an import of it, as
    it does where some other module has imported it."""

    __slots__ = ("late", "module", "namespace", "resolving", "submodules", "table")

    def __init__(
        self, module: ModuleType, table: Table, submodules: dict[str, str], late: dict[str, CodeType] | None = None
    ) -> None:
        super().__init__({"__import__": locked_import, WRAP_GETATTR: self.wrap, ANNOTATIONS: defer_annotations})
        self.module = module.__name__
        self.namespace = vars(module)
        self.table = table
        self.submodules = submodules
        self.late = late or {}
        self.resolving: set[str] = set()

    def __missing__(self, name: str) -> Any:
        if name in self.table and not self._is_being_made(name):
            value = self.resolve(name)
            if value is not _MISSING:
                return value
        return _BUILTINS[name]

    def _is_being_made(self, name: str) -> bool:
        """A class that names itself, or another that names it, finds that it is not defined, which pydantic waits for."""
        return name in self.late and name in self.resolving and _lock.owner == get_ident()

    def resolve(self, name: str) -> Any:
        """`_MISSING` where no source has it, which only a star's may. Raises ImportError."""
        with _Locked():
            if name in self.namespace:
                return self.namespace[name]
            if name in self.resolving:
                message = f"cannot import name {name!r} for {self.module} (most likely due to a circular import)"
                raise ImportError(message, name=self.module)
            self.resolving.add(name)
            try:
                value = self._load(name)
            except ImportError:
                raise
            except Exception as error:
                message = f"the deferred import of {name!r} in {self.module} failed ({type(error).__name__}: {error})"
                raise ImportError(message, name=self.module) from error
            finally:
                self.resolving.discard(name)
            if value is not _MISSING:
                value = self.namespace.setdefault(name, value)
            return value

    def _load(self, name: str) -> Any:
        value = _MISSING
        for source in reversed(self.table[name]):
            value = self._load_one(source)
            if source[3] != TOP and value is not _MISSING:
                break
        return value

    def _load_one(self, source: Source) -> Any:
        module, attribute, level, kind = source
        if kind == LATE:
            exec(self.late[attribute], self.namespace)  # noqa: S102  # as importlib does
            return self.namespace[attribute]
        if kind == TOP:
            return _import(module, self.namespace)
        if kind == MODULE:
            return _last_part(module, _import(module, self.namespace))
        if self.is_own(source, attribute):
            return import_module(f"{self.module}.{attribute}")
        found = _import(module, self.namespace, None, (attribute,), level)
        value = getattr(found, attribute, _MISSING)
        if value is not _MISSING or kind == STAR:
            return value
        return _submodule(found, attribute)

    def keeps(self, name: str, value: object) -> bool:
        """Whether the name means something else than the submodule ``value``, which importlib sets after its import."""
        if name not in self.table or not isinstance(value, ModuleType) or value.__name__ != f"{self.module}.{name}":
            return False
        return not any(self.is_own(source, name) for source in self.table[name])

    def loaded(self, name: str) -> Any:
        """What `resolve` gives, if no module has to be loaded for it."""
        module, attribute, level, kind = self.table[name][-1]
        if level:
            package = self.namespace.get("__package__") or self.module
            module = resolve_name("." * level + module, package)
        found = sys.modules.get(module.partition(".")[0] if kind == TOP else module)
        return found if kind in (TOP, MODULE) and found else vars(found).get(attribute, _MISSING) if found else _MISSING

    def is_own(self, source: Source, name: str) -> bool:
        """Whether the source is the package's own submodule."""
        module, attribute, level, _ = source
        own = self.submodules.get(name) == f"{self.module}.{name}"
        return own and attribute == name and (module == self.module if not level else level == 1 and not module)

    def attribute(self, name: str) -> Any:
        """The module's `__getattr__`."""
        if (value := self.found(name)) is not _MISSING:
            return value
        if name == "__all__":
            return self.public()
        error = AttributeError(f"module {self.module!r} has no attribute {name!r}", name=name)
        if name not in self.submodules:
            raise error
        try:
            return import_module(self.submodules[name])
        except Exception as reason:
            raise error from reason

    def found(self, name: str) -> Any:
        """An import statement that looks for a name of the table while it is loaded goes on to the submodule of that name."""
        return self.resolve(name) if name in self.table and name not in self.resolving else _MISSING

    def wrap(self, own: Callable[[str], Any]) -> Callable[[str], Any]:
        """``own`` is the module's `__getattr__`."""

        def __getattr__(name: str) -> Any:
            if (value := self.found(name)) is not _MISSING:
                return value
            try:
                return own(name)
            except AttributeError:
                if name not in self.submodules and name != "__all__":
                    raise
                return self.attribute(name)

        return __getattr__

    def all_names(self) -> list[str]:
        copied = {name for name, value in self.namespace.items() if _BUILTINS.get(name, _MISSING) is value}
        hidden = {"__getattr__", "__dir__"}
        return sorted((set(self.namespace) | set(self.table)) - copied - hidden)

    def public(self) -> list[str]:
        """What `from module import *` takes of a module without `__all__`."""
        names = [name for name in self.all_names() if not name.startswith("_")]
        return [name for name in names if name in self.namespace or self.resolve(name) is not _MISSING]


def _last_part(name: str, top: ModuleType) -> Any:
    value: Any = top
    path = top.__name__
    for part in name.split(".")[1:]:
        path = f"{path}.{part}"
        value = getattr(value, part, _MISSING)
        if value is _MISSING:
            value = sys.modules[path]
    return value


def _submodule(module: ModuleType, attribute: str) -> Any:
    """What an import statement does where a module lacks the name."""
    name = f"{module.__name__}.{attribute}"
    if name in sys.modules:
        return sys.modules[name]
    path = getattr(module, "__file__", None) or "unknown location"
    state = "partially initialized module" if getattr(module.__spec__, "_initializing", False) else "module"
    raise ImportError(
        f"cannot import name {attribute!r} from {state} {module.__name__!r} ({path})", name=module.__name__, path=path
    )


class PackageWithDeferredNames(ModuleType):
    """A package in which a name of the table is also that of a submodule. The import of the submodule does not replace the name."""

    def __setattr__(self, name: str, value: object) -> None:
        names = vars(self).get("__builtins__")
        if isinstance(names, DeferredNames) and names.keeps(name, value):
            return
        super().__setattr__(name, value)
