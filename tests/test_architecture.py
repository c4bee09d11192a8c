"""The house keeps its shape: who may import whom, what must not be loaded early, how long a file may be, what it says of itself."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import bridge_worker

PACKAGE = Path(bridge_worker.__file__).parent

# From the ground up; a module imports from lower floors only. A new module gets its place here.
FLOORS: list[set[str]] = [
    {"bridge_worker", "errors", "redact", "urls", "isolation", "trace", "trace.content", "trace.story"},
    {"protocol.base", "mcp", "budgets"},
    {"protocol.asked", "protocol.lifecycle", "protocol.mcp", "protocol.budgets"},
    {"protocol.answered"},
    {"protocol.errors", "protocol.services"},
    {"protocol", "port"},
    {"assembly", "services"},
    {"framing", "session", "calls", "validation", "logs", "lifeline", "stdio", "local_models", "spending"},
    {"config.settings", "config.mistakes", "config.keys", "spans", "trace.lines", "trace.page", "trace.reading"},
    {"telemetry", "trace.recorder"},
    {"completion", "config.documents"},
    {"config.references", "config.checks", "config.validated"},
    {"config.gateway"},
    {"config"},
    {"config.printed", "reloading", "redis_link"},
    {"models", "models.cohere", "redis_budgets", "models.keys", "models.price_map", "models.advice", "models.routing"},
    {
        "models.faults",
        "models.outgoing",
        "models.mends",
        "models.shortcuts",
        "models.answers",
        "models.offline",
        "models.local_process",
    },
    {"models.attempts", "models.offline_services", "models.local", "models.local_engine"},
    {"models.local_provider", "models.local_services"},
    {"models.sharing"},
    {"models.configured"},
    {"models.litellm"},
    {"models.tokens", "models.vectors", "models.plans", "models.direct_http"},
    {"models.direct"},
    {"models.ways"},
    {"models.catalog"},
    {"queries", "tools"},
    {"methods"},
    {"engine", "server", "api", "checking"},
    {"serve"},
    {"commands.terminal"},
    {"commands.problem"},
    {"commands.worker", "commands.screen", "commands.choice", "commands.completing"},
    {"commands.conversation", "commands.checks"},
    {
        "commands.repl",
        "commands.probes",
        "commands.demo",
        "commands.schema",
        "commands.trace",
        "commands.replay",
        "commands.completion",
    },
    {"commands.chat", "commands.models", "commands.doctor"},
    {"commands.tokens"},
    {"commands"},
    {"cli"},
    {"__main__"},
]
FLOOR = {module: floor for floor, modules in enumerate(FLOORS) for module in modules}
# The package's own file hands out `chat` and `achat` on first use; that import points up, and nothing that serves stdio runs it.
UPWARD = {("bridge_worker", "api")}

# Loaded before `initialize` is answered. pydantic costs 0.1 s there, LiteLLM two.
EARLY = {
    "errors",
    "budgets",
    "mcp",
    "framing",
    "session",
    "redact",
    "config",
    "config.keys",
    "config.mistakes",
    "config.settings",
    "reloading",
    "local_models",
    "logs",
    "lifeline",
    "stdio",
    "engine",
    "server",
    "serve",
    "cli",
    "urls",
    "isolation",
    "__main__",
    "bridge_worker",
}
HEAVY = {
    "pydantic",
    "pydantic_core",
    "jsonrpcserver",
    "litellm",
    "openai",
    "aiohttp",
    "httpx",
    "yaml",
    "pydantic_settings",
    "jsonschema",
    "click",
    "rich",
}

MAX_LINES = 300
# A reason for each, and no more than it needs.
LONGER = {
    "session": (340, "the lifecycle table is a third of it"),
}
# No boundary to speak of: they are a name and a doorway.
DOORWAYS = {"bridge_worker", "__main__"}


@dataclass(frozen=True)
class Import:
    """``late``: inside a function. ``typing``: under TYPE_CHECKING, so it never happens."""

    target: str
    late: bool
    typing: bool


@cache
def modules() -> dict[str, ast.Module]:
    """By name without the package's own: "errors", "models.litellm", "models"."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        found["bridge_worker" if name == "__init__" else name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def imports(module: str) -> Iterator[Import]:
    yield from _imports(modules()[module], late=False, typing=False)


def _imports(node: ast.AST, *, late: bool, typing: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, late, typing) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "relative imports hide where a module comes from"
            yield from (Import(_target(child.module or "", alias.name), late, typing) for alias in child.names)
        elif isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            yield from _imports(child, late=late, typing=True)
        else:
            in_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _imports(child, late=late or in_function, typing=typing)


def _target(module: str, name: str) -> str:
    """`from bridge_worker.models import faults` imports a module, `from bridge_worker.errors import KINDS` a name in one."""
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


def test_every_module_has_its_floor() -> None:
    assert set(modules()) == set(FLOOR), "give the module its place in FLOORS, and in DESIGN's list"


@pytest.mark.parametrize("module", sorted(FLOOR))
def test_imports_point_down(module: str) -> None:
    for target, _ in ours(module):
        below = FLOOR[target] < FLOOR[module]
        assert below or (module, target) in UPWARD, f"{module} imports {target}, which is not below it"


def test_errors_imports_nothing_of_ours_and_nothing_but_the_standard_library() -> None:
    assert not list(ours("errors"))
    assert {name for name, _ in theirs("errors")} <= sys.stdlib_module_names


def test_only_methods_imports_jsonrpcserver() -> None:
    assert {module for module in modules() for name, _ in theirs(module) if name in ("jsonrpcserver", "oslash")} == {"methods"}


def test_only_models_imports_litellm_and_what_comes_with_it() -> None:
    importers = {module for module in modules() for name, _ in theirs(module) if name in ("litellm", "openai", "httpx", "aiohttp")}
    assert importers
    assert all(module.startswith("models.") for module in importers)


def test_the_litellm_model_is_imported_late_by_whoever_is_no_part_of_it() -> None:
    importers = {
        (module, one.late or one.typing)
        for module in modules()
        for target, one in ours(module)
        if target in ("models.litellm", "models.catalog") and not module.startswith("models.")
    }
    assert importers == {("engine", True), ("api", True), ("checking", True)}


def test_the_package_itself_imports_nothing_of_ours_before_it_is_used() -> None:
    assert all(one.late or one.typing for _, one in ours("bridge_worker"))


def test_sans_io_modules_know_no_descriptor_no_clock_and_no_task() -> None:
    for module in ("errors", "mcp", "validation", "framing", "session", *(name for name in modules() if "protocol" in name)):
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
def test_what_runs_before_initialize_is_answered_imports_nothing_heavy_at_its_top() -> None:
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


@pytest.mark.rule("LIF-2", "OFF-1")
def test_starting_the_command_loads_nothing_heavy() -> None:
    assert not loaded_by("bridge_worker.cli") & HEAVY


@pytest.mark.rule("OFF-1")
def test_the_offline_models_and_the_methods_do_not_load_litellm() -> None:
    assert not loaded_by("bridge_worker.methods") & {"litellm", "openai", "httpx"}


def loaded_by(module: str) -> set[str]:
    """Top names of all that is loaded in a fresh interpreter by importing ``module``."""
    code = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    out = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True).stdout
    loaded = set(json.loads(out))
    assert module in loaded
    return {name.split(".")[0] for name in loaded}


def test_chat_stays_a_function_whatever_else_was_imported() -> None:
    code = "import bridge_worker.methods; from bridge_worker import achat, chat; assert callable(chat) and callable(achat)"
    subprocess.run([sys.executable, "-I", "-c", code], check=True)
    names = {module.split(".")[0] for module in modules()}
    assert not names & set(bridge_worker.__all__), "a submodule of that name would take the function's place"


# --- how it reads ------------------------------------------------------------------------------------------------------------


def lines(module: str) -> int:
    path = PACKAGE.joinpath(*module.split(".")) if module != "bridge_worker" else PACKAGE
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return len(file.read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("module", sorted(FLOOR))
def test_no_module_is_long_without_a_reason(module: str) -> None:
    limit, _ = LONGER.get(module, (MAX_LINES, ""))
    assert lines(module) <= limit


def test_no_reason_outlives_its_need() -> None:
    assert [module for module in LONGER if lines(module) <= MAX_LINES] == []


@pytest.mark.parametrize("module", sorted(set(FLOOR) - DOORWAYS))
def test_each_module_says_what_it_owns_and_what_it_refuses(module: str) -> None:
    docstring = ast.get_docstring(modules()[module]) or ""
    assert "owns" in docstring.lower()
    assert "refuses" in docstring.lower()


def test_the_doorways_have_a_docstring_too() -> None:
    assert all(ast.get_docstring(modules()[module]) for module in DOORWAYS)


def test_nobody_prints_but_the_command() -> None:
    def prints(tree: ast.Module) -> bool:
        return any(
            isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print" for node in ast.walk(tree)
        )

    assert not {module for module, tree in modules().items() if prints(tree)}
