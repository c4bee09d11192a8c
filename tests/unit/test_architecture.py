"""The house keeps its shape: who may import whom, what must not be loaded early, how long a file may be, what it says of itself."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import pytest

from tests.support.package_modules import HEAVY, PACKAGE, files, modules

# From the ground up. A file imports packages of lower floors, or its own package; a new package gets its floor here.
FLOORS: list[set[str]] = [
    {"deferred_imports", "errors", "invariants", "version", "providers", "security", "system"},
    {"protocol", "schema"},
    {"core", "engines", "telemetry"},
    {"agent", "budgets", "trace"},
    {"config"},
    {"backends"},
    {"cassettes", "methods"},
    {"runtime"},
    {"cli"},
    {"bridge_worker", "__main__"},
]
FLOOR = {package: floor for floor, packages in enumerate(FLOORS) for package in packages}
# The package's own file hands out `chat` and `achat` on first use: a lazy import, which nothing that serves stdio runs.
LAZY = {("bridge_worker", "runtime.in_process")}
# Arrows that the move into these rooms has not turned yet. The list only gets shorter.
NOT_YET: set[tuple[str, str]] = set()

# Loaded before the response to `initialize`. pydantic costs 0.1 s there, LiteLLM two.
EARLY = {
    "errors",
    "invariants",
    "version",
    "security",
    "system",
    "protocol",
    "runtime",
    "cli",
    "budgets",
    "telemetry",
    "budgets.limits",
    "protocol.mcp_envelope",
    "protocol.framing",
    "protocol.outline",
    "protocol.value_counter",
    "protocol.lifecycle_table",
    "protocol.session",
    "protocol.transport",
    "security.redaction",
    "config.source",
    "config.gateway_keys",
    "config.diagnostics",
    "config.settings",
    "providers",
    "providers.facts",
    "runtime.reload",
    "config.local_models",
    "telemetry.log",
    "system.process_watch",
    "runtime.stdio",
    "runtime.flags",
    "runtime.exit_codes",
    "config.diff",
    "security.error_text",
    "system.descriptors",
    "system.resources",
    "system.signals",
    "system.engine_starts",
    "runtime.app",
    "runtime.client_credentials",
    "runtime.client_requests",
    "runtime.notifier",
    "core",
    "core.credentials",
    "protocol.client_capabilities",
    "protocol.envelope",
    "runtime.loader",
    "engines",
    "engines.engine",
    "engines.board",
    "engines.link",
    "protocol.link_frames",
    "protocol.responses",
    "runtime.once",
    "runtime.dispatch",
    "runtime.server",
    "runtime.server_checks",
    "runtime.startup",
    "runtime.event_loop",
    "cli.main",
    "security.url_policy",
    "security.isolation",
    "__main__",
    "bridge_worker",
    "config",
}


MAX_LINES = 300
# A reason for each, and no more than it needs.
LONGER: dict[str, tuple[int, str]] = {
    "engines.supervisor": (368, "starting, watching and replacing are one state machine"),
    "backends.litellm.exceptions": (324, "the tables of classes, statuses and sentences are half of it"),
    "backends.litellm.gemini_schema": (360, "the table of keywords, and a method for each type and combination"),
    "backends.litellm.patches.correctness": (365, "thirteen patches, each with its reason, its check and its evidence"),
    "backends.wire.anthropic": (400, "the tables of events, blocks and deltas, and a method for each"),
    "backends.wire.bedrock_converse": (360, "the tables of events and blocks, and a method for each"),
    "backends.wire.gemini": (410, "the tables of parts and finish reasons, and a method for each"),
    "backends.wire.openai_responses": (440, "the tables of events and items, and a method for each kind of event"),
}
# No boundary to speak of: they are a name and a doorway.
DOORWAYS = {"bridge_worker", "__main__", "version"}
PACKAGES = {".".join(path.parent.relative_to(PACKAGE).parts) for path in PACKAGE.rglob("__init__.py") if path.parent != PACKAGE}


@dataclass(frozen=True)
class Import:
    """``late``: inside a function. ``typing``: under TYPE_CHECKING, so it never happens."""

    target: str
    late: bool
    typing: bool


@cache
def imports(module: str) -> tuple[Import, ...]:
    return tuple(_imports(modules()[module], late=False, typing=False))


def _imports(node: ast.AST, *, late: bool, typing: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, late, typing) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "relative imports hide where a module comes from"
            yield from (Import(_target(child.module or "", alias.name), late, typing) for alias in child.names)
        elif isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            yield from _imports(child, late=late, typing=True)
        elif not isinstance(child, ast.expr):  # which holds no statement
            in_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            yield from _imports(child, late=late or in_function, typing=typing)


def _target(module: str, name: str) -> str:
    """`from bridge_worker.schema import base` imports a module, `from bridge_worker.errors import KINDS` a name in one."""
    return f"{module}.{name}" if f"{module}.{name}".removeprefix("bridge_worker.") in modules() else module


def ours(module: str) -> Iterator[tuple[str, Import]]:
    """Imports of the package's own modules, by their short names."""
    for one in imports(module):
        if one.target.split(".")[0] == "bridge_worker":
            yield one.target.removeprefix("bridge_worker.") or "bridge_worker", one


def theirs(module: str) -> Iterator[tuple[str, Import]]:
    """Imports from elsewhere, by the top name."""
    for one in imports(module):
        if one.target.split(".")[0] != "bridge_worker":
            yield one.target.split(".")[0], one


# --- who imports whom --------------------------------------------------------------------------------------------------------


def package_of(module: str) -> str:
    return module.split(".")[0]


def test_every_package_has_its_floor() -> None:
    assert {package_of(module) for module in modules()} == set(FLOOR), "give the package its floor in FLOORS"


@pytest.mark.parametrize("module", sorted(files()))
def test_imports_point_down(module: str) -> None:
    wrong = {
        target
        for target, _ in ours(module)
        if package_of(target) != package_of(module) and FLOOR[package_of(target)] >= FLOOR[package_of(module)]
    }
    assert not wrong - {target for importer, target in NOT_YET if importer == module}, "an import points up or sideways"


def test_no_exception_outlives_its_arrow() -> None:
    assert {(module, target) for module in modules() for target, _ in ours(module)} >= NOT_YET | LAZY


@pytest.mark.parametrize("package", ["deferred_imports", "providers", "security", "system"])
def test_the_ground_floor_imports_nothing_of_ours(package: str) -> None:
    for module in (name for name in modules() if package_of(name) == package):
        assert {package_of(target) for target, _ in ours(module)} <= {package}, module


def test_protocol_imports_the_standard_library_errors_and_the_version_only() -> None:
    for module in (name for name in modules() if package_of(name) == "protocol"):
        assert {package_of(target) for target, _ in ours(module)} <= {"protocol", "errors", "version"}, module
        assert {name for name, _ in theirs(module)} <= sys.stdlib_module_names, module


def test_methods_and_backends_never_import_each_other() -> None:
    arrows = {(module, target) for module in modules() for target, _ in ours(module)} - NOT_YET
    between = {frozenset({package_of(module), package_of(target)}) for module, target in arrows}
    assert frozenset({"methods", "backends"}) not in between


def test_decoders_and_the_rest_of_the_wire_formats_never_import_litellm_or_a_backend() -> None:
    for module in (name for name in modules() if name.startswith("backends.wire")):
        others = {target for target, _ in ours(module) if package_of(target) == "backends"}
        assert all(target.startswith("backends.wire") for target in others), module


def test_no_files_import_each_other_in_a_circle() -> None:
    """Late imports count too; the package's own file, which hands out its public names on first use, does not."""
    arrows = {module: {target for target, _ in ours(module) if (module, target) not in LAZY} for module in modules()}
    while leaves := {module for module, targets in arrows.items() if not targets & arrows.keys()}:
        arrows = {module: targets for module, targets in arrows.items() if module not in leaves}
    assert not arrows, f"in a circle, or above one: {sorted(arrows)}"


def test_errors_imports_nothing_of_ours_and_nothing_but_the_standard_library() -> None:
    assert not list(ours("errors"))
    assert {name for name, _ in theirs("errors")} <= sys.stdlib_module_names


def test_only_methods_imports_jsonrpcserver() -> None:
    assert {module for module in modules() for name, _ in theirs(module) if name in ("jsonrpcserver", "oslash")} == {
        "methods.dispatcher"
    }


def test_only_models_imports_litellm_and_what_comes_with_it() -> None:
    importers = {module for module in modules() for name, _ in theirs(module) if name in ("litellm", "openai", "httpx", "aiohttp")}
    assert importers
    assert all(module.startswith("backends.litellm.") for module in importers)


def test_the_litellm_model_is_imported_late_by_other_packages() -> None:
    importers = {
        (module, one.late or one.typing)
        for module in modules()
        for target, one in ours(module)
        if target in ("backends.litellm.chat", "backends.litellm.services") and not module.startswith("backends.litellm.")
    }
    assert importers == {("runtime.app", True), ("runtime.check_config", True), ("runtime.engine_process", True)}


def test_the_package_itself_imports_nothing_of_ours_before_it_is_used() -> None:
    assert all(one.late or one.typing for target, one in ours("bridge_worker") if target != "version")


def _sans_io() -> list[str]:
    """`retry_after` reads dates, and compares them with the clock where a response has no date."""
    rooms = ("protocol.", "schema.", "backends.wire.")
    return [name for name in modules() if name.startswith(rooms) and name != "backends.wire.retry_after"]


def test_sans_io_modules_know_no_descriptor_no_clock_and_no_task() -> None:
    for module in ("errors", "methods.params", *_sans_io()):
        assert not {name for name, _ in theirs(module)} & {
            "asyncio",
            "os",
            "io",
            "time",
            "socket",
            "threading",
            "subprocess",
            "logging",
        }


# --- what is loaded early ----------------------------------------------------------------------------------------------------


@pytest.mark.rule("LIF-2")
def test_modules_that_run_before_the_initialize_response_import_nothing_heavy_at_their_top() -> None:
    reached, todo = set(), [*EARLY]
    while todo:
        module = todo.pop()
        if module in reached:
            continue
        reached.add(module)
        heavy = {name for name, one in theirs(module) if name in HEAVY and not one.late and not one.typing}
        assert not heavy, f"{module} imports {heavy} at its top"
        todo += [target for target, one in ours(module) if not one.late and not one.typing]
    assert reached == EARLY, "a module that is reached early belongs in EARLY"


# --- how it reads ------------------------------------------------------------------------------------------------------------


def lines(module: str) -> int:
    return len(files()[module].read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("module", sorted(files()))
def test_no_module_is_long_without_a_reason(module: str) -> None:
    limit, _ = LONGER.get(module, (MAX_LINES, ""))
    assert lines(module) <= limit


def test_no_reason_outlives_its_need() -> None:
    assert [module for module in LONGER if lines(module) <= MAX_LINES] == []


@pytest.mark.parametrize("module", sorted(files().keys() - DOORWAYS - PACKAGES))
def test_each_modules_docstring_states_what_it_owns_and_refuses(module: str) -> None:
    docstring = ast.get_docstring(modules()[module]) or ""
    assert "owns" in docstring.lower()
    assert "refuses" in docstring.lower()


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_each_packages_docstring_states_what_it_owns_and_it_imports_nothing(package: str) -> None:
    tree = modules()[package]
    docstring = ast.get_docstring(tree) or ""
    assert docstring.startswith("Owns ")
    assert "does not know" in docstring
    assert len(tree.body) == 1


def test_the_doorways_have_a_docstring_too() -> None:
    assert all(ast.get_docstring(modules()[module]) for module in DOORWAYS)


def test_only_the_command_prints() -> None:
    def prints(tree: ast.Module) -> bool:
        return any(
            isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print" for node in ast.walk(tree)
        )

    assert not {module for module, tree in modules().items() if prints(tree)}
