"""Small changes of the core, one at a time, against the simulation and the unit tests; lists what no check notices.

Owns the changes (comparisons, constants, conditions, statements left out) and the sample. Refuses to touch a file of the project:
the simulation runs the change in memory, the unit tests on a copy.
"""

from __future__ import annotations

import ast
import copy
import importlib
import inspect
import itertools
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.simulation import machine, planted, schedules, simulate

TESTS = {
    "protocol.framing": ("tests/unit/test_framing.py",),
    "protocol.session": ("tests/unit/test_session.py",),
    "runtime.server": ("tests/server/test_server.py", "tests/server/test_supervision.py"),
    "budgets.store": ("tests/unit/test_task_budgets.py",),
    "budgets.spending": ("tests/unit/test_task_budgets.py",),
    "engines.pool": (),
    "backends.wire.openai_chat": ("tests/unit/wire",),
}
_ROOT = Path(__file__).parents[2]
_SEEDS = 60
_OPPOSITE: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
}


class Mutant(NamedTuple):
    module: str
    line: int
    before: str
    after: str
    source: str


def mutants(module: str) -> Iterator[Mutant]:
    """Every one of ``module``, in the order of its lines."""
    tree = ast.parse(inspect.getsource(importlib.import_module(f"bridge_worker.{module}")))
    for position, node in enumerate(ast.walk(tree)):
        for change in (_operator, _constant, _without_not, _left_out):
            if hasattr(node, "lineno") and change(alone := copy.deepcopy(node)):
                changed = copy.deepcopy(tree)
                change(next(itertools.islice(ast.walk(changed), position, None)))
                source = ast.unparse(ast.fix_missing_locations(changed))
                yield Mutant(module, node.lineno, ast.unparse(node), ast.unparse(alone), source)


def _operator(node: ast.AST) -> bool:
    if isinstance(node, ast.Compare) and type(node.ops[0]) in _OPPOSITE:
        node.ops[0] = _OPPOSITE[type(node.ops[0])]()  # type: ignore[assignment]
        return True
    if isinstance(node, ast.BoolOp | ast.BinOp) and type(node.op) in _OPPOSITE:
        node.op = _OPPOSITE[type(node.op)]()  # type: ignore[assignment]
        return True
    return False


def _constant(node: ast.AST) -> bool:
    if isinstance(node, ast.Constant) and type(node.value) is bool:
        node.value = not node.value
        return True
    if isinstance(node, ast.Constant) and type(node.value) is int:
        node.value += 1
        return True
    return False


def _without_not(node: ast.AST) -> bool:
    if isinstance(node, ast.If | ast.While) and isinstance(node.test, ast.UnaryOp) and isinstance(node.test.op, ast.Not):
        node.test = node.test.operand
        return True
    return False


def _left_out(node: ast.AST) -> bool:
    """A call whose result is not used becomes nothing."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call | ast.Await):
        node.value = ast.Constant(None)
        return True
    return False


def is_killed_by_simulation(mutant: Mutant, seeds: int = _SEEDS) -> bool:
    """Call it within `machine.virtual`."""
    with planted.replaced(mutant.module, mutant.source):
        for seed in range(seeds):
            try:
                if simulate.run(schedules.plan(seed)).problems:
                    return True
            except Exception:
                return True
            simulate.collect_garbage(seed)
    return False


def is_killed_by_tests(mutant: Mutant, folder: Path) -> bool:
    """Runs the module's unit tests in ``folder``, a copy of the project."""
    path = folder.joinpath("bridge_worker", *mutant.module.split(".")).with_suffix(".py")
    sound = path.read_text(encoding="utf-8")
    path.write_text(mutant.source, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n0", "-p", "no:cacheprovider", *TESTS[mutant.module]]
    try:
        return subprocess.run(command, cwd=folder, capture_output=True, timeout=120, check=False).returncode != 0
    except subprocess.TimeoutExpired:
        return True
    finally:
        path.write_text(sound, encoding="utf-8")


def main(minutes: float, seed: int = 1) -> int:
    everything = [mutant for module in TESTS for mutant in mutants(module)]
    print(f"{len(everything):,} mutants of {len(TESTS)} modules; a random sample for {minutes:g} minutes", flush=True)
    random.Random(seed).shuffle(everything)
    tried = by_simulation = by_tests = 0
    survivors: list[Mutant] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "copy")
        shutil.copytree(_ROOT, folder, ignore=shutil.ignore_patterns(".venv*", ".git", "clients", "__pycache__", "node_modules"))
        ends = time.monotonic() + minutes * 60
        for mutant in everything:
            if time.monotonic() > ends:
                break
            tried += 1
            with machine.virtual():
                is_found = not mutant.module.startswith("backends") and is_killed_by_simulation(mutant)
            if is_found:
                by_simulation += 1
            elif TESTS[mutant.module] and is_killed_by_tests(mutant, folder):
                by_tests += 1
            else:
                survivors.append(mutant)
                print(f"survives: {mutant.module}:{mutant.line}: {mutant.before:.90} -> {mutant.after:.90}", flush=True)
    print(f"{tried} tried: {by_simulation} found by {_SEEDS} seeds, {by_tests} by the unit tests, {len(survivors)} survive")
    return 0
