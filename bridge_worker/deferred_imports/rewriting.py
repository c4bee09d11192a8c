"""Takes the import statements out of a module's source that can run when one of their names is first used, and what else is costly
and can wait: constants that are named to it, classes, type aliases and regular expressions.

Owns which statements these are, and the module's table: each name with its sources. Refuses to run or load anything.

A statement stays where it is
- in try, with, if, a class or a function, and for the standard library, which costs nothing that counts here;
- if another kind of statement binds one of its names too, or the name is that of a builtin;
- if the module calls `globals`, `locals` or `vars` while it is loaded;
- after a star of unknown names.
"""

from __future__ import annotations
import __future__

import ast
import builtins
import symtable
import sys
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from types import CodeType
from typing import Protocol

from bridge_worker.deferred_imports.annotations import MARK
from bridge_worker.deferred_imports.bindings import (
    LATE,
    MODULE,
    STAR,
    TOP,
    Source,
    at_module_level,
    bindings,
    import_sources,
    star,
)

WRAP_GETATTR, ANNOTATIONS = "__deferred_getattr__", "__deferred_annotations__"
Table = dict[str, tuple[Source, ...]]
Origin = tuple[str, str]
# How `ClassVar` and such are found decides what an annotation means: dataclasses looks them up in the module's dict.
_NEVER_DEFERRED = sys.stdlib_module_names | {"typing_extensions"}
_OWN_NAMESPACE = {"globals", "locals", "vars"}
_LATE_ANNOTATIONS = __future__.annotations.compiler_flag
_QUALIFIERS = {"Required", "NotRequired", "ReadOnly", "Annotated"}
_OF_ALIASES = ast.Name | ast.Attribute | ast.Subscript | ast.BinOp | ast.BitOr | ast.Tuple | ast.Constant | ast.Load
_OF_PATTERNS = ast.Call | ast.keyword | ast.Add
_BUILTINS = frozenset(name for name in vars(builtins) if not name.startswith("_"))


@dataclass(frozen=True)
class Rewritten:
    """``builtins``: names of builtins that the module's functions use. ``submodules``: name -> module, for attributes that the
    package has once something has imported the module. ``late``: name -> the statement that makes it, for the table's `LATE`."""

    code: CodeType
    table: Table
    builtins: tuple[str, ...]
    submodules: dict[str, str]
    late: dict[str, CodeType] = field(default_factory=dict)


class Stars(Protocol):
    """What `from module import *` brings to the module, and where a name is defined."""

    def names(self, module: str, level: int) -> dict[str, Origin] | None: ...

    def origin(self, source: Source) -> Origin: ...

    def submodules(self) -> dict[str, str]: ...


def rewrite(
    source: bytes, path: str, module: str, stars: Stars, constants: Collection[str] = (), *, types: bool = False
) -> Rewritten:
    """``constants``: names that are computed when they are used, with the others that the same statements bind. ``types``: so are
    all classes, type aliases and regular expressions, each by itself."""
    tree = ast.parse(source, path)
    table: Table = {}
    statements: list[ast.stmt] = []
    if not _looks_at_its_namespace(tree):
        statements = _take_late(tree, frozenset(constants), types=types)
        table = _Imports(tree, module, stars).take()
        table |= {name: ((module, name, 0, LATE),) for name in sorted(_bound(statements))}  # in the same order in each build
    if not any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body):
        _defer_annotations([*tree.body, *statements], table)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == "__getattr__":
            node.decorator_list.append(ast.copy_location(ast.Name(WRAP_GETATTR, ast.Load()), node))
    code = compile(tree, path, "exec", dont_inherit=True)
    used = _builtins_of_functions(source, path) - _bound(tree.body) - set(table)
    late: dict[str, CodeType] = {}
    for node in statements:  # with the module's `from __future__ import annotations`
        one = compile(ast.Module([node], []), path, "exec", code.co_flags & _LATE_ANNOTATIONS, dont_inherit=True)
        late |= dict.fromkeys(sorted(_bound([node])), one)
    return Rewritten(code, table, tuple(sorted(used)), stars.submodules(), late)


def _take_late(tree: ast.Module, constants: frozenset[str], *, types: bool) -> list[ast.stmt]:
    """The statements that bind the constants and, after no star, the types: where no other statement binds one of their names."""
    types = types and not any(map(star, tree.body))
    counts = Counter(name for node in tree.body for name in _bound([node]))
    taken = [
        node
        for node in tree.body
        if (not constants.isdisjoint(bound := _bound([node])) or (types and (_makes_a_type(node) or _compiles_a_pattern(node))))
        and all(counts[name] == 1 and name not in _BUILTINS for name in bound)
    ]
    tree.body = [node for node in tree.body if node not in taken]
    return taken


def _makes_a_type(node: ast.stmt) -> bool:
    """Whether it is a class, or an alias such as `A = B | list[C]`. It calls nothing but what `Annotated` holds."""
    if not isinstance(node, ast.Assign | ast.AnnAssign) or not isinstance(node.value, ast.Subscript | ast.BinOp):
        return isinstance(node, ast.ClassDef)
    outer = node.value.value if isinstance(node.value, ast.Subscript) else None
    allowed = _OF_ALIASES | ast.Call | ast.keyword if isinstance(outer, ast.Name) and outer.id == "Annotated" else _OF_ALIASES
    return all(isinstance(inner, allowed) for inner in ast.walk(node.value))


def _compiles_a_pattern(node: ast.stmt) -> bool:
    """`A = re.compile("...", re.I)`, with constants alone."""
    if not isinstance(node, ast.Assign | ast.AnnAssign) or not isinstance(node.value, ast.Call):
        return False
    inner = list(ast.walk(node.value))
    is_constant = all(isinstance(one, _OF_ALIASES | _OF_PATTERNS) and getattr(one, "id", "re") == "re" for one in inner)
    return is_constant and ast.unparse(node.value.func) == "re.compile"


def _bound(statements: Iterable[ast.stmt]) -> set[str]:
    return {name for node in statements for name, _ in bindings(node)}


def _defer_annotations(body: list[ast.stmt], table: Table, hidden: frozenset[str] = frozenset()) -> None:
    """Annotations of functions are not evaluated where they use a deferred name: half of what a module imports would be loaded for
    them alone. Not where they use a name of the class, ``hidden`` from functions. Those of a TypedDict become text."""
    for node in body:
        if isinstance(node, ast.ClassDef) and any(isinstance(base, ast.Name) and base.id == "TypedDict" for base in node.bases):
            _quote_annotations(node, table)
        elif isinstance(node, ast.ClassDef):
            own = frozenset(name for statement in node.body for name, _ in bindings(statement))
            _defer_annotations(node.body, table, hidden | own)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _marks_annotations(node, table, hidden):
            node.decorator_list.append(ast.copy_location(ast.Name(ANNOTATIONS, ast.Load()), node))


def _quote_annotations(typed_dict: ast.ClassDef, table: Table) -> None:
    """As text in quotes, which `get_type_hints` and pydantic evaluate in the module's namespace. Not what makes a key
    required, because the class reads that when it is made."""
    for node in typed_dict.body:
        if isinstance(node, ast.AnnAssign):
            names = {getattr(each, "id", getattr(each, "attr", "")) for each in ast.walk(node.annotation)}
            if not names.isdisjoint(table) and names.isdisjoint(_QUALIFIERS):
                node.annotation = ast.copy_location(ast.Constant(ast.unparse(node.annotation)), node.annotation)


def _marks_annotations(node: ast.FunctionDef | ast.AsyncFunctionDef, table: Table, hidden: frozenset[str]) -> bool:
    given = node.args
    arguments = [*given.posonlyargs, *given.args, *given.kwonlyargs, *filter(None, (given.vararg, given.kwarg))]
    before = [node.returns, *(one.annotation for one in arguments)]
    for one in arguments:
        one.annotation = _marked(one.annotation, table, hidden)
    node.returns = _marked(node.returns, table, hidden)
    return before != [node.returns, *(one.annotation for one in arguments)]


def _marked(annotation: ast.expr | None, table: Table, hidden: frozenset[str]) -> ast.expr | None:
    if annotation is None:
        return None
    names = {node.id for node in ast.walk(annotation) if isinstance(node, ast.Name)}
    if names.isdisjoint(table) or not names.isdisjoint(hidden):
        return annotation
    return ast.copy_location(ast.Constant(MARK + ast.unparse(annotation)), annotation)


def _looks_at_its_namespace(tree: ast.Module) -> bool:
    calls = (node.func for node in at_module_level(tree) if isinstance(node, ast.Call))
    return any(isinstance(function, ast.Name) and function.id in _OWN_NAMESPACE for function in calls)


def _builtins_of_functions(source: bytes, path: str) -> set[str]:
    """A name in the module's namespace costs a function 2 ns, one that is looked up in `DeferredNames` 100 ns and more."""
    found: set[str] = set()
    tables = [symtable.symtable(source.decode(), path, "exec")]
    while tables:
        for child in tables.pop().get_children():
            tables.append(child)
            found |= {symbol.get_name() for symbol in child.get_symbols() if symbol.is_global()} & _BUILTINS
    return found


@dataclass
class _Name:
    """What a name of the module means at one line. ``is_bound``: a statement that stays has bound it. ``origin`` is None where it
    is not known."""

    is_bound: bool = False
    sources: list[Source] = field(default_factory=list)
    origin: Origin | None = None


class _Imports:
    """The import statements of one module."""

    def __init__(self, tree: ast.Module, module: str, stars: Stars) -> None:
        self._tree = tree
        self._module = module
        self._stars = stars
        self._plain: dict[ast.stmt, dict[str, Source]] = {}
        self._brought: dict[ast.stmt, dict[str, Origin]] = {}
        self._names: dict[str, _Name] = {}
        self._deleted = {node.id for node in at_module_level(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Del)}

    def take(self) -> Table:
        self._find()
        self._keep()
        self._tree.body = [statement for node in self._tree.body for statement in self._replacement(node)]
        return {name: tuple(known.sources) for name, known in self._names.items() if known.sources}

    def _find(self) -> None:
        for node in self._tree.body:
            if (target := star(node)) is not None:
                brought = self._stars.names(*target)
                if brought is None:
                    return
                self._brought[node] = brought
            elif isinstance(node, ast.Import | ast.ImportFrom) and not _is_never_deferred(node):
                self._plain[node] = import_sources(node)

    def _keep(self) -> None:
        """Leaves out of ``_plain`` what has to stay, until no statement that stays binds a name of one that does not."""
        sources: dict[str, set[Source]] = {}
        for found in self._plain.values():
            for name, source in found.items():
                sources.setdefault(name, set()).add(source)
        staying = {name for name, found in sources.items() if name in _BUILTINS or not _is_one(found)}
        while True:
            others = (node for node in self._tree.body if node not in self._plain and node not in self._brought)
            staying |= {name for node in others for name, _ in bindings(node)}
            stay = [node for node, found in self._plain.items() if not staying.isdisjoint(found)]
            if not stay:
                return
            for node in stay:
                del self._plain[node]

    def _replacement(self, node: ast.stmt) -> list[ast.stmt]:
        if node in self._plain:
            for name, source in self._plain[node].items():
                self._defer(name, source, self._stars.origin(source) if self._brought else None)
            return []
        if node in self._brought:
            return self._star_replacement(node)
        sources = import_sources(node) if isinstance(node, ast.Import | ast.ImportFrom) and not star(node) else {}
        for name, _ in bindings(node):
            known = self._names.setdefault(name, _Name())
            known.origin = self._stars.origin(sources[name]) if name in sources and not known.is_bound else None
            known.is_bound = True
        return [node]

    def _star_replacement(self, node: ast.stmt) -> list[ast.stmt]:
        """Imports of the names that the star replaces. The others become entries of the table, except what the module has already:
        most of what a star brings is imported by both modules, and the earlier source is the cheaper one."""
        statements = []
        for name, origin in sorted(self._brought[node].items()):
            known = self._names.setdefault(name, _Name())
            if origin in (known.origin, (self._module, name)):
                continue
            if known.is_bound or name in _BUILTINS or name in self._deleted:
                known.is_bound, known.origin = True, origin
                statements.append(_import_of(name, origin, node))
            else:
                self._defer(name, (*origin, 0, STAR if origin[1] else MODULE), origin)
        return statements

    def _defer(self, name: str, source: Source, origin: Origin | None) -> None:
        known = self._names.setdefault(name, _Name())
        if source not in known.sources:
            known.sources.append(source)
        known.origin = origin


def _import_of(name: str, origin: Origin, where: ast.stmt) -> ast.stmt:
    module, attribute = origin
    if attribute:
        return ast.fix_missing_locations(ast.copy_location(ast.ImportFrom(module, [ast.alias(attribute, name)], 0), where))
    return ast.fix_missing_locations(ast.copy_location(ast.Import([ast.alias(module, name)]), where))


def _is_never_deferred(node: ast.Import | ast.ImportFrom) -> bool:
    if isinstance(node, ast.ImportFrom):
        return not node.level and (node.module or "").split(".")[0] in _NEVER_DEFERRED
    return any(alias.name.split(".")[0] in _NEVER_DEFERRED for alias in node.names)


def _is_one(sources: set[Source]) -> bool:
    """Whether statements for a name agree: they are the same, or `import a.b` and `import a.c`, which both bind ``a``."""
    return len(sources) == 1 or all(kind == TOP for _, _, _, kind in sources)
