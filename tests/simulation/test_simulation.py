"""Seeded schedules of the worker's core: new ones, those that have failed before, and faults that must be found."""

from __future__ import annotations

import itertools
import json
import secrets
from collections.abc import Iterator
from dataclasses import replace

import pytest

from bridge_worker import invariants
from tests.simulation import machine, planted, schedules, simulate
from tests.simulation.__main__ import corpus, failures, report
from tests.simulation.diagram import diagram

_SECONDS = 12.0  # of new seeds; bin/simulate runs more
_SAMPLE = [fault for fault in planted.FAULTS if fault.is_quick]
# Coroutines of killed processes are never awaited.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True, scope="module")
def _virtual() -> Iterator[None]:
    with machine.virtual():
        yield


@pytest.mark.rule("INV-1", "INV-2", "RPC-1", "STR-2", "STR-5", "STR-6", "CAN-3", "ENG-2")
def test_new_schedules_break_no_invariant() -> None:
    first = secrets.randbelow(10**12)
    for _, outcome in failures(itertools.count(first), _SECONDS):
        assert outcome is None, report(outcome)


@pytest.mark.parametrize("number", range(len(corpus())))
def test_a_schedule_that_has_failed_before_breaks_no_invariant(number: int) -> None:
    outcome = simulate.run(corpus()[number])
    assert not outcome.problems, diagram(outcome)


def test_one_seed_is_one_schedule() -> None:
    seeds = range(40)
    forwards = [simulate.run(schedules.plan(seed)) for seed in seeds]
    backwards = [simulate.run(schedules.plan(seed)) for seed in reversed(seeds)]
    assert [(one.digest, one.steps) for one in forwards] == [(one.digest, one.steps) for one in reversed(backwards)]


def test_a_plan_is_read_from_its_line() -> None:
    plan = schedules.plan(7)
    again = schedules.from_literal(plan.literal())
    assert simulate.run(again).digest == simulate.run(plan).digest


@pytest.mark.parametrize("fault", _SAMPLE, ids=lambda fault: fault.name.replace(" ", "-"))
def test_a_planted_fault_is_found(fault: planted.Fault) -> None:
    assert planted.seeds_needed(fault, 300), "the simulation no longer sees it; see bin/simulate --planted"


@pytest.mark.parametrize("fault", planted.FAULTS, ids=lambda fault: fault.name.replace(" ", "-"))
def test_each_fault_of_the_list_can_be_planted(fault: planted.Fault) -> None:
    with planted.planted(fault):
        pass


@pytest.mark.rule("INV-3")
def test_a_broken_invariant_is_logged_and_counted_in_status(monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[str] = []
    monkeypatch.setattr(invariants._log, "error", lambda message, **_: logged.append(message))
    fault = next(one for one in planted.FAULTS if one.name == "one more request is taken than the limit")
    with planted.planted(fault):
        plans = (plan for plan in map(schedules.plan, range(400)) if not plan.ends())
        plan = next(plan for plan in plans if simulate.run(plan) and invariants.violations())
        status = (plan.actions[-1][0] + 30, "status", {"jsonrpc": "2.0", "id": "now", "method": "status"})
        outcome = simulate.run(replace(plan, actions=(*plan.actions, status)))
    assert invariants.violations().keys() == {"in_flight"}
    (reported,) = [json.loads(text) for _, direction, text in outcome.transcript if direction == "<" and '"id":"now"' in text]
    assert reported["result"]["violations"] == invariants.violations()
    assert set(logged) == {"invariant broken: no more requests are in flight than the limit"}
