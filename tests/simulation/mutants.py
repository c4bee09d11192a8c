"""Small changes of the core, one at a time, against the simulation and the tests that need no worker; lists what no check notices.

Owns the changes (comparisons, constants, conditions, statements left out) and which tests run: those that execute the changed line,
the fastest first. Refuses to touch a file of the project: each change is made in the memory of a fork.
"""

from __future__ import annotations

import ast
import copy
import functools
import importlib
import inspect
import itertools
import os
import pickle
import resource
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import coverage
import pytest
from _pytest.main import pytest_runtestloop as run_items
from _pytest.runner import runtestprotocol

from tests.simulation import machine, planted, schedules, simulate

CORE = (
    "protocol.framing",
    "protocol.session",
    "protocol.link_frames",
    "runtime.server",
    "runtime.dispatch",
    "budgets.store",
    "budgets.spending",
    "budgets.remote_store",
    "budgets.tasks",
    "engines.pool",
)
DECODERS = (
    "backends.wire.openai_chat",
    "backends.wire.anthropic",
    "backends.wire.gemini",
    "backends.wire.sse",
    "backends.wire.json_array",
    "backends.wire.aws_event_stream",
)
TESTS: dict[tuple[str, ...], tuple[str, ...]] = {
    CORE: (
        "tests/unit/test_framing.py",
        "tests/unit/test_outline.py",
        "tests/unit/test_session.py",
        "tests/unit/test_link_frames.py",
        "tests/unit/test_budgets.py",
        "tests/server",
        "tests/process/test_once.py",
        "tests/gateway/test_spending.py",
        "tests/gateway/test_tasks.py",
        "tests/fuzz/test_differential.py",
    ),
    DECODERS: ("tests/unit/wire", "tests/unit/test_message_accepted_back.py", "tests/fuzz"),
}
_PROCESSES = {"spawn", "worker_for", "worker"}  # fixtures of tests that start a worker, which a change in memory does not reach
_ROOT = Path(__file__).parents[2]
_SEEDS = 60
_CPU_SECONDS, _SECONDS = 30, 600  # of a fork
_MEMORY = 6 << 30
_AT_IMPORT = 250  # tests, the fastest, for a change that runs at the import, such as a constant: no line of theirs shows which
_LONGEST = 8.0  # seconds of one test that is run for a mutant
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
    """``lines``: from the beginning of its statement to its end; empty if it runs at the import."""

    module: str
    line: int
    lines: range
    before: str
    after: str
    source: str

    def __str__(self) -> str:
        return f"{self.module}:{self.line}: {self.before:.90} -> {self.after:.90}"


def mutants(module: str) -> Iterator[Mutant]:
    """Every one of ``module``, in the order of its lines."""
    text = inspect.getsource(importlib.import_module(f"bridge_worker.{module}"))
    tree = ast.parse(text)
    lines = {node: lines for statement, lines in _statements(tree, in_function=False) for node in ast.walk(statement)}
    for position, node in enumerate(ast.walk(tree)):
        if lines.get(node) is None:
            continue
        for kinds, change in _CHANGES:
            if isinstance(node, kinds) and change(alone := copy.deepcopy(node)):
                changed = ast.parse(text)
                change(next(itertools.islice(ast.walk(changed), position, None)))
                source = ast.unparse(changed)
                yield Mutant(module, node.lineno, lines[node], ast.unparse(node), ast.unparse(alone), source)


def _statements(node: ast.AST, *, in_function: bool) -> Iterator[tuple[ast.AST, range | None]]:
    """Outer ones first. A part that has statements ends where the first of them begins. None: a class's own members and decorators,
    which code in memory can't be given (`planted.replaced`)."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt):
            is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            if not is_function and isinstance(child if isinstance(child, ast.ClassDef) else node, ast.ClassDef):
                yield child, None
            else:
                body = getattr(child, "body", None)
                last = body[0].lineno - 1 if body else child.end_lineno or child.lineno
                yield child, range(child.lineno, max(last, child.lineno) + 1) if in_function and not is_function else range(0)
            yield from _statements(child, in_function=in_function or is_function)
        elif isinstance(child, ast.ExceptHandler | ast.match_case):
            yield from _statements(child, in_function=in_function)


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


_CHANGES: tuple[tuple[Any, Callable[[Any], bool]], ...] = (
    ((ast.Compare, ast.BoolOp, ast.BinOp), _operator),
    (ast.Constant, _constant),
    ((ast.If, ast.While), _without_not),
    (ast.Expr, _left_out),
)


def is_killed_by_simulation(mutant: Mutant, seeds: int = _SEEDS) -> bool:
    """Call it within `machine.virtual`. A decoder is not part of the simulation."""
    if mutant.module.startswith("backends"):
        return False
    with planted.replaced(mutant.module, mutant.source):
        for seed in range(seeds):
            try:
                if simulate.run(schedules.plan(seed)).problems:
                    return True
            except Exception:
                return True
            simulate.collect_garbage(seed)
    return False


def in_forks(jobs: Iterable[tuple[Mutant, Callable[[], bool]]]) -> Iterator[tuple[Mutant, bool | None]]:
    """What each job returns in a fork; true for one that needs too much of the processor, None for one that has only waited, which
    a busy machine makes it do. One fork for each core, and one more."""
    running: dict[int, Mutant] = {}
    for mutant, job in jobs:
        running[_fork(job)] = mutant
        if len(running) > (os.cpu_count() or 1):
            yield _next_end(running)
    while running:
        yield _next_end(running)


def _next_end(running: dict[int, Mutant]) -> tuple[Mutant, bool | None]:
    pid, status = os.wait()
    has_waited = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM
    return running.pop(pid), None if has_waited else bool(status)


def _fork(job: Callable[[], bool]) -> int:
    if child := os.fork():
        return child
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.alarm(_SECONDS)
    signal.setitimer(signal.ITIMER_PROF, _CPU_SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    try:
        os._exit(job())
    except BaseException:
        os._exit(1)


class _Tests:
    """A pytest plugin: which tests execute a line, then each mutant against those of its line."""

    def __init__(self, mutants: list[Mutant], ends: float) -> None:
        self.mutants = mutants
        self.ends = ends
        self.survivors: list[Mutant] = []
        self.seconds: dict[int, float] = {}
        self.tried: Counter[str] = Counter()
        self.late: list[Mutant] = []

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if _PROCESSES.isdisjoint(getattr(item, "fixturenames", ()))]

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed:
            raise session.Interrupted("a test file can't be collected: every mutant would count as found")
        by_line = self._tests_of_lines(session)
        print(f"{len(session.items):,} tests; {len(by_line):,} lines are executed by one", flush=True)
        for mutant, is_killed in in_forks(self._jobs(session, by_line)):
            self.tried[mutant.module] += 1
            if is_killed is None:
                self.late.append(mutant)
            elif not is_killed:
                self.survivors.append(mutant)
                print(f"no test finds {mutant}", flush=True)
            if self.tried.total() % 50 == 0:
                print(f"{self.tried.total()} run through the tests, {len(self.survivors)} survive", flush=True)
        return True

    def _jobs(
        self, session: pytest.Session, by_line: dict[tuple[str, int], list[int]]
    ) -> Iterator[tuple[Mutant, Callable[[], bool]]]:
        for mutant in self.mutants:
            if time.monotonic() > self.ends:
                return
            at_import = not mutant.lines
            lines = [line for module, line in by_line if module == mutant.module] if at_import else mutant.lines
            numbers = {number for line in lines for number in by_line.get((mutant.module, line), ())}
            fastest = sorted(numbers, key=lambda number: self.seconds[number])[: _AT_IMPORT if at_import else None]
            items = [session.items[number] for number in fastest]
            yield mutant, functools.partial(self._fails, session, mutant, items)

    def _fails(self, session: pytest.Session, mutant: Mutant, items: list[pytest.Item]) -> bool:
        session.items = items
        session.config.option.maxfail = 1
        with planted.replaced(mutant.module, mutant.source):
            try:
                run_items(session)
            except session.Failed:
                return True
        return bool(session.testsfailed)

    def _tests_of_lines(self, session: pytest.Session) -> dict[tuple[str, int], list[int]]:
        """By (module, line). A fork measures it: a test leaves modules loaded and fixtures set up."""
        reading, writing = os.pipe()
        if (child := os.fork()) == 0:
            os.close(reading)
            with os.fdopen(writing, "wb") as pipe:
                pickle.dump(self._measure(session), pipe)
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            measured = pickle.load(pipe)
        os.waitpid(child, 0)
        self.seconds = {number: seconds for number, seconds, _ in measured}
        lines: dict[tuple[str, int], list[int]] = defaultdict(list)
        for number, _, places in measured:
            for place in places:
                lines[place].append(number)
        return lines

    def _measure(self, session: pytest.Session) -> list[tuple[int, float, list[tuple[str, int]]]]:
        files = {str(_ROOT.joinpath("bridge_worker", *name.split(".")).with_suffix(".py")): name for name in (*CORE, *DECODERS)}
        measured = []
        for number, item in enumerate(session.items):
            follows = session.items[number + 1] if number + 1 < len(session.items) else None
            tracer = coverage.Coverage(data_file=None, include=list(files), config_file=False)
            tracer.set_option("run:disable_warnings", ["no-data-collected", "couldnt-parse"])
            tracer.start()
            began = time.perf_counter()
            reports = runtestprotocol(item, nextitem=follows, log=False)
            seconds = time.perf_counter() - began
            tracer.stop()
            if all(report.passed for report in reports) and seconds < _LONGEST:
                data = tracer.get_data()
                places = [(files[file], line) for file in data.measured_files() for line in data.lines(file) or ()]
                measured.append((number, seconds, places))
            elif any(report.failed for report in reports):
                print(f"fails without a mutant: {item.nodeid}", flush=True)
        return measured


def main(minutes: float, only: list[str]) -> int:
    ends = time.monotonic() + minutes * 60
    for group, tests in TESTS.items():
        modules = [name for name in group if not only or any(part in name for part in only)]
        if modules:
            _run(modules, tests, ends)
    return 0


def _run(modules: list[str], files: Iterable[str], ends: float) -> None:
    everything = [mutant for module in modules for mutant in mutants(module)]
    print(f"{len(everything):,} mutants of {len(modules)} modules", flush=True)
    tests = _Tests(everything, ends)
    pytest.main(["-o", "addopts=", "-p", "no:terminal", "-p", "no:cacheprovider", *files], plugins=[tests])
    survivors = []
    seeds: Counter[str] = Counter()
    with machine.virtual():
        jobs = [(mutant, functools.partial(is_killed_by_simulation, mutant)) for mutant in tests.survivors]
        for mutant, is_killed in in_forks(jobs):
            if is_killed:
                seeds[mutant.module] += 1
            else:
                survivors.append(mutant)
                print(f"survives: {mutant}", flush=True)
    for module in modules:
        mine, found, rest = ([one for one in group if one.module == module] for group in (everything, tests.survivors, survivors))
        tried = tests.tried[module]
        late = sum(one.module == module for one in tests.late)
        by_tests = tried - len(found) - late
        by = f"{by_tests:4} by tests, {seeds[module]:4} by seeds"
        print(f"{module:34} {len(mine):4}, {tried:4} tried: {by}, {len(rest):3} survive, {late} not decided in {_SECONDS} s")
