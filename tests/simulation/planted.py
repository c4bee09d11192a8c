"""Faults to be planted one at a time, to see that the simulation finds each.

Owns the list, and how a fault is planted: the module is compiled again with the change, in memory, and the functions get that code.
 Refuses to touch a file.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.simulation import machine, schedules, simulate


@dataclass(frozen=True, slots=True)
class Fault:
    name: str
    module: str
    original: str
    broken: str
    is_quick: bool = False  # found within a few seeds: the suite plants it too


FAULTS = (
    Fault(
        "a request cancelled before its task began is not answered by its engine",
        "engines.engine",
        "if task.cancelled():",
        "if False:",
    ),
    Fault(
        "a request cancelled before its task began is not answered",
        "runtime.dispatch",
        "            done(failed(cancelled_error(upstream_closed=True)))",
        "            pass",
    ),
    Fault(
        "a cancel that does not end is not given up",
        "runtime.server",
        "get_running_loop().call_later(CANCEL_SECONDS, self._give_up, id, request)",
        "get_running_loop()",
    ),
    Fault(
        "a request with its response sent stays in flight",
        "engines.pool",
        "        del self._requests[request]\n",
        "        if not request.cancelled:\n            del self._requests[request]\n",
    ),
    Fault(
        "the response of a cancelled request is lost",
        "engines.pool",
        "        if request.outcome is None:\n            outcome, path",
        "        if request.outcome is None and not request.cancelled:\n            outcome, path",
    ),
    Fault(
        "a draining engine that hands its last request back late does not end",
        "engines.pool",
        "        if request.outcome is None:  # else",
        "        if request.outcome is not None:\n            return\n        if request.outcome is None:  # else",
    ),
    Fault("deltas are sent after the response", "runtime.server", "        request.notify.close()\n", ""),
    Fault(
        "deltas are numbered from 1 after a pause",
        "protocol.framing",
        "        self._seq += len(deltas)",
        "        self._seq += len(deltas) + (len(deltas) > 2)",
        is_quick=True,
    ),
    Fault(
        "a batch is sent before its last response",
        "protocol.session",
        "        if batch is not None:\n            batch.open += 1\n        return [start]",
        "        return [start]",
        is_quick=True,
    ),
    Fault(
        "one more request is taken than the limit",
        "protocol.session",
        "if len(self._in_flight) >= self._max_in_flight:",
        "if len(self._in_flight) > self._max_in_flight:",
    ),
    Fault("a second request with the id of one in flight is started", "protocol.session", "if id in self._in_flight or", "if"),
    Fault("an id is free while its response waits in a batch", "protocol.session", " or id in self._in_batches:", ":"),
    Fault(
        "what waits for a slow client does not wait",
        "runtime.stdio",
        "        while self._queued > limit and not",
        "        while self._queued > limit + 100_000 and not",
    ),
    Fault(
        "a line that is cut by a chunk loses its first part",
        "protocol.framing",
        "        self._line += memoryview(data)[start:end]",
        "        self._line = bytearray(data[start:end])",
        is_quick=True,
    ),
    Fault(
        "a frame that is cut by a chunk is lost",
        "protocol.link_frames",
        "        self._held += memoryview(data)[at:]",
        "        self._held += b''",
    ),
    Fault(
        "what a small write leaves is dropped",
        "runtime.stdio",
        "        if rest:  # all",
        "        if len(rest) == len(data):  # all",
        is_quick=True,
    ),
    Fault(
        "a write that fails is not in the exit code",
        "runtime.stdio",
        "            self.break_off()\n            return\n        self._queued -= count",
        "            self._queued -= count\n            self.break_off()\n            return\n        self._queued -= count",
    ),
    Fault(
        "two writes run at the same time",
        "runtime.stdio",
        "        if not self._scheduled and not self._in_thread:",
        "        if not self._scheduled:",
        is_quick=True,
    ),
    Fault(
        "requests of a lost engine that it never read are not placed again",
        "engines.pool",
        "                self._place(request)\n            else:\n                self._respond(request, engine_lost(",
        "                pass\n            else:\n                self._respond(request, engine_lost(",
    ),
    Fault(
        "requests that wait for an engine are forgotten when one is ready",
        "engines.pool",
        "        self._place_waiting()\n\n    def on_lost",
        "\n    def on_lost",
        is_quick=True,
    ),
    Fault(
        "engines that were paused are not resumed", "engines.pool", "            engine.link.send(Kind.RESUME)", "            pass"
    ),
    Fault(
        "a draining engine does not end",
        "engines.supervisor",
        "if engine.state is State.DRAINING and not engine.requests:",
        "if False:",
        is_quick=True,
    ),
    Fault(
        "a hung engine is not killed",
        "engines.supervisor",
        "            child_processes.kill(engine.pid)\n        engine.link.abort()",
        "            pass",
    ),
    Fault(
        "what a lost engine had reserved stays reserved",
        "budgets.remote_store",
        "        for hold in self._holds.pop(engine, {}).values():",
        "        for hold in ():",
        is_quick=True,
    ),
    Fault(
        "a cancel during the settlement leaves the reservation",
        "budgets.spending",
        "            await self._spending.complete(self._settle_failed(error))",
        "            await self._settle_failed(error)",
    ),
    Fault(
        "a cancel during the reservation leaves it",
        "budgets.spending",
        "            self._in_background(self._release(reserving))",
        "            pass",
    ),
    Fault(
        "a lost engine is not replaced",
        "engines.supervisor",
        "        self._run(self._finish(engine, expected))\n        self.maintain()",
        "        self._run(self._finish(engine, expected))",
    ),
    Fault(
        "a cancelled reload is counted as in flight for ever",
        "runtime.pooled_app",
        "            self._counters.end(outcome.outcome, outcome.chat_path)\n",
        "            if outcome.outcome != 'cancelled':\n                self._counters.end(outcome.outcome, outcome.chat_path)\n",
    ),
    Fault(
        "the response to shutdown does not wait for those in flight",
        "runtime.server",
        "            await self._idle.wait()\n            reading.cancel()",
        "            reading.cancel()",
    ),
    Fault(
        "the deadline timer outlives the timeout", "core.chat_runner", "        clock.stop()  # a slow", "        pass  # a slow"
    ),
    Fault(
        "a delta of a tool call is left out of the text",
        "core.accumulator",
        "            self._content.append(content)\n",
        "            if len(self._content) != 3:\n                self._content.append(content)\n",
    ),
)


@contextlib.contextmanager
def planted(fault: Fault) -> Iterator[None]:
    """Raises ValueError when the module's source has changed, so that the list is kept up to date."""
    module = importlib.import_module(f"bridge_worker.{fault.module}")
    source = inspect.getsource(module)
    if source.count(fault.original) != 1:
        raise ValueError(f"{fault.name}: {fault.module} has the text {source.count(fault.original)} times: {fault.original}")
    with replaced(fault.module, source.replace(fault.original, fault.broken)):
        yield


@contextlib.contextmanager
def replaced(name: str, source: str) -> Iterator[None]:
    """The functions of the module ``name`` have the code of ``source`` within it."""
    module = importlib.import_module(f"bridge_worker.{name}")
    original, changed = _compiled(module, inspect.getsource(module)), _compiled(module, source)
    undo = [one for name, new in changed.items() for one in _take_over(module, name, original.get(name), new)]
    try:
        yield
    finally:
        for owner, member, old in reversed(undo):
            setattr(owner, member, old)


def _compiled(module: types.ModuleType, source: str) -> dict[str, Any]:
    copy = types.ModuleType(module.__name__)
    copy.__file__ = module.__file__
    sys.modules[copy.__name__] = copy  # dataclasses look themselves up
    try:
        exec(compile(source, str(module.__file__), "exec"), copy.__dict__)
    finally:
        sys.modules[copy.__name__] = module
    return vars(copy)


def _take_over(module: types.ModuleType, name: str, original: Any, new: Any) -> Iterator[tuple[Any, str, Any]]:
    """Gives the functions of ``module`` the code of those in the copy, and a changed constant its value: other modules hold them by
    name."""
    old = vars(module).get(name)
    if isinstance(new, int | str | tuple | dict):
        # The values of a table may be functions, which differ in each copy.
        is_changed = new.keys() != original.keys() if isinstance(new, dict) and isinstance(original, dict) else new != original
        for one in list(sys.modules.values()) if is_changed else ():
            if (getattr(one, "__name__", None) or "").startswith("bridge_worker") and vars(one).get(name) is old:
                yield one, name, old
                setattr(one, name, new)
    elif getattr(old, "__module__", None) != module.__name__:
        return
    elif isinstance(old, type):
        for member, function in vars(new).items():
            yield from _take_function(vars(old).get(member), vars(original).get(member), function)
    else:
        yield from _take_function(old, original, new)


def _take_function(old: Any, original: Any, new: Any) -> Iterator[tuple[Any, str, Any]]:
    old, original, new = _function(old), _function(original), _function(new)
    if old is None or new is None or old.__code__.co_freevars != new.__code__.co_freevars:
        return
    yield old, "__code__", old.__code__
    old.__code__ = new.__code__
    for member in ("__defaults__", "__kwdefaults__"):
        if original is not None and _plain(getattr(original, member)) != _plain(changed := getattr(new, member)):
            yield old, member, getattr(old, member)
            setattr(old, member, changed)


def _plain(defaults: Any) -> list[Any]:
    """Those that can be compared."""
    values = defaults.values() if isinstance(defaults, dict) else defaults or ()
    return [value for value in values if value is None or isinstance(value, int | float | str | tuple)]


def _function(value: Any) -> Any:
    """The function of a method, property or decorated function; None for anything else."""
    value = getattr(value, "fget", value)
    value = getattr(value, "__func__", getattr(value, "__wrapped__", value))
    return value if isinstance(value, types.FunctionType) else None


def seeds_needed(fault: Fault, most: int, first: int = 0) -> tuple[int, str] | None:
    """(number of seeds, the invariant that was broken); None when ``most`` do not find it. Call it within `machine.virtual`."""
    with planted(fault):
        for count in range(most):
            outcome = simulate.run(schedules.plan(first + count))
            simulate.collect_garbage(count)
            if outcome.problems:
                return count + 1, outcome.problems[0][0]
    return None


def main(most: int) -> int:
    missed = 0
    with machine.virtual():
        for fault in FAULTS:
            found = seeds_needed(fault, most)
            missed += found is None
            result = f"{found[0]:6,} seeds  {found[1]:13}" if found else f"not found in {most:,} seeds"
            print(f"{result:28}  {fault.module}: {fault.name}", flush=True)
    return bool(missed)
