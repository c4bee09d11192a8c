"""The names that a module's source binds in the module's own namespace, and the statements that do it.

Owns what counts as module level. Refuses to know which imports are deferred.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from typing import TypeGuard

_SCOPES = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda
# (module, attribute, level, kind), as an import statement has them; a plain tuple, because `marshal` keeps it. The attribute of a
# plain import is "". Kinds: `from m import a`; `import m.n` that binds ``m``; `import m.n as k`; one name of `from m import *`;
# what a statement of the module makes when it is used.
Source = tuple[str, str, int, str]
ATTRIBUTE, TOP, MODULE, STAR, LATE = "attribute", "top", "module", "star", "late"


def at_module_level(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes below ``node`` that run in its namespace, so not the bodies of functions and classes. Not what is for type checkers
    alone."""
    for child in _children(node):
        yield child
        for inner in _run_outside(child) if isinstance(child, _SCOPES) else [child]:
            if inner is not child:
                yield inner
            yield from at_module_level(inner)


def _children(node: ast.AST) -> Iterable[ast.AST]:
    if _is_for_type_checkers(node):
        return node.orelse
    if isinstance(node, ast.comprehension):
        return [node.iter, *node.ifs]  # its target is bound in it alone
    return ast.iter_child_nodes(node)


def _is_for_type_checkers(node: ast.AST) -> TypeGuard[ast.If]:
    return isinstance(node, ast.If) and (
        (isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING")
        or (isinstance(node.test, ast.Attribute) and node.test.attr == "TYPE_CHECKING")
    )


def _run_outside(scope: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda) -> list[ast.AST]:
    """Decorators, bases and defaults."""
    if isinstance(scope, ast.ClassDef):
        return [*scope.decorator_list, *scope.bases, *scope.keywords]
    defaults: list[ast.AST] = [default for default in [*scope.args.defaults, *scope.args.kw_defaults] if default]
    return defaults if isinstance(scope, ast.Lambda) else [*scope.decorator_list, *defaults]


def bindings(statement: ast.stmt) -> Iterator[tuple[str, int]]:
    """Names that the statement binds or deletes, with the line. Not what a star brings."""
    for node in [statement, *at_module_level(ast.Module([statement], []))]:
        line = getattr(node, "lineno", statement.lineno)
        for name in _bound_by(node):
            yield name, line


def _bound_by(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
        yield node.id
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Import | ast.ImportFrom):
        yield from (name for name in import_sources(node) if name != "*")
    elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
        yield node.name
    elif isinstance(node, ast.MatchMapping) and node.rest:
        yield node.rest


def import_sources(node: ast.Import | ast.ImportFrom) -> dict[str, Source]:
    if isinstance(node, ast.ImportFrom):
        return {alias.asname or alias.name: (node.module or "", alias.name, node.level, ATTRIBUTE) for alias in node.names}
    sources: dict[str, Source] = {}
    for alias in node.names:
        if alias.asname:
            sources[alias.asname] = (alias.name, "", 0, MODULE)
        else:
            sources[alias.name.split(".")[0]] = (alias.name, "", 0, TOP)
    return sources


def star(node: ast.AST) -> tuple[str, int] | None:
    """Module and level of a `from module import *`."""
    if isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
        return node.module or "", node.level
    return None
